//! Of what others have attached to the same interface.

use super::super::facts::InterfaceFacts;
use super::super::{Check, Group};
use crate::preflight::ip_keyword;

/// All of these, of one interface.
pub fn checks(facts: &InterfaceFacts) -> Vec<Check> {
    vec![xdp_program(facts), tc_ingress(facts), tc_egress(facts)]
}

fn xdp_program(facts: &InterfaceFacts) -> Check {
    let (check, name) =
        (Group::Coexistence.check("xdp_program", &facts.interface.name), &facts.interface.name);
    match (&facts.program, facts.interface.xdp) {
        (Some(program), Some(xdp)) if program.is_ours() => {
            check.pass(format!("turn-bpf's own: {program}, {}", xdp.mode))
        }
        (Some(program), Some(xdp)) => check.warn(
            format!(
                "another XDP program is attached: {program}, {}; turn-bpf goes beside it, at TC",
                xdp.mode
            ),
            format!(
                "to have native mode, stop what attached it, or: ip link set dev {name} {} off",
                ip_keyword(xdp.mode)
            ),
        ),
        _ => check.pass("no other XDP program is attached"),
    }
}

fn tc_ingress(facts: &InterfaceFacts) -> Check {
    let name = &facts.interface.name;
    let check = Group::Coexistence.check("tc_ingress", name);
    let hook = &facts.ingress;
    let all = [hook.in_front(), hook.behind()].concat();
    if all.is_empty() {
        return check.pass("nobody else has a filter or program at TC");
    }
    check.warn(
        format!(
            "{} at TC: what the kernel relays passes by it, unless it is in front in tc mode",
            all.join(", ")
        ),
        format!("if that matters: {}", remove(hook.filters.is_empty(), name, "ingress")),
    )
}

fn tc_egress(facts: &InterfaceFacts) -> Check {
    let name = &facts.interface.name;
    let check = Group::Coexistence.check("tc_egress", name);
    let hook = &facts.egress;
    let (in_front, behind) = (hook.in_front(), hook.behind());
    if !in_front.is_empty() {
        return check.warn(
            format!(
                "{} in front of turn-bpf's program: what does not go on to the next program there (TCX_NEXT) is not seen, and \
                 stays with the server",
                in_front.join(", ")
            ),
            format!("if nothing is relayed: {}", remove(true, name, "egress")),
        );
    }
    if behind.is_empty() {
        return check.pass("nobody else has a filter or program at TC");
    }
    check.warn(
        format!(
            "{} at TC: what the kernel relays passes by it, and what it rewrites goes out as the server sent it",
            behind.join(", ")
        ),
        format!("if that matters: {}", remove(hook.filters.is_empty(), name, "egress")),
    )
}

fn remove(is_tcx: bool, name: &str, hook: &str) -> String {
    match is_tcx {
        true => format!("stop what attached it (bpftool net show dev {name})"),
        false => format!("tc filter del dev {name} {hook}"),
    }
}
