//! Netlink, as much of it as turn-bpf asks: a request and its answer, attributes, notifications.
//!
//! A socket speaks for the network namespace of the thread that opened it. Sysfs does not: after a plain `setns` it goes
//! on to show the namespace in which it was mounted.
//!
//! Attributes are decoded one by one by whoever wants them, and all others are skipped, so that an attribute that a
//! newer kernel adds or lengthens breaks nothing.

use std::io;

use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

/// A netlink socket, connected to the kernel.
pub struct Socket(TokioSocket);

/// One message of an answer: what follows its `nlmsghdr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `nlmsg_type`.
    pub kind: u16,
    /// The family's own header, and then attributes.
    pub body: Vec<u8>,
}

/// What went wrong between us and the kernel's netlink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket (a service needs AF_NETLINK in RestrictAddressFamilies=)")]
    Open(#[source] io::Error),
    /// The socket did not take the request.
    #[error("cannot send a netlink request")]
    Send(#[source] io::Error),
    /// The socket gave no answer.
    #[error("cannot receive a netlink answer")]
    Receive(#[source] io::Error),
    /// The kernel answered with an error.
    #[error("the kernel refused a netlink request")]
    Refused(#[source] io::Error),
    /// The answer breaks off.
    #[error("the kernel's netlink answer is malformed")]
    Malformed,
    /// The tables changed during each of several readings.
    #[error("the kernel's tables changed during each of {DUMP_ATTEMPTS} readings; try again")]
    Unsettled,
}

impl Socket {
    /// Opens a socket for `protocol`, one of `netlink_sys::protocols`, in this thread's network namespace.
    pub fn open(protocol: isize) -> Result<Self, Error> {
        let mut socket = TokioSocket::new(protocol).map_err(Error::Open)?;
        socket.socket_mut().bind_auto().map_err(Error::Open)?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        Ok(Self(socket))
    }

    /// Subscribes to the notifications of a multicast group, one of `RTNLGRP_*`.
    pub fn join(&mut self, group: u32) -> Result<(), Error> {
        self.0.socket_mut().add_membership(group).map_err(Error::Open)
    }

    /// Reads a whole table, again if it changed meanwhile.
    pub async fn dump(&self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Error> {
        for sequence in 1..=DUMP_ATTEMPTS {
            if let Some(messages) = self.exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body).await? {
                return Ok(messages);
            }
        }
        Err(Error::Unsettled)
    }

    /// Asks for one thing.
    pub async fn ask(&self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Error> {
        let answer = self.exchange(kind, NLM_F_REQUEST | NLM_F_ACK, 1, body).await?;
        Ok(answer.unwrap_or_default())
    }

    /// Waits until the kernel notifies of something, and takes all that is there. A lost notification counts as one.
    /// Cancel safe.
    pub async fn notified(&mut self) -> Result<(), Error> {
        let mut taken = self.0.recv_from_full().await;
        loop {
            match taken {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Error::Receive(error)),
            }
            taken = self.0.socket_ref().recv_from_full();
        }
    }

    /// The next messages of the groups that were joined. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Message>, Error> {
        let (datagram, _) = self.0.recv_from_full().await.map_err(Error::Receive)?;
        // Nobody asked for them, so their sequence number is zero.
        let mut answer = Answer { sequence: 0, messages: Vec::new(), interrupted: false };
        answer.take(&datagram)?;
        Ok(answer.messages)
    }

    /// `None` if the table changed while it was read.
    async fn exchange(
        &self,
        kind: u16,
        flags: u16,
        sequence: u32,
        body: &[u8],
    ) -> Result<Option<Vec<Message>>, Error> {
        let request = request(kind, flags, sequence, body);
        self.0.send(&request).await.map_err(Error::Send)?;
        let mut answer = Answer { sequence, messages: Vec::new(), interrupted: false };
        loop {
            let (datagram, _) = self.0.recv_from_full().await.map_err(Error::Receive)?;
            if answer.take(&datagram)? {
                return Ok((!answer.interrupted).then_some(answer.messages));
            }
        }
    }
}

/// What has come of the answer to one request.
struct Answer {
    sequence: u32,
    messages: Vec<Message>,
    interrupted: bool,
}

impl Answer {
    /// Takes one datagram, and tells whether the answer is complete with it.
    fn take(&mut self, mut datagram: &[u8]) -> Result<bool, Error> {
        while !datagram.is_empty() {
            let (header, rest) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(Error::Malformed)?;
            let [length @ .., k0, k1, f0, f1, s0, s1, s2, s3, _, _, _, _] = *header;
            let length = u32::from_ne_bytes(length) as usize;
            let body_len = length.checked_sub(HEADER_LEN).ok_or(Error::Malformed)?;
            let body = rest.get(..body_len).ok_or(Error::Malformed)?;
            datagram = datagram.get(align(length)..).unwrap_or_default();

            let (kind, flags) = (u16::from_ne_bytes([k0, k1]), u16::from_ne_bytes([f0, f1]));
            if u32::from_ne_bytes([s0, s1, s2, s3]) != self.sequence {
                continue;
            }
            self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                NLMSG_NOOP => {}
                NLMSG_ERROR | NLMSG_DONE => {
                    return match error_code(body) {
                        0 => Ok(true),
                        code => Err(Error::Refused(io::Error::from_raw_os_error(code.saturating_neg()))),
                    };
                }
                _ => self.messages.push(Message { kind, body: body.to_vec() }),
            }
        }
        Ok(false)
    }
}

/// The attributes in `bytes`: each one's type, without the nested and byte-order flags, and its value. Ends at the first
/// one that is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (&[l0, l1, k0, k1], _) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value))
    })
}

