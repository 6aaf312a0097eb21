//! What packages bring besides the binary: manual pages and completions, both made from the command line's own description.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, fail};

/// System management commands, most of which need root.
const SECTION: &str = "8";

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// An existing folder.
    folder: PathBuf,
}

pub fn completions(arguments: &CompletionsArguments) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "turn-bpf", &mut text);
    // Of two ways in which clap_complete 4.6 names a function of bash's, one takes the hyphen of "turn-bpf" for the start of a subcommand.
    let text = String::from_utf8_lossy(&text).replace("turn__subcmd__bpf", "turn__bpf");
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Writes turn-bpf(8), and a page for each of its commands.
pub fn write(arguments: &ManArguments) -> ExitCode {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in std::iter::once(whole.clone()).chain(commands.collect::<Vec<_>>()) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let path = arguments.folder.join(format!("{name}.{SECTION}"));
        if let Err(error) = page(&name, command).and_then(|page| fs::write(&path, page)) {
            let _ = writeln!(std::io::stderr(), "turn-bpf: cannot write {}", path.display());
            return fail(&error);
        }
    }
    ExitCode::SUCCESS
}

fn page(name: &str, command: clap::Command) -> std::io::Result<Vec<u8>> {
    let is_whole = command.get_name() == "turn-bpf";
    let has_subcommands = command.has_subcommands();
    let source = concat!("turn-bpf ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).title(name).section(SECTION).source(source).manual("System Administration");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    if is_whole {
        list(&mut roff, "FILES", &FILES);
        list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    }
    list(&mut roff, "EXIT STATUS", &EXIT_CODES);
    list(&mut roff, "SIGNALS", if is_whole { &SIGNALS } else { &[] });
    roff.control("SH", ["SEE ALSO"]);
    if is_whole {
        roff.text([
            bold("turnserver"),
            roman("(1), "),
            bold("tc"),
            roman("(8), "),
            bold("ip-link"),
            roman("(8)"),
        ]);
    } else {
        roff.text([bold("turn-bpf"), roman("(8)")]);
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn list(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    if rows.is_empty() {
        return;
    }
    roff.control("SH", [heading]);
    for (term, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

const FILES: [(&str, &str); 4] = [
    (
        "/etc/default/turn-bpf",
        "The interfaces and options that turn-bpf.service runs with. Without an interface it does not start.",
    ),
    (
        "/run/turn-bpf/control.sock",
        "The control socket, which root and the socket's group may use: HTTP and JSON.",
    ),
    ("/sys/fs/bpf/turn-bpf", "What run --keep leaves in the kernel, and detach removes."),
    ("/sys/kernel/btf/vmlinux", "The kernel's types, without which turn-bpf does not run."),
];

const ENVIRONMENT: [(&str, &str); 3] = [
    ("NO_COLOR", "Where it is set, nothing is printed in colours."),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Where the service manager sets them, run tells it when it is ready, what it does, and that it is alive.",
    ),
    (
        "TURN_BPF_PASSWORD",
        "The password for doctor --probe, where neither --password-file nor --password is given.",
    ),
];

const EXIT_CODES: [(&str, &str); 4] = [
    ("0", "Fine."),
    ("1", "An error, or doctor has found something that keeps turn-bpf from working."),
    ("2", "The command line is wrong."),
    ("3", "There is no daemon at the control socket."),
];

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "run detaches from all interfaces and ends; calls go on through the server. With --keep it stays attached.",
    ),
    (
        "SIGKILL",
        "The kernel detaches it, and calls go on through the server. With --keep all stays attached.",
    ),
];
