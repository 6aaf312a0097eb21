//! One STUN message.
//!
//! The strict reader accepts exactly what a plain account of the rules accepts, and both read the same values. What a sender
//! writes in good order is read as it was written.

use turn_testkit::turn_client::message::{
    Class, Credentials, FINGERPRINT, LIFETIME, MAGIC_COOKIE, MESSAGE_INTEGRITY, Message, MessageBuilder,
    XOR_PEER_ADDRESS, crc32,
};
use turn_wire::stun::{self, AddressFamily, Attribute, AttributeType};

use crate::bytes::Bytes;

/// The length in the header is made right before the message is read.
pub const REPAIR_LENGTH: u8 = 1;
/// The cookie is.
pub const REPAIR_COOKIE: u8 = 2;
/// The FINGERPRINT is, where the message ends with one.
pub const REPAIR_FINGERPRINT: u8 = 4;
/// The bytes are not a message but choices for a sender that makes one.
pub const BUILD: u8 = 0x80;

const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;

/// Reads an input in both ways. Its first byte says what is repaired.
pub fn check(input: &[u8]) {
    let bytes = &mut Bytes::new(input);
    let repairs = bytes.byte();
    if repairs & BUILD != 0 {
        return written_is_read(bytes, repairs);
    }
    let message = repaired(bytes.rest().to_vec(), repairs);
    let strict = stun::Message::parse(&message);
    let plain = plainly_read(&message);
    match (&strict, &plain) {
        (Ok(strict), Some(plain)) => same(strict, plain),
        (Err(_), None) => {}
        (Ok(_), None) => panic!("accepted what is against the rules: {message:02x?}"),
        (Err(error), Some(_)) => panic!("refused what is in order: {error}: {message:02x?}"),
    }
    if let Ok(header) = stun::Header::parse(&message) {
        let declared = u16::from_be_bytes([message[2], message[3]]);
        assert_eq!((header.length, &header.transaction_id.0[..]), (declared, &message[8..20]));
    }
}

/// The attributes that count, where the message keeps to every rule.
pub fn plainly_read(bytes: &[u8]) -> Option<Message> {
    let mut message = Message::parse(bytes).ok()?;
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let last = message.attributes.len().wrapping_sub(1);
    for (place, (kind, value)) in message.attributes.iter().enumerate() {
        let is_in_order = match *kind {
            MESSAGE_INTEGRITY => value.len() == 20,
            MESSAGE_INTEGRITY_SHA256 => [16, 20, 24, 28, 32].contains(&value.len()),
            FINGERPRINT => place == last && value[..] == fingerprint(&bytes[..bytes.len() - 8]),
            _ => true,
        };
        if !is_in_order {
            return None;
        }
    }
    let is_end = |(kind, _): &(u16, Vec<u8>)| {
        [MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT].contains(kind)
    };
    if let Some(end) = message.attributes.iter().position(is_end) {
        message.attributes.truncate(end);
    }
    Some(message)
}

fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32(covered) ^ 0x5354_554e).to_be_bytes()
}

fn same(strict: &stun::Message<'_>, plain: &Message) {
    let class = match strict.class() {
        stun::Class::Request => Class::Request,
        stun::Class::Indication => Class::Indication,
        stun::Class::SuccessResponse => Class::Success,
        stun::Class::ErrorResponse => Class::Error,
    };
    assert_eq!(
        (strict.method().0, class, strict.transaction_id().0),
        (plain.method, plain.class, plain.transaction)
    );
    let found: Vec<_> =
        strict.attributes().map(|Attribute { kind, value }| (kind.0, value.to_vec())).collect();
    assert_eq!(found, plain.attributes, "the attributes that count");
    for attribute in strict.attributes() {
        same_value(strict, plain, attribute);
        let number = plain.attributes.iter().filter(|(kind, _)| *kind == attribute.kind.0).count();
        let one = strict.exactly_one(attribute.kind);
        assert_eq!(one.is_ok(), number == 1, "{number} of {}", attribute.kind);
        assert_eq!(strict.at_most_one(attribute.kind).is_ok(), number == 1);
    }
    for absent in [0x7fff, 0xffff].into_iter().filter(|kind| plain.attribute(*kind).is_none()) {
        assert_eq!(strict.at_most_one(AttributeType(absent)), Ok(None));
        assert_eq!(
            strict.exactly_one(AttributeType(absent)),
            Err(stun::Error::Missing(AttributeType(absent)))
        );
    }
}

