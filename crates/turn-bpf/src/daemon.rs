//! The daemon: from the ring buffer through the snoop into the maps, and what it tells about itself.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use aya::maps::xdp::XdpMapError;
use aya::maps::{MapData, MapError, PerCpuValues, RingBuf};
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use turn_datapath::control::{FlowEvent, RecordHeader, kind};
use turn_datapath::flow::interface_flags;
use turn_datapath::{Flow, FlowKey, Interface as KernelInterface, LeaseTerms, Reason};
use turn_snoop::{Command, Limits, Snoop};
use turn_wire::IpAddress;
use zerocopy::FromBytes as _;

use crate::attachment::{self, AttachError, Ingress, WantedMode};
use crate::control::document::{
    Channel, DirectionCounts, FlowCounts, InterfaceRow, Mode, PacketCounts, SessionRow, SessionsDocument,
    State, StatusDocument,
};
use crate::control::server::{ControlSocket, ServerError, Source};
use crate::flow_table::{self, BoundFlows, Direction, FlowTable, Obstacle};
use crate::interfaces::{self, Interface};
use crate::object::{self, FlowStore, LoadError, Object, Plain};
use crate::preflight::{self, PreflightError};
use crate::xdp_features;

/// What the user wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the interfaces.
    pub interfaces: Vec<String>,
    /// Where the ingress program is to run.
    pub mode: WantedMode,
    /// From a witness to the end of the lease that it grants.
    pub lease: Duration,
    /// From one spilled packet to the next.
    pub heartbeat: Duration,
    /// Most directions of channel bindings at a time.
    pub max_flows: u32,
    /// Where the control socket is to be.
    pub control: PathBuf,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The interfaces or the machine are not fit.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The object was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An interface was not attached to; all others are detached again.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is no control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// The interfaces could not be read.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// A map was not written.
    #[error("cannot write to turn-bpf's map of {0}")]
    Map(&'static str, #[source] MapError),
    /// The map of devices was not written.
    #[error("cannot write to turn-bpf's map of devices")]
    Devices(#[source] XdpMapError),
    /// The operating system refused something ordinary.
    #[error("cannot {0}")]
    System(&'static str, #[source] std::io::Error),
}

/// Runs until it is told to stop. `ready` is called when everything is attached.
pub async fn run(options: Options, ready: impl FnOnce(&[InterfaceRow])) -> Result<(), DaemonError> {
    let mut stop = Stop::new()?;
    let found = preflight::check(&options.interfaces, options.mode == WantedMode::Native).await?;
    let control = ControlSocket::bind(&options.control).await?;
    let mut changes = interfaces::watch()?;

    let terms = LeaseTerms { lease: nanoseconds(options.lease), heartbeat: nanoseconds(options.heartbeat) };
    let mut object = Object::load(&terms, options.max_flows)?;
    let maps = object.take_maps()?;
    let mut ring =
        object::listen(maps.control).map_err(|e| DaemonError::System("wait for the ring buffer", e))?;
    if let Err(error) = object.watch_transmissions() {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a driver that drops relayed frames goes unnoticed"
        );
    }
    let state = Rc::new(RefCell::new(Daemon {
        object,
        wanted: options.mode,
        snoop: Snoop::new(limits(options.max_flows)),
        table: FlowTable::new(maps.flows),
        clients: maps.clients,
        kernel_interfaces: maps.interfaces,
        devices: maps.devices,
        counters: maps.counters,
        attached: Vec::new(),
        max_flows: options.max_flows,
    }));

    for interface in &found {
        state.borrow_mut().attach(interface).await?;
    }
    state.borrow_mut().refresh_addresses().await?;
    ready(&state.borrow().attached.iter().map(InterfaceRow::from).collect::<Vec<_>>());

    let source = Rc::new(Documents(Rc::clone(&state)));
    let serve = control.serve(source);
    tokio::pin!(serve);
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.told() => break,
            readable = ring.readable_mut() => {
                let mut guard = readable.map_err(|e| DaemonError::System("wait for the ring buffer", e))?;
                let emptied = state.borrow_mut().drain(guard.get_inner_mut());
                if emptied {
                    guard.clear_ready();
                }
                // One thread does everything: others get their turn between two batches.
                tokio::task::yield_now().await;
            }
            _ = tick.tick() => state.borrow_mut().handle_timeout(),
            changed = changes.changed() => {
                changed?;
                state.borrow_mut().refresh_interfaces().await?;
            }
            never = &mut serve => match never {},
        }
    }
    tracing::info!("detaching");
    Ok(())
}

/// Most records that are handled before other tasks get their turn.
const BATCH: usize = 1024;

