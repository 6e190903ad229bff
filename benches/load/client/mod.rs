//! The generator: many connections, each with a batch of requests in flight, on one epoll instance.
//!
//! Closed loop: a connection sends its next batch when the last is answered whole. The generator
//! has no runtime and one thread; it reads into one area and keeps bytes per connection only while
//! an answer is incomplete, so that it stays far cheaper than what it measures. What the bytes mean
//! is a `Dialect`: `http.rs` or `websocket.rs`.
//!
//! Invariants
//! - `run` returns with no answer outstanding on any connection, or with an error.
//! - No wait is longer than [`STALL`]: a peer that stops answering ends the run.
//! - Bytes beyond the answers that are due are an error.
//!
//! Not here: which peer runs when (`rounds.rs`), CPU time (`measure/`).

mod http;
pub(crate) mod latency;
mod websocket;

pub(crate) use websocket::accept_key;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use self::latency::Histogram;
use crate::measure::clock;
use crate::workload::{Kind, Workload};

/// Longest silence of a peer that owes answers.
const STALL: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Bytes of the area that all connections read into.
const AREA_BYTES: usize = 256 * 1024;

/// The bytes of a workload and the judgement of what comes back.
pub(crate) trait Dialect {
    /// Sent once when the connection opens: a handshake, or a first request. So that a listener's
    /// queue never overflows, each connection waits for its answer.
    fn greeting(&self) -> &[u8];

    /// Length of the whole and right answer to the greeting at the front of `input`; `None` if it
    /// is incomplete.
    fn check_greeting(&self, input: &[u8]) -> Result<Option<usize>, String>;

    /// The requests that are sent at once.
    fn batch(&self) -> &[u8];

    /// Length of the whole and right answer at the front of `input`; `None` if it is incomplete.
    fn check_answer(&self, input: &[u8]) -> Result<Option<usize>, String>;
}

/// The dialect of a workload.
pub(crate) fn dialect(workload: &Workload) -> Box<dyn Dialect> {
    match workload.kind {
        Kind::Get => Box::new(http::Http::get(workload.in_flight)),
        Kind::PostJson => Box::new(http::Http::post_json(workload.in_flight)),
        Kind::Echo { bytes, binary } => {
            Box::new(websocket::Echo::new(bytes, binary, workload.in_flight))
        }
    }
}

/// What one `run` achieved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    pub(crate) wall: Duration,
}

/// All connections to one peer.
pub(crate) struct Client {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    area: Vec<u8>,
    dialect: Box<dyn Dialect>,
    in_flight: u32,
    /// What the answers took, if that is asked for: it costs a look at the clock per batch.
    latencies: Option<Histogram>,
}

struct Connection {
    socket: TcpStream,
    /// Bytes of the batch that the socket has not taken yet.
    unsent: usize,
    /// When the batch began; kept up only while latencies are recorded.
    began: Instant,
    /// Answers owed by the peer.
    due: u32,
    /// The front of an incomplete answer.
    rest: Vec<u8>,
    /// Whether epoll reports room for writing.
    awaits_room: bool,
}

