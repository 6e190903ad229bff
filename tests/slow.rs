//! Many readers of which some never read: memory stays bounded, and the others miss nothing.
//!
//! Over sockets in the file system, whose buffers are small and do not grow.

use hukilau_core::Reactor;
use hukilau_core::conn::{Backpressure, Overflow, Pressure, Publication, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Accept, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::{MessageKind, Role};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const READERS: usize = 1_000;
const DEAF: usize = 100;
const ROUNDS: u32 = 60;
const MESSAGE_BYTES: usize = 8 * 1024;
const LIMIT_BYTES: u32 = 32 * 1024;

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Both ends of all sockets are in this process.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8_192, |most| most.min(8_192));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).expect("the soft limit may go up to the hard one");
    }
}

/// Opens a WebSocket that hears everything.
fn open(
    reactor: &mut Reactor,
    inbox: &mut Inbox,
    path: &std::path::Path,
    settings: &Rc<WsSettings>,
) -> (ConnKey, UnixStream) {
    let mut client = UnixStream::connect(path).expect("it listens");
    client.write_all(UPGRADE).expect("it reads");
    let mut opened = None;
    while opened.is_none() {
        reactor.turn(inbox, None).expect("the poll works");
        for completion in inbox.completions() {
            match completion.what {
                What::Request { exchange, .. } => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(settings),
                    };
                    let accepted = reactor.accept_websocket(completion.conn, exchange, &accept);
                    assert_eq!(accepted, Ok(()));
                }
                What::Open => opened = Some(completion.conn),
                other => panic!("{other:?}"),
            }
        }
    }
    let key = opened.expect("the loop has ended");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("the 101 came");
        head.push(byte[0]);
    }
    assert_eq!(reactor.subscribe(key, b"world"), Ok(true));
    (key, client)
}

