//! The floor: what the kernel alone costs. A minimal single-threaded epoll server.
//!
//! It is deliberately no server: it believes every client, knows only the harness's requests, and
//! does the least that gives the right bytes. One `recv` per readiness, one `send` for everything
//! that arrived, a fixed head. What another peer costs beyond it is that peer's own work.
//!
//! - `GET`: counts `CRLF CRLF` (so pipelining is answered) and sends as many copies of the answer.
//! - `POST`: finds the end of the head, skips to the field's known place, answers with its bytes;
//!   nothing is parsed.
//! - WebSocket: after a handshake, unmasks in place and echoes whatever part of a frame has come
//!   (`floor_echo.rs`). In mode `room` that goes to every WebSocket, in one `send` for each.
//! - In mode `once` it closes behind its answer.
//!
//! Invariants
//! - A connection with unsent bytes is not read from until they are gone.
//!
//! Not here: limits, timeouts, refusals.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use memchr::memmem;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::floor_echo::{EchoStream, HEADROOM};
use super::{Mode, Setup};
use crate::client::accept_key;
use crate::workload::{FIELD_AT, FIELD_LEN, HELLO, json_body};

/// Token of the listener; connections count from 0.
const LISTENER: u64 = u64::MAX;

/// Bytes of the one area that every connection is read into.
const AREA_BYTES: usize = 256 * 1024;

/// Events taken from the kernel at once.
const EVENTS: usize = 512;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

struct Connection {
    socket: OwnedFd,
    speaks: Speaks,
    /// An incomplete request (HTTP only).
    rest: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

enum Speaks {
    Http,
    WebSocket(EchoStream),
}

struct Floor {
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    hello: Vec<u8>,
    field_head: Vec<u8>,
    mode: Mode,
}

/// Serves until the process is ended.
pub(super) fn serve(setup: &Setup) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    super::announce(listener.local_addr()?.port())?;
    let mut floor = Floor {
        epoll,
        connections: Vec::new(),
        hello: [answer_head(HELLO.len()), HELLO.as_bytes().to_vec()].concat(),
        field_head: answer_head(FIELD_LEN),
        mode: setup.mode,
    };
    let mut area = vec![0; AREA_BYTES];
    let mut out = Vec::with_capacity(AREA_BYTES);
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(
            &floor.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match usize::try_from(event.data.u64()) {
                Ok(index) if index < floor.connections.len() => {
                    floor.handle(index, &mut area, &mut out)?
                }
                _ => floor.accept(&listener)?,
            }
        }
    }
}

/// The head that all peers give: the same fields and the same length.
fn answer_head(content_length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {content_length}\r\n\
         Date: Sat, 21 Nov 2026 09:00:00 GMT\r\n\r\n"
    )
    .into_bytes()
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let socket = match rustix::net::accept_with(
                listener,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
            let vacant = self.connections.iter().position(Option::is_none);
            let index = vacant.unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &socket, token, epoll::EventFlags::IN)?;
            self.connections[index] = Some(Connection {
                socket,
                speaks: Speaks::Http,
                rest: Vec::new(),
                unsent: Vec::new(),
            });
        }
    }

    /// One readiness of one connection: what is left to send, or what there is to read.
    fn handle(&mut self, index: usize, area: &mut [u8], out: &mut Vec<u8>) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        out.clear();
        let was_blocked = !connection.unsent.is_empty();
        let is_message = connection.is_websocket() && !was_blocked;
        let answer = if was_blocked {
            out.append(&mut connection.unsent);
            out.as_slice()
        } else {
            match rustix::net::recv(
                &connection.socket,
                &mut area[HEADROOM..],
                RecvFlags::empty(),
            ) {
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    self.connections[index] = None;
                    return Ok(());
                }
                Ok((got, _)) => {
                    connection.answer(area, HEADROOM + got, (&self.hello, &self.field_head), out)?
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        if answer.is_empty() {
            return Ok(());
        }
        if self.mode == Mode::Room && is_message {
            return send_to_all(&self.epoll, &mut self.connections, answer);
        }
        let goes_on = connection.send(&self.epoll, index, answer, was_blocked)?;
        let is_done = self.mode == Mode::Once && connection.unsent.is_empty();
        if is_done || !goes_on {
            self.connections[index] = None;
        }
        Ok(())
    }
}

