//! Builds STUN messages from their description in RFC 8489 and RFC 8656, sharing no code with the reader.

use std::net::SocketAddr;

pub const ALLOCATE_REQUEST: u16 = 0x0003;
pub const ALLOCATE_SUCCESS: u16 = 0x0103;
pub const ALLOCATE_ERROR: u16 = 0x0113;
pub const REFRESH_REQUEST: u16 = 0x0004;
pub const REFRESH_SUCCESS: u16 = 0x0104;
pub const CREATE_PERMISSION_SUCCESS: u16 = 0x0108;
pub const REFRESH_ERROR: u16 = 0x0114;
pub const SEND_INDICATION: u16 = 0x0016;
pub const DATA_INDICATION: u16 = 0x0017;
pub const CREATE_PERMISSION_REQUEST: u16 = 0x0008;
pub const CREATE_PERMISSION_ERROR: u16 = 0x0118;
pub const CHANNEL_BIND_REQUEST: u16 = 0x0009;
pub const CHANNEL_BIND_SUCCESS: u16 = 0x0109;
pub const CHANNEL_BIND_ERROR: u16 = 0x0119;
pub const BINDING_REQUEST: u16 = 0x0001;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A transaction id; the tests need few.
pub type Id = u8;

#[derive(Clone)]
pub struct Message {
    kind: u16,
    id: [u8; 12],
    attributes: Vec<u8>,
}

impl Message {
    pub fn new(kind: u16, id: Id) -> Self {
        Self { kind, id: [id; 12], attributes: Vec::new() }
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes.extend(kind.to_be_bytes());
        self.attributes.extend(u16::try_from(value.len()).expect("short value").to_be_bytes());
        self.attributes.extend(value);
        while !self.attributes.len().is_multiple_of(4) {
            self.attributes.push(b' ');
        }
        self
    }

    pub fn channel(self, number: u16) -> Self {
        let [n0, n1] = number.to_be_bytes();
        self.attribute(0x000c, &[n0, n1, 0, 0])
    }

    pub fn peer(self, peer: SocketAddr) -> Self {
        let value = self.xor(peer);
        self.attribute(0x0012, &value)
    }

    pub fn relayed(self, relayed: SocketAddr) -> Self {
        let value = self.xor(relayed);
        self.attribute(0x0016, &value)
    }

    pub fn mapped(self, mapped: SocketAddr) -> Self {
        let value = self.xor(mapped);
        self.attribute(0x0020, &value)
    }

    pub fn lifetime(self, seconds: u32) -> Self {
        self.attribute(0x000d, &seconds.to_be_bytes())
    }

    pub fn family(self, family: u8) -> Self {
        self.attribute(0x0017, &[family, 0, 0, 0])
    }

    pub fn error(self, code: u16) -> Self {
        let [class, number] = [code / 100, code % 100].map(|part| u8::try_from(part).expect("three digits"));
        self.attribute(0x0009, &[0, 0, class, number, b'n', b'o'])
    }

    pub fn ticket(self) -> Self {
        self.attribute(0x8030, b"ticket")
    }

    pub fn credentials(self) -> Self {
        self.attribute(0x0006, b"user").attribute(0x0014, b"lab").attribute(0x0015, b"a nonce")
    }

    pub fn integrity(self) -> Self {
        self.attribute(0x0008, &[0x55; 20])
    }

    pub fn integrity_sha256(self) -> Self {
        self.attribute(0x001c, &[0x66; 32])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(u16::try_from(self.attributes.len()).expect("short message").to_be_bytes());
        bytes.extend(COOKIE);
        bytes.extend(self.id);
        bytes.extend(&self.attributes);
        bytes
    }

    /// With a FINGERPRINT that is wrong by the bits of `flaw`.
    pub fn fingerprint(self, flaw: u32) -> Self {
        let with_zero = self.clone().attribute(0x8028, &[0; 4]).bytes();
        let crc = crc32(&with_zero[..with_zero.len() - 8]);
        self.attribute(0x8028, &(crc ^ 0x5354_554e ^ flaw).to_be_bytes())
    }

    /// The value of an XOR address attribute of this message.
    pub fn xor(&self, address: SocketAddr) -> Vec<u8> {
        let (family, octets) = match address {
            SocketAddr::V4(address) => (1, address.ip().octets().to_vec()),
            SocketAddr::V6(address) => (2, address.ip().octets().to_vec()),
        };
        let mask = COOKIE.iter().chain(&self.id);
        let port = address.port() ^ 0x2112;
        let mut value = vec![0, family];
        value.extend(port.to_be_bytes());
        value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
        value
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = 0xffff_ffff_u32;
    for byte in bytes {
        for bit in 0..8 {
            let differs = (crc ^ u32::from(byte >> bit)) & 1 == 1;
            crc >>= 1;
            if differs {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}
