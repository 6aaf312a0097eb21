//! VLAN tags, up to two on either leg (IEEE 802.1Q and 802.1ad).

use turn_datapath::control::kind;
use turn_datapath::flow::{interface_flags, path_flags};
use turn_datapath::{Interface, Reason};
use turn_wire::ethernet::VlanTags;

use super::control::{CHANNEL_BIND, request_key, response_key, stun, to_server, with_copy};
use super::draft::Draft;
use super::subject::{DATA, MTU, Subject, data, mac, print, tags};
use super::witness::{armed, unarmed};
use super::{Case, ELSEWHERE, HERE, MILLISECOND, NOW, SECOND};
use crate::packet::{Packet, TPID_8021AD, TPID_8021Q, Tag};
use crate::role::SERVER_MAC;

const CUSTOMER: Tag = Tag { tpid: TPID_8021Q, tci: 0x0005 };
const OTHER: Tag = Tag { tpid: TPID_8021Q, tci: 0x0fff };
/// With a priority and the drop eligibility flag.
const SERVICE: Tag = Tag { tpid: TPID_8021AD, tci: 0x7064 };
/// Priority tags name no VLAN.
const PRIORITY: Tag = Tag { tpid: TPID_8021Q, tci: 0xa000 };

const STACKS: [&[Tag]; 6] =
    [&[], &[CUSTOMER], &[SERVICE], &[PRIORITY], &[SERVICE, CUSTOMER], &[CUSTOMER, OTHER]];

/// By equal tags and different ones on the two legs, whatever the priority of what comes in, also where the end is cut.
pub fn frames_by_the_tags_of_the_lease_are_relayed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way_in, way_out) in STACKS.iter().flat_map(|way_in| STACKS.map(|way_out| (*way_in, way_out))) {
        for subject in Subject::all() {
            let subject = subject.tagged(way_in, way_out);
            for (priority, trailer) in [(0, &[][..]), (0x1000, &[]), (0xf000, &[1, 2, 3])] {
                let name = format!("{way_in:x?} to {way_out:x?}, priority {priority:#06x}");
                let frame = with_tags(&subject, way_in, priority).trailer(trailer).build();
                cases.push(Draft::received(name, &subject, frame).relayed());
            }
            let elsewhere = subject.but(|flow| flow.out_ifindex = ELSEWHERE);
            let frame = elsewhere.packet(&data(3)).build();
            cases.push(Draft::received("redirected", &elsewhere, frame).redirected());
        }
    }
    cases
}

/// Another VLAN, another protocol, a tag too many or too few, the same tags the other way round.
pub fn frames_by_other_tags_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    let other_bits = (0..12).map(|bit| Tag { tci: CUSTOMER.tci ^ 1 << bit, ..CUSTOMER });
    let service = Tag { tpid: TPID_8021AD, ..CUSTOMER };
    let mut others: Vec<(Vec<Tag>, Vec<Tag>)> =
        other_bits.map(|other| (vec![CUSTOMER], vec![other])).collect();
    others.push((vec![CUSTOMER], vec![service]));
    others.push((vec![SERVICE, CUSTOMER], vec![CUSTOMER, SERVICE]));
    others.push((vec![SERVICE, CUSTOMER], vec![SERVICE, OTHER]));
    others.push((vec![SERVICE, CUSTOMER], vec![CUSTOMER, CUSTOMER]));
    others.push((vec![SERVICE, CUSTOMER], vec![CUSTOMER]));
    others.push((vec![SERVICE, CUSTOMER], vec![SERVICE]));
    others.push((vec![SERVICE, CUSTOMER], vec![]));
    others.push((vec![CUSTOMER], vec![]));
    others.push((vec![CUSTOMER], vec![SERVICE, CUSTOMER]));
    others.push((vec![CUSTOMER], vec![CUSTOMER, CUSTOMER]));
    others.push((vec![], vec![CUSTOMER]));
    others.push((vec![], vec![PRIORITY]));
    others.push((vec![], vec![SERVICE, CUSTOMER]));
    for (known, other) in others {
        for subject in Subject::all() {
            let subject = subject.tagged(&known, &[CUSTOMER]);
            let frame = with_tags(&subject, &other, 0).build();
            let name = format!("{other:x?} instead of {known:x?}");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::OtherPath));
        }
    }
    cases
}