/// Sends `frames` to every WebSocket. What one of them has not taken yet goes first.
fn send_to_all(
    epoll: &OwnedFd,
    connections: &mut [Option<Connection>],
    frames: &[u8],
) -> io::Result<()> {
    for (index, place) in connections.iter_mut().enumerate() {
        let Some(connection) = place.as_mut().filter(|one| one.is_websocket()) else {
            continue;
        };
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(frames);
        } else if !connection.send(epoll, index, frames, false)? {
            *place = None;
        }
    }
    Ok(())
}

/// The whole answer to `GET /`, and the head of the answer to a POST.
type Fixed<'a> = (&'a [u8], &'a [u8]);

impl Connection {
    /// Whether it has upgraded.
    fn is_websocket(&self) -> bool {
        matches!(self.speaks, Speaks::WebSocket(_))
    }

    /// Sends what the socket takes and keeps the rest, asking epoll for room; `was_blocked` says
    /// that it has been asked already. False if the peer has gone.
    fn send(
        &mut self,
        epoll: &OwnedFd,
        index: usize,
        answer: &[u8],
        was_blocked: bool,
    ) -> io::Result<bool> {
        let sent = match rustix::net::send(&self.socket, answer, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.unsent.extend_from_slice(&answer[sent..]);
        let is_blocked = !self.unsent.is_empty();
        if is_blocked != was_blocked {
            let interest = if is_blocked {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let token = epoll::EventData::new_u64(index as u64);
            epoll::modify(epoll, &self.socket, token, interest)?;
        }
        Ok(true)
    }

    /// The answer to `area[HEADROOM..end]`: in `area` where that is the input transformed, else in
    /// `out`.
    fn answer<'a>(
        &mut self,
        area: &'a mut [u8],
        end: usize,
        fixed: Fixed<'_>,
        out: &'a mut Vec<u8>,
    ) -> io::Result<&'a [u8]> {
        if let Speaks::WebSocket(stream) = &mut self.speaks {
            let echo = stream.echo(area, end);
            return Ok(&area[echo]);
        }
        let fresh = &area[HEADROOM..end];
        if self.rest.is_empty() {
            let consumed = self.answer_http(fresh, fixed, out)?;
            self.rest.extend_from_slice(&fresh[consumed..]);
        } else {
            let mut input = std::mem::take(&mut self.rest);
            input.extend_from_slice(fresh);
            let consumed = self.answer_http(&input, fixed, out)?;
            input.drain(..consumed);
            self.rest = input;
        }
        Ok(out)
    }

    /// Answers the whole requests at the front of `input` and returns the bytes they take.
    fn answer_http(
        &mut self,
        input: &[u8],
        (hello, field_head): Fixed<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut at = 0;
        while let Some(head_len) = memmem::find(&input[at..], END_OF_HEAD) {
            let body_at = at + head_len + END_OF_HEAD.len();
            match &input[at..at + 5] {
                b"GET /" if input[at + 5] == b' ' => {
                    out.extend_from_slice(hello);
                    at = body_at;
                }
                b"POST " => {
                    let body_end = body_at + json_len();
                    let Some(body) = input.get(body_at..body_end) else {
                        return Ok(at);
                    };
                    out.extend_from_slice(field_head);
                    out.extend_from_slice(&body[FIELD_AT..FIELD_AT + FIELD_LEN]);
                    at = body_end;
                }
                _ => {
                    write_handshake(&input[at..body_at], out)?;
                    self.speaks = Speaks::WebSocket(EchoStream::default());
                    at = body_at;
                }
            }
        }
        Ok(at)
    }
}

/// Length of the only document that is ever posted.
fn json_len() -> usize {
    static LEN: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *LEN.get_or_init(|| json_body().len())
}

/// Answers an upgrade (RFC 6455 §4.2.2) whose key stands where the generator puts it.
fn write_handshake(head: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let field = b"Sec-WebSocket-Key: ";
    let key = memmem::find(head, field)
        .and_then(|at| head.get(at + field.len()..at + field.len() + 24))
        .and_then(|key| std::str::from_utf8(key).ok())
        .ok_or_else(|| io::Error::other("the request is neither GET /, POST nor an upgrade"))?;
    let accept = accept_key(key);
    write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}
