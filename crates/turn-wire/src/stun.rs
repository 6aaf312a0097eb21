//! STUN messages (RFC 8489) and the attributes of TURN (RFC 8656), as a strict reader sees them.
//!
//! The reader accepts what every receiver would read the same way and nothing else: exact lengths, a FINGERPRINT
//! that is last and right, and no attribute after the first MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256. It
//! checks no password: whose word a message is, is for the caller to judge.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The fixed value at offset 4 of every STUN message (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The length of the header before the attributes (RFC 8489 section 5).
pub const HEADER_LEN: usize = 20;

const MAGIC_COOKIE_BYTES: [u8; 4] = MAGIC_COOKIE.to_be_bytes();
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// A STUN message whose structure has been checked from the first byte to the last.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    header: Header,
    attributes: &'a [u8],
    has_integrity: bool,
    has_fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Reads the one message that fills `bytes` (RFC 8489 section 5).
    ///
    /// FINGERPRINT is verified where it is present (RFC 8489 section 14.7).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = Header::parse(bytes)?;
        let (_, body) = bytes.split_at_checked(HEADER_LEN).ok_or(Error::TooShort)?;
        if header.length % 4 != 0 {
            return Err(Error::UnalignedLength);
        }
        if usize::from(header.length) != body.len() {
            return Err(Error::LengthMismatch);
        }

        let mut message = Self { header, attributes: body, has_integrity: false, has_fingerprint: false };
        let mut rest = body;
        while !rest.is_empty() {
            if message.has_fingerprint {
                return Err(Error::FingerprintNotLast);
            }
            let start = rest;
            let (attribute, after) = split_attribute(rest)?;
            rest = after;

            match attribute.kind {
                AttributeType::MESSAGE_INTEGRITY if attribute.value.len() != 20 => {
                    return Err(Error::ValueLength(attribute.kind));
                }
                // A truncated hash of at least 16 bytes, in whole words (RFC 8489 section 14.6).
                AttributeType::MESSAGE_INTEGRITY_SHA256
                    if !(16..=32).contains(&attribute.value.len()) || attribute.value.len() % 4 != 0 =>
                {
                    return Err(Error::ValueLength(attribute.kind));
                }
                AttributeType::MESSAGE_INTEGRITY | AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                    message.end_attributes_at(body, start);
                    message.has_integrity = true;
                }
                AttributeType::FINGERPRINT => {
                    verify_fingerprint(bytes, start, attribute)?;
                    message.end_attributes_at(body, start);
                    message.has_fingerprint = true;
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// What kind of request or answer this is.
    pub fn method(&self) -> Method {
        self.header.method
    }

    /// Request, indication, or which kind of response.
    pub fn class(&self) -> Class {
        self.header.class
    }

    /// The name that a response shares with its request (RFC 8489 section 5).
    pub fn transaction_id(&self) -> TransactionId {
        self.header.transaction_id
    }

    /// Whether MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is present; its value is not checked.
    pub fn has_integrity(&self) -> bool {
        self.has_integrity
    }

    /// Whether a FINGERPRINT is present, which then is right.
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The attributes that count: those before the first MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 or FINGERPRINT.
    ///
    /// What follows the message's integrity has been written by anyone and means nothing (RFC 8489 sections 14.5
    /// and 14.6).
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attributes }
    }

    /// The one attribute of this type, or `None`; two are an error, since servers differ in which one they use.
    pub fn at_most_one(&self, kind: AttributeType) -> Result<Option<Attribute<'a>>, Error> {
        let mut found = self.attributes().filter(|attribute| attribute.kind == kind);
        let first = found.next();
        match found.next() {
            Some(_) => Err(Error::Duplicate(kind)),
            None => Ok(first),
        }
    }

    /// The one attribute of this type; none or two are an error.
    pub fn exactly_one(&self, kind: AttributeType) -> Result<Attribute<'a>, Error> {
        self.at_most_one(kind)?.ok_or(Error::Missing(kind))
    }

    fn end_attributes_at(&mut self, body: &'a [u8], start: &[u8]) {
        if self.has_integrity {
            return;
        }
        let length = body.len().saturating_sub(start.len());
        self.attributes = body.get(..length).unwrap_or_default();
    }
}