/// An MTU is of the IP packet.
pub fn tags_do_not_count_for_the_mtu() -> Vec<Case> {
    let mut cases = Vec::new();
    for stack in STACKS {
        for subject in Subject::all() {
            let overhead = subject.servers(&[]).build().len() - 14;
            let subject = subject.tagged(stack, stack);
            for length in usize::from(MTU) - overhead - 1..=usize::from(MTU) - overhead + 1 {
                let frame = subject.packet(&data(length)).build();
                let draft = Draft::received(format!("{length} bytes by {stack:x?}"), &subject, frame);
                let fits = length + overhead <= usize::from(MTU);
                cases.push(if fits { draft.relayed() } else { draft.passes(Reason::TooBig) });
            }
        }
    }
    cases
}

/// At every byte.
pub fn frames_that_end_within_tags_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for stack in [&[CUSTOMER][..], &[SERVICE, CUSTOMER]] {
        for subject in Subject::all() {
            let subject = subject.tagged(stack, stack);
            let frame = subject.packet(DATA).build();
            for length in 14..frame.len() {
                let name = format!("{length} of {} bytes", frame.len());
                let draft = Draft::received(name, &subject, frame[..length].to_vec());
                cases.push(draft.passes(Reason::Malformed));
            }
            let unknown = subject.packet(DATA).build();
            let mut frame = unknown;
            let at = 12 + 4 * stack.len();
            frame[at..at + 2].copy_from_slice(&[0x08, 0x06]);
            cases.push(Draft::received("ARP", &subject, frame).passes(Reason::NotIp));
        }
    }
    cases
}

/// A packet that goes to the server, with the tags that it came by.
pub fn a_noted_packet_brings_its_tags_without_priority() -> Vec<Case> {
    let mut cases = Vec::new();
    for stack in STACKS {
        for subject in unarmed() {
            let stale = subject.but(|flow| flow.noted_tags = tags(&[OTHER]));
            for priority in [0, 0xf000] {
                let frame = with_tags(&stale, stack, priority).build();
                let name = format!("{stack:x?}, priority {priority:#06x}");
                let case = Draft::received(name, &stale, frame).passes(Reason::NoLease);
                cases.push(case.leaves(|flow| {
                    flow.noted_fingerprint = print(DATA);
                    flow.noted_ifindex = HERE;
                    flow.noted_mac = mac(SERVER_MAC);
                    flow.noted_tags = tags(stack).without_priority();
                    flow.noted_until = NOW + 100 * MILLISECOND;
                }));
            }
        }
    }
    cases
}

/// Tags in the frame, and one outside of them that the device is to add; with the priorities that they have.
pub fn a_witness_brings_the_tags_of_the_way_out() -> Vec<Case> {
    let mut cases = Vec::new();
    for way_in in STACKS {
        for way_out in STACKS {
            for subject in unarmed() {
                let subject = subject.awaiting(DATA).but(|flow| {
                    flow.noted_tags = tags(way_in).without_priority();
                });
                for by_device in 0..=way_out.len().min(1) {
                    let (outside, within) = way_out.split_at(by_device);
                    let frame = add_tags(subject.servers(DATA), within, 0).build();
                    let name = format!("{way_in:x?} to {way_out:x?}, {by_device} by the device");
                    let draft = Draft::sent(name, &subject, frame).how(|sent| sent.tag = tags(outside));
                    let case = armed_by(draft.passes(Reason::Witness), way_out);
                    let case = case.leaves(|flow| flow.in_tags = tags(way_in).without_priority());
                    cases.push(case.reports(kind::ARMED));
                }
            }
        }
    }
    cases
}

/// The server's packet leaves by another VLAN than the lease says, or the noted one came by another.
pub fn other_tags_end_the_lease() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let known = subject.tagged(&[CUSTOMER], &[SERVICE, CUSTOMER]).awaiting(DATA);
        let changed = |name: &str, subject: &Subject, frame: Packet, way_out: &[Tag]| {
            let case = Draft::sent(name, subject, frame.build()).passes(Reason::PathChanged);
            let case = case.leaves(|flow| {
                flow.lease_until = 0;
                flow.noted_until = 0;
                flow.link_mtu = link_mtu(way_out);
            });
            case.reports(kind::PATH_CHANGED)
        };
        for others in [&[][..], &[CUSTOMER], &[SERVICE], &[SERVICE, OTHER], &[CUSTOMER, CUSTOMER]] {
            let frame = add_tags(subject.tagged(&[], &[]).servers(DATA), others, 0);
            cases.push(changed(&format!("out by {others:x?}"), &known, frame, others));
        }
        for others in [&[][..], &[OTHER], &[SERVICE, CUSTOMER]] {
            let moved = known.but(|flow| flow.noted_tags = tags(others).without_priority());
            let frame = moved.servers(DATA);
            cases.push(changed(&format!("in by {others:x?}"), &moved, frame, &[SERVICE, CUSTOMER]));
        }
    }
    cases
}

