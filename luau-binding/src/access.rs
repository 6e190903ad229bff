//! The access log: a line of JSON for each request and each upgrade, whether a script was handed it or
//! core has refused it, and for each connection that was turned away.
//!
//! Sits beside `bridge.rs`, which tells it of requests, and `net/response.rs`, which tells it of
//! answers. Lines are put together once a turn, when the answers are on their way, and written by a
//! thread of their own (`access/sink.rs`).
//!
//! Invariants
//! - A server without a log costs a look at one flag for each answer, and nothing else.
//! - Whatever a peer sends, a line is one line of JSON in UTF-8 without control characters; bytes that
//!   are no UTF-8 stand in it as if they were Latin-1. Texts are cut at 2,048 bytes.
//! - A request has one line: with its answer, or without a status if its peer left before, or if it
//!   was refused without a word.
//!
//! Not here: what core refuses (`conn/server/refuse.rs` there).

mod sink;

use crate::net::guards;
use crate::net::request::Origin;
use crate::net::server::ServerState;
use crate::runtime::Worker;
use crate::value::Options;
use crate::vm::{self, Kind, Raise, Stack};
use hukilau_core::conn::{Exchange, Refusals, Response};
use hukilau_core::http1::Request;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::Refusal;
use hukilau_core::transport::Peer;
use hukilau_core::transport::system_text;
use sink::Sink;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

/// Bytes of a text in a line; what is longer ends with an ellipsis.
const TEXT_BYTES_MAX: usize = 2_048;

/// Where the requests of a server are told of.
#[derive(Debug)]
pub(crate) struct Log {
    sink: Sink,
    /// Whether lines have `agent` and `referrer`.
    has_agent: bool,
    has_referrer: bool,
    /// The server's pages, for their lengths.
    refusals: Refusals,
    lines: RefCell<Vec<u8>>,
}

/// A request that was handed to a script.
#[derive(Debug)]
struct Entry {
    log: Rc<Log>,
    begun: f64,
    /// `None` if nobody knows when it began.
    took: Option<f64>,
    remote: Option<Peer>,
    /// Empty if it is not known, which neither can be.
    method: Vec<u8>,
    target: Vec<u8>,
    agent: Option<Vec<u8>>,
    referrer: Option<Vec<u8>>,
    status: Option<u16>,
    bytes: u64,
    /// Why core has refused it.
    refused: Option<&'static str>,
    is_cut: bool,
}

/// The requests of a worker that are under way or were answered in this turn.
#[derive(Debug, Default)]
pub(crate) struct Access {
    is_on: Cell<bool>,
    /// In order, so that those of one connection stand side by side.
    open: RefCell<BTreeMap<(ConnKey, Exchange), Entry>>,
    done: RefCell<Vec<Entry>>,
    /// What `--access-log` says, for servers that say nothing.
    default: Option<(String, Sink)>,
}

impl Access {
    /// As `--access-log` says.
    ///
    /// # Errors
    /// If there cannot be a log at `place`.
    pub(crate) fn new(place: Option<&str>) -> std::io::Result<Self> {
        let open = |place: &str| match Sink::open(place) {
            Ok(sink) => Ok((place.to_owned(), sink)),
            Err(error) => {
                let what = format!("cannot open the access log {place}: {error}");
                Err(std::io::Error::new(error.kind(), what))
            }
        };
        Ok(Self {
            default: place.map(open).transpose()?,
            ..Self::default()
        })
    }

