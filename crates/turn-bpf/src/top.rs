//! `turn-bpf top`: sessions and the kernel's share of the traffic, live.
//!
//! [`state`] works out what is to be seen from what the daemon tells, [`view`] draws it, and this file moves between the
//! daemon, the keyboard and the terminal.

mod state;
mod view;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::control::client::{self, ClientError};
use crate::control::document::{SessionsDocument, StatusDocument};
use crate::control::table::Colours;
use state::{State, Wish};

/// Why it ended otherwise than by its user's wish.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is nothing to show.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The terminal cannot be written to or read from.
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
}

/// Shows the daemon at `socket` until the user has seen enough.
pub fn run(socket: &Path, interval: Duration, colours: Colours) -> Result<(), TopError> {
    let mut state = State::new(colours);
    let (status, sessions) = fetch(socket)?;
    state.take(Instant::now(), status, sessions);
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &mut state, socket, interval);
    ratatui::restore();
    shown
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    state: &mut State,
    socket: &Path,
    interval: Duration,
) -> Result<(), TopError> {
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| view::draw(frame, state))?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            // Anything else, such as another size of the terminal, only has it drawn again.
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && state.press(key) == Wish::Quit
            {
                return Ok(());
            }
            continue;
        }
        let start = Instant::now();
        if !state.is_frozen() {
            match fetch(socket) {
                Ok((status, sessions)) => state.take(Instant::now(), status, sessions),
                Err(error) => state.lose(error.to_string()),
            }
        }
        // Where there are very many sessions, the daemon is not kept busy with telling them.
        due = Instant::now() + interval.max(start.elapsed() * LEAST_REST);
    }
}

fn fetch(socket: &Path) -> Result<(StatusDocument, SessionsDocument), ClientError> {
    Ok((client::fetch(socket)?, client::fetch(socket)?))
}

/// How much longer than asking the daemon takes it is left alone afterwards.
const LEAST_REST: u32 = 4;
