//! What turn-bpf does not relay works as without it, and is told with a reason.
//!
//! Not here: coturn's `--multiplex-peer`, which the packaged coturn 4.6.1 does not have yet; `cargo xtask interop` runs a newer one with it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use turn_testkit::coturn::{PASSWORD, PORT, USER};
use turn_testkit::datagram::receive;
use turn_testkit::lab::Family;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::packet::{Packet, channel_data};
use turn_testkit::traffic::{Carrier as _, Channel};
use turn_testkit::turn_client::message::{
    Class, Credentials, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, Message, MessageBuilder, NONCE, REALM,
    REQUESTED_TRANSPORT, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};
use turn_testkit::turn_client::{Received, TurnClient};
use turn_testkit::wire::{Wire, mac};

use crate::calls::{load, talk, talk_in_kernel};
use crate::{CHANNEL, options};

const MOBILITY_TICKET: u16 = 0x8030;

/// RFC 8016: the client's address may change at any time.
#[test]
fn an_allocation_with_a_mobility_ticket() {
    let offload = options().coturn(&["--mobility"]).start();
    let mut client = offload.client();
    let success = client
        .request(|client| {
            let request = client.builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            request.attribute(MOBILITY_TICKET, &[])
        })
        .unwrap();
    assert!(success.attribute(MOBILITY_TICKET).is_some_and(|ticket| !ticket.is_empty()));
    let relayed = success.xor_address(XOR_RELAYED_ADDRESS).unwrap();
    let echo = offload.echo();
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    let before = offload.count("no_flow");
    let report = load(1).round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    assert_eq!((offload.sessions(), offload.kernel_packets()), (Vec::new(), 0), "{relayed}");
    assert!(offload.count("no_flow") - before >= 2 * report.sent);

    // A client of the same server without a ticket is none the worse.
    let (mut other, _) = offload.allocated_client();
    offload.bind_and_arm(&mut other, CHANNEL, &echo);
    talk_in_kernel(&offload, &mut other, CHANNEL, &load(2));
}

/// A TURN client over TCP, as far as one channel needs it.
struct TcpClient {
    stream: TcpStream,
    credentials: Option<Credentials>,
}

impl TcpClient {
    fn connect(offload: &Offload) -> Self {
        let server = SocketAddr::new(offload.lab.addresses(Family::V4).listen, PORT);
        let stream = offload.lab.client.enter(|| TcpStream::connect(server)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, credentials: None }
    }

    /// A STUN or ChannelData message, as it is, without padding.
    fn read(&mut self) -> Vec<u8> {
        let mut message = vec![0; 4];
        self.stream.read_exact(&mut message).unwrap();
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        let is_channel_data = message[0] & 0xc0 == 0x40;
        let rest = if is_channel_data { length } else { length + 16 };
        // Over TCP every message is padded (RFC 8656 section 12.5).
        let mut padded = vec![0; rest.next_multiple_of(4)];
        self.stream.read_exact(&mut padded).unwrap();
        message.extend_from_slice(&padded[..rest]);
        message
    }

    fn request(&mut self, method: u16, add: impl Fn(MessageBuilder) -> MessageBuilder) -> Message {
        for _ in 0..2 {
            let mut request = add(MessageBuilder::new(method, Class::Request));
            if let Some(credentials) = &self.credentials {
                request = request.credentials(credentials);
            }
            self.stream.write_all(&request.build()).unwrap();
            let answer = Message::parse(&self.read()).unwrap();
            match (answer.error_code(), answer.attribute(REALM), answer.attribute(NONCE)) {
                (Some(401), Some(realm), Some(nonce)) => {
                    self.credentials = Some(Credentials {
                        username: USER.into(),
                        password: PASSWORD.into(),
                        realm: String::from_utf8_lossy(realm).into_owned(),
                        nonce: nonce.to_vec(),
                    });
                }
                (None, ..) => return answer,
                (code, ..) => panic!("error {code:?} to method {method:#x}"),
            }
        }
        panic!("no success of method {method:#x}");
    }
}

