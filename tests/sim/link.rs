//! One simulated connection: two buffers, two ways, and a peer that follows a script.
//!
//! Sits under `sim.rs`, which owns the clock and the selector.
//!
//! ```text
//!             Carry                         read
//!  outgoing ─────────▶ inbound (bounded) ─────────▶ reactor
//!  received ◀───────── unsent (bounded)  ◀───────── reactor
//!            Deliver                        write
//! ```
//!
//! A link may have a twin instead of a script: what one delivers, the other carries, so that the
//! reactor under test is at both ends.
//!
//! A reset destroys what is on the way. Closing a socket that has unread bytes, or to which more
//! bytes come, resets the connection as TCP does (RFC 1122 §4.2.2.13): a server that does not
//! linger loses its last words here.
//!
//! Invariants
//! - Neither buffer exceeds its bound; bytes wait with the sender then.
//! - A `WouldBlock` is followed by an event once the call could go on.
//!
//! Not here: when things happen (`sim.rs`).

use super::cut::Fate;
use super::{Call, Happening, World};
use hukilau_core::transport::{Endpoint, Ready};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

/// Index of a link in its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId(pub(super) usize);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a peer does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes; they leave in pieces, as the network pleases.
    Send(Vec<u8>),
    /// Does nothing for a while.
    Pause(Duration),
    /// Goes on once it has received so many bytes in all, or nothing more can come.
    AwaitBytes(usize),
    /// Goes on once what it has received contains these bytes, or nothing more can come.
    AwaitText(Vec<u8>),
    /// Finishes its side, and goes on receiving.
    HalfClose,
    /// Leaves: finishes, and answers anything that still comes with a reset.
    Close,
    /// Resets the connection.
    Reset,
    /// Takes no more bytes.
    StopReading,
    /// Takes bytes again.
    ResumeReading,
}

/// A peer's behaviour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// In order.
    pub(crate) steps: VecDeque<Step>,
    /// Whether it never finishes its side, even after we have.
    pub(crate) is_stubborn: bool,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            is_stubborn: false,
        }
    }
}

/// How far our end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a listener's backlog, or on the way there.
    Waiting,
    /// We connect.
    Connecting {
        /// How that will end.
        refused: bool,
    },
    Refused,
    Open,
    Closed,
}

/// A connection and the peer at its end.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stage: Stage,
    /// Where the peer wants to, until its request arrives.
    pub(super) dials: Option<Endpoint>,
    /// The socket at the other end, if that is one of ours too.
    pub(super) twin: Option<LinkId>,
    /// As registered; events are reported under it.
    pub(super) token: Option<u64>,
    /// The next event to report: readable, writable.
    pub(super) pending: Option<(bool, bool)>,
    /// Whether an event may be reported, readable and writable; only the `poll(2)` emulation ever
    /// disarms.
    armed: (bool, bool),
    /// What a buffer of the system holds at most, in either direction.
    buffer_bytes_max: usize,

    /// Sent by the peer, not yet here.
    outgoing: VecDeque<u8>,
    pub(super) peer_finishes: bool,
    carries: bool,
    /// What is to become of the way here, and whether it has.
    pub(super) fate: Fate,
    /// Here, not yet read.
    inbound: VecDeque<u8>,
    pub(super) inbound_ended: bool,
    /// The peer's reset has arrived.
    pub(super) is_reset: bool,

    /// Written by us, not yet there.
    unsent: VecDeque<u8>,
    we_finish: bool,
    delivers: bool,
    /// A write found no room; an event is owed when there is some.
    wants_room: bool,
    /// There.
    pub(super) received: Vec<u8>,
    pub(super) peer_saw_end: bool,
    pub(super) peer_was_reset: bool,

    script: Script,
    /// Bytes of `received` in which an awaited text does not begin.
    searched: usize,
    peer_reads: bool,
    pub(super) peer_left: bool,
    /// A `Pause` is under way.
    pauses: bool,
}

impl Link {
    /// The pending event, if its socket is registered.
    pub(super) fn take_event(&mut self, drains: bool) -> Option<Ready> {
        let (readable, writable) = self.pending.take()?;
        if !drains {
            // As mio's emulation does: what was reported is not watched any more.
            self.armed.0 &= !readable;
            self.armed.1 &= !writable;
        }
        // poll(2) tells a peer that has finished from one that has sent only when it is read.
        let ended = self.inbound_ended && drains;
        Some(Ready {
            token: self.token?,
            readable: readable || self.is_reset,
            writable: writable || self.is_reset,
            hung_up: ended || self.is_reset || self.stage == Stage::Refused,
        })
    }

    fn is_readable(&self) -> bool {
        !self.inbound.is_empty() || self.inbound_ended || self.is_reset
    }

    fn room(&self) -> usize {
        self.buffer_bytes_max - self.unsent.len()
    }

