//! turn-client-proto, the TURN client of librice: a client with an echoing peer, or two clients with each other.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use interop_drivers::{GRACE, GREETING, GREETING_INTERVAL, Plan, Tally, WARM_UP, payload, report};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant as ProtoInstant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

const SET_UP: Duration = Duration::from_secs(10);

struct End {
    socket: UdpSocket,
    proto: TurnClientUdp,
    base: Instant,
    tally: Tally,
    has_channel: bool,
    failure: Option<String>,
}

impl End {
    fn new(plan: &Plan, hears: u32) -> Result<Self> {
        let socket = UdpSocket::bind((plan.local, 0))?;
        socket.set_nonblocking(true)?;
        let config = TurnConfig::new(TurnCredentials::new(&plan.user, &plan.password));
        let proto = TurnClientUdp::allocate(socket.local_addr()?, plan.server, config);
        let (base, tally) = (Instant::now(), Tally::new(hears));
        Ok(Self { socket, proto, base, tally, has_channel: false, failure: None })
    }

    fn now(&self) -> ProtoInstant {
        ProtoInstant::from_nanos(1_000_000_000 + self.base.elapsed().as_nanos() as i64)
    }

    /// Sends what is to be sent and takes what has come.
    fn drive(&mut self) -> Result<()> {
        if let TurnPollRet::Closed = self.proto.poll(self.now()) {
            bail!("the client has closed");
        }
        while let Some(transmit) = self.proto.poll_transmit(self.now()) {
            self.socket.send_to(transmit.data.as_ref(), transmit.to)?;
        }
        while let Some(event) = self.proto.poll_event() {
            match event {
                TurnEvent::ChannelCreated(..) => self.has_channel = true,
                TurnEvent::AllocationCreateFailed(_)
                | TurnEvent::ChannelCreateFailed(..)
                | TurnEvent::PermissionCreateFailed(..) => self.failure = Some(format!("{event:?}")),
                _ => {}
            }
        }
        let mut buffer = [0; 65536];
        loop {
            let (length, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                Err(error) => return Err(error.into()),
            };
            let transmit =
                Transmit::new(&buffer[..length], TransportType::Udp, from, self.socket.local_addr()?);
            let now = self.now();
            if let TurnRecvRet::PeerData(data) = self.proto.recv(transmit, now) {
                self.tally.count(data.data());
            }
            while let Some(data) = self.proto.poll_recv(now) {
                self.tally.count(data.data());
            }
        }
        match &self.failure {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }

    fn relayed(&self) -> Option<SocketAddr> {
        self.proto.relayed_addresses().next().map(|(_, address)| address)
    }

    fn send(&mut self, to: SocketAddr, data: &[u8]) -> Result<()> {
        let now = self.now();
        if let Some(transmit) = self.proto.send_to(TransportType::Udp, to, data, now)? {
            let transmit = transmit.build();
            self.socket.send_to(&transmit.data, transmit.to)?;
        }
        Ok(())
    }
}

fn drive_until(ends: &mut [End], deadline: Instant, mut done: impl FnMut(&[End]) -> bool) -> Result<bool> {
    loop {
        for end in ends.iter_mut() {
            end.drive()?;
        }
        if done(ends) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(1));
    }
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments()?;
    let mut ends = match plan.peer {
        Some(_) => vec![End::new(&plan, 1)?],
        None => vec![End::new(&plan, 2)?, End::new(&plan, 1)?],
    };
    let deadline = Instant::now() + SET_UP;
    if !drive_until(&mut ends, deadline, |ends| ends.iter().all(|end| end.relayed().is_some()))? {
        bail!("no allocation");
    }
    let targets: Vec<SocketAddr> = match plan.peer {
        Some(peer) => vec![peer],
        None => ends.iter().rev().map(|end| end.relayed().context("an allocation")).collect::<Result<_>>()?,
    };
    for (end, target) in ends.iter_mut().zip(&targets) {
        let now = end.now();
        end.proto.bind_channel(TransportType::Udp, *target, now)?;
    }
    if !drive_until(&mut ends, deadline, |ends| ends.iter().all(|end| end.has_channel))? {
        bail!("no channel");
    }
    let warm = Instant::now() + WARM_UP;
    let mut greetings = 0;
    while Instant::now() < warm {
        greetings += ends.len() as u64;
        for (end, target) in ends.iter_mut().zip(&targets) {
            end.send(*target, GREETING)?;
        }
        drive_until(&mut ends, Instant::now() + GREETING_INTERVAL, |_| false)?;
    }
    let start = Instant::now();
    for number in 0..plan.packets() {
        for (at, target) in targets.iter().enumerate() {
            ends[at].send(*target, &payload(at as u32 + 1, number))?;
        }
        drive_until(&mut ends, start + plan.interval() * (number as u32 + 1), |_| false)?;
    }
    drive_until(&mut ends, Instant::now() + GRACE, |_| false)?;
    let tallies: Vec<&Tally> = ends.iter().map(|end| &end.tally).collect();
    report(&plan, plan.packets() * ends.len() as u64, greetings, &tallies);
    for end in &mut ends {
        let now = end.now();
        end.proto.delete(now)?;
        // The allocation is gone with the answer, and that is no failure.
        let _closed = end.drive();
    }
    Ok(())
}
