//! The driver of one WebSocket connection, either end: messages, keep-alive, closing. RFC 6455.
//!
//! Sits among the drivers: bytes and a time in, events and bytes out. The frames are
//! `ws/message.rs`'s; what to do about them is decided here.
//!
//! ```text
//!          begin_close                    peer's close
//! Open ───────────────────▶ CloseSent ───────────────────▶ Closed (server) │ AwaitEof (client)
//!   └── peer's close ──▶ Leaving ── conclude ──▶ Closed (server) │ AwaitEof (client)
//!   └── violation ─────▶ Leaving ── conclude ──▶ Closed
//! any ── deadline, end of input ──▶ Closed                        AwaitEof ── end, linger ──▶ Closed
//! ```
//!
//! Invariants
//! - Nothing is written behind a close frame, and none is written twice.
//! - A close frame that answers the peer is written last ([`WsConn::conclude`]), so that answers to
//!   the messages before it still leave.
//! - Every silence meets a deadline that is set; closing always does.
//! - Once we have begun to close, messages and pongs are checked and dropped: an application that
//!   said goodbye hears only the goodbye it gets back. (WHATWG WebSockets §4 does the same.) With
//!   [`WsSettings::hears_out`] messages still reach it.
//! - Data that goes out never postpones a deadline: only what the peer sends shows that it lives.
//!
//! Not here: settings (`websocket/settings.rs`), the upgrade (`ws/handshake.rs`), high-water marks
//! of `out` (`reactor/`).

mod publication;
mod settings;

pub use publication::{Backpressure, Overflow, Publication};
pub use settings::WsSettings;

use super::{Appetite, Deadline, Event, EventLog, Misuse, Payload};
use crate::buffer::{SendBuffer, Span};
use crate::violation::Violation;
use crate::ws::deflate::{Deflate, DeflateParams};
use crate::ws::frame::{CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, encode_header};
use crate::ws::mask::{MaskKeys, apply_mask};
use crate::ws::message::{MessageDecoder, MessageRules, Received};
use crate::ws::utf8::is_utf8;
use crate::ws::{MessageKind, Opcode, Role, close_code};
use core::ops::Range;
use core::time::Duration;
use std::rc::Rc;
use std::time::Instant;

/// Unsent bytes from which on pings are no longer answered one by one: of those that one segment
/// holds, the last is (RFC 6455 §5.5.3). A peer that pings and does not read gains nothing by it.
const PONG_BACKLOG_BYTES: usize = 16 * 1024;

/// How far the connection's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Messages flow.
    Open,
    /// Messages flow; the peer was silent and has been pinged at `since`.
    Pinged,
    /// Our close frame left at `since`; the peer's is awaited.
    CloseSent,
    /// The peer broke a rule or closes, and our close frame goes out when the application has
    /// answered what came before.
    Leaving(Farewell),
    /// Both close frames are exchanged, the last at `since`, and the server closes first
    /// (RFC 6455 §7.1.1).
    AwaitEof,
    /// Nothing more is read.
    Closed,
}

/// The close frame that answers the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// It broke this rule.
    Violation(Violation),
    /// It closes, with this code.
    Echo(u16),
}

/// The machine of one WebSocket connection.
#[derive(Debug)]
pub struct WsConn {
    settings: Rc<WsSettings>,
    decoder: MessageDecoder,
    /// What few connections have.
    rare: Option<Box<Rare>>,
    /// When the peer last sent a byte.
    received_at: Instant,
    /// When the phase began.
    since: Instant,
    phase: Phase,
    peer_close: Option<u16>,
}

const _: () = assert!(size_of::<WsConn>() <= 88);

/// What a control frame tells the application; its bytes are where the frame's are.
enum Fact {
    Pong,
    /// The peer's close frame, with its code.
    Closing(u16),
}

/// State that most connections of a server do without.
#[derive(Debug, Default)]
struct Rare {
    /// A client's masking keys.
    mask_keys: Option<MaskKeys>,
    /// Where permessage-deflate was agreed.
    deflate: Option<Deflate>,
    /// What waits for a peer that is behind.
    held: publication::Held,
}

