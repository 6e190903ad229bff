//! Byte containers: spans, pooled buffers, and the queue of bytes that wait to be sent.
//!
//! Sits at the bottom. An idle connection owns none of this memory: it borrows a [`PooledBuf`] for
//! what it cannot finish, and dropping the buffer gives it back, so no path can forget to.
//!
//! Invariants
//! - [`BufferPool::taken`] counts the buffers outside; at rest it is zero (the simulation asserts).
//! - Each size class keeps at most `KEPT_BYTES_MAX`; larger buffers are freed, not kept.
//! - A [`SendBuffer`] that is empty owns no buffer.
//!
//! Not here: sockets, or `IoSlice`; `transport` turns [`SendBuffer::chunks`] into one `writev`.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::ops::{Deref, DerefMut, Range};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Offsets of some bytes within a segment or a head; which, the holder says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The span of `range`.
    ///
    /// Segments and collected bodies are below 4 GiB by `Limits::check`; an offset that is not
    /// saturates, and then names no bytes.
    pub fn new(range: Range<usize>) -> Self {
        let start = u32::try_from(range.start).unwrap_or(u32::MAX);
        let len = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        Self { start, len }
    }

    /// The bytes it names, or none if they lie outside `bytes`.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    /// As a range of `usize`.
    pub const fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// Whether it names no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The size classes. Most responses fit the first, sixteen short ones together too, and a turn may hold
/// one for each connection that it reads, which then stay; most messages fit the third, and the fourth takes
/// 64 KiB together with the head or frame header before them.
const CLASS_BYTES: [usize; 4] = [2 * 1024, 4 * 1024, 16 * 1024, 64 * 1024 + 256];

/// Bytes of unused buffers kept in each class, for the next burst.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A worker's store of buffers: last returned, first taken, so what is handed out is cache-warm.
///
/// A cheap handle; clones share the store. One per reactor, never across threads.
#[derive(Clone, Default)]
pub struct BufferPool(Rc<Store>);

#[derive(Default)]
struct Store {
    classes: [RefCell<Vec<PooledBuf>>; CLASS_BYTES.len()],
    taken: Cell<usize>,
}

impl BufferPool {
    /// An empty buffer with room for `capacity` bytes, at least that of the smallest class.
    pub fn take(&self, capacity: usize) -> PooledBuf {
        let class = CLASS_BYTES.iter().position(|bytes| *bytes >= capacity);
        let kept = class.and_then(|class| self.0.classes[class].borrow_mut().pop());
        let mut taken = kept.unwrap_or_else(|| {
            let room = class.map_or(capacity, |class| CLASS_BYTES[class]);
            PooledBuf(Rc::new(Loan {
                bytes: Vec::with_capacity(room),
                pool: None,
            }))
        });
        self.0.taken.set(self.0.taken.get() + 1);
        taken.loan().pool = Some(self.clone());
        taken
    }

    /// Buffers taken and not yet given back.
    pub fn taken(&self) -> usize {
        self.0.taken.get()
    }

    fn put(&self, buffer: PooledBuf) {
        self.0.taken.set(self.0.taken.get() - 1);
        let Some(class) = CLASS_BYTES
            .iter()
            .position(|class| *class == buffer.capacity())
        else {
            return;
        };
        let mut kept = self.0.classes[class].borrow_mut();
        if kept.len() < KEPT_BYTES_MAX / CLASS_BYTES[class] {
            kept.push(buffer);
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferPool {{ taken: {} }}", self.taken())
    }
}

/// A buffer on loan from a [`BufferPool`]; dropping it gives it back. Grows as a `Vec` does.
///
/// One word, as every connection has room for several and hardly ever has one. The count is never
/// above one but while the buffer goes back: `Rc` is here for a `Box` that can leave its owner when
/// that is dropped.
#[derive(Debug)]
pub struct PooledBuf(Rc<Loan>);

const _: () = assert!(size_of::<Option<PooledBuf>>() == size_of::<usize>());

#[derive(Clone, Debug)]
struct Loan {
    bytes: Vec<u8>,
    /// Where it goes back to; none while it is there.
    pool: Option<BufferPool>,
}

impl PooledBuf {
    fn loan(&mut self) -> &mut Loan {
        // Never clones: see the type.
        Rc::make_mut(&mut self.0)
    }

