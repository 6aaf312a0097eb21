//! What is run in a guest, and what has to come of it.

use std::path::{Path, PathBuf};

use super::guest::Step;
use super::kernels::Kernel;
use crate::cargo::Executable;

/// Where a refusal ends that is told in plain words.
const FAILURE: i32 = 1;

/// A step, and what has to come of it.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it shows.
    pub name: &'static str,
    pub step: Step,
    pub expected: Expected,
}

/// What has to come of a step.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// It succeeds.
    Success,
    /// It is refused, and says all of this.
    Refusal(&'static [&'static str]),
}

/// The tests and the program.
#[derive(Clone, Debug)]
pub struct Built<'a> {
    /// All test programs.
    pub tests: &'a [Executable],
    /// turn-bpf.
    pub turn_bpf: &'a Path,
    /// Only tests whose names contain one of these, where there are any.
    pub filters: &'a [String],
    /// Only what every run of all tests has time for.
    pub is_quick: bool,
}

/// Tests of the package turn-bpf: the program, what they show, and arguments.
type Tests = (&'static str, &'static str, &'static [&'static str]);

const TESTS: [Tests; 6] = [
    ("program", "packet tables in the kernel", &["--show-output"]),
    (
        "turn_bpf",
        "preflight and netlink",
        &["preflight::", "interfaces::", "xdp_features::", "route::", "host::"],
    ),
    ("startup", "attach, detach, refuse", &["egress::", "interfaces::", "neighbours::"]),
    ("coverage", "calls by coturn", &["--nocapture", "families::every_pair_of_families"]),
    (
        "revocation",
        "calls that end",
        &["--nocapture", "server::a_killed_server_relays_nothing_after_one_lease", "daemon::a_killed_daemon"],
    ),
    // Left out elsewhere, since not every kernel has 802.1Q.
    ("vlan", "calls by VLANs", &["--include-ignored", "--nocapture"]),
];

/// What only kernels without tcx can show.
const FILTERS: Tests =
    ("faults", "filters that outlive a daemon", &["--include-ignored", "--nocapture", "filters::"]);

/// That the kernel takes all programs, and relays what a client says through a stock coturn.
const QUICK: [Tests; 2] = [
    ("program", "all programs", &["--show-output", "verifier::"]),
    (
        "operations",
        "a call by coturn",
        &["--nocapture", "probe::a_call_from_another_machine_is_relayed_in_the_kernel"],
    ),
];

/// Which tests a kernel of this kind is to run.
fn tests(has_tcx: bool, is_quick: bool) -> impl Iterator<Item = &'static Tests> {
    let all: &[Tests] = if is_quick { &QUICK } else { &TESTS };
    all.iter().chain((!has_tcx && !is_quick).then_some(&FILTERS))
}

/// The programs that the checks start.
pub fn programs(built: &Built<'_>) -> Vec<PathBuf> {
    let tests = tests(false, built.is_quick).filter_map(|(name, ..)| built.test(name));
    tests.map(|test| test.path.clone()).chain([built.turn_bpf.to_owned()]).collect()
}

/// All checks for a kernel.
pub fn of(kernel: &Kernel, built: &Built<'_>) -> Vec<Check> {
    if kernel.is_supported { supported(kernel, built) } else { refused(built) }
}

fn supported(kernel: &Kernel, built: &Built<'_>) -> Vec<Check> {
    let tests = tests(kernel.has_tcx, built.is_quick).filter_map(|(name, shows, arguments)| {
        let test = built.test(name)?;
        let mut arguments = arguments.to_vec();
        if !built.filters.is_empty() {
            arguments.retain(|argument| argument.starts_with("--"));
            arguments.extend(built.filters.iter().map(String::as_str));
        }
        let mut step = step(&test.path, &arguments, 900);
        step.arguments.insert(0, "--test-threads=1".into());
        step.folder.clone_from(&test.package);
        step.variables.push(("CARGO_MANIFEST_DIR".into(), test.package.display().to_string()));
        Some(Check { name: shows, step, expected: Expected::Success })
    });
    let loopback = Check {
        name: "loopback is up",
        step: step(Path::new("/bin/sh"), &["-c", "ip link set lo up"], 30),
        expected: Expected::Success,
    };
    std::iter::once(loopback)
        .chain(tests)
        .chain((!kernel.has_tcx).then(|| keeping_is_refused(built)))
        .collect()
}

/// Filters cannot be handed on from one daemon to the next.
fn keeping_is_refused(built: &Built<'_>) -> Check {
    Check {
        name: "run --keep refuses in plain words",
        step: step(built.turn_bpf, &["run", "--keep", "lo"], 30),
        expected: Expected::Refusal(&["--keep needs Linux 6.6", "run without --keep"]),
    }
}

/// A kernel that is too old says so before anything is touched; and it is shown that it would not load the programs.
fn refused(built: &Built<'_>) -> Vec<Check> {
    const LINK: &str =
        "ip link add tb-a type veth peer name tb-b && ip link set tb-a up && ip link set tb-b up";
    let turn_bpf = |name, arguments, parts| Check {
        name,
        step: step(built.turn_bpf, arguments, 30),
        expected: Expected::Refusal(parts),
    };
    let mut checks = vec![
        Check {
            name: "a pair of interfaces",
            step: step(Path::new("/bin/sh"), &["-c", LINK], 30),
            expected: Expected::Success,
        },
        turn_bpf("run refuses in plain words", &["run", "tb-a"], &["kernel", "too old", "or newer"]),
        turn_bpf(
            "doctor fails the kernel's check",
            &["doctor", "tb-a"],
            &["FAIL", "kernel_version", "or newer"],
        ),
    ];
    if let Some(program) = built.test("program") {
        checks.push(Check {
            name: "the programs are refused",
            step: step(&program.path, &["verifier::", "--test-threads=1"], 60),
            expected: Expected::Refusal(&["the kernel does not take"]),
        });
    }
    checks
}

fn step(program: &Path, arguments: &[&str], limit_seconds: u64) -> Step {
    let variables =
        vec![("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned())];
    Step {
        program: program.to_owned(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        folder: "/".into(),
        variables,
        limit_seconds,
    }
}

impl Built<'_> {
    fn test(&self, name: &str) -> Option<&Executable> {
        self.tests.iter().find(|test| test.name == name && test.package.ends_with("turn-bpf"))
    }
}

impl Expected {
    /// What is wrong with how a step ended, if anything is.
    pub fn fault(self, code: Option<i32>, said: &str) -> Option<String> {
        match (self, code) {
            (_, None) => Some("it was killed".into()),
            (Self::Success, Some(0)) => None,
            (Self::Success, Some(code)) => Some(format!("exit code {code}")),
            (Self::Refusal(_), Some(0)) => Some("it succeeded".into()),
            (Self::Refusal(parts), Some(code)) => match parts.iter().find(|part| !said.contains(**part)) {
                Some(part) => Some(format!("it does not say {part:?}")),
                None if code == FAILURE || code == LIBTEST_FAILURE => None,
                None => Some(format!("exit code {code}")),
            },
        }
    }
}

const LIBTEST_FAILURE: i32 = 101;
