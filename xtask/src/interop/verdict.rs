//! What a cell comes to, in words.

use std::fmt;

use serde::Serialize;

use super::cell::{Half, Kernel};
use super::client::Client;
use super::server::Server;

/// From this share on a call counts as relayed in the kernel. Some clients begin with Send indications, which are the server's.
const RELAYED: f64 = 0.5;

/// What it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "reason")]
pub enum Verdict {
    /// Works, and most of it in the kernel.
    Relayed,
    /// Works, but by the server.
    LeftToServer(String),
    /// Does not work, not even without turn-bpf.
    ImpossibleAnyway(String),
    /// Works, and no longer with turn-bpf: a bug.
    Broken(String),
    /// Of no interest.
    NotRun,
}

impl Verdict {
    pub fn of(server: Server, client: Client, without: &Half, with: &Half) -> Self {
        if !client.is_for(server) {
            return Self::NotRun;
        }
        if !without.works() {
            return Self::ImpossibleAnyway(why_impossible(server, client, without));
        }
        let Some(seen) = with.observed else {
            return Self::Broken(with.failure.clone().unwrap_or_default());
        };
        if !with.works() {
            return Self::Broken(format!("{} of {} packets arrived", seen.received, seen.sent));
        }
        if with.damaged() > without.damaged() {
            return Self::Broken(format!("{} packets duplicated, {} altered", seen.duplicated, seen.altered));
        }
        let share = with.share().unwrap_or(0.0);
        if share >= RELAYED {
            return Self::Relayed;
        }
        Self::LeftToServer(with.kernel.as_ref().map(why_left).unwrap_or_default())
    }

    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relayed => f.write_str("relayed in the kernel"),
            Self::LeftToServer(reason) => write!(f, "left to the server: {reason}"),
            Self::ImpossibleAnyway(reason) => write!(f, "does not work, not even without turn-bpf: {reason}"),
            Self::Broken(reason) => write!(f, "WORKS ONLY WITHOUT turn-bpf: {reason}"),
            Self::NotRun => f.write_str("not run: it is for servers that drop silent clients"),
        }
    }
}

/// What is known of servers, or else what the client said.
fn why_impossible(server: Server, client: Client, without: &Half) -> String {
    let is_pair = client.title().contains("client to client") || client == Client::ChromiumPair;
    match (server, &without.failure) {
        (Server::TurnRs, _) if !is_pair => {
            "turn-rs has no relay sockets; it relays only between its own clients".into()
        }
        (Server::Ejabberd, Some(failure)) if failure.contains("error 420") => {
            "ejabberd refuses an attribute of uclient's Allocate (error 420)".into()
        }
        (Server::NodeTurn, _) => "node-turn never relays ChannelData of clients".into(),
        (Server::CoturnNewOptions, Some(failure)) if failure.contains("error 508") => {
            "uclient asks for an even port, which coturn refuses with --multiplex-peer (error 508)".into()
        }
        (Server::CoturnNew | Server::CoturnNewOptions, Some(failure))
            if failure.contains("channel bind: error 400") =>
        {
            "this uclient takes channel numbers above 0x4fff, which newer coturn refuses (error 400)".into()
        }
        (Server::CoturnNewOptions, _) if is_pair => {
            "with --multiplex-peer the two have the same relayed transport address, which is no peer".into()
        }
        (Server::TurnRs, _) if client == Client::ChromiumPair => {
            format!("{}; the browser's ICE or DTLS does not get through turn-rs", said(without))
        }
        _ => said(without),
    }
}

fn said(half: &Half) -> String {
    match (&half.failure, half.observed) {
        (Some(failure), _) => failure.lines().next().unwrap_or_default().to_owned(),
        (None, Some(seen)) => format!("{} of {} packets arrived", seen.received, seen.sent),
        (None, None) => "nothing was observed".into(),
    }
}

fn why_left(kernel: &Kernel) -> String {
    if kernel.bindings_seen == 0 {
        return "no channel was bound; media went in Send and Data indications".into();
    }
    let mut reasons: Vec<_> = kernel.session_reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let why = match reasons.first().map(|(reason, _)| reason.as_str()) {
        Some("no_traffic") | None => "nobody used the channels; media went in Send and Data indications",
        Some("no_witness") => "the server was never seen turning one packet of the channel into another",
        Some(reason) => reason,
    };
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    format!("{why} ({} channels bound; {})", kernel.bindings_seen, reasons.join(", "))
}
