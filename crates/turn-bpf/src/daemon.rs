//! The daemon: from the ring buffer through the snoop into the maps, and what it tells about itself.

mod attached;
mod documents;
mod eager;
pub mod joining;
mod keeping;
mod metrics;
mod path_mtu;
mod redirects;
mod service_manager;
mod sessions;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use aya::maps::{MapData, MapError, RingBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use turn_datapath::control::{FlowEvent, RecordHeader, kind};
use turn_datapath::{FlowKey, Interface as KernelInterface, LeaseTerms, PathMtu, Reason, rate};
use turn_snoop::{ChannelBinding, Command, Limits, ListeningPorts, Snoop};
use turn_wire::IpAddress;
use zerocopy::FromBytes as _;

use self::attached::Attached;
use self::documents::Documents;
use self::eager::Ends;
use self::metrics::Heard;
use self::service_manager::Watchdog;
use self::sessions::Listeners;
use crate::attachment::{AttachError, WantedMode};
use crate::control::document::InterfaceRow;
use crate::control::selector::Selector;
use crate::control::server::{ControlSocket, ServerError};
use crate::flow_table::{self, Cause, FlowTable};
use crate::interfaces;
use crate::kernel_clock::KernelClock;
use crate::metrics::SessionHistograms;
use crate::metrics::server::{BindError, MetricsAddress, MetricsServer};
use crate::object::{self, FlowStore, KeptMaps, LoadError, Object, Plain};
use crate::pins::{PinError, Pins};
use crate::preflight::{self, PreflightError};
use crate::sockets::{self, ClosedSockets};

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
    /// Whether flows are armed when their channel is bound, before any packet was seen.
    pub eager: bool,
    /// Whether calls are adopted that are older than turn-bpf before their channels are bound again.
    pub joins: bool,
    /// Where servers listen.
    pub listening_ports: ListeningPorts,
    /// Most directions of channel bindings at a time.
    pub max_flows: u32,
    /// Most bytes per second of one direction of a channel binding that are relayed in the kernel.
    pub max_rate: Option<u64>,
    /// Whether names of users are read from requests.
    pub reads_users: bool,
    /// Where the control socket is to be.
    pub control: PathBuf,
    /// Where metrics are to be read, if anywhere.
    pub metrics: Option<MetricsAddress>,
    /// Whether all stays in the kernel when the daemon ends, for the next one.
    pub keeps: bool,
    /// Where in a BPF filesystem it stays, or where an earlier daemon has left it.
    pub pin_dir: PathBuf,
}

