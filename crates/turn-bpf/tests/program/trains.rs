//! What the kernel makes of a server's calls: with `UDP_SEGMENT` many datagrams in one buffer, of which only the headers lie in the
//! linear part; with `sendmmsg` many buffers in one call; with `MSG_MORE` one datagram in parts.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use aya::programs::TcAttachType;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sendto};
use turn_bpf::attachment::prepare_tc;
use turn_bpf::flow_table::FlowMaps as _;
use turn_bpf::object::Plain;
use turn_datapath::flow::interface_flags;
use turn_datapath::{Flow, FlowKey, Interface, Reason};
use turn_testkit::cases::control::stun;
use turn_testkit::cases::subject::{data, key, leg, print};
use turn_testkit::lab::{Family, Lab, Topology};
use turn_testkit::segmentation;
use turn_wire::Be16;

use crate::kernel::Kernel;

const SEGMENT: usize = 1000;
const DATAGRAMS: usize = 40;
const REFRESH_SUCCESS: u16 = 0x0104;

/// A relay socket and a peer, with a flow between a client and them that awaits its witness.
struct Awaited {
    kernel: Kernel,
    client: FlowKey,
    noted: Vec<u8>,
    relay: UdpSocket,
    peer: UdpSocket,
    _lab: Lab,
}

impl Awaited {
    fn in_a_lab(family: Family, features: &[&str]) -> Self {
        let lab = Lab::new(Topology::Two).unwrap();
        lab.server.run("ethtool", &[&["-K", "srv1"], features].concat()).unwrap();
        let addresses = lab.addresses(family);
        let relay = lab.server.udp_socket(SocketAddr::new(addresses.relay, 49160)).unwrap();
        let peer = lab.peer.udp_socket(SocketAddr::new(addresses.peer, 5000)).unwrap();
        let [relayed, peers] = [&relay, &peer].map(|socket| socket.local_addr().unwrap());
        // The first one resolves the peer's address.
        relay.send_to(b"hello", peers).unwrap();
        receive(&peer);

        let mut kernel = Kernel::load();
        lab.server.enter(|| prepare_tc("srv1")).unwrap().unwrap();
        let egress = kernel.object.egress().unwrap();
        lab.server.enter(|| egress.attach("srv1", TcAttachType::Egress)).unwrap().unwrap();
        let ifindex = lab.server.output("cat", &["/sys/class/net/srv1/ifindex"]).unwrap();
        let ifindex: u32 = ifindex.trim().parse().unwrap();
        let interface =
            Interface { mtu: 1500, flags: interface_flags::TRANSMITS, looked_after_until: u64::MAX };
        kernel.maps.interfaces.insert(ifindex, Plain(interface), 0).unwrap();
        let noted = data(SEGMENT);
        let client = key(&leg(SocketAddr::new(addresses.client, 40000), relayed, Some(0x4001)));
        let flow = Flow {
            out_source_port: Be16::new(relayed.port()),
            out_destination: peers.ip().into(),
            out_destination_port: Be16::new(peers.port()),
            noted_fingerprint: print(&noted),
            noted_ifindex: ifindex,
            noted_until: u64::MAX,
            ..Flow::default()
        };
        kernel.maps.flows.insert_flow(&client, &flow).unwrap();
        kernel.maps.flows.insert_expected(&key(&leg(relayed, peers, None)), &client).unwrap();
        kernel.maps.clients.insert(Plain(key(&leg(peers, relayed, None))), 1, 0).unwrap();
        Self { kernel, client, noted, relay, peer, _lab: lab }
    }

    /// Checks that it is armed, and how often these were counted.
    fn is_armed(&mut self, expected: &[(Reason, usize)]) {
        let counted = self.kernel.newly_counted();
        for (reason, times) in expected {
            let found = counted.iter().filter(|counted| *counted == reason).count();
            assert_eq!(found, *times, "{reason:?}: {counted:?}");
        }
        let flow = self.kernel.maps.flows.flow(&self.client).unwrap();
        let relayed = self.relay.local_addr().unwrap();
        assert_eq!((flow.armed, flow.out_source), (1, relayed.ip().into()));
    }
}

