//! Random packets of random flows, made from a string of bytes: the fewer and smaller the bytes, the plainer the packet.

use turn_datapath::egress::Sent;
use turn_datapath::flow::{interface_flags, path_flags};
use turn_datapath::{Flow, Interface};
use turn_wire::ethernet::VlanTags;

use super::control::stun;
use super::path_mtu::{first_fragment, icmp_error};
use super::subject::{Subject, data, mac, print, tags};
use super::{ELSEWHERE, HERE, Input, MILLISECOND, NOW, SECOND, SENT, Setting};
use crate::packet::{Packet, TPID_8021AD, TPID_8021Q, Tag, UdpChecksum, channel_data};
use crate::role::{CLIENT_MAC, PEER_MAC, RELAYED_MAC, SERVER_MAC};

/// A packet, its flow, and the maps that it meets.
#[derive(Clone, Debug)]
pub struct Random {
    /// The flow.
    pub subject: Subject,
    /// The maps.
    pub setting: Setting,
    /// The packet.
    pub input: Input,
}

/// A source of choices. When the bytes are used up, every choice is the first one.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// From these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.word()) % limit
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// True once in `times`, and never when the bytes are used up.
    fn seldom(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }
}

/// An endless string of bytes from a seed (the generator SplitMix64).
pub fn noise(mut seed: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).to_le_bytes()
    })
    .flatten()
}

impl Random {
    /// Makes one.
    pub fn new(bytes: &[u8]) -> Self {
        let choices = &mut Choices::new(bytes);
        let mut subject = choices.of(&Subject::all());
        if let Some(channel) = &mut subject.input.channel {
            *channel = 0x4000 | choices.word() & 0x3fff;
        }
        let data = random_data(choices);
        change_flow(choices, &mut subject.flow, &data);
        let is_sent = choices.of(&[false, false, true]);
        let (frame, segment) = match is_sent {
            true if choices.seldom(4) => train(choices, &subject, &data),
            true => (sent_frame(choices, &subject, &data), choices.of(&[0, 0, 0, 0, 0, 0, 1, 1200])),
            false => (frame(choices, &subject, &data), 0),
        };
        let frame = damaged(choices, frame);
        let setting = setting(choices, &subject);
        let input = if is_sent {
            let by_this_host = !choices.seldom(16);
            Input::Sent { frame, sent: Sent { by_this_host, segment, ..SENT } }
        } else if choices.seldom(8) {
            Input::Passed { frame, tag: VlanTags::NONE }
        } else {
            Input::Received { frame, interface: HERE }
        };
        Self { subject, setting, input }
    }
}

fn random_data(choices: &mut Choices<'_>) -> Vec<u8> {
    let any = choices.below(1480);
    let length =
        choices.of(&[any, any, any, any, 4 * any, 0, 1, 2, 3, 4, 5, 32, 33, 1199, 1200, 1201, 1268, 1472]);
    let mut bytes = data(length);
    for byte in bytes.iter_mut().take(48) {
        *byte = choices.byte();
    }
    bytes
}

fn change_flow(choices: &mut Choices<'_>, flow: &mut Flow, data: &[u8]) {
    let times = [NOW + 7 * SECOND, NOW + 1, NOW, NOW - 1, NOW - SECOND, 0, 1];
    if choices.seldom(3) {
        flow.lease_until = choices.of(&times);
    }
    if choices.seldom(6) {
        flow.heartbeat_at = choices.of(&times);
    }
    flow.label = u32::from(choices.word()) << 16 | u32::from(choices.word());
    flow.kernel_packets = u64::from(choices.word());
    flow.path_flags ^= choices.of(&[0, 0, 0, 1, 2, 3, 4, 6, 8, 10]);
    if choices.seldom(4) {
        flow.path_flags |= path_flags::REDIRECT;
        flow.out_ifindex = ELSEWHERE;
    }
    if choices.seldom(8) {
        flow.link_mtu = choices.of(&[1280, 576, 1400, 9000, 0]);
        flow.out_mtu = flow.link_mtu.min(choices.of(&[u16::MAX, u16::MAX, 1280, 552, 100]));
        flow.out_mtu_until = choices.of(&times);
        flow.longer_at = choices.of(&times);
    }
    if choices.seldom(16) {
        flow.in_ifindex = ELSEWHERE;
    }
    if choices.seldom(16) {
        flow.in_mac = mac(CLIENT_MAC);
    }
    if choices.seldom(16) {
        flow.out_mac_source = mac(SERVER_MAC);
    }
    flow.in_tags = tags(&random_tags(choices)).without_priority();
    flow.out_tags = tags(&random_tags(choices));
    flow.noted_tags =
        if choices.seldom(8) { tags(&random_tags(choices)).without_priority() } else { flow.in_tags };
    flow.noted_fingerprint = if choices.seldom(4) { 7 } else { print(data) };
    if choices.seldom(6) {
        flow.noted_fingerprint = !flow.noted_fingerprint;
    }
    flow.noted_ifindex = choices.of(&[HERE, HERE, HERE, ELSEWHERE]);
    flow.noted_mac = mac(choices.of(&[SERVER_MAC, SERVER_MAC, SERVER_MAC, RELAYED_MAC]));
    flow.noted_until = choices.of(&[0, NOW + 50 * MILLISECOND, NOW, NOW - SECOND]);
    flow.noted_in_a_row = choices.of(&[0, 31, 32, 256]);
}

