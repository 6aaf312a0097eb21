//! Packets and maps in ordinary memory, for running `turn-datapath` on the host.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{HashMap, HashSet};

use turn_datapath::joining::{Joining, Noted, Sighting};
use turn_datapath::{Flow, FlowEvent, FlowKey, Flows, Frame, Interface, PathMtu};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the kernel leaves before a frame (`XDP_PACKET_HEADROOM`), without what it keeps for itself there.
pub const HEADROOM: usize = 216;

/// The kernel keeps at least an Ethernet header of every frame.
const SHORTEST: usize = 14;

/// Fills the headroom, so that whatever is left unwritten shows.
const FILLER: u8 = 0xee;

/// A frame that can grow at its start as far as there is headroom, and may lie in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    buffer: Vec<u8>,
    start: usize,
    first_end: usize,
}

impl MemoryFrame {
    /// A frame with as much headroom as the kernel gives.
    pub fn new(frame: &[u8]) -> Self {
        Self::with_headroom(frame, HEADROOM)
    }

    /// A frame with this much headroom.
    pub fn with_headroom(frame: &[u8], headroom: usize) -> Self {
        let mut buffer = vec![FILLER; headroom];
        buffer.extend_from_slice(frame);
        Self { start: headroom, first_end: buffer.len(), buffer }
    }

    /// A frame whose first part has at most this many bytes.
    pub fn in_parts(frame: &[u8], first_part: usize) -> Self {
        Self::new(frame).split(first_part)
    }

    /// The same frame, with at most this many bytes in its first part.
    pub fn split(mut self, first_part: usize) -> Self {
        self.first_end = self.first_end.min(self.start.saturating_add(first_part));
        self
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn first_part(&self) -> &[u8] {
        &self.buffer[self.start..self.first_end]
    }
}

impl Frame for MemoryFrame {
    fn behind(&self, end: usize) -> Option<usize> {
        if end == self.first_part().len() { Some(0) } else { self.bytes().len().checked_sub(end) }
    }

    fn is_whole(&self, end: usize) -> bool {
        end <= self.first_part().len()
    }

    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        H::read_from_prefix(self.first_part().get(at..)?).ok().map(|(header, _)| header)
    }

    fn put<H: IntoBytes + Immutable + Copy>(&mut self, at: usize, header: &H) -> bool {
        let place = self.buffer[self.start..self.first_end].get_mut(at..);
        place.is_some_and(|place| header.write_to_prefix(place).is_ok())
    }

    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        assert!((1..=32).contains(&length), "{length} bytes asked for");
        let Some(bytes) = at.checked_add(length).and_then(|end| self.bytes().get(at..end)) else {
            return false;
        };
        buffer.as_mut_bytes()[..length].copy_from_slice(bytes);
        true
    }

    fn move_head(&mut self, by: i32) -> bool {
        let Some(start) = self.start.checked_add_signed(by as isize) else { return false };
        if start + SHORTEST > self.first_end {
            return false;
        }
        self.start = start;
        true
    }

    fn cut_tail(&mut self, by: usize) -> bool {
        let Some(end) = self.buffer.len().checked_sub(by) else { return false };
        if end < self.start + SHORTEST {
            return false;
        }
        self.buffer.truncate(end);
        self.first_end = self.first_end.min(end);
        true
    }
}

/// The maps of the BPF object, with a clock that stands still until it is set, and a record of what was reported and
/// where frames were to be redirected.
#[derive(Debug, Default)]
pub struct MemoryFlows {
    flows: RefCell<HashMap<FlowKey, Flow>>,
    expected: HashMap<FlowKey, FlowKey>,
    clients: RefCell<HashSet<FlowKey>>,
    path_mtus: HashMap<FlowKey, PathMtu>,
    interfaces: HashMap<u32, Interface>,
    devices: HashSet<u32>,
    admits_strangers: bool,
    now: Cell<u64>,
    reports: RefCell<Vec<FlowEvent>>,
    redirects: RefCell<Vec<u32>>,
    noted: RefCell<HashMap<u64, Noted>>,
    sightings: RefCell<Vec<Sighting>>,
}

impl MemoryFlows {
    /// Empty maps, and a clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Installs a flow.
    pub fn insert_flow(&mut self, key: FlowKey, flow: Flow) {
        self.flows.get_mut().insert(key, flow);
    }

    /// Says which flow an output proves.
    pub fn insert_expected(&mut self, output: FlowKey, flow: FlowKey) {
        self.expected.insert(output, flow);
    }

    /// Takes a flow away; whether it was there.
    pub fn remove_flow(&mut self, key: &FlowKey) -> bool {
        self.flows.get_mut().remove(key).is_some()
    }

    /// Forgets an expected output.
    pub fn remove_expected(&mut self, output: &FlowKey) {
        self.expected.remove(output);
    }

    /// Forgets the 5-tuple of an allocation.
    pub fn remove_client(&mut self, client: &FlowKey) {
        self.clients.get_mut().remove(client);
    }

