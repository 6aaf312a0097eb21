//! Interfaces that go down, disappear, or change.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use turn_testkit::coturn::CoturnOptions;
use turn_testkit::daemon::Session;
use turn_testkit::figures::Figures;
use turn_testkit::lab::{self, XdpMode, default_route};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Echo, Report};

use crate::call::Call;
use crate::{CHANNEL, modes, options};

const FOUR_SECONDS: Duration = Duration::from_secs(4);
/// For how long a fault goes on.
const FAULT: Duration = Duration::from_millis(500);

fn modes_of(offload: &mut Offload) -> Vec<String> {
    offload.daemon().status().unwrap().interfaces.into_iter().map(|one| one.mode).collect()
}

/// A server with two ways to its peers, and a relayed transport address that is on neither. While one interface is down the other is used.
#[test]
fn an_interface_that_goes_down_is_left_for_another_and_used_again() {
    const RELAY: &str = "198.18.9.1";
    for mode in modes() {
        let mut offload = options().mode(mode).daemon(&["srv2"]).without_coturn().start_without_daemon();
        let (server, peer) = (&offload.lab.server, &offload.lab.peer);
        lab::connect((server, "srv2", 3, 1), (peer, "peer1", 2)).unwrap();
        let _pass = peer.attach_pass("peer1", XdpMode::Native).unwrap();
        server.run("ip", &["address", "add", RELAY, "dev", "lo"]).unwrap();
        default_route(server, 3, 2).unwrap();
        let options = CoturnOptions::of(&offload.lab).relay(&[RELAY.parse().unwrap()]);
        offload.serve(options);
        offload.start_daemon();
        let (server, peer) = (&offload.lab.server, &offload.lab.peer);
        let to_relay = |gateway| peer.run("ip", &["route", "replace", RELAY, "via", gateway]).unwrap();
        let set = |state| server.run("ip", &["link", "set", "srv1", state]).unwrap();
        // Else the kernel sends by an interface that is up and has no carrier yet, for up to a second.
        for namespace in [server, peer] {
            namespace.set_sysctl("ipv4/conf/all/ignore_routes_with_linkdown", "1").unwrap();
        }
        to_relay("198.18.2.1");
        let mut call = Call::begin(&offload);
        let client = call.client.address().unwrap();

        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            set("down");
            to_relay("198.18.3.1");
            let before = row(&offload, client);
            wait_until("the other way is the kernel's", || {
                let now = row(&offload, client);
                now.state == "kernel"
                    && now.client_to_peer.kernel_packets > before.client_to_peer.kernel_packets + 20
                    && now.peer_to_client.kernel_packets > before.peer_to_client.kernel_packets + 20
            });
            set("up");
            wait_until("the peer has its carrier", || {
                peer.output("ip", &["link", "show", "peer0"]).unwrap().contains("LOWER_UP")
            });
            to_relay("198.18.2.1");
        });
        assert_eq!(modes_of(&mut offload), [mode; 3]);
        // Two commands of the test, and what the daemon needs to hear of it.
        assert!(ordeal.report.lost() < 1000, "{mode}: {:?}", ordeal.report.verify());
        ordeal.figures("interface-down-up").report();
    }
}

fn row(offload: &Offload, client: SocketAddr) -> Session {
    offload.sessions().into_iter().find(|row| row.client == client).unwrap()
}

/// With `--mode auto` too: a driver that refuses frames because it is down is no reason to do without it.
#[test]
fn a_carrier_that_goes_and_comes_is_used_again() {
    for (wanted, mode) in [("auto", "native"), ("tc", "tc"), ("generic", "generic")] {
        let mut offload = options().mode(wanted).start();
        let mut call = Call::begin(&offload);
        let peer = &offload.lab.peer;
        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            peer.run("ip", &["link", "set", "peer0", "down"]).unwrap();
            sleep(FAULT);
            peer.run("ip", &["link", "set", "peer0", "up"]).unwrap();
            // Without its IPv6 half: those addresses went with the interface.
            peer.run("ip", &["route", "replace", "default", "via", "198.18.2.1"]).unwrap();
        });
        assert_eq!(modes_of(&mut offload), [mode; 2]);
        ordeal.figures("carrier-lost").report();
    }
}

/// What still fits is not lost. What does not is the server's, and coturn does not let it be fragmented.
#[test]
fn an_mtu_that_shrinks_and_grows_is_followed() {
    const MTU: usize = 576;
    const HEADERS: usize = 28;
    for mode in modes() {
        let mut offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let client = call.client.address().unwrap();
        let before = row(&offload, client);
        let sizes = 100..=1000;
        let ordeal = call.through_with(&offload, sizes.clone(), FOUR_SECONDS, || {
            offload.lab.server.run("ip", &["link", "set", "srv1", "mtu", &MTU.to_string()]).unwrap();
            // Packets of all sizes come meanwhile.
            sleep(FAULT * 2);
            let now = row(&offload, client);
            assert!(
                now.client_to_peer.kernel_packets > before.client_to_peer.kernel_packets,
                "the counters go on"
            );
            offload.lab.server.run("ip", &["link", "set", "srv1", "mtu", "1500"]).unwrap();
        });
        assert_eq!(modes_of(&mut offload), [mode; 2]);
        assert!(offload.count("too_big") > 0, "{mode}");
        let Report { sent, tally, .. } = &ordeal.report;
        let size = |number: &u64| sizes.start() + *number as usize % sizes.clone().count();
        let missing = tally.missing(*sent, *sent as usize);
        let fitting = missing.iter().filter(|number| size(number) + HEADERS <= MTU).count();
        assert!(fitting as u64 <= ordeal.overflowed, "{mode}: {fitting}: {}", offload.log());
        let fit = (0..*sent).filter(|number| size(number) + HEADERS <= MTU).count();
        Figures::of("mtu-changes").lost(fitting as u64, fit as u64).healed(ordeal.healed).report();
    }
}

/// The others go on, and one that comes back under its old name is taken up again.
#[test]
fn an_interface_that_disappears_leaves_the_others_alone_and_is_taken_up_when_it_returns() {
    for mode in modes() {
        let mut offload = options().mode(mode).daemon(&["srv2"]).start_without_daemon();
        let connect = |offload: &Offload| {
            let (server, peer) = (&offload.lab.server, &offload.lab.peer);
            lab::connect((server, "srv2", 3, 1), (peer, "peer1", 2)).unwrap();
            peer.attach_pass("peer1", XdpMode::Native).unwrap()
        };
        let first_pass = connect(&offload);
        offload.start_daemon();
        let mut call = Call::begin(&offload);
        let (mut other, _) = offload.allocated_client();
        let echo = Echo::start(offload.lab.peer.udp_socket("198.18.3.2:0".parse().unwrap()).unwrap());
        offload.bind_and_arm(&mut other, CHANNEL, &echo);

        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            offload.lab.server.run("ip", &["link", "delete", "srv2"]).unwrap();
            wait_until("it is left out", || offload.log().contains("the interface is gone"));
        });
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        ordeal.figures("interface-removed").report();
        assert_eq!(modes_of(&mut offload), [mode; 2]);

        drop(first_pass);
        let _pass = connect(&offload);
        wait_until("it is attached to", || modes_of(&mut offload) == [mode; 3]);
        let began = Instant::now();
        offload.arm(&mut other, CHANNEL);
        Figures::of("interface-returns").healed(began.elapsed()).report();
    }
}
