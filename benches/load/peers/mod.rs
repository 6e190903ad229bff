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
pub(crate) mod certificate;
mod floor;
mod floor_echo;
mod found;
mod hyper;
pub(crate) mod process;
pub(crate) mod script;
mod tungstenite_room;
mod websockets;

use std::io::{self, Write as _};
use std::path::PathBuf;

use self::found::Tool;
use crate::workload::Kind;

/// One line of the table of peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Names it on the command line, in tables and records.
    pub(crate) name: &'static str,
    settings: &'static str,
    /// Whether it answers GET and POST, also of connections that last for one request.
    pub(crate) http: bool,
    /// Whether it echoes messages.
    pub(crate) websocket: bool,
    /// Whether it sends a message to a thousand sockets.
    room: bool,
    tls: bool,
    program: Program,
}

/// What a peer's process is started for. Scripts learn it by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// HTTP, and WebSockets that echo.
    Plain,
    /// WebSockets that all hear what any of them says.
    Room,
    /// HTTP, one request to a connection. Only the floor, which reads no fields, needs to know.
    Once,
    /// HTTP over TLS.
    Tls,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Plain, Self::Room, Self::Once, Self::Tls];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Room => "room",
            Self::Once => "once",
            Self::Tls => "tls",
        }
    }

    /// The mode that `kind` is asked in.
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Get | Kind::PostJson | Kind::Echo { .. } => Self::Plain,
            Kind::Room { .. } => Self::Room,
            Kind::Churn => Self::Once,
            Kind::TlsGet => Self::Tls,
        }
    }
}

/// How a server that is compiled in was started.
pub(crate) struct Setup {
    mode: Mode,
    /// Paths of the certificate and its key, in mode `tls`.
    pair: Option<(PathBuf, PathBuf)>,
}

/// What runs in the peer's process.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// This executable, in another role.
    Within(fn(&Setup) -> io::Result<()>),
    /// `huki run` of a script in `benches/luau`, in so many workers.
    Script { file: &'static str, workers: u32 },
    /// `huki run` of the very script that this program is measured with.
    SameScript(Tool),
    /// A program that is found on this machine, or is not.
    Found(Tool),
}

/// Every peer, in the order of tables and pictures.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "floor",
        settings: "minimal epoll server: one recv, one send, fixed answer, nothing parsed",
        http: true,
        websocket: true,
        room: true,
        tls: false,
        program: Program::Within(floor::serve),
    },
    Peer {
        name: "core",
        settings: "hukilau-core, default limits and timeouts, no script; TLS by rustls with ring",
        http: true,
        websocket: true,
        room: true,
        tls: true,
        program: Program::Within(bare_core::serve),
    },
    Peer {
        name: "huki",
        settings: "hukilau with a Luau handler: huki run benches/luau/hello.luau, default limits and timeouts",
        http: true,
        websocket: true,
        room: true,
        tls: true,
        program: Program::Script {
            file: "hello.luau",
            workers: 1,
        },
    },
    Peer {
        name: "hyper",
        settings: "hyper http1, tokio current-thread, TCP_NODELAY, keep-alive, no timers, no script; TLS by tokio-rustls with ring",
        http: true,
        websocket: false,
        room: false,
        tls: true,
        program: Program::Within(|setup| hyper::serve(setup, false)),
    },
    Peer {
        name: "hyper-flush",
        settings: "the same with pipeline_flush(true)",
        http: true,
        websocket: false,
        room: false,
        tls: false,
        program: Program::Within(|setup| hyper::serve(setup, true)),
    },
    Peer {
        name: "tungstenite",
        settings: "tokio-tungstenite, tokio current-thread, TCP_NODELAY, its echo example (forward), no script; rooms as in its example of a chat, a channel for each socket",
        http: false,
        websocket: true,
        room: true,
        tls: false,
        program: Program::Within(websockets::serve_tungstenite),
    },
    Peer {
        name: "fastwebsockets",
        settings: "fastwebsockets over hyper, tokio current-thread, TCP_NODELAY, its echo example, no script",
        http: false,
        websocket: true,
        room: false,
        tls: false,
        program: Program::Within(websockets::serve_fastwebsockets),
    },
    Peer {
        name: "tokio-websockets",
        settings: "tokio-websockets, tokio current-thread, TCP_NODELAY, its echo example, no script",
        http: false,
        websocket: true,
        room: false,
        tls: false,
        program: Program::Within(websockets::serve_tokio_websockets),
    },
    Peer {
        name: "bun",
        settings: "Bun.serve, handlers in routes, perMessageDeflate off, subscribe and publish",
        http: true,
        websocket: true,
        room: true,
        tls: true,
        program: Program::Found(Tool::Bun),
    },
    Peer {
        name: "node",
        settings: "node:http with ws, perMessageDeflate off, no add-ons, NODE_ENV=production",
        http: true,
        websocket: true,
        room: true,
        tls: true,
        program: Program::Found(Tool::Node),
    },
    Peer {
        name: "lune",
        settings: "Lune's net.serve, its defaults; recent coroutines kept, as its script says",
        http: true,
        websocket: true,
        room: true,
        tls: false,
        program: Program::Found(Tool::Lune),
    },
    Peer {
        name: "huki-lune",
        settings: "hukilau with the script of lune, which keeps no coroutines here",
        http: true,
        websocket: true,
        room: true,
        tls: false,
        program: Program::SameScript(Tool::Lune),
    },
];

