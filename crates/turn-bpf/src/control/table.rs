//! `status` and `sessions` for people: tables that fit a terminal of 100 columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use turn_datapath::Reason;

use super::document::{
    DirectionCounts, InterfaceRow, PacketCounts, SessionCounts, SessionRow, SessionsDocument, StatusDocument,
};
use crate::session_reason::SessionReason;

/// How much of the traffic is relayed in the kernel, and why the rest is not, at one glance; then what is attached, and all
/// counters.
pub fn status(document: &StatusDocument, colours: Colours) -> String {
    let StatusDocument { allocations, bindings, flows, packets, .. } = document;
    let mut text = String::new();
    let _ = writeln!(text, "relayed in the kernel   {}", share(document, colours));
    let rest = the_rest(document).into_iter();
    text.push_str(&beside(
        rest.map(|(reason, _, part)| [part, reason.label().into(), reason.explanation().into()]),
    ));
    let SessionCounts { kernel, mixed, userspace, reasons: why } = &document.sessions;
    let others = match (mixed, userspace) {
        (0, 0) => String::new(),
        (0, userspace) => format!(", {userspace} with the server"),
        (mixed, 0) => format!(", {mixed} only one way"),
        (mixed, userspace) => format!(", {mixed} only one way, {userspace} with the server"),
    };
    let _ = writeln!(text, "sessions in the kernel  {kernel} of {}{others}", kernel + mixed + userspace);
    let words = |label| SessionReason::of_label(label).map(SessionReason::explanation).unwrap_or_default();
    let why = by_count(why).into_iter();
    text.push_str(&beside(why.map(|(label, count)| [count.to_string(), label.into(), words(label).into()])));
    let _ =
        writeln!(text, "flows in the kernel     {} of {} (room for {})", flows.armed, flows.total, flows.max);
    let _ = writeln!(text, "channel bindings        {bindings}, of {}", counted(*allocations, "allocation"));
    for selector in &document.paused {
        let _ = writeln!(text, "paused                  {selector}");
    }
    if let Some(rate) = document.max_rate {
        let _ = writeln!(text, "limit                   {rate} bytes per second, session and direction");
    }
    let sections = [interfaces(document), packet_counts(packets), reasons(document)];
    for section in sections.into_iter().flatten() {
        let _ = write!(text, "\n{}\n", lines(&section));
    }
    text
}

/// Whether text is to be in colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// For a terminal whose user does not object (<https://no-color.org>).
    Yes,
    /// For everything else.
    No,
}

fn share(document: &StatusDocument, colours: Colours) -> String {
    let Some(share) = document.packets.kernel_share() else { return "no packet yet".to_owned() };
    let text = format!("{} of packets", percent(share));
    let text = match (colours, share) {
        (Colours::No, _) => text,
        (Colours::Yes, 0.9..) => format!("{GREEN}{text}{RESET}"),
        (Colours::Yes, 0.5..) => format!("{YELLOW}{text}{RESET}"),
        (Colours::Yes, _) => format!("{RED}{text}{RESET}"),
    };
    match document.bytes.kernel_share() {
        Some(share) => format!("{text}, {} of bytes", percent(share)),
        None => text,
    }
}

/// Packets of known flows that went to the server, by reason, and which part of all they are. The most frequent first.
fn the_rest(document: &StatusDocument) -> Vec<(Reason, u64, String)> {
    let known = document.packets.kernel.saturating_add(document.packets.spilled).max(1);
    let spilled = Reason::ALL.into_iter().filter(|reason| reason.is_spilled());
    let mut rest: Vec<_> = spilled
        .filter_map(|reason| Some((reason, *document.reasons.get(reason.label())?)))
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason, count, percent(count as f64 / known as f64)))
        .collect();
    rest.sort_by_key(|(reason, count, _)| (std::cmp::Reverse(*count), *reason));
    rest.truncate(MOST_CAUSES);
    rest
}

/// How much, what, and what that means, below the second column of the glance.
fn beside(rows: impl Iterator<Item = [String; 3]>) -> String {
    let mut table = table();
    table.set_width(TERMINAL_WIDTH - GLANCE);
    for [amount, label, words] in rows {
        table.add_row([right(amount), Cell::new(label), Cell::new(words)]);
    }
    let lines = table.lines().map(|line| {
        let line = line.strip_prefix(' ').unwrap_or(&line);
        format!("{:width$}{}\n", "", line.trim_end(), width = usize::from(GLANCE))
    });
    if table.is_empty() { String::new() } else { lines.collect() }
}

fn by_count(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(label, count)| (label.as_str(), *count)).collect();
    counts.sort_by_key(|(label, count)| (std::cmp::Reverse(*count), *label));
    counts
}

