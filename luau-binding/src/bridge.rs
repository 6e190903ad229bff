//! Where completions become resumes, and results become answers: one match each way. The only file
//! that knows both worlds.
//!
//! Sits between `runtime.rs`, which walks the inbox, and `scheduler.rs`, which runs coroutines.
//! Every coroutine that was started for the wire has a [`Purpose`], and ends in [`returned`] or
//! [`raised`] with it.
//!
//! Invariants
//! - Every request gets exactly one answer: the handler's, or a fixed 500 that tells nothing of the
//!   error.
//! - Every failure reaches the server's `error` callback, or standard error.
//! - What one script function does wrong touches its own connection at most.
//!
//! Not here: what values mean (`net/`), when a coroutine runs (`scheduler.rs`).

mod plain;
mod report;
mod upgrade;

pub(crate) use plain::AtHand;

use crate::access;
use crate::net::client::upload::{self, Upload};
use crate::net::request::{self, Origin, Source, Unfinished, View};
use crate::net::response;
use crate::net::server::{ServerState, refusal};
use crate::net::socket::{self, Event, SocketState};
use crate::net::stream::{self, Begun, StreamState};
use crate::net::{body, raw};
use crate::runtime::Worker;
use crate::scheduler::{self, Progress};
use crate::vm::{Pin, Stack};
use hukilau_core::conn::{Deadline, Exchange};
use hukilau_core::http1::Request;
use hukilau_core::reactor::ListenerKey;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, What};
use hukilau_core::ws::close_code;
use report::{Context, report};
use std::rc::Rc;
use upgrade::Offer;

/// What a coroutine was started for, and so what its end means.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// Nothing but itself.
    Detached,
    /// The script itself.
    Main,
    /// A handler of requests: its results are the answer.
    Request(Asked),
    /// The same, for a dialect: values in, values out.
    Plain(Asked),
    /// An upgrade callback: its result is the decision.
    Upgrade(Box<Offer>),
    /// A callback of a socket.
    Socket(Rc<SocketState>, Callback),
    /// A function that writes the body of a response.
    Stream(Rc<StreamState>),
    /// A function that writes the body of a request of ours.
    Upload(Rc<Upload>),
    /// The callback of a listener, with its stream.
    Accepted(Rc<raw::StreamState>),
    /// An `error` callback.
    Hook,
    /// A function of `process.onShutdown`.
    Shutdown,
    /// A call of a function that is called at a rate.
    Tick(Rc<scheduler::every::Ticker>),
}

impl Purpose {
    /// Whether a peer waits for an answer.
    pub(crate) const fn is_asked_for(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Plain(_) | Self::Upgrade(_))
    }
}

/// Which callback of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Open,
    Message,
    Drain,
    Close,
}

impl Callback {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Message => "message",
            Self::Drain => "drain",
            Self::Close => "close",
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    conn: ConnKey,
    exchange: Exchange,
    server: Rc<ServerState>,
    /// The request itself, kept once its handler is suspended, for reports.
    request: Option<Pin>,
}

/// An error of a script.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Its text, which begins with its place.
    pub(crate) message: String,
    /// The frames below it, one a line.
    pub(crate) trace: String,
    /// The script has raised a string or a number, and not a value of which this is the description.
    pub(crate) is_text: bool,
}

/// A request whose body has not arrived yet.
pub(crate) struct Awaited {
    conn: ConnKey,
    exchange: Exchange,
    server: Rc<ServerState>,
    request: Unfinished,
}

