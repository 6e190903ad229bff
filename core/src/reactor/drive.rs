//! Drives one connection: driver → transport, and its way to the end.
//!
//! Sits in the reactor, between the loop (`mod.rs`), which decides whose turn it is, and the
//! driver, which decides what bytes mean. Edge-triggered readiness is remembered here.
//!
//! ```text
//!   Open ── driver wants to close ──▶ Finishing ── all sent ──▶ Lingering ── peer done ──▶ gone
//!     │ └── TLS failed ──────────────────▲       │
//!     └── broken, cut, too slow; a client ──────┴──────────────────────────────────────────▲
//! ```
//!
//! Lingering: we have said our last words and shut our side; what the peer still sends is read and
//! dropped, or the reset it would cause could destroy those words before they are read
//! (RFC 9112 §9.6). Over TLS the last word is `close_notify`, or the alert that says what failed.
//!
//! Invariants
//! - `Closed` is delivered once, for connections that delivered anything before, and last.
//!
//! Not here: input (`input.rs`), output (`flush.rs`); whose turn it is (`receive.rs`), timers (`mod.rs`); when senders stop and go on
//! (`pressure.rs`); how its driver changes (`switch.rs`); what is peculiar to streams (`stream.rs`).

use super::ListenerKey;
use super::conns::ConnKey;
use super::figures::Figures;
use super::inbox::{Cause, Inbox};
use super::pressure::Pressed;
use super::spill::Spill;
use crate::buffer::SendBuffer;
use crate::conn::client::Ending;
use crate::conn::{Appetite, Deadline, Driver};
use crate::limits::Limits;
use crate::transport::{KeptPeer, Net, Peer, Transport};
use crate::ws::close_code;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// How far the end of a connection has come. See the diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Finishing,
    Lingering,
}

/// One connection as the reactor knows it.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) transport: Transport<S>,
    pub(super) driver: Driver,
    pub(super) out: SendBuffer,
    pub(super) limits: Rc<Limits>,
    pub(super) listener: ListenerKey,
    pub(super) peer: KeptPeer,
    /// Input that the driver could not consume yet.
    pub(super) spill: Option<Spill>,
    /// Why it will have ended, once known.
    pub(super) cause: Option<Cause>,
    /// When the TLS handshake must be done, when unsent bytes must have moved or, lingering, when
    /// the peer must have finished.
    pub(super) own_deadline: Option<Instant>,
    pub(super) phase: Phase,
    /// A read may succeed: said by an event, unsaid by a read.
    pub(super) readable: bool,
    /// A write may succeed, likewise.
    pub(super) writable: bool,
    /// The peer closed or failed; short reads prove nothing any more.
    pub(super) hung_up: bool,
    /// The peer has sent its last byte; whether the driver knows is the other flag.
    pub(super) eof: bool,
    pub(super) eof_told: bool,
    /// That end came without the word that TLS has for it.
    pub(super) truncated: bool,
    /// The spill was left by a driver that paused or had no steps left, not for want of bytes.
    pub(super) stalled: bool,
    /// The application does not want input.
    pub(super) held: bool,
    /// What `Pressure::High` was answered to, and so when `Writable` is owed.
    pub(super) pressed: Pressed,
    /// The driver became a WebSocket, so `Open` is owed.
    pub(super) opened: bool,
    /// A proxy relays it and has not said for whom.
    pub(super) is_unnamed: bool,
    /// `Connected` or `Accepted` is owed, when TLS is agreed on.
    pub(super) connecting: bool,
    /// A completion has been delivered, or the application knows the key, so `Closed` is owed.
    pub(super) announced: bool,
    /// Nothing can be written any more; what the peer said before may still be read.
    pub(super) unwritable: bool,
    /// It ends at the next settling, unsent bytes and all.
    pub(super) cut: bool,
    /// A drain has begun, and it says goodbye after its next read.
    pub(super) parting: bool,
    /// It is in the reactor's ready queue.
    pub(super) queued: bool,
    /// It is in the reactor's dirty list.
    pub(super) dirty: bool,
}

