//! A client connection face to face with a server connection, and then, where the plan says so,
//! two WebSockets in their places. The input is a plan: what is asked and what is answered.
//! Everything asked is heard as it was asked, everything answered arrives as it was answered, in
//! whatever pieces it travels; nobody finds fault with the other; both end when they should; no
//! buffer stays behind.
#![no_main]

#[path = "conn_pair/plan.rs"]
mod plan;
#[path = "conn_pair/websocket.rs"]
mod websocket;

use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::{
    Appetite, Ask, AskBody, ClientConn, Event, EventLog, Exchange, Payload, Refusals, Response,
    ServerConn, ServerSettings, SharedDate, WsConn, WsOpening, WsSettings,
};
use hukilau_core::limits::Limits;
use hukilau_core::ws::Role;
use hukilau_core::ws::deflate::DeflateSettings;
use hukilau_fuzz::{Seed, seeded};
use libfuzzer_sys::fuzz_target;
use plan::{Fields, Manner, Plan, Planned, Source};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;
use websocket::play_websocket;

/// Steps after which a conversation counts as endless: each moves a byte or says something.
const STEPS_MAX: usize = 1_000_000;

/// Fields that the server adds by itself, or that frame a body.
const MANAGED: [&[u8]; 4] = [
    b"date",
    b"connection",
    b"content-length",
    b"transfer-encoding",
];

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let plan = Plan::read(&mut Source(bytes));
    play(&plan, None);
    play(&plan, Some(&mut seed));
});

/// Bytes on their way.
#[derive(Default)]
struct Pipe {
    on_the_way: VecDeque<u8>,
    /// Arrived, and not consumed.
    segment: Vec<u8>,
}

impl Pipe {
    /// Takes what `out` has, or some of it.
    fn take(&mut self, out: &mut SendBuffer, most: usize) {
        let bytes: Vec<u8> = out.chunks().flatten().copied().take(most).collect();
        out.consume(bytes.len());
        self.on_the_way.extend(bytes);
    }

    /// Lets some bytes arrive; whether any did.
    fn arrive(&mut self, most: usize) -> bool {
        let count = self.on_the_way.len().min(most);
        self.segment.extend(self.on_the_way.drain(..count));
        count > 0
    }
}

/// A request that is arriving, or has.
#[derive(Debug, Default)]
struct Heard {
    /// Method and target.
    start: Vec<u8>,
    fields: Fields,
    body: Vec<u8>,
}

/// What is common to both ends.
struct End {
    log: EventLog,
    out: SendBuffer,
    incoming: Pipe,
}

impl End {
    fn new(pool: &BufferPool) -> Self {
        Self {
            log: EventLog::default(),
            out: SendBuffer::new(pool),
            incoming: Pipe::default(),
        }
    }

    fn payload(&self, payload: Payload) -> &[u8] {
        self.log.payload(payload, &self.incoming.segment)
    }
}

/// One conversation. Bytes travel whole, or in pieces that the seed cuts.
fn play(plan: &Plan, seed: Option<&mut Seed>) {
    let pool = BufferPool::default();
    let mut whole = Seed(0);
    let cuts = seed.is_some();
    let seed = seed.unwrap_or(&mut whole);
    let limits = Rc::new(Limits {
        body_bytes_max: 60_000,
        ..Limits::default()
    });
    let settings = Rc::new(ServerSettings {
        refusals: Refusals::default(),
        limits: Rc::clone(&limits),
        date: Rc::new(SharedDate::new(*b"Sun, 06 Nov 1994 08:49:37 GMT")),
        collect_bodies: plan.collects,
        websocket: true,
    });
    let now = Instant::now();
    let mut talk = Talk {
        plan,
        now,
        limits: Rc::clone(&limits),
        client: ClientConn::new(limits, now),
        client_end: End::new(&pool),
        server: ServerConn::new(settings, now),
        server_end: End::new(&pool),
        asked: 0,
        exchange: Exchange(0),
        left_to_ask: Vec::new(),
        hears: Heard::default(),
        heard: 0,
        requests: 0,
        answers: 0,
        whole_answers: 0,
    };
    let mut steps = 0;
    let upgraded = loop {
        let most = if cuts { seed.most() } else { usize::MAX };
        let moved = match cuts && seed.below(2) == 0 {
            true => talk.to_server(most) | talk.to_client(most) | talk.ask(most),
            false => talk.ask(most) | talk.to_client(most) | talk.to_server(most),
        };
        if !moved {
            break talk.end();
        }
        steps += 1;
        assert!(steps < STEPS_MAX, "endless");
    };
    if let (Some((client, server)), Some((messages, server_closes))) = (upgraded, &plan.websocket) {
        let ends = [(client, talk.client_end), (server, talk.server_end)];
        play_websocket(ends, messages, *server_closes, cuts.then_some(seed), now);
    }
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
}

