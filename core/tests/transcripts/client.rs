//! What a server sends to a client that has asked once: the driver, with the end of input and what
//! nobody asked for.

use crate::Machine;
use crate::notation::{Action, quoted};
use crate::settings::Settings;
use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::client::{Ask, AskBody, ClientConn};
use hukilau_core::conn::{Appetite, Event, EventLog};
use hukilau_core::violation::Violation;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Instant;

pub(crate) struct Client {
    conn: ClientConn,
    pool: BufferPool,
    out: SendBuffer,
    events: EventLog,
    now: Instant,
    spill: Vec<u8>,
    /// How many steps it may take at a time.
    steps: Option<u16>,
    /// Bytes received so far.
    received: usize,
    violated_after: Option<usize>,
    log: String,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Self {
        let pool = BufferPool::default();
        let limits = Rc::new(settings.limits.clone());
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let (mut conn, mut out) = (ClientConn::new(limits, now), SendBuffer::new(&pool));
        let ask = Ask {
            method: settings.method_name.as_bytes(),
            target: b"/",
            host: b"a",
            fields: &[],
            body: AskBody::None,
            collect_bytes_max: Some(settings.limits.body_bytes_max),
        };
        conn.ask(&ask, &mut out).expect("a fresh connection");
        out.clear();
        Self {
            conn,
            pool,
            out,
            events: EventLog::default(),
            now,
            spill: Vec::new(),
            steps: settings.steps,
            received: 0,
            violated_after: None,
            log: String::new(),
        }
    }

    fn note(&mut self, verdict: Result<(), Violation>) {
        for event in self.events.events() {
            let line = match *event {
                Event::Response { head, at, .. } => {
                    let response = self.events.response(head, at, &self.spill);
                    let response = response.expect("a head that is logged is in the log");
                    format!(
                        "response {}{}",
                        response.head().status,
                        quoted(response.reason())
                    )
                }
                Event::Body { payload, .. } => {
                    format!("body{}", quoted(self.events.payload(payload, &self.spill)))
                }
                Event::End { .. } => "end".to_owned(),
                other => panic!("no HTTP client logs {other:?}"),
            };
            let _ = writeln!(self.log, "{line}");
        }
        self.events.clear();
        if let Err(violation) = verdict {
            let _ = writeln!(self.log, "violation {}", violation.name());
            self.violated_after = Some(self.received);
        }
    }
}

impl Machine for Client {
    fn receive(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        if self.conn.appetite() != Appetite::Read {
            return;
        }
        self.spill.extend_from_slice(bytes);
        loop {
            if let Some(steps) = self.steps {
                self.events.allow_steps(steps);
            }
            let (events, out) = (&mut self.events, &mut self.out);
            let received = self.conn.receive(&mut self.spill, self.now, events, out);
            let consumed = received.unwrap_or(0);
            let has_stopped = self.events.has_stopped();
            self.note(received.map(|_| ()));
            self.spill.drain(..consumed);
            if !has_stopped || self.conn.appetite() != Appetite::Read {
                break;
            }
        }
    }

    fn act(&mut self, action: &Action) {
        assert!(matches!(action, Action::Eof), "no client does {action:?}");
        if self.conn.appetite() != Appetite::Close {
            let ended = self.conn.receive_eof(&mut self.events, &self.out);
            self.note(ended);
        }
    }

    fn finish(mut self: Box<Self>) -> String {
        self.log.push_str(match self.conn.appetite() {
            Appetite::Read => "then read\n",
            Appetite::Pause => "then pause\n",
            Appetite::Conclude => "then conclude\n",
            Appetite::Close => "then close\n",
        });
        drop(self.conn);
        assert_eq!(self.pool.taken(), 0, "a buffer was kept");
        self.log
    }

    fn violated_after(&self) -> Option<usize> {
        self.violated_after
    }
}
