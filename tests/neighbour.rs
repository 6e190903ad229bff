//! Floods, and the neighbour who has to live beside them: how many turns an honest request waits, how
//! many heads, chunks and frames of others come before its answer, how much a turn reads, and how much
//! memory it takes, in virtual time, where nothing is measured and everything counted.
//!
//! Sits on `sim.rs`. The network is as fast as it can be: what a flooder sends is there at once, as
//! much as its socket holds, in every turn anew.
//!
//! The bounds are those that the reactor's queues promise. Who has just become ready is read before who
//! was left behind with input, and of those some a turn take a share of steps. So an answer waits for two
//! turns' shares at most, however many flood: never for what all of them have sent, of which a segment
//! alone holds 10,000 steps. How long a step takes is for the benches (`load -- neighbour`).
//!
//! Not here: that floods are refused, and with what (`core/testdata`), real sockets (`hostile.rs`).

use crate::alloc::peak_bytes;
use crate::sim::{PeerId, Script, SimNet, SimOptions, Step};
use hukilau_core::conn::{Exchange, Misuse, Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::{Accept, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::ws::Role;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Connections that flood.
const FLOODERS: usize = 16;

/// What each of them sends.
const FLOOD_BYTES: usize = 512 * 1024;

/// Questions of the neighbour, one after another.
const QUESTIONS: usize = 6;

/// Bytes of the receive area: what a turn reads at most, but for the last read's overhang.
const AREA_BYTES: usize = 4 * (64 * 1024 + 256);

/// Turns beyond those without a flood that an answer takes at most.
const TURNS_MORE: usize = 1;

/// Shares of steps that a turn gives to those who are behind, if it hears nobody else.
const SHARES_BEHIND: u64 = 4;

/// Turns after which a scene counts as endless.
const TURNS_MAX: usize = 20_000;

/// What one connection floods with.
struct Flood {
    name: &'static str,
    /// Sent once.
    opening: Vec<u8>,
    /// Sent again and again.
    unit: Vec<u8>,
    /// Whether bodies are collected at the listener that it chooses.
    collected: bool,
    /// Whether the flooder reads what it is answered.
    reads: bool,
}

impl Flood {
    fn new(name: &'static str, opening: &[u8], unit: &[u8]) -> Self {
        Self {
            name,
            opening: opening.to_vec(),
            unit: unit.to_vec(),
            collected: true,
            reads: true,
        }
    }

    fn streamed(mut self) -> Self {
        self.collected = false;
        self
    }

    fn deaf(mut self) -> Self {
        self.reads = false;
        self
    }

    fn script(&self) -> Script {
        let mut bytes = self.opening.clone();
        while bytes.len() < FLOOD_BYTES {
            bytes.extend_from_slice(&self.unit);
        }
        let mut steps = vec![Step::Send(bytes)];
        if !self.reads {
            steps.insert(0, Step::StopReading);
        }
        let mut script = Script::new(steps);
        script.is_stubborn = true;
        script
    }
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked frame of fewer than 126 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("short");
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

/// An upgrade and the first fragment of a message.
fn message_begun() -> Vec<u8> {
    [UPGRADE, &frame(0x02, b"x")].concat()
}

fn http_floods() -> Vec<Flood> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(99));
    let fields = fields.as_bytes();
    vec![
        // One byte a chunk earns less than its framing costs and is refused before long; two may
        // go on until the body is too large.
        Flood::new("one-byte chunks", CHUNKED, b"1\r\nx\r\n"),
        Flood::new("one-byte chunks, streamed", CHUNKED, b"1\r\nx\r\n").streamed(),
        Flood::new("two-byte chunks", CHUNKED, b"2\r\nxx\r\n"),
        Flood::new("two-byte chunks, streamed", CHUNKED, b"2\r\nxx\r\n").streamed(),
        Flood::new(
            "a trailer without end",
            CHUNKED,
            b"0\r\nX: y\r\nX: y\r\nX: ",
        ),
        Flood::new("heads of 100 fields", b"", fields),
        Flood::new("heads of 100 fields, nobody reads", b"", fields).deaf(),
        Flood::new("a head without end", b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        Flood::new("empty lines", b"", b"\r\n"),
        Flood::new("pipelined requests", b"", request),
        Flood::new("pipelined requests, nobody reads", b"", request).deaf(),
        Flood::new("bytes behind a refusal", b"GET / HTTP/9.9\r\n\r\n", b"x"),
    ]
}

fn websocket_floods() -> Vec<Flood> {
    let begun = message_begun();
    vec![
        Flood::new("empty fragments", &begun, &frame(0x00, b"")),
        Flood::new("one-byte fragments", &begun, &frame(0x00, b"x")),
        Flood::new("16-byte fragments", &begun, &frame(0x00, &[b'x'; 16])),
        Flood::new("one-byte messages", UPGRADE, &frame(0x82, b"x")),
        Flood::new("pings", UPGRADE, &frame(0x89, b"")),
        Flood::new("pings, nobody reads", UPGRADE, &frame(0x89, b"")).deaf(),
        Flood::new("pings of 125 bytes", UPGRADE, &frame(0x89, &[b'x'; 125])).deaf(),
        Flood::new("pongs", UPGRADE, &frame(0x8a, b"")),
    ]
}

fn limits() -> Limits {
    Limits {
        message_bytes_max: 256 * 1024,
        ..Limits::default()
    }
}

/// Two listeners: bodies are collected at the first.
fn places() -> [Endpoint; 2] {
    let at = |port| Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
    [at(80), at(81)]
}

/// Everything that is sent is there at once.
fn fast_network() -> SimOptions {
    SimOptions {
        delay_max: Duration::ZERO,
        turn_time_max: Duration::ZERO,
        piece_max: 1024 * 1024,
        socket_buffer_max: 256 * 1024,
        ..SimOptions::calm()
    }
}

/// Answers everything, echoes nothing.
struct App {
    reactor: Reactor<SimNet<true>>,
    inbox: Inbox,
    /// Targets of requests whose body is under way.
    asked: BTreeMap<(ConnKey, Exchange), Vec<u8>>,
    settings: Rc<WsSettings>,
}

impl App {
    fn new(net: SimNet<true>) -> Self {
        let mut reactor = Reactor::new(net, limits()).expect("the limits agree");
        for (place, collect_bodies) in places().iter().zip([true, false]) {
            let config = ServerConfig {
                collect_bodies,
                websocket: true,
                ..ServerConfig::default()
            };
            reactor.listen(place, config).expect("nobody listens yet");
        }
        Self {
            reactor,
            inbox: Inbox::new(),
            asked: BTreeMap::new(),
            settings: Rc::new(WsSettings::new(Role::Server, &limits())),
        }
    }

    fn turn(&mut self) {
        let turned = self.reactor.turn(&mut self.inbox, None);
        turned.expect("the flood goes on, so something happens");
        for Completion { conn, what } in self.inbox.completions() {
            let done = match what {
                What::Request {
                    exchange, request, ..
                } if request.has_body() => {
                    let target = request.target().to_vec();
                    self.asked.insert((conn, exchange), target);
                    Ok(())
                }
                What::Request {
                    exchange, request, ..
                } if request.head().upgrades_to_websocket => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(&self.settings),
                    };
                    self.reactor.accept_websocket(conn, exchange, &accept)
                }
                What::Request {
                    exchange, request, ..
                } => answer(&mut self.reactor, conn, exchange, request.target()),
                What::End { exchange } => {
                    let target = self.asked.remove(&(conn, exchange)).expect("it was asked");
                    answer(&mut self.reactor, conn, exchange, &target)
                }
                _ => Ok(()),
            };
            assert!(matches!(done, Ok(()) | Err(Misuse::Gone)), "{done:?}");
        }
    }
}

