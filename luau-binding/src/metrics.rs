//! `--metrics ADDR`: the figures of all workers in the text format of Prometheus, and whether the
//! process lives and is ready.
//!
//! Sits beside `bridge.rs`: completions of its listener end here and never reach a script. Every
//! worker listens, as for a server of a script; whichever is asked tells of all, for counters may
//! be read from any thread.
//!
//! Invariants
//! - It keeps no process alive, and goes on during a drain: alive, and not ready.
//! - A figure has one name, one type and one unit: seconds and bytes, and `_total` for what only
//!   grows. A worker that starts again counts from zero, which readers of counters expect.
//!
//! Not here: what is counted (`reactor/figures.rs` of core), `server:stats()` (`net/server/`).

use crate::crew::Member;
use crate::error::Error;
use crate::runtime::{Options, Worker};
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::figures::{CAUSES, Counter, DEADLINES, Figures, TURN_BOUNDS_MICROS};
use hukilau_core::reactor::inbox::{Completion, What};
use hukilau_core::reactor::{ListenerKey, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::fmt::Write;

/// Connections that ask for figures at once; more than a few are a mistake.
const CONNECTIONS_MAX: u32 = 64;

/// What the text format calls itself.
const TEXT_FORMAT: &[u8] = b"text/plain; version=0.0.4; charset=utf-8";

/// Where figures are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metrics {
    listener: ListenerKey,
}

impl Metrics {
    /// Listens as `options` say, if they do.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn open(worker: &Worker, options: &Options) -> Result<Option<Self>, Error> {
        let Some(at) = options.metrics else {
            return Ok(None);
        };
        let config = ServerConfig {
            limits: Some(Limits {
                connections_max: CONNECTIONS_MAX,
                body_bytes_max: 0,
                ..Limits::default()
            }),
            // Probes ask during a drain, too: it lives, and is not ready.
            outlives_drain: true,
            ..ServerConfig::default()
        };
        let mut reactor = worker.reactor.borrow_mut();
        let at_ip = Endpoint::Ip(at);
        let listening = worker.peers.listen(&mut reactor, &at_ip, config, None);
        match listening {
            Ok(listener) => Ok(Some(Self { listener })),
            Err(error) => {
                let what = format!("cannot serve metrics on {at}: {error}");
                Err(Error::System(std::io::Error::new(error.kind(), what)))
            }
        }
    }

    /// Its address, until it is closed.
    pub(crate) fn endpoint(&self, worker: &Worker) -> Option<Endpoint> {
        worker.reactor.borrow().local_endpoint(self.listener)
    }

    /// How many listeners and connections of the reactor are its own.
    pub(crate) fn share(&self, worker: &Worker) -> (usize, usize) {
        let connections = worker.reactor.borrow().connections_of(self.listener);
        connections.map_or((0, 0), |connections| (1, connections))
    }

    /// Answers a request that came to its listener; false for any other completion.
    pub(crate) fn answer(&self, worker: &Worker, completion: Completion<'_>) -> bool {
        let What::Request {
            exchange,
            request,
            listener,
        } = completion.what
        else {
            return false;
        };
        if listener != self.listener {
            return false;
        }
        let target = request.target();
        let path = target.split(|byte| *byte == b'?').next().unwrap_or(target);
        let (status, body) = match (request.method(), path) {
            (b"GET" | b"HEAD", b"/metrics") => (200, text(&worker.peers.members())),
            (b"GET" | b"HEAD", b"/healthz") => (200, "ok\n".to_owned()),
            (b"GET" | b"HEAD", b"/readyz") => readiness(worker),
            (b"GET" | b"HEAD", _) => (404, "/metrics, /healthz or /readyz\n".to_owned()),
            _ => (405, "GET, please\n".to_owned()),
        };
        let fields: &[(&[u8], &[u8])] = match status {
            405 => &[(b"content-type", TEXT_FORMAT), (b"allow", b"GET, HEAD")],
            _ => &[(b"content-type", TEXT_FORMAT)],
        };
        let response = Response {
            status,
            fields,
            body: body.as_bytes(),
        };
        let mut reactor = worker.reactor.borrow_mut();
        // Who asked may have left meanwhile.
        let _ = reactor.respond(completion.conn, exchange, &response);
        true
    }
}

/// Ready is a process all of whose workers listen for their script.
fn readiness(worker: &Worker) -> (u16, String) {
    let members = worker.peers.members();
    let serving = |member: &&Member| member.figures.listeners.value() > 1;
    let ready = members.iter().filter(serving).count();
    let wanted = worker.peers.count();
    let status = if ready as u64 == u64::from(wanted) {
        200
    } else {
        503
    };
    (status, format!("{ready} of {wanted} workers serve\n"))
}

