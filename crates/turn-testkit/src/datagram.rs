//! Receiving with a time limit.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The next datagram and its source, if one comes in time. Unlike a socket's own time limit, this is not rounded to the
/// kernel's clock tick.
pub fn receive(socket: &UdpSocket, patience: Duration) -> io::Result<Option<(Vec<u8>, SocketAddr)>> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 65536];
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => return Ok(Some((buffer[..length].to_vec(), source))),
            // An ICMP error from when the other end was down, or a datagram with a wrong checksum.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
