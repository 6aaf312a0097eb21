//! What is in the daemon's BPF maps, as the kernel tells everybody.

use std::collections::HashMap;
use std::fs;

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, Map, MapData, MapInfo, MapType};
use turn_bpf::object::Plain;
use turn_datapath::{Flow, FlowKey};

/// How many entries a process's hash maps have, by the maps' names.
pub fn entries(pid: u32) -> HashMap<String, usize> {
    let mut entries = HashMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(descriptor.unwrap().path()).unwrap_or_default();
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        let id = id.trim().parse().unwrap();
        let info = MapInfo::from_id(id).unwrap();
        let name = info.name_as_str().unwrap().to_owned();
        let data = MapData::from_id(id).unwrap();
        let count = match (name.as_str(), info.map_type().unwrap()) {
            ("FLOWS", MapType::Hash) => count::<Plain<FlowKey>, Plain<Flow>>(Map::HashMap(data)),
            ("EXPECTED", MapType::Hash) => count::<Plain<FlowKey>, Plain<FlowKey>>(Map::HashMap(data)),
            ("CLIENTS", MapType::LruHash) => count::<Plain<FlowKey>, u32>(Map::LruHashMap(data)),
            _ => continue,
        };
        entries.insert(name, count);
    }
    assert_eq!(entries.len(), 3, "{entries:?}");
    entries
}

fn count<K: Pod, V: Pod>(map: Map) -> usize {
    let map = BpfHashMap::<MapData, K, V>::try_from(map).unwrap();
    map.keys().filter(Result::is_ok).count()
}
