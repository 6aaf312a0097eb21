//! Forged requests that the server never gets, or drops without a word: no error says that they were forged.

use std::time::Duration;

use turn_testkit::offload::{PATIENCE, wait_until};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::random_transaction_id;

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

/// Where the checksum is in a UDP datagram over IPv4 in an Ethernet frame.
const UDP_CHECKSUM: usize = 14 + 20 + 6;

#[test]
fn a10_a38_a_forgery_that_nobody_answers_is_never_confirmed_by_another_requests_answer() {
    let offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let attacker = offload.peer();
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let forger = Forger::beside_client(&offload);
    let mut channel = CHANNEL;
    for wrong in ["fingerprint", "checksum"] {
        for order in ["FG", "GF", "FGF"] {
            for same_id in [true, false] {
                let what = format!("{wrong}, {order}, {same_id}");
                let (peer, transaction) = (offload.peer(), random_transaction_id());
                let genuine = channel_bind(&client, transaction, channel, peer.local_addr().unwrap()).build();
                let id = if same_id { transaction } else { random_transaction_id() };
                let forged = channel_bind(&client, id, channel, attacker.local_addr().unwrap());
                let forged = forged.broken_integrity().fingerprint().build();
                let mut frame = forger.frame(client_address, listener, &forged);
                match wrong {
                    "fingerprint" => {
                        let mut forged = forged;
                        *forged.last_mut().unwrap() ^= 1;
                        frame = forger.frame(client_address, listener, &forged);
                    }
                    _ => frame[UDP_CHECKSUM] ^= 1,
                }
                let control = offload.count("control");
                for request in order.bytes() {
                    match request {
                        b'F' => forger.send_frame(&frame),
                        _ => {
                            client.send_raw(&genuine).unwrap();
                            let answer = client.receive_answer(transaction, PATIENCE).unwrap();
                            assert_eq!(answer.expect("an answer").error_code(), None, "{what}");
                        }
                    }
                }
                wait_until("all have been looked at", || {
                    offload.count("control") >= control + order.len() as u64
                });
                offload.wait_until_all_is_read();
                assert_eq!(client.receive(Duration::from_millis(20)).unwrap(), None, "an answer: {what}");
                talk(&client, channel, &peer);
                let sessions = offload.sessions();
                let of_attacker = |peer| peer == attacker.local_addr().unwrap();
                assert!(sessions.iter().all(|session| !of_attacker(session.peer)), "{what}: {sessions:?}");
                if !same_id {
                    let session = offload.session(&client, channel).expect("the genuine one is learned");
                    assert_eq!(session.peer, peer.local_addr().unwrap(), "{what}");
                }
                channel += 1;
            }
        }
    }
    hears_nothing(&attacker);
}

/// One client, one id, two servers at one address: what the one grants the other one has not.
#[test]
fn a34_the_answer_of_one_listener_is_not_taken_for_that_of_another() {
    let offload = options().coturn(&["--aux-server=198.18.1.1:5349"]).start();
    let (first, _) = offload.allocated_client();
    let other_listener = (offload.listener().ip(), 5349).into();
    let mut second = TurnClient::new(first.socket().try_clone().unwrap(), other_listener);
    second.allocate(None, None).unwrap();
    let attacker = offload.peer();
    for (channel, asks_other_first) in [(CHANNEL, true), (CHANNEL + 1, false)] {
        let (peer, transaction) = (offload.peer(), random_transaction_id());
        let genuine = channel_bind(&first, transaction, channel, peer.local_addr().unwrap()).build();
        let refused = channel_bind(&second, transaction, channel, attacker.local_addr().unwrap());
        let refused = refused.broken_integrity().build();
        if asks_other_first {
            second.send_raw(&refused).unwrap();
            first.send_raw(&genuine).unwrap();
        } else {
            first.send_raw(&genuine).unwrap();
            second.send_raw(&refused).unwrap();
        }
        let session = offload.wait_for_session(&first, channel, |_| true);
        offload.wait_until_all_is_read();
        assert_eq!((session.server, session.peer), (first.server(), peer.local_addr().unwrap()));
        talk(&first, channel, &peer);
        second.send_channel_data(channel, b"to the attacker", &[]).unwrap();
        let sessions = offload.sessions();
        assert!(sessions.iter().all(|row| row.server == first.server()), "{sessions:?}");
    }
    // And where both grant it, each has its own peer.
    let (peers, transaction) = ([offload.peer(), offload.peer()], random_transaction_id());
    let channel = CHANNEL + 2;
    for (client, peer) in [&first, &second].into_iter().zip(&peers) {
        client
            .send_raw(&channel_bind(client, transaction, channel, peer.local_addr().unwrap()).build())
            .unwrap();
    }
    for (client, peer) in [&first, &second].into_iter().zip(&peers) {
        let session = offload.wait_for_session(client, channel, |row| row.server == client.server());
        assert_eq!(session.peer, peer.local_addr().unwrap());
        talk(client, channel, peer);
    }
    hears_nothing(&attacker);
}
