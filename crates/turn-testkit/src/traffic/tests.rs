use super::*;

/// A path that mistreats some packets.
struct Rogue<F> {
    waiting: std::collections::VecDeque<Vec<u8>>,
    number: u64,
    mistreat: F,
}

impl<F: FnMut(u64, Vec<u8>) -> Vec<Vec<u8>>> Carrier for Rogue<F> {
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.waiting.extend((self.mistreat)(self.number, payload.to_vec()));
        self.number += 1;
        Ok(())
    }

    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        if self.waiting.is_empty() {
            std::thread::sleep(patience.min(Duration::from_millis(1)));
        }
        Ok(self.waiting.pop_front())
    }
}

fn report(mistreat: impl FnMut(u64, Vec<u8>) -> Vec<Vec<u8>>) -> Report {
    let traffic = Traffic { stream: 7, sizes: 32..=200, rate: 10_000, duration: Duration::from_millis(20) };
    traffic.round_trips(&mut Rogue { waiting: [].into(), number: 0, mistreat }).unwrap()
}

#[test]
fn a_perfect_path_is_accepted() {
    let report = report(|_, payload| vec![payload]);
    assert_eq!(report.verify(), Ok(()));
    assert_eq!((report.sent, report.round_trips.len()), (200, 200));
    assert!(report.round_trip(0.5) <= report.round_trip(1.0));
}

#[test]
fn a_lost_packet_is_noticed() {
    let report = report(|number, payload| if number == 70 { vec![] } else { vec![payload] });
    assert_eq!(report.verify(), Err(TrafficFault::Lost { lost: 1, sent: 200, first: vec![70] }));
}

#[test]
fn a_duplicate_is_noticed() {
    let report = report(|number, payload| vec![payload; if number == 70 { 2 } else { 1 }]);
    assert_eq!(report.verify(), Err(TrafficFault::Duplicated(1)));
}

#[test]
fn a_late_duplicate_is_noticed() {
    let report = report(|number, payload| vec![payload; if number == 199 { 2 } else { 1 }]);
    assert_eq!(report.verify(), Err(TrafficFault::Duplicated(1)));
}

#[test]
fn each_turned_bit_is_noticed() {
    let report = report(|number, mut payload| {
        let bit = number as usize % (payload.len() * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        vec![payload]
    });
    assert_eq!(report.verify(), Err(TrafficFault::Altered(200)));
}

#[test]
fn a_padded_packet_is_noticed() {
    let report = report(|_, mut payload| {
        payload.push(0);
        vec![payload]
    });
    assert_eq!(report.verify(), Err(TrafficFault::Altered(200)));
}

#[test]
fn another_stream_is_noticed() {
    let stray = Numbered { stream: 8, number: 3, sent: Duration::ZERO }.encode(40);
    let report = report(|number, payload| if number == 3 { vec![stray.clone()] } else { vec![payload] });
    assert_eq!(report.verify(), Err(TrafficFault::Strays(1)));
}

#[test]
fn reordering_is_counted_and_allowed() {
    let mut held = None;
    let report = report(|number, payload| match number {
        70 => {
            held = Some(payload);
            vec![]
        }
        71 => vec![payload, held.take().unwrap()],
        _ => vec![payload],
    });
    assert_eq!(report.verify(), Ok(()));
    assert_eq!(report.tally.reordered, 1);
}
