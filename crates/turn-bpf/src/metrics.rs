//! Metrics for Prometheus and all who read its format. A server's own traffic figures stop where the kernel relays.
//!
//! No label has an unbounded number of values: interfaces, and closed lists of reasons. Who talked to whom is in the
//! session log and in the events.

pub mod server;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::flow_table::EndedSession;

/// All counters and gauges at one moment.
#[derive(Debug, Default)]
pub struct Snapshot(Vec<Series>);

/// One metric and its values by labels.
#[derive(Debug)]
pub struct Series {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Labels, Value)>,
}

/// Names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of what is counted.
    Whole(u64),
    /// Of what is measured.
    Real(f64),
}

type ByDirection = [(&'static str, &'static str); 1];

/// What sessions were like, told when they end.
#[derive(Clone, Debug)]
pub struct SessionHistograms {
    duration: Histogram,
    bytes: Family<ByDirection, Histogram, fn() -> Histogram>,
}

/// The two forms in which metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's older text format, 0.0.4.
    Text,
}

impl Format {
    /// The one that a scraper asks for by its Accept header.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// For the Content-Type header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Snapshot {
    /// Adds a metric that only goes up. Its name is without `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, Value::Whole(value))).collect();
        self.0.push(Series { name, help, kind: Kind::Counter, samples });
    }

    /// Adds a metric that goes up and down.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Value)>,
    ) {
        let samples = samples.into_iter().collect();
        self.0.push(Series { name, help, kind: Kind::Gauge, samples });
    }

    /// Adds seconds that only become more. The name is without `_total`.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, seconds: f64) {
        let samples = vec![(Labels::new(), Value::Real(seconds))];
        self.0.push(Series { name, help, kind: Kind::Counter, samples });
    }

    /// Writes all of it.
    pub fn encode(self, histograms: &SessionHistograms, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        registry.register(
            "turnbpf_session_duration_seconds",
            "How long sessions lasted that have ended",
            histograms.duration.clone(),
        );
        registry.register(
            "turnbpf_session_bytes",
            "Application data of sessions that have ended, by direction, relayed in the kernel and by the server",
            histograms.bytes.clone(),
        );
        let mut metrics = String::new();
        // A String takes whatever is written to it.
        let _ = text::encode(&mut metrics, &registry);
        match format {
            Format::OpenMetrics => metrics,
            Format::Text => older_text(&metrics),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Series { name, help, kind, samples } in &self.0 {
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    kind.write(&mut metric, *value)?;
                } else {
                    kind.write(&mut metric.encode_family(labels)?, *value)?;
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    fn write(self, sample: &mut MetricEncoder<'_>, value: Value) -> Result<(), fmt::Error> {
        match (self, value) {
            (Self::Counter, Value::Whole(value)) => sample.encode_counter::<NoLabelSet, _, u64>(&value, None),
            (Self::Counter, Value::Real(value)) => sample.encode_counter::<NoLabelSet, _, f64>(&value, None),
            (Self::Gauge, Value::Whole(value)) => sample.encode_gauge(&value),
            (Self::Gauge, Value::Real(value)) => sample.encode_gauge(&value),
        }
    }
}

/// The same metrics in Prometheus's older format, whose names of counters have `_total` also where they are described, and
/// which has no units and no end.
fn older_text(metrics: &str) -> String {
    let counters: Vec<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(metrics.len());
    for line in metrics.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                let keyword = &line[..line.len() - name.len() - 1 - rest.len()];
                text.push_str(&format!("{keyword}{name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

impl SessionHistograms {
    /// Of no session.
    pub fn new() -> Self {
        Self {
            duration: Histogram::new(DURATIONS),
            bytes: Family::new_with_constructor(|| Histogram::new(BYTES)),
        }
    }

    /// A session has ended.
    pub fn observe(&self, ended: &EndedSession) {
        self.duration.observe(ended.origin.instant.elapsed().as_secs_f64());
        let directions = ["client_to_peer", "peer_to_client"];
        for (direction, traffic) in directions.into_iter().zip(&ended.traffic) {
            let histogram = self.bytes.get_or_create(&[("direction", direction)]);
            histogram.observe(traffic.bytes() as f64);
        }
    }
}

impl Default for SessionHistograms {
    fn default() -> Self {
        Self::new()
    }
}

/// From ten seconds to a day.
const DURATIONS: [f64; 11] =
    [10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0];
/// From 4 KiB to 16 GiB, each four times the one before.
const BYTES: [f64; 12] = [
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.counter("turnbpf_packets", "Packets", [(vec![("interface", "eth\"0".into())], u64::MAX)]);
        snapshot.gauge("turnbpf_allocations", "Allocations", [(vec![], Value::Whole(3))]);
        snapshot.seconds("process_cpu_seconds", "Processor time", 1.5);
        snapshot
    }

    #[test]
    fn both_forms_say_the_same() {
        let open = snapshot().encode(&SessionHistograms::new(), Format::OpenMetrics);
        for line in [
            "# HELP turnbpf_packets Packets",
            "# TYPE turnbpf_packets counter",
            "turnbpf_packets_total{interface=\"eth\\\"0\"} 18446744073709551615",
            "# TYPE turnbpf_allocations gauge",
            "turnbpf_allocations 3",
            "process_cpu_seconds_total 1.5",
            "turnbpf_session_duration_seconds_count 0",
            "# EOF",
        ] {
            assert!(open.lines().any(|other| other == line), "{line} in\n{open}");
        }
        let older = snapshot().encode(&SessionHistograms::new(), Format::Text);
        assert!(
            older.contains("# HELP turnbpf_packets_total Packets\n# TYPE turnbpf_packets_total counter\n")
        );
        assert!(older.contains("# TYPE turnbpf_session_duration_seconds histogram\n"), "{older}");
        let values = |text: &str| {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(values(&open), values(&older));
        assert!(!older.contains("EOF"));
    }

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Text);
        assert_eq!(Format::accepted(None), Format::Text);
    }
}
