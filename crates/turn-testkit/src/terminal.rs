//! A program on a pseudo-terminal, and what its screen shows.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::Process;

/// Lines of the terminal.
pub const ROWS: u16 = 24;
/// Columns of the terminal.
pub const COLUMNS: u16 = 80;

/// A program that believes that it talks to a person. It is killed on drop.
pub struct Terminal {
    process: Process,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts the command on a terminal of 80 columns and 24 lines.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Self::with_lines(command, ROWS)
    }

    /// Starts the command on a terminal with this many lines.
    pub fn with_lines(command: &mut Command, rows: u16) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::from(open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?);
        tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
        command.env("TERM", "xterm-256color");
        command.stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave.try_clone()?));
        command.stderr(Stdio::from(slave));
        let process = Process::spawn(command)?;
        // The command holds the other end, which must close when the program ends.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());

        let keyboard = File::from(master);
        let mut output = keyboard.try_clone()?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, COLUMNS, 0)));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with EIO when nobody holds the other end any longer.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).process(&buffer[..length]);
            }
        });
        Ok(Self { process, keyboard, screen })
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> io::Result<()> {
        self.keyboard.write_all(keys.as_bytes())
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).screen().contents()
    }

    /// Whether anything on the screen has a colour.
    pub fn has_colours(&self) -> bool {
        let parser = self.screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let screen = parser.screen();
        (0..screen.size().0).any(|row| {
            (0..COLUMNS).any(|column| {
                screen.cell(row, column).is_some_and(|cell| {
                    cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default
                })
            })
        })
    }

    /// Whether the program has the whole screen, and what was there before is put away.
    pub fn is_full_screen(&self) -> bool {
        self.screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).screen().alternate_screen()
    }

    /// Waits until the screen shows what is wanted; panics with what it shows instead.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let deadline = Instant::now() + crate::offload::PATIENCE;
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "in vain: {what}; the screen shows\n{text}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How the program ended, if it does so in time.
    pub fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.wait(crate::offload::PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_a_terminal_is_seen_and_heard() {
        let script = r#"printf '\033[31mred\033[0m\n'; read -r line; echo "got $line"; stty size"#;
        let mut terminal = Terminal::start(Command::new("sh").args(["-c", script])).unwrap();
        terminal.wait_for("its first word", |text| text.contains("red"));
        assert!(terminal.has_colours() && !terminal.is_full_screen());
        terminal.press("a line\n").unwrap();
        terminal.wait_for("its answer", |text| text.contains("got a line") && text.contains("24 80"));
        assert!(terminal.wait().unwrap().is_some_and(|status| status.success()));
    }
}