impl WsConn {
    /// An open connection: the upgrade is done.
    ///
    /// `mask_seed` must be unpredictable and of this connection alone where we are the client
    /// (RFC 6455 §10.3). A server never masks and may pass 0.
    pub fn new(settings: Rc<WsSettings>, now: Instant, mask_seed: u64) -> Self {
        let rare = (settings.role == Role::Client).then(|| {
            Box::new(Rare {
                mask_keys: Some(MaskKeys::new(mask_seed)),
                ..Rare::default()
            })
        });
        Self {
            settings,
            decoder: MessageDecoder::default(),
            rare,
            received_at: now,
            since: now,
            phase: Phase::Open,
            peer_close: None,
        }
    }

    /// The same connection with permessage-deflate as the handshake has agreed on it. RFC 7692.
    ///
    /// Nothing changes if the settings have none: then nothing can have been agreed.
    #[must_use]
    pub fn with_deflate(mut self, params: DeflateParams) -> Self {
        if let Some(settings) = &self.settings.deflate {
            let rare = self.rare.get_or_insert_default();
            rare.deflate = Some(Deflate::new(settings, params));
        }
        self
    }

    /// Receives bytes from the peer. Payload is consumed as it comes; of a header, at most 13 bytes
    /// are left, to be offered again with more behind them.
    ///
    /// # Errors
    /// What the peer broke. The appetite is `Conclude`, or `Close` if our close frame is out.
    pub fn receive(
        &mut self,
        segment: &mut [u8],
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Violation> {
        debug_assert!(self.phase != Phase::Closed, "receive after Appetite::Close");
        self.received_at = now;
        match self.phase {
            Phase::Pinged => self.phase = Phase::Open,
            // What follows the peer's close frame means nothing (RFC 6455 §5.5.1).
            Phase::AwaitEof | Phase::Leaving(_) | Phase::Closed => return Ok(segment.len()),
            Phase::Open | Phase::CloseSent => {}
        }
        let mut latest_ping = None;
        match self.receive_frames(segment, &mut latest_ping, log, out) {
            Ok(consumed) => {
                if let Some(ping) = latest_ping
                    && self.phase == Phase::Open
                {
                    self.write_control(Opcode::Pong, &segment[ping], out);
                }
                if self.phase != Phase::Open && self.phase != Phase::CloseSent {
                    self.since = now;
                }
                Ok(consumed)
            }
            Err(violation) => {
                self.fail(violation);
                Err(violation)
            }
        }
    }

    /// The peer has finished its side. Without a close frame from it, the end is abnormal:
    /// [`peer_close`](Self::peer_close) is none.
    pub fn receive_eof(&mut self, now: Instant, log: &mut EventLog) {
        // An unfinished message is not delivered, so there is nothing to log.
        let _ = log;
        self.since = now;
        self.end();
    }

    /// Acts on a deadline that has passed: pings a silent peer (none), or ends the connection
    /// because of the one it names. None also if nothing is due yet.
    pub fn handle_deadline(
        &mut self,
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Option<Deadline> {
        let _ = log;
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if matches!(self.phase, Phase::CloseSent | Phase::AwaitEof) {
            self.end();
            return Some(Deadline::Close);
        }
        if self.idle_deadline().is_some_and(|deadline| deadline <= now) {
            self.write_close(close_code::GOING_AWAY, b"idle for too long", out);
            self.end();
            return Some(Deadline::Idle);
        }
        if self.phase == Phase::Pinged && self.settings.pong_timeout.is_some() {
            self.write_close(close_code::INTERNAL_ERROR, b"no answer to a ping", out);
            self.end();
            return Some(Deadline::Ping);
        }
        self.write_control(Opcode::Ping, b"", out);
        self.phase = Phase::Pinged;
        self.since = now;
        None
    }

    /// Writes the close frame that answers the peer, behind what the application answered. Does
    /// nothing unless the appetite is `Conclude`.
    pub fn conclude(&mut self, now: Instant, out: &mut SendBuffer) {
        let Phase::Leaving(farewell) = self.phase else {
            return;
        };
        self.since = now;
        match farewell {
            Farewell::Violation(violation) => {
                let code = violation.close_code();
                self.write_close(code, violation.rule().as_bytes(), out);
                self.end();
            }
            Farewell::Echo(code) => {
                self.write_close(code, b"", out);
                self.phase = self.phase_after_both();
            }
        }
    }

    /// Counts silence from `now` on, because it was we who did not read: the application held the
    /// connection, or what it owes was not sent. To be called when the deadline passes meanwhile.
    ///
    /// If nothing waits to be sent it is pinged all the same: nobody will hear the pong, but a peer
    /// that has gone answers with a reset.
    pub fn excuse_silence(&mut self, now: Instant, out: &mut SendBuffer) {
        self.received_at = now;
        if self.phase == Phase::Pinged {
            self.phase = Phase::Open;
        }
        if out.is_empty() {
            // One that is closing is asked nothing.
            let _closing = self.ping(b"", out);
        }
    }

    /// Queues one whole message in one frame. RFC 6455 §5.6.
    ///
    /// # Errors
    /// [`Misuse::Closing`] once a close frame was sent; [`Misuse::NotUtf8`] for text that is not.
    #[inline]
    pub fn send(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        self.check_may_send()?;
        if kind == MessageKind::Text && !is_utf8(payload) {
            return Err(Misuse::NotUtf8);
        }
        let deflate = self.rare.as_mut().and_then(|rare| rare.deflate.as_mut());
        match deflate.and_then(|deflate| deflate.compress(payload, out.pool())) {
            Some(compressed) => self.write(kind.into(), true, &compressed, out),
            None => self.write(kind.into(), false, payload, out),
        }
        Ok(())
    }

    /// Queues the header of a message's frame, for the caller to send `payload` behind it from where
    /// it lies. `false`, and nothing is queued, where payload does not go out as it is: masked by a
    /// client, or compressed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_header(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        out: &mut SendBuffer,
    ) -> Result<bool, Misuse> {
        let is_changed = |rare: &Rare| rare.mask_keys.is_some() || rare.deflate.is_some();
        if self.rare.as_deref().is_some_and(is_changed) {
            return Ok(false);
        }
        self.check_may_send()?;
        if kind == MessageKind::Text && !is_utf8(payload) {
            return Err(Misuse::NotUtf8);
        }
        let mut header = [0; HEADER_BYTES_MAX];
        let payload_len = payload.len() as u64;
        let len = encode_header(&mut header, kind.into(), true, false, payload_len, None);
        out.append(&header[..len]);
        Ok(true)
    }

    /// Queues a ping; the answer comes as `Event::Pong`. No deadline waits for it: those are for
    /// the pings that the driver sends by itself. RFC 6455 §5.5.2.
    ///
    /// # Errors
    /// [`Misuse::Closing`] once a close frame was sent; [`Misuse::PingTooLong`] above 125 bytes.
    pub fn ping(&mut self, payload: &[u8], out: &mut SendBuffer) -> Result<(), Misuse> {
        self.check_may_send()?;
        if payload.len() > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(Misuse::PingTooLong);
        }
        self.write_control(Opcode::Ping, payload, out);
        Ok(())
    }

