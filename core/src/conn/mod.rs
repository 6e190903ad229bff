//! Drivers: the sans-IO machine of one connection. Bytes and a time in, events and bytes out.
//!
//! Sits above the protocol layer and below everything that knows a socket, so that a fuzzer can
//! drive a whole connection. Three worlds do: the reactor over sockets, the simulation, the fuzzer.
//!
//! A driver has four kinds of method, after quinn-proto:
//! - A. questions: [`Driver::appetite`], [`Driver::deadline`];
//! - B. input: [`Driver::receive`], [`Driver::receive_eof`], [`Driver::handle_deadline`];
//! - C. commands: [`Driver::conclude`], and methods of the variant: `respond`, `send`, `begin_close`;
//! - D. output: what B and C appended to the [`EventLog`] and the `SendBuffer`.
//!
//! **The driving invariant.** After any call of kind B or C, ask A and flush the `SendBuffer`
//! before the next input. Time never goes back. After `Appetite::Close` or an `Err`, no further
//! `receive`. Debug builds assert it.
//!
//! Not here: sockets, keys, timers that fire by themselves (`reactor/`).

mod body;
pub mod client;
mod last_head;
mod pipeline;
mod refusals;
mod response;
mod server;
mod stream;
pub mod websocket;

pub use client::{Ask, AskBody, ClientConn, OPENING_ENTROPY_BYTES, WsOpening};
pub use refusals::{RefusalPage, Refusals, Refused};
pub use response::{Response, SharedDate};
pub use server::{Accepted, ServerConn, ServerSettings};
pub use stream::StreamConn;
pub use websocket::{Backpressure, Overflow, Publication, WsConn, WsSettings};

/// Why a WebSocket handshake fails.
pub use crate::ws::handshake::HandshakeError;

use crate::buffer::{PooledBuf, SendBuffer, Span};
use crate::http1::{self, Field, Request, RequestHead, ResponseHead};
use crate::violation::Violation;
use crate::ws::MessageKind;
use core::ops::Range;
use std::time::Instant;

/// Numbers a request on its connection, and so its answer (RFC 9110: one exchange).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchange(pub u32);

/// Where an event's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the segment just received, decoded in place.
    Segment(Span),
    /// In a buffer of the log, put together from several segments.
    Assembled(u32),
}

impl Payload {
    /// No bytes.
    pub const EMPTY: Self = Self::Segment(Span { start: 0, len: 0 });
}

/// A fact from a driver. Plain data: the bytes it speaks of are in the segment or in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The head of a request arrived whole. `Body` and `End` follow if it has a body.
    Request {
        /// Which request of the connection.
        exchange: Exchange,
        /// Index of its head in the log.
        head: u32,
        /// Offset of the head's first byte in the segment.
        at: u32,
    },
    /// The final head of a response arrived whole. `Body` and `End` follow if it has a body.
    Response {
        /// Which request of ours it answers.
        exchange: Exchange,
        /// Index of its head in the log.
        head: u32,
        /// Offset of the head's first byte in the segment.
        at: u32,
    },
    /// Bytes of a body; all of them at once where bodies are collected.
    Body {
        /// Whose body.
        exchange: Exchange,
        /// The bytes.
        payload: Payload,
    },
    /// The body is complete.
    End {
        /// Whose body.
        exchange: Exchange,
    },
    /// One whole WebSocket message.
    Message {
        /// Text is known to be UTF-8.
        kind: MessageKind,
        /// The message.
        payload: Payload,
    },
    /// A pong that answers a ping of ours, or comes unasked. Pings are answered by the driver.
    Pong {
        /// At most 125 bytes.
        payload: Payload,
    },
    /// The peer began the closing handshake, or answered ours.
    Closing {
        /// As sent; `close_code::NO_STATUS` if the frame was empty.
        code: u16,
        /// UTF-8, at most 123 bytes.
        reason: Payload,
    },
    /// Bytes of a stream, as they came.
    Bytes {
        /// At least one byte.
        payload: Payload,
    },
    /// The peer of a stream has finished: it sends nothing more, and may go on receiving.
    Finished,
}

const _: () = assert!(size_of::<Event>() <= 24);

/// The events of one turn with what they refer to. Cleared and reused, so that a warm one does
/// not allocate.
#[derive(Debug, Default)]
pub struct EventLog {
    events: Vec<Event>,
    /// Heads of the requests, by `Event::Request::head`.
    pub(crate) heads: Vec<RequestHead>,
    /// Heads of the responses, by `Event::Response::head`.
    responses: Vec<ResponseHead>,
    /// Fields of all heads; each head knows its range.
    pub(crate) fields: Vec<Field>,
    /// Payloads that did not fit one segment, by `Payload::Assembled`.
    assembled: Vec<PooledBuf>,
    /// Steps taken since it was cleared.
    steps: u64,
    /// At which of them drivers stop, if at any.
    steps_end: Option<u64>,
    /// One has stopped there.
    has_stopped: bool,
}

