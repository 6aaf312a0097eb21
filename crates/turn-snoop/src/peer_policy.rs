use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether data to or from this address may be offloaded at all.
///
/// A server may have its reasons to relay to such an address; the kernel's way does not pass the host's own checks,
/// so it stays shut (RFC 8656 sections 21.2.2 and 21.4).
pub(crate) fn is_allowed(address: SocketAddr) -> bool {
    address.port() != 0
        && match address.ip() {
            IpAddr::V4(address) => is_allowed_v4(address),
            IpAddr::V6(address) => is_allowed_v6(address),
        }
}

fn is_allowed_v4(address: Ipv4Addr) -> bool {
    // All of 0.0.0.0/8 means "this network" (RFC 1122 section 3.2.1.3).
    let is_this_network = address.octets()[0] == 0;
    !(is_this_network
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast())
}

fn is_allowed_v6(address: Ipv6Addr) -> bool {
    let [s0, s1, s2, s3, s4, s5, ..] = address.segments();
    // ::/96 holds the unspecified and the loopback address too (RFC 4291 section 2.5).
    let is_v4_compatible = [s0, s1, s2, s3, s4, s5] == [0; 6];
    let is_v4_mapped = [s0, s1, s2, s3, s4, s5] == [0, 0, 0, 0, 0, 0xffff];
    let is_teredo = [s0, s1] == [0x2001, 0];
    let is_6to4 = s0 == 0x2002;
    !(is_v4_compatible
        || is_v4_mapped
        || is_teredo
        || is_6to4
        || address.is_unicast_link_local()
        || address.is_multicast())
}
