//! One allocation at a TURN server, with a channel to a peer of our own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use turn_client_proto::api::{Transmit, TurnClientApi as _, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::DelayedTransmitBuild as _;
use turn_client_proto::stun::Instant as ClientInstant;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use turn_wire::stun::{AttributeType, Class, Message, Method};

use super::binding::{self, printable};
use super::{Ends, Failure};

/// A call's two sockets, and what is known of the call.
pub struct Call {
    protocol: TurnClientUdp,
    /// The client's, connected to the server.
    client: UdpSocket,
    /// The peer's.
    peer: UdpSocket,
    server: SocketAddr,
    begin: Instant,
    heard: Heard,
    buffer: Vec<u8>,
    peer_buffer: Vec<u8>,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Event {
    /// The protocol has got on.
    Protocol(TurnEvent),
    /// The client got application data from its peer.
    ToClient(Vec<u8>),
    /// The peer got a datagram.
    ToPeer(Vec<u8>, SocketAddr),
    /// The time is over.
    Due,
    /// The protocol has ended.
    Closed,
}

/// What was read in the server's responses beside what the protocol makes of them: it tells of failures without their codes.
#[derive(Debug, Default)]
struct Heard {
    mapped: Option<SocketAddr>,
    software: Option<String>,
    /// How often Allocate was answered with 401. The first one is the challenge.
    challenges: u32,
    /// The last error that is more than a challenge.
    error: Option<(u16, String)>,
    answered: bool,
}

impl Heard {
    fn read(&mut self, datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else { return };
        self.answered |= matches!(message.class(), Class::SuccessResponse | Class::ErrorResponse);
        if self.software.is_none() {
            self.software = binding::software(&message);
        }
        match (message.class(), message.method()) {
            (Class::SuccessResponse, method) => {
                self.error = None;
                if method == Method::ALLOCATE {
                    self.mapped = binding::address(&message, AttributeType::XOR_MAPPED_ADDRESS);
                }
            }
            (Class::ErrorResponse, method) => {
                let Ok(error) = message.exactly_one(AttributeType::ERROR_CODE) else { return };
                let Ok(code) = error.error_code() else { return };
                let is_unauthenticated = (method, code) == (Method::ALLOCATE, 401);
                if is_unauthenticated {
                    self.challenges = self.challenges.saturating_add(1);
                }
                if !is_unauthenticated || self.challenges > 1 {
                    self.error = Some((code, printable(error.value.get(4..).unwrap_or_default())));
                }
            }
            _ => {}
        }
    }
}

impl Call {
    /// Opens the sockets. Nothing is sent yet.
    pub async fn open(server: SocketAddr, user: &str, password: &str) -> Result<Self, Failure> {
        let no_way = |source| Failure::NoWay { server, source };
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let client = UdpSocket::bind((any, 0)).await.map_err(no_way)?;
        client.connect(server).await.map_err(no_way)?;
        let local = client.local_addr().map_err(no_way)?;
        // Bound to the same address, so that it goes the same way out.
        let peer = UdpSocket::bind((local.ip(), 0)).await.map_err(no_way)?;

        let mut config = TurnConfig::new(TurnCredentials::new(user, password));
        config.add_supported_integrity(IntegrityAlgorithm::Sha256);
        config.set_address_family(if server.is_ipv4() { AddressFamily::IPV4 } else { AddressFamily::IPV6 });
        config.set_request_retransmits(
            FIRST_RETRANSMISSION,
            LONGEST_RETRANSMISSION,
            TRANSMISSIONS,
            LAST_PATIENCE,
        );
        Ok(Self {
            protocol: TurnClientUdp::allocate(local, server, config),
            client,
            peer,
            server,
            begin: Instant::now(),
            heard: Heard::default(),
            buffer: vec![0; LARGEST_DATAGRAM],
            peer_buffer: vec![0; LARGEST_DATAGRAM],
        })
    }

    /// What the server calls itself.
    pub fn software(&self) -> Option<String> {
        self.heard.software.clone()
    }

