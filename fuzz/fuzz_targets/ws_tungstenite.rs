//! A whole WebSocket connection beside tungstenite's, as either end: the same bytes, the same
//! messages, the same end; and what one of us writes, the other reads.
//!
//! Allowed differences from tungstenite 0.30. In all but the last, we are the stricter or the
//! earlier; each is checked to be the reason where it is claimed:
//! - a length not in its shortest form: refused here, read there (RFC 6455 §5.2);
//! - a close code that may not be sent: refused here, reported as 1002 there (§7.4.1, §7.4.2);
//! - input that breaks off: we refuse at the first byte that is wrong, tungstenite when the frame
//!   is whole (§8.1, §7.1.7);
//! - an announced length that exceeds the bound on a message: refused here at the header, there
//!   when the payload is read (§10.4);
//! - close code 1014, which IANA has registered since: taken here, reported as 1002 there
//!   (§7.4.2, §11.7).
//!
//! Not compared: which rule is named in a refusal, since a frame may break several; the number of
//! fragments, which only we bound; time, which tungstenite does not have.
#![no_main]

use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::websocket::{WsConn, WsSettings};
use hukilau_core::conn::{Appetite, Event, EventLog, Payload};
use hukilau_core::limits::Limits;
use hukilau_core::violation::Violation;
use hukilau_core::ws::{MessageKind, Role, close_code};
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const MESSAGE_BYTES_MAX: u32 = 300;

#[derive(Clone, Debug, PartialEq)]
enum Fact {
    Message(MessageKind, Vec<u8>),
    Pong(Vec<u8>),
    Closing(u16, Vec<u8>),
}

/// How an input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With a close frame.
    Whole,
    /// Without one: inside a frame or between two, tungstenite does not tell.
    BrokenOff,
    Refused,
}

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    for role in [Role::Server, Role::Client] {
        let whole: Range<usize> = 0..bytes.len();
        let (ours, verdict) = ours(role, bytes, std::slice::from_ref(&whole));
        let cuts = pieces(bytes.len(), &mut seed);
        assert_eq!(
            self::ours(role, bytes, &cuts),
            (ours.clone(), verdict),
            "{role:?}: the cut changed the meaning"
        );
        compare(role, bytes, ours, verdict);
    }
    let said = script(bytes);
    assert_eq!(read_by_us(&said), said, "tungstenite wrote, we read");
    assert_eq!(read_by_them(&said), said, "we wrote, tungstenite read");
});

/// A pipe's end: what the peer has sent, and what we send.
struct Pipe<'a> {
    incoming: &'a [u8],
    outgoing: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.incoming.read(into)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket(role: TheirRole, incoming: &[u8]) -> WebSocket<Pipe<'_>> {
    let pipe = Pipe {
        incoming,
        outgoing: Vec::new(),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MESSAGE_BYTES_MAX as usize))
        .max_frame_size(Some(MESSAGE_BYTES_MAX as usize));
    WebSocket::from_raw_socket(pipe, role, Some(config))
}

/// What we make of `bytes`, cut so.
fn ours(role: Role, bytes: &[u8], cuts: &[Range<usize>]) -> (Vec<Fact>, Option<Violation>) {
    let pool = BufferPool::default();
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: u32::MAX,
        ..Limits::default()
    };
    let (mut log, mut out) = (EventLog::default(), SendBuffer::new(&pool));
    let now = Instant::now();
    let mut conn = WsConn::new(Rc::new(WsSettings::new(role, &limits)), now, 7);
    let (mut facts, mut spill) = (Vec::new(), Vec::new());
    for cut in cuts {
        if conn.appetite() != Appetite::Read {
            break;
        }
        spill.extend_from_slice(&bytes[cut.clone()]);
        let received = conn.receive(&mut spill, now, &mut log, &mut out);
        for event in log.events() {
            let of = |payload: Payload| log.payload(payload, &spill).to_vec();
            facts.push(match *event {
                Event::Message { kind, payload } => Fact::Message(kind, of(payload)),
                Event::Pong { payload } => Fact::Pong(of(payload)),
                Event::Closing { code, reason } => Fact::Closing(code, of(reason)),
                other => panic!("no WebSocket logs {other:?}"),
            });
        }
        log.clear();
        out.clear();
        match received {
            Ok(used) => drop(spill.drain(..used)),
            Err(violation) => return (facts, Some(violation)),
        }
    }
    (facts, None)
}

/// What tungstenite makes of `bytes`.
fn theirs(role: Role, bytes: &[u8]) -> (Vec<Fact>, End) {
    let role = match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let (mut socket, mut facts) = (socket(role, bytes), Vec::new());
    loop {
        match socket.read() {
            Ok(message) => facts.extend(fact(message)),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (facts, End::BrokenOff);
            }
            Err(_) => return (facts, End::Refused),
        }
        // What follows a close frame means nothing (RFC 6455 §5.5.1).
        if let Some(Fact::Closing(..)) = facts.last() {
            return (facts, End::Whole);
        }
    }
}

