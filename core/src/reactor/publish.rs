//! Topics: a message for all who subscribed, framed once, one write for each socket and turn.
//!
//! Sits in the reactor, beside the other operations. The table is `topics.rs`, the shared frame and
//! what a slow peer gets of it `conn/websocket/publication.rs`.
//!
//! Invariants
//! - Messages of one publisher reach one subscriber in the order they were published, but for what
//!   [`Overflow::Latest`] replaced. Between publishers there is no order.
//! - A subscriber that is behind costs the others nothing: what happens to it is its
//!   [`Backpressure`](crate::conn::Backpressure).
//! - A connection that ends is subscribed to nothing, from the first close frame on.
//!
//! Not here: when bytes leave (`drive.rs`).

use super::Reactor;
use super::conns::ConnKey;
use super::drive::{Connection, Phase};
use super::figures::Figures;
use super::inbox::Cause;
use crate::conn::{Driver, Misuse, Overflow, Pressure, Publication};
use crate::topics::Changes;
use crate::transport::Net;
use crate::ws::close_code;
use std::sync::Arc;
use std::time::Instant;

/// Whether a peer has read enough to be sent more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It has.
    Enough,
    /// It has not, and this is what to do about the message. `Close` has begun already.
    None(Overflow),
}

impl<N: Net> Reactor<N> {
    /// Subscribes `conn` to `topic` until it unsubscribes or ends; `false` if it was already.
    ///
    /// # Errors
    /// [`Misuse::Gone`], [`Misuse::NotAWebSocket`]; [`Misuse::InvalidTopic`] for a name that is
    /// empty or longer than `Limits::topic_bytes_max`, [`Misuse::TooManyTopics`] above
    /// `Limits::topics_per_connection_max`.
    pub fn subscribe(&mut self, conn: ConnKey, topic: &[u8]) -> Result<bool, Misuse> {
        let connection = self.conns.get(conn).ok_or(Misuse::Gone)?;
        if !matches!(connection.driver, Driver::WebSocket(_)) {
            return Err(Misuse::NotAWebSocket);
        }
        if connection.is_cut() || !connection.may_hear() {
            return Err(Misuse::Gone);
        }
        let limits = &connection.limits;
        if topic.is_empty() || topic.len() > usize::from(limits.topic_bytes_max) {
            return Err(Misuse::InvalidTopic);
        }
        if self.topics.count_of(conn) >= usize::from(limits.topics_per_connection_max) {
            return Err(Misuse::TooManyTopics);
        }
        Ok(self.topics.subscribe(conn, topic))
    }

    /// Ends the subscription of `conn` to `topic`; `false` if there is none, as there is none of a
    /// connection that has ended.
    pub fn unsubscribe(&mut self, conn: ConnKey, topic: &[u8]) -> bool {
        self.topics.unsubscribe(conn, topic)
    }

    /// How many connections of this reactor are subscribed to `topic`.
    pub fn subscribers(&self, topic: &[u8]) -> usize {
        self.topics.subscribers(topic).len()
    }

    /// Keeps from now on how many subscribers topics gain and lose, for
    /// [`take_topic_changes`](Self::take_topic_changes): for who tells others than this reactor. Who is
    /// subscribed already counts as gained.
    pub fn track_topic_changes(&mut self) {
        self.topics.track_changes();
    }

    /// What has changed since the last call, connections that ended included; `None` if nothing has,
    /// or nobody [tracks](Self::track_topic_changes). What waits to be taken is bounded by the number
    /// of topics.
    pub fn take_topic_changes(&mut self) -> Option<Changes> {
        self.topics.take_changes()
    }

    /// What `conn` is subscribed to, in no order that means anything.
    pub fn topics_of(&self, conn: ConnKey) -> impl Iterator<Item = &[u8]> {
        self.topics.names_of(conn)
    }

