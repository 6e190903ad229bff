//! A hundred of a thousand readers that never read: what they cost the others, and how much memory.
//!
//! Three servers take turns, round by round: one with 900 sockets that read; and two with a hundred more that never
//! do, which drop what these do not take, or keep the latest. A server whose turn it is not is stopped (SIGSTOP), so
//! that it takes no time of the one that runs. Compared is the 99th percentile of the latency of those that read,
//! within each round.
//!
//! ```text
//!  rooms of 50 at 20 Hz:   45 that read   5 that never do ── TCP window shut ── backlog of the server at its limit
//! ```
//!
//! Invariants
//! - Rounds begin when the server has begun to drop: the windows of the slow ones are shut and their backlogs full.
//! - Those that read miss nothing, as everywhere (`crowd.rs`).
//!
//! Not here: that memory is bounded to the byte (`tests/slow.rs`).

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::crowd::{self, Crowd};
use super::{Load, Server};
use crate::client::page;
use crate::extra::{Extra, Stage, Table};
use crate::measure::{cpu, memory};
use crate::peers::{process, script};
use crate::report::{median, quartiles};

/// `load slow-readers`.
pub(crate) const SLOW_READERS: Extra = Extra {
    name: "slow-readers",
    title: "900 sockets that read, beside 100 that never do",
    measure,
};

/// What is done for those that never read; the first server has none of them.
const POLICIES: [Option<&str>; 3] = [None, Some("drop"), Some("latest")];

const READERS: u32 = 900;
const DEAF: u32 = 100;
const ROOMS: u32 = 20;

/// Members that a snapshot tells of, 8 bytes each: more than there are, so that the slow ones' windows are soon shut.
const SHOWN: u32 = 200;

/// Bytes that may wait for a socket.
const LIMIT_BYTES: u32 = 16 * 1024;

/// What a slow one takes before its window is shut is little: its buffer, and segments as on a network.
const DEAF_BUFFER_BYTES: usize = 4096;
const DEAF_SEGMENT_BYTES: u32 = 536;

/// How often it is looked, a tenth of a second each, whether a server has begun to drop.
const LOOKS: u32 = 300;

/// After a server has gone on and before its round.
const SETTLE: Duration = Duration::from_millis(300);

/// One of the servers, with its sockets.
struct Entrant {
    server: Server,
    crowd: Crowd,
    _deaf: Vec<TcpStream>,
    /// Resident bytes when its first round began.
    resident: u64,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu_us: Vec<f64>,
}

fn measure(stage: &mut Stage<'_>) -> Result<Table, String> {
    script::ready()?;
    let (rounds, long) = match stage.is_quick {
        true => (3, Duration::from_millis(500)),
        false => (11, Duration::from_millis(1500)),
    };
    process::pin(*stage.cores.last().ok_or("no core")?)?;
    let mut entrants = Vec::new();
    for policy in POLICIES {
        (stage.progress)(&format!(
            "slow readers, {policy:?}: until their backlog is full"
        ));
        entrants.push(Entrant::join(policy, stage.cores[0])?);
    }
    for round in 0..rounds {
        (stage.progress)(&format!("slow readers: round {} of {rounds}", round + 1));
        for place in 0..entrants.len() {
            let turn = (place + round) % entrants.len();
            entrants[turn].run(long)?;
        }
    }
    table(&entrants)
}

impl Entrant {
    fn join(policy: Option<&'static str>, core: usize) -> Result<Self, String> {
        let load = Load {
            sockets: ROOMS * SHOWN,
            members: SHOWN,
            hz: 20,
            seconds: 0,
            workers: 1,
            backlog: Some((policy.unwrap_or("drop"), LIMIT_BYTES)),
        };
        let server = Server::start(load, &[core])?;
        let mut deaf = Vec::new();
        for number in 0..policy.map_or(0, |_| DEAF) {
            let socket = never_read(server.port, number / (DEAF / ROOMS));
            deaf.push(socket.map_err(|error| format!("slow socket {number}: {error}"))?);
        }
        let mut crowd = Crowd::join(server.port, READERS, READERS / ROOMS)?;
        crowd.begin()?;
        if policy.is_some() {
            await_drops(&mut crowd, server.port)?;
        }
        crowd.listen(SETTLE)?;
        let resident = memory::resident_bytes(server.child.id())?;
        server.signal(Signal::STOP)?;
        Ok(Self {
            server,
            crowd,
            _deaf: deaf,
            resident,
            p50: Vec::new(),
            p99: Vec::new(),
            cpu_us: Vec::new(),
        })
    }

