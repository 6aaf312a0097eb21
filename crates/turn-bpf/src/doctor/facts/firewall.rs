//! The rules of nftables that what the kernel relays passes by, and connection tracking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::Command;
use std::{fmt, fs};

use ipnet::IpNet;
use serde_json::Value;

/// What the firewall of this network namespace is, as far as a bypass matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// Rules that may change or stop the server's UDP packets, or why that cannot be told.
    pub rules: Option<Vec<Rule>>,
    /// Why not.
    pub untold: String,
    /// Tables of iptables' own kind, which nft does not show.
    pub legacy_tables: Vec<String>,
    /// Connection tracking, where it is at work.
    pub tracking: Option<Tracking>,
}

/// A rule that a packet relayed in the kernel passes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `inet`, `ip`, `ip6`, `netdev`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number, for `nft delete rule`.
    pub handle: u64,
    /// What it does: `drop`, `limit`.
    pub does: Vec<&'static str>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, handle, does } = self;
        write!(f, "{family} {table} {chain} handle {handle} ({})", does.join(", "))
    }
}

/// How long the kernel remembers a UDP conversation that has nothing to say, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracking {
    /// After packets one way only.
    pub timeout: u32,
    /// After packets both ways.
    pub timeout_stream: u32,
}

/// What the server's own packets are known by.
#[derive(Debug, Clone)]
pub struct Concern {
    /// Ports that it listens and relays on.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Addresses of this host.
    pub addresses: Vec<IpAddr>,
}

impl Firewall {
    /// Reads the rules by `nft`, and what the kernel says of tracking.
    pub fn gather(concern: &Concern) -> Self {
        let listed = Command::new("nft").args(["--json", "list", "ruleset"]).output();
        let ruleset = match listed {
            Ok(output) if output.status.success() => {
                serde_json::from_slice::<Value>(&output.stdout).map_err(|error| format!("nft: {error}"))
            }
            Ok(output) => Err(format!(
                "nft: {}",
                String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()
            )),
            Err(_) => Err("nft is not there (Debian: apt-get install nftables)".to_owned()),
        };
        let tracks = ruleset.as_ref().is_ok_and(|ruleset| mentions(ruleset, "ct"));
        let legacy = ["ip_tables_names", "ip6_tables_names"];
        let legacy = legacy
            .map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default());
        let legacy: BTreeSet<_> = legacy.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        Self {
            rules: ruleset.as_ref().ok().map(|ruleset| rules(ruleset, concern)),
            untold: ruleset.err().unwrap_or_default(),
            legacy_tables: legacy.into_iter().collect(),
            tracking: Tracking::gather(tracks),
        }
    }
}

impl Tracking {
    /// None where nothing is tracked: no rule asks for it, and nothing has been.
    fn gather(is_asked_for: bool) -> Option<Self> {
        let read = |name: &str| -> Option<u32> {
            fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        if !is_asked_for && read("count")? == 0 {
            return None;
        }
        Some(Self { timeout: read("udp_timeout")?, timeout_stream: read("udp_timeout_stream")? })
    }
}

/// The rules, of those that a packet to or from the server comes by, that may do more than let one of its UDP packets pass.
fn rules(ruleset: &Value, concern: &Concern) -> Vec<Rule> {
    let objects = ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place =
        |value: &Value, name: &str| (text(&value["family"]), text(&value["table"]), text(&value[name]));
    let all: Vec<_> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let chains = objects.iter().filter_map(|object| object.get("chain"));

    // Which chains packets get to, and from which hook first.
    let mut reached: BTreeMap<_, Hook> = BTreeMap::new();
    let mut fresh: Vec<_> =
        chains.filter_map(|chain| Some((place(chain, "name"), Hook::of(chain["hook"].as_str()?)?))).collect();
    while let Some((chain, hook)) = fresh.pop() {
        let of_chain = all.iter().filter(|rule| place(rule, "chain") == chain);
        let mut targets = Vec::new();
        of_chain.for_each(|rule| targets_of(&rule["expr"], &mut targets));
        for target in targets {
            let target = (chain.0.clone(), chain.1.clone(), target);
            if !reached.contains_key(&target) {
                fresh.push((target, hook));
            }
        }
        reached.insert(chain, hook);
    }

    let concerned = all.iter().filter_map(|rule| {
        let (family, table, chain) = place(rule, "chain");
        let hook = *reached.get(&(family.clone(), table.clone(), chain.clone()))?;
        let expressions = rule["expr"].as_array()?;
        let does: Vec<_> = EFFECTS.iter().copied().filter(|effect| does(expressions, effect)).collect();
        let may_match = expressions.iter().all(|expression| may_match(expression, hook, concern));
        let handle = rule["handle"].as_u64()?;
        (!does.is_empty() && may_match).then_some(Rule { family, table, chain, handle, does })
    });
    concerned.collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    In,
    Out,
}

impl Hook {
    /// Packets that are forwarded are none of the server's.
    fn of(name: &str) -> Option<Self> {
        match name {
            "ingress" | "prerouting" | "input" => Some(Self::In),
            "output" | "postrouting" | "egress" => Some(Self::Out),
            _ => None,
        }
    }
}

/// What a rule can do to a packet, or let depend on how many there were, by nft's names.
const EFFECTS: [&str; 16] = [
    "drop",
    "reject",
    "limit",
    "quota",
    "meter",
    "ct count",
    "queue",
    "mangle",
    "dup",
    "fwd",
    "tproxy",
    "dnat",
    "snat",
    "masquerade",
    "redirect",
    "xt",
];

/// A limit may be inside a set's.
fn does(expressions: &[Value], effect: &str) -> bool {
    expressions.iter().any(|expression| mentions(expression, effect))
}

fn mentions(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(members) => {
            members.contains_key(key) || members.values().any(|member| mentions(member, key))
        }
        Value::Array(values) => values.iter().any(|value| mentions(value, key)),
        _ => false,
    }
}

