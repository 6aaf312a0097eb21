//! The BPF object: loading it, and typed access to its maps and programs.
#![expect(
    unsafe_code,
    reason = "map keys and values are declared plain data to aya here, in this file alone"
)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::xdp::DevMapHash;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, ProgramInfo, RawTracePoint, SchedClassifier, TestRun as _, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod, TestRunAttrs, TestRunOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use turn_datapath::kept::{KeptAllocation, KeptBinding, KeptCourse, KeptTraffic, KeptUser};
use turn_datapath::{Flow, FlowKey, Interface, LeaseTerms, PathMtu, Reason};
use turn_snoop::ListeningPorts;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::flow_table::{Entries, FlowMaps, InsertError};
use crate::host::{OUR_GENERIC_PROGRAM as GENERIC_PROGRAM, OUR_XDP_PROGRAM as XDP_PROGRAM};
use crate::kernel_types;
use crate::layout::KEPT_MAPS;
use crate::pins::Pins;

/// Name of the TC program for what comes in, where that is not the XDP program.
pub const INGRESS_PROGRAM: &str = crate::host::OUR_TC_PROGRAM;
/// Name of the TC program for what generic XDP has let pass.
pub const UNSEEN_TAG_PROGRAM: &str = "turn_bpf_unseen_tag";
/// Name of the TC program for what leaves.
pub const EGRESS_PROGRAM: &str = "turn_bpf_egress";

/// A client that is displaced has its Refresh to zero go unnoticed until its leases run out.
pub const FEWEST_CLIENTS: u32 = 4096;

/// Datagrams that came in and are remembered while calls are looked for that are older than turn-bpf: what a busy host gets within some
/// tenths of a second.
const MOST_NOTED: u32 = 131_072;
/// Otherwise the map is not used.
const FEWEST_NOTED: u32 = 64;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TURN_BPF_OBJECT"));

/// A key or value of a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: zerocopy's derives proved that `T` is without padding and that every bit pattern is valid.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Pod for Plain<T> {}

/// The loaded object.
pub struct Object {
    ebpf: Ebpf,
    /// Where `struct net_device` has the ifindex; without it drivers cannot be watched.
    ifindex_offset: Result<u64, Arc<kernel_types::Error>>,
}

/// Why the object was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The kernel refused a map or the object is damaged.
    #[error(
        "the kernel does not take turn-bpf's maps (with --max-flows {max_flows}; is there memory for them?)"
    )]
    Maps {
        /// Size that was asked for.
        max_flows: u32,
        /// What the kernel said.
        #[source]
        source: EbpfError,
    },
    /// The kernel refused a program.
    #[error("the kernel does not take turn-bpf's program {name}")]
    Program {
        /// The program.
        name: &'static str,
        /// What the verifier said.
        #[source]
        source: ProgramError,
    },
    /// The object lacks a part.
    #[error("turn-bpf's BPF object lacks {0}: it was built wrong")]
    Missing(&'static str),
    /// A map is of another kind than it should be.
    #[error("turn-bpf's map {name} is of the wrong kind: the object was built wrong")]
    WrongMap {
        /// The map.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: MapError,
    },
}

/// Why turn-bpf cannot see drivers throw frames away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The kernel's types could not be read.
    #[error(transparent)]
    Types(Arc<kernel_types::Error>),
    /// A tracepoint could not be attached to.
    #[error("cannot attach to the kernel's tracepoint {tracepoint}")]
    Tracepoint {
        /// The tracepoint.
        tracepoint: &'static str,
        /// What the kernel said.
        #[source]
        source: ProgramError,
    },
    /// The object is incomplete.
    #[error(transparent)]
    Object(#[from] LoadError),
}

impl Object {
    /// Loads maps and programs. Nothing is attached yet.
    ///
    /// `max_flows` is the number of flows, which are directions of channel bindings. Clients are those of servers at
    /// `listening_ports`. With pins, maps are those that an earlier daemon left, or are left to the next one.
    pub fn load(
        terms: &LeaseTerms,
        listening_ports: &ListeningPorts,
        max_flows: u32,
        pins: Option<&Pins>,
    ) -> Result<Self, LoadError> {
        // Without it turn-bpf cannot see drivers throw frames away; `watch_transmissions` says so.
        let ifindex_offset = kernel_types::offset_of("net_device", "ifindex").map_err(Arc::new);
        let mut loader = EbpfLoader::new();
        for (name, pins) in KEPT_MAPS.into_iter().filter_map(|name| Some((name, pins?))) {
            loader.map_pin_path(name, pins.map(name));
        }
        let most_kept = if pins.is_some() { max_flows } else { 1 };
        let mut ebpf = loader
            .override_global("IFINDEX_OFFSET", ifindex_offset.as_ref().unwrap_or(&0), true)
            .override_global("LEASE_NS", &terms.lease, true)
            .override_global("HEARTBEAT_NS", &terms.heartbeat, true)
            .override_global("RATE_COST", &terms.rate_cost, true)
            .override_global("JOINS_UNTIL", &terms.joins_until, true)
            .override_global("LISTENING_BELOW", &listening_ports.end(), true)
            .map_max_entries("FLOWS", max_flows)
            // Two expected outputs for a flow to a peer, one for a flow to a client.
            .map_max_entries("EXPECTED", max_flows.saturating_add(max_flows / 2))
            // Least recently used, and by far not exactly so where there is room for a few only.
            .map_max_entries("CLIENTS", max_flows.max(FEWEST_CLIENTS))
            .map_max_entries("NOTED", if terms.joins_until == 0 { FEWEST_NOTED } else { MOST_NOTED })
            .map_max_entries("ALLOCATIONS", most_kept)
            .map_max_entries("BINDINGS", most_kept)
            .map_max_entries("USERS", most_kept)
            .load(OBJECT)
            .map_err(|source| LoadError::Maps { max_flows, source })?;
        for name in [XDP_PROGRAM, INGRESS_PROGRAM, UNSEEN_TAG_PROGRAM, EGRESS_PROGRAM] {
            let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
            let loaded = match program {
                aya::programs::Program::Xdp(xdp) => xdp.load(),
                aya::programs::Program::SchedClassifier(classifier) => classifier.load(),
                _ => return Err(LoadError::Missing(name)),
            };
            loaded.map_err(|source| LoadError::Program { name, source })?;
        }
        Ok(Self { ebpf, ifindex_offset })
    }

