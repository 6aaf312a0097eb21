//! A hop behind the server's first one takes less than the interface does: what is lost in the kernel's hands is what would have been
//! lost in the server's.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use turn_testkit::datagram::receive;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::turn_client::{Received, TurnClient};

use crate::{CHANNEL, options};

/// More than the hop takes in one piece, and less than the interface.
const BIG: usize = 1350;
const SMALL: usize = 100;
const NARROW: &str = "1300";
/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(2);
/// Every so many packets there is a big one. Not the same one as at a heartbeat each time.
const BIG_EVERY: u16 = 7;
/// Three leases.
const PACKETS: u16 = 750;
const HEARTBEAT: Duration = Duration::from_millis(150);
const LEASE: Duration = Duration::from_millis(500);
/// Big packets under way before the router's word, or the first fragment, is heard, on a busy machine.
const BEFORE_FEEDBACK: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToPeer,
    ToClient,
}

/// How the path comes to take less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shrinks {
    /// Before the call, by a hop that its ICMP errors tell of.
    Hop,
    /// In mid call.
    HopInMidCall,
    /// By the MTU of the server's own route, in mid call: there is nobody to say so.
    RouteInMidCall,
}

/// A client and a peer with a channel between them, and the numbers that have got through.
struct Call {
    client: TurnClient,
    relayed: SocketAddr,
    peer: UdpSocket,
    direction: Direction,
    arrived: BTreeSet<u16>,
}

impl Call {
    fn start(offload: &Offload, family: Family, direction: Direction) -> Self {
        let (mut client, relayed) = offload.allocated_client_of(family, family);
        let peer = offload.peer_of(family);
        client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
        Self { client, relayed, peer, direction, arrived: BTreeSet::new() }
    }

    fn send(&self, number: u16, size: usize) {
        let payload = [&number.to_be_bytes()[..], &vec![7; size - 2]].concat();
        match self.direction {
            Direction::ToPeer => self.client.send_channel_data(CHANNEL, &payload, &[]).unwrap(),
            Direction::ToClient => drop(self.peer.send_to(&payload, self.relayed).unwrap()),
        }
    }

    /// Takes what comes until there is nothing for so long.
    fn receive(&mut self, patience: Duration) {
        loop {
            let payload = match self.direction {
                Direction::ToPeer => receive(&self.peer, patience).unwrap().map(|(payload, _)| payload),
                Direction::ToClient => {
                    self.client.receive(patience).unwrap().map(|received| match received {
                        Received::ChannelData { data, .. } => data,
                        other => panic!("{other:?}"),
                    })
                }
            };
            let Some(payload) = payload else { return };
            let number = u16::from_be_bytes([payload[0], payload[1]]);
            let size = if number.is_multiple_of(BIG_EVERY) { BIG } else { SMALL };
            assert_eq!(payload.len(), size);
            assert!(self.arrived.insert(number), "{number} twice");
        }
    }

    /// Sends packets of both sizes; returns how many small ones and how many big ones were lost.
    fn mixed(&mut self, mut in_mid_call: impl FnMut()) -> (usize, usize) {
        let begun = Instant::now();
        for number in 0..PACKETS {
            if number == PACKETS / 3 {
                in_mid_call();
            }
            self.send(number, if number.is_multiple_of(BIG_EVERY) { BIG } else { SMALL });
            std::thread::sleep(
                (begun + INTERVAL * u32::from(number)).saturating_duration_since(Instant::now()),
            );
        }
        self.receive(Duration::from_millis(300));
        let lost = (0..PACKETS).filter(|number| !self.arrived.contains(number));
        let (big, small): (Vec<_>, Vec<_>) = lost.partition(|number| number.is_multiple_of(BIG_EVERY));
        (small.len(), big.len())
    }
}

fn narrow_hop(offload: &Offload, direction: Direction) {
    let router = offload.lab.router.as_ref().unwrap();
    let (near, namespace, far) = match direction {
        Direction::ToPeer => ("rtr-peer", &offload.lab.peer, "peer0"),
        Direction::ToClient => ("rtr-cli", &offload.lab.client, "cli0"),
    };
    router.run("ip", &["link", "set", near, "mtu", NARROW]).unwrap();
    // Its own big packets still leave: only what comes from the server is too much.
    namespace.run("ip", &["link", "set", far, "mtu", "1500"]).unwrap();
}

fn narrow_route(offload: &Offload, family: Family) {
    let (option, gateway) = match family {
        Family::V4 => ("-4", "198.18.0.254"),
        Family::V6 => ("-6", "2001:db8:0::fe"),
    };
    let arguments = [option, "route", "replace", "default", "via", gateway, "mtu", NARROW];
    offload.lab.server.run("ip", &arguments).unwrap();
    // Nor does the router take more, and it says nothing.
    let router = offload.lab.router.as_ref().unwrap();
    let chain = "add chain inet narrow in { type filter hook prerouting priority -300; }";
    let rule = format!("add rule inet narrow in iifname rtr-srv meta length > {NARROW} drop");
    router.run("nft", &[&format!("add table inet narrow; {chain}; {rule}")]).unwrap();
}

