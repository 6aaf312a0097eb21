//! Flows that carry more than may be relayed in the kernel (`--max-rate`).

use turn_datapath::{LeaseTerms, Reason};

use super::draft::Draft;
use super::lease::noted;
use super::subject::{Subject, data};
use super::{Case, MILLISECOND, NOW, SECOND};

/// 100,000 bytes per second: one byte takes ten microseconds.
pub const TERMS: LeaseTerms = LeaseTerms { rate_cost: turn_datapath::rate::cost(100_000), ..super::TERMS };

/// Over its rate a flow is the server's as a whole, and nothing else of it changes.
pub fn over_its_rate_a_flow_is_the_servers() -> Vec<Case> {
    const TAKES: u64 = MILLISECOND;
    let mut cases = Vec::new();
    for subject in Subject::all() {
        // With the header of ChannelData that makes a hundred bytes, on whichever side it is.
        let data = data(96);
        let frame = subject.packet(&data).build();
        let within = [
            ("the first ever", 0, NOW + TAKES),
            ("long idle", NOW - SECOND, NOW + TAKES),
            ("busy", NOW + 300 * MILLISECOND, NOW + 300 * MILLISECOND + TAKES),
            ("the last that fits", NOW + SECOND - TAKES, NOW + SECOND),
        ];
        for (name, before, after) in within {
            let flow = subject.but(|flow| flow.busy_until = before);
            let case = Draft::received(name, &flow, frame.clone()).relayed();
            cases.push(case.leaves(|flow| flow.busy_until = after));
        }
        let over = [
            ("one nanosecond too much", NOW + SECOND - TAKES + 1, NOW + SECOND + 1),
            ("still too much", NOW + SECOND + 500 * MILLISECOND, NOW + SECOND + 501 * MILLISECOND),
            ("arrears have an end", NOW + 2 * SECOND, NOW + 2 * SECOND),
        ];
        for (name, before, after) in over {
            let flow = subject.but(|flow| flow.busy_until = before);
            let case = Draft::received(name, &flow, frame.clone()).passes(Reason::OverRate);
            cases.push(noted(case, &data).leaves(|flow| flow.busy_until = after));
        }

        let overdue = subject.but(|flow| {
            flow.heartbeat_at = NOW;
            flow.busy_until = NOW + 2 * SECOND;
        });
        let case = Draft::received("a heartbeat can wait", &overdue, frame.clone()).passes(Reason::OverRate);
        cases.push(noted(case, &data));
        let unarmed = subject.but(|flow| {
            flow.lease_until = 0;
            flow.busy_until = NOW + 2 * SECOND;
        });
        let case = Draft::received("without a lease", &unarmed, frame).passes(Reason::NoLease);
        cases.push(noted(case, &data));
    }
    cases
}
