//! Many datagrams in one call: sent (UDP segmentation offload, `UDP_SEGMENT`), as some servers do, and received (`UDP_GRO`).

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use libc::{SOL_UDP, UDP_GRO, UDP_SEGMENT, c_int, setsockopt, socklen_t};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// From now on what the socket sends is cut into datagrams of this many bytes, the last of which may have fewer. Zero: it is
/// not cut.
pub fn cut(socket: &UdpSocket, segment: u16) -> io::Result<()> {
    set(socket, UDP_SEGMENT, segment.into())
}

/// From now on the socket takes what the kernel has merged, so the kernel merges what is for it. To be received with
/// [`receive_merged`] alone: others would take many datagrams for one.
pub fn merge(socket: &UdpSocket) -> io::Result<()> {
    set(socket, UDP_GRO, 1)
}

fn set(socket: &UdpSocket, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes of `value` as it is told that it has.
    let result = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            SOL_UDP,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The next datagrams that came in one buffer, if any come in time.
pub fn receive_merged(socket: &UdpSocket, patience: Duration) -> io::Result<Vec<Vec<u8>>> {
    let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit))? == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; 65536];
    let mut control = [0_u64; 8];
    // SAFETY: all zeros is a valid message header; buffer and control are as long as the call is told, and aligned as control messages
    // have to be. The kernel has written whole control messages, of which that of UDP_GRO holds an `int`.
    let (length, segment) = unsafe {
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        let mut segment = None;
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while length >= 0 && !next.is_null() {
            if ((*next).cmsg_level, (*next).cmsg_type) == (SOL_UDP, UDP_GRO) {
                segment = Some(libc::CMSG_DATA(next).cast::<c_int>().read_unaligned());
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
        (length, segment)
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    match segment.and_then(|segment| usize::try_from(segment).ok()) {
        Some(segment) if segment > 0 => Ok(bytes.chunks(segment).map(<[u8]>::to_vec).collect()),
        _ => Ok(vec![bytes]),
    }
}
