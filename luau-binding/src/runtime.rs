//! One worker: a VM, a reactor, an inbox, and the loop that joins them.
//!
//! Sits at the top of the library; `main.rs` and embedders drive it.
//!
//! ```text
//! turn ─▶ completions ─▶ bridge ─▶ coroutines ─▶ operations of the reactor ─▶ turn
//!   ▲                                                                          │
//!   └── due timers, ready coroutines, sockets whose callbacks have returned ◀──┘
//! ```
//!
//! Invariants
//! - `Worker::reactor` is borrowed for single calls only. While Luau runs no method of the reactor
//!   is on the stack (that is what the inbox is for), so `borrow_mut` cannot fail.
//! - The loop ends when no listener, no connection and no wait is left (streams that nobody waits for
//!   do not count), when the script asked for
//!   it, or when a drain is complete.
//!
//! When it goes on, waits or ends is in `runtime/rest.rs`; how it turns around a call that blocks in
//! `runtime/nested.rs`.
//!
//! Not here: what scripts find when they start (`runtime/install.rs`), what completions mean (`bridge.rs`),
//! arguments and signals (`main.rs`).

pub(crate) mod install;
pub(crate) mod nested;
mod rest;

use crate::access::{self, Access};
use crate::bridge::{AtHand, Awaited, Failure, Purpose};
use crate::crew::{Peers, Seat};
use crate::embed::{self, Host};
pub(crate) use crate::error::Error;
use crate::json::Json;
use crate::metrics::Metrics;
use crate::net;
use crate::net::body::Bodies;
use crate::net::client::{self, Outbound};
use crate::net::methods::Methods;
use crate::net::raw::{self, Raw};
use crate::net::response::Fields;
use crate::net::server::ServerState;
use crate::net::socket::{SocketState, Sockets};
use crate::net::stream::Streams;
use crate::net::tls;
use crate::require::{self, Loaded};
use crate::scheduler::{self, Scheduler};
use crate::std::lines::{self, Lines};
use crate::std::shutdown::{self, Shutdown};
use crate::surface::{self, Dialect};
use crate::vm::guard::Guard;
use crate::vm::{self, Root};
use core::net::SocketAddr;
use hukilau_core::Reactor;
use hukilau_core::conn::Publication;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::ListenerKey;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::Completion;
use hukilau_core::reactor::mailbox::Remote;
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use nested::{Delivery, Turns};
use rest::Delay;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a runtime is given; [`Default`] gives no arguments and no environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// `process.args`.
    pub args: Vec<String>,
    /// `process.env`, as pairs of name and value.
    pub env: Vec<(String, String)>,
    /// The bounds of the worker's reactor; servers may set their own.
    pub limits: Limits,
    /// How long script code may run without yielding before it is stopped with an error; `None`
    /// for any time. Default [`BUDGET`].
    pub budget: Option<Duration>,
    /// Bytes the VM may have before allocations of script code raise `not enough memory`; 0, the
    /// default, for as many as the system gives.
    pub memory_bytes_max: usize,
    /// The system whose scripts these are. `None`, the default, for that of the first module they
    /// require.
    pub dialect: Option<Dialect>,
    /// Translate scripts to machine code when they are loaded. Default true.
    pub codegen: bool,
    /// Is told the files of scripts and modules as they are loaded.
    pub loaded: Loaded,
    /// The place among several workers. Default: it works alone.
    pub seat: Seat,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The access log of servers that name none: a path, or `-` for standard output.
    pub access_log: Option<String>,
}

/// How long a handler, a callback or the top level of a script may run without yielding, unless
/// [`Options::budget`] says otherwise: far beyond what a peer waits for, and short of what looks
/// like a hung process.
pub const BUDGET: Duration = Duration::from_secs(10);

impl Default for Options {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            budget: Some(BUDGET),
            memory_bytes_max: 0,
            dialect: None,
            codegen: true,
            loaded: Loaded::default(),
            seat: Seat::default(),
            metrics: None,
            access_log: None,
        }
    }
}

