//! The limit of what is relayed per second, which the object has only where it was loaded with one.

use turn_testkit::cases::{check, rates};

use crate::kernel::Kernel;

#[test]
fn over_its_rate_a_flow_is_the_servers() {
    let mut kernel = Kernel::load_with(&rates::TERMS);
    let cases = rates::over_its_rate_a_flow_is_the_servers();
    check(&cases, &mut |setting, input| input.suits_the_kernel().then(|| kernel.run(setting, input)));
}

#[test]
fn without_a_limit_the_verifier_takes_the_code_out() {
    let size = |mut kernel: Kernel| {
        let info = kernel.object.xdp().unwrap().info().unwrap();
        info.size_translated().expect("a kernel that says")
    };
    let [without, with] = [Kernel::load(), Kernel::load_with(&rates::TERMS)].map(size);
    assert!(without < with, "{without} bytes without, {with} with a limit");
}
