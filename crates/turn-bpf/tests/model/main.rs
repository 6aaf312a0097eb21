//! The whole of turn-bpf against a model of the world: clients, peers, a simple TURN server, a network that loses, copies and
//! reorders, and a daemon that comes late and is killed. The datapath, the snoop and the flow table are the real ones.
//!
//! `TURN_BPF_MODEL_RUNS` and `TURN_BPF_MODEL_SEED` say how many runs, and from which seed; a failure names both its seed and
//! the shortest run that fails alike.

mod host;
mod place;
mod server;
mod step;
mod tally;
mod world;

use std::cell::Cell;
use std::panic::resume_unwind;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::step::step;
use crate::tally::Tally;
use crate::world::World;

/// Runs of 250 steps on average.
const RUNS: u32 = 1_200;
const STEPS: std::ops::Range<usize> = 100..400;
const SEED: u64 = 0x5eed;
/// Each has its share of the runs, and a seed of its own.
const THREADS: u32 = 2;

fn number<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")),
        Err(_) => otherwise,
    }
}

/// So many runs, beginning with a seed.
fn tally_of(runs: u32, seed: u64) -> Tally {
    let config = ProptestConfig {
        cases: runs,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let tally = Cell::new(Tally::default());
    let run = (prop::bool::weighted(0.2), prop::collection::vec(step(), STEPS));
    let result = TestRunner::new(config).run(&run, |(is_behind_nat, steps)| {
        let mut world = World::new(is_behind_nat);
        world.tally = tally.get();
        world.introduce();
        steps.iter().for_each(|step| world.take(step));
        world.finish();
        tally.set(world.tally);
        Ok(())
    });
    match result {
        Ok(()) => tally.get(),
        Err(failure) => resume_unwind(Box::new(format!("TURN_BPF_MODEL_SEED={seed}: {failure}"))),
    }
}

#[test]
fn nobody_gets_what_the_server_would_not_have_sent() {
    let (runs, seed) = (number("TURN_BPF_MODEL_RUNS", RUNS), number("TURN_BPF_MODEL_SEED", SEED));
    let seeds = seed..seed + u64::from(THREADS);
    // Every attempt to shorten a run would tell of its failure.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tallies: Vec<thread::Result<Tally>> = thread::scope(|scope| {
        let threads: Vec<_> =
            seeds.map(|seed| scope.spawn(move || tally_of(runs.div_ceil(THREADS), seed))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    std::panic::set_hook(hook);
    let mut tally = Tally::default();
    for of_thread in tallies {
        match of_thread {
            Ok(of_thread) => tally.add(of_thread),
            Err(failure) => panic!("{}", failure.downcast_ref::<String>().map_or("a thread", String::as_str)),
        }
    }
    println!("seed {seed}: {tally}");
    // A model in which little happens shows little.
    let seldom = u64::from(runs / 20);
    for (what, times) in [
        ("relayed in the kernel", tally.relayed),
        ("from client to client", tally.client_to_client),
        ("relayed by the server", tally.by_server),
        ("refused by the server", tally.unrelayable),
        ("witnesses", tally.witnesses),
        ("heartbeats", tally.heartbeats),
        ("packets behind one", tally.behind),
        ("path changes", tally.path_changes),
        ("other payloads", tally.other_payloads),
        ("calls joined", tally.joined),
    ] {
        assert!(times >= seldom, "{what}: only {times} in {runs} runs");
    }
}
