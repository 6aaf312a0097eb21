//! Running a case in the kernel.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{LazyLock, Mutex, MutexGuard};

use aya::maps::PerCpuValues;
use aya::programs::TestRun as _;
use aya::{TestRunOptions, TestRunResult};
use rustix::time::{ClockId, clock_gettime};
use turn_bpf::flow_table::FlowMaps as _;
use turn_bpf::object::{Maps, Object, Plain};
use turn_datapath::control::kind;
use turn_datapath::egress::Sent;
use turn_datapath::{Flow, FlowEvent, FlowKey, Interface, LeaseTerms, PathMtu, Reason, RecordHeader};
use turn_snoop::ListeningPorts;
use turn_testkit::cases::{HERE, Input, Message, Outcome, Report, Setting, TERMS, Verdict};
use turn_testkit::checksum_complete;
use turn_wire::ethernet::VlanTags;
use zerocopy::FromBytes as _;

const MAX_FLOWS: u32 = 1024;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_NEXT: u32 = -1_i32 as u32;
pub const TC_REDIRECT: u32 = 7;
/// Words of `struct __sk_buff`.
const INGRESS_IFINDEX: usize = 9;
const GSO_SIZE: usize = 44;

/// Headers grow by this much at the most: IPv4 to IPv6, a ChannelData header, and two VLAN tags.
const MAX_GROWTH: usize = 32;

/// Which of the ingress programs a packet that comes in meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// The one for XDP.
    Xdp,
    /// The one for generic XDP.
    Generic,
    /// The one for TC.
    Tc,
}

/// The loaded object.
pub struct Kernel {
    ingress: Ingress,
    pub object: Object,
    pub maps: Maps,
    counters: Vec<u64>,
}

impl Kernel {
    /// Loads the object, for packets that come in by XDP.
    pub fn load() -> Self {
        Self::load_with(&TERMS)
    }