    /// Room left before it must grow.
    pub fn spare(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Makes room for `additional` bytes: moves to a larger class while there is one, and doubles
    /// beyond, so that growing by appending costs linear time.
    pub fn make_room(&mut self, additional: usize) {
        if self.spare() >= additional {
            return;
        }
        let wanted = (self.len() + additional).max(self.capacity() * 2);
        let Some(pool) = &self.0.pool else { return };
        let mut larger = pool.take(wanted);
        larger.extend_from_slice(self);
        *self = larger;
    }

    /// Appends `more`, making room first.
    pub fn append(&mut self, more: &[u8]) {
        self.make_room(more.len());
        self.extend_from_slice(more);
    }
}

impl Deref for PooledBuf {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0.bytes
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.loan().bytes
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        // Shared only if the pool, which it goes back to just now, does not want it.
        if let Some(loan) = Rc::get_mut(&mut self.0)
            && let Some(pool) = loan.pool.take()
        {
            loan.bytes.clear();
            pool.put(Self(Rc::clone(&self.0)));
        }
    }
}

/// Bytes at or above which an append starts a chunk of its own instead of growing the tail.
pub(crate) const TAIL_BYTES_MAX: usize = 16 * 1024;

/// Part of what waits to be sent, before the tail.
#[derive(Debug)]
enum Chunk {
    Pooled(PooledBuf),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Pooled(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// The chunks before the tail.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

/// What a connection has yet to send, in order.
///
/// Small appends coalesce in the tail, so the usual response is one chunk in one buffer; shared
/// and large bytes stand in a queue before it.
#[derive(Debug)]
pub struct SendBuffer {
    pool: BufferPool,
    /// Chunks before the tail. Boxed: most connections never need it, and it is kept while one
    /// turn's chunks come and go.
    queue: Option<Box<Queue>>,
    tail: Option<PooledBuf>,
    /// Bytes of the first chunk (the tail, when the queue is empty) that are already sent.
    sent: usize,
}

const _: () = assert!(size_of::<SendBuffer>() <= 32);

impl SendBuffer {
    /// An empty one that will borrow from `pool`.
    pub fn new(pool: &BufferPool) -> Self {
        Self {
            pool: pool.clone(),
            queue: None,
            tail: None,
            sent: 0,
        }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        let queued = self.queue.as_ref().map_or(0, |queue| queue.bytes);
        queued + self.tail.as_ref().map_or(0, |tail| tail.len()) - self.sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pool it borrows from.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Queues a copy of `bytes`.
    pub fn append(&mut self, bytes: &[u8]) {
        self.tail(bytes.len()).extend_from_slice(bytes);
    }

    /// The tail, with room for `additional` bytes, to write into directly. Only append to it:
    /// what already stands there is queued.
    pub fn tail(&mut self, additional: usize) -> &mut Vec<u8> {
        let fits = self
            .tail
            .as_ref()
            .is_some_and(|tail| tail.spare() >= additional);
        if !fits {
            match &mut self.tail {
                Some(tail) if tail.len() + additional <= TAIL_BYTES_MAX => {
                    tail.make_room(additional)
                }
                _ => {
                    self.seal_tail();
                    self.tail = Some(self.pool.take(additional));
                }
            }
        }
        self.tail.get_or_insert_with(|| self.pool.take(additional))
    }

    /// Queues `bytes` without copying, shared with the other connections they go to.
    pub fn append_shared(&mut self, bytes: &Arc<[u8]>) {
        // A short one costs less to copy than a chunk of its own costs to send.
        if bytes.len() <= 256 {
            return self.append(bytes);
        }
        self.enqueue(Chunk::Shared(Arc::clone(bytes)));
    }

    /// Queues `bytes` that live for ever, without copying where that pays.
    pub fn append_static(&mut self, bytes: &'static [u8]) {
        if bytes.len() <= 1024 {
            return self.append(bytes);
        }
        self.enqueue(Chunk::Static(bytes));
    }

    /// Moves everything that waits in `other` behind what waits here.
    pub fn append_all(&mut self, other: Self) {
        debug_assert_eq!(other.sent, 0, "a held response has sent nothing");
        for chunk in other.queue.into_iter().flat_map(|queue| queue.chunks) {
            self.enqueue(chunk);
        }
        if let Some(tail) = other.tail {
            if self
                .tail
                .as_ref()
                .is_some_and(|mine| mine.spare() >= tail.len())
            {
                self.append(&tail);
            } else {
                self.seal_tail();
                self.tail = Some(tail);
            }
        }
    }

    /// All that waits, if it is one chunk in a buffer of ours: the usual answer.
    pub fn only_chunk(&self) -> Option<&[u8]> {
        let is_alone = self.queue.as_ref().is_none_or(|queue| queue.bytes == 0);
        let tail = self.tail.as_ref().filter(|_| is_alone)?;
        tail.get(self.sent..)
    }

    /// What waits, first to last, as few slices as there are chunks.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let queued = self
            .queue
            .iter()
            .flat_map(|queue| queue.chunks.iter().map(Chunk::bytes));
        let tail = self.tail.iter().map(|tail| tail.as_slice());
        let mut skip = self.sent;
        queued
            .chain(tail)
            .map(move |bytes| &bytes[core::mem::take(&mut skip)..])
            .filter(|bytes| !bytes.is_empty())
    }

    /// Drops the first `count` bytes: they are sent. Buffers go back as they empty.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "sent more than waited");
        self.sent += count;
        while let Some(queue) = &mut self.queue
            && let Some(first) = queue.chunks.front()
        {
            let len = first.bytes().len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            queue.bytes -= len;
            queue.chunks.pop_front();
        }
        if self
            .tail
            .as_ref()
            .is_some_and(|tail| self.sent == tail.len())
        {
            self.clear();
        }
    }

    /// Drops everything, sent or not.
    pub fn clear(&mut self) {
        self.queue = None;
        self.tail = None;
        self.sent = 0;
    }

    fn enqueue(&mut self, chunk: Chunk) {
        let len = chunk.bytes().len();
        if len == 0 {
            return;
        }
        self.seal_tail();
        let queue = self.queue.get_or_insert_default();
        queue.bytes += len;
        queue.chunks.push_back(chunk);
    }

    /// Ends the tail, so that what is queued next stands behind it.
    fn seal_tail(&mut self) {
        if let Some(tail) = self.tail.take_if(|tail| !tail.is_empty()) {
            let queue = self.queue.get_or_insert_default();
            queue.bytes += tail.len();
            queue.chunks.push_back(Chunk::Pooled(tail));
        }
        self.tail = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{BufferPool, SendBuffer};
    use std::sync::Arc;

    fn queued(out: &SendBuffer) -> Vec<u8> {
        out.chunks().flatten().copied().collect()
    }

    #[test]
    fn a_dropped_buffer_is_the_next_one_taken() {
        let pool = BufferPool::default();
        let first = pool.take(10);
        let address = first.as_ptr();
        assert_eq!(pool.taken(), 1);
        drop(first);
        assert_eq!((pool.taken(), pool.take(2048).as_ptr()), (0, address));
    }

    #[test]
    fn a_growing_buffer_keeps_its_bytes_and_the_count() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(0);
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        for piece in bytes.chunks(777) {
            buffer.append(piece);
        }
        assert_eq!((&buffer[..], pool.taken()), (&bytes[..], 1));
    }

    #[test]
    fn bytes_leave_in_the_order_they_were_queued_however_they_are_consumed() {
        for step in [1, 2, 3, 1000, 5000, 100_000] {
            let pool = BufferPool::default();
            let mut out = SendBuffer::new(&pool);
            let shared: Arc<[u8]> = vec![b's'; 3000].into();
            out.append(b"head");
            out.append_shared(&shared);
            out.append(&[b'x'; 40_000]);
            let mut other = SendBuffer::new(&pool);
            other.append(b"held");
            other.append_static(&[b'0'; 2000]);
            other.append(b"tail");
            out.append_all(other);
            let want = queued(&out);
            assert_eq!((want.len(), out.len()), (45_012, 45_012));
            let mut got = Vec::<u8>::new();
            while !out.is_empty() {
                let count = step.min(out.len());
                got.extend(out.chunks().flatten().take(count));
                out.consume(count);
                assert_eq!(out.len(), want.len() - got.len());
            }
            assert!(got == want, "step {step}");
            assert_eq!(pool.taken(), 0, "an empty send buffer owns nothing");
        }
    }
}
