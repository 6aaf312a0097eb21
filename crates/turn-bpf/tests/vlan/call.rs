//! A lab whose wires carry VLANs, and calls in it.

use std::ops::RangeInclusive;
use std::time::Duration;

use turn_testkit::daemon::Session;
use turn_testkit::dissect::{Dissected, Flaw, dissect};
use turn_testkit::lab::{Family, Outermost, Topology};
use turn_testkit::offload::Offload;
use turn_testkit::packet::Tag;
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::wire::Wire;

use crate::{CHANNEL, options};

pub type Tags = &'static [Tag];

/// Enough for some heartbeats, and little enough for a machine whose processor is emulated.
const RATE: u32 = 100;
const DURATION: Duration = Duration::from_millis(800);
pub const SIZES: RangeInclusive<usize> = 100..=1200;

/// The way of clients by these tags, that of peers by those.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    pub clients: Tags,
    pub peers: Tags,
    pub outermost: Outermost,
}

/// Two interfaces, with coturn and turn-bpf. Loading the programs takes an emulated processor long, so there is one of these for many
/// calls.
pub fn two_wires(mode: &str) -> Offload {
    options().mode(mode).start()
}

/// Has its wires carry these tags from now on.
pub fn tag(offload: &Offload, ways: Ways) {
    for (interface, tags) in [("srv0", ways.clients), ("srv1", ways.peers)] {
        offload.lab.tag(interface, tags, ways.outermost).unwrap();
    }
}

/// One interface, by which clients and peers come, with coturn and turn-bpf.
pub fn one_wire(mode: &str) -> Offload {
    options().topology(Topology::One).mode(mode).start()
}

/// What was said, by turn-bpf's count.
#[derive(Debug)]
pub struct Talk {
    /// Packets in each direction.
    pub sent: u64,
    /// What became of them.
    pub session: Session,
}

impl Talk {
    /// Packets relayed in the kernel: to the peer and to the client.
    pub fn in_kernel(&self) -> (u64, u64) {
        (self.session.client_to_peer.kernel_packets, self.session.peer_to_client.kernel_packets)
    }
}

/// Binds a channel to an echoing peer and sends round trips, of which none is lost, altered or there twice.
pub fn talk(offload: &Offload, families: (Family, Family), sizes: RangeInclusive<usize>) -> Talk {
    let (mut client, _) = offload.allocated_client_of(families.0, families.1);
    let echo = offload.echo_of(families.1);
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    offload.wait_for_session(&client, CHANNEL, |_| true);
    let talk = say(offload, &mut client, sizes);
    client.refresh(0).unwrap();
    talk
}

/// The same where turn-bpf does not so much as read the client's frames, so that there is no session. Returns how many packets were sent.
pub fn talk_unseen(offload: &Offload, families: (Family, Family), sizes: RangeInclusive<usize>) -> u64 {
    let (mut client, _) = offload.allocated_client_of(families.0, families.1);
    let echo = offload.echo_of(families.1);
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    let sent = round_trips(offload, &mut client, sizes);
    assert_eq!(offload.sessions(), []);
    client.refresh(0).unwrap();
    sent
}

fn say(offload: &Offload, client: &mut TurnClient, sizes: RangeInclusive<usize>) -> Talk {
    let sent = round_trips(offload, client, sizes);
    Talk { sent, session: offload.session(client, CHANNEL).unwrap() }
}

fn round_trips(offload: &Offload, client: &mut TurnClient, sizes: RangeInclusive<usize>) -> u64 {
    let traffic = Traffic { stream: 1, sizes, rate: RATE, duration: DURATION };
    let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
    assert_eq!(
        report.verify(),
        Ok(()),
        "{:?} {:?}\n{}",
        offload.session(client, CHANNEL),
        offload.counted(),
        offload.log()
    );
    report.sent
}

/// Calls of these families, of which nearly all is relayed in the kernel, both ways, and every packet has the tags of its wire, with
/// their priorities, whoever relays it. `wires` are the ends outside of the server, and what arrives there has.
pub fn is_relayed(offload: &Offload, families: &[(Family, Family)], wires: &[(&'static str, &[Tags])]) {
    println!("{families:?} {wires:x?}");
    for families in families {
        let observers: Vec<_> = wires.iter().map(|(name, tags)| (open(offload, name), *tags)).collect();
        let talk = talk(offload, *families, SIZES);
        let (to_peer, to_client) = talk.in_kernel();
        // The first two of each direction are the server's, and one at each heartbeat.
        let least = talk.sent * 8 / 10;
        assert!(to_peer >= least && to_client >= least, "{families:?}: {talk:?}\n{}", offload.log());
        for (wire, tags) in observers {
            let mut arrived = 0;
            for packet in datagrams(&wire) {
                assert!(tags.contains(&packet.tags.as_slice()), "{tags:x?}: {packet:x?}");
                arrived += u64::from(packet.payload.len() >= *SIZES.start());
            }
            assert!(arrived >= talk.sent, "{arrived} packets: {talk:?}");
        }
        assert_eq!(offload.count("transmit_failed"), 0);
    }
}

fn open(offload: &Offload, name: &str) -> Wire {
    let (namespace, interface) =
        offload.lab.wires().into_iter().find(|(_, interface)| *interface == name).expect("a wire");
    Wire::open(namespace, interface).unwrap()
}

/// The UDP datagrams that have arrived. All their checksums are right.
fn datagrams(wire: &Wire) -> Vec<Dissected> {
    let frames = wire.seen().unwrap().into_iter().filter(|frame| !frame.is_sent);
    let packets = frames.filter_map(|frame| match dissect(&frame.bytes).and_then(Dissected::verify) {
        Ok(packet) => Some(packet),
        Err(Flaw::EtherType(_) | Flaw::Protocol(_)) => None,
        Err(flaw) => panic!("{flaw}: {:02x?}", frame.bytes),
    });
    packets.collect()
}