/// Mostly none, else one or two.
fn random_tags(choices: &mut Choices<'_>) -> Vec<Tag> {
    let number = choices.of(&[0, 0, 0, 0, 1, 2]);
    (0..number)
        .map(|_| Tag {
            tpid: choices.of(&[TPID_8021Q, TPID_8021AD]),
            tci: choices.of(&[5, 6, 0xffff, 0, 0x7005]),
        })
        .collect()
}

fn frame(choices: &mut Choices<'_>, subject: &Subject, data: &[u8]) -> Vec<u8> {
    if choices.seldom(16) {
        let quoted = &subject.servers(data).build()[14..];
        let quoted = &quoted[..quoted.len().min(choices.of(&[1232, 548, 48, 28]))];
        let mtu = choices.of(&[1280, 1400, 0, 552, 68, 1 << 16]);
        return icmp_error(subject.output.source.is_ipv4(), mtu, quoted);
    }
    let missing = data.len().next_multiple_of(4) - data.len();
    let excess = choices.of(&[0, 0, missing, missing, missing, 1, 2, 3, 4, 9]);
    let padding: Vec<u8> = (0..excess).map(|_| choices.byte()).collect();
    let packet =
        if subject.input.channel.is_some() { subject.padded(data, &padding) } else { subject.packet(data) };
    let packet = dressed(choices, packet, subject.input.source.is_ipv4());
    let control = choices.seldom(12).then(|| {
        let stun_type = choices.of(&[4, 8, 9, 3, 1, 0x16, 0x17, 0x104]);
        let attributes = choices.of(&[0, 8, 100, 1259, 1260, 1261, 1400]);
        packet.clone().payload(&stun(stun_type, attributes))
    });
    control.unwrap_or(packet).build()
}

fn sent_frame(choices: &mut Choices<'_>, subject: &Subject, data: &[u8]) -> Vec<u8> {
    if choices.seldom(8) {
        let stun_type = choices.of(&[0x103, 0x104, 0x109, 0x114, 0x118, 0x119, 0x101, 0x113]);
        let attributes = choices.of(&[0, 8, 100, 1259, 1260, 1261, 1400]);
        let packet = Packet::new(subject.input.destination, subject.input.source);
        return packet.payload(&stun(stun_type, attributes)).build();
    }
    if data.len() > 300 && choices.seldom(8) {
        return first_fragment(&subject.but(|flow| flow.out_tags = tags(&[])).servers(data).build(), 320);
    }
    let mut packet = subject.servers(data);
    if let (Some(channel), true) = (subject.output.channel, choices.seldom(4)) {
        packet = packet.channel_data(channel, data, &[0, 0, 0][..choices.below(4)]);
    }
    let packet = dressed(choices, packet, subject.output.source.is_ipv4());
    packet.macs(PEER_MAC, if choices.seldom(16) { CLIENT_MAC } else { RELAYED_MAC }).build()
}

/// A train of datagrams to the receiver of the flow's output, and how long each but the last is.
fn train(choices: &mut Choices<'_>, subject: &Subject, noted: &[u8]) -> (Vec<u8>, u16) {
    let of_channel = |channel: Option<u16>, data: &[u8]| match channel {
        Some(channel) => channel_data(channel, data, &[]),
        None => data.to_vec(),
    };
    let noted = of_channel(subject.output.channel, noted);
    let segment = choices.of(&[noted.len().max(1), noted.len().max(1), 24, 120, 1, 3, 1200]);
    let mut payload = Vec::new();
    for _ in 0..=choices.below(8) {
        let mut datagram = match choices.below(6) {
            0 | 1 => noted.clone(),
            2 => of_channel(choices.of(&[subject.output.channel, Some(0x4abc), None]), &data(segment)),
            3 => stun(choices.of(&[0x103, 0x104, 0x109, 0x119, 0x101]), segment.saturating_sub(20)),
            4 => vec![choices.byte(); segment],
            _ => noted.iter().rev().copied().collect(),
        };
        datagram.resize(segment, 0);
        payload.extend(datagram);
    }
    let missing = choices.of(&[0, 0, 1, segment / 2]);
    payload.truncate((payload.len() - missing).min(3000));
    let packet = match choices.seldom(6) {
        // To whoever sends the packets of the flow, who may be a known client.
        true => Packet::new(subject.input.destination, subject.input.source),
        false => subject.servers(&[]),
    };
    (packet.payload(&payload).build(), segment as u16)
}