    /// Begins the closing handshake. RFC 6455 §7.1.2.
    ///
    /// `close_code::NO_STATUS` sends a frame without a code. What the peer still sends is read until
    /// its own close frame, at most for `linger_timeout`, and dropped unless the settings say that
    /// we hear it out.
    ///
    /// # Errors
    /// [`Misuse::Closing`] if a close frame was sent before; [`Misuse::InvalidClose`] for a code
    /// that may not be sent, and for a reason that is not UTF-8, is longer than 123 bytes, or
    /// stands without a code.
    pub fn begin_close(
        &mut self,
        code: u16,
        reason: &[u8],
        now: Instant,
        out: &mut SendBuffer,
    ) -> Result<(), Misuse> {
        self.check_open()?;
        let code_is_valid =
            close_code::may_be_sent(code) || (code == close_code::NO_STATUS && reason.is_empty());
        if !code_is_valid || reason.len() > CLOSE_REASON_BYTES_MAX || !is_utf8(reason) {
            return Err(Misuse::InvalidClose);
        }
        self.release_held(usize::MAX, out);
        self.write_close(code, reason, out);
        self.phase = Phase::CloseSent;
        self.since = now;
        Ok(())
    }

    /// Whether more input is wanted. Never `Pause`: the reactor knows when `out` is too full.
    pub fn appetite(&self) -> Appetite {
        match self.phase {
            Phase::Closed => Appetite::Close,
            Phase::Leaving(_) => Appetite::Conclude,
            Phase::Open | Phase::Pinged | Phase::CloseSent | Phase::AwaitEof => Appetite::Read,
        }
    }

