//! Datagrams that arrive merged, many in one buffer with the headers of one: relayed as what they are, or left to the server.

use std::net::UdpSocket;
use std::time::Instant;

use turn_testkit::figures::times;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::packet::channel_data;
use turn_testkit::segmentation;

use crate::left_to_server::arm_both_ways;
use crate::{CHANNEL, options};

/// Where datagrams are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merged {
    /// By their sender, which leaves it to its device to cut them and to make checksums: a virtual link hands on both.
    BySender,
    /// On receipt, by the server's own interface.
    OnReceipt(&'static str),
    /// On receipt by a router in front of the server, which hands them on whole.
    ByRouter(&'static str),
}

/// What cuts and what makes checksums at a sender or forwarder.
const SENDING: [&str; 3] = ["tx", "gso", "tx-udp-segmentation"];

impl Merged {
    fn topology(self) -> Topology {
        if matches!(self, Self::ByRouter(_)) { Topology::One } else { Topology::Two }
    }

    fn switch_on(self, offload: &Offload) {
        let lab = &offload.lab;
        let on = |namespace: &turn_testkit::lab::Namespace, interface, features: &[&str]| {
            let switches = features.iter().flat_map(|feature| [*feature, "on"]);
            let arguments: Vec<&str> = ["-K", interface].into_iter().chain(switches).collect();
            namespace.run("ethtool", &arguments).unwrap();
        };
        match self {
            Self::BySender => {
                on(&lab.client, "cli0", &SENDING);
                on(&lab.peer, "peer0", &SENDING);
            }
            Self::OnReceipt(feature) => {
                for interface in lab.interfaces() {
                    on(&lab.server, interface, &["gro", feature]);
                }
            }
            Self::ByRouter(feature) => {
                let router = lab.router.as_ref().unwrap();
                for interface in ["rtr-cli", "rtr-peer"] {
                    on(router, interface, &["gro", feature]);
                }
                on(router, "rtr-srv", &SENDING);
            }
        }
    }
}

/// As many payloads of one size, and a shorter one behind them.
fn payloads(count: usize, size: usize) -> Vec<Vec<u8>> {
    let payload = |number: usize| {
        let size = if number + 1 == count { size / 2 } else { size };
        (0..size).map(|at| (at * 7 + number * 13 + count) as u8).collect()
    };
    (0..count).map(payload).collect()
}

fn received(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let end = Instant::now() + PATIENCE;
    while datagrams.len() < count
        && let Some(left) = end.checked_duration_since(Instant::now())
    {
        datagrams.extend(segmentation::receive_merged(socket, left).unwrap());
    }
    datagrams
}

/// Datagrams in each direction, and what was counted of them.
struct Counted {
    datagrams: u64,
    kernel: u64,
    reasons: Vec<(String, u64)>,
}

impl Counted {
    fn of(&self, reason: &str) -> u64 {
        self.reasons.iter().find(|(name, _)| name == reason).map_or(0, |(_, count)| *count)
    }
}

/// Sends trains both ways on an armed channel, each as soon as the one before it has come.
fn send_trains(mode: &str, merged: Merged, family: Family) -> Counted {
    let offload = options().topology(merged.topology()).mode(mode).default_terms().start();
    let (mut client, relayed) = offload.allocated_client_of(family, family);
    let peer = offload.peer_of(family);
    arm_both_ways(&offload, &mut client, relayed, &peer);
    for socket in [client.socket(), &peer] {
        segmentation::merge(socket).unwrap();
    }
    merged.switch_on(&offload);
    let before = (offload.kernel_packets(), offload.counted());
    let mut datagrams = 0;
    for (count, size) in [(2, 20), (2, 400), (3, 400), (7, 100), (40, 200), (20, 1000), (1, 300)] {
        for _ in 0..3 {
            let what = format!("{count} of {size} bytes, {mode}, {merged:?}, {family:?}");
            let payloads = payloads(count, size);
            let messages: Vec<_> = payloads.iter().map(|one| channel_data(CHANNEL, one, &[])).collect();
            segmentation::cut(client.socket(), size as u16 + 4).unwrap();
            client.socket().send_to(&messages.concat(), client.server()).unwrap();
            assert_eq!(received(&peer, count), payloads, "to the peer: {what}");
            segmentation::cut(&peer, size as u16).unwrap();
            peer.send_to(&payloads.concat(), relayed).unwrap();
            assert_eq!(received(client.socket(), count), messages, "to the client: {what}");
            datagrams += 2 * count as u64;
        }
    }
    for socket in [client.socket(), &peer] {
        assert_eq!(received_at_once(socket), Vec::<Vec<u8>>::new(), "{mode}, {merged:?}: more than was sent");
    }
    let reasons = offload.counted().into_iter().map(|(name, count)| {
        let earlier = before.1.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count);
        (name, count - earlier)
    });
    let reasons = reasons.filter(|(_, count)| *count > 0).collect();
    Counted { datagrams, kernel: offload.kernel_packets() - before.0, reasons }
}

fn received_at_once(socket: &UdpSocket) -> Vec<Vec<u8>> {
    segmentation::receive_merged(socket, std::time::Duration::from_millis(50)).unwrap()
}

/// What becomes of most of it: relayed, or left to the server for this reason.
fn fate(merged: Merged, mode: &str) -> Option<&'static str> {
    match (merged, mode) {
        // The server's own interface merges behind XDP, and not at all where there is generic XDP.
        (Merged::OnReceipt(_), "native" | "generic") => None,
        // Without a socket that asks for it, the kernel merges so only what is to be forwarded.
        (Merged::OnReceipt("rx-udp-gro-forwarding"), _) => None,
        // A virtual link whose other end has native XDP cuts what it hands on.
        (Merged::ByRouter("rx-gro-list"), "native") => None,
        (Merged::ByRouter("rx-gro-list"), "generic") => Some("unseen_train"),
        (_, "tc") => Some("train"),
        _ => Some("partial_checksum"),
    }
}

#[test]
fn trains_of_clients_and_peers_arrive_as_they_were_sent() {
    let ways = [
        Merged::BySender,
        Merged::OnReceipt("rx-udp-gro-forwarding"),
        Merged::OnReceipt("rx-gro-list"),
        Merged::ByRouter("rx-udp-gro-forwarding"),
        Merged::ByRouter("rx-gro-list"),
    ];
    // In turn, so that each way and each mode has both, if not with each other.
    let mut families = [Family::V4, Family::V6].into_iter().cycle();
    for merged in ways {
        for mode in ["native", "tc", "generic"] {
            for family in families.by_ref().take(times(1, 2) as usize) {
                let counted = send_trains(mode, merged, family);
                let what = format!(
                    "{merged:?}, {mode}, {family:?}: {} of {} datagrams relayed, {:?}",
                    counted.kernel, counted.datagrams, counted.reasons
                );
                println!("{what}");
                match fate(merged, mode) {
                    // The others wait for the server to show that a train's first long one fits.
                    None => assert!(counted.kernel > counted.datagrams / 2, "{what}"),
                    // Datagrams that were sent alone may be relayed. What is merged is counted once, here in two directions.
                    Some(reason) => {
                        assert!(counted.kernel <= 6, "{what}");
                        assert!(counted.of(reason) >= 18, "{what}");
                    }
                }
            }
        }
    }
}
