//! What a configuration of coturn means for turn-bpf.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::Check;

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

    /// Judges it.
    pub(super) fn checks(&self) -> Vec<Check> {
        let check = Check::of("config", SUBJECT);
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

struct Options<'a>(&'a HashMap<String, String>);

impl Options<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
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
    let check = Check::of("max_bps", SUBJECT);
    match options.rate("max-bps") {
        None => check.pass("no limit for each session"),
        Some(rate) => check.warn(
            format!("max-bps={rate}: the server does not see what the kernel relays, and cannot limit it"),
            format!("turn-bpf run --max-rate {rate}: a direction that carries more is left to the server"),
        ),
    }
}

fn bps_capacity(options: &Options<'_>) -> Check {
    let check = Check::of("bps_capacity", SUBJECT);
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
    let check = Check::of("multiplex_peer", SUBJECT);
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
    let check = Check::of("mobility", SUBJECT);
    match options.is_on("mobility") {
        false => check.pass("clients stay where they are"),
        true => check.warn(
            "mobility: allocations of clients that ask for a mobility ticket are left to the server",
            "take out mobility, if no client needs it",
        ),
    }
}

fn listeners(options: &Options<'_>) -> Check {
    let check = Check::of("listeners", SUBJECT);
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

const SUBJECT: &str = "coturn";

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use Outcome::{Fail, Pass, Warn};

    fn checks(text: &str) -> Vec<Check> {
        CoturnConfig { path: "/etc/turnserver.conf".into(), options: Ok(parse(text)) }.checks()
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
            checks("no-udp=false\nmobility=0\nmultiplex-peer=off").iter().all(|check| check.result == Pass)
        );
    }

    #[test]
    fn a_database_may_hold_more() {
        assert!(checks("psql-userdb=\"host=db\"")[0].detail.contains("realms in its database"));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_failure() {
        let checks = CoturnConfig::read(Path::new("/nowhere/turnserver.conf")).checks();
        let [check] = &checks[..] else { panic!("{checks:#?}") };
        assert_eq!(check.result, Fail);
        assert!(check.detail.starts_with("cannot read /nowhere/turnserver.conf: "), "{}", check.detail);
    }
}
