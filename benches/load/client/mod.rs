//! The generator: many connections, each with a batch of requests in flight, on one epoll instance.
//!
//! Closed loop: a connection sends its next batch when the last is answered whole; in a room one connection
//! sends and all have to hear it. Open loop (`open.rs`): batches leave by the clock. The generator
//! has no runtime and one thread; it reads into one area and keeps bytes per connection only while
//! an answer is incomplete, so that it stays far cheaper than what it measures. What the bytes mean
//! is a `Dialect`: `http.rs` or `websocket.rs`. Connections that do not stay are `churn.rs`.
//!
//! Invariants
//! - `run` returns with no answer outstanding on any connection, or with an error.
//! - No wait is longer than [`STALL`]: a peer that stops answering ends the run.
//! - Bytes beyond the answers that are due are an error.
//!
//! Not here: which peer runs when (`rounds.rs`), CPU time (`measure/`).

pub(crate) mod apart;
mod churn;
mod http;
pub(crate) mod latency;
mod open;
pub(crate) mod page;
pub(crate) mod stream;
mod websocket;

pub(crate) use open::Arrivals;
pub(crate) use websocket::{Echo, MASK, accept_key, push_length};

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use self::churn::Churn;
use self::latency::Histogram;
use self::stream::Stream;
use crate::measure::clock;
use crate::workload::{Kind, Workload};

/// Longest silence of a peer that owes answers.
const STALL: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Connections that are opened before the first of them is greeted back; a listener's queue holds more.
const OPENED_AT_ONCE: usize = 32;

/// Bytes of the area that all connections read into.
const AREA_BYTES: usize = 256 * 1024;

/// The bytes of a workload and the judgement of what comes back.
pub(crate) trait Dialect {
    /// Sent once when the connection opens: a handshake, or a first request. So that a listener's
    /// queue never overflows, a few connections at a time wait for its answer.
    fn greeting(&self) -> &[u8];

    /// Length of the whole and right answer to the greeting at the front of `input`; `None` if it
    /// is incomplete.
    fn check_greeting(&self, input: &[u8]) -> Result<Option<usize>, String>;

    /// The requests that are sent at once.
    fn batch(&self) -> &[u8];

    /// Length of the whole and right answer at the front of `input`; `None` if it is incomplete.
    fn check_answer(&self, input: &[u8]) -> Result<Option<usize>, String>;

    /// The peer's own question at the front of `input`, which is no answer: its length, and what is said to it.
    fn question(&self, _input: &[u8]) -> Option<(usize, &'static [u8])> {
        None
    }
}

