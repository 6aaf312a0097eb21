//! The interfaces that the daemon is attached to.

use std::net::IpAddr;

use aya::maps::PerCpuValues;
use turn_datapath::flow::interface_flags;
use turn_datapath::{Interface as KernelInterface, Reason};

use super::{Daemon, DaemonError};
use crate::attachment::{self, Ingress, WantedMode};
use crate::control::document::{InterfaceRow, Mode};
use crate::interfaces::Interface;
use crate::object::Plain;
use crate::xdp_features;

/// An interface and what is attached to it.
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mtu: u32,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) ingress: Ingress,
    pub(super) transmits: bool,
    pub(super) transmits_parts: bool,
    pub(super) is_veth: bool,
}

impl From<&Attached> for InterfaceRow {
    fn from(attached: &Attached) -> Self {
        Self { name: attached.name.clone(), mode: attached.ingress.mode, ifindex: attached.ifindex }
    }
}

impl Attached {
    /// What the kernel side is told of it.
    pub(super) fn kernel_flags(&self) -> u32 {
        let mut flags = 0;
        if self.ingress.mode == Mode::Generic {
            flags |= interface_flags::GENERIC;
        }
        if self.transmits {
            flags |= interface_flags::TRANSMITS;
        }
        if self.transmits && self.transmits_parts {
            flags |= interface_flags::TRANSMITS_PARTS;
        }
        if self.is_veth && self.ingress.mode == Mode::Native {
            flags |= interface_flags::ONLY_REDIRECT;
        }
        flags
    }
}

impl Daemon {
    /// Attaches to an interface and tells the kernel side what is known of it.
    pub(super) async fn attach(&mut self, interface: &Interface) -> Result<(), DaemonError> {
        let ingress = attachment::attach(&mut self.object, interface, self.wanted)?;
        // Unless the driver says otherwise: before 6.3 none could say. Many can only while they have a program.
        let features = xdp_features::query(interface.ifindex).await.unwrap_or_default();
        let transmits =
            features.map_or(ingress.mode == Mode::Native, |features| features.can_transmit_redirected());
        let transmits_parts = features.is_some_and(|features| features.can_transmit_redirected_parts());
        let Interface { name, ifindex, mtu, mac, .. } = interface.clone();
        let is_veth = interface.kind.as_deref() == Some("veth");
        self.attached.push(Attached {
            name,
            ifindex,
            mtu,
            mac,
            ingress,
            transmits,
            transmits_parts,
            is_veth,
        });
        self.write_interface(interface.ifindex)?;
        // What goes into one end of a virtual Ethernet link comes out only where the other end is prepared for it,
        // and the other end cannot be seen from here. The kernel tells by whether the interface takes redirected
        // frames (6.3 and later). Before that it is tried, which on a busy machine can fail for want of room.
        if is_veth && (!transmits || (features.is_none() && self.throws_away(interface)?)) {
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
    pub(super) fn handle_transmit_failure(&mut self, ifindex: u32) {
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
            let old = self.attached.swap_remove(index);
            tracing::warn!(
                interface = old.name,
                because = name,
                "generic mode: the driver throws away what it is given to transmit"
            );
            match attachment::make_generic(&mut self.object, &old.name, old.ifindex, old.ingress) {
                Ok(ingress) => {
                    let ifindex = old.ifindex;
                    self.attached.push(Attached { ingress, transmits: false, ..old });
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
        let value = KernelInterface { mtu: attached.mtu, flags: attached.kernel_flags() };
        if value.flags & (interface_flags::GENERIC | interface_flags::TRANSMITS) != 0 {
            self.devices.insert(ifindex, ifindex, None, 0).map_err(DaemonError::Devices)?;
        }
        self.kernel_interfaces
            .insert(ifindex, Plain(value), 0)
            .map_err(|error| DaemonError::Map("interfaces", error))
    }

    /// What may have changed: MTUs, and whether the interfaces are still there.
    pub(super) fn take_interfaces(&mut self, present: &[Interface]) -> Result<(), DaemonError> {
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
        for ifindex in self.attached.iter().map(|one| one.ifindex).collect::<Vec<_>>() {
            self.write_interface(ifindex)?;
        }
        Ok(())
    }

    /// The addresses of this host: peers there are the server's alone.
    pub(super) fn take_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.snoop.set_local_addresses(addresses);
        self.obey();
    }
}