fn targets_of(value: &Value, targets: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let target = member["target"].as_str().filter(|_| key == "jump" || key == "goto");
                targets.extend(target.map(str::to_owned));
                targets_of(member, targets);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| targets_of(value, targets)),
        _ => {}
    }
}

/// False where an expression does not match any UDP packet between the network and the server. What is not understood may.
fn may_match(expression: &Value, hook: Hook, concern: &Concern) -> bool {
    let Some(compared) = expression.get("match") else { return true };
    let (left, right) = (&compared["left"], &compared["right"]);
    if !matches!(compared["op"].as_str(), Some("==" | "in")) {
        return true;
    }
    let (meta, payload) = (left["meta"]["key"].as_str(), &left["payload"]);
    let field = payload["field"].as_str();
    match (payload["protocol"].as_str(), field, meta) {
        (_, _, Some("l4proto")) => names(right, &["udp", "17"]),
        (_, _, Some("iif" | "iifname" | "oif" | "oifname")) => !names(right, &["lo"]),
        (Some("ip"), Some("protocol"), _) | (Some("ip6"), Some("nexthdr"), _) => names(right, &["udp", "17"]),
        (Some("ip" | "ip6"), Some("daddr"), _) if hook == Hook::In => is_here(right, concern),
        (Some("ip" | "ip6"), Some("saddr"), _) if hook == Hook::Out => is_here(right, concern),
        (Some("udp" | "th"), Some("dport"), _) if hook == Hook::In => is_port(right, concern),
        (Some("udp" | "th"), Some("sport"), _) if hook == Hook::Out => is_port(right, concern),
        (Some("ip" | "ip6" | "udp" | "th" | "ether" | "vlan"), _, _) => true,
        // A field of another protocol: TCP, ICMP, ARP.
        (Some(_), Some(_), _) => false,
        _ => {
            left["ct"]["key"].as_str() != Some("state")
                || !names(right, &["invalid"])
                || names(right, &["new", "established"])
        }
    }
}

/// The values that a right side stands for; none where that cannot be told.
fn values(right: &Value) -> Option<Vec<&Value>> {
    match right {
        Value::String(text) if text.starts_with('@') => None,
        Value::Object(members) => members.get("set")?.as_array().map(|set| set.iter().collect()).or(None),
        Value::Array(values) => Some(values.iter().collect()),
        single => Some(vec![single]),
    }
}

/// Whether one of these is, or may be, among the values.
fn names(right: &Value, wanted: &[&str]) -> bool {
    let Some(values) = values(right) else { return true };
    values.iter().any(|value| match value {
        Value::String(text) => wanted.contains(&text.as_str()),
        Value::Number(number) => wanted.contains(&number.to_string().as_str()),
        _ => true,
    })
}

fn is_port(right: &Value, concern: &Concern) -> bool {
    let overlaps = |low: u64, high: u64| {
        concern.ports.iter().any(|range| u64::from(*range.start()) <= high && low <= u64::from(*range.end()))
    };
    let one = |value: &Value| match (value.as_u64(), value["range"].as_array().map(Vec::as_slice)) {
        (Some(port), _) => overlaps(port, port),
        (_, Some([low, high])) => match (low.as_u64(), high.as_u64()) {
            (Some(low), Some(high)) => overlaps(low, high),
            _ => true,
        },
        _ => true,
    };
    if right["range"].is_array() {
        return one(right);
    }
    values(right).is_none_or(|values| values.into_iter().any(one))
}

