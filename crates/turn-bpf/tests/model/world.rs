//! The network around the host, and what must hold in it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use turn_datapath::Reason;
use turn_testkit::cases::{ELSEWHERE, HERE, MILLISECOND, NOW, SECOND, SENT, TERMS};
use turn_testkit::dissect::{Dissected, dissect};
use turn_testkit::oracle::{self, Leg, Rule};
use turn_testkit::packet::Packet;
use turn_testkit::role::{CLIENT_MAC, Mac, PEER_MAC, RELAYED_MAC, SERVER_MAC};
use turn_testkit::turn_client::message::*;

use crate::host::{Fate, Host, Record};
use crate::place::{self, CLIENTS, PEERS, listener_of};
use crate::server::{self, NAME, Server};
use crate::step::{Ask, Pick, Step};
use crate::tally::Tally;

/// Packets on a way of their own: what the network may turn round, lose, and send twice.
const IN_FLIGHT: usize = 40;
/// Channels that clients bind.
const CHANNELS: [u16; 3] = [0x4000, 0x4001, 0x4002];
/// Behind a packet that went to the server others wait for so long, and so many.
const PATIENCE: (u64, usize) = (100 * MILLISECOND, 32);

/// A frame on its way to the host.
#[derive(Clone, Debug)]
struct Flying {
    frame: Vec<u8>,
    ifindex: u32,
    /// The number of the data packet; none for control messages.
    number: Option<u64>,
    is_copy: bool,
}

/// A datagram in the server's sockets.
#[derive(Clone, Debug)]
struct Waiting {
    packet: Dissected,
    number: Option<u64>,
    since: u64,
    /// Whether others have to stay behind it.
    is_noted: bool,
}

/// A translation as the server was seen doing it last.
#[derive(Clone, Copy, Debug)]
struct Done {
    at: u64,
    destination_mac: Mac,
    ifindex: u32,
}

/// Everything.
pub struct World {
    now: u64,
    server: Server,
    host: Host,
    flying: VecDeque<Flying>,
    sockets: VecDeque<Waiting>,
    closed: Vec<SocketAddr>,
    done: HashMap<(LegKey, LegKey), Vec<Done>>,
    /// How many packets of a flow have gone to the server since it last had none of them.
    in_a_row: HashMap<LegKey, usize>,
    /// Clients whom the server was heard telling that their allocation is over, by what the daemon has read.
    told_gone: HashSet<SocketAddr>,
    requests: HashMap<SocketAddr, MessageBuilder>,
    routes: u8,
    numbers: u64,
    transactions: u32,
    /// Copies of each data packet that are not accounted for yet.
    open: HashMap<u64, u64>,
    pub tally: Tally,
}

type LegKey = (SocketAddr, SocketAddr, Option<u16>);

fn key(leg: &Leg) -> LegKey {
    (leg.source, leg.destination, leg.channel)
}

/// What starts like ChannelData is: no peer's data of this model does.
fn leg_of(packet: &Dissected) -> Leg {
    let is_channel_data = packet.payload.first().is_some_and(|first| first >> 6 == 1);
    let channel = packet.channel_data().filter(|_| is_channel_data).map(|(channel, ..)| channel);
    Leg { source: packet.source, destination: packet.destination, channel }
}

