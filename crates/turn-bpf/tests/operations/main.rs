//! What operators see of turn-bpf, count by it, and tell it to do.

mod dashboard;
mod doctor;
mod events;
mod manual;
mod metrics;
mod pausing;
mod probe;
mod rates;
mod service;
mod session_log;
mod sessions;
mod top;

use turn_testkit::offload::{Offload, OffloadOptions};
use turn_testkit::traffic::Echo;
use turn_testkit::turn_client::TurnClient;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}

/// A session that is relayed in the kernel, one that has had no traffic, and the peer of both.
fn busy_and_idle(offload: &Offload) -> (TurnClient, TurnClient, Echo) {
    let (mut busy, _) = offload.allocated_client();
    let (mut idle, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut busy, CHANNEL, &echo);
    idle.channel_bind(CHANNEL, echo.address()).unwrap();
    offload.wait_for_session(&idle, CHANNEL, |_| true);
    (busy, idle, echo)
}