/// What an idle connection costs beside the system's own share.
const _: () = assert!(size_of::<Connection<u64>>() <= 264);

/// What a connection is driven with.
pub(super) struct Context<'a, N> {
    pub(super) net: &'a mut N,
    pub(super) inbox: &'a mut Inbox,
    pub(super) now: Instant,
    pub(super) figures: &'a Figures,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// Remove and close it; `abort` with a reset.
    Ends {
        abort: bool,
    },
}

impl<S> Connection<S> {
    pub(super) fn new(
        transport: Transport<S>,
        driver: Driver,
        out: SendBuffer,
        limits: Rc<Limits>,
        listener: ListenerKey,
        peer: Peer,
    ) -> Self {
        Self {
            transport,
            driver,
            out,
            limits,
            listener,
            peer: peer.into(),
            spill: None,
            cause: None,
            own_deadline: None,
            phase: Phase::Open,
            readable: false,
            writable: true,
            hung_up: false,
            eof: false,
            eof_told: false,
            truncated: false,
            stalled: false,
            held: false,
            pressed: Pressed::No,
            opened: false,
            is_unnamed: false,
            connecting: false,
            announced: false,
            unwritable: false,
            cut: false,
            parting: false,
            queued: false,
            dirty: false,
        }
    }

    /// Lets the TLS handshake be done in time; whether there is one.
    pub(super) fn begin_handshake(&mut self, now: Instant) -> bool {
        let begins = self.transport.is_handshaking();
        if begins {
            self.own_deadline = now.checked_add(self.limits.tls_handshake_timeout);
        }
        begins
    }

    /// Whether nothing has been said yet, either way, that TLS would come too late for.
    #[cfg(feature = "tls")]
    pub(super) fn may_start_tls(&self) -> bool {
        let is_plain = matches!(self.transport, Transport::Plain(_));
        is_plain && self.out.is_empty() && self.spill.is_none()
    }

    /// Notes what an event said.
    pub(super) fn note(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable | hung_up;
        self.writable |= writable;
        self.hung_up |= hung_up;
    }

    /// Whether reading, or offering the spill again, would get anywhere.
    #[inline]
    pub(super) fn wants_input(&self) -> bool {
        // Asked first, and in most connections all that there is to ask.
        let has_some = self.readable || self.stalled || (self.eof && !self.eof_told);
        has_some && self.takes_input()
    }

    /// Whether what there is may be read.
    fn takes_input(&self) -> bool {
        match self.phase {
            Phase::Lingering => self.readable,
            Phase::Finishing => false,
            // What waits for the handshake to end must not keep it from ending.
            Phase::Open if self.transport.is_handshaking() => self.readable,
            Phase::Open => {
                !self.held && !self.is_swamped() && self.driver.appetite() == Appetite::Read
            }
        }
    }

    /// Whether it asks rather than answers.
    pub(super) fn is_client(&self) -> bool {
        matches!(self.driver, Driver::Client(_))
    }

    /// Whether how it failed is worth telling, and what the peer said before worth reading.
    pub(super) fn is_heard_out(&self) -> bool {
        matches!(self.driver, Driver::Client(_) | Driver::Stream(_))
    }

    /// Whether so much waits for the peer that it is not read, so that it cannot make us owe it
    /// more. Not where we are the client: two ends that both wait to be read first, an echo and
    /// who talks to it, would wait for ever. Nor a stream, on which we owe nothing for what we read.
    fn is_swamped(&self) -> bool {
        let owes = self.listener != ListenerKey::NONE && !matches!(self.driver, Driver::Stream(_));
        owes && self.out.len() > self.limits.out_bytes_high as usize
    }

    /// Whether there is something to flush or to close.
    pub(super) fn wants_settling(&self) -> bool {
        let appetite = self.driver.appetite();
        let is_leaving = matches!(appetite, Appetite::Conclude | Appetite::Close);
        let has_unsent = !self.out.is_empty() || self.transport.has_unsent();
        let is_open = self.phase == Phase::Open;
        has_unsent || self.cut || (is_open && (is_leaving || self.owes_word()))
    }

