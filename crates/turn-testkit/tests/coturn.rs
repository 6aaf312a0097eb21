//! The test bed by itself: our client, a stock coturn, and checked traffic, without turn-bpf.

use std::net::SocketAddr;
use std::time::Duration;

use turn_testkit::coturn::{Coturn, CoturnOptions};
use turn_testkit::lab::{Family, Lab, Topology};
use turn_testkit::traffic::{Channel, Datagrams, Echo, Sink, Traffic};
use turn_testkit::turn_client::message::{
    METHOD_CHANNEL_BIND, METHOD_REFRESH, MessageBuilder, XOR_PEER_ADDRESS,
};
use turn_testkit::turn_client::{Allocation, Received, TurnClient};

const PATIENCE: Duration = Duration::from_secs(2);

fn client(lab: &Lab, coturn: &Coturn, family: Family) -> TurnClient {
    let socket = lab.client.udp_socket((lab.addresses(family).client, 0).into()).unwrap();
    TurnClient::new(socket, coturn.listener(family).unwrap())
}

#[test]
fn channels_carry_data_both_ways_in_every_family_pair() {
    for topology in [Topology::One, Topology::Two] {
        let mut lab = Lab::new(topology).unwrap();
        lab.attach_pass().unwrap();
        let coturn = Coturn::start(&lab).unwrap();
        for client_family in [Family::V4, Family::V6] {
            for peer_family in [Family::V4, Family::V6] {
                let mut client = client(&lab, &coturn, client_family);
                let Allocation { relayed, mapped, lifetime } =
                    client.allocate(Some(peer_family), None).unwrap();
                assert_eq!((relayed.ip(), lifetime), (lab.addresses(peer_family).relay, 600));
                assert_eq!(mapped, client.address().unwrap());

                let address = SocketAddr::new(lab.addresses(peer_family).peer, 0);
                let echo = Echo::start(lab.peer.udp_socket(address).unwrap());
                client.channel_bind(0x4001, echo.address()).unwrap();
                let traffic =
                    Traffic { stream: 1, sizes: 32..=1200, rate: 2000, duration: Duration::from_millis(250) };
                let report =
                    traffic.round_trips(&mut Channel { client: &mut client, number: 0x4001 }).unwrap();
                let which = format!("{topology:?}, {client_family:?} to {peer_family:?}");
                let overflows = lab.server.udp_overflows().unwrap();
                assert_eq!(
                    report.verify(),
                    Ok(()),
                    "{which}: {} echoed, {overflows} overflows",
                    echo.echoed()
                );
                assert_eq!(echo.echoed(), report.sent, "{which}");
                assert_eq!(client.refresh(0).unwrap(), 0);
            }
        }
        assert!(coturn.cpu_time().unwrap() > Duration::ZERO);
    }
}

#[test]
fn indications_and_one_way_traffic() {
    let lab = Lab::new(Topology::Two).unwrap();
    let coturn = Coturn::start(&lab).unwrap();
    let mut client = client(&lab, &coturn, Family::V4);
    let relayed = client.allocate(None, Some(1200)).unwrap().relayed;
    let peer = lab.peer.udp_socket((lab.addresses(Family::V4).peer, 0).into()).unwrap();
    let peer_address = peer.local_addr().unwrap();
    client.create_permission(&[peer_address]).unwrap();
    client.send_indication(peer_address, b"there").unwrap();
    let mut buffer = [0; 100];
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (length, source) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source), (&b"there"[..], relayed));
    peer.send_to(b"back", relayed).unwrap();
    let expected = Received::DataIndication { peer: peer_address, data: b"back".to_vec() };
    assert_eq!(client.receive(PATIENCE).unwrap(), Some(expected));

    client.channel_bind(0x4001, peer_address).unwrap();
    let mut to_client = Datagrams { socket: peer.try_clone().unwrap(), remote: relayed };
    let traffic = Traffic { stream: 5, sizes: 100..=100, rate: 1000, duration: Duration::from_millis(100) };
    let sent = traffic.one_way(&mut to_client).unwrap();
    for _ in 0..sent {
        assert!(matches!(
            client.receive(PATIENCE).unwrap(),
            Some(Received::ChannelData { channel: 0x4001, .. })
        ));
    }

    let sink = Sink::start(peer, 5);
    let sent = traffic.one_way(&mut Channel { client: &mut client, number: 0x4001 }).unwrap();
    sink.wait_for(sent, PATIENCE).verify(sent).unwrap();
}

#[test]
fn odd_requests_reach_the_server() {
    let lab = Lab::new(Topology::Two).unwrap();
    let coturn = Coturn::start(&lab).unwrap();
    let mut client = client(&lab, &coturn, Family::V4);
    client.allocate(None, None).unwrap();
    let peer: SocketAddr = (lab.addresses(Family::V4).peer, 5000).into();

    let wrong = client.builder(METHOD_REFRESH).lifetime(0).broken_integrity();
    assert_eq!(client.exchange(&wrong.build()).unwrap().error_code(), Some(401));

    let bind = |builder: MessageBuilder| {
        builder.transaction([7; 12]).channel_number(0x4001).xor_address(XOR_PEER_ADDRESS, peer)
    };
    let smuggling = bind(client.builder(METHOD_CHANNEL_BIND))
        .xor_address_after_integrity(XOR_PEER_ADDRESS, "198.18.2.9:9".parse().unwrap());
    let answer = client.exchange(&smuggling.build()).unwrap();
    assert_eq!((answer.transaction, answer.error_code()), ([7; 12], None));

    let twice = bind(client.builder(METHOD_CHANNEL_BIND)).channel_number(0x4002);
    assert_eq!(client.exchange(&twice.build()).unwrap().error_code(), Some(400));

    client.refresh(0).unwrap();
}

#[test]
fn a_killed_server_can_be_started_again_and_a_broken_one_is_reported() {
    let lab = Lab::new(Topology::One).unwrap();
    let coturn = Coturn::start(&lab).unwrap();
    let mut client = client(&lab, &coturn, Family::V4);
    client.allocate(None, None).unwrap();
    coturn.kill().unwrap();
    let coturn =
        CoturnOptions::of(&lab).arguments(&["--max-allocate-lifetime=700"]).start(&lab.server).unwrap();
    assert_eq!(client.refresh(600).unwrap_err().code(), Some(437));
    assert_eq!(client.allocate(None, Some(3000)).unwrap().lifetime, 700);
    coturn.stop().unwrap();

    let nowhere = CoturnOptions::of(&lab).listen(&["198.18.9.9".parse().unwrap()]).start(&lab.server);
    assert!(nowhere.is_err());
}
