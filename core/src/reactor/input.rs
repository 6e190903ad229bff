//! How one connection takes its input: from the socket and what waits of it, into the driver.
//!
//! Sits in the reactor, beside `drive.rs`, which has the connection's output and its end. Each call
//! takes at most one read and `Limits::steps_per_turn` steps of the driver: a step is a head, a chunk
//! or a frame, so that 64 KiB of the tiniest do not keep the other connections waiting as long as
//! they would take. What is left stays in the spill, which is offered in slices until it is short:
//!
//! ```text
//!   socket ── read ──▶ area ── driver ──▶ events            the usual way
//!                        └── what is left ──▶ spill ── a slice ──▶ area ── driver ──▶ events
//! ```
//!
//! Invariants
//! - Bytes reach the driver in the order in which they came, and the driver hears of the end last.
//! - Of a spill that the driver left for want of bytes, all is offered again, with more behind it.
//! - `readable` is cleared only where a read said so, in [`Connection::fill`].
//!
//! Not here: whose turn it is (`receive.rs`), what input means (`conn/`).

use super::conns::ConnKey;
use super::drive::{Connection, Context, Phase};
use super::inbox::Cause;
use super::spill::Spill;
use crate::conn::{Appetite, Driver};
use crate::transport::{Net, ReadOutcome};

/// Room in the area without which no read is begun.
pub(super) const SEGMENT_BYTES_MIN: usize = 4 * 1024;

/// Into how many slices a long spill is cut. A share of steps that left so much behind used few of its
/// bytes, and copying more than is used would cost more than the steps do.
const SLICES: usize = 4;

/// Bytes of a slice beyond the longest head, which is refused before it is as long.
const SLICE_MARGIN: usize = 256;

/// Bytes read at once from a connection that has not brought a completion yet, or that we have left: enough
/// for any head, and those who send without regard for what they are told are given no more.
const STRANGER_BYTES_MAX: usize = 16 * 1024 + 256;

/// What came of input that was offered.
struct Offered {
    consumed: usize,
    /// The driver would take more at once.
    goes_on: bool,
    /// It broke a rule.
    is_refused: bool,
    /// How many events had been logged before it.
    seen: usize,
}

impl<S> Connection<S> {
    /// Whether it has been left behind with input: others come first who have not had a turn yet.
    pub(super) fn is_behind(&self) -> bool {
        self.stalled && self.phase == Phase::Open
    }

    /// Bytes of the area that [`receive`](Self::receive) needs.
    pub(super) fn room_wanted(&self) -> usize {
        match &self.spill {
            Some(_) if self.has_slice() => self.slice_bytes(),
            Some(spill) => SEGMENT_BYTES_MIN + spill.len(),
            None => SEGMENT_BYTES_MIN,
        }
    }

    /// Lets the driver consume what waits, and reads once unless it has enough of that. Returns the
    /// bytes read.
    ///
    /// The area must have [`room_wanted`](Self::room_wanted) left.
    pub(super) fn receive<N: Net<Socket = S>>(
        &mut self,
        key: ConnKey,
        cx: &mut Context<'_, N>,
    ) -> usize {
        cx.inbox.log.allow_steps(self.limits.steps_per_turn);
        let was_handshaking = self.transport.is_handshaking();
        let count = if self.spill.is_none() || self.receive_slices(key, cx) {
            self.receive_segment(key, cx)
        } else {
            0
        };
        // One that is still agreeing on TLS has a request to come.
        if self.phase == Phase::Open
            && !self.cut
            && !was_handshaking
            && core::mem::take(&mut self.parting)
            && let Driver::Server(server) = &mut self.driver
        {
            server.begin_drain();
        }
        count
    }

    /// A head fits into a slice, so that a driver that goes on always consumes something of it.
    fn slice_bytes(&self) -> usize {
        let slice = self.limits.segment_bytes_max as usize / SLICES;
        slice.max(self.limits.head_bytes_max as usize) + SLICE_MARGIN
    }

    /// Whether more waits than one slice, and was not left for want of bytes.
    fn has_slice(&self) -> bool {
        let waits = self.spill.as_ref().map_or(0, Spill::len);
        waits > self.slice_bytes() && self.is_behind() && !self.cut
    }

    /// Offers slice after slice of a long spill. Whether what is left of it is to be offered with more
    /// behind it.
    fn receive_slices<N: Net<Socket = S>>(
        &mut self,
        key: ConnKey,
        cx: &mut Context<'_, N>,
    ) -> bool {
        let bytes = self.slice_bytes();
        while self.has_slice() {
            let base = cx.inbox.used;
            if cx.inbox.area.len() - base < bytes {
                return false;
            }
            let Some(spill) = self.spill.take() else {
                return true;
            };
            cx.inbox.area[base..base + bytes].copy_from_slice(&spill.bytes()[..bytes]);
            let offered = self.offer(key, base, bytes, cx);
            if !offered.is_refused {
                self.spill = spill.after(offered.consumed);
            }
            let opened = self.become_websocket(cx.now);
            self.deliver(key, base, &offered, cx);
            if opened {
                cx.inbox.deliver_open(key);
            }
            if !offered.goes_on {
                return false;
            }
            debug_assert!(offered.consumed > 0, "a slice holds a whole head");
        }
        // What has come before in this turn may have left no room; then it is the first in a later one.
        cx.inbox.area.len() - cx.inbox.used >= self.room_wanted()
    }

