use std::collections::HashMap;

use turn_wire::IpAddress;

use super::*;

mod adoption;

const CLIENT: &str = "198.18.1.2:40000";
const OTHER_CLIENT: &str = "198.18.1.3:40001";
const SERVER: &str = "198.18.1.1:3478";
const RELAYED: &str = "198.18.2.1:49160";
const OTHER_RELAYED: &str = "198.18.2.1:49162";
const WIRE: &str = "10.0.0.5:49160";
const PEER: &str = "198.18.2.2:5000";
const OTHER_PEER: &str = "198.18.2.3:5000";

/// Maps in memory, of a given size.
#[derive(Default)]
struct Memory {
    flows: HashMap<FlowKey, Flow>,
    expected: HashMap<FlowKey, FlowKey>,
    room: usize,
    removed_since_settled: bool,
    settled: usize,
}

impl FlowMaps for Memory {
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        assert!(!self.removed_since_settled, "a place may be reused under a running program");
        if self.flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if self.flows.len() == self.room {
            return Err(InsertError::Full);
        }
        self.flows.insert(*key, *flow);
        Ok(())
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        self.removed_since_settled |= self.flows.remove(key).is_some();
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }

    fn insert_expected(&mut self, output: &FlowKey, flow: &FlowKey) -> Result<(), InsertError> {
        self.expected.insert(*output, *flow);
        Ok(())
    }

    fn remove_expected(&mut self, output: &FlowKey) {
        self.expected.remove(output);
    }

    fn settle(&mut self) {
        self.removed_since_settled = false;
        self.settled += 1;
    }
}

fn table() -> FlowTable<Memory> {
    FlowTable::new(Memory { room: 100, ..Memory::default() })
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("address of the test")
}

fn key(source: &str, destination: &str, channel: u16) -> FlowKey {
    key_of(at(source), at(destination), channel)
}

fn binding(client: &str, channel: u16, relayed: &str, peer: &str) -> ChannelBinding {
    let five_tuple = FiveTuple { client: at(client), server: at(SERVER) };
    ChannelBinding { five_tuple, channel, peer: at(peer), relayed: Some(at(relayed)) }
}

fn assert_output(table: &FlowTable<Memory>, input: &FlowKey, output: &FlowKey) {
    let flow = table.maps.flows[input];
    let found = FlowKey {
        source: flow.out_source,
        destination: flow.out_destination,
        source_port: flow.out_source_port,
        destination_port: flow.out_destination_port,
        channel: flow.out_channel,
        reserved: Be16::new(0),
    };
    assert_eq!(found, *output);
    assert_eq!(table.maps.expected.get(output), Some(input), "its output proves it");
}

#[test]
fn a_binding_is_a_flow_in_each_direction() {
    let mut table = table();
    let one = binding(CLIENT, 0x4000, RELAYED, PEER);
    table.bind(one, None);
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, PEER, 0));
    assert_output(&table, &key(PEER, RELAYED, 0), &key(SERVER, CLIENT, 0x4000));

    table.unbind(&one, Cause::Evicted);
    assert!(table.maps.flows.is_empty() && table.maps.expected.is_empty());
    assert!(table.owners.is_empty() && table.expecting.is_empty() && table.by_ends.is_empty());
    assert!(table.by_relayed_port.is_empty());
}

/// Of a call that is older than turn-bpf the relayed transport address is known from what the server sends.
#[test]
fn a_relayed_address_that_was_mistaken_is_not_remembered() {
    let mut table = table();
    let one = ChannelBinding { relayed: None, ..binding(CLIENT, 0x4000, RELAYED, PEER) };
    table.bind(one, None);
    for seen in [OTHER_RELAYED, RELAYED] {
        table.armed(&key(CLIENT, SERVER, 0x4000), at(seen));
    }
    assert_eq!(table.socket_closed(at(OTHER_RELAYED)), []);
    assert_eq!(table.socket_closed(at(RELAYED)), [one]);
    assert!(table.by_relayed_port.is_empty());
}

#[test]
fn binding_again_keeps_lease_and_counters() {
    let mut table = table();
    let one = binding(CLIENT, 0x4000, RELAYED, PEER);
    table.bind(one, None);
    table.maps.flows.get_mut(&key(CLIENT, SERVER, 0x4000)).expect("installed").kernel_packets = 7;
    table.bind(one, None);
    assert_eq!(table.maps.flows[&key(CLIENT, SERVER, 0x4000)].kernel_packets, 7);
}

