//! `cargo xtask interop`: servers and clients that nobody here wrote, each with each, without and with turn-bpf.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use self::cell::Cell;
use self::client::Client;
use self::matrix::Matrix;
use self::server::Server;
use self::together::Together;
use crate::command::{self, root};
use crate::demo::progress::Progress;
use crate::{interrupt, release};

mod cell;
mod client;
pub mod install;
mod matrix;
pub mod server;
mod together;
mod verdict;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these servers.
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Server>,
    /// Only these clients.
    #[arg(long, value_enum, value_delimiter = ',')]
    clients: Vec<Client>,
    /// Only servers of different makes on one host at the same time, each with a client of its own.
    #[arg(long, conflicts_with_all = ["servers", "clients"])]
    together: bool,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Use this turn-bpf; neither install nor build.
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::catch()?;
    let (mut servers, mut clients) = (chosen(&arguments.servers), chosen(&arguments.clients));
    if arguments.together {
        (servers, clients) = (together::SERVERS.to_vec(), vec![together::CLIENT]);
    }
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => {
            let binary = release::build("interop")?;
            let tools = servers.iter().flat_map(|server| server.tools());
            install::ensure(tools.chain(clients.iter().flat_map(|client| client.tools())).copied())?;
            binary
        }
    };
    if !command::is_root() {
        return release::run_again_as_root(&binary);
    }
    let is_whole = arguments.servers.is_empty() && arguments.clients.is_empty();
    let together = if is_whole { Some(Together::run(&binary)?) } else { None };
    if let Some(together) = &together {
        println!("{together}");
        together.store()?;
    }
    let matrix = match arguments.together {
        true => Matrix::new(&[], &[]),
        false => fill(&servers, &clients, &binary)?,
    };
    if arguments.together {
        // It is printed already.
    } else if arguments.json {
        println!("{}", serde_json::to_string_pretty(&matrix)?);
    } else {
        println!("{matrix}");
    }
    // The document is of the latest result of each, so a part that was run again is renewed in it.
    if let Some(all) = Matrix::load() {
        let path = document_path();
        fs::write(&path, all.document()).with_context(|| path.display().to_string())?;
        eprintln!("interop: docs/interop.md is written");
    }
    let are_faulty = matrix.has_faults() || together.is_some_and(|together| together.has_faults());
    Ok(if are_faulty { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fill(servers: &[Server], clients: &[Client], binary: &Path) -> Result<Matrix> {
    let progress = Progress::new();
    let cells = servers.len() * clients.len();
    progress.line(&format!("interop: {cells} cells, each without and with turn-bpf, about 20 s each"));
    let mut matrix = Matrix::new(servers, clients);
    for server in servers {
        for client in clients {
            interrupt::check()?;
            let cell = Cell::run(*server, *client, binary, &progress)?;
            progress.line(&format!(
                "interop: {} of {cells}: {} with {}: {}",
                matrix.len() + 1,
                server.title(),
                client.title(),
                cell.sentence()
            ));
            cell.store()?;
            matrix.push(cell);
        }
    }
    Ok(matrix)
}

/// All, if none are named.
fn chosen<T: clap::ValueEnum>(named: &[T]) -> Vec<T> {
    if named.is_empty() { T::value_variants().to_vec() } else { named.to_vec() }
}

fn document_path() -> PathBuf {
    root().join("docs/interop.md")
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum as _};

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_was_run_together_is_written_down() {
        let document = fs::read_to_string(document_path()).unwrap();
        let (_, section) = document.split_once("## Servers of different makes on one host").unwrap();
        for server in together::SERVERS {
            assert!(section.contains(server.title()), "{}", server.title());
        }
    }

    #[test]
    fn servers_and_clients_are_named_on_the_command_line() {
        let words = ["interop", "--servers", "turn-rs,coturn-new", "--clients", "chromium-pair", "--json"];
        let arguments = CommandLine::parse_from(words).arguments;
        assert_eq!(arguments.servers, [Server::TurnRs, Server::CoturnNew]);
        assert_eq!(arguments.clients, [Client::ChromiumPair]);
        assert!(CommandLine::try_parse_from(["interop", "--servers", "none"]).is_err());
    }

    /// What is written down is of the servers and clients that there are.
    #[test]
    fn the_document_has_all_of_them() {
        let document = fs::read_to_string(document_path()).unwrap();
        for server in Server::value_variants() {
            for client in Client::value_variants() {
                let row = format!("| {} | {} |", server.title(), client.title());
                let squeezed = document.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(squeezed.contains(&row), "docs/interop.md lacks {row}: run `cargo xtask interop`");
            }
        }
    }
}