/// The fixed 20 bytes of a message (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked or answered.
    pub method: Method,
    /// Request, indication, success or error response.
    pub class: Class,
    /// The length of the attributes as the header declares it.
    pub length: u16,
    /// The transaction's name.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Reads the header, without regard to whether the declared length is that of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Error::TooShort)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction_id @ ..] = *header;
        let message_type = u16::from_be_bytes([t0, t1]);
        if message_type & 0xC000 != 0 {
            return Err(Error::NotStun);
        }
        if [c0, c1, c2, c3] != MAGIC_COOKIE_BYTES {
            return Err(Error::MagicCookie);
        }
        Ok(Self {
            method: Method::of_type(message_type),
            class: Class::of_type(message_type),
            length: u16::from_be_bytes([l0, l1]),
            transaction_id: TransactionId(transaction_id),
        })
    }
}

/// The twelve method bits of a message type (RFC 8489 section 5, RFC 8656 section 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489 section 18.1).
    pub const BINDING: Self = Self(0x001);
    /// Allocate: request and response only (RFC 8656 section 7).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh: request and response only (RFC 8656 section 8).
    pub const REFRESH: Self = Self(0x004);
    /// Send: indication only (RFC 8656 section 11.1).
    pub const SEND: Self = Self(0x006);
    /// Data: indication only (RFC 8656 section 11.3).
    pub const DATA: Self = Self(0x007);
    /// CreatePermission: request and response only (RFC 8656 section 10).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind: request and response only (RFC 8656 section 12).
    pub const CHANNEL_BIND: Self = Self(0x009);

    const fn of_type(message_type: u16) -> Self {
        Self((message_type & 0x000F) | ((message_type & 0x00E0) >> 1) | ((message_type & 0x3E00) >> 2))
    }
}

/// The two class bits of a message type (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// The request was carried out.
    SuccessResponse,
    /// The request was not carried out.
    ErrorResponse,
}

impl Class {
    const fn of_type(message_type: u16) -> Self {
        match (message_type & 0x0100 != 0, message_type & 0x0010 != 0) {
            (false, false) => Self::Request,
            (false, true) => Self::Indication,
            (true, false) => Self::SuccessResponse,
            (true, true) => Self::ErrorResponse,
        }
    }
}

/// The 96 bits that join a response to its request (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

/// The type of an attribute (RFC 8489 section 18.3, RFC 8656 section 18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

impl AttributeType {
    /// MAPPED-ADDRESS (RFC 8489 section 14.1).
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    /// USERNAME (RFC 8489 section 14.3).
    pub const USERNAME: Self = Self(0x0006);
    /// MESSAGE-INTEGRITY (RFC 8489 section 14.5).
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    /// ERROR-CODE (RFC 8489 section 14.8).
    pub const ERROR_CODE: Self = Self(0x0009);
    /// UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13).
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000A);
    /// CHANNEL-NUMBER (RFC 8656 section 18.1).
    pub const CHANNEL_NUMBER: Self = Self(0x000C);
    /// LIFETIME (RFC 8656 section 18.2).
    pub const LIFETIME: Self = Self(0x000D);
    /// XOR-PEER-ADDRESS (RFC 8656 section 18.3).
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    /// DATA (RFC 8656 section 18.4).
    pub const DATA: Self = Self(0x0013);
    /// REALM (RFC 8489 section 14.9).
    pub const REALM: Self = Self(0x0014);
    /// NONCE (RFC 8489 section 14.10).
    pub const NONCE: Self = Self(0x0015);
    /// XOR-RELAYED-ADDRESS (RFC 8656 section 18.5).
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    /// REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    /// EVEN-PORT (RFC 8656 section 18.7).
    pub const EVEN_PORT: Self = Self(0x0018);
    /// REQUESTED-TRANSPORT (RFC 8656 section 18.8).
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    /// DONT-FRAGMENT (RFC 8656 section 18.9).
    pub const DONT_FRAGMENT: Self = Self(0x001A);
    /// ACCESS-TOKEN (RFC 7635 section 6.2).
    pub const ACCESS_TOKEN: Self = Self(0x001B);
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6).
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001C);
    /// PASSWORD-ALGORITHM (RFC 8489 section 14.12).
    pub const PASSWORD_ALGORITHM: Self = Self(0x001D);
    /// USERHASH (RFC 8489 section 14.4).
    pub const USERHASH: Self = Self(0x001E);
    /// XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    /// RESERVATION-TOKEN (RFC 8656 section 18.10).
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    /// SOFTWARE (RFC 8489 section 14.14).
    pub const SOFTWARE: Self = Self(0x8022);
    /// FINGERPRINT (RFC 8489 section 14.7).
    pub const FINGERPRINT: Self = Self(0x8028);
    /// MOBILITY-TICKET (RFC 8016 section 4).
    pub const MOBILITY_TICKET: Self = Self(0x8030);

    /// Whether a receiver that does not know the attribute must not act on the message (RFC 8489 section 14).
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

