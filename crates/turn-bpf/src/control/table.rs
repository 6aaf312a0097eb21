//! `status` and `sessions` for people: tables that fit a terminal of 100 columns.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::document::{DirectionCounts, PacketCounts, SessionRow, SessionsDocument, StatusDocument};

/// What is attached, how much is relayed in the kernel, and why the rest is not. `explain` gives a short sentence for a
/// reason's name.
pub fn status(document: &StatusDocument, explain: impl Fn(&str) -> Option<&'static str>) -> String {
    let StatusDocument { allocations, bindings, flows, packets, .. } = document;
    let share = packets.kernel_share().map_or_else(|| "no packet yet".to_owned(), percent);
    let mut text = String::new();
    let _ = writeln!(text, "relayed in the kernel   {share}");
    let _ =
        writeln!(text, "flows in the kernel     {} of {} (room for {})", flows.armed, flows.total, flows.max);
    let _ = writeln!(text, "channel bindings        {bindings}, of {}", counted(*allocations, "allocation"));
    let sections = [interfaces(document), packet_counts(packets), reasons(document, explain)];
    for section in sections.into_iter().flatten() {
        let _ = write!(text, "\n{}\n", lines(&section));
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
    format!("{}\n\n{legend}\n", lines(&table))
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
    table.set_header([Cell::new("INTERFACE"), Cell::new("MODE"), right("IFINDEX")]);
    for interface in &document.interfaces {
        table.add_row([Cell::new(&interface.name), Cell::new(interface.mode), right(interface.ifindex)]);
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
fn reasons(document: &StatusDocument, explain: impl Fn(&str) -> Option<&'static str>) -> Option<Table> {
    let mut happened: Vec<_> = document.reasons.iter().filter(|(_, count)| **count > 0).collect();
    happened.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    let mut table = table();
    table.set_header([right("PACKETS"), Cell::new("REASON"), Cell::new("MEANING")]);
    for (name, count) in &happened {
        table.add_row([right(count), Cell::new(name), Cell::new(explain(name).unwrap_or_default())]);
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

#[cfg(test)]
mod tests {
    use super::{
        super::document::tests::{sessions as some_sessions, status as some_status},
        *,
    };

    #[test]
    fn status_at_a_glance() {
        let expected = "\
relayed in the kernel   99.40 %
flows in the kernel     9 of 10 (room for 65536)
channel bindings        5, of 3 allocations

INTERFACE  MODE     IFINDEX
eth0       native         2
eth1       generic        3

PACKETS  WHAT BECAME OF THEM
  99400  relayed in the kernel
    600  of a known flow, left to the server
   1234  not of a known flow, left to the server or the host

PACKETS  REASON     MEANING
   1200  no_flow    no channel binding is known for it
    600  heartbeat  one packet per heartbeat goes to the server, whose answer renews the lease
     34  not_udp
";
        assert_eq!(status(&some_status(), explain), expected);
    }

    #[test]
    fn status_before_the_first_packet() {
        let mut document = some_status();
        (document.packets, document.allocations) = (PacketCounts::default(), 1);
        document.reasons.values_mut().for_each(|count| *count = 0);
        let text = status(&document, explain);
        assert!(text.starts_with("relayed in the kernel   no packet yet\n"), "{text}");
        assert!(text.contains("5, of 1 allocation\n"), "{text}");
        assert!(!text.contains("REASON"), "{text}");
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
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(TERMINAL_WIDTH)), "{text}");
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

    fn explain(reason: &str) -> Option<&'static str> {
        match reason {
            "no_flow" => Some("no channel binding is known for it"),
            "heartbeat" => Some("one packet per heartbeat goes to the server, whose answer renews the lease"),
            _ => None,
        }
    }
}
