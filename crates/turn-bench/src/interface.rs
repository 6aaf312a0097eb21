//! Interfaces of the calling thread's namespace.

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use aya::programs::xdp::{Xdp, XdpLinkId};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

/// The index of an interface.
pub fn index_of(interface: &str) -> Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(any, interface).with_context(|| interface.to_owned())
}

/// Attaches a program to an interface.
pub fn attach(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<XdpLinkId> {
    program.attach(interface, mode).with_context(|| format!("cannot attach to {interface}"))
}