impl World {
    /// Nobody has said anything yet.
    pub fn new(is_behind_nat: bool) -> Self {
        Self {
            now: NOW,
            server: Server::new(is_behind_nat),
            host: Host::new(NOW),
            flying: VecDeque::new(),
            sockets: VecDeque::new(),
            closed: Vec::new(),
            done: HashMap::new(),
            in_a_row: HashMap::new(),
            told_gone: HashSet::new(),
            requests: HashMap::new(),
            routes: 0,
            numbers: 0,
            transactions: 0,
            open: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Every client has an allocation and a channel to a peer, and the first two have one to each other.
    pub fn introduce(&mut self) {
        let asks = |client, ask| Step::Ask { client: Pick(client), ask, is_forged: false };
        for (client, v6) in [(0, false), (1, false), (2, true)] {
            self.take(&asks(client, Ask::Allocate { v6 }));
            self.take(&Step::Settle);
        }
        // Beside the three peers there are the three relayed transport addresses.
        for (client, channel, peer) in [(0, 0, 0), (1, 0, 1), (2, 0, 2), (0, 1, 4), (1, 1, 3)] {
            self.take(&asks(client, Ask::ChannelBind { channel: Pick(channel), peer: Pick(peer) }));
            self.take(&Step::Settle);
        }
    }

    /// One thing happens.
    pub fn take(&mut self, step: &Step) {
        self.tally.steps += 1;
        match *step {
            Step::Ask { client, ask, is_forged } => self.ask(CLIENTS[client.of(3)], ask, is_forged),
            Step::AskAgain { client } => {
                if let Some(request) = self.requests.get(&CLIENTS[client.of(3)]).cloned() {
                    self.fly_request(CLIENTS[client.of(3)], &request);
                }
            }
            Step::Talk { which, length } => self.talk(which, length),
            Step::ClientSends { client, channel, length } => {
                self.client_sends(CLIENTS[client.of(3)], CHANNELS[channel.of(3)], length)
            }
            Step::Indication { client, peer } => self.indicate(CLIENTS[client.of(3)], peer),
            Step::PeerSends { peer, relayed, length } => self.peer_sends(PEERS[peer.of(3)], relayed, length),
            Step::Arrive { which } => self.arrive(which),
            Step::Lose { which } => {
                if let Some(lost) = self.pick(which) {
                    self.account(lost.number);
                }
            }
            Step::Copy { which } => {
                if let Some(mut one) = self.pick(which) {
                    one.is_copy = true;
                    if let Some(number) = one.number {
                        *self.open.entry(number).or_default() += 1;
                    }
                    self.flying.push_back(one.clone());
                    self.flying.push_back(one);
                }
            }
            Step::ServerWorks { datagrams } => (0..=datagrams.of(8)).for_each(|_| self.server_works()),
            Step::ServerDrops => {
                if let Some(dropped) = self.sockets.pop_back() {
                    self.account(dropped.number);
                }
            }
            Step::DaemonWorks { records } => (0..=records.of(16)).for_each(|_| self.daemon_works()),
            Step::Settle => self.settle(),
            Step::Milliseconds { time } => self.pass(time.of(200) as u64 * MILLISECOND),
            Step::Seconds { time } => self.pass(time.of(12) as u64 * SECOND),
            Step::Minutes { time } => self.pass(time.of(6) as u64 * 60 * SECOND),
            Step::ServerRestarts => {
                let closed = self.server.restart();
                self.closed.extend(closed);
                while let Some(dropped) = self.sockets.pop_front() {
                    self.account(dropped.number);
                }
            }
            Step::Kick { client } => self.closed.extend(self.server.kick(CLIENTS[client.of(3)])),
            Step::DaemonHearsOfSockets => {
                self.closed.drain(..).for_each(|local| self.host.socket_closed(local))
            }
            Step::DaemonRestarts => {
                self.tally.records_lost += self.host.lost;
                self.tally.joined += self.host.joined;
                self.host = Host::new(self.now);
                self.told_gone.clear();
            }
            Step::DaemonIsReplaced => self.host.replace_daemon(),
            Step::Reroute => self.routes = self.routes.wrapping_add(1),
        }
        let (of_table, of_map) = self.host.flow_count();
        assert_eq!(of_table, of_map, "the daemon knows of every flow in the map");
        let bindings = self.host.bound_clients().count();
        assert!(of_map <= 2 * bindings, "{of_map} flows of {bindings} bindings");
        for client in self.host.bound_clients() {
            assert!(
                !self.told_gone.contains(&client),
                "the daemon has heard that {client} has no allocation"
            );
        }
    }

    /// Everything in flight arrives, everybody does what there is to do, and every packet is accounted for.
    pub fn finish(&mut self) {
        self.settle();
        let open: Vec<_> = self.open.iter().filter(|(_, copies)| **copies != 0).collect();
        assert!(open.is_empty(), "packets that nobody lost and nobody got: {open:?}");
        self.tally.records_lost += self.host.lost;
        self.tally.joined += self.host.joined;
    }

    fn settle(&mut self) {
        while !self.flying.is_empty() || !self.sockets.is_empty() {
            self.arrive(Pick(0));
            while !self.sockets.is_empty() {
                self.server_works();
            }
            (0..8).for_each(|_| self.daemon_works());
        }
        (0..32).for_each(|_| self.daemon_works());
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        self.host.set_now(self.now);
        if time >= SECOND {
            self.host.tick(self.now);
        }
    }

    fn ask(&mut self, client: SocketAddr, ask: Ask, is_forged: bool) {
        self.transactions += 1;
        let mut id = [7; 12];
        id[..4].copy_from_slice(&self.transactions.to_be_bytes());
        let builder = |method| MessageBuilder::new(method, Class::Request).transaction(id);
        let request = match ask {
            Ask::Allocate { v6 } => {
                let request = builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                if v6 { request.attribute(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]) } else { request }
            }
            Ask::Refresh => builder(METHOD_REFRESH).lifetime(600),
            Ask::Delete => builder(METHOD_REFRESH).lifetime(0),
            Ask::Permission { peer } => {
                builder(METHOD_CREATE_PERMISSION).xor_address(XOR_PEER_ADDRESS, self.peer(peer))
            }
            Ask::ChannelBind { channel, peer } => builder(METHOD_CHANNEL_BIND)
                .channel_number(CHANNELS[channel.of(3)])
                .xor_address(XOR_PEER_ADDRESS, self.peer(peer)),
        };
        let request = request.attribute(USERNAME, if is_forged { b"forger" } else { NAME });
        if !is_forged {
            self.requests.insert(client, request.clone());
        }
        self.fly_request(client, &request);
    }

    fn fly_request(&mut self, client: SocketAddr, request: &MessageBuilder) {
        self.fly(Packet::new(client, listener_of(client)).payload(&request.build()), HERE, None);
    }

    /// A peer, or another client by the address that the server has told it.
    fn peer(&self, pick: Pick) -> SocketAddr {
        let relayed = self.server.relayed();
        match pick.of(3 + relayed.len()) {
            peer @ 0..3 => PEERS[peer],
            client => self.server.advertised(relayed[client - 3]),
        }
    }

    /// Application data that no other packet has.
    fn data(&mut self, length: Pick) -> (u64, Vec<u8>) {
        self.numbers += 1;
        let mut data = vec![0x80; [24, 32, 200, 12, 1400][length.of(5)]];
        data[4..12].copy_from_slice(&self.numbers.to_be_bytes());
        self.open.insert(self.numbers, 1);
        self.tally.sent += 1;
        (self.numbers, data)
    }

    /// Somebody uses a channel that is bound.
    fn talk(&mut self, which: Pick, length: Pick) {
        let channels = self.server.channels();
        if channels.is_empty() {
            return;
        }
        let (client, channel, peer, relayed) = channels[which.of(channels.len())];
        if which.0 < 0x80 || !PEERS.contains(&peer) {
            self.client_sends(client, channel, length);
        } else {
            self.send_to_relay(peer, relayed, length);
        }
    }

    fn client_sends(&mut self, client: SocketAddr, channel: u16, length: Pick) {
        let (number, data) = self.data(length);
        let padding = &[0; 3][..data.len().next_multiple_of(4) - data.len()];
        let packet = Packet::new(client, listener_of(client)).channel_data(channel, &data, padding);
        self.fly(packet.traffic_class(0xb8), HERE, Some(number));
    }

    fn indicate(&mut self, client: SocketAddr, peer: Pick) {
        let peer = self.peer(peer);
        let (number, data) = self.data(Pick(0));
        let indication = MessageBuilder::new(METHOD_SEND, Class::Indication).transaction([0xcc; 12]);
        let message = indication.xor_address(XOR_PEER_ADDRESS, peer).attribute(DATA, &data).build();
        self.fly(Packet::new(client, listener_of(client)).payload(&message), HERE, Some(number));
    }

    fn peer_sends(&mut self, peer: SocketAddr, relayed: Pick, length: Pick) {
        let ports = self.server.relayed();
        if ports.is_empty() {
            return;
        }
        self.send_to_relay(peer, ports[relayed.of(ports.len())], length);
    }

    fn send_to_relay(&mut self, peer: SocketAddr, relayed: SocketAddr, length: Pick) {
        if peer.is_ipv4() == relayed.is_ipv4() {
            let (number, data) = self.data(length);
            self.fly(Packet::new(peer, relayed).payload(&data), ELSEWHERE, Some(number));
        }
    }

    fn fly(&mut self, packet: Packet, ifindex: u32, number: Option<u64>) {
        // The network is full.
        if self.flying.len() >= IN_FLIGHT
            && let Some(lost) = self.flying.pop_front()
        {
            self.account(lost.number);
        }
        self.flying.push_back(Flying { frame: packet.build(), ifindex, number, is_copy: false });
    }

    fn pick(&mut self, which: Pick) -> Option<Flying> {
        // Mostly the oldest.
        let late = which.of(64).saturating_sub(40);
        let place = late.min(self.flying.len().saturating_sub(1));
        self.flying.remove(place)
    }

    /// A copy of a packet has come to its end.
    fn account(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            let copies = self.open.get_mut(&number).expect("a packet that was sent");
            *copies = copies.checked_sub(1).expect("a packet comes to its end as often as it was sent");
        }
    }

