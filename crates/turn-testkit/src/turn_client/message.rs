//! STUN messages (RFC 8489) and TURN attributes (RFC 8656), written and read for tests: a message can be made as odd as a test
//! wants it. Shares nothing with the parser under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use thiserror::Error;

/// The magic cookie.
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

/// Binding.
pub const METHOD_BINDING: u16 = 0x001;
/// Allocate.
pub const METHOD_ALLOCATE: u16 = 0x003;
/// Refresh.
pub const METHOD_REFRESH: u16 = 0x004;
/// Send, an indication.
pub const METHOD_SEND: u16 = 0x006;
/// Data, an indication.
pub const METHOD_DATA: u16 = 0x007;
/// CreatePermission.
pub const METHOD_CREATE_PERMISSION: u16 = 0x008;
/// ChannelBind.
pub const METHOD_CHANNEL_BIND: u16 = 0x009;

/// USERNAME.
pub const USERNAME: u16 = 0x0006;
/// MESSAGE-INTEGRITY.
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// ERROR-CODE.
pub const ERROR_CODE: u16 = 0x0009;
/// CHANNEL-NUMBER.
pub const CHANNEL_NUMBER: u16 = 0x000c;
/// LIFETIME.
pub const LIFETIME: u16 = 0x000d;
/// XOR-PEER-ADDRESS.
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// DATA.
pub const DATA: u16 = 0x0013;
/// REALM.
pub const REALM: u16 = 0x0014;
/// NONCE.
pub const NONCE: u16 = 0x0015;
/// XOR-RELAYED-ADDRESS.
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
/// REQUESTED-ADDRESS-FAMILY.
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
/// REQUESTED-TRANSPORT.
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
/// XOR-MAPPED-ADDRESS.
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// ADDITIONAL-ADDRESS-FAMILY.
pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
/// The number that ADDITIONAL-ADDRESS-FAMILY had in a draft (draft-martinsen-tram-ssoda), and has in coturn 4.6.
pub const ADDITIONAL_ADDRESS_FAMILY_OF_DRAFT: u16 = 0x8032;
/// FINGERPRINT.
pub const FINGERPRINT: u16 = 0x8028;

/// A transaction id.
pub type TransactionId = [u8; 12];

/// A fresh random transaction id.
pub fn random_transaction_id() -> TransactionId {
    let mut id = [0; 12];
    let got = rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(id.len()), "getrandom");
    id
}

/// The two class bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Request.
    Request,
    /// Indication.
    Indication,
    /// Success response.
    Success,
    /// Error response.
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0x000,
            Self::Indication => 0x010,
            Self::Success => 0x100,
            Self::Error => 0x110,
        }
    }
}

/// The message type field of a method below 0x10 and a class.
pub const fn message_type(method: u16, class: Class) -> u16 {
    method & 0x0f | class.bits()
}

/// What a request is signed with (RFC 8489 section 9.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// USERNAME.
    pub username: String,
    /// Its password.
    pub password: String,
    /// REALM, as the server named it.
    pub realm: String,
    /// NONCE, as the server named it.
    pub nonce: Vec<u8>,
}

impl Credentials {
    fn key(&self) -> [u8; 16] {
        Md5::digest(format!("{}:{}:{}", self.username, self.realm, self.password)).into()
    }
}

/// A message in the making. Attributes go out in the order of the calls; then USERNAME, REALM, NONCE and MESSAGE-INTEGRITY if
/// there are credentials, then the attributes for behind it, then FINGERPRINT.
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    message_type: u16,
    transaction: TransactionId,
    attributes: Vec<(u16, Vec<u8>)>,
    credentials: Option<Credentials>,
    broken_integrity: bool,
    after_integrity: Vec<(u16, Vec<u8>)>,
    fingerprint: bool,
    padding: u8,
}

impl MessageBuilder {
    /// An empty message with a random transaction id.
    pub fn new(method: u16, class: Class) -> Self {
        Self {
            message_type: message_type(method, class),
            transaction: random_transaction_id(),
            attributes: Vec::new(),
            credentials: None,
            broken_integrity: false,
            after_integrity: Vec::new(),
            fingerprint: false,
            padding: 0,
        }
    }

    /// Uses this transaction id. Call it before adding addresses: IPv6 addresses are obscured with it.
    pub fn transaction(mut self, transaction: TransactionId) -> Self {
        self.transaction = transaction;
        self
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction
    }

    /// Any attribute, as often as it is called.
    pub fn attribute(mut self, attribute: u16, value: &[u8]) -> Self {
        self.attributes.push((attribute, value.to_vec()));
        self
    }