struct Daemon {
    object: Object,
    wanted: WantedMode,
    snoop: Snoop,
    table: FlowTable<FlowStore>,
    clients: aya::maps::HashMap<MapData, Plain<FlowKey>, u32>,
    kernel_interfaces: aya::maps::HashMap<MapData, u32, Plain<KernelInterface>>,
    devices: aya::maps::xdp::DevMapHash<MapData>,
    counters: aya::maps::PerCpuArray<MapData, u64>,
    attached: Vec<Attached>,
    max_flows: u32,
}

struct Attached {
    name: String,
    ifindex: u32,
    mtu: u32,
    ingress: Ingress,
    transmits: bool,
    is_veth: bool,
}

impl From<&Attached> for InterfaceRow {
    fn from(attached: &Attached) -> Self {
        Self { name: attached.name.clone(), mode: attached.ingress.mode, ifindex: attached.ifindex }
    }
}

impl Daemon {
    /// True where the ring buffer was emptied.
    fn drain(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        for _ in 0..BATCH {
            let Some(record) = ring.next() else { return true };
            self.handle_record(&record);
        }
        false
    }

    fn handle_record(&mut self, record: &[u8]) {
        let Ok((header, message)) = RecordHeader::read_from_prefix(record) else {
            return;
        };
        let now = Duration::from_nanos(header.time);
        let (source, destination) = addresses(&header.key);
        match header.kind {
            kind::REQUEST | kind::RESPONSE => {
                let Some(message) = message.get(..header.length as usize) else { return };
                if header.kind == kind::REQUEST {
                    self.snoop.handle_request(now, source, destination, message);
                } else {
                    self.snoop.handle_response(now, source, destination, message);
                }
                self.obey();
            }
            kind::ARMED => {
                tracing::debug!(%source, %destination, channel = header.key.channel.value(), "armed");
                if let Ok((event, _)) = FlowEvent::read_from_prefix(record) {
                    let source = SocketAddr::new(event.out_source.into(), event.out_source_port.value());
                    self.table.armed(&header.key, source);
                }
            }
            kind::LAPSED | kind::PATH_CHANGED => {
                let cause = if header.kind == kind::LAPSED { "lapsed" } else { "path changed" };
                tracing::debug!(%source, %destination, channel = header.key.channel.value(), cause, "disarmed");
            }
            kind::TRANSMIT_FAILED => self.handle_transmit_failure(header.length),
            _ => {}
        }
    }

    fn handle_timeout(&mut self) {
        self.snoop.handle_timeout(now());
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.snoop.poll_command() {
            match command {
                Command::Bind(binding) => {
                    tracing::debug!(five_tuple = %binding.five_tuple, channel = binding.channel, peer = %binding.peer,
                        relayed = ?binding.relayed, "bound");
                    self.table.bind(binding);
                }
                Command::Unbind(binding, revocation) => {
                    tracing::debug!(five_tuple = %binding.five_tuple, channel = binding.channel, peer = %binding.peer,
                        %revocation, "unbound");
                    self.table.unbind(&binding);
                }
                Command::Forget(five_tuple) => {
                    tracing::debug!(%five_tuple, "allocation over");
                    // Displaced by a newer client's, or never there: both fine.
                    let _ = self.clients.remove(&Plain(flow_table::key_of(
                        five_tuple.client,
                        five_tuple.server,
                        0,
                    )));
                }
            }
        }
    }

    async fn attach(&mut self, interface: &Interface) -> Result<(), DaemonError> {
        let ingress = attachment::attach(&mut self.object, interface, self.wanted)?;
        // Unless the driver says otherwise: before 6.3 none could say. Many can only while they have a program.
        let transmits = match xdp_features::query(interface.ifindex).await {
            Ok(Some(features)) => features.can_transmit_redirected(),
            Ok(None) | Err(_) => ingress.mode == Mode::Native,
        };
        let Interface { name, ifindex, mtu, .. } = interface.clone();
        let is_veth = interface.kind.as_deref() == Some("veth");
        self.attached.push(Attached { name, ifindex, mtu, ingress, transmits, is_veth });
        self.write_interface(interface.ifindex)?;
        // What goes into one end of a virtual Ethernet link comes out only where the other end is prepared for it,
        // and the other end cannot be seen from here.
        // Where the kernel tells (6.3 and later), it does so by whether the interface takes redirected frames.
        if is_veth && (!transmits || self.throws_away(interface)?) {
            self.handle_transmit_failure(interface.ifindex);
        }
        Ok(())
    }

