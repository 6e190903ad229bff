//! What a well-behaved connection waits while others on the same thread of the server flood it.
//!
//! `load neighbour [PEER…]`: for each peer and each flood, eight connections flood without pause
//! while one asks, waits for its answer, and asks again. Its waiting times are printed beside those
//! without a flood, with what the server's memory grew to. Flooders that are refused come again.
//!
//! The generator is one core for all nine connections, so part of every figure is its own; that part
//! is the same for all peers. **CPU time** is what the server used meanwhile, by the number of answers:
//! it tells how much work of others goes before an answer, whatever else the machine does. A
//! measurement, not a test: `tests/neighbour.rs` asserts the bounds.
//!
//! Not here: what floods are answered with (`core/testdata`), CPU time (`rounds.rs`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::chart::grouped;
use crate::extra::{Extra, Stage, Table};
use crate::measure::{clock, cpu, memory};
use crate::peers::{self, PEERS, Peer, process};
use crate::workload::HELLO;

/// Connections that flood.
const FLOODERS: usize = 8;

/// How long each pair of peer and flood is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// A neighbour who waits longer than this is counted with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a flood that are made ready; they are sent again and again.
const FLOOD_BYTES: usize = 256 * 1024;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

const CHUNKED: &[u8] =
    b"POST /field HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";

const UPGRADE: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// "Hello" to be echoed, masked with zeros, and the echo.
const HELLO_FRAME: &[u8] = b"\x81\x85\0\0\0\0Hello";
const HELLO_ECHO: &[u8] = b"\x81\x05Hello";

/// What is sent once, and what without end.
struct Flood {
    name: &'static str,
    is_websocket: bool,
    opening: &'static [u8],
    unit: &'static [u8],
}

const FLOODS: [Flood; 8] = [
    Flood {
        name: "one-byte chunks",
        is_websocket: false,
        opening: CHUNKED,
        unit: b"1\r\nx\r\n",
    },
    Flood {
        name: "two-byte chunks",
        is_websocket: false,
        opening: CHUNKED,
        unit: b"2\r\nxx\r\n",
    },
    Flood {
        name: "pipelined requests",
        is_websocket: false,
        opening: b"",
        unit: GET,
    },
    Flood {
        name: "a head without end",
        is_websocket: false,
        opening: b"GET / HTTP/1.1\r\n",
        unit: b"X: y\r\n",
    },
    Flood {
        name: "empty fragments",
        is_websocket: true,
        opening: UPGRADE,
        unit: b"\x00\x80\0\0\0\0",
    },
    Flood {
        name: "one-byte fragments",
        is_websocket: true,
        opening: UPGRADE,
        unit: b"\x00\x81\0\0\0\0x",
    },
    Flood {
        name: "pings",
        is_websocket: true,
        opening: UPGRADE,
        unit: b"\x89\x80\0\0\0\0",
    },
    Flood {
        name: "one-byte messages",
        is_websocket: true,
        opening: UPGRADE,
        unit: b"\x82\x81\0\0\0\0x",
    },
];

/// The neighbour's waiting times, sorted; the server's CPU time meanwhile and its memory in the end.
struct Watched {
    waits: Vec<Duration>,
    cpu_ns: u64,
    resident_bytes: u64,
}

/// The peers that are watched if none are named.
const USUAL: [&str; 5] = ["core", "huki", "hyper", "tungstenite", "fastwebsockets"];

/// `load neighbour` among others.
pub(crate) const NEIGHBOUR: Extra = Extra {
    name: "neighbour",
    title: "What an answer takes, microseconds, beside eight that flood",
    measure: |stage| table(stage, &USUAL.map(str::to_owned)),
};

/// Measures and prints; `names` are those of peers, or none for the usual ones.
pub(crate) fn main(names: &[String], stage: &mut Stage<'_>) -> Result<ExitCode, String> {
    let usual = USUAL.map(str::to_owned);
    let names = if names.is_empty() { &usual } else { names };
    print!("{}", table(stage, names)?.markdown());
    Ok(ExitCode::SUCCESS)
}

fn table(stage: &mut Stage<'_>, names: &[String]) -> Result<Table, String> {
    process::pin(*stage.cores.last().ok_or("no core to run on")?)?;
    let wanted = |peer: &&Peer| names.iter().any(|name| name == peer.name);
    let mut peers: Vec<&'static Peer> = PEERS.iter().filter(wanted).collect();
    for absent in peers::prepare(&mut peers, None) {
        println!("{}: left out: {}", absent.peer.name, absent.why);
    }
    let mut table = Table::new(&[
        "server",
        "flood",
        "answers in 3 s",
        "CPU",
        "p50",
        "p99",
        "resident MiB",
    ]);
    for is_websocket in [false, true] {
        for peer in &peers {
            let fits = [peer.http, peer.websocket][usize::from(is_websocket)];
            let floods = FLOODS.iter();
            let floods = floods.filter(|flood| fits && flood.is_websocket == is_websocket);
            let alone = fits.then_some(None).into_iter();
            for flood in alone.chain(floods.map(Some)) {
                let name = flood.map_or("none", |flood| flood.name);
                (stage.progress)(&format!("neighbour: {}, {name}", peer.name));
                let watched = watch(peer, stage.cores[0], flood, is_websocket)?;
                table.row(cells(peer.name, name, &watched));
            }
        }
    }
    Ok(table)
}