    /// Sends what waits, delivers what is owed to the application, and moves towards the end if it
    /// is time.
    pub(super) fn settle<N: Net<Socket = S>>(
        &mut self,
        key: ConnKey,
        cx: &mut Context<'_, N>,
    ) -> Fate {
        if self.phase == Phase::Open && self.driver.appetite() == Appetite::Conclude {
            self.driver.conclude(cx.now, &mut self.out);
        }
        self.flush(cx.net, cx.now, cx.figures);
        // Each round sends, finds the socket full, or leaves nothing held.
        while self.release_held() {
            self.flush(cx.net, cx.now, cx.figures);
        }
        self.shut(cx);
        self.arrive(key, cx.inbox);
        if self.phase == Phase::Open && self.driver.appetite() == Appetite::Close {
            self.phase = Phase::Finishing;
            // Who has sent more than was heard may go on sending.
            self.readable |= self.spill.take().is_some();
            if !self.out.is_empty() && self.own_deadline.is_none() {
                self.own_deadline = cx.now.checked_add(self.limits.write_timeout);
            }
        }
        if self.phase == Phase::Finishing && self.out.is_empty() && self.transport.begin_close() {
            // It has ended well by now, even if the peer has gone without waiting for our end.
            let cause = self.cause.take().unwrap_or_else(|| self.quiet_cause());
            self.cause = Some(cause);
            self.flush(cx.net, cx.now, cx.figures);
        }
        if self.opened {
            self.opened = false;
            self.announced = true;
            cx.inbox.deliver_open(key);
        }
        if self.is_relieved() {
            self.pressed = Pressed::No;
            cx.figures.relieved.add(1);
            cx.inbox.deliver_writable(key);
        }
        if self.cut {
            self.deliver_closed(key, cx);
            return Fate::Ends { abort: true };
        }
        let has_unsent = !self.out.is_empty() || self.transport.has_unsent();
        if self.is_client() && self.driver.appetite() == Appetite::Close {
            // No last words to protect: what the server still wants to know is of no use.
            self.deliver_closed(key, cx);
            return Fate::Ends { abort: has_unsent };
        }
        match self.phase {
            Phase::Finishing if !has_unsent => self.part(key, cx),
            Phase::Lingering if self.eof => Fate::Ends { abort: false },
            Phase::Open | Phase::Finishing | Phase::Lingering => Fate::Stays,
        }
    }

    /// Everything is said: leaves, or waits for the peer to have read it.
    fn part<N: Net<Socket = S>>(&mut self, key: ConnKey, cx: &mut Context<'_, N>) -> Fate {
        let rested = matches!(self.cause, Some(Cause::TimedOut(Deadline::Idle)));
        self.deliver_closed(key, cx);
        // A peer that we cannot tell has left already: there is nobody to wait for. Nor is there if it
        // sends nothing more, as then no reset can overtake our answer.
        let is_done = self.eof || rested || self.has_heard_all();
        if is_done || self.transport.shutdown_write(cx.net).is_err() {
            return Fate::Ends { abort: false };
        }
        self.phase = Phase::Lingering;
        self.own_deadline = cx.now.checked_add(self.limits.linger_timeout);
        Fate::Stays
    }

    /// Whether the peer has said that it sends nothing more, and nothing of it is unread: closing the
    /// socket then says the end as shutting our side would. Over TLS its `close_notify` is to come.
    fn has_heard_all(&self) -> bool {
        let Driver::Server(server) = &self.driver else {
            return false;
        };
        let is_plain = matches!(self.transport, Transport::Plain(_));
        is_plain && !self.readable && server.has_heard_all()
    }

    fn deliver_closed<N>(&mut self, key: ConnKey, cx: &mut Context<'_, N>) {
        let cause = self.cause.take().unwrap_or_else(|| self.quiet_cause());
        cx.figures.note_end(&cause);
        if core::mem::take(&mut self.announced) {
            cx.inbox.deliver_closed(key, cause);
        }
    }

