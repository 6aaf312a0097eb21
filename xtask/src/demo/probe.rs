//! One more TURN client, which measures round-trip times finer than uclient's milliseconds and checks every byte.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use turn_testkit::coturn::Coturn;
use turn_testkit::lab::{Family, Lab};
use turn_testkit::traffic::{Channel, Echo, Report, Traffic};
use turn_testkit::turn_client::TurnClient;

const CHANNEL: u16 = 0x4001;
const RATE: u32 = 50;

/// A running probe.
#[derive(Debug)]
pub struct Probe(JoinHandle<Result<Report>>);

impl Probe {
    /// Starts it for so long.
    pub fn start(lab: &Lab, coturn: &Coturn, duration: Duration) -> Result<Self> {
        let addresses = lab.addresses(Family::V4);
        let echo = Echo::start(lab.peer.udp_socket((addresses.peer, 0).into())?);
        let socket = lab.client.udp_socket((addresses.client, 0).into())?;
        let mut client = TurnClient::new(socket, coturn.listener(Family::V4).context("an IPv4 listener")?);
        let traffic = Traffic { stream: 1, sizes: 100..=400, rate: RATE, duration };
        Ok(Self(thread::spawn(move || {
            client.allocate(Some(Family::V4), None)?;
            client.channel_bind(CHANNEL, echo.address())?;
            let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL })?;
            client.refresh(0)?;
            Ok(report)
        })))
    }

    /// Whether it is through.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// What it found.
    pub fn finish(self) -> Result<Report> {
        self.0.join().map_err(|_| anyhow!("the probe panicked"))?.context("the probe failed")
    }
}
