//! Ctrl-C and its relatives only raise a flag, so that everything that has to be cleaned up is dropped on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on SIGINT, SIGTERM and SIGHUP do not end the process.
pub fn catch() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&REQUESTED)).context("cannot catch signals")?;
    }
    Ok(())
}

/// Whether one of the signals has come.
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Fails if one of the signals has come.
pub fn check() -> Result<()> {
    if is_requested() {
        bail!("a signal came");
    }
    Ok(())
}
