//! The way to a peer changes in mid call, and the kernel follows the server.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use turn_testkit::dissect::{Dissected, dissect};
use turn_testkit::figures::Figures;
use turn_testkit::lab::{self, Family, XdpMode};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Channel, Echo, Traffic};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::wire::{Wire, mac};

use crate::wires::Wires;
use crate::{CHANNEL, options};

const HEARTBEAT: Duration = Duration::from_millis(300);
/// Until a changed path is seen at a heartbeat, and then at the next packet.
const FOLLOWED: Duration = Duration::from_millis(600);

/// A peer that two interfaces of the server lead to.
struct TwoWays {
    offload: Offload,
    _pass: OwnedFd,
}

impl TwoWays {
    fn start(mode: &str) -> Self {
        let terms = (HEARTBEAT, Duration::from_secs(1));
        let mut offload =
            options().mode(mode).terms(terms.0, terms.1).daemon(&["srv2"]).start_without_daemon();
        let (server, peer) = (&offload.lab.server, &offload.lab.peer);
        lab::connect((server, "srv2", 3, 1), (peer, "peer1", 2)).unwrap();
        let pass = peer.attach_pass("peer1", XdpMode::Native).unwrap();
        offload.start_daemon();
        Self { offload, _pass: pass }
    }
}

/// Does something after a third of a call, and returns what was lost of it.
fn in_mid_call(client: &mut TurnClient, echo: &Echo, change: impl FnOnce() + Send) -> u64 {
    let traffic = Traffic { stream: 1, sizes: 200..=200, rate: 1000, duration: Duration::from_secs(3) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let before = echo.echoed();
            wait_until("a third is over", || echo.echoed() >= before + 1000);
            change();
        });
        let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
        assert_eq!((report.tally.duplicated, report.tally.altered, report.tally.strays), (0, 0, 0));
        report.lost()
    })
}

#[test]
fn a_route_that_changes_is_followed_and_nothing_is_lost() {
    for mode in ["native", "generic"] {
        for family in [Family::V4, Family::V6] {
            let two_ways = TwoWays::start(mode);
            let offload = &two_ways.offload;
            let (mut client, relayed) = offload.allocated_client_of(Family::V4, family);
            let echo = offload.echo_of(family);
            offload.bind_and_arm(&mut client, CHANNEL, &echo);
            let wires = Wires::of(offload).and(&offload.lab.peer, "peer1");
            let peer = echo.address().ip();
            let (option, destination, gateway) = match family {
                Family::V4 => ("-4", format!("{peer}/32"), "198.18.3.2"),
                Family::V6 => ("-6", format!("{peer}/128"), "2001:db8:3::2"),
            };
            let before = offload.session(&client, CHANNEL).unwrap().client_to_peer;
            let changed = offload.count("path_changed");
            let lost = in_mid_call(&mut client, &echo, || {
                let arguments = [option, "route", "replace", &destination, "via", gateway, "dev", "srv2"];
                offload.lab.server.run("ip", &arguments).unwrap();
            });
            assert_eq!(lost, 0, "{mode}: {}", offload.log());
            assert!(offload.count("path_changed") > changed);
            Figures::of("route-changes").lost(lost, 3000).report();

            let to_peer: Vec<&str> = wires
                .datagrams()
                .iter()
                .filter(|one| one.ends() == (relayed, echo.address()))
                .map(|one| one.wire)
                .collect();
            let by_new_way = to_peer.iter().filter(|wire| **wire == "peer1").count();
            assert_eq!(to_peer.len(), 3000);
            // Two seconds, but for the first heartbeat.
            assert!(by_new_way > 2000 - FOLLOWED.as_millis() as usize, "{mode}: {by_new_way}");
            let after = offload.session(&client, CHANNEL).unwrap().client_to_peer;
            assert!(after.kernel_packets - before.kernel_packets >= 2700, "{mode}: {before:?} {after:?}");
        }
    }
}

/// Frames from the relayed transport address to the peer, at the peer's end of the wire.
struct FramesToPeer {
    wire: Wire,
    ends: (SocketAddr, SocketAddr),
}

impl FramesToPeer {
    fn count(&self, wanted: impl Fn(&Dissected) -> bool) -> usize {
        let frames = self.wire.seen().unwrap();
        frames
            .iter()
            .filter_map(|frame| dissect(&frame.bytes).ok())
            .filter(|packet| (packet.source, packet.destination) == self.ends && wanted(packet))
            .count()
    }
}

/// A second Ethernet address takes over, as in a failover between routers, while the first still works.
#[test]
fn a_neighbour_that_changes_is_followed_and_nothing_is_lost() {
    for mode in ["native", "generic"] {
        let offload = options().mode(mode).terms(HEARTBEAT, Duration::from_secs(1)).start();
        let peer = &offload.lab.peer;
        let arguments =
            ["link", "add", "link", "peer0", "name", "second0", "type", "macvlan", "mode", "bridge"];
        peer.run("ip", &arguments).unwrap();
        peer.run("ip", &["link", "set", "second0", "up"]).unwrap();
        let second = mac(peer, "second0").unwrap();
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let frames =
            FramesToPeer { wire: Wire::open(peer, "peer0").unwrap(), ends: (relayed, echo.address()) };
        let before = offload.session(&client, CHANNEL).unwrap().client_to_peer;
        let lost = in_mid_call(&mut client, &echo, || {
            let address = offload.lab.addresses(Family::V4).peer.to_string();
            let text = second.map(|byte| format!("{byte:02x}")).join(":");
            let arguments =
                ["neighbour", "replace", &address, "lladdr", &text, "dev", "srv1", "nud", "permanent"];
            offload.lab.server.run("ip", &arguments).unwrap();
        });
        assert_eq!(lost, 0, "{mode}: {}", offload.log());
        Figures::of("neighbour-changes").lost(lost, 3000).report();
        let to_second = frames.count(|packet| packet.destination_mac == second);
        assert!(to_second > 2000 - FOLLOWED.as_millis() as usize, "{mode}: {to_second}");
        let after = offload.session(&client, CHANNEL).unwrap().client_to_peer;
        assert!(after.kernel_packets - before.kernel_packets >= 2700, "{mode}: {before:?} {after:?}");
    }
}

/// The old Ethernet address is gone at once, and the peer says so as hosts do. What the kernel sends to the old one until the next
/// heartbeat is lost, and no more.
#[test]
fn a_peer_with_a_new_ethernet_address_loses_no_more_than_a_heartbeat() {
    let offload = options().terms(HEARTBEAT, Duration::from_secs(1)).start();
    let peer = &offload.lab.peer;
    peer.set_sysctl("ipv4/conf/peer0/arp_notify", "1").unwrap();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let lost = in_mid_call(&mut client, &echo, || {
        peer.run("ip", &["link", "set", "peer0", "address", "02:00:00:00:77:77"]).unwrap();
    });
    assert!(lost <= FOLLOWED.as_millis() as u64, "{lost}");
    let begun = Instant::now();
    wait_until("both ways are in the kernel again", || {
        offload.arm(&mut client, CHANNEL);
        offload.session(&client, CHANNEL).unwrap().state == "kernel"
    });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    Figures::of("neighbour-replaced").lost(lost, 3000).report();
}
