//! The client, what it does to each server, and the rounds.
//!
//! Sits behind `main.rs`, which is empty on other systems. The client is rustls on a blocking
//! socket, one thread for all connections.
//!
//! Invariants
//! - Every answer is checked, and of every handshake whether it was a full one; a peer that fails
//!   ends the run.
//! - A server's CPU time is read only while it sleeps, when the system's account of it is whole.
//!
//! Not here: the servers (`servers.rs`), bytes in bulk (`echo.rs`).

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
};

use super::echo;
use super::servers::{self, BODY, Pair, Running, Serve};

pub(super) type Failure = Box<dyn std::error::Error>;

type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(super) const NAME: &str = "localhost";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Connections that are asked at once.
const WIDE: usize = 64;

/// Sessions a client remembers.
const SESSIONS: usize = 32;

/// Lets this thread run only on the core that is `index`-th of those it may run on, or the last.
pub(super) fn pin(index: usize) -> Result<(), Failure> {
    let allowed = sched_getaffinity(None)?;
    let cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let core = cores.take(index + 1).last().ok_or("no core is allowed")?;
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// CPU time of a thread of this process, in nanoseconds, once it sleeps.
pub(super) fn cpu_asleep(thread: Pid) -> Result<f64, Failure> {
    let task = format!("/proc/self/task/{}", thread.as_raw_nonzero());
    // The state stands behind the name, which is in brackets.
    while !fs::read_to_string(format!("{task}/stat"))?.contains(") S ") {
        thread::yield_now();
    }
    let text = fs::read_to_string(format!("{task}/schedstat"))?;
    let spent = text.split(' ').next().ok_or("an empty account")?;
    Ok(spent.parse()?)
}

/// One server, and the client's memory of it.
struct Peer {
    at: SocketAddr,
    thread: Pid,
    full: Arc<ClientConfig>,
    resuming: Arc<ClientConfig>,
    kept: Vec<Stream>,
}

impl Peer {
    fn new(serve: Serve, pair: &Pair) -> Result<Self, Failure> {
        let Running { at, thread } = servers::start(serve, pair)?;
        let mut peer = Self {
            at,
            thread,
            full: client(pair, Resumption::disabled())?,
            resuming: client(pair, Resumption::in_memory_sessions(SESSIONS))?,
            kept: Vec::new(),
        };
        for _ in 0..WIDE {
            let mut stream = peer.dial(&peer.full)?;
            ask(&mut stream)?;
            let version = stream.conn.protocol_version();
            if version != Some(ProtocolVersion::TLSv1_3) {
                return Err(format!("{version:?} is spoken").into());
            }
            peer.kept.push(stream);
        }
        Ok(peer)
    }

    fn dial(&self, config: &Arc<ClientConfig>) -> Result<Stream, Failure> {
        let name = ServerName::try_from(NAME)?;
        let session = ClientConnection::new(Arc::clone(config), name)?;
        let socket = TcpStream::connect(self.at)?;
        socket.set_nodelay(true)?;
        Ok(StreamOwned::new(session, socket))
    }

    /// A connection from its beginning to its end, with one request in between.
    fn visit(&self, config: &Arc<ClientConfig>) -> Result<HandshakeKind, Failure> {
        let mut stream = self.dial(config)?;
        ask(&mut stream)?;
        let kind = stream.conn.handshake_kind().ok_or("no handshake")?;
        stream.conn.send_close_notify();
        stream.flush()?;
        stream.sock.shutdown(Shutdown::Write)?;
        stream.sock.read_to_end(&mut Vec::new())?;
        Ok(kind)
    }

    /// CPU nanoseconds per connection.
    fn handshakes(&self, count: usize, expected: HandshakeKind) -> Result<f64, Failure> {
        let config = match expected {
            HandshakeKind::Resumed => &self.resuming,
            _ => &self.full,
        };
        // The first has no ticket yet.
        self.visit(config)?;
        let begun = cpu_asleep(self.thread)?;
        for _ in 0..count {
            let kind = self.visit(config)?;
            if kind != expected {
                return Err(format!("{kind:?} instead of {expected:?}").into());
            }
        }
        Ok(per(cpu_asleep(self.thread)? - begun, count))
    }

    /// CPU nanoseconds per request, on as many kept connections at once.
    fn requests(&mut self, count: usize, width: usize) -> Result<f64, Failure> {
        let begun = cpu_asleep(self.thread)?;
        let turns = count.div_ceil(width);
        for _ in 0..turns {
            for stream in &mut self.kept[..width] {
                stream.write_all(REQUEST)?;
            }
            for stream in &mut self.kept[..width] {
                check_answer(stream)?;
            }
        }
        Ok(per(cpu_asleep(self.thread)? - begun, turns * width))
    }
}

/// A client that believes the servers' certificate.
pub(super) fn client(pair: &Pair, resumption: Resumption) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pair.cert.as_bytes())?)?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = resumption;
    Ok(Arc::new(config))
}

