//! A server without relay sockets: it turns ChannelData of one client into ChannelData of another, and no packet ever touches `lo`.

use std::time::Duration;

use turn_testkit::coturn::PORT;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::switchboard::Switchboard;
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::calls::{EchoingClient, load, talk_in_kernel};
use crate::options;
use crate::pairs::{TO_FIRST, TO_SECOND, assert_client_to_client, far, near};
use crate::wires::Wires;

fn switchboard(offload: &Offload, patience: Duration) -> Switchboard {
    let addresses = offload.lab.addresses(Family::V4);
    let socket = offload.lab.server.udp_socket((addresses.listen, PORT).into()).unwrap();
    Switchboard::start(socket, addresses.relay, patience)
}

/// Two clients that have bound channels to each other, the second of which echoes.
fn pair(offload: &Offload) -> (TurnClient, TurnClient) {
    let (mut first, first_relayed) = near(offload, Family::V4, Family::V4);
    let (mut second, second_relayed) = far(offload, Family::V4, Family::V4);
    first.channel_bind(TO_SECOND, second_relayed).unwrap();
    second.channel_bind(TO_FIRST, first_relayed).unwrap();
    wait_until("both are bound", || offload.sessions().len() == 2);
    (first, second)
}

#[test]
fn its_clients_reach_each_other_in_one_step() {
    for (topology, mode) in [(Topology::One, "native"), (Topology::Two, "native"), (Topology::Two, "generic")]
    {
        let offload = options().topology(topology).mode(mode).without_coturn().start();
        let _server = switchboard(&offload, Duration::from_secs(600));
        let (mut first, second) = pair(&offload);
        let ends = [(&first, TO_SECOND), (&second, TO_FIRST)]
            .map(|(client, channel)| (client.address().unwrap(), client.server(), channel));
        let _second = EchoingClient::start(second);
        offload.arm(&mut first, TO_SECOND);
        let wires = Wires::of(&offload);
        let talk = talk_in_kernel(&offload, &mut first, TO_SECOND, &load(1));
        assert_client_to_client(&wires.datagrams(), ends, &talk);
    }
}

/// turn-rs forgets a client that it has not heard for 20 s. The heartbeats are what it hears.
#[test]
fn a_server_that_forgets_silent_clients_remembers_those_in_the_kernel() {
    const PATIENCE: Duration = Duration::from_secs(4);
    let offload = options().without_coturn().start();
    let server = switchboard(&offload, PATIENCE);
    let (mut first, second) = pair(&offload);
    let second = EchoingClient::start(second);
    offload.arm(&mut first, TO_SECOND);

    let kernel = offload.kernel_packets();
    let traffic = Traffic { stream: 1, sizes: 100..=200, rate: 200, duration: PATIENCE * 3 };
    let report = traffic.round_trips(&mut Channel { client: &mut first, number: TO_SECOND }).unwrap();
    report.verify().unwrap();
    let kernel = offload.kernel_packets() - kernel;
    assert!(kernel > report.sent * 2 * 9 / 10, "{kernel} of {}\n{}", report.sent * 2, offload.log());
    assert_eq!(server.clients(), 2, "{} packets were left to the server", server.relayed());

    drop(second);
    wait_until("it has forgotten them now that they are silent", || server.clients() == 0);
}
