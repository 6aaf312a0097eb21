//! What the kernel's side does when there is too much of something.

use std::time::Instant;

use turn_bpf::object::Plain;
use turn_datapath::Reason;
use turn_testkit::cases::control::{CHANNEL_BIND, stun};
use turn_testkit::cases::subject::{key, leg};
use turn_testkit::cases::{HERE, Input, Verdict};
use turn_testkit::packet::Packet;
use turn_testkit::role::{CLIENT, SERVER};

use crate::kernel::Kernel;

fn request() -> Input {
    let frame = Packet::new(CLIENT, SERVER).payload(&stun(CHANNEL_BIND, 24)).build();
    Input::Received { frame, interface: HERE }
}

fn count(counted: &[Reason], reason: Reason) -> usize {
    counted.iter().filter(|counted| **counted == reason).count()
}

#[test]
fn a17_a_full_ring_buffer_loses_copies_and_no_packets() {
    // Of four million bytes, one record takes more than its longest message.
    const REQUESTS: usize = (4 << 20) / 1280;
    let mut kernel = Kernel::load();
    let client = key(&leg(CLIENT, SERVER, None));
    kernel.maps.clients.insert(Plain(client), 1, 0).unwrap();
    let input = request();
    for _ in 0..REQUESTS {
        assert_eq!(kernel.execute(&input), (Verdict::Onward, input.frame().to_vec()));
    }
    let counted = kernel.newly_counted();
    let [copied, lost] = [Reason::Control, Reason::ControlLost].map(|reason| count(&counted, reason));
    assert_eq!(copied + lost, REQUESTS);
    assert!(copied > REQUESTS / 2 && lost > 0, "{copied} copied, {lost} lost");

    let mut drained = 0;
    while kernel.maps.control.next().is_some() {
        drained += 1;
    }
    assert_eq!(drained, copied);
    kernel.execute(&input);
    assert_eq!(kernel.newly_counted(), [Reason::Control], "there is room again");
}

#[test]
fn a17_strangers_are_copied_256_times_per_cpu_and_second() {
    const PER_SECOND: usize = 256;
    const REQUESTS: usize = 3000;
    let mut kernel = Kernel::load();
    let cpus = aya::util::nr_cpus().unwrap();
    let input = request();
    let start = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(kernel.execute(&input), (Verdict::Onward, input.frame().to_vec()));
    }
    let seconds = start.elapsed().as_secs() as usize + 2;
    let counted = kernel.newly_counted();
    let [copied, passed] = [Reason::Control, Reason::NoFlow].map(|reason| count(&counted, reason));
    assert_eq!(copied + passed, REQUESTS);
    assert!((PER_SECOND..=PER_SECOND * cpus * seconds).contains(&copied), "{copied} copied");
    // A known client among them is copied as ever.
    let client = key(&leg(CLIENT, SERVER, None));
    kernel.maps.clients.insert(Plain(client), 1, 0).unwrap();
    kernel.execute(&input);
    assert_eq!(kernel.newly_counted(), [Reason::Control]);
}
