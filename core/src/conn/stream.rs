//! The driver of a plain byte stream: no protocol of ours, every byte is the application's.
//!
//! Sits among the drivers, so that raw sockets share the reactor's buffers, keys, backpressure and
//! end: a game's own protocol, or one that a script brings along.
//!
//! ```text
//!             finish                          end of input
//!   Open ───────────────▶ Finished (we) ────────────────────────▶ Closed
//!     └── end of input ─▶ Finished (peer) ─── finish ───────────▶ Closed
//!     any ── close ─────────────────────────────────────────────▶ Closed
//! ```
//!
//! Invariants
//! - Bytes are delivered as they come, in the segment, and never kept.
//! - Either side may finish first, and the other may go on sending (RFC 9293 §3.6).
//!
//! Not here: when our side is shut (`reactor/drive.rs`, once everything is sent).

use super::{Appetite, Event, EventLog, Misuse, Payload};
use crate::buffer::{SendBuffer, Span};

/// A byte stream. See the module for its diagram.
#[derive(Debug, Default)]
pub struct StreamConn {
    /// We send nothing more.
    finished: bool,
    /// Our side is to be shut when everything is sent.
    shutdown_owed: bool,
    /// The peer sends nothing more.
    peer_finished: bool,
    closed: bool,
}

impl StreamConn {
    /// A stream on which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers all of `segment`; after [`close`](Self::close), drops it.
    pub fn receive(&mut self, segment: &[u8], log: &mut EventLog) -> usize {
        if !segment.is_empty() && !self.closed {
            let payload = Payload::Segment(Span::new(0..segment.len()));
            log.push(Event::Bytes { payload });
        }
        segment.len()
    }

    /// The peer will send nothing more. `truncated` is an end that nobody vouches for, and so none
    /// of the peer's: whoever drives this must end the connection instead.
    pub fn receive_eof(&mut self, truncated: bool, log: &mut EventLog) {
        if !self.closed && !truncated {
            log.push(Event::Finished);
        }
        self.peer_finished = true;
    }

    /// Queues `bytes`.
    ///
    /// # Errors
    /// [`Misuse::Closing`] after [`finish`](Self::finish) or [`close`](Self::close).
    pub fn write(&mut self, bytes: &[u8], out: &mut SendBuffer) -> Result<(), Misuse> {
        if self.finished || self.closed {
            return Err(Misuse::Closing);
        }
        out.append(bytes);
        Ok(())
    }

    /// Says that nothing more will be sent; the peer may go on.
    ///
    /// # Errors
    /// [`Misuse::Closing`] if it was said before.
    pub fn finish(&mut self) -> Result<(), Misuse> {
        if self.finished || self.closed {
            return Err(Misuse::Closing);
        }
        (self.finished, self.shutdown_owed) = (true, true);
        Ok(())
    }

    /// Ends the stream once what is queued has left; what the peer still sends is dropped.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing more may be written.
    pub fn has_finished(&self) -> bool {
        self.finished || self.closed
    }

    /// Whether our side is to be shut as soon as everything is sent.
    pub fn owes_shutdown(&self) -> bool {
        self.shutdown_owed
    }

    /// Our side has been shut.
    pub fn note_shutdown(&mut self) {
        self.shutdown_owed = false;
    }

    /// What it wants next.
    pub fn appetite(&self) -> Appetite {
        if self.closed || self.finished && self.peer_finished {
            Appetite::Close
        } else {
            Appetite::Read
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StreamConn;
    use crate::buffer::{BufferPool, SendBuffer};
    use crate::conn::{Appetite, Event, EventLog, Misuse};

    #[test]
    fn bytes_are_delivered_as_they_come_and_then_the_end() {
        let (mut stream, mut log) = (StreamConn::new(), EventLog::default());
        assert_eq!(stream.receive(b"abc", &mut log), 3);
        assert_eq!(stream.receive(b"", &mut log), 0);
        stream.receive_eof(false, &mut log);
        let [Event::Bytes { payload }, Event::Finished] = log.events() else {
            panic!("{:?}", log.events());
        };
        assert_eq!(log.payload(*payload, b"abc"), b"abc");
        assert_eq!(stream.appetite(), Appetite::Read, "we may go on sending");
    }

    #[test]
    fn either_side_may_finish_first_and_both_make_an_end() {
        let mut out = SendBuffer::new(&BufferPool::default());
        for peer_first in [false, true] {
            let (mut stream, mut log) = (StreamConn::new(), EventLog::default());
            if peer_first {
                stream.receive_eof(false, &mut log);
            }
            assert_eq!(stream.write(b"last", &mut out), Ok(()));
            assert_eq!(stream.finish(), Ok(()));
            assert!(stream.owes_shutdown());
            stream.note_shutdown();
            assert!(!stream.owes_shutdown());
            assert_eq!(stream.write(b"late", &mut out), Err(Misuse::Closing));
            assert_eq!(stream.finish(), Err(Misuse::Closing));
            if !peer_first {
                assert_eq!(stream.appetite(), Appetite::Read);
                stream.receive_eof(false, &mut log);
            }
            assert_eq!(stream.appetite(), Appetite::Close);
        }
    }

    #[test]
    fn a_truncated_end_is_not_told_as_the_peers() {
        let (mut stream, mut log) = (StreamConn::new(), EventLog::default());
        stream.receive_eof(true, &mut log);
        assert!(log.events().is_empty());
    }

    #[test]
    fn what_comes_after_a_close_is_dropped() {
        let (mut stream, mut log) = (StreamConn::new(), EventLog::default());
        stream.close();
        assert_eq!(stream.receive(b"late", &mut log), 4);
        stream.receive_eof(false, &mut log);
        assert!(log.events().is_empty());
        assert_eq!(stream.appetite(), Appetite::Close);
    }
}
