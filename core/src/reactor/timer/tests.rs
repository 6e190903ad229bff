//! The wheel against a model that keeps a list and looks at all of it.

use super::{HORIZON_TICKS, TICK, TimerWheel};
use crate::reactor::conns::{ConnKey, Conns};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Any instant: only differences matter. The clock is not asked for the time, only for a value.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other constructor; the tests compare differences only"
)]
fn origin() -> Instant {
    Instant::now()
}

fn keys(count: u32) -> Vec<ConnKey> {
    let mut conns = Conns::new(count);
    (0..count).map(|i| conns.insert(i).unwrap()).collect()
}

fn fired(wheel: &mut TimerWheel, now: Instant) -> Vec<ConnKey> {
    let mut due = Vec::new();
    wheel.fire(now, &mut due);
    due.sort();
    due
}

/// What the tests do to a wheel: times are nanoseconds from now.
#[derive(Clone, Debug)]
enum Step {
    Arm(u64),
    Advance(u64),
    /// Advance to `next_wake`, as a reactor with nothing else to do does.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Spans of every magnitude below the horizon, so that each level is used.
    let span = (0_u32..47, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1));
    let step = prop_oneof![
        3 => span.clone().prop_map(Step::Arm),
        1 => span.prop_map(Step::Advance),
        2 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn entries_fire_never_early_and_at_most_one_tick_late(steps in steps()) {
        let start = origin();
        let (mut wheel, mut now, mut model) = (TimerWheel::new(start), start, Vec::new());
        // The end of the last tick that was fired: before it, nothing can fire any more.
        let mut fired_until = start;
        let keys = keys(60);
        let mut unused = keys.iter();
        for step in steps {
            match step {
                Step::Arm(nanos) => {
                    let at = now + Duration::from_nanos(nanos);
                    let key = *unused.next().expect("a key for each step");
                    wheel.arm(key, at);
                    model.push((key, at.max(fired_until)));
                    prop_assert!(wheel.next_wake().is_some_and(|wake| wake <= at.max(fired_until) + TICK));
                    continue;
                }
                Step::Advance(nanos) => now += Duration::from_nanos(nanos),
                Step::Wait => match wheel.next_wake() {
                    Some(wake) => now = now.max(wake),
                    None => prop_assert!(model.is_empty(), "someone waits, and nobody wakes"),
                },
            }
            for key in fired(&mut wheel, now) {
                let place = model.iter().position(|(waiting, _)| *waiting == key);
                let (_, at) = model.swap_remove(place.expect("fired twice, or never armed"));
                prop_assert!(at <= now, "{key} fired {:?} early", at - now);
            }
            for (key, at) in &model {
                prop_assert!(now < *at + TICK, "{key} is {:?} late", now - *at);
            }
            fired_until = now;
            prop_assert_eq!(wheel.len(), model.len());
            prop_assert_eq!(wheel.is_empty(), wheel.next_wake().is_none());
        }
    }
}

#[test]
fn a_wait_of_any_length_takes_at_most_four_wakes() {
    let key = keys(1)[0];
    for seconds in [0, 1, 2, 64, 75, 4_000, 5_000, 100_000, 260_000] {
        let start = origin();
        let at = start + Duration::from_secs(seconds);
        let mut wheel = TimerWheel::new(start);
        wheel.arm(key, at);
        let mut wakes = 0;
        while let Some(wake) = wheel.next_wake() {
            wakes += 1;
            let due = fired(&mut wheel, wake);
            assert_eq!(!due.is_empty(), wake >= at, "after {seconds} s");
        }
        assert!((1..=4).contains(&wakes), "{wakes} wakes for {seconds} s");
    }
}

#[test]
fn beyond_the_horizon_an_entry_fires_early_and_can_be_armed_again() {
    let start = origin();
    let key = keys(1)[0];
    let horizon = Duration::from_millis(16 * u64::from(HORIZON_TICKS));
    let at = start + horizon * 2 + horizon / 2;
    let (mut wheel, mut rounds) = (TimerWheel::new(start), 0);
    wheel.arm(key, at);
    while let Some(wake) = wheel.next_wake() {
        if fired(&mut wheel, wake) == [key] {
            rounds += 1;
            if wake < at {
                wheel.arm(key, at);
            }
        }
    }
    assert_eq!(rounds, 3);
}

#[test]
fn a_warm_wheel_reuses_its_nodes() {
    let start = origin();
    let (mut wheel, keys) = (TimerWheel::new(start), keys(100));
    let mut now = start;
    for round in 1..50 {
        for (key, millis) in keys.iter().zip(0_u64..) {
            wheel.arm(*key, now + Duration::from_millis(millis * 97 * round));
        }
        now += Duration::from_millis(100 * 97 * round);
        assert_eq!(fired(&mut wheel, now), keys);
    }
    assert_eq!((wheel.nodes.len(), wheel.is_empty()), (100, true));
}