/// The dialect of a workload.
fn dialect(workload: &Workload) -> Box<dyn Dialect> {
    match workload.kind {
        Kind::Get | Kind::TlsGet => Box::new(http::Http::get(workload.in_flight)),
        Kind::Churn => Box::new(http::Http::get_once()),
        Kind::Room { bytes } => Box::new(websocket::Echo::new(bytes, false, workload.in_flight)),
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

/// What keeps a peer busy.
pub(crate) enum Generator {
    Kept(Client),
    Churn(Churn),
}

impl Generator {
    /// What `workload` needs, ready to run.
    pub(crate) fn connect(port: u16, workload: &Workload) -> Result<Self, String> {
        Ok(match workload.kind {
            Kind::Churn => Self::Churn(Churn::new(port, workload.connections)?),
            _ => Self::Kept(Client::connect(port, workload)?),
        })
    }

    /// Keeps the peer busy for `duration`, then collects what is still owed.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Tally, String> {
        match self {
            Self::Kept(client) => client.run(duration),
            Self::Churn(churn) => churn.run(duration),
        }
    }

    /// Records from now on what the answers of a batch take; not known of connections that do not
    /// stay.
    pub(crate) fn record_latencies(&mut self) {
        if let Self::Kept(client) = self {
            client.latencies = Some(Histogram::new());
        }
    }

    /// What was recorded, if [`record_latencies`](Self::record_latencies) asked for it.
    pub(crate) fn latencies(&self) -> Option<&Histogram> {
        match self {
            Self::Kept(client) => client.latencies.as_ref(),
            Self::Churn(_) => None,
        }
    }
}

/// All connections to one peer.
pub(crate) struct Client {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    area: Vec<u8>,
    dialect: Box<dyn Dialect>,
    in_flight: u32,
    /// Whether one connection speaks and all hear it.
    is_room: bool,
    /// Connections whose batch was answered in the last turn.
    finished: Vec<usize>,
    /// What the answers took, if that is asked for: it costs a look at the clock per batch.
    latencies: Option<Histogram>,
}

struct Connection {
    stream: Stream,
    /// Bytes of the batch that the socket has not taken yet.
    unsent: usize,
    /// When the batch began, or was to begin; kept up only while latencies are recorded.
    began: Instant,
    /// Answers owed by the peer.
    due: u32,
    /// The front of an incomplete answer.
    rest: Vec<u8>,
    /// What is still to be said to the peer's own questions.
    courtesy: Vec<u8>,
    /// Whether epoll reports room for writing.
    awaits_room: bool,
}

impl Client {
    /// Opens the workload's connections and exchanges their greetings.
    pub(crate) fn connect(port: u16, workload: &Workload) -> Result<Self, String> {
        let mut client = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .map_err(|error| format!("epoll_create: {error}"))?,
            events: Vec::with_capacity(workload.connections.min(EVENTS_MAX)),
            connections: Vec::with_capacity(workload.connections),
            area: vec![0; AREA_BYTES],
            dialect: dialect(workload),
            in_flight: workload.in_flight,
            is_room: matches!(workload.kind, Kind::Room { .. }),
            finished: Vec::new(),
            latencies: None,
        };
        let tls = match workload.kind {
            Kind::TlsGet => Some(stream::tls_settings()?),
            _ => None,
        };
        for from in (0..workload.connections).step_by(OPENED_AT_ONCE) {
            let some = from..(from + OPENED_AT_ONCE).min(workload.connections);
            let fail = |error| format!("connection {from} or after: {error}");
            let streams = stream::open(port, some, tls.as_ref(), client.dialect.as_ref());
            for stream in streams.map_err(fail)? {
                client
                    .add(stream)
                    .map_err(|error| fail(error.to_string()))?;
            }
        }
        Ok(client)
    }

    fn add(&mut self, stream: Stream) -> io::Result<()> {
        let token = epoll::EventData::new_u64(self.connections.len() as u64);
        epoll::add(&self.epoll, &stream, token, epoll::EventFlags::IN)?;
        self.connections.push(Connection {
            stream,
            unsent: 0,
            began: clock::now(),
            due: 0,
            rest: Vec::new(),
            courtesy: Vec::new(),
            awaits_room: false,
        });
        Ok(())
    }

    /// Keeps every connection busy for `duration`, then collects what is still owed.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Tally, String> {
        let started = clock::now();
        let mut answers = 0;
        let mut owing = self.connections.len();
        self.start_all()?;
        while owing > 0 {
            answers += self.turn(owing)?;
            let is_time_up = started.elapsed() >= duration;
            if self.is_room || is_time_up {
                owing -= self.finished.len();
            } else {
                for at in 0..self.finished.len() {
                    self.start_batch(self.finished[at])?;
                }
            }
            if self.is_room && owing == 0 && !is_time_up {
                owing = self.connections.len();
                self.start_all()?;
            }
        }
        Ok(Tally {
            answers,
            wall: started.elapsed(),
        })
    }

    /// The same with so many batches under way at any time, which pass through all connections in
    /// turn.
    pub(crate) fn run_window(
        &mut self,
        window: usize,
        duration: Duration,
    ) -> Result<Tally, String> {
        let started = clock::now();
        let mut answers = 0;
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut owing = window.min(idle.len());
        for index in idle.drain(..owing) {
            self.start_batch(index)?;
        }
        while owing > 0 {
            answers += self.turn(owing)?;
            let is_time_up = started.elapsed() >= duration;
            for at in 0..self.finished.len() {
                idle.push_back(self.finished[at]);
                if is_time_up {
                    owing -= 1;
                } else if let Some(next) = idle.pop_front() {
                    self.start_batch(next)?;
                }
            }
        }
        Ok(Tally {
            answers,
            wall: started.elapsed(),
        })
    }

    /// Waits for readiness, reads and writes, and returns the answers that came; `finished` are the
    /// connections that are owed nothing any more.
    fn turn(&mut self, owing: usize) -> Result<u64, String> {
        let answers = self.turn_within(&STALL)?;
        if self.events.is_empty() {
            return Err(format!(
                "{owing} connections are owed answers and none came for {} s",
                STALL.tv_sec
            ));
        }
        Ok(answers)
    }

    /// The same, waiting no longer than `patience`; that nothing came is no error.
    fn turn_within(&mut self, patience: &Timespec) -> Result<u64, String> {
        let mut answers = 0;
        self.finished.clear();
        self.events.clear();
        epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(patience),
        )
        .map_err(|error| format!("epoll_wait: {error}"))?;
        for event in 0..self.events.len() {
            let (token, flags) = (self.events[event].data.u64(), self.events[event].flags);
            let index =
                usize::try_from(token).map_err(|_| "epoll gave a token that nobody registered")?;
            if flags.contains(epoll::EventFlags::OUT) {
                self.write(index)?;
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                let answered = self.read(index)?;
                answers += u64::from(answered);
                if answered > 0 && self.connections[index].due == 0 {
                    if let Some(latencies) = &mut self.latencies {
                        latencies.record(self.connections[index].began.elapsed());
                    }
                    self.finished.push(index);
                }
            }
        }
        Ok(answers)
    }

    fn start_all(&mut self) -> Result<(), String> {
        (0..self.connections.len()).try_for_each(|index| self.start_batch(index))
    }

    fn start_batch(&mut self, index: usize) -> Result<(), String> {
        if self.latencies.is_some() {
            self.connections[index].began = clock::now();
        }
        self.connections[index].due = self.in_flight;
        if self.is_room && index > 0 {
            return Ok(());
        }
        self.connections[index].unsent = self.dialect.batch().len();
        self.write(index)
    }

    /// Sends what is left of the batch; asks epoll for room only while the socket has none.
    fn write(&mut self, index: usize) -> Result<(), String> {
        let batch = self.dialect.batch();
        let connection = &mut self.connections[index];
        while connection.unsent > 0 {
            match connection
                .stream
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
            epoll::modify(&self.epoll, &connection.stream, token, interest)
                .map_err(|error| format!("epoll_ctl: {error}"))?;
        }
        Ok(())
    }

    /// Reads once and counts the whole answers that came.
    fn read(&mut self, index: usize) -> Result<u32, String> {
        let connection = &mut self.connections[index];
        let got = match connection.stream.read(&mut self.area) {
            Ok(0) => return Err("the peer closed the connection".to_owned()),
            Ok(got) => got,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(format!("read: {error}")),
        };
        let (fresh, dialect) = (&self.area[..got], self.dialect.as_ref());
        let due = connection.due;
        let Connection { rest, courtesy, .. } = &mut *connection;
        let answered = if rest.is_empty() {
            let (answered, consumed) = judge(dialect, fresh, due, courtesy)?;
            rest.extend_from_slice(&fresh[consumed..]);
            answered
        } else {
            rest.extend_from_slice(fresh);
            let (answered, consumed) = judge(dialect, rest, due, courtesy)?;
            rest.drain(..consumed);
            answered
        };
        connection.due -= answered;
        connection.be_courteous()?;
        Ok(answered)
    }
}

impl Connection {
    /// Answers the peer's questions, between batches.
    fn be_courteous(&mut self) -> Result<(), String> {
        if !self.courtesy.is_empty() && self.unsent == 0 {
            let said = self.stream.write_all(&self.courtesy);
            said.map_err(|error| format!("an answer to the peer's question: {error}"))?;
            self.courtesy.clear();
        }
        Ok(())
    }
}

/// Counts the whole answers in `input` and the bytes they take; more than `due` is an error. What is to be said to
/// questions among them goes to `courtesy`.
fn judge(
    dialect: &dyn Dialect,
    input: &[u8],
    due: u32,
    courtesy: &mut Vec<u8>,
) -> Result<(u32, usize), String> {
    let (mut answered, mut consumed) = (0, 0);
    while consumed < input.len() {
        if let Some((len, said)) = dialect.question(&input[consumed..]) {
            consumed += len;
            courtesy.extend_from_slice(said);
            continue;
        }
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
