//! Many flows that are alike but for their source.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use turn_bench_ebpf::PORTS;
use turn_bpf::flow_table::FlowMaps as _;
use turn_bpf::object::Maps;
use turn_datapath::{Flow, FlowKey};
use turn_testkit::cases::subject::{Subject, data, key};

use crate::object::Frames;

/// A subject and so many sources of its packets.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What they have in common.
    pub subject: Subject,
    /// How many.
    pub count: u32,
}

impl Sources {
    /// The keys of their flows.
    pub fn keys(&self) -> impl Iterator<Item = FlowKey> {
        let leg = self.subject.input;
        (0..self.count).map(move |number| {
            let mut leg = leg;
            leg.source = source(leg.source, number);
            key(&leg)
        })
    }

    /// Inserts all flows.
    pub fn insert(&self, maps: &mut Maps) -> Result<()> {
        self.keys().try_for_each(|key| maps.flows.insert_flow(&key, &self.flow()))?;
        Ok(())
    }

    /// Removes all flows.
    pub fn remove(&self, maps: &mut Maps) {
        self.keys().for_each(|key| maps.flows.remove_flow(&key));
    }

    /// Their packets.
    pub fn frames(&self, payload: usize) -> Frames {
        Frames { frame: self.subject.packet(&data(payload)).build(), sources: self.count }
    }

    /// What they all have to be relayed by.
    pub fn flow(&self) -> Flow {
        self.subject.flow
    }
}

/// A source by number, as the BPF program that makes the packets counts them.
fn source(first: SocketAddr, number: u32) -> SocketAddr {
    let (addresses, ports) = (number / PORTS, number % PORTS);
    let ip: IpAddr = match first.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) + addresses).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) + u128::from(addresses)).into(),
    };
    SocketAddr::new(ip, first.port() + ports as u16)
}
