use std::fs;
use std::time::Duration;

use super::*;

fn every_pair_talks(lab: &Lab) {
    for family in [Family::V4, Family::V6] {
        let Addresses { client, listen, relay, peer } = lab.addresses(family);
        for (from, source, to) in [(&lab.client, client, listen), (&lab.peer, peer, relay)] {
            let server = lab.server.udp_socket((to, 0).into()).unwrap();
            let sender = from.udp_socket((source, 0).into()).unwrap();
            sender.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            sender.send_to(b"there", server.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 16];
            let (length, origin) =
                server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{source} -> {to}: {error}"));
            assert_eq!((&buffer[..length], origin.ip()), (&b"there"[..], source));
            server.send_to(b"back", origin).unwrap();
            assert_eq!(sender.recv(&mut buffer).unwrap(), 4);
        }
    }
}

#[test]
fn both_topologies_connect_and_disappear() {
    for topology in [Topology::One, Topology::Two] {
        let mut lab = Lab::new(topology).unwrap();
        every_pair_talks(&lab);
        lab.attach_pass().unwrap();
        every_pair_talks(&lab);
        let wires = lab.wires();
        let shown = wires.iter().map(|(ns, dev)| ns.output("ip", &["link", "show", dev]).unwrap());
        assert_eq!(shown.filter(|link| link.contains(" xdp ")).count(), lab.interfaces().len());
        assert_eq!(lab.server.output("cat", &["/proc/sys/net/ipv4/ip_forward"]).unwrap().trim(), "0");
        drop(wires);

        let names: Vec<String> = lab.namespaces().map(|ns| ns.name().to_owned()).collect();
        drop(lab);
        assert!(names.iter().all(|name| !fs::exists(format!("/run/netns/{name}")).unwrap()), "{names:?}");
    }
}

#[test]
fn what_a_dead_process_left_is_removed() {
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let name = format!("tb-{}-0-server", dead.id());
    std::mem::forget(Namespace::new(name.clone()).unwrap());
    let mut inside =
        std::process::Command::new("ip").args(["netns", "exec", &name, "sleep", "60"]).spawn().unwrap();
    while leftover_processes(&name) == 0 {}
    drop(Lab::new(Topology::Two).unwrap());
    assert!(!fs::exists(format!("/run/netns/{name}")).unwrap());
    assert!(!inside.wait().unwrap().success());
}

fn leftover_processes(name: &str) -> usize {
    let output = std::process::Command::new("ip").args(["netns", "pids", name]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn a_failing_command_is_told() {
    let lab = Lab::new(Topology::Two).unwrap();
    let error = lab.server.run("ip", &["link", "show", "nonesuch"]).unwrap_err();
    assert!(error.to_string().contains("nonesuch"), "{error}");
}

#[test]
fn a_full_socket_buffer_is_counted() {
    let lab = Lab::new(Topology::Two).unwrap();
    for family in [Family::V4, Family::V6] {
        let before = lab.peer.udp_overflows().unwrap();
        let address = lab.addresses(family).peer;
        let slow = lab.peer.udp_socket((address, 0).into()).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&slow, 4096).unwrap();
        let sender = lab.peer.udp_socket((address, 0).into()).unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1000], slow.local_addr().unwrap()).unwrap();
        }
        assert!(lab.peer.udp_overflows().unwrap() > before + 50, "{family:?}");
    }
}
