//! A host that sends whatever it likes in anybody's name.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use turn_testkit::datagram::receive;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::packet::Packet;
use turn_testkit::role::{CLIENT_MAC, Mac};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    METHOD_CHANNEL_BIND, MessageBuilder, TransactionId, XOR_PEER_ADDRESS,
};
use turn_testkit::wire::{Wire, mac};

/// Writes frames to a wire that leads to the server.
pub struct Forger {
    wire: Wire,
    server_mac: Mac,
}

impl Forger {
    /// On the client's side.
    pub fn beside_client(offload: &Offload) -> Self {
        Self {
            wire: Wire::open(&offload.lab.client, "cli0").unwrap(),
            server_mac: mac(&offload.lab.server, "srv0").unwrap(),
        }
    }

    /// On the peer's side.
    pub fn beside_peer(offload: &Offload) -> Self {
        Self {
            wire: Wire::open(&offload.lab.peer, "peer0").unwrap(),
            server_mac: mac(&offload.lab.server, "srv1").unwrap(),
        }
    }

    /// Sends a datagram in the name of `source`.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        self.send_frame(&self.frame(source, destination, payload));
    }

    pub fn send_frame(&self, frame: &[u8]) {
        self.wire.send(frame).unwrap();
    }

    pub fn frame(&self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
        Packet::new(source, destination).macs(self.server_mac, CLIENT_MAC).payload(payload).build()
    }
}

/// A ChannelBind request, signed with what the client knows.
pub fn channel_bind(
    client: &TurnClient,
    transaction: TransactionId,
    channel: u16,
    peer: SocketAddr,
) -> MessageBuilder {
    client
        .builder(METHOD_CHANNEL_BIND)
        .transaction(transaction)
        .channel_number(channel)
        .xor_address(XOR_PEER_ADDRESS, peer)
}

/// Sends on a channel, often enough for the kernel to take over, and checks that the peer gets everything.
pub fn talk(client: &TurnClient, channel: u16, peer: &UdpSocket) {
    for number in 0..5_u8 {
        client.send_channel_data(channel, &[number; 40], &[]).unwrap();
        let received = receive(peer, PATIENCE).unwrap().map(|(payload, _)| payload);
        assert_eq!(received, Some(vec![number; 40]), "channel {channel:#06x}");
    }
}

/// Checks that a socket has received nothing.
pub fn hears_nothing(socket: &UdpSocket) {
    assert_eq!(receive(socket, Duration::from_millis(20)).unwrap(), None);
}
