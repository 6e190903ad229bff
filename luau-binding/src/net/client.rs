//! `net.request` and `net.websocket`: what scripts ask of others.
//!
//! Sits in the native module. Core's `Client` owns pool, redirects, proxies, codings and timeouts;
//! this joins its requests to the coroutines that wait for them.
//!
//! ```text
//! net.request ─▶ Client::request, coroutine parked ─▶ loop ─▶ offer, tend ─▶ event ─▶ resumed
//!                                                          (cancelled, dropped) ─▶ Client::cancel
//! ```
//!
//! - `client/options.rs`    what a script may say, turned into a request
//! - `client/tls.rs`        its trust
//! - `client/answer.rs`     what it gets
//! - `client/download.rs`   responses that are read piece by piece
//! - `client/upload.rs`     bodies that are written piece by piece
//! - `client/websocket.rs`  WebSockets
//! - `client/error.rs`      faults, in words
//!
//! Invariants
//! - Events are delivered by the loop alone: never before the coroutine that asked is suspended.
//! - A request for which nobody waits any more is cancelled within the turn.
//! - Neither the client nor the reactor is borrowed while Luau runs.
//!
//! Not here: connections (core).

mod answer;
mod download;
mod error;
mod options;
pub(crate) mod tls;
pub(crate) mod upload;
mod websocket;

pub(crate) use options::Asked;
pub(crate) use websocket::open as websocket;

use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::{Outcome, Pin, Raise, Returns, Stack};
use download::Download;
use hukilau_core::Reactor;
use hukilau_core::client::{
    Client, ClientConfig, ClientEvent, ClientResponse, Proxies, RequestKey,
};
use hukilau_core::conn::{Misuse, Pressure};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Completion;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;
use upload::Upload;

/// Requests whose objects the collector has freed. It fills this while it runs, when nothing else
/// may be touched.
pub(crate) type Dropped = Rc<RefCell<Vec<RequestKey>>>;

/// `limits` for connections of our own. A response's head may be as large as the core can take, as other clients let it;
/// how much may wait for a server is up to each WebSocket's `backpressure`.
fn outbound(limits: Limits) -> Limits {
    Limits {
        head_bytes_max: 65_535,
        fields_max: 1_024,
        out_bytes_max: 1 << 30,
        ..limits
    }
}

/// Why a body does not go on.
const CANCELLED: &str = "the request was cancelled";

/// The outbound half of a worker.
pub(crate) struct Outbound {
    client: Client,
    waiting: HashMap<RequestKey, Waiting>,
    dropped: Dropped,
    /// Why the environment's proxies cannot be used; told to the first who would use them.
    proxy_fault: Option<String>,
}

/// A request that is not done, and who waits for it.
#[derive(Debug)]
struct Waiting {
    /// What raised errors begin with.
    function: &'static str,
    /// Who asked, until there is a response.
    asker: Option<WaitKey>,
    upload: Option<Rc<Upload>>,
    download: Option<Rc<Download>>,
}

impl Outbound {
    /// With the proxies that `env` names, pairs of name and value.
    pub(crate) fn new(limits: &Limits, env: &[(String, String)]) -> Self {
        let variable = |name: &str| {
            let found = env.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let proxies = Proxies::from_environment(variable);
        let proxy_fault = proxies.as_ref().err().map(ToString::to_string);
        let config = ClientConfig {
            limits: outbound(limits.clone()),
            proxies: proxies.unwrap_or_default(),
            ..ClientConfig::default()
        };
        Self {
            client: Client::new(config),
            waiting: HashMap::new(),
            dropped: Dropped::default(),
            proxy_fault,
        }
    }

    /// Connections of the client's own. Those of requests that nobody waits for keep no loop alive.
    pub(crate) fn connections(&self) -> usize {
        self.client.connections()
    }

    /// Whether a coroutine waits for something of ours, or writes a body.
    pub(crate) fn is_awaited(&self, is_current: impl Fn(WaitKey) -> bool) -> bool {
        self.waiting.values().any(|waiting| {
            let reader = waiting.download.as_ref().and_then(|it| it.reader());
            let writes = |upload: &Rc<Upload>| upload.is_running();
            waiting.asker.or(reader).is_some_and(&is_current)
                || waiting.upload.as_ref().is_some_and(writes)
        })
    }

    /// Whether a request is not done.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether [`tend`] has something to deliver at once.
    pub(crate) fn has_events(&self) -> bool {
        self.client.has_events() || !self.dropped.borrow().is_empty()
    }

    /// When [`tend`] wants to be called.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.client.wake_at()
    }
}

