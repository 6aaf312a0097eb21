//! The BPF object in the running kernel, packet by packet (`BPF_PROG_TEST_RUN`). Needs root.

mod at_tc;
mod differential;
mod joining;
mod kernel;
mod limits;
mod rates;
mod trains;
mod unseen_trains;
mod verifier;

macro_rules! in_the_kernel {
    ($body:expr) => {{
        let mut kernel = crate::kernel::Kernel::shared(crate::kernel::Ingress::Xdp);
        ($body)(&mut |setting, input| input.suits_the_kernel().then(|| kernel.run(setting, input)))
    }};
}

turn_testkit::for_all_tables!(in_the_kernel);
