//! Who subscribes to what: a plain table from topic names to subscribers.
//!
//! Sits at the bottom: it knows neither connections nor messages, only keys. The reactor keeps one
//! of these with its connection keys and asks it whom to send a published message.
//!
//! Each subscription is entered twice, with its topic and with its subscriber, and each entry knows
//! where the other one is:
//!
//! ```text
//!   topics:      "room/7" ─▶ [ key a (own entry 0) │ key b (own entry 2) │ … ]
//!   memberships:  key b   ─▶ [ "lobby" at 5 │ "room/3" at 0 │ "room/7" at 1 ]
//! ```
//!
//! Invariants
//! - Subscribing costs O(1); unsubscribing and [`leave_all`](Topics::leave_all) cost O(the
//!   subscriber's own topics), however many others there are.
//! - A topic without subscribers is not stored, nor is a subscriber without topics.
//! - [`Changes`] are kept only for who has asked, and name no topic that has as many subscribers as
//!   before: they are never more than the topics of then and now together.
//!
//! Not here: bounds on names and counts (`limits.rs`, by the caller); frames (`ws/`).

use slab::Slab;
use std::collections::HashMap;
use std::hash::Hash;

/// How many subscribers each topic has gained (above 0) or lost (below) since the last look.
pub type Changes = HashMap<Box<[u8]>, i64>;

/// Subscriptions of keys `K` to named topics. See the module.
#[derive(Debug)]
pub struct Topics<K> {
    topics: Slab<Topic<K>>,
    names: HashMap<Box<[u8]>, usize>,
    memberships: HashMap<K, Vec<Membership>>,
    /// If somebody follows them.
    changes: Option<Changes>,
}

#[derive(Debug)]
struct Topic<K> {
    name: Box<[u8]>,
    subscribers: Vec<Subscriber<K>>,
}

#[derive(Debug)]
struct Subscriber<K> {
    key: K,
    /// Where this subscription stands among the key's memberships.
    membership: usize,
}

#[derive(Debug)]
struct Membership {
    topic: usize,
    /// Where this subscription stands among the topic's subscribers.
    position: usize,
}

impl<K> Default for Topics<K> {
    fn default() -> Self {
        Self {
            topics: Slab::new(),
            names: HashMap::new(),
            memberships: HashMap::new(),
            changes: None,
        }
    }
}

impl<K: Copy + Eq + Hash> Topics<K> {
    /// Subscribes `key` to `name`; `false` if it was subscribed already.
    pub fn subscribe(&mut self, key: K, name: &[u8]) -> bool {
        let topic = match self.names.get(name) {
            Some(topic) => *topic,
            None => {
                let subscribers = Vec::new();
                let topic = self.topics.insert(Topic {
                    name: name.into(),
                    subscribers,
                });
                self.names.insert(name.into(), topic);
                topic
            }
        };
        let memberships = self.memberships.entry(key).or_default();
        if memberships.iter().any(|known| known.topic == topic) {
            return false;
        }
        let subscribers = &mut self.topics[topic].subscribers;
        memberships.push(Membership {
            topic,
            position: subscribers.len(),
        });
        subscribers.push(Subscriber {
            key,
            membership: memberships.len() - 1,
        });
        note(&mut self.changes, name, 1);
        true
    }

    /// Ends the subscription of `key` to `name`; `false` if there is none.
    pub fn unsubscribe(&mut self, key: K, name: &[u8]) -> bool {
        let Some(topic) = self.names.get(name).copied() else {
            return false;
        };
        let Some(memberships) = self.memberships.get_mut(&key) else {
            return false;
        };
        let is_it = |known: &Membership| known.topic == topic;
        let Some(index) = memberships.iter().position(is_it) else {
            return false;
        };
        let position = memberships.swap_remove(index).position;
        // The membership that took its place tells its subscription where it is now.
        if let Some(moved) = memberships.get(index) {
            self.topics[moved.topic].subscribers[moved.position].membership = index;
        }
        if memberships.is_empty() {
            self.memberships.remove(&key);
        }
        self.remove_subscriber(topic, position);
        true
    }

    /// Ends every subscription of `key`.
    pub fn leave_all(&mut self, key: K) {
        if self.memberships.is_empty() {
            return;
        }
        for membership in self.memberships.remove(&key).into_iter().flatten() {
            self.remove_subscriber(membership.topic, membership.position);
        }
    }

    /// Who is subscribed to `name`, in no order that means anything.
    pub fn subscribers(&self, name: &[u8]) -> impl ExactSizeIterator<Item = K> {
        let topic = self
            .names
            .get(name)
            .and_then(|topic| self.topics.get(*topic));
        let subscribers = topic.map_or(&[][..], |topic| &topic.subscribers[..]);
        subscribers.iter().map(|subscriber| subscriber.key)
    }

    /// How many topics `key` is subscribed to.
    pub fn count_of(&self, key: K) -> usize {
        self.memberships.get(&key).map_or(0, Vec::len)
    }

    /// What `key` is subscribed to, in no order that means anything.
    pub fn names_of(&self, key: K) -> impl Iterator<Item = &[u8]> {
        let memberships = self.memberships.get(&key).map_or(&[][..], |own| &own[..]);
        memberships
            .iter()
            .map(|known| &*self.topics[known.topic].name)
    }