    /// One that all tests of this process take turns with, since loading takes longer than most tests. Its maps are empty.
    pub fn shared(ingress: Ingress) -> MutexGuard<'static, Self> {
        static SHARED: LazyLock<Mutex<Kernel>> = LazyLock::new(|| Mutex::new(Kernel::load()));
        let mut kernel = SHARED.lock().unwrap_or_else(|failed| {
            // A test that failed left its maps behind.
            let mut kernel = failed.into_inner();
            *kernel = Kernel::load();
            SHARED.clear_poison();
            kernel
        });
        kernel.ingress = ingress;
        kernel
    }

    /// Loads the object by other terms.
    pub fn load_with(terms: &LeaseTerms) -> Self {
        let loaded = Object::load(terms, &ListeningPorts::default(), MAX_FLOWS, None);
        let mut object = loaded.unwrap_or_else(|error| {
            panic!(
                "{}\nthese tests load BPF programs: run them as root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON)",
                with_causes(&error)
            )
        });
        let maps = object.take_maps().expect("the object has its maps");
        Self { ingress: Ingress::Xdp, object, maps, counters: vec![0; Reason::COUNT] }
    }

    /// Loads the object by other terms, for packets that come in by one of the two.
    pub fn load_for(ingress: Ingress, terms: &LeaseTerms) -> Self {
        Self { ingress, ..Self::load_with(terms) }
    }

    /// Runs a packet through the program that it is for.
    ///
    /// The kernel's clock cannot be set, so all times of the case are moved to where the clock is. It ticks in
    /// milliseconds; where it ticked meanwhile, the case is run again.
    pub fn run(&mut self, setting: &Setting, input: &Input) -> Outcome {
        let context = self.context(input);
        self.run_in(&context, setting, input)
    }

    /// Runs packets of this length that were merged into one, as an interface with UDP receive offload hands them over.
    pub fn run_train(&mut self, setting: &Setting, input: &Input, segment: u32) -> Outcome {
        assert_eq!(self.ingress, Ingress::Tc);
        let mut context = self.context(input);
        context[4 * GSO_SIZE..][..4].copy_from_slice(&segment.to_ne_bytes());
        self.run_in(&context, setting, input)
    }

    /// Runs a packet of this setting at TC whose sum the device has made, and returns the verdict, or what the kernel finds wrong.
    pub fn run_summed(&mut self, setting: &Setting, input: &Input) -> io::Result<u32> {
        let context = self.context(input);
        let clock = Clock { shown: coarse_clock(), meant: setting.now };
        self.fill(setting, &clock);
        let program = self.object.ingress().expect("the TC program").fd().expect("it is loaded");
        let result = checksum_complete::run(program.as_fd(), input.frame(), &context);
        self.newly_counted();
        self.records(&clock);
        self.clear(setting, &setting.clients);
        result
    }

    fn run_in(&mut self, context: &[u8], setting: &Setting, input: &Input) -> Outcome {
        loop {
            let clock = Clock { shown: coarse_clock(), meant: setting.now };
            self.fill(setting, &clock);
            let (mut verdict, frame) = self.execute_in(input, context);
            let is_in_time = coarse_clock() == clock.shown;
            let counted = self.newly_counted();
            // At TC both are redirects.
            if verdict == Verdict::Redirect && counted == [Reason::Relayed] {
                verdict = Verdict::Transmit;
            }
            let (messages, reports) = self.records(&clock);
            let flows = setting.flows.iter().filter_map(|(key, before)| {
                let after = self.maps.flows.flow(key)?;
                Some((*key, clock.back(before, after)))
            });
            let flows = flows.collect();
            let clients: HashSet<FlowKey> =
                self.maps.clients.keys().map(|key| key.expect("a key of CLIENTS").0).collect();
            self.clear(setting, &clients);
            if is_in_time {
                return Outcome { verdict, frame, counted, messages, reports, flows, clients };
            }
        }
    }

    fn fill(&mut self, setting: &Setting, clock: &Clock) {
        for (key, flow) in &setting.flows {
            self.maps.flows.insert_flow(key, &clock.there(flow)).expect("room in FLOWS");
        }
        for (output, flow) in &setting.expected {
            self.maps.flows.insert_expected(output, flow).expect("room in EXPECTED");
        }
        for client in &setting.clients {
            self.maps.clients.insert(Plain(*client), 1, 0).expect("room in CLIENTS");
        }
        for (key, mtu) in &setting.path_mtus {
            let moved = PathMtu { asked_at: clock.time_there(mtu.asked_at), ..*mtu };
            self.maps.path_mtus.insert(Plain(*key), Plain(moved), 0).expect("room in PATH_MTUS");
        }
        for (ifindex, interface) in &setting.interfaces {
            let looked_after_until = clock.time_there(interface.looked_after_until);
            let moved = Interface { looked_after_until, ..*interface };
            self.maps.interfaces.insert(ifindex, Plain(moved), 0).expect("room in INTERFACES");
        }
        for ifindex in &setting.devices {
            // Nothing is sent in a test run, so the loopback interface stands for every other.
            self.maps.devices.insert(*ifindex, HERE, None, 0).expect("room in DEVICES");
        }
        let copied = if setting.admits_strangers { 0 } else { u64::from(u32::MAX) };
        let cpus = aya::util::nr_cpus().expect("the number of CPUs");
        let window = PerCpuValues::try_from(vec![[clock.shown, copied]; cpus]).expect("one for each CPU");
        self.maps.strangers.set(0, window, 0).expect("a slot for strangers");
    }

    fn clear(&mut self, setting: &Setting, clients: &HashSet<FlowKey>) {
        setting.flows.iter().for_each(|(key, _)| self.maps.flows.remove_flow(key));
        setting.expected.iter().for_each(|(output, _)| self.maps.flows.remove_expected(output));
        for client in clients {
            self.maps.clients.remove(&Plain(*client)).expect("a client that was there");
        }
        for (key, _) in &setting.path_mtus {
            self.maps.path_mtus.remove(&Plain(*key)).expect("a path that was there");
        }
        for (ifindex, _) in &setting.interfaces {
            self.maps.interfaces.remove(ifindex).expect("an interface that was there");
        }
        for ifindex in &setting.devices {
            self.maps.devices.remove(*ifindex).expect("a device that was there");
        }
    }

    /// Runs a packet with the maps as they are.
    pub fn execute(&mut self, input: &Input) -> (Verdict, Vec<u8>) {
        let context = self.context(input);
        self.execute_in(input, &context)
    }

    fn execute_in(&mut self, input: &Input, context: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = vec![0; input.frame().len() + MAX_GROWTH];
        let options = TestRunOptions {
            data_in: Some(input.frame()),
            data_out: Some(&mut frame),
            ctx_in: Some(context),
            ..TestRunOptions::default()
        };
        let result = match input {
            Input::Received { .. } if self.ingress == Ingress::Tc => {
                self.object.ingress().expect("the TC program").test_run(options)
            }
            Input::Received { .. } if self.ingress == Ingress::Generic => {
                self.object.generic_xdp().expect("the XDP program").test_run(options)
            }
            Input::Received { .. } => self.object.xdp().expect("the XDP program").test_run(options),
            Input::Passed { .. } => self.object.unseen_tag().expect("the TC program").test_run(options),
            Input::Sent { .. } => self.object.egress().expect("the TC program").test_run(options),
        };
        let TestRunResult { return_value, data_size_out, .. } =
            result.unwrap_or_else(|error| panic!("{}\nfor {input:02x?}", with_causes(&error)));
        frame.truncate(data_size_out as usize);
        let is_xdp = self.ingress != Ingress::Tc && matches!(input, Input::Received { .. });
        let verdict = match (is_xdp, return_value) {
            (true, XDP_PASS) | (false, TC_NEXT) => Verdict::Onward,
            (true, XDP_TX) => Verdict::Transmit,
            (true, XDP_REDIRECT) => Verdict::Redirect,
            (false, TC_REDIRECT) if matches!(input, Input::Received { .. }) => Verdict::Redirect,
            _ => panic!("the program returned {return_value} for {input:02x?}"),
        };
        (verdict, frame)
    }

    /// `struct xdp_md` or `struct __sk_buff`.
    fn context(&self, input: &Input) -> Vec<u8> {
        let mut socket_buffer = vec![0; 48];
        let words = match input {
            Input::Received { interface, .. } if self.ingress == Ingress::Tc => {
                assert_eq!(*interface, HERE, "a test run comes in by the loopback interface");
                socket_buffer[INGRESS_IFINDEX] = HERE;
                socket_buffer
            }
            Input::Received { frame, interface } => {
                let (data, data_end, data_meta, rx_queue, egress_ifindex) = (0, frame.len() as u32, 0, 0, 0);
                vec![data, data_end, data_meta, *interface, rx_queue, egress_ifindex]
            }
            Input::Passed { tag, .. } => {
                assert_eq!(*tag, VlanTags::NONE, "a test run shows no tag");
                socket_buffer[INGRESS_IFINDEX] = HERE;
                socket_buffer
            }
            Input::Sent { sent: Sent { ifindex, by_this_host, segment, tag }, .. } => {
                assert!(
                    *ifindex == HERE && *tag == VlanTags::NONE,
                    "a test run leaves by the loopback interface, untagged"
                );
                socket_buffer[INGRESS_IFINDEX] = if *by_this_host { 0 } else { HERE };
                socket_buffer[GSO_SIZE] = (*segment).into();
                socket_buffer
            }
        };
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    /// What was counted since the last call.
    pub fn newly_counted(&mut self) -> Vec<Reason> {
        let mut counted = Vec::new();
        for (reason, before) in Reason::ALL.into_iter().zip(&mut self.counters) {
            let now = self.maps.count(reason).expect("a counter of every reason");
            counted.extend(std::iter::repeat_n(reason, (now - *before) as usize));
            *before = now;
        }
        counted
    }

    fn records(&mut self, clock: &Clock) -> (Vec<Message>, Vec<Report>) {
        let mut messages = Vec::new();
        let mut reports = Vec::new();
        while let Some(record) = self.maps.control.next() {
            let (header, rest) = RecordHeader::read_from_prefix(&record).expect("a whole header");
            if matches!(header.kind, kind::REQUEST | kind::RESPONSE) {
                let bytes = rest[..header.length as usize].to_vec();
                let time = clock.time_back(header.time);
                messages.push(Message { kind: header.kind, time, key: header.key, bytes });
            } else {
                let event = FlowEvent::read_from_bytes(&record).expect("a whole event");
                let report = Report::from(&event);
                reports.push(Report { time: clock.time_back(report.time), ..report });
            }
        }
        (messages, reports)
    }
}