    fn arrive(&mut self, which: Pick) {
        let Some(Flying { frame, ifindex, number, is_copy }) = self.pick(which) else { return };
        match self.host.receive(&frame, ifindex) {
            Fate::ToServer(reason) => {
                match reason {
                    Reason::Heartbeat => self.tally.heartbeats += 1,
                    Reason::Behind => self.tally.behind += 1,
                    _ => {}
                }
                let is_noted = !is_copy
                    && matches!(
                        reason,
                        Reason::Heartbeat | Reason::Behind | Reason::NoLease | Reason::LongerThanSeen
                    );
                let packet = dissect(&frame).expect("a datagram");
                let flow = key(&leg_of(&packet));
                let is_first = self.sockets.iter().all(|waiting| key(&leg_of(&waiting.packet)) != flow);
                let in_a_row = self.in_a_row.entry(flow).or_default();
                *in_a_row = if is_first { 1 } else { *in_a_row + 1 };
                self.sockets.push_back(Waiting { packet, number, since: self.now, is_noted });
            }
            Fate::Left(out, output) => {
                self.judge(&frame, &output, out);
                self.account(number);
            }
        }
    }

    /// The kernel side has relayed a packet: the server was seen doing just that within one lease.
    fn judge(&mut self, input: &[u8], output: &[u8], ifindex: u32) {
        let (before, after) = (dissect(input).expect("a datagram"), dissect(output).expect("a datagram"));
        let (from, to) = (leg_of(&before), leg_of(&after));
        let done: Vec<_> = self
            .done
            .get(&(key(&from), key(&to)))
            .into_iter()
            .flatten()
            .filter(|done| self.now - done.at < TERMS.lease)
            .collect();
        assert!(
            !done.is_empty(),
            "relayed what the server has not relayed within one lease: {from:?} to {to:?}"
        );
        let fits = |done: &&Done| {
            let mut rule = Rule::new(from, to, done.destination_mac, RELAYED_MAC);
            rule.dont_fragment = true;
            done.ifindex == ifindex && oracle::check(input, &rule, output).is_ok()
        };
        assert!(
            done.into_iter().any(|done| fits(&done)),
            "not what the server would have sent: {output:02x?}"
        );

        let of_flow: Vec<_> =
            self.sockets.iter().filter(|waiting| key(&leg_of(&waiting.packet)) == key(&from)).collect();
        let is_overtaken = of_flow.iter().all(|waiting| waiting.is_noted)
            && of_flow.last().is_some_and(|last| self.now - last.since < PATIENCE.0)
            && self.in_a_row.get(&key(&from)).is_some_and(|in_a_row| *in_a_row <= PATIENCE.1);
        assert!(!is_overtaken, "relayed ahead of {} packets of its flow", of_flow.len());
        self.tally.relayed += 1;
        self.tally.client_to_client += u64::from(from.channel.is_some() && to.channel.is_some());
    }