#[test]
fn a_witness_and_a_response_in_a_train_of_the_kernel_are_seen() {
    for family in [Family::V4, Family::V6] {
        // Before 6.11 a kernel makes no trains for a device that computes no checksums.
        let mut awaited = Awaited::in_a_lab(family, &["tx", "on", "gso", "off"]);
        let mut train = vec![vec![0xa5; SEGMENT]; DATAGRAMS];
        train[17] = awaited.noted.clone();
        train[29] = stun(REFRESH_SUCCESS, SEGMENT - 20);
        train[DATAGRAMS - 1].truncate(SEGMENT / 3);
        segmentation::cut(&awaited.relay, SEGMENT as u16).unwrap();
        let peers = awaited.peer.local_addr().unwrap();
        assert_eq!(awaited.relay.send_to(&train.concat(), peers).unwrap(), train.concat().len());
        for datagram in &train {
            assert_eq!(receive(&awaited.peer), *datagram, "{family:?}: trains go on, untouched");
        }
        awaited.is_armed(&[
            (Reason::EgressTrain, 1),
            (Reason::Witness, 1),
            (Reason::OtherPayload, DATAGRAMS - 1),
            (Reason::EgressControl, 1),
        ]);
        let control = &mut awaited.kernel.maps.control;
        let message = std::iter::from_fn(|| control.next().map(|record| record.to_vec()))
            .find(|record| record.len() > SEGMENT)
            .expect("a copy of the response");
        let start = size_of::<turn_datapath::RecordHeader>();
        assert_eq!(message[start..start + SEGMENT], train[29]);
    }
}

/// Many datagrams in one call that are many buffers, too.
#[test]
fn a_witness_among_datagrams_of_one_sendmmsg_is_seen() {
    for family in [Family::V4, Family::V6] {
        let mut awaited = Awaited::in_a_lab(family, &["gso", "off"]);
        let mut datagrams = vec![vec![0xa5; SEGMENT]; DATAGRAMS];
        datagrams[17] = awaited.noted.clone();
        let peers = SocketAddrAny::from(awaited.peer.local_addr().unwrap());
        let parts: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|one| [IoSlice::new(one)]).collect();
        let mut controls: Vec<_> = parts.iter().map(|_| SendAncillaryBuffer::new(&mut [])).collect();
        let mut messages: Vec<_> = parts
            .iter()
            .zip(&mut controls)
            .map(|(part, control)| MMsgHdr::new_with_addr(&peers, part, control))
            .collect();
        assert_eq!(sendmmsg(&awaited.relay, &mut messages, SendFlags::empty()), Ok(DATAGRAMS));
        for datagram in &datagrams {
            assert_eq!(receive(&awaited.peer), *datagram, "{family:?}");
        }
        awaited.is_armed(&[
            (Reason::EgressTrain, 0),
            (Reason::Witness, 1),
            (Reason::OtherPayload, DATAGRAMS - 1),
        ]);
    }
}

/// A datagram that is put together from several calls lies in several parts where the device takes those.
#[test]
fn a_witness_that_lies_in_parts_is_seen() {
    for family in [Family::V4, Family::V6] {
        let mut awaited = Awaited::in_a_lab(family, &["tx", "on", "sg", "on"]);
        let peers = awaited.peer.local_addr().unwrap();
        let noted = awaited.noted.clone();
        let (first, rest) = noted.split_at(3);
        let (middle, end) = rest.split_at(SEGMENT / 2);
        for (piece, flags) in [(first, SendFlags::MORE), (middle, SendFlags::MORE), (end, SendFlags::empty())]
        {
            assert_eq!(sendto(&awaited.relay, piece, flags, &peers), Ok(piece.len()));
        }
        assert_eq!(receive(&awaited.peer), noted, "{family:?}");
        awaited.is_armed(&[(Reason::Witness, 1), (Reason::OtherPayload, 0)]);
    }
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = socket.recv(&mut buffer).expect("a datagram");
    buffer[..length].to_vec()
}
