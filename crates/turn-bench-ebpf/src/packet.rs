//! Writing a frame anew. All pointers into packets are in this file.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_xdp_adjust_head};
use aya_ebpf::programs::XdpContext;
use turn_bench_ebpf::{COUNTED_PORTS, HEAD_WORDS, PORTS};
use turn_datapath::FlowKey;
use turn_wire::channel_data::is_channel_number;
use turn_wire::checksum::Sum;
use turn_wire::{Be16, IpAddress};
use zerocopy::FromBytes;

use crate::TEMPLATE;

/// Makes the frame what the template says, from a random source.
#[inline(always)]
pub fn restore(context: &XdpContext) -> Option<()> {
    let template = TEMPLATE.get(0)?;
    let length = context.data_end() - context.data();
    // The compiler would else add the wanted length to a pointer first, which the verifier does not allow.
    // SAFETY: a reference to a local is valid for reads.
    let length = unsafe { core::ptr::read_volatile(&length) };
    let surplus = length as i32 - template.length as i32;
    // SAFETY: the context is this program's own, and no pointer into the packet is held.
    if surplus != 0 && unsafe { bpf_xdp_adjust_head(context.ctx, surplus) } != 0 {
        return None;
    }
    let head = place::<[u32; HEAD_WORDS]>(context, 0)?;
    // SAFETY: `place` compared the end with the end of the packet, which is this program's alone while it runs. BPF has plain
    // stores of any alignment for packets.
    unsafe { *head = template.head };
    if template.sources > 1 {
        // SAFETY: the helper takes no arguments.
        let number = unsafe { bpf_get_prandom_u32() } % template.sources;
        match template.version {
            4 => set_source(context, number, 28, 34, 40, Some(24))?,
            6 => set_source(context, number, 36, 54, 60, None)?,
            _ => {}
        }
    }
    Some(())
}

/// Whether it is an IPv4 packet without options, a UDP datagram to this port or one of those that follow.
#[inline(always)]
pub fn is_udp_to(context: &XdpContext, port: u16) -> bool {
    const IPV4: u16 = 0x0800;
    const UDP: u16 = 17;
    get(context, 12) == Some(Be16::new(IPV4))
        && get(context, 22)
            .is_some_and(|lifetime_and_protocol: Be16| lifetime_and_protocol.value() & 0xff == UDP)
        && get(context, 36).is_some_and(|to: Be16| to.value().wrapping_sub(port) < COUNTED_PORTS)
}

/// The key of the flow of a UDP datagram over IP without VLAN tags, options or extension headers, which nobody checks here.
#[inline(always)]
pub fn key(context: &XdpContext) -> Option<FlowKey> {
    const IPV4: u16 = 0x0800;
    let (source, destination, udp_at) = if get::<Be16>(context, 12)?.value() == IPV4 {
        (IpAddress::v4(get(context, 26)?), IpAddress::v4(get(context, 30)?), 34)
    } else {
        (IpAddress::v6(get(context, 22)?), IpAddress::v6(get(context, 38)?), 54)
    };
    let first: Be16 = get(context, udp_at + 8)?;
    Some(FlowKey {
        source,
        destination,
        source_port: get(context, udp_at)?,
        destination_port: get(context, udp_at + 2)?,
        channel: if is_channel_number(first) { first } else { Be16::default() },
        reserved: Be16::default(),
    })
}

/// Adds the number of the source to the last two bytes of the address and to the port, and mends the checksums.
#[inline(always)]
fn set_source(
    context: &XdpContext,
    number: u32,
    address_at: usize,
    port_at: usize,
    checksum_at: usize,
    header_checksum_at: Option<usize>,
) -> Option<()> {
    let old_address: Be16 = get(context, address_at)?;
    let old_port: Be16 = get(context, port_at)?;
    let address = Be16::new(old_address.value().wrapping_add((number / PORTS) as u16));
    let port = Be16::new(old_port.value().wrapping_add((number % PORTS) as u16));
    let sum = Sum::of_field(get(context, checksum_at)?)
        .remove16(old_address)
        .remove16(old_port)
        .add16(address)
        .add16(port);
    put(context, checksum_at, sum.udp_field())?;
    if let Some(at) = header_checksum_at {
        let sum = Sum::of_field(get(context, at)?).remove16(old_address).add16(address);
        put(context, at, sum.field())?;
    }
    put(context, address_at, address)?;
    put(context, port_at, port)
}

#[inline(always)]
fn get<T: FromBytes + Copy>(context: &XdpContext, at: usize) -> Option<T> {
    // SAFETY: `place` compared the end with the end of the packet, every bit pattern is a valid `T`, and BPF has plain loads of
    // any alignment for packets.
    place::<T>(context, at).map(|place| unsafe { *place })
}

#[inline(always)]
fn put(context: &XdpContext, at: usize, word: Be16) -> Option<()> {
    // SAFETY: as above, and the packet is this program's alone while it runs.
    place::<u16>(context, at).map(|place| unsafe { *place = word.raw() })
}

#[inline(always)]
fn place<T>(context: &XdpContext, at: usize) -> Option<*mut T> {
    let start = context.data() + at;
    (start + size_of::<T>() <= context.data_end()).then_some(start as *mut T)
}
