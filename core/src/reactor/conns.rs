//! The connection table: who a key names, and that a key whose connection has left names nobody.
//!
//! Sits in the reactor, over the `slab` crate, which reuses slots; added here is a generation for
//! each slot, so that a late event or an application's old handle never reaches the connection
//! that has since moved in.
//!
//! Invariants
//! - Generation 0 is never issued, so a token with a zero upper half is no connection's.
//! - No key is issued twice before its slot has been used 2^32 - 1 times.
//! - The table never holds more than its capacity: a full one pauses the listener, it is no error.
//! - A reserved key counts, and names nothing until it is filled.
//!
//! Not here: what a connection is (`drive.rs`).

use slab::Slab;
use std::num::NonZeroU32;

/// Names one connection for as long as it lives, and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    index: u32,
    generation: NonZeroU32,
}

impl ConnKey {
    /// As a token for `Net`: the generation above, the index below.
    pub const fn to_token(self) -> u64 {
        (self.generation.get() as u64) << 32 | self.index as u64
    }

    /// Its slot, which it shares with those who lived there before and will after.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The key that `token` was made of; `None` if it names a listener or the waker.
    pub const fn from_token(token: u64) -> Option<Self> {
        let [g3, g2, g1, g0, i3, i2, i1, i0] = token.to_be_bytes();
        match NonZeroU32::new(u32::from_be_bytes([g3, g2, g1, g0])) {
            Some(generation) => Some(Self {
                index: u32::from_be_bytes([i3, i2, i1, i0]),
                generation,
            }),
            None => None,
        }
    }
}

impl core::fmt::Display for ConnKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

const _: () = assert!(size_of::<Option<ConnKey>>() == 8);

#[derive(Debug)]
struct Entry<T> {
    generation: NonZeroU32,
    /// None while the key is reserved.
    value: Option<T>,
}

/// Connections by key.
#[derive(Debug)]
pub struct Conns<T> {
    entries: Slab<Entry<T>>,
    /// For each slot ever used, the generation of its next tenant. Outlives the entries.
    next_generations: Vec<NonZeroU32>,
    first_generation: NonZeroU32,
    capacity: u32,
}

impl<T> Conns<T> {
    /// A table for at most `capacity` connections; it grows as they come.
    pub fn new(capacity: u32) -> Self {
        Self::with_first_generation(capacity, NonZeroU32::MIN)
    }

    /// A table whose slots begin at `first_generation`, so that a test can live to see a
    /// generation wrap around.
    pub fn with_first_generation(capacity: u32, first_generation: NonZeroU32) -> Self {
        Self {
            entries: Slab::new(),
            next_generations: Vec::new(),
            first_generation,
            capacity,
        }
    }

    /// Takes `value` in and names it.
    ///
    /// # Errors
    /// Gives `value` back if the table is full.
    pub fn insert(&mut self, value: T) -> Result<ConnKey, T> {
        match self.reserve() {
            Some(key) => {
                self.fill(key, value);
                Ok(key)
            }
            None => Err(value),
        }
    }

    /// A key for what is still to come, by [`fill`](Self::fill); `None` if the table is full.
    pub fn reserve(&mut self) -> Option<ConnKey> {
        if self.is_full() {
            return None;
        }
        let vacant = self.entries.vacant_entry();
        let slot = vacant.key();
        let index = u32::try_from(slot).ok()?;
        if slot == self.next_generations.len() {
            self.next_generations.push(self.first_generation);
        }
        let generation = self.next_generations[slot];
        self.next_generations[slot] = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let value = None;
        vacant.insert(Entry { generation, value });
        Some(ConnKey { index, generation })
    }

    /// Puts what was to come under its reserved key. Does nothing if that has been released.
    pub fn fill(&mut self, key: ConnKey, value: T) {
        if let Some(entry) = self.entries.get_mut(key.index as usize)
            && entry.generation == key.generation
        {
            entry.value = Some(value);
        }
    }

    /// Gives up a reserved key; it is stale from here on.
    pub fn release(&mut self, key: ConnKey) {
        let entry = self.entries.get(key.index as usize);
        if entry.is_some_and(|entry| entry.generation == key.generation && entry.value.is_none()) {
            self.entries.remove(key.index as usize);
        }
    }

