//! Of what the server's packets pass, and those that the kernel relays do not.

use super::super::facts::InterfaceFacts;
use super::super::{Check, Facts, Group};

/// All of these that are not of one interface.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![rules(facts), tracking(facts)]
}

/// All of these, of one interface.
pub fn of_interface(facts: &InterfaceFacts) -> Vec<Check> {
    vec![rp_filter(facts)]
}

fn rules(facts: &Facts) -> Check {
    let check = Group::Firewall.check_host("rules");
    let firewall = &facts.firewall;
    let legacy = match firewall.legacy_tables.is_empty() {
        true => String::new(),
        false => format!(
            "; iptables' own tables ({}) cannot be read: iptables-legacy-save shows them",
            firewall.legacy_tables.join(", ")
        ),
    };
    let Some(rules) = &firewall.rules else {
        return check.skip(format!("nftables' rules cannot be read: {}{legacy}", firewall.untold));
    };
    if rules.is_empty() {
        let found = "no rule of nftables does more to the server's UDP packets than let them pass";
        return match legacy.is_empty() {
            true => check.pass(found),
            false => check.skip(format!("{found}{legacy}")),
        };
    }
    let shown = rules.iter().take(MOST_SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let more = match rules.len().saturating_sub(MOST_SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let delete: Vec<_> = rules
        .iter()
        .take(MOST_SHOWN)
        .map(|rule| {
            format!("nft delete rule {} {} {} handle {}", rule.family, rule.table, rule.chain, rule.handle)
        })
        .collect();
    check.warn(
        format!(
            "{shown}{more}{legacy}. What the kernel relays passes by these: one that stops a call does so when its lease ends \
             (10 s), and one that limits sees one packet for each flow and heartbeat"
        ),
        format!("nothing, if that will do; turn-bpf evict after a ban has it act at once; to be rid of them: {}", delete.join(" && ")),
    )
}

fn tracking(facts: &Facts) -> Check {
    let check = Group::Firewall.check_host("connection_tracking");
    let Some(tracking) = facts.firewall.tracking else { return check.pass("connections are not tracked") };
    let shortest = tracking.timeout.min(tracking.timeout_stream);
    if shortest > HEARTBEAT {
        return check.pass(format!(
            "UDP is remembered for {} s, {} s once it has gone both ways; each flow sends a packet that way every {HEARTBEAT} s \
             (--heartbeat)",
            tracking.timeout, tracking.timeout_stream
        ));
    }
    check.warn(
        format!(
            "UDP is forgotten after {shortest} s, while of what the kernel relays only one packet in {HEARTBEAT} s (--heartbeat) goes \
             that way: rules for established connections will not match it"
        ),
        "sysctl -w net.netfilter.nf_conntrack_udp_timeout=30 net.netfilter.nf_conntrack_udp_timeout_stream=120",
    )
}

/// The filter throws packets away before the server sees them, so heartbeats too.
fn rp_filter(facts: &InterfaceFacts) -> Check {
    let (name, network) = (&facts.interface.name, &facts.network);
    let check = Group::Firewall.check("rp_filter", name);
    match (network.rp_filter, network.rp_filtered) {
        (None, _) => check.skip("net.ipv4.conf.*.rp_filter is not shown here"),
        (Some(1), 0) => check.pass("strict, and it has thrown nothing away"),
        (Some(1), packets) => check.warn(
            format!(
                "strict, and it has thrown away {packets} packets (at all interfaces), which came by another way than answers would \
                 go: heartbeats of such flows are lost, too, and they go to the server, in vain"
            ),
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
        ),
        (Some(_), _) => check.pass("not strict"),
    }
}

const MOST_SHOWN: usize = 5;
/// turn-bpf's own, in seconds.
const HEARTBEAT: u32 = 3;
