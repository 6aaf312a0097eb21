//! The limit of what is relayed in the kernel per second.

use turn_datapath::{Flow, rate};
use turn_testkit::cases::{check, host, rates};

const SECOND: u64 = 1_000_000_000;

#[test]
fn over_its_rate_a_flow_is_the_servers() {
    let cases = rates::over_its_rate_a_flow_is_the_servers();
    check(&cases, &mut |setting, input| Some(host::run_by(&rates::TERMS, setting, input)));
}

/// However packets come, no more is let through than the rate and one second's worth of it. The sum is taken in bytes, not by
/// the code's own arithmetic.
#[test]
fn no_more_than_the_rate_and_a_seconds_worth() {
    for rate in [1_000, 8_000, 650_000, 125_000_000, 12_500_000_000] {
        for offered in [rate / 2, rate - rate / 50, rate + rate / 50, rate * 3] {
            let mut flow = Flow::default();
            let size = (rate / 1000).clamp(60, 1400);
            let packets = (offered * 20 / size).min(200_000);
            let gap = SECOND as u128 * u128::from(size) / u128::from(offered);
            let (mut relayed, mut left) = (0, 0);
            for packet in 0..packets {
                let now = 5 * SECOND + (gap * u128::from(packet)) as u64;
                let is_over = rate::spend(&mut flow, (size - 4) as u16, now, rate::cost(rate));
                *(if is_over { &mut left } else { &mut relayed }) += size;
            }
            let seconds = (gap * u128::from(packets)) as f64 / SECOND as f64;
            let most = rate as f64 * (seconds + 1.0) * 1.001 + size as f64;
            assert!((relayed as f64) <= most, "{relayed} of {most} at {rate}, offered {offered}");
            if offered < rate {
                assert_eq!(left, 0, "below {rate}");
            } else if offered > 2 * rate && seconds > 2.0 {
                assert!(
                    left > relayed,
                    "{relayed} relayed and {left} left at {rate}: the server sees it all"
                );
            }
        }
    }
}

#[test]
fn after_arrears_of_a_second_a_silent_flow_is_relayed_again() {
    let cost = rate::cost(10_000);
    let mut flow = Flow::default();
    while !rate::spend(&mut flow, 1000, SECOND, cost) {}
    for _ in 0..1000 {
        assert!(rate::spend(&mut flow, 1000, SECOND, cost));
    }
    assert!(rate::is_over(&flow, 2 * SECOND - 1));
    assert!(!rate::is_over(&flow, 2 * SECOND));
}
