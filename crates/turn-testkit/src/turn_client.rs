//! A blocking TURN client over UDP that does exactly what a test tells it, and never anything by itself: no refreshes, no timers.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::datagram::receive;
use crate::lab::Family;
use crate::packet::channel_data;
use message::{
    ADDITIONAL_ADDRESS_FAMILY, ADDITIONAL_ADDRESS_FAMILY_OF_DRAFT, Class, Credentials, DATA, METHOD_ALLOCATE,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND, Message,
    MessageBuilder, NONCE, REALM, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT, TransactionId,
    XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};

pub mod message;

/// Between two sendings of an unanswered request.
const RETRANSMISSION: Duration = Duration::from_millis(500);
/// How often a request is sent before the client gives up.
const ATTEMPTS: u32 = 8;

/// A TURN exchange failed.
#[derive(Debug, Error)]
pub enum TurnError {
    /// The socket failed.
    #[error("TURN client's socket")]
    Io(#[from] io::Error),
    /// No answer after all retransmissions.
    #[error("no answer to method {0:#x}")]
    Unanswered(u16),
    /// An error response.
    #[error("error {code} to method {method:#x}")]
    Refused {
        /// The method.
        method: u16,
        /// ERROR-CODE.
        code: u16,
    },
    /// A success response lacks an attribute.
    #[error("success of method {method:#x} without attribute {attribute:#06x}")]
    Incomplete {
        /// The method.
        method: u16,
        /// The missing attribute.
        attribute: u16,
    },
}

impl TurnError {
    /// The code of an error response.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A ChannelData message.
    ChannelData {
        /// Its channel.
        channel: u16,
        /// The declared data.
        data: Vec<u8>,
        /// What follows it in the datagram.
        padding: Vec<u8>,
    },
    /// A Data indication.
    DataIndication {
        /// XOR-PEER-ADDRESS.
        peer: SocketAddr,
        /// DATA.
        data: Vec<u8>,
    },
    /// Any other STUN message, responses above all.
    Response(Message),
    /// Neither STUN nor ChannelData.
    Other(Vec<u8>),
}

/// What an Allocate success said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// XOR-RELAYED-ADDRESS.
    pub relayed: SocketAddr,
    /// XOR-MAPPED-ADDRESS.
    pub mapped: SocketAddr,
    /// LIFETIME in seconds.
    pub lifetime: u32,
}

/// A client on one socket, which makes it one 5-tuple.
#[derive(Debug)]
pub struct TurnClient {
    socket: UdpSocket,
    server: SocketAddr,
    credentials: Credentials,
    waiting: VecDeque<Received>,
}

impl TurnClient {
    /// A client that has said nothing yet, with the lab's user and password.
    pub fn new(socket: UdpSocket, server: SocketAddr) -> Self {
        let credentials = Credentials {
            username: crate::coturn::USER.into(),
            password: crate::coturn::PASSWORD.into(),
            realm: String::new(),
            nonce: Vec::new(),
        };
        Self { socket, server, credentials, waiting: VecDeque::new() }
    }