    /// Whether nothing more can come to the peer.
    fn is_over_for_peer(&self) -> bool {
        self.peer_saw_end || self.peer_was_reset
    }
}

/// Takes `count` bytes off the front of `from`: a slice at a time, with its offset, for a flood has
/// many bytes.
fn move_bytes(from: &mut VecDeque<u8>, count: usize, mut to: impl FnMut(&[u8], usize)) {
    let (front, back) = from.as_slices();
    let (front, back) = (
        &front[..count.min(front.len())],
        &back[..count.saturating_sub(front.len())],
    );
    to(front, 0);
    to(back, front.len());
    from.drain(..count);
}

impl World {
    pub(super) fn open_link(&mut self, script: Script, stage: Stage) -> LinkId {
        // Not too small: a link of a few bytes a second misses deadlines, and rightly so.
        let most = self.options.socket_buffer_max;
        let buffer_bytes_max = most / 16 + self.dice.up_to(most - most / 16);
        self.links.push(Link {
            stage,
            dials: None,
            twin: None,
            token: None,
            pending: None,
            armed: (true, true),
            buffer_bytes_max,
            outgoing: VecDeque::new(),
            peer_finishes: false,
            carries: false,
            fate: Fate::default(),
            inbound: VecDeque::new(),
            inbound_ended: false,
            is_reset: false,
            unsent: VecDeque::new(),
            we_finish: false,
            delivers: false,
            wants_room: false,
            received: Vec::new(),
            peer_saw_end: false,
            peer_was_reset: false,
            script,
            searched: 0,
            peer_reads: true,
            peer_left: false,
            pauses: false,
        });
        LinkId(self.links.len() - 1)
    }

    /// Puts a link of a listener at the other end of `id`, which connects to it.
    pub(super) fn loop_back(&mut self, id: LinkId, to: &Endpoint) {
        // It finishes when the socket behind it does.
        let script = Script {
            is_stubborn: true,
            ..Script::default()
        };
        self.links[id.0].script = script.clone();
        let twin = self.open_link(script, Stage::Waiting);
        self.links[id.0].twin = Some(twin);
        self.links[twin.0].twin = Some(id);
        self.links[twin.0].dials = Some(to.clone());
        self.soon(Happening::Arrival(twin));
    }

    /// Bytes that may arrive at the peer now.
    fn peer_room(&self, id: LinkId) -> usize {
        match self.links[id.0].twin {
            Some(twin) => {
                let twin = &self.links[twin.0];
                twin.buffer_bytes_max.saturating_sub(twin.outgoing.len())
            }
            None => usize::MAX,
        }
    }

    /// Lets an event be reported, as far as the selector watches.
    pub(super) fn raise(&mut self, id: LinkId, readable: bool, writable: bool) {
        let link = &mut self.links[id.0];
        if link.token.is_none() || !matches!(link.stage, Stage::Open | Stage::Refused) {
            return;
        }
        let (readable, writable) = (readable && link.armed.0, writable && link.armed.1);
        if readable || writable {
            let pending = link.pending.get_or_insert((false, false));
            *pending = (pending.0 | readable, pending.1 | writable);
        }
    }

    pub(super) fn register(&mut self, id: LinkId, token: u64) {
        let link = &mut self.links[id.0];
        link.token = Some(token);
        let (readable, writable) = (link.is_readable(), link.room() > 0);
        self.raise(id, readable, writable);
    }

    /// A call has said `WouldBlock`. `needlessly`: it could have gone on, so an event must follow.
    fn blocked(&mut self, id: LinkId, readable: bool, needlessly: bool) -> io::Error {
        let drains = self.drains;
        let link = &mut self.links[id.0];
        if !drains {
            // mio watches both directions again; what is ready in the other is reported at once.
            link.armed = (true, true);
            let (other_readable, other_writable) = (link.is_readable(), link.room() > 0);
            self.raise(id, other_readable && !readable, other_writable && readable);
        }
        if needlessly {
            self.soon(Happening::Edge { link: id, readable });
        }
        ErrorKind::WouldBlock.into()
    }

