//! The server, and what its packets pass.

use super::*;

#[test]
fn checks_of_the_server() {
    type Change = fn(&mut Server);
    let cases: [(Change, Outcome, &str, Option<&str>); 5] = [
        (
            |_| {},
            Pass,
            "turnserver, pid 812, listens at UDP 198.18.1.1:3478; it is Coturn-4.6.1 'Gorst'; 9 other UDP sockets",
            None,
        ),
        (
            |server| {
                let listener = server.listener.as_mut().unwrap();
                (listener.process, listener.software) = (None, None);
            },
            Pass,
            "listens at UDP 198.18.1.1:3478",
            None,
        ),
        (|server| server.listener = None, Warn, "by TCP, and nobody by UDP", Some("no-udp")),
        (
            |server| {
                server.listener = None;
                server.elsewhere = Some(Process { pid: 99, command: "turnserver".into() });
            },
            Warn,
            "in another network namespace",
            Some("nsenter --net=/proc/99/ns/net"),
        ),
        (
            |server| (server.listener, server.has_tcp) = (None, false),
            Warn,
            "nobody listens at UDP port 3478",
            Some("--port"),
        ),
    ];
    for (change, result, detail, mend) in cases {
        let mut facts = machine();
        change(&mut facts.server);
        assert_check(&all(&facts), "server", result, detail, mend);
    }
}

#[test]
fn checks_of_the_firewall() {
    type Change = fn(&mut Firewall);
    let cases: [(&str, Change, Outcome, &str, Option<&str>); 8] = [
        (
            "rules",
            |f| (f.rules, f.untold) = (None, "nft is not there".into()),
            Skip,
            "cannot be read: nft is not there",
            None,
        ),
        ("rules", |f| f.legacy_tables = vec!["filter".into()], Skip, "own tables (filter)", None),
        (
            "rules",
            |f| f.rules = Some(vec![rule(7)]),
            Warn,
            "inet filter input handle 7 (limit, drop). What the kernel relays",
            Some("nft delete rule inet filter input handle 7"),
        ),
        (
            "rules",
            |f| f.rules = Some((1..=7).map(rule).collect()),
            Warn,
            "and 2 more",
            Some("handle 1 && nft"),
        ),
        ("connection_tracking", |f| f.tracking = track(30, 120), Pass, "for 30 s, 120 s once", None),
        ("connection_tracking", |f| f.tracking = track(4, 120), Pass, "for 4 s", None),
        (
            "connection_tracking",
            |f| f.tracking = track(3, 120),
            Warn,
            "after 3 s",
            Some("nf_conntrack_udp_timeout=30"),
        ),
        (
            "connection_tracking",
            |f| f.tracking = track(30, 2),
            Warn,
            "after 2 s",
            Some("udp_timeout_stream=120"),
        ),
    ];
    for (id, change, result, detail, mend) in cases {
        let mut facts = machine();
        change(&mut facts.firewall);
        assert_check(&all(&facts), id, result, detail, mend);
    }
}

#[test]
fn the_reverse_path_filter() {
    let cases = [
        (None, 0, Skip, "not shown", None),
        (Some(0), 9, Pass, "not strict", None),
        (Some(2), 9, Pass, "not strict", None),
        (Some(1), 0, Pass, "thrown nothing away", None),
        (Some(1), 9, Warn, "thrown away 9 packets", Some("sysctl -w net.ipv4.conf.eth0.rp_filter=2")),
    ];
    for (rp_filter, rp_filtered, result, detail, mend) in cases {
        let network = Network { rp_filter, rp_filtered, ..Network::default() };
        assert_check(&of_interface(&InterfaceFacts { network, ..eth0() }), "rp_filter", result, detail, mend);
    }
}

fn rule(handle: u64) -> Rule {
    let [family, table, chain] = ["inet", "filter", "input"].map(str::to_owned);
    Rule { family, table, chain, handle, does: vec!["limit", "drop"] }
}

fn track(timeout: u32, timeout_stream: u32) -> Option<Tracking> {
    Some(Tracking { timeout, timeout_stream })
}
