//! Sending many datagrams in one call (UDP segmentation offload, `UDP_SEGMENT`), as some servers do.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::{SOL_UDP, UDP_SEGMENT, c_int, setsockopt, socklen_t};

/// From now on what the socket sends is cut into datagrams of this many bytes, the last of which may have fewer. Zero: it is
/// not cut.
pub fn cut(socket: &UdpSocket, segment: u16) -> io::Result<()> {
    let value = c_int::from(segment);
    // SAFETY: the kernel reads as many bytes of `value` as it is told that it has.
    let result = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            SOL_UDP,
            UDP_SEGMENT,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
