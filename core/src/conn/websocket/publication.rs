//! One message for many connections: framed once, compressed at most once, its bytes shared.
//!
//! Sits beside the driver. The reactor makes a [`Publication`] of what is published, and hands it
//! to each subscriber; server frames are not masked (RFC 6455 §5.1), so they are equal for all.
//!
//! What a connection that is behind does about one is its [`Backpressure`]. With
//! [`Overflow::Latest`] the driver keeps the newest publication of each key until there is room:
//!
//! ```text
//!   out: [ unsent, above the limit ]      held: "room/7" ─▶ tick 41 ─(replaced by)─▶ tick 42
//! ```
//!
//! Invariants
//! - A held publication leaves in the order in which its key was first held, unless a newer one of
//!   the same key takes its place.
//! - What is held counts one shared pointer per key, and keys are bounded.
//!
//! Not here: who subscribes (`topics.rs`), when there is room again (`reactor/`).

use super::{Rare, WsConn};
use crate::buffer::{BufferPool, SendBuffer};
use crate::conn::Misuse;
use crate::ws::frame::{HEADER_BYTES_MAX, encode_header};
use crate::ws::utf8::is_utf8;
use crate::ws::{MessageKind, Opcode};
use std::sync::{Arc, OnceLock};

/// What happens to a message for a peer that is too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The connection closes with 1013 (RFC 6455 §7.4.1's registry: "try again later").
    Close,
    /// The message is not sent.
    Drop,
    /// A message with a key (its topic, when published) waits outside the queue, and a newer one
    /// of the same key replaces it: what state snapshots want. Messages without a key queue up to
    /// `Limits::out_bytes_max`.
    Latest,
}

/// How far a peer may fall behind, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// Unsent bytes above which `overflow` applies to a further message.
    pub limit_bytes: u32,
    /// What applies.
    pub overflow: Overflow,
}

/// A message on its way to many connections. Cheap to share, also between threads.
#[derive(Debug)]
pub struct Publication {
    kind: MessageKind,
    /// The message in one frame of a server.
    frame: Arc<[u8]>,
    payload_start: usize,
    /// The same compressed, once someone needs it; `None` inside if that does not pay.
    deflated: OnceLock<Option<Arc<[u8]>>>,
}

impl PartialEq for Publication {
    fn eq(&self, other: &Self) -> bool {
        // The frame says the kind, too.
        self.frame == other.frame
    }
}

impl Eq for Publication {}

impl Publication {
    /// Frames `payload`.
    ///
    /// # Errors
    /// [`Misuse::NotUtf8`] for text that is not. RFC 6455 §8.1.
    pub fn new(kind: MessageKind, payload: &[u8]) -> Result<Self, Misuse> {
        if kind == MessageKind::Text && !is_utf8(payload) {
            return Err(Misuse::NotUtf8);
        }
        let (frame, payload_start) = framed(kind, false, payload);
        Ok(Self {
            kind,
            frame,
            payload_start,
            deflated: OnceLock::new(),
        })
    }

    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The message itself.
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.payload_start..]
    }

    /// Bytes of the frame, which all who were sent it share.
    pub fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// The compressed frame, made by `compress` if nobody needed one before.
    fn deflated(
        &self,
        pool: &BufferPool,
        compress: impl FnOnce(&[u8], &BufferPool) -> Option<crate::buffer::PooledBuf>,
    ) -> Option<&Arc<[u8]>> {
        let make = || Some(framed(self.kind, true, &compress(self.payload(), pool)?).0);
        self.deflated.get_or_init(make).as_ref()
    }
}

/// A whole message in one frame, and where its payload begins.
fn framed(kind: MessageKind, compressed: bool, payload: &[u8]) -> (Arc<[u8]>, usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    let payload_len = payload.len() as u64;
    let len = encode_header(
        &mut header,
        Opcode::from(kind),
        true,
        compressed,
        payload_len,
        None,
    );
    ([&header[..len], payload].concat().into(), len)
}

/// Publications that wait for room, the newest of each key.
pub(super) type Held = Vec<(Box<[u8]>, Arc<Publication>)>;

impl WsConn {
    /// How far the peer may fall behind.
    pub fn backpressure(&self) -> Backpressure {
        self.settings.backpressure
    }