/// What the functions of a script find when they are called.
pub(crate) struct Worker {
    pub(crate) root: Root,
    pub(crate) guard: Guard,
    /// No reactor method is on the stack while Luau runs, so this is never found borrowed.
    pub(crate) reactor: RefCell<Reactor>,
    pub(crate) scheduler: RefCell<Scheduler>,
    pub(crate) servers: RefCell<Vec<Rc<ServerState>>>,
    pub(crate) sockets: RefCell<Sockets>,
    /// Sockets with queued events that may be delivered now.
    pub(crate) pump: RefCell<VecDeque<Rc<SocketState>>>,
    /// Requests whose bodies are under way.
    pub(crate) awaited: RefCell<Vec<Awaited>>,
    /// Bodies of requests that handlers read piece by piece.
    pub(crate) bodies: RefCell<Bodies>,
    /// Responses that are written piece by piece.
    pub(crate) streams: RefCell<Streams>,
    /// What scripts ask of others.
    pub(crate) outbound: RefCell<Outbound>,
    pub(crate) client_tls: RefCell<client::tls::Kept>,
    pub(crate) raw: RefCell<Raw>,
    pub(crate) methods: RefCell<Methods>,
    pub(crate) json: RefCell<Json>,
    pub(crate) fields: RefCell<Fields>,
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) host: Host,
    /// Coroutines that wait for standard input.
    pub(crate) lines: RefCell<Lines>,
    pub(crate) peers: Peers,
    pub(crate) access: Access,
    pub(crate) shutdown: Shutdown,
    /// The last error that a module raised while it loaded, and the calls that led to it.
    pub(crate) noted: RefCell<Option<(String, String)>>,
    pub(crate) surface: surface::State,
    pub(crate) at_hand: AtHand,
    turns: Turns,
    exit: Cell<Option<u8>>,
    failure: RefCell<Option<Failure>>,
}

impl Worker {
    /// The server that listens by `listener`.
    pub(crate) fn server(&self, listener: ListenerKey) -> Option<Rc<ServerState>> {
        let servers = self.servers.borrow();
        servers
            .iter()
            .find(|server| server.listener == listener)
            .cloned()
    }

    /// Queues `publication` for every subscriber of `topic` but `except`, at all workers.
    pub(crate) fn publish(
        &self,
        topic: &[u8],
        publication: &Arc<Publication>,
        except: Option<ConnKey>,
    ) {
        let mut reactor = self.reactor.borrow_mut();
        reactor.publish(topic, publication, except);
        self.peers.publish(topic, publication);
    }

    /// Ends the loop before its next turn.
    pub(crate) fn exit(&self, code: u8) {
        if self.exit.get().is_none() {
            self.exit.set(Some(code));
        }
    }

    /// The exit status a script has asked for.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.exit.get()
    }

    /// The script itself has failed: the loop ends.
    pub(crate) fn fail(&self, failure: Failure) {
        if self.surface.outlives_failure() {
            return self.report("in the script", &failure);
        }
        *self.failure.borrow_mut() = Some(failure);
        self.exit(1);
    }

    /// Writes a failure to standard error as one block.
    pub(crate) fn report(&self, place: &str, failure: &Failure) {
        self.surface.note_failure();
        self.report_text(&format!("{place}: {}", failure.text()));
    }

    /// Writes a line to standard error.
    pub(crate) fn report_text(&self, text: &str) {
        // Standard error may be closed, and then there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "error {text}");
    }

    /// Writes a line about what is allowed and unwise.
    pub(crate) fn warn_text(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "warning {text}");
    }
}

/// A VM with its reactor: one worker. It stays on the thread that made it.
pub struct Runtime {
    worker: Rc<Worker>,
    metrics: Option<Metrics>,
    found: Rc<Delivery>,
    lua: mlua::Lua,
    stop: Stop,
    /// When the reactor has turned last, by [`vm::clock`].
    turned_at: f64,
    /// When it was made, likewise.
    made_at: f64,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something is listening, connected or waiting.
    Running,
    /// Nothing is left to do, or a script has asked for the end: its exit status. Until something
    /// is started, further turns return at once.
    Ended(u8),
}

