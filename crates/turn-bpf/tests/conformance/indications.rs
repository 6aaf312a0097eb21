//! What never is the kernel's business: indications and ICMP.

use turn_testkit::datagram::receive;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::turn_client::Received;

use crate::{CHANNEL, options};

/// A client may use both, also for one peer, and the server answers on the channel (RFC 8656 sections 11.3 and 12.5).
#[test]
fn cd9_sd1_pr2_pr3_indications_and_channels_go_side_by_side() {
    let offload = options().default_terms().daemon(&["--heartbeat=50s", "--lease=60s"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let (bound, unbound) = (offload.peer(), offload.peer());
    let (bound_address, unbound_address) = (bound.local_addr().unwrap(), unbound.local_addr().unwrap());
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &bound);
    let before = offload.kernel_packets();
    for number in 0..100_u8 {
        client.send_channel_data(CHANNEL, &[number; 30], &[]).unwrap();
        assert_eq!(receive(&bound, PATIENCE).unwrap(), Some((vec![number; 30], relayed)));
        client.send_indication(bound_address, &[number; 31]).unwrap();
        assert_eq!(receive(&bound, PATIENCE).unwrap(), Some((vec![number; 31], relayed)));
        client.send_indication(unbound_address, &[number; 32]).unwrap();
        assert_eq!(receive(&unbound, PATIENCE).unwrap(), Some((vec![number; 32], relayed)));
    }
    assert_eq!(offload.kernel_packets() - before, 100, "those on the channel");

    bound.send_to(b"from the bound peer", relayed).unwrap();
    let by_channel = Received::ChannelData {
        channel: CHANNEL,
        data: b"from the bound peer".to_vec(),
        padding: Vec::new(),
    };
    assert_eq!(client.receive(PATIENCE).unwrap(), Some(by_channel));
    unbound.send_to(b"from the other peer", relayed).unwrap();
    let by_indication =
        Received::DataIndication { peer: unbound_address, data: b"from the other peer".to_vec() };
    assert_eq!(client.receive(PATIENCE).unwrap(), Some(by_indication));
}

/// A peer's host says that nobody listens. The message is about a packet that the kernel has relayed, and it reaches the server's
/// host; and when somebody listens again, the flow is as it was (RFC 8656 section 11.5, RFC 4787 REQ-12).
#[test]
fn sd3_sd5_icmp_errors_reach_the_servers_host_and_end_no_flow() {
    let offload = options().default_terms().daemon(&["--heartbeat=50s", "--lease=60s"]).start();
    let (mut client, _) = offload.allocated_client();
    let peer = offload.peer();
    let address = peer.local_addr().unwrap();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    drop(peer);
    let (received, relayed) = (unreachable(&offload), offload.kernel_packets());
    client.send_channel_data(CHANNEL, b"to nobody", &[]).unwrap();
    wait_until("the server's host is told", || unreachable(&offload) > received);
    assert_eq!(offload.kernel_packets(), relayed + 1);

    let peer = offload.lab.peer.udp_socket(address).unwrap();
    client.send_channel_data(CHANNEL, b"to somebody", &[]).unwrap();
    assert_eq!(receive(&peer, PATIENCE).unwrap().unwrap().0, b"to somebody");
    assert_eq!(offload.kernel_packets(), relayed + 2);
}

/// How many ICMP Destination Unreachable messages the server's host has received.
fn unreachable(offload: &Offload) -> u64 {
    let counters = offload.lab.server.output("cat", &["/proc/net/snmp"]).unwrap();
    let mut icmp = counters.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let names = icmp.next().expect("names of counters").split(' ');
    let mut values = icmp.next().expect("counters").split(' ');
    let at = names.clone().position(|name| name == "InDestUnreachs").expect("InDestUnreachs");
    values.nth(at).expect("as many counters as names").parse().expect("a number")
}