    /// Takes out what `key` names and keeps the key reserved, for [`fill`](Self::fill) to put
    /// something else in its place.
    pub fn take(&mut self, key: ConnKey) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.value.take()
    }

    /// The key of whoever lives in slot `index` now.
    pub fn key_at(&self, index: u32) -> Option<ConnKey> {
        let generation = self.entries.get(index as usize)?.generation;
        Some(ConnKey { index, generation })
    }

    /// What `key` names, or `None` if it has left: the normal fate of a late event.
    pub fn get(&self, key: ConnKey) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.value.as_ref()
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.value.as_mut()
    }

    /// Takes it out; `key`, and every copy of it, is stale from here on.
    pub fn remove(&mut self, key: ConnKey) -> Option<T> {
        self.get(key)?;
        self.entries.remove(key.index as usize).value
    }

    /// How many there are, with those that are still to come.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next one would be refused.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity as usize
    }

    /// The keys of all, by slot.
    pub fn keys(&self) -> impl Iterator<Item = ConnKey> {
        self.iter().map(|(key, _)| key)
    }

    /// All with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (ConnKey, &T)> {
        self.entries.iter().filter_map(|(slot, entry)| {
            let index = u32::try_from(slot).ok()?;
            let generation = entry.generation;
            Some((ConnKey { index, generation }, entry.value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnKey, Conns};
    use std::num::NonZeroU32;

    #[test]
    fn a_stale_key_finds_nothing_after_its_slot_is_reused() {
        let mut conns = Conns::new(1);
        let old = conns.insert("old").unwrap();
        assert_eq!(conns.insert("extra"), Err("extra"));
        assert_eq!(conns.remove(old), Some("old"));
        assert_eq!(conns.get(old), None);
        let new = conns.insert("new").unwrap();
        assert_eq!((old.index, conns.get_mut(old)), (new.index, None));
        assert_eq!(conns.get_mut(new), Some(&mut "new"));
        assert_eq!(conns.remove(old), None);
        assert_eq!((conns.len(), conns.remove(new)), (1, Some("new")));
    }

    #[test]
    fn a_reserved_key_counts_and_names_nothing_until_it_is_filled() {
        let mut conns = Conns::new(1);
        let key = conns.reserve().unwrap();
        assert_eq!(
            (conns.len(), conns.get(key), conns.keys().count()),
            (1, None, 0)
        );
        assert_eq!((conns.reserve(), conns.insert("late")), (None, Err("late")));
        assert_eq!(conns.key_at(key.index()), Some(key));
        conns.fill(key, "here");
        conns.release(key);
        assert_eq!(conns.remove(key), Some("here"));
        let given_up = conns.reserve().unwrap();
        conns.release(given_up);
        conns.fill(given_up, "too late");
        assert!(conns.is_empty() && conns.get(given_up).is_none());
    }

    #[test]
    fn a_token_gives_back_its_key_and_small_tokens_are_nobodys() {
        let mut conns = Conns::with_first_generation(4, NonZeroU32::MAX);
        let keys: Vec<_> = (0..4).map(|i| conns.insert(i).unwrap()).collect();
        for key in &keys {
            assert_eq!(ConnKey::from_token(key.to_token()), Some(*key));
        }
        assert_eq!(conns.keys().collect::<Vec<_>>(), keys);
        for token in [0, 1, u64::from(u32::MAX)] {
            assert_eq!(ConnKey::from_token(token), None);
        }
    }

    #[test]
    fn generations_wrap_around_past_zero() {
        let mut conns = Conns::with_first_generation(2, NonZeroU32::new(u32::MAX - 1).unwrap());
        let mut seen = Vec::new();
        for round in 0..4 {
            let key = conns.insert(round).unwrap();
            assert!(seen.iter().all(|old| conns.get(*old).is_none()));
            assert_eq!(conns.remove(key), Some(round));
            seen.push(key);
        }
        let generations: Vec<_> = seen.iter().map(|key| key.generation.get()).collect();
        assert_eq!(generations, [u32::MAX - 1, u32::MAX, 1, 2]);
    }
}
