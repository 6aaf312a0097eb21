//! What a configuration of coturn means for turn-bpf.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use turn_snoop::ListeningPorts;

use super::{Check, Group};

/// A configuration, or why there is none.
#[derive(Debug, Clone)]
pub struct CoturnConfig {
    path: String,
    /// The last value of each option, as in coturn; empty where it has none.
    options: Result<HashMap<String, String>, String>,
}

impl CoturnConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let options = fs::read_to_string(path).map(|text| parse(&text)).map_err(|error| error.to_string());
        Self { path: path.display().to_string(), options }
    }

    /// Reads what a running turnserver was started with. None where it was started without a file, or is something else.
    pub fn of_process(pid: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = text.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let (program, arguments) = words.split_first()?;
        if !program.ends_with("turnserver") {
            return None;
        }
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        let given = from_arguments(&arguments);
        // It may live in another mount namespace than we do.
        let in_its_root = |path: &Path| {
            Path::new("/proc").join(pid.to_string()).join(match path.strip_prefix("/") {
                Ok(below) => Path::new("root").join(below),
                Err(_) => Path::new("cwd").join(path),
            })
        };
        let named = given.get("config").map(PathBuf::from);
        let has_none = arguments.contains(&"-n");
        let usual = || USUAL_PLACES.iter().map(PathBuf::from).find(|path| in_its_root(path).exists());
        let file = named.or_else(usual).filter(|_| !has_none);
        let path = match &file {
            Some(file) => format!("{} and the command line of pid {pid}", file.display()),
            None => format!("the command line of pid {pid}"),
        };
        let read = file.map_or(Ok(String::new()), |file| fs::read_to_string(in_its_root(&file)));
        let options = read.map(|text| {
            let mut options = parse(&text);
            options.extend(given);
            options
        });
        Some(Self { path, options: options.map_err(|error| error.to_string()) })
    }

    /// Where it listens by UDP.
    pub fn port(&self) -> Option<u16> {
        Options(self.options.as_ref().ok()?).port("listening-port")
    }

    /// Ports that it relays on.
    pub fn relay_ports(&self) -> Option<RangeInclusive<u16>> {
        let options = Options(self.options.as_ref().ok()?);
        Some(options.port("min-port").unwrap_or(MIN_PORT)..=options.port("max-port").unwrap_or(65_535))
    }

    /// Judges it. `addresses` are this host's.
    pub(super) fn checks(&self, addresses: &[IpAddr]) -> Vec<Check> {
        let check = Group::Server.check("config", SUBJECT);
        let options = match &self.options {
            Ok(options) => Options(options),
            Err(error) => {
                let detail = format!("cannot read {}: {error}", self.path);
                return vec![check.fail(detail, "name coturn's own file, often /etc/turnserver.conf")];
            }
        };
        let databases =
            ["userdb", "psql-userdb", "mysql-userdb", "mongo-userdb", "redis-userdb", "sql-userdb"];
        let elsewhere = match databases.iter().any(|option| options.text(option).is_some()) {
            true => "; realms in its database may have limits of their own",
            false => "",
        };
        let read = check.pass(format!("{}{elsewhere}", self.path));
        vec![
            read,
            max_bps(&options),
            bps_capacity(&options),
            multiplex_peer(&options),
            mobility(&options),
            listeners(&options),
            ports(&options),
            external_ip(&options, addresses),
        ]
    }
}

/// What a line says, in the way that coturn reads it: `name=value`, `name value` or `name`, and nothing behind a `#` at its
/// start.
fn parse(text: &str) -> HashMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let options = lines.map(|line| {
        let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
        let (name, value) = line.split_at(end);
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
        (name.trim_start_matches('-').to_owned(), value.trim_matches('"').to_owned())
    });
    options.collect()
}

/// What a command line says, by the options' long names. Of the short ones those that matter here.
fn from_arguments(arguments: &[&str]) -> HashMap<String, String> {
    let mut options = HashMap::new();
    let mut words = arguments.iter().copied().peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| {
            let (_, long) = SHORT_OPTIONS.iter().find(|(short, _)| *short == word)?;
            Some(long)
        }) else {
            continue;
        };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (name, words.next_if(|next| !next.starts_with('-')).unwrap_or_default().to_owned()),
        };
        options.insert(name.to_owned(), value);
    }
    options
}

struct Options<'a>(&'a HashMap<String, String>);

