//! The order of answers: requests may be answered in any order, but leave in theirs. RFC 9112 §9.3.2.
//!
//! Sits inside `conn/server.rs`. Every request received opens a slot; the oldest unfinished one
//! writes straight to the wire, answers that come early are held until it is their turn.
//!
//! ```text
//!            next_answer                          next_request
//!                 │                                     │
//!   … sent … │ current │ held │ (unanswered) │ held │ … not yet received …
//! ```
//!
//! Invariants
//! - `next_answer <= next_request`, and their distance is at most `EXCHANGES_MAX`.
//! - A held answer has sent nothing: its bytes are in its own buffer.
//! - The usual case, one request and its answer, allocates nothing.
//!
//! Not here: what an answer looks like (`conn/server.rs`, `http1/write.rs`).

use super::{Exchange, Misuse};
use crate::buffer::SendBuffer;
use std::collections::VecDeque;

/// Bits in the rings of per-exchange facts, and so the most exchanges in flight.
const EXCHANGES_MAX: u32 = u64::BITS;

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The application has not begun.
    Waiting,
    /// The head is written, and this many body bytes are still to come.
    Length { left: u64 },
    /// The head is written; the body goes out in chunks.
    Chunked,
    /// The head is written; the body ends with the connection (HTTP/1.0).
    UntilClose,
    /// The head is written; the body is dropped, because there must be none (HEAD, 204, 304).
    Bodiless,
}

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The method was HEAD.
    pub(super) head: bool,
    /// The client speaks HTTP/1.0.
    pub(super) http10: bool,
}

/// An answer that came, or began, before its turn.
#[derive(Debug)]
struct Held {
    out: SendBuffer,
    answer: Answer,
    finished: bool,
}

/// Requests in flight on one connection, and whose turn it is.
#[derive(Debug)]
pub(super) struct Pipeline {
    next_request: u32,
    next_answer: u32,
    /// Bit `n % 64`: the request of exchange `n` was HEAD.
    head: u64,
    /// Bit `n % 64`: exchange `n` is HTTP/1.0.
    http10: u64,
    /// The exchange after whose answer the connection closes.
    last: Option<u32>,
    /// Of exchange `next_answer`.
    current: Answer,
    /// Of the exchanges behind it, as far as one has begun; by distance from `next_answer + 1`.
    #[expect(
        clippy::box_collection,
        reason = "24 bytes less in connections that never hold one"
    )]
    held: Option<Box<VecDeque<Option<Held>>>>,
}

impl Pipeline {
    pub(super) fn new() -> Self {
        Self {
            next_request: 0,
            next_answer: 0,
            head: 0,
            http10: 0,
            last: None,
            current: Answer::Waiting,
            held: None,
        }
    }

    /// Opens the slot of a request just received.
    pub(super) fn open(&mut self, asked: Asked) -> Exchange {
        debug_assert!(
            self.in_flight() < EXCHANGES_MAX,
            "limits allow no more than {EXCHANGES_MAX} in flight"
        );
        let number = self.next_request;
        let bit = 1 << (number % EXCHANGES_MAX);
        self.head = if asked.head {
            self.head | bit
        } else {
            self.head & !bit
        };
        self.http10 = if asked.http10 {
            self.http10 | bit
        } else {
            self.http10 & !bit
        };
        self.next_request = number.wrapping_add(1);
        Exchange(number)
    }

    /// The exchange whose answer goes straight to the wire.
    pub(super) fn front(&self) -> Exchange {
        Exchange(self.next_answer)
    }

    /// Exchanges opened and not finished.
    pub(super) fn in_flight(&self) -> u32 {
        self.next_request.wrapping_sub(self.next_answer)
    }