    /// A request has been handed to the script of a server that has `log`.
    pub(crate) fn begin(&self, log: &Rc<Log>, request: &Request<'_>, origin: &Origin) {
        let field = |name: &[u8]| {
            let mut fields = request.fields();
            let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| clip(value))
        };
        let entry = Entry {
            log: Rc::clone(log),
            begun: vm::clock(),
            took: None,
            remote: origin.peer,
            method: clip(request.method()),
            target: clip(request.target()),
            agent: log.has_agent.then(|| field(b"user-agent")).flatten(),
            referrer: log.has_referrer.then(|| field(b"referer")).flatten(),
            status: None,
            bytes: 0,
            refused: None,
            is_cut: false,
        };
        let key = (origin.conn, origin.exchange);
        self.is_on.set(true);
        self.open.borrow_mut().insert(key, entry);
    }

    /// Whose a request is, by what trusted proxies tell.
    pub(crate) fn set_remote(&self, origin: &Origin) {
        let key = (origin.conn, origin.exchange);
        if let Some(entry) = self.open.borrow_mut().get_mut(&key) {
            entry.remote = origin.peer;
        } else if let Some(entry) = self.done.borrow_mut().last_mut() {
            // It was refused for its rate in between.
            entry.remote = origin.peer;
        }
    }

    /// An answer has been given, whole, or but for its body.
    #[inline]
    pub(crate) fn answered(
        &self,
        (conn, exchange): (ConnKey, Exchange),
        response: &Response<'_>,
        is_whole: bool,
    ) {
        if self.is_on.get() {
            self.note(conn, exchange, response, is_whole);
        }
    }

    #[cold]
    fn note(&self, conn: ConnKey, exchange: Exchange, response: &Response<'_>, is_whole: bool) {
        if let Some(entry) = self.open.borrow_mut().get_mut(&(conn, exchange)) {
            entry.status = Some(response.status);
            entry.add(response.body.len());
        }
        if is_whole {
            self.end(conn, exchange, false);
        }
    }

    /// As [`answered`](Self::answered), where a page of the server may have taken the body's place.
    pub(crate) fn answered_with_page(
        &self,
        (conn, exchange): (ConnKey, Exchange),
        response: &Response<'_>,
    ) {
        if !self.is_on.get() {
            return;
        }
        if let Some(entry) = self.open.borrow_mut().get_mut(&(conn, exchange)) {
            entry.status = Some(response.status);
            let page = entry.log.refusals.body_len(response.status);
            entry.add(page.unwrap_or(response.body.len()));
        }
        self.end(conn, exchange, false);
    }

    /// A piece of an answer's body has been queued.
    pub(crate) fn piece(&self, conn: ConnKey, exchange: Exchange, bytes: usize) {
        if self.is_on.get()
            && let Some(entry) = self.open.borrow_mut().get_mut(&(conn, exchange))
        {
            entry.add(bytes);
        }
    }

    /// An upgrade has been accepted.
    pub(crate) fn upgraded(&self, conn: ConnKey, exchange: Exchange) {
        if self.is_on.get() {
            if let Some(entry) = self.open.borrow_mut().get_mut(&(conn, exchange)) {
                entry.status = Some(101);
            }
            self.end(conn, exchange, false);
        }
    }

    /// An answer has come to its end, or was cut off.
    pub(crate) fn end(&self, conn: ConnKey, exchange: Exchange, is_cut: bool) {
        if self.is_on.get()
            && let Some(mut entry) = self.open.borrow_mut().remove(&(conn, exchange))
        {
            entry.took = Some(vm::clock() - entry.begun);
            entry.is_cut = is_cut;
            self.done.borrow_mut().push(entry);
        }
    }

    /// Core has refused a request, which a script may have been handed.
    pub(crate) fn refused(&self, worker: &Worker, conn: ConnKey, refusal: &Refusal) {
        let Some(exchange) = refusal.exchange else {
            return;
        };
        if let Some(entry) = self.open.borrow_mut().get_mut(&(conn, exchange)) {
            entry.status = refusal.status;
            entry.refused = Some(refusal.rule);
            entry.add(refusal.bytes);
        } else {
            return self.turned_away(worker, refusal);
        }
        self.end(conn, exchange, false);
    }

    /// A request was refused of which no script has heard, or a connection before it had one.
    pub(crate) fn turned_away(&self, worker: &Worker, refusal: &Refusal) {
        let server = worker.server(refusal.listener);
        let Some(log) = server.and_then(|server| server.log.clone()) else {
            return;
        };
        let mut words = refusal.line.splitn(3, |byte| *byte == b' ').map(clip);
        let (method, target) = (words.next(), words.next());
        self.is_on.set(true);
        self.done.borrow_mut().push(Entry {
            log,
            begun: vm::clock(),
            took: None,
            remote: refusal.peer,
            method: method.unwrap_or_default(),
            target: target.unwrap_or_default(),
            agent: None,
            referrer: None,
            status: refusal.status,
            bytes: refusal.bytes as u64,
            refused: Some(refusal.rule),
            is_cut: false,
        });
    }

    /// A connection has gone: what was not answered on it never will be.
    pub(crate) fn closed(&self, conn: ConnKey) {
        if !self.is_on.get() {
            return;
        }
        let open = self.open.borrow();
        let its = open.range((conn, Exchange(0))..=(conn, Exchange(u32::MAX)));
        let left: Vec<_> = its.map(|((_, exchange), _)| *exchange).collect();
        drop(open);
        for exchange in left {
            self.end(conn, exchange, true);
        }
    }

    /// Writes the lines of what has ended in this turn.
    #[inline]
    pub(crate) fn flush(&self, worker: &Worker) {
        if self.is_on.get() {
            self.write(worker);
        }
    }

    #[cold]
    fn write(&self, worker: &Worker) {
        let mut done = self.done.borrow_mut();
        if done.is_empty() {
            self.is_on.set(!self.open.borrow().is_empty());
            return;
        }
        let (now, wall) = (vm::clock(), worker.reactor.borrow().net().system_time());
        let index = worker.peers.own().index + 1;
        let mut last: Option<Rc<Log>> = None;
        let mut count = 0;
        for entry in done.drain(..) {
            if let Some(log) = last.take_if(|log| !Rc::ptr_eq(log, &entry.log)) {
                log.hand_over(worker, core::mem::take(&mut count));
            }
            let ago = Duration::try_from_secs_f64(now - entry.begun).unwrap_or_default();
            let at = wall.saturating_sub(ago);
            entry.print(&mut entry.log.lines.borrow_mut(), at, index);
            count += 1;
            last = Some(entry.log);
        }
        if let Some(log) = last {
            log.hand_over(worker, count);
        }
    }
}

