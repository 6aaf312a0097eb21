//! Generic netlink: families that have a name instead of a number.

use std::io;

use crate::netlink::{self, Message, Socket, attribute, attributes};

/// The number that this kernel has given a family. `None` if it has no such family.
pub async fn family_id(socket: &Socket, name: &str) -> Result<Option<u16>, netlink::Error> {
    let wanted = attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), b"\0"].concat());
    match socket.ask(GENL_ID_CTRL, &request(CTRL_CMD_GETFAMILY, CTRL_VERSION, &wanted)).await {
        Ok(answer) => Ok(answer.iter().find_map(parse_family_id)),
        Err(netlink::Error::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A `genlmsghdr` and its attributes.
pub fn request(command: u8, version: u8, attributes: &[u8]) -> Vec<u8> {
    [&[command, version, 0, 0], attributes].concat()
}

/// The value of an attribute of an answer.
pub fn value_of(message: &Message, wanted: u16) -> Option<&[u8]> {
    let attributes_at = message.body.get(GENL_HEADER_LEN..)?;
    attributes(attributes_at).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn parse_family_id(message: &Message) -> Option<u16> {
    Some(u16::from_ne_bytes(*value_of(message, CTRL_ATTR_FAMILY_ID)?.first_chunk()?))
}

// include/uapi/linux/genetlink.h
const GENL_HEADER_LEN: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_VERSION: u8 = 2;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
