//! `--join`: turn-bpf is started beside a server with calls in progress, and nobody binds a channel again.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turn_testkit::datagram::receive;
use turn_testkit::figures::Figures;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, OffloadOptions, PATIENCE, wait_until};
use turn_testkit::traffic::{Carrier as _, Channel, Echo, Numbered, Tally, Traffic, TrafficFault};
use turn_testkit::turn_client::{Received, TurnClient};

use crate::{CHANNEL, options};

/// A heartbeat is one packet of each flow and direction, whatever its rate. At this one few fall into the time that is measured.
const TERMS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(60));

fn joining(options: OffloadOptions) -> OffloadOptions {
    options.daemon(&["--join"]).terms(TERMS.0, TERMS.1).log_level("info")
}

/// Calls between clients with an allocation each and one peer, both of which send on their own account.
struct Calls {
    clients: Vec<TurnClient>,
    relayed: Vec<SocketAddr>,
    peer: UdpSocket,
}

/// How the calls went: packets that each end sent on each call, and what came to the other.
struct Talk {
    sent: [u64; 2],
    came: [Vec<Tally>; 2],
}

/// The peer's streams are told from the clients' by this bit.
const FROM_PEER: u32 = 1 << 31;

impl Calls {
    fn set_up(offload: &Offload, number: usize) -> Self {
        let peer = offload.peer();
        let address = peer.local_addr().unwrap();
        let (clients, relayed) = (0..number)
            .map(|_| {
                let (mut client, relayed) = offload.allocated_client();
                client.channel_bind(CHANNEL, address).unwrap();
                (client, relayed)
            })
            .unzip();
        Self { clients, relayed, peer }
    }

    /// Until it is told to end, both ends of each call send a packet in every interval.
    fn talk(&mut self, interval: Duration, end: &AtomicBool) -> Talk {
        let Self { clients, relayed, peer } = self;
        let calls = clients.len();
        let start = Instant::now();
        let (to_peer, to_clients) = thread::scope(|scope| {
            let peer_side = scope.spawn(|| {
                let mut tallies = vec![Tally::default(); calls];
                let mut take = |patience| {
                    let Some((payload, _)) = receive(peer, patience).unwrap() else { return false };
                    let packet = Numbered::decode(&payload).expect("a packet of this test");
                    let stream = packet.stream as usize;
                    tallies[stream].count(packet.stream, &payload, start);
                    true
                };
                let rounds = rounds(calls, interval, end, |call, number| {
                    peer.send_to(&payload(call as u32 | FROM_PEER, number), relayed[call]).unwrap();
                    while take(Duration::ZERO) {}
                });
                while take(Duration::from_secs(1)) {}
                (rounds, tallies)
            });
            let mut tallies = vec![Tally::default(); calls];
            let mut take = |client: &mut TurnClient, call, patience| match client.receive(patience).unwrap() {
                None => false,
                Some(Received::ChannelData { channel: CHANNEL, data, .. }) => {
                    let tally: &mut Tally = &mut tallies[call];
                    tally.count(call as u32 | FROM_PEER, &data, start);
                    true
                }
                Some(other) => panic!("{other:?}"),
            };
            let sent = rounds(calls, interval, end, |call, number| {
                clients[call].send_channel_data(CHANNEL, &payload(call as u32, number), &[]).unwrap();
                while take(&mut clients[call], call, Duration::ZERO) {}
            });
            // The other end may be a round behind.
            thread::sleep(Duration::from_secs(1));
            for (call, client) in clients.iter_mut().enumerate() {
                while take(client, call, Duration::ZERO) {}
            }
            (peer_side.join().unwrap(), (sent, tallies))
        });
        let ((from_peer, at_peer), (from_clients, at_clients)) = (to_peer, to_clients);
        Talk { sent: [from_clients, from_peer], came: [at_peer, at_clients] }
    }
}

fn payload(stream: u32, number: u64) -> Vec<u8> {
    Numbered { stream, number, sent: Duration::ZERO }.encode(100)
}

/// Sends one packet after the other, a round in every interval; returns how many rounds there were.
fn rounds(calls: usize, interval: Duration, end: &AtomicBool, mut send: impl FnMut(usize, u64)) -> u64 {
    let start = Instant::now();
    let mut round = 0;
    while !end.load(Ordering::Relaxed) {
        for call in 0..calls {
            let due = start + interval * round as u32 + interval * call as u32 / calls as u32;
            let early = due.saturating_duration_since(Instant::now());
            if early > Duration::from_millis(2) {
                thread::sleep(early);
            }
            send(call, round);
        }
        round += 1;
    }
    round
}

impl Talk {
    fn verify(&self) -> Result<(), TrafficFault> {
        for (sent, came) in self.sent.iter().zip(&self.came) {
            came.iter().try_for_each(|tally| tally.verify(*sent))?;
        }
        Ok(())
    }

    fn lost(&self) -> (u64, u64) {
        let (mut lost, mut all) = (0, 0);
        for (sent, came) in self.sent.iter().zip(&self.came) {
            lost += came.iter().map(|tally| sent - tally.received).sum::<u64>();
            all += sent * came.len() as u64;
        }
        (lost, all)
    }
}

/// Packets that came in and were relayed in the kernel, and those that the server got.
fn shares(offload: &Offload) -> (u64, u64) {
    let status = offload.daemon_ref().status().expect("status");
    (status.packets.kernel, status.packets.spilled + status.reasons["no_flow"])
}

