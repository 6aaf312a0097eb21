//! `turn-bpf doctor --probe`: a call through a TURN server with real credentials, as a client and its peer have it. Both ends are here.

mod binding;
mod call;
mod figures;
mod media;
mod refusal;
mod report;
mod share;
mod uri;

pub(super) use binding::ask as ask_binding;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use figures::{Figures, RoundTrips};
pub use refusal::Failure;
pub use report::ProbeReport;
pub use share::{Share, SharedBy};
pub use uri::{InvalidUri, TurnUri};

use call::Call;
use media::Plan;

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// The server.
    pub server: TurnUri,
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// How many packets are sent.
    pub count: u32,
    /// Packets per second.
    pub rate: u32,
    /// Bytes of application data in each packet, at least [`SMALLEST`].
    pub size: u16,
    /// Where the daemon's control socket may be.
    pub control: PathBuf,
}

/// Bytes that a packet takes to be known again.
pub const SMALLEST: u16 = media::HEADER_LEN as u16;

/// The ends of a call, as the server sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ends {
    /// The server.
    pub server: SocketAddr,
    /// The client.
    pub client: SocketAddr,
    /// The relayed transport address.
    pub relayed: SocketAddr,
    /// The peer.
    pub peer: SocketAddr,
}

/// Has the call, and tells what came of it. `begun` is called once media is about to flow.
pub async fn run(options: &ProbeOptions, begun: impl FnOnce(&Ends)) -> ProbeReport {
    let mut report = ProbeReport::of(options);
    if let Err(failure) = attempt(options, begun, &mut report).await {
        report.fail(&failure);
    }
    report
}

async fn attempt(
    options: &ProbeOptions,
    begun: impl FnOnce(&Ends),
    report: &mut ProbeReport,
) -> Result<(), Failure> {
    let server = options.server.resolve().await?;
    report.address = Some(server);
    report.is_own_machine = share::is_own_machine(server).await;
    let mut call = Call::open(server, &options.user, &options.password).await?;
    let result = converse(options, &mut call, begun, report).await;
    report.software = call.software();
    // An allocation that was granted is given back, whatever came of it.
    call.hang_up().await;
    result
}

async fn converse(
    options: &ProbeOptions,
    call: &mut Call,
    begun: impl FnOnce(&Ends),
    report: &mut ProbeReport,
) -> Result<(), Failure> {
    let ends = call.set_up().await?;
    report.ends = Some(ends);
    begun(&ends);
    let plan = Plan {
        peer: ends.peer,
        count: options.count,
        pace: Duration::from_secs(1) / options.rate.max(1),
        size: usize::from(options.size),
    };
    let (log, broken) = media::exchange(call, &plan).await;
    report.figures = Some(Figures::of(&log));
    // The session is there until the allocation is given back.
    report.kernel = Some(Share::of(&options.control, &ends, report.is_own_machine));
    broken?;
    match log.returned() {
        0 => Err(Failure::NothingCameBack { arrived: log.arrived(), sent: log.sent(), peer: ends.peer }),
        _ => Ok(()),
    }
}
