//! Receivers on threads of their own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Tally;
use crate::datagram::receive;

/// How soon a receiver notices that it is to end.
const TICK: Duration = Duration::from_millis(20);

/// Sends back whatever it gets, until dropped.
#[derive(Debug)]
pub struct Echo {
    thread: Receiver,
    echoed: Arc<AtomicU64>,
}

impl Echo {
    /// Starts echoing on a socket.
    pub fn start(socket: UdpSocket) -> Self {
        let echoed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&echoed);
        let thread = Receiver::start(socket, move |socket, payload, source| {
            if socket.send_to(&payload, source).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { thread, echoed }
    }

    /// The peer's transport address.
    pub fn address(&self) -> SocketAddr {
        self.thread.address
    }

    /// Packets sent back so far.
    pub fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }
}

/// Checks whatever it gets of one stream, until dropped.
#[derive(Debug)]
pub struct Sink {
    thread: Receiver,
    tally: Arc<Mutex<Tally>>,
}

impl Sink {
    /// Starts receiving a stream on a socket.
    pub fn start(socket: UdpSocket, stream: u32) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let shared = Arc::clone(&tally);
        let start = Instant::now();
        let thread = Receiver::start(socket, move |_, payload, _| {
            shared.lock().unwrap_or_else(PoisonError::into_inner).count(stream, &payload, start);
        });
        Self { thread, tally }
    }

    /// The peer's transport address.
    pub fn address(&self) -> SocketAddr {
        self.thread.address
    }

    /// What has come so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many different packets have come, but no longer than `patience`.
    pub fn wait_for(&self, packets: u64, patience: Duration) -> Tally {
        let deadline = Instant::now() + patience;
        loop {
            let tally = self.tally();
            if tally.received >= packets || Instant::now() >= deadline {
                return tally;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[derive(Debug)]
struct Receiver {
    address: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start(
        socket: UdpSocket,
        mut take: impl FnMut(&UdpSocket, Vec<u8>, SocketAddr) + Send + 'static,
    ) -> Self {
        let address = socket.local_addr().expect("a bound socket has an address");
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Ok(Some((payload, source))) = receive(&socket, TICK) {
                    take(&socket, payload, source);
                }
            }
        });
        Self { address, end, thread: Some(thread) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
