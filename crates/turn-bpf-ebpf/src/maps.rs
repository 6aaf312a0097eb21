//! The maps, and `turn-datapath`'s view of them.

use core::ops::{Deref, DerefMut};

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, TC_ACT_REDIRECT};
use aya_ebpf::btf_maps::{DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_redirect};
use aya_ebpf::macros::btf_map;
use turn_datapath::joining::{Joining, Noted, Sighting};
use turn_datapath::kept::{KeptAllocation, KeptBinding, KeptCourse, KeptTraffic, KeptUser};
use turn_datapath::{Flow, FlowEvent, FlowKey, Flows, Interface, LeaseTerms, PathMtu, Reason};

// The daemon sets the real sizes when it loads the object.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, 1024> = HashMap::new();
#[btf_map]
pub static EXPECTED: HashMap<FlowKey, FlowKey, 1024> = HashMap::new();
// Least recently used, since the kernel fills it: whoever is displaced only learns his next binding late.
#[btf_map]
pub static CLIENTS: LruHashMap<FlowKey, u32, 1024> = LruHashMap::new();
// Least recently used: whoever is displaced asks again.
#[btf_map]
pub static PATH_MTUS: LruHashMap<FlowKey, PathMtu, 16384> = LruHashMap::new();
#[btf_map]
pub static INTERFACES: HashMap<u32, Interface, 256> = HashMap::new();
#[btf_map]
pub static DEVICES: DevMapHash<256> = DevMapHash::new();
#[btf_map]
pub static CONTROL: RingBuf<(), { 4 << 20 }> = RingBuf::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Reason::ROOM as usize }> = PerCpuArray::new();

/// Strangers' requests that this CPU copies per second: enough for a thousand calls that were there before to be
/// learned within seconds, little enough to cost the daemon nothing when they are forged.
const STRANGERS_PER_SECOND: u64 = 256;
/// When this CPU's present second began, and how many requests it has copied since.
#[btf_map]
pub static STRANGERS: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

// Least recently used: a server takes less time than it takes to displace anything that came just now. The daemon makes it larger.
#[btf_map]
pub static NOTED: LruHashMap<u64, Noted, 1024> = LruHashMap::new();

/// How long a window of sightings lasts, in nanoseconds.
const SIGHTING_WINDOW: u64 = 1 << 24;
/// Sightings that this CPU reports in each window: as many as leave room in the ring buffer for what 64 CPUs report at a time.
const SIGHTINGS_PER_WINDOW: u64 = 192;
/// When this CPU's present window began, and how many sightings there have been since.
#[btf_map]
pub static SIGHTINGS: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// The key of the packet that is looked at at TC, since the stack has no room for it.
#[btf_map]
pub static KEY: PerCpuArray<FlowKey, 1> = PerCpuArray::new();

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
// What the daemon leaves to the next one. No program reads or writes it, and places are taken from memory as they are needed.
#[btf_map]
pub static ALLOCATIONS: HashMap<FlowKey, KeptAllocation, 1024, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static BINDINGS: HashMap<FlowKey, KeptBinding, 1024, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static USERS: HashMap<FlowKey, KeptUser, 1024, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static TOTALS: HashMap<KeptCourse, KeptTraffic, 1024, NO_PREALLOC> = HashMap::new();

/// Set by the daemon before it loads the object.
#[unsafe(no_mangle)]
static LEASE_NS: u64 = 0;
/// Set by the daemon before it loads the object.
#[unsafe(no_mangle)]
static HEARTBEAT_NS: u64 = 0;
/// Set by the daemon before it loads the object. The verifier knows it then, and takes out what is for others only.
#[unsafe(no_mangle)]
static RATE_COST: u64 = 0;
/// Set by the daemon before it loads the object, as the one before.
#[unsafe(no_mangle)]
static JOINS_UNTIL: u64 = 0;

/// Set by the daemon before it loads the object.
#[unsafe(no_mangle)]
static LISTENING_BELOW: u32 = 0;

/// How long leases run.
#[inline(always)]
pub fn lease_terms() -> LeaseTerms {
    // SAFETY: references to statics are valid; the reads are volatile because the loader replaces the values
    // after the compiler has seen them.
    unsafe {
        LeaseTerms {
            lease: core::ptr::read_volatile(&LEASE_NS),
            heartbeat: core::ptr::read_volatile(&HEARTBEAT_NS),
            rate_cost: core::ptr::read_volatile(&RATE_COST),
            joins_until: core::ptr::read_volatile(&JOINS_UNTIL),
        }
    }
}

/// Counts a packet.
#[inline(always)]
pub fn count(reason: Reason) {
    count_many(reason, 1);
}

/// Counts packets.
#[inline(always)]
pub fn count_many(reason: Reason, packets: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the pointer is to this CPU's own slot, which nobody else writes while the program runs.
        unsafe { *counter = (*counter).wrapping_add(packets) }
    }
}

/// The maps of this object.
pub struct Maps;

/// A flow in its place in the map.
///
/// Other CPUs may hold the same one. The daemon never reuses the place of a deleted flow before all programs that could have found it
/// have ended. A path is written while the lease is off, and the lease, which is one word, after it, with a call of the kernel in
/// between; who relays reads the lease first, and then makes a call of the kernel, too. The compiler moves no access across such a call,
/// and x86 no store before an earlier store and no load before an earlier load. (LLVM has no fence for BPF that would say it.)
/// Of a counter an update may be lost.
pub struct FlowEntry(*mut Flow);

impl Deref for FlowEntry {
    type Target = Flow;