    /// Queues `publication` for every subscriber of `topic` but `except`; it leaves at the next
    /// turn. Returns for how many it was queued or, with [`Overflow::Latest`], held.
    pub fn publish(
        &mut self,
        topic: &[u8],
        publication: &Arc<Publication>,
        except: Option<ConnKey>,
    ) -> usize {
        let mut count = 0;
        for key in self.topics.subscribers(topic) {
            if Some(key) == except {
                continue;
            }
            let Some(connection) = self.conns.get_mut(key) else {
                continue;
            };
            let given = connection.publish(topic, publication, self.now, &self.figures);
            count += usize::from(matches!(given, Ok(Pressure::Low | Pressure::High)));
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(key);
            }
        }
        count
    }

    /// Sends a message under a key of the application's choice: as [`send`](Self::send), but with
    /// [`Overflow::Latest`] a peer that is behind gets only the newest of each key.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_latest(
        &mut self,
        conn: ConnKey,
        key: &[u8],
        publication: &Arc<Publication>,
    ) -> Result<Pressure, Misuse> {
        let (now, figures) = (self.now, Arc::clone(&self.figures));
        let connection = self.open_conn(conn)?;
        let given = connection.publish(key, publication, now, &figures);
        self.touch(conn);
        given
    }
}

impl<S> Connection<S> {
    /// Whether a message may be queued, or what to do with it instead.
    ///
    /// # Errors
    /// [`Misuse::NotAWebSocket`], [`Misuse::Closing`].
    pub(super) fn room_for_message(&mut self, now: Instant) -> Result<Room, Misuse> {
        let waits = self.out.len();
        let Driver::WebSocket(websocket) = &mut self.driver else {
            return Err(Misuse::NotAWebSocket);
        };
        let backpressure = websocket.backpressure();
        if waits <= backpressure.limit_bytes as usize {
            return Ok(Room::Enough);
        }
        if backpressure.overflow == Overflow::Close {
            let reason = b"too far behind";
            websocket.begin_close(close_code::TRY_AGAIN_LATER, reason, now, &mut self.out)?;
            self.blame(Cause::TooSlow);
        }
        Ok(Room::None(backpressure.overflow))
    }

    /// Queues `publication`, or does what the peer's backpressure says.
    fn publish(
        &mut self,
        key: &[u8],
        publication: &Arc<Publication>,
        now: Instant,
        figures: &Figures,
    ) -> Result<Pressure, Misuse> {
        if self.phase != Phase::Open || self.is_cut() {
            return Err(Misuse::Gone);
        }
        if self.out.len() > self.limits.out_bytes_max as usize {
            self.cut(Cause::TooSlow);
            return Err(Misuse::Gone);
        }
        let room = self.room_for_message(now)?;
        let keys_max = usize::from(self.limits.topics_per_connection_max);
        let Driver::WebSocket(websocket) = &mut self.driver else {
            return Err(Misuse::NotAWebSocket);
        };
        match room {
            // What is held leaves first, or a later message would overtake an earlier one.
            Room::Enough if !websocket.holds_latest() => {
                websocket.publish(publication, &mut self.out)?;
                figures.messages_sent.add(1);
            }
            Room::None(Overflow::Close) => {
                figures.closed_behind.add(1);
                return Err(Misuse::Gone);
            }
            Room::None(Overflow::Drop) => {
                figures.messages_dropped.add(1);
                return Ok(Pressure::Dropped);
            }
            Room::Enough | Room::None(Overflow::Latest) => {
                let is_instead = websocket.hold_latest(key, publication, keys_max)?;
                figures.messages_sent.add(1);
                figures.messages_replaced.add(usize::from(is_instead));
            }
        }
        Ok(self.pressure(None, figures))
    }

    /// Whether it may be subscribed to anything; of those that never were it does not matter.
    pub(super) fn may_hear(&self) -> bool {
        match &self.driver {
            Driver::WebSocket(websocket) => {
                self.phase == Phase::Open && websocket.accepts_messages()
            }
            Driver::Server(_) | Driver::Client(_) => true,
            Driver::Stream(_) => false,
        }
    }

    /// Queues what was held for want of room, if there is some now; whether it did.
    pub(super) fn release_held(&mut self) -> bool {
        let Driver::WebSocket(websocket) = &mut self.driver else {
            return false;
        };
        let limit = websocket.backpressure().limit_bytes as usize;
        if !websocket.holds_latest() || self.out.len() > limit / 2 {
            return false;
        }
        websocket.release_held(limit, &mut self.out);
        true
    }
}
