//! Calls that are older than turn-bpf, in the kernel, where the object was loaded to look for them.

use turn_datapath::joining::Sighting;
use turn_testkit::cases::Input;
use turn_testkit::cases::joining::{Story, TERMS, said, stories};
use zerocopy::FromBytes as _;

use crate::kernel::{Ingress, Kernel};

fn sightings(kernel: &mut Kernel) -> Vec<Sighting> {
    std::iter::from_fn(|| {
        kernel.maps.control.next().map(|record| Sighting::read_from_bytes(&record).expect("a whole sighting"))
    })
    .collect()
}

#[test]
fn what_comes_in_and_leaves_is_seen() {
    for ingress in [Ingress::Xdp, Ingress::Tc] {
        let mut kernel = Kernel::load_for(ingress, &TERMS);
        for Story { name, packets, sighted } in stories() {
            let (last, before) = packets.split_last().unwrap();
            for packet in before {
                kernel.execute(packet);
            }
            sightings(&mut kernel);
            kernel.execute(last);
            let said: Vec<_> = sightings(&mut kernel).iter().map(said).collect();
            assert_eq!(said, Vec::from_iter(sighted), "{ingress:?}: {name}");
        }
    }
}

/// A sample is enough, and the daemon is not to be flooded.
#[test]
fn a17_so_many_are_reported_and_no_more() {
    let mut kernel = Kernel::load_for(Ingress::Xdp, &TERMS);
    let story = stories().into_iter().find(|story| story.packets.len() == 1).expect("an output alone");
    let [output @ Input::Sent { .. }] = &story.packets[..] else { panic!("{}", story.name) };
    let begin = std::time::Instant::now();
    for _ in 0..1000 {
        kernel.execute(output);
    }
    // Windows of 2^24 ns, one more than have passed, on each CPU that this ran on.
    let windows = begin.elapsed().as_nanos() as usize / (1 << 24) + 2;
    let cpus = aya::util::nr_cpus().expect("the number of CPUs");
    let seen = sightings(&mut kernel).len();
    assert!(
        (1..=windows * cpus * 192).contains(&seen) && (seen < 1000 || windows > 5),
        "{seen} in {windows}"
    );
}

#[test]
fn unless_asked_for_nothing_is_looked_for() {
    let mut kernel = Kernel::load();
    for story in stories() {
        story.packets.iter().for_each(|packet| drop(kernel.execute(packet)));
    }
    assert!(kernel.maps.control.next().is_none());
}