/// A reactor that listens on a socket file, its path, and the folder to take away in the end.
fn listen(name: &str) -> (PathBuf, PathBuf, Reactor, Inbox) {
    let folder = std::env::temp_dir().join(format!("hukilau-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the socket");
    let path = folder.join("socket");
    let net = MioNet::new().expect("the system polls");
    let mut reactor = Reactor::new(net, Limits::default()).expect("the limits agree");
    let config = ServerConfig {
        websocket: true,
        ..ServerConfig::default()
    };
    let endpoint = Endpoint::Unix(path.clone());
    reactor.listen(&endpoint, config).expect("the path is free");
    (folder, path, reactor, Inbox::new())
}

#[test]
fn a_hundred_of_a_thousand_readers_that_never_read_cost_bounded_memory_and_the_others_nothing() {
    raise_descriptors();
    let (folder, path, mut reactor, mut inbox) = listen("slow");
    let settings = Rc::new(WsSettings {
        backpressure: Backpressure {
            limit_bytes: LIMIT_BYTES,
            overflow: Overflow::Drop,
        },
        ..WsSettings::new(Role::Server, &Limits::default())
    });
    let mut readers: Vec<_> = (0..READERS)
        .map(|_| open(&mut reactor, &mut inbox, &path, &settings))
        .collect();
    let deaf = readers.split_off(READERS - DEAF);

    let mut payload = vec![0; MESSAGE_BYTES];
    // A header of four bytes: binary, and a length of 16 bits.
    let mut frame = vec![0; MESSAGE_BYTES + 4];
    for round in 0..ROUNDS {
        payload[..4].copy_from_slice(&round.to_be_bytes());
        let publication = Publication::new(MessageKind::Binary, &payload).expect("any bytes");
        reactor.publish(b"world", &Arc::new(publication), None);
        let now = reactor.now();
        let turned = reactor.turn(&mut inbox, Some(now + Duration::ZERO));
        turned.expect("the poll works");
        for (key, client) in &mut readers {
            client.read_exact(&mut frame).expect("it gets everything");
            assert_eq!(frame[4..8], round.to_be_bytes(), "in order");
            assert_eq!(reactor.waiting_bytes(*key), Some(0));
        }
        for (key, _) in &deaf {
            let waits = reactor.waiting_bytes(*key).expect("nobody is closed");
            let most = LIMIT_BYTES as usize + frame.len();
            assert!(waits <= most, "{waits} bytes wait");
        }
    }
    let figures = reactor.figures();
    let (sent, dropped) = (
        figures.messages_sent.value(),
        figures.messages_dropped.value(),
    );
    let rounds = u64::from(ROUNDS);
    assert_eq!(sent + dropped, rounds * READERS as u64);
    assert!(dropped > 0 && dropped < rounds * DEAF as u64, "{dropped}");
    assert!(sent > rounds * (READERS - DEAF) as u64);
    assert_eq!(reactor.connections(), READERS);
    drop(reactor);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[test]
fn a_drain_tells_a_few_at_once_and_the_others_later() {
    let (folder, path, mut reactor, mut inbox) = listen("drain");
    let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    let sockets: Vec<_> = (0..96)
        .map(|_| open(&mut reactor, &mut inbox, &path, &settings))
        .collect();
    reactor.drain(Duration::from_secs(3));
    let told = |reactor: &Reactor| {
        let is_told = |(key, _): &&(ConnKey, UnixStream)| !reactor.accepts_messages(*key);
        sockets.iter().filter(is_told).count()
    };
    assert_eq!((told(&reactor), reactor.listeners()), (32, 0));
    // Steps of a third each, over half of the grace.
    let began = reactor.now();
    while told(&reactor) < 96 {
        reactor.turn(&mut inbox, None).expect("the poll works");
    }
    assert!(reactor.now() - began >= Duration::from_secs(1), "too early");
    drop(reactor);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

/// Frames of a server as they follow one another, each of one byte repeated: that byte, and how many.
fn runs_of(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut runs = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        assert_eq!(*first, 0x82, "a whole binary message in one frame");
        let (len, rest) = match len {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => {
                let len = rest.first_chunk().copied().expect("a length of 64 bits");
                let len = usize::try_from(u64::from_be_bytes(len)).expect("as was sent");
                (len, &rest[8..])
            }
            short => (usize::from(*short), rest),
        };
        let (payload, after) = rest.split_at(len);
        assert!(payload.iter().all(|byte| *byte == payload[0]), "torn");
        runs.push((payload[0], len));
        bytes = after;
    }
    runs
}

#[test]
fn a_long_message_that_the_socket_has_room_for_does_not_wait_for_the_turn() {
    let (folder, path, mut reactor, mut inbox) = listen("at-once");
    let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    let (key, mut client) = open(&mut reactor, &mut inbox, &path, &settings);
    let sent = reactor.send(key, MessageKind::Binary, &[0; 40_000]);
    assert_eq!(
        (sent, reactor.waiting_bytes(key)),
        (Ok(Pressure::Low), Some(0))
    );
    let mut frame = vec![0; 4 + 40_000];
    client.read_exact(&mut frame).expect("no turn was needed");
    assert_eq!(runs_of(&frame), [(0, 40_000)]);
    drop(reactor);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

/// Lengths of messages around the one from which on they do not wait, and around buffers' and sockets'.
const LENGTHS: [usize; 10] = [
    1, 40_000, 200, 33_000, 32_767, 250_000, 32_768, 5, 16_000, 70_000,
];

#[test]
fn long_messages_leave_in_order_and_count_as_short_ones_do() {
    let (folder, path, mut reactor, mut inbox) = listen("long");
    let limits = Limits::default();
    let settings = Rc::new(WsSettings {
        backpressure: Backpressure {
            limit_bytes: 4 * 1024 * 1024,
            overflow: Overflow::Drop,
        },
        ..WsSettings::new(Role::Server, &limits)
    });
    let (key, mut client) = open(&mut reactor, &mut inbox, &path, &settings);
    client.set_nonblocking(true).expect("a socket can");
    let (mut got, mut area) = (Vec::new(), vec![0; 60_000]);
    let mut turn = |reactor: &mut Reactor| {
        let now = reactor.now();
        reactor.turn(&mut inbox, Some(now)).expect("the poll works");
    };
    let (mut sent, mut dropped) = (Vec::new(), 0);
    for number in 1..=250_u8 {
        let len = LENGTHS[usize::from(number) % LENGTHS.len()];
        let pressure = reactor.send(key, MessageKind::Binary, &vec![number; len]);
        if pressure == Ok(Pressure::Dropped) {
            dropped += 1;
        } else {
            let waits = reactor.waiting_bytes(key).expect("it is open");
            let is_high = waits > limits.out_bytes_high as usize;
            let wanted = if is_high {
                Pressure::High
            } else {
                Pressure::Low
            };
            assert_eq!(pressure, Ok(wanted), "{waits} wait");
            sent.push((number, len));
        }
        if number % 4 == 0 {
            turn(&mut reactor);
        }
        // A peer that falls behind.
        if number % 5 == 0
            && let Ok(count) = client.read(&mut area)
        {
            got.extend_from_slice(&area[..count]);
        }
    }
    while reactor.waiting_bytes(key) != Some(0) {
        turn(&mut reactor);
        while let Ok(count) = client.read(&mut area) {
            got.extend_from_slice(&area[..count]);
        }
    }
    while let Ok(count) = client.read(&mut area) {
        got.extend_from_slice(&area[..count]);
    }
    assert_eq!(runs_of(&got), sent);
    assert!(dropped > 0, "the peer was never behind");
    let figures = reactor.figures();
    let counted = (
        figures.messages_sent.value(),
        figures.messages_dropped.value(),
    );
    assert_eq!(counted, (sent.len() as u64, dropped));
    assert_eq!(reactor.buffers_taken(), 0);
    drop(reactor);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}
