//! The server's own address is on no wire that a client or a peer sees: 1:1 NAT, in front of it or on its own machine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use turn_testkit::coturn::{Coturn, CoturnOptions, PORT};
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{self, Family, Namespace, Topology};
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::traffic::{Carrier as _, Channel, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::calls::{load, talk_in_kernel};
use crate::wires::{Wires, assert_carried};
use crate::{CHANNEL, FAMILY_PAIRS, options};

/// What the world calls the server.
fn public(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 100, 1].into(),
        Family::V6 => [0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1].into(),
    }
}

/// Translates between a public and a private address in a namespace that forwards. Ports stay.
fn translate(namespace: &Namespace, public: IpAddr, private: IpAddr) {
    let family = if public.is_ipv4() { "ip" } else { "ip6" };
    let rules = format!(
        "table {family} one_to_one {{
            chain inward {{
                type nat hook prerouting priority dstnat;
                {family} daddr {public} dnat to {private}
            }}
            chain outward {{
                type nat hook postrouting priority srcnat;
                {family} saddr {private} snat to {public}
            }}
        }}"
    );
    namespace.run("nft", &[&rules]).unwrap();
}

/// A server that knows what the world calls it.
fn coturn_behind_nat(options: CoturnOptions, private: [(Family, IpAddr); 2]) -> CoturnOptions {
    private.iter().fold(options, |options, (family, private)| {
        options.arguments(&["-X", &format!("{}/{private}", public(*family))])
    })
}

fn client(offload: &Offload, family: Family) -> TurnClient {
    let address = (offload.lab.addresses(family).client, 0).into();
    TurnClient::new(offload.lab.client.udp_socket(address).unwrap(), (public(family), PORT).into())
}

/// A router in front of the server translates; the server and turn-bpf see private addresses.
fn behind_a_router(mode: &str) -> Offload {
    let mut offload = options().topology(Topology::One).mode(mode).without_coturn().start();
    let private = [Family::V4, Family::V6].map(|family| (family, offload.lab.addresses(family).relay));
    let router = offload.lab.router.as_ref().unwrap();
    for (family, private) in private {
        translate(router, public(family), private);
    }
    offload.serve(coturn_behind_nat(CoturnOptions::of(&offload.lab), private));
    offload
}

#[test]
fn a_server_behind_a_router_that_translates_is_offloaded() {
    for mode in ["native", "generic"] {
        let offload = behind_a_router(mode);
        for (client_family, peer_family) in FAMILY_PAIRS {
            let mut client = client(&offload, client_family);
            let relayed = client.allocate(Some(peer_family), None).unwrap().relayed;
            assert_eq!(relayed.ip(), public(peer_family));
            let echo = offload.echo_of(peer_family);
            offload.bind_and_arm(&mut client, CHANNEL, &echo);
            let wires = Wires::of(&offload);
            let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
            // Rows tell what is on the server's own wire.
            let on_wire = |family, port| SocketAddr::new(offload.lab.addresses(family).relay, port);
            assert_eq!(talk.session.server, on_wire(client_family, PORT));
            assert_eq!(talk.session.relayed, on_wire(peer_family, relayed.port()));
            let datagrams = wires.datagrams();
            assert_carried(&datagrams, (talk.session.relayed, echo.address()), &talk);
            assert_carried(&datagrams, (relayed, echo.address()), &talk);
            assert!(datagrams.iter().all(|one| one.packet.source != relayed || one.wire == "rtr-peer"));
        }
    }
}

/// The address that was learned from one allocation is the first guess for the next, so that a peer may speak first.
#[test]
fn a_peer_that_speaks_first_is_relayed_once_the_private_address_is_known() {
    let offload = behind_a_router("native");
    let (mut first, mut second) = (client(&offload, Family::V4), client(&offload, Family::V4));
    let relayed = [&mut first, &mut second].map(|client| client.allocate(None, None).unwrap().relayed);
    let echo = offload.echo();
    offload.bind_and_arm(&mut first, CHANNEL, &echo);

    let peer = offload.peer();
    second.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    let row = offload.wait_for_session(&second, CHANNEL, |_| true);
    let private = offload.lab.addresses(Family::V4).relay;
    assert_eq!(row.relayed, SocketAddr::new(private, relayed[1].port()));
    let mut packets = 0;
    wait_until("the peer is relayed in the kernel", || {
        peer.send_to(b"from the peer", relayed[1]).unwrap();
        packets += 1;
        let mut channel = Channel { client: &mut second, number: CHANNEL };
        assert_eq!(channel.receive(PATIENCE).unwrap().as_deref(), Some(&b"from the peer"[..]));
        offload.session(&second, CHANNEL).unwrap().peer_to_client.kernel_packets > 0
    });
    let row = offload.session(&second, CHANNEL).unwrap();
    assert_eq!((row.state.as_str(), row.peer_to_client.packets()), ("mixed", packets));
}

