//! Two ends that talk, and what turn-bpf says about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use turn_testkit::daemon::Session;
use turn_testkit::offload::Offload;
use turn_testkit::traffic::{Channel, Traffic, TrafficFault};
use turn_testkit::turn_client::{Received, TurnClient};

/// How soon an echoing client notices that it is to end.
const TICK: Duration = Duration::from_millis(20);

/// How often a busy machine is given another chance to do what an idle one always does.
const ATTEMPTS: u32 = 6;

/// Enough of a call for some heartbeats.
pub fn load(stream: u32) -> Traffic {
    Traffic { stream, sizes: 32..=1200, rate: 1500, duration: Duration::from_millis(700) }
}

/// What was said, and the session's row thereafter.
#[derive(Debug)]
pub struct Talk {
    /// Packets in each direction.
    pub sent: u64,
    /// Of these, lost by the server itself.
    pub lost: u64,
    /// Relayed in the kernel, in both directions together.
    pub kernel: u64,
    /// The row.
    pub session: Session,
}

/// Sends round trips on a channel whose other end echoes; nothing may be lost, duplicated or altered. A server that gets no processor
/// for long enough has its sockets overflow, and may be short of what they lost.
pub fn talk(offload: &Offload, client: &mut TurnClient, channel: u16, traffic: &Traffic) -> Talk {
    let overflows = || offload.lab.server.udp_overflows().expect("the server's statistics");
    let overflows_before = overflows();
    let before = offload.session(client, channel).expect("a binding");
    let report = traffic.round_trips(&mut Channel { client, number: channel }).expect("round trips");
    let session = offload.session(client, channel).expect("a binding");
    let overflows = overflows() - overflows_before;
    match report.verify() {
        Ok(()) => {}
        Err(TrafficFault::Lost { lost, .. }) if lost <= overflows => {}
        Err(fault) => panic!("{fault}; {overflows} overflows; {session:?}\n{}", offload.log()),
    }
    let directions =
        [(before.client_to_peer, session.client_to_peer), (before.peer_to_client, session.peer_to_client)];
    let mut kernel = 0;
    for (before, after) in directions {
        let packets = after.packets() - before.packets();
        assert!((report.sent - report.lost()..=report.sent).contains(&packets), "{packets}: {session:?}");
        kernel += after.kernel_packets - before.kernel_packets;
    }
    Talk { sent: report.sent, lost: report.lost(), kernel, session }
}

/// Talks without loss, and at least 99 % of it in the kernel. A server that gets no processor for some time holds up the packets behind
/// a heartbeat, so there is another attempt where less was relayed, and where the server lost something.
pub fn talk_in_kernel(offload: &Offload, client: &mut TurnClient, channel: u16, traffic: &Traffic) -> Talk {
    let (mut sent, mut lost, mut kernel) = (0, 0, 0);
    for _ in 0..ATTEMPTS {
        let talk = talk(offload, client, channel, traffic);
        sent += talk.sent;
        lost += talk.lost;
        kernel += talk.kernel;
        if talk.lost == 0 && talk.kernel >= 2 * talk.sent * 99 / 100 {
            assert_eq!((talk.session.state.as_str(), talk.session.reason.as_deref()), ("kernel", None));
            return Talk { sent, lost, kernel, session: talk.session };
        }
    }
    let row = offload.session(client, channel);
    panic!("{kernel} of {} in {ATTEMPTS} attempts: {row:?}\n{}", 2 * sent, offload.log());
}

/// A client that sends back whatever comes on a channel, until it is stopped.
#[derive(Debug)]
pub struct EchoingClient {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<TurnClient>>,
}

impl EchoingClient {
    /// Starts echoing.
    pub fn start(mut client: TurnClient) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Ok(Some(Received::ChannelData { channel, data, .. })) = client.receive(TICK) {
                    let _lost_like_any_other = client.send_channel_data(channel, &data, &[]);
                }
            }
            client
        });
        Self { end, thread: Some(thread) }
    }

    /// Stops echoing.
    pub fn stop(mut self) -> TurnClient {
        self.end.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs until it is stopped");
        thread.join().expect("an echoing client does not panic")
    }
}

impl Drop for EchoingClient {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
