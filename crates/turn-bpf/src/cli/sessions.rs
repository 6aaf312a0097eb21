//! `turn-bpf sessions`: which ones, in which form, once or again and again.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use turn_bpf::control::client::{self, ClientError};
use turn_bpf::control::document::Channel;
use turn_bpf::control::selector::{AddressPattern, Selector};
use turn_bpf::control::{DEFAULT_SOCKET, table};

use super::{SHORTEST_INTERVAL, fail, fail_to_ask};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// In which form.
    #[arg(short, long, value_enum, default_value_t = Form::Table, conflicts_with = "json")]
    output: Form,
    /// The same as `--output json`: the daemon's JSON document.
    #[arg(long)]
    json: bool,
    /// Again and again, every second or as often as is said.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1s",
        value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// Where the daemon's control socket is.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
}

/// Which sessions.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Client, peer or relayed transport address: an address, a network, or an address with a port.
    #[arg(value_name = "ADDRESS")]
    address: Option<AddressPattern>,
    /// By the client's address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<AddressPattern>,
    /// By the peer's address.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<AddressPattern>,
    /// By the relayed transport address.
    #[arg(long, value_name = "ADDRESS")]
    relayed: Option<AddressPattern>,
    /// By the channel number, such as 0x4000.
    #[arg(long, value_name = "NUMBER")]
    channel: Option<Channel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// The daemon's JSON document.
    Json,
    /// A JSON object for each session, on a line of its own.
    Jsonl,
    /// Fields between tabs, a line for each session.
    Tsv,
}

impl Wanted {
    pub fn selector(&self) -> Selector {
        let Self { address, client, peer, relayed, channel } = *self;
        Selector { address, client, peer, relayed, channel }
    }
}

pub fn run(arguments: &Arguments) -> ExitCode {
    loop {
        let text = match arguments.text() {
            Ok(text) => text,
            Err(error) => return fail_to_ask(&error),
        };
        match show(&text, arguments.watch.is_some()) {
            // The reader of a pipe has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => return fail(&error),
            Ok(()) => {}
        }
        match arguments.watch {
            Some(interval) => thread::sleep(interval.max(SHORTEST_INTERVAL)),
            None => return ExitCode::SUCCESS,
        }
    }
}

/// On a terminal each table takes the place of the one before.
fn show(text: &str, is_watching: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if is_watching && output.is_terminal() {
        output.write_all(CLEAR)?;
    }
    output.write_all(text.as_bytes())?;
    output.flush()
}

impl Arguments {
    fn text(&self) -> Result<String, ClientError> {
        let (socket, wanted) = (&self.control, self.wanted.selector());
        let form = if self.json { Form::Json } else { self.output };
        if form == Form::Json {
            return client::sessions_json(socket, &wanted);
        }
        let document = client::sessions(socket, &wanted)?;
        Ok(match form {
            Form::Table | Form::Json => table::sessions(&document),
            Form::Tsv => table::sessions_tsv(&document),
            Form::Jsonl => {
                let rows = document.sessions.iter().filter_map(|row| serde_json::to_string(row).ok());
                rows.map(|row| row + "\n").collect()
            }
        })
    }
}

/// Home, and everything from there on cleared (ECMA-48).
const CLEAR: &[u8] = b"\x1b[H\x1b[J";
