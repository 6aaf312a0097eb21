//! What can be typed, and what comes of it. Exit codes: 0 fine, 1 error, 2 usage, 3 no daemon.

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use turn_bpf::attachment::WantedMode;
use turn_bpf::byte_rate::ByteRate;
use turn_bpf::control::DEFAULT_SOCKET;
use turn_bpf::control::client::{self, ClientError};
use turn_bpf::control::document::{Document as _, StatusDocument};
use turn_bpf::control::event::Event;
use turn_bpf::control::server::Action;
use turn_bpf::control::table::{self, Colours};
use turn_bpf::daemon::{self, Options, SESSION_LOG};
use turn_bpf::doctor::wants_colour;
use turn_bpf::metrics::server::MetricsAddress;
use turn_bpf::pins::{self, DEFAULT_FOLDER, Removed};
use turn_snoop::ListeningPorts;

mod doctor;
mod manual;
mod operate;
mod sessions;

/// Relays the media of a TURN server in the kernel. The server needs no change and is not told.
#[derive(Debug, Parser)]
#[command(name = "turn-bpf", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach to interfaces and offload whatever TURN server is behind them, until told to stop.
    Run(RunArguments),
    /// What is attached, how much is relayed in the kernel, and why the rest is not.
    Status(QueryArguments),
    /// One row for each channel binding.
    Sessions(sessions::Arguments),
    /// Sessions and the kernel's share of the traffic, live.
    Top(TopArguments),
    /// What happens to sessions, as it happens: learned, armed, lapsed, revoked, refused.
    Events(QueryArguments),
    /// Forget sessions, until the server binds their channels again.
    Evict(operate::Arguments),
    /// Have sessions go through the server, those also that come later, until they are resumed.
    Pause(operate::Arguments),
    /// End what `pause` began.
    Resume(operate::Arguments),
    /// Take out of the kernel what `run --keep` has left there.
    Detach(DetachArguments),
    /// What this machine can do; or, with --probe, whether calls through a server work.
    Doctor(doctor::Arguments),
    /// Print what has a shell complete turn-bpf's commands and options.
    Completions(manual::CompletionsArguments),
    /// Write the manual pages into a folder, for who makes packages.
    #[command(hide = true)]
    Man(manual::ManArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Interfaces that clients or peers are reached by.
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Where packets are looked at: in the driver, or in the stack.
    #[arg(long, value_enum, default_value_t = WantedMode::Auto)]
    mode: WantedMode,
    /// How often one packet of each flow goes to the server, to see whether it still relays the flow.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// How long a flow is relayed in the kernel after the server was last seen relaying it.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// Relay from the moment that a channel is bound, for one lease, by the kernel's routing table. Without it the
    /// server's own first packet shows the way.
    #[arg(long)]
    eager: bool,
    /// Adopt calls that are older than turn-bpf as soon as the server is seen relaying them both ways, and not only when their
    /// channels are bound again. Read in ARCHITECTURE.md what that believes.
    #[arg(long)]
    join: bool,
    /// UDP ports at which TURN servers listen: nothing is learned from any other. Without it these are all ports below 32768, which is
    /// right as long as relayed transport addresses have none of them (coturn's min-port).
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    listening_port: Vec<u16>,
    /// Most flows at a time; a channel binding is two.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(2..=4_194_304))]
    max_flows: u32,
    /// Most bytes per second that are relayed in the kernel of one session and direction, such as 650k or 1Mi. A direction
    /// that carries more goes to the server, which has limits of its own, until it carries less.
    #[arg(long, value_name = "RATE")]
    max_rate: Option<ByteRate>,
    /// Where the control socket is to be.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
    /// Serve metrics for Prometheus at this port of this host alone, or at this address and port.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<MetricsAddress>,
    /// Leave all that is attached in the kernel when this ends or is killed. The next turn-bpf goes on with it, leases and counters
    /// included, and no packet is lost in between; `turn-bpf detach` ends it.
    #[arg(long)]
    keep: bool,
    /// Where that is kept, or was by an earlier turn-bpf: a folder in any mounted BPF filesystem, for one turn-bpf alone.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER)]
    pin_dir: PathBuf,
    /// Do not log a line for each session that ends, with its totals.
    #[arg(long)]
    no_session_log: bool,
    /// Do not read USERNAME and REALM from requests, where they are in clear. Without it `sessions` shows
    /// them, and the session log names them.
    #[arg(long)]
    no_usernames: bool,
    /// How the log on standard error is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    /// Every binding and every lease, with the addresses of users.
    Debug,
}

#[derive(Debug, Args)]
struct QueryArguments {
    /// Print the daemon's JSON document.
    #[arg(long)]
    json: bool,
    /// Where the daemon's control socket is.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
}

#[derive(Debug, Args)]
struct DetachArguments {
    /// Where it is kept.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER)]
    pin_dir: PathBuf,
}