/// The target of the log's lines about sessions that have ended.
pub const SESSION_LOG: &str = "turn_bpf::session";

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The interfaces or the machine are not fit.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Nothing can be kept in the kernel, or what is kept cannot be reached.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The object was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An interface was not attached to; all others are detached again.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is no control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// There is nowhere to read metrics.
    #[error(transparent)]
    Metrics(#[from] BindError),
    /// The interfaces could not be read.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// Reports of closed sockets broke off.
    #[error("cannot go on watching for relay sockets that close")]
    Sockets(#[source] crate::netlink::Error),
    /// A map was not written.
    #[error("cannot write to turn-bpf's map of {0}")]
    Map(&'static str, #[source] MapError),
    /// The operating system refused something ordinary.
    #[error("cannot {0}")]
    System(&'static str, #[source] std::io::Error),
}

/// Runs until it is told to stop. `ready` is called when everything is attached.
pub async fn run(options: Options, ready: impl FnOnce(&[InterfaceRow])) -> Result<(), DaemonError> {
    let mut stop = Stop::new()?;
    let pins = keeping::open(&options)?;
    let replaced = pins.as_ref().map(Pins::programs).unwrap_or_default();
    let found = preflight::check(&options.interfaces, options.mode, &replaced).await?;
    let control = ControlSocket::bind(&options.control).await?;
    let metrics = match options.metrics {
        Some(address) => Some(MetricsServer::bind(address).await?),
        None => None,
    };
    let mut changes = interfaces::watch()?;
    let mut closed_sockets = sockets::watch()
        .inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "relay sockets that close go unnoticed; what they served ends with its leases"
            );
        })
        .ok();

    let terms = LeaseTerms {
        lease: nanoseconds(options.lease),
        heartbeat: nanoseconds(options.heartbeat),
        rate_cost: options.max_rate.map_or(0, rate::cost),
        joins_until: if options.joins { nanoseconds(KernelClock::new().now() + joining::PERIOD) } else { 0 },
    };
    let mut object = Object::load(&terms, &options.listening_ports, options.max_flows, pins.as_ref())?;
    let maps = object.take_maps()?;
    let mut ring =
        object::listen(maps.control).map_err(|e| DaemonError::System("wait for the ring buffer", e))?;
    if let Err(error) = object.watch_transmissions() {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a driver that drops relayed frames goes unnoticed"
        );
    }
    let daemon = Daemon {
        object,
        wanted: options.mode,
        snoop: Snoop::new(limits(options.max_flows)).listening_at(options.listening_ports.clone()),
        table: FlowTable::new(maps.flows),
        clients: maps.clients,
        path_mtus: maps.path_mtus,
        kernel_interfaces: maps.interfaces,
        devices: maps.devices,
        counters: maps.counters,
        names: options.interfaces.clone(),
        attached: Vec::new(),
        lost: 0,
        clock: KernelClock::new(),
        terms,
        max_flows: options.max_flows,
        eager: options.eager.then(Vec::new),
        max_rate: options.max_rate,
        started: SystemTime::now(),
        listeners: Listeners::new(),
        pauses: Vec::new(),
        reads_users: options.reads_users,
        interface_names: HashMap::new(),
        heard: Heard::default(),
        histograms: SessionHistograms::new(),
        revocations: BTreeMap::new(),
        longer: Vec::new(),
        keeps: options.keeps,
        kept: pins.is_some().then_some(maps.kept),
        pins,
    };
    let state = Rc::new(RefCell::new(daemon));
    state.borrow_mut().adopt();
    for one in &found {
        if let Err(error) = attached::attach(&state, one).await {
            // What an earlier daemon left stays as it was, as far as it was not replaced.
            if replaced.is_empty() {
                state.borrow_mut().leave_nothing();
            }
            return Err(error);
        }
    }
    let addresses = interfaces::local_addresses().await?;
    state.borrow_mut().take_addresses(addresses);
    keeping::catch_up(&state, ring.get_mut()).await;
    ready(&state.borrow().attached.iter().map(InterfaceRow::from).collect::<Vec<_>>());

    let serve = control.serve(Rc::new(Documents(Rc::clone(&state))));
    tokio::pin!(serve);
    let scraped = Rc::clone(&state);
    let serve_metrics = async {
        match &metrics {
            Some(server) => server.serve(async move |format| metrics::metrics(&scraped, format).await).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(serve_metrics);
    let tell_status = service_manager::tell_status(&state);
    tokio::pin!(tell_status);
    let mut watchdog = Watchdog::of_environment();
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.told() => break,
            readable = ring.readable_mut() => {
                let mut guard = readable.map_err(|e| DaemonError::System("wait for the ring buffer", e))?;
                let emptied = state.borrow_mut().drain(guard.get_inner_mut());
                if emptied {
                    guard.clear_ready();
                }
                drop(guard);
                give_head_starts(&state).await;
                if let Err(error) = path_mtu::answer(&state).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask what paths take");
                }
                // One thread does everything: others get their turn between two batches.
                tokio::task::yield_now().await;
            }
            _ = tick.tick() => {
                state.borrow_mut().handle_timeout();
                state.borrow_mut().look_after()?;
                attached::try_again(&state).await?;
            }
            closed = next_closed(&mut closed_sockets) => {
                let mut daemon = state.borrow_mut();
                for local in closed? {
                    daemon.handle_socket_closed(local);
                }
            }
            changed = changes.changed() => {
                changed?;
                match (interfaces::list().await, interfaces::local_addresses().await) {
                    (Ok(present), Ok(addresses)) => {
                        state.borrow_mut().take_interfaces(&present)?;
                        attached::attach_returned(&state, &present).await;
                        state.borrow_mut().take_addresses(addresses);
                    }
                    // Mostly because they are changing right now, of which there will be another notification.
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot look at the interfaces");
                    }
                }
            }
            () = watchdog.due() => service_manager::tell(sd_notify::NotifyState::Watchdog),
            never = &mut serve => match never {},
            never = &mut serve_metrics => match never {},
            never = &mut tell_status => match never {},
        }
        state.borrow_mut().remember();
    }
    service_manager::tell(sd_notify::NotifyState::Stopping);
    if options.keeps {
        keeping::leave(&state, ring.get_mut()).await;
        tracing::info!(folder = %options.pin_dir.display(), "all stays attached; the next turn-bpf goes on with it, and turn-bpf detach ends it");
        return Ok(());
    }
    state.borrow_mut().end_all();
    tracing::info!("detaching");
    Ok(())
}

