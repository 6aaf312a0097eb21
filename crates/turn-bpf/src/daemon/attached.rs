//! The interfaces that the daemon is attached to.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Instant;

use aya::maps::PerCpuValues;
use turn_datapath::flow::interface_flags;
use turn_datapath::{Interface as KernelInterface, Reason};

use super::redirects::Redirects;
use super::{Daemon, DaemonError};
use crate::attachment::{self, AttachError, Egress, Ingress, WantedMode};
use crate::control::document::{InterfaceRow, Mode};
use crate::interfaces::Interface;
use crate::object::Plain;
use crate::preflight::{self, Found};
use crate::xdp_features::{self, XdpFeatures};

/// An interface and what is attached to it.
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mtu: u32,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) ingress: Ingress,
    egress: Egress,
    /// Whether its driver transmits what is redirected to it, as far as it tells.
    transmits: bool,
    transmits_parts: bool,
    is_veth: bool,
    is_running: bool,
    redirects: Redirects,
}

impl From<&Attached> for InterfaceRow {
    fn from(attached: &Attached) -> Self {
        let Ingress { mode, reason, .. } = &attached.ingress;
        Self {
            name: attached.name.clone(),
            mode: *mode,
            ifindex: attached.ifindex,
            mode_reason: reason.clone(),
        }
    }
}

