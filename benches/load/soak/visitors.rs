//! Who visits the server during a soak: each kind connects, uses one side of it, judges every answer, and
//! leaves.
//!
//! A visit is short, so that what a connection leaves behind shows; and gentle, for it is the length of a
//! soak that finds things, not its load.
//!
//! Invariants
//! - A visit returns the right answers it got, or what was wrong.
//!
//! Not here: how often, and what the server uses meanwhile (`mod.rs`).

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::wire::{Answer, Wire};
use super::{Halt, rest};

/// Where to, and how.
pub(super) struct Place {
    pub(super) plain: u16,
    pub(super) tls: u16,
    pub(super) settings: Arc<ClientConfig>,
}

/// One kind of visitor.
pub(super) struct Visitor {
    pub(super) name: &'static str,
    /// How many of them there are at a time.
    pub(super) at_once: usize,
    pub(super) visit: fn(&Place, &Halt) -> Result<u64, String>,
}

pub(super) const VISITORS: [Visitor; 8] = [
    Visitor {
        name: "http",
        at_once: 3,
        visit: http,
    },
    Visitor {
        name: "websocket",
        at_once: 3,
        visit: websocket,
    },
    Visitor {
        name: "room",
        at_once: 1,
        visit: room,
    },
    Visitor {
        name: "tls",
        at_once: 2,
        visit: tls,
    },
    Visitor {
        name: "churn",
        at_once: 2,
        visit: churn,
    },
    Visitor {
        name: "rude",
        at_once: 1,
        visit: rude,
    },
    Visitor {
        name: "slow",
        at_once: 2,
        visit: slow,
    },
    Visitor {
        name: "errors",
        at_once: 1,
        visit: errors,
    },
];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// First bytes of frames: FIN or not, and the opcode (RFC 6455 §5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn expect(answer: &Answer, status: u16, body: &[u8]) -> Result<(), String> {
    if answer.status == status && answer.body == body {
        return Ok(());
    }
    Err(format!(
        "expected {status} with {} bytes, got {} with {}: {:?}",
        body.len(),
        answer.status,
        answer.body.len(),
        String::from_utf8_lossy(&answer.body[..answer.body.len().min(100)])
    ))
}