/// Hands one completion to the script.
pub(crate) fn deliver(worker: &Worker, completion: Completion<'_>) {
    let conn = completion.conn;
    match completion.what {
        What::Request {
            exchange,
            request,
            listener,
        } => receive_request(worker, (conn, exchange), &request, listener),
        What::Body { exchange, bytes } if body::piece(worker, conn, exchange, bytes) => {}
        What::Body { exchange, bytes } => {
            let mut awaited = worker.awaited.borrow_mut();
            let found = awaited
                .iter_mut()
                .find(|awaited| awaited.conn == conn && awaited.exchange == exchange);
            if let Some(awaited) = found {
                awaited.request.body.extend_from_slice(bytes);
            }
        }
        What::End { exchange } if body::end(worker, conn, exchange) => {}
        What::End { exchange } => finish_request(worker, conn, exchange),
        What::Open => with_socket(worker, conn, |socket| {
            socket::deliver(worker, socket, Event::Open);
        }),
        What::Message { kind, payload } => with_socket(worker, conn, |socket| {
            socket::message(worker, socket, kind, payload);
        }),
        What::Closing { code, reason } => with_socket(worker, conn, |socket| {
            socket::closing(socket, code, reason);
        }),
        What::Writable => {
            stream::writable(worker, conn);
            with_socket(worker, conn, |socket| {
                socket::deliver(worker, socket, Event::Drain);
            });
        }
        // Pongs are core's business; of what we opened, and of streams, somebody else has heard.
        What::Pong { .. } | What::Connected { .. } | What::Response { .. } => {}
        What::Accepted { .. } | What::Bytes { .. } | What::Finished => {}
        What::Resolved { .. } | What::Datagram { .. } => {}
        What::Refused { refusal } => worker.access.refused(worker, conn, refusal),
        What::Closed { cause } => close(worker, conn, cause),
    }
}

fn with_socket(worker: &Worker, conn: ConnKey, call: impl FnOnce(&Rc<SocketState>)) {
    let socket = worker.sockets.borrow().get(conn).cloned();
    if let Some(socket) = socket {
        call(&socket);
    }
}

/// A connection has ended.
fn close(worker: &Worker, conn: ConnKey, cause: &Cause) {
    worker
        .awaited
        .borrow_mut()
        .retain(|awaited| awaited.conn != conn);
    body::closed(worker, conn, cause);
    stream::closed(worker, conn);
    if matches!(cause, Cause::TimedOut(Deadline::Handshake)) {
        upgrade::timed_out(worker, conn);
    }
    worker.access.closed(conn);
    with_socket(worker, conn, |socket| {
        let (code, reason) = match cause {
            Cause::Violation(violation) => (violation.close_code(), violation.rule()),
            Cause::Shutdown => (close_code::GOING_AWAY, ""),
            _ => (close_code::ABNORMAL, ""),
        };
        socket::closed(worker, socket, code, reason);
    });
}

/// A head arrived: starts the handler, or waits for the body.
fn receive_request(
    worker: &Worker,
    (conn, exchange): (ConnKey, Exchange),
    request: &Request<'_>,
    listener: ListenerKey,
) {
    let Some(server) = worker.server(listener) else {
        return response::respond_plain(worker, conn, exchange, 503, &[]);
    };
    let mut origin = Origin {
        conn,
        exchange,
        peer: worker.reactor.borrow().peer(conn),
        is_streamed: server.streams_bodies,
        is_secure: server.tls.is_some(),
    };
    if !access::admit(worker, &server, &mut origin, request) {
        return;
    }
    if request.has_body() && server.streams_bodies {
        body::begin(worker, conn, exchange);
    } else if request.has_body() {
        worker.awaited.borrow_mut().push(Awaited {
            conn,
            exchange,
            server,
            request: Unfinished::new(request, &origin),
        });
        return;
    }
    let mut from = worker.root.stack(worker);
    let bottom = from.len();
    let upgrades = request.head().upgrades_to_websocket;
    let is_plain = server.plain.get().is_some() && !upgrades;
    let asked = Asked {
        conn,
        exchange,
        server,
        request: None,
    };
    if is_plain {
        return plain::handle(worker, &mut from, asked, Source::Head(request, &origin));
    }
    request::push(worker, &mut from, request, &origin);
    if upgrades {
        upgrade::ask(worker, &mut from, asked, request);
    } else {
        handle(worker, &mut from, asked);
    }
    from.pop(from.len() - bottom);
}