fn cells(peer: &str, flood: &str, watched: &Watched) -> [String; 7] {
    let waits = &watched.waits;
    let at = |per_mille: usize| {
        let index = (waits.len() * per_mille / 1000).min(waits.len().saturating_sub(1));
        grouped(
            waits
                .get(index)
                .map_or(0.0, |wait| wait.as_secs_f64() * 1e6),
        )
    };
    let cpu_us = watched.cpu_ns as f64 / 1e3 / waits.len().max(1) as f64;
    [
        peer.to_owned(),
        flood.to_owned(),
        grouped(waits.len() as f64),
        grouped(cpu_us),
        at(500),
        at(990),
        (watched.resident_bytes >> 20).to_string(),
    ]
}

/// A fresh server of `peer`, flooded, and a neighbour who asks.
fn watch(
    peer: &Peer,
    core: usize,
    flood: Option<&Flood>,
    is_websocket: bool,
) -> Result<Watched, String> {
    let server = process::Process::start_quietly(peer, core)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flooding = flood.map(|flood| scope.spawn(|| flood_all(server.port, flood, &is_over)));
        let watched = measure(&server, is_websocket);
        is_over.store(true, Ordering::Relaxed);
        if let Some(flooding) = flooding {
            flooding.join().map_err(|_| "the flood failed".to_owned())?;
        }
        watched.map_err(|error| format!("{}: {error}", peer.name))
    })
}

/// The neighbour's part of it.
fn measure(server: &process::Process, is_websocket: bool) -> Result<Watched, String> {
    let before = cpu::cpu_time(server.id())?;
    let mut waits = ask(server.port, is_websocket).map_err(|error| error.to_string())?;
    let used = cpu::cpu_time(server.id())?.since(before);
    waits.sort_unstable();
    Ok(Watched {
        waits,
        cpu_ns: used.total_ns,
        resident_bytes: memory::resident_bytes(server.id())?,
    })
}

/// Asks for [`WATCHED`], one question at a time; how long each took.
fn ask(port: u16, is_websocket: bool) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (question, end) = if is_websocket {
        stream.write_all(UPGRADE)?;
        receive(&mut stream, b"\r\n\r\n")?;
        (HELLO_FRAME, HELLO_ECHO)
    } else {
        (GET, HELLO.as_bytes())
    };
    let (begin, mut waits) = (clock::monotonic(), Vec::new());
    while clock::monotonic() < begin + WATCHED {
        let asked = clock::monotonic();
        stream.write_all(question)?;
        match receive(&mut stream, end) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                waits.push(PATIENCE);
                break;
            }
            received => received?,
        }
        waits.push(clock::monotonic() - asked);
    }
    Ok(waits)
}

/// Reads up to `end`, with which an answer ends.
fn receive(stream: &mut TcpStream, end: &[u8]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while !bytes.ends_with(end) {
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    Ok(())
}

/// One connection that floods, and where it stands in what it sends.
struct Flooder {
    stream: TcpStream,
    sent: usize,
    /// Bytes of the opening: they are not sent again.
    opening: usize,
}

impl Flooder {
    fn connect(port: u16, flood: &Flood) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            sent: 0,
            opening: flood.opening.len(),
        })
    }

    /// Sends on and drops what comes; false when the connection has ended.
    fn go_on(&mut self, flood: &[u8], scrap: &mut [u8]) -> bool {
        let blocked = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        match self.stream.read(scrap) {
            Ok(0) => return false,
            Err(error) if !blocked(&error) => return false,
            _ => {}
        }
        match self.stream.write(&flood[self.sent..]) {
            Ok(count) => self.sent += count,
            Err(error) if !blocked(&error) => return false,
            Err(_) => {}
        }
        if self.sent == flood.len() {
            self.sent = self.opening;
        }
        true
    }
}

/// Floods from [`FLOODERS`] connections until it is over.
fn flood_all(port: u16, flood: &Flood, is_over: &AtomicBool) {
    let mut bytes = flood.opening.to_vec();
    if flood.unit[0] == 0 {
        // Fragments need a first one.
        bytes.extend_from_slice(b"\x02\x81\0\0\0\0x");
    }
    let opening = bytes.len();
    while bytes.len() < FLOOD_BYTES {
        bytes.extend_from_slice(flood.unit);
    }
    let mut scrap = vec![0; 64 * 1024];
    let mut flooders: Vec<Flooder> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        flooders.retain_mut(|flooder| flooder.go_on(&bytes, &mut scrap));
        while flooders.len() < FLOODERS {
            match Flooder::connect(port, flood) {
                Ok(flooder) => flooders.push(Flooder { opening, ..flooder }),
                Err(_) => break,
            }
        }
        let either = PollFlags::IN | PollFlags::OUT;
        let mut waiting: Vec<PollFd<'_>> = flooders
            .iter()
            .map(|flooder| PollFd::new(&flooder.stream, either))
            .collect();
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        // Interrupted or not: the loop looks again.
        let _ = poll(&mut waiting, Some(&moment));
    }
}