/// A priority is no way of its own: the lease runs on, and the frames to come have the new one.
pub fn the_witnesss_priority_is_taken_while_the_lease_runs() -> Vec<Case> {
    let mut cases = Vec::new();
    for stack in STACKS.into_iter().filter(|stack| !stack.is_empty()) {
        for subject in Subject::all() {
            let subject = subject.tagged(stack, stack).awaiting(DATA);
            for priority in [0x1000, 0x2000, 0xf000] {
                let other: Vec<Tag> =
                    stack.iter().map(|tag| Tag { tci: tag.tci ^ priority, ..*tag }).collect();
                let untagged = subject.tagged(&[], &[]);
                let frame = add_tags(untagged.servers(DATA), &other, 0).build();
                let draft = Draft::sent(format!("{other:x?} after {stack:x?}"), &subject, frame);
                cases.push(draft.passes(Reason::Witness).leaves(|flow| {
                    flow.lease_until = NOW + 10 * SECOND;
                    flow.noted_until = 0;
                    flow.link_mtu = link_mtu(stack);
                    flow.out_tags = tags(&other);
                }));
            }
        }
    }
    cases
}

/// Two in the frame and one by the device, or three in the frame.
pub fn witnesses_with_more_than_two_tags_are_none() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let subject = subject.awaiting(DATA);
        let frame = |stack: &[Tag]| add_tags(subject.servers(DATA), stack, 0).build();
        let draft = Draft::sent("two and one", &subject, frame(&[CUSTOMER, OTHER]));
        cases.push(draft.how(|sent| sent.tag = tags(&[SERVICE])).passes(Reason::EgressOther));
        let draft = Draft::sent("three", &subject, frame(&[SERVICE, CUSTOMER, OTHER]));
        cases.push(draft.passes(Reason::EgressOther));
    }
    cases
}

/// A tag that the device took from the frame that came in would be sent besides. In other modes nobody confirms.
pub fn in_generic_mode_only_confirmed_tags_are_a_way() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way_in, way_out) in STACKS.iter().flat_map(|way_in| STACKS.map(|way_out| (*way_in, way_out))) {
        for (flags, is_confirmed) in [
            (interface_flags::GENERIC, true),
            (interface_flags::GENERIC, false),
            (interface_flags::TRANSMITS, true),
        ] {
            for subject in unarmed() {
                let subject = subject.awaiting(DATA).but(|flow| {
                    flow.noted_tags = tags(way_in).without_priority();
                    if is_confirmed {
                        flow.noted_fingerprint = !flow.noted_fingerprint;
                    }
                });
                let frame = add_tags(subject.servers(DATA), way_out, 0).build();
                let name = format!("{way_in:x?} to {way_out:x?}, {flags}, {is_confirmed}");
                let draft = Draft::sent(name, &subject, frame).setting(|setting| {
                    setting.interfaces =
                        vec![(HERE, Interface { mtu: MTU.into(), flags, looked_after_until: u64::MAX })];
                });
                cases.push(if flags == interface_flags::GENERIC && is_confirmed {
                    let case = armed_by(draft.passes(Reason::Witness), way_out).leaves(|flow| {
                        flow.in_tags = tags(way_in).without_priority();
                        flow.path_flags =
                            path_flags::DONT_FRAGMENT | path_flags::REDIRECT | path_flags::REDIRECT_PARTS;
                    });
                    case.reports(kind::ARMED)
                } else {
                    draft.passes(Reason::EgressOther).leaves(|flow| flow.noted_until = 0)
                });
            }
        }
    }
    cases
}

