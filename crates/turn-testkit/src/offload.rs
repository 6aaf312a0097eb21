//! A lab in which a stock coturn is offloaded by turn-bpf. For end-to-end tests: what fails here fails the test.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::coturn::{Coturn, CoturnOptions};
use crate::daemon::{Daemon, Session};
use crate::datagram::receive;
use crate::lab::{Family, Lab, Topology};
use crate::scratch::ScratchFolder;
use crate::traffic::{Carrier as _, Channel, Echo, Pump, Sink};
use crate::turn_client::TurnClient;

/// For whatever happens at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(10);

/// How the lab is to be set up.
#[derive(Clone, Debug)]
pub struct OffloadOptions {
    binary: PathBuf,
    topology: Topology,
    mode: String,
    terms: Option<(Duration, Duration)>,
    daemon: Vec<String>,
    wrapper: Vec<String>,
    log_level: String,
    coturn: Vec<String>,
    far_ends_pass: bool,
    coturn_runs: bool,
    interfaces: Option<Vec<String>>,
}

impl OffloadOptions {
    /// Two interfaces, native mode, short heartbeats and leases.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            topology: Topology::Two,
            mode: "native".to_owned(),
            terms: Some((Duration::from_millis(300), Duration::from_secs(1))),
            daemon: Vec::new(),
            wrapper: Vec::new(),
            log_level: "debug".to_owned(),
            coturn: Vec::new(),
            far_ends_pass: true,
            coturn_runs: true,
            interfaces: None,
        }
    }

    /// turn-bpf at these interfaces of the server, and not at those that the lab has at first.
    pub fn interfaces(mut self, names: &[&str]) -> Self {
        self.interfaces = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Another topology.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Another `--mode`.
    pub fn mode(mut self, mode: &str) -> Self {
        self.mode = mode.to_owned();
        self
    }

    /// Another `--heartbeat` and `--lease`.
    pub fn terms(mut self, heartbeat: Duration, lease: Duration) -> Self {
        self.terms = Some((heartbeat, lease));
        self
    }

    /// turn-bpf's own heartbeat and lease.
    pub fn default_terms(mut self) -> Self {
        self.terms = None;
        self
    }

    /// More arguments for `turn-bpf run`.
    pub fn daemon(mut self, arguments: &[&str]) -> Self {
        self.daemon.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// A program, with arguments, through which turn-bpf is started.
    pub fn within(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Another `--log-level`, for tests that would write too much.
    pub fn log_level(mut self, level: &str) -> Self {
        self.log_level = level.to_owned();
        self
    }

    /// More arguments for coturn.
    pub fn coturn(mut self, arguments: &[&str]) -> Self {
        self.coturn.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// No XDP program at the far ends of the server's interfaces, without which they do not take what XDP transmits.
    pub fn far_ends_without_program(mut self) -> Self {
        self.far_ends_pass = false;
        self
    }

    /// No coturn yet: the test starts one with [`Offload::serve`].
    pub fn without_coturn(mut self) -> Self {
        self.coturn_runs = false;
        self
    }

    /// The lab with a running coturn and a turn-bpf that is ready.
    pub fn start(self) -> Offload {
        let mut offload = self.start_without_daemon();
        offload.start_daemon();
        offload
    }

    /// The lab with a running coturn alone.
    pub fn start_without_daemon(self) -> Offload {
        let mut lab = Lab::new(self.topology).expect("a lab");
        if self.far_ends_pass {
            lab.attach_pass().expect("XDP programs at the far ends");
        }
        let forwards = lab.server.output("cat", &["/proc/sys/net/ipv4/ip_forward"]).expect("ip_forward");
        assert_eq!(forwards.trim(), "0", "the server's namespace never forwards");
        let folder = ScratchFolder::new("control").expect("a folder");
        let mut offload = Offload { daemon: None, coturn: None, lab, folder, options: self };
        if offload.options.coturn_runs {
            offload.start_coturn();
        }
        offload
    }
}

/// A lab, a coturn, and a turn-bpf.
#[derive(Debug)]
pub struct Offload {
    daemon: Option<Daemon>,
    coturn: Option<Coturn>,
    /// The namespaces.
    pub lab: Lab,
    folder: ScratchFolder,
    options: OffloadOptions,
}

impl Offload {
    /// turn-bpf, while it runs.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("turn-bpf runs")
    }

    /// turn-bpf, while it runs, to be asked only.
    pub fn daemon_ref(&self) -> &Daemon {
        self.daemon.as_ref().expect("turn-bpf runs")
    }

    /// coturn, while it runs.
    pub fn coturn(&mut self) -> &mut Coturn {
        self.coturn.as_mut().expect("coturn runs")
    }

    /// Takes turn-bpf away, to end it in a way of one's own.
    pub fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().expect("turn-bpf runs")
    }

    /// Takes coturn away, to end it in a way of one's own.
    pub fn take_coturn(&mut self) -> Coturn {
        self.coturn.take().expect("coturn runs")
    }

    /// Starts turn-bpf, on the same control socket each time.
    pub fn start_daemon(&mut self) {
        let OffloadOptions { binary, mode, terms, daemon: more, wrapper, log_level, .. } = &self.options;
        let mut arguments = vec!["--mode".to_owned(), mode.clone()];
        arguments.extend(["--log-level", log_level].map(str::to_owned));
        if let Some((heartbeat, lease)) = terms {
            let milliseconds = |time: &Duration| format!("{}ms", time.as_millis());
            arguments.extend(["--heartbeat".to_owned(), milliseconds(heartbeat)]);
            arguments.extend(["--lease".to_owned(), milliseconds(lease)]);
        }
        let of_lab = || self.lab.interfaces().iter().map(|interface| (*interface).to_owned()).collect();
        arguments.extend(self.options.interfaces.clone().unwrap_or_else(of_lab));
        arguments.extend(more.iter().cloned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let control = self.folder.path().join("control.sock");
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        match Daemon::start_within(&self.lab.server, &wrapper, binary, &control, &arguments) {
            Ok(daemon) => self.daemon = Some(daemon),
            Err(error) => panic!("{error}"),
        }
    }

    /// The same with more arguments, from now on.
    pub fn start_daemon_with(&mut self, arguments: &[&str]) {
        self.options = self.options.clone().daemon(arguments);
        self.start_daemon();
    }

    /// The same without an argument that it had, from now on.
    pub fn start_daemon_without(&mut self, argument: &str) {
        self.options.daemon.retain(|other| other != argument);
        self.start_daemon();
    }

    /// Starts turn-bpf in another mode, from now on.
    pub fn start_daemon_in(&mut self, mode: &str) {
        self.options = self.options.clone().mode(mode);
        self.start_daemon();
    }

    /// Where turn-bpf's control socket is.
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Starts coturn, on the same ports each time.
    pub fn start_coturn(&mut self) {
        let arguments: Vec<&str> = self.options.coturn.iter().map(String::as_str).collect();
        self.serve(CoturnOptions::of(&self.lab).arguments(&arguments));
    }

    /// Starts coturn in another way.
    pub fn serve(&mut self, options: CoturnOptions) {
        match options.start(&self.lab.server) {
            Ok(coturn) => self.coturn = Some(coturn),
            Err(error) => panic!("{error}"),
        }
    }

    /// coturn's listener.
    pub fn listener(&self) -> SocketAddr {
        self.listener_of(Family::V4)
    }

    /// coturn's listener, by family.
    pub fn listener_of(&self, family: Family) -> SocketAddr {
        (self.lab.addresses(family).listen, crate::coturn::PORT).into()
    }

    /// A client that has said nothing yet.
    pub fn client(&self) -> TurnClient {
        self.client_of(Family::V4)
    }

    /// A client that has said nothing yet, by the family of its way to the server.
    pub fn client_of(&self, family: Family) -> TurnClient {
        let address = (self.lab.addresses(family).client, 0).into();
        let socket = self.lab.client.udp_socket(address).expect("a client's socket");
        TurnClient::new(socket, self.listener_of(family))
    }

    /// A client with an allocation, and its relayed transport address.
    pub fn allocated_client(&self) -> (TurnClient, SocketAddr) {
        let mut client = self.client();
        let relayed = client.allocate(None, None).expect("an allocation").relayed;
        (client, relayed)
    }

    /// A client with an allocation, and its relayed transport address, by the family of each.
    pub fn allocated_client_of(&self, client: Family, relayed: Family) -> (TurnClient, SocketAddr) {
        let mut client = self.client_of(client);
        let relayed = client.allocate(Some(relayed), None).expect("an allocation").relayed;
        (client, relayed)
    }

    /// A peer's socket.
    pub fn peer(&self) -> UdpSocket {
        self.peer_of(Family::V4)
    }

    /// A peer's socket, by family.
    pub fn peer_of(&self, family: Family) -> UdpSocket {
        self.lab.peer.udp_socket((self.lab.addresses(family).peer, 0).into()).expect("a peer's socket")
    }

    /// A peer that sends everything back.
    pub fn echo(&self) -> Echo {
        Echo::start(self.peer())
    }

    /// A peer that sends everything back, by family.
    pub fn echo_of(&self, family: Family) -> Echo {
        Echo::start(self.peer_of(family))
    }

    /// A peer that takes one stream.
    pub fn sink(&self, stream: u32) -> Sink {
        Sink::start(self.peer(), stream)
    }

    /// All rows of `turn-bpf sessions`.
    pub fn sessions(&self) -> Vec<Session> {
        self.daemon.as_ref().expect("turn-bpf runs").sessions().expect("sessions")
    }

    /// The row of a client's channel. The server's address need not be the one that the client knows, unless the socket is in use
    /// with several.
    pub fn session(&self, client: &TurnClient, channel: u16) -> Option<Session> {
        let address = client.address().expect("the client's address");
        let channel = format!("{channel:#06x}");
        let rows = self.sessions().into_iter();
        rows.filter(|row| row.client == address && row.channel == channel)
            .max_by_key(|row| row.server == client.server())
    }

    /// Packets relayed in the kernel, by turn-bpf's own count.
    pub fn kernel_packets(&self) -> u64 {
        self.daemon.as_ref().expect("turn-bpf runs").status().expect("status").packets.kernel
    }

    /// How often a reason was counted.
    pub fn count(&self, reason: &str) -> u64 {
        let status = self.daemon.as_ref().expect("turn-bpf runs").status().expect("status");
        *status.reasons.get(reason).unwrap_or_else(|| panic!("no reason is called {reason}"))
    }

    /// Waits until turn-bpf has read all control messages that the kernel side has copied for it.
    pub fn wait_until_all_is_read(&self) {
        let daemon = self.daemon.as_ref().expect("turn-bpf runs");
        wait_until("all control messages are read", || {
            let status = daemon.status().expect("status");
            let read = status.control_messages;
            read.requests == status.reasons["control"] && read.responses == status.reasons["egress_control"]
        });
    }

    /// All reasons that were counted.
    pub fn counted(&self) -> Vec<(String, u64)> {
        let reasons = self.daemon_ref().status().expect("status").reasons;
        reasons.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The row of a client's channel, once it is what is wanted.
    pub fn wait_for_session(
        &self,
        client: &TurnClient,
        channel: u16,
        mut wanted: impl FnMut(&Session) -> bool,
    ) -> Session {
        let mut last = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.session(client, channel);
            if let Some(row) = last.take_if(|row| wanted(row)) {
                return row;
            }
            thread::sleep(POLL);
        }
        panic!("channel {channel:#06x} stays {last:?}: {}", self.log());
    }

    /// Waits until the row of a client's channel is gone.
    pub fn wait_until_unbound(&self, client: &TurnClient, channel: u16) {
        wait_until("the binding is gone", || self.session(client, channel).is_none());
    }

    /// Binds a channel to an echoing peer and sends packets until both directions are relayed in the kernel. Returns how many packets
    /// that took.
    pub fn bind_and_arm(&self, client: &mut TurnClient, channel: u16, echo: &Echo) -> u64 {
        client.channel_bind(channel, echo.address()).expect("a channel binding");
        self.wait_for_session(client, channel, |_| true);
        self.arm(client, channel)
    }

    /// Sends packets until both directions of a channel to an echoing peer are relayed in the kernel. Returns how many packets that
    /// took.
    pub fn arm(&self, client: &mut TurnClient, channel: u16) -> u64 {
        let mut packets = 0;
        self.arm_with(client, channel, "kernel", |client| {
            let mut carrier = Channel { client, number: channel };
            carrier.send(ARMING).expect("the client sends");
            packets += 1;
            let echoed = carrier.receive(PATIENCE).expect("the client receives");
            assert_eq!(echoed.as_deref(), Some(ARMING));
        });
        packets
    }

    /// Binds a channel to a silent peer and sends packets until its direction is relayed in the kernel. Returns how many packets that
    /// took; the peer has received them all.
    pub fn bind_and_arm_to_peer(&self, client: &mut TurnClient, channel: u16, peer: &UdpSocket) -> u64 {
        client
            .channel_bind(channel, peer.local_addr().expect("the peer's address"))
            .expect("a channel binding");
        self.wait_for_session(client, channel, |_| true);
        self.arm_to_peer(client, channel, peer)
    }

    /// Sends packets until one direction of a channel to a silent peer is relayed in the kernel. Returns how many packets that took; the
    /// peer has received them all.
    pub fn arm_to_peer(&self, client: &mut TurnClient, channel: u16, peer: &UdpSocket) -> u64 {
        let mut packets = 0;
        self.arm_with(client, channel, "mixed", |client| {
            client.send_channel_data(channel, ARMING, &[]).expect("the client sends");
            packets += 1;
            let received = receive(peer, PATIENCE).expect("the peer receives").map(|(payload, _)| payload);
            assert_eq!(received.as_deref(), Some(ARMING));
        });
        packets
    }

    /// Steady traffic both ways between a client and a silent peer, relayed in the kernel.
    pub fn steady(
        &self,
        client: &mut TurnClient,
        channel: u16,
        relayed: SocketAddr,
        peer: &UdpSocket,
    ) -> [Pump; 2] {
        self.bind_and_arm_to_peer(client, channel, peer);
        let pumps = [
            Pump::channel(client, channel, TO_PEER).expect("a pump"),
            Pump::datagrams(peer, relayed, TO_CLIENT).expect("a pump"),
        ];
        self.wait_for_session(client, channel, |session| session.state == "kernel");
        pumps
    }

    /// The kernel goes on relaying a session both ways, and no packet has found its lease over since `no_lease` were counted.
    pub fn assert_stays_in_the_kernel(&self, client: &TurnClient, channel: u16, no_lease: u64) {
        let session = self.session(client, channel).expect("still bound");
        assert_eq!(session.state, "kernel", "{session:?}");
        self.wait_for_session(client, channel, |now| {
            now.client_to_peer.kernel_packets > session.client_to_peer.kernel_packets + 20
                && now.peer_to_client.kernel_packets > session.peer_to_client.kernel_packets + 20
        });
        assert_eq!(self.count("no_lease"), no_lease);
    }

    /// Repeats a step until a channel is in a state. A packet that got no witness stands for its flow for a tenth of a second.
    fn arm_with(
        &self,
        client: &mut TurnClient,
        channel: u16,
        state: &str,
        mut step: impl FnMut(&mut TurnClient),
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            step(client);
            let next = Instant::now() + Duration::from_millis(120);
            while Instant::now() < next {
                if self.session(client, channel).is_some_and(|row| row.state == state) {
                    return;
                }
                thread::sleep(POLL);
            }
            assert!(
                Instant::now() < deadline,
                "channel {channel:#06x} is never in state {state}: {:?} {:?}\n{}",
                self.session(client, channel),
                self.counted(),
                self.log()
            );
        }
    }

    /// What turn-bpf has logged.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// What is attached to the server's interfaces.
    pub fn attached_programs(&self) -> Vec<String> {
        let interfaces = self.lab.interfaces().iter();
        interfaces
            .flat_map(|interface| self.lab.server.attached(interface).expect("what is attached"))
            .collect()
    }
}

/// What a client's pump sends.
pub const TO_PEER: &[u8] = b"from client to peer";
/// What a peer's pump sends.
pub const TO_CLIENT: &[u8] = b"from peer to client";
/// Too short for a numbered payload, so that no receiver takes it for one of a stream.
pub const ARMING: &[u8] = b"arming";

/// Waits for a condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(POLL);
    }
}