    /// Why it ended if nothing went wrong.
    fn quiet_cause(&self) -> Cause {
        match &self.driver {
            Driver::WebSocket(websocket) if websocket.peer_close().is_none() => Cause::PeerGone,
            Driver::WebSocket(_) | Driver::Server(_) | Driver::Stream(_) => Cause::Agreed,
            Driver::Client(client) => match client.ending() {
                Ending::Agreed => Cause::Agreed,
                Ending::PeerGone => Cause::PeerGone,
                Ending::Refused(error) => Cause::Handshake(error),
            },
        }
    }

    /// The deadline that comes first.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // What a driver awaits cannot come before the two ends speak.
        let is_heard = self.phase == Phase::Open && !self.transport.is_handshaking();
        let driver = self.driver.deadline().filter(|_| is_heard);
        match (driver, self.own_deadline) {
            (Some(driver), Some(own)) => Some(driver.min(own)),
            (driver, own) => driver.or(own),
        }
    }

    /// Acts on deadlines that have passed.
    pub(super) fn handle_deadline(&mut self, key: ConnKey, now: Instant, inbox: &mut Inbox) {
        if self.own_deadline.is_some_and(|deadline| deadline <= now) {
            self.own_deadline = None;
            let missed = match self.phase {
                Phase::Lingering => Deadline::Close,
                Phase::Open if self.transport.is_handshaking() => Deadline::TlsHandshake,
                Phase::Open | Phase::Finishing => Deadline::Write,
            };
            return self.cut(Cause::TimedOut(missed));
        }
        if self.phase != Phase::Open || self.transport.is_handshaking() {
            return;
        }
        let is_full = self.is_swamped();
        match &mut self.driver {
            // It was we who did not listen. One that does not take our close frame is not excused.
            Driver::WebSocket(websocket)
                if self.held || is_full && websocket.accepts_messages() =>
            {
                return websocket.excuse_silence(now, &mut self.out);
            }
            Driver::Client(client) if self.held => return client.excuse_silence(now),
            Driver::Server(server) if self.held || is_full => server.excuse_silence(now),
            _ => {}
        }
        let (base, seen) = (inbox.used, inbox.log.events().len());
        if let Some(missed) = self
            .driver
            .handle_deadline(now, &mut inbox.log, &mut self.out)
        {
            self.blame(Cause::TimedOut(missed));
            // It had that time to read our close frame, too, and has not come as far as that.
            self.cut |= missed == Deadline::Close && !self.out.is_empty();
        }
        self.announced |= inbox.deliver(key, self.listener, base, seen);
    }

    /// Says goodbye in its protocol's way; for a drain.
    pub(super) fn begin_drain(&mut self, now: Instant) {
        // What may have arrived is read first, once: to a client that has sent its request, a
        // connection closed over it is a request lost.
        self.readable = true;
        self.parting = self.wants_input();
        match &mut self.driver {
            Driver::Server(_) if self.parting => {}
            Driver::Server(server) => server.begin_drain(),
            Driver::Client(client) => client.begin_drain(),
            // Its goodbye is the application's, which has the grace for it.
            Driver::Stream(_) => self.parting = false,
            Driver::WebSocket(websocket) => {
                let (code, reason) = (close_code::GOING_AWAY, b"server is shutting down");
                // One that is closing already needs no second word.
                let _closing = websocket.begin_close(code, reason, now, &mut self.out);
            }
        }
    }

    /// It ends at the next settling. The first cause counts.
    pub(super) fn cut(&mut self, cause: Cause) {
        self.cut = true;
        self.blame(cause);
    }

    /// Says why it ends, when it does. The first cause counts.
    pub(super) fn blame(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
    }

    /// Whether it ends at the next settling.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether it says goodbye after its next read.
    pub(super) fn is_parting(&self) -> bool {
        self.parting
    }

    pub(super) fn fail(&mut self, error: io::Error) {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match error.kind() {
            // Who asked something wants to know how it failed.
            _ if self.is_heard_out() => self.cut(Cause::Io(error)),
            BrokenPipe | ConnectionAborted | ConnectionReset => self.cut(Cause::PeerGone),
            _ => self.cut(Cause::Io(error)),
        }
    }
}
