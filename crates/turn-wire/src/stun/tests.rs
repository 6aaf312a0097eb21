use super::*;

/// RFC 5769 section 2.1.
const SAMPLE_REQUEST: &[u8] = b"\
\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x10STUN test client\
\x00\x24\x00\x04\x6e\x00\x01\xff\
\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
\x00\x06\x00\x09evtj:h6vY   \
\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
\x80\x28\x00\x04\xe5\x7a\x3b\xcf";

/// RFC 5769 section 2.2.
const SAMPLE_IPV4_RESPONSE: &[u8] = b"\
\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x0btest vector \
\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
\x80\x28\x00\x04\xc0\x7d\x4c\x96";

/// RFC 5769 section 2.3.
const SAMPLE_IPV6_RESPONSE: &[u8] = b"\
\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x0btest vector \
\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
\x80\x28\x00\x04\xc8\xfb\x0b\x4c";

/// RFC 8489 appendix B.1, as put right by its erratum.
const SAMPLE_SHA256_REQUEST: &[u8] = b"\
\x00\x01\x00\x90\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
\x00\x1e\x00\x20\x4a\x3c\xf3\x8f\xef\x69\x92\xbd\xa9\x52\xc6\x78\x04\x17\xda\x0f\
\x24\x81\x94\x15\x56\x9e\x60\xb2\x05\xc4\x6e\x41\x40\x7f\x17\x04\
\x00\x15\x00\x29obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA\x00\x00\x00\
\x00\x14\x00\x0bexample.org\x00\
\x00\x1d\x00\x04\x00\x02\x00\x00\
\x00\x1c\x00\x20\xb5\xc7\xbf\x00\x5b\x6c\x52\xa2\x1c\x51\xc5\xe8\x92\xf8\x19\x24\
\x13\x62\x96\xcb\x92\x7c\x43\x14\x93\x09\x27\x8c\xc6\x51\x8e\x65";

const ID: [u8; 12] = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

fn kinds(message: &Message<'_>) -> Vec<u16> {
    message.attributes().map(|attribute| attribute.kind.0).collect()
}

#[test]
fn fr6_sample_request_of_rfc_5769_is_read() {
    let message = Message::parse(SAMPLE_REQUEST).unwrap();
    assert_eq!((message.method(), message.class()), (Method::BINDING, Class::Request));
    assert_eq!(message.transaction_id(), TransactionId(ID));
    assert_eq!(kinds(&message), [0x8022, 0x0024, 0x8029, 0x0006]);
    assert_eq!(message.exactly_one(AttributeType::USERNAME).unwrap().value, b"evtj:h6vY");
    assert!(message.has_integrity() && message.has_fingerprint());
}

#[test]
fn cb2_sample_responses_of_rfc_5769_are_read() {
    for (bytes, address) in [
        (SAMPLE_IPV4_RESPONSE, "192.0.2.1:32853"),
        (SAMPLE_IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.method(), message.class()), (Method::BINDING, Class::SuccessResponse));
        assert_eq!(kinds(&message), [0x8022, 0x0020]);
        let mapped = message.exactly_one(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
        assert_eq!(mapped.xor_address(message.transaction_id()), Ok(address.parse().unwrap()));
    }
}

#[test]
fn x15_sample_request_of_rfc_8489_is_read() {
    let message = Message::parse(SAMPLE_SHA256_REQUEST).unwrap();
    assert_eq!(kinds(&message), [0x001e, 0x0015, 0x0014, 0x001d]);
    assert!(message.has_integrity() && !message.has_fingerprint());
}

#[test]
fn fr12_every_flipped_bit_is_found_by_the_fingerprint() {
    for index in 0..SAMPLE_REQUEST.len() {
        for bit in 0..8 {
            let mut bytes = SAMPLE_REQUEST.to_vec();
            bytes[index] ^= 1 << bit;
            // Under a flipped type or length, FINGERPRINT can go unseen; it is never taken for right.
            assert!(Message::parse(&bytes).map_or(true, |message| !message.has_fingerprint()), "{index}");
        }
    }
}

#[test]
fn fr12_fingerprint_is_last() {
    let mut bytes = SAMPLE_IPV4_RESPONSE.to_vec();
    bytes.extend(b"\x80\x22\x00\x00");
    bytes[3] += 4;
    assert_eq!(Message::parse(&bytes).unwrap_err(), Error::FingerprintMismatch);
    let length = bytes.len();
    let crc = crc32(&bytes[..length - 12]) ^ FINGERPRINT_XOR;
    bytes[length - 8..length - 4].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(Message::parse(&bytes).unwrap_err(), Error::FingerprintNotLast);
}