/// Ends a runtime from another thread, or from a signal's.
#[derive(Clone, Debug)]
pub struct Stop {
    remote: Remote,
    seat: Seat,
    is_asked: Arc<AtomicBool>,
    /// The milliseconds of grace with which it was asked.
    grace: Arc<AtomicU64>,
    /// One above the milliseconds of grace that came with a hang-up; 0 if none came.
    hung_up: Arc<AtomicU64>,
}

impl Stop {
    /// Stops listening, lets what is under way finish for `grace`, and then ends the loop, timers
    /// or not.
    pub fn drain(&self, grace: Duration) {
        self.grace.store(millis(grace), Ordering::Relaxed);
        self.is_asked.store(true, Ordering::Release);
        self.seat.leave_ports();
        self.remote.drain(grace);
    }

    /// Has the certificates of all servers with TLS read anew. A runtime without such a server ends
    /// as by [`drain`](Self::drain): that is what a hang-up means to it.
    pub fn reload_tls_or_drain(&self, grace: Duration) {
        self.hung_up.store(millis(grace) + 1, Ordering::Release);
        self.remote.wake();
    }

    /// The grace, if it was asked to drain.
    fn asked(&self) -> Option<Duration> {
        let is_asked = self.is_asked.load(Ordering::Acquire);
        is_asked.then(|| Duration::from_millis(self.grace.load(Ordering::Relaxed)))
    }
}

/// How the collector works, as measured beside a heap of 100 MB (`benches/README.md`): a cycle begins
/// when the heap has doubled, works twice as fast as scripts allocate, and takes a step for each KiB.
/// They are Luau's own settings, written down so that a newer Luau does not change them unmeasured.
fn collector() -> mlua::state::GcMode {
    let params = mlua::state::GcIncParams::default()
        .goal(200)
        .step_multiplier(200)
        .step_size(1);
    mlua::state::GcMode::Incremental(params)
}

/// A grace of ages is as good as one of a century.
fn millis(grace: Duration) -> u64 {
    const CENTURY: u64 = 100 * 366 * 86_400 * 1_000;
    u64::try_from(grace.as_millis()).map_or(CENTURY, |millis| millis.min(CENTURY))
}