    /// When [`handle_deadline`](Self::handle_deadline) has something to do, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        let settings = &self.settings;
        let keep_alive = match self.phase {
            Phase::Leaving(_) | Phase::Closed => return None,
            Phase::CloseSent | Phase::AwaitEof => {
                return self.since.checked_add(settings.linger_timeout);
            }
            Phase::Open => after(self.received_at, settings.ping_interval),
            Phase::Pinged => after(self.since, settings.pong_timeout.or(settings.ping_interval)),
        };
        keep_alive.into_iter().chain(self.idle_deadline()).min()
    }

    /// The code of the peer's close frame, once it came; `close_code::NO_STATUS` if it held none.
    pub fn peer_close(&self) -> Option<u16> {
        self.peer_close
    }

    /// Receives frame after frame; a ping that is to be answered only if it is the last of the
    /// segment is left in `latest_ping`.
    fn receive_frames(
        &mut self,
        segment: &mut [u8],
        latest_ping: &mut Option<Range<usize>>,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Violation> {
        let rules = MessageRules {
            role: self.settings.role,
            message_bytes_max: self.settings.message_bytes_max,
            fragments_max: self.settings.fragments_max,
        };
        let mut at = 0;
        while at < segment.len() && log.take_step() {
            let deflate = self.rare.as_mut().and_then(|rare| rare.deflate.as_mut());
            let next = self
                .decoder
                .next(segment, &mut at, rules, out.pool(), deflate)?;
            let Some(received) = next else {
                return Ok(at);
            };
            match received {
                Received::Message { .. } | Received::Assembled { .. }
                    if self.phase != Phase::Open && !self.settings.hears_out => {}
                Received::Fragment => {}
                Received::Message { kind, range } => {
                    let payload = Payload::Segment(Span::new(range));
                    log.push(Event::Message { kind, payload });
                }
                Received::Assembled { kind, bytes } => {
                    let payload = log.keep(bytes);
                    log.push(Event::Message { kind, payload });
                }
                Received::Control { opcode, range } => {
                    if opcode == Opcode::Ping && out.len() >= PONG_BACKLOG_BYTES {
                        *latest_ping = Some(range);
                        continue;
                    }
                    match self.receive_control(opcode, &segment[range.clone()], out)? {
                        Some(Fact::Pong) => log.push(Event::Pong {
                            payload: Payload::Segment(Span::new(range)),
                        }),
                        Some(Fact::Closing(code)) => log.push(Event::Closing {
                            code,
                            reason: Payload::Segment(Span::new(
                                range.end.min(range.start + 2)..range.end,
                            )),
                        }),
                        None => {}
                    }
                }
                Received::AssembledControl { opcode, mut bytes } => {
                    match self.receive_control(opcode, &bytes, out)? {
                        Some(Fact::Pong) => {
                            let payload = log.keep(bytes);
                            log.push(Event::Pong { payload });
                        }
                        Some(Fact::Closing(code)) => {
                            let code_len = bytes.len().min(2);
                            bytes.drain(..code_len);
                            let reason = log.keep(bytes);
                            log.push(Event::Closing { code, reason });
                        }
                        None => {}
                    }
                }
            }
            if self.peer_close.is_some() {
                return Ok(segment.len());
            }
        }
        Ok(at)
    }

    /// Acts on one control frame and says what the application is to know of it.
    fn receive_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut SendBuffer,
    ) -> Result<Option<Fact>, Violation> {
        let open = self.phase == Phase::Open;
        match opcode {
            Opcode::Ping if open => {
                self.write_control(Opcode::Pong, payload, out);
                Ok(None)
            }
            Opcode::Pong if open => Ok(Some(Fact::Pong)),
            Opcode::Close => {
                let code = check_close(payload)?;
                self.peer_close = Some(code);
                self.decoder.reset();
                self.phase = if open {
                    Phase::Leaving(Farewell::Echo(code))
                } else {
                    self.phase_after_both()
                };
                Ok(Some(Fact::Closing(code)))
            }
            _ => Ok(None),
        }
    }

    /// Fails the connection, which says why unless our last word is said. RFC 6455 §7.1.7.
    fn fail(&mut self, violation: Violation) {
        self.decoder.reset();
        self.phase = match self.phase {
            Phase::Open | Phase::Pinged => Phase::Leaving(Farewell::Violation(violation)),
            Phase::CloseSent | Phase::Leaving(_) | Phase::AwaitEof | Phase::Closed => Phase::Closed,
        };
    }

    /// Where the exchange of close frames leads: the server closes first (RFC 6455 §7.1.1).
    fn phase_after_both(&self) -> Phase {
        match self.settings.role {
            Role::Server => Phase::Closed,
            Role::Client => Phase::AwaitEof,
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Closed;
        self.decoder.reset();
    }

    fn check_open(&self) -> Result<(), Misuse> {
        match self.phase {
            Phase::Open | Phase::Pinged => Ok(()),
            _ => Err(Misuse::Closing),
        }
    }

    /// Whether messages may be sent: our close frame is still to come.
    pub fn accepts_messages(&self) -> bool {
        self.check_may_send().is_ok()
    }

    /// As [`check_open`](Self::check_open), or our close frame is still to come.
    fn check_may_send(&self) -> Result<(), Misuse> {
        match self.phase {
            Phase::Leaving(_) => Ok(()),
            _ => self.check_open(),
        }
    }

    fn idle_deadline(&self) -> Option<Instant> {
        after(self.received_at, self.settings.idle_timeout)
    }

    /// Queues a close frame; `close_code::NO_STATUS` makes it an empty one.
    fn write_close(&mut self, code: u16, reason: &[u8], out: &mut SendBuffer) {
        if code == close_code::NO_STATUS {
            return self.write_control(Opcode::Close, b"", out);
        }
        let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
        let len = 2 + reason.len();
        payload[..2].copy_from_slice(&code.to_be_bytes());
        payload[2..len].copy_from_slice(reason);
        self.write_control(Opcode::Close, &payload[..len], out);
    }

    /// Queues one whole control frame.
    fn write_control(&mut self, opcode: Opcode, payload: &[u8], out: &mut SendBuffer) {
        self.write(opcode, false, payload, out);
    }

    /// Queues one whole frame: header and payload in one reservation.
    #[inline]
    fn write(&mut self, opcode: Opcode, compressed: bool, payload: &[u8], out: &mut SendBuffer) {
        let keys = self.rare.as_mut().and_then(|rare| rare.mask_keys.as_mut());
        let key = keys.map(MaskKeys::next_key);
        let mut header = [0; HEADER_BYTES_MAX];
        let payload_len = payload.len() as u64;
        let len = encode_header(&mut header, opcode, true, compressed, payload_len, key);
        let tail = out.tail(len + payload.len());
        tail.extend_from_slice(&header[..len]);
        let start = tail.len();
        tail.extend_from_slice(payload);
        if let Some(key) = key {
            apply_mask(&mut tail[start..], key, 0);
        }
    }
}

/// The most a close frame may carry beside its code.
const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// The code of a close frame with this payload. RFC 6455 §5.5.1, §7.4.
fn check_close(payload: &[u8]) -> Result<u16, Violation> {
    match payload {
        [] => Ok(close_code::NO_STATUS),
        [_] => Err(Violation::ClosePayload),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !close_code::may_be_sent(code) {
                return Err(Violation::CloseCode);
            }
            if !is_utf8(reason) {
                return Err(Violation::CloseReason);
            }
            Ok(code)
        }
    }
}

/// `timeout` after `start`; none if there is no timeout, or no such instant.
fn after(start: Instant, timeout: Option<Duration>) -> Option<Instant> {
    start.checked_add(timeout?)
}

#[cfg(test)]
mod tests;