    /// The client's own transport address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The server's transport address.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The socket, to change its options.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// What requests are signed with; realm and nonce are empty before the first 401.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Signs with another password or user from now on.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.credentials = credentials;
    }

    /// Allocates a relayed transport address of a family (of the server's choice if `None`), asking for a lifetime in seconds.
    pub fn allocate(
        &mut self,
        family: Option<Family>,
        lifetime: Option<u32>,
    ) -> Result<Allocation, TurnError> {
        let success = self.request(|client| {
            let mut request = client.builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            if let Some(family) = family {
                request = request.attribute(REQUESTED_ADDRESS_FAMILY, &family_code(family));
            }
            match lifetime {
                Some(seconds) => request.lifetime(seconds),
                None => request,
            }
        })?;
        let incomplete = |attribute| TurnError::Incomplete { method: METHOD_ALLOCATE, attribute };
        Ok(Allocation {
            relayed: success
                .xor_address(XOR_RELAYED_ADDRESS)
                .ok_or_else(|| incomplete(XOR_RELAYED_ADDRESS))?,
            mapped: success.xor_address(XOR_MAPPED_ADDRESS).ok_or_else(|| incomplete(XOR_MAPPED_ADDRESS))?,
            lifetime: success.lifetime().ok_or_else(|| incomplete(message::LIFETIME))?,
        })
    }

    /// Allocates a relayed transport address of each family, IPv4 first (RFC 8656 section 7.1).
    pub fn allocate_dual(&mut self) -> Result<[SocketAddr; 2], TurnError> {
        let success = self.request(|client| {
            let request = client.builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            [ADDITIONAL_ADDRESS_FAMILY, ADDITIONAL_ADDRESS_FAMILY_OF_DRAFT]
                .into_iter()
                .fold(request, |request, attribute| request.attribute(attribute, &family_code(Family::V6)))
        })?;
        let relayed = |is_v4| {
            let found = success.xor_addresses(XOR_RELAYED_ADDRESS).find(|address| address.is_ipv4() == is_v4);
            found.ok_or(TurnError::Incomplete { method: METHOD_ALLOCATE, attribute: XOR_RELAYED_ADDRESS })
        };
        Ok([relayed(true)?, relayed(false)?])
    }

    /// Deletes the half of a dual allocation that is of a family (RFC 8656 section 8.1).
    pub fn delete(&mut self, family: Family) -> Result<(), TurnError> {
        self.request(|client| {
            let request = client.builder(METHOD_REFRESH).lifetime(0);
            request.attribute(REQUESTED_ADDRESS_FAMILY, &family_code(family))
        })
        .map(drop)
    }

    /// Refreshes the allocation for so many seconds, 0 to delete it; returns the LIFETIME granted.
    pub fn refresh(&mut self, lifetime: u32) -> Result<u32, TurnError> {
        let success = self.request(|client| client.builder(METHOD_REFRESH).lifetime(lifetime))?;
        success
            .lifetime()
            .ok_or(TurnError::Incomplete { method: METHOD_REFRESH, attribute: message::LIFETIME })
    }

    /// Installs permissions.
    pub fn create_permission(&mut self, peers: &[SocketAddr]) -> Result<(), TurnError> {
        self.request(|client| {
            peers.iter().fold(client.builder(METHOD_CREATE_PERMISSION), |request, peer| {
                request.xor_address(XOR_PEER_ADDRESS, *peer)
            })
        })
        .map(drop)
    }

    /// Binds a channel to a peer, or renews the binding.
    pub fn channel_bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), TurnError> {
        self.request(|client| {
            client.builder(METHOD_CHANNEL_BIND).channel_number(channel).xor_address(XOR_PEER_ADDRESS, peer)
        })
        .map(drop)
    }

    /// Sends data in a Send indication.
    pub fn send_indication(&self, peer: SocketAddr, data: &[u8]) -> io::Result<()> {
        let indication = MessageBuilder::new(METHOD_SEND, Class::Indication)
            .xor_address(XOR_PEER_ADDRESS, peer)
            .attribute(DATA, data);
        self.send_raw(&indication.build())
    }

    /// Sends a ChannelData message with `padding` behind it.
    pub fn send_channel_data(&self, channel: u16, data: &[u8], padding: &[u8]) -> io::Result<()> {
        self.send_raw(&channel_data(channel, data, padding))
    }

    /// Sends any datagram to the server.
    pub fn send_raw(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.server).map(drop)
    }

    /// A signed request to add to: attributes, transaction id, oddities.
    pub fn builder(&self, method: u16) -> MessageBuilder {
        let request = MessageBuilder::new(method, Class::Request);
        if self.credentials.nonce.is_empty() { request } else { request.credentials(&self.credentials) }
    }

    /// Makes a request and returns its success. It is made anew after 401 and 438, with the realm and nonce of the answer.
    pub fn request(&mut self, mut make: impl FnMut(&Self) -> MessageBuilder) -> Result<Message, TurnError> {
        let mut challenges = 0;
        loop {
            let answer = self.exchange(&make(self).build())?;
            let method = answer.method;
            match answer.error_code() {
                None => return Ok(answer),
                Some(401 | 438) if challenges < 2 && self.take_challenge(&answer) => challenges += 1,
                Some(code) => return Err(TurnError::Refused { method, code }),
            }
        }
    }

    /// Sends a request until it is answered; returns the answer, whatever it says. Other messages that come meanwhile are kept for
    /// [`TurnClient::receive`].
    pub fn exchange(&mut self, request: &[u8]) -> Result<Message, TurnError> {
        let sent =
            Message::parse(request).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        for _ in 0..ATTEMPTS {
            self.send_raw(request)?;
            if let Some(answer) = self.receive_answer(sent.transaction, RETRANSMISSION)? {
                return Ok(answer);
            }
        }
        Err(TurnError::Unanswered(sent.method))
    }

    /// Waits for the response to a transaction, keeping other messages for [`TurnClient::receive`].
    pub fn receive_answer(
        &mut self,
        transaction: TransactionId,
        patience: Duration,
    ) -> io::Result<Option<Message>> {
        let deadline = Instant::now() + patience;
        while let Some(received) = self.receive_from_socket(deadline)? {
            match received {
                Received::Response(message) if message.transaction == transaction => {
                    return Ok(Some(message));
                }
                other => self.waiting.push_back(other),
            }
        }
        Ok(None)
    }

    /// Reads what has piled up, so that the answer to the next request finds room.
    pub fn drain(&mut self) -> io::Result<()> {
        while self.receive(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    /// The next message from the server, or `None` if none comes in time.
    pub fn receive(&mut self, patience: Duration) -> io::Result<Option<Received>> {
        match self.waiting.pop_front() {
            Some(received) => Ok(Some(received)),
            None => self.receive_from_socket(Instant::now() + patience),
        }
    }

    fn receive_from_socket(&self, deadline: Instant) -> io::Result<Option<Received>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match receive(&self.socket, left)? {
                Some((datagram, source)) if source == self.server => return Ok(Some(read(&datagram))),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn take_challenge(&mut self, answer: &Message) -> bool {
        let Some(nonce) = answer.attribute(NONCE) else { return false };
        self.credentials.nonce = nonce.to_vec();
        if let Some(realm) = answer.attribute(REALM) {
            self.credentials.realm = String::from_utf8_lossy(realm).into_owned();
        }
        true
    }
}

fn family_code(family: Family) -> [u8; 4] {
    let code = if family == Family::V4 { 1 } else { 2 };
    [code, 0, 0, 0]
}

fn read(datagram: &[u8]) -> Received {
    if let Ok(message) = Message::parse(datagram) {
        let data = message.attribute(DATA).map(<[u8]>::to_vec);
        return match (message.method, message.xor_address(XOR_PEER_ADDRESS), data) {
            (METHOD_DATA, Some(peer), Some(data)) => Received::DataIndication { peer, data },
            _ => Received::Response(message),
        };
    }
    if let Some(([c0, c1, l0, l1], rest)) = datagram.split_first_chunk()
        && c0 & 0xc0 == 0x40
        && let Some((data, padding)) = rest.split_at_checked(u16::from_be_bytes([*l0, *l1]).into())
    {
        let channel = u16::from_be_bytes([*c0, *c1]);
        return Received::ChannelData { channel, data: data.to_vec(), padding: padding.to_vec() };
    }
    Received::Other(datagram.to_vec())
}