fn answer(
    reactor: &mut Reactor<SimNet<true>>,
    conn: ConnKey,
    exchange: Exchange,
    target: &[u8],
) -> Result<(), Misuse> {
    let response = Response {
        status: 200,
        fields: &[],
        body: &[target, b";"].concat(),
    };
    reactor.respond(conn, exchange, &response).map(|_| ())
}

/// The neighbour: one question after another, each when the last is answered.
fn neighbour() -> Script {
    let question = |number| {
        let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = format!("/{number};");
        [
            Step::Send(request.into_bytes()),
            Step::AwaitText(answer.into_bytes()),
        ]
    };
    let mut script = Script::new((0..QUESTIONS).flat_map(question));
    script.is_stubborn = true;
    script
}

/// What a scene came to.
#[derive(Debug)]
struct Outcome {
    /// The most turns from one answer to the next.
    turns_max: usize,
    /// The most heads, chunks and frames, of all connections, from one answer to the next.
    steps_max: u64,
    /// The most bytes that one turn read.
    turn_bytes_max: usize,
    /// The most pooled buffers in use.
    buffers_max: usize,
    /// The most memory in use beyond that at the start.
    memory_max: usize,
    /// What of it may be the simulation's: what peers have received, in vectors that have grown.
    memory_of_peers: usize,
}

/// Answers among what the neighbour has got.
fn answers(received: &[u8]) -> usize {
    received.iter().filter(|byte| **byte == b';').count()
}

/// Runs the neighbour beside `flooders` connections of `flood`, until all its questions are
/// answered.
fn run(flood: Option<&Flood>) -> Outcome {
    let net = SimNet::<true>::new(7, fast_network());
    let mut app = App::new(net.clone());
    let places = places();
    let place = |collected: bool| &places[usize::from(!collected)];
    let flooders: Vec<PeerId> = flood
        .into_iter()
        .flat_map(|flood| (0..FLOODERS).map(move |_| flood))
        .map(|flood| net.dial_in(place(flood.collected), Duration::ZERO, flood.script()))
        .collect();
    let asker = net.dial_in(place(true), Duration::ZERO, neighbour());

    let (mut outcome, memory_max) = peak_bytes(|| watch(&net, &mut app, asker));
    let heard: usize = flooders.iter().map(|peer| net.received(*peer).len()).sum();
    outcome.memory_max = memory_max;
    outcome.memory_of_peers = 3 * heard;
    outcome
}