/// As XDP saw it, the tags were in the frame. Meanwhile the kernel has taken the outermost one out.
pub fn packets_without_an_unseen_tag_are_confirmed() -> Vec<Case> {
    let mut cases = Vec::new();
    for stack in STACKS {
        for subject in Subject::all() {
            let noted = subject.awaiting(DATA).but(|flow| flow.noted_tags = tags(stack).without_priority());
            for (by_kernel, priority) in [(0, 0), (1, 0), (1, 0xf000)] {
                let (beside, within) = stack.split_at(by_kernel.min(stack.len()));
                let frame = with_tags(&subject, within, priority).build();
                let name = format!("{beside:x?} beside {within:x?}");
                let draft = Draft::passed(name, &noted, frame, tags(beside));
                let case = draft.passes(Reason::UnseenTag).counts([]);
                cases.push(case.leaves(|flow| flow.noted_fingerprint = !print(DATA)));
            }
        }
    }
    // Not the packet that is noted, or none is.
    for subject in Subject::all() {
        let nothing_noted = subject.awaiting(DATA).but(|flow| flow.noted_until = 0);
        for noted in [subject.awaiting(&data(7)), nothing_noted, subject.clone()] {
            let frame = subject.packet(DATA).build();
            let draft = Draft::passed("another packet", &noted, frame, VlanTags::NONE);
            cases.push(draft.passes(Reason::UnseenTag).counts([]));
        }
    }
    cases
}

/// One beside those that XDP saw, also where it is like them.
pub fn packets_with_an_unseen_tag_are_not_confirmed() -> Vec<Case> {
    let mut cases = Vec::new();
    for seen in STACKS {
        for subject in Subject::all() {
            let noted = subject.awaiting(DATA).but(|flow| flow.noted_tags = tags(seen).without_priority());
            for unseen in [CUSTOMER, SERVICE, PRIORITY] {
                let frame = with_tags(&subject, seen, 0).build();
                let draft = Draft::passed(format!("{unseen:x?} {seen:x?}"), &noted, frame, tags(&[unseen]));
                cases.push(draft.passes(Reason::UnseenTag));
            }
            // What a test run of the kernel can show: it takes no tag out of the frame.
            let other: &[Tag] = if seen.is_empty() { &[CUSTOMER] } else { &[] };
            let frame = with_tags(&subject, other, 0).build();
            let draft = Draft::passed(format!("{other:x?}, not {seen:x?}"), &noted, frame, VlanTags::NONE);
            cases.push(draft.passes(Reason::UnseenTag));
        }
    }
    cases
}

/// Requests and responses are as good by a VLAN as without.
pub fn control_messages_in_tagged_frames_are_copied() -> Vec<Case> {
    const REFRESH_SUCCESS: u16 = 0x0104;
    let mut cases = Vec::new();
    for stack in STACKS {
        for subject in Subject::from_clients() {
            let client = request_key(&subject);
            let request = stun(CHANNEL_BIND, 24);
            let frame = add_tags(to_server(&subject, &request), stack, 0).build();
            let draft = Draft::received(format!("request by {stack:x?}"), &subject, frame);
            let case = draft.setting(|setting| setting.clients = [client].into()).passes(Reason::Control);
            cases.push(with_copy(case, kind::REQUEST, client, request));

            let response = stun(REFRESH_SUCCESS, 80);
            let packet = Packet::new(subject.input.destination, subject.input.source).payload(&response);
            for by_device in 0..=stack.len().min(1) {
                let (outside, within) = stack.split_at(by_device);
                let frame = add_tags(packet.clone(), within, 0).build();
                let draft = Draft::sent(format!("response by {stack:x?}"), &subject, frame)
                    .how(|sent| sent.tag = tags(outside))
                    .setting(|setting| setting.clients = [client].into());
                let case = draft.passes(Reason::EgressOther);
                cases.push(with_copy(case, kind::RESPONSE, response_key(&subject), response.clone()));
            }
        }
    }
    cases
}

/// As [`armed`], by a way with these tags. Where frames are redirected, a second one takes of what fits.
fn armed_by(case: Case, way_out: &[Tag]) -> Case {
    armed(case).leaves(|flow| {
        flow.out_tags = tags(way_out);
        flow.link_mtu = link_mtu(way_out);
    })
}

fn link_mtu(way_out: &[Tag]) -> u16 {
    if way_out.len() == 2 { MTU - 4 } else { MTU }
}

/// A packet of the subject by these tags, whose priorities are turned by a mask.
fn with_tags(subject: &Subject, stack: &[Tag], priority: u16) -> Packet {
    add_tags(subject.but(|flow| flow.in_tags = VlanTags::NONE).packet(DATA), stack, priority)
}

fn add_tags(packet: Packet, stack: &[Tag], priority: u16) -> Packet {
    stack.iter().fold(packet, |packet, tag| packet.tag(tag.tpid, tag.tci ^ priority))
}