    /// Queues `publication`. Its bytes are shared where the connection can: not by a client, which
    /// masks, nor where compression refers to earlier messages.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn publish(
        &mut self,
        publication: &Publication,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        self.check_may_send()?;
        let shared = match self.rare.as_deref_mut() {
            None => Some(&publication.frame),
            Some(Rare {
                mask_keys: Some(_), ..
            }) => None,
            Some(Rare { deflate: None, .. }) => Some(&publication.frame),
            Some(Rare {
                deflate: Some(deflate),
                ..
            }) if deflate.is_shareable() => {
                let compress = |message: &[u8], pool: &BufferPool| deflate.compress(message, pool);
                let deflated = publication.deflated(out.pool(), compress);
                Some(deflated.unwrap_or(&publication.frame))
            }
            Some(_) => None,
        };
        match shared {
            Some(frame) => out.append_shared(frame),
            None => self.send(publication.kind, publication.payload(), out)?,
        }
        Ok(())
    }

    /// Keeps `publication` until [`release_held`](Self::release_held); one of the same `key` that
    /// is still held goes. Above `keys_max` keys, the oldest goes. Whether one has gone.
    ///
    /// # Errors
    /// [`Misuse::Closing`] once a close frame was sent.
    pub fn hold_latest(
        &mut self,
        key: &[u8],
        publication: &Arc<Publication>,
        keys_max: usize,
    ) -> Result<bool, Misuse> {
        self.check_may_send()?;
        let held = &mut self.rare.get_or_insert_default().held;
        if let Some((_, older)) = held.iter_mut().find(|(known, _)| **known == *key) {
            *older = Arc::clone(publication);
            return Ok(true);
        }
        let is_full = held.len() >= keys_max.max(1);
        if is_full {
            held.remove(0);
        }
        held.push((key.into(), Arc::clone(publication)));
        Ok(is_full)
    }

    /// Whether publications are held.
    pub fn holds_latest(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.held.is_empty())
    }

    /// Queues what is held, oldest first, until more than `limit_bytes` wait.
    pub fn release_held(&mut self, limit_bytes: usize, out: &mut SendBuffer) {
        let Some(rare) = &mut self.rare else {
            return;
        };
        let mut held = core::mem::take(&mut rare.held);
        let mut released = 0;
        for (_, publication) in &held {
            if out.len() > limit_bytes || self.publish(publication, out).is_err() {
                break;
            }
            released += 1;
        }
        held.drain(..released);
        if self.check_may_send().is_ok()
            && let Some(rare) = &mut self.rare
        {
            rare.held = held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backpressure, Overflow, Publication};
    use crate::buffer::{BufferPool, SendBuffer};
    use crate::conn::{Misuse, WsConn, WsSettings};
    use crate::limits::Limits;
    use crate::ws::{MessageKind, Role};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Instant;

    fn connection(limit_bytes: u32) -> WsConn {
        let settings = WsSettings {
            backpressure: Backpressure {
                limit_bytes,
                overflow: Overflow::Latest,
            },
            ..WsSettings::new(Role::Server, &Limits::default())
        };
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        WsConn::new(Rc::new(settings), Instant::now(), 0)
    }

    fn text(words: &str) -> Arc<Publication> {
        Arc::new(Publication::new(MessageKind::Text, words.as_bytes()).expect("it is UTF-8"))
    }

    fn queued(out: &mut SendBuffer) -> Vec<u8> {
        let bytes = out.chunks().flatten().copied().collect();
        out.clear();
        bytes
    }

    #[test]
    fn a_publication_is_the_frame_that_a_server_would_send() {
        let mut out = SendBuffer::new(&BufferPool::default());
        for len in [0, 1, 125, 126, 300, 70_000] {
            let payload = vec![b'x'; len];
            let publication = Publication::new(MessageKind::Binary, &payload).expect("any bytes");
            assert_eq!(publication.payload(), payload);
            let mut sent = connection(0);
            assert_eq!(sent.publish(&publication, &mut out), Ok(()));
            let published = queued(&mut out);
            assert_eq!(sent.send(MessageKind::Binary, &payload, &mut out), Ok(()));
            assert_eq!(published, queued(&mut out), "{len} bytes");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_never_published() {
        let refused = Publication::new(MessageKind::Text, b"\xFF").err();
        assert_eq!(refused, Some(Misuse::NotUtf8));
    }

    #[test]
    fn of_each_key_the_newest_is_kept_and_leaves_when_there_is_room() {
        let (mut connection, mut out) = (connection(4), SendBuffer::new(&BufferPool::default()));
        for (key, words, is_instead) in [
            ("a", "a1", false),
            ("b", "b1", false),
            ("a", "a2", true),
            ("c", "c1", false),
            ("b", "b2", true),
        ] {
            assert_eq!(
                connection.hold_latest(key.as_bytes(), &text(words), 8),
                Ok(is_instead)
            );
        }
        connection.release_held(4, &mut out);
        assert_eq!(
            queued(&mut out),
            b"\x81\x02a2\x81\x02b2",
            "until over the limit"
        );
        assert!(connection.holds_latest());
        connection.release_held(4, &mut out);
        assert_eq!(queued(&mut out), b"\x81\x02c1");
        assert!(!connection.holds_latest());
    }

    #[test]
    fn keys_are_bounded_and_the_oldest_goes() {
        let (mut connection, mut out) = (connection(99), SendBuffer::new(&BufferPool::default()));
        for key in ["a", "b", "c"] {
            assert_eq!(
                connection.hold_latest(key.as_bytes(), &text(key), 2),
                Ok(key == "c")
            );
        }
        connection.release_held(99, &mut out);
        assert_eq!(queued(&mut out), b"\x81\x01b\x81\x01c");
    }

    #[test]
    fn what_is_held_leaves_before_the_close_frame() {
        let (mut connection, mut out) = (connection(0), SendBuffer::new(&BufferPool::default()));
        assert_eq!(connection.hold_latest(b"a", &text("last"), 2), Ok(false));
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let closed = connection.begin_close(1000, b"", Instant::now(), &mut out);
        assert_eq!(closed, Ok(()));
        assert_eq!(queued(&mut out), b"\x81\x04last\x88\x02\x03\xE8");
        assert_eq!(
            connection.hold_latest(b"a", &text("late"), 2),
            Err(Misuse::Closing)
        );
    }
}
