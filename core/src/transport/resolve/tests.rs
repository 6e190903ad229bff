//! The resolver with look-ups that a test lets go on when it pleases.

use super::{CACHE_MAX, FOUND_FOR, MISSED_FOR, QUEUE_MAX, Resolver, THREADS_MAX};
use crate::transport::{Resolution, ResolveError, Resolved};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

/// Longer than any look-up takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A resolver whose threads announce each name and then wait to be told the answer.
struct Harness {
    resolver: Resolver,
    begun: Receiver<String>,
    answers: Sender<Resolution>,
    wakes: Receiver<()>,
    now: Instant,
}

struct Bell(Mutex<Sender<()>>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Rings after the test is over reach nobody.
        let _ = self.0.lock().unwrap().send(());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]
fn origin() -> Instant {
    Instant::now()
}

fn harness() -> Harness {
    let (begins, begun) = channel();
    let (answers, answered) = channel::<Resolution>();
    let (rings, wakes) = channel();
    let answered = Mutex::new(answered);
    let begins = Mutex::new(begins);
    let lookup = move |host: &str| {
        let _ = begins.lock().unwrap().send(host.to_owned());
        let answer = answered.lock().unwrap().recv();
        answer.unwrap_or_else(|_| Err(ResolveError::new("the test is over")))
    };
    let waker = Waker::from(Arc::new(Bell(Mutex::new(rings))));
    Harness {
        resolver: Resolver::with_lookup(waker, Box::new(lookup)),
        begun,
        answers,
        wakes,
        now: origin(),
    }
}

fn found() -> Resolution {
    Ok([([127, 0, 0, 1], 0).into()].into())
}

impl Harness {
    fn ask(&mut self, host: &str, request: u64) -> Option<Resolution> {
        self.resolver.resolve(host, request, self.now)
    }

    fn begun(&self) -> String {
        self.begun.recv_timeout(PATIENCE).unwrap()
    }

    fn answer(&mut self, answer: Resolution) -> Vec<Resolved> {
        self.answers.send(answer).unwrap();
        self.wakes.recv_timeout(PATIENCE).unwrap();
        let mut into = Vec::new();
        self.resolver.take(&mut into, self.now);
        into
    }
}

#[test]
fn a_name_is_looked_up_once_for_all_who_wait_and_remembered_for_a_while() {
    let mut harness = harness();
    assert_eq!(harness.ask("example.org", 1), None);
    assert_eq!(harness.ask("EXAMPLE.org", 2), None);
    assert_eq!(harness.begun(), "example.org");
    let mut answers = harness.answer(found());
    answers.sort_by_key(|answer| answer.request);
    let requests: Vec<u64> = answers.iter().map(|answer| answer.request).collect();
    assert_eq!(requests, [1, 2]);
    assert_eq!(answers[0].outcome, found());
    assert!(!harness.resolver.is_waiting());
    assert_eq!(harness.ask("example.org", 3), Some(found()));
    harness.now += FOUND_FOR;
    assert_eq!(harness.ask("example.org", 4), None, "it may have moved");
}

#[test]
fn a_name_that_was_not_found_is_remembered_for_less() {
    let mut harness = harness();
    let missed = || Err(ResolveError::new("no such name"));
    assert_eq!(harness.ask("nowhere.test", 1), None);
    assert_eq!(harness.answer(missed())[0].outcome, missed());
    assert_eq!(harness.ask("nowhere.test", 2), Some(missed()));
    harness.now += MISSED_FOR;
    assert_eq!(harness.ask("nowhere.test", 3), None);
}

#[test]
fn a_full_queue_refuses_and_what_nobody_waits_for_is_not_looked_up() {
    let mut harness = harness();
    for thread in 0..THREADS_MAX {
        assert_eq!(harness.ask(&format!("slow{thread}.test"), 0), None);
        harness.begun();
    }
    for waits in 1..=QUEUE_MAX as u64 {
        assert_eq!(harness.ask(&format!("{waits}.test"), waits), None);
    }
    let refused = harness.ask("late.test", 9_999).expect("at once");
    assert!(refused.is_err_and(|error| error.to_string().contains("too many names")));
    for waits in 1..=QUEUE_MAX as u64 {
        harness.resolver.forget(waits);
    }
    assert_eq!(harness.ask("late.test", 9_999), None, "there is room again");
    assert_eq!(harness.answer(found()).len(), 1);
    assert_eq!(
        harness.begun(),
        "late.test",
        "those forgotten are passed over"
    );
}

#[test]
fn an_answer_that_comes_too_late_goes_to_nobody_and_is_remembered() {
    let mut harness = harness();
    assert_eq!(harness.ask("example.org", 1), None);
    harness.begun();
    harness.resolver.forget(1);
    assert_eq!(harness.answer(found()), []);
    assert_eq!(harness.ask("example.org", 2), Some(found()));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut harness = harness();
    for name in 0..CACHE_MAX + 10 {
        harness
            .resolver
            .remember(name.to_string().into(), found(), harness.now);
        assert!(harness.resolver.cache.len() <= CACHE_MAX);
    }
}

#[test]
fn the_system_knows_this_machine() {
    let found = super::ask_system("localhost").expect("every system does");
    assert!(found.iter().all(|address| address.ip().is_loopback()));
    assert!(super::ask_system("nul\0byte").is_err());
}
