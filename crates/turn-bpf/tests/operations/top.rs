//! `turn-bpf top` on a terminal.

use std::process::Stdio;
use std::time::Duration;

use turn_testkit::terminal::Terminal;
use turn_testkit::traffic::Channel;
use turn_testkit::traffic::Traffic;

use crate::{CHANNEL, busy_and_idle, options};

#[test]
fn top_shows_a_live_call_and_heeds_the_keyboard() {
    let mut offload = options().start();
    let (mut client, mut other, _echo) = busy_and_idle(&offload);
    let [busy, idle] = [&client, &other].map(|client| client.address().unwrap().to_string());

    let mut command = offload.daemon().command("top");
    command.args(["--interval", "200ms"]).env_remove("NO_COLOR");
    let mut terminal = Terminal::start(&mut command).unwrap();
    let first = |text: &str| {
        text.lines().find(|line| line.starts_with("198.18.")).unwrap_or_default().trim_end().to_owned()
    };
    let text = terminal.wait_for("both sessions", |text| text.contains(&busy) && text.contains(&idle));
    assert!(text.contains("srv0 native, srv1 native"), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with(&idle) && line.trim_end().ends_with("no_traffic")),
        "{text}"
    );
    assert!(terminal.is_full_screen() && terminal.has_colours());

    // While packets come and go, the busy session is above the idle one, and the kernel relays nearly all.
    let is_busy = |text: &str| {
        let share = text.split("in the kernel: now ").nth(1).and_then(|rest| rest.split(" %").next());
        share.and_then(|share| share.parse::<f64>().ok()).is_some_and(|share| share > 90.0)
            && first(text).starts_with(&busy)
            && first(text).ends_with("kernel")
    };
    let traffic = Traffic { stream: 1, sizes: 200..=200, rate: 500, duration: Duration::from_secs(3) };
    std::thread::scope(|scope| {
        let pump = scope
            .spawn(|| traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap());
        let text = terminal.wait_for("the busy session in the kernel", is_busy);
        // The last column of the graph is a high bar.
        assert!(
            text.lines().nth(4).is_some_and(|line| line.trim_end().ends_with(['█', '▇', '▆', '▅'])),
            "{text}"
        );
        assert_eq!(pump.join().unwrap().verify(), Ok(()));
    });

    terminal.press("r").unwrap();
    terminal.wait_for("the other order", |text| first(text).starts_with(&idle) && text.contains("reversed"));
    terminal.press("r").unwrap();
    terminal.press(&format!("/{idle}\r")).unwrap();
    terminal.wait_for("one session", |text| text.contains(&idle) && !text.contains(&busy));
    terminal.press("/\x1b").unwrap();
    terminal.wait_for("both again", |text| text.contains(&busy));
    terminal.press("sssss").unwrap();
    terminal.wait_for("the order by rate", |text| text.contains("s sort (rate)"));
    terminal.press("?").unwrap();
    terminal.wait_for("help", |text| text.contains("any key closes this"));
    terminal.press("x").unwrap();
    terminal.wait_for("no help", |text| !text.contains("any key closes this"));

    // What is frozen stays, whatever the daemon does.
    terminal.press("p").unwrap();
    terminal.wait_for("the screen frozen", |text| text.contains("FROZEN"));
    other.refresh(0).unwrap();
    offload.wait_until_unbound(&other, CHANNEL);
    assert!(terminal.text().contains(&idle));
    terminal.press("p").unwrap();
    terminal.wait_for("the session gone", |text| !text.contains(&idle));

    // A daemon that ends is said to have ended; the next one is found again.
    offload.take_daemon().stop().unwrap();
    terminal.wait_for("the daemon missed", |text| text.contains("no turn-bpf runs"));
    offload.start_daemon();
    terminal.wait_for("the new daemon", |text| text.contains("no channel bindings"));
    terminal.press("q").unwrap();
    assert!(terminal.wait().unwrap().expect("it ends").success());
    turn_testkit::offload::wait_until("what was on the screen before", || !terminal.is_full_screen());
}

#[test]
fn top_respects_no_color_and_needs_a_daemon() {
    let mut offload = options().start();
    let mut command = offload.daemon().command("top");
    let mut terminal = Terminal::start(command.env("NO_COLOR", "1")).unwrap();
    terminal.wait_for("the screen", |text| text.contains("no channel bindings"));
    assert!(!terminal.has_colours());
    // Ctrl-C, which is a key like any other where a program reads keys.
    terminal.press("\x03").unwrap();
    assert!(terminal.wait().unwrap().expect("it ends").success());

    let [mut command, mut without_terminal] = [(); 2].map(|()| offload.daemon().command("top"));
    offload.take_daemon().stop().unwrap();
    let mut terminal = Terminal::start(&mut command).unwrap();
    assert_eq!(terminal.wait().unwrap().expect("it ends").code(), Some(3));
    terminal.wait_for("why", |text| text.contains("no turn-bpf runs"));
    let output = without_terminal.stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("top needs a terminal"));
}