    /// The program for packets that come in, for XDP.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        self.xdp_program(XDP_PROGRAM)
    }

    /// The program for packets that come in, for generic XDP. It is loaded when it is needed.
    pub fn generic_xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        let xdp = self.xdp_program(GENERIC_PROGRAM)?;
        if xdp.fd().is_err() {
            xdp.load().map_err(|source| LoadError::Program { name: GENERIC_PROGRAM, source })?;
        }
        Ok(xdp)
    }

    fn xdp_program(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        self.ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Missing(name))
    }

    /// The program for packets that come in, for TC.
    pub fn ingress(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.classifier(INGRESS_PROGRAM)
    }

    /// The program for packets that generic XDP has let pass.
    pub fn unseen_tag(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.classifier(UNSEEN_TAG_PROGRAM)
    }

    /// The program for packets that leave.
    pub fn egress(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.classifier(EGRESS_PROGRAM)
    }

    fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        self.ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Missing(name))
    }

    /// The programs that the kernel has taken, with what it says of them.
    pub fn loaded(&self) -> impl Iterator<Item = (&str, ProgramInfo)> {
        self.ebpf.programs().filter_map(|(name, program)| Some((name, program.info().ok()?)))
    }

    /// Has the kernel say where drivers throw frames away that turn-bpf gave them to transmit.
    pub fn watch_transmissions(&mut self) -> Result<(), WatchError> {
        if let Err(error) = &self.ifindex_offset {
            return Err(WatchError::Types(Arc::clone(error)));
        }
        for (name, tracepoint) in [
            ("turn_bpf_redirected", "xdp_devmap_xmit"),
            ("turn_bpf_refused", "xdp_redirect_err"),
            ("turn_bpf_transmitted", "xdp_bulk_tx"),
        ] {
            let program: &mut RawTracePoint = self
                .ebpf
                .program_mut(name)
                .and_then(|program| program.try_into().ok())
                .ok_or(WatchError::Object(LoadError::Missing(name)))?;
            program.load().map_err(|source| WatchError::Tracepoint { tracepoint, source })?;
            program.attach(tracepoint).map_err(|source| WatchError::Tracepoint { tracepoint, source })?;
        }
        Ok(())
    }

    /// Has the driver of an interface transmit frames that nobody wants: to the interface itself, of the EtherType
    /// for experiments on one's own link (IEEE 802, 0x88b5). Where the driver throws them away, the counter of
    /// [`Reason::TransmitFailed`] goes up.
    pub fn transmit_probes(&mut self, ifindex: u32, mac: [u8; 6]) -> Result<(), ProgramError> {
        // Together more than a virtual Ethernet link's ring of 256 holds, so that a link that never empties it shows; and with time in
        // between for one that does.
        const PROBES: u32 = 64;
        const TIMES: u32 = 8;
        const FRAME: usize = 60;
        let program: &mut Xdp = match self.ebpf.program_mut("turn_bpf_probe") {
            Some(program) => program.try_into()?,
            None => return Err(ProgramError::NotLoaded),
        };
        if program.fd().is_err() {
            program.load()?;
        }
        let mut frame = [0; FRAME];
        for (place, byte) in frame.iter_mut().zip(mac.iter().chain(&mac).chain(&[0x88, 0xb5])) {
            *place = *byte;
        }
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, FRAME as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
        for _ in 0..TIMES {
            program.test_run(TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(context.as_flattened()),
                repeat: PROBES,
                attrs: TestRunAttrs::new().xdp_live_frames(PROBES),
                ..TestRunOptions::default()
            })?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The maps; the second time there are none.
    pub fn take_maps(&mut self) -> Result<Maps, LoadError> {
        macro_rules! take {
            ($name:literal) => {
                self.ebpf
                    .take_map($name)
                    .ok_or(LoadError::Missing($name))?
                    .try_into()
                    .map_err(|source| LoadError::WrongMap { name: $name, source })?
            };
        }
        Ok(Maps {
            flows: FlowStore { flows: take!("FLOWS"), expected: take!("EXPECTED") },
            clients: take!("CLIENTS"),
            path_mtus: take!("PATH_MTUS"),
            interfaces: take!("INTERFACES"),
            devices: take!("DEVICES"),
            counters: take!("COUNTERS"),
            control: take!("CONTROL"),
            strangers: take!("STRANGERS"),
            kept: KeptMaps {
                allocations: take!("ALLOCATIONS"),
                bindings: take!("BINDINGS"),
                users: take!("USERS"),
                totals: take!("TOTALS"),
            },
        })
    }
}