/// Calls `with` with the client and the reactor it lives on.
fn with_client<R>(worker: &Worker, with: impl FnOnce(&mut Client, &mut Reactor) -> R) -> R {
    let mut outbound = worker.outbound.borrow_mut();
    with(&mut outbound.client, &mut worker.reactor.borrow_mut())
}

/// Takes a completion if it is of a connection of the client, and delivers what comes of it.
pub(crate) fn offer(worker: &Worker, completion: &Completion<'_>) -> bool {
    let is_ours = {
        let mut outbound = worker.outbound.borrow_mut();
        // The way of every completion of a server that asks nobody.
        if outbound.client.connections() == 0 {
            return false;
        }
        let mut reactor = worker.reactor.borrow_mut();
        outbound.client.offer(&mut reactor, completion)
    };
    if is_ours {
        deliver_events(worker);
    }
    is_ours
}

/// Cancels what nobody waits for any more, fails what has taken too long, and delivers.
pub(crate) fn tend(worker: &Worker) {
    let is_idle = {
        let outbound = worker.outbound.borrow();
        outbound.waiting.is_empty() && !outbound.has_events()
    };
    if is_idle {
        return;
    }
    if worker.scheduler.borrow_mut().take_cancelled() {
        cancel_stale(worker);
    }
    let dropped = worker.outbound.borrow().dropped.take();
    for key in dropped {
        cancel(worker, key, CANCELLED);
    }
    with_client(worker, |client, reactor| client.handle_time(reactor));
    deliver_events(worker);
}

/// Gives up the requests whose coroutines have been cancelled.
fn cancel_stale(worker: &Worker) {
    let is_stale = |key: WaitKey| !worker.scheduler.borrow().is_current(key);
    let stale: Vec<RequestKey> = {
        let outbound = worker.outbound.borrow();
        let all = outbound.waiting.iter();
        let stale = all.filter(|(_, waiting)| {
            let reader = waiting.download.as_ref().and_then(|it| it.reader());
            waiting.asker.or(reader).is_some_and(is_stale)
        });
        stale.map(|(key, _)| *key).collect()
    };
    for key in stale {
        cancel(worker, key, CANCELLED);
    }
}

/// Gives a request up: its connection is cut, and nothing comes of it any more.
fn cancel(worker: &Worker, key: RequestKey, why: &str) {
    with_client(worker, |client, reactor| client.cancel(reactor, key));
    if let Some(waiting) = settle(worker, key)
        && let Some(download) = waiting.download
    {
        download.ended(worker, Err(format!("response:read: {why}")));
    }
}

/// Fails a request for a reason of our own.
fn fail(worker: &Worker, key: RequestKey, why: &str) {
    with_client(worker, |client, reactor| client.cancel(reactor, key));
    fail_with(worker, key, |function| format!("{function}: {why}"));
}

