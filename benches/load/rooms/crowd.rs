//! The members of all rooms: sockets that only listen, and count what they hear.
//!
//! Invariants
//! - The tick of each snapshot is the one after the socket's last; anything else is an error.
//! - Frames are whole, unfragmented and binary (RFC 6455 §5.2); each is read to its last byte.
//! - Rooms are silent until all have joined: a join is not timed.
//!
//! Not here: what is done with the figures (`mod.rs`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::client::latency::Histogram;
use crate::measure::clock;

/// Bytes of the area that all sockets read into.
const AREA_BYTES: usize = 64 * 1024;

/// Longest silence of a server that owes a tick.
const STALL: Duration = Duration::from_secs(5);

/// First bytes of whole frames (RFC 6455 §5.2).
const SNAPSHOT: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// An empty message, masked with zeros.
const BEGIN: &[u8] = b"\x82\x80\0\0\0\0";

/// What a crowd has heard.
pub(super) struct Heard {
    pub(super) deliveries: u64,
    pub(super) latencies: Histogram,
}

impl Heard {
    fn none() -> Self {
        Self {
            deliveries: 0,
            latencies: Histogram::new(),
        }
    }
}

/// All sockets.
pub(super) struct Crowd {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    area: Vec<u8>,
    members: Vec<Member>,
    /// Sockets of a room.
    room: usize,
    heard: Heard,
}

struct Member {
    socket: TcpStream,
    /// The tick it heard last; none before the first.
    tick: Option<u32>,
    /// The front of an incomplete frame.
    rest: Vec<u8>,
}

impl Crowd {
    /// Opens `sockets` WebSockets, `room` of them in each room.
    pub(super) fn join(port: u16, sockets: u32, room: u32) -> Result<Self, String> {
        let mut crowd = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .map_err(|error| format!("epoll_create: {error}"))?,
            events: Vec::with_capacity(4096),
            area: vec![0; AREA_BYTES],
            members: Vec::new(),
            room: room as usize,
            heard: Heard::none(),
        };
        for number in 0..sockets {
            let member =
                open(port, number / room).map_err(|error| format!("socket {number}: {error}"))?;
            let token = epoll::EventData::new_u64(crowd.members.len() as u64);
            epoll::add(&crowd.epoll, &member.socket, token, epoll::EventFlags::IN)
                .map_err(|error| format!("epoll_ctl: {error}"))?;
            crowd.members.push(member);
        }
        Ok(crowd)
    }

    /// Has the first member of each room say that it may begin.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        for members in self.members.chunks_mut(self.room) {
            if let Some(first) = members.first_mut() {
                let begun = first.socket.write_all(BEGIN);
                begun.map_err(|error| format!("begin: {error}"))?;
            }
        }
        Ok(())
    }

    /// Hears what comes for so long.
    pub(super) fn listen(&mut self, long: Duration) -> Result<(), String> {
        let end = clock::monotonic() + long;
        loop {
            let left = end.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left.min(STALL))?;
        }
    }

    /// What was heard since the last time.
    pub(super) fn take(&mut self) -> Heard {
        std::mem::replace(&mut self.heard, Heard::none())
    }

    /// Hears on until each socket has heard all that any in its room has, and tells what was heard before.
    pub(super) fn finish(mut self) -> Result<Heard, String> {
        let rooms = self.members.chunks(self.room);
        let wanted: Vec<Option<u32>> = rooms
            .map(|members| members.iter().filter_map(|member| member.tick).max())
            .collect();
        if wanted.contains(&None) {
            return Err("a room was never told anything".to_owned());
        }
        let heard = self.take();
        let give_up = clock::monotonic() + STALL;
        loop {
            let is_behind =
                |(number, member): (usize, &Member)| member.tick < wanted[number / self.room];
            let behind = self
                .members
                .iter()
                .enumerate()
                .filter(|&each| is_behind(each))
                .count();
            if behind == 0 {
                return Ok(heard);
            }
            if clock::monotonic() > give_up {
                return Err(format!(
                    "{behind} sockets have not heard what others in their room have"
                ));
            }
            self.turn(Duration::from_millis(10))?;
        }
    }

    /// Waits for `most` at most and reads what there is.
    fn turn(&mut self, most: Duration) -> Result<(), String> {
        let most = Timespec::try_from(most).map_err(|_| "a wait out of range")?;
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&most),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("epoll_wait: {error}")),
        }
        for event in &self.events {
            let number = usize::try_from(event.data.u64())
                .map_err(|_| "epoll gave a token that nobody registered")?;
            self.members[number]
                .read(&mut self.area, &mut self.heard)
                .map_err(|error| format!("socket {number}: {error}"))?;
        }
        Ok(())
    }
}