struct Talk<'a> {
    plan: &'a Plan,
    now: Instant,
    limits: Rc<Limits>,
    client: ClientConn,
    client_end: End,
    server: ServerConn,
    server_end: End,
    /// Requests begun by the client, and what is left of the newest one's body.
    asked: usize,
    exchange: Exchange,
    left_to_ask: Vec<u8>,
    /// The request that the server hears, and how many it has heard whole.
    hears: Heard,
    requests: usize,
    /// The same of answers at the client.
    heard: usize,
    answers: usize,
    whole_answers: usize,
}

const ENTROPY: &[u8; 24] = b"four and twenty of bytes";

impl Talk<'_> {
    /// Whether all that is to be asked before an upgrade is answered.
    fn is_done(&self) -> bool {
        self.whole_answers == self.plan.exchanges.len()
    }

    /// The client goes on asking; whether it did.
    fn ask(&mut self, most: usize) -> bool {
        let out = &mut self.client_end.out;
        if !self.left_to_ask.is_empty() {
            let piece: Vec<u8> = self
                .left_to_ask
                .drain(..most.min(self.left_to_ask.len()))
                .collect();
            self.client
                .write_body(self.exchange, &piece, out)
                .expect("a body is being sent");
            if self.left_to_ask.is_empty() {
                let ended = self.client.finish_body(self.exchange, out);
                ended.expect("all of it was sent");
            }
        } else if self.client.is_idle() && self.asked < self.plan.exchanges.len() {
            self.begin();
        } else if self.client.is_idle() && self.is_done() && self.plan.websocket.is_some() {
            if self.asked > self.plan.exchanges.len() {
                return false;
            }
            self.asked += 1;
            self.ask_upgrade();
        } else {
            return false;
        }
        true
    }

    fn begin(&mut self) {
        let planned = &self.plan.exchanges[self.asked];
        self.asked += 1;
        let mut fields: Vec<(&[u8], &[u8])> = borrowed(&planned.fields);
        if planned.closes.0 {
            fields.push((b"Connection", b"close"));
        }
        let body = match planned.manner {
            Manner::Whole if planned.body.is_empty() => AskBody::None,
            Manner::Whole => AskBody::Whole(&planned.body),
            Manner::Length => AskBody::Length(planned.body.len() as u64),
            Manner::Chunked => AskBody::Chunked,
        };
        let ask = Ask {
            method: planned.method,
            target: &planned.target,
            host: b"pair.example",
            fields: &fields,
            body,
            collect_bytes_max: self.plan.collects.then_some(60_000),
        };
        let out = &mut self.client_end.out;
        self.exchange = self.client.ask(&ask, out).expect("a valid request");
        if planned.manner != Manner::Whole {
            self.left_to_ask.clone_from(&planned.body);
            if planned.body.is_empty() {
                let ended = self.client.finish_body(self.exchange, out);
                ended.expect("nothing was announced");
            }
        }
    }

    fn ask_upgrade(&mut self) {
        let mut settings = WsSettings::new(Role::Client, &self.limits);
        settings.deflate = self.plan.deflate.then(deflate_settings);
        let opening = WsOpening {
            target: b"/socket",
            host: b"pair.example",
            protocols: &[],
            fields: &[],
            settings: &Rc::new(settings),
        };
        let out = &mut self.client_end.out;
        self.client
            .open_websocket(&opening, *ENTROPY, out)
            .expect("a valid request");
    }

    /// Bytes reach the server, which answers what is whole.
    fn to_server(&mut self, most: usize) -> bool {
        let end = &mut self.server_end;
        end.incoming.take(&mut self.client_end.out, most);
        let mut moved = end.incoming.arrive(most);
        while self.server.appetite() == Appetite::Read && !end.incoming.segment.is_empty() {
            let segment = &mut end.incoming.segment;
            let used = self
                .server
                .receive(segment, self.now, &mut end.log, &mut end.out)
                .expect("our client keeps the rules");
            let events = end.log.events().to_vec();
            let mut owed = Vec::new();
            for event in events {
                owed.extend(hear_request(&mut self.hears, end, event));
            }
            end.log.clear();
            end.incoming.segment.drain(..used);
            let answered = !owed.is_empty();
            for exchange in owed {
                let heard = std::mem::take(&mut self.hears);
                answer(
                    self.plan,
                    self.requests,
                    &heard,
                    &mut self.server,
                    exchange,
                    end,
                    self.now,
                );
                self.requests += 1;
            }
            moved |= answered;
            if used == 0 && !answered {
                break;
            }
        }
        moved
    }

    /// Bytes reach the client.
    fn to_client(&mut self, most: usize) -> bool {
        let end = &mut self.client_end;
        end.incoming.take(&mut self.server_end.out, most);
        let moved = end.incoming.arrive(most);
        if self.client.appetite() != Appetite::Read || end.incoming.segment.is_empty() {
            return moved;
        }
        let used = self
            .client
            .receive(
                &mut end.incoming.segment,
                self.now,
                &mut end.log,
                &mut end.out,
            )
            .expect("our server keeps the rules");
        for event in end.log.events().to_vec() {
            self.hear_answer(event);
        }
        let end = &mut self.client_end;
        end.log.clear();
        end.incoming.segment.drain(..used);
        moved
    }

    fn hear_answer(&mut self, event: Event) {
        let end = &self.client_end;
        let Some(planned) = self
            .plan
            .exchanges
            .get(self.answers.saturating_sub(match event {
                Event::Response { .. } => 0,
                _ => 1,
            }))
        else {
            return self.hear_upgrade(event);
        };
        match event {
            Event::Response { head, at, .. } => {
                let response = end.log.response(head, at, &end.incoming.segment);
                let response = response.expect("its head is logged");
                assert_eq!(response.head().status, planned.status);
                let heard: Fields = unmanaged(response.fields());
                assert_eq!(heard, planned.answer_fields, "the fields of an answer");
                self.answers += 1;
                self.heard = 0;
                if !response.has_body() {
                    assert_eq!(planned.heard_body(), b"");
                    self.whole_answers += 1;
                }
            }
            Event::Body { payload, .. } => {
                let piece = end.payload(payload);
                let rest = &planned.heard_body()[self.heard..];
                assert!(rest.starts_with(piece), "the body of an answer");
                self.heard += piece.len();
            }
            Event::End { .. } => {
                assert_eq!(self.heard, planned.heard_body().len(), "all of a body");
                self.whole_answers += 1;
            }
            other => panic!("no client logs {other:?}"),
        }
    }

    fn hear_upgrade(&mut self, event: Event) {
        let Event::Response { head, at, .. } = event else {
            panic!("{event:?} is no answer to an upgrade");
        };
        let end = &self.client_end;
        let response = end.log.response(head, at, &end.incoming.segment);
        let response = response.expect("its head is logged");
        assert_eq!(response.head().status, 101, "our server accepts");
        let answered = response.field(b"Sec-WebSocket-Extensions");
        assert_eq!(answered.is_some(), self.plan.deflate);
        self.answers += 1;
        self.whole_answers += 1;
    }

    /// Nothing moves any more. Both WebSockets, if it came to that.
    fn end(&mut self) -> Option<(WsConn, WsConn)> {
        let planned = &self.plan.exchanges;
        let upgrades = self.plan.websocket.is_some();
        let total = planned.len() + usize::from(upgrades);
        assert_eq!(self.requests, total, "everything asked is heard");
        assert_eq!(self.whole_answers, total, "everything answered arrives");
        if upgrades {
            assert!(self.client.is_switched());
            let accepted = self.server.take_accepted().expect("it was accepted");
            assert_eq!(accepted.deflate.is_some(), self.plan.deflate);
            let settings = websocket_settings(Role::Server, &self.limits);
            let server = WsConn::new(settings, self.now, 0);
            let server = match accepted.deflate {
                Some(params) => server.with_deflate(params),
                None => server,
            };
            let opened = self.client.take_opened().expect("the answer agrees");
            return Some((opened.into_websocket(self.now), server));
        }
        let is_last = |planned: &Planned| planned.closes != (false, false);
        if planned.last().is_some_and(is_last) {
            assert_eq!(
                self.client.appetite(),
                Appetite::Close,
                "the client was told"
            );
            assert_eq!(
                self.server.appetite(),
                Appetite::Close,
                "the server was told"
            );
            return None;
        }
        assert!(self.client.is_idle() && self.server.is_resting());
        let (client, server) = (&mut self.client_end, &mut self.server_end);
        assert_eq!(self.server.receive_eof(&mut server.out), Ok(()));
        assert_eq!(self.server.appetite(), Appetite::Close);
        assert_eq!(
            self.client.receive_eof(&mut client.log, &client.out),
            Ok(())
        );
        assert!(
            server.out.is_empty() && client.out.is_empty(),
            "no last words"
        );
        None
    }
}