/// A body is complete: starts the handler.
fn finish_request(worker: &Worker, conn: ConnKey, exchange: Exchange) {
    let awaited = {
        let mut all = worker.awaited.borrow_mut();
        all.iter()
            .position(|awaited| awaited.conn == conn && awaited.exchange == exchange)
            .map(|at| all.swap_remove(at))
    };
    let Some(awaited) = awaited else { return };
    let mut from = worker.root.stack(worker);
    let asked = Asked {
        conn,
        exchange,
        server: awaited.server,
        request: None,
    };
    if asked.server.plain.get().is_some() {
        return plain::handle(worker, &mut from, asked, Source::Whole(&awaited.request));
    }
    awaited.request.push(&mut from);
    handle(worker, &mut from, asked);
    from.pop(1);
}

/// Runs the handler of requests with the request on top of `from`.
fn handle(worker: &Worker, from: &mut Stack<'_>, asked: Asked) {
    let (conn, exchange, server) = (asked.conn, asked.exchange, Rc::clone(&asked.server));
    let Some(handler) = &server.request else {
        let fields: &[(&[u8], &[u8])] = &[(b"upgrade", b"websocket")];
        return response::respond_plain(worker, conn, exchange, 426, fields);
    };
    start(worker, from, Purpose::Request(asked), handler, &server);
}

/// Starts `function(request, server)` in a coroutine; the request is on top of `from`.
fn start(
    worker: &Worker,
    from: &mut Stack<'_>,
    purpose: Purpose,
    function: &Pin,
    server: &ServerState,
) {
    let request = from.len();
    let is_told_server = server.is_told_server || !matches!(purpose, Purpose::Request(_));
    let progress = scheduler::start(worker, from, purpose, |stack| {
        stack.push_pin(function);
        from.copy_to(stack, request);
        if !is_told_server {
            return 1;
        }
        match server.object.borrow().as_ref() {
            Some(object) => stack.push_pin(object),
            None => stack.push_nil(),
        }
        2
    });
    if let Progress::Pending(id) = progress {
        // Suspended: its report, if it fails later, will want to say which request it was.
        let pin = from.pin(request, worker.root.released());
        let mut scheduler = worker.scheduler.borrow_mut();
        match scheduler.purpose_mut(id) {
            Some(Purpose::Request(asked)) => asked.request = Some(pin),
            Some(Purpose::Upgrade(offer)) => offer.asked.request = Some(pin),
            _ => {}
        }
    }
}

/// A coroutine returned; its results are the whole of `stack`.
pub(crate) fn returned(worker: &Worker, purpose: Purpose, stack: &mut Stack<'_>) {
    match purpose {
        Purpose::Detached | Purpose::Main | Purpose::Hook | Purpose::Accepted(_) => {}
        Purpose::Shutdown => worker.shutdown.note_end(),
        Purpose::Request(asked) => {
            let answered = response::respond(worker, stack, asked.conn, asked.exchange);
            settle_answer(worker, stack, asked, "request", answered);
        }
        Purpose::Plain(asked) => plain::returned(worker, asked, stack),
        Purpose::Upgrade(offer) => {
            let answered = upgrade::decide(worker, stack, &offer);
            settle_answer(worker, stack, offer.asked, "upgrade", answered);
        }
        Purpose::Stream(stream) => {
            if let Err(misuse) = stream::finish(worker, &stream) {
                fail_stream(
                    worker,
                    &stream,
                    &Failure::plain(&format!("response: {misuse}")),
                );
            }
        }
        Purpose::Upload(upload) => upload::returned(worker, &upload),
        Purpose::Socket(socket, _) => socket::callback_ended(worker, &socket),
        Purpose::Tick(ticker) => scheduler::every::ended(worker, &ticker, None),
    }
}

