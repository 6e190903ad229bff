//! `net.serve`: its options, checked one by one, and the server object.
//!
//! Sits in the native module. What core can limit is a limit here; what the script decides is a
//! callback. What stands in `limits` and `websocket` is read in `server/options.rs`.
//!
//! Invariants
//! - Nothing listens until every option was found to be right.
//! - A server lives as long as its listener, its connections, or the script's handle.
//!
//! Not here: calling the callbacks (`bridge.rs`, `socket.rs`).

pub(super) mod options;
mod stats;

use super::guards::{Guards, Rates};
use super::methods;
use super::plain::Plain;
use super::tls::Tls;
use super::topics;
use crate::access::Log;
use crate::bridge::Failure;
use crate::crew::Balance;
use crate::runtime::Worker;
use crate::value::{Options, bad_argument};
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Object, Tag};
use crate::vm::{Kind, Outcome, Pin, Raise, Returns, Stack};
use hukilau_core::conn::WsSettings;
use hukilau_core::reactor::{ListenerKey, Protocol, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;
use std::time::Duration;

/// How long `server:stop()` waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);

/// One server: where it listens and what it calls.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub(crate) listener: ListenerKey,
    address: String,
    port: u16,
    pub(crate) request: Option<Pin>,
    /// The handler can see its second argument, the server.
    pub(crate) is_told_server: bool,
    pub(crate) websocket: Option<WebSocketOptions>,
    pub(crate) error: Option<Pin>,
    pub(crate) guards: Guards,
    /// Its connections speak TLS.
    pub(crate) tls: Option<Tls>,
    /// Handlers start with the head, and read the body by `request:read()`.
    pub(crate) streams_bodies: bool,
    /// The userdata, for the callbacks.
    pub(crate) object: RefCell<Option<Pin>>,
    /// `request` is the entry of a dialect: it gets and gives plain values.
    pub(crate) plain: OnceCell<Box<Plain>>,
    /// Where its requests are told of.
    pub(crate) log: Option<Rc<Log>>,
    is_stopped: Cell<bool>,
}

/// The callbacks of a server's WebSockets, and how these behave.
#[derive(Debug)]
pub(crate) struct WebSocketOptions {
    pub(crate) settings: Rc<WsSettings>,
    /// Messages are delivered without waiting for the callback of the one before.
    pub(crate) is_concurrent: bool,
    /// What each may send.
    pub(crate) rates: Rates,
    pub(crate) upgrade: Option<Pin>,
    pub(crate) open: Option<Pin>,
    pub(crate) message: Option<Pin>,
    pub(crate) drain: Option<Pin>,
    pub(crate) close: Option<Pin>,
}

/// Why what a callback has returned is no answer. Where it returned is not known any more, so the place is where the
/// callback begins.
pub(crate) fn refusal(worker: &Worker, server: &ServerState, kind: &str, why: &str) -> Failure {
    let websocket = server.websocket.as_ref();
    let callback = match kind {
        "upgrade" => websocket.and_then(|websocket| websocket.upgrade.as_ref()),
        _ => server.request.as_ref(),
    };
    let place = callback.map(|callback| worker.root.stack(worker).place_of(callback));
    Failure::plain(&(place.unwrap_or_default() + why))
}

/// The userdata.
pub(crate) struct Server(Rc<ServerState>);

impl Object for Server {
    const TAG: Tag = Tag::Server;
    const NAME: &'static CStr = c"Server";
}

const OPTIONS: &[&str] = &[
    "port",
    "address",
    "backlog",
    "reusePort",
    "balance",
    "request",
    "streamBody",
    "websocket",
    "tls",
    "limits",
    "trustProxy",
    "proxyProtocol",
    "refusals",
    "accessLog",
    "error",
];

/// `net.serve(options)` and `net.serve(port, handler)`.
pub(crate) fn serve(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) == Kind::Number {
        if stack.kind(2) != Kind::Function {
            return Err(bad_argument(stack, "net.serve", 2, "a function"));
        }
        stack.resize(2);
        stack.push_table(0, 2);
        stack.push_copy(1);
        stack.set_field(3, c"port");
        stack.push_copy(2);
        stack.set_field(3, c"request");
        return serve_options(stack, 3);
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_argument(
            stack,
            "net.serve",
            1,
            "a table of options, or a port followed by a handler",
        ));
    }
    stack.resize(1);
    serve_options(stack, 1)
}

