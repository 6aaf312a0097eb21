//! `turn-bpf doctor`: of this machine, or, with `--probe`, of a server by a call through it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use turn_bpf::control::DEFAULT_SOCKET;
use turn_bpf::doctor::probe::{self, ProbeOptions, SMALLEST, TurnUri};
use turn_bpf::doctor::{self, CoturnConfig, Subject};

use super::{Cli, fail, print};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Interfaces to look at.
    #[arg(required_unless_present_any = ["coturn_config", "probe"], value_name = "IFACE")]
    interfaces: Vec<String>,
    /// A configuration of coturn: what of it does not hold for what is relayed in the kernel. Without it that of the
    /// server that runs.
    #[arg(long, value_name = "FILE")]
    coturn_config: Option<PathBuf>,
    /// The server's port, where it is neither the usual one (3478) nor in coturn's configuration.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// As for `turn-bpf run`: most flows at a time.
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(2..=4_194_304))]
    max_flows: u32,
    #[command(flatten)]
    probe: ProbeArguments,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A call through a server")]
struct ProbeArguments {
    /// Have a call through this server, such as turn:turn.example.org:3478, with a client and a peer of its own: from
    /// another machine than the server's, so that the kernel can relay it.
    #[arg(long, value_name = "URI", requires = "user", conflicts_with_all = ["interfaces", "coturn_config"])]
    probe: Option<TurnUri>,
    /// The user's name.
    #[arg(long, value_name = "NAME", requires = "probe")]
    user: Option<String>,
    /// A file with the user's password in its first line. Without it the environment variable TURN_BPF_PASSWORD is
    /// the password.
    #[arg(long, value_name = "FILE", requires = "probe", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// The user's password. Everybody on this machine can see it there.
    #[arg(long, value_name = "PASSWORD", requires = "probe")]
    password: Option<String>,
    /// How many packets are sent.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Packets per second.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Bytes of application data in each.
    #[arg(long, value_name = "BYTES", default_value_t = 160, value_parser = clap::value_parser!(u16).range(i64::from(SMALLEST)..=1400))]
    size: u16,
    /// Where the control socket of the server's turn-bpf is, for the kernel's share; it may be a forwarded one.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    control: PathBuf,
}

/// Does what the command line says.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match &arguments.probe.probe {
        Some(server) => runtime.block_on(have_a_call(server, arguments)),
        None => runtime.block_on(examine(arguments)),
    }
}

async fn examine(arguments: &Arguments) -> ExitCode {
    let subject = Subject {
        interfaces: arguments.interfaces.clone(),
        coturn: arguments.coturn_config.as_deref().map(CoturnConfig::read),
        port: arguments.port,
        max_flows: arguments.max_flows,
    };
    match doctor::examine(&subject).await {
        Ok(report) => {
            let text = if arguments.json { report.json() } else { report.table(doctor::wants_colour()) };
            show(&text, report.exit_code())
        }
        Err(error) => fail(&error),
    }
}

async fn have_a_call(server: &TurnUri, arguments: &Arguments) -> ExitCode {
    let ProbeArguments { user, count, rate, size, control, .. } = &arguments.probe;
    let options = ProbeOptions {
        server: server.clone(),
        user: user.clone().unwrap_or_default(),
        password: arguments.probe.password(),
        count: *count,
        rate: *rate,
        size: *size,
        control: control.clone(),
    };
    let is_silent = arguments.json;
    let report = probe::run(&options, |ends| {
        let seconds = count.div_ceil(*rate);
        if !is_silent {
            let _ = writeln!(
                std::io::stderr(),
                "a call of {seconds} s; on the server, turn-bpf sessions --client {} shows it",
                ends.client
            );
        }
    });
    let report = report.await;
    show(&if arguments.json { report.json() } else { report.table() }, report.exit_code())
}

fn show(text: &str, exit_code: u8) -> ExitCode {
    print(text);
    ExitCode::from(exit_code)
}

impl ProbeArguments {
    fn password(&self) -> String {
        let from_file = self.password_file.as_deref().map(read_password);
        let from_environment = || std::env::var("TURN_BPF_PASSWORD").ok();
        from_file.or_else(|| self.password.clone()).or_else(from_environment).unwrap_or_else(|| {
            let message =
                "a password is needed: --password-file FILE, or the environment variable TURN_BPF_PASSWORD";
            Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit()
        })
    }
}

fn read_password(path: &Path) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
        Err(error) => {
            let message = format!("cannot read the password file {}: {error}", path.display());
            Cli::command().error(ErrorKind::Io, message).exit()
        }
    }
}
