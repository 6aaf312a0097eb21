//! The inputs that the targets start from: one for each thing worth knowing of, by name. They are made here from the tables of
//! `turn-testkit` and from messages in good order, and committed in `fuzz/corpus`; `cargo xtask fuzz --seeds` writes them anew.

use std::net::SocketAddr;

use turn_testkit::cases::subject::{DATA, Subject};
use turn_testkit::cases::{Case, Input, channel_data, checksums, demultiplexing, framing, headers, path};
use turn_testkit::packet::{TPID_8021AD, TPID_8021Q, UdpChecksum};
use turn_testkit::turn_client::message::{
    CHANNEL_NUMBER, Class, Credentials, ERROR_CODE, LIFETIME, METHOD_ALLOCATE, METHOD_BINDING,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, MessageBuilder, XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};

use crate::{control_socket, frame_translation, lease_sequences, snoop_messages, stun_attributes};

/// An input.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target that it is for.
    pub target: &'static str,
    /// What it shows.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let of = |target, seeds: Vec<(String, Vec<u8>)>| {
        seeds.into_iter().map(move |(name, bytes)| Seed { target, name, bytes })
    };
    of("frame_translation", frames())
        .chain(of("lease_sequences", leases()))
        .chain(of("stun_attributes", messages()))
        .chain(of("snoop_messages", conversations()))
        .chain(of("control_socket", control()))
        .collect()
}

fn named(name: &str, bytes: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.into())
}

