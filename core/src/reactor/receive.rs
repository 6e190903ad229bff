//! Who is read in a turn, and in which order: those who have just become ready, then those who were
//! left behind with input, then those that we have left.
//!
//! Sits in the reactor, beside the loop (`mod.rs`); how one connection takes its input is `input.rs`.
//! What matters is how much work of others goes before an answer. A connection whose input takes more
//! steps than its share (a flood of tiny chunks or frames, a long pipeline) is *behind*: it waits in a
//! queue of its own, which gets little of a turn in which somebody is to be answered, and some of one
//! in which nobody is.
//!
//! ```text
//!   event ──▶ ready ── read ──▶ done                lingering ── read, dropped ──▶ done
//!               └── input left ──▶ behind ─┐            (phase of `drive.rs`)
//!                                  ▲───────┘ a share a turn, in turn
//! ```
//!
//! Invariants
//! - Every queue is a round: who has had a share goes to the end of it.
//! - Each turn serves at least one who is behind, and one who lingers, if the area has room at all.
//! - An answer waits for at most two turns' shares of those who are behind.
//!
//! Not here: what readiness is (`mod.rs`), accepting (`accept.rs`).

use super::Reactor;
use super::conns::ConnKey;
use super::drive::{Connection, Context, Phase};
use super::inbox::Inbox;
use super::input::SEGMENT_BYTES_MIN;
use crate::transport::Net;
use std::collections::VecDeque;

/// Reads of connections that we have left, in a turn: enough for a peer to get through what it was
/// sending and to our last words, too few for a crowd that was refused to slow down who was not.
const LINGERING_READS_MAX: usize = 2;

/// Shares of those who are behind in a turn in which nobody else is heard: enough that the turn itself
/// costs little beside them.
const SHARES_BEHIND: usize = 4;

/// Who is to be read, in the order in which they became ready for it.
#[derive(Debug, Default)]
pub(super) struct Queues {
    ready: VecDeque<ConnKey>,
    /// Those who have had their share and have input left.
    behind: VecDeque<ConnKey>,
    /// Those that we have left: what they send is dropped.
    lingering: VecDeque<ConnKey>,
    /// Who must wait for the next turn with its TLS handshake.
    handshakes: Vec<ConnKey>,
}

impl Queues {
    /// Puts `key` in the queue where the state of its connection belongs, unless it is in one or wants
    /// nothing.
    pub(super) fn add<S>(&mut self, key: ConnKey, conn: &mut Connection<S>) {
        if conn.queued || !conn.wants_input() {
            return;
        }
        conn.queued = true;
        let queue = if conn.phase == Phase::Lingering {
            &mut self.lingering
        } else if conn.is_behind() {
            &mut self.behind
        } else {
            &mut self.ready
        };
        queue.push_back(key);
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.behind.is_empty() && self.lingering.is_empty()
    }
}

/// What a turn may still read.
struct Budget {
    bytes: usize,
    reads: u16,
    handshakes: u16,
}

impl<N: Net> Reactor<N> {
    /// Reads who is ready, until the area is full or the turn has read enough.
    pub(super) fn receive_ready(&mut self, inbox: &mut Inbox) {
        // Who is behind or lingers gets room, whoever else is there.
        let room_behind = self.room_wanted_behind();
        let reserve = if self.queues.lingering.is_empty() {
            0
        } else {
            self.limits.segment_bytes_max as usize
        };
        let mut budget = Budget {
            bytes: inbox.area.len() - reserve,
            // Bytes that leave no trace in the area (part of a long message) count too.
            reads: self.limits.reads_per_turn,
            handshakes: self.limits.handshakes_per_turn,
        };
        self.read_ready(inbox, &mut budget, room_behind);
        self.queues.ready.extend(self.queues.handshakes.drain(..));
        self.read_behind(inbox, &mut budget);
        budget.bytes += reserve;
        for _ in 0..LINGERING_READS_MAX.min(self.queues.lingering.len()) {
            if budget.bytes >= SEGMENT_BYTES_MIN {
                self.read_lingering(inbox, &mut budget);
            }
        }
    }