/// One row for each channel binding, of fields between tabs, for scripts: client, server, relayed transport address, peer,
/// channel, state, reason, age in seconds, then to the peer and to the client each packets and bytes relayed in the kernel and
/// packets and bytes left to the server. Fields are only ever added, at the end.
pub fn sessions_tsv(document: &SessionsDocument) -> String {
    let mut text = String::new();
    for row in &document.sessions {
        let SessionRow { client, server, relayed, peer, channel, state, age_seconds, .. } = row;
        let reason = row.reason.as_deref().unwrap_or("-");
        let _ = write!(
            text,
            "{client}\t{server}\t{relayed}\t{peer}\t{channel}\t{state}\t{reason}\t{age_seconds}"
        );
        for direction in [&row.client_to_peer, &row.peer_to_client] {
            let DirectionCounts { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes } = direction;
            let _ = write!(text, "\t{kernel_packets}\t{kernel_bytes}\t{spilled_packets}\t{spilled_bytes}");
        }
        text.push('\n');
    }
    text
}

/// One row for each channel binding.
pub fn sessions(document: &SessionsDocument) -> String {
    if document.sessions.is_empty() {
        return "no channel bindings\n".to_owned();
    }
    let mut table = table();
    table.set_header([
        Cell::new("CLIENT\nSERVER"),
        Cell::new("RELAYED\nPEER"),
        Cell::new("CHANNEL"),
        right("TO PEER\n(SERVER)"),
        right("TO CLIENT\n(SERVER)"),
        Cell::new("STATE\nREASON"),
    ]);
    for session in &document.sessions {
        table.add_row(session_row(session));
    }
    let legend = "Packets relayed in the kernel, and (in parentheses) left to the server.";
    let reasons: BTreeSet<_> =
        document.sessions.iter().filter_map(|row| SessionReason::of_label(row.reason.as_deref()?)).collect();
    let reasons: Vec<_> =
        reasons.into_iter().map(|reason| format!("{}: {}\n", reason.label(), reason.explanation())).collect();
    format!("{}\n\n{legend}\n{}", lines(&table), reasons.concat())
}

fn session_row(session: &SessionRow) -> [Cell; 6] {
    let SessionRow { client, server, relayed, peer, channel, state, .. } = session;
    let reason = session.reason.as_deref().unwrap_or_default();
    let counts = |direction: &DirectionCounts| {
        right(format!("{}\n({})", direction.kernel_packets, direction.spilled_packets))
    };
    [
        Cell::new(format!("{client}\n{server}")),
        Cell::new(format!("{relayed}\n{peer}")),
        Cell::new(channel),
        counts(&session.client_to_peer),
        counts(&session.peer_to_client),
        Cell::new(format!("{state}\n{reason}")),
    ]
}

fn interfaces(document: &StatusDocument) -> Option<Table> {
    let mut table = table();
    table.set_header([Cell::new("INTERFACE"), Cell::new("MODE"), right("IFINDEX"), Cell::new("BECAUSE")]);
    for InterfaceRow { name, mode, ifindex, mode_reason } in &document.interfaces {
        let because = mode_reason.as_deref().unwrap_or_default();
        table.add_row([Cell::new(name), Cell::new(mode), right(ifindex), Cell::new(because)]);
    }
    (!document.interfaces.is_empty()).then_some(table)
}

fn packet_counts(packets: &PacketCounts) -> Option<Table> {
    let mut table = table();
    table.set_header([right("PACKETS"), Cell::new("WHAT BECAME OF THEM")]);
    let rows = [
        (packets.kernel, "relayed in the kernel"),
        (packets.spilled, "of a known flow, left to the server"),
        (packets.passed, "not of a known flow, left to the server or the host"),
    ];
    for (count, meaning) in rows {
        table.add_row([right(count), Cell::new(meaning)]);
    }
    Some(table)
}

/// Those that happened, the most frequent first.
fn reasons(document: &StatusDocument) -> Option<Table> {
    let happened: Vec<_> = by_count(&document.reasons).into_iter().filter(|(_, count)| *count > 0).collect();
    let mut table = table();
    table.set_header([right("PACKETS"), Cell::new("REASON"), Cell::new("MEANING")]);
    for (name, count) in &happened {
        let reason = Reason::ALL.into_iter().find(|reason| reason.label() == *name);
        let meaning = reason.map(Reason::explanation).unwrap_or_default();
        table.add_row([right(count), Cell::new(name), Cell::new(meaning)]);
    }
    (!happened.is_empty()).then_some(table)
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(TERMINAL_WIDTH);
    table
}

/// The table, without the blanks around it.
fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn right(content: impl ToString) -> Cell {
    Cell::new(content.to_string()).set_alignment(CellAlignment::Right)
}

/// Never rounded up to 100.
fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0).floor() / 100.0;
    format!("{hundredths:.2} %")
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

