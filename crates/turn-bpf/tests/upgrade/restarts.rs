//! Restarts, again and again, while packets go both ways.

use std::thread::sleep;
use std::time::Duration;

use turn_testkit::daemon::Session;
use turn_testkit::figures::{Figures, times};
use turn_testkit::steady::{Arrivals, Losses};

use crate::{BpfFilesystem, CHANNEL, End, MODES, end};

/// Told to end and killed in turn. Nobody binds a channel again.
#[test]
fn restarts_lose_no_packet_and_the_kernel_relays_as_much_as_without_them() {
    for mode in MODES {
        let restarts = times(6, 100);
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options().mode(mode).start();
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        let (peer_address, client_address) = (peer.local_addr().unwrap(), client.address().unwrap());
        let arrivals = Arrivals::watch(&offload.lab).unwrap();
        let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
        let attached = offload.attached_programs().len();
        let first = offload.session(&client, CHANNEL).unwrap();
        // As long as some restarts take.
        sleep(Duration::from_secs(3));
        let before = offload.session(&client, CHANNEL).unwrap();
        for number in 0..restarts {
            end(&mut offload, if number % 2 == 0 { End::Told } else { End::Killed });
            assert_eq!(offload.attached_programs().len(), attached, "{mode}, after {number} restarts");
            offload.start_daemon();
        }
        let after = offload.session(&client, CHANNEL).unwrap();
        assert_eq!(after.state, "kernel", "{mode}: {after:?}");
        drop(pumps);

        let Losses { sent, lost } = arrivals.losses(client_address, peer_address);
        let [usual, share] = [(&first, &before), (&before, &after)].map(|(from, to)| share(from, to));
        Figures::of("daemon-kept")
            .lost(lost, sent)
            .count("restarts", restarts.into())
            .count("packets of 10,000 that the server had", ((1.0 - share) * 10_000.0).round() as u64)
            .count("the same without restarts", ((1.0 - usual) * 10_000.0).round() as u64)
            .report();
        assert_eq!(lost, 0, "{mode}: of {sent} packets");
        assert!(share > usual - 0.01, "{mode}: {share} by the kernel instead of {usual}");
        drop(offload);
    }
}

/// The kernel's share of what a session carried in between.
fn share(from: &Session, to: &Session) -> f64 {
    let carried =
        |of: fn(&Session) -> [u64; 2]| (of(to).iter().sum::<u64>() - of(from).iter().sum::<u64>()) as f64;
    let kernel =
        carried(|session| [session.client_to_peer.kernel_packets, session.peer_to_client.kernel_packets]);
    let all = carried(|session| [session.client_to_peer.packets(), session.peer_to_client.packets()]);
    kernel / all
}