impl Client {
    /// Opens the workload's connections and exchanges their greetings.
    pub(crate) fn connect(port: u16, workload: &Workload) -> Result<Self, String> {
        let mut client = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .map_err(|error| format!("epoll_create: {error}"))?,
            events: Vec::with_capacity(workload.connections),
            connections: Vec::with_capacity(workload.connections),
            area: vec![0; AREA_BYTES],
            dialect: dialect(workload),
            in_flight: workload.in_flight,
            latencies: None,
        };
        for index in 0..workload.connections {
            let socket = greet(port, client.dialect.as_ref())
                .map_err(|error| format!("connection {index}: {error}"))?;
            client
                .add(socket)
                .map_err(|error| format!("connection {index}: {error}"))?;
        }
        Ok(client)
    }

    fn add(&mut self, socket: TcpStream) -> io::Result<()> {
        let token = epoll::EventData::new_u64(self.connections.len() as u64);
        epoll::add(&self.epoll, &socket, token, epoll::EventFlags::IN)?;
        self.connections.push(Connection {
            socket,
            unsent: 0,
            began: clock::now(),
            due: 0,
            rest: Vec::new(),
            awaits_room: false,
        });
        Ok(())
    }

    /// Keeps every connection busy for `duration`, then collects what is still owed.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Tally, String> {
        let started = clock::now();
        let mut answers = 0;
        let mut owing = self.connections.len();
        for index in 0..self.connections.len() {
            self.start_batch(index)?;
        }
        while owing > 0 {
            self.events.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut self.events),
                Some(&STALL),
            )
            .map_err(|error| format!("epoll_wait: {error}"))?;
            if self.events.is_empty() {
                return Err(format!(
                    "{owing} connections are owed answers and none came for {} s",
                    STALL.tv_sec
                ));
            }
            let is_time_up = started.elapsed() >= duration;
            for event in 0..self.events.len() {
                let (token, flags) = (self.events[event].data.u64(), self.events[event].flags);
                let index = usize::try_from(token)
                    .map_err(|_| "epoll gave a token that nobody registered")?;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.write(index)?;
                }
                if flags.intersects(
                    epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                ) {
                    let answered = self.read(index)?;
                    answers += u64::from(answered);
                    if answered > 0 && self.connections[index].due == 0 {
                        if let Some(latencies) = &mut self.latencies {
                            latencies.record(self.connections[index].began.elapsed());
                        }
                        if is_time_up {
                            owing -= 1;
                        } else {
                            self.start_batch(index)?;
                        }
                    }
                }
            }
        }
        let wall = started.elapsed();
        Ok(Tally { answers, wall })
    }

    /// Records from now on what the answers of a batch take.
    pub(crate) fn record_latencies(&mut self) {
        self.latencies = Some(Histogram::new());
    }

    /// What was recorded, if [`record_latencies`](Self::record_latencies) asked for it.
    pub(crate) fn latencies(&self) -> Option<&Histogram> {
        self.latencies.as_ref()
    }

    fn start_batch(&mut self, index: usize) -> Result<(), String> {
        if self.latencies.is_some() {
            self.connections[index].began = clock::now();
        }
        self.connections[index].due = self.in_flight;
        self.connections[index].unsent = self.dialect.batch().len();
        self.write(index)
    }

    /// Sends what is left of the batch; asks epoll for room only while the socket has none.
    fn write(&mut self, index: usize) -> Result<(), String> {
        let batch = self.dialect.batch();
        let connection = &mut self.connections[index];
        while connection.unsent > 0 {
            match connection
                .socket
                .write(&batch[batch.len() - connection.unsent..])
            {
                Ok(sent) => connection.unsent -= sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("write: {error}")),
            }
        }
        let needs_room = connection.unsent > 0;
        if needs_room != connection.awaits_room {
            connection.awaits_room = needs_room;
            let mut interest = epoll::EventFlags::IN;
            interest.set(epoll::EventFlags::OUT, needs_room);
            let token = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, token, interest)
                .map_err(|error| format!("epoll_ctl: {error}"))?;
        }
        Ok(())
    }

    /// Reads once and counts the whole answers that came.
    fn read(&mut self, index: usize) -> Result<u32, String> {
        let connection = &mut self.connections[index];
        let got = match connection.socket.read(&mut self.area) {
            Ok(0) => return Err("the peer closed the connection".to_owned()),
            Ok(got) => got,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(format!("read: {error}")),
        };
        let fresh = &self.area[..got];
        if connection.rest.is_empty() {
            let (answered, consumed) = judge(self.dialect.as_ref(), fresh, connection.due)?;
            connection.rest.extend_from_slice(&fresh[consumed..]);
            connection.due -= answered;
            return Ok(answered);
        }
        connection.rest.extend_from_slice(fresh);
        let (answered, consumed) = judge(self.dialect.as_ref(), &connection.rest, connection.due)?;
        connection.rest.drain(..consumed);
        connection.due -= answered;
        Ok(answered)
    }
}

/// Counts the whole answers in `input` and the bytes they take; more than `due` is an error.
fn judge(dialect: &dyn Dialect, input: &[u8], due: u32) -> Result<(u32, usize), String> {
    let (mut answered, mut consumed) = (0, 0);
    while consumed < input.len() {
        if answered == due {
            return Err(format!(
                "{} bytes came that nobody asked for",
                input.len() - consumed
            ));
        }
        match dialect.check_answer(&input[consumed..])? {
            Some(len) => consumed += len,
            None => break,
        }
        answered += 1;
    }
    Ok((answered, consumed))
}

/// Connects, and exchanges the greeting with blocking calls that time out.
fn greet(port: u16, dialect: &dyn Dialect) -> Result<TcpStream, String> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = TcpStream::connect(to).map_err(|error| format!("connect: {error}"))?;
    let say = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    socket.set_nodelay(true).map_err(say("TCP_NODELAY"))?;
    let limit = Duration::from_secs(STALL.tv_sec.unsigned_abs());
    socket
        .set_read_timeout(Some(limit))
        .map_err(say("SO_RCVTIMEO"))?;
    socket
        .write_all(dialect.greeting())
        .map_err(say("greeting"))?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let got = socket
            .read(&mut piece)
            .map_err(say("answer to the greeting"))?;
        if got == 0 {
            return Err("the peer closed the connection at the greeting".to_owned());
        }
        answer.extend_from_slice(&piece[..got]);
        match dialect.check_greeting(&answer)? {
            Some(len) if len == answer.len() => break,
            Some(_) => return Err("bytes follow the answer to the greeting".to_owned()),
            None => {}
        }
    }
    socket.set_nonblocking(true).map_err(say("O_NONBLOCK"))?;
    Ok(socket)
}
