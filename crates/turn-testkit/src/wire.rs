//! Frames as they are on a wire: seen, and sent by hand, at an interface of the lab.

use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use crate::lab::{LabError, Namespace};
use crate::role::Mac;

pub use self::observer::{Arrival, Observer};

mod observer;

/// Room for what comes while nobody reads.
static BUFFER: i32 = 32 << 20;
static ON: i32 = 1;
/// Where a VLAN tag is in a frame.
const TAG_AT: usize = 12;
/// Frames that are handed to the kernel at once.
const BATCH: usize = 64;

/// A packet socket at an interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

/// A frame, and which way it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on, with the VLAN tag in its place that the kernel keeps beside it.
    pub bytes: Vec<u8>,
    /// Sent by this end, not received.
    pub is_sent: bool,
}

impl Wire {
    /// Begins to see what the interface sends and receives.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        let socket = namespace.enter(|| open(interface))?;
        socket.map(|socket| Self { socket }).map_err(|source| LabError::Attach {
            namespace: namespace.name().into(),
            interface: interface.into(),
            source,
        })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            match rustix::io::write(&self.socket, frame) {
                Ok(_) => return Ok(()),
                // The interface's queue is full: a flood is to be as fast as it can be, and no faster.
                Err(rustix::io::Errno::NOBUFS) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends many frames, as fast as the interface takes them.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        for some in frames.chunks(BATCH) {
            let parts: Vec<[IoSlice<'_>; 1]> = some.iter().map(|frame| [IoSlice::new(frame)]).collect();
            let mut controls: Vec<_> = some.iter().map(|_| SendAncillaryBuffer::new(&mut [])).collect();
            let mut messages: Vec<_> =
                parts.iter().zip(&mut controls).map(|(part, control)| MMsgHdr::new(part, control)).collect();
            let mut sent = 0;
            while sent < messages.len() {
                match sendmmsg(&self.socket, &mut messages[sent..], SendFlags::empty()) {
                    Ok(count) => sent += count,
                    Err(rustix::io::Errno::NOBUFS) => std::thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// The next frame, if one comes in time.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Frame>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)], Some(&limit)) {
                Ok(0) => return Ok(None),
                Ok(_) => return read(&self.socket).map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The first frame that `wanted` makes something of, if it comes in time.
    pub fn find<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&Frame) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + patience;
        while let Some(frame) = self.receive(deadline.saturating_duration_since(Instant::now()))? {
            if let Some(found) = wanted(&frame) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What has been seen and not been read yet.
    pub fn seen(&self) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(Duration::ZERO)? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

/// The Ethernet address of an interface.
pub fn mac(namespace: &Namespace, interface: &str) -> Result<Mac, LabError> {
    let text = namespace.output("cat", &[&format!("/sys/class/net/{interface}/address")])?;
    let mut mac = Mac::default();
    for (byte, digits) in mac.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("the kernel writes addresses in hexadecimal digits");
    }
    Ok(mac)
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system calls; `name`, `address`, `BUFFER` and `ON` outlive the calls that read them, and the descriptor is new.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let fd = socket.as_raw_fd();
        let value = (&raw const BUFFER).cast();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size_of_val(&BUFFER) as u32);
        if libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const ON).cast(), 4) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        if libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

fn read(socket: &OwnedFd) -> io::Result<Frame> {
    let mut bytes = vec![0; 65536];
    let mut control = [0_u64; 8];
    // SAFETY: all zeros is a valid address and a valid message header; buffer, address and control are as long as the call is told,
    // and aligned as control messages have to be. The kernel has written whole control messages, of which that of the packet socket
    // holds a `tpacket_auxdata`.
    let (length, address, auxiliary) = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of_val(&address) as u32;
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        let mut auxiliary = None;
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while length >= 0 && !next.is_null() {
            if ((*next).cmsg_level, (*next).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                auxiliary = Some(libc::CMSG_DATA(next).cast::<libc::tpacket_auxdata>().read_unaligned());
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
        (length, address, auxiliary)
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    if let Some(beside) = auxiliary
        && beside.tp_status & libc::TP_STATUS_VLAN_VALID != 0
        && length >= TAG_AT
    {
        let [tpid, tci] = [beside.tp_vlan_tpid, beside.tp_vlan_tci].map(u16::to_be_bytes);
        bytes.splice(TAG_AT..TAG_AT, [tpid, tci].concat());
    }
    Ok(Frame { bytes, is_sent: address.sll_pkttype == libc::PACKET_OUTGOING })
}