    /// Whether the answer to `exchange` may still begin or go on.
    pub(super) fn answer(&self, exchange: Exchange) -> Result<Answer, Misuse> {
        let distance = exchange.0.wrapping_sub(self.next_answer);
        if distance >= self.in_flight() || self.is_over() {
            return Err(Misuse::AlreadyAnswered);
        }
        let Some(behind) = distance.checked_sub(1) else {
            return Ok(self.current);
        };
        match self
            .held
            .as_ref()
            .and_then(|held| held.get(behind as usize))
        {
            Some(Some(held)) if held.finished => Err(Misuse::AlreadyAnswered),
            Some(Some(held)) => Ok(held.answer),
            Some(None) | None => Ok(Answer::Waiting),
        }
    }

    /// What the request of `exchange`, which is in flight, was.
    pub(super) fn asked(&self, exchange: Exchange) -> Asked {
        let bit = 1 << (exchange.0 % EXCHANGES_MAX);
        Asked {
            head: self.head & bit != 0,
            http10: self.http10 & bit != 0,
        }
    }

    /// Where the answer to `exchange`, which is in flight, is written: `out` if it is its turn.
    pub(super) fn slot<'a>(&'a mut self, exchange: Exchange, out: &'a mut SendBuffer) -> Slot<'a> {
        let distance = exchange.0.wrapping_sub(self.next_answer);
        let Some(behind) = distance.checked_sub(1) else {
            return Slot {
                out,
                answer: &mut self.current,
            };
        };
        let behind = behind as usize;
        let held = self.held.get_or_insert_default();
        if held.len() <= behind {
            held.resize_with(behind + 1, || None);
        }
        let empty = || Held {
            out: SendBuffer::new(out.pool()),
            answer: Answer::Waiting,
            finished: false,
        };
        let held = held[behind].get_or_insert_with(empty);
        Slot {
            out: &mut held.out,
            answer: &mut held.answer,
        }
    }

    /// The answer to `exchange` is complete. Moves on to the next, and with it what was held.
    pub(super) fn finish(&mut self, exchange: Exchange, out: &mut SendBuffer) {
        let distance = exchange.0.wrapping_sub(self.next_answer);
        if let Some(behind) = distance.checked_sub(1) {
            let held = self
                .held
                .as_mut()
                .and_then(|held| held.get_mut(behind as usize));
            if let Some(Some(held)) = held {
                held.finished = true;
            }
            return;
        }
        loop {
            let finished = self.next_answer;
            self.next_answer = finished.wrapping_add(1);
            self.current = Answer::Waiting;
            if self.last == Some(finished) {
                self.held = None;
                return;
            }
            let Some(held) = self
                .held
                .as_mut()
                .and_then(|held| held.pop_front())
                .flatten()
            else {
                return;
            };
            out.append_all(held.out);
            self.current = held.answer;
            if !held.finished {
                return;
            }
        }
    }

    /// The connection closes when `exchange` is answered; whatever was asked behind it is dropped.
    pub(super) fn close_after(&mut self, exchange: Exchange) {
        let distance = |number: u32| number.wrapping_sub(self.next_answer);
        let sooner = self
            .last
            .is_none_or(|last| distance(exchange.0) < distance(last));
        if sooner {
            self.last = Some(exchange.0);
        }
    }

    /// The connection closes when everything received so far is answered.
    pub(super) fn close_after_all(&mut self) {
        let last = self.next_request.wrapping_sub(1);
        if self.last.is_none() {
            self.last = Some(last);
        }
    }

    /// Whether `exchange` is the one after which the connection closes.
    pub(super) fn is_last(&self, exchange: Exchange) -> bool {
        self.last == Some(exchange.0)
    }

    /// Whether no request after those in flight will be taken.
    pub(super) fn closes(&self) -> bool {
        self.last.is_some()
    }

    /// Whether the last answer is complete.
    pub(super) fn is_over(&self) -> bool {
        self.last
            .is_some_and(|last| self.next_answer == last.wrapping_add(1))
    }

    /// Bytes of answers that wait for their turn.
    pub(super) fn held_bytes(&self) -> usize {
        let Some(held) = &self.held else { return 0 };
        held.iter().flatten().map(|held| held.out.len()).sum()
    }
}