fn serve_options(stack: &mut Stack<'_>, index: i32) -> Outcome {
    let worker = stack.worker()?;
    let options = Options {
        index,
        owner: "net.serve",
    };
    options.check_keys(stack, OPTIONS)?;
    let endpoint = read_endpoint(stack, options)?;
    let limits = options::read_limits(stack, options)?;
    let request = options.function(stack, c"request")?;
    let error = options.function(stack, c"error")?;
    let streams_bodies = options.flag(stack, c"streamBody")?.unwrap_or(false);
    let websocket = options::read_websocket(stack, options, &limits)?;
    if request.is_none() && websocket.is_none() {
        return Err(options.error("option 'request', a function, or 'websocket' is needed"));
    }
    let refusals = options::read_refusals(stack, options)?;
    let log = Log::read(stack, options, &refusals)?;
    let tls = Tls::read(stack, options)?;
    let guards = Guards::read(stack, options, &endpoint, tls.is_some())?;
    let config = ServerConfig {
        tls: tls.as_ref().map(Tls::shared),
        limits: Some(limits),
        protocol: Protocol::Http,
        websocket: websocket.is_some(),
        collect_bodies: !streams_bodies,
        proxy_headers: guards.proxy_headers.clone(),
        outlives_drain: false,
        refusals,
    };
    let how = read_listening(stack, options)?;
    let listener = listen(worker, &endpoint, config, how).map_err(|error| {
        let (at, problem) = (show(&endpoint), plain(&error));
        options.error(format!("cannot listen on {at}: {problem}"))
    })?;
    guards.begin(worker, listener);
    let bound = worker.reactor.borrow().local_endpoint(listener);
    let (address, port) = place(&bound.unwrap_or(endpoint));
    let sees_server = |request| stack.sees_argument(request, 2);
    let state = Rc::new(ServerState {
        is_told_server: request.as_ref().is_none_or(sees_server),
        listener,
        address,
        port,
        request,
        websocket,
        error,
        guards,
        tls,
        streams_bodies,
        log,
        object: RefCell::new(None),
        plain: OnceCell::new(),
        is_stopped: Cell::new(false),
    });
    stack.push_object(Server(Rc::clone(&state)));
    let top = stack.len();
    let pin = stack.pin(top, worker.root.released());
    *state.object.borrow_mut() = Some(pin);
    worker.servers.borrow_mut().push(state);
    Ok(Returns::Values(1))
}

/// What holds for one listener alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening {
    backlog: Option<u16>,
    shares_port: bool,
    balance: Option<Balance>,
}

/// `backlog`, `reusePort` and `balance`.
pub(super) fn read_listening(
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Listening, Raise> {
    let backlog = options
        .whole(stack, c"backlog", (1, 65_535))?
        .map(|backlog| u16::try_from(backlog).unwrap_or(u16::MAX));
    let shares_port = options.flag(stack, c"reusePort")?.unwrap_or(false);
    let balance = match options.text(stack, c"balance")?.as_deref() {
        None => None,
        Some("system") => Some(Balance::System),
        Some("connections") => Some(Balance::Connections),
        Some(other) => {
            return Err(options.error(format!(
                "option 'balance' must be \"connections\" or \"system\", not \"{}\"",
                other.escape_debug()
            )));
        }
    };
    Ok(Listening {
        backlog,
        shares_port,
        balance,
    })
}

/// Listens, as `how` says.
pub(super) fn listen(
    worker: &Worker,
    endpoint: &Endpoint,
    config: ServerConfig,
    how: Listening,
) -> std::io::Result<ListenerKey> {
    let mut reactor = worker.reactor.borrow_mut();
    let net = reactor.net_mut();
    net.set_backlog(how.backlog);
    net.set_reuse_port(how.shares_port);
    let peers = &worker.peers;
    let listener = peers.listen(&mut reactor, endpoint, config, how.balance);
    let net = reactor.net_mut();
    net.set_backlog(None);
    net.set_reuse_port(false);
    listener
}

/// Where to listen: `port` and `address`.
pub(super) fn read_endpoint(
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Endpoint, Raise> {
    let port = options
        .whole(stack, c"port", (0, 65_535))?
        .map_or(0, |port| u16::try_from(port).unwrap_or(0));
    let address = options
        .text(stack, c"address")?
        .unwrap_or_else(|| "127.0.0.1".to_owned());
    endpoint(&address, port).ok_or_else(|| {
        options.error(format!(
            "option 'address' must be an IP address, \"localhost\" or \"unix:/path\", not \"{}\"",
            address.escape_debug()
        ))
    })
}

/// What the system said, without the number it said it by.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

/// `address` and `port`, as scripts see them.
pub(super) fn place(endpoint: &Endpoint) -> (String, u16) {
    match endpoint {
        Endpoint::Ip(at) => (at.ip().to_string(), at.port()),
        Endpoint::Unix(path) => (format!("unix:{}", path.display()), 0),
    }
}

pub(super) fn show(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Ip(at) => at.to_string(),
        Endpoint::Unix(path) => path.display().to_string(),
    }
}

fn endpoint(address: &str, port: u16) -> Option<Endpoint> {
    if let Some(path) = address.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| Endpoint::Unix(path.into()));
    }
    let ip = match address {
        "localhost" => "127.0.0.1",
        other => other,
    };
    let ip: core::net::IpAddr = ip.parse().ok()?;
    Some(Endpoint::Ip((ip, port).into()))
}