/// A coroutine failed.
pub(crate) fn raised(worker: &Worker, purpose: Purpose, failure: Failure) {
    if worker.is_cut() {
        return;
    }
    match purpose {
        Purpose::Detached => worker.report("in a task", &failure),
        Purpose::Main => worker.fail(failure),
        Purpose::Hook => worker.report("in the error callback", &failure),
        Purpose::Shutdown => {
            worker.shutdown.note_end();
            worker.report("in process.onShutdown", &failure);
        }
        Purpose::Accepted(stream) => raw::callback_failed(worker, &stream, &failure),
        Purpose::Tick(ticker) => scheduler::every::ended(worker, &ticker, Some(&failure)),
        Purpose::Request(asked) => fail_request(worker, &asked, "request", &failure),
        Purpose::Plain(asked) => plain::raised(worker, asked, failure),
        Purpose::Upgrade(offer) => fail_request(worker, &offer.asked, "upgrade", &failure),
        Purpose::Upload(upload) => upload::raised(worker, &upload, &failure),
        Purpose::Stream(stream) => {
            stream::abandon(worker, &stream);
            fail_stream(worker, &stream, &failure);
        }
        Purpose::Socket(socket, callback) => {
            let context = Context {
                kind: callback.name(),
                conn: socket.conn,
                request: None,
            };
            report(worker, socket.server.as_deref(), &failure, &context);
            if callback == Callback::Open {
                // Its script never got to know the socket; nobody would ever close it.
                let mut reactor = worker.reactor.borrow_mut();
                let _ = reactor.close(socket.conn, close_code::INTERNAL_ERROR, b"");
            }
            socket::callback_ended(worker, &socket);
        }
    }
}

/// Goes on from what a handler has answered: reports what cannot be an answer, and runs the
/// function of a body that is streamed.
fn settle_answer(
    worker: &Worker,
    stack: &Stack<'_>,
    mut asked: Asked,
    kind: &'static str,
    answered: Result<Option<Begun>, String>,
) {
    let key = (asked.conn, asked.exchange);
    match answered.map_err(|why| refusal(worker, &asked.server, kind, &why)) {
        Ok(None) => body::forget(worker, key.0, key.1),
        Ok(Some(begun)) => {
            let request = asked.request.take().or_else(|| {
                // It lies where `receive_request` has pushed it.
                let mut from = worker.root.stack(worker);
                let at = from.len();
                View::at(&from, at)?;
                Some(from.pin(at, worker.root.released()))
            });
            stream::start(worker, stack, begun, key, (asked.server, request));
        }
        Err(failure) => fail_request(worker, &asked, kind, &failure),
    }
}

/// Reports why a streamed body was not written to its end.
fn fail_stream(worker: &Worker, stream: &StreamState, failure: &Failure) {
    let context = Context {
        kind: "stream",
        conn: stream.conn,
        request: stream.request.as_ref(),
    };
    report(worker, Some(&stream.server), failure, &context);
}

/// Answers 500 and reports why.
fn fail_request(worker: &Worker, asked: &Asked, kind: &'static str, failure: &Failure) {
    response::respond_plain(worker, asked.conn, asked.exchange, 500, &[]);
    body::forget(worker, asked.conn, asked.exchange);
    let context = Context {
        kind,
        conn: asked.conn,
        request: asked.request.as_ref(),
    };
    report(worker, Some(&asked.server), failure, &context);
}

/// Reports what a socket's peer does wrong, by its server's `error` callback.
pub(crate) fn report_socket(worker: &Worker, socket: &SocketState, message: &str) {
    let context = Context {
        kind: Callback::Message.name(),
        conn: socket.conn,
        request: None,
    };
    let server = socket.server.as_deref();
    report(worker, server, &Failure::plain(message), &context);
}

impl Failure {
    /// One without a traceback.
    pub(crate) fn plain(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            trace: String::new(),
            is_text: true,
        }
    }

    /// Message and traceback as one text.
    pub(crate) fn text(&self) -> String {
        let trace = self.trace.trim_end();
        if trace.is_empty() {
            return self.message.clone();
        }
        format!("{}\nstack traceback:\n{trace}", self.message)
    }
}
