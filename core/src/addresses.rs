//! What addresses have and do, counted for several reactors at once: connections that are open, and
//! events by their rate.
//!
//! Sits at the bottom: plain tables of atomics, which reactors on different threads share by `Arc`.
//! Nobody waits for anybody: a look at a table is a hash, a look at the sixteen words of one set, and
//! one exchange.
//!
//! ```text
//!   counts: a word per address:   40 bits of its hash │ 24 bits of count      0: free
//!   rates:  two words:            hash of it │ when its bucket is full again   in the past: as good as free
//! ```
//!
//! A rate is a token bucket in the form of a time, the generic cell rate algorithm of ATM: what is
//! not used is saved up for two seconds.
//!
//! Invariants
//! - Memory is fixed when a table is made: a flood of addresses makes it forget, never grow. Who finds
//!   no room in a table of counts is let in uncounted; a table of rates forgets who is the nearest to
//!   being forgotten anyway.
//! - Two addresses are taken for one with a chance of less than one in 2^50.
//! - Two threads that see a new address in the same moment may give it two places, and so let it have
//!   more than its share once, until either is free.
//!
//! Not here: what is refused (`reactor/accept.rs`; of requests, the application).

use core::net::{IpAddr, Ipv6Addr};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Places of a set: addresses whose hashes begin alike share them.
const SET: usize = 16;
/// Sets of a table of counts: 1 MiB.
const COUNT_SETS: usize = 8 * 1024;
/// Sets of a table of rates: 1 MiB, and 65,536 addresses.
const RATE_SETS: usize = 4 * 1024;
/// Bits of a count.
const COUNT_BITS: u32 = 24;
/// The most that a word counts.
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// For so long unused rate is saved up.
const SAVED: Duration = Duration::from_secs(2);

/// Who counts as one: an IPv4 address, or the 64 bits of IPv6 that a client is usually given.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Words, and where those of an address are.
#[derive(Debug)]
struct Sets {
    words: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Sets {
    fn new(sets: usize, words_each: usize) -> Self {
        let words = (0..sets * SET * words_each).map(|_| AtomicU64::new(0));
        Self {
            words: words.collect(),
            hasher: RandomState::new(),
        }
    }

    /// The hash of `ip`, and the words of its set, which are `len`.
    fn of(&self, ip: IpAddr, len: usize) -> (u64, &[AtomicU64]) {
        let hash = self.hasher.hash_one(network(ip));
        let sets = self.words.len() / len;
        // The lower bits choose the set; the upper ones are compared.
        let set = usize::try_from(hash % (1 << 20)).unwrap_or(0) % sets;
        (hash, &self.words[set * len..(set + 1) * len])
    }
}

/// How many of something each address has.
#[derive(Debug)]
pub struct AddressCounts(Sets);

impl Default for AddressCounts {
    fn default() -> Self {
        Self(Sets::new(COUNT_SETS, 1))
    }
}

impl AddressCounts {
    /// Counts one more for `ip`, unless it has `max`; whether it may have it.
    pub fn add(&self, ip: IpAddr, max: u32) -> bool {
        let max = u64::from(max).min(COUNT_MAX);
        let (hash, set) = self.0.of(ip, SET);
        let name = hash >> COUNT_BITS << COUNT_BITS;
        loop {
            let mut free = None;
            let mut taken = None;
            for word in set {
                match word.load(Ordering::Relaxed) {
                    0 => free = free.or(Some((word, 0))),
                    now if now & !COUNT_MAX == name => {
                        taken = Some((word, now));
                        break;
                    }
                    _ => {}
                }
            }
            let (word, now) = match (taken, free) {
                (Some((_, now)), _) if now & COUNT_MAX >= max => return false,
                (Some(found), _) => found,
                (None, _) if max == 0 => return false,
                (None, Some(found)) => found,
                // So many at once: the bound of all connections has to do.
                (None, None) => return true,
            };
            let new = name | ((now & COUNT_MAX) + 1);
            let swapped = word.compare_exchange(now, new, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return true;
            }
        }
    }

    /// Counts `count` fewer for `ip`.
    pub fn take(&self, ip: IpAddr, count: u32) {
        let (hash, set) = self.0.of(ip, SET);
        let name = hash >> COUNT_BITS << COUNT_BITS;
        let mut left = u64::from(count);
        for word in set {
            // Nobody else takes what is ours, so what is seen here is there.
            let _ = word
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                    let has = now & COUNT_MAX;
                    if now & !COUNT_MAX != name || has == 0 {
                        return None;
                    }
                    Some(match has.checked_sub(left) {
                        Some(0) | None => 0,
                        Some(rest) => name | rest,
                    })
                })
                .map(|before| left = left.saturating_sub(before & COUNT_MAX));
            if left == 0 {
                return;
            }
        }
    }

    /// How many `ip` has.
    pub fn count(&self, ip: IpAddr) -> u32 {
        let (hash, set) = self.0.of(ip, SET);
        let words = set.iter().map(|word| word.load(Ordering::Relaxed));
        let its = words.filter(|word| word >> COUNT_BITS == hash >> COUNT_BITS);
        its.map(|word| u32::try_from(word & COUNT_MAX).unwrap_or(0))
            .sum()
    }
}

