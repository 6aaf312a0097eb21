//! What is said of a call, for people and for scripts.

use std::error::Error as _;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::share::{OWN_MACHINE, Share};
use super::{Ends, Failure, Figures, ProbeOptions};

/// How a call went, or why there was none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeReport {
    /// 1, until a key is removed or gets another meaning.
    pub schema: u32,
    /// The server that was asked for.
    pub server: String,
    /// The address that it was reached at.
    pub address: Option<SocketAddr>,
    /// What it calls itself.
    pub software: Option<String>,
    /// Whether a call works.
    pub works: bool,
    /// Why it does not, or why it ended early.
    pub error: Option<ReportedFailure>,
    /// Client, relayed transport address and peer, as the server sees them.
    pub ends: Option<Ends>,
    /// Packets per second that were to be sent.
    pub rate: u32,
    /// Bytes of application data in each.
    pub size: u16,
    /// What became of the packets.
    pub figures: Option<Figures>,
    /// How much of it the kernel relayed.
    pub kernel: Option<Share>,
    /// Whether the server is on this machine: then nothing can be relayed in the kernel.
    pub is_own_machine: bool,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedFailure {
    /// The server's error code, if it was the server that refused.
    pub code: Option<u16>,
    /// What happened, and what to look at.
    pub message: String,
}

impl ProbeReport {
    pub(super) fn of(options: &ProbeOptions) -> Self {
        Self {
            schema: 1,
            server: options.server.to_string(),
            address: None,
            software: None,
            works: true,
            error: None,
            ends: None,
            rate: options.rate,
            size: options.size,
            figures: None,
            kernel: None,
            is_own_machine: false,
        }
    }

    pub(super) fn fail(&mut self, failure: &Failure) {
        let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.works = false;
        self.error = Some(ReportedFailure { code: failure.code(), message: format!("{failure}{cause}") });
    }

    /// 1 if a call does not work, else 0.
    pub fn exit_code(&self) -> u8 {
        (!self.works).into()
    }

    /// The JSON document, on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// The same for people.
    pub fn table(&self) -> String {
        let mut lines = Lines::default();
        let address = self.address.map(|address| address.to_string());
        let at = address.filter(|address| !self.server.ends_with(address.as_str()));
        let at = at.map(|address| format!(", at {address}")).unwrap_or_default();
        let software = self.software.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
        lines.add("server", &format!("{}{at}{software}", self.server));
        if let Some(ends) = &self.ends {
            lines.add(
                "call",
                &format!("client {}, relayed {}, peer {}", ends.client, ends.relayed, ends.peer),
            );
        }
        if let Some(figures) = &self.figures {
            lines.add(
                "packets",
                &format!(
                    "{} sent ({} bytes, {} per second), {} at the peer, {} back",
                    figures.sent, self.size, self.rate, figures.at_peer, figures.returned
                ),
            );
            lines.add("lost", &format!("{:.2} %, {} out of order", figures.loss * 100.0, figures.reordered));
            if let Some(times) = &figures.round_trip {
                let [min, median, p95, p99, max, jitter] = [
                    times.min_us,
                    times.median_us,
                    times.p95_us,
                    times.p99_us,
                    times.max_us,
                    times.jitter_us,
                ]
                .map(milliseconds);
                lines.add(
                    "round trip",
                    &format!(
                        "{median} median, {min} least, {p95} 95 %, {p99} 99 %, {max} most; jitter {jitter}"
                    ),
                );
            }
        }
        match &self.kernel {
            Some(Share::Known(known)) => {
                let why = match (&known.explanation, &known.reason) {
                    (Some(words), _) | (None, Some(words)) => format!("; {words}"),
                    (None, None) => String::new(),
                };
                lines.add(
                    "in the kernel",
                    &format!(
                        "{:.2} %, {} packets, {} left to the server{why}",
                        known.share * 100.0,
                        known.kernel_packets,
                        known.spilled_packets
                    ),
                );
                if self.is_own_machine {
                    lines.add("", OWN_MACHINE);
                }
            }
            Some(Share::Unknown { unknown }) => lines.add("in the kernel", &format!("unknown; {unknown}")),
            None => {}
        }
        match &self.error {
            Some(error) => lines.add("FAIL", &error.message),
            None => lines.add("PASS", "a call works"),
        }
        lines.0
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, text: &str) {
        let _ = writeln!(self.0, "{what:<15}{text}");
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.2} ms", Duration::from_micros(microseconds).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::{RoundTrips, SharedBy};
    use super::*;
    use crate::control::document::State;

    fn report() -> ProbeReport {
        let address = |text: &str| text.parse().unwrap();
        let round_trip = RoundTrips {
            min_us: 180,
            median_us: 210,
            p95_us: 400,
            p99_us: 1234,
            max_us: 1500,
            jitter_us: 25,
        };
        ProbeReport {
            schema: 1,
            server: "turn:turn.example.org:3478".into(),
            address: Some(address("198.18.1.1:3478")),
            software: Some("Coturn-4.6.1 'Gorst'".into()),
            works: true,
            error: None,
            ends: Some(Ends {
                server: address("198.18.1.1:3478"),
                client: address("198.18.1.2:40000"),
                relayed: address("198.18.1.1:49160"),
                peer: address("198.18.1.2:40001"),
            }),
            rate: 50,
            size: 160,
            figures: Some(Figures {
                sent: 200,
                at_peer: 200,
                returned: 198,
                loss: 0.01,
                reordered: 0,
                round_trip: Some(round_trip),
            }),
            kernel: Some(Share::Known(SharedBy {
                share: 0.97,
                kernel_packets: 388,
                spilled_packets: 10,
                state: State::Kernel,
                reason: None,
                explanation: None,
            })),
            is_own_machine: false,
        }
    }

    #[test]
    fn the_table() {
        let expected = "\
server         turn:turn.example.org:3478, at 198.18.1.1:3478, Coturn-4.6.1 'Gorst'
call           client 198.18.1.2:40000, relayed 198.18.1.1:49160, peer 198.18.1.2:40001
packets        200 sent (160 bytes, 50 per second), 200 at the peer, 198 back
lost           1.00 %, 0 out of order
round trip     0.21 ms median, 0.18 ms least, 0.40 ms 95 %, 1.23 ms 99 %, 1.50 ms most; jitter 0.03 ms
in the kernel  97.00 %, 388 packets, 10 left to the server
PASS           a call works
";
        assert_eq!(report().table(), expected);
        assert_eq!(report().exit_code(), 0);
    }

    #[test]
    fn a_refused_call() {
        let mut report = ProbeReport { ends: None, figures: None, kernel: None, ..report() };
        report.fail(&Failure::Refused {
            request: "Allocate",
            code: 486,
            reason: "Allocation Quota Reached".into(),
        });
        assert_eq!(report.exit_code(), 1);
        let table = report.table();
        assert!(
            table.ends_with("(coturn: user-quota, total-quota)\n") && table.contains("\nFAIL"),
            "{table}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["error"]["code"], &json["works"]), (&486.into(), &false.into()));
    }

    #[test]
    fn the_json_has_the_keys_of_the_contract() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let expected = [
            "address",
            "ends",
            "error",
            "figures",
            "is_own_machine",
            "kernel",
            "rate",
            "schema",
            "server",
            "size",
            "software",
            "works",
        ];
        assert_eq!(keys(&json), expected);
        assert_eq!(
            keys(&json["figures"]),
            ["at_peer", "loss", "reordered", "returned", "round_trip", "sent"]
        );
        assert_eq!(json["kernel"]["kernel_packets"], 388);
    }
}