    /// Keeps changes from now on, for [`take_changes`](Self::take_changes). Who is subscribed already
    /// counts as gained.
    pub fn track_changes(&mut self) {
        if self.changes.is_none() {
            let so_far = self.topics.iter().map(|(_, topic)| {
                let count = i64::try_from(topic.subscribers.len()).unwrap_or(i64::MAX);
                (topic.name.clone(), count)
            });
            self.changes = Some(so_far.collect());
        }
    }

    /// What has changed since the last call; `None` if nothing has, or nobody
    /// [tracks](Self::track_changes).
    pub fn take_changes(&mut self) -> Option<Changes> {
        let changes = self
            .changes
            .as_mut()
            .filter(|changes| !changes.is_empty())?;
        Some(core::mem::take(changes))
    }

    /// How many topics have subscribers.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes the subscriber at `position` out of `topic`; its membership has gone already.
    fn remove_subscriber(&mut self, topic: usize, position: usize) {
        note(&mut self.changes, &self.topics[topic].name, -1);
        let subscribers = &mut self.topics[topic].subscribers;
        subscribers.swap_remove(position);
        if subscribers.is_empty() {
            let name = self.topics.remove(topic).name;
            self.names.remove(&name);
            return;
        }
        // The subscriber that took its place tells its membership where it is now.
        if let Some(moved) = subscribers.get(position)
            && let Some(own) = self.memberships.get_mut(&moved.key)
        {
            own[moved.membership].position = position;
        }
    }
}

/// Topic `name` has one subscriber more, or less.
fn note(changes: &mut Option<Changes>, name: &[u8], by: i64) {
    let Some(changes) = changes else {
        return;
    };
    match changes.get_mut(name) {
        // As many as before: nothing has changed.
        Some(change) if *change + by == 0 => {
            changes.remove(name);
        }
        Some(change) => *change += by,
        None => {
            changes.insert(name.into(), by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Topics;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(u8, u8),
        Unsubscribe(u8, u8),
        LeaveAll(u8),
        TakeChanges,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, 0..5_u8).prop_map(|(key, name)| Step::Subscribe(key, name)),
            2 => (0..6_u8, 0..5_u8).prop_map(|(key, name)| Step::Unsubscribe(key, name)),
            1 => (0..6_u8).prop_map(Step::LeaveAll),
            1 => Just(Step::TakeChanges),
        ]
    }

    /// The table by two sets of pairs, with nothing to keep in step.
    #[derive(Default)]
    struct Model(BTreeSet<(u8, u8)>);

    impl Model {
        fn by_name(&self) -> BTreeMap<u8, BTreeSet<u8>> {
            let mut names = BTreeMap::<u8, BTreeSet<u8>>::new();
            for (key, name) in &self.0 {
                names.entry(*name).or_default().insert(*key);
            }
            names
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_pairs(
            steps in prop::collection::vec(step(), 0..200),
            tracked_from in 0..200_usize,
        ) {
            let (mut topics, mut model) = (Topics::default(), Model::default());
            // What who follows the changes knows.
            let mut told = BTreeMap::<u8, i64>::new();
            for (number, step) in steps.into_iter().enumerate() {
                if number == tracked_from {
                    topics.track_changes();
                }
                match step {
                    Step::Subscribe(key, name) => {
                        prop_assert_eq!(topics.subscribe(key, &[name]), model.0.insert((key, name)));
                    }
                    Step::Unsubscribe(key, name) => {
                        prop_assert_eq!(topics.unsubscribe(key, &[name]), model.0.remove(&(key, name)));
                    }
                    Step::LeaveAll(key) => {
                        topics.leave_all(key);
                        model.0.retain(|(other, _)| *other != key);
                    }
                    Step::TakeChanges => {
                        for (name, change) in topics.take_changes().into_iter().flatten() {
                            prop_assert_ne!(change, 0);
                            *told.entry(name[0]).or_default() += change;
                        }
                        told.retain(|_, count| *count != 0);
                        let count = |(name, of): (_, BTreeSet<u8>)| (name, of.len() as i64);
                        let expected = model.by_name().into_iter().map(count).collect();
                        match number < tracked_from {
                            true => prop_assert!(told.is_empty()),
                            false => prop_assert_eq!(&told, &expected),
                        }
                    }
                }
                let names = model.by_name();
                prop_assert_eq!(topics.len(), names.len());
                for name in 0..5 {
                    let expected = names.get(&name).cloned().unwrap_or_default();
                    prop_assert_eq!(topics.subscribers(&[name]).len(), expected.len());
                    prop_assert_eq!(topics.subscribers(&[name]).collect::<BTreeSet<_>>(), expected);
                }
                for key in 0..6 {
                    let own = topics.names_of(key).map(|name| name[0]).collect::<BTreeSet<_>>();
                    let expected = model.0.iter().filter(|(other, _)| *other == key).map(|(_, name)| *name);
                    prop_assert_eq!(own, expected.collect::<BTreeSet<_>>());
                    prop_assert_eq!(topics.count_of(key), topics.names_of(key).count());
                }
            }
            for key in 0..6 {
                topics.leave_all(key);
            }
            prop_assert!(topics.is_empty());
            prop_assert!(topics.memberships.is_empty() && topics.topics.is_empty());
        }
    }
}