impl EventLog {
    /// Adds `event`.
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Keeps an assembled payload and says how an event refers to it.
    pub fn keep(&mut self, bytes: PooledBuf) -> Payload {
        // One turn logs far fewer than 2^32 payloads: each costs at least a byte of the area.
        let index = u32::try_from(self.assembled.len()).unwrap_or(u32::MAX);
        self.assembled.push(bytes);
        Payload::Assembled(index)
    }

    /// Adds the request just parsed from offset `at` of the segment.
    pub(crate) fn push_request(&mut self, exchange: Exchange, head: RequestHead, at: usize) {
        // A turn's heads and its segment are far fewer than 2^32.
        let index = u32::try_from(self.heads.len()).unwrap_or(u32::MAX);
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.heads.push(head);
        self.events.push(Event::Request {
            exchange,
            head: index,
            at,
        });
    }

    /// Adds the response just parsed from offset `at` of the segment.
    pub(crate) fn push_response(&mut self, exchange: Exchange, head: ResponseHead, at: usize) {
        let index = u32::try_from(self.responses.len()).unwrap_or(u32::MAX);
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.responses.push(head);
        self.events.push(Event::Response {
            exchange,
            head: index,
            at,
        });
    }

    /// Drops the fields of a head that is not logged after all: the last ones parsed.
    pub(crate) fn forget_fields(&mut self, fields: &Range<u32>) {
        self.fields.truncate(fields.start as usize);
    }

    /// A view of a head that is not logged yet and begins `bytes`.
    pub(crate) fn view<'a>(&'a self, head: &'a RequestHead, bytes: &'a [u8]) -> Request<'a> {
        let fields = head.fields.start as usize..head.fields.end as usize;
        let bytes = Span {
            start: 0,
            len: head.len,
        }
        .of(bytes);
        Request::new(head, bytes, self.fields.get(fields).unwrap_or_default())
    }

    /// As [`view`](Self::view), of a response.
    pub(crate) fn view_response<'a>(
        &'a self,
        head: &'a ResponseHead,
        bytes: &'a [u8],
    ) -> http1::Response<'a> {
        let fields = head.fields.start as usize..head.fields.end as usize;
        let bytes = Span {
            start: 0,
            len: head.len,
        }
        .of(bytes);
        http1::Response::new(head, bytes, self.fields.get(fields).unwrap_or_default())
    }

    /// The events so far, first to last.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The bytes `payload` names, given the segment its event was logged for.
    pub fn payload<'a>(&'a self, payload: Payload, segment: &'a [u8]) -> &'a [u8] {
        match payload {
            Payload::Segment(span) => span.of(segment),
            Payload::Assembled(index) => self
                .assembled
                .get(index as usize)
                .map_or(&[], |bytes| bytes.as_slice()),
        }
    }

    /// The request whose head is number `head` and began at offset `at` of `segment`.
    pub fn request<'a>(&'a self, head: u32, at: u32, segment: &'a [u8]) -> Option<Request<'a>> {
        let head = self.heads.get(head as usize)?;
        let bytes = Span {
            start: at,
            len: head.len,
        }
        .of(segment);
        let fields = self
            .fields
            .get(head.fields.start as usize..head.fields.end as usize)?;
        Some(Request::new(head, bytes, fields))
    }

    /// The response whose head is number `head` and began at offset `at` of `segment`.
    pub fn response<'a>(
        &'a self,
        head: u32,
        at: u32,
        segment: &'a [u8],
    ) -> Option<http1::Response<'a>> {
        let head = self.responses.get(head as usize)?;
        let bytes = Span {
            start: at,
            len: head.len,
        }
        .of(segment);
        let fields = head.fields.start as usize..head.fields.end as usize;
        Some(http1::Response::new(head, bytes, self.fields.get(fields)?))
    }

    /// Bounds the next `receive` to `count` steps: what is done about one head, one chunk or other
    /// piece of a body, one frame. A driver that would need more leaves the rest of its input, as if
    /// it paused. Without a call of this there is no bound.
    pub fn allow_steps(&mut self, count: u16) {
        self.steps_end = Some(self.steps + u64::from(count));
        self.has_stopped = false;
    }

    /// Whether a driver stopped for want of steps since they were last allowed.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Steps taken since the log was cleared: how much work its input was, however few its bytes.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step, if one is left.
    pub(crate) fn take_step(&mut self) -> bool {
        if self.steps_end == Some(self.steps) {
            self.has_stopped = true;
            return false;
        }
        self.steps += 1;
        true
    }

    /// Forgets everything, keeps the memory. Assembled payloads go back to their pool.
    pub fn clear(&mut self) {
        self.events.clear();
        self.heads.clear();
        self.responses.clear();
        self.fields.clear();
        self.assembled.clear();
        self.steps = 0;
        self.steps_end = None;
        self.has_stopped = false;
    }
}

