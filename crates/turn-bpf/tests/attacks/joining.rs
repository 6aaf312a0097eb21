//! turn-bpf is started with `--join` beside a call in progress, and somebody wants to have that call's packets taken for his own.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turn_testkit::datagram::receive;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::packet::channel_data;
use turn_testkit::turn_client::{Received, TurnClient};

use crate::forger::Forger;
use crate::hidden::fragments;
use crate::{CHANNEL, options};

const OTHER_CHANNEL: u16 = 0x4007;
const FORGED: u32 = 100_000;
/// More than the tables of all directions can take.
const MEMORY: u64 = 48 << 20;

/// A client with an allocation, its relayed transport address, and its peer.
struct Call {
    client: TurnClient,
    channel: u16,
    relayed: SocketAddr,
    peer: UdpSocket,
}

impl Call {
    fn set_up(offload: &Offload, channel: u16) -> Self {
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        client.channel_bind(channel, peer.local_addr().unwrap()).unwrap();
        Self { client, channel, relayed, peer }
    }

    fn send(&self, data: &[u8]) {
        self.client.send_channel_data(self.channel, data, &[]).unwrap();
    }

    fn answer(&self, data: &[u8]) {
        self.peer.send_to(data, self.relayed).unwrap();
    }

    fn peer_gets(&self) -> Vec<u8> {
        receive(&self.peer, PATIENCE).unwrap().expect("a datagram").0
    }

    fn client_gets(&mut self) -> Vec<u8> {
        match self.client.receive(PATIENCE).unwrap() {
            Some(Received::ChannelData { data, .. }) => data,
            other => panic!("{other:?}"),
        }
    }

    fn peer_address(&self) -> SocketAddr {
        self.peer.local_addr().unwrap()
    }

    /// Both ends talk until the call is in the kernel, and each gets what the other says.
    fn joins(&mut self, offload: &Offload) {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut number = 1 << 20;
        while offload.session(&self.client, self.channel).is_none_or(|row| row.state != "kernel") {
            assert!(Instant::now() < deadline, "{:?}: {}", offload.sessions(), offload.log());
            number += 1;
            self.send(&data(b'c', number));
            assert_eq!(self.peer_gets(), data(b'c', number));
            self.answer(&data(b'p', number));
            assert_eq!(self.client_gets(), data(b'p', number));
        }
        let row = offload.session(&self.client, self.channel).unwrap();
        assert_eq!((row.relayed, row.peer), (self.relayed, self.peer_address()));
    }
}

/// What nobody has said before.
fn data(of: u8, number: u32) -> Vec<u8> {
    [&[of; 4][..], &number.to_be_bytes(), &[0x5a; 92]].concat()
}

fn joining() -> crate::OffloadOptions {
    options().daemon(&["--join"])
}

/// Neither call got a part of the other.
fn assert_not_mixed(offload: &Offload, victim: &Call, attacker: &Call) {
    for row in offload.sessions() {
        let own = if row.client == victim.client.address().unwrap() { victim } else { attacker };
        assert_eq!((row.peer, row.relayed), (own.peer_address(), own.relayed), "{row:?}");
    }
}

/// He sees what the client and its peer send before the server does, and he is faster.
#[test]
fn a42_who_sends_a_clients_data_before_it_does_not_get_its_call() {
    let mut offload = joining().start_without_daemon();
    let mut victim = Call::set_up(&offload, CHANNEL);
    let mut attacker = Call::set_up(&offload, OTHER_CHANNEL);
    offload.start_daemon();
    for number in 0..50 {
        let (there, back) = (data(b'c', number), data(b'p', number));
        let first_is_attacker = number % 2 == 0;
        // A test that is held up between the two would have the server's answer to the first come before the second.
        offload.coturn().process().signal(Signal::STOP).unwrap();
        for is_attacker in [first_is_attacker, !first_is_attacker] {
            let call = if is_attacker { &attacker } else { &victim };
            call.send(&there);
            call.answer(&back);
        }
        offload.coturn().process().signal(Signal::CONT).unwrap();
        for call in [&mut victim, &mut attacker] {
            assert_eq!((call.peer_gets(), call.client_gets()), (there.clone(), back.clone()));
        }
    }
    assert_not_mixed(&offload, &victim, &attacker);
    assert_eq!(offload.sessions(), [], "what two say proves nothing of either");

    // Once they say different things, both calls are what they are.
    victim.joins(&offload);
    attacker.joins(&offload);
    assert_not_mixed(&offload, &victim, &attacker);
}

/// The client's packets reach the server in fragments, so turn-bpf sees none of them, and neither those by which the attacker has the
/// peer's data sent to himself. He does not know beforehand what every sixteenth packet of the client says.
#[test]
fn a41_who_knows_most_of_a_hidden_clients_data_does_not_get_its_call() {
    let mut offload = joining().start_without_daemon();
    let mut victim = Call::set_up(&offload, CHANNEL);
    let mut attacker = Call::set_up(&offload, OTHER_CHANNEL);
    offload.start_daemon();
    let (beside_client, beside_peer) = (Forger::beside_client(&offload), Forger::beside_peer(&offload));
    let (victim_address, listener) = (victim.client.address().unwrap(), offload.listener());
    for number in 0..100 {
        let (there, back) = (data(b'c', number), data(b'p', number));
        let is_known = number % 16 != 15;
        if is_known {
            attacker.send(&there);
            assert_eq!(attacker.peer_gets(), there);
        }
        let message = channel_data(CHANNEL, &there, &[]);
        for fragment in fragments(&beside_client.frame(victim_address, listener, &message)) {
            beside_client.send_frame(&fragment);
        }
        assert_eq!(victim.peer_gets(), there);

        victim.answer(&back);
        let copy = beside_peer.frame(attacker.peer_address(), attacker.relayed, &back);
        for fragment in fragments(&copy) {
            beside_peer.send_frame(&fragment);
        }
        assert_eq!((victim.client_gets(), attacker.client_gets()), (back.clone(), back));
    }
    assert!(offload.count("fragment") >= 400, "{}", offload.count("fragment"));
    assert_not_mixed(&offload, &victim, &attacker);
    assert_eq!(offload.sessions(), []);
}

/// They are of clients that there are not, so the server says nothing, and of one that there is, on a channel that is not bound.
#[test]
fn a43_a_flood_of_forged_channel_data_costs_no_call_its_place() {
    let mut offload = joining().start_without_daemon();
    let mut call = Call::set_up(&offload, CHANNEL);
    offload.start_daemon();
    let (client, listener) = (call.client.address().unwrap(), offload.listener());
    let forger = Forger::beside_client(&offload);
    let memory = offload.daemon().memory().unwrap();
    let processing = offload.daemon().process().cpu_time().unwrap();
    let before = offload.count("no_flow");
    let start = Instant::now();
    for number in 0..FORGED {
        let source = match number % 2 {
            0 => client,
            _ => SocketAddr::new(client.ip(), 1024 + (number / 2 % 60_000) as u16),
        };
        forger.send(source, listener, &channel_data(OTHER_CHANNEL, &data(b'f', number), &[]));
    }
    let took = start.elapsed();
    wait_until("the flood has come in", || offload.count("no_flow") >= before + u64::from(FORGED));
    assert_eq!(offload.sessions(), []);
    let grown = offload.daemon().memory().unwrap().saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} bytes more");
    let processing = offload.daemon().process().cpu_time().unwrap() - processing;
    assert!(processing < took + Duration::from_secs(1), "{processing:?} in {took:?}");
    call.joins(&offload);
    assert_eq!(offload.sessions().len(), 1);
}
