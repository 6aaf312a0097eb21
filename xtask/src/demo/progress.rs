//! What the demo says while it works: to standard error, one line in place where that is a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const IN_PLACE: Duration = Duration::from_millis(500);
const LINE_BY_LINE: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    last: Cell<Option<Instant>>,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: Cell::new(None) }
    }

    /// A step.
    pub fn line(&self, text: &str) {
        let (clear, line) = if self.terminal { ("\r\x1b[K", text) } else { ("", text) };
        eprintln!("{clear}{line}");
        self.last.set(None);
    }

    /// How far a step is; shown every now and then.
    pub fn advance(&self, text: impl FnOnce() -> String) {
        let period = if self.terminal { IN_PLACE } else { LINE_BY_LINE };
        let now = Instant::now();
        match self.last.get() {
            Some(last) if now.duration_since(last) < period => return,
            None if !self.terminal => {
                self.last.set(Some(now));
                return;
            }
            _ => self.last.set(Some(now)),
        }
        if self.terminal {
            eprint!("\r\x1b[K{}", text());
            let _unseen = io::stderr().flush();
        } else {
            eprintln!("{}", text());
        }
    }
}