    /// Allocates, and binds a channel to the peer.
    pub async fn set_up(&mut self) -> Result<Ends, Failure> {
        let relayed = self.allocate().await?;
        let client = self.heard.mapped.map_or_else(|| self.client.local_addr(), Ok);
        let no_way = |source| Failure::NoWay { server: self.server, source };
        let client = client.map_err(no_way)?;
        // Behind a NAT the server sees another address than the socket's own.
        let seen = binding::ask(&self.peer, self.server, BINDING_PATIENCE).await;
        let peer = seen.and_then(|binding| binding.mapped).map_or_else(|| self.peer.local_addr(), Ok);
        let peer = peer.map_err(no_way)?;
        // It opens a NAT on the way here for what will come. The server drops it, as long as there is no permission.
        let _ = self.peer.send_to(&[], relayed).await;
        self.bind_channel(peer).await?;
        Ok(Ends { server: self.server, client, relayed, peer })
    }

    async fn allocate(&mut self) -> Result<SocketAddr, Failure> {
        const REQUEST: &str = "Allocate";
        loop {
            let event = self.next(Instant::now() + SET_UP_PATIENCE).await?;
            // Its word is that the credentials are wrong; to repeat the request would only get it again.
            if self.heard.challenges > 1 {
                return Err(self.refusal(REQUEST));
            }
            match event {
                Event::Protocol(TurnEvent::AllocationCreated(_, relayed)) => return Ok(relayed),
                Event::Protocol(TurnEvent::AllocationCreateFailed(_)) | Event::Due | Event::Closed => {
                    return Err(self.refusal(REQUEST));
                }
                _ => {}
            }
        }
    }

    async fn bind_channel(&mut self, peer: SocketAddr) -> Result<(), Failure> {
        self.heard.answered = false;
        let unusable = |what| Failure::Unusable { request: "Allocate", what };
        // The protocol asks for the permission, too.
        self.protocol
            .bind_channel(TransportType::Udp, peer, self.now())
            .map_err(|_| unusable("there is no allocation of the peer's family"))?;
        loop {
            match self.next(Instant::now() + SET_UP_PATIENCE).await? {
                Event::Protocol(TurnEvent::ChannelCreated(_, _)) => return Ok(()),
                Event::Protocol(TurnEvent::PermissionCreateFailed(_, _)) => {
                    return Err(self.refusal("CreatePermission"));
                }
                Event::Protocol(TurnEvent::ChannelCreateFailed(_, _)) | Event::Due | Event::Closed => {
                    return Err(self.refusal("ChannelBind"));
                }
                _ => {}
            }
        }
    }

    /// Why the server did not grant what was asked.
    fn refusal(&self, request: &'static str) -> Failure {
        match &self.heard.error {
            Some((code, reason)) => Failure::Refused { request, code: *code, reason: reason.clone() },
            None if self.heard.answered => Failure::Unusable {
                request,
                what: "its MESSAGE-INTEGRITY is not that of this password, or a part is missing",
            },
            None => Failure::NoAnswer { server: self.server, request },
        }
    }

    /// Sends application data to the peer.
    pub async fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Result<(), Failure> {
        let built = self.protocol.send_to(TransportType::Udp, peer, data, self.now());
        let Ok(Some(transmit)) = built else {
            return Err(Failure::Unusable { request: "ChannelBind", what: "the channel is gone again" });
        };
        let datagram = transmit.data.build();
        self.transmit(&datagram).await
    }

    /// Sends a datagram as the peer.
    pub async fn send_as_peer(&self, to: SocketAddr, data: &[u8]) {
        // What cannot be sent is lost, and will be counted as that.
        let _ = self.peer.send_to(data, to).await;
    }

