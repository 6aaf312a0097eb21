//! A call that something happens to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use turn_testkit::daemon::Session;
use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::traffic::{Channel, Echo, Report, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::CHANNEL;

/// Packets per second.
const RATE: u32 = 1000;

/// A client with a channel to an echoing peer, relayed in the kernel.
pub struct Call {
    pub client: TurnClient,
    pub echo: Echo,
    address: SocketAddr,
    stream: u32,
}

/// What a call has been through.
pub struct Ordeal {
    pub report: Report,
    /// Packets for which the server's sockets had no room: on a busy machine it may be too slow for its share, and nobody else loses those.
    pub overflowed: u64,
    /// Packets to the peer that the kernel relayed.
    pub by_kernel: u64,
    /// From the time that the fault is over until both directions were relayed in the kernel, and the peer heard it.
    pub healed: Duration,
}

impl Call {
    /// Begins a call.
    pub fn begin(offload: &Offload) -> Self {
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let address = client.address().unwrap();
        Self { client, echo, address, stream: 0 }
    }

    /// Sends a packet each millisecond for so long, and has a fault happen after half a second. The fault ends when `fault` returns; then
    /// the call has to come back into the kernel by itself.
    pub fn through(&mut self, offload: &Offload, time: Duration, fault: impl FnOnce() + Send) -> Ordeal {
        self.through_with(offload, 200..=200, time, fault)
    }

    /// The same with packets of these sizes, in turn.
    pub fn through_with(
        &mut self,
        offload: &Offload,
        sizes: RangeInclusive<usize>,
        time: Duration,
        fault: impl FnOnce() + Send,
    ) -> Ordeal {
        self.stream += 1;
        let traffic = Traffic { stream: self.stream, sizes, rate: RATE, duration: time };
        let (address, echo) = (self.address, &self.echo);
        let overflows = || offload.lab.server.udp_overflows().unwrap();
        let overflowed_before = overflows();
        let by_kernel = || session(offload, address).map_or(0, |row| row.client_to_peer.kernel_packets);
        let by_kernel_before = by_kernel();
        let mut channel = Channel { client: &mut self.client, number: CHANNEL };
        thread::scope(|scope| {
            let healed = scope.spawn(move || {
                let before = echo.echoed();
                wait_until("the call is under way", || echo.echoed() >= before + u64::from(RATE / 2));
                fault();
                wait_until_healed(offload, address, echo)
            });
            let report = traffic.round_trips(&mut channel).unwrap();
            assert_eq!((report.tally.duplicated, report.tally.altered, report.tally.strays), (0, 0, 0));
            let healed = healed.join().unwrap();
            let by_kernel = by_kernel().saturating_sub(by_kernel_before);
            Ordeal { report, overflowed: overflows() - overflowed_before, by_kernel, healed }
        })
    }
}

impl Ordeal {
    /// Nothing was lost, but for what the server itself lost.
    pub fn lost_nothing(&self) -> bool {
        self.report.lost() <= self.overflowed
    }

    /// The kernel relayed most of it: a lease or two may end before a server on a busy machine gets its turn.
    pub fn stayed_in_the_kernel(&self) -> bool {
        self.by_kernel > self.report.sent / 2
    }

    /// Its figures.
    pub fn figures(&self, fault: &str) -> Figures {
        Figures::of(fault)
            .lost(self.report.lost(), self.report.sent)
            .healed(self.healed)
            .count("packets that the server's sockets had no room for", self.overflowed)
    }
}

fn session(offload: &Offload, client: SocketAddr) -> Option<Session> {
    offload.sessions().into_iter().find(|row| row.client == client)
}

/// Waits until the kernel relays in both directions and the peer hears it; says how long that took.
fn wait_until_healed(offload: &Offload, client: SocketAddr, echo: &Echo) -> Duration {
    let over = Instant::now();
    let mut last: Option<(u64, u64, u64)> = None;
    loop {
        let row = session(offload, client);
        let heard = echo.echoed();
        let counts = row
            .as_ref()
            .map(|row| (row.client_to_peer.kernel_packets, row.peer_to_client.kernel_packets, heard));
        if let (Some(row), Some(now), Some(before)) = (&row, counts, last)
            && row.state == "kernel"
            && now.0 > before.0
            && now.1 > before.1
            && now.2 > before.2
        {
            return over.elapsed();
        }
        assert!(over.elapsed() < PATIENCE, "never in the kernel again: {row:?}\n{}", offload.log());
        last = counts;
        sleep(Duration::from_millis(20));
    }
}