#[test]
fn a_client_over_tcp() {
    let offload = options().start();
    let mut client = TcpClient::connect(&offload);
    let success =
        client.request(METHOD_ALLOCATE, |request| request.attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]));
    let relayed = success.xor_address(XOR_RELAYED_ADDRESS).unwrap();
    let peer = offload.peer();
    let peer_address = peer.local_addr().unwrap();
    client.request(METHOD_CHANNEL_BIND, |request| {
        request.channel_number(CHANNEL).xor_address(XOR_PEER_ADDRESS, peer_address)
    });
    let [not_udp, no_flow] = ["not_udp", "no_flow"].map(|reason| offload.count(reason));
    for size in 1..=200_usize {
        let payload: Vec<u8> = (0..size).map(|at| (at * 5 + size) as u8).collect();
        let padding = vec![0; size.next_multiple_of(4) - size];
        client.stream.write_all(&channel_data(CHANNEL, &payload, &padding)).unwrap();
        assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((payload.clone(), relayed)));
        peer.send_to(&payload, relayed).unwrap();
        assert_eq!(client.read(), channel_data(CHANNEL, &payload, &[]));
    }
    assert_eq!((offload.sessions(), offload.kernel_packets()), (Vec::new(), 0));
    assert!(offload.count("not_udp") - not_udp >= 200);
    assert!(offload.count("no_flow") - no_flow >= 200);
}

/// Also where the same peer has a channel: a peer's datagram comes on that, whatever the client sends by.
#[test]
fn send_and_data_indications() {
    let offload = options().default_terms().start();
    for family in [Family::V4, Family::V6] {
        let (mut client, relayed) = offload.allocated_client_of(family, family);
        let [peer, bound_peer] = [offload.peer_of(family), offload.peer_of(family)];
        let [address, bound_address] = [&peer, &bound_peer].map(|peer| peer.local_addr().unwrap());
        client.create_permission(&[address]).unwrap();
        let (before, no_flow) = (offload.kernel_packets(), offload.count("no_flow"));
        for number in 0..100_u32 {
            let data = number.to_be_bytes().to_vec();
            client.send_indication(address, &data).unwrap();
            assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((data.clone(), relayed)));
            peer.send_to(&data, relayed).unwrap();
            let expected = Received::DataIndication { peer: address, data };
            assert_eq!(client.receive(PATIENCE).unwrap(), Some(expected));
        }
        assert_eq!(offload.kernel_packets(), before);
        assert!(offload.count("no_flow") - no_flow >= 200);
        assert!(offload.session(&client, CHANNEL).is_none());

        offload.bind_and_arm_to_peer(&mut client, CHANNEL, &bound_peer);
        let before = offload.session(&client, CHANNEL).unwrap().client_to_peer;
        for number in 0..20_u32 {
            let data = number.to_be_bytes().to_vec();
            client.send_indication(bound_address, &data).unwrap();
            assert_eq!(receive(&bound_peer, PATIENCE).unwrap(), Some((data.clone(), relayed)));
            bound_peer.send_to(&data, relayed).unwrap();
            let expected = Received::ChannelData { channel: CHANNEL, data, padding: Vec::new() };
            assert_eq!(client.receive(PATIENCE).unwrap(), Some(expected));
        }
        let after = offload.session(&client, CHANNEL).unwrap();
        assert_eq!(after.client_to_peer, before);
        client.send_channel_data(CHANNEL, b"by the kernel", &[]).unwrap();
        assert!(receive(&bound_peer, PATIENCE).unwrap().is_some());
        let after = offload.session(&client, CHANNEL).unwrap().client_to_peer;
        assert_eq!(after.kernel_packets, before.kernel_packets + 1);
    }
}

pub fn arm_both_ways(offload: &Offload, client: &mut TurnClient, relayed: SocketAddr, peer: &UdpSocket) {
    offload.bind_and_arm_to_peer(client, CHANNEL, peer);
    wait_until("both ways are in the kernel", || {
        peer.send_to(b"arming", relayed).unwrap();
        Channel { client, number: CHANNEL }.receive(PATIENCE).unwrap().expect("at the client");
        offload.session(client, CHANNEL).unwrap().state == "kernel"
    });
}

/// The peer's machine answers with an ICMP error, which is the server's to understand. The channel stays, and so does the flow.
#[test]
fn icmp_errors_of_a_closed_port() {
    let offload = options().default_terms().start();
    for family in [Family::V4, Family::V6] {
        let (mut client, relayed) = offload.allocated_client_of(Family::V4, family);
        let peer = offload.peer_of(family);
        let address = peer.local_addr().unwrap();
        arm_both_ways(&offload, &mut client, relayed, &peer);
        drop(peer);
        let before = offload.count("not_udp");
        wait_until("errors come back", || {
            client.send_channel_data(CHANNEL, b"to nobody", &[]).unwrap();
            offload.count("not_udp") >= before + 3
        });
        let peer = offload.lab.peer.udp_socket(address).unwrap();
        client.send_channel_data(CHANNEL, b"to somebody", &[]).unwrap();
        let received = receive(&peer, PATIENCE).unwrap();
        assert_eq!(received, Some((b"to somebody".to_vec(), relayed)));
        peer.send_to(b"back", relayed).unwrap();
        let mut channel = Channel { client: &mut client, number: CHANNEL };
        assert_eq!(channel.receive(PATIENCE).unwrap().as_deref(), Some(&b"back"[..]));
        assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "kernel");
    }
}

