//! Numbered packets from the client to its peer and back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turn_client_proto::types::stun::message::TransactionId;

use super::Failure;
use super::call::{Call, Event};

/// When each packet was where.
#[derive(Debug, Default)]
pub struct Log {
    packets: Vec<Packet>,
    reordered: u32,
    newest: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    sent: Instant,
    at_peer: Option<Instant>,
    back: Option<Instant>,
}

impl Log {
    /// Packets sent.
    pub fn sent(&self) -> u32 {
        self.packets.len() as u32
    }

    /// Packets that the peer got.
    pub fn arrived(&self) -> u32 {
        self.packets.iter().filter(|packet| packet.at_peer.is_some()).count() as u32
    }

    /// Packets that came back.
    pub fn returned(&self) -> u32 {
        self.packets.iter().filter(|packet| packet.back.is_some()).count() as u32
    }

    /// Packets that came back after one that was sent later.
    pub fn reordered(&self) -> u32 {
        self.reordered
    }

    /// Round trips, in the order in which the packets were sent.
    pub fn round_trips(&self) -> impl Iterator<Item = Duration> + '_ {
        self.packets.iter().filter_map(|packet| Some(packet.back?.duration_since(packet.sent)))
    }

    fn note_at_peer(&mut self, number: u32) {
        if let Some(packet) = self.packets.get_mut(number as usize) {
            packet.at_peer.get_or_insert_with(Instant::now);
        }
    }

    /// A copy of a packet that was there before changes nothing.
    fn note_back(&mut self, number: u32) {
        let Some(packet) = self.packets.get_mut(number as usize).filter(|packet| packet.back.is_none())
        else {
            return;
        };
        packet.back = Some(Instant::now());
        if self.newest.is_some_and(|newest| number < newest) {
            self.reordered = self.reordered.saturating_add(1);
        }
        self.newest = self.newest.max(Some(number));
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The peer, as the server sees it.
    pub peer: SocketAddr,
    /// Packets.
    pub count: u32,
    /// Between two of them.
    pub pace: Duration,
    /// Bytes of application data in each.
    pub size: usize,
}

/// Sends what is planned, and waits for the last packets. The second of the result tells why it ended early.
pub async fn exchange(call: &mut Call, plan: &Plan) -> (Log, Result<(), Failure>) {
    let mut log = Log::default();
    let result = send_and_receive(call, plan, &mut log).await;
    (log, result)
}

async fn send_and_receive(call: &mut Call, plan: &Plan, log: &mut Log) -> Result<(), Failure> {
    let begin = Instant::now();
    let name = new_name();
    for number in 0..plan.count {
        wait(call, &name, log, begin + plan.pace * number, |_| false).await?;
        log.packets.push(Packet { sent: Instant::now(), at_peer: None, back: None });
        call.send(plan.peer, &payload(&name, number, plan.size)).await?;
    }
    wait(call, &name, log, Instant::now() + LAST_PATIENCE, |log| log.returned() == plan.count).await
}

/// Takes what comes, until the time is over or there is enough.
async fn wait(
    call: &mut Call,
    name: &Name,
    log: &mut Log,
    until: Instant,
    is_enough: impl Fn(&Log) -> bool,
) -> Result<(), Failure> {
    while !is_enough(log) {
        match call.next(until).await? {
            Event::ToPeer(datagram, source) => {
                if let Some(number) = read(name, &datagram) {
                    log.note_at_peer(number);
                    call.send_as_peer(source, &datagram).await;
                }
            }
            Event::ToClient(data) => {
                if let Some(number) = read(name, &data) {
                    log.note_back(number);
                }
            }
            Event::Due | Event::Closed => return Ok(()),
            Event::Protocol(_) => {}
        }
    }
    Ok(())
}

/// What tells the packets of one call from those of any other.
type Name = [u8; NAME_LEN];

/// As unlike any other as a transaction id, of which it has the 96 bits.
fn new_name() -> Name {
    let [_, _, _, _, name @ ..] = u128::from(TransactionId::generate()).to_be_bytes();
    name
}

fn payload(name: &Name, number: u32, size: usize) -> Vec<u8> {
    let mut payload = [&name[..], &number.to_be_bytes()].concat();
    payload.resize(size.max(HEADER_LEN), b'.');
    payload
}

fn read(name: &Name, payload: &[u8]) -> Option<u32> {
    let (found, rest) = payload.split_first_chunk::<NAME_LEN>()?;
    (found == name).then(|| rest.first_chunk().map(|number| u32::from_be_bytes(*number)))?
}

/// Before the padding.
pub const HEADER_LEN: usize = NAME_LEN + 4;
const NAME_LEN: usize = 12;
/// For the packets that are on the way when the last one has been sent.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_known_by_its_name_and_number() {
        let name = *b"twelve bytes";
        for (number, size) in [(0, 0), (7, 16), (u32::MAX, 1200)] {
            let payload = payload(&name, number, size);
            assert_eq!(payload.len(), size.max(HEADER_LEN));
            assert_eq!(read(&name, &payload), Some(number));
            assert_eq!(read(b"twelve other", &payload), None);
        }
        assert_eq!(read(&name, &name), None);
    }

    #[test]
    fn copies_and_strangers_are_not_counted() {
        let packet = Packet { sent: Instant::now(), at_peer: None, back: None };
        let mut log = Log { packets: vec![packet; 4], ..Log::default() };
        for number in [0, 2, 2, 1, 9] {
            log.note_at_peer(number);
            log.note_back(number);
        }
        assert_eq!((log.sent(), log.arrived(), log.returned(), log.reordered()), (4, 3, 3, 1));
    }
}
