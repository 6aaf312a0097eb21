//! `evict`, `pause` and `resume`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use turn_bpf::control::document::ActionDocument;
use turn_bpf::control::server::Action;
use turn_bpf::control::{DEFAULT_SOCKET, client};

use super::sessions::Wanted;
use super::{Cli, fail_to_ask, print};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// All sessions.
    #[arg(long)]
    all: bool,
    /// Print the daemon's JSON document.
    #[arg(long)]
    json: bool,
    /// Where the daemon's control socket is.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
}

pub fn run(action: Action, arguments: &Arguments) -> ExitCode {
    let wanted = arguments.wanted.selector();
    if wanted.is_all() != arguments.all {
        let message = match arguments.all {
            true => "--all and a choice of sessions contradict each other",
            false => "say which sessions: by ADDRESS, --client, --peer, --relayed, --channel, or --all",
        };
        Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    let text = if arguments.json {
        client::act_json(&arguments.control, action, &wanted)
    } else {
        client::act(&arguments.control, action, &wanted).map(|document| words(action, &document))
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => fail_to_ask(&error),
    }
}

fn words(action: Action, document: &ActionDocument) -> String {
    let ActionDocument { sessions, paused, .. } = document;
    let done = match action {
        Action::Evict => "evicted",
        Action::Pause => "paused",
        Action::Resume => "resumed",
    };
    let plural = if *sessions == 1 { "" } else { "s" };
    let rules: Vec<_> = paused.iter().map(|selector| format!("\nstill paused: {selector}")).collect();
    let rules = if action == Action::Resume { rules.concat() } else { String::new() };
    format!("{sessions} session{plural} {done}{rules}")
}
