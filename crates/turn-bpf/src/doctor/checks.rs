//! One function for each check: facts in, one line of the report out.

mod coexistence;
mod firewall;
mod interface;
mod kernel;
mod privileges;
mod server;
mod settings;
#[cfg(test)]
mod tests;

use super::{Check, CoturnConfig, Facts};

/// All checks.
pub fn all(facts: &Facts) -> Vec<Check> {
    let named: Vec<_> = facts.named.iter().flatten().map(|facts| facts.interface.name.as_str()).collect();
    let of_interfaces = facts.named.iter().flat_map(|found| match found {
        Ok(found) => {
            [interface::checks(found, &named), coexistence::checks(found), firewall::of_interface(found)]
                .concat()
        }
        Err(unknown) => vec![interface::missing(unknown)],
    });
    let of_machine =
        [kernel::checks(facts), privileges::checks(facts), server::checks(facts), firewall::checks(facts)];
    let coturn = facts.coturn.iter().flat_map(|coturn: &CoturnConfig| coturn.checks(&facts.addresses));
    of_machine.concat().into_iter().chain(of_interfaces).chain(coturn).collect()
}
