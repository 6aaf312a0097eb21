//! Several addresses, ports, interfaces and servers on one machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use turn_testkit::coturn::{CoturnOptions, PORT};
use turn_testkit::lab::{self, Family, Namespace, Topology, XdpMode};
use turn_testkit::offload::Offload;
use turn_testkit::traffic::Echo;
use turn_testkit::turn_client::TurnClient;

use crate::calls::{EchoingClient, load, talk_in_kernel};
use crate::wires::Wires;
use crate::{CHANNEL, TOPOLOGIES, options};

const MODES: [&str; 2] = ["native", "generic"];

fn v4(net: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(198, 18, net, host).into()
}

fn allocated(offload: &Offload, server: SocketAddr) -> (TurnClient, SocketAddr) {
    let address = (offload.lab.addresses(Family::V4).client, 0).into();
    let mut client = TurnClient::new(offload.lab.client.udp_socket(address).unwrap(), server);
    let relayed = client.allocate(None, None).unwrap().relayed;
    (client, relayed)
}

/// A third network of the server, with its own namespace at the other end.
struct ThirdNetwork {
    namespace: Namespace,
    _pass: OwnedFd,
}

impl ThirdNetwork {
    const NET: u8 = 3;

    fn connect(server: &Namespace, namespace: Namespace) -> Self {
        lab::connect((server, "srv2", Self::NET, 1), (&namespace, "third0", 2)).unwrap();
        lab::default_route(&namespace, Self::NET, 1).unwrap();
        let pass = namespace.attach_pass("third0", XdpMode::Native).unwrap();
        Self { namespace, _pass: pass }
    }
}

/// Each of two listening and two relay addresses, with the second on the same interface as the first.
#[test]
fn secondary_addresses_are_as_good_as_the_first() {
    for topology in TOPOLOGIES {
        let mut offload = options().topology(topology).without_coturn().start();
        let addresses = offload.lab.addresses(Family::V4);
        let (listen, relay): (Vec<_>, Vec<_>) = match topology {
            Topology::One => (vec![addresses.listen, v4(0, 11)], vec![addresses.relay, v4(0, 12)]),
            Topology::Two => (vec![addresses.listen, v4(1, 11)], vec![addresses.relay, v4(2, 12)]),
        };
        let relay_interface = *offload.lab.interfaces().last().unwrap();
        for (address, interface) in [(listen[1], "srv0"), (relay[1], relay_interface)] {
            let address = format!("{address}/24");
            offload.lab.server.run("ip", &["address", "add", &address, "dev", interface]).unwrap();
        }
        offload.serve(CoturnOptions::of(&offload.lab).listen(&listen).relay(&relay));
        let echo = offload.echo();
        let mut relayed_by = Vec::new();
        for number in 0..6 {
            let (mut client, relayed) = allocated(&offload, (listen[number % 2], PORT).into());
            if relayed_by.contains(&(number % 2, relayed.ip())) {
                continue;
            }
            relayed_by.push((number % 2, relayed.ip()));
            offload.bind_and_arm(&mut client, CHANNEL, &echo);
            let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
            assert_eq!((talk.session.relayed, talk.session.server), (relayed, client.server()));
        }
        for address in relay {
            assert!(relayed_by.iter().any(|(_, found)| *found == address), "{relayed_by:?}");
        }
    }
}

/// A client on one socket has two 5-tuples with two listeners, and the same channel number on both.
#[test]
fn listeners_on_several_ports_do_not_mix() {
    let offload = options().coturn(&["--aux-server=198.18.1.1:5349"]).start();
    let addresses = offload.lab.addresses(Family::V4);
    let (mut first, first_relayed) = allocated(&offload, (addresses.listen, PORT).into());
    // The same source port toward the other listener.
    let socket = first.socket().try_clone().unwrap();
    let mut second = TurnClient::new(socket, (addresses.listen, 5349).into());
    let second_relayed = second.allocate(None, None).unwrap().relayed;
    assert_ne!(first_relayed, second_relayed);
    let echoes = [offload.echo(), offload.echo()];
    let relayed = [first_relayed, second_relayed];
    for ((client, relayed), echo) in [&mut first, &mut second].into_iter().zip(relayed).zip(&echoes) {
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        let row = offload.wait_for_session(client, CHANNEL, |row| row.server == client.server());
        assert_eq!((row.relayed, row.peer), (relayed, echo.address()));
    }
    for (client, echo) in [(&mut first, &echoes[0]), (&mut second, &echoes[1])] {
        offload.arm(client, CHANNEL);
        let talk = talk_in_kernel(&offload, client, CHANNEL, &load(1));
        assert_eq!((talk.session.server, talk.session.peer), (client.server(), echo.address()));
    }
}

/// coturn also listens on the port behind its own.
const OTHER_PORT: u16 = PORT + 10;

/// Two servers on the same addresses, that know nothing of each other; and two clients, each of one server, that are peers.
#[test]
fn two_servers_on_one_host_do_not_mix() {
    let mut offload = options().without_coturn().start();
    offload.serve(CoturnOptions::of(&offload.lab).arguments(&["--min-port=50000", "--max-port=50099"]));
    let other = CoturnOptions::of(&offload.lab)
        .port(OTHER_PORT)
        .arguments(&["--min-port=50100", "--max-port=50199"])
        .start(&offload.lab.server)
        .unwrap();
    let listen = offload.lab.addresses(Family::V4).listen;
    let echo = offload.echo();
    let mut relayed = Vec::new();
    let mut clients: Vec<TurnClient> = [PORT, OTHER_PORT]
        .into_iter()
        .map(|port| {
            let (mut client, address) = allocated(&offload, (listen, port).into());
            relayed.push(address);
            offload.bind_and_arm(&mut client, CHANNEL, &echo);
            client
        })
        .collect();
    assert!(
        (50000..50100).contains(&relayed[0].port()) && (50100..50200).contains(&relayed[1].port()),
        "{relayed:?}"
    );
    for client in &mut clients {
        talk_in_kernel(&offload, client, CHANNEL, &load(1));
    }

    // From one server's client to the other's.
    const ACROSS: u16 = 0x4100;
    clients[0].channel_bind(ACROSS, relayed[1]).unwrap();
    clients[1].channel_bind(ACROSS, relayed[0]).unwrap();
    let echoing = EchoingClient::start(clients.remove(1));
    offload.arm(&mut clients[0], ACROSS);
    talk_in_kernel(&offload, &mut clients[0], ACROSS, &load(2));

    drop(echoing);
    other.kill().unwrap();
    talk_in_kernel(&offload, &mut clients[0], CHANNEL, &load(3));
}

