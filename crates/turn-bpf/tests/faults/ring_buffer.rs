//! The ring buffer between kernel and daemon overflows: more control messages than anybody reads, from many 5-tuples.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::Echo;
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{METHOD_CHANNEL_BIND, XOR_PEER_ADDRESS, random_transaction_id};

use crate::call::Call;
use crate::{CHANNEL, modes, options};

/// Clients with an allocation: every ChannelBind request of theirs is copied.
const CLIENTS: usize = 64;
/// Requests of each, and as many answers. A record takes 1.25 KiB of the 4 MiB, so that half of it would do.
const REQUESTS: usize = 100;

struct Flood {
    clients: Vec<TurnClient>,
    daemon: Pid,
}

impl Flood {
    fn prepare(offload: &mut Offload) -> Self {
        let clients = (0..CLIENTS).map(|_| offload.allocated_client().0).collect();
        let daemon = Pid::from_raw(offload.daemon().process().id() as i32).unwrap();
        Self { clients, daemon }
    }

    /// Stops the daemon and fills the buffer.
    fn begin(&self) {
        kill_process(self.daemon, Signal::STOP).unwrap();
        for _ in 0..REQUESTS {
            for client in &self.clients {
                let request = client
                    .builder(METHOD_CHANNEL_BIND)
                    .transaction(random_transaction_id())
                    .channel_number(CHANNEL)
                    .xor_address(XOR_PEER_ADDRESS, client.address().unwrap())
                    .broken_integrity();
                client.send_raw(&request.build()).unwrap();
            }
            // The server is to have time for the call beside them.
            sleep(Duration::from_millis(4));
        }
    }

    fn end(&self) {
        kill_process(self.daemon, Signal::CONT).unwrap();
    }
}

/// The running call stays where it is. A channel that is bound meanwhile is the server's until it is bound again, and one that is given
/// up meanwhile ends with its lease.
#[test]
fn messages_that_are_lost_cost_no_packets() {
    for mode in modes() {
        let mut offload = options().mode(mode).start();
        let flood = Flood::prepare(&mut offload);
        let mut call = Call::begin(&offload);
        let mut given_up = Call::begin(&offload);
        let (mut late, _) = offload.allocated_client();
        let late_echo = offload.echo();
        let ordeal = call.through(&offload, Duration::from_secs(5), || {
            flood.begin();
            late.channel_bind(CHANNEL, late_echo.address()).unwrap();
            given_up.client.refresh(0).unwrap();
            flood.end();
        });
        let lost = offload.count("control_lost");
        assert!(lost > 0, "{mode}: the buffer did not overflow");
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        assert!(ordeal.stayed_in_the_kernel(), "{mode}: {} packets", ordeal.by_kernel);
        offload.wait_until_unbound(&given_up.client, CHANNEL);
        assert_eq!(offload.session(&late, CHANNEL), None, "{mode}: its binding was not seen");
        let began = Instant::now();
        offload.bind_and_arm(&mut late, CHANNEL, &late_echo);
        ordeal.figures("ring-buffer-full").healed(began.elapsed()).count("messages lost", lost).report();
    }
}

/// Of a call that is older than turn-bpf, the way from the peer is known from the report that the way to it was armed.
#[test]
fn a_report_that_is_lost_is_made_up_for() {
    let mut offload = options().start_without_daemon();
    let (mut client, _) = offload.allocated_client();
    let echo: Echo = offload.echo();
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    offload.start_daemon();
    let flood = Flood::prepare(&mut offload);
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    offload.wait_for_session(&client, CHANNEL, |row| row.reason.is_some());

    flood.begin();
    // Two witnesses in a row, and more.
    for number in 0..20_u64 {
        client.send_channel_data(CHANNEL, &[7; 40], &[]).unwrap();
        wait_until("the echo has it", || echo.echoed() > number);
        sleep(Duration::from_millis(10));
    }
    let freed = Instant::now();
    flood.end();
    let mut sent = 0;
    wait_until("both ways are the kernel's", || {
        client.send_channel_data(CHANNEL, &[8; 40], &[]).unwrap();
        sent += 1;
        offload.session(&client, CHANNEL).is_some_and(|row| row.state == "kernel")
    });
    assert!(offload.count("control_lost") > 0, "the buffer did not overflow");
    Figures::of("report-lost").healed(freed.elapsed()).report();
}
