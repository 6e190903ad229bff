//! The operations: what each request, each message and each new connection passes.
//!
//! Each is prepared once, checks its own result, and is then a function to call again and again. All
//! are warm: buffers have their size, pools are filled.
//!
//! Not here: counting (`main.rs`).

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use hukilau_core::Reactor;
use hukilau_core::buffer::{BufferPool, SendBuffer};

use hukilau_core::conn::websocket::{WsConn, WsSettings};
use hukilau_core::conn::{
    Event, EventLog, Exchange, Refusals, Response, ServerConn, ServerSettings, SharedDate,
};
use hukilau_core::http1::Method;
use hukilau_core::http1::chunked::{ChunkedDecoder, Step};
use hukilau_core::http1::parse::{HeadProgress, parse_request, parse_response};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::ServerConfig;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::deflate::{DeflateOffer, DeflateSettings};
use hukilau_core::ws::extension::extensions;
use hukilau_core::ws::mask::apply_mask;
use hukilau_core::ws::{MessageKind, Role};

use crate::inputs;

/// Prepared work.
type Work = Box<dyn FnMut()>;

/// One line of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often it is counted: enough that what happens rarely does not show.
    pub(crate) times: u32,
    pub(crate) prepare: fn() -> Work,
}

/// All of them.
pub(crate) const OPERATIONS: [Operation; 12] = [
    operation("request head, 35 B", 10_000, || request_head(0)),
    operation("request head, browser", 10_000, || request_head(1)),
    operation("request head, cookies", 10_000, || request_head(2)),
    operation("response head, page", 10_000, response_head),
    operation("chunked body, 16 chunks of 256 B", 10_000, chunked_body),
    operation("GET through the connection", 5_000, get),
    operation("WebSocket handshake", 2_000, handshake),
    operation("text message of 32 B, echoed", 5_000, || echo(32)),
    operation("text message of 1 KiB, echoed", 5_000, || echo(1024)),
    operation("message of 1 KiB, inflated", 1_000, inflate),
    operation("message of 1 KiB, deflated", 1_000, deflate),
    operation("GET through reactor and socket", 1_000, get_over_socket),
];

const fn operation(name: &'static str, times: u32, prepare: fn() -> Work) -> Operation {
    Operation {
        name,
        times,
        prepare,
    }
}

fn request_head(number: usize) -> Work {
    let input = inputs::all().swap_remove(number);
    let (limits, mut fields) = (Limits::default(), Vec::with_capacity(100));
    Box::new(move || {
        fields.clear();
        let (mut progress, head) = (HeadProgress::default(), black_box(&input.head));
        let parsed = parse_request(head, &mut progress, &limits, &mut fields);
        assert!(matches!(parsed, Ok(Some(_))), "{}: {parsed:?}", input.name);
        assert_eq!(fields.len(), input.fields);
    })
}

fn response_head() -> Work {
    let head = inputs::responses().swap_remove(1).head;
    let (limits, mut fields) = (Limits::default(), Vec::with_capacity(100));
    Box::new(move || {
        fields.clear();
        let (mut progress, input) = (HeadProgress::default(), black_box(&head));
        let parsed = parse_response(input, &mut progress, Method::Get, &limits, &mut fields);
        assert!(matches!(parsed, Ok(Some(_))), "{parsed:?}");
    })
}

fn chunked_body() -> Work {
    let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
    let body = format!("{}0\r\n\r\n", chunk.repeat(16)).into_bytes();
    Box::new(move || {
        let mut decoder = ChunkedDecoder::new(Limits::default().chunk_framing_bytes_max);
        let (mut rest, mut content) = (black_box(body.as_slice()), 0);
        loop {
            match decoder.decode(rest).expect("it is well-formed") {
                Step::Data { consumed, data } => {
                    content += data.len();
                    rest = &rest[consumed..];
                }
                Step::NeedMore { consumed } => rest = &rest[consumed..],
                Step::End { .. } => break,
            }
        }
        assert_eq!(content, 4096);
    })
}

/// An origin for deadlines, which nothing here reaches.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to make an Instant"
)]
fn now() -> Instant {
    Instant::now()
}

fn server_settings() -> Rc<ServerSettings> {
    Rc::new(ServerSettings {
        limits: Rc::new(Limits::default()),
        date: Rc::new(SharedDate::new(*b"Sun, 06 Nov 1994 08:49:37 GMT")),
        collect_bodies: true,
        websocket: true,
        refusals: Refusals::default(),
    })
}

/// The request that the log holds.
fn asked(log: &EventLog) -> Exchange {
    match log.events() {
        [Event::Request { exchange, .. }] => *exchange,
        other => panic!("one request was expected: {other:?}"),
    }
}

const HELLO: Response<'static> = Response {
    status: 200,
    fields: &[(b"Content-Type", b"text/plain")],
    body: b"Hello, World!",
};

fn get() -> Work {
    let mut request = inputs::all().swap_remove(0).head;
    let mut out = SendBuffer::new(&BufferPool::default());
    let (now, mut log) = (now(), EventLog::default());
    let mut conn = ServerConn::new(server_settings(), now);
    Box::new(move || {
        log.clear();
        let used = conn.receive(black_box(&mut request), now, &mut log, &mut out);
        assert_eq!(used, Ok(request.len()));
        let answered = conn.respond(asked(&log), &HELLO, now, &mut out);
        assert_eq!(answered, Ok(()));
        black_box(out.chunks().count());
        out.clear();
    })
}

