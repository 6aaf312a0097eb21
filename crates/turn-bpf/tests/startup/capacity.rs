//! More channel bindings than there is room for.

use std::time::Duration;

use turn_testkit::figures::Figures;
use turn_testkit::offload::OffloadOptions;
use turn_testkit::traffic::{Channel, Traffic};

use crate::BINARY;

const CHANNEL: u16 = 0x4001;

#[test]
fn what_finds_no_room_stays_with_the_server_and_takes_no_ones_place() {
    let offload = OffloadOptions::new(BINARY).default_terms().daemon(&["--max-flows", "4"]).start();
    let echo = offload.echo();
    let mut clients: Vec<_> = (0..3).map(|_| offload.allocated_client().0).collect();
    let traffic = Traffic { stream: 1, sizes: 100..=200, rate: 1000, duration: Duration::from_millis(500) };
    for client in &mut clients[..2] {
        offload.bind_and_arm(client, CHANNEL, &echo);
    }
    clients[2].channel_bind(CHANNEL, echo.address()).unwrap();
    let session = offload.wait_for_session(&clients[2], CHANNEL, |_| true);
    assert_eq!((session.state.as_str(), session.reason.as_deref()), ("userspace", Some("table_full")));
    for client in &mut clients {
        let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
    }
    let states: Vec<_> =
        clients.iter().map(|client| offload.session(client, CHANNEL).unwrap().state).collect();
    assert_eq!(states, ["kernel", "kernel", "userspace"]);
    Figures::of("flows-full").lost(0, 3 * 500).report();

    // Where one leaves, the next renewal brings another in.
    clients[0].refresh(0).unwrap();
    offload.wait_until_unbound(&clients[0], CHANNEL);
    clients[2].channel_bind(CHANNEL, echo.address()).unwrap();
    offload.arm(&mut clients[2], CHANNEL);
    let report = traffic.round_trips(&mut Channel { client: &mut clients[2], number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    assert_eq!(offload.session(&clients[1], CHANNEL).unwrap().state, "kernel");
}