    /// Reads those who have not had a share of their input, and leaves `reserve` bytes of the area.
    fn read_ready(&mut self, inbox: &mut Inbox, budget: &mut Budget, reserve: usize) {
        while let Some(key) = self.queues.ready.front().copied() {
            let Some(conn) = self.conns.get_mut(key) else {
                self.queues.ready.pop_front();
                continue;
            };
            let room = (inbox.area.len() - inbox.used).saturating_sub(reserve);
            if budget.reads == 0 || budget.bytes < SEGMENT_BYTES_MIN || room < conn.room_wanted() {
                return;
            }
            self.queues.ready.pop_front();
            conn.queued = false;
            if !conn.wants_input() {
                continue;
            }
            if conn.transport.is_handshaking() {
                if budget.handshakes == 0 {
                    conn.queued = true;
                    self.queues.handshakes.push(key);
                    continue;
                }
                budget.handshakes -= 1;
            }
            self.read_one(key, inbox, budget);
        }
    }

    /// Room that the first of those who are behind needs; 0 if there is none.
    fn room_wanted_behind(&self) -> usize {
        let first = self.queues.behind.front();
        let first = first.and_then(|key| self.conns.get(*key));
        first.map_or(0, |conn| conn.room_wanted())
    }

    /// Gives a share to one of those who are behind; to some, if nobody else was heard in this turn.
    fn read_behind(&mut self, inbox: &mut Inbox, budget: &mut Budget) {
        let shares = if inbox.is_empty() { SHARES_BEHIND } else { 1 };
        // Each at most once: they come again at the end of the queue.
        for nth in 0..shares.min(self.queues.behind.len()) {
            let Some(key) = self.queues.behind.front().copied() else {
                return;
            };
            let has_room = self.conns.get(key).is_none_or(|conn| {
                let is_read = nth == 0 || budget.bytes >= SEGMENT_BYTES_MIN;
                is_read && inbox.area.len() - inbox.used >= conn.room_wanted()
            });
            if !has_room {
                return;
            }
            self.queues.behind.pop_front();
            if let Some(conn) = self.conns.get_mut(key) {
                conn.queued = false;
                if conn.wants_input() {
                    self.read_one(key, inbox, budget);
                }
            }
        }
    }

    /// Reads `key`, and sees to what follows from it.
    fn read_one(&mut self, key: ConnKey, inbox: &mut Inbox, budget: &mut Budget) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        budget.reads = budget.reads.saturating_sub(1);
        let parts = conn.is_parting();
        let mut cx = Context {
            net: &mut self.net,
            inbox,
            now: self.now,
            figures: &self.figures,
        };
        let count = conn.receive(key, &mut cx);
        self.figures.bytes_received.add(count);
        budget.bytes = budget.bytes.saturating_sub(count);
        if let Some(said) = conn.announcement() {
            self.go_on_behind(key, said, inbox);
        } else if conn.phase != Phase::Open || conn.is_cut() || parts {
            self.settle(key, inbox);
        } else {
            if conn.wants_settling() && !conn.dirty {
                conn.dirty = true;
                self.dirty.push(key);
            }
            self.schedule(key);
        }
    }

    /// Reads the next connection that lingers, if there is room.
    fn read_lingering(&mut self, inbox: &mut Inbox, budget: &mut Budget) {
        let Some(key) = self.queues.lingering.front().copied() else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(key) {
            if inbox.area.len() - inbox.used < conn.room_wanted() {
                return;
            }
            conn.queued = false;
            let mut cx = Context {
                net: &mut self.net,
                inbox,
                now: self.now,
                figures: &self.figures,
            };
            let count = conn.receive(key, &mut cx);
            self.figures.bytes_received.add(count);
            budget.bytes = budget.bytes.saturating_sub(count);
        }
        self.queues.lingering.pop_front();
        self.settle(key, inbox);
    }
}