/// The machine of one connection, whichever protocol it speaks now.
#[derive(Debug)]
pub enum Driver {
    /// An HTTP/1.1 server connection.
    Server(ServerConn),
    /// An HTTP/1.1 client connection. Boxed: a server has far more connections than a client, and
    /// they are to stay small.
    Client(Box<ClientConn>),
    /// A WebSocket, at either end.
    WebSocket(WsConn),
    /// Bytes without a protocol of ours, at either end.
    Stream(StreamConn),
}

impl Driver {
    /// What is answered without TLS to a request that came without TLS where there should be some.
    pub const PLAIN_HTTP_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
        Content-Type: text/plain\r\nContent-Length: 44\r\nConnection: close\r\n\r\n\
        This port speaks HTTPS; the request did not.";

    /// What is said to a request that came without TLS where there should be some: nothing unless a
    /// server is asked, and where its [`Refusals`] are silent about 497.
    pub fn plain_http_refusal(&self) -> &'static [u8] {
        match self {
            Self::Server(server) if server.answers_plain_http() => Self::PLAIN_HTTP_REFUSAL,
            _ => b"",
        }
    }

    /// Says that there is no room for this connection, on which nothing has been read: a server of
    /// HTTP answers 503, in its listener's words; others have no word for it.
    pub fn turn_away(&mut self, out: &mut SendBuffer) {
        if let Self::Server(server) = self {
            server.turn_away(out);
        }
    }

    /// Consumes from the front of `segment`; logs events, queues replies in `out`. What is left
    /// must be offered again, with more behind it unless it [stopped](EventLog::has_stopped) for want
    /// of steps.
    ///
    /// # Errors
    /// The rule the peer broke. The refusal follows what is still owed; the
    /// [`appetite`](Self::appetite) says when to close.
    pub fn receive(
        &mut self,
        segment: &mut [u8],
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<usize, Violation> {
        match self {
            Self::Server(server) => server.receive(segment, now, log, out),
            Self::Client(client) => client.receive(segment, now, log, out),
            Self::WebSocket(websocket) => websocket.receive(segment, now, log, out),
            Self::Stream(stream) => Ok(stream.receive(segment, log)),
        }
    }

    /// The peer will send nothing more; or, if `truncated`, someone may have kept the rest from
    /// us, and the end itself means nothing.
    ///
    /// # Errors
    /// [`Violation::Incomplete`] if it stopped inside an HTTP message.
    pub fn receive_eof(
        &mut self,
        now: Instant,
        truncated: bool,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Result<(), Violation> {
        match self {
            Self::Client(client) if truncated => client.receive_truncation(log, out),
            Self::Client(client) => client.receive_eof(log, out),
            // Requests and frames have ends of their own, which only a response may lack.
            Self::Server(server) => server.receive_eof(out),
            Self::WebSocket(websocket) => {
                websocket.receive_eof(now, log);
                Ok(())
            }
            Self::Stream(stream) => {
                stream.receive_eof(truncated, log);
                Ok(())
            }
        }
    }

    /// Acts on the deadline that has passed: `None` if none has, or if acting on it (a ping) was
    /// enough; else the connection closes because of it.
    pub fn handle_deadline(
        &mut self,
        now: Instant,
        log: &mut EventLog,
        out: &mut SendBuffer,
    ) -> Option<Deadline> {
        match self {
            Self::Server(server) => server.handle_deadline(now, out),
            Self::Client(client) => client.handle_deadline(now),
            Self::WebSocket(websocket) => websocket.handle_deadline(now, log, out),
            Self::Stream(_) => None,
        }
    }

    /// Says our last word, behind what the application has answered by now. Does nothing unless
    /// the appetite is `Conclude`.
    pub fn conclude(&mut self, now: Instant, out: &mut SendBuffer) {
        match self {
            Self::Server(_) | Self::Client(_) | Self::Stream(_) => {}
            Self::WebSocket(websocket) => websocket.conclude(now, out),
        }
    }

    /// What it wants next.
    pub fn appetite(&self) -> Appetite {
        match self {
            Self::Server(server) => server.appetite(),
            Self::Client(client) => client.appetite(),
            Self::WebSocket(websocket) => websocket.appetite(),
            Self::Stream(stream) => stream.appetite(),
        }
    }

    /// When it wants [`handle_deadline`](Self::handle_deadline) to be called.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Server(server) => server.deadline(),
            Self::Client(client) => client.deadline(),
            Self::WebSocket(websocket) => websocket.deadline(),
            // How long silence may last is for the application to say.
            Self::Stream(_) => None,
        }
    }
}