/// Waits for ever where there are no reports.
async fn next_closed(sockets: &mut Option<ClosedSockets>) -> Result<Vec<SocketAddr>, DaemonError> {
    match sockets {
        Some(sockets) => sockets.closed().await.map_err(DaemonError::Sockets),
        None => std::future::pending().await,
    }
}

/// Installs the flows that wait for a head start, with one where there can be one.
async fn give_head_starts(state: &RefCell<Daemon>) {
    loop {
        let waiting = state.borrow().eager.as_ref().and_then(|waiting| waiting.first().copied());
        let Some(binding) = waiting else {
            state.borrow_mut().table.install_waiting();
            return;
        };
        let ends = match binding.relayed {
            Some(relayed) => Ends::of(&binding, relayed).await,
            None => Ok(None),
        };
        let ends = ends.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no head start");
            None
        });
        let mut daemon = state.borrow_mut();
        let head_start = ends.and_then(|ends| daemon.head_start(&ends));
        if let Some(waiting) = &mut daemon.eager {
            waiting.retain(|other| *other != binding);
        }
        daemon.bind(binding, head_start);
    }
}

/// Most records that are handled before other tasks get their turn.
const BATCH: usize = 1024;

struct Daemon {
    object: Object,
    wanted: WantedMode,
    snoop: Snoop,
    table: FlowTable<FlowStore>,
    clients: aya::maps::HashMap<MapData, Plain<FlowKey>, u32>,
    path_mtus: aya::maps::HashMap<MapData, Plain<FlowKey>, Plain<PathMtu>>,
    kernel_interfaces: aya::maps::HashMap<MapData, u32, Plain<KernelInterface>>,
    devices: aya::maps::xdp::DevMapHash<MapData>,
    counters: aya::maps::PerCpuArray<MapData, u64>,
    /// The interfaces that were asked for.
    names: Vec<String>,
    /// Those of them that are there.
    attached: Vec<Attached>,
    /// Records that the kernel side could not hand over, as counted last.
    lost: u64,
    clock: KernelClock,
    terms: LeaseTerms,
    max_flows: u32,
    /// Bindings that wait for their head start, where there is such a thing.
    eager: Option<Vec<ChannelBinding>>,
    max_rate: Option<u64>,
    started: SystemTime,
    listeners: Listeners,
    /// What an operator wants to go through the server, those also that come later.
    pauses: Vec<Selector>,
    reads_users: bool,
    /// Also those of interfaces that are gone.
    interface_names: HashMap<u32, String>,
    heard: Heard,
    histograms: SessionHistograms,
    /// Sessions that ended, by reason.
    revocations: BTreeMap<&'static str, u64>,
    /// Flows that ask what their paths take.
    longer: Vec<path_mtu::Question>,
    /// Whether all stays in the kernel at the end.
    keeps: bool,
    /// What an earlier daemon left, until it is known whether this one leaves anything; then where it does.
    pins: Option<Pins>,
    /// What the next daemon is told.
    kept: Option<KeptMaps>,
}

