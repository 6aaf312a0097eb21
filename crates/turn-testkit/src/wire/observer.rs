//! Somebody who writes down what arrives, and when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Wire;
use crate::dissect::dissect;
use crate::lab::{LabError, Namespace};

/// How soon an observer notices that it is to end.
const TICK: Duration = Duration::from_millis(20);

/// A UDP datagram that arrived at an interface, whether or not a socket took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Source transport address.
    pub source: SocketAddr,
    /// Destination transport address.
    pub destination: SocketAddr,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Writes down what arrives at an interface, until dropped.
#[derive(Debug)]
pub struct Observer {
    end: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Begins at an interface.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        let wire = Wire::open(namespace, interface)?;
        let (end, arrivals) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (told, list) = (Arc::clone(&end), Arc::<Mutex<Vec<Arrival>>>::clone(&arrivals));
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let Ok(Some(frame)) = wire.receive(TICK) else { continue };
                let at = Instant::now();
                if !frame.is_sent
                    && let Ok(packet) = dissect(&frame.bytes)
                {
                    let (source, destination) = (packet.source, packet.destination);
                    let arrival = Arrival { at, source, destination, payload: packet.payload };
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
                }
            }
        });
        Ok(Self { end, arrivals, thread: Some(thread) })
    }

    /// What has arrived so far and is wanted.
    pub fn arrivals(&self, wanted: impl Fn(&Arrival) -> bool) -> Vec<Arrival> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.iter().filter(|arrival| wanted(arrival)).cloned().collect()
    }

    /// What has arrived for a transport address so far.
    pub fn arrivals_for(&self, destination: SocketAddr) -> Vec<Arrival> {
        self.arrivals(|arrival| arrival.destination == destination)
    }

    /// When the last datagram for a transport address arrived.
    pub fn last_for(&self, destination: SocketAddr) -> Option<Instant> {
        self.arrivals_for(destination).last().map(|arrival| arrival.at)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
