//! A whole HTTP/1.1 server connection with an application that answers everything: any cut gives
//! the same events, the same verdict and the same bytes out; another parser reads the answers, one
//! for each request and in order; memory goes back to the pool.
#![no_main]

use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::{
    Appetite, Event, EventLog, Exchange, Refusals, Response, ServerConn, ServerSettings,
    SharedDate, WsSettings,
};
use hukilau_core::limits::Limits;
use hukilau_core::violation::Violation;
use hukilau_core::ws::Role;
use hukilau_fuzz::{Seed, pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

const BODY_BYTES_MAX: u64 = 64;
const IN_FLIGHT_MAX: u8 = 3;

/// What the application heard, with the bytes.
#[derive(Debug, PartialEq)]
enum Fact {
    Request {
        head_request: bool,
        method: Vec<u8>,
        target: Vec<u8>,
        fields: usize,
    },
    Body(Exchange, Vec<u8>),
    End(Exchange),
    /// A WebSocket was accepted: HTTP ends here, and these bytes are its first.
    Upgraded(Vec<u8>),
}

#[derive(Debug, PartialEq)]
struct Heard {
    facts: Vec<Fact>,
    verdict: Option<Violation>,
    out: Vec<u8>,
    closes: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let manners = seed.clone();
    let whole = hear(bytes, &[0..bytes.len()], manners.clone());
    let cut = hear(bytes, &pieces(bytes.len(), &mut seed), manners);
    let answer_closes = another_parser_reads(bytes, &whole);
    if answer_closes {
        // How many requests were heard before the application closed behind one of them depends on
        // how many came with it. What the peer reads does not.
        assert_eq!(cut.out, whole.out, "the cut changed the answers");
        let common = cut.facts.len().min(whole.facts.len());
        assert_eq!(
            cut.facts[..common],
            whole.facts[..common],
            "the cut changed the requests"
        );
    } else {
        assert_eq!(cut, whole, "the cut changed the meaning");
    }
});

/// One connection and the application that drives it.
struct World {
    conn: ServerConn,
    log: EventLog,
    out: SendBuffer,
    facts: Vec<Fact>,
    /// Requests that are whole and not answered.
    owed: Vec<Exchange>,
    /// Requests whose body is still coming.
    open: Vec<Exchange>,
    manners: Seed,
    now: Instant,
    /// Bytes of the input that it used.
    consumed: usize,
}

fn hear(bytes: &[u8], cuts: &[Range<usize>], manners: Seed) -> Heard {
    let limits = Limits {
        head_bytes_max: 512,
        target_bytes_max: 64,
        fields_max: 8,
        body_bytes_max: BODY_BYTES_MAX,
        exchanges_in_flight_max: IN_FLIGHT_MAX,
        ..Limits::default()
    };
    let settings = Rc::new(ServerSettings {
        refusals: Refusals::default(),
        limits: Rc::new(limits),
        date: Rc::new(SharedDate::new(*b"Sun, 06 Nov 1994 08:49:37 GMT")),
        collect_bodies: true,
        websocket: true,
    });
    let (pool, now) = (BufferPool::default(), Instant::now());
    let mut world = World {
        conn: ServerConn::new(settings, now),
        log: EventLog::default(),
        out: SendBuffer::new(&pool),
        facts: Vec::new(),
        owed: Vec::new(),
        open: Vec::new(),
        manners,
        now,
        consumed: 0,
    };
    let (mut spill, mut verdict) = (Vec::new(), None);
    for cut in cuts {
        spill.extend_from_slice(&bytes[cut.clone()]);
        verdict = world.receive(&mut spill);
        if verdict.is_some() || matches!(world.facts.last(), Some(Fact::Upgraded(_))) {
            break;
        }
    }
    let upgraded = match world.facts.last_mut() {
        // What was not offered yet belongs to the WebSocket as well.
        Some(Fact::Upgraded(first)) => {
            *first = bytes[world.consumed..].to_vec();
            true
        }
        _ => false,
    };
    if !upgraded && verdict.is_none() && world.conn.appetite() != Appetite::Close {
        verdict = world.conn.receive_eof(&mut world.out).err();
        assert_eq!(
            world.conn.appetite(),
            Appetite::Close,
            "nothing is owed and nothing comes"
        );
    }
    let closes = world.conn.appetite() == Appetite::Close;
    let out: Vec<u8> = world.out.chunks().flatten().copied().collect();
    let facts = std::mem::take(&mut world.facts);
    drop(world);
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
    Heard {
        facts,
        verdict,
        out,
        closes,
    }
}