fn ask(stream: &mut Stream) -> Result<(), Failure> {
    stream.write_all(REQUEST)?;
    check_answer(stream)
}

fn check_answer(stream: &mut Stream) -> Result<(), Failure> {
    let (mut buffer, mut held) = ([0; 1024], 0);
    while !buffer[..held].ends_with(BODY) {
        match stream.read(&mut buffer[held..])? {
            0 => return Err("the answer is cut, or too long".into()),
            count => held += count,
        }
    }
    match buffer.starts_with(b"HTTP/1.1 200 OK\r\n") {
        true => Ok(()),
        false => Err("the answer is another".into()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn per(spent: f64, count: usize) -> f64 {
    spent / count as f64
}

/// What is asked of each peer in each round.
#[derive(Clone, Copy)]
enum Work {
    Handshakes(HandshakeKind),
    Requests { width: usize },
}

const WORKS: [(&str, Work); 4] = [
    (
        "full handshakes per CPU second",
        Work::Handshakes(HandshakeKind::Full),
    ),
    (
        "resumed handshakes per CPU second",
        Work::Handshakes(HandshakeKind::Resumed),
    ),
    ("GET, 1 connection, CPU us", Work::Requests { width: 1 }),
    (
        "GET, 64 connections, CPU us",
        Work::Requests { width: WIDE },
    ),
];

/// The value below which so many quarters of all lie.
pub(super) fn quartile(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = values.len() * quarters / 4;
    values.get(at).copied().unwrap_or(0.0)
}

pub(super) fn main() {
    let mut words = std::env::args().skip(1).peekable();
    let echoes = words.next_if(|word| word == "echo").is_some();
    let mut arguments = words.map(|word| word.parse());
    let mut number = |default| match arguments.next() {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => panic!("tls [HANDSHAKES] [REQUESTS] [ROUNDS], or tls echo [MIB] [ROUNDS]"),
    };
    // Short rounds: each server meets the same moods of a shared machine.
    let done = match echoes {
        true => echo::compare(number(4), number(101)),
        false => compare(number(30), number(640), number(151)),
    };
    if let Err(failure) = done {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}

/// A certificate for [`NAME`] that nobody but itself has signed.
pub(super) fn self_signed() -> Result<Pair, Failure> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    Ok(Pair {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    })
}

fn compare(handshakes: usize, requests: usize, rounds: usize) -> Result<(), Failure> {
    let pair = self_signed()?;
    let mut peers = [
        Peer::new(servers::core, &pair)?,
        Peer::new(servers::hyper, &pair)?,
    ];
    // The servers have taken the first core.
    pin(1)?;
    println!("{handshakes} handshakes, {requests} requests, {rounds} rounds; TLS 1.3, P-256\n");
    println!("| | core | hyper, tokio-rustls | CPU, core / hyper |");
    println!("| --- | ---: | ---: | ---: |");
    for (name, work) in WORKS {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            let mut costs = [0.0; 2];
            for turn in 0..peers.len() {
                let index = (round + turn) % peers.len();
                costs[index] = match work {
                    Work::Handshakes(kind) => peers[index].handshakes(handshakes, kind)?,
                    Work::Requests { width } => peers[index].requests(requests, width)?,
                };
            }
            // The first warms up.
            if round > 0 {
                ours.push(costs[0]);
                theirs.push(costs[1]);
                ratios.push(costs[0] / costs[1]);
            }
        }
        let (ours, theirs) = (quartile(&mut ours, 2), quartile(&mut theirs, 2));
        let (ours, theirs) = match work {
            Work::Handshakes(_) => (1e9 / ours, 1e9 / theirs),
            Work::Requests { .. } => (ours / 1e3, theirs / 1e3),
        };
        let digits = usize::from(matches!(work, Work::Requests { .. }));
        let ratio = quartile(&mut ratios, 2);
        let spread = (quartile(&mut ratios, 3) - quartile(&mut ratios, 1)) / 2.0;
        println!("| {name} | {ours:.digits$} | {theirs:.digits$} | {ratio:.2} (±{spread:.2}) |");
    }
    Ok(())
}
