//! Packets that keep coming.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::packet::channel_data;
use crate::turn_client::TurnClient;

/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(2);

/// Sends a payload again and again, each time with the next number behind it, until dropped.
#[derive(Debug)]
pub struct Pump {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// From a client on a channel.
    pub fn channel(client: &TurnClient, channel: u16, payload: &[u8]) -> io::Result<Self> {
        let payload = payload.to_vec();
        Ok(Self::start(client.socket().try_clone()?, client.server(), move |number| {
            channel_data(channel, &numbered(&payload, number), &[])
        }))
    }

    /// From a client on a channel, the same payload again and again, so that no packet can be told from another.
    pub fn channel_repeating(client: &TurnClient, channel: u16, payload: &[u8]) -> io::Result<Self> {
        let message = channel_data(channel, payload, &[]);
        Ok(Self::start(client.socket().try_clone()?, client.server(), move |_| message.clone()))
    }

    /// The same from a peer.
    pub fn datagrams_repeating(socket: &UdpSocket, remote: SocketAddr, payload: &[u8]) -> io::Result<Self> {
        let payload = payload.to_vec();
        Ok(Self::start(socket.try_clone()?, remote, move |_| payload.clone()))
    }

    /// From a peer to a relayed transport address, or to anything else.
    pub fn datagrams(socket: &UdpSocket, remote: SocketAddr, payload: &[u8]) -> io::Result<Self> {
        let payload = payload.to_vec();
        Ok(Self::start(socket.try_clone()?, remote, move |number| numbered(&payload, number)))
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn start(socket: UdpSocket, remote: SocketAddr, make: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Self {
        let (end, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&end), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                if socket.send_to(&make(number), remote).is_ok() {
                    number += 1;
                    count.store(number, Ordering::Relaxed);
                }
                thread::sleep(INTERVAL);
            }
        });
        Self { end, sent, thread: Some(thread) }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn numbered(payload: &[u8], number: u64) -> Vec<u8> {
    [payload, &number.to_be_bytes()].concat()
}