#[test]
fn five_hundred_calls_in_progress_are_in_the_kernel_within_five_seconds() {
    const CALLS: usize = 500;
    let mut offload = joining(options()).start_without_daemon();
    let mut calls = Calls::set_up(&offload, CALLS);
    let overflows = offload.lab.server.udp_overflows().unwrap();
    let end = AtomicBool::new(false);
    let (talk, share, healed) = thread::scope(|scope| {
        let talk = scope.spawn(|| calls.talk(Duration::from_millis(100), &end));
        thread::sleep(Duration::from_secs(1));
        offload.start_daemon();
        let ready = Instant::now();
        wait_until("all calls are in the kernel", || {
            // Rows of five hundred sessions a hundred times a second would be a load of their own.
            let status: serde_json::Value = offload.daemon_ref().document("status").expect("status");
            status["sessions"]["kernel"] == CALLS
        });
        let healed = ready.elapsed();
        thread::sleep((ready + Duration::from_secs(5)).saturating_duration_since(Instant::now()));
        let before = shares(&offload);
        thread::sleep(Duration::from_secs(2));
        let after = shares(&offload);
        end.store(true, Ordering::Relaxed);
        let (kernel, server) = (after.0 - before.0, after.1 - before.1);
        (talk.join().unwrap(), kernel as f64 / (kernel + server) as f64, healed)
    });
    let (lost, all) = talk.lost();
    println!(
        "{CALLS} calls: {:.2} % in the kernel, all after {healed:?}; {lost} of {all} lost",
        share * 100.0
    );
    assert!(share >= 0.99, "{share}");
    assert!(healed <= Duration::from_secs(5), "{healed:?}");
    // What a server that is held up on a busy machine has no room for is not turn-bpf's loss.
    if offload.lab.server.udp_overflows().unwrap() == overflows {
        assert_eq!(talk.verify(), Ok(()));
    }
    Figures::of("daemon-joins").lost(lost, all).healed(healed).report();
}

/// One call at a time, to a peer that sends everything back: what comes from it has been the client's.
#[test]
fn calls_are_joined_in_every_mode_topology_and_family() {
    for (mode, topology) in [
        ("native", Topology::One),
        ("native", Topology::Two),
        ("tc", Topology::Two),
        ("generic", Topology::One),
    ] {
        let mut offload = joining(options()).topology(topology).mode(mode).start_without_daemon();
        let families = [
            (Family::V4, Family::V4),
            (Family::V4, Family::V6),
            (Family::V6, Family::V4),
            (Family::V6, Family::V6),
        ];
        let mut calls: Vec<(TurnClient, SocketAddr, Echo)> = families
            .into_iter()
            .map(|(to_server, to_peer)| {
                let (mut client, relayed) = offload.allocated_client_of(to_server, to_peer);
                let echo = offload.echo_of(to_peer);
                client.channel_bind(CHANNEL, echo.address()).unwrap();
                (client, relayed, echo)
            })
            .collect();
        offload.start_daemon();
        for (number, (client, relayed, _echo)) in calls.iter_mut().enumerate() {
            let traffic = Traffic {
                stream: number as u32,
                sizes: 100..=300,
                rate: 200,
                duration: Duration::from_secs(1),
            };
            let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
            assert_eq!(report.verify(), Ok(()), "{mode}, {topology:?}, call {number}");
            let session = offload.wait_for_session(client, CHANNEL, |session| session.state == "kernel");
            assert_eq!(session.relayed, *relayed);
            assert!(session.client_to_peer.kernel_packets > 100, "{mode}, {topology:?}: {session:?}");

            // It is a binding like any other: bound anew it stays as it is, and it ends with its allocation.
            let before = offload.session(client, CHANNEL).unwrap();
            client.channel_bind(CHANNEL, session.peer).unwrap();
            Channel { client, number: CHANNEL }.send(&payload(99, 1)).unwrap();
            assert!(Channel { client, number: CHANNEL }.receive(PATIENCE).unwrap().is_some());
            let after = offload.session(client, CHANNEL).unwrap();
            assert_eq!(after.state, "kernel");
            assert!(after.client_to_peer.packets() > before.client_to_peer.packets(), "{before:?} {after:?}");
            client.refresh(0).unwrap();
            offload.wait_until_unbound(client, CHANNEL);
        }
    }
}

/// What two clients of one server send to each other over it does not show their relayed transport addresses, so it stays the server's.
#[test]
fn a_call_between_two_clients_of_the_server_goes_on() {
    let mut offload = joining(options()).start_without_daemon();
    let [mut first, mut second] = [(); 2].map(|()| offload.allocated_client());
    first.0.channel_bind(CHANNEL, second.1).unwrap();
    second.0.channel_bind(CHANNEL + 1, first.1).unwrap();
    offload.start_daemon();
    for number in 0..200 {
        first.0.send_channel_data(CHANNEL, &payload(1, number), &[]).unwrap();
        let came = Channel { client: &mut second.0, number: CHANNEL + 1 }.receive(PATIENCE).unwrap();
        assert_eq!(came, Some(payload(1, number)));
        second.0.send_channel_data(CHANNEL + 1, &payload(2, number), &[]).unwrap();
        let came = Channel { client: &mut first.0, number: CHANNEL }.receive(PATIENCE).unwrap();
        assert_eq!(came, Some(payload(2, number)));
    }
    assert_eq!(offload.sessions(), []);
}
