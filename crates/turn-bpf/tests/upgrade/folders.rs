//! Where things are kept, whose that is, and how it is ended.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use turn_testkit::daemon::{Daemon, DaemonError};
use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::unprivileged::PublicFolder;

use crate::{BINARY, BpfFilesystem, CHANNEL, End, MODES, end};

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}

/// What a second daemon on the same interfaces says.
fn refusal(offload: &Offload, arguments: &[&str]) -> String {
    let control = offload.control().with_extension("second");
    let arguments = [arguments, offload.lab.interfaces()].concat();
    match Daemon::start(&offload.lab.server, Path::new(BINARY), &control, &arguments) {
        Err(DaemonError::Ended { log, .. }) => log,
        other => panic!("{other:?}"),
    }
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn detach_takes_everything_out_of_the_kernel() {
    for mode in MODES {
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options().mode(mode).start();
        let nothing = |output: Output| {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(text(&output.stdout), format!("nothing is kept in {}", bpf.pins().display()));
        };
        let pid = offload.daemon().process().id();
        let refused = bpf.detach(&offload);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(&format!("(pid {pid})")), "{refused:?}");

        end(&mut offload, End::Told);
        let links = if mode == "generic" { 6 } else { 4 };
        let detached = bpf.detach(&offload);
        assert!(detached.status.success(), "{detached:?}");
        assert!(
            text(&detached.stdout).starts_with(&format!("removed {links} attached programs and 12 maps")),
            "{detached:?}"
        );
        assert_eq!(offload.attached_programs(), [""; 0], "{mode}");
        assert!(!bpf.pins().exists());
        nothing(bpf.detach(&offload));
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().start();
    let pins = bpf.pins();
    let pins = pins.to_str().unwrap();
    let pid = offload.daemon().process().id();
    for arguments in [&["--keep", "--pin-dir", pins][..], &["--pin-dir", pins]] {
        let said = refusal(&offload, arguments);
        assert!(said.contains(&format!("(pid {pid})")) && said.contains("--pin-dir"), "{said}");
    }
    // With a folder of its own it meets the first one's programs.
    let said = refusal(&offload, &["--keep", "--pin-dir", &format!("{pins}-of-another")]);
    assert!(said.contains("already attached to") && said.contains(&format!("(pid {pid})")), "{said}");
}

#[test]
fn a_folder_that_cannot_keep_anything_is_refused() {
    let bpf = BpfFilesystem::mount();
    let offload = bpf.options().start_without_daemon();
    let said = refusal(&offload, &["--keep", "--pin-dir", "/tmp/turn-bpf"]);
    assert!(said.contains("is in no BPF filesystem") && said.contains("mount -t bpf"), "{said}");
    // As everywhere in a namespace of the lab.
    let said = refusal(&offload, &["--keep"]);
    assert!(said.contains("/sys/fs/bpf/turn-bpf is in no BPF filesystem"), "{said}");
}

/// Anybody may have made a folder where everybody may write, as in a BPF filesystem that is mounted without options.
#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().start();
    end(&mut offload, End::Told);
    let pins = bpf.pins();
    let keep = ["--keep", "--pin-dir", pins.to_str().unwrap(), "--mode", "native"];
    fs::set_permissions(&pins, Permissions::from_mode(0o777)).unwrap();
    assert!(refusal(&offload, &keep).contains("or others may write to it"));
    fs::set_permissions(&pins, Permissions::from_mode(0o700)).unwrap();
    chown(&pins, Some(65_534), None).unwrap();
    assert!(refusal(&offload, &keep).contains("belongs to user 65534"));
    // What is not to be kept needs no folder; but the places of the programs are taken.
    assert!(refusal(&offload, &keep[1..]).contains("what is there is left"));
    assert!(bpf.detach(&offload).status.success());
}

/// Where a start fails half-way, what it has attached goes again.
#[test]
fn a_start_that_fails_keeps_nothing() {
    let bpf = BpfFilesystem::mount();
    let offload = bpf.options().start_without_daemon();
    let server = &offload.lab.server;
    let space = server.output("stat", &["--dereference", "--format=%i", "/proc/self/ns/net"]).unwrap();
    let ifindex = server.output("cat", &["/sys/class/net/srv1/ifindex"]).unwrap();
    let in_the_way = format!("netns-{}/links/{}-egress", space.trim(), ifindex.trim());
    let pins = bpf.pins();
    DirBuilder::new().recursive(true).mode(0o700).create(pins.join(in_the_way)).unwrap();

    let said = refusal(&offload, &["--keep", "--pin-dir", pins.to_str().unwrap(), "--mode", "native"]);
    assert!(
        said.contains("cannot attach to what leaves by srv1") && said.contains("cannot pin it"),
        "{said}"
    );
    wait_until("nothing is attached", || offload.attached_programs().is_empty());
    assert!(!pins.exists());
}

