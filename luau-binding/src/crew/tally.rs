//! How many subscribers the topics of one worker have, for the others to read.
//!
//! Sits inside `crew.rs`. Each worker has one, which it alone writes: once a turn, what the reactor
//! says has changed (`topics.rs` of core). The others read it when their scripts ask for a count. So a
//! worker that comes needs to be told nothing, and of one that goes nothing has to be taken back.
//!
//! Invariants
//! - Subscribing, unsubscribing and publishing take no lock: a turn in which subscriptions changed
//!   takes one, and who asks takes one for each other worker, held for a look-up.
//! - A topic without subscribers is not stored, and memory of many that have gone is given back.
//!
//! Not here: the worker's own count, which its reactor has exactly; who the other workers are.

use super::lock;
use hukilau_core::topics::Changes;
use std::collections::HashMap;
use std::sync::Mutex;

/// Room for so many topics is never given back.
const KEPT_MIN: usize = 64;

/// Subscribers by topic, as of the end of its worker's last turn.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<HashMap<Box<[u8]>, usize>>);

impl Tally {
    /// How many `topic` has.
    pub(super) fn count(&self, topic: &[u8]) -> usize {
        lock(&self.0).get(topic).copied().unwrap_or(0)
    }

    /// Adds what has changed.
    pub(super) fn apply(&self, changes: Changes) {
        let mut counts = lock(&self.0);
        for (topic, change) in changes {
            let by = usize::try_from(change.unsigned_abs()).unwrap_or(usize::MAX);
            let before = counts.get(&topic).copied().unwrap_or(0);
            let count = match change > 0 {
                true => before.saturating_add(by),
                false => before.saturating_sub(by),
            };
            match count {
                0 => counts.remove(&topic),
                count => counts.insert(topic, count),
            };
        }
        if counts.capacity() > KEPT_MIN + 4 * counts.len() {
            let enough = KEPT_MIN.max(2 * counts.len());
            counts.shrink_to(enough);
        }
    }

    /// Its worker has gone, and so have all subscribers.
    pub(super) fn clear(&self) {
        *lock(&self.0) = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT_MIN, Tally, lock};
    use hukilau_core::topics::Changes;

    fn changes(of: &[(&str, i64)]) -> Changes {
        let of = of.iter();
        of.map(|(topic, change)| (topic.as_bytes().into(), *change))
            .collect()
    }

    #[test]
    fn changes_add_up_and_a_topic_that_nobody_has_is_not_stored() {
        let tally = Tally::default();
        tally.apply(changes(&[("a", 3), ("b", 1)]));
        tally.apply(changes(&[("a", -1), ("b", -1), ("c", 2)]));
        let counts = ["a", "b", "c", "d"].map(|topic| tally.count(topic.as_bytes()));
        assert_eq!(counts, [2, 0, 2, 0]);
        assert_eq!(lock(&tally.0).len(), 2);
        tally.clear();
        assert_eq!((tally.count(b"a"), lock(&tally.0).capacity()), (0, 0));
    }

    #[test]
    fn memory_of_many_topics_goes_with_them() {
        let tally = Tally::default();
        let all = |by: i64| -> Changes {
            let names = (0..10_000_u32).map(|n| n.to_be_bytes());
            names.map(|name| (name.as_slice().into(), by)).collect()
        };
        tally.apply(all(1));
        assert!(lock(&tally.0).capacity() >= 10_000);
        tally.apply(all(-1));
        let capacity = lock(&tally.0).capacity();
        assert!(capacity <= 4 * KEPT_MIN, "room for {capacity} topics");
    }
}