    #[inline(always)]
    fn deref(&self) -> &Flow {
        // SAFETY: a successful map lookup returned the pointer during this run of the program, and memory of map
        // elements stays allocated for as long as the program runs.
        unsafe { &*self.0 }
    }
}

impl DerefMut for FlowEntry {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Flow {
        // SAFETY: as above; within this run of the program there is one `FlowEntry` per flow.
        unsafe { &mut *self.0 }
    }
}

impl Flows for Maps {
    type Entry<'a> = FlowEntry;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry> {
        FLOWS.get_ptr_mut(key).map(FlowEntry)
    }

    #[inline(always)]
    fn expected(&self, output: &FlowKey) -> Option<FlowKey> {
        // SAFETY: the key is copied at once; if the daemon reuses the place meanwhile, the copy names no flow or
        // one whose fingerprint does not fit.
        unsafe { EXPECTED.get(output) }.copied()
    }

    #[inline(always)]
    fn is_client(&self, key: &FlowKey) -> bool {
        CLIENTS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn add_client(&self, key: &FlowKey) {
        // A failure costs speed only: this client's bindings are not learned.
        let _ = CLIENTS.insert(key, 1, 0);
    }

    #[inline(always)]
    fn listening_below(&self) -> u32 {
        // SAFETY: a reference to a static is valid; the read is volatile because the loader replaces the value after the compiler has
        // seen it.
        unsafe { core::ptr::read_volatile(&LISTENING_BELOW) }
    }

    #[inline(always)]
    fn admit_stranger(&self) -> bool {
        admit(&STRANGERS, self.now(), 1_000_000_000, STRANGERS_PER_SECOND)
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<Interface> {
        // SAFETY: the value is copied at once.
        unsafe { INTERFACES.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn path_mtu(&self, key: &FlowKey) -> Option<PathMtu> {
        // SAFETY: the value is copied at once. If the daemon writes it meanwhile, time and length may be of two answers, but
        // then the time fits no question of this flow, or the length is one that was true a moment ago.
        unsafe { PATH_MTUS.get(key) }.copied()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn prepare_redirect(&self, ifindex: u32) -> bool {
        DEVICES.redirect(ifindex, 0).is_ok()
    }

    #[inline(always)]
    fn report(&self, event: &FlowEvent) {
        // A full buffer loses the report, not the event: the flow itself tells its state, and the daemon looks.
        if CONTROL.output_untyped::<FlowEvent>(event, 0).is_err() {
            count(Reason::ControlLost);
        }
    }
}

/// Counts one more in this CPU's present window of so many nanoseconds. False where there have been enough.
#[inline(always)]
fn admit(windows: &PerCpuArray<[u64; 2], 1>, now: u64, length: u64, most: u64) -> bool {
    let Some(window) = windows.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to this CPU's own slot, which nobody else touches while the program runs.
    let [began, counted] = unsafe { &mut *window };
    if now.wrapping_sub(*began) >= length {
        (*began, *counted) = (now, 0);
    }
    *counted = counted.wrapping_add(1);
    *counted <= most
}

impl Joining for Maps {
    #[inline(always)]
    fn noted(&self, fingerprint: u64) -> Option<Noted> {
        // SAFETY: the value is copied at once. If another CPU writes it meanwhile, the key may be of no packet that ever was.
        unsafe { NOTED.get(&fingerprint) }.copied()
    }

    #[inline(always)]
    fn note(&self, fingerprint: u64, noted: &Noted) {
        // A failure costs speed only.
        let _ = NOTED.insert(&fingerprint, noted, 0);
    }

    #[inline(always)]
    fn admit_sighting(&self) -> bool {
        admit(&SIGHTINGS, self.now(), SIGHTING_WINDOW, SIGHTINGS_PER_WINDOW)
    }

    #[inline(always)]
    fn report_sighting(&self, sighting: &Sighting) {
        // Of a sample nothing is missed.
        let _ = CONTROL.output_untyped::<Sighting>(sighting, 0);
    }
}

/// The same for a program at TC, which redirects to any interface that is in the map of devices.
pub struct TcMaps;

impl Flows for TcMaps {
    type Entry<'a> = FlowEntry;

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry> {
        Maps.flow(key)
    }

    #[inline(always)]
    fn expected(&self, output: &FlowKey) -> Option<FlowKey> {
        Maps.expected(output)
    }

    #[inline(always)]
    fn is_client(&self, key: &FlowKey) -> bool {
        Maps.is_client(key)
    }

    #[inline(always)]
    fn add_client(&self, key: &FlowKey) {
        Maps.add_client(key);
    }

    #[inline(always)]
    fn listening_below(&self) -> u32 {
        Maps.listening_below()
    }

    #[inline(always)]
    fn admit_stranger(&self) -> bool {
        Maps.admit_stranger()
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<Interface> {
        Maps.interface(ifindex)
    }

    #[inline(always)]
    fn path_mtu(&self, key: &FlowKey) -> Option<PathMtu> {
        Maps.path_mtu(key)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        Maps.now()
    }

    #[inline(always)]
    fn prepare_redirect(&self, ifindex: u32) -> bool {
        // The kernel drops what is redirected to an interface that is gone or down. The daemon takes both out of the map.
        let is_open = DEVICES.get_ifindex(ifindex).is_some();
        // SAFETY: the helper only notes where the packet is to go.
        is_open && unsafe { bpf_redirect(ifindex, 0) } == TC_ACT_REDIRECT.into()
    }

    #[inline(always)]
    fn report(&self, event: &FlowEvent) {
        Maps.report(event);
    }
}