/// The first short row of a table.
type Table = (&'static str, fn() -> Vec<Case>);

const TABLES: [Table; 28] = [
    ("not_ip", framing::frames_that_are_not_ip_pass),
    ("three_tags", framing::frames_with_more_than_two_vlan_tags_pass),
    ("other_protocol", framing::other_protocols_pass),
    ("options", framing::ip15_ipv4_options_pass),
    ("extension_header", framing::ip16_extension_headers_pass),
    ("fragment", framing::fragments_pass),
    ("reserved_flag", framing::the_reserved_ipv4_flag_passes),
    ("wrong_header_checksum", framing::ip18_a_wrong_ipv4_header_checksum_passes),
    ("wrong_version", framing::a_version_that_contradicts_the_ethertype_passes),
    ("mapped_address", framing::ipv4_mapped_addresses_on_the_wire_pass),
    ("contradicting_lengths", framing::cd8_lengths_that_contradict_each_other_pass),
    ("truncated", framing::truncated_frames_pass),
    ("short_frame", framing::cd7_the_trailer_of_a_short_frame_is_not_data),
    ("bound_channel", demultiplexing::fr14_bound_channels_are_relayed),
    ("no_channel_number", demultiplexing::fr14_words_outside_the_range_are_no_channel_numbers),
    ("unbound_at_listener", demultiplexing::fr15_whatever_is_unbound_at_a_listener_passes),
    ("odd_data_of_peer", demultiplexing::fr16_pr7_whatever_comes_from_a_peer_is_data),
    ("unknown_channel", demultiplexing::cd4_cd11_unknown_channels_and_5_tuples_pass),
    ("channel_data_lengths", channel_data::fr17_lengths),
    ("empty_datagram", channel_data::pr8_cd7_empty_datagrams_are_relayed),
    ("longer_than_its_datagram", channel_data::cd1_messages_longer_than_their_datagram_pass),
    ("padding", channel_data::cd2_padding_is_stripped),
    ("padding_without_checksum", channel_data::cd2_padding_is_stripped_without_a_checksum),
    ("other_excess", channel_data::cd3_other_excess_passes),
    ("dscp_and_ecn", headers::ip2_to_ip5_dscp_and_ecn_are_copied),
    ("sum_of_zero", checksums::ip17_a_sum_of_zero_is_sent_as_all_ones),
    ("partial_checksum", checksums::partial_checksums_pass),
    ("other_way", path::op9_frames_by_another_way_pass),
];

fn frames() -> Vec<(String, Vec<u8>)> {
    let subjects = Subject::all();
    let prefixed = |subject: usize, prefix: [u8; frame_translation::PREFIX - 1], frame: &[u8]| {
        [&[subject as u8][..], &prefix, frame].concat()
    };
    let from_table = |(name, table): &Table| {
        table().into_iter().find_map(|case| {
            let subject = subjects.iter().position(|subject| {
                case.setting.flows.first().is_some_and(|(key, _)| *key == subject.key())
            })?;
            match case.input {
                Input::Received { frame, .. } if frame.len() <= 300 => {
                    Some(named(name, prefixed(subject, [0; 8], &frame)))
                }
                _ => None,
            }
        })
    };
    let mut seeds: Vec<_> = TABLES.iter().filter_map(from_table).collect();
    for (number, subject) in subjects.iter().enumerate() {
        let name = subject.name().replace([' ', '-'], "_");
        seeds.push(named(&name, prefixed(number, [0, 0, 0, 0, 0, 0, 0, 0], &subject.packet(DATA).build())));
    }
    let subject = &subjects[0];
    let packet = || subject.packet(DATA);
    let with = |name: &str, prefix, frame: Vec<u8>| named(name, prefixed(0, prefix, &frame));
    let repair = frame_translation::REPAIR_HEADER | frame_translation::REPAIR_UDP;
    seeds.extend([
        with(
            "qinq",
            [repair, 3, 0, 0, 0, 0, 0, 0],
            packet().tag(TPID_8021AD, 0x2005).tag(TPID_8021Q, 6).build(),
        ),
        with("qinq_out", [repair, 0, 3, 0, 0, 0, 0, 0], packet().build()),
        with("tag", [repair, 1, 1, 0, 0, 0, 0, 0], packet().tag(TPID_8021Q, 6).build()),
        with("last_hop", [repair, 0, 0, 0, 0, 0, 0, 0], packet().hop_limit(1).build()),
        with("no_checksum", [1, 0, 0, 0, 0, 0, 0, 0], packet().udp_checksum(UdpChecksum::Zero).build()),
        with(
            "wrong_checksum",
            [1, 0, 0, 0, 0, 0, 0, 0],
            packet().udp_checksum(UdpChecksum::Corrupt(7)).build(),
        ),
        with("fragmentable", [repair, 0, 0, 1, 0, 0, 0, 0], packet().dont_fragment(false).build()),
        with("too_big", [repair, 0, 0, 0, 5, 0, 0, 0], packet().build()),
        with("redirected", [repair, 0, 0, 0x10, 0, 0, 0, 0], packet().build()),
        with("no_device", [repair, 0, 0, 0x30, 0, 0, 0, 0], packet().build()),
        with("no_lease", [repair, 0, 0, 0, 0, 2, 0, 0], packet().build()),
        with("heartbeat_due", [repair, 0, 0, 0, 0, 4, 0, 0], packet().build()),
        with("behind", [repair, 0, 0, 0, 0, 8, 0, 0], packet().build()),
        with("no_headroom", [repair, 0, 3, 0, 0, 0, 1, 0], packet().build()),
        with("in_parts", [repair, 0, 0, 0, 0, 0, 0, 18], packet().trailer(&[1; 9]).build()),
        with("headers_in_parts", [repair, 0, 0, 0, 0, 0, 0, 5], packet().build()),
        with("surplus", [repair, 0, 0, 0, 0, 0, 0, 0], packet().surplus(&[1; 4]).build()),
    ]);
    seeds
}

fn leases() -> Vec<(String, Vec<u8>)> {
    use lease_sequences::Step::{self, *};
    let story = |name: &str, subject: u8, options: u8, steps: &[(Step, u8)]| {
        let steps = steps.iter().flat_map(|(step, how)| [*step as u8, *how]);
        named(name, [subject, options].into_iter().chain(steps).collect::<Vec<u8>>())
    };
    let armed = [(Receive, 1), (Relay, 0), (Receive, 2)];
    let on = |steps: &[(Step, u8)]| [&armed[..], steps].concat();
    let heartbeat = [(Tenths, 31), (Receive, 3), (Relay, 0), (Receive, 4)];
    vec![
        story("armed", 0, 0, &armed),
        story("armed_to_client", 5, 0, &armed),
        story("armed_client_to_client", 8, 0, &armed),
        story("heartbeats", 0, 0, &on(&[heartbeat, heartbeat, heartbeat, heartbeat].concat())),
        story(
            "lapse",
            0,
            0,
            &on(&[(Tenths, 31), (Receive, 3), (Drop, 0), (Tenths, 71), (Receive, 4), (Receive, 5)]),
        ),
        story("second_life", 1, 0, &on(&[(Tenths, 101), (Receive, 3), (Relay, 0), (Receive, 4)])),
        story(
            "behind",
            0,
            0,
            &on(&[
                (Tenths, 31),
                (Receive, 3),
                (Receive, 4),
                (Receive, 5),
                (Relay, 0),
                (Receive, 6),
                (Milliseconds, 101),
                (Receive, 7),
            ]),
        ),
        story(
            "reinstalled_while_some_wait",
            0,
            0,
            &[
                (Receive, 3),
                (Receive, 3),
                (Reinstall, 0),
                (Relay, 0),
                (Receive, 0xe3),
                (Relay, 0),
                (Receive, 4),
            ],
        ),
        story("relayed_a_lease_late", 0, 0, &[(Receive, 1), (Tenths, 102), (Relay, 0), (Receive, 2)]),
        story(
            "other_way_out",
            0,
            0,
            &on(&[(Tenths, 31), (Receive, 3), (Relay, 3), (Receive, 4), (Relay, 3), (Receive, 5)]),
        ),
        story("tagged_way_out", 3, 0, &[(Receive, 1), (Relay, 4), (Receive, 2)]),
        story(
            "other_way_in",
            0,
            0,
            &on(&[
                (ReceiveElsewhere, 3),
                (Tenths, 31),
                (ReceiveElsewhere, 4),
                (Relay, 0),
                (ReceiveElsewhere, 5),
            ]),
        ),
        story("nat", 0, 1, &[(Receive, 1), (Relay, 8), (Receive, 2)]),
        story("train", 4, 0, &[(Receive, 1), (Receive, 2), (Receive, 3), (Train, 0), (Receive, 4)]),
        story("invented", 0, 0, &[(Receive, 1), (Invent, 1), (Receive, 2), (Invent, 2), (Receive, 3)]),
        story("forwarded", 0, 0, &[(Receive, 1), (Forward, 0), (Receive, 2), (Forward, 0), (Receive, 3)]),
        story(
            "reinstalled",
            0,
            0,
            &on(&[(Receive, 3), (Reinstall, 0), (Receive, 4), (Relay, 0), (Receive, 5)]),
        ),
        story(
            "alike_in_32_bytes",
            0,
            0,
            &[(Receive, 3), (Receive, 0xe3), (Relay, 0), (Receive, 4), (Relay, 0)],
        ),
        story("empty", 0, 0, &[(Receive, 0x80), (Relay, 0), (Receive, 0x80)]),
    ]
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address of this file")
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let builder = |method, class| MessageBuilder::new(method, class).transaction([7; 12]);
    let credentials = Credentials {
        username: "user".into(),
        password: "secret".into(),
        realm: "lab".into(),
        nonce: b"a nonce".to_vec(),
    };
    let peer = |peer: &str| {
        builder(METHOD_CHANNEL_BIND, Class::Request)
            .channel_number(0x4001)
            .xor_address(XOR_PEER_ADDRESS, at(peer))
    };
    let all = [
        ("channel_bind", peer("203.0.113.1:5000").credentials(&credentials)),
        ("channel_bind_ipv6", peer("[2001:db8::1]:5000").fingerprint()),
        ("channel_bound", builder(METHOD_CHANNEL_BIND, Class::Success).attribute(0x8022, b"a server")),
        (
            "allocated",
            builder(METHOD_ALLOCATE, Class::Success)
                .xor_address(XOR_RELAYED_ADDRESS, at("192.0.2.1:49160"))
                .xor_address(XOR_MAPPED_ADDRESS, at("198.51.100.1:40000"))
                .lifetime(600)
                .fingerprint(),
        ),
        ("refresh_to_zero", builder(METHOD_REFRESH, Class::Request).lifetime(0)),
        ("one_family", builder(METHOD_REFRESH, Class::Request).attribute(0x0017, &[2, 0, 0, 0])),
        ("mismatch", builder(METHOD_CREATE_PERMISSION, Class::Error).attribute(ERROR_CODE, &[0, 0, 4, 37])),
        ("binding", builder(METHOD_BINDING, Class::Request)),
        ("twice", peer("203.0.113.1:5000").channel_number(0x4002)),
        (
            "behind_integrity",
            peer("203.0.113.1:5000")
                .credentials(&credentials)
                .after_integrity(LIFETIME, &[0; 4])
                .fingerprint(),
        ),
        (
            "odd_length",
            builder(METHOD_CHANNEL_BIND, Class::Request)
                .attribute(CHANNEL_NUMBER, &[0x40, 0, 0])
                .padding(b' '),
        ),
        ("sha256", builder(METHOD_BINDING, Class::Request).attribute(0x001c, &[6; 32])),
    ];
    let mut seeds: Vec<_> =
        all.iter().map(|(name, builder)| named(name, [&[0][..], &builder.build()].concat())).collect();
    let repair =
        stun_attributes::REPAIR_COOKIE | stun_attributes::REPAIR_LENGTH | stun_attributes::REPAIR_FINGERPRINT;
    seeds.push(named("repaired", [&[repair][..], &all[1].1.build()].concat()));
    let choices = [&[9, 0][..], &[7; 12], &[0, 0, 0x0c, 4, 0x40, 1, 0, 0x80, 0x22, 2, b'a']].concat();
    seeds.push(named("written", [&[stun_attributes::BUILD][..], &choices].concat()));
    seeds.push(named("written_and_signed", [&[stun_attributes::BUILD | 3][..], &choices].concat()));
    seeds
}

fn conversations() -> Vec<(String, Vec<u8>)> {
    use snoop_messages::Step::*;
    // Client 0 throughout; transactions count up.
    let allocated = |id: u8, which: u8| vec![Allocated as u8, 0, id, which, 0];
    let bind = |id: u8, channel: u8, peer: u8| vec![ChannelBind as u8, 0, id, channel, peer];
    let bound = |id: u8| vec![ChannelBound as u8, 0, id];
    let call = [allocated(0, 1), bind(1, 0, 0), bound(1)].concat();
    let on = |name: &str, more: &[Vec<u8>]| named(name, [&call[..], &more.concat()].concat());
    vec![
        on("bound", &[]),
        on("rebound", &[bind(2, 0, 1), bound(2)]),
        on("bound_again", &[vec![Seconds as u8, 250], bind(2, 0, 0), bound(2)]),
        on("refresh_to_zero", &[vec![Refresh as u8, 0, 3, 0], vec![Refreshed as u8, 0, 3, 1]]),
        on("refresh_of_one_family", &[vec![Refresh as u8, 0, 3, 2], vec![Refreshed as u8, 0, 3, 1]]),
        on("mismatch", &[vec![Refused as u8, 0, 4, 1, 0]]),
        on("mismatch_of_permission", &[vec![Refused as u8, 0, 4, 2, 0]]),
        on("bad_request", &[bind(5, 0, 0), vec![Refused as u8, 0, 5, 1, 1]]),
        on("expired", &[vec![Seconds as u8, 255], vec![Seconds as u8, 255], vec![Seconds as u8, 255]]),
        on("allocated_again", &[allocated(6, 1)]),
        on("relayed_address_reused", &[vec![Allocated as u8, 1, 6, 1, 0]]),
        on("this_host", &[vec![Local as u8, 1]]),
        on("good_order", &[vec![GoodOrder as u8, 0, 1, 0]]),
        on("pair", &[vec![Allocated as u8, 1, 2, 2, 0], bind(3, 1, 3), bound(3)]),
        on("contradicted", &[bind(1, 0, 1), bound(1)]),
        named("two_requests_one_id", [allocated(0, 1), bind(1, 0, 0), bind(1, 0, 1), bound(1)].concat()),
        named("late", [allocated(0, 1), bind(1, 0, 0), vec![Seconds as u8, 10], bound(1)].concat()),
        named(
            "dual",
            [
                allocated(0, 5),
                bind(1, 0, 2),
                bound(1),
                vec![Refresh as u8, 0, 2, 2],
                vec![Refreshed as u8, 0, 2, 1],
            ]
            .concat(),
        ),
        named(
            "asked_of_one_that_is_over",
            [allocated(0, 1), bind(1, 0, 0), vec![Refreshed as u8, 0, 3, 1], bind(1, 0, 1), bound(1)]
                .concat(),
        ),
        named("asked_before_allocation", [bind(1, 0, 0), allocated(0, 1), bind(1, 0, 1), bound(1)].concat()),
        named("older_call", [bind(1, 0, 0), bound(1)].concat()),
        named("loopback", [allocated(0, 1), bind(1, 0, 4), bound(1)].concat()),
        // A request with channel and peer by choice, and its success.
        on(
            "message",
            &[vec![Message as u8, 0, 0, 0, 2, 2, 0, 0x81, 1, 0x80], vec![Message as u8, 0, 1, 1, 2, 0]],
        ),
        on("mobile", &[vec![Message as u8, 0, 1, 4, 2, 2, 4, 4, 0, 0, 2, 88, 9, 4, 1, 2, 3, 4]]),
        on("raw", &[[vec![Raw as u8, 0, 0, 20, 0, 9, 0, 0, 0x21, 0x12, 0xa4, 0x42], vec![1; 12]].concat()]),
    ]
}

fn control() -> Vec<(String, Vec<u8>)> {
    let of = |kind: u8, name: &str, text: &str| named(name, [&[kind][..], text.as_bytes()].concat());
    let answer =
        |document: &str| format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{document}\n");
    use control_socket::{BODY, PATH, REQUEST, SESSIONS, SESSIONS_ANSWER, STATUS, STATUS_ANSWER};
    vec![
        of(REQUEST, "get_status", "GET /status HTTP/1.0\r\nHost: turn-bpf\r\n\r\n"),
        of(REQUEST, "get_sessions", "GET /sessions HTTP/1.1\r\nHost: turn-bpf\r\n\r\n"),
        of(REQUEST, "get_nothing", "GET / HTTP/1.1\r\n\r\n"),
        of(REQUEST, "absolute", "GET http://x/status HTTP/1.1\r\nHost: x\r\n\r\n"),
        of(REQUEST, "head", "HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n"),
        of(REQUEST, "post", "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
        of(
            REQUEST,
            "chunked",
            "PUT /status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ),
        of(REQUEST, "nonsense", "nonsense\r\n\r\n"),
        of(REQUEST, "half", "GET /status HTTP/1.1\r\nHo"),
        of(REQUEST, "two", "GET /status HTTP/1.1\r\n\r\nGET /sessions HTTP/1.1\r\n\r\n"),
        of(PATH, "path_of_status", "status"),
        of(PATH, "path_with_query", "sessions?watch=1"),
        of(PATH, "path_of_nothing", "status/.."),
        of(STATUS_ANSWER, "status", &answer(STATUS)),
        of(SESSIONS_ANSWER, "sessions", &answer(SESSIONS)),
        of(STATUS_ANSWER, "refused", "HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"x\"}\n"),
        of(STATUS_ANSWER, "other_schema", &answer(&STATUS.replace("\"schema\":1", "\"schema\":2"))),
        of(SESSIONS_ANSWER, "no_http", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        of(BODY, "status_body", STATUS),
        of(BODY, "sessions_body", SESSIONS),
        of(BODY, "signed_channel", &SESSIONS.replace("0x4000", "0x+400")),
        of(BODY, "newer_sessions_body", r#"{"schema":1,"sessions":[],"version":"9.9.9"}"#),
    ]
}