impl Member {
    /// Reads once.
    fn read(&mut self, area: &mut [u8], heard: &mut Heard) -> Result<(), String> {
        let got = match self.socket.read(area) {
            Ok(0) => return Err("the server closed it".to_owned()),
            Ok(got) => got,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let now = clock::monotonic();
        if self.rest.is_empty() {
            let used = self.hear(&area[..got], now, heard)?;
            self.rest.extend_from_slice(&area[used..got]);
        } else {
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(&area[..got]);
            let used = self.hear(&bytes, now, heard)?;
            bytes.drain(..used);
            self.rest = bytes;
        }
        Ok(())
    }

    /// Takes the whole frames at the front of `bytes`; how many bytes that were.
    fn hear(&mut self, bytes: &[u8], now: Duration, heard: &mut Heard) -> Result<usize, String> {
        let mut used = 0;
        while let Some((opcode, payload, len)) = frame(&bytes[used..])? {
            used += len;
            if opcode == PING {
                self.pong(payload)?;
                continue;
            }
            let (tick, made) = snapshot(payload).ok_or("a snapshot that is too short")?;
            if self
                .tick
                .is_some_and(|last| last.checked_add(1) != Some(tick))
            {
                return Err(format!("tick {tick} after {:?}", self.tick));
            }
            self.tick = Some(tick);
            heard.deliveries += 1;
            heard.latencies.record(now.saturating_sub(made));
        }
        Ok(used)
    }

    /// Answers a ping (RFC 6455 §5.5.3); its payload is below 126 bytes, and masked with zeros.
    fn pong(&mut self, payload: &[u8]) -> Result<(), String> {
        let len = u8::try_from(payload.len()).map_err(|_| "a ping that is too long")?;
        let frame = [&[PONG, 0x80 | len, 0, 0, 0, 0], payload].concat();
        // So few bytes fit, unless the server has stopped reading.
        self.socket
            .write_all(&frame)
            .map_err(|error| format!("pong: {error}"))
    }
}

/// A whole frame: its first byte, its payload, and the bytes it takes.
type Frame<'a> = (u8, &'a [u8], usize);

/// The frame at the front, a snapshot or a ping; `None` while it is incomplete.
fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let &[first, short, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if ![SNAPSHOT, PING].contains(&first) {
        return Err(format!("a frame that begins with {first:#04x}"));
    }
    let (head, len) = match (short, rest) {
        (0..126, _) => (2, usize::from(short)),
        (126, &[high, low, ..]) => (4, usize::from(u16::from_be_bytes([high, low]))),
        (126, _) => return Ok(None),
        _ => return Err(format!("a length byte of {short:#04x}")),
    };
    Ok(bytes
        .get(head..head + len)
        .map(|payload| (first, payload, head + len)))
}

/// Tick and time of a snapshot.
fn snapshot(payload: &[u8]) -> Option<(u32, Duration)> {
    let (tick, rest) = payload.split_first_chunk()?;
    let seconds = f64::from_le_bytes(*rest.first_chunk()?);
    let made = Duration::try_from_secs_f64(seconds).ok()?;
    Some((u32::from_le_bytes(*tick), made))
}

/// Opens the WebSocket of one member, blocking, and makes it non-blocking.
fn open(port: u16, room: u32) -> Result<Member, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    let rest = shake_hands(&mut socket, room)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Member {
        socket,
        tick: None,
        rest,
    })
}

/// Makes a connection a WebSocket in that room. Snapshots may be right behind the handshake: what was read of them.
pub(super) fn shake_hands(socket: &mut TcpStream, room: u32) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    socket.set_nodelay(true).map_err(failed)?;
    socket.set_read_timeout(Some(STALL)).map_err(failed)?;
    let request = format!(
        "GET /{room} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut piece = [0; 2048];
    let end = loop {
        match socket.read(&mut piece).map_err(failed)? {
            0 => return Err("the server closed it at the handshake".to_owned()),
            got => bytes.extend_from_slice(&piece[..got]),
        }
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
    };
    if !bytes.starts_with(b"HTTP/1.1 101 ") {
        return Err(format!("the answer is not 101: {}", bytes.escape_ascii()));
    }
    bytes.drain(..end);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_none_until_its_last_byte() {
        let whole = [&[0x82, 126, 1, 0][..], &[7; 256], &[0x82]].concat();
        for cut in 0..260 {
            assert_eq!(frame(&whole[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(frame(&whole), Ok(Some((0x82, &[7; 256][..], 260))));
        assert_eq!(frame(&[0x82, 1, 9]), Ok(Some((0x82, &[9][..], 3))));
        assert!(frame(&[0x81, 1, 9]).is_err());
        assert!(frame(&[0x82, 127, 9]).is_err());
    }

    #[test]
    fn a_snapshot_is_a_tick_and_a_time() {
        let bytes = [&7_u32.to_le_bytes()[..], &1.5_f64.to_le_bytes(), &[0; 8]].concat();
        assert_eq!(snapshot(&bytes), Some((7, Duration::from_millis(1500))));
        assert_eq!(snapshot(&bytes[..11]), None);
    }
}