fn is_here(right: &Value, concern: &Concern) -> bool {
    let one = |value: &Value| {
        let address = value.as_str().or_else(|| value["prefix"]["addr"].as_str());
        let Some(address) = address.and_then(|text| text.parse::<IpAddr>().ok()) else { return true };
        let length = value["prefix"]["len"].as_u64().and_then(|length| u8::try_from(length).ok());
        let network = match length {
            Some(length) => IpNet::new(address, length).unwrap_or(address.into()),
            None => address.into(),
        };
        concern.addresses.iter().any(|own| network.contains(own))
    };
    if right["prefix"].is_object() {
        return one(right);
    }
    values(right).is_none_or(|values| values.into_iter().any(one))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn concern() -> Concern {
        Concern { ports: vec![3478..=3478, 49_152..=65_535], addresses: vec!["198.18.1.1".parse().unwrap()] }
    }

    /// The rules that count, of a ruleset with this one rule at this hook.
    fn found(hook: &str, expressions: Value) -> Vec<Rule> {
        let ruleset = json!({"nftables": [
            {"chain": {"family": "inet", "table": "t", "name": "base", "hook": hook}},
            {"rule": {"family": "inet", "table": "t", "chain": "base", "handle": 7, "expr": expressions}},
        ]});
        rules(&ruleset, &concern())
    }

    fn matches(protocol: &str, field: &str, right: Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}})
    }

    #[test]
    fn rules_that_may_concern_the_servers_packets() {
        let drop = json!({"drop": null});
        let limit = json!({"limit": {"rate": 1000, "per": "second", "inv": true}});
        let meta = |key: &str, right: &str| json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}});
        let state =
            |right: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}});
        let accept = json!({"accept": null});
        let rows: [(&str, Value, &[&str]); 25] = [
            (
                "input",
                json!([matches("udp", "dport", json!({"range": [49152, 65535]})), limit, drop]),
                &["drop", "limit"],
            ),
            ("input", json!([matches("udp", "dport", json!(3478)), drop]), &["drop"]),
            (
                "input",
                json!([matches("udp", "dport", json!({"set": [53, {"range": [60000, 60010]}]})), drop]),
                &["drop"],
            ),
            ("input", json!([matches("udp", "dport", json!(53)), drop]), &[]),
            ("input", json!([matches("udp", "dport", json!("@ports")), drop]), &["drop"]),
            ("input", json!([matches("udp", "sport", json!(53)), drop]), &["drop"]),
            ("output", json!([matches("udp", "sport", json!(53)), drop]), &[]),
            ("output", json!([matches("udp", "sport", json!(50000)), {"mangle": {}}]), &["mangle"]),
            ("input", json!([matches("tcp", "dport", json!(3478)), drop]), &[]),
            ("input", json!([matches("icmp", "type", json!("echo-request")), limit, accept]), &[]),
            ("input", json!([matches("ip", "protocol", json!("tcp")), drop]), &[]),
            ("input", json!([matches("ip", "protocol", json!({"set": ["tcp", "udp"]})), drop]), &["drop"]),
            ("input", json!([matches("ip", "saddr", json!("203.0.113.7")), drop]), &["drop"]),
            ("prerouting", json!([matches("ip", "daddr", json!("198.18.1.9")), {"dnat": {}}]), &[]),
            (
                "prerouting",
                json!([matches("ip", "daddr", json!({"prefix": {"addr": "198.18.1.0", "len": 24}})), {"dnat": {}}]),
                &["dnat"],
            ),
            (
                "postrouting",
                json!([matches("ip", "saddr", json!({"prefix": {"addr": "172.17.0.0", "len": 16}})), {"masquerade": null}]),
                &[],
            ),
            ("input", json!([meta("l4proto", "tcp"), drop]), &[]),
            ("input", json!([meta("l4proto", "udp"), {"queue": {"num": 0}}]), &["queue"]),
            ("input", json!([meta("iifname", "lo"), drop]), &[]),
            ("input", json!([meta("iifname", "eth0"), drop]), &["drop"]),
            ("input", json!([state(json!("invalid")), drop]), &[]),
            ("input", json!([state(json!(["established", "related"])), accept]), &[]),
            (
                "input",
                json!([matches("udp", "dport", json!(3478)), {"counter": {"packets": 0}}, accept]),
                &[],
            ),
            ("forward", json!([drop]), &[]),
            ("ingress", json!([{"set": {"op": "update", "stmt": [limit]}}, drop]), &["drop", "limit"]),
        ];
        for (hook, expressions, expected) in rows {
            let found = found(hook, expressions.clone());
            let does: Vec<_> = found.iter().flat_map(|rule| rule.does.clone()).collect();
            assert_eq!(does, expected, "{hook} {expressions}");
        }
    }

    #[test]
    fn chains_that_are_jumped_to_count_and_others_do_not() {
        let rule = |chain: &str, handle: u32, expressions: Value| json!({"rule": {"family": "ip", "table": "t", "chain": chain, "handle": handle, "expr": expressions}});
        let ruleset = json!({"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"chain": {"family": "ip", "table": "t", "name": "base", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "t", "name": "banned"}},
            {"chain": {"family": "ip", "table": "t", "name": "unused"}},
            rule("base", 1, json!([{"vmap": {"key": {}, "data": {"set": [["udp", {"jump": {"target": "banned"}}]]}}}])),
            rule("banned", 2, json!([{"jump": {"target": "base"}}, {"drop": null}])),
            rule("unused", 3, json!([{"drop": null}])),
        ]});
        let found = rules(&ruleset, &concern());
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["ip t banned handle 2 (drop)"]
        );
    }
}
