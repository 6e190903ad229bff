//! The application under simulation: answers late, out of order, whole or in pieces, and checks
//! every completion against what it has been told before.
//!
//! Sits above the reactor, where a program would. What it answers is a function of the request
//! alone, so `clients.rs` knows what to expect.
//!
//! Invariants it asserts
//! - Requests of a connection are numbered as they come; bodies belong to the newest.
//! - Nothing comes for a key after its `Closed`, and no `Closed` for a key that said nothing.
//! - A call on an open connection succeeds; `Gone` is answered only if `Closed` follows.
//! - What waits for a peer stays below its bound.
//!
//! Not here: what peers do and what they must have got (`clients.rs`).

use super::clients::body_for;
use crate::sim::{Dice, SimNet};
use hukilau_core::conn::{Exchange, Misuse, Pressure, Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, Inbox, What};
use hukilau_core::reactor::{Accept, Reactor};
use hukilau_core::ws::Role;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest time that the application thinks about a request.
const THINKING_MAX: Duration = Duration::from_millis(300);

/// Bytes of one piece of a streamed answer, at most.
const PIECE_MAX: usize = 3_000;

/// What the application knows of a connection.
#[derive(Debug, Default)]
struct Known {
    /// Of the exchanges in order.
    requests: Vec<Asked>,
    is_websocket: bool,
    messages: usize,
    /// It was sent to faster than it reads, and is not read until `Writable`.
    held: bool,
    /// A call said `Gone`, so `Closed` must follow.
    gone: bool,
    closed: bool,
}

#[derive(Debug)]
struct Asked {
    kind: String,
    tag: String,
    body: Vec<u8>,
    whole: bool,
    answered: bool,
    /// What is left to stream, once that has begun.
    stream: Option<Vec<u8>>,
    /// Streaming waits for `Writable`.
    stalled: bool,
}

/// A program over a reactor, for one simulation.
pub(super) struct App {
    dice: Dice,
    limits: Limits,
    known: BTreeMap<ConnKey, Known>,
    /// What it will do, and when.
    due: BTreeMap<(Instant, u64), (ConnKey, Exchange)>,
    sequence: u64,
    /// Chances in a thousand that it cuts a connection instead of answering.
    pub(super) cuts: u16,
    /// How connections ended, by the cause's name and deadline.
    pub(super) causes: BTreeMap<String, usize>,
}

impl App {
    pub(super) fn new(seed: u64, limits: Limits) -> Self {
        Self {
            dice: Dice::new(seed ^ 0xa99),
            limits,
            known: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            cuts: 0,
            causes: BTreeMap::new(),
        }
    }

