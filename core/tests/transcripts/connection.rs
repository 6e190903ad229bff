//! One connection, driven as the reactor would drive it, that writes down what happens.
//!
//! The log does not depend on how the input was cut: between two actions, all events come before
//! all output, and pieces of a streamed body are joined.

use crate::Machine;
use crate::notation::{Action, escaped, quoted};
use crate::output;
use crate::settings::Settings;
use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::{
    Appetite, Driver, Event, EventLog, Exchange, Misuse, Refusals, Response, ServerConn,
    ServerSettings, SharedDate, WsConn,
};
use hukilau_core::http1::{Framing, Request, Version};
use hukilau_core::violation::Violation;
use hukilau_core::ws::{MessageKind, Role};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Instant;

const DATE: [u8; 29] = *b"Sun, 06 Nov 1994 08:49:37 GMT";

pub(crate) struct Connection<'a> {
    settings: &'a Settings,
    pool: BufferPool,
    driver: Driver,
    events: EventLog,
    out: SendBuffer,
    now: Instant,
    /// Received and not consumed.
    spill: Vec<u8>,
    /// Bytes received so far.
    received: usize,
    violated_after: Option<usize>,
    /// A violation or a deadline has ended it.
    is_over: bool,
    /// What we send are frames.
    is_upgraded: bool,
    /// Requests that are whole and not answered; an upgrade among them is true.
    unanswered: Vec<(Exchange, bool)>,
    /// The streamed body that is last in `lines`.
    body: Option<(Exchange, Vec<u8>)>,
    /// Events since the last action.
    lines: String,
    /// Output since the last action.
    sent: Vec<u8>,
    /// All that was before.
    log: String,
}

impl Machine for Connection<'_> {
    /// The peer sends `bytes`; they wait while the connection does not read.
    fn receive(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        self.spill.extend_from_slice(bytes);
        while self.reads() && !self.spill.is_empty() {
            self.events.clear();
            if let Some(steps) = self.settings.steps {
                self.events.allow_steps(steps);
            }
            let received =
                self.driver
                    .receive(&mut self.spill, self.now, &mut self.events, &mut self.out);
            self.note_events();
            match received {
                Ok(consumed) => {
                    self.spill.drain(..consumed);
                    if !self.answer() && consumed == 0 {
                        break;
                    }
                }
                Err(violation) => {
                    self.fail(violation);
                    self.answer();
                }
            }
        }
        self.flush();
    }

    /// Something other than bytes happens, after all that the peer has sent so far.
    fn act(&mut self, action: &Action) {
        self.turn_page();
        match action {
            Action::Eof => {
                self.line("! eof");
                self.receive_eof();
            }
            Action::Wait(time) => {
                self.line(&format!("! wait {time:?}"));
                self.now += *time;
                self.handle_deadlines();
            }
            Action::Drain => {
                self.line("! drain");
                if let Driver::Server(server) = &mut self.driver {
                    server.begin_drain();
                }
            }
            Action::Send { binary, payload } => {
                let (kind, name) = if *binary {
                    (MessageKind::Binary, "binary")
                } else {
                    (MessageKind::Text, "text")
                };
                let done = self.command(|websocket, out, _| websocket.send(kind, payload, out));
                self.line(&format!("! {name}{}{done}", quoted(payload)));
            }
            Action::Ping(payload) => {
                let done = self.command(|websocket, out, _| websocket.ping(payload, out));
                self.line(&format!("! ping{}{done}", quoted(payload)));
            }
            Action::Close { code, reason } => {
                let done = self
                    .command(|websocket, out, now| websocket.begin_close(*code, reason, now, out));
                self.line(&format!("! close {code}{}{done}", quoted(reason)));
            }
        }
        self.flush();
        self.turn_page();
        // What was received while the connection did not read may be read now.
        self.receive(b"");
    }

    /// The log, with what the connection would do next as its last line.
    fn finish(mut self: Box<Self>) -> String {
        self.flush();
        self.turn_page();
        let appetite = match self.driver.appetite() {
            Appetite::Read => "read",
            Appetite::Pause => "pause",
            Appetite::Conclude => "conclude",
            Appetite::Close => "close",
        };
        self.line(&format!("then {appetite}"));
        self.turn_page();
        let Self {
            pool,
            driver,
            events,
            out,
            log,
            ..
        } = *self;
        drop((driver, events, out));
        assert_eq!(pool.taken(), 0, "all buffers are given back:\n{log}");
        log
    }

    fn violated_after(&self) -> Option<usize> {
        self.violated_after
    }
}

