//! A TURN server without relay sockets, as turn-rs is one: its relayed transport addresses are ports of no socket, and it turns one
//! client's ChannelData into another's. Everything is a matter between two of its clients, and a client that is silent is forgotten.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::datagram::receive;
use crate::packet::channel_data;
use crate::turn_client::message::{
    CHANNEL_NUMBER, Class, LIFETIME, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_REFRESH, Message,
    MessageBuilder, XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};

/// How soon it notices that it is to end, and that a client is silent.
const TICK: Duration = Duration::from_millis(20);
const FIRST_RELAYED_PORT: u16 = 49152;

/// A running server, until dropped. It knows no passwords.
#[derive(Debug)]
pub struct Switchboard {
    end: Arc<AtomicBool>,
    relayed: Arc<AtomicU64>,
    clients: Arc<Mutex<HashMap<SocketAddr, Client>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Client {
    relayed: SocketAddr,
    peers: HashMap<u16, SocketAddr>,
    heard: Instant,
}

impl Switchboard {
    /// Listens on a socket, gives out addresses with an IP address that is said to be its relay's, and forgets clients that have sent
    /// nothing for so long.
    pub fn start(socket: UdpSocket, relay: IpAddr, patience: Duration) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let relayed = Arc::new(AtomicU64::new(0));
        let clients = Arc::new(Mutex::new(HashMap::<SocketAddr, Client>::new()));
        let (told, count, shared) = (Arc::clone(&end), Arc::clone(&relayed), Arc::clone(&clients));
        let thread = thread::spawn(move || {
            let mut next_port = FIRST_RELAYED_PORT;
            while !told.load(Ordering::Relaxed) {
                let received = receive(&socket, TICK).unwrap_or_default();
                let mut clients = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if let Some((datagram, source)) = received {
                    if let Some(client) = clients.get_mut(&source) {
                        client.heard = now;
                    }
                    let output = match Message::parse(&datagram) {
                        Ok(request) => answer(&mut clients, &request, source, relay, &mut next_port),
                        Err(_) => switch(&clients, &datagram, source).inspect(|_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        }),
                    };
                    if let Some((datagram, destination)) = output {
                        let _lost_like_any_other: io::Result<usize> = socket.send_to(&datagram, destination);
                    }
                }
                clients.retain(|_, client| now.duration_since(client.heard) < patience);
            }
        });
        Self { end, relayed, clients, thread: Some(thread) }
    }

    /// How many clients it knows.
    pub fn clients(&self) -> usize {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many ChannelData messages it has turned into others.
    pub fn relayed(&self) -> u64 {
        self.relayed.load(Ordering::Relaxed)
    }
}

impl Drop for Switchboard {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The response to a request, which succeeds if it makes sense.
fn answer(
    clients: &mut HashMap<SocketAddr, Client>,
    request: &Message,
    source: SocketAddr,
    relay: IpAddr,
    next_port: &mut u16,
) -> Option<(Vec<u8>, SocketAddr)> {
    let success = MessageBuilder::new(request.method, Class::Success).transaction(request.transaction);
    let response = match request.method {
        METHOD_ALLOCATE => {
            let client = clients.entry(source).or_insert_with(|| {
                let relayed = SocketAddr::new(relay, *next_port);
                *next_port += 1;
                Client { relayed, peers: HashMap::new(), heard: Instant::now() }
            });
            success
                .xor_address(XOR_RELAYED_ADDRESS, client.relayed)
                .xor_address(XOR_MAPPED_ADDRESS, source)
                .lifetime(600)
        }
        METHOD_CHANNEL_BIND => {
            let channel =
                request.attribute(CHANNEL_NUMBER)?.first_chunk().copied().map(u16::from_be_bytes)?;
            let peer = request.xor_address(XOR_PEER_ADDRESS)?;
            clients.get_mut(&source)?.peers.insert(channel, peer);
            success
        }
        METHOD_REFRESH => {
            let lifetime = request.attribute(LIFETIME).and_then(|_| request.lifetime()).unwrap_or(600);
            if lifetime == 0 {
                clients.remove(&source);
            }
            success.lifetime(lifetime)
        }
        _ => return None,
    };
    Some((response.build(), source))
}

/// The message that another client gets for one of a client, if both have bound a channel to each other.
fn switch(
    clients: &HashMap<SocketAddr, Client>,
    datagram: &[u8],
    source: SocketAddr,
) -> Option<(Vec<u8>, SocketAddr)> {
    let ([c0, c1, l0, l1], rest) = datagram.split_first_chunk()?;
    let data = rest.get(..u16::from_be_bytes([*l0, *l1]).into())?;
    let sender = clients.get(&source)?;
    let peer = sender.peers.get(&u16::from_be_bytes([*c0, *c1]))?;
    let (destination, receiver) = clients.iter().find(|(_, client)| client.relayed == *peer)?;
    let (channel, _) = receiver.peers.iter().find(|(_, peer)| **peer == sender.relayed)?;
    Some((channel_data(*channel, data, &[]), *destination))
}