impl Attached {
    /// What the kernel side is told of it.
    pub(super) fn kernel_flags(&self) -> u32 {
        let mut flags = 0;
        match self.ingress.mode {
            Mode::Native => {}
            Mode::Tc => flags |= interface_flags::TC,
            Mode::Generic => flags |= interface_flags::GENERIC,
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

/// Attaches to an interface and tells the kernel side what is known of it.
pub(super) async fn attach(state: &RefCell<Daemon>, found: &Found) -> Result<(), DaemonError> {
    let interface = &found.interface;
    state.borrow_mut().attach_programs(found)?;
    // Unless the driver says otherwise: before 6.3 none could say. Many can only while they have a program.
    let features = xdp_features::query(interface.ifindex).await.unwrap_or_default();
    state.borrow_mut().take_features(interface, features)
}

/// Attaches anew to interfaces that were gone and are there again under the same name.
pub(super) async fn attach_returned(state: &RefCell<Daemon>, present: &[Interface]) {
    for interface in present {
        let is_missing = {
            let daemon = state.borrow();
            let is_attached = daemon.attached.iter().any(|one| one.name == interface.name);
            daemon.names.contains(&interface.name) && !is_attached
        };
        if !is_missing || !interface.is_up {
            continue;
        }
        let wanted = state.borrow().wanted;
        let Some(found) = preflight::find_room(interface, wanted).await else { continue };
        match attach(state, &found).await {
            Ok(()) => tracing::info!(interface = interface.name, "the interface is back"),
            Err(error) => tracing::error!(
                interface = interface.name,
                error = &error as &dyn std::error::Error,
                "the interface is back, and is left out"
            ),
        }
    }
}

/// Lets frames be redirected again where that has been withheld for long enough, if the driver does not say that it
/// cannot.
pub(super) async fn try_again(state: &RefCell<Daemon>) -> Result<(), DaemonError> {
    let now = Instant::now();
    let due: Vec<u32> = {
        let daemon = state.borrow();
        let is_due = |one: &&Attached| one.is_running && one.redirects.are_due(now);
        daemon.attached.iter().filter(is_due).map(|one| one.ifindex).collect()
    };
    for ifindex in due {
        let features = xdp_features::query(ifindex).await.unwrap_or_default();
        state.borrow_mut().let_through_again(ifindex, features)?;
    }
    Ok(())
}

impl Daemon {
    fn attach_programs(&mut self, found: &Found) -> Result<(), AttachError> {
        let Found { interface, obstacle } = found;
        let kept = self.pins.as_ref().and_then(|pins| pins.mode(interface.ifindex));
        if kept.is_some_and(|kept| !self.wanted.modes().contains(&kept)) {
            self.end_leases_by(interface.ifindex);
        }
        let (ingress, egress) = attachment::attach(
            &mut self.object,
            interface,
            self.wanted,
            obstacle.as_ref(),
            self.pins.as_ref(),
        )?;
        if kept.is_some_and(|kept| kept != ingress.mode) {
            self.end_leases_by(interface.ifindex);
        }
        if let Some(because) = &ingress.reason {
            tracing::info!(interface = interface.name, because, "{} mode", ingress.mode);
        }
        let Interface { name, ifindex, mtu, mac, .. } = interface.clone();
        self.interface_names.insert(ifindex, name.clone());
        self.attached.push(Attached {
            name,
            ifindex,
            mtu,
            mac,
            ingress,
            egress,
            transmits: false,
            transmits_parts: false,
            is_veth: interface.kind.as_deref() == Some("veth"),
            is_running: interface.is_running(),
            redirects: Redirects::default(),
        });
        Ok(())
    }

    /// Paths that were found in another mode are none in this one: not every mode sees the same tags, or can redirect to the same
    /// interfaces.
    fn end_leases_by(&mut self, ifindex: u32) {
        let _not_there_anyway = self.devices.remove(ifindex);
        self.table.disarm(|flow| flow.in_ifindex == ifindex || flow.out_ifindex == ifindex);
    }

    /// What the driver says that it can do, of an interface that was just attached to.
    fn take_features(
        &mut self,
        interface: &Interface,
        features: Option<XdpFeatures>,
    ) -> Result<(), DaemonError> {
        let ifindex = interface.ifindex;
        let Some(attached) = self.attached.iter_mut().find(|one| one.ifindex == ifindex) else {
            return Ok(());
        };
        let is_native = attached.ingress.mode == Mode::Native;
        let transmits = features.map_or(is_native, XdpFeatures::can_transmit_redirected);
        attached.transmits = transmits;
        attached.transmits_parts = features.is_some_and(XdpFeatures::can_transmit_redirected_parts);
        let is_veth = attached.is_veth;
        self.write_interface(ifindex)?;
        // What goes into one end of a virtual Ethernet link comes out only where the other end is prepared for it,
        // and the other end cannot be seen from here. The kernel tells by whether the interface takes redirected
        // frames (6.3 and later). Before that it is tried, which on a busy machine can fail for want of room.
        if is_veth && is_native && (!transmits || (features.is_none() && self.throws_away(interface)?)) {
            self.give_up_native_mode(ifindex);
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

    /// Frames that were to leave by an interface were thrown away. Until that is over, nothing is redirected there: it all
    /// goes to the server.
    pub(super) fn handle_transmit_failure(&mut self, ifindex: u32) {
        let Some(failing) = self.attached.iter_mut().find(|one| one.ifindex == ifindex) else { return };
        // Others of the same time have been reported besides.
        if !failing.is_running || !failing.redirects.are_open() {
            return;
        }
        failing.redirects.fail(Instant::now());
        let _ = self.devices.remove(ifindex);
        tracing::warn!(
            interface = failing.name,
            "frames that were to leave were thrown away; nothing is redirected there for some seconds"
        );
        if failing.redirects.are_hopeless() && self.wanted != WantedMode::Native {
            self.give_up_native_mode(ifindex);
        }
    }

    /// The time is over for which nothing was redirected to an interface.
    fn let_through_again(&mut self, ifindex: u32, features: Option<XdpFeatures>) -> Result<(), DaemonError> {
        let Some(one) = self.attached.iter_mut().find(|one| one.ifindex == ifindex) else { return Ok(()) };
        let is_native = one.ingress.mode == Mode::Native;
        one.transmits = is_native && features.map_or(one.transmits, XdpFeatures::can_transmit_redirected);
        if one.transmits || !is_native {
            one.redirects.open(Instant::now());
            return self.write_interface(ifindex);
        }
        one.redirects.fail(Instant::now());
        if self.wanted != WantedMode::Native {
            self.give_up_native_mode(ifindex);
        }
        Ok(())
    }

    /// A driver in native mode throws away what it is given. In the stack nothing is thrown away.
    fn give_up_native_mode(&mut self, ifindex: u32) {
        let Some(failing) = self.attached.iter().position(|one| one.ifindex == ifindex) else { return };
        if self.attached[failing].ingress.mode != Mode::Native {
            return;
        }
        let name = self.attached[failing].name.clone();
        if self.wanted == WantedMode::Native {
            tracing::error!(
                interface = name,
                "the driver throws away what it is given to transmit, so nothing is \
                redirected there; use --mode tc, or for veth attach an XDP program to the other end"
            );
            let failing = &mut self.attached[failing];
            failing.transmits = false;
            failing.redirects.fail(Instant::now());
            let _ = self.devices.remove(ifindex);
            return;
        }
        // Frames that come in by a driver and frames that go out by one must both be able to leave.
        let native: Vec<usize> = (0..self.attached.len())
            .filter(|index| self.attached[*index].ingress.mode == Mode::Native)
            .collect();
        for index in native.into_iter().rev() {
            let old = self.attached.swap_remove(index);
            let reason = format!("the driver of {name} throws away what it is given to transmit");
            let moved = attachment::leave_driver(
                &mut self.object,
                &old.name,
                old.ifindex,
                old.ingress,
                reason,
                self.pins.as_ref(),
            );
            match moved {
                Ok(ingress) => {
                    tracing::warn!(
                        interface = old.name,
                        because = name,
                        "{} mode: the driver throws away what it is given to transmit",
                        ingress.mode
                    );
                    let ifindex = old.ifindex;
                    self.attached.push(Attached {
                        ingress,
                        transmits: false,
                        redirects: Redirects::default(),
                        ..old
                    });
                    if let Err(error) = self.write_interface(ifindex) {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "the kernel side was not told"
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

    /// Says once more that somebody is there who notices what becomes of the interfaces.
    pub(super) fn look_after(&mut self) -> Result<(), DaemonError> {
        if !self.keeps {
            return Ok(());
        }
        let known = self.attached.iter().map(|one| (one.ifindex, self.known_of(one))).collect::<Vec<_>>();
        known.into_iter().try_for_each(|(ifindex, value)| self.tell_kernel_of(ifindex, value))
    }

    /// Tells the kernel side what is known of an interface.
    fn write_interface(&mut self, ifindex: u32) -> Result<(), DaemonError> {
        let Some(attached) = self.attached.iter().find(|one| one.ifindex == ifindex) else { return Ok(()) };
        let value = self.known_of(attached);
        let takes =
            value.flags & (interface_flags::GENERIC | interface_flags::TC | interface_flags::TRANSMITS) != 0;
        if !(takes && attached.is_running && attached.redirects.are_open()) {
            let _not_there_anyway = self.devices.remove(ifindex);
        } else if let Err(error) = self.devices.insert(ifindex, ifindex, None, 0) {
            // It may have gone since it was listed; then the next list says so.
            tracing::warn!(
                interface = attached.name,
                error = &error as &dyn std::error::Error,
                "nothing is redirected to the interface"
            );
        }
        self.tell_kernel_of(ifindex, value)
    }

    fn known_of(&self, attached: &Attached) -> KernelInterface {
        KernelInterface {
            mtu: attached.mtu,
            flags: attached.kernel_flags(),
            looked_after_until: self.looks_after_until(),
        }
    }

    fn tell_kernel_of(&mut self, ifindex: u32, value: KernelInterface) -> Result<(), DaemonError> {
        self.kernel_interfaces
            .insert(ifindex, Plain(value), 0)
            .map_err(|error| DaemonError::Map("interfaces", error))
    }

    /// What may have changed: MTUs, Ethernet addresses, and whether the interfaces are still there and up.
    pub(super) fn take_interfaces(&mut self, present: &[Interface]) -> Result<(), DaemonError> {
        let mut shrunk = Vec::new();
        for one in &mut self.attached {
            let Some(interface) = present.iter().find(|interface| interface.ifindex == one.ifindex) else {
                tracing::error!(interface = one.name, "the interface is gone; the others go on");
                continue;
            };
            let is_running = interface.is_running();
            if is_running != one.is_running {
                tracing::warn!(interface = one.name, is_running, "the interface went up or down");
            }
            // Whatever was thrown away meanwhile was thrown away because of that.
            if is_running != one.is_running || interface.mtu != one.mtu {
                one.redirects = Redirects::default();
            }
            if interface.mtu < one.mtu {
                shrunk.push((one.ifindex, interface.mtu));
            }
            (one.is_running, one.mtu, one.mac) = (is_running, interface.mtu, interface.mac);
        }
        let is_present = |ifindex: u32| present.iter().any(|interface| interface.ifindex == ifindex);
        for gone in self.attached.extract_if(.., |one| !is_present(one.ifindex)) {
            // The kernel takes a device out of the map by itself when it goes.
            let _ = self.devices.remove(gone.ifindex);
            let _ = self.kernel_interfaces.remove(&gone.ifindex);
            attachment::forget(gone.ingress, gone.egress);
        }
        for ifindex in self.attached.iter().map(|one| one.ifindex).collect::<Vec<_>>() {
            self.write_interface(ifindex)?;
        }
        // Else they would go on filling frames that the interface no longer takes, until the next heartbeat.
        for (ifindex, mtu) in shrunk {
            let flows =
                self.table.disarm(|flow| flow.out_ifindex == ifindex && u32::from(flow.link_mtu) > mtu);
            tracing::info!(ifindex, mtu, flows, "the MTU has shrunk");
        }
        Ok(())
    }

    /// The addresses of this host: peers there are the server's alone.
    pub(super) fn take_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.snoop.set_local_addresses(addresses);
        self.obey();
        self.table.install_waiting();
    }
}
