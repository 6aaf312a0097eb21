//! More requests than anybody could remember.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turn_testkit::offload::PATIENCE;
use turn_testkit::turn_client::message::random_transaction_id;
use turn_testkit::wire::Observer;

use crate::forger::{Forger, channel_bind, talk};
use crate::{CHANNEL, options};

const REQUESTS: u32 = 100_000;
/// More than the tables of one client and of strangers can take.
const MEMORY: u64 = 32 << 20;

/// Half of them in the name of a client whose call is running, the others in the names of clients that do not exist.
#[test]
fn a17_a_flood_of_forged_requests_costs_no_call_its_place() {
    let mut offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let (peer, other_peer) = (offload.peer(), offload.peer());
    let observer = Observer::start(&offload.lab.peer, "peer0").unwrap();
    let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let forger = Forger::beside_client(&offload);
    let memory = offload.daemon().memory().unwrap();
    let processing = offload.daemon().process().cpu_time().unwrap();
    let before = offload.session(&client, CHANNEL).unwrap();

    let start = Instant::now();
    for number in 0..REQUESTS {
        let source = match number % 2 {
            0 => client_address,
            _ => SocketAddr::new(client_address.ip(), 1024 + (number / 2 % 60_000) as u16),
        };
        let request =
            channel_bind(&client, random_transaction_id(), 0x4002, client_address).broken_integrity();
        forger.send(source, listener, &request.build());
        if number % 10_000 == 0 {
            assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "kernel", "after {number}");
        }
    }
    let took = start.elapsed();
    let after = offload.session(&client, CHANNEL).unwrap();
    assert_eq!(after.state, "kernel");
    assert!(after.client_to_peer.kernel_packets > before.client_to_peer.kernel_packets + 100);
    assert_eq!(offload.sessions().len(), 1);
    let grown = offload.daemon().memory().unwrap().saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} bytes more");
    let processing = offload.daemon().process().cpu_time().unwrap() - processing;
    assert!(processing < took + Duration::from_secs(1), "{processing:?} in {took:?}");
    assert!(observer.last_for(peer.local_addr().unwrap()).unwrap() > Instant::now() - PATIENCE / 2);
    drop(pumps);

    // Another client is learned as if nothing had been.
    let (mut other, _) = offload.allocated_client();
    offload.bind_and_arm_to_peer(&mut other, CHANNEL, &other_peer);
    talk(&other, CHANNEL, &other_peer);
}
