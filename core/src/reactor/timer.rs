//! Deadlines of connections: a hashed hierarchical timer wheel (Varghese and Lauck, scheme 7).
//!
//! Sits in the reactor. Time is counted in ticks of 16 ms since the wheel was made. A deadline
//! stands at the lowest of four levels whose current turn contains its tick; when the turn of a
//! slot of a higher level begins, its entries move down. Entries are nodes of one arena, linked
//! per slot, so a warm wheel allocates nothing.
//!
//! ```text
//! level 0   64 slots of 1 tick        16 ms each, about 1 s in all
//! level 1   64 slots of 64 ticks      about 1 s each, 65 s in all
//! level 2   64 slots of 64^2 ticks    65 s each, 70 min in all
//! level 3   64 slots of 64^3 ticks    70 min each; at most 63 ahead: three days
//! ```
//!
//! Invariants
//! - An entry fires at the first `fire` whose time is a whole tick at or past its deadline: never
//!   early, and at most one tick late. Beyond the horizon of three days it fires early, once.
//! - Entries cannot be cancelled. Who armed one looks, when it fires, at the deadline that really
//!   holds, and arms again if that lies later; moving a deadline later thus never comes here.
//!
//! - A slot of the connection table has no entry that fires behind another of it that was armed
//!   later: whoever moves a deadline back and forth fills the wheel with nothing.
//!
//! Not here: timers of scripts, which want precision.

use super::conns::ConnKey;
use std::time::{Duration, Instant};

/// The wheel's grain.
const TICK: Duration = Duration::from_millis(TICK_MILLIS);

const TICK_MILLIS: u64 = 16;

const LEVELS: usize = 4;

/// Bits of a tick number that choose the slot of one level.
const SLOT_BITS: u32 = 6;

const SLOTS: usize = 1 << SLOT_BITS;

/// Ticks ahead that the wheel can tell apart: all slots of the highest level but the current one.
const HORIZON_TICKS: u32 = 63 << (SLOT_BITS * 3);

/// No node: the end of a list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    key: ConnKey,
    /// When it is due: the low half of that tick, as the horizon is nearer than 2^32 ticks.
    tick: u32,
    /// The next of its slot, or of the free nodes.
    next: u32,
}

const _: () = assert!(size_of::<Node>() == 16);

/// One level: a list for each slot, and which of them are not empty.
#[derive(Debug)]
struct Level {
    heads: [u32; SLOTS],
    occupied: u64,
}

/// The deadlines that are armed.
#[derive(Debug)]
pub struct TimerWheel {
    /// Tick 0.
    origin: Instant,
    /// The last tick that has been fired.
    current: u64,
    /// When the tick after it begins.
    current_ends: Instant,
    /// What [`next_wake`](Self::next_wake) answers.
    next_wake: Option<Instant>,
    /// The deadline that was armed last, and its tick: all of one turn are a few different ones.
    last_armed: (Instant, u64),
    levels: [Level; LEVELS],
    nodes: Vec<Node>,
    free: u32,
    armed: usize,
    /// For each slot of the connection table, the low half of the tick at which its first entry is
    /// due; 0 for none. It outlives the connection, so that short-lived ones do not fill the wheel
    /// with entries nobody awaits.
    first_ticks: Vec<u32>,
}

