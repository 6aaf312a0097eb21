//! Calls that begin and end, more than anybody remembers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turn_testkit::figures::{Figures, times};
use turn_testkit::lab::Family;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::turn_client::TurnClient;

use crate::maps::entries;
use crate::{CHANNEL, options};

/// Clients at a time.
const CLIENTS: usize = 4;
/// How many cycles may begin before turn-bpf has answered once more: their messages fit into the ring buffer, so that on a busy machine none
/// are lost. What becomes of lost ones is another test's.
const AHEAD: u32 = 200;
/// Of so many cycles one ends without a word, when the server's time is over.
const UNSPOKEN: u32 = 8;
/// In seconds; what no client ends, the server does after this.
const LIFETIME: &str = "4";
/// What tables and the allocator may keep for what comes next. In full length the first half fills what is remembered of transactions,
/// which is as many as `Limits::transactions` says, and the second half has to make do with that.
const MEMORY: u64 = 16 << 20;

/// Allocate, bind, send, and end: by Refresh to zero, or not at all.
fn cycle(server: SocketAddr, peer: SocketAddr, number: u32, ip: IpAddr) -> TurnClient {
    // A port comes again only after a long time: the server forgets an allocation a second after it was given up.
    let port = 1024 + (number % 60_000) as u16;
    let mut client = TurnClient::new(UdpSocket::bind((ip, port)).unwrap(), server);
    client.allocate(None, None).unwrap();
    client.channel_bind(CHANNEL, peer).unwrap();
    client.send_channel_data(CHANNEL, &number.to_be_bytes(), &[]).unwrap();
    client
}

/// The first and the last cycle's call have to be seen in the kernel's hands, so that the rest is known to mean something.
fn is_learned(offload: &Offload) {
    let (mut client, _) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    client.refresh(0).unwrap();
}

#[test]
fn channels_that_are_bound_and_expire_leave_nothing_behind() {
    let cycles = times(4_000, 200_000);
    let lifetime = format!("--max-allocate-lifetime={LIFETIME}");
    let mut offload = options().default_terms().log_level("info").coturn(&[&lifetime]).start();
    let pid = offload.daemon().process().id();
    let peer = offload.peer();
    let (listener, peer_address) = (offload.listener(), peer.local_addr().unwrap());
    let ip = offload.lab.addresses(Family::V4).client;
    is_learned(&offload);
    let empty = entries(pid);

    let (begun, allowed, most_flows) = (AtomicU32::new(0), AtomicU32::new(AHEAD), AtomicU64::new(0));
    let start = Instant::now();
    let processing = offload.daemon().process().cpu_time().unwrap();
    let early = thread::scope(|scope| {
        let worker = |_| {
            scope.spawn(|| {
                let run = || loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if number >= cycles {
                        return;
                    }
                    while number >= allowed.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let mut client = cycle(listener, peer_address, number, ip);
                    if number % UNSPOKEN != 0 {
                        client.refresh(0).unwrap();
                    }
                };
                offload.lab.client.enter(run).unwrap();
            })
        };
        let workers: Vec<_> = (0..CLIENTS).map(worker).collect();
        let mut early = None;
        while workers.iter().any(|worker| !worker.is_finished()) {
            let flows = entries(pid)["FLOWS"] as u64;
            most_flows.fetch_max(flows, Ordering::Relaxed);
            if early.is_none() && begun.load(Ordering::Relaxed) > cycles / 2 {
                early = Some(memory(&offload));
            }
            let done = begun.load(Ordering::Relaxed).min(allowed.load(Ordering::Relaxed));
            offload.daemon_ref().status().unwrap();
            allowed.store(done + AHEAD, Ordering::Relaxed);
        }
        early
    });
    let took = start.elapsed();
    let most_flows = most_flows.into_inner();
    assert!(most_flows > 20, "at most {most_flows} flows at a time: the cycles were not learned");

    let mut left = entries(pid);
    let deadline = Instant::now() + PATIENCE * 2;
    while left.values().any(|count| *count > 0) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
        left = entries(pid);
    }
    let status = offload.daemon().status().unwrap();
    assert!(left.values().all(|count| *count == 0), "{left:?}, {empty:?} before");
    assert_eq!((status.allocations, status.bindings, status.reasons["control_lost"]), (0, 0, 0));
    let late = memory(&offload);
    let early = early.unwrap_or(late);
    let grown = late.saturating_sub(early);
    assert!(grown < MEMORY, "{early} bytes after half of it, {late} at the end");
    is_learned(&offload);
    let processing = offload.daemon().process().cpu_time().unwrap() - processing;
    Figures::of("bind-expire-cycles")
        .count("cycles", cycles.into())
        .count("flows at a time", most_flows)
        .count("entries left in FLOWS, EXPECTED and CLIENTS", left.values().sum::<usize>() as u64)
        .count("KiB of memory after half of it", early / 1024)
        .count("KiB of memory at the end", late / 1024)
        .count("us of turn-bpf's CPU time per cycle", (processing.as_micros() / u128::from(cycles)) as u64)
        .count("s in all", took.as_secs())
        .report();
    wait_until("nothing is left of the last", || entries(pid).values().all(|count| *count == 0));
}

fn memory(offload: &Offload) -> u64 {
    offload.daemon_ref().memory().unwrap()
}