/// What is lost of a call without turn-bpf or with it, but for what a busy machine's server was too slow to take.
fn lost(family: Family, direction: Direction, shrinks: Shrinks, mode: Option<&str>) -> (usize, usize) {
    let set_up = options().topology(Topology::One).terms(HEARTBEAT, LEASE);
    let mut offload = match mode {
        Some(mode) => set_up.mode(mode).start(),
        None => set_up.start_without_daemon(),
    };
    if shrinks == Shrinks::Hop {
        narrow_hop(&offload, direction);
    }
    let mut call = Call::start(&offload, family, direction);
    let overflows = offload.lab.server.udp_overflows().unwrap();
    let (small, big) = call.mixed(|| match shrinks {
        Shrinks::Hop => {}
        Shrinks::HopInMidCall => narrow_hop(&offload, direction),
        Shrinks::RouteInMidCall => narrow_route(&offload, family),
    });
    if mode.is_some() {
        let session = offload.session(&call.client, CHANNEL).unwrap();
        let way = match direction {
            Direction::ToPeer => session.client_to_peer,
            Direction::ToClient => session.peer_to_client,
        };
        // All small ones, but for heartbeats and what must not overtake them.
        assert!(
            way.kernel_packets > u64::from(PACKETS) * 4 / 10,
            "{family:?} {direction:?} {shrinks:?}: {way:?}"
        );
        let reasons = offload.daemon().status().unwrap().reasons;
        println!("  {:?}", reasons.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>());
    }
    let overflows = (offload.lab.server.udp_overflows().unwrap() - overflows) as usize;
    (small.saturating_sub(overflows), big.saturating_sub(overflows))
}

fn compare(shrinks: Shrinks, excess: usize) {
    for family in [Family::V4, Family::V6] {
        for direction in [Direction::ToPeer, Direction::ToClient] {
            let without = lost(family, direction, shrinks, None);
            // The program is the same in both modes.
            let modes: &[&str] =
                if direction == Direction::ToPeer { &["native", "generic"] } else { &["native"] };
            for mode in modes {
                let with = lost(family, direction, shrinks, Some(mode));
                println!(
                    "{family:?} {direction:?} {shrinks:?}: lost (small, big) {without:?}, with turn-bpf {with:?} ({mode})"
                );
                assert_eq!((without.0, with.0), (0, 0), "small packets");
                assert!(
                    with.1 <= without.1 + excess,
                    "{family:?} {direction:?} {shrinks:?}: {with:?} {without:?}"
                );
            }
        }
    }
}

#[test]
fn sd6_a_path_that_takes_less_loses_no_more_than_the_servers_own_packets() {
    compare(Shrinks::Hop, BEFORE_FEEDBACK);
}

#[test]
fn sd6_a_path_that_shrinks_in_mid_call_loses_no_more_than_the_servers_own_packets() {
    compare(Shrinks::HopInMidCall, BEFORE_FEEDBACK);
}

/// Without any word of a router it shows only in what the server itself sends: within a lease.
#[test]
fn sd6_a_route_that_shrinks_in_mid_call_is_followed_within_a_lease() {
    let in_a_lease = LEASE.as_millis() / INTERVAL.as_millis() / u128::from(BIG_EVERY);
    compare(Shrinks::RouteInMidCall, in_a_lease as usize + BEFORE_FEEDBACK);
}

/// Nothing but big packets: those that get through go by the server, all of them.
#[test]
fn sd6_packets_too_big_for_a_later_hop_are_left_to_the_server() {
    let offload = options().topology(Topology::One).start();
    narrow_hop(&offload, Direction::ToPeer);
    let mut call = Call::start(&offload, Family::V6, Direction::ToPeer);
    let begun = Instant::now();
    let mut number = 0;
    // The first ones are lost on the way, whoever sends them.
    while call.arrived.is_empty() {
        call.send(number, BIG);
        call.receive(Duration::from_millis(50));
        number += BIG_EVERY;
        assert!(begun.elapsed() < PATIENCE);
    }
    call.arrived.clear();
    for number in 0..200 {
        call.send(number * BIG_EVERY, BIG);
        call.receive(Duration::from_millis(5));
    }
    call.receive(Duration::from_millis(300));
    assert_eq!(call.arrived.len(), 200);
    let session = offload.session(&call.client, CHANNEL).unwrap();
    assert!(session.client_to_peer.kernel_packets <= BEFORE_FEEDBACK as u64, "{session:?}");
}
