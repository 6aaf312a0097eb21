//! What the service manager is told: sd_notify(3). Without one, none of it is done.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::{Daemon, nanoseconds};
use crate::control::document::State;

/// How often the status is looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// As many bindings as are looked at before other tasks get their turn.
const BATCH: usize = 512;

/// Tells it one thing. That nobody listens is no reason to stop.
pub(super) fn tell(what: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[what]) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The service manager's watchdog (`WatchdogSec=`). It is told that all is well by the daemon's own loop, and so no longer when that
/// loop does not turn.
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// Twice as often as the service manager wants, if it wants at all.
    pub(super) fn of_environment() -> Self {
        let limit = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::from_micros(1));
        Self(limit.map(|limit| {
            let mut interval = interval(limit / 2);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Waits until it is time; for ever where nobody waits.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Keeps the line that `systemctl status` shows up to date.
pub(super) async fn tell_status(state: &Rc<RefCell<Daemon>>) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let mut told = String::new();
    loop {
        let line = status_line(state).await;
        if line != told {
            tell(NotifyState::Status(&line));
            told = line;
        }
        sleep(STATUS_INTERVAL).await;
    }
}

async fn status_line(state: &Rc<RefCell<Daemon>>) -> String {
    let (ids, now) = (state.borrow().table.ids(), nanoseconds(state.borrow().clock.now()));
    let (mut in_kernel, mut all) = (0_u64, 0_u64);
    for batch in ids.chunks(BATCH) {
        {
            let daemon = state.borrow();
            for bound in batch.iter().filter_map(|id| daemon.table.binding(*id)) {
                all += 1;
                in_kernel += u64::from(daemon.state(bound, now).0 == State::Kernel);
            }
        }
        tokio::task::yield_now().await;
    }
    let interfaces = match state.borrow().attached.len() {
        1 => "1 interface".to_owned(),
        number => format!("{number} interfaces"),
    };
    format!("{interfaces}, {in_kernel} of {all} sessions in the kernel")
}
