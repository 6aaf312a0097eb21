//! The same tables through the ingress program for TC.

use turn_bpf::host::KernelRelease;
use turn_datapath::Reason;
use turn_testkit::cases::draft::Draft;
use turn_testkit::cases::subject::{Subject, data};
use turn_testkit::cases::{FIRST_PART, Input, Setting, Verdict};
use turn_wire::ethernet::VlanTags;

use crate::kernel::{Ingress, Kernel, TC_REDIRECT};

macro_rules! at_tc {
    ($body:expr) => {{
        let mut kernel = Kernel::shared(Ingress::Tc);
        ($body)(&mut |setting, input| suits(setting, input).then(|| kernel.run(setting, input)))
    }};
}

/// True where such a packet can be run at TC, and comes out as it does elsewhere.
///
/// Before TC the kernel takes the outermost tag out of a frame, and test runs neither do that nor show a tag that is not in
/// the frame.
pub fn suits(setting: &Setting, input: &Input) -> bool {
    const SHORTEST: usize = 14 + 40;
    if !input.suits_the_kernel() {
        return false;
    }
    let Input::Received { frame, .. } = input else { return true };
    (SHORTEST..=FIRST_PART).contains(&frame.len())
        && !matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8])
        && setting.flows.iter().all(|(_, flow)| flow.out_tags == VlanTags::NONE)
}

turn_testkit::for_ingress_tables!(at_tc);

/// What UDP receive offload merged has the headers of one long datagram, and is none.
#[test]
fn merged_datagrams_pass() {
    let mut kernel = Kernel::shared(Ingress::Tc);
    for subject in Subject::all() {
        let draft = Draft::received("merged", &subject, subject.packet(&data(1200)).build());
        let (setting, input) = (draft.clone().into_setting(), draft.into_input());
        assert_eq!(kernel.run(&setting, &input).verdict, Verdict::Transmit, "{}", subject.name());
        let outcome = kernel.run_train(&setting, &input, 600);
        assert_eq!((outcome.verdict, outcome.counted), (Verdict::Onward, vec![Reason::Train]));
        assert_eq!((outcome.frame.as_slice(), outcome.flows), (input.frame(), setting.flows));
    }
}

/// Where the device has summed a packet up, the sum is right for what leaves, too. That is so as long as nothing is cut from
/// the end: then the kernel gives the sum up (`__skb_trim_rcsum`), and its check, which compares it all the same, says nothing.
#[test]
fn the_sum_of_a_device_stays_right() {
    const FIRST_THAT_CHECKS: KernelRelease = KernelRelease { major: 6, minor: 16 };
    if KernelRelease::running() < Some(FIRST_THAT_CHECKS) {
        println!("not run: kernels before {FIRST_THAT_CHECKS} do not check such sums");
        return;
    }
    let mut kernel = Kernel::shared(Ingress::Tc);
    for subject in Subject::all() {
        for length in [0, 1, 202, 203, 1200] {
            let draft = Draft::received("summed up", &subject, subject.packet(&data(length)).build());
            let (setting, input) = (draft.clone().into_setting(), draft.into_input());
            let verdict = kernel.run_summed(&setting, &input);
            let verdict =
                verdict.unwrap_or_else(|error| panic!("{}, {length} bytes: {error}", subject.name()));
            assert_eq!(verdict, TC_REDIRECT, "{}, {length} bytes", subject.name());
        }
    }
}