    /// Reads once behind what waits, and offers all of it. Returns the bytes read.
    fn receive_segment<N: Net<Socket = S>>(
        &mut self,
        key: ConnKey,
        cx: &mut Context<'_, N>,
    ) -> usize {
        let base = cx.inbox.used;
        let segment_bytes_max = self.limits.segment_bytes_max as usize;
        let wanted = if self.phase == Phase::Open && self.announced {
            segment_bytes_max
        } else {
            segment_bytes_max.min(STRANGER_BYTES_MAX)
        };
        let end = cx.inbox.area.len().min(base + wanted);
        let mut filled = 0;
        if let Some(spill) = self.spill.take() {
            filled = spill.len();
            cx.inbox.area[base..base + filled].copy_from_slice(spill.bytes());
        }
        let was_handshaking = self.transport.is_handshaking();
        let mut count = 0;
        if self.readable && base + filled < end {
            count = self.fill(cx.net, &mut cx.inbox.area[base + filled..end]);
        }
        filled += count;
        self.stalled = false;
        if self.phase != Phase::Open || self.cut {
            self.tell_refusal(key, cx.inbox, cx.figures, 0..0);
            return count;
        }
        if was_handshaking && !self.transport.is_handshaking() {
            self.own_deadline = None;
        }
        let offered = self.offer(key, base, filled, cx);
        let left = &cx.inbox.area[base + offered.consumed..base + filled];
        debug_assert!(left.len() <= segment_bytes_max);
        self.spill = Spill::of(left, self.out.pool());
        self.stalled = self.spill.is_some() && !offered.goes_on;
        let opened = self.become_websocket(cx.now);
        if !offered.is_refused {
            self.hear_end(cx);
        }
        self.deliver(key, base, &offered, cx);
        if opened {
            cx.inbox.deliver_open(key);
        }
        count
    }

    /// Offers `filled` bytes of the area from `base` on to the driver.
    fn offer<N>(
        &mut self,
        key: ConnKey,
        base: usize,
        filled: usize,
        cx: &mut Context<'_, N>,
    ) -> Offered {
        self.arrive(key, cx.inbox);
        let inbox = &mut *cx.inbox;
        let seen = inbox.log.events().len();
        let segment = &mut inbox.area[base..base + filled];
        let received = self
            .driver
            .receive(segment, cx.now, &mut inbox.log, &mut self.out);
        match received {
            Ok(consumed) => Offered {
                consumed,
                goes_on: !inbox.log.has_stopped() && self.driver.appetite() == Appetite::Read,
                is_refused: false,
                seen,
            },
            Err(violation) => {
                self.cause = Some(Cause::Violation(violation));
                Offered {
                    consumed: filled,
                    goes_on: false,
                    is_refused: true,
                    seen,
                }
            }
        }
    }

    /// Tells the driver of the end of input, if that has come and all before it is consumed.
    fn hear_end<N>(&mut self, cx: &mut Context<'_, N>) {
        if !self.eof || self.stalled || self.eof_told {
            return;
        }
        self.eof_told = true;
        let (log, out) = (&mut cx.inbox.log, &mut self.out);
        let told = self.driver.receive_eof(cx.now, self.truncated, log, out);
        if let Err(violation) = told {
            self.blame(Cause::Violation(violation));
        }
        self.doubt_end();
    }

    /// Delivers what the driver made of `offered`. Only bytes that it has consumed are spoken of.
    fn deliver<N>(
        &mut self,
        key: ConnKey,
        base: usize,
        offered: &Offered,
        cx: &mut Context<'_, N>,
    ) {
        let seen = offered.seen;
        if cx.inbox.deliver(key, self.listener, base, seen) {
            self.announced = true;
            cx.inbox.used = base + offered.consumed;
            cx.figures.note_events(&cx.inbox.log.events()[seen..]);
        }
        if self.cause.is_some() {
            let segment = base..base + offered.consumed;
            self.tell_refusal(key, cx.inbox, cx.figures, segment);
        }
    }

    /// Reads once. The only place that forgets readiness.
    fn fill<N: Net<Socket = S>>(&mut self, net: &mut N, into: &mut [u8]) -> usize {
        match self.transport.read(net, into) {
            ReadOutcome::Bytes { count, drained } => {
                self.readable = !drained || self.hung_up;
                count
            }
            ReadOutcome::Blocked => {
                self.readable = false;
                // Nothing more can be said, and nothing more is here.
                self.cut |= self.unwritable;
                0
            }
            outcome @ (ReadOutcome::Eof | ReadOutcome::Truncated) => {
                self.readable = false;
                self.eof = true;
                self.truncated = matches!(outcome, ReadOutcome::Truncated);
                self.cut |= self.unwritable && !self.is_client();
                0
            }
            ReadOutcome::Failed(error) => {
                self.readable = false;
                self.fail(error);
                0
            }
            ReadOutcome::TlsFailed(error) => {
                self.fail_tls(error);
                0
            }
        }
    }
}