/// Every way to read a value, whatever type it has.
fn same_value(strict: &stun::Message<'_>, plain: &Message, attribute: Attribute<'_>) {
    let value = attribute.value;
    let alone = |kind| Message { attributes: vec![(kind, value.to_vec())], ..plain.clone() };
    let address = alone(XOR_PEER_ADDRESS).xor_address(XOR_PEER_ADDRESS);
    assert_eq!(attribute.xor_address(strict.transaction_id()).ok(), address, "{value:02x?}");
    assert_eq!(attribute.lifetime().ok(), alone(LIFETIME).lifetime(), "{value:02x?}");
    let word: Option<[u8; 4]> = value.try_into().ok();
    assert_eq!(
        attribute.channel_number().ok(),
        word.map(|[high, low, ..]| u16::from(high) << 8 | u16::from(low))
    );
    let family = word.and_then(|[family, ..]| match family {
        1 => Some(AddressFamily::Ipv4),
        2 => Some(AddressFamily::Ipv6),
        _ => None,
    });
    assert_eq!(attribute.address_family().ok(), family, "{value:02x?}");
    let code = match value {
        [_, _, class, number, ..] if (3..=6).contains(&(class & 7)) && *number < 100 => {
            Some(100 * u16::from(class & 7) + u16::from(*number))
        }
        _ => None,
    };
    assert_eq!(attribute.error_code().ok(), code, "{value:02x?}");
}

/// Puts right values where a fuzzer would hardly find them.
pub fn repaired(mut message: Vec<u8>, repairs: u8) -> Vec<u8> {
    if repairs & REPAIR_COOKIE != 0 && message.len() >= 8 {
        message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    }
    if repairs & REPAIR_LENGTH != 0 && message.len() >= 20 {
        let length = (message.len() - 20) as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
    }
    let covered = message.len().saturating_sub(8);
    if repairs & REPAIR_FINGERPRINT != 0
        && covered >= 20
        && message[covered..covered + 4] == [0x80, 0x28, 0, 4]
    {
        let sum = fingerprint(&message[..covered]);
        message[covered + 4..].copy_from_slice(&sum);
    }
    message
}

/// A message that a sender makes: nothing of it is lost, and nothing behind its integrity counts.
fn written_is_read(bytes: &mut Bytes<'_>, repairs: u8) {
    let method = u16::from(bytes.byte() & 0x0f);
    let class = bytes.of(&[Class::Request, Class::Indication, Class::Success, Class::Error]);
    let mut transaction = [0; 12];
    let given = bytes.take(12);
    transaction[..given.len()].copy_from_slice(given);
    let mut builder = MessageBuilder::new(method, class).transaction(transaction).padding(bytes.byte());
    let mut written = Vec::new();
    while !bytes.is_empty() && written.len() < 40 {
        let kind = u16::from(bytes.byte()) << 8 | u16::from(bytes.byte());
        let value = bytes.take(usize::from(bytes.clone().byte()) % 80);
        if ![MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT].contains(&kind) {
            builder = builder.attribute(kind, value);
            written.push((kind, value.to_vec()));
        }
    }
    if repairs & 1 != 0 {
        let credentials = Credentials {
            username: "user".into(),
            password: "secret".into(),
            realm: "lab".into(),
            nonce: b"n".to_vec(),
        };
        builder = builder.credentials(&credentials).after_integrity(LIFETIME, &[0; 4]);
        written.extend([(0x0006, b"user".to_vec()), (0x0014, b"lab".to_vec()), (0x0015, b"n".to_vec())]);
    }
    if repairs & 2 != 0 {
        builder = builder.fingerprint();
    }
    let message = builder.build();
    let read = stun::Message::parse(&message).expect("what is in good order is read");
    let found: Vec<_> = read.attributes().map(|Attribute { kind, value }| (kind.0, value.to_vec())).collect();
    assert_eq!(found, written);
    assert_eq!((read.has_integrity(), read.has_fingerprint()), (repairs & 1 != 0, repairs & 2 != 0));
    assert_eq!((read.method().0, read.transaction_id().0), (method, transaction));
}