/// It goes on with what is there, and takes all of it along when it ends.
#[test]
fn a_daemon_without_keep_leaves_nothing_of_what_it_finds() {
    for how in [End::Told, End::Killed] {
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options_without_keep().start();
        assert!(!bpf.pins().exists());
        end(&mut offload, End::Told);
        assert_eq!(offload.attached_programs(), [""; 0]);

        let mut keeping = bpf.options().default_terms().start();
        let (mut client, _) = keeping.allocated_client();
        let echo = keeping.echo();
        keeping.bind_and_arm(&mut client, CHANNEL, &echo);
        end(&mut keeping, End::Told);
        keeping.start_daemon_without("--keep");
        assert!(!bpf.pins().exists());
        assert_eq!(keeping.session(&client, CHANNEL).unwrap().state, "kernel");
        end(&mut keeping, how);
        wait_until("nothing is attached", || keeping.attached_programs().is_empty());
    }
}

/// Maps of another size are another layout. The call is the server's until its channel is bound again.
#[test]
fn an_incompatible_layout_is_replaced_without_a_gap() {
    for mode in MODES {
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options().mode(mode).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let (kept, attached) = (files(&bpf.pins()), offload.attached_programs());
        let overflows = offload.lab.server.udp_overflows().unwrap();
        let traffic = Traffic { stream: 1, sizes: 100..=100, rate: 1000, duration: Duration::from_secs(4) };
        let report = std::thread::scope(|scope| {
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            let report = scope.spawn(move || traffic.round_trips(&mut channel).unwrap());
            end(&mut offload, End::Told);
            offload.start_daemon_with(&["--max-flows", "1024"]);
            report.join().unwrap()
        });
        let overflowed = offload.lab.server.udp_overflows().unwrap() - overflows;
        Figures::of("daemon-kept-layout").lost(report.lost(), report.sent).report();
        assert!(report.lost() <= overflowed, "{mode}: {:?}", report.verify());
        assert_eq!((report.tally.duplicated, report.tally.altered), (0, 0), "{mode}");
        assert_eq!(offload.attached_programs().len(), attached.len(), "{mode}");
        assert_eq!(files(&bpf.pins()), kept, "{mode}: nothing is left of the earlier layout");
        assert_eq!(offload.sessions(), [], "{mode}");
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
    }
}

/// Where the ingress program is to run elsewhere, it is moved, and nothing else changes.
#[test]
fn another_mode_is_taken_up() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    for mode in MODES.into_iter().rev() {
        end(&mut offload, End::Told);
        offload.start_daemon_in(mode);
        let modes: Vec<_> =
            offload.daemon().status().unwrap().interfaces.into_iter().map(|one| one.mode).collect();
        assert_eq!(modes, [mode, mode]);
        offload.arm(&mut client, CHANNEL);
    }
    // What is kept is taken up where nothing else is asked for.
    end(&mut offload, End::Told);
    offload.start_daemon_in("auto");
    assert_eq!(offload.daemon().status().unwrap().interfaces[0].mode, MODES[0]);
}

#[test]
fn an_interface_that_is_no_longer_named_is_left() {
    let bpf = BpfFilesystem::mount();
    let offload = bpf.options().start_without_daemon();
    let pins = bpf.pins();
    for (interfaces, attached) in
        [(&["srv0", "srv1"][..], 4), (&["srv0"], 2), (&["srv1"], 2), (&["srv0", "srv1"], 4)]
    {
        let arguments =
            [&["--keep", "--pin-dir", pins.to_str().unwrap(), "--mode", "tc"][..], interfaces].concat();
        let daemon =
            Daemon::start(&offload.lab.server, Path::new(BINARY), &offload.control(), &arguments).unwrap();
        assert_eq!(daemon.status().unwrap().interfaces.len(), interfaces.len());
        assert!(daemon.stop().unwrap().success());
        assert_eq!(files(&bpf.pins()), 12 + attached, "{interfaces:?}");
    }
}

/// As the packaged service does.
#[test]
fn a_user_with_three_capabilities_keeps_what_he_may_write() {
    let bpf = BpfFilesystem::mount();
    let public = PublicFolder::with(BINARY).unwrap();
    let wrapper = public.as_nobody().unwrap();

    let offload = bpf.options().start_without_daemon();
    let control = public.path().join("control.sock");
    let pins = bpf.pins();
    let options = ["--keep", "--pin-dir", pins.to_str().unwrap(), "--mode", "native"];
    let arguments = [&options[..], offload.lab.interfaces()].concat();
    for how in [End::Killed, End::Told] {
        let daemon = Daemon::start(&offload.lab.server, &wrapper, &control, &arguments).unwrap();
        assert_eq!(daemon.status().unwrap().interfaces.len(), 2);
        match how {
            End::Killed => daemon.kill().unwrap(),
            End::Told => assert!(daemon.stop().unwrap().success()),
        }
        assert_eq!(offload.attached_programs().len(), 4, "{how:?}");
    }
    let mut detach = offload.lab.server.command(&wrapper);
    assert!(detach.args(["detach", "--pin-dir"]).arg(&pins).status().unwrap().success());
    wait_until("nothing is attached", || offload.attached_programs().is_empty());
}