/// Writes families of samples, one sample for each worker and label.
struct Page<'m> {
    members: &'m [Member],
    text: String,
}

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP hukilau_{name} {help}\n# TYPE hukilau_{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, index: u32, labels: &str, value: impl std::fmt::Display) {
        let number = index + 1;
        let _ = writeln!(
            self.text,
            "hukilau_{name}{{worker=\"{number}\"{labels}}} {value}"
        );
    }

    fn each(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Member) -> u64) {
        self.family(name, kind, help);
        for member in self.members {
            self.sample(name, member.index, "", value(member));
        }
    }

    fn counter(&mut self, name: &str, help: &str, counter: impl Fn(&Figures) -> &Counter) {
        self.each(name, "counter", help, |member| {
            counter(&member.figures).value()
        });
    }

    /// A counter for each of several names.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        (label, values): (&str, &[&str]),
        counters: impl Fn(&Figures) -> &[Counter],
    ) {
        self.family(name, "counter", help);
        for member in self.members {
            for (value, counter) in values.iter().zip(counters(&member.figures)) {
                let labels = format!(",{label}=\"{value}\"");
                self.sample(name, member.index, &labels, counter.value());
            }
        }
    }

    /// A counter of nanoseconds, in seconds.
    fn seconds(&mut self, name: &str, help: &str, nanos: impl Fn(&Member) -> u64) {
        self.family(name, "counter", help);
        for member in self.members {
            let seconds = core::time::Duration::from_nanos(nanos(member)).as_secs_f64();
            self.sample(name, member.index, "", seconds);
        }
    }

    fn turns(&mut self) {
        const NAME: &str = "turn_seconds";
        let help = "Duration of turns of the loop, from the poll's return to the next poll.";
        self.family(NAME, "histogram", help);
        for member in self.members {
            let (mut sum, bounds) = (0, TURN_BOUNDS_MICROS.iter());
            let bounds = bounds.map(|micros| (f64::from(*micros) / 1e6).to_string());
            let bounds = bounds.chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(member.figures.turns.buckets()) {
                sum += count;
                let labels = format!(",le=\"{bound}\"");
                self.sample("turn_seconds_bucket", member.index, &labels, sum);
            }
            let total = member.figures.turns.total().as_secs_f64();
            self.sample("turn_seconds_sum", member.index, "", total);
            self.sample("turn_seconds_count", member.index, "", sum);
        }
    }
}

/// The classes of responses.
pub(crate) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The figures of `members` in text format 0.0.4.
fn text(members: &[Member]) -> String {
    let mut page = Page {
        members,
        text: String::with_capacity(8 * 1024),
    };
    let open = "Connections that are open or being made.";
    page.each("connections", "gauge", open, |m| {
        m.figures.connections.value()
    });
    page.counter("connections_accepted_total", "Connections accepted.", |f| {
        &f.accepted
    });
    let errors = "Accepts that the system refused.";
    page.counter("accept_errors_total", errors, |f| &f.accept_errors);
    let ended = "Connections that have ended, by cause.";
    page.counters("connections_ended_total", ended, ("cause", &CAUSES), |f| {
        &f.ended
    });
    let missed = "Deadlines that were missed, by deadline.";
    page.counters("timeouts_total", missed, ("deadline", &DEADLINES), |f| {
        &f.timed_out
    });
    page.counter(
        "requests_total",
        "Requests received whole or in part, those for figures too.",
        |f| &f.requests,
    );
    let refused = "Requests refused without a script, or not answered by it in time.";
    page.counter("requests_refused_total", refused, |f| &f.refused);
    let responses = "Responses by class of status, refusals and those with figures too.";
    page.counters("responses_total", responses, ("class", &CLASSES), |f| {
        &f.responses
    });
    messages(&mut page);
    let pressed = "Times that a connection came under pressure, and its writer was told to wait.";
    page.counter("pressure_total", pressed, |f| &f.pressed);
    let relieved = "Times that a connection under pressure could be written to again.";
    page.counter("pressure_relieved_total", relieved, |f| &f.relieved);
    page.counter("received_bytes_total", "Bytes read.", |f| &f.bytes_received);
    page.counter("sent_bytes_total", "Bytes written.", |f| &f.bytes_sent);
    let away = "Connections turned away: their address had too many, or no descriptor was left.";
    page.counter("connections_turned_away_total", away, |f| &f.turned_away);
    let lost = "Publications of other workers that found no room.";
    page.each("publications_lost_total", "counter", lost, |m| {
        m.figures.publications_lost.value()
    });
    let lines = "Lines of access logs that were dropped for want of room.";
    page.each("log_lines_dropped_total", "counter", lines, |m| {
        m.log_lines_dropped.value()
    });
    let scripts =
        "Time in which scripts ran and their answers were made, collection of garbage included.";
    page.seconds("script_seconds_total", scripts, |m| m.script_nanos.value());
    let collector =
        "Time in which garbage was collected, estimated from one turn in 64 chosen at random.";
    page.seconds("collector_seconds_total", collector, |m| {
        m.collector_nanos.value()
    });
    let heap = "Bytes in use by the VM.";
    page.each("vm_heap_bytes", "gauge", heap, |m| m.heap.value());
    page.turns();
    page.text
}

/// What WebSockets send and receive.
fn messages(page: &mut Page<'_>) {
    let received = "WebSocket messages received.";
    page.counter("messages_received_total", received, |f| {
        &f.messages_received
    });
    let sent = "WebSocket messages queued, one for each recipient.";
    page.counter("messages_sent_total", sent, |f| &f.messages_sent);
    let dropped = "WebSocket messages not sent to peers that were too far behind.";
    page.counter("messages_dropped_total", dropped, |f| &f.messages_dropped);
    let replaced = "WebSocket messages that a newer one of their topic or key replaced.";
    page.counter("messages_replaced_total", replaced, |f| {
        &f.messages_replaced
    });
    let behind = "WebSockets closed for being too far behind.";
    page.counter("slow_peers_closed_total", behind, |f| &f.closed_behind);
    let refused = "WebSocket messages dropped as their peers sent too many.";
    page.each("messages_refused_total", "counter", refused, |m| {
        m.messages_refused.value()
    });
}
