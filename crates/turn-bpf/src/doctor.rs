//! `turn-bpf doctor`: what this machine can do for turn-bpf, and how to mend what it cannot.
//!
//! First the facts are gathered, then each check judges them, and at last the report is written. Only the first of these
//! touches the machine, and it changes nothing.

mod checks;
mod coturn;
mod facts;
mod report;

pub use coturn::CoturnConfig;
pub use facts::{Facts, InterfaceFacts, Jit};
pub use report::{Check, Outcome, Report, wants_colour};

use std::io;

use crate::{interfaces, xdp_features};

/// Examines the machine, the interfaces with these names, and coturn's configuration.
pub async fn examine(names: &[String], coturn: Option<CoturnConfig>) -> Result<Report, Error> {
    let facts = Facts::gather(names).await?;
    Ok(judge(&Facts { coturn, ..facts }))
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
