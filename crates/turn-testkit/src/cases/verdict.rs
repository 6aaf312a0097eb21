//! Whether a packet rightly took the way that it took, judged from the packet and the maps alone.

use std::fmt;

use turn_datapath::Reason;
use turn_datapath::flow::path_flags;

use super::subject::{Subject, mac, tags};
use super::{HERE, Setting};
use crate::checksum::udp_checksum;
use crate::dissect::{Checksum, Dissected, Network, dissect};
use crate::oracle::NotRelayed;

/// What is wrong with a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame that came in and was rewritten into this one: the oracle says the same of it. A checksum that was wrong is still
/// wrong, and nothing else is.
pub fn of_relayed(subject: &Subject, input: &[u8], output: &[u8]) -> Result<(), Wrong> {
    let (due, actual) = match subject.due(input) {
        Ok(due) => (due, output.to_vec()),
        Err(NotRelayed::Flaw(flaw)) => {
            let (Some(repaired), Some(actual)) = (repaired(input), repaired(output)) else {
                return Err(Wrong(format!("relayed, though {flaw}")));
            };
            if repaired == input || actual == output {
                return Err(Wrong(format!("relayed, though {flaw}; it left {output:02x?}")));
            }
            (subject.due(&repaired).map_err(|other| Wrong(format!("relayed, though {other}")))?, actual)
        }
        Err(other) => return Err(Wrong(format!("relayed, though {other}"))),
    };
    if actual != due {
        return Err(Wrong(format!("left relayed, right due\n{actual:02x?}\n{due:02x?}")));
    }
    Ok(())
}

/// The frame with the UDP checksum that it should have; none where that cannot be told.
fn repaired(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = dissect(frame).ok()?;
    let mut frame = frame.to_vec();
    let at = udp_at(&packet);
    let length = 8 + packet.payload.len();
    let datagram = frame.get_mut(at..at + length)?;
    datagram[6..8].fill(0);
    let sum = udp_checksum(packet.source.ip(), packet.destination.ip(), datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Some(frame)
}

fn udp_at(packet: &Dissected) -> usize {
    let network = match &packet.network {
        Network::V4 { options, .. } => 20 + options.len(),
        Network::V6 { extensions, .. } => {
            40 + extensions.iter().map(|(_, header)| header.len()).sum::<usize>()
        }
    };
    14 + 4 * packet.tags.len() + network
}

/// A frame that came in, that the oracle would relay, and that went on to the server for this reason: the reason is true.
/// `first_part` says how many bytes of it were in its first part.
pub fn is_explained(
    subject: &Subject,
    setting: &Setting,
    frame: &[u8],
    first_part: usize,
    reason: Reason,
) -> bool {
    let flow = &subject.flow;
    let now = setting.now;
    let packet = dissect(frame).expect("the oracle has read it");
    match reason {
        // A peer's request, where the server was seen granting the peer an allocation at that very address.
        Reason::Control | Reason::ControlTooLong => setting.clients.contains(&subject.key()),
        Reason::VlanTagged => packet.tags.len() > 2,
        Reason::NoLease => flow.lease_until <= now,
        Reason::Behind => flow.noted_until > now && flow.noted_in_a_row < 32,
        Reason::Heartbeat => flow.lease_until > now && flow.heartbeat_at <= now,
        Reason::OtherPath => {
            flow.in_ifindex != HERE
                || flow.in_tags != tags(&packet.tags).without_priority()
                || flow.in_mac != mac(packet.destination_mac)
        }
        // One in 65,536 right checksums looks like a partial one.
        Reason::PartialChecksum => packet.udp_checksum == Checksum::Right,
        Reason::NoChecksum => packet.udp_checksum == Checksum::Zero && subject.output.source.is_ipv6(),
        Reason::TooBig => {
            let length = subject.due(frame).map_or(0, |due| due.len()) - 14 - flow.out_tags.length();
            let is_fragmentable = matches!(packet.network, Network::V4 { dont_fragment: false, .. });
            let is_4_to_6 = subject.output.source.is_ipv6() && is_fragmentable;
            length > usize::from(flow.link_mtu) || (is_4_to_6 && length > 1280)
        }
        Reason::LongerThanSeen => {
            let length = subject.due(frame).map_or(0, |due| due.len()) - 14 - flow.out_tags.length();
            length > usize::from(flow.out_mtu)
        }
        Reason::CannotRedirect => {
            (flow.out_ifindex != HERE || flow.path_flags & path_flags::ONLY_REDIRECT != 0)
                && (flow.path_flags & path_flags::REDIRECT == 0
                    || (flow.path_flags & path_flags::REDIRECT_PARTS == 0 && frame.len() > first_part)
                    || !setting.devices.contains(&flow.out_ifindex))
        }
        _ => false,
    }
}
