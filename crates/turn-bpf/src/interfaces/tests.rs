use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

#[test]
fn a_link_is_read_from_its_message() {
    let nested_kind = attribute(IFLA_INFO_KIND, b"veth\0");
    let nested_xdp = [
        attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_DRV]),
        attribute(IFLA_XDP_PROG_ID, &37_u32.to_ne_bytes()),
    ];
    let body = [
        ifinfomsg(ARPHRD_ETHER, 7, IFF_UP | IFF_LOWER_UP | 0x1000),
        attribute(IFLA_IFNAME, b"veth0\0"),
        attribute(IFLA_MTU, &1500_u32.to_ne_bytes()),
        attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
        attribute(IFLA_LINK, &8_u32.to_ne_bytes()),
        attribute(IFLA_LINKINFO, &nested_kind),
        attribute(IFLA_XDP, &nested_xdp.concat()),
        attribute(0x3000, b"an attribute of a newer kernel"),
    ];
    let expected = Interface {
        name: "veth0".into(),
        ifindex: 7,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, 1]),
        is_up: true,
        has_carrier: true,
        is_ethernet: true,
        kind: Some("veth".into()),
        lower_ifindex: Some(8),
        master_ifindex: None,
        xdp: Some(AttachedXdp { mode: AttachedMode::Native, program_id: 37 }),
    };
    assert_eq!(Interface::parse(&body.concat()), Some(expected));
}

#[test]
fn a_link_without_ethernet_without_address_and_down() {
    const ARPHRD_NONE: u16 = 0xfffe;
    let detached = attribute(IFLA_XDP_ATTACHED, &[0]);
    let body =
        [ifinfomsg(ARPHRD_NONE, 9, 0), attribute(IFLA_IFNAME, b"tun0\0"), attribute(IFLA_XDP, &detached)];
    let interface = Interface::parse(&body.concat()).unwrap();
    assert!(!interface.is_up && !interface.is_ethernet);
    assert_eq!((interface.mac, interface.kind, interface.xdp), (None, None, None));
}

#[test]
fn the_other_end_in_another_namespace_has_no_index_here() {
    let body = [
        ifinfomsg(ARPHRD_ETHER, 7, 0),
        attribute(IFLA_IFNAME, b"veth0\0"),
        attribute(IFLA_LINK, &2_u32.to_ne_bytes()),
        attribute(IFLA_LINK_NETNSID, &0_u32.to_ne_bytes()),
    ];
    assert_eq!(Interface::parse(&body.concat()).unwrap().lower_ifindex, None);
}

#[test]
fn a_link_that_is_cut_off_or_nameless_is_left_out() {
    let header = ifinfomsg(ARPHRD_ETHER, 7, 0);
    for cut in 0..=header.len() {
        assert_eq!(Interface::parse(&header[..cut]), None, "{cut} bytes");
    }
}

#[test]
fn programs_in_several_modes_have_the_drivers_id() {
    let nested = [
        attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_MULTI]),
        attribute(IFLA_XDP_SKB_PROG_ID, &5_u32.to_ne_bytes()),
        attribute(IFLA_XDP_DRV_PROG_ID, &4_u32.to_ne_bytes()),
    ];
    let expected = AttachedXdp { mode: AttachedMode::Several, program_id: 4 };
    assert_eq!(AttachedXdp::parse(&nested.concat()), Some(expected));
}

#[test]
fn an_address_is_ours_not_the_other_sides() {
    let header = vec![0; IFADDRMSG_LEN];
    let ours = Ipv4Addr::new(198, 18, 0, 1);
    let local = attribute(IFA_LOCAL, &ours.octets());
    let other_side = attribute(IFA_ADDRESS, &[198, 18, 0, 2]);
    let body = [header.clone(), other_side, local].concat();
    assert_eq!(parse_address(&body), Some(ours.into()));

    let ours: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let body = [header.clone(), attribute(IFA_ADDRESS, &ours.octets())].concat();
    assert_eq!(parse_address(&body), Some(ours.into()));

    assert_eq!(parse_address(&header), None);
    assert_eq!(parse_address(&[header, attribute(IFA_LOCAL, &[1, 2, 3])].concat()), None);
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let known = ["lo", "eth0"].map(|name| {
        let body = [ifinfomsg(ARPHRD_ETHER, 1, 0), attribute(IFLA_IFNAME, name.as_bytes())];
        Interface::parse(&body.concat()).unwrap()
    });
    assert_eq!(find(&known, "eth0").unwrap().name, "eth0");
    let error = find(&known, "eht0").unwrap_err();
    assert_eq!(error.to_string(), "no network interface is called eht0 here; there are: lo, eth0");
}

#[tokio::test]
async fn loopback_is_everywhere() {
    let interfaces = list().await.unwrap();
    let loopback = find(&interfaces, "lo").unwrap();
    assert_eq!((loopback.ifindex, loopback.mac, loopback.is_ethernet), (1, Some([0; 6]), true));
}

fn ifinfomsg(device_type: u16, ifindex: u32, flags: u32) -> Vec<u8> {
    [
        &[0, 0][..],
        &device_type.to_ne_bytes(),
        &ifindex.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
    ]
    .concat()
}
