use std::net::SocketAddr;

use turn_wire::stun::{AddressFamily, AttributeType, Message};

use crate::Refusal;

/// What a request asks for, without what may change from one retransmission to the next (RFC 7982).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    ChannelBind { channel: u16, peer: SocketAddr },
    Refresh { lifetime: Option<u32>, family: Option<AddressFamily>, has_ticket: bool },
}

impl Content {
    /// Reads a ChannelBind request (RFC 8656 section 12.1).
    pub(crate) fn of_channel_bind(message: &Message<'_>) -> Result<Self, Refusal> {
        refuse_unknown_attributes(message, REQUEST_ATTRIBUTES)?;
        let channel = message.exactly_one(AttributeType::CHANNEL_NUMBER)?.channel_number()?;
        let peer =
            message.exactly_one(AttributeType::XOR_PEER_ADDRESS)?.xor_address(message.transaction_id())?;
        if channel & 0xC000 != 0x4000 {
            return Err(Refusal::ChannelNumberOutOfRange);
        }
        Ok(Self::ChannelBind { channel, peer })
    }

    /// Reads a Refresh request (RFC 8656 section 8.1, RFC 8016 section 3.2.1).
    pub(crate) fn of_refresh(message: &Message<'_>) -> Result<Self, Refusal> {
        refuse_unknown_attributes(message, REQUEST_ATTRIBUTES)?;
        let lifetime =
            message.at_most_one(AttributeType::LIFETIME)?.map(|lifetime| lifetime.lifetime()).transpose()?;
        let family = message
            .at_most_one(AttributeType::REQUESTED_ADDRESS_FAMILY)?
            .map(|family| family.address_family())
            .transpose()?;
        Ok(Self::Refresh { lifetime, family, has_ticket: has_mobility_ticket(message) })
    }
}

/// Whether the message carries a MOBILITY-TICKET (RFC 8016 section 4).
pub(crate) fn has_mobility_ticket(message: &Message<'_>) -> bool {
    message.attributes().any(|attribute| attribute.kind == AttributeType::MOBILITY_TICKET)
}

/// A client or server may give a message another meaning by an attribute that is not known here.
pub(crate) fn refuse_unknown_attributes(
    message: &Message<'_>,
    known: &[AttributeType],
) -> Result<(), Refusal> {
    let mut attributes = message.attributes();
    if attributes
        .any(|attribute| attribute.kind.is_comprehension_required() && !known.contains(&attribute.kind))
    {
        return Err(Refusal::UnknownRequiredAttribute);
    }
    Ok(())
}

/// The comprehension-required attributes of TURN requests and of their authentication.
const REQUEST_ATTRIBUTES: &[AttributeType] = &[
    AttributeType::USERNAME,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::DONT_FRAGMENT,
    AttributeType::ACCESS_TOKEN,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::USERHASH,
    AttributeType::RESERVATION_TOKEN,
];

/// The comprehension-required attributes that servers put into success responses, some of them needlessly.
pub(crate) const RESPONSE_ATTRIBUTES: &[AttributeType] = &[
    AttributeType::MAPPED_ADDRESS,
    AttributeType::USERNAME,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::XOR_RELAYED_ADDRESS,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::USERHASH,
    AttributeType::XOR_MAPPED_ADDRESS,
    AttributeType::RESERVATION_TOKEN,
];