#[test]
fn cb7_a_channel_bound_to_another_peer_forgets_the_first() {
    let mut table = table();
    table.bind(binding(CLIENT, 0x4000, RELAYED, PEER), None);
    table.bind(binding(CLIENT, 0x4000, RELAYED, OTHER_PEER), None);
    table.install_waiting();
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, OTHER_PEER, 0));
    assert!(!table.maps.flows.contains_key(&key(PEER, RELAYED, 0)));
    assert!(!table.maps.expected.contains_key(&key(RELAYED, PEER, 0)));
}

#[test]
fn al18_the_wire_address_of_the_relay_is_learned_and_remembered() {
    let mut table = table();
    table.bind(binding(CLIENT, 0x4000, RELAYED, PEER), None);
    table.armed(&key(CLIENT, SERVER, 0x4000), at(WIRE));
    table.install_waiting();
    assert_output(&table, &key(PEER, WIRE, 0), &key(SERVER, CLIENT, 0x4000));
    assert!(!table.maps.flows.contains_key(&key(PEER, RELAYED, 0)));

    table.bind(binding(OTHER_CLIENT, 0x4001, OTHER_RELAYED, PEER), None);
    assert!(table.maps.flows.contains_key(&key(PEER, "10.0.0.5:49162", 0)));
}

#[test]
fn an_output_that_two_flows_expect_proves_neither() {
    let mut table = table();
    let (one, other) = (binding(CLIENT, 0x4000, RELAYED, PEER), binding(OTHER_CLIENT, 0x4000, RELAYED, PEER));
    table.bind(one, None);
    table.bind(other, None);
    assert!(!table.maps.expected.contains_key(&key(RELAYED, PEER, 0)));
    let bound = table.bindings().find(|bound| bound.binding == other).expect("bound");
    let back = table.peer_to_client(bound).expect("planned");
    assert_eq!(back.obstacle, Some(Obstacle::Ambiguous));

    table.unbind(&other, Cause::Evicted);
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, PEER, 0));
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    let mut table = FlowTable::new(Memory { room: 3, ..Memory::default() });
    let (one, other) =
        (binding(CLIENT, 0x4000, RELAYED, PEER), binding(OTHER_CLIENT, 0x4000, OTHER_RELAYED, PEER));
    table.bind(one, None);
    table.bind(other, None);
    let bound = table.bindings().find(|bound| bound.binding == other).expect("bound");
    assert_eq!(table.peer_to_client(bound).expect("planned").obstacle, Some(Obstacle::TableFull));
    assert_output(&table, &key(PEER, RELAYED, 0), &key(SERVER, CLIENT, 0x4000));

    table.unbind(&one, Cause::Evicted);
    table.bind(other, None);
    table.install_waiting();
    assert_output(&table, &key(PEER, OTHER_RELAYED, 0), &key(SERVER, OTHER_CLIENT, 0x4000));
}

#[test]
fn an_older_allocation_is_completed_by_its_first_witness() {
    let mut table = table();
    let older = ChannelBinding { relayed: None, ..binding(CLIENT, 0x4000, RELAYED, PEER) };
    table.bind(older, None);
    let anywhere = FlowKey { source: IpAddress::ANY, source_port: Be16::new(0), ..key(RELAYED, PEER, 0) };
    assert_eq!(table.maps.expected.get(&anywhere), Some(&key(CLIENT, SERVER, 0x4000)));
    assert_eq!(table.maps.flows.len(), 1);
    table.armed(&key(CLIENT, SERVER, 0x4000), at(RELAYED));
    assert_output(&table, &key(PEER, RELAYED, 0), &key(SERVER, CLIENT, 0x4000));
}

