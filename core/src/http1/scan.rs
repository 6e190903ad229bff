//! Walks a head byte by byte: finds its end and names what is wrong with it. RFC 9112 §2 to §5.
//!
//! Sits below `parse.rs`, which is fast and only knows heads that are whole and clean. Everything
//! else is decided here: which rule a head breaks, and how far an unfinished one has been read.
//!
//! ```text
//! Method ─SP▶ Target ─SP▶ Version ─CR▶ StartLf ─LF▶ LineStart ─CR▶ EndLf ─LF▶ Done
//! StatusVersion ─SP▶ Code ─SP▶ Reason ─CR──▲        │   ▲
//!                                                 tchar └──LF── ValueLf ◀CR─ Value ◀─':'─ Name ◀─┘
//! ```
//!
//! Invariants
//! - The verdict is that of the first byte no rule allows, so it depends neither on what follows
//!   nor on how the input was cut, and it is reached as soon as that byte is there.
//! - Each byte is looked at once, however slowly the head comes in.
//!
//! Not here: spans of what was found (`parse.rs`), rules between fields (`framing.rs`).

use super::token::{is_target_byte, is_token_byte, is_value_byte};
use crate::limits::Limits;
use crate::violation::Violation;

/// How far one head has been read, carried between calls while it is incomplete. Start each head
/// with a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadProgress {
    /// Bytes walked, all of them good.
    at: u32,
    /// Where the part of the line that `state` names began.
    part: u32,
    /// Field lines ended so far.
    fields: u16,
    state: State,
}

const _: () = assert!(size_of::<HeadProgress>() <= 16);

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In the method of a request.
    #[default]
    Method,
    /// In the request-target.
    Target,
    /// In the `HTTP/1.1` that ends a request line, or at its CR.
    Version,
    /// In the `HTTP/1.1` that begins a status line, or at its SP.
    StatusVersion,
    /// In the three digits of a status code, or behind them.
    Code,
    /// In the reason phrase.
    Reason,
    /// After the CR of the start line.
    StartLf,
    /// At the first byte of a field line, or of the empty line.
    LineStart,
    /// In a field name, behind its first byte.
    Name,
    /// In a field value or the white space around it.
    Value,
    /// After the CR of a field line.
    ValueLf,
    /// After the CR of the empty line.
    EndLf,
    /// The head is whole.
    Done,
}

/// Length of `HTTP/1.1`.
const VERSION_LEN: u32 = 8;

impl HeadProgress {
    /// Whether no byte has been walked yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.at == 0
    }

    /// Field lines walked so far.
    pub(super) fn field_count(&self) -> usize {
        usize::from(self.fields)
    }

    /// Makes a fresh progress expect a status line instead of a request line.
    pub(super) fn expect_status_line(&mut self) {
        if self.is_fresh() {
            self.state = State::StatusVersion;
        }
    }

    /// Walks what is new in `input`, which begins with the bytes of earlier calls. True once the
    /// head is whole; bytes behind it are not looked at.
    ///
    /// # Errors
    /// The rule that the first bad byte breaks; the same again if called again.
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<bool, Violation> {
        let new = input.get(self.at as usize..).unwrap_or_default();
        for byte in new {
            if self.state == State::Done {
                break;
            }
            #[cfg(test)]
            super::parse::looked_at(1);
            let state = self.after(*byte, input, limits)?;
            if state == State::LineStart && self.state == State::ValueLf {
                self.fields += 1;
            }
            self.at += 1;
            if state != self.state {
                self.state = state;
                // `Name` begins at the byte that was its first; nobody asks where.
                self.part = self.at;
            }
        }
        Ok(self.state == State::Done)
    }

    /// The transition table: every legal pair of state and byte, and the rule each other one
    /// breaks. A bare LF is `LineEnding` wherever it stands.
    fn after(&self, byte: u8, input: &[u8], limits: &Limits) -> Result<State, Violation> {
        let len = self.at - self.part;
        match (self.state, byte) {
            (State::StartLf, b'\n') => Ok(State::LineStart),
            (State::ValueLf, b'\n') => Ok(State::LineStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::StartLf | State::ValueLf | State::EndLf, _) => Err(Violation::LineEnding),
            (_, b'\n') => Err(Violation::LineEnding),

            (State::Method, b' ') if len > 0 => Ok(State::Target),
            (State::Method, _) if is_token_byte(byte) => Ok(State::Method),
            (State::Method, _) => Err(Violation::Method),

            (State::Target, b' ') if len > 0 => Ok(State::Version),
            // The line of HTTP/0.9 ends behind the target.
            (State::Target, b'\r') if len > 0 => Err(Violation::Version),
            (State::Target, _) if !is_target_byte(byte) => Err(Violation::Target),
            (State::Target, _) if len >= limits.target_bytes_max => Err(Violation::TargetTooLong),
            (State::Target, _) => Ok(State::Target),

            (State::Version, b'\r') if len == VERSION_LEN => Ok(State::StartLf),
            (State::StatusVersion, b' ') if len == VERSION_LEN => Ok(State::Code),
            (State::Version | State::StatusVersion, _) => {
                self.version_byte(byte, input).map(|()| self.state)
            }

            (State::Code, b'1'..=b'9') if len == 0 => Ok(State::Code),
            (State::Code, b'0'..=b'9') if len == 1 || len == 2 => Ok(State::Code),
            (State::Code, b' ') if len == 3 => Ok(State::Reason),
            (State::Code, b'\r') if len == 3 => Ok(State::StartLf),
            (State::Code, _) => Err(Violation::StatusLine),
            (State::Reason, b'\r') => Ok(State::StartLf),
            (State::Reason, _) if is_value_byte(byte) => Ok(State::Reason),
            (State::Reason, _) => Err(Violation::StatusLine),

            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::LineStart, _) if self.fields >= limits.fields_max => {
                Err(Violation::TooManyFields)
            }
            (State::LineStart, b' ' | b'\t') => Err(Violation::LineFolding),
            (State::LineStart | State::Name, _) if is_token_byte(byte) => Ok(State::Name),
            (State::Name, b':') => Ok(State::Value),
            (State::Name, b' ' | b'\t') => Err(Violation::SpaceBeforeColon),
            (State::LineStart | State::Name, _) => Err(Violation::FieldName),

            (State::Value, b'\r') => Ok(State::ValueLf),
            (State::Value, _) if is_value_byte(byte) => Ok(State::Value),
            (State::Value, _) => Err(Violation::FieldValue),

            (State::Done, _) => Ok(State::Done),
        }
    }

    /// Checks one byte of `HTTP/1.1`. RFC 9112 §2.3.
    fn version_byte(&self, byte: u8, input: &[u8]) -> Result<(), Violation> {
        let good = match self.at - self.part {
            at @ 0..=4 => byte == b"HTTP/"[at as usize],
            6 => byte == b'.',
            5 | 7 => byte.is_ascii_digit(),
            _ => false,
        };
        if !good {
            return Err(Violation::Version);
        }
        // Only now it is known to be a version, though not ours: `HTTP/2x` is none at all.
        let last = self.at - self.part == 7;
        let major = input.get(self.part as usize + 5);
        if last && major != Some(&b'1') {
            return Err(Violation::VersionUnsupported);
        }
        Ok(())
    }
}