/// A message of theirs as a fact; pings are answered and not told.
fn fact(message: Message) -> Option<Fact> {
    Some(match message {
        Message::Text(text) => Fact::Message(MessageKind::Text, text.as_bytes().to_vec()),
        Message::Binary(bytes) => Fact::Message(MessageKind::Binary, bytes.to_vec()),
        Message::Pong(bytes) => Fact::Pong(bytes.to_vec()),
        Message::Close(None) => Fact::Closing(close_code::NO_STATUS, Vec::new()),
        Message::Close(Some(close)) => {
            Fact::Closing(close.code.into(), close.reason.as_bytes().to_vec())
        }
        Message::Ping(_) | Message::Frame(_) => return None,
    })
}

/// Our verdict beside theirs, with the differences of the header.
fn compare(role: Role, bytes: &[u8], mut ours: Vec<Fact>, verdict: Option<Violation>) {
    let (mut theirs, their_end) = theirs(role, bytes);
    let context = format!("{role:?}: {verdict:?}, {their_end:?}");
    match verdict {
        None => {
            assert_ne!(their_end, End::Refused, "{context}");
            if let Some(Fact::Closing(1014, _)) = ours.last() {
                ours.pop();
                assert!(
                    matches!(theirs.pop(), Some(Fact::Closing(1002, _))),
                    "{context}"
                );
            }
        }
        // A control frame's length is too long by its form alone, which may hold a short one.
        Some(Violation::FrameLengthNotMinimal | Violation::ControlTooLong) => {
            theirs.truncate(ours.len());
        }
        Some(Violation::CloseCode) => {
            // They refuse too if the reason is not UTF-8.
            if theirs.len() > ours.len() {
                assert!(
                    matches!(theirs.pop(), Some(Fact::Closing(1002, _))),
                    "{context}"
                );
            }
        }
        Some(_) => assert_ne!(their_end, End::Whole, "{context}"),
    }
    assert_eq!(ours, theirs, "{context}");
}

/// Things to say: a byte each that says what, then its payload.
fn script(mut bytes: &[u8]) -> Vec<Fact> {
    let mut said = Vec::new();
    while let [what, rest @ ..] = bytes {
        let len = rest.len().min(usize::from(what >> 2));
        let (content, behind) = rest.split_at(len);
        bytes = behind;
        said.push(match what & 3 {
            0 | 1 => {
                let content = content.repeat(1 + usize::from(what & 1) * 2);
                let text = String::from_utf8_lossy(&content).into_owned().into_bytes();
                Fact::Message(MessageKind::Text, text)
            }
            2 => Fact::Message(MessageKind::Binary, content.to_vec()),
            _ => Fact::Pong(content.to_vec()),
        });
    }
    said.retain(|fact| match fact {
        Fact::Message(_, content) => content.len() <= MESSAGE_BYTES_MAX as usize,
        _ => true,
    });
    said.push(Fact::Closing(1000, b"done".to_vec()));
    said
}

/// tungstenite, a client, says it; we, a server, listen.
fn read_by_us(said: &[Fact]) -> Vec<Fact> {
    let mut socket = socket(TheirRole::Client, &[]);
    for fact in said {
        let message = match fact {
            Fact::Message(MessageKind::Text, text) => {
                let text = std::str::from_utf8(text).expect("made of characters");
                Message::text(text)
            }
            Fact::Message(MessageKind::Binary, bytes) => Message::binary(bytes.clone()),
            Fact::Pong(bytes) => Message::Pong(bytes.clone().into()),
            Fact::Closing(code, reason) => Message::Close(Some(CloseFrame {
                code: (*code).into(),
                reason: std::str::from_utf8(reason).expect("ours").into(),
            })),
        };
        // A pong is only queued with the next frame, and the last one queued wins: so flush.
        socket.send(message).expect("the pipe takes all");
    }
    let wire = &socket.get_ref().outgoing;
    let whole: Range<usize> = 0..wire.len();
    let (heard, verdict) = ours(Role::Server, wire, std::slice::from_ref(&whole));
    assert_eq!(verdict, None);
    heard
}

/// We, a client, say it; tungstenite, a server, listens.
fn read_by_them(said: &[Fact]) -> Vec<Fact> {
    let (pool, now) = (BufferPool::default(), Instant::now());
    let mut out = SendBuffer::new(&pool);
    let settings = WsSettings::new(Role::Client, &Limits::default());
    let mut conn = WsConn::new(Rc::new(settings), now, 7);
    for fact in said {
        match fact {
            Fact::Message(kind, content) => conn.send(*kind, content, &mut out),
            Fact::Closing(code, reason) => conn.begin_close(*code, reason, now, &mut out),
            // We send no pong unasked: a ping stands for it.
            Fact::Pong(content) => conn.ping(content, &mut out),
        }
        .expect("an open connection");
    }
    let wire: Vec<u8> = out.chunks().flatten().copied().collect();
    let (mut socket, mut heard) = (socket(TheirRole::Server, &wire), Vec::new());
    while !matches!(heard.last(), Some(Fact::Closing(..))) {
        match socket.read().expect("what we write is legal") {
            Message::Ping(content) => heard.push(Fact::Pong(content.to_vec())),
            other => heard.extend(fact(other)),
        }
    }
    heard
}