/// What the kernel's clock shows while the case means another time.
struct Clock {
    shown: u64,
    meant: u64,
}

impl Clock {
    /// The flow as the kernel has to have it.
    fn there(&self, flow: &Flow) -> Flow {
        let mut moved = *flow;
        times(&mut moved).into_iter().for_each(|time| *time = self.time_there(*time));
        moved
    }

    /// The flow as the case means it. A time that did not change is the one that it was.
    fn back(&self, before: &Flow, mut after: Flow) -> Flow {
        let mut before = *before;
        for (after, before) in times(&mut after).into_iter().zip(times(&mut before)) {
            *after = match *after {
                0 => 0,
                unchanged if unchanged == self.time_there(*before) => *before,
                changed => self.time_back(changed),
            };
        }
        after
    }

    /// Zero means that there is none. The machine may not have been up for as long as a case goes back.
    fn time_there(&self, time: u64) -> u64 {
        match time {
            0 => 0,
            time => time.saturating_add(self.shown).saturating_sub(self.meant).max(1),
        }
    }

    fn time_back(&self, time: u64) -> u64 {
        (time + self.meant).checked_sub(self.shown).expect("no time of long ago")
    }
}

fn times(flow: &mut Flow) -> [&mut u64; 6] {
    let Flow { lease_until, heartbeat_at, noted_until, busy_until, out_mtu_until, longer_at, .. } = flow;
    [lease_until, heartbeat_at, noted_until, busy_until, out_mtu_until, longer_at]
}

/// The clock that the programs read.
fn coarse_clock() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An error with all its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