fn watch(net: &SimNet<true>, app: &mut App, asker: PeerId) -> Outcome {
    let (mut turn, mut answered, mut last, mut noted, mut steps) = (0, 0, 0, 0, 0);
    let mut outcome = Outcome {
        turns_max: 0,
        steps_max: 0,
        turn_bytes_max: 0,
        buffers_max: 0,
        memory_max: 0,
        memory_of_peers: 0,
    };
    while answered < QUESTIONS {
        app.turn();
        net.note_work();
        turn += 1;
        steps += app.inbox.steps();
        assert!(turn < TURNS_MAX, "endless");
        let read = bytes_read(&net.transcript()[noted..]);
        noted = net.transcript().len();
        outcome.turn_bytes_max = outcome.turn_bytes_max.max(read);
        outcome.buffers_max = outcome.buffers_max.max(app.reactor.buffers_taken());
        let now = answers(&net.received(asker));
        if now > answered {
            assert_eq!(now, answered + 1, "each question waits for an answer");
            // The first also waits for the connection.
            if answered > 0 {
                outcome.turns_max = outcome.turns_max.max(turn - last);
                outcome.steps_max = outcome.steps_max.max(steps);
            }
            (answered, last, steps) = (now, turn, 0);
        }
    }
    outcome
}

/// The bytes that reads of these lines brought.
fn bytes_read(transcript: &str) -> usize {
    transcript
        .lines()
        .filter_map(|line| line.rsplit_once(" read ")?.1.parse::<usize>().ok())
        .sum()
}

/// Bytes that a connection may tie up: a message under assembly while it moves to a larger buffer,
/// what is unparsed, and what is unsent.
fn connection_bytes_max() -> usize {
    let limits = limits();
    let (message, segment) = (limits.message_bytes_max, limits.segment_bytes_max);
    (2 * message + 2 * segment + limits.out_bytes_high) as usize
}

/// Bytes that the events of one turn may take: each costs its peer at least six on the wire.
const TURN_BYTES_MAX: usize = 8 * 1024 * 1024;

#[track_caller]
fn check(floods: &[Flood]) {
    let calm = run(None).turns_max;
    for flood in floods {
        let outcome = run(Some(flood));
        let context = format!("{}: {outcome:?}, {calm} turns without", flood.name);
        eprintln!("{context}");
        assert!(outcome.turns_max <= calm + TURNS_MORE, "{context}");
        let share = u64::from(limits().steps_per_turn);
        // Those of the turn in which it is asked for, and of that in which it is heard.
        let steps_max = 2 * SHARES_BEHIND * share;
        assert!(outcome.steps_max <= steps_max, "{context}");
        let segment_bytes_max = limits().segment_bytes_max as usize;
        assert!(
            outcome.turn_bytes_max <= AREA_BYTES + segment_bytes_max,
            "{context}"
        );
        let memory_max = FLOODERS * connection_bytes_max() + TURN_BYTES_MAX;
        assert!(
            outcome.memory_max <= memory_max + outcome.memory_of_peers,
            "{context}"
        );
        // Input unparsed, a message or a body, what is unsent, and answers that wait their turn.
        assert!(outcome.buffers_max <= FLOODERS * 8, "{context}");
    }
}

#[test]
fn a_neighbour_of_http_floods_waits_a_bounded_number_of_turns() {
    check(&http_floods());
}

/// A flooder that was refused comes again, and what its last connection still sends is dropped: there
/// may be many of those, but they must not count like flooders.
#[test]
fn a_neighbour_does_not_wait_for_those_who_were_refused() {
    let flood = Flood::new("bytes behind a refusal", b"GET / HTTP/9.9\r\n\r\n", b"x");
    let net = SimNet::<true>::new(7, fast_network());
    let mut app = App::new(net.clone());
    let place = &places()[0];
    for _ in 0..8 * FLOODERS {
        net.dial_in(place, Duration::ZERO, flood.script());
    }
    // All are refused before the neighbour comes.
    for _ in 0..FLOODERS * 8 {
        app.turn();
    }
    let asker = net.dial_in(place, Duration::ZERO, neighbour());
    let outcome = watch(&net, &mut app, asker);
    let calm = run(None).turns_max;
    assert!(outcome.turns_max <= calm + 2, "{outcome:?}, {calm} without");
}

#[test]
fn a_neighbour_of_websocket_floods_waits_a_bounded_number_of_turns() {
    check(&websocket_floods());
}