/// Header fields, most of them harmless.
fn dressed(choices: &mut Choices<'_>, packet: Packet, is_v4: bool) -> Packet {
    let trailer = choices.of(&[0, 0, 0, 1, 4, 18]);
    let mut packet = packet
        .traffic_class(choices.byte())
        .hop_limit(choices.of(&[64, 64, 64, 255, 128, 3, 2, 1, 0]))
        .identification(choices.word())
        .dont_fragment(choices.of(&[true, false]))
        .flow_label(u32::from(choices.word()) << 4)
        .udp_checksum(choices.of(&[
            UdpChecksum::Right,
            UdpChecksum::Right,
            UdpChecksum::Right,
            UdpChecksum::Right,
            UdpChecksum::Zero,
            UdpChecksum::Partial,
        ]))
        .trailer(&vec![0xa5; trailer]);
    if choices.seldom(16) {
        packet = packet.macs(RELAYED_MAC, CLIENT_MAC);
    }
    if choices.seldom(24) {
        for _ in 0..=choices.below(3) {
            packet = packet.tag(choices.of(&[TPID_8021Q, TPID_8021AD]), choices.of(&[5, 6, 0xe005]));
        }
    }
    if choices.seldom(24) {
        packet = packet.surplus(&[1; 4]);
    }
    match is_v4 {
        true if choices.seldom(24) => packet.options(&[1; 8]),
        true if choices.seldom(24) => packet.fragment(choices.of(&[true, false]), choices.word() & 3),
        true if choices.seldom(24) => packet.reserved_flag(),
        true if choices.seldom(24) => packet.corrupt_header_checksum(choices.word()),
        false if choices.seldom(12) => packet.extension(choices.of(&[0, 43, 44, 60]), &[0; 8]),
        _ => packet,
    }
}

/// Now and then some bits are turned, or the end is missing.
fn damaged(choices: &mut Choices<'_>, mut frame: Vec<u8>) -> Vec<u8> {
    if choices.seldom(6) {
        for _ in 0..=choices.below(3) {
            let headers = choices.below(frame.len().min(70));
            let anywhere = choices.below(frame.len());
            let at = choices.of(&[headers, anywhere]);
            frame[at] ^= choices.byte();
        }
    }
    if choices.seldom(16) {
        let length = choices.below(frame.len() + 1).max(15);
        frame.truncate(length);
    }
    frame
}

fn setting(choices: &mut Choices<'_>, subject: &Subject) -> Setting {
    let mut setting = Setting::empty();
    setting.flows.push((subject.key(), subject.flow));
    let other = choices.of(&Subject::all());
    if other.key() != subject.key() && choices.seldom(4) {
        setting.flows.push((other.key(), other.flow));
    }
    let mut output = subject.output_key();
    if choices.seldom(4) {
        output.source = turn_wire::IpAddress::ANY;
        if choices.seldom(2) {
            output.source_port = turn_wire::Be16::new(0);
        }
    }
    setting.expected.push((output, subject.key()));
    if choices.seldom(2) {
        setting.clients.insert(subject.key().with_channel(turn_wire::Be16::new(0)));
    }
    setting.admits_strangers = choices.of(&[true, false]);
    let flags = [
        interface_flags::TRANSMITS,
        0,
        interface_flags::GENERIC,
        interface_flags::TRANSMITS | interface_flags::ONLY_REDIRECT,
        interface_flags::TRANSMITS | interface_flags::TRANSMITS_PARTS,
    ];
    for ifindex in [HERE, ELSEWHERE] {
        let interface = Interface {
            mtu: choices.of(&[1500, 1500, 1280, 9000, 70_000]),
            flags: choices.of(&flags),
            looked_after_until: u64::MAX,
        };
        setting.interfaces.retain(|(known, _)| *known != ifindex);
        if !choices.seldom(24) {
            setting.interfaces.push((ifindex, interface));
        }
    }
    if choices.seldom(8) {
        setting.devices.clear();
    }
    setting
}