/// One attribute: its type, and its value without the padding (RFC 8489 section 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The attribute's type.
    pub kind: AttributeType,
    /// The value, of the declared length.
    pub value: &'a [u8],
}

impl Attribute<'_> {
    /// The address of XOR-MAPPED-ADDRESS, XOR-PEER-ADDRESS or XOR-RELAYED-ADDRESS (RFC 8489 section 14.2).
    ///
    /// An IPv6 address is hidden under the transaction id too, so the id must be that of the same message.
    pub fn xor_address(&self, transaction_id: TransactionId) -> Result<SocketAddr, Error> {
        let (&[_, family, p0, p1], address) =
            self.value.split_first_chunk().ok_or(Error::ValueLength(self.kind))?;
        let [k0, k1, ..] = MAGIC_COOKIE_BYTES;
        let port = u16::from_be_bytes([p0 ^ k0, p1 ^ k1]);

        let address = match AddressFamily::of_byte(family).ok_or(Error::Family(self.kind))? {
            AddressFamily::Ipv4 => {
                let hidden: [u8; 4] = address.try_into().map_err(|_| Error::ValueLength(self.kind))?;
                IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes(hidden) ^ MAGIC_COOKIE))
            }
            AddressFamily::Ipv6 => {
                let hidden: [u8; 16] = address.try_into().map_err(|_| Error::ValueLength(self.kind))?;
                IpAddr::V6(Ipv6Addr::from(u128::from_be_bytes(hidden) ^ ipv6_mask(transaction_id)))
            }
        };
        Ok(SocketAddr::new(address, port))
    }

    /// The seconds of LIFETIME (RFC 8656 section 18.2).
    pub fn lifetime(&self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.word()?))
    }

    /// The number of CHANNEL-NUMBER; the two bytes after it are to be ignored (RFC 8656 section 18.1).
    pub fn channel_number(&self) -> Result<u16, Error> {
        let [n0, n1, _, _] = self.word()?;
        Ok(u16::from_be_bytes([n0, n1]))
    }

    /// The family of REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
    pub fn address_family(&self) -> Result<AddressFamily, Error> {
        let [family, _, _, _] = self.word()?;
        AddressFamily::of_byte(family).ok_or(Error::Family(self.kind))
    }

    /// The code of ERROR-CODE, 300 to 699 (RFC 8489 section 14.8).
    pub fn error_code(&self) -> Result<u16, Error> {
        let &[_, _, class, number] = self.value.first_chunk().ok_or(Error::ValueLength(self.kind))?;
        let class = u16::from(class & 0x07);
        if !(3..=6).contains(&class) || number > 99 {
            return Err(Error::ErrorCode);
        }
        Ok(class.saturating_mul(100).saturating_add(u16::from(number)))
    }

    fn word(&self) -> Result<[u8; 4], Error> {
        self.value.try_into().map_err(|_| Error::ValueLength(self.kind))
    }
}

/// The family byte of an address attribute (RFC 8489 section 14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressFamily {
    /// 0x01.
    Ipv4,
    /// 0x02.
    Ipv6,
}

