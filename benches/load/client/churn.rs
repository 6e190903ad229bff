//! Connections that last for one request: connect, GET with `Connection: close`, read to the end.
//!
//! The server ends the connection, as the request asks: so the ports of ended connections wait on its side,
//! where a new connection may take them over, and the generator never runs out of them.
//!
//! Invariants
//! - An answer counts when it is right and the connection has ended behind it, without another byte.
//!
//! Not here: connections that stay (`mod.rs`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;

use super::http::Http;
use super::{Dialect as _, STALL, Tally, stream};
use crate::measure::clock;

/// Bytes of the area that all connections read into.
const AREA_BYTES: usize = 16 * 1024;

/// So many connections at a time, each followed by another.
pub(crate) struct Churn {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    port: u16,
    places: Vec<Option<Open>>,
    area: Vec<u8>,
    dialect: Http,
}

struct Open {
    socket: TcpStream,
    answer: Vec<u8>,
}

impl Churn {
    pub(crate) fn new(port: u16, at_once: usize) -> Result<Self, String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| format!("epoll_create: {error}"))?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(at_once),
            port,
            places: (0..at_once).map(|_| None).collect(),
            area: vec![0; AREA_BYTES],
            dialect: Http::get_once(),
        })
    }

    /// Opens and ends connections for `duration`, then waits for the ends of the last ones.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Tally, String> {
        let started = clock::now();
        let mut answers = 0;
        let mut open = self.places.len();
        for place in 0..self.places.len() {
            self.open(place)?;
        }
        while open > 0 {
            self.events.clear();
            let spare = rustix::buffer::spare_capacity(&mut self.events);
            epoll::wait(&self.epoll, spare, Some(&STALL))
                .map_err(|error| format!("epoll_wait: {error}"))?;
            if self.events.is_empty() {
                return Err(format!(
                    "{open} connections neither answered nor ended for {} s",
                    STALL.tv_sec
                ));
            }
            let is_time_up = started.elapsed() >= duration;
            for event in 0..self.events.len() {
                let place = usize::try_from(self.events[event].data.u64())
                    .map_err(|_| "epoll gave a token that nobody registered")?;
                if !self.read(place)? {
                    continue;
                }
                answers += 1;
                if is_time_up {
                    open -= 1;
                } else {
                    self.open(place)?;
                }
            }
        }
        Ok(Tally {
            answers,
            wall: started.elapsed(),
        })
    }

    fn open(&mut self, place: usize) -> Result<(), String> {
        let mut socket =
            stream::connect(self.port, 0).map_err(|error| format!("connect: {error}"))?;
        socket
            .write_all(self.dialect.greeting())
            .map_err(|error| format!("write: {error}"))?;
        let token = epoll::EventData::new_u64(place as u64);
        socket
            .set_nonblocking(true)
            .and_then(|()| {
                Ok(epoll::add(
                    &self.epoll,
                    &socket,
                    token,
                    epoll::EventFlags::IN,
                )?)
            })
            .map_err(|error| format!("epoll_ctl: {error}"))?;
        self.places[place] = Some(Open {
            socket,
            answer: Vec::new(),
        });
        Ok(())
    }

    /// Reads what is there; true once the answer was right and the connection has ended.
    fn read(&mut self, place: usize) -> Result<bool, String> {
        let Some(open) = &mut self.places[place] else {
            return Ok(false);
        };
        loop {
            match open.socket.read(&mut self.area) {
                Ok(0) => break,
                Ok(got) => open.answer.extend_from_slice(&self.area[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        let answer = &open.answer;
        if self.dialect.check_answer(answer)? != Some(answer.len()) {
            return Err(format!(
                "the connection ended with {} bytes that are not one answer",
                answer.len()
            ));
        }
        self.places[place] = None;
        Ok(true)
    }
}
