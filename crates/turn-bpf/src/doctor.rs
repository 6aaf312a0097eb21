//! `turn-bpf doctor`: what this machine can do for turn-bpf, and how to mend what it cannot.
//!
//! First the facts are gathered, then each check judges them, and at last the report is written. Only the first of these
//! touches the machine, and it changes nothing.

mod checks;
mod coturn;
pub(crate) mod facts;
pub mod probe;
mod report;

pub use coturn::CoturnConfig;
pub use facts::{Facts, InterfaceFacts, Jit, footprint};
pub use report::{Check, Group, Outcome, Report, wants_colour};

use std::io;

use crate::{interfaces, xdp_features};

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The names of interfaces.
    pub interfaces: Vec<String>,
    /// coturn's configuration. Without it that of the server that runs.
    pub coturn: Option<CoturnConfig>,
    /// The server's port, where it is neither the usual one nor in the configuration.
    pub port: Option<u16>,
    /// As many flows as there are to be at a time.
    pub max_flows: u32,
}

/// Examines the machine, interfaces, and what is known of the server.
pub async fn examine(subject: &Subject) -> Result<Report, Error> {
    Ok(judge(&Facts::gather(subject).await?))
}

/// What the facts mean.
pub fn judge(facts: &Facts) -> Report {
    Report::new(checks::all(facts))
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The interfaces could not be read.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// A driver's features could not be read.
    #[error(transparent)]
    XdpFeatures(#[from] xdp_features::Error),
    /// The capabilities could not be read.
    #[error("cannot read this process's capabilities")]
    Privileges(#[source] io::Error),
}