    /// When it next wants to act.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes what a turn delivered, and does what is due.
    pub(super) fn work<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>, inbox: &Inbox) {
        for Completion { conn, what } in inbox.completions() {
            note(reactor.net(), conn, &what);
            self.take(reactor, conn, &what);
        }
        while let Some(first) = self.due.first_entry()
            && first.key().0 <= reactor.now()
        {
            let (conn, exchange) = first.remove();
            self.act(reactor, conn, exchange);
        }
        self.check_bounds(reactor);
    }

    /// Asserts what must hold when the world is at rest.
    pub(super) fn check_rest(&self) {
        for (conn, known) in &self.known {
            assert!(known.closed, "{conn} never ended: {known:?}");
        }
    }

    fn take<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        what: &What<'_>,
    ) {
        if let What::Request {
            exchange, request, ..
        } = what
        {
            let target = std::str::from_utf8(request.target()).expect("clients send ASCII");
            return self.take_request(reactor, conn, *exchange, target, request.has_body());
        }
        if let What::Refused { refusal } = what {
            assert!(refusal.status.is_some(), "{conn}: nobody is silent here");
            let known = self.known.get(&conn);
            return assert!(known.is_none_or(|known| !known.closed), "{conn}: {what:?}");
        }
        let known = self.known.get_mut(&conn).expect("someone unknown");
        assert!(!known.closed, "{conn}: {what:?} after Closed");
        match what {
            What::Request { .. } | What::Refused { .. } => {}
            What::Connected { .. } | What::Response { .. } => {
                panic!("{conn}: an answer, and nothing was asked")
            }
            What::Accepted { .. } | What::Bytes { .. } | What::Finished => {
                panic!("{conn}: no stream")
            }
            What::Resolved { .. } | What::Datagram { .. } => panic!("{conn}: no name"),
            What::Body { exchange, bytes } => {
                assert!(!bytes.is_empty(), "{conn}: an empty piece");
                newest(known, *exchange).body.extend_from_slice(bytes);
            }
            What::End { exchange } => {
                newest(known, *exchange).whole = true;
                self.think(reactor, conn, *exchange);
            }
            What::Open => assert!(known.is_websocket, "{conn}: open, but not accepted"),
            What::Message { kind, payload } => {
                assert!(known.is_websocket, "{conn}: a message over HTTP");
                known.messages += 1;
                match reactor.send(conn, *kind, payload) {
                    Ok(Pressure::Low | Pressure::Dropped) => {}
                    Ok(Pressure::High) => {
                        known.held = true;
                        reactor.hold(conn);
                    }
                    // What was read before the end may still be delivered.
                    Err(Misuse::Gone | Misuse::Closing) => known.gone = true,
                    Err(misuse) => panic!("{conn}: {misuse}"),
                }
            }
            What::Pong { .. } => assert!(known.is_websocket),
            What::Closing { code, .. } => {
                assert!(known.is_websocket && (1000..5000).contains(code));
                known.gone = true;
            }
            What::Writable => self.go_on(reactor, conn),
            What::Closed { cause } => {
                known.closed = true;
                *self.causes.entry(cause_name(cause)).or_default() += 1;
                let orphans = known.requests.iter().filter(|asked| !asked.answered);
                if matches!(cause, Cause::Agreed) {
                    assert_eq!(
                        orphans.count(),
                        0,
                        "{conn}: agreed to leave without an answer"
                    );
                }
                assert_eq!(
                    reactor.waiting_bytes(conn).unwrap_or(0),
                    0,
                    "{conn}: bytes remain"
                );
            }
        }
    }

    fn take_request<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        exchange: Exchange,
        target: &str,
        has_body: bool,
    ) {
        let known = self.known.entry(conn).or_default();
        assert!(!known.closed, "{conn}: a request after Closed");
        assert_eq!(exchange.0 as usize, known.requests.len(), "{conn}: numbers");
        let before = known.requests.last();
        assert!(before.is_none_or(|asked| asked.whole), "{conn}: no End");
        let unanswered = known.requests.iter().filter(|asked| !asked.answered);
        let in_flight = unanswered.count() + 1;
        assert!(in_flight <= usize::from(self.limits.exchanges_in_flight_max));
        let mut parts = target.split('/').skip(1).map(str::to_owned);
        known.requests.push(Asked {
            kind: parts.next().expect("a kind"),
            tag: parts.next().expect("a tag"),
            body: Vec::new(),
            whole: !has_body,
            answered: false,
            stream: None,
            stalled: false,
        });
        let asked = known.requests.last_mut().expect("just pushed");
        if let Some(len) = parts.next() {
            asked.body = body_for(&asked.tag, len.parse().expect("a length"));
        }
        if !has_body {
            self.think(reactor, conn, exchange);
        }
    }

    /// Acts now, or later.
    fn think<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        exchange: Exchange,
    ) {
        if self.dice.chance(500) {
            return self.act(reactor, conn, exchange);
        }
        self.sequence += 1;
        let at = reactor.now() + self.dice.within(THINKING_MAX);
        self.due.insert((at, self.sequence), (conn, exchange));
    }

    /// Answers a request, or streams on.
    fn act<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        exchange: Exchange,
    ) {
        let cuts = self.dice.chance(self.cuts);
        let piece_max = self.dice.up_to(PIECE_MAX);
        let known = self.known.get_mut(&conn).expect("someone known");
        let asked = &mut known.requests[exchange.0 as usize];
        let fields: [(&[u8], &[u8]); 1] = [(b"Tag", asked.tag.as_bytes())];
        let mut response = Response {
            status: 200,
            fields: &fields,
            body: &asked.body,
        };
        let outcome = match (asked.kind.as_str(), &mut asked.stream) {
            _ if cuts => reactor.terminate(conn).map(|()| Pressure::Low),
            ("ws", _) => {
                let accept = Accept {
                    protocol: None,
                    fields: &fields,
                    settings: Rc::new(WsSettings::new(Role::Server, &self.limits)),
                };
                known.is_websocket = true;
                asked.answered = true;
                let accepted = reactor.accept_websocket(conn, exchange, &accept);
                accepted.map(|()| Pressure::Low)
            }
            ("stream", None) => {
                response.body = &[];
                let begun = reactor.begin_response(conn, exchange, &response);
                asked.stream = Some(std::mem::take(&mut asked.body));
                begun
            }
            ("stream", Some(left)) => {
                // The end of the body, by which clients know it, goes out in one piece.
                let is_last = left.len() < piece_max + 20;
                let piece = if is_last { left.len() } else { piece_max };
                let sent = reactor.write_body(conn, exchange, &left[..piece]);
                left.drain(..piece);
                asked.answered = is_last;
                match sent {
                    Ok(_) if is_last => reactor.finish_body(conn, exchange),
                    sent => sent,
                }
            }
            _ => {
                asked.answered = true;
                reactor.respond(conn, exchange, &response)
            }
        };
        let waiting = reactor.waiting_bytes(conn);
        let number = exchange.0;
        let net = reactor.net();
        net.note(format_args!(
            "{conn} answers {number}: {outcome:?}, waiting {waiting:?}"
        ));
        match outcome {
            Ok(_) if cuts => known.gone = true,
            Ok(Pressure::High) if !asked.answered => asked.stalled = true,
            Ok(_) if asked.stream.is_some() && !asked.answered => {
                self.think(reactor, conn, exchange);
            }
            Ok(_) => {}
            Err(Misuse::Gone) => known.gone = true,
            Err(misuse) => panic!("{conn} {exchange:?}: {misuse}"),
        }
    }

    /// There is room again.
    fn go_on<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>, conn: ConnKey) {
        let known = self.known.get_mut(&conn).expect("someone known");
        if std::mem::take(&mut known.held) {
            reactor.release(conn);
        }
        let stalled = known.requests.iter_mut().zip(0..);
        let stalled: Vec<u32> = stalled
            .filter_map(|(asked, number)| std::mem::take(&mut asked.stalled).then_some(number))
            .collect();
        for number in stalled {
            self.act(reactor, conn, Exchange(number));
        }
    }

    fn check_bounds<const D: bool>(&self, reactor: &Reactor<SimNet<D>>) {
        // One answer or message may pass the bound; what comes while it waits may not.
        let most = self.limits.out_bytes_max as usize + self.limits.message_bytes_max as usize;
        for (conn, known) in &self.known {
            // What the driver answers by itself is read only while less than that waits.
            let most = if known.is_websocket && known.messages == 0 {
                (self.limits.out_bytes_high + 2 * self.limits.segment_bytes_max) as usize
            } else {
                most
            };
            let waiting = reactor.waiting_bytes(*conn).unwrap_or(0);
            assert!(waiting <= most, "{conn}: {waiting} bytes wait");
        }
    }
}

/// Adds a completion to the transcript.
fn note<const D: bool>(net: &SimNet<D>, conn: ConnKey, what: &What<'_>) {
    match what {
        What::Request {
            exchange, request, ..
        } => {
            let target = request.target().escape_ascii();
            net.note(format_args!("{conn} request {} {target}", exchange.0));
        }
        What::Body { exchange, bytes } => {
            net.note(format_args!(
                "{conn} body {} {}",
                exchange.0,
                bytes.escape_ascii()
            ));
        }
        What::Message { kind, payload } => {
            net.note(format_args!("{conn} {kind:?} {}", payload.escape_ascii()));
        }
        other => net.note(format_args!("{conn} {other:?}")),
    }
}

fn newest(known: &mut Known, exchange: Exchange) -> &mut Asked {
    assert_eq!(exchange.0 as usize + 1, known.requests.len(), "whose body?");
    let asked = known.requests.last_mut().expect("counted");
    assert!(!asked.whole, "more body after its end");
    asked
}

fn cause_name(cause: &Cause) -> String {
    match cause {
        Cause::TimedOut(deadline) => format!("{deadline:?}"),
        Cause::Violation(violation) => violation.name().to_owned(),
        other => other.name().to_owned(),
    }
}