impl<'a> Connection<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        let now = origin();
        let driver = if settings.is_websocket {
            let websocket = WsConn::new(Rc::new(settings.websocket_rules()), now, 1);
            Driver::WebSocket(match settings.deflate_params() {
                Some(params) => websocket.with_deflate(params),
                None => websocket,
            })
        } else {
            let shared = ServerSettings {
                limits: Rc::new(settings.limits.clone()),
                date: Rc::new(SharedDate::new(DATE)),
                collect_bodies: !settings.stream_bodies,
                websocket: settings.websocket,
                refusals: Refusals::default(),
            };
            Driver::Server(ServerConn::new(Rc::new(shared), now))
        };
        let pool = BufferPool::default();
        Self {
            settings,
            driver,
            events: EventLog::default(),
            out: SendBuffer::new(&pool),
            pool,
            now,
            spill: Vec::new(),
            received: 0,
            violated_after: None,
            is_over: false,
            is_upgraded: settings.is_websocket,
            unanswered: Vec::new(),
            body: None,
            lines: String::new(),
            sent: Vec::new(),
            log: String::new(),
        }
    }

    fn reads(&self) -> bool {
        !self.is_over && self.driver.appetite() == Appetite::Read
    }

    fn receive_eof(&mut self) {
        if !self.reads() {
            return;
        }
        self.events.clear();
        let ended = self
            .driver
            .receive_eof(self.now, false, &mut self.events, &mut self.out);
        self.note_events();
        if let Err(violation) = ended {
            self.fail(violation);
        }
        self.answer();
    }

    fn handle_deadlines(&mut self) {
        while !self.is_over && self.driver.deadline().is_some_and(|due| due <= self.now) {
            self.events.clear();
            let missed = self
                .driver
                .handle_deadline(self.now, &mut self.events, &mut self.out);
            self.note_events();
            if let Some(missed) = missed {
                self.line(&format!("deadline {missed:?}"));
                self.is_over = true;
            }
        }
    }

    fn fail(&mut self, violation: Violation) {
        let code = match (violation.status(), violation.close_code()) {
            (status, 0) => format!("status={status}"),
            (_, code) => format!("code={code}"),
        };
        self.line(&format!("violation {} {code}", violation.name()));
        self.violated_after = Some(self.received);
        self.is_over = true;
        self.flush();
    }

    /// Calls the WebSocket, and says what it refused.
    fn command(
        &mut self,
        call: impl FnOnce(&mut WsConn, &mut SendBuffer, Instant) -> Result<(), Misuse>,
    ) -> String {
        let Driver::WebSocket(websocket) = &mut self.driver else {
            panic!("only a WebSocket takes commands");
        };
        match call(websocket, &mut self.out, self.now) {
            Ok(()) => String::new(),
            Err(misuse) => format!(" misuse={misuse:?}"),
        }
    }

    /// Answers what can be answered. Whether something was.
    fn answer(&mut self) -> bool {
        let unanswered = std::mem::take(&mut self.unanswered);
        let Driver::Server(server) = &mut self.driver else {
            return false;
        };
        let (mut answered, mut accepted) = (false, None);
        for (exchange, is_upgrade) in unanswered {
            let done = match (&self.settings.accept, self.settings.answer) {
                (Some(protocol), _) if is_upgrade => {
                    // All requests before it are answered, so the switch is due at once.
                    let rules = Rc::new(self.settings.websocket_rules());
                    accepted = Some(WsConn::new(Rc::clone(&rules), self.now, 1));
                    let protocol = Some(protocol.as_bytes()).filter(|name| !name.is_empty());
                    server.accept(exchange, protocol, &[], &rules, &mut self.out)
                }
                (_, Some(status)) => {
                    let response = Response {
                        status,
                        fields: &[],
                        body: &self.settings.body,
                    };
                    server.respond(exchange, &response, self.now, &mut self.out)
                }
                (_, None) => continue,
            };
            assert_eq!(done, Ok(()), "the answer to {exchange:?}");
            answered = true;
        }
        if let Some(websocket) = accepted {
            self.driver = Driver::WebSocket(websocket);
        }
        self.flush();
        answered
    }

    fn flush(&mut self) {
        if self.driver.appetite() == Appetite::Conclude {
            self.driver.conclude(self.now, &mut self.out);
        }
        self.sent.extend(self.out.chunks().flatten());
        self.out.clear();
    }

    fn line(&mut self, line: &str) {
        self.end_body();
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    fn end_body(&mut self) {
        if let Some((Exchange(number), bytes)) = self.body.take() {
            let _ = writeln!(self.lines, "body {number}{}", quoted(&bytes));
        }
    }

    /// Ends the part of the log in which events come before output.
    fn turn_page(&mut self) {
        self.end_body();
        self.log.push_str(&std::mem::take(&mut self.lines));
        let sent = std::mem::take(&mut self.sent);
        let masked = self.settings.role == Role::Client;
        self.log
            .push_str(&output::describe(&sent, &mut self.is_upgraded, masked));
    }

    fn note_events(&mut self) {
        let events = std::mem::take(&mut self.events);
        let segment = std::mem::take(&mut self.spill);
        for event in events.events() {
            self.note_event(event, &events, &segment);
        }
        (self.events, self.spill) = (events, segment);
    }

    fn note_event(&mut self, event: &Event, events: &EventLog, segment: &[u8]) {
        match *event {
            Event::Request { exchange, head, at } => {
                let request = events.request(head, at, segment);
                let request = request.expect("a head that is logged is in the log");
                self.note_request(exchange, &request);
            }
            Event::Response { .. } => panic!("no server logs a response"),
            Event::Bytes { .. } | Event::Finished => panic!("no stream is driven here"),
            Event::Body { exchange, payload } => {
                let bytes = events.payload(payload, segment);
                assert!(!bytes.is_empty(), "an empty piece of a body");
                match &mut self.body {
                    Some((same, body)) if *same == exchange && self.settings.stream_bodies => {
                        body.extend_from_slice(bytes);
                    }
                    _ => {
                        self.end_body();
                        self.body = Some((exchange, bytes.to_vec()));
                    }
                }
            }
            Event::End { exchange } => {
                self.line(&format!("end {}", exchange.0));
                self.unanswered.push((exchange, false));
            }
            Event::Message { kind, payload } => {
                let name = match kind {
                    MessageKind::Text => "text",
                    MessageKind::Binary => "binary",
                };
                let payload = quoted(events.payload(payload, segment));
                self.line(&format!("message {name}{payload}"));
            }
            Event::Pong { payload } => {
                self.line(&format!("pong{}", quoted(events.payload(payload, segment))));
            }
            Event::Closing { code, reason } => {
                let reason = quoted(events.payload(reason, segment));
                self.line(&format!("closing {code}{reason}"));
            }
        }
    }

    fn note_request(&mut self, exchange: Exchange, request: &Request<'_>) {
        let head = request.head();
        let method = escaped(request.method());
        let mut line = format!(
            "request {} {method} {}",
            exchange.0,
            escaped(request.target())
        );
        if head.version == Version::Http10 {
            line.push_str(" version=1.0");
        }
        match head.framing {
            Framing::None => {}
            Framing::Length(length) => line.push_str(&format!(" framing=length:{length}")),
            Framing::Chunked => line.push_str(" framing=chunked"),
            Framing::UntilClose => panic!("no request lasts until the end"),
        }
        for (is_so, word) in [
            (!head.keeps_alive, " close"),
            (head.expects_continue, " expects=100-continue"),
            (head.upgrades_to_websocket, " upgrade=websocket"),
        ] {
            if is_so {
                line.push_str(word);
            }
        }
        self.line(&line);
        if self.settings.shows_fields {
            for (name, value) in request.fields() {
                self.line(&format!("  {}:{}", escaped(name), quoted(value)));
            }
        }
        if !request.has_body() {
            self.unanswered.push((exchange, head.upgrades_to_websocket));
        }
    }
}

fn origin() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to make an Instant"
    )]
    Instant::now()
}