/// What a soak is of (`soak/`): another script, and no part of any table.
pub(crate) const SOAKED: Peer = Peer {
    name: "huki",
    settings: "huki run benches/luau/soak.luau, default limits and timeouts",
    http: true,
    websocket: true,
    room: true,
    tls: true,
    program: Program::Script {
        file: "soak.luau",
        workers: 1,
    },
};

/// What notes how late its timers are (`timers.rs`).
pub(crate) const TIMED: Peer = Peer {
    name: "huki",
    settings: "huki run benches/luau/timers.luau, default limits and timeouts",
    http: true,
    websocket: false,
    room: false,
    tls: false,
    program: Program::Script {
        file: "timers.luau",
        workers: 1,
    },
};

/// What is measured by workers (`workers.rs`), with one and with two.
pub(crate) const WORKERS: [Peer; 2] = [workers("huki, 1 worker", 1), workers("huki, 2 workers", 2)];

const fn workers(name: &'static str, workers: u32) -> Peer {
    Peer {
        name,
        settings: "huki run --workers benches/luau/hello.luau, connections handed to the worker with the fewest",
        http: true,
        websocket: true,
        room: true,
        tls: true,
        program: Program::Script {
            file: "hello.luau",
            workers,
        },
    }
}

impl Peer {
    fn is_script(&self) -> bool {
        matches!(
            self.program,
            Program::Script { .. } | Program::SameScript(_)
        )
    }

    /// Whether this peer can be asked for `kind`.
    pub(crate) fn answers(&self, kind: Kind) -> bool {
        match kind {
            Kind::Get | Kind::PostJson | Kind::Churn => self.http,
            Kind::Echo { .. } => self.websocket,
            Kind::Room { .. } => self.room,
            Kind::TlsGet => self.tls,
        }
    }

    /// How it is configured, in a few words, with the version of a program that was found.
    pub(crate) fn settings(&self) -> String {
        match self.program {
            Program::Found(tool) => format!("{}; {}", self.settings, tool.version()),
            _ => self.settings.to_owned(),
        }
    }
}

/// Why peers are not measured.
pub(crate) struct Absent {
    pub(crate) peer: &'static Peer,
    pub(crate) why: String,
    /// Whether this machine just lacks an optional program; else something is broken.
    pub(crate) optional: bool,
}

/// Builds and looks for the programs among `peers` that are not part of this executable; `huki`
/// names one that is ready. A peer that cannot run is taken from the list and returned with the
/// reason.
pub(crate) fn prepare(peers: &mut Vec<&'static Peer>, huki: Option<PathBuf>) -> Vec<Absent> {
    let mut absent = Vec::new();
    if peers.iter().any(|peer| peer.is_script())
        && let Err(why) = prepare_huki(huki)
    {
        let scripts = peers.extract_if(.., |peer| peer.is_script());
        absent.extend(scripts.map(|peer| Absent {
            peer,
            why: why.clone(),
            optional: false,
        }));
    }
    peers.retain(|peer| match peer.program {
        Program::Found(tool) => match tool.find() {
            Ok(_) => true,
            Err(why) => {
                absent.push(Absent {
                    peer,
                    why,
                    optional: true,
                });
                false
            }
        },
        _ => true,
    });
    absent
}

/// Where Bun is, if it is there.
pub(crate) fn bun() -> Option<PathBuf> {
    Tool::Bun.program()
}

/// Builds `huki`, unless `chosen` names one that is ready.
pub(crate) fn prepare_huki(chosen: Option<PathBuf>) -> Result<(), String> {
    chosen.map_or_else(script::build, script::choose)
}

/// Runs the peer that `NAME MODE [CERT KEY]` asks for in this process, until it is ended.
pub(crate) fn serve(arguments: &[String]) -> Result<(), String> {
    let [name, mode, pair @ ..] = arguments else {
        return Err("serve: expected NAME MODE [CERT KEY]".to_owned());
    };
    let mode = Mode::ALL.into_iter().find(|known| known.name() == mode);
    let setup = Setup {
        mode: mode.ok_or_else(|| format!("serve: no mode {:?}", arguments[1]))?,
        pair: match pair {
            [cert, key] => Some((PathBuf::from(cert), PathBuf::from(key))),
            _ => None,
        },
    };
    let peer = PEERS.iter().find(|peer| peer.name == name);
    match peer.map(|peer| peer.program) {
        Some(Program::Within(serve)) => serve(&setup).map_err(|error| format!("{name}: {error}")),
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