#[test]
fn sc10_two_clients_that_bound_each_other_are_one_flow_each_way() {
    let mut table = table();
    let (one, other) = (
        binding(CLIENT, 0x4000, RELAYED, OTHER_RELAYED),
        binding(OTHER_CLIENT, 0x4001, OTHER_RELAYED, RELAYED),
    );
    table.bind(one, None);
    assert!(!table.maps.expected.contains_key(&key(SERVER, OTHER_CLIENT, 0x4001)), "not bound back");
    table.bind(other, None);
    table.install_waiting();
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(SERVER, OTHER_CLIENT, 0x4001));
    assert_output(&table, &key(OTHER_CLIENT, SERVER, 0x4001), &key(SERVER, CLIENT, 0x4000));
    assert_eq!(table.maps.flows.len(), 2, "nothing is relayed from or to an address of this host");
    let bound = table.bindings().find(|bound| bound.binding == one).expect("bound");
    assert_eq!(
        table.peer_to_client(bound).expect("the counterpart's").key,
        key(OTHER_CLIENT, SERVER, 0x4001)
    );

    // The server's own address on a witness is not a relayed transport address.
    table.armed(&key(CLIENT, SERVER, 0x4000), at(SERVER));
    assert_eq!(table.maps.flows.len(), 2);

    table.unbind(&other, Cause::Evicted);
    table.install_waiting();
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, OTHER_RELAYED, 0));
    table.unbind(&one, Cause::Evicted);
    assert!(table.maps.flows.is_empty() && table.maps.expected.is_empty());
}

#[test]
fn op3_a_relay_socket_that_closes_ends_its_bindings_at_once() {
    let mut table = table();
    let (one, other) =
        (binding(CLIENT, 0x4000, RELAYED, PEER), binding(OTHER_CLIENT, 0x4000, OTHER_RELAYED, PEER));
    table.bind(one, None);
    table.bind(other, None);
    assert_eq!(table.socket_closed(at("198.18.9.9:49160")), [], "another address");
    assert_eq!(table.socket_closed(at(RELAYED)), [one]);
    assert_eq!(table.maps.flows.len(), 2);
    assert_eq!(
        table.socket_closed(at("0.0.0.0:49162")),
        [other],
        "a relay socket that is bound to no address"
    );
    assert!(table.maps.flows.is_empty() && table.maps.expected.is_empty());
}

/// Counts packets of a flow as the kernel does.
fn carry(table: &mut FlowTable<Memory>, key: &FlowKey, packets: u64) {
    let flow = table.maps.flows.get_mut(key).expect("installed");
    flow.in_ifindex = 7;
    flow.kernel_packets += packets;
    flow.spilled_packets += 1;
}

#[test]
fn what_a_session_carried_outlives_its_flows() {
    let mut table = table();
    let one = binding(CLIENT, 0x4000, RELAYED, PEER);
    table.bind(one, None);
    let (out, back) = (key(CLIENT, SERVER, 0x4000), key(PEER, RELAYED, 0));
    carry(&mut table, &out, 10);
    carry(&mut table, &back, 20);
    table.pause(|_| true);
    assert_eq!(table.maps.flows[&out].kernel_packets, 0, "a flow of its own");
    carry(&mut table, &out, 1);
    table.pause(|_| false);
    carry(&mut table, &out, 2);
    // The relay sends from another address than was advertised.
    table.armed(&out, at(WIRE));
    table.install_waiting();
    carry(&mut table, &key(PEER, WIRE, 0), 5);
    let bound = table.bindings().next().expect("bound");
    let [to_peer, to_client] = table.traffic(bound);
    assert_eq!((to_peer.kernel_packets, to_peer.spilled_packets), (13, 3));
    assert_eq!((to_client.kernel_packets, to_client.spilled_packets), (25, 2));

    table.unbind(&one, Cause::Evicted);
    let [ended] = &table.take_ended()[..] else { panic!("one session") };
    assert_eq!((ended.traffic, ended.cause), ([to_peer, to_client], Cause::Evicted));
    let mut totals: Vec<_> = table.totals().collect();
    totals.sort_by_key(|(key, _)| *key);
    assert_eq!(totals, [((7, Course::ClientToPeer), to_peer), ((7, Course::PeerToClient), to_client)]);
    assert!(table.take_ended().is_empty(), "told once");
}

#[test]
fn totals_count_each_packet_once_however_often_they_are_brought_up_to_date() {
    let mut table = table();
    let (one, other) = (
        binding(CLIENT, 0x4000, RELAYED, OTHER_RELAYED),
        binding(OTHER_CLIENT, 0x4001, OTHER_RELAYED, RELAYED),
    );
    table.bind(one, None);
    table.bind(other, None);
    table.install_waiting();
    for _ in 0..3 {
        carry(&mut table, &key(CLIENT, SERVER, 0x4000), 10);
        let ids = table.ids();
        table.sample(&ids, 0);
        table.sample(&ids, 0);
    }
    let total =
        |table: &FlowTable<Memory>| table.totals().map(|(_, traffic)| traffic.kernel_packets).sum::<u64>();
    assert_eq!(total(&table), 30);
    assert!(table.totals().all(|((_, course), _)| course == Course::ClientToClient));
    // Both clients' sessions have it, one as what it sent and the other as what it got, and when one ends the other keeps it.
    table.unbind(&one, Cause::Evicted);
    let bound = table.bindings().next().expect("the other");
    assert_eq!(table.traffic(bound)[1].kernel_packets, 30);
    table.unbind(&other, Cause::Evicted);
    let ended = table.take_ended();
    assert_eq!(ended[0].traffic[0].kernel_packets, 30);
    assert_eq!(ended[1].traffic[1].kernel_packets, 30);
    assert_eq!(total(&table), 30);
}

