//! Input that a connection's driver has not consumed yet, and how far it has come with it.
//!
//! Sits in the reactor, under `input.rs`, which fills and offers it. A flood of tiny chunks or frames is
//! worked off a slice at a time; the rest is not moved for that: what has been consumed is only
//! counted, and that count stands in the first bytes of the buffer, so that a connection has one word
//! for all of it, and no more while it has none.
//!
//! Invariants
//! - A spill holds at least a byte; one that is used up is dropped, and its buffer goes back to the pool.
//!
//! Not here: when it is offered, and how much of it (`input.rs`).

use crate::buffer::{BufferPool, PooledBuf};

/// Bytes before the input: the offset at which it begins now.
const PREFIX_BYTES: usize = size_of::<u32>();

/// Input that waits.
#[derive(Debug)]
pub(super) struct Spill(PooledBuf);

impl Spill {
    /// A copy of `input`; none if there is nothing to keep.
    pub(super) fn of(input: &[u8], pool: &BufferPool) -> Option<Self> {
        if input.is_empty() {
            return None;
        }
        let mut buffer = pool.take(PREFIX_BYTES + input.len());
        buffer.extend_from_slice(&[0; PREFIX_BYTES]);
        buffer.extend_from_slice(input);
        Some(Self(buffer))
    }

    /// What waits.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[PREFIX_BYTES + self.consumed()..]
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.0.len() - PREFIX_BYTES - self.consumed()
    }

    /// What is left when the first `count` bytes have been consumed.
    pub(super) fn after(mut self, count: usize) -> Option<Self> {
        if count >= self.len() {
            return None;
        }
        // A segment is below 4 GiB by `Limits::check`.
        let consumed = u32::try_from(self.consumed() + count).unwrap_or(u32::MAX);
        self.0[..PREFIX_BYTES].copy_from_slice(&consumed.to_ne_bytes());
        Some(self)
    }

    fn consumed(&self) -> usize {
        let prefix = self.0.first_chunk().copied().unwrap_or_default();
        u32::from_ne_bytes(prefix) as usize
    }
}

const _: () = assert!(size_of::<Option<Spill>>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::Spill;
    use crate::buffer::BufferPool;

    #[test]
    fn a_spill_loses_its_front_until_nothing_is_left() {
        let pool = BufferPool::default();
        assert!(Spill::of(b"", &pool).is_none());
        let spill = Spill::of(b"abcdef", &pool).unwrap();
        assert_eq!((spill.bytes(), spill.len()), (&b"abcdef"[..], 6));
        let spill = spill.after(0).unwrap().after(2).unwrap();
        assert_eq!((spill.bytes(), spill.len()), (&b"cdef"[..], 4));
        let spill = spill.after(3).unwrap();
        assert_eq!(
            (spill.bytes(), spill.len(), pool.taken()),
            (&b"f"[..], 1, 1)
        );
        assert!(spill.after(1).is_none());
        assert_eq!(pool.taken(), 0, "its buffer has gone back");
    }
}