/// How often each address may do something.
#[derive(Debug)]
pub struct AddressRates {
    sets: Sets,
    /// Nanoseconds that one costs.
    cost: u64,
    /// Nanoseconds that may be saved up, beyond the first.
    saved: u64,
}

impl AddressRates {
    /// So many a second, one at least.
    pub fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        let cost = (1_000_000_000 / per_second).max(1);
        let burst = (SAVED.as_secs() * per_second).max(1);
        Self {
            sets: Sets::new(RATE_SETS, 2),
            cost,
            saved: cost * (burst - 1),
        }
    }

    /// Whether `ip` may do it once more, `now`: a time since a moment that is the same for all who ask.
    pub fn admits(&self, ip: IpAddr, now: Duration) -> bool {
        // The words of nobody are 0, and long ago.
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2) + 1;
        let (hash, set) = self.sets.of(ip, 2 * SET);
        let full_at = self.place(hash | 1, set, now);
        let spent = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let debt = full_at.saturating_sub(now);
            (debt <= self.saved).then_some(now + debt + self.cost)
        });
        spent.is_ok()
    }

    /// Where it stands when the bucket of `name` is full again.
    fn place<'s>(&self, name: u64, set: &'s [AtomicU64], now: u64) -> &'s AtomicU64 {
        loop {
            let mut oldest: Option<(&[AtomicU64], u64, u64)> = None;
            for place in set.chunks_exact(2) {
                let is = place[0].load(Ordering::Relaxed);
                if is == name {
                    return &place[1];
                }
                let full_at = place[1].load(Ordering::Relaxed);
                if oldest.is_none_or(|(_, _, least)| full_at < least) {
                    oldest = Some((place, is, full_at));
                }
            }
            let Some((place, is, full_at)) = oldest else {
                // A set has places.
                return &set[set.len() - 1];
            };
            let order = Ordering::Relaxed;
            if place[0].compare_exchange(is, name, order, order).is_ok() {
                if full_at > now {
                    // What another owes is not its debt.
                    place[1].store(0, order);
                }
                return &place[1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressCounts, AddressRates, network};
    use core::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::Duration;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn an_address_has_as_many_as_it_may_and_others_have_their_own() {
        let counts = AddressCounts::default();
        for n in 0..1_000 {
            assert!((0..3).all(|_| counts.add(ip(n), 3)), "{n}");
            assert!(!counts.add(ip(n), 3), "{n}");
        }
        counts.take(ip(7), 1);
        assert_eq!((counts.count(ip(7)), counts.count(ip(8))), (2, 3));
        assert!(counts.add(ip(7), 3) && !counts.add(ip(7), 3));
        // What was never counted takes nothing from others.
        counts.take(ip(5_000), 3);
        for n in 0..1_000 {
            counts.take(ip(n), 3);
        }
        let words = counts.0.words.iter();
        assert!(
            words
                .into_iter()
                .all(|word| word.load(super::Ordering::Relaxed) == 0)
        );
        assert!(!counts.add(ip(1), 0));
    }

    #[test]
    fn threads_that_count_together_lose_nothing() {
        let counts = Arc::new(AddressCounts::default());
        let threads = (0..4).map(|_| {
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || {
                for n in 0..40_000 {
                    // Few addresses, so that they meet.
                    let of = ip(n % 5);
                    let has = counts.add(of, 3);
                    assert!(counts.count(of) <= 8);
                    if has {
                        counts.take(of, 1);
                    }
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
        assert!((0..5).all(|n| counts.count(ip(n)) == 0));
    }

    #[test]
    fn an_address_may_save_up_for_two_seconds_and_others_are_others() {
        let rates = AddressRates::new(5);
        let admitted = |ip, seconds| {
            let now = Duration::from_secs_f64(seconds);
            (0..100).filter(|_| rates.admits(ip, now)).count()
        };
        assert_eq!(admitted(ip(1), 50.0), 10);
        assert_eq!(admitted(ip(2), 50.0), 10);
        assert_eq!(admitted(ip(1), 50.5), 2);
        assert_eq!(admitted(ip(1), 90.0), 10);
        assert_eq!(admitted(ip(3), 0.0), 10);
        let rates = AddressRates::new(1);
        assert!((0..2).all(|_| rates.admits(ip(1), Duration::ZERO)));
        assert!(!rates.admits(ip(1), Duration::ZERO));
    }

    #[test]
    fn a_flood_of_addresses_makes_a_table_forget_and_admits_who_is_new() {
        let rates = AddressRates::new(1);
        for n in 0..400_000 {
            assert!(rates.admits(ip(n), Duration::ZERO), "{n}");
        }
        let counts = AddressCounts::default();
        for n in 0..400_000 {
            assert!(counts.add(ip(n), 1), "{n}");
        }
    }

    #[test]
    fn the_64_bits_that_a_client_is_given_are_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:1.2.3.4"), of("1.2.3.4"));
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
    }
}