#[test]
fn fr3_every_other_length_is_refused() {
    for length in 0..SAMPLE_IPV4_RESPONSE.len() {
        let error = Message::parse(&SAMPLE_IPV4_RESPONSE[..length]).unwrap_err();
        assert_eq!(error, if length < 20 { Error::TooShort } else { Error::LengthMismatch });
    }
    for trailing in 1..9 {
        let bytes = [SAMPLE_IPV4_RESPONSE, &[0; 9][..trailing]].concat();
        assert_eq!(Message::parse(&bytes).unwrap_err(), Error::LengthMismatch);
    }
    let mut unaligned = [SAMPLE_IPV4_RESPONSE, &[0; 2]].concat();
    unaligned[3] += 2;
    assert_eq!(Message::parse(&unaligned).unwrap_err(), Error::UnalignedLength);
}

#[test]
fn fr4_types_are_taken_apart() {
    for (message_type, method, class) in [
        (0x0001, Method::BINDING, Class::Request),
        (0x0003, Method::ALLOCATE, Class::Request),
        (0x0103, Method::ALLOCATE, Class::SuccessResponse),
        (0x0113, Method::ALLOCATE, Class::ErrorResponse),
        (0x0104, Method::REFRESH, Class::SuccessResponse),
        (0x0016, Method::SEND, Class::Indication),
        (0x0017, Method::DATA, Class::Indication),
        (0x0118, Method::CREATE_PERMISSION, Class::ErrorResponse),
        (0x0109, Method::CHANNEL_BIND, Class::SuccessResponse),
        (0x3fff, Method(0x0fff), Class::ErrorResponse),
    ] {
        let [t0, t1] = u16::to_be_bytes(message_type);
        let mut bytes = SAMPLE_REQUEST.to_vec();
        (bytes[0], bytes[1]) = (t0, t1);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.method, header.class), (method, class), "{message_type:#06x}");
    }
    let types: std::collections::HashSet<_> = (0..0x4000)
        .map(|message_type| (Method::of_type(message_type), Class::of_type(message_type)))
        .collect();
    assert_eq!(types.len(), 0x4000);
}

#[test]
fn values_are_read_by_their_exact_lengths() {
    let attribute = |value| Attribute { kind: AttributeType(7), value };
    let length = Error::ValueLength(AttributeType(7));
    let family = Error::Family(AttributeType(7));

    assert_eq!(attribute(&[0, 0, 2, 0x58]).lifetime(), Ok(600));
    assert_eq!(attribute(&[0x40, 1, 9, 9]).channel_number(), Ok(0x4001));
    assert_eq!(attribute(&[2, 9, 9, 9]).address_family(), Ok(AddressFamily::Ipv6));
    assert_eq!(attribute(&[3, 0, 0, 0]).address_family(), Err(family));
    for value in [&[][..], &[0; 3], &[0; 5]] {
        assert_eq!(attribute(value).lifetime(), Err(length));
        assert_eq!(attribute(value).channel_number(), Err(length));
    }

    assert_eq!(attribute(&[0, 0, 4, 37, b'n', b'o']).error_code(), Ok(437));
    assert_eq!(attribute(&[0xff, 0xff, 0xfc, 0]).error_code(), Ok(400));
    for value in [&[0, 0, 2, 0], &[0, 0, 7, 0], &[0, 0, 4, 100]] {
        assert_eq!(attribute(value).error_code(), Err(Error::ErrorCode));
    }

    for (value, error) in [
        (&[0, 1, 0, 0, 1, 2, 3][..], length),
        (&[0, 2, 0, 0, 1, 2, 3, 4], length),
        (&[0, 1, 0, 0, 1, 2, 3, 4, 5], length),
        (&[0, 1, 0], length),
        (&[0, 0, 0, 0, 1, 2, 3, 4], family),
    ] {
        assert_eq!(attribute(value).xor_address(TransactionId(ID)), Err(error));
    }
}

#[test]
fn a5_nothing_after_the_integrity_is_an_attribute() {
    let header = |length| [&[0, 9, 0, length], &MAGIC_COOKIE_BYTES[..], &ID].concat();
    let channel = [0, 0x0c, 0, 4, 0x40, 0, 0, 0];
    let integrity = [&[0, 0x08, 0, 20][..], &[5; 20]].concat();
    let sha256 = [&[0, 0x1c, 0, 16][..], &[6; 16]].concat();
    for first in [&integrity, &sha256] {
        let bytes = [&header(52)[..], &channel, first, &channel, &sha256].concat();
        let bytes = [&bytes[..3], &[u8::try_from(bytes.len() - 20).unwrap()], &bytes[4..]].concat();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(kinds(&message), [0x000c]);
        assert!(message.has_integrity());
    }

    let short = [&header(8)[..], &[0, 0x08, 0, 4, 0, 0, 0, 0]].concat();
    assert_eq!(Message::parse(&short).unwrap_err(), Error::ValueLength(AttributeType::MESSAGE_INTEGRITY));
}