/// Collects what the server hears; an exchange that is whole.
fn hear_request(heard: &mut Heard, end: &End, event: Event) -> Option<Exchange> {
    match event {
        Event::Request { exchange, head, at } => {
            let request = end.log.request(head, at, &end.incoming.segment);
            let request = request.expect("its head is logged");
            heard.start = [request.method(), b" ", request.target()].concat();
            heard.fields = unmanaged(request.fields());
            (!request.has_body()).then_some(exchange)
        }
        Event::Body { payload, .. } => {
            let piece = end.payload(payload);
            assert!(!piece.is_empty(), "an empty piece");
            heard.body.extend_from_slice(piece);
            None
        }
        Event::End { exchange } => Some(exchange),
        other => panic!("no server logs {other:?}"),
    }
}

/// Checks request number `number` and answers it as planned.
fn answer(
    plan: &Plan,
    number: usize,
    heard: &Heard,
    server: &mut ServerConn,
    exchange: Exchange,
    end: &mut End,
    now: Instant,
) {
    let out = &mut end.out;
    let Some(planned) = plan.exchanges.get(number) else {
        assert_eq!(heard.start, b"GET /socket");
        let settings = websocket_settings(Role::Server, &Limits::default());
        let accepted = server.accept(exchange, None, &[], &settings, out);
        return accepted.expect("it asks for a WebSocket");
    };
    assert_eq!(
        heard.start,
        [planned.method, b" ", &planned.target].concat()
    );
    let host = (b"Host".to_vec(), b"pair.example".to_vec());
    assert_eq!(heard.fields.first(), Some(&host));
    assert_eq!(heard.fields[1..], planned.fields, "the fields of a request");
    assert_eq!(heard.body, planned.body, "the body of a request");

    let mut fields: Vec<(&[u8], &[u8])> = borrowed(&planned.answer_fields);
    let length = planned.answer.len().to_string();
    let may_have_body = !matches!(planned.status, 204 | 304);
    if planned.answer_manner == Manner::Length && may_have_body {
        fields.push((b"Content-Length", length.as_bytes()));
    }
    if planned.closes.1 {
        fields.push((b"Connection", b"close"));
    }
    let response = Response {
        status: planned.status,
        fields: &fields,
        body: if may_have_body { &planned.answer } else { b"" },
    };
    if planned.answer_manner == Manner::Whole {
        return server
            .respond(exchange, &response, now, out)
            .expect("a valid answer");
    }
    server
        .begin_response(exchange, &response, out)
        .expect("a valid head");
    if may_have_body {
        for piece in planned.answer.chunks(1000) {
            server
                .write_body(exchange, piece, out)
                .expect("a body is awaited");
        }
    }
    server
        .finish_body(exchange, now, out)
        .expect("all of it was sent");
}

fn borrowed(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    fields
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect()
}

fn unmanaged<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Fields {
    fields
        .filter(|(name, _)| {
            !MANAGED
                .iter()
                .any(|managed| name.eq_ignore_ascii_case(managed))
        })
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fn deflate_settings() -> DeflateSettings {
    DeflateSettings {
        compress_bytes_min: 16,
        own_context_takeover: true,
        peer_context_takeover: true,
        ..DeflateSettings::default()
    }
}

fn websocket_settings(role: Role, limits: &Limits) -> Rc<WsSettings> {
    let mut settings = WsSettings::new(role, limits);
    settings.deflate = Some(deflate_settings());
    Rc::new(settings)
}
