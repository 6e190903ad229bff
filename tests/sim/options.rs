//! What a simulated network does and how often, and the dice that decide.
//!
//! Sits under `sim.rs`. Each probability is a named option, so that a failing seed can be run
//! again with one thing less until only the cause is left.
//!
//! Invariants
//! - A die is cast for an option even if it is zero, so that turning one off does not change what
//!   the others do.
//!
//! Not here: what the options mean for sockets (`sim.rs`, `link.rs`).

use std::time::Duration;

/// Chances in a thousand.
pub(crate) type PerMille = u16;

/// What the network does, and how often.
#[derive(Clone, Debug)]
pub(crate) struct SimOptions {
    /// Longest time that bytes, and ends, spend on the way.
    pub(crate) delay_max: Duration,
    /// Longest time between two polls, during which things go on happening.
    pub(crate) turn_time_max: Duration,
    /// Most bytes that arrive at once; each piece is of random length up to it.
    pub(crate) piece_max: usize,
    /// Bytes that the system buffers for a socket, in each direction; random between a
    /// sixteenth of it and all.
    pub(crate) socket_buffer_max: usize,
    /// A read returns less than there is.
    pub(crate) short_read: PerMille,
    /// A write takes less than there is room for.
    pub(crate) short_write: PerMille,
    /// A read says `WouldBlock` though there is something.
    pub(crate) read_blocks: PerMille,
    /// A write says `WouldBlock` though there is room.
    pub(crate) write_blocks: PerMille,
    /// An accept says `WouldBlock` though someone waits.
    pub(crate) accept_blocks: PerMille,
    /// A call is interrupted by a signal.
    pub(crate) interrupted: PerMille,
    /// A poll reports some socket that has nothing new.
    pub(crate) spurious: PerMille,
    /// A poll reports a socket that has been closed.
    pub(crate) late_event: PerMille,
    /// An event is reported one poll later.
    pub(crate) held_back: PerMille,
    /// An accept finds no descriptor left (`EMFILE`).
    pub(crate) accept_exhausted: PerMille,
    /// So many sockets may be open, beside a descriptor in reserve; without it there is no such bound
    /// and no reserve.
    pub(crate) descriptors_max: Option<usize>,
    /// The one who waited to be accepted has left.
    pub(crate) accept_aborted: PerMille,
    /// A socket cannot be registered.
    pub(crate) register_fails: PerMille,
    /// A connect is refused.
    pub(crate) connect_refused: PerMille,
    /// A datagram is lost; and one that is not, as often, comes twice.
    pub(crate) datagram_lost: PerMille,
    /// The machine sleeps for a while in a poll.
    pub(crate) clock_jump: PerMille,
    /// The longest such sleep.
    pub(crate) clock_jump_max: Duration,
}

impl SimOptions {
    /// Nothing unusual: bytes arrive whole and soon.
    pub(crate) fn calm() -> Self {
        Self {
            delay_max: Duration::from_millis(2),
            turn_time_max: Duration::from_micros(50),
            piece_max: 64 * 1024,
            socket_buffer_max: 64 * 1024,
            short_read: 0,
            short_write: 0,
            read_blocks: 0,
            write_blocks: 0,
            accept_blocks: 0,
            interrupted: 0,
            spurious: 0,
            late_event: 0,
            held_back: 0,
            accept_exhausted: 0,
            descriptors_max: None,
            accept_aborted: 0,
            register_fails: 0,
            connect_refused: 0,
            datagram_lost: 0,
            clock_jump: 0,
            clock_jump_max: Duration::ZERO,
        }
    }

    /// Everything that a correct program cannot notice: all bytes still arrive, in order.
    pub(crate) fn tricky() -> Self {
        Self {
            delay_max: Duration::from_millis(20),
            turn_time_max: Duration::from_millis(5),
            piece_max: 700,
            socket_buffer_max: 4 * 1024,
            short_read: 200,
            short_write: 200,
            read_blocks: 100,
            write_blocks: 100,
            accept_blocks: 200,
            interrupted: 50,
            spurious: 100,
            late_event: 50,
            held_back: 100,
            accept_exhausted: 100,
            ..Self::calm()
        }
    }

    /// All of that, and things that end connections.
    pub(crate) fn rough() -> Self {
        Self {
            accept_aborted: 50,
            register_fails: 20,
            connect_refused: 100,
            clock_jump: 2,
            clock_jump_max: Duration::from_secs(100),
            ..Self::tricky()
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood): small, and good enough for dice.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// A number from 1 to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        1 + self.below(most)
    }

    pub(crate) fn chance(&mut self, chance: PerMille) -> bool {
        // Draws in any case, so that an option set to zero does not shift what others draw.
        self.next() % 1000 < u64::from(chance)
    }

    pub(crate) fn within(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).expect("a simulation is shorter than centuries");
        Duration::from_nanos(self.next() % (nanos + 1))
    }
}
