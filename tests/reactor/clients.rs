//! The peers of a simulation: what they send, and what they must have got in the end.
//!
//! Sits beside `app.rs`, whose answers are functions of the request, and reads what was received
//! by parsing it anew, slowly and by itself.
//!
//! - Honest clients ask, wait, pipeline, upgrade, and leave by every way that is allowed.
//! - Refused ones break a rule, and must be told so though they go on sending.
//! - Hostile ones dawdle, stop or vanish; of them it is asked only that they are got rid of.
//!
//! Not here: the network between (`sim.rs`).

use crate::sim::{Dice, Script, Step};
use std::time::Duration;

/// A peer and what is expected for it.
pub(super) struct Client {
    pub(super) script: Script,
    pub(super) expects: Expects,
}

/// What a peer must have received if the network let it.
pub(super) enum Expects {
    /// These answers, in order, and nothing else.
    Answers(Vec<Expected>),
    /// A 101, these messages (opcode and payload), and an answer to its close frame.
    Echoes(Vec<(u8, Vec<u8>)>),
    /// One answer with this status, and the end.
    Refusal(&'static str),
    /// Nothing in particular.
    End,
}

/// One answer.
pub(super) struct Expected {
    tag: String,
    body: Vec<u8>,
    is_head: bool,
}

/// The body that `/bytes` and `/stream` answer with: `len` bytes and a mark to know its end by.
pub(super) fn body_for(tag: &str, len: usize) -> Vec<u8> {
    let filler = (0..len).map(|at| b'a' + (at % 23).to_le_bytes()[0]);
    filler.chain(mark(tag)).collect()
}

fn mark(tag: &str) -> Vec<u8> {
    format!("<{tag}>").into_bytes()
}

/// A client that keeps all the rules.
pub(super) fn honest(number: usize, dice: &mut Dice) -> Client {
    match dice.below(6) {
        0 | 1 => websocket(number, dice),
        2 => burst(number),
        _ => http(number, dice),
    }
}

fn http(number: usize, dice: &mut Dice) -> Client {
    let (mut steps, mut expects) = (Vec::new(), Vec::new());
    let count = dice.up_to(7);
    let pipelines = dice.chance(500);
    let mut last_text = Vec::new();
    for exchange in 0..count {
        let is_last = exchange + 1 == count;
        let tag = format!("c{number}r{exchange}");
        let connection = if is_last && dice.chance(300) {
            "Connection: close\r\n"
        } else {
            ""
        };
        let len = [0, 1, 100, 5_000, 40_000][dice.below(5)];
        let (kind, is_head) = match dice.below(5) {
            0 => ("stream", false),
            1 if !is_last => ("bytes", true),
            2 | 3 => ("echo", false),
            _ => ("bytes", false),
        };
        let mut text = mark(&tag);
        let body = body_for(&tag, len);
        let request = match kind {
            "echo" => post(&tag, &body, connection, dice),
            kind => {
                let method = if is_head { "HEAD" } else { "GET" };
                let line = format!("{method} /{kind}/{tag}/{len} HTTP/1.1\r\nHost: sim\r\n");
                format!("{line}{connection}\r\n").into_bytes()
            }
        };
        if kind == "stream" {
            text.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        if is_head {
            text = format!("Tag: {tag}\r\n").into_bytes();
        }
        steps.push(Step::Send(request));
        if !pipelines {
            steps.push(Step::AwaitText(text.clone()));
            steps.push(Step::Pause(dice.within(Duration::from_secs(1))));
        }
        last_text = text;
        expects.push(Expected { tag, body, is_head });
    }
    match dice.below(3) {
        // Finishes at once, and still waits for what it asked.
        0 => steps.push(Step::HalfClose),
        1 => steps.extend([Step::AwaitText(last_text), Step::Close]),
        // Stays until we are tired of it.
        _ => {}
    }
    Client {
        script: Script::new(steps),
        expects: Expects::Answers(expects),
    }
}

/// More requests at once than may be in flight, and the end right behind them.
fn burst(number: usize) -> Client {
    let tags = (0..12).map(|exchange| format!("b{number}r{exchange}"));
    let asked: Vec<_> = tags.map(|tag| (body_for(&tag, 10), tag)).collect();
    let request = |tag: &String| format!("GET /bytes/{tag}/10 HTTP/1.1\r\nHost: sim\r\n\r\n");
    let requests: String = asked.iter().map(|(_, tag)| request(tag)).collect();
    let answer = |(body, tag)| Expected {
        tag,
        body,
        is_head: false,
    };
    Client {
        script: Script::new([Step::Send(requests.into_bytes()), Step::HalfClose]),
        expects: Expects::Answers(asked.into_iter().map(answer).collect()),
    }
}

/// A request with a body, of announced length or in chunks.
fn post(tag: &str, body: &[u8], connection: &str, dice: &mut Dice) -> Vec<u8> {
    let head = format!("POST /echo/{tag} HTTP/1.1\r\nHost: sim\r\n{connection}");
    if dice.chance(500) {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        return [head.as_bytes(), body].concat();
    }
    let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let mut left = body;
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(dice.up_to(left.len().min(2_000)));
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
        left = rest;
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

fn websocket(number: usize, dice: &mut Dice) -> Client {
    let mut steps = vec![Step::Send(upgrade(number))];
    if dice.chance(700) {
        steps.push(Step::AwaitText(b"\r\n\r\n".to_vec()));
    }
    // Who does not wait is too early by RFC 6455 §4.1, and is heard all the same.
    let mut expects = Vec::new();
    for _ in 0..dice.up_to(8) {
        let len = [0, 1, 125, 126, 3_000, 66_000][dice.below(6)];
        let text = dice.chance(500);
        let payload: Vec<u8> = "grüße, 世界! ".bytes().cycle().take(len).collect();
        // Text must not end inside a character.
        let whole = match std::str::from_utf8(&payload) {
            Err(error) if text => error.valid_up_to(),
            _ => payload.len(),
        };
        let payload = payload[..whole].to_vec();
        let opcode = if text { 0x1 } else { 0x2 };
        steps.push(Step::Send(message(opcode, &payload, dice)));
        if dice.chance(300) {
            steps.push(Step::Send(frame(0x89, b"are you there?", dice)));
        }
        if dice.chance(300) {
            steps.push(Step::Pause(dice.within(Duration::from_secs(40))));
        }
        expects.push((opcode, payload));
    }
    // Who closes has heard enough: answers that are not on the way yet may stay unsaid.
    let last = mark(&format!("c{number}"));
    steps.push(Step::Send(message(0x2, &last, dice)));
    steps.push(Step::AwaitText(last.clone()));
    expects.push((0x2, last));
    steps.push(Step::Send(frame(0x88, &[0x03, 0xe8], dice)));
    Client {
        script: Script::new(steps),
        expects: Expects::Echoes(expects),
    }
}

pub(super) fn upgrade(number: usize) -> Vec<u8> {
    let request = format!(
        "GET /ws/c{number} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    request.into_bytes()
}

/// A message in one frame or several, with a ping in between now and then.
fn message(opcode: u8, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (mut bytes, mut left, mut opcode) = (Vec::new(), payload, opcode);
    while dice.chance(400) {
        let (piece, rest) = left.split_at(dice.below(left.len() + 1));
        bytes.extend(frame(opcode, piece, dice));
        if dice.chance(200) {
            bytes.extend(frame(0x89, b"", dice));
        }
        (left, opcode) = (rest, 0x0);
    }
    bytes.extend(frame(0x80 | opcode, left, dice));
    bytes
}

/// One masked frame. RFC 6455 §5.2, read aloud.
fn frame(first: u8, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..126 => bytes.push(0x80 | len.to_le_bytes()[0]),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).expect("matched").to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let key = dice.next().to_be_bytes();
    bytes.extend(&key[..4]);
    let masked = payload.iter().zip(key[..4].iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// A client that breaks a rule and does not stop sending when it is told.
pub(super) fn refused(dice: &mut Dice) -> Client {
    let long = "GET /long HTTP/1.1\r\nHost: a\r\nCookie: ".to_owned() + &"c".repeat(2_000);
    let coding = "POST /echo/bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n";
    let (bytes, status) = [
        ("GET  / HTTP/1.1\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (coding, "400"),
        (&long, "431"),
    ][dice.below(5)];
    let more = vec![b'z'; dice.below(6_000)];
    Client {
        script: Script::new([Step::Send(bytes.as_bytes().to_vec()), Step::Send(more)]),
        expects: Expects::Refusal(status),
    }
}

/// A client that is up to no good, or out of luck.
pub(super) fn hostile(number: usize, dice: &mut Dice) -> Client {
    let get = |kind, len| format!("GET /{kind}/h{number}/{len} HTTP/1.1\r\nHost: sim\r\n\r\n");
    let large = get("stream", 300_000).into_bytes();
    let pause = Step::Pause(dice.within(Duration::from_millis(200)));
    let body = b"POST /echo/h HTTP/1.1\r\nHost: sim\r\nContent-Length: 50\r\n\r\nsome";
    let steps = match dice.below(9) {
        0 => vec![],
        1 => vec![Step::Send(b"GET / HT".to_vec())],
        2 => vec![Step::Send(body.to_vec())],
        3 => vec![Step::StopReading, Step::Send(large)],
        4 => vec![Step::Send(large), pause, Step::Reset],
        5 => vec![Step::Send(large), pause, Step::Close],
        6 => vec![
            Step::Send(b"GET / HTTP/1.1\r\n".to_vec()),
            pause,
            Step::HalfClose,
        ],
        7 => {
            // Each ping wants a pong, and none is ever read.
            let pings = frame(0x89, &[b'p'; 125], dice).repeat(6_000);
            let upgrade = Step::Send(upgrade(number));
            vec![Step::StopReading, upgrade, Step::Send(pings)]
        }
        _ => {
            let Client { mut script, .. } = honest(number, dice);
            let at = dice.below(script.steps.len() + 1);
            script.steps.truncate(at);
            script.steps.push_back(Step::Reset);
            script.steps.into()
        }
    };
    let mut script = Script::new(steps);
    script.is_stubborn = dice.chance(500);
    Client {
        script,
        expects: Expects::End,
    }
}

impl Client {
    /// Compares what was received with what is expected. Unless `strict`, the connection may have
    /// ended before everything was said, but what was said must be right.
    #[track_caller]
    pub(super) fn check(&self, received: &[u8], strict: bool) {
        let mut input = Input { bytes: received };
        let whole = match &self.expects {
            Expects::End => return,
            Expects::Refusal(status) => {
                let answer = input.answer(false);
                if let Some((head, _)) = &answer {
                    let wanted = head.starts_with(&format!("HTTP/1.1 {status} "));
                    // Or it was too late for us to see what was wrong with it.
                    let late = !strict && head.starts_with("HTTP/1.1 408 ");
                    assert!(wanted || late, "{head}");
                }
                answer.is_some()
            }
            Expects::Answers(answers) => answers.iter().all(|want| input.expect(want, strict)),
            Expects::Echoes(messages) => input.expect_echoes(messages, strict),
        };
        let text = String::from_utf8_lossy(received);
        assert!(whole || !strict, "something is missing in {text:?}");
        if whole {
            assert_eq!(input.bytes, b"", "something came behind");
        }
    }
}

/// What has not been looked at yet.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn line_end(&self, end: &[u8]) -> Option<usize> {
        let at = self.bytes.windows(end.len()).position(|it| it == end)?;
        Some(at + end.len())
    }

    /// Head and body of the next answer; `None` if it is not whole.
    fn answer(&mut self, is_head: bool) -> Option<(String, Vec<u8>)> {
        let len = self.line_end(b"\r\n\r\n")?;
        let head = String::from_utf8(self.take(len)?.to_vec()).expect("heads are ASCII");
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let body = match (field("Content-Length:"), field("Transfer-Encoding:")) {
            _ if is_head => Vec::new(),
            (Some(len), None) => self.take(len.parse().expect("a number"))?.to_vec(),
            (None, Some(coding)) if coding == "chunked" => self.chunks()?,
            framing => panic!("framing {framing:?} in {head}"),
        };
        Some((head, body))
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let len = self.line_end(b"\r\n")?;
            let line = std::str::from_utf8(self.take(len)?).expect("sizes are ASCII");
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a size");
            body.extend_from_slice(self.take(size)?);
            assert_eq!(self.take(2)?, b"\r\n", "the end of a chunk");
            if size == 0 {
                return Some(body);
            }
        }
    }

    /// Whether the next answer is there; if so it must be `want`, or, unless `strict`, a refusal
    /// that is the last.
    fn expect(&mut self, want: &Expected, strict: bool) -> bool {
        let Some((head, body)) = self.answer(want.is_head) else {
            return false;
        };
        if !strict && !head.starts_with("HTTP/1.1 200 ") {
            assert!(head.contains("Connection: close"), "{head}");
            assert_eq!(self.bytes, b"", "something came behind a refusal");
            return false;
        }
        let tag = format!("\r\nTag: {}\r\n", want.tag);
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains(&tag),
            "{tag}: {head}"
        );
        assert!(want.is_head || body == want.body, "{tag}: another body");
        true
    }

    /// Whether all messages and a close frame are there; pongs and pings may stand between.
    fn expect_echoes(&mut self, messages: &[(u8, Vec<u8>)], strict: bool) -> bool {
        let Some(len) = self.line_end(b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8_lossy(self.take(len).unwrap_or_default());
        // The application cannot take it, or a rough network has brought the request too late.
        let is_refused = ["HTTP/1.1 503 ", "HTTP/1.1 408 "]
            .iter()
            .any(|refusal| head.starts_with(refusal));
        if !strict && is_refused {
            return false;
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let mut wanted = messages.iter();
        while let Some((first, payload)) = self.frame() {
            match first {
                0x89 | 0x8a => {}
                0x88 if payload.starts_with(&[0x03, 0xe8]) => {
                    assert_eq!(wanted.next(), None, "closed before everything was said");
                    return true;
                }
                // Going away, or a deadline: only where something went wrong, which `strict` finds.
                0x88 => return false,
                first => {
                    let (opcode, want) = wanted.next().expect("more than was sent");
                    assert!(
                        first == 0x80 | *opcode && payload == want,
                        "another message"
                    );
                }
            }
        }
        false
    }

    /// First byte and payload of the next frame, which must be unmasked.
    fn frame(&mut self) -> Option<(u8, &'a [u8])> {
        let &[first, len] = self.take(2)? else {
            return None;
        };
        let len = match len {
            126 => usize::from(u16::from_be_bytes(*self.take(2)?.first_chunk()?)),
            127 => {
                let len = u64::from_be_bytes(*self.take(8)?.first_chunk()?);
                usize::try_from(len).expect("no such message was sent")
            }
            len => usize::from(len),
        };
        Some((first, self.take(len)?))
    }
}