fn fail_with(worker: &Worker, key: RequestKey, text: impl FnOnce(&'static str) -> String) {
    let Some(waiting) = settle(worker, key) else {
        return;
    };
    if let Some(download) = waiting.download {
        download.ended(worker, Err(text("response:read")));
    } else if let Some(asker) = waiting.asker {
        let from = worker.root.stack(worker);
        scheduler::wake_raising(worker, &from, asker, text(waiting.function));
    }
}

/// The request is done: nobody writes to it any more.
fn settle(worker: &Worker, key: RequestKey) -> Option<Waiting> {
    let waiting = worker.outbound.borrow_mut().waiting.remove(&key)?;
    if let Some(upload) = &waiting.upload {
        upload::lost(worker, upload);
    }
    Some(waiting)
}

fn deliver_events(worker: &Worker) {
    while worker.exit_code().is_none() {
        let event = worker.outbound.borrow_mut().client.next_event();
        match event {
            Some(event) => deliver(worker, event),
            None => return,
        }
    }
}

fn deliver(worker: &Worker, event: ClientEvent) {
    match event {
        ClientEvent::Response {
            key,
            response,
            body,
        } => {
            if let Some(asker) = settle(worker, key).and_then(|waiting| waiting.asker) {
                let from = worker.root.stack(worker);
                scheduler::wake(worker, &from, asker, |stack| {
                    answer::push(stack, &response, &body);
                    1
                });
            }
        }
        ClientEvent::Head { key, response } => begin_stream(worker, key, response),
        ClientEvent::Piece { key, bytes } => {
            if let Some(download) = download_of(worker, key) {
                download.piece(worker, bytes);
            }
        }
        ClientEvent::End { key } => {
            let download = settle(worker, key).and_then(|waiting| waiting.download);
            if let Some(download) = download {
                download.ended(worker, Ok(()));
            }
        }
        ClientEvent::Opened {
            key,
            conn,
            response,
        } => {
            let asker = settle(worker, key).and_then(|waiting| waiting.asker);
            websocket::opened(worker, asker, conn, &response);
        }
        ClientEvent::WantsBody { key } => {
            let upload = {
                let outbound = worker.outbound.borrow();
                let waiting = outbound.waiting.get(&key);
                waiting.and_then(|waiting| waiting.upload.clone())
            };
            if let Some(upload) = upload {
                upload::wanted(worker, &upload);
            }
        }
        ClientEvent::Failed { key, error } => {
            fail_with(worker, key, |function| error::text(function, &error));
        }
        // Core may come to tell more than scripts ask for.
        _ => {}
    }
}

/// The head of a streamed response is here: whoever asked gets the object that reads the rest.
fn begin_stream(worker: &Worker, key: RequestKey, response: Box<ClientResponse>) {
    let (asker, download, dropped) = {
        let mut outbound = worker.outbound.borrow_mut();
        let dropped = Rc::clone(&outbound.dropped);
        let Some(waiting) = outbound.waiting.get_mut(&key) else {
            return;
        };
        let download = Download::new(key);
        waiting.download = Some(Rc::clone(&download));
        (waiting.asker.take(), download, dropped)
    };
    let from = worker.root.stack(worker);
    let is_taken = asker.is_some_and(|asker| {
        scheduler::wake(worker, &from, asker, |stack| {
            download::push(worker, stack, download, response, dropped);
            1
        })
    });
    if !is_taken {
        cancel(worker, key, CANCELLED);
    }
}

fn download_of(worker: &Worker, key: RequestKey) -> Option<Rc<Download>> {
    let outbound = worker.outbound.borrow();
    outbound.waiting.get(&key)?.download.clone()
}

fn write_body(worker: &Worker, key: RequestKey, piece: &[u8]) -> Result<Pressure, Misuse> {
    with_client(worker, |client, reactor| {
        client.write_body(reactor, key, piece)
    })
}

fn finish_body(worker: &Worker, key: RequestKey) -> Result<(), Misuse> {
    with_client(worker, |client, reactor| client.finish_body(reactor, key))
}

/// Asks for more of a streamed body.
fn resume(worker: &Worker, key: RequestKey) {
    with_client(worker, |client, reactor| client.resume(reactor, key));
}

/// `net.request(url)` and `net.request(options)`: waits for the response.
pub(crate) fn request(stack: &mut Stack<'_>) -> Outcome {
    let asked = options::read_request(stack)?;
    ask(stack, "net.request", asked)
}

/// Sends a request on its way, and suspends who asked.
fn ask(stack: &mut Stack<'_>, function: &'static str, asked: Asked) -> Outcome {
    let worker = stack.worker()?;
    let key = {
        let mut outbound = worker.outbound.borrow_mut();
        if asked.is_configured
            && let Some(fault) = &outbound.proxy_fault
        {
            return Err(Raise::from(format!("{function}: {fault}")));
        }
        let sent = outbound
            .client
            .request(&mut worker.reactor.borrow_mut(), asked.spec);
        sent.map_err(|error| Raise::from(error::text(function, &error)))?
    };
    let asker = match scheduler::wait_for_wire(worker, stack) {
        Ok(asker) => asker,
        Err(raise) => {
            with_client(worker, |client, reactor| client.cancel(reactor, key));
            return Err(raise);
        }
    };
    let upload = asked.upload.map(|function: Pin| Upload::new(key, function));
    let waiting = Waiting {
        function,
        asker: Some(asker),
        upload,
        download: None,
    };
    worker.outbound.borrow_mut().waiting.insert(key, waiting);
    Ok(Returns::Suspend)
}

/// Installs the metatables and the methods behind the module's functions.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    answer::install(lua, worker)?;
    download::install(lua, worker)?;
    upload::install(lua, worker)
}
