use std::net::SocketAddr;
use std::time::Duration;

use turn_wire::stun::{AddressFamily, AttributeType, Message};

use crate::Refusal;
use crate::content::{RESPONSE_ATTRIBUTES, has_mobility_ticket, refuse_unknown_attributes};

/// Servers should grant at most an hour (RFC 8656 section 7.2); nobody is believed for longer than this.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// What an Allocate success says (RFC 8656 section 7.2).
#[derive(Debug)]
pub(crate) struct Grant {
    /// One or two, of different families.
    pub(crate) relayed: Vec<SocketAddr>,
    pub(crate) lifetime: Duration,
    pub(crate) is_mobile: bool,
}

impl Grant {
    pub(crate) fn of_allocate_success(message: &Message<'_>) -> Result<Self, Refusal> {
        refuse_unknown_attributes(message, RESPONSE_ATTRIBUTES)?;
        // It must be there, but behind address translation it is not the address that the client has here.
        message.exactly_one(AttributeType::XOR_MAPPED_ADDRESS)?.xor_address(message.transaction_id())?;
        let lifetime = lifetime(message)?;
        if lifetime.is_zero() {
            return Err(Refusal::NoLifetime);
        }
        Ok(Self { relayed: relayed_addresses(message)?, lifetime, is_mobile: has_mobility_ticket(message) })
    }
}

/// The time-to-expiry that the server grants (RFC 8656 sections 7.2 and 8.2).
pub(crate) fn lifetime(message: &Message<'_>) -> Result<Duration, Refusal> {
    let seconds = message.exactly_one(AttributeType::LIFETIME)?.lifetime()?;
    Ok(Duration::from_secs(seconds.into()).min(LIFETIME_MAX))
}

fn relayed_addresses(message: &Message<'_>) -> Result<Vec<SocketAddr>, Refusal> {
    let mut relayed: Vec<SocketAddr> = Vec::new();
    for attribute in message.attributes() {
        if attribute.kind != AttributeType::XOR_RELAYED_ADDRESS {
            continue;
        }
        let address = attribute.xor_address(message.transaction_id())?;
        if address.ip().is_unspecified() || address.port() == 0 {
            return Err(Refusal::BadRelayedAddress);
        }
        if relayed.iter().any(|other| AddressFamily::of(other) == AddressFamily::of(&address)) {
            return Err(Refusal::TooManyRelayedAddresses);
        }
        relayed.push(address);
    }
    if relayed.is_empty() { Err(Refusal::MissingAttribute) } else { Ok(relayed) }
}