impl Runtime {
    /// A runtime with nothing to do.
    ///
    /// # Errors
    /// If the system refuses a poll, or memory for the VM.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let lua = mlua::Lua::new();
        lua.gc_set_mode(collector());
        let net = MioNet::new().map_err(Error::System)?;
        let mut reactor = Reactor::new(net, options.limits.clone())
            .map_err(|error| Error::Vm(error.to_string()))?;
        let stop = Stop {
            remote: reactor.remote(),
            seat: options.seat.clone(),
            is_asked: Arc::default(),
            grace: Arc::default(),
            hung_up: Arc::default(),
        };
        let root = Root::of(&lua)?;
        let mut guard = Guard::new(&root, options.memory_bytes_max);
        guard.hear_of_caught();
        if let Some(budget) = options.budget {
            guard.watch(budget).map_err(Error::System)?;
        }
        let access = Access::new(options.access_log.as_deref()).map_err(Error::System)?;
        let peers = Peers::join(options, &mut reactor);
        let worker = Rc::new(Worker {
            root,
            guard,
            reactor: RefCell::new(reactor),
            scheduler: RefCell::new(Scheduler::new()),
            servers: RefCell::default(),
            sockets: RefCell::default(),
            pump: RefCell::default(),
            awaited: RefCell::default(),
            bodies: RefCell::default(),
            streams: RefCell::default(),
            outbound: RefCell::new(Outbound::new(&options.limits, &options.env)),
            client_tls: RefCell::default(),
            raw: RefCell::default(),
            methods: RefCell::default(),
            json: RefCell::default(),
            fields: RefCell::default(),
            scratch: RefCell::default(),
            host: Host::default(),
            lines: RefCell::default(),
            peers,
            access,
            shutdown: Shutdown::default(),
            noted: RefCell::default(),
            surface: surface::State::default(),
            at_hand: AtHand::default(),
            turns: Turns::default(),
            exit: Cell::new(None),
            failure: RefCell::default(),
        });
        // Functions hold the worker's address: the VM itself keeps it alive.
        lua.set_app_data(Rc::clone(&worker));
        let runtime = Self {
            metrics: Metrics::open(&worker, options)?,
            worker,
            found: Rc::default(),
            lua,
            stop,
            turned_at: vm::clock(),
            made_at: vm::clock(),
        };
        runtime.worker.turns.metrics.set(runtime.metrics);
        install::install(&runtime.lua, &runtime.worker, options)?;
        Ok(runtime)
    }

    /// What scripts find.
    pub(crate) fn shared(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// What ends the runtime from elsewhere.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The VM, to hand own modules to scripts ([`mlua::Lua::register_module`]) before they run.
    ///
    /// Scripts yield to the loop of this runtime only: a coroutine that an embedder resumes itself
    /// must not call what waits, such as `task.wait`.
    pub fn lua(&self) -> &mlua::Lua {
        &self.lua
    }

    /// Runs the script at `path` until nothing is left to do, and returns its exit status.
    ///
    /// # Errors
    /// As [`run_source`](Self::run_source), and if the file cannot be read.
    pub fn run_file(&mut self, path: &str) -> Result<u8, Error> {
        self.start_file(path)?;
        self.run()
    }

    /// Runs `source` until nothing is left to do. `name` is `@path`, or `=name` for a script that
    /// has no file.
    ///
    /// # Errors
    /// If the source does not compile, if it raises, or if the system's poll fails.
    pub fn run_source(&mut self, name: &str, source: &[u8]) -> Result<u8, Error> {
        self.start_source(name, source)?;
        self.run()
    }

    fn run(&mut self) -> Result<u8, Error> {
        loop {
            if let Turn::Ended(status) = self.turn(None)? {
                return Ok(status);
            }
        }
    }

    /// Where it serves its figures, as [`Options::metrics`] asked for.
    pub fn metrics_endpoint(&self) -> Option<Endpoint> {
        self.metrics
            .and_then(|metrics| metrics.endpoint(&self.worker))
    }

    /// For how long it has been there.
    pub fn age(&self) -> Duration {
        Duration::from_secs_f64((vm::clock() - self.made_at).max(0.0))
    }

    /// Whether a script has called `process.exit`.
    pub fn has_exited(&self) -> bool {
        self.worker.exit_code().is_some()
    }

    /// Starts `source`: runs it until it ends or waits for the first time. It goes on in
    /// [`turn`](Self::turn). `name` as for [`run_source`](Self::run_source).
    ///
    /// # Errors
    /// If the source does not compile. What it raises, the next turn tells.
    pub fn start_source(&mut self, name: &str, source: &[u8]) -> Result<(), Error> {
        surface::prepare(&self.lua, &self.worker, source)?;
        let environment = require::environment(&self.lua)?;
        let main =
            require::compile(&self.lua, source, name, Some(environment)).map_err(Error::Syntax)?;
        let main = self.worker.root.pin(&self.lua, main)?;
        let from = self.worker.root.stack(&self.worker);
        scheduler::start(&self.worker, &from, Purpose::Main, |stack| {
            stack.push_pin(&main);
            0
        });
        Ok(())
    }

    /// One turn of the loop: waits at most `wait` for something to happen, for ever if `None`, and
    /// lets scripts act on it. With [`Duration::ZERO`] it does what is due and returns.
    ///
    /// # Errors
    /// If a script that was started has raised what nothing caught, or if the system's poll fails.
    pub fn turn(&mut self, wait: Option<Duration>) -> Result<Turn, Error> {
        self.turn_once(wait, |_, _| false)
    }

    /// As [`turn`](Self::turn), for a host with connections of its own on the same
    /// [reactor](Self::reactor): `own` sees every completion first, and returns whether it was its.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn turn_sharing(
        &mut self,
        wait: Option<Duration>,
        own: impl FnMut(&mut Reactor, Completion<'_>) -> bool,
    ) -> Result<Turn, Error> {
        self.worker.turns.is_shared.set(true);
        self.turn_once(wait, own)
    }

    fn turn_once(
        &mut self,
        wait: Option<Duration>,
        own: impl FnMut(&mut Reactor, Completion<'_>) -> bool,
    ) -> Result<Turn, Error> {
        let worker = Rc::clone(&self.worker);
        worker.root.sweep();
        surface::lost::sweep(&worker);
        if surface::lost::is_alone(&worker) {
            // Nothing else would make garbage, and so nothing would find them.
            let from = vm::clock();
            self.lua.gc_collect()?;
            worker.guard.collector.add(vm::clock() - from);
            worker.root.sweep();
            surface::lost::sweep(&worker);
        }
        worker.guard.tend();
        raw::sweep(&worker);
        if let Some(grace) = self.stop.asked() {
            shutdown::run(&worker, grace);
        }
        if let Some(code) = worker.exit_code() {
            return self.finish(code);
        }
        let mut delay = match self.delay(self.turned_at) {
            // Probes of any worker are answered until all have come to their end.
            Delay::Done if self.stays_for_probes() => None,
            Delay::Done => return self.finish(worker.surface.status()),
            Delay::Until(delay) => delay,
        };
        if let Some(wait) = wait {
            // Deadlines count from the last turn, and the host has spent time since.
            let since = Duration::from_secs_f64((vm::clock() - self.turned_at).max(0.0));
            let bound = since.saturating_add(wait);
            delay = Some(delay.map_or(bound, |delay| delay.min(bound)));
        }
        {
            let mut reactor = worker.reactor.borrow_mut();
            worker.peers.flush(&mut reactor);
            let wake_at = delay.map(|delay| reactor.now() + delay);
            let asked_at = worker.outbound.borrow().wake_at();
            let wake_at = wake_at.into_iter().chain(asked_at).min();
            reactor
                .turn(&mut self.found.inbox.borrow_mut(), wake_at)
                .map_err(Error::System)?;
            worker.peers.tend(&mut reactor);
        }
        self.turned_at = vm::clock();
        worker.guard.collector.begin_turn(self.turned_at);
        worker.peers.own().heap.set(self.lua.used_memory() as u64);
        worker.surface.note_turn();
        if let Some(millis) = self.stop.hung_up.swap(0, Ordering::AcqRel).checked_sub(1)
            && !(tls::reload_all(&worker) | access::reopen_all(&worker))
        {
            self.stop.drain(Duration::from_millis(millis));
        }
        nested::deliver(&worker, &self.found, own);
        client::tend(&worker);
        embed::deliver(&worker, &self.lua);
        lines::deliver(&worker);
        pump(&worker);
        scheduler::run_due(&worker, self.turned_at);
        scheduler::settle_strays(&worker);
        pump(&worker);
        worker.access.flush(&worker);
        // Once for all that the turn has delivered: a clock read per request would cost what it measures.
        let now = vm::clock();
        worker.guard.collector.end_turn(now);
        worker.note_scripts(now - self.turned_at);
        Ok(Turn::Running)
    }

    /// The loop is over: the script's exit status, or how it failed.
    fn finish(&self, code: u8) -> Result<Turn, Error> {
        let _ = std::io::stdout().lock().flush();
        match self.worker.failure.take() {
            Some(Failure { message, trace, .. }) => Err(Error::Script { message, trace }),
            None => Ok(Turn::Ended(code)),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Nobody sends it a connection that would go with it.
        self.stop.seat.leave_ports();
        self.worker.access.flush(&self.worker);
        // The VM goes after this: nobody may write to it any more.
        self.worker.guard.stop();
    }
}

/// Delivers what sockets have queued and can take now.
fn pump(worker: &Worker) {
    // Those that come meanwhile have their turn in the next round, so that two sockets that wake
    // each other cannot keep the loop here.
    let round = worker.pump.borrow().len();
    for _ in 0..round {
        let Some(socket) = worker.pump.borrow_mut().pop_front() else {
            return;
        };
        net::socket::pump(worker, &socket);
    }
}