const TERMINAL_WIDTH: u16 = 100;
/// Width of the first column of the glance.
const GLANCE: u16 = 24;
/// Reasons that are told at a glance.
const MOST_CAUSES: usize = 3;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::{
        super::document::tests::{sessions as some_sessions, status as some_status},
        *,
    };

    #[test]
    fn status_at_a_glance() {
        let expected = "\
relayed in the kernel   99.40 % of packets, 99.40 % of bytes
                        0.60 %  heartbeat  The one packet per heartbeat that shows whether the
                                           server still relays the flow.
sessions in the kernel  4 of 5, 1 with the server
                        1  no_traffic  It has had no traffic yet.
flows in the kernel     9 of 10 (room for 65536)
channel bindings        5, of 3 allocations
paused                  client 198.18.9.0/24
limit                   650000 bytes per second, session and direction

INTERFACE  MODE    IFINDEX  BECAUSE
eth0       native        2
eth1       tc            3  its driver has no native XDP

PACKETS  WHAT BECAME OF THEM
  99400  relayed in the kernel
    600  of a known flow, left to the server
   1234  not of a known flow, left to the server or the host

PACKETS  REASON     MEANING
   1200  no_flow    Belongs to no channel binding that is known.
    600  heartbeat  The one packet per heartbeat that shows whether the server still relays the
                    flow.
     34  not_udp    Not UDP, or behind IPv6 extension headers.
";
        assert_eq!(status(&some_status(), Colours::No), expected);
    }

    #[test]
    fn status_before_the_first_packet() {
        let mut document = some_status();
        (document.packets, document.allocations) = (PacketCounts::default(), 1);
        document.reasons.values_mut().for_each(|count| *count = 0);
        let text = status(&document, Colours::Yes);
        assert!(text.starts_with("relayed in the kernel   no packet yet\n"), "{text}");
        assert!(text.contains("5, of 1 allocation\n"), "{text}");
        assert!(!text.contains("REASON"), "{text}");
    }

    #[test]
    fn colours_change_nothing_else() {
        let coloured = status(&some_status(), Colours::Yes);
        assert!(coloured.contains("\x1b[32m99.40 % of packets\x1b[0m,"), "{coloured:?}");
        let plain = [GREEN, YELLOW, RED, RESET].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, status(&some_status(), Colours::No));
    }

    #[test]
    fn sessions_for_scripts() {
        let expected = "\
198.18.1.2:40000\t198.18.1.1:3478\t198.18.2.1:49160\t198.18.2.2:5000\t0x4000\tkernel\t-\t61\
\t12345\t2469000\t42\t8400\t12001\t2400200\t41\t8200
[2001:db8::2]:40000\t[2001:db8::1]:3478\t198.18.2.1:49161\t198.18.2.2:5001\t0x4fff\tuserspace\tambiguous\t61\
\t0\t0\t7\t1400\t0\t0\t0\t0
";
        assert_eq!(sessions_tsv(&some_sessions()), expected);
    }

    #[test]
    fn sessions_one_row_each() {
        let expected = "\
CLIENT               RELAYED           CHANNEL   TO PEER  TO CLIENT  STATE
SERVER               PEER                       (SERVER)   (SERVER)  REASON
198.18.1.2:40000     198.18.2.1:49160  0x4000      12345      12001  kernel
198.18.1.1:3478      198.18.2.2:5000                (42)       (41)
[2001:db8::2]:40000  198.18.2.1:49161  0x4fff          0          0  userspace
[2001:db8::1]:3478   198.18.2.2:5001                 (7)        (0)  ambiguous

Packets relayed in the kernel, and (in parentheses) left to the server.
ambiguous: Another session has the same packets on the wire, so that neither can be told from the other.
";
        assert_eq!(sessions(&some_sessions()), expected);

        let nothing = SessionsDocument { schema: 1, sessions: Vec::new() };
        assert_eq!(sessions(&nothing), "no channel bindings\n");
    }

    #[test]
    fn the_longest_addresses_fit_the_terminal() {
        let longest = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
        let mut document = some_sessions();
        let session = &mut document.sessions[1];
        (session.client, session.server, session.relayed, session.peer) =
            (longest, longest, longest, longest);
        session.client_to_peer.kernel_packets = 123_456_789_012;
        let text = sessions(&document);
        let (table, _) = text.split_once("\n\n").unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= usize::from(TERMINAL_WIDTH)), "{text}");
        for whole in ["0x4fff", "123456789012", "userspace", "ambiguous"] {
            assert!(text.contains(whole), "{whole} is broken in\n{text}");
        }
    }

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(percent(1.0), "100.00 %");
        assert_eq!(percent(0.999_999), "99.99 %");
        assert_eq!(percent(0.0), "0.00 %");
    }
}