impl Log {
    /// Reads the option `accessLog`: a path, `-`, false, or `{ path, agent, referrer }`. Without it
    /// the log is that of the command line.
    pub(crate) fn read(
        stack: &mut Stack<'_>,
        options: Options<'_>,
        refusals: &Refusals,
    ) -> Result<Option<Rc<Self>>, Raise> {
        let worker = stack.worker()?;
        let default = worker.access.default.as_ref();
        let mut place = default.map(|(place, _)| place.clone());
        let (mut has_agent, mut has_referrer) = (true, true);
        stack.push_field(options.index, c"accessLog");
        let at = stack.len();
        match (stack.kind(at), stack.boolean(at)) {
            (Kind::Nil, _) => {}
            (_, Some(false)) => place = None,
            (Kind::String, _) => {
                place = options.text(stack, c"accessLog")?;
            }
            (Kind::Table, _) => {
                let given = Options {
                    index: at,
                    owner: "net.serve: accessLog",
                };
                given.check_keys(stack, &["path", "agent", "referrer"])?;
                place = given.text(stack, c"path")?.or(place);
                has_agent = given.flag(stack, c"agent")?.unwrap_or(true);
                has_referrer = given.flag(stack, c"referrer")?.unwrap_or(true);
                if place.is_none() {
                    return Err(
                        given.error("option 'path', or \"-\" for standard output, is needed")
                    );
                }
            }
            _ => {
                let found = crate::value::describe(stack, at);
                return Err(options.error(format!(
                    "option 'accessLog' must be a path, \"-\" for standard output, a table or false, not {found}"
                )));
            }
        }
        stack.pop(1);
        let Some(place) = place else {
            return Ok(None);
        };
        let sink = Sink::open(&place).map_err(|error| {
            options.error(format!(
                "option 'accessLog': cannot open \"{}\": {}",
                place.escape_debug(),
                system_text(&error)
            ))
        })?;
        Ok(Some(Rc::new(Self {
            sink,
            has_agent,
            has_referrer,
            refusals: refusals.clone(),
            lines: RefCell::default(),
        })))
    }

    fn hand_over(&self, worker: &Worker, count: u64) {
        if !self.sink.write(&mut self.lines.borrow_mut()) {
            let dropped = &worker.peers.own().log_lines_dropped;
            dropped.set(dropped.value() + count);
        }
    }
}

