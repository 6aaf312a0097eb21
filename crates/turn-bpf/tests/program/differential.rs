//! Random packets of random flows, in the kernel and on the host: the same verdict, bytes, counters, records and flows.

use std::collections::BTreeMap;
use std::env;

use turn_datapath::Reason;
use turn_testkit::cases::random::{Random, noise};
use turn_testkit::cases::{Input, Setting, host};

use crate::at_tc;
use crate::kernel::{Ingress, Kernel};

const BYTES_PER_PACKET: usize = 300;
const SEED: &str = "TURN_BPF_SEED";

#[test]
fn the_kernel_does_what_the_host_does() {
    compare(Ingress::Xdp, 25_000, |_, input| input.suits_the_kernel());
}

#[test]
fn the_kernel_does_at_tc_what_the_host_does() {
    compare(Ingress::Tc, 10_000, at_tc::suits);
}

fn compare(ingress: Ingress, packets: usize, suits: fn(&Setting, &Input) -> bool) {
    let seed = env::var(SEED).map_or(0x7512_bbf5, |seed| seed.parse().expect("a number"));
    println!("{SEED}={seed}, {packets} packets");
    let mut kernel = Kernel::shared(ingress);
    let mut noise = noise(seed);
    let mut counted = BTreeMap::<Reason, usize>::new();
    let mut ran = 0;
    while ran < packets {
        let bytes: Vec<u8> = noise.by_ref().take(BYTES_PER_PACKET).collect();
        let Random { setting, input, subject } = Random::new(&bytes);
        if !suits(&setting, &input) {
            continue;
        }
        ran += 1;
        let [expected, actual] = [host::run(&setting, &input), kernel.run(&setting, &input)];
        assert_eq!(
            actual,
            expected,
            "packet {ran} of {SEED}={seed}, {}: left the kernel, right the host\n{setting:?}\n{:02x?}",
            subject.name(),
            input.frame()
        );
        for reason in expected.counted {
            *counted.entry(reason).or_default() += 1;
        }
    }
    for (reason, times) in &counted {
        println!("{times:6} {}", reason.label());
    }
    // What random packets do not come to shows in the tables only.
    let rare = [
        Reason::NoHeadroom,
        Reason::ControlLost,
        Reason::TransmitFailed,
        Reason::Candidate,
        Reason::OverRate,
        Reason::Train,
        // Another program's.
        Reason::UnseenTrain,
    ];
    // At TC no frame has its tags among its bytes.
    let absent: &[Reason] = if ingress == Ingress::Tc { &[Reason::VlanTagged] } else { &[] };
    for reason in Reason::ALL.into_iter().filter(|reason| !rare.contains(reason) && !absent.contains(reason))
    {
        assert!(counted.contains_key(&reason), "no packet was counted as {}", reason.label());
    }
    let relayed = counted[&Reason::Relayed] + counted[&Reason::Redirected];
    assert!(relayed > packets / 40, "only {relayed} of {packets} packets were relayed");
}
