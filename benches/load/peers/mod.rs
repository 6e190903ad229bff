//! The servers that are compared, and what is said about each.
//!
//! A peer is a process. Those compiled in run as `load serve NAME`; the others are programs that
//! `process.rs` starts. Each binds a port of 127.0.0.1 that the system chooses and prints one line
//! `listening PORT`.
//!
//! Invariants
//! - A peer that cannot run here is reported with its reason, never left out in silence.
//! - `settings` says how a peer is configured; it is printed and recorded beside its figures.
//!
//! Not here: starting and stopping (`process.rs`), choosing which to run (`run.rs`).

mod bare_core;
mod floor;
mod floor_echo;
mod hyper;
pub(crate) mod process;
mod script;
mod websockets;

use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::workload::Kind;

/// One line of the table of peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Names it on the command line, in tables and records.
    pub(crate) name: &'static str,
    /// How it is configured, in a few words.
    pub(crate) settings: &'static str,
    pub(crate) speaks: Speaks,
    program: Program,
}

/// Which protocols a peer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    WebSocket,
    Both,
}

/// What runs in the peer's process.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// This executable, in another role.
    Within(fn() -> io::Result<()>),
    /// `huki run` of a script in `benches/luau`.
    Script(&'static str),
}

/// Every peer, the yardsticks first.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "floor",
        settings: "minimal epoll server: one recv, one send, fixed answer, nothing parsed",
        speaks: Speaks::Both,
        program: Program::Within(floor::serve),
    },
    Peer {
        name: "hyper",
        settings: "hyper http1, tokio current-thread, TCP_NODELAY, keep-alive, no timers, no script",
        speaks: Speaks::Http,
        program: Program::Within(|| hyper::serve(false)),
    },
    Peer {
        name: "hyper-flush",
        settings: "the same with pipeline_flush(true)",
        speaks: Speaks::Http,
        program: Program::Within(|| hyper::serve(true)),
    },
    Peer {
        name: "core",
        settings: "hukilau-core, default limits and timeouts, no script",
        speaks: Speaks::Both,
        program: Program::Within(bare_core::serve),
    },
    Peer {
        name: "huki",
        settings: "hukilau with a Luau handler: huki run benches/luau/hello.luau, default limits and timeouts",
        speaks: Speaks::Both,
        program: Program::Script("hello.luau"),
    },
    Peer {
        name: "tungstenite",
        settings: "tokio-tungstenite, tokio current-thread, TCP_NODELAY, its echo example (forward), no script",
        speaks: Speaks::WebSocket,
        program: Program::Within(websockets::serve_tungstenite),
    },
    Peer {
        name: "fastwebsockets",
        settings: "fastwebsockets over hyper, tokio current-thread, TCP_NODELAY, its echo example, no script",
        speaks: Speaks::WebSocket,
        program: Program::Within(websockets::serve_fastwebsockets),
    },
    Peer {
        name: "tokio-websockets",
        settings: "tokio-websockets, tokio current-thread, TCP_NODELAY, its echo example, no script",
        speaks: Speaks::WebSocket,
        program: Program::Within(websockets::serve_tokio_websockets),
    },
];

impl Peer {
    fn is_script(&self) -> bool {
        matches!(self.program, Program::Script(_))
    }

    /// Whether this peer can be asked for `kind`.
    pub(crate) fn answers(&self, kind: Kind) -> bool {
        match kind {
            Kind::Get | Kind::PostJson => matches!(self.speaks, Speaks::Http | Speaks::Both),
            Kind::Echo { .. } => matches!(self.speaks, Speaks::WebSocket | Speaks::Both),
        }
    }
}

/// Builds the programs among `peers` that are not part of this executable, unless `huki` names one
/// that is ready. A peer that cannot run is taken from the list and returned with the reason.
pub(crate) fn prepare(
    peers: &mut Vec<&'static Peer>,
    huki: Option<PathBuf>,
) -> Vec<(&'static Peer, String)> {
    if !peers.iter().any(|peer| peer.is_script()) {
        return Vec::new();
    }
    match huki.map_or_else(script::build, script::choose) {
        Ok(()) => Vec::new(),
        Err(error) => peers
            .extract_if(.., |peer| peer.is_script())
            .map(|peer| (peer, error.clone()))
            .collect(),
    }
}

/// Runs the peer of that name in this process, until it is ended.
pub(crate) fn serve(name: &str) -> Result<(), String> {
    let peer = PEERS.iter().find(|peer| peer.name == name);
    match peer.map(|peer| peer.program) {
        Some(Program::Within(serve)) => serve().map_err(|error| format!("{name}: {error}")),
        _ => Err(format!("no peer named {name} is compiled in")),
    }
}

/// Tells the harness where this process listens.
fn announce(port: u16) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening {port}")?;
    stdout.flush()
}

/// Runs a server on tokio's current-thread runtime, I/O only.
fn current_thread(server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(server)
}