const UPGRADE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn handshake() -> Work {
    let mut request = UPGRADE.to_vec();
    let mut out = SendBuffer::new(&BufferPool::default());
    let (now, settings, mut log) = (now(), server_settings(), EventLog::default());
    let ws_settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    Box::new(move || {
        log.clear();
        let mut conn = ServerConn::new(Rc::clone(&settings), now);
        let used = conn.receive(black_box(&mut request), now, &mut log, &mut out);
        assert_eq!(used, Ok(request.len()));
        let accepted = conn.accept(asked(&log), None, &[], &ws_settings, &mut out);
        assert_eq!(accepted, Ok(()));
        assert!(conn.take_accepted().is_some());
        out.clear();
    })
}

/// Words in several scripts, cut to at most `len` bytes.
fn text(len: usize) -> Vec<u8> {
    let words = "Hello, World! Grüße. Здравствуй, мир. 你好，世界。 ";
    let mut text = words.repeat(len / words.len() + 1);
    while text.len() > len {
        text.pop();
    }
    text.into_bytes()
}

/// A masked frame of less than 64 KiB.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..126) => frame.push(0x80 | len),
        _ => {
            frame.push(0xfe);
            let len = u16::try_from(payload.len()).expect("below 64 KiB");
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend(key);
    let at = frame.len();
    frame.extend(payload);
    apply_mask(&mut frame[at..], key, 0);
    frame
}

/// What the message in `log` holds.
fn message<'a>(log: &'a EventLog, segment: &'a [u8]) -> (MessageKind, &'a [u8]) {
    match log.events() {
        [Event::Message { kind, payload }] => (*kind, log.payload(*payload, segment)),
        other => panic!("one message was expected: {other:?}"),
    }
}

fn echo(len: usize) -> Work {
    let frame = frame(0x81, &text(len));
    let mut segment = frame.clone();
    let mut out = SendBuffer::new(&BufferPool::default());
    let (now, mut log) = (now(), EventLog::default());
    let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    let mut conn = WsConn::new(settings, now, 0);
    Box::new(move || {
        log.clear();
        // What unmasking changed.
        segment.copy_from_slice(&frame);
        let used = conn.receive(black_box(&mut segment), now, &mut log, &mut out);
        assert_eq!(used, Ok(segment.len()));
        let (kind, payload) = message(&log, &segment);
        assert_eq!(conn.send(kind, payload, &mut out), Ok(()));
        black_box(out.chunks().count());
        out.clear();
    })
}

/// A connection that has agreed on compression without context takeover.
fn compressing() -> WsConn {
    let mut settings = WsSettings::new(Role::Server, &Limits::default());
    let deflate = DeflateSettings::default();
    let offer = DeflateOffer::first(extensions(b"permessage-deflate").flatten());
    let params = offer.expect("it is well-formed").answer(&deflate);
    settings.deflate = Some(deflate);
    WsConn::new(Rc::new(settings), now(), 0).with_deflate(params)
}

/// A document of about 1 KiB, as scripts send them.
fn document() -> Vec<u8> {
    let rows = (0..16).map(|number| {
        let name = number * 7919 % 1000;
        format!(r#"{{"id":{number},"name":"user{name}","email":"u{name}@example.com"}}"#)
    });
    format!("[{}]", rows.collect::<Vec<_>>().join(",")).into_bytes()
}

fn deflate() -> Work {
    let document = document();
    let mut out = SendBuffer::new(&BufferPool::default());
    let mut conn = compressing();
    Box::new(move || {
        let sent = conn.send(MessageKind::Text, black_box(&document), &mut out);
        assert_eq!(sent, Ok(()));
        assert!(out.len() < document.len() / 2);
        out.clear();
    })
}

fn inflate() -> Work {
    let document = document();
    let mut out = SendBuffer::new(&BufferPool::default());
    let sent = compressing().send(MessageKind::Text, &document, &mut out);
    assert_eq!(sent, Ok(()));
    let sent: Vec<u8> = out.chunks().flatten().copied().collect();
    // Behind a header with a length of 16 bits.
    let frame = frame(0xc1, &sent[4..]);
    let mut segment = frame.clone();
    out.clear();
    let (now, mut log, mut conn) = (now(), EventLog::default(), compressing());
    Box::new(move || {
        log.clear();
        segment.copy_from_slice(&frame);
        let used = conn.receive(black_box(&mut segment), now, &mut log, &mut out);
        assert_eq!(used, Ok(segment.len()));
        assert!(message(&log, &segment).1 == document);
    })
}

/// One client at a time on the same thread, which writes, lets the server turn, and reads.
fn get_over_socket() -> Work {
    let request = inputs::all().swap_remove(0).head;
    let net = MioNet::new().expect("the system has a selector");
    let mut reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = reactor.listen(&at, ServerConfig::default());
    let listener = listener.expect("a free port");
    let Some(Endpoint::Ip(address)) = reactor.local_endpoint(listener) else {
        panic!("a listener has an address");
    };
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP option");
    let (mut inbox, mut answer) = (Inbox::new(), vec![0; 1024]);
    Box::new(move || {
        stream.write_all(&request).expect("the server reads");
        let mut is_served = false;
        while !is_served {
            reactor.turn(&mut inbox, None).expect("poll works");
            for completion in inbox.completions() {
                if let What::Request { exchange, .. } = completion.what {
                    let answered = reactor.respond(completion.conn, exchange, &HELLO);
                    assert!(answered.is_ok(), "{answered:?}");
                    is_served = true;
                }
            }
        }
        // The answer leaves with the turn that follows, which has nothing to wait for.
        let at_once = Some(reactor.now());
        reactor.turn(&mut inbox, at_once).expect("poll works");
        let len = stream.read(&mut answer).expect("the server writes");
        assert!(answer[..len].ends_with(b"Hello, World!"));
    })
}