    async fn transmit(&self, datagram: &[u8]) -> Result<(), Failure> {
        match self.client.send(datagram).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.no_way(error)),
        }
    }

    fn no_way(&self, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::NobodyListens(self.server),
            _ => Failure::NoWay { server: self.server, source: error },
        }
    }

    /// Gives the allocation back, if there is one: Refresh with LIFETIME 0.
    pub async fn hang_up(&mut self) {
        if self.protocol.delete(self.now()).is_err() {
            return;
        }
        self.heard.answered = false;
        let end = Instant::now() + HANG_UP_PATIENCE;
        while !self.heard.answered {
            match self.next(end).await {
                Ok(Event::Due | Event::Closed) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Keeps the protocol going until something happens, or `until`.
    pub async fn next(&mut self, until: Instant) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.protocol.poll_event() {
                return Ok(Event::Protocol(event));
            }
            let wake = match self.protocol.poll(self.now()) {
                TurnPollRet::WaitUntil(time) => time.to_std(self.begin),
                TurnPollRet::Closed => return Ok(Event::Closed),
                _ => until,
            };
            while let Some(transmit) = self.protocol.poll_transmit(self.now()) {
                self.transmit(&transmit.data).await?;
            }
            let challenges = self.heard.challenges;
            tokio::select! {
                // Whatever has come is looked at before time is.
                biased;
                received = self.client.recv(&mut self.buffer) => {
                    let length = received.map_err(|error| self.no_way(error))?;
                    if let Some(data) = self.take(length) {
                        return Ok(Event::ToClient(data));
                    }
                    if self.heard.challenges > 1 && self.heard.challenges != challenges {
                        return Ok(Event::Due);
                    }
                }
                received = self.peer.recv_from(&mut self.peer_buffer) => {
                    if let Ok((length, source)) = received {
                        let datagram = self.peer_buffer.get(..length).unwrap_or_default();
                        return Ok(Event::ToPeer(datagram.to_vec(), source));
                    }
                }
                () = tokio::time::sleep_until(wake.min(until).into()) => {
                    if Instant::now() >= until {
                        return Ok(Event::Due);
                    }
                }
            }
        }
    }

    /// Application data, if the datagram in the buffer is that.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let datagram = self.buffer.get(..length)?;
        self.heard.read(datagram);
        let local = self.client.local_addr().ok()?;
        let transmit = Transmit::new(datagram, TransportType::Udp, self.server, local);
        match self.protocol.recv(transmit, ClientInstant::from_std(self.begin)) {
            TurnRecvRet::PeerData(data) => Some(data.data().to_vec()),
            _ => None,
        }
    }

    /// The protocol's time is what has passed since the beginning.
    fn now(&self) -> ClientInstant {
        ClientInstant::from_std(self.begin)
    }
}

// RFC 8489 section 6.2.1 waits half a minute for an answer; whoever probes has seen enough after 8 seconds.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(500);
const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(2);
const TRANSMISSIONS: u32 = 5;
const LAST_PATIENCE: Duration = Duration::from_millis(2500);
const SET_UP_PATIENCE: Duration = Duration::from_secs(12);
const BINDING_PATIENCE: Duration = Duration::from_millis(1500);
const HANG_UP_PATIENCE: Duration = Duration::from_secs(2);
const LARGEST_DATAGRAM: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// An error response to a method without attributes but ERROR-CODE.
    fn error(method: u8, class: u8, number: u8, reason: &[u8; 4]) -> Vec<u8> {
        let mut message = vec![0x01, 0x10 | method, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0, 9, 0, 8, 0, 0, class, number]);
        message.extend(reason);
        message
    }

    #[test]
    fn the_first_401_is_the_challenge_and_the_second_an_error() {
        let mut heard = Heard::default();
        heard.read(&error(3, 4, 1, b"Auth"));
        assert_eq!((heard.challenges, &heard.error), (1, &None));
        heard.read(&error(3, 4, 1, b"Auth"));
        assert_eq!((heard.challenges, &heard.error), (2, &Some((401, "Auth".to_owned()))));
    }

    #[test]
    fn other_errors_count_at_once() {
        for (method, class, number, code) in [(3, 4, 86, 486), (8, 4, 3, 403), (9, 4, 0, 400), (3, 5, 8, 508)]
        {
            let mut heard = Heard::default();
            heard.read(&error(method, class, number, b"Why?"));
            assert_eq!(heard.error, Some((code, "Why?".to_owned())));
        }
        let mut heard = Heard::default();
        heard.read(b"not STUN");
        assert!(!heard.answered && heard.error.is_none());
    }
}
