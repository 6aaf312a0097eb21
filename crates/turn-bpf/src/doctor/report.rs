//! What the doctor says, for people and for scripts.

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

/// The outcome of all checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 1, until a key is removed or gets another meaning.
    pub schema: u32,
    /// In the order in which they are shown.
    pub checks: Vec<Check>,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// Its name, which does not change.
    pub id: &'static str,
    /// What was examined: `host`, or an interface's name.
    pub subject: String,
    /// How it ended.
    pub result: Outcome,
    /// What was found, and why that matters.
    pub detail: String,
    /// What to do, often a command.
    pub mend: Option<String>,
}

/// What checks are about, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The kernel, and what it has been given.
    Kernel,
    /// What this process may do.
    Privileges,
    /// Interfaces and their drivers.
    Interface,
    /// What others have attached to them.
    Coexistence,
    /// The TURN server.
    Server,
    /// What the server's packets pass, and those that the kernel relays do not.
    Firewall,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Works, but less well than it could.
    Warn,
    /// Does not work.
    Fail,
    /// Cannot be told here.
    Skip,
}

impl Report {
    pub(super) fn new(mut checks: Vec<Check>) -> Self {
        checks.sort_by_key(|check| check.group);
        Self { schema: 1, checks }
    }

    /// 1 if anything does not work, else 0.
    pub fn exit_code(&self) -> u8 {
        self.checks.iter().any(|check| check.result == Outcome::Fail).into()
    }

    /// The JSON document, on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// The table, and a last line that sums it up.
    pub fn table(&self, coloured: bool) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(TERMINAL_WIDTH)
            .set_header(["RESULT", "SUBJECT", "CHECK", "DETAIL"]);
        for check in &self.checks {
            let mend = check.mend.as_ref().map(|mend| format!("\nmend: {mend}")).unwrap_or_default();
            let detail = format!("{}{mend}", check.detail);
            table.add_row([
                Cell::new(check.result),
                Cell::new(&check.subject),
                Cell::new(check.id),
                Cell::new(detail),
            ]);
        }
        let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
        let lines = self.with_headings(lines);
        let lines = lines.into_iter().map(|line| if coloured { with_colour(&line) } else { line });
        format!("{}\n\n{}\n", lines.collect::<Vec<_>>().join("\n"), self.summary())
    }

    /// Puts a heading before the first line of each group. Only the first line of a check has no space in front.
    fn with_headings(&self, lines: impl Iterator<Item = String>) -> Vec<String> {
        let mut headed = Vec::new();
        let (mut checks, mut group) = (self.checks.iter(), None);
        for (number, line) in lines.enumerate() {
            if number > 0 && !line.starts_with(' ') {
                let next = checks.next().map(|check| check.group);
                if let Some(heading) = next.filter(|next| group != Some(*next)) {
                    headed.extend([String::new(), format!("{heading:?}")]);
                }
                group = next;
            }
            headed.push(line);
        }
        headed
    }

    fn summary(&self) -> String {
        let count = |wanted| self.checks.iter().filter(|check| check.result == wanted).count();
        let outcomes = [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Skip];
        outcomes.map(|outcome| format!("{} {outcome}", count(outcome))).join(", ")
    }
}

impl Check {
    pub(super) fn pass(self, detail: impl Into<String>) -> Self {
        Self { result: Outcome::Pass, detail: detail.into(), ..self }
    }

    /// Works less well than it could, and nothing can be done about it.
    pub(super) fn warn_only(self, detail: impl Into<String>) -> Self {
        Self { result: Outcome::Warn, detail: detail.into(), ..self }
    }

    pub(super) fn skip(self, detail: impl Into<String>) -> Self {
        Self { result: Outcome::Skip, detail: detail.into(), ..self }
    }

    pub(super) fn warn(self, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { result: Outcome::Warn, detail: detail.into(), mend: Some(mend.into()), ..self }
    }

    pub(super) fn fail(self, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { result: Outcome::Fail, detail: detail.into(), mend: Some(mend.into()), ..self }
    }
}

impl Group {
    /// A check of something by this name, not made yet.
    pub(super) fn check(self, id: &'static str, subject: &str) -> Check {
        let subject = subject.to_owned();
        Check { group: self, id, subject, result: Outcome::Skip, detail: String::new(), mend: None }
    }

    /// A check of the machine, not made yet.
    pub(super) fn check_host(self, id: &'static str) -> Check {
        self.check(id, "host")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// Whether standard output shows colours and its reader wants them, by <https://no-color.org>.
pub fn wants_colour() -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    io::stdout().is_terminal() && !is_unwanted && !is_dumb
}

/// Colours the word with which the line of a check begins.
fn with_colour(line: &str) -> String {
    let coloured =
        [(Outcome::Pass, GREEN), (Outcome::Warn, YELLOW), (Outcome::Fail, RED), (Outcome::Skip, GREY)];
    let found = coloured
        .iter()
        .find_map(|(outcome, colour)| Some((outcome, colour, line.strip_prefix(outcome.word())?)));
    match found {
        Some((outcome, colour, rest)) => format!("{colour}{outcome}{RESET}{rest}"),
        None => line.to_owned(),
    }
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const GREY: &str = "\x1b[90m";
const RESET: &str = "\x1b[0m";

const TERMINAL_WIDTH: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_keys_of_the_contract() {
        let expected = concat!(
            r#"{"schema":1,"checks":["#,
            r#"{"group":"kernel","id":"btf","subject":"host","result":"PASS","detail":"is there","mend":null},"#,
            r#"{"group":"interface","id":"up","subject":"eth0","result":"FAIL","detail":"is down","mend":"ip link set dev eth0 up"}]}"#
        );
        assert_eq!(report().json(), expected);
    }

    #[test]
    fn the_table_gives_the_mend_below_the_detail() {
        let expected = "\
RESULT  SUBJECT  CHECK  DETAIL

Kernel
PASS    host     btf    is there

Interface
FAIL    eth0     up     is down
                        mend: ip link set dev eth0 up

1 PASS, 0 WARN, 1 FAIL, 0 SKIP
";
        assert_eq!(report().table(false), expected);
    }

    #[test]
    fn colours_change_nothing_else() {
        let coloured = report().table(true);
        assert!(coloured.contains("\n\x1b[31mFAIL\x1b[0m    eth0"), "{coloured:?}");
        let plain =
            [GREEN, YELLOW, RED, GREY, RESET].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, report().table(false));
    }

    #[test]
    fn only_a_failure_is_a_failure() {
        assert_eq!(report().exit_code(), 1);
        let check = || Group::Interface.check("mtu", "eth0");
        let others = vec![check().pass(""), check().warn("", ""), check().skip("")];
        assert_eq!(Report::new(others).exit_code(), 0);
    }

    fn report() -> Report {
        let down = Group::Interface.check("up", "eth0").fail("is down", "ip link set dev eth0 up");
        Report::new(vec![down, Group::Kernel.check_host("btf").pass("is there")])
    }
}