/// Lets the ring buffer be waited for.
pub fn listen(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its file descriptor, keeps it open for as long as it lives, and always names
    // the same one.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

/// The maps of the object.
pub struct Maps {
    /// Flows and the outputs expected of them.
    pub flows: FlowStore,
    /// 5-tuples of allocations.
    pub clients: HashMap<MapData, Plain<FlowKey>, u32>,
    /// What the kernel's routing says that the paths of flows take.
    pub path_mtus: HashMap<MapData, Plain<FlowKey>, Plain<PathMtu>>,
    /// What is known of the interfaces, by ifindex.
    pub interfaces: HashMap<MapData, u32, Plain<Interface>>,
    /// Where redirected frames may go, by ifindex.
    pub devices: DevMapHash<MapData>,
    /// Packets by reason.
    pub counters: PerCpuArray<MapData, u64>,
    /// Records from the kernel.
    pub control: RingBuf<MapData>,
    /// When each CPU's present second began, and how many requests of unknown clients it has copied since.
    pub strangers: PerCpuArray<MapData, [u64; 2]>,
    /// What is left to the next daemon besides.
    pub kept: KeptMaps,
}

/// What one daemon tells the next, since no other map says it.
pub struct KeptMaps {
    /// Allocations.
    pub allocations: HashMap<MapData, Plain<FlowKey>, Plain<KeptAllocation>>,
    /// Channel bindings.
    pub bindings: HashMap<MapData, Plain<FlowKey>, Plain<KeptBinding>>,
    /// Whose the allocations are.
    pub users: HashMap<MapData, Plain<FlowKey>, Plain<KeptUser>>,
    /// What flows carried that are gone.
    pub totals: HashMap<MapData, Plain<KeptCourse>, Plain<KeptTraffic>>,
}

/// The maps that hold flows.
pub struct FlowStore {
    flows: HashMap<MapData, Plain<FlowKey>, Plain<Flow>>,
    expected: HashMap<MapData, Plain<FlowKey>, Plain<FlowKey>>,
}

impl FlowStore {
    /// What is there from an earlier daemon.
    pub fn entries(&self) -> Entries {
        Entries {
            flows: self.flows.keys().flatten().map(|Plain(key)| key).collect(),
            outputs: self.expected.keys().flatten().map(|Plain(key)| key).collect(),
        }
    }
}

impl Maps {
    /// How many packets took which way, over all CPUs.
    pub fn count(&self, reason: Reason) -> Result<u64, MapError> {
        Ok(self.counters.get(&(reason as u32), 0)?.iter().sum())
    }
}

impl FlowMaps for FlowStore {
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        const BPF_NOEXIST: u64 = 1;
        self.flows.insert(Plain(*key), Plain(*flow), BPF_NOEXIST).map_err(insert_error)
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        log_unless_absent(self.flows.remove(&Plain(*key)), "flow");
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(&Plain(*key), 0).ok().map(|Plain(flow)| flow)
    }

    fn insert_expected(&mut self, output: &FlowKey, flow: &FlowKey) -> Result<(), InsertError> {
        self.expected.insert(Plain(*output), Plain(*flow), 0).map_err(insert_error)
    }

    fn remove_expected(&mut self, output: &FlowKey) {
        log_unless_absent(self.expected.remove(&Plain(*output)), "expected output");
    }

    fn settle(&mut self) {
        // A global barrier waits for a grace period of RCU, under whose read lock every BPF program runs
        // (sys_membarrier calls synchronize_rcu).
        use rustix::thread::{MembarrierCommand, membarrier};
        if let Err(error) = membarrier(MembarrierCommand::Global) {
            // Only kernels with fully tickless CPUs refuse. No program runs for as long as this.
            tracing::debug!(%error, "no global memory barrier; waiting instead");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn insert_error(error: MapError) -> InsertError {
    match &error {
        MapError::SyscallError(call) => {
            match call.io_error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::TOOBIG | rustix::io::Errno::NOMEM) => InsertError::Full,
                Some(rustix::io::Errno::EXIST) => InsertError::Exists,
                _ => InsertError::Refused(error),
            }
        }
        _ => InsertError::Refused(error),
    }
}

fn log_unless_absent(result: Result<(), MapError>, what: &str) {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => {}
        Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(%error, "cannot remove {what}"),
    }
}