#[test]
fn fragments() {
    let offload = options().default_terms().start();
    for (client_family, peer_family) in crate::FAMILY_PAIRS {
        let (mut client, relayed) = offload.allocated_client_of(client_family, peer_family);
        let peer = offload.peer_of(peer_family);
        arm_both_ways(&offload, &mut client, relayed, &peer);
        let before = offload.kernel_packets();
        let fragments = offload.count("fragment") + offload.count("not_udp");
        for size in [1500, 2000, 2960, 4000] {
            let payload: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
            client.send_channel_data(CHANNEL, &payload, &[]).unwrap();
            assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((payload.clone(), relayed)), "{size} bytes");
            peer.send_to(&payload, relayed).unwrap();
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            assert_eq!(channel.receive(PATIENCE).unwrap(), Some(payload), "{size} bytes");
        }
        assert_eq!(offload.kernel_packets(), before);
        assert!(offload.count("fragment") + offload.count("not_udp") >= fragments + 16);
    }
}

/// IPv4 options and IPv6 extension headers, in both directions.
#[test]
fn options_and_extension_headers() {
    let offload = options().default_terms().start();
    for (family, reason) in [(Family::V4, "ipv4_options"), (Family::V6, "not_udp")] {
        let (mut client, relayed) = offload.allocated_client_of(family, family);
        let peer = offload.peer_of(family);
        arm_both_ways(&offload, &mut client, relayed, &peer);
        let ends = [(&offload.lab.client, "cli0", "srv0"), (&offload.lab.peer, "peer0", "srv1")];
        let [client_wire, peer_wire] = ends.map(|(namespace, interface, server)| {
            let macs = (mac(&offload.lab.server, server).unwrap(), mac(namespace, interface).unwrap());
            (Wire::open(namespace, interface).unwrap(), macs)
        });
        let with_options = |packet: Packet| match family {
            Family::V4 => packet.options(&[1, 1, 1, 0]),
            // Destination options: PadN of four bytes.
            Family::V6 => packet.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
        };
        let (before, counted) = (offload.kernel_packets(), offload.count(reason));
        for number in 0..10_u8 {
            let payload = [number; 50];
            let (wire, (to, from)) = &client_wire;
            let packet = Packet::new(client.address().unwrap(), client.server()).macs(*to, *from);
            wire.send(&with_options(packet.channel_data(CHANNEL, &payload, &[])).build()).unwrap();
            assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((payload.to_vec(), relayed)));
            let (wire, (to, from)) = &peer_wire;
            let packet = Packet::new(peer.local_addr().unwrap(), relayed).macs(*to, *from);
            wire.send(&with_options(packet.payload(&payload)).build()).unwrap();
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            assert_eq!(channel.receive(PATIENCE).unwrap().as_deref(), Some(&payload[..]));
        }
        assert_eq!(offload.kernel_packets(), before);
        assert!(offload.count(reason) >= counted + 20, "{reason}");
    }
}

/// A peer at one of the server's own addresses that is nobody's relayed transport address: a service of the server's machine.
#[test]
fn a_peer_on_the_servers_own_machine() {
    let offload = options().start();
    let (mut client, relayed) = offload.allocated_client();
    let address = offload.lab.addresses(Family::V4).relay;
    let peer = offload.lab.server.udp_socket((address, 0).into()).unwrap();
    client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    for number in 0..50_u8 {
        client.send_channel_data(CHANNEL, &[number; 40], &[]).unwrap();
        assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((vec![number; 40], relayed)));
        peer.send_to(&[number; 41], relayed).unwrap();
        let mut channel = Channel { client: &mut client, number: CHANNEL };
        assert_eq!(channel.receive(PATIENCE).unwrap(), Some(vec![number; 41]));
    }
    assert_eq!((offload.sessions(), offload.kernel_packets()), (Vec::new(), 0));

    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL + 1, &echo);
    assert!(talk(&offload, &mut client, CHANNEL + 1, &load(1)).kernel > 0);
}