/// Whether a request may go on to the script of `server`, as [`guards::admit`] says; if the server
/// has a log, it is told of.
pub(crate) fn admit(
    worker: &Worker,
    server: &ServerState,
    origin: &mut Origin,
    request: &Request<'_>,
) -> bool {
    let Some(log) = &server.log else {
        return guards::admit(worker, server, origin, request);
    };
    worker.access.begin(log, request, origin);
    let admits = guards::admit(worker, server, origin, request);
    worker.access.set_remote(origin);
    admits
}

/// Has all files of logs opened anew; false if there is none.
pub(crate) fn reopen_all(worker: &Worker) -> bool {
    let mut has_file = false;
    for log in worker
        .servers
        .borrow()
        .iter()
        .filter_map(|it| it.log.as_ref())
    {
        has_file |= log.sink.reopen();
    }
    has_file
}

impl Entry {
    /// Counts bytes of the body, which not every answer sends.
    fn add(&mut self, bytes: usize) {
        let has_body =
            self.method != b"HEAD" && !matches!(self.status, Some(100..=199 | 204 | 304));
        if has_body {
            self.bytes += bytes as u64;
        }
    }

    fn print(&self, line: &mut Vec<u8>, at: Duration, worker: u32) {
        // Writing to memory cannot fail.
        let _ = write!(line, "{{\"time\":\"{}\",\"remote\":", Time(at));
        match self.remote {
            Some(Peer::Ip(peer)) => {
                let _ = write!(line, "\"{}\"", peer.ip().to_canonical());
            }
            Some(Peer::Unix) => line.extend_from_slice(b"\"unix\""),
            None => line.extend_from_slice(b"null"),
        }
        for (name, text) in [("method", &self.method), ("target", &self.target)] {
            let _ = write!(line, ",\"{name}\":");
            match text.is_empty() {
                true => line.extend_from_slice(b"null"),
                false => quote(line, text),
            }
        }
        let _ = match self.status {
            Some(status) => write!(line, ",\"status\":{status}"),
            None => write!(line, ",\"status\":null"),
        };
        let _ = write!(line, ",\"bytes\":{},\"duration\":", self.bytes);
        let _ = match self.took {
            Some(took) => write!(line, "{:.6}", took.max(0.0)),
            None => write!(line, "null"),
        };
        let _ = write!(line, ",\"worker\":{worker}");
        for (name, text) in [("agent", &self.agent), ("referrer", &self.referrer)] {
            if let Some(text) = text {
                let _ = write!(line, ",\"{name}\":");
                quote(line, text);
            }
        }
        if let Some(rule) = self.refused {
            let _ = write!(line, ",\"refused\":\"{rule}\"");
        }
        if self.is_cut {
            line.extend_from_slice(b",\"cut\":true");
        }
        line.extend_from_slice(b"}\n");
    }
}

/// What a line has of `text`, before it is known where its characters end.
fn clip(text: &[u8]) -> Vec<u8> {
    text[..text.len().min(TEXT_BYTES_MAX + 1)].to_vec()
}

/// Writes `text` as a string of JSON that no terminal acts on. RFC 8259 §7.
fn quote(line: &mut Vec<u8>, text: &[u8]) {
    let is_cut = text.len() > TEXT_BYTES_MAX;
    let mut text = &text[..text.len().min(TEXT_BYTES_MAX)];
    if is_cut {
        // Not within a character.
        let whole = text.iter().rposition(|byte| byte & 0xc0 != 0x80);
        text = &text[..whole.unwrap_or(0)];
    }
    line.push(b'"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
                // Controls, line ends of Unicode, and what turns text around.
                '\0'..='\x1f'
                | '\x7f'..='\u{9f}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}' => {
                    let _ = write!(line, "\\u{:04x}", u32::from(character));
                }
                _ => {
                    let mut utf8 = [0; 4];
                    line.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\u{byte:04x}");
        }
    }
    if is_cut {
        line.extend_from_slice("…".as_bytes());
    }
    line.push(b'"');
}

/// A time since 1970, as `2026-11-21T18:15:50.123Z`. RFC 3339 §5.6.
struct Time(Duration);

impl core::fmt::Display for Time {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = hukilau_core::date::calendar_day(seconds);
        let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
        let (second, millis) = (seconds % 60, self.0.subsec_millis());
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

#[cfg(test)]
mod tests;