    /// An XOR-...-ADDRESS attribute.
    pub fn xor_address(self, attribute: u16, address: SocketAddr) -> Self {
        let value = self.encode_address(address);
        self.attribute(attribute, &value)
    }

    /// CHANNEL-NUMBER.
    pub fn channel_number(self, channel: u16) -> Self {
        let [high, low] = channel.to_be_bytes();
        self.attribute(CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    /// LIFETIME in seconds.
    pub fn lifetime(self, seconds: u32) -> Self {
        self.attribute(LIFETIME, &seconds.to_be_bytes())
    }

    /// Adds USERNAME, REALM, NONCE and MESSAGE-INTEGRITY.
    pub fn credentials(mut self, credentials: &Credentials) -> Self {
        self.credentials = Some(credentials.clone());
        self
    }

    /// Makes the MESSAGE-INTEGRITY wrong.
    pub fn broken_integrity(mut self) -> Self {
        self.broken_integrity = true;
        self
    }

    /// An attribute behind MESSAGE-INTEGRITY, where receivers have to ignore it.
    pub fn after_integrity(mut self, attribute: u16, value: &[u8]) -> Self {
        self.after_integrity.push((attribute, value.to_vec()));
        self
    }

    /// An XOR-...-ADDRESS attribute behind MESSAGE-INTEGRITY.
    pub fn xor_address_after_integrity(self, attribute: u16, address: SocketAddr) -> Self {
        let value = self.encode_address(address);
        self.after_integrity(attribute, &value)
    }

    /// Adds FINGERPRINT.
    pub fn fingerprint(mut self) -> Self {
        self.fingerprint = true;
        self
    }

    /// Fills attributes up with this byte, which receivers have to ignore.
    pub fn padding(mut self, padding: u8) -> Self {
        self.padding = padding;
        self
    }

    /// The message.
    pub fn build(&self) -> Vec<u8> {
        let mut message = self.message_type.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0]);
        message.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        message.extend_from_slice(&self.transaction);
        for (attribute, value) in &self.attributes {
            append(&mut message, *attribute, value);
            let end = message.len();
            message[end - (value.len().next_multiple_of(4) - value.len())..].fill(self.padding);
        }
        if let Some(credentials) = &self.credentials {
            append(&mut message, USERNAME, credentials.username.as_bytes());
            append(&mut message, REALM, credentials.realm.as_bytes());
            append(&mut message, NONCE, &credentials.nonce);
            set_length(&mut message, 24);
            let mut sum: [u8; 20] = hmac_sha1(&credentials.key(), &message);
            sum[0] ^= u8::from(self.broken_integrity);
            append(&mut message, MESSAGE_INTEGRITY, &sum);
        }
        for (attribute, value) in &self.after_integrity {
            append(&mut message, *attribute, value);
        }
        if self.fingerprint {
            set_length(&mut message, 8);
            let sum = crc32(&message) ^ 0x5354_554e;
            append(&mut message, FINGERPRINT, &sum.to_be_bytes());
        }
        set_length(&mut message, 0);
        message
    }