/// What a driver wants of the one who drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// More input.
    Read,
    /// No input for now: the application is behind, or what we owe is not sent yet.
    Pause,
    /// No more input for now: let the application answer what it was told, then
    /// [`conclude`](Driver::conclude).
    Conclude,
    /// No more input ever: flush, then close so that the peer can read our last words.
    Close,
}

/// The deadlines a connection may miss, for `Cause::TimedOut` and for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// A name was not resolved in time: `DialConfig::resolve_timeout`.
    Resolve,
    /// No address took our connection in time: `DialConfig::connect_timeout`.
    Connect,
    /// Not a byte of a response came: `Limits::response_timeout`.
    FirstByte,
    /// A head was begun and not finished: `Limits::head_timeout`, or for a response
    /// `Limits::response_timeout`.
    Head,
    /// A body stopped coming: `Limits::body_timeout`.
    Body,
    /// Nothing happened between exchanges, or on a WebSocket: `idle_timeout`.
    Idle,
    /// The peer does not take what we send: `Limits::write_timeout`.
    Write,
    /// The peer did not finish its side of closing: `Limits::linger_timeout`.
    Close,
    /// The application did not answer an upgrade, or the server did not answer ours:
    /// `Limits::handshake_timeout`.
    Handshake,
    /// No pong came for our ping.
    Ping,
    /// The two ends did not agree on TLS in time: `Limits::tls_handshake_timeout`.
    TlsHandshake,
}

/// Something the *caller* broke. Never closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// The connection has ended; scripts race with peers, so expect it.
    Gone,
    /// The exchange has been answered already, or never was.
    AlreadyAnswered,
    /// Another exchange is under way on the connection.
    Busy,
    /// The connection is still being made: `What::Connected` will tell.
    NotConnected,
    /// Only the other end of such a connection may do this: a client asks, a server answers.
    WrongRole,
    /// There are `Limits::connections_max` connections already.
    TooManyConnections,
    /// The limits of a new connection contradict each other.
    Limits,
    /// What is to be connected to, or looked up, is no name, no address and no path.
    InvalidHost,
    /// The connection speaks something else.
    NotAWebSocket,
    /// The connection speaks a protocol of ours.
    NotAStream,
    /// The connection, or the exchange, is no upgrade to WebSocket.
    NotAnUpgrade,
    /// We have begun to close, or have finished: nothing may be sent behind that.
    Closing,
    /// The status lies outside 200 to 599.
    InvalidStatus,
    /// A field name has a byte outside `tchar`, a value a control byte, or the field is one that
    /// the driver writes itself (`Content-Length`, `Transfer-Encoding`, `Connection`).
    InvalidField,
    /// A close code that may not be sent, or a reason over 123 bytes or not UTF-8.
    InvalidClose,
    /// A ping payload over 125 bytes.
    PingTooLong,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A topic's name is empty or longer than `Limits::topic_bytes_max`.
    InvalidTopic,
    /// The connection has `Limits::topics_per_connection_max` subscriptions.
    TooManyTopics,
    /// More or fewer body bytes than the announced length.
    LengthMismatch,
}

impl core::fmt::Display for Misuse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Gone => "the connection has ended",
            Self::AlreadyAnswered => "the request has been answered already",
            Self::Busy => "another request is under way",
            Self::NotConnected => "the connection is still being made",
            Self::WrongRole => "only the other end of the connection may do this",
            Self::TooManyConnections => "too many connections",
            Self::Limits => "the limits contradict each other",
            Self::InvalidHost => "the host is neither a name nor an address",
            Self::NotAWebSocket => "the connection is not a WebSocket",
            Self::NotAStream => "the connection is not a raw stream",
            Self::NotAnUpgrade => "the request does not ask for a WebSocket",
            Self::Closing => "our side is closing",
            Self::InvalidStatus => "the status must lie between 200 and 599",
            Self::InvalidField => "a header has an invalid name or value",
            Self::InvalidClose => "the close code or reason may not be sent",
            Self::PingTooLong => "a ping carries at most 125 bytes",
            Self::NotUtf8 => "text must be valid UTF-8",
            Self::InvalidTopic => "a topic's name is empty or too long",
            Self::TooManyTopics => "the connection is subscribed to too many topics",
            Self::LengthMismatch => "the body's length differs from the announced one",
        })
    }
}

impl core::error::Error for Misuse {}

/// Whether to go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// There is room.
    Low,
    /// More than `Limits::out_bytes_high` bytes wait: stop until `What::Writable`.
    High,
    /// The message was dropped: the peer is behind, and `Overflow::Drop` was asked for.
    Dropped,
}