    /// Tries whether a driver in native mode throws away what it is given to transmit.
    fn throws_away(&mut self, interface: &Interface) -> Result<bool, DaemonError> {
        let native = self
            .attached
            .iter()
            .any(|one| one.ifindex == interface.ifindex && one.ingress.mode == Mode::Native);
        let (Some(mac), true) = (interface.mac, native) else { return Ok(false) };
        let before = self.count(Reason::TransmitFailed);
        if let Err(error) = self.object.transmit_probes(interface.ifindex, mac) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot try whether frames are transmitted"
            );
            return Ok(false);
        }
        let failed = self.count(Reason::TransmitFailed) > before;
        if failed {
            // They were nobody's packets, so they are not counted.
            let index = Reason::TransmitFailed as u32;
            let cpus =
                self.counters.get(&index, 0).map_err(|error| DaemonError::Map("counters", error))?.len();
            let zero =
                PerCpuValues::try_from(vec![0; cpus]).map_err(|e| DaemonError::System("count CPUs", e))?;
            self.counters.set(index, zero, 0).map_err(|error| DaemonError::Map("counters", error))?;
        }
        Ok(failed)
    }

    /// A driver in native mode throws away what it is given. In the stack nothing is thrown away.
    fn handle_transmit_failure(&mut self, ifindex: u32) {
        let Some(failing) = self.attached.iter().position(|one| one.ifindex == ifindex) else { return };
        if self.attached[failing].ingress.mode == Mode::Generic {
            return;
        }
        let name = self.attached[failing].name.clone();
        if self.wanted == WantedMode::Native {
            tracing::error!(
                interface = name,
                "the driver throws away what it is given to transmit, so nothing is \
                redirected there; use --mode generic, or for veth attach an XDP program to the other end"
            );
            self.attached[failing].transmits = false;
            let _ = self.devices.remove(ifindex);
            return;
        }
        // Frames that come in by a driver and frames that go out by one must both be able to leave.
        let native: Vec<usize> = (0..self.attached.len())
            .filter(|index| self.attached[*index].ingress.mode == Mode::Native)
            .collect();
        for index in native.into_iter().rev() {
            let Attached { name: other, ifindex, mtu, ingress, is_veth, .. } =
                self.attached.swap_remove(index);
            tracing::warn!(
                interface = other,
                because = name,
                "generic mode: the driver throws away what it is given \
                to transmit"
            );
            match attachment::make_generic(&mut self.object, &other, ifindex, ingress) {
                Ok(ingress) => {
                    self.attached.push(Attached {
                        name: other,
                        ifindex,
                        mtu,
                        ingress,
                        transmits: false,
                        is_veth,
                    });
                    if let Err(error) = self.write_interface(ifindex) {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "generic mode is incomplete"
                        );
                    }
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the interface is left out")
                }
            }
        }
        self.attached.sort_by_key(|one| one.ifindex);
    }

    /// Tells the kernel side what is known of an interface.
    fn write_interface(&mut self, ifindex: u32) -> Result<(), DaemonError> {
        let Some(attached) = self.attached.iter().find(|one| one.ifindex == ifindex) else { return Ok(()) };
        let mut flags = 0;
        if attached.ingress.mode == Mode::Generic {
            flags |= interface_flags::GENERIC;
        }
        if attached.transmits {
            flags |= interface_flags::TRANSMITS;
        }
        if attached.is_veth && attached.ingress.mode == Mode::Native {
            flags |= interface_flags::ONLY_REDIRECT;
        }
        self.devices.insert(ifindex, ifindex, None, 0).map_err(DaemonError::Devices)?;
        self.kernel_interfaces
            .insert(ifindex, Plain(KernelInterface { mtu: attached.mtu, flags }), 0)
            .map_err(|error| DaemonError::Map("interfaces", error))
    }

    /// Reads anew what may have changed: addresses, MTUs, and whether the interfaces are still there.
    async fn refresh_interfaces(&mut self) -> Result<(), DaemonError> {
        let present = interfaces::list().await?;
        for one in &mut self.attached {
            match present.iter().find(|interface| interface.ifindex == one.ifindex) {
                Some(interface) => one.mtu = interface.mtu,
                None => tracing::error!(interface = one.name, "the interface is gone; the others go on"),
            }
        }
        let is_present = |ifindex: u32| present.iter().any(|interface| interface.ifindex == ifindex);
        for gone in self.attached.extract_if(.., |one| !is_present(one.ifindex)) {
            // The kernel takes a device out of the map by itself when it goes.
            let _ = self.devices.remove(gone.ifindex);
            let _ = self.kernel_interfaces.remove(&gone.ifindex);
        }
        for index in self.attached.iter().map(|one| one.ifindex).collect::<Vec<_>>() {
            self.write_interface(index)?;
        }
        self.refresh_addresses().await
    }

    async fn refresh_addresses(&mut self) -> Result<(), DaemonError> {
        let addresses = interfaces::local_addresses().await?;
        self.snoop.set_local_addresses(addresses);
        self.obey();
        Ok(())
    }

    fn count(&self, reason: Reason) -> u64 {
        self.counters.get(&(reason as u32), 0).map_or(0, |values| values.iter().sum())
    }

    fn session(&self, bound: &BoundFlows, now: u64) -> SessionRow {
        let (outward, inward) = (self.table.client_to_peer(bound), self.table.peer_to_client(bound));
        let (to_peer, to_client) =
            (self.table.flow(outward), inward.and_then(|direction| self.table.flow(direction)));
        let obstacles =
            [obstacle(Some(outward), to_peer.as_ref(), now), obstacle(inward, to_client.as_ref(), now)];
        let state = match obstacles {
            [None, None] => State::Kernel,
            [Some(_), Some(_)] => State::Userspace,
            _ => State::Mixed,
        };
        let counts = |flow: Option<Flow>| {
            flow.map_or_else(DirectionCounts::default, |flow| DirectionCounts {
                kernel_packets: flow.kernel_packets,
                kernel_bytes: flow.kernel_bytes,
                spilled_packets: flow.spilled_packets,
            })
        };
        SessionRow {
            client: bound.binding.five_tuple.client,
            server: bound.binding.five_tuple.server,
            relayed: bound.relayed.unwrap_or(flow_table::unspecified_like(bound.binding.peer)),
            peer: bound.binding.peer,
            channel: Channel(bound.binding.channel),
            state,
            reason: obstacles.into_iter().flatten().next().map(str::to_owned),
            client_to_peer: counts(to_peer),
            peer_to_client: counts(to_client),
        }
    }
}

