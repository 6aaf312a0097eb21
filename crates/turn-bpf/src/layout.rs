//! The name of a layout: of what maps hold, and where. Daemons whose layouts have different names cannot go on with each other's maps.

use std::hash::Hasher as _;
use std::mem::offset_of;

use turn_datapath::control::RecordHeader;
use turn_datapath::kept::{Endpoint, KeptAllocation, KeptBinding, KeptCourse, KeptTraffic, KeptUser};
use turn_datapath::{Flow, FlowEvent, FlowKey, Interface, PathMtu, Reason};

/// To be raised where a field means something else than before and lies where it lay.
const REVISION: u32 = 1;

/// The maps that one daemon leaves to the next.
pub const KEPT_MAPS: [&str; 12] = [
    "FLOWS",
    "EXPECTED",
    "CLIENTS",
    "PATH_MTUS",
    "INTERFACES",
    "DEVICES",
    "CONTROL",
    "COUNTERS",
    "ALLOCATIONS",
    "BINDINGS",
    "USERS",
    "TOTALS",
];

/// A structure's name, size and fields.
type Structure = (&'static str, usize, &'static [(&'static str, usize)]);

macro_rules! structures {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {
        [$({
            // A field that is missing in the list does not compile.
            let _ = |$name { $($field: _),+ }: $name| {};
            (stringify!($name), size_of::<$name>(), &[$((stringify!($field), offset_of!($name, $field))),+] as &[_])
        }),+]
    };
}

/// What lies where in keys and values, and in the records of the ring buffer.
fn structures() -> [Structure; 12] {
    structures! {
        FlowKey { source, destination, source_port, destination_port, channel, reserved }
        Flow {
            lease_until, heartbeat_at, noted_until, kernel_packets, kernel_bytes, in_ifindex, in_mac, out_source_port,
            out_source, out_destination, out_destination_port, out_channel, link_mtu, out_mtu, out_ifindex, path_flags,
            noted_in_a_row, noted_mac, noted_ifindex, in_tags, out_tags, out_mac_destination, out_mac_source, label,
            busy_until, noted_fingerprint, noted_tags, spilled_packets, spilled_bytes, armed, out_mtu_until, longer_at,
            room,
        }
        PathMtu { asked_at, mtu, reserved }
        Interface { mtu, flags, looked_after_until }
        RecordHeader { kind, length, time, key }
        FlowEvent { header, out_source, out_source_port, reserved }
        Endpoint { address, port, reserved }
        KeptAllocation { made, learns_nothing_until, deadlines, relayed, transaction, flags }
        KeptBinding {
            bound_at, bound_on, carried, peer, advertised, relayed, transaction, flags, reserved,
        }
        KeptTraffic { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes }
        KeptUser { name_length, realm_length, text }
        KeptCourse { ifindex, course }
    }
}

/// The name of this build's layout, for this number of flows.
pub fn name(max_flows: u32) -> String {
    format!("layout-{:016x}", fingerprint(REVISION, max_flows, &structures()))
}

fn fingerprint(revision: u32, max_flows: u32, structures: &[Structure]) -> u64 {
    let text = format!("{revision} {max_flows} {} {KEPT_MAPS:?} {structures:?}", Reason::ROOM);
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// FNV-1a, which is the same in every version of everything.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layout_has_another_name() {
        let here = fingerprint(1, 65_536, &structures());
        assert_eq!(here, fingerprint(1, 65_536, &structures()));
        assert_ne!(here, fingerprint(2, 65_536, &structures()), "a field means something else");
        assert_ne!(here, fingerprint(1, 1024, &structures()), "maps have another size");
        let mut moved = structures();
        moved[3] = ("Interface", 8, &[("mtu", 4), ("flags", 0)]);
        assert_ne!(here, fingerprint(1, 65_536, &moved), "a field lies elsewhere");
    }
}