    pub(super) fn read(&mut self, id: LinkId, into: &mut [u8]) -> io::Result<usize> {
        self.count(Call::Read)?;
        let (blocks, short) = (self.options.read_blocks, self.options.short_read);
        let (blocks, short) = (self.dice.chance(blocks), self.dice.chance(short));
        let link = &mut self.links[id.0];
        if link.inbound.is_empty() {
            return match (link.is_reset, link.inbound_ended) {
                (true, _) => Err(ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(self.blocked(id, true, false)),
            };
        }
        if blocks {
            return Err(self.blocked(id, true, true));
        }
        let most = into.len().min(link.inbound.len());
        let count = if short { self.dice.up_to(most) } else { most };
        move_bytes(&mut link.inbound, count, |bytes, at| {
            into[at..at + bytes.len()].copy_from_slice(bytes);
        });
        // A short read says that the socket is empty, so what is there has yet to be announced.
        if self.drains && count < into.len() && !link.inbound.is_empty() {
            let readable = true;
            self.soon(Happening::Edge { link: id, readable });
        }
        self.start_carrying(id);
        Ok(count)
    }

    pub(super) fn write(&mut self, id: LinkId, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.count(Call::Write)?;
        let (blocks, short) = (self.options.write_blocks, self.options.short_write);
        let (blocks, short) = (self.dice.chance(blocks), self.dice.chance(short));
        let link = &mut self.links[id.0];
        if link.is_reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        assert!(!link.we_finish, "{id}: written to after its end");
        let waiting: usize = from.iter().map(|slice| slice.len()).sum();
        assert!(waiting > 0, "{id}: a write of nothing");
        if link.room() == 0 {
            link.wants_room = true;
            return Err(self.blocked(id, false, false));
        }
        if blocks {
            return Err(self.blocked(id, false, true));
        }
        let most = waiting.min(link.room());
        let count = if short { self.dice.up_to(most) } else { most };
        let mut left = count;
        for slice in from {
            let taken = left.min(slice.len());
            link.unsent.extend(&slice[..taken]);
            left -= taken;
        }
        self.start_delivering(id);
        Ok(count)
    }

    /// Our end is closed for writing once everything unsent has gone.
    pub(super) fn finish(&mut self, id: LinkId) {
        self.links[id.0].we_finish = true;
        self.start_delivering(id);
    }

    pub(super) fn close(&mut self, id: LinkId, abort: bool) {
        let link = &mut self.links[id.0];
        link.stage = Stage::Closed;
        link.pending = None;
        self.closed_tokens.extend(link.token.take());
        if abort || !link.inbound.is_empty() {
            link.unsent.clear();
            // There is no end behind what never comes.
            link.we_finish = false;
            self.soon(Happening::ResetToPeer(id));
        } else {
            self.finish(id);
        }
    }

    fn start_carrying(&mut self, id: LinkId) {
        let link = &mut self.links[id.0];
        let ends = link.peer_finishes && !link.inbound_ended;
        let wants = !link.outgoing.is_empty() || ends;
        if !link.carries && wants && link.inbound.len() < link.buffer_bytes_max {
            link.carries = true;
            self.soon(Happening::Carry(id));
        }
    }

    /// A piece, or the end, arrives from the peer.
    pub(super) fn carry(&mut self, id: LinkId) {
        let piece_max = self.options.piece_max;
        let piece = self.dice.up_to(piece_max);
        let link = &mut self.links[id.0];
        link.carries = false;
        if link.is_reset || link.peer_was_reset {
            return;
        }
        if link.stage == Stage::Closed && !link.outgoing.is_empty() {
            // Nobody is there to read it.
            link.outgoing.clear();
            link.unsent.clear();
            return self.soon(Happening::ResetToPeer(id));
        }
        if link.fate.is_met() {
            link.outgoing.clear();
            return;
        }
        let room = link.buffer_bytes_max - link.inbound.len();
        let count = link.fate.take(piece.min(room).min(link.outgoing.len()));
        let inbound = &mut link.inbound;
        move_bytes(&mut link.outgoing, count, |bytes, _| inbound.extend(bytes));
        // The end travels with the last bytes, or behind them.
        if link.outgoing.is_empty() && link.peer_finishes && (count == 0 || self.dice.chance(500)) {
            link.inbound_ended = true;
        }
        let twin = link.twin;
        self.raise(id, true, false);
        if self.links[id.0].fate.is_met() {
            return self.cut(id);
        }
        self.start_carrying(id);
        if let Some(twin) = twin {
            self.start_delivering(twin);
        }
    }

    fn start_delivering(&mut self, id: LinkId) {
        if self.peer_room(id) == 0 {
            return;
        }
        let link = &mut self.links[id.0];
        let ends = link.we_finish && !link.peer_saw_end;
        if !link.delivers && link.peer_reads && (!link.unsent.is_empty() || ends) {
            link.delivers = true;
            self.soon(Happening::Deliver(id));
        }
    }

    /// A piece, or the end, arrives at the peer.
    pub(super) fn deliver(&mut self, id: LinkId) {
        let piece_max = self.options.piece_max;
        let piece = self.dice.up_to(piece_max).min(self.peer_room(id));
        let link = &mut self.links[id.0];
        link.delivers = false;
        if link.peer_was_reset || !link.peer_reads {
            return;
        }
        if link.peer_left && !link.unsent.is_empty() {
            link.unsent.clear();
            return self.soon(Happening::ResetFromPeer(id));
        }
        let count = piece.min(link.unsent.len());
        let has_twin = link.twin.is_some();
        let (received, mut bytes) = (&mut link.received, Vec::new());
        let onto = if has_twin { &mut bytes } else { received };
        move_bytes(&mut link.unsent, count, |bytes, _| {
            onto.extend_from_slice(bytes);
        });
        if link.unsent.is_empty() && link.we_finish {
            link.peer_saw_end = true;
        }
        // As Linux does, an event comes when a third is free again, not for every byte.
        let makes_room = link.wants_room && link.room() * 3 >= link.buffer_bytes_max;
        if makes_room {
            link.wants_room = false;
        }
        let (twin, total, ended) = (link.twin, link.received.len(), link.peer_saw_end);
        if let Some(twin) = twin {
            let at_twin = &mut self.links[twin.0];
            at_twin.outgoing.extend(&bytes);
            at_twin.peer_finishes |= ended;
            self.start_carrying(twin);
        }
        self.note(format_args!("{id} has received {total}, end: {ended}"));
        self.raise(id, false, makes_room);
        self.start_delivering(id);
        self.run_script(id);
    }

    pub(super) fn reset_from_peer(&mut self, id: LinkId) {
        let keeps_what_arrived = self.dice.chance(500);
        let link = &mut self.links[id.0];
        if link.fate.is_silent() {
            return;
        }
        link.is_reset = true;
        link.outgoing.clear();
        link.unsent.clear();
        if !keeps_what_arrived {
            link.inbound.clear();
        }
        self.note(format_args!("{id} is reset by its peer"));
        self.raise(id, true, true);
    }

    pub(super) fn reset_to_peer(&mut self, id: LinkId) {
        let link = &mut self.links[id.0];
        if !link.is_reset {
            link.peer_was_reset = true;
            link.unsent.clear();
            link.outgoing.clear();
            let twin = link.twin;
            self.note(format_args!("{id} is reset by us"));
            self.run_script(id);
            if let Some(twin) = twin {
                self.reset_from_peer(twin);
            }
        }
    }

    pub(super) fn connected(&mut self, id: LinkId) {
        let link = &mut self.links[id.0];
        let refused = link.stage == Stage::Connecting { refused: true };
        match link.stage {
            Stage::Connecting { .. } if refused => link.stage = Stage::Refused,
            Stage::Connecting { .. } => link.stage = Stage::Open,
            // It was closed meanwhile.
            Stage::Waiting | Stage::Refused | Stage::Open | Stage::Closed => return,
        }
        // An accepting end that speaks first may have been faster than the news.
        let readable = refused || self.links[id.0].is_readable();
        self.raise(id, readable, true);
        if !refused {
            self.run_script(id);
        }
    }

    pub(super) fn end_pause(&mut self, id: LinkId) {
        self.links[id.0].pauses = false;
        self.run_script(id);
    }

    /// Lets the peer do what it can do now.
    pub(super) fn run_script(&mut self, id: LinkId) {
        while !self.links[id.0].pauses
            && let Some(step) = self.links[id.0].script.steps.pop_front()
        {
            if !self.take_step(id, &step) {
                self.links[id.0].script.steps.push_front(step);
                return;
            }
        }
        let link = &mut self.links[id.0];
        if link.pauses {
            return;
        }
        if link.is_over_for_peer() && !link.script.is_stubborn && !link.peer_finishes {
            link.peer_finishes = true;
            self.start_carrying(id);
        }
    }

    /// Takes one step; `false` if the peer has to wait for it.
    fn take_step(&mut self, id: LinkId, step: &Step) -> bool {
        let link = &mut self.links[id.0];
        let is_over = link.is_over_for_peer();
        match step {
            Step::Send(bytes) => {
                // What is sent into a reset connection is lost without a word.
                if !link.peer_was_reset && !link.peer_finishes {
                    link.outgoing.extend(bytes);
                }
            }
            Step::Pause(time) => {
                link.pauses = true;
                self.after(*time, Happening::Script(id));
            }
            Step::AwaitBytes(count) => return link.received.len() >= *count || is_over,
            Step::AwaitText(text) => {
                // What was looked at before is not looked at again: bodies are long.
                let unseen = &link.received[link.searched..];
                let found = unseen.windows(text.len()).any(|window| window == *text);
                let seen = (link.received.len() + 1).saturating_sub(text.len());
                link.searched = if found { 0 } else { seen };
                return found || is_over;
            }
            Step::HalfClose => link.peer_finishes = true,
            Step::Close => {
                link.peer_finishes = true;
                link.peer_left = true;
            }
            Step::Reset => {
                link.peer_left = true;
                self.soon(Happening::ResetFromPeer(id));
            }
            Step::StopReading => link.peer_reads = false,
            Step::ResumeReading => {
                link.peer_reads = true;
                self.start_delivering(id);
            }
        }
        self.start_carrying(id);
        true
    }
}