/// Why a direction is not relayed in the kernel at this moment; none where it is.
fn obstacle(direction: Option<&Direction>, flow: Option<&Flow>, now: u64) -> Option<&'static str> {
    match (direction.map(|direction| direction.obstacle), flow) {
        (None, _) => Some("relayed_address_unknown"),
        (Some(Some(Obstacle::TableFull)), _) => Some("table_full"),
        (Some(Some(Obstacle::Ambiguous)), _) => Some("ambiguous"),
        (Some(None), None) => Some("not_installed"),
        (Some(None), Some(flow)) if flow.lease_until > now => None,
        (Some(None), Some(flow)) if flow.armed > 0 => Some("lease_over"),
        (Some(None), Some(flow)) if flow.spilled_packets > 0 => Some("no_witness"),
        (Some(None), Some(_)) => Some("no_traffic"),
    }
}

/// What the control socket tells.
struct Documents(Rc<RefCell<Daemon>>);

impl Source for Documents {
    fn status(&self) -> StatusDocument {
        let daemon = self.0.borrow();
        let now = nanoseconds(now());
        let sum = |wanted: fn(Reason) -> bool| {
            Reason::ALL.into_iter().filter(|reason| wanted(*reason)).map(|reason| daemon.count(reason)).sum()
        };
        let armed = daemon.table.flows().filter(|flow| flow.lease_until > now).count();
        StatusDocument {
            schema: 1,
            interfaces: daemon.attached.iter().map(InterfaceRow::from).collect(),
            allocations: daemon.snoop.allocation_count() as u64,
            bindings: daemon.table.bindings().count() as u64,
            flows: FlowCounts {
                armed: armed as u64,
                total: daemon.table.flow_count() as u64,
                max: u64::from(daemon.max_flows),
            },
            packets: PacketCounts {
                kernel: sum(Reason::is_relayed),
                spilled: sum(Reason::is_spilled),
                passed: sum(Reason::is_passed),
            },
            reasons: Reason::ALL
                .into_iter()
                .map(|reason| (reason.label().to_owned(), daemon.count(reason)))
                .collect(),
        }
    }

    fn sessions(&self) -> SessionsDocument {
        let daemon = self.0.borrow();
        let now = nanoseconds(now());
        let mut sessions: Vec<_> = daemon.table.bindings().map(|bound| daemon.session(bound, now)).collect();
        sessions.sort_by_key(|row| (row.client, row.server, row.channel.0));
        SessionsDocument { schema: 1, sessions }
    }
}

/// The signals that end the daemon.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, DaemonError> {
        let on = |kind| signal(kind).map_err(|e| DaemonError::System("listen for signals", e));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn limits(max_flows: u32) -> Limits {
    Limits { allocations: max_flows as usize, ..Limits::default() }
}

fn addresses(key: &FlowKey) -> (SocketAddr, SocketAddr) {
    let address = |ip: IpAddress, port: turn_wire::Be16| SocketAddr::new(ip.into(), port.value());
    (address(key.source, key.source_port), address(key.destination, key.destination_port))
}

/// The clock that the kernel side uses (`bpf_ktime_get_coarse_ns`).
fn now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