impl AddressFamily {
    /// The family of a socket address.
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::Ipv4,
            SocketAddr::V6(_) => Self::Ipv6,
        }
    }

    const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ipv4),
            0x02 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// Walks the attributes of a message in their order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (attribute, rest) = split_attribute(self.rest).ok()?;
        self.rest = rest;
        Some(attribute)
    }
}

/// Why bytes are not a message, or a message not the one that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Fewer bytes than a header.
    TooShort,
    /// The two top bits are not zero (RFC 8489 section 5).
    NotStun,
    /// The magic cookie is not there (RFC 8489 section 5).
    MagicCookie,
    /// The declared length is not a multiple of four (RFC 8489 section 5).
    UnalignedLength,
    /// The declared length is not the length of what follows the header.
    LengthMismatch,
    /// An attribute reaches beyond the message.
    TruncatedAttribute,
    /// Attributes follow FINGERPRINT (RFC 8489 section 14.7).
    FingerprintNotLast,
    /// FINGERPRINT is not that of this message (RFC 8489 section 14.7).
    FingerprintMismatch,
    /// An attribute is not there.
    Missing(AttributeType),
    /// An attribute is there twice.
    Duplicate(AttributeType),
    /// An attribute's value has a length that its type does not have.
    ValueLength(AttributeType),
    /// An address is neither IPv4 nor IPv6.
    Family(AttributeType),
    /// ERROR-CODE is outside 300 to 699 (RFC 8489 section 14.8).
    ErrorCode,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("shorter than a STUN header"),
            Self::NotStun => f.write_str("the top bits are those of another protocol"),
            Self::MagicCookie => f.write_str("no magic cookie"),
            Self::UnalignedLength => f.write_str("the declared length is not a multiple of four"),
            Self::LengthMismatch => f.write_str("the declared length is not that of the datagram"),
            Self::TruncatedAttribute => f.write_str("an attribute reaches beyond the message"),
            Self::FingerprintNotLast => f.write_str("attributes follow FINGERPRINT"),
            Self::FingerprintMismatch => f.write_str("FINGERPRINT is not that of this message"),
            Self::Missing(kind) => write!(f, "attribute {kind} is missing"),
            Self::Duplicate(kind) => write!(f, "attribute {kind} is there twice"),
            Self::ValueLength(kind) => write!(f, "attribute {kind} has a wrong length"),
            Self::Family(kind) => write!(f, "attribute {kind} has an unknown address family"),
            Self::ErrorCode => f.write_str("ERROR-CODE is outside 300 to 699"),
        }
    }
}

impl core::error::Error for Error {}

fn split_attribute(bytes: &[u8]) -> Result<(Attribute<'_>, &[u8]), Error> {
    let (&[t0, t1, l0, l1], rest) =
        bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>().ok_or(Error::TruncatedAttribute)?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (value, rest) = rest.split_at_checked(length).ok_or(Error::TruncatedAttribute)?;
    let padding = length.wrapping_neg() & 3;
    let (_, rest) = rest.split_at_checked(padding).ok_or(Error::TruncatedAttribute)?;
    Ok((Attribute { kind: AttributeType(u16::from_be_bytes([t0, t1])), value }, rest))
}

fn verify_fingerprint(message: &[u8], start: &[u8], fingerprint: Attribute<'_>) -> Result<(), Error> {
    let declared = u32::from_be_bytes(fingerprint.word()?);
    let covered = message.len().saturating_sub(start.len());
    let covered = message.get(..covered).ok_or(Error::TooShort)?;
    if crc32(covered) ^ FINGERPRINT_XOR == declared { Ok(()) } else { Err(Error::FingerprintMismatch) }
}

fn ipv6_mask(TransactionId(id): TransactionId) -> u128 {
    let [k0, k1, k2, k3] = MAGIC_COOKIE_BYTES;
    let [i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11] = id;
    u128::from_be_bytes([k0, k1, k2, k3, i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11])
}

/// The CRC-32 of ITU V.42, bit by bit: control messages are few and short.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let crc = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let carry = (crc & 1).wrapping_neg();
            (crc >> 1) ^ (POLYNOMIAL & carry)
        })
    });
    !crc
}

#[cfg(test)]
mod tests;
