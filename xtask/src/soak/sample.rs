//! What one can see of turn-bpf and coturn at a moment.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use turn_testkit::coturn::Coturn;
use turn_testkit::daemon::{Daemon, Packets};

/// A moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Since the start.
    pub seconds: f64,
    pub calls: u64,
    pub allocations: u64,
    pub bindings: u64,
    /// Places taken in the map of flows.
    pub flows: u64,
    pub flows_armed: u64,
    pub flows_max: u64,
    pub kernel_packets: u64,
    /// Of known flows, and left to the server.
    pub spilled_packets: u64,
    /// Memory of turn-bpf's process: VmRSS.
    pub turn_bpf_memory_bytes: u64,
    pub turn_bpf_cpu_seconds: f64,
    pub coturn_cpu_seconds: f64,
}

/// What is needed of `turn-bpf status --json`.
#[derive(Deserialize)]
struct Status {
    allocations: u64,
    bindings: u64,
    flows: Flows,
    packets: Packets,
}

#[derive(Deserialize)]
struct Flows {
    armed: u64,
    total: u64,
    max: u64,
}

impl Sample {
    pub fn take(start: Instant, daemon: &mut Daemon, coturn: &Coturn, calls: u64) -> Result<Self> {
        if let Some(status) = daemon.process().ended()? {
            bail!("turn-bpf has ended with {status}:\n{}", daemon.log());
        }
        let status: Status = daemon.document("status")?;
        Ok(Self {
            seconds: start.elapsed().as_secs_f64(),
            calls,
            allocations: status.allocations,
            bindings: status.bindings,
            flows: status.flows.total,
            flows_armed: status.flows.armed,
            flows_max: status.flows.max,
            kernel_packets: status.packets.kernel,
            spilled_packets: status.packets.spilled,
            turn_bpf_memory_bytes: daemon.memory()?,
            turn_bpf_cpu_seconds: daemon.process().cpu_time()?.as_secs_f64(),
            coturn_cpu_seconds: coturn.cpu_time().context("coturn has ended")?.as_secs_f64(),
        })
    }

    /// Which part of the packets of known flows was relayed in the kernel so far, 0 to 1.
    pub fn kernel_share(&self) -> f64 {
        let packets = self.kernel_packets + self.spilled_packets;
        if packets == 0 { 0.0 } else { self.kernel_packets as f64 / packets as f64 }
    }
}
