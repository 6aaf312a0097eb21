//! A process on the server's own host that writes what only the server may say.

use rustix::process::Signal;
use turn_testkit::offload::wait_until;
use turn_testkit::packet::Packet;
use turn_testkit::turn_client::message::{Class, METHOD_CHANNEL_BIND, MessageBuilder, random_transaction_id};
use turn_testkit::wire::{Wire, mac};

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

/// With the right to open packet sockets it can confirm a binding that the server knows nothing of. Data it does not get.
#[test]
fn a14_a_success_that_another_process_forges_brings_no_traffic() {
    let mut offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let (peer, attacker) = (offload.peer(), offload.peer());
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);

    let (forged, transaction) = (CHANNEL + 1, random_transaction_id());
    let claim = channel_bind(&client, transaction, forged, attacker.local_addr().unwrap()).broken_integrity();
    let success = MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Success).transaction(transaction).build();
    let macs = [mac(&offload.lab.client, "cli0").unwrap(), mac(&offload.lab.server, "srv0").unwrap()];
    let frame = Packet::new(listener, client_address).macs(macs[0], macs[1]).payload(&success).build();
    let outgoing = Wire::open(&offload.lab.server, "srv0").unwrap();
    let claimed = offload.count("control");
    // The server's own answer is not to come first.
    offload.coturn().process().signal(Signal::STOP).unwrap();
    Forger::beside_client(&offload).send(client_address, listener, &claim.build());
    outgoing.send(&frame).unwrap();
    wait_until("the claim has been looked at", || offload.count("control") > claimed);
    offload.coturn().process().signal(Signal::CONT).unwrap();
    for _ in 0..20 {
        client.send_channel_data(forged, b"to the attacker", &[]).unwrap();
    }
    talk(&client, CHANNEL, &peer);
    hears_nothing(&attacker);
    let rows = offload.sessions();
    for row in rows.iter().filter(|row| row.peer == attacker.local_addr().unwrap()) {
        assert_eq!((row.state.as_str(), row.client_to_peer.kernel_packets), ("userspace", 0));
    }
}