    fn server_works(&mut self) {
        let Some(Waiting { packet, number, .. }) = self.sockets.pop_front() else { return };
        let sent = self.server.handle(self.now, packet.source, packet.destination, &packet.payload);
        match sent.first().and_then(|sent| sent.relayed) {
            Some(_) => self.tally.by_server += 1,
            None => self.tally.unrelayable += u64::from(number.is_some()),
        }
        self.account(number);
        for sent in sent {
            self.leave(&sent);
        }
    }

    /// The server's packet leaves, by the way that the routes of the moment give it.
    fn leave(&mut self, sent: &server::Sent) {
        let is_to_client = CLIENTS.contains(&sent.destination);
        let ifindex = if is_to_client { HERE } else { ELSEWHERE };
        let destination_mac = match (is_to_client, self.routes & 1) {
            (true, _) => CLIENT_MAC,
            (false, 0) => PEER_MAC,
            (false, _) => SERVER_MAC,
        };
        let packet = Packet::new(sent.source, sent.destination)
            .macs(destination_mac, RELAYED_MAC)
            .payload(&sent.payload);
        let how = turn_datapath::egress::Sent { ifindex, ..SENT };
        for reason in self.host.send(&packet.build(), &how) {
            match reason {
                Reason::Witness => self.tally.witnesses += 1,
                Reason::PathChanged => self.tally.path_changes += 1,
                Reason::OtherPayload => self.tally.other_payloads += 1,
                _ => {}
            }
        }
        if let Some((from, to)) = &sent.relayed {
            let done = self.done.entry((key(from), key(to))).or_default();
            done.retain(|done| self.now - done.at < TERMS.lease);
            done.push(Done { at: self.now, destination_mac, ifindex });
        }
    }

    fn daemon_works(&mut self) {
        let Some(Record::Message { source, destination, bytes, .. }) = self.host.take_record() else {
            return;
        };
        let Ok(message) = Message::parse(&bytes) else { return };
        match (message.method, message.class) {
            (METHOD_REFRESH, Class::Success) if message.lifetime() == Some(0) => {
                self.told_gone.insert(destination);
            }
            (METHOD_CREATE_PERMISSION | METHOD_CHANNEL_BIND, Class::Error)
                if message.error_code() == Some(437) =>
            {
                self.told_gone.insert(destination);
            }
            (METHOD_ALLOCATE | METHOD_CHANNEL_BIND, Class::Success) => {
                self.told_gone.remove(&destination);
            }
            _ => {}
        }
        debug_assert!(place::LISTENERS.contains(&source) || place::LISTENERS.contains(&destination));
    }
}
