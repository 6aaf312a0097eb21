//! The stories of `turn-testkit` about calls that are older than turn-bpf, on the host. The kernel is told the same ones
//! (turn-bpf, test `program`).

use turn_datapath::joining::{self, is_joining};
use turn_datapath::{Action, FlowKey, LeaseTerms, Outgoing, Reason, ingress};
use turn_testkit::cases::joining::{TERMS, said, stories};
use turn_testkit::cases::{Input, MILLISECOND, NOW};
use turn_testkit::memory::{MemoryFlows, MemoryFrame};

fn meet(flows: &MemoryFlows, input: &Input) {
    match input {
        Input::Received { frame, interface } => {
            let mut frame = MemoryFrame::new(frame);
            let action = ingress(&mut frame, flows, &TERMS, *interface, &mut FlowKey::default());
            assert_eq!(action, Action::Pass(Reason::NoFlow));
            joining::note(&frame, flows);
        }
        Input::Passed { .. } => panic!("what generic XDP has let pass is noted before"),
        Input::Sent { frame, sent } => {
            let frame = MemoryFrame::new(frame);
            if let Ok(mut outgoing) = Outgoing::read(&frame, sent) {
                joining::sight(&frame, flows, sent, &mut outgoing);
            }
        }
    }
}

#[test]
fn what_comes_in_and_leaves_is_seen() {
    let flows = MemoryFlows::new();
    flows.set_now(NOW);
    for story in stories() {
        let (last, before) = story.packets.split_last().unwrap();
        before.iter().for_each(|packet| meet(&flows, packet));
        flows.take_sightings();
        meet(&flows, last);
        let sighted: Vec<_> = flows.take_sightings().iter().map(said).collect();
        assert_eq!(sighted, Vec::from_iter(story.sighted), "{}", story.name);
    }
}

#[test]
fn a_server_that_takes_longer_than_a_tenth_of_a_second_shows_nothing() {
    for story in stories().into_iter().filter(|story| story.name.starts_with("to the ")) {
        let flows = MemoryFlows::new();
        flows.set_now(NOW);
        meet(&flows, &story.packets[0]);
        flows.set_now(NOW + 100 * MILLISECOND);
        meet(&flows, &story.packets[1]);
        let [sighting] = flows.take_sightings()[..] else { panic!("{}", story.name) };
        assert_eq!(sighting.origin, joining::origin::UNSEEN, "{}", story.name);
    }
}

#[test]
fn calls_are_looked_for_until_a_time_and_only_if_asked_for() {
    let flows = MemoryFlows::new();
    for (joins_until, now, expected) in
        [(0, 0, false), (0, NOW, false), (NOW, NOW - 1, true), (NOW, NOW, false)]
    {
        flows.set_now(now);
        assert_eq!(is_joining(&flows, &LeaseTerms { joins_until, ..TERMS }), expected);
    }
}
