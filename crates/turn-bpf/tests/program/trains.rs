//! Trains that the kernel makes itself: what a server sends with `UDP_SEGMENT` reaches the program in one buffer, of which
//! only the headers lie in the linear part.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use aya::programs::TcAttachType;
use turn_bpf::attachment::prepare_tc;
use turn_bpf::flow_table::FlowMaps as _;
use turn_bpf::object::Plain;
use turn_datapath::flow::interface_flags;
use turn_datapath::{Flow, Interface, Reason};
use turn_testkit::cases::control::stun;
use turn_testkit::cases::subject::{data, key, leg, print};
use turn_testkit::lab::{Family, Lab, Topology};
use turn_testkit::segmentation;
use turn_wire::Be16;

use crate::kernel::Kernel;

const SEGMENT: usize = 1000;
const DATAGRAMS: usize = 40;
const REFRESH_SUCCESS: u16 = 0x0104;

#[test]
fn a_witness_and_a_response_in_a_train_of_the_kernel_are_seen() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(Topology::Two).unwrap();
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
        let interface = Interface { mtu: 1500, flags: interface_flags::TRANSMITS };
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

        let mut train = vec![vec![0xa5; SEGMENT]; DATAGRAMS];
        train[17] = noted;
        train[29] = stun(REFRESH_SUCCESS, SEGMENT - 20);
        train[DATAGRAMS - 1].truncate(SEGMENT / 3);
        segmentation::cut(&relay, SEGMENT as u16).unwrap();
        assert_eq!(relay.send_to(&train.concat(), peers).unwrap(), train.concat().len());
        for datagram in &train {
            assert_eq!(receive(&peer), *datagram, "{family:?}: trains go on, untouched");
        }

        let counted = kernel.newly_counted();
        let count = |reason| counted.iter().filter(|counted| **counted == reason).count();
        let expected = [
            (Reason::EgressTrain, 1),
            (Reason::Witness, 1),
            (Reason::OtherPayload, DATAGRAMS - 1),
            (Reason::EgressControl, 1),
        ];
        assert_eq!(expected.map(|(reason, _)| count(reason)), expected.map(|(_, times)| times), "{family:?}");
        let flow = kernel.maps.flows.flow(&client).unwrap();
        assert_eq!((flow.armed, flow.out_source), (1, relayed.ip().into()));
        let message = std::iter::from_fn(|| kernel.maps.control.next().map(|record| record.to_vec()))
            .find(|record| record.len() > SEGMENT)
            .expect("a copy of the response");
        let start = size_of::<turn_datapath::RecordHeader>();
        assert_eq!(message[start..start + SEGMENT], train[29]);
    }
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let length = socket.recv(&mut buffer).expect("a datagram");
    buffer[..length].to_vec()
}