#[derive(Debug, Args)]
struct TopArguments {
    /// How often the daemon is asked.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Where the daemon's control socket is.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run_daemon(arguments),
        Command::Status(arguments) => query(&arguments),
        Command::Sessions(arguments) => sessions::run(&arguments),
        Command::Top(arguments) => top(&arguments),
        Command::Events(arguments) => events(&arguments),
        Command::Evict(arguments) => operate::run(Action::Evict, &arguments),
        Command::Pause(arguments) => operate::run(Action::Pause, &arguments),
        Command::Resume(arguments) => operate::run(Action::Resume, &arguments),
        Command::Detach(arguments) => detach(&arguments.pin_dir),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::write(&arguments),
    }
}

fn run_daemon(arguments: RunArguments) -> ExitCode {
    let least = Duration::from_millis(10);
    if arguments.heartbeat < least || arguments.lease <= arguments.heartbeat {
        let message = format!(
            "the lease ({}) must be longer than the heartbeat ({}), and the heartbeat at least {}: a flow whose \
             lease ends before its server can be seen relaying it again would never stay in the kernel",
            humantime::format_duration(arguments.lease),
            humantime::format_duration(arguments.heartbeat),
            humantime::format_duration(least),
        );
        Cli::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
    }
    start_log(arguments.log_format, arguments.log_level, !arguments.no_session_log);
    let options = Options {
        interfaces: arguments.interfaces,
        mode: arguments.mode,
        lease: arguments.lease,
        heartbeat: arguments.heartbeat,
        eager: arguments.eager,
        joins: arguments.join,
        listening_ports: match arguments.listening_port.is_empty() {
            true => ListeningPorts::BelowDynamic,
            false => ListeningPorts::These(arguments.listening_port.into_iter().collect()),
        },
        max_flows: arguments.max_flows,
        max_rate: arguments.max_rate.map(|ByteRate(rate)| rate),
        reads_users: !arguments.no_usernames,
        control: arguments.control,
        metrics: arguments.metrics,
        keeps: arguments.keep,
        pin_dir: arguments.pin_dir,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = runtime.block_on(daemon::run(options, |interfaces| {
        let names: Vec<_> = interfaces.iter().map(|one| format!("{} ({})", one.name, one.mode)).collect();
        // Whoever started us may have closed standard output; that is no reason to stop.
        let _ = writeln!(std::io::stdout(), "turn-bpf is ready: {}", names.join(", "));
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn detach(folder: &Path) -> ExitCode {
    match pins::detach(folder) {
        Ok(Some(Removed { links, maps })) => {
            print(&format!("removed {links} attached programs and {maps} maps, and {}", folder.display()))
        }
        Ok(None) => print(&format!("nothing is kept in {}", folder.display())),
        Err(error) => fail(&error),
    }
}

fn query(arguments: &QueryArguments) -> ExitCode {
    let text = if arguments.json {
        client::fetch_json(&arguments.control, StatusDocument::PATH)
    } else {
        let colours = if wants_colour() { Colours::Yes } else { Colours::No };
        client::fetch(&arguments.control).map(|document| table::status(&document, colours))
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => fail_to_ask(&error),
    }
}

fn top(arguments: &TopArguments) -> ExitCode {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let _ =
            writeln!(std::io::stderr(), "turn-bpf: top needs a terminal; try `turn-bpf sessions --watch`");
        return ExitCode::FAILURE;
    }
    let colours = if wants_colour() { Colours::Yes } else { Colours::No };
    match turn_bpf::top::run(&arguments.control, arguments.interval.max(SHORTEST_INTERVAL), colours) {
        Ok(()) => ExitCode::SUCCESS,
        Err(turn_bpf::top::TopError::Daemon(error)) => fail_to_ask(&error),
        Err(error) => fail(&error),
    }
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

fn events(arguments: &QueryArguments) -> ExitCode {
    let mut output = std::io::stdout().lock();
    let shown = client::events(&arguments.control, |line| {
        let event = || serde_json::from_str::<Event>(line).ok();
        match event().filter(|_| !arguments.json) {
            Some(event) => writeln!(output, "{}", event.line()),
            // What a newer daemon tells is shown as it is.
            None => writeln!(output, "{line}"),
        }
    });
    match shown {
        Ok(Ok(())) => {
            let _ = writeln!(std::io::stderr(), "turn-bpf: the daemon has ended");
            ExitCode::FAILURE
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail_to_ask(&error),
    }
}

fn fail_to_ask(error: &ClientError) -> ExitCode {
    fail(error);
    ExitCode::from(error.exit_code())
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints an error with its causes.
fn fail(error: &dyn Error) -> ExitCode {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "turn-bpf: {message}");
    ExitCode::FAILURE
}

fn start_log(format: LogFormat, level: LogLevel, with_sessions: bool) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    // The libraries' own details are of no use to an operator.
    let ours = Targets::new().with_default(level.min(tracing::Level::WARN)).with_target("turn_bpf", level);
    // What is billed by does not depend on how talkative the rest is.
    let sessions = if with_sessions { LevelFilter::INFO } else { LevelFilter::OFF };
    let ours = ours.with_target(SESSION_LOG, sessions);
    let registry = tracing_subscriber::registry().with(ours);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
}
