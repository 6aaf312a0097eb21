//! A genuine request that turn-bpf does not see, and a forged one that it does.

use turn_testkit::checksum::internet_checksum;
use turn_testkit::offload::PATIENCE;
use turn_testkit::turn_client::message::random_transaction_id;

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

/// Cuts an IPv4 frame without options in two.
pub fn fragments(frame: &[u8]) -> [Vec<u8>; 2] {
    const HEADERS: usize = 14 + 20;
    const MORE_FRAGMENTS: u16 = 1 << 13;
    let (headers, payload) = frame.split_at(HEADERS);
    let cut = payload.len() / 2 / 8 * 8;
    let piece = |payload: &[u8], field: u16| {
        let mut headers = headers.to_vec();
        headers[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        headers[20..22].copy_from_slice(&field.to_be_bytes());
        headers[24..26].fill(0);
        let sum = internet_checksum(&headers[14..]);
        headers[24..26].copy_from_slice(&sum.to_be_bytes());
        [headers, payload.to_vec()].concat()
    };
    [piece(&payload[..cut], MORE_FRAGMENTS), piece(&payload[cut..], (cut / 8) as u16)]
}

/// Whatever is learned: the server never sends to the forged peer, so the kernel does not either.
#[test]
fn a37_a_hidden_genuine_request_gives_a_forged_one_no_traffic() {
    let offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let attacker = offload.peer();
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let forger = Forger::beside_client(&offload);
    for (channel, forged_first) in [(CHANNEL, true), (0x4002, false)] {
        let (peer, transaction) = (offload.peer(), random_transaction_id());
        let genuine = channel_bind(&client, transaction, channel, peer.local_addr().unwrap()).build();
        let forged = channel_bind(&client, transaction, channel, attacker.local_addr().unwrap());
        let forged = forged.broken_integrity().build();
        let before = offload.count("fragment");
        if forged_first {
            forger.send(client_address, listener, &forged);
        }
        for fragment in fragments(&forger.frame(client_address, listener, &genuine)) {
            forger.send_frame(&fragment);
        }
        if !forged_first {
            forger.send(client_address, listener, &forged);
        }
        let mut codes: Vec<_> = (0..2)
            .map(|_| client.receive_answer(transaction, PATIENCE).unwrap().expect("an answer").error_code())
            .collect();
        codes.sort();
        assert_eq!(codes, [None, Some(401)]);
        assert_eq!(offload.count("fragment"), before + 2);
        for _ in 0..20 {
            talk(&client, channel, &peer);
        }
    }
    let wrong =
        offload.sessions().into_iter().filter(|session| session.peer == attacker.local_addr().unwrap());
    for session in wrong {
        assert_eq!((session.state.as_str(), session.client_to_peer.kernel_packets), ("userspace", 0));
    }
    hears_nothing(&attacker);
}
