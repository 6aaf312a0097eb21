//! One table goes on where another one ended.

use super::*;

/// Another table over the same maps, which knows what the first one said of itself.
fn next(table: FlowTable<Memory>) -> FlowTable<Memory> {
    let mut sessions: Vec<_> = table.ids().into_iter().filter_map(|id| table.kept(id)).collect();
    sessions.sort_by_key(|session| session.origin.instant);
    adopted(table.maps, sessions)
}

fn adopted(maps: Memory, sessions: Vec<KeptSession>) -> FlowTable<Memory> {
    let entries = Entries {
        flows: maps.flows.keys().copied().collect(),
        outputs: maps.expected.keys().copied().collect(),
    };
    let mut next = FlowTable::new(maps);
    next.adopt(sessions, entries);
    next
}

fn kept(binding: ChannelBinding) -> KeptSession {
    KeptSession { binding, relayed: binding.relayed, origin: Origin::now(), carried: [Traffic::default(); 2] }
}

/// As many bindings as there are kinds: one that was seen, a pair, two that are ambiguous.
fn several() -> (FlowTable<Memory>, Vec<ChannelBinding>) {
    let mut table = table();
    let bindings = vec![
        binding(CLIENT, 0x4000, RELAYED, PEER),
        binding(CLIENT, 0x4001, RELAYED, OTHER_RELAYED),
        binding(OTHER_CLIENT, 0x4001, OTHER_RELAYED, RELAYED),
        binding(CLIENT, 0x4002, RELAYED, OTHER_PEER),
        binding(OTHER_CLIENT, 0x4002, RELAYED, OTHER_PEER),
    ];
    for one in &bindings {
        table.bind(*one, None);
    }
    table.armed(&key(CLIENT, SERVER, 0x4000), at(WIRE));
    table.install_waiting();
    for (number, flow) in table.maps.flows.values_mut().enumerate() {
        (flow.lease_until, flow.kernel_packets) = (1000 + number as u64, 7);
    }
    (table, bindings)
}

#[test]
fn nothing_changes_in_the_maps_and_all_can_be_taken_out_again() {
    let (table, bindings) = several();
    let (flows, expected) = (table.maps.flows.clone(), table.maps.expected.clone());
    let mut table = next(next(table));
    assert_eq!((&table.maps.flows, &table.maps.expected), (&flows, &expected));
    assert_eq!(table.flow_count(), flows.len());
    for one in bindings {
        table.unbind(&one, Cause::Evicted);
        table.install_waiting();
    }
    assert!(table.maps.flows.is_empty() && table.maps.expected.is_empty());
    assert!(table.owners.is_empty() && table.expecting.is_empty() && table.by_ends.is_empty());
    assert!(table.by_relayed_port.is_empty());
}

#[test]
fn what_belongs_to_nobody_is_taken_out() {
    let (table, bindings) = several();
    let table = adopted(table.maps, vec![kept(bindings[3])]);
    assert_eq!(table.maps.flows.len(), 2);
    assert_eq!(table.flow_count(), 2);
    // Another one expected it, too.
    assert_output(&table, &key(CLIENT, SERVER, 0x4002), &key(RELAYED, OTHER_PEER, 0));
    assert!(table.maps.expected.values().all(|flow| table.maps.flows.contains_key(flow)));
}

#[test]
fn what_is_missing_is_installed_without_a_lease() {
    let one = binding(CLIENT, 0x4000, RELAYED, PEER);
    let table = adopted(Memory { room: 100, ..Memory::default() }, vec![kept(one)]);
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, PEER, 0));
    assert_output(&table, &key(PEER, RELAYED, 0), &key(SERVER, CLIENT, 0x4000));
    assert!(table.maps.flows.values().all(|flow| flow.lease_until == 0));
}

/// As where the earlier daemon was killed between two of its changes.
#[test]
fn a_flow_that_leads_elsewhere_gives_its_lease_to_nobody() {
    let mut table = table();
    table.bind(binding(CLIENT, 0x4000, RELAYED, OTHER_PEER), None);
    for flow in table.maps.flows.values_mut() {
        flow.lease_until = 1000;
    }
    let table = adopted(table.maps, vec![kept(binding(CLIENT, 0x4000, RELAYED, PEER))]);
    assert_output(&table, &key(CLIENT, SERVER, 0x4000), &key(RELAYED, PEER, 0));
    assert_eq!(table.maps.flows.len(), 2);
    assert!(table.maps.flows.values().all(|flow| flow.lease_until == 0));
}

#[test]
fn sessions_and_totals_go_on_counting() {
    let (mut table, bindings) = several();
    let of = |table: &FlowTable<Memory>, binding: ChannelBinding| {
        let bound = table.bindings().find(|bound| bound.binding == binding).expect("bound");
        table.traffic(bound).map(|traffic| traffic.kernel_packets)
    };
    // Its flows go, and others come.
    table.pause(|bound| bound.binding == bindings[0]);
    table.pause(|_| false);
    let in_all = |table: &mut FlowTable<Memory>| {
        table.sample(&table.ids(), 0);
        table.totals().map(|(_, traffic)| traffic.kernel_packets).sum::<u64>()
    };
    let (carried, totals) = (of(&table, bindings[0]), in_all(&mut table));
    assert_eq!(carried, [7, 7]);
    let retired = table.take_changed_totals();
    let mut table = next(table);
    table.set_retired(retired);
    assert_eq!(of(&table, bindings[0]), carried);
    assert_eq!(in_all(&mut table), totals);
    table.unbind(&bindings[1], Cause::Evicted);
    assert_eq!(in_all(&mut table), totals);
}