/// A relay address on each of two interfaces, and a peer behind each: also those that are reached by the other interface.
#[test]
fn relay_addresses_on_several_interfaces() {
    for mode in MODES {
        let mut offload = options().mode(mode).daemon(&["srv2"]).without_coturn().start_without_daemon();
        let namespace = offload.lab.add_namespace("third").unwrap();
        let third = ThirdNetwork::connect(&offload.lab.server, namespace);
        offload.start_daemon();
        let relay = [offload.lab.addresses(Family::V4).relay, v4(ThirdNetwork::NET, 1)];
        offload.serve(CoturnOptions::of(&offload.lab).relay(&relay));
        let echoes = [
            offload.echo(),
            Echo::start(third.namespace.udp_socket((v4(ThirdNetwork::NET, 2), 0).into()).unwrap()),
        ];
        let mut seen = Vec::new();
        for _ in 0..6 {
            let (mut client, relayed) = offload.allocated_client();
            if seen.contains(&relayed.ip()) {
                continue;
            }
            seen.push(relayed.ip());
            for (echo, channel) in echoes.iter().zip([CHANNEL, CHANNEL + 1]) {
                offload.bind_and_arm(&mut client, channel, echo);
                let talk = talk_in_kernel(&offload, &mut client, channel, &load(1));
                assert_eq!((talk.session.relayed, talk.session.peer), (relayed, echo.address()));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, relay);
    }
}

#[test]
fn a_listener_on_a_wildcard_socket_is_offloaded() {
    for topology in TOPOLOGIES {
        let mut offload = options().topology(topology).without_coturn().start();
        let addresses = offload.lab.addresses(Family::V4);
        offload.serve(
            CoturnOptions::of(&offload.lab).listen(&[Ipv4Addr::UNSPECIFIED.into()]).relay(&[addresses.relay]),
        );
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
        assert_eq!((talk.session.relayed, talk.session.server), (relayed, client.server()));
    }
}

/// The main table knows one way to the peer, and a rule for the relay address another.
#[test]
fn policy_routing_is_followed() {
    for mode in MODES {
        let mut offload = options().mode(mode).daemon(&["srv2"]).start_without_daemon();
        let (server, peer) = (&offload.lab.server, &offload.lab.peer);
        lab::connect((server, "srv2", 3, 1), (peer, "peer1", 2)).unwrap();
        let _pass = peer.attach_pass("peer1", XdpMode::Native).unwrap();
        let addresses = offload.lab.addresses(Family::V4);
        let (relay, peer_address) = (addresses.relay.to_string(), addresses.peer.to_string());
        for arguments in [
            &["rule", "add", "from", &relay, "to", &peer_address, "lookup", "100"][..],
            &["route", "add", "default", "via", "198.18.3.2", "dev", "srv2", "table", "100"],
        ] {
            server.run("ip", arguments).unwrap();
        }
        offload.start_daemon();
        let wires = Wires::of(&offload).and(&offload.lab.peer, "peer1");
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
        let to_peer: Vec<&str> = wires
            .datagrams()
            .iter()
            .filter(|one| one.ends() == (relayed, echo.address()))
            .map(|one| one.wire)
            .collect();
        assert!(to_peer.len() as u64 >= talk.sent);
        assert!(to_peer.iter().all(|wire| *wire == "peer1"), "{mode}");
    }
}

/// Client, server and peer on one switch: what comes in goes out by the same interface to a neighbour.
#[test]
fn client_and_peer_on_the_servers_own_subnet() {
    for mode in MODES {
        let mut offload = options().topology(Topology::One).mode(mode).start();
        let router = offload.lab.router.as_ref().unwrap();
        router.run("ip", &["link", "add", "switch", "type", "bridge"]).unwrap();
        for port in ["rtr-srv", "rtr-cli", "rtr-peer"] {
            router.run("ip", &["link", "set", port, "master", "switch"]).unwrap();
        }
        router.run("ip", &["link", "set", "switch", "up"]).unwrap();
        let ends = [(&offload.lab.client, "cli0", v4(0, 2)), (&offload.lab.peer, "peer0", v4(0, 3))];
        for (namespace, interface, address) in ends {
            let address = format!("{address}/24");
            namespace.run("ip", &["address", "add", &address, "dev", interface]).unwrap();
        }
        let socket = offload.lab.client.udp_socket((v4(0, 2), 0).into()).unwrap();
        let mut client = TurnClient::new(socket, offload.listener());
        let relayed = client.allocate(None, None).unwrap().relayed;
        let echo = Echo::start(offload.lab.peer.udp_socket((v4(0, 3), 0).into()).unwrap());
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
        assert_eq!((talk.session.relayed, talk.session.peer), (relayed, echo.address()));
        assert_eq!(offload.daemon().status().unwrap().interfaces[0].mode, mode);
    }
}