/// Every page over one connection, and pipelined requests.
fn http(place: &Place, halt: &Halt) -> Result<u64, String> {
    let mut wire = Wire::open(place.plain, None)?;
    let body: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    let mut answers = 0;
    for _ in 0..10 {
        expect(&wire.get("/")?, 200, b"Hello, World!")?;
        expect(&wire.get("/wait")?, 200, b"waited")?;
        expect(&wire.get("/nowhere")?, 404, b"not here")?;
        expect(&wire.post("/body", &body)?, 200, &body)?;
        expect(
            &wire.post("/sum", br#"{"numbers":[1,2,3.5,-4,1e2]}"#)?,
            200,
            br#"{"sum":102.5}"#,
        )?;
        wire.send(&GET.repeat(16))?;
        for _ in 0..16 {
            expect(&wire.answer()?, 200, b"Hello, World!")?;
        }
        answers += 21;
        if halt.is_set() {
            break;
        }
    }
    Ok(answers)
}

/// Messages of all lengths, whole and in fragments with a ping between, and a proper end.
fn websocket(place: &Place, _: &Halt) -> Result<u64, String> {
    let mut wire = Wire::upgrade(place.plain)?;
    let mut answers = 0;
    for len in [0, 1, 125, 126, 1000, 65_535, 65_536, 100_000] {
        let payload = vec![b'x'; len];
        for first_byte in [TEXT, BINARY] {
            wire.send_frame(first_byte, &payload)?;
            expect_frame(&mut wire, first_byte, &payload)?;
        }
        let (front, back) = payload.split_at(len / 2);
        wire.send_frame(BINARY_BEGINS, front)?;
        wire.send_frame(PING, b"there?")?;
        wire.send_frame(GOES_ON, back)?;
        wire.send_frame(ENDS, b"")?;
        expect_frame(&mut wire, PONG, b"there?")?;
        expect_frame(&mut wire, BINARY, &payload)?;
        answers += 4;
    }
    wire.send_frame(CLOSE, &1000_u16.to_be_bytes())?;
    expect_frame(&mut wire, CLOSE, &1000_u16.to_be_bytes())?;
    if !wire.is_at_end()? {
        return Err("bytes behind the close frame".to_owned());
    }
    Ok(answers)
}

/// The next frame that is not said to all: every socket is in the room.
fn expect_frame(wire: &mut Wire, first_byte: u8, payload: &[u8]) -> Result<(), String> {
    loop {
        let (got, bytes) = wire.frame()?;
        if got == TEXT && bytes.starts_with(b"all:") {
            continue;
        }
        if (got, bytes.as_slice()) == (first_byte, payload) {
            return Ok(());
        }
        return Err(format!(
            "expected a frame {first_byte:#x} of {} bytes, got {got:#x} of {}",
            payload.len(),
            bytes.len()
        ));
    }
}

/// Two who hear what one of them says, in order.
fn room(place: &Place, _: &Halt) -> Result<u64, String> {
    let mut speaker = Wire::upgrade(place.plain)?;
    let mut listener = Wire::upgrade(place.plain)?;
    // Whoever has been echoed is subscribed.
    for wire in [&mut speaker, &mut listener] {
        wire.send_frame(TEXT, b"here?")?;
        expect_frame(wire, TEXT, b"here?")?;
    }
    for number in 0..50 {
        let message = format!("all:{number}:{}", "x".repeat(4000));
        speaker.send_frame(TEXT, message.as_bytes())?;
        for wire in [&mut speaker, &mut listener] {
            let (first_byte, bytes) = wire.frame()?;
            if first_byte != TEXT || bytes != message.as_bytes() {
                return Err(format!(
                    "message {number} of a room did not arrive in its turn"
                ));
            }
        }
    }
    Ok(102)
}

/// A handshake, requests, and an end without `close_notify`.
fn tls(place: &Place, _: &Halt) -> Result<u64, String> {
    let mut wire = Wire::open(place.tls, Some(&place.settings))?;
    let body = vec![b'y'; 40_000];
    for _ in 0..10 {
        expect(&wire.get("/")?, 200, b"Hello, World!")?;
        expect(&wire.post("/body", &body)?, 200, &body)?;
    }
    Ok(20)
}

fn churn(place: &Place, _: &Halt) -> Result<u64, String> {
    for _ in 0..20 {
        let mut wire = Wire::open(place.plain, None)?;
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        expect(&wire.answer()?, 200, b"Hello, World!")?;
        if !wire.is_at_end()? {
            return Err("bytes behind the last answer".to_owned());
        }
    }
    Ok(20)
}

/// Leaves in the midst of everything, sends what is wrong, and asks properly at the end.
fn rude(place: &Place, _: &Halt) -> Result<u64, String> {
    Wire::open(place.plain, None)?.send(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Le")?;
    Wire::open(place.plain, None)?
        .send(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")?;
    Wire::open(place.plain, None)?.send(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    Wire::open(place.plain, None)?.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    // Half a record of TLS.
    Wire::open(place.tls, None)?.send(b"\x16\x03\x01\x02\x00\x01")?;
    // Half a frame, and a frame without mask.
    Wire::upgrade(place.plain)?.send(b"\x82\xfe\x10")?;
    let mut unmasked = Wire::upgrade(place.plain)?;
    unmasked.send(b"\x81\x02hi")?;
    expect_close(&mut unmasked, 1002)?;
    let mut wrong = Wire::open(place.plain, None)?;
    wrong.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")?;
    let refusal = wrong.answer()?;
    if refusal.status != 400 {
        return Err(format!("two hosts were answered with {}", refusal.status));
    }
    Ok(2)
}

fn expect_close(wire: &mut Wire, code: u16) -> Result<(), String> {
    loop {
        let (first_byte, bytes) = wire.frame()?;
        if first_byte == TEXT {
            continue;
        }
        if first_byte == CLOSE && bytes.starts_with(&code.to_be_bytes()) {
            return Ok(());
        }
        return Err(format!(
            "expected to be closed with {code}, got {first_byte:#x}"
        ));
    }
}

/// Heads that never end, answers and messages that nobody reads for a while.
fn slow(place: &Place, halt: &Halt) -> Result<u64, String> {
    let open = || Wire::open(place.plain, None);
    let mut heads: Vec<Wire> = (0..16).map(|_| open()).collect::<Result<_, _>>()?;
    let mut readers: Vec<Wire> = (0..8).map(|_| open()).collect::<Result<_, _>>()?;
    // They hear the room and never read; the server may close them for it.
    let deaf: Vec<Wire> = (0..8)
        .map(|_| Wire::upgrade(place.plain))
        .collect::<Result<_, _>>()?;
    for wire in &mut heads {
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")?;
    }
    for wire in &mut readers {
        wire.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    }
    // Less than a head may take.
    for _ in 0..5 {
        rest(Duration::from_secs(1));
        for wire in &mut heads {
            wire.send(b"x")?;
        }
        if halt.is_set() {
            break;
        }
    }
    let expected = b"0123456789abcdef".repeat(16 * 4096);
    for wire in &mut readers {
        expect(&wire.answer()?, 200, &expected)?;
    }
    let (patient, hasty) = heads.split_at_mut(8);
    for wire in hasty {
        wire.send(b"\r\n\r\n")?;
        expect(&wire.answer()?, 200, b"Hello, World!")?;
    }
    for wire in patient {
        let late = wire.answer()?;
        if late.status != 408 {
            return Err(format!("an endless head was answered with {}", late.status));
        }
    }
    drop(deaf);
    Ok(24)
}

/// Handlers that raise, and answers behind them as if nothing had been.
fn errors(place: &Place, _: &Halt) -> Result<u64, String> {
    let mut wire = Wire::open(place.plain, None)?;
    for _ in 0..10 {
        let failed = wire.get("/error")?;
        if failed.status != 500 {
            return Err(format!("an error was answered with {}", failed.status));
        }
        expect(&wire.get("/")?, 200, b"Hello, World!")?;
    }
    let mut socket = Wire::upgrade(place.plain)?;
    for _ in 0..10 {
        socket.send_frame(TEXT, b"error")?;
        socket.send_frame(TEXT, b"still there?")?;
        expect_frame(&mut socket, TEXT, b"still there?")?;
    }
    Ok(30)
}