/// `--join` never hears what the server calls itself.
#[test]
fn a_call_in_progress_behind_a_router_that_translates_is_joined() {
    let mut offload = behind_a_router("native");
    assert!(offload.take_daemon().stop().unwrap().success());
    let mut calls: Vec<_> = FAMILY_PAIRS
        .into_iter()
        .map(|(client_family, peer_family)| {
            let mut client = client(&offload, client_family);
            let relayed = client.allocate(Some(peer_family), None).unwrap().relayed;
            let echo = offload.echo_of(peer_family);
            client.channel_bind(CHANNEL, echo.address()).unwrap();
            (client, peer_family, relayed, echo)
        })
        .collect();
    offload.start_daemon_with(&["--join"]);
    for (number, (client, peer_family, relayed, _echo)) in calls.iter_mut().enumerate() {
        let traffic =
            Traffic { stream: number as u32, sizes: 100..=300, rate: 200, duration: Duration::from_secs(1) };
        let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
        let row = offload.wait_for_session(client, CHANNEL, |row| row.state == "kernel");
        let on_wire = SocketAddr::new(offload.lab.addresses(*peer_family).relay, relayed.port());
        assert_eq!(row.relayed, on_wire);
        client.channel_bind(CHANNEL, row.peer).unwrap();
        assert_eq!(offload.session(client, CHANNEL).unwrap().state, "kernel");
    }
}

/// Nobody translates: then the peers see the private address, and answer to it.
#[test]
fn the_relayed_address_is_learned_from_the_wire() {
    let mut offload = options().without_coturn().start();
    let private = [Family::V4, Family::V6].map(|family| (family, offload.lab.addresses(family).relay));
    offload.serve(coturn_behind_nat(CoturnOptions::of(&offload.lab), private));
    for (client_family, peer_family) in FAMILY_PAIRS {
        let (mut client, advertised) = offload.allocated_client_of(client_family, peer_family);
        assert_eq!(advertised.ip(), public(peer_family));
        let echo = offload.echo_of(peer_family);
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
        let private = offload.lab.addresses(peer_family).relay;
        assert_eq!(talk.session.relayed, SocketAddr::new(private, advertised.port()));
    }
}

/// A server in a namespace of its own, behind an address translation on the machine that turn-bpf runs on.
struct Container {
    offload: Offload,
    namespace: Namespace,
    _coturn: Coturn,
}

const CONTAINER_NET: u8 = 3;

impl Container {
    /// The machine's own address is what the world calls the server.
    fn start(offload: Offload) -> Self {
        let namespace = offload.lab.add_namespace("container").unwrap();
        let host = &offload.lab.server;
        lab::connect((host, "ctr-host", CONTAINER_NET, 1), (&namespace, "ctr0", 2)).unwrap();
        lab::default_route(&namespace, CONTAINER_NET, 1).unwrap();
        host.set_sysctl("ipv4/ip_forward", "1").unwrap();
        let public = offload.lab.addresses(Family::V4).listen;
        let private = IpAddr::from([198, 18, CONTAINER_NET, 2]);
        translate(host, public, private);
        let coturn = CoturnOptions::of(&offload.lab)
            .listen(&[private])
            .relay(&[private])
            .arguments(&["-X", &format!("{public}/{private}")])
            .start(&namespace)
            .unwrap();
        Self { offload, namespace, _coturn: coturn }
    }
}

/// On the outer interface the machine only forwards what the server sends, and whoever may forward through it may write what
/// looks like the server's. So nothing is learned there, and everything works without.
#[test]
fn a_server_whose_packets_are_only_forwarded_is_left_alone() {
    for mode in ["native", "generic"] {
        let offload = options().topology(Topology::One).mode(mode).without_coturn().start();
        let container = Container::start(offload);
        let offload = &container.offload;
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        let before = offload.count("no_flow");
        let traffic = Traffic { stream: 1, sizes: 32..=1200, rate: 500, duration: Duration::from_secs(1) };
        let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
        assert_eq!(relayed.ip(), offload.lab.addresses(Family::V4).relay);
        assert_eq!(offload.sessions(), []);
        assert_eq!(offload.kernel_packets(), 0);
        assert!(offload.count("no_flow") - before >= 2 * report.sent);
        assert_eq!(offload.count("egress_control"), 0);
        assert!(offload.count("egress_other") >= 2 * report.sent);
    }
}

/// In the server's own namespace it is the server's machine that sends, as anywhere else.
#[test]
fn a_server_in_a_container_is_offloaded_at_the_containers_interface() {
    let offload = options().topology(Topology::One).without_coturn().start_without_daemon();
    let container = Container::start(offload);
    let Container { offload, namespace, .. } = &container;
    let control = offload.control();
    let binary = env!("CARGO_BIN_EXE_turn-bpf");
    let daemon = Daemon::start(namespace, binary.as_ref(), &control, &["ctr0"]).unwrap();
    let (mut client, advertised) = offload.allocated_client();
    let echo = offload.echo();
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    let traffic = Traffic { stream: 1, sizes: 32..=1200, rate: 1000, duration: Duration::from_secs(1) };
    let mut share = 0.0;
    for _ in 0..4 {
        let before = daemon.status().unwrap().packets.kernel;
        let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
        let kernel = daemon.status().unwrap().packets.kernel - before;
        share = kernel as f64 / (2 * report.sent) as f64;
        if share >= 0.99 {
            break;
        }
    }
    assert!(share >= 0.99, "{share}\n{}", daemon.log());
    let rows = daemon.sessions().unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let private = IpAddr::from([198, 18, CONTAINER_NET, 2]);
    assert_eq!(row.relayed, SocketAddr::new(private, advertised.port()));
    assert_eq!((row.server, row.peer), (SocketAddr::new(private, PORT), echo.address()));
}