#[test]
fn nothing_proves_a_paused_flow() {
    let mut table = table();
    let one = binding(CLIENT, 0x4000, RELAYED, PEER);
    assert!(table.bind_paused(one));
    assert_eq!(table.maps.flows.len(), 2, "its packets are counted");
    assert!(table.maps.expected.is_empty());
    assert!(!table.bind_paused(one), "bound again");
    // Its output is still not another's alone.
    let other = binding(OTHER_CLIENT, 0x4000, RELAYED, PEER);
    table.bind(other, None);
    assert!(!table.maps.expected.contains_key(&key(RELAYED, PEER, 0)));
    table.unbind(&other, Cause::Evicted);
    assert!(table.maps.expected.is_empty());
    assert_eq!(table.pause(|_| false), [one]);
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, PEER, 0));
}

/// Calls that end and begin by the thousand wait for one grace period together, and what ended meanwhile stays away.
#[test]
fn many_changes_wait_for_one_grace_period() {
    let mut table = table();
    let of =
        |number: u16| binding(&format!("198.18.1.2:{number}"), 0x4000, &format!("198.18.2.1:{number}"), PEER);
    for number in 50_000..50_020 {
        table.bind(of(number), None);
    }
    for number in 50_000..50_010 {
        table.unbind(&of(number), Cause::Evicted);
        table.bind(of(number + 100), None);
    }
    table.unbind(&of(50_100), Cause::Evicted);
    assert_eq!((table.maps.settled, table.flow_count()), (0, 20));
    table.install_waiting();
    assert_eq!((table.maps.settled, table.flow_count(), table.maps.flows.len()), (1, 38, 38));
    assert!(!table.maps.flows.keys().any(|key| key.source_port == Be16::new(50_100)));
    table.install_waiting();
    assert_eq!(table.maps.settled, 1);
}

#[test]
fn a_flow_that_is_disarmed_keeps_its_counters() {
    let mut table = table();
    let (one, other) =
        (binding(CLIENT, 0x4000, RELAYED, PEER), binding(OTHER_CLIENT, 0x4000, OTHER_RELAYED, PEER));
    table.bind(one, None);
    table.bind(other, None);
    let outdated = key(CLIENT, SERVER, 0x4000);
    for flow in table.maps.flows.values_mut() {
        (flow.lease_until, flow.noted_until, flow.kernel_packets, flow.out_mtu) = (9, 9, 7, 1500);
    }
    table.maps.flows.get_mut(&outdated).expect("installed").out_mtu = 9000;
    assert_eq!(table.disarm(|flow| flow.out_mtu > 1500), 1);
    for (key, flow) in &table.maps.flows {
        let lease = if *key == outdated { 0 } else { 9 };
        assert_eq!((flow.lease_until, flow.noted_until, flow.kernel_packets), (lease, lease, 7));
    }
    assert_eq!(table.maps.flows.len(), 4);
}

#[test]
fn reports_that_were_lost_are_made_up_for() {
    let mut table = table();
    let older = ChannelBinding { relayed: None, ..binding(CLIENT, 0x4000, RELAYED, PEER) };
    table.bind(older, None);
    table.catch_up();
    table.install_waiting();
    assert_eq!(table.maps.flows.len(), 1, "no lease was granted");
    let flow = table.maps.flows.get_mut(&key(CLIENT, SERVER, 0x4000)).expect("installed");
    (flow.lease_until, flow.out_source, flow.out_source_port) =
        (9, at(RELAYED).ip().into(), Be16::new(49160));
    table.catch_up();
    table.install_waiting();
    assert_output(&table, &key(PEER, RELAYED, 0), &key(SERVER, CLIENT, 0x4000));
}
