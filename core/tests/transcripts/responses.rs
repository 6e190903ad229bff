//! Responses read one after the other, as a client reads them: heads by the parser, bodies by their
//! framing.

use crate::Machine;
use crate::notation::{Action, quoted};
use crate::settings::Settings;
use hukilau_core::http1::chunked::{ChunkedDecoder, Step};
use hukilau_core::http1::parse::{HeadProgress, parse_response};
use hukilau_core::http1::{Field, Framing, Version};
use hukilau_core::violation::Violation;
use std::fmt::Write as _;

/// What the next byte belongs to.
enum State {
    Head(HeadProgress),
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    /// Nothing more is read as HTTP.
    Over,
}

pub(crate) struct Responses<'a> {
    settings: &'a Settings,
    state: State,
    spill: Vec<u8>,
    body: Vec<u8>,
    keeps_alive: bool,
    /// Bytes received so far.
    received: usize,
    violated_after: Option<usize>,
    log: String,
}

impl<'a> Responses<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            state: State::Head(HeadProgress::default()),
            spill: Vec::new(),
            body: Vec::new(),
            keeps_alive: true,
            received: 0,
            violated_after: None,
            log: String::new(),
        }
    }

    /// Reads what can be read at the front of `spill`. How much that was.
    fn step(&mut self) -> Result<usize, Violation> {
        match &mut self.state {
            State::Head(_) => self.read_head(),
            State::Length(left) => {
                let take = usize::try_from(*left)
                    .map_or(self.spill.len(), |left| left.min(self.spill.len()));
                self.body.extend_from_slice(&self.spill[..take]);
                *left -= take as u64;
                if *left == 0 {
                    self.end_message();
                }
                Ok(take)
            }
            State::Chunked(decoder) => match decoder.decode(&self.spill)? {
                Step::NeedMore { consumed } => Ok(consumed),
                Step::Data { consumed, data } => {
                    self.body.extend_from_slice(&self.spill[data]);
                    Ok(consumed)
                }
                Step::End { consumed } => {
                    self.end_message();
                    Ok(consumed)
                }
            },
            State::UntilClose => {
                self.body.extend_from_slice(&self.spill);
                Ok(self.spill.len())
            }
            State::Over => Ok(0),
        }
    }

    fn read_head(&mut self) -> Result<usize, Violation> {
        let State::Head(progress) = &mut self.state else {
            return Ok(0);
        };
        let (limits, method) = (&self.settings.limits, self.settings.method);
        let mut fields: Vec<Field> = Vec::new();
        let Some(head) = parse_response(&self.spill, progress, method, limits, &mut fields)? else {
            return Ok(0);
        };
        let reason = quoted(head.reason.of(&self.spill));
        let mut line = format!("response {}{reason}", head.status);
        if head.version == Version::Http10 {
            line.push_str(" version=1.0");
        }
        match head.framing {
            Framing::None => {}
            Framing::Length(length) => line.push_str(&format!(" framing=length:{length}")),
            Framing::Chunked => line.push_str(" framing=chunked"),
            Framing::UntilClose => line.push_str(" framing=until-close"),
        }
        if !head.keeps_alive {
            line.push_str(" close");
        }
        if head.upgrades_to_websocket {
            line.push_str(" upgrade=websocket");
        }
        let _ = writeln!(self.log, "{line}");
        if self.settings.shows_fields {
            for field in &fields {
                let name = String::from_utf8_lossy(field.name.of(&self.spill));
                let value = quoted(field.value.of(&self.spill));
                let _ = writeln!(self.log, "  {name}:{value}");
            }
        }
        self.keeps_alive = head.keeps_alive;
        self.state = match head.framing {
            Framing::None if matches!(head.status, 100..=199) && head.status != 101 => {
                State::Head(HeadProgress::default())
            }
            Framing::None if head.keeps_alive => State::Head(HeadProgress::default()),
            Framing::None => State::Over,
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::Chunked(ChunkedDecoder::new(limits.chunk_framing_bytes_max)),
            Framing::UntilClose => State::UntilClose,
        };
        Ok(usize::try_from(head.len).expect("a head fits in memory"))
    }

    fn end_message(&mut self) {
        self.note_body();
        self.log.push_str("end\n");
        self.state = if self.keeps_alive {
            State::Head(HeadProgress::default())
        } else {
            State::Over
        };
    }

    fn note_body(&mut self) {
        let body = std::mem::take(&mut self.body);
        if !body.is_empty() {
            let _ = writeln!(self.log, "body{}", quoted(&body));
        }
    }
}

impl Machine for Responses<'_> {
    fn receive(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        self.spill.extend_from_slice(bytes);
        while !self.spill.is_empty() {
            match self.step() {
                Ok(0) => break,
                Ok(consumed) => {
                    self.spill.drain(..consumed);
                }
                Err(violation) => {
                    self.note_body();
                    let _ = writeln!(self.log, "violation {}", violation.name());
                    self.violated_after = Some(self.received);
                    self.state = State::Over;
                }
            }
        }
    }

    fn act(&mut self, action: &Action) {
        panic!("responses are bytes and nothing else, not {action:?}");
    }

    fn finish(mut self: Box<Self>) -> String {
        self.note_body();
        self.log.push_str(match self.state {
            State::Over => "then close\n",
            _ => "then read\n",
        });
        self.log
    }

    fn violated_after(&self) -> Option<usize> {
        self.violated_after
    }
}
