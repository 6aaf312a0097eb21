//! The Internet checksum (RFC 1071), always in full and never incrementally.

use std::net::IpAddr;

/// The one's complement of the one's complement sum of all 16-bit words; an odd last byte is padded with zero.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum that belongs into a UDP header whose own checksum field is zero (RFC 768, RFC 8200 section 8.1): never
/// zero, since a zero says that there is none.
pub fn udp_checksum(source: IpAddr, destination: IpAddr, datagram: &[u8]) -> u16 {
    let mut pseudo = Vec::with_capacity(40 + datagram.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            pseudo.extend_from_slice(&source.octets());
            pseudo.extend_from_slice(&destination.octets());
            pseudo.extend_from_slice(&[0, 17]);
            pseudo.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            pseudo.extend_from_slice(&source.octets());
            pseudo.extend_from_slice(&destination.octets());
            pseudo.extend_from_slice(&(datagram.len() as u32).to_be_bytes());
            pseudo.extend_from_slice(&[0, 0, 0, 17]);
        }
        _ => panic!("one datagram, one address family: {source} -> {destination}"),
    }
    pseudo.extend_from_slice(datagram);
    match internet_checksum(&pseudo) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_is_the_high_half_of_a_word() {
        assert_eq!(internet_checksum(&[0x12, 0x34, 0x56]), internet_checksum(&[0x12, 0x34, 0x56, 0x00]));
    }

    #[test]
    fn a_zero_sum_is_sent_as_all_ones() {
        let [a, b] = ["198.18.0.1".parse().unwrap(), "198.18.0.2".parse().unwrap()];
        let mut datagram = vec![0, 1, 0, 2, 0, 10, 0, 0, 0, 0];
        let sum = udp_checksum(a, b, &datagram);
        datagram[8..].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(udp_checksum(a, b, &datagram), 0xffff);
    }
}