impl TimerWheel {
    /// An empty wheel; `now` becomes tick 0.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            current: 0,
            current_ends: now + TICK,
            next_wake: None,
            last_armed: (now, 0),
            levels: std::array::from_fn(|_| Level {
                heads: [NONE; SLOTS],
                occupied: 0,
            }),
            nodes: Vec::new(),
            free: NONE,
            armed: 0,
            first_ticks: Vec::new(),
        }
    }

    /// Lets `key` fire at `at`, unless something fires for its slot by then anyway. A time that has
    /// passed fires one tick from the last `fire`.
    pub fn arm(&mut self, key: ConnKey, at: Instant) {
        if self.last_armed.0 != at {
            let since_origin = at.saturating_duration_since(self.origin);
            self.last_armed = (at, ticks(since_origin, u64::div_ceil));
        }
        let (_, due) = self.last_armed;
        let ahead = due
            .saturating_sub(self.current)
            .clamp(1, u64::from(HORIZON_TICKS));
        let tick = low_half(self.current + ahead);
        let slot = key.index() as usize;
        if self.first_ticks.len() <= slot {
            self.first_ticks.resize(slot + 1, 0);
        }
        let first = self.first_ticks[slot];
        if first != 0 && u64::from(first.wrapping_sub(low_half(self.current))) <= ahead {
            return;
        }
        self.first_ticks[slot] = tick;
        let node = Node {
            key,
            tick,
            next: NONE,
        };
        let index = if self.free == NONE {
            // Connections are fewer than 2^24, and each has at most one entry and one stale one.
            let index = u32::try_from(self.nodes.len()).unwrap_or(NONE);
            self.nodes.push(node);
            index
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            self.nodes[index as usize] = node;
            index
        };
        self.armed += 1;
        self.link(index);
        self.next_wake = self.find_next_wake();
    }

    /// Appends to `due` the keys whose time has come by `now`, and forgets them.
    #[inline]
    pub fn fire(&mut self, now: Instant, due: &mut Vec<ConnKey>) {
        // Most turns are shorter than a tick.
        if now >= self.current_ends {
            self.fire_until(now, due);
        }
    }

    fn fire_until(&mut self, now: Instant, due: &mut Vec<ConnKey>) {
        let target = ticks(now.saturating_duration_since(self.origin), |n, d| n / d);
        while let Some(next) = self.next_tick()
            && next <= target
        {
            self.current = next;
            self.move_down();
            let (level, slot) = self.place(next);
            let mut index = self.take_slot(level, slot);
            while index != NONE {
                let node = &mut self.nodes[index as usize];
                due.push(node.key);
                self.first_ticks[node.key.index() as usize] = 0;
                let following = std::mem::replace(&mut node.next, self.free);
                self.free = index;
                self.armed -= 1;
                index = following;
            }
        }
        self.current = self.current.max(target);
        self.current_ends = self.begin_of(self.current + 1).unwrap_or(now);
        self.next_wake = self.find_next_wake();
    }

    /// When `fire` next has something to do, or `None` if nothing is armed. That may be to sort
    /// entries that lie far ahead, so `fire` need not find one due.
    pub fn next_wake(&self) -> Option<Instant> {
        self.next_wake
    }

    fn find_next_wake(&self) -> Option<Instant> {
        self.begin_of(self.next_tick()?)
    }

    /// When `tick` begins; `None` if no clock gets there.
    fn begin_of(&self, tick: u64) -> Option<Instant> {
        let since_origin = Duration::from_millis(tick.checked_mul(TICK_MILLIS)?);
        self.origin.checked_add(since_origin)
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// How many entries are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Level and slot where an entry for `tick` stands now.
    fn place(&self, tick: u64) -> (usize, usize) {
        let differing_bits = u64::BITS - (tick ^ self.current).leading_zeros();
        let level = (differing_bits.saturating_sub(1) / SLOT_BITS).min(3);
        let slot = (tick >> (level * SLOT_BITS)) % SLOTS as u64;
        // Both are below 64.
        (level as usize, usize::try_from(slot).unwrap_or_default())
    }

    fn link(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick;
        let ahead = tick.wrapping_sub(low_half(self.current));
        let (level, slot) = self.place(self.current + u64::from(ahead));
        let level = &mut self.levels[level];
        self.nodes[index as usize].next = std::mem::replace(&mut level.heads[slot], index);
        level.occupied |= 1 << slot;
    }

    /// Empties a slot; returns the first of what was in it.
    fn take_slot(&mut self, level: usize, slot: usize) -> u32 {
        let level = &mut self.levels[level];
        level.occupied &= !(1 << slot);
        std::mem::replace(&mut level.heads[slot], NONE)
    }

    /// Sorts the slots of higher levels whose turn begins at the current tick into lower ones.
    fn move_down(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = SLOT_BITS * u32::try_from(level).unwrap_or_default();
            if self.current.trailing_zeros() < shift {
                continue;
            }
            let slot = usize::try_from((self.current >> shift) % SLOTS as u64).unwrap_or_default();
            let mut index = self.take_slot(level, slot);
            while index != NONE {
                let following = self.nodes[index as usize].next;
                self.link(index);
                index = following;
            }
        }
    }

    /// The first tick after the current one at which a slot's turn begins that is not empty. All
    /// entries of a level come before those of the next, so the lowest level decides.
    fn next_tick(&self) -> Option<u64> {
        let (shift, level) = (0_u32..)
            .map(|level| level * SLOT_BITS)
            .zip(&self.levels)
            .find(|(_, level)| level.occupied != 0)?;
        let turn = self.current >> shift;
        let slot = u32::try_from(turn % SLOTS as u64).unwrap_or_default();
        // The current slot has been taken, so the first after it comes next, around the end.
        let ahead = level
            .occupied
            .rotate_right((slot + 1) % 64)
            .trailing_zeros()
            + 1;
        Some((turn + u64::from(ahead)) << shift)
    }
}

/// Whole ticks in `time`, divided as `divide` does: by way of milliseconds, which changes nothing, as a
/// tick is a whole number of them.
fn ticks(time: Duration, divide: fn(u64, u64) -> u64) -> u64 {
    let millis = divide(u64::from(time.subsec_nanos()), 1_000_000);
    let all = time.as_secs().saturating_mul(1_000).saturating_add(millis);
    divide(all, TICK_MILLIS)
}

/// The low half of a tick number, which tells ticks apart that are less than 2^32 apart.
fn low_half(tick: u64) -> u32 {
    let [.., a, b, c, d] = tick.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
