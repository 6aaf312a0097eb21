//! The tables of `turn-testkit`, run on the host. The kernel runs the same ones (turn-bpf, test `program`).

macro_rules! on_the_host {
    ($body:expr) => {
        ($body)(&mut |setting, input| Some(turn_testkit::cases::host::run(setting, input)))
    };
}

turn_testkit::for_all_tables!(on_the_host);