impl Options<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.text(name)?.parse().ok()
    }

    /// Bytes per second above zero, which means none.
    fn rate(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok().filter(|rate| *rate > 0)
    }

    fn is_on(&self, name: &str) -> bool {
        let off = ["0", "n", "no", "off", "f", "false"];
        self.text(name).is_some_and(|value| !off.contains(&value.to_ascii_lowercase().as_str()))
    }
}

fn max_bps(options: &Options<'_>) -> Check {
    let check = Group::Server.check("max_bps", SUBJECT);
    match options.rate("max-bps") {
        None => check.pass("no limit for each session"),
        Some(rate) => check.warn(
            format!("max-bps={rate}: the server does not see what the kernel relays, and cannot limit it"),
            format!("turn-bpf run --max-rate {rate}: a direction that carries more is left to the server"),
        ),
    }
}

fn bps_capacity(options: &Options<'_>) -> Check {
    let check = Group::Server.check("bps_capacity", SUBJECT);
    match options.rate("bps-capacity") {
        None => check.pass("no limit for all sessions together"),
        Some(rate) => check.warn(
            format!(
                "bps-capacity={rate}: a limit for all sessions together, of which the server hardly sees any; turn-bpf \
                 has none of that kind"
            ),
            "turn-bpf run --max-rate with a share of it for each session; or limit the interface (tc)",
        ),
    }
}

fn multiplex_peer(options: &Options<'_>) -> Check {
    let check = Group::Server.check("multiplex_peer", SUBJECT);
    match options.is_on("multiplex-peer") {
        false => check.pass("each session has a relay socket of its own"),
        true => check.warn(
            "multiplex-peer: sessions share relay sockets, so that none is closed when a session ends; an end without a \
             word on the wire is noticed one lease later",
            "turn-bpf run --lease with a shorter time, where that matters",
        ),
    }
}

fn mobility(options: &Options<'_>) -> Check {
    let check = Group::Server.check("mobility", SUBJECT);
    match options.is_on("mobility") {
        false => check.pass("clients stay where they are"),
        true => check.warn(
            "mobility: allocations of clients that ask for a mobility ticket are left to the server",
            "take out mobility, if no client needs it",
        ),
    }
}

fn listeners(options: &Options<'_>) -> Check {
    let check = Group::Server.check("listeners", SUBJECT);
    let off = ["no-udp", "no-udp-relay"].into_iter().find(|option| options.is_on(option));
    match off {
        None => {
            check.pass("clients can come by plain UDP; those by TCP, TLS and DTLS are left to the server")
        }
        Some(option) => check.warn(
            format!("{option}: only plain UDP is offloaded, on both sides, so that nothing will be"),
            format!("take out {option}"),
        ),
    }
}

/// A relayed transport address must not be taken for a listener: a client can have the server send any bytes from it.
fn ports(options: &Options<'_>) -> Check {
    let check = Group::Server.check("ports", SUBJECT);
    let listening = options.port("listening-port").unwrap_or(LISTENING_PORT);
    let relayed = options.port("min-port").unwrap_or(MIN_PORT);
    let by_default = ListeningPorts::default();
    let mend = format!("turn-bpf run --listening-port {listening}");
    match (by_default.may_be(listening), by_default.may_be(relayed)) {
        (true, false) => check.pass(format!("listens at {listening}, and relays from {relayed} on")),
        (true, true) => check.warn(
            format!(
                "min-port={relayed}: what clients have the server send from its relayed transport addresses could be taken for its own \
                 responses"
            ),
            mend,
        ),
        (false, _) => check.warn(
            format!("listening-port={listening}: ports from 32768 on are taken for those of relayed transport addresses"),
            mend,
        ),
    }
}

/// turn-bpf goes by the addresses on the wire, whatever the server tells its clients. But what it tells them has to lead here.
fn external_ip(options: &Options<'_>, addresses: &[IpAddr]) -> Check {
    let check = Group::Server.check("external_ip", SUBJECT);
    let Some(value) = options.text("external-ip") else {
        return check.pass("clients are told addresses of this host");
    };
    let (public, private) = value.split_once('/').unwrap_or((value, ""));
    match private.parse::<IpAddr>() {
        Ok(private) if !addresses.contains(&private) => check.warn(
            format!("external-ip={value}: {private} is no address of this network namespace, so that the mapping does nothing"),
            format!("external-ip={public}/ADDRESS, with one that ip address shows"),
        ),
        _ => check.pass(format!("external-ip={value}: clients are told that; turn-bpf goes by the addresses on the wire")),
    }
}

const SUBJECT: &str = "coturn";
/// What coturn takes where nothing is said.
const LISTENING_PORT: u16 = 3478;
const MIN_PORT: u16 = 49_152;
/// Where coturn looks, from the Debian package and from its own build.
const USUAL_PLACES: [&str; 3] =
    ["/etc/turnserver.conf", "/etc/coturn/turnserver.conf", "/usr/local/etc/turnserver.conf"];