/// Installs the metatable and the methods.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Server, Server::NAME)?
        .with(c"__index", index)?
        .with(c"__newindex", |_| {
            Err(Raise::from("a server cannot be changed"))
        })?
        .with(c"__namecall", invoke)?
        .install_object::<Server>()?;
    methods::add(lua, worker, (Tag::Server, Atom::Stop), c"stop", stop)?;
    let reload = (Tag::Server, Atom::ReloadTls);
    methods::add(lua, worker, reload, c"reloadTls", reload_tls)?;
    methods::add(
        lua,
        worker,
        (Tag::Server, Atom::Stats),
        c"stats",
        stats::stats,
    )?;
    topics::install_servers(lua, worker)
}

const MEMBERS: &[&str] = &[
    "port",
    "address",
    "stop",
    "reloadTls",
    "publish",
    "subscribers",
    "stats",
];

pub(super) fn this(stack: &Stack<'_>) -> Result<Rc<ServerState>, Raise> {
    stack
        .object::<Server>(1)
        .map(|server| Rc::clone(&server.0))
        .ok_or_else(|| bad_argument(stack, "server", 1, "a server (call methods with a colon)"))
}

fn index(stack: &mut Stack<'_>) -> Outcome {
    let server = this(stack)?;
    match stack.atom(2) {
        Some(Atom::Port) => stack.push_number(f64::from(server.port)),
        Some(Atom::Address) => stack.push_string(&server.address),
        Some(atom) if methods::push(stack, Tag::Server, atom)? => {}
        _ => return Err(methods::unknown(stack, "server", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

fn invoke(stack: &mut Stack<'_>) -> Outcome {
    let called = stack.called_member();
    match called {
        Some(Atom::Stop) => stop(stack),
        Some(Atom::ReloadTls) => reload_tls(stack),
        Some(Atom::Stats) => stats::stats(stack),
        _ => topics::invoke_server(stack, called)
            .unwrap_or_else(|| Err(methods::unknown_call(stack, "server", MEMBERS))),
    }
}

/// `server:reloadTls()`: reads certificates and keys anew, for connections that come from now on.
/// Raises if they cannot be used; the server goes on with the old ones then.
fn reload_tls(stack: &mut Stack<'_>) -> Outcome {
    let server = this(stack)?;
    let Some(tls) = &server.tls else {
        return Err(Raise::from("server:reloadTls: the server has no TLS"));
    };
    let failed = |why| Raise::from(format!("server:reloadTls: {why}"));
    tls.reload().map_err(failed)?;
    Ok(Returns::Values(0))
}

/// `server:stop(grace?)`: accepts no more, lets what is under way finish for `grace` seconds. A
/// second call does nothing. With `math.huge` nothing is cut, and WebSockets go on.
fn stop(stack: &mut Stack<'_>) -> Outcome {
    let server = this(stack)?;
    let grace = match stack.number(2) {
        Some(f64::INFINITY) => None,
        Some(seconds) if (0.0..=86_400.0).contains(&seconds) => {
            Some(Duration::from_secs_f64(seconds))
        }
        None if stack.is_nil(2) => Some(GRACE),
        _ => {
            return Err(bad_argument(
                stack,
                "server:stop",
                2,
                "a number of seconds, from 0 to a day, or math.huge",
            ));
        }
    };
    let worker = stack.worker()?;
    if server.is_stopped.replace(true) {
        return Ok(Returns::Values(0));
    }
    let mut reactor = worker.reactor.borrow_mut();
    worker.peers.leave(&mut reactor, server.listener);
    match grace {
        Some(grace) => reactor.drain_listener(server.listener, grace),
        None => reactor.retire_listener(server.listener),
    }
    Ok(Returns::Values(0))
}