impl World {
    /// Offers `spill` until the connection wants no more of it.
    fn receive(&mut self, spill: &mut Vec<u8>) -> Option<Violation> {
        while self.conn.appetite() == Appetite::Read && !spill.is_empty() {
            let received = self
                .conn
                .receive(spill, self.now, &mut self.log, &mut self.out);
            let new = self.note(spill);
            assert!(
                self.owed.len() <= usize::from(IN_FLIGHT_MAX),
                "more in flight than allowed"
            );
            self.answer();
            let used = match received {
                Ok(used) => used,
                Err(violation) => {
                    assert!(violation.status() >= 400, "{violation:?} has no status");
                    assert_eq!(
                        self.conn.appetite(),
                        Appetite::Close,
                        "refused, yet goes on"
                    );
                    return Some(violation);
                }
            };
            spill.drain(..used);
            self.consumed += used;
            if self.conn.take_accepted().is_some() {
                self.facts.push(Fact::Upgraded(Vec::new()));
                return None;
            }
            if used == 0 && !new {
                break;
            }
            assert!(self.conn.appetite() != Appetite::Read || self.conn.deadline().is_some());
        }
        None
    }

    /// Copies the events of one segment out; whether there were any.
    fn note(&mut self, segment: &[u8]) -> bool {
        for event in self.log.events() {
            match *event {
                Event::Request { exchange, head, at } => {
                    let request = self
                        .log
                        .request(head, at, segment)
                        .expect("its head is logged");
                    self.facts.push(Fact::Request {
                        head_request: request.method() == b"HEAD",
                        method: request.method().to_vec(),
                        target: request.target().to_vec(),
                        fields: request.fields().count(),
                    });
                    let list = if request.has_body() {
                        &mut self.open
                    } else {
                        &mut self.owed
                    };
                    list.push(exchange);
                }
                Event::Body { exchange, payload } => {
                    let body = self.log.payload(payload, segment).to_vec();
                    assert!(body.len() as u64 <= BODY_BYTES_MAX);
                    self.facts.push(Fact::Body(exchange, body));
                }
                Event::End { exchange } => {
                    assert_eq!(
                        self.open.pop(),
                        Some(exchange),
                        "an end without a beginning"
                    );
                    self.facts.push(Fact::End(exchange));
                    self.owed.push(exchange);
                }
                other => panic!("{other:?} is no event of HTTP"),
            }
        }
        let new = !self.log.events().is_empty();
        self.log.clear();
        new
    }

    /// Answers all that is owed, the newest first. What an answer is like depends on its exchange
    /// alone.
    fn answer(&mut self) {
        while let Some(exchange) = self.owed.pop() {
            let mut manners = Seed(self.manners.0 ^ u64::from(exchange.0));
            let body = format!("answer {}", exchange.0);
            let fields: &[(&[u8], &[u8])] = match manners.below(8) {
                0 => &[(b"Connection", b"close")],
                1 => &[(b"X-Kind", b"fuzz")],
                _ => &[],
            };
            let response = Response {
                status: 200,
                fields,
                body: body.as_bytes(),
            };
            let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
            let accepted = manners.below(2) == 0
                && self
                    .conn
                    .accept(exchange, None, &[], &settings, &mut self.out)
                    .is_ok();
            if accepted {
                continue;
            }
            if manners.below(2) == 0 {
                let result = self
                    .conn
                    .respond(exchange, &response, self.now, &mut self.out);
                result.expect("a valid answer");
                continue;
            }
            self.conn
                .begin_response(exchange, &response, &mut self.out)
                .expect("a valid head");
            for piece in body.as_bytes().chunks(3) {
                self.conn
                    .write_body(exchange, piece, &mut self.out)
                    .expect("a body is awaited");
            }
            self.conn
                .finish_body(exchange, self.now, &mut self.out)
                .expect("a body is awaited");
        }
    }
}