/// One attribute, as it goes into a request.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (ATTRIBUTE_HEADER_LEN + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// A `u32` attribute's value.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// A string attribute's value, without the NUL that ends it.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_LEN + body.len()) as u32;
    let port = 0_u32;
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &port.to_ne_bytes(),
        body,
    ]
    .concat()
}

/// The code of an `NLMSG_ERROR` or `NLMSG_DONE`: zero, or a negative errno.
fn error_code(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`.
fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

// include/uapi/linux/netlink.h
const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const DUMP_ATTEMPTS: u32 = 5;

// include/uapi/asm-generic/errno.h
/// Notifications were lost.
pub const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_read_as_it_was_written() {
        let bytes = [attribute(3, b"lo\0"), attribute(4 | 0x8000, &7_u32.to_ne_bytes())].concat();
        assert_eq!(bytes.len(), 16);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(3, &b"lo\0"[..]), (4, &7_u32.to_ne_bytes()[..])]);
        assert_eq!(text(read[0].1), "lo");
        assert_eq!(number(read[1].1), Some(7));
    }

    #[test]
    fn attributes_that_are_cut_off_end_the_list() {
        let whole = attribute(3, b"loopback\0");
        for cut in 0..whole.len() - 3 {
            assert_eq!(attributes(&whole[..cut]).count(), 0, "{cut} bytes");
        }
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0, "a length of zero");
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0, "a length less than the header's");
        assert_eq!(number(&[1, 2, 3]), None);
    }

    #[test]
    fn an_answer_ends_with_done() {
        let mut answer = Answer { sequence: 9, messages: Vec::new(), interrupted: false };
        let foreign = request(16, 0, 8, b"not ours");
        let ours = request(16, 2, 9, b"abcd");
        assert!(!answer.take(&[foreign, ours].concat()).unwrap());
        assert!(answer.take(&request(NLMSG_DONE, 2, 9, &[0; 4])).unwrap());
        assert_eq!(answer.messages, [Message { kind: 16, body: b"abcd".to_vec() }]);
        assert!(!answer.interrupted);
    }

    #[test]
    fn a_refusal_keeps_its_errno() {
        let mut answer = Answer { sequence: 1, messages: Vec::new(), interrupted: false };
        let refusal = request(NLMSG_ERROR, 0, 1, &(-2_i32).to_ne_bytes());
        match answer.take(&refusal) {
            Err(Error::Refused(error)) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_malformed() {
        let whole = request(16, 2, 1, b"abcdefgh");
        for cut in 1..whole.len() {
            let mut answer = Answer { sequence: 1, messages: Vec::new(), interrupted: false };
            assert!(matches!(answer.take(&whole[..cut]), Err(Error::Malformed)), "{cut} bytes");
        }
    }

    #[test]
    fn a_reading_during_a_change_is_told_apart() {
        let mut answer = Answer { sequence: 1, messages: Vec::new(), interrupted: false };
        answer.take(&request(NLMSG_DONE, NLM_F_DUMP_INTR, 1, &[0; 4])).unwrap();
        assert!(answer.interrupted);
    }
}
