//! All cells, as a table and as docs/interop.md.

use std::fmt;

use clap::ValueEnum as _;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::cell::{Cell, Half};
use super::client::Client;
use super::install;
use super::server::Server;
use super::together::Together;
use super::verdict::Verdict;
use turn_testkit::machine;

/// What was run.
#[derive(Debug, Serialize)]
pub struct Matrix {
    schema: u32,
    machine: String,
    coturn_of_sid: String,
    servers: Vec<Server>,
    clients: Vec<Client>,
    cells: Vec<Cell>,
}

impl Matrix {
    pub fn new(servers: &[Server], clients: &[Client]) -> Self {
        let (servers, clients) = (servers.to_vec(), clients.to_vec());
        let (machine, coturn_of_sid) = (machine::description(), install::sid_version());
        Self { schema: 1, machine, coturn_of_sid, servers, clients, cells: Vec::new() }
    }

    /// The latest results, if there is one of each server with each client.
    pub fn load() -> Option<Self> {
        let mut matrix = Self::new(Server::value_variants(), Client::value_variants());
        for server in Server::value_variants() {
            for client in Client::value_variants() {
                matrix.cells.push(Cell::load(*server, *client)?);
            }
        }
        Some(matrix)
    }

    pub fn push(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether something works only without turn-bpf.
    pub fn has_faults(&self) -> bool {
        self.cells.iter().any(|cell| cell.verdict.is_fault())
    }

    /// `docs/interop.md`.
    pub fn document(&self) -> String {
        let mut overview = self.overview();
        let mut details = self.details();
        for table in [&mut overview, &mut details] {
            table.load_style(ASCII_MARKDOWN);
        }
        format!(
            "# Servers and clients of others\n\n\
             Written by `cargo xtask interop`, from the latest run of each pair; do not edit.\n\n\
             Stock servers and clients in a network of namespaces, each with each: first without turn-bpf, then with it. A client either \
             talks to a peer that echoes, or to another client of the same server (\"client to client\", \"tab to tab\"). Each sender sends \
             100 packets a second for 4 seconds, of up to 1112 bytes, all different, and what arrives is checked byte by byte (uclient counts \
             only; the browser sends what its codecs make). The share is that of all packets that the server had to relay.\n\n\
             {}; coturn of sid: {}\n\n\
             ## Share relayed in the kernel\n\n\
             `server`: the call works, and the server relays it. `-`: the two do not work together, not even without turn-bpf. The reasons \
             are below.\n\n{overview}\n\n\
             ## Each with each\n\n{details}\n{}",
            self.machine,
            self.coturn_of_sid,
            Together::load().map(|together| together.section()).unwrap_or_default(),
        )
    }

    /// Clients down, servers across.
    fn overview(&self) -> Table {
        let mut table = Table::new();
        let mut header = vec![String::new()];
        header.extend(self.servers.iter().map(|server| server.title().to_owned()));
        table.set_header(header);
        for client in &self.clients {
            let mut row = vec![client.title().to_owned()];
            for server in &self.servers {
                let cell = self.cells.iter().find(|cell| (cell.server, cell.client) == (*server, *client));
                row.push(cell.map(in_short).unwrap_or_default());
            }
            table.add_row(row);
        }
        align(&mut table, 1..=self.servers.len());
        table
    }

    fn details(&self) -> Table {
        let mut table = Table::new();
        table.set_header([
            "server",
            "client",
            "without: arrived",
            "with: arrived",
            "lost",
            "in the kernel",
            "in words",
        ]);
        for cell in &self.cells {
            let arrived = |half: &Half| {
                half.observed.map_or("-".to_owned(), |seen| match seen.altered {
                    0 => format!("{} of {}", seen.received, seen.sent),
                    altered => format!("{} of {}, and {altered} altered", seen.received, seen.sent),
                })
            };
            table.add_row([
                cell.server.title().to_owned(),
                cell.client.title().to_owned(),
                arrived(&cell.without),
                arrived(&cell.with),
                cell.with.observed.map_or("-".to_owned(), |_| cell.with.lost().to_string()),
                cell.with.share().map_or("-".to_owned(), percent),
                // A bar would end the column.
                format!("{}{}", cell.verdict, padding_note(cell)).replace('|', "/").replace('\n', " "),
            ]);
        }
        align(&mut table, 2..=5);
        table
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for mut table in [self.overview(), self.details()] {
            table.load_style(UTF8_FULL_CONDENSED);
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}

/// Of ChannelData the server should relay no more than the declared length (RFC 8656 section 12.4).
fn padding_note(cell: &Cell) -> &'static str {
    let is_altered = |half: &Half| half.observed.is_some_and(|seen| seen.altered > 0);
    match cell.verdict {
        Verdict::Relayed if is_altered(&cell.without) => {
            "; this server relays this client's padding as data, which the kernel does not"
        }
        _ => "",
    }
}

fn in_short(cell: &Cell) -> String {
    match &cell.verdict {
        Verdict::Relayed => cell.with.share().map(percent).unwrap_or_default(),
        Verdict::LeftToServer(_) => "server".into(),
        Verdict::ImpossibleAnyway(_) => "-".into(),
        Verdict::Broken(_) => "BROKEN".into(),
        Verdict::NotRun => String::new(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn align(table: &mut Table, columns: std::ops::RangeInclusive<usize>) {
    for (at, column) in table.column_iter_mut().enumerate() {
        if columns.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
