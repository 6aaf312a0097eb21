//! Of what this process may do.

use super::super::{Check, Facts, Group};

/// All of these.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![privileges(facts)]
}

fn privileges(facts: &Facts) -> Check {
    let check = Group::Privileges.check_host("privileges");
    if !facts.privileges.is_initial_user_namespace {
        return check.fail(
            "this is a user namespace (a rootless container?), whose capabilities do not count for BPF",
            "run turn-bpf outside it",
        );
    }
    let missing = facts.privileges.missing();
    if missing.is_empty() {
        return check.pass("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
    }
    check.fail(
        format!("{} missing, without which programs cannot be loaded or attached", missing.join(", ")),
        "run as root, or with AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
    )
}