    /// How many flows there are.
    pub fn flow_count(&self) -> usize {
        self.flows.borrow().len()
    }

    /// Makes an interface known.
    pub fn insert_interface(&mut self, ifindex: u32, interface: Interface) {
        self.interfaces.insert(ifindex, interface);
    }

    /// Says what the path of a flow takes.
    pub fn insert_path_mtu(&mut self, key: FlowKey, mtu: PathMtu) {
        self.path_mtus.insert(key, mtu);
    }

    /// Lets frames be redirected to an interface.
    pub fn insert_device(&mut self, ifindex: u32) {
        self.devices.insert(ifindex);
    }

    /// Says whether requests of clients that are not known are looked at.
    pub fn admit_strangers(&mut self, admits: bool) {
        self.admits_strangers = admits;
    }

    /// Sets the clock.
    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    /// What is known of a flow.
    pub fn peek(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.borrow().get(key).copied()
    }

    /// All flows.
    pub fn flows(&self) -> HashMap<FlowKey, Flow> {
        self.flows.borrow().clone()
    }

    /// All expected outputs, with the flows that they prove.
    pub fn all_expected(&self) -> HashMap<FlowKey, FlowKey> {
        self.expected.clone()
    }

    /// The 5-tuples that were remembered.
    pub fn clients(&self) -> HashSet<FlowKey> {
        self.clients.borrow().clone()
    }

    /// What was reported since the last call.
    pub fn take_reports(&self) -> Vec<FlowEvent> {
        self.reports.take()
    }

    /// What was seen leaving that no flow expects, since the last call.
    pub fn take_sightings(&self) -> Vec<Sighting> {
        self.sightings.take()
    }

    /// Where frames were to be redirected since the last call.
    pub fn take_redirects(&self) -> Vec<u32> {
        self.redirects.take()
    }
}

impl Flows for MemoryFlows {
    type Entry<'a> = RefMut<'a, Flow>;

    fn flow(&self, key: &FlowKey) -> Option<RefMut<'_, Flow>> {
        RefMut::filter_map(self.flows.borrow_mut(), |flows| flows.get_mut(key)).ok()
    }

    fn expected(&self, output: &FlowKey) -> Option<FlowKey> {
        self.expected.get(output).copied()
    }

    fn is_client(&self, key: &FlowKey) -> bool {
        self.clients.borrow().contains(key)
    }

    fn add_client(&self, key: &FlowKey) {
        self.clients.borrow_mut().insert(*key);
    }

    fn listening_below(&self) -> u32 {
        32_768
    }

    fn admit_stranger(&self) -> bool {
        self.admits_strangers
    }

    fn interface(&self, ifindex: u32) -> Option<Interface> {
        self.interfaces.get(&ifindex).copied()
    }

    fn path_mtu(&self, key: &FlowKey) -> Option<PathMtu> {
        self.path_mtus.get(key).copied()
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn prepare_redirect(&self, ifindex: u32) -> bool {
        let known = self.devices.contains(&ifindex);
        if known {
            self.redirects.borrow_mut().push(ifindex);
        }
        known
    }

    fn report(&self, event: &FlowEvent) {
        self.reports.borrow_mut().push(*event);
    }
}

impl Joining for MemoryFlows {
    fn noted(&self, fingerprint: u64) -> Option<Noted> {
        self.noted.borrow().get(&fingerprint).copied()
    }

    fn note(&self, fingerprint: u64, noted: &Noted) {
        self.noted.borrow_mut().insert(fingerprint, *noted);
    }

    fn admit_sighting(&self) -> bool {
        true
    }

    fn report_sighting(&self, sighting: &Sighting) {
        self.sightings.borrow_mut().push(*sighting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_cannot_change_stays_as_it_is() {
        let bytes: Vec<u8> = (0..20).collect();
        let mut frame = MemoryFrame::with_headroom(&bytes, 3);
        assert!(!frame.move_head(-4));
        assert!(!frame.move_head(7));
        assert!(!frame.cut_tail(7));
        assert!(!frame.cut_tail(21));
        assert!(!frame.put(17, &0x0102_0304_u32.to_be_bytes()));
        assert!(!frame.copy(19, 2, &mut [0; 4]));
        assert_eq!(frame.get::<[u8; 4]>(17), None);
        assert_eq!(frame.get::<[u8; 4]>(usize::MAX), None);
        assert_eq!(frame.bytes(), bytes);
    }

    #[test]
    fn a_frame_grows_at_its_start_and_shrinks_at_its_end() {
        let bytes: Vec<u8> = (0..20).collect();
        let mut frame = MemoryFrame::with_headroom(&bytes, 3);
        assert!(frame.move_head(-3) && frame.cut_tail(2));
        assert_eq!(frame.bytes(), [&[FILLER; 3], &bytes[..18]].concat());
        assert!(frame.move_head(3) && frame.put(0, &[9_u8, 8]));
        assert_eq!(frame.bytes()[..3], [9, 8, 2]);
        assert_eq!(frame.get::<[u8; 2]>(16), Some([16, 17]));
    }
}
