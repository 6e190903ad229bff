//! A body as it arrives, at either end: delimited, decoded, and collected or passed on.
//! RFC 9112 §6, §7.1.
//!
//! Sits between the two HTTP drivers and `http1/chunked.rs`. Which bytes follow a head was decided
//! with the head (`Framing`); this file takes them and logs `Body` and `End`.
//!
//! Invariants
//! - A collected body is one `Body` event, or none if it is empty, and never longer than allowed.
//! - A body that lies whole in one segment is not copied.
//! - Memory grows with what has arrived, not with what was announced.
//!
//! Not here: whether the peer may stop early (the drivers know what an end of input means).

use super::{Event, EventLog, Exchange, Payload};
use crate::buffer::{BufferPool, PooledBuf, Span};
use crate::http1::Framing;
use crate::http1::chunked::{ChunkedDecoder, Step};
use crate::limits::Limits;
use crate::violation::Violation;

/// Bytes set aside for a collected body on the word of its length alone.
const TRUSTED_BODY_BYTES: u64 = 64 * 1024;

/// What is still to come of one body.
#[derive(Debug)]
pub(super) struct IncomingBody {
    left: Left,
    collected: Option<PooledBuf>,
}

#[derive(Debug)]
enum Left {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

/// Where a body goes.
pub(super) struct Destination<'a> {
    /// Whose body it is.
    pub(super) exchange: Exchange,
    /// The most bytes to collect into one event; `None` passes them on as they come.
    pub(super) collect_bytes_max: Option<u64>,
    pub(super) log: &'a mut EventLog,
    pub(super) pool: &'a BufferPool,
}

/// What one step took.
pub(super) struct Taken {
    pub(super) consumed: usize,
    /// The body is complete.
    pub(super) ends: bool,
}

impl IncomingBody {
    /// The body that `framing` announces, if any.
    pub(super) fn new(framing: Framing, limits: &Limits) -> Option<Self> {
        let left = match framing {
            Framing::None => return None,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::Chunked(ChunkedDecoder::new(limits.chunk_framing_bytes_max)),
            Framing::UntilClose => Left::UntilClose,
        };
        Some(Self {
            left,
            collected: None,
        })
    }

    /// Takes what it can from offset `at` of `segment`, at least a byte.
    ///
    /// # Errors
    /// What the chunked coding forbids; [`Violation::BodyTooLarge`] if it may not be collected.
    pub(super) fn receive(
        &mut self,
        segment: &[u8],
        at: usize,
        to: Destination<'_>,
    ) -> Result<Taken, Violation> {
        let input = &segment[at..];
        let (consumed, data, ends) = match &mut self.left {
            Left::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                (take, 0..take, *left == 0)
            }
            Left::Chunked(decoder) => match decoder.decode(input)? {
                Step::NeedMore { consumed } => (consumed, 0..0, false),
                Step::Data { consumed, data } => (consumed, data, false),
                Step::End { consumed } => (consumed, 0..0, true),
            },
            Left::UntilClose => (input.len(), 0..input.len(), false),
        };
        let whole_in_segment = ends && self.collected.is_none();
        match to.collect_bytes_max {
            Some(bytes_max) if !data.is_empty() && !whole_in_segment => {
                self.collect(&input[data], bytes_max, to.pool)?;
            }
            _ if !data.is_empty() => {
                let span = Span::new(at + data.start..at + data.end);
                let (exchange, payload) = (to.exchange, Payload::Segment(span));
                to.log.push(Event::Body { exchange, payload });
            }
            _ => {}
        }
        if ends {
            self.finish(to);
        }
        Ok(Taken { consumed, ends })
    }

    /// Whether the end of the connection is the end of this body. RFC 9112 §6.3.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.left, Left::UntilClose)
    }

    /// Logs what was collected, and the end.
    pub(super) fn finish(&mut self, to: Destination<'_>) {
        let exchange = to.exchange;
        if let Some(buffer) = self.collected.take() {
            let payload = to.log.keep(buffer);
            to.log.push(Event::Body { exchange, payload });
        }
        to.log.push(Event::End { exchange });
    }

    fn collect(&mut self, data: &[u8], bytes_max: u64, pool: &BufferPool) -> Result<(), Violation> {
        let buffer = match &mut self.collected {
            Some(buffer) => buffer,
            None => {
                let announced = match self.left {
                    Left::Length(left) => left.min(TRUSTED_BODY_BYTES),
                    Left::Chunked(_) | Left::UntilClose => 0,
                };
                let announced = usize::try_from(announced).unwrap_or(0);
                self.collected.insert(pool.take(data.len() + announced))
            }
        };
        if (buffer.len() + data.len()) as u64 > bytes_max {
            return Err(Violation::BodyTooLarge);
        }
        buffer.append(data);
        Ok(())
    }
}