/// Where to write an answer, and how far it is.
pub(super) struct Slot<'a> {
    pub(super) out: &'a mut SendBuffer,
    pub(super) answer: &'a mut Answer,
}

#[cfg(test)]
mod tests {
    use super::{Answer, Asked, Exchange, Misuse, Pipeline};
    use crate::buffer::{BufferPool, SendBuffer};
    use proptest::prelude::*;

    fn answer(pipeline: &mut Pipeline, exchange: Exchange, text: &str, out: &mut SendBuffer) {
        assert_eq!(pipeline.answer(exchange), Ok(Answer::Waiting));
        pipeline.slot(exchange, out).out.append(text.as_bytes());
        pipeline.finish(exchange, out);
        assert_eq!(pipeline.answer(exchange), Err(Misuse::AlreadyAnswered));
    }

    fn sent(out: &SendBuffer) -> String {
        out.chunks()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    proptest! {
        /// Whatever the order of answering, answers leave in the order of asking, and exactly the
        /// unbroken run of answered exchanges has left.
        #[test]
        fn answers_leave_in_the_order_of_requests(order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle()) {
            let pool = BufferPool::default();
            let mut out = SendBuffer::new(&pool);
            let mut pipeline = Pipeline::new();
            for _ in 0..40 {
                pipeline.open(Asked::default());
            }
            let mut answered = [false; 40];
            for number in order {
                answer(&mut pipeline, Exchange(number), &format!("<{number}>"), &mut out);
                answered[number as usize] = true;
                let run = answered.iter().take_while(|done| **done).count();
                let want: String = (0..run).map(|number| format!("<{number}>")).collect();
                prop_assert_eq!(sent(&out), want);
            }
            prop_assert_eq!(pipeline.held_bytes(), 0);
            out.clear();
            prop_assert_eq!(pool.taken(), 0);
        }
    }

    #[test]
    fn nothing_leaves_behind_the_last_answer() {
        let mut out = SendBuffer::new(&BufferPool::default());
        let mut pipeline = Pipeline::new();
        let [first, second, third] = [(); 3].map(|()| pipeline.open(Asked::default()));
        answer(&mut pipeline, third, "third", &mut out);
        pipeline.close_after(second);
        answer(&mut pipeline, second, "second", &mut out);
        assert!(!pipeline.is_over());
        answer(&mut pipeline, first, "first ", &mut out);
        assert!(pipeline.is_over());
        assert_eq!(sent(&out), "first second");
    }

    #[test]
    fn an_answer_that_began_early_goes_on_when_its_turn_comes() {
        let mut out = SendBuffer::new(&BufferPool::default());
        let mut pipeline = Pipeline::new();
        let [first, second] = [(); 2].map(|()| pipeline.open(Asked::default()));
        let slot = pipeline.slot(second, &mut out);
        *slot.answer = Answer::Chunked;
        slot.out.append(b"begun ");
        assert_eq!(pipeline.held_bytes(), 6);
        answer(&mut pipeline, first, "first ", &mut out);
        assert_eq!(pipeline.answer(second), Ok(Answer::Chunked));
        pipeline.slot(second, &mut out).out.append(b"ended");
        pipeline.finish(second, &mut out);
        assert_eq!(
            (sent(&out).as_str(), pipeline.in_flight()),
            ("first begun ended", 0)
        );
    }

    #[test]
    fn exchange_numbers_wrap() {
        let mut out = SendBuffer::new(&BufferPool::default());
        let mut pipeline = Pipeline {
            next_request: u32::MAX,
            next_answer: u32::MAX,
            ..Pipeline::new()
        };
        let [first, second] = [true, false].map(|head| {
            pipeline.open(Asked {
                head,
                http10: false,
            })
        });
        assert_eq!((first, second), (Exchange(u32::MAX), Exchange(0)));
        assert!(pipeline.asked(first).head && !pipeline.asked(second).head);
        answer(&mut pipeline, second, "b", &mut out);
        answer(&mut pipeline, first, "a", &mut out);
        assert_eq!(sent(&out), "ab");
    }
}