/// Reads `heard.out` with httparse: answers to all whole requests in order, up to the one that
/// closes, then at most one refusal, and nothing more. Whether an answer, no refusal, closes.
fn another_parser_reads(bytes: &[u8], heard: &Heard) -> bool {
    let mut rest = &heard.out[..];
    let heads = heard.facts.iter().filter_map(|fact| match fact {
        Fact::Request { head_request, .. } => Some(*head_request),
        _ => None,
    });
    let (mut number, mut last) = (0, false);
    for head_request in heads {
        if rest.is_empty() {
            break;
        }
        let (status, body, closes, used) = read_answer(rest, head_request);
        rest = &rest[used..];
        last = closes;
        if status == 200 && !head_request {
            assert_eq!(body, format!("answer {number}").as_bytes(), "out of order");
        }
        number += 1;
        if closes || status == 101 {
            break;
        }
    }
    if !rest.is_empty() {
        // Only a refusal may follow what is owed.
        assert!(
            !last && heard.verdict.is_some(),
            "bytes behind the last answer"
        );
        // Of a refused HEAD the answer has no body either (RFC 9110 §9.3.2).
        let is_bodiless = rest.ends_with(b"\r\n\r\n");
        assert!(!is_bodiless || bytes.windows(5).any(|five| five == b"HEAD "));
        let (status, _, closes, used) = read_answer(rest, is_bodiless);
        assert!(status >= 400 && closes);
        assert_eq!(used, rest.len(), "bytes behind a refusal");
    }
    assert!(!last || heard.closes, "said close and stays open");
    last
}

/// Status, body, whether it says close, and its length; interim answers are skipped.
fn read_answer(bytes: &[u8], head_request: bool) -> (u16, Vec<u8>, bool, usize) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes).expect("a well-formed head");
    let httparse::Status::Complete(head_len) = parsed else {
        panic!("a head that is not whole");
    };
    let status = response.code.expect("a status");
    if status == 100 {
        let (status, body, closes, used) = read_answer(&bytes[head_len..], head_request);
        return (status, body, closes, head_len + used);
    }
    let field = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value)
    };
    let closes = field("connection").is_some_and(|value| value.starts_with(b"close"));
    let rest = &bytes[head_len..];
    if head_request || status == 101 {
        return (status, Vec::new(), closes, head_len);
    }
    if field("transfer-encoding").is_some() {
        let (mut body, mut at) = (Vec::new(), 0);
        loop {
            let size_line = rest[at..]
                .windows(2)
                .position(|pair| pair == b"\r\n")
                .expect("a size");
            let digits = std::str::from_utf8(&rest[at..at + size_line]).expect("digits");
            let size = usize::from_str_radix(digits, 16).expect("hexadecimal");
            at += size_line + 2;
            body.extend_from_slice(&rest[at..at + size]);
            at += size + 2;
            if size == 0 {
                return (status, body, closes, head_len + at);
            }
        }
    }
    let Some(length) = field("content-length") else {
        // HTTP/1.0, streamed: the end of the connection is the end of the body.
        assert!(closes, "a body without an end");
        return (status, rest.to_vec(), closes, bytes.len());
    };
    let length: usize = std::str::from_utf8(length)
        .expect("digits")
        .parse()
        .expect("decimal");
    (status, rest[..length].to_vec(), closes, head_len + length)
}