impl Daemon {
    /// True where the ring buffer was emptied.
    fn drain(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        let mut is_empty = false;
        for _ in 0..BATCH {
            let Some(record) = ring.next() else {
                is_empty = true;
                break;
            };
            self.handle_record(&record);
        }
        // Once for all of them: it takes as long as a thousand records.
        self.table.install_waiting();
        is_empty
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
                let counter = match header.kind {
                    kind::REQUEST => &mut self.heard.requests,
                    _ => &mut self.heard.responses,
                };
                *counter += 1;
                let (refusal, client, server) = if header.kind == kind::REQUEST {
                    let refusal = self.snoop.handle_request(now, source, destination, message);
                    (refusal, source, destination)
                } else {
                    let refusal = self.snoop.handle_response(now, source, destination, message);
                    (refusal, destination, source)
                };
                if let Some(refusal) = refusal {
                    self.tell_of_refusal(client, server, refusal);
                }
                self.obey();
            }
            kind::ARMED => {
                self.heard.armed += 1;
                tracing::debug!(%source, %destination, channel = header.key.channel.value(), "armed");
                if let Ok((event, _)) = FlowEvent::read_from_prefix(record) {
                    let source = SocketAddr::new(event.out_source.into(), event.out_source_port.value());
                    self.table.armed(&header.key, source);
                }
                self.tell_of_lease(&header.key, None);
            }
            kind::LAPSED | kind::PATH_CHANGED => {
                let (cause, label, counter) = match header.kind {
                    kind::LAPSED => ("lapsed", "lease_over", &mut self.heard.lapsed),
                    _ => ("path changed", "path_changed", &mut self.heard.path_changed),
                };
                *counter += 1;
                tracing::debug!(%source, %destination, channel = header.key.channel.value(), cause, "disarmed");
                self.tell_of_lease(&header.key, Some(label));
            }
            kind::LONGER => self.handle_longer(header.key, header.time),
            kind::SIGHTED => self.handle_sighting(now, record),
            kind::TRANSMIT_FAILED => self.handle_transmit_failure(header.length),
            _ => {}
        }
    }

    fn handle_timeout(&mut self) {
        self.snoop.handle_timeout(self.clock.now());
        self.obey();
        let lost = self.count(Reason::ControlLost);
        if lost != self.lost {
            tracing::warn!(lost = lost - self.lost, "the ring buffer was full");
            self.lost = lost;
            self.table.catch_up();
        }
        self.table.install_waiting();
    }

    fn obey(&mut self) {
        while let Some(command) = self.snoop.poll_command() {
            match command {
                Command::Bind(binding) => {
                    tracing::debug!(five_tuple = %binding.five_tuple, channel = binding.channel, peer = %binding.peer,
                        relayed = ?binding.relayed, "bound");
                    match &mut self.eager {
                        Some(waiting) => waiting.push(binding),
                        None => self.bind(binding, None),
                    }
                }
                Command::BindDoubtful(binding) => {
                    tracing::debug!(five_tuple = %binding.five_tuple, channel = binding.channel, peer = %binding.peer,
                        "to be proved by the server");
                    self.bind(binding, None);
                }
                Command::Unbind(binding, revocation) => {
                    if let Some(waiting) = &mut self.eager {
                        waiting.retain(|other| *other != binding);
                    }
                    self.unbind(&binding, Cause::Revoked(revocation));
                }
                Command::Follow(five_tuple) => self.follow(five_tuple),
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

    fn handle_socket_closed(&mut self, local: SocketAddr) {
        self.table.socket_closed(local);
        self.handle_ended();
        self.table.install_waiting();
    }

    fn count(&self, reason: Reason) -> u64 {
        self.counters.get(&(reason as u32), 0).map_or(0, |values| values.iter().sum())
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

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