const SHORT_OPTIONS: [(&str, &str); 5] = [
    ("-c", "config"),
    ("-p", "listening-port"),
    ("-X", "external-ip"),
    ("-s", "max-bps"),
    ("-B", "bps-capacity"),
];

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use Outcome::{Fail, Pass, Warn};

    fn checks(text: &str) -> Vec<Check> {
        let addresses = ["198.18.1.1".parse().unwrap()];
        CoturnConfig { path: "/etc/turnserver.conf".into(), options: Ok(parse(text)) }.checks(&addresses)
    }

    #[test]
    fn an_ordinary_configuration_passes() {
        let text =
            "# a comment\nlistening-port=3478\nlt-cred-mech\nuser-quota=12\n#max-bps=1000\nbps-capacity=0\n";
        let checks = checks(text);
        assert!(checks.iter().all(|check| check.result == Pass), "{checks:#?}");
        assert_eq!(checks[0].detail, "/etc/turnserver.conf");
    }

    #[test]
    fn what_a_bypass_breaks_is_said() {
        let cases = [
            ("max-bps=650000", "max_bps", "max-bps=650000", "--max-rate 650000"),
            ("max-bps=0\nmax-bps = 3000000", "max_bps", "max-bps=3000000", "--max-rate 3000000"),
            ("max-bps 64000", "max_bps", "max-bps=64000", "--max-rate 64000"),
            ("bps-capacity=\"125000000\"", "bps_capacity", "bps-capacity=125000000", "--max-rate"),
            ("multiplex-peer", "multiplex_peer", "one lease later", "--lease"),
            ("mobility=true", "mobility", "left to the server", "take out mobility"),
            ("  no-udp  ", "listeners", "nothing will be", "take out no-udp"),
            (
                "external-ip=203.0.113.1/10.0.0.7",
                "external_ip",
                "10.0.0.7 is no address",
                "external-ip=203.0.113.1/",
            ),
            ("min-port=10000", "ports", "min-port=10000: what clients", "--listening-port 3478"),
            ("listening-port=40000", "ports", "listening-port=40000", "--listening-port 40000"),
            ("no-udp-relay=1", "listeners", "nothing will be", "take out no-udp-relay"),
        ];
        for (text, id, detail, mend) in cases {
            let checks = checks(text);
            let warnings: Vec<_> = checks.iter().filter(|check| check.result != Pass).collect();
            let [check] = warnings[..] else { panic!("{text}: {warnings:#?}") };
            assert_eq!((check.id, check.result), (id, Warn), "{text}");
            assert!(check.detail.contains(detail), "{text}: {}", check.detail);
            assert!(
                check.mend.as_ref().is_some_and(|found| found.contains(mend)),
                "{text}: {:?}",
                check.mend
            );
        }
        assert!(
            checks("no-udp=false\nmobility=0\nmultiplex-peer=off\nexternal-ip=203.0.113.1/198.18.1.1")
                .iter()
                .all(|check| check.result == Pass)
        );
    }

    #[test]
    fn a_command_line_says_the_same() {
        let arguments = [
            "-n",
            "-a",
            "--max-bps=650000",
            "-p",
            "5000",
            "-L",
            "198.18.1.1",
            "--multiplex-peer",
            "--min-port",
            "60000",
        ];
        let config = CoturnConfig { path: String::new(), options: Ok(from_arguments(&arguments)) };
        assert_eq!((config.port(), config.relay_ports()), (Some(5000), Some(60_000..=65_535)));
        let warnings: Vec<_> = config.checks(&[]).into_iter().filter(|check| check.result == Warn).collect();
        let ids: Vec<_> = warnings.iter().map(|check| check.id).collect();
        assert_eq!(ids, ["max_bps", "multiplex_peer"]);
        assert_eq!(CoturnConfig::of_process(std::process::id()).map(|config| config.path), None, "a test");
    }

    #[test]
    fn a_database_may_hold_more() {
        assert!(checks("psql-userdb=\"host=db\"")[0].detail.contains("realms in its database"));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_failure() {
        let checks = CoturnConfig::read(Path::new("/nowhere/turnserver.conf")).checks(&[]);
        let [check] = &checks[..] else { panic!("{checks:#?}") };
        assert_eq!(check.result, Fail);
        assert!(check.detail.starts_with("cannot read /nowhere/turnserver.conf: "), "{}", check.detail);
    }
}