    /// Lets the server go on for so long.
    fn run(&mut self, long: Duration) -> Result<(), String> {
        let id = self.server.child.id();
        self.server.signal(Signal::CONT)?;
        self.crowd.listen(SETTLE)?;
        self.crowd.take();
        let before = cpu::cpu_time(id)?;
        self.crowd.listen(long)?;
        let used = cpu::cpu_time(id)?.since(before);
        let heard = self.crowd.take();
        self.server.signal(Signal::STOP)?;
        let [p50, _, _, _, p99, ..] = heard.latencies.percentiles();
        self.p50.push(p50 as f64 / 1e3);
        self.p99.push(p99 as f64 / 1e3);
        self.cpu_us
            .push(used.total_ns as f64 / 1e3 / heard.deliveries.max(1) as f64);
        Ok(())
    }
}

/// Hears until every slow socket has lost a message, by and large.
fn await_drops(crowd: &mut Crowd, port: u16) -> Result<(), String> {
    for _ in 0..LOOKS {
        crowd.listen(Duration::from_millis(100))?;
        let dropped = page::get(port, "/dropped")?;
        let dropped: f64 = dropped
            .parse()
            .map_err(|_| format!("/dropped: {dropped:?}"))?;
        if dropped >= f64::from(10 * DEAF) {
            return Ok(());
        }
    }
    Err("nothing was dropped: the slow ones are not slow".to_owned())
}

/// A WebSocket in that room that is never read from.
fn never_read(port: u16, room: u32) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| error.to_string();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed)?;
    socket
        .set_recv_buffer_size(DEAF_BUFFER_BYTES)
        .and_then(|()| socket.set_tcp_mss(DEAF_SEGMENT_BYTES))
        .and_then(|()| socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()))
        .map_err(failed)?;
    let mut socket = TcpStream::from(socket);
    crowd::shake_hands(&mut socket, room)?;
    Ok(socket)
}

fn table(entrants: &[Entrant]) -> Result<Table, String> {
    let without = entrants.first().ok_or("no server")?;
    let mut table = Table::new(&[
        "the 900 that read",
        "p50, us",
        "p99, us",
        "p99, x",
        "CPU us per delivery",
        "resident, MiB",
        "per slow reader, KiB",
        "grown since, KiB",
        "dropped or replaced",
    ]);
    for (entrant, policy) in entrants.iter().zip(POLICIES) {
        let resident = memory::resident_bytes(entrant.server.child.id())?;
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let of_slow = resident.saturating_sub(without.resident);
        let ratios = entrant.p99.iter().zip(&without.p99);
        let ratios: Vec<f64> = ratios.map(|(with, without)| with / without).collect();
        let (low, high) = quartiles(ratios.iter().copied());
        let is_beside = policy.is_some();
        let only = |text: String| if is_beside { text } else { String::new() };
        entrant.server.signal(Signal::CONT)?;
        table.row([
            policy.map_or("alone".to_owned(), |policy| {
                format!("beside 100, `{policy}`")
            }),
            format!("{:.0}", median(entrant.p50.iter().copied())),
            format!("{:.0}", median(entrant.p99.iter().copied())),
            only(format!(
                "{:.2} ±{:.2}",
                median(ratios.iter().copied()),
                (high - low) / 2.0
            )),
            format!("{:.2}", median(entrant.cpu_us.iter().copied())),
            format!("{:.1}", kib(resident) / 1024.0),
            only(format!("{:.1}", kib(of_slow) / f64::from(DEAF))),
            format!("{:.0}", kib(resident.saturating_sub(entrant.resident))),
            only(page::get(entrant.server.port, "/dropped")?),
        ]);
    }
    Ok(table)
}

impl Server {
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or("a process without id")?;
        kill_process(id, signal).map_err(|error| format!("a signal: {error}"))
    }
}