    fn encode_address(&self, address: SocketAddr) -> Vec<u8> {
        let mask = address_mask(&self.transaction);
        let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
        let (family, octets) = match address.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mut value = vec![0, family];
        value.extend_from_slice(&port.to_be_bytes());
        value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
        value
    }
}

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotStun {
    /// Too short, or the top two bits or the magic cookie are not STUN's.
    #[error("no STUN header")]
    Header,
    /// The length field does not fit.
    #[error("length field is {declared}, but {present} bytes follow the header")]
    Length {
        /// In the header.
        declared: u16,
        /// In the datagram.
        present: usize,
    },
    /// An attribute reaches beyond the end.
    #[error("attribute {0:#06x} reaches beyond the end")]
    Attribute(u16),
}

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method.
    pub method: u16,
    /// Class.
    pub class: Class,
    /// Transaction id.
    pub transaction: TransactionId,
    /// Type and value of each attribute.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// Reads a whole datagram.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotStun> {
        let (header, mut rest) = datagram.split_first_chunk::<20>().ok_or(NotStun::Header)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let declared = u16::from_be_bytes([header[2], header[3]]);
        if kind & 0xc000 != 0 || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(NotStun::Header);
        }
        if usize::from(declared) != rest.len() {
            return Err(NotStun::Length { declared, present: rest.len() });
        }
        let class = match kind & 0x110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        };
        let method = kind & 0x000f | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2;
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&header[8..]);
        let mut attributes = Vec::new();
        while let Some(([t0, t1, l0, l1], value)) = rest.split_first_chunk() {
            let attribute = u16::from_be_bytes([*t0, *t1]);
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (padded, after) =
                value.split_at_checked(length.next_multiple_of(4)).ok_or(NotStun::Attribute(attribute))?;
            attributes.push((attribute, padded[..length].to_vec()));
            rest = after;
        }
        Ok(Self { method, class, transaction, attributes })
    }

    /// The first attribute of a type.
    pub fn attribute(&self, attribute: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == attribute).map(|(_, value)| value.as_slice())
    }

    /// The first XOR-...-ADDRESS attribute of a type.
    pub fn xor_address(&self, attribute: u16) -> Option<SocketAddr> {
        self.xor_addresses(attribute).next()
    }

    /// All XOR-...-ADDRESS attributes of a type that can be read.
    pub fn xor_addresses(&self, attribute: u16) -> impl Iterator<Item = SocketAddr> {
        let values = self.attributes.iter().filter(move |(found, _)| *found == attribute);
        values.filter_map(|(_, value)| self.decode_address(value))
    }

    fn decode_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let ([_, family, p0, p1], obscured) = value.split_first_chunk()?;
        if obscured.len() > 16 {
            return None;
        }
        let port = u16::from_be_bytes([*p0, *p1]) ^ (MAGIC_COOKIE >> 16) as u16;
        let octets: Vec<u8> =
            obscured.iter().zip(address_mask(&self.transaction)).map(|(octet, mask)| octet ^ mask).collect();
        let ip: IpAddr = match family {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
            2 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// LIFETIME in seconds.
    pub fn lifetime(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.attribute(LIFETIME)?.try_into().ok()?))
    }

    /// The number of ERROR-CODE.
    pub fn error_code(&self) -> Option<u16> {
        let value = self.attribute(ERROR_CODE)?;
        Some(u16::from(value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }
}

fn address_mask(transaction: &TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(transaction);
    mask
}

fn append(message: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    message.extend_from_slice(&attribute.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Sets the length field to what is there and `more` bytes.
fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    let mut hmac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes a key of any length");
    hmac.update(message);
    hmac.finalize().into_bytes().into()
}

/// CRC-32 of ITU V.42, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.4: request with long-term authentication.
    #[test]
    fn the_signed_request_of_rfc_5769() {
        let credentials = Credentials {
            username: "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".into(),
            password: "TheMatrIX".into(),
            realm: "example.org".into(),
            nonce: b"f//499k954d6OL34oL9FSTvy64sA".to_vec(),
        };
        let transaction = [0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e];
        // The vector has the order USERNAME, NONCE, REALM, so only the key and the HMAC are compared.
        let mut message = vec![0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42];
        message.extend_from_slice(&transaction);
        append(&mut message, USERNAME, credentials.username.as_bytes());
        append(&mut message, NONCE, &credentials.nonce);
        append(&mut message, REALM, credentials.realm.as_bytes());
        let expected = [
            0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2,
            0x8c, 0xa8, 0x96, 0x66,
        ];
        assert_eq!(hmac_sha1(&credentials.key(), &message), expected);
    }

    #[test]
    fn the_check_value_of_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_was_built_is_read() {
        for peer in [crate::role::PEER, crate::role::PEER_V6] {
            let builder = MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Request)
                .channel_number(0x4001)
                .xor_address(XOR_PEER_ADDRESS, peer)
                .credentials(&Credentials {
                    username: "u".into(),
                    password: "p".into(),
                    realm: "r".into(),
                    nonce: b"n".to_vec(),
                })
                .after_integrity(LIFETIME, &[0; 4])
                .fingerprint();
            let message = Message::parse(&builder.build()).unwrap();
            assert_eq!((message.method, message.class), (METHOD_CHANNEL_BIND, Class::Request));
            assert_eq!(message.transaction, builder.transaction_id());
            assert_eq!(message.xor_address(XOR_PEER_ADDRESS), Some(peer));
            let order: Vec<u16> = message.attributes.iter().map(|(attribute, _)| *attribute).collect();
            assert_eq!(
                order,
                [
                    CHANNEL_NUMBER,
                    XOR_PEER_ADDRESS,
                    USERNAME,
                    REALM,
                    NONCE,
                    MESSAGE_INTEGRITY,
                    LIFETIME,
                    FINGERPRINT
                ]
            );
        }
    }
}
