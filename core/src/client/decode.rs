//! Content codings, undone as they arrive: gzip, deflate, br, zstd. RFC 9110 §8.4.
//!
//! Sits in the client's face and knows no connection: bytes are fed, content is pulled, so that who
//! must wait for its own consumer keeps the rest here, still coded, and not in memory.
//!
//! Invariants
//! - No stage ever yields more than the bound it was made with, and the last word on size is said
//!   before the memory is taken: a bomb costs what was allowed and not more.
//! - Content that lacks its end is never taken for whole, nor is what follows the end dropped.
//! - What is offered in `Accept-Encoding` is what is built in.
//!
//! | Input | We | RFC |
//! | --- | --- | --- |
//! | `deflate` without its zlib wrapper, as some servers send it | taken | 9110 §8.4.1.2 |
//! | several gzip members, several zstd frames, skippable frames | one content | 1952 §2.2, 8878 §3.1 |
//! | a window over 8 MiB in zstd; large windows in brotli | refused | 9659 §3, 7932 §9.1 |
//! | no bytes at all behind a coding | empty content | – |
//! | a coding that nobody here knows | nothing is undone, and the field stays | 9110 §8.4 |
//!
//! Not here: transfer codings (`http1/chunked.rs`); compression of WebSockets (`ws/deflate.rs`).

#[cfg(feature = "brotli")]
mod brotli;
#[cfg(feature = "zstd")]
mod zstd;

use core::fmt;
use flate2::{Decompress, FlushDecompress, Status};

/// Codings laid over each other in one response. Nobody needs two; each costs a window.
const CODINGS_MAX: usize = 4;

/// Bytes that a stage hands to the next at once.
const BETWEEN_BYTES: usize = 16 * 1024;

/// The value of `Accept-Encoding` that asks for what is built in.
pub const ACCEPT_ENCODING: &str = match (cfg!(feature = "brotli"), cfg!(feature = "zstd")) {
    (true, true) => "gzip, deflate, br, zstd",
    (true, false) => "gzip, deflate, br",
    (false, true) => "gzip, deflate, zstd",
    (false, false) => "gzip, deflate",
};

/// A content coding that can be undone. RFC 9110 §8.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, and `x-gzip` as it was once called. RFC 1952.
    Gzip,
    /// `deflate`: zlib's wrapper around deflate, or deflate without it. RFC 1950, RFC 1951.
    Deflate,
    /// `br`. RFC 7932.
    #[cfg(feature = "brotli")]
    Brotli,
    /// `zstd`. RFC 8878, RFC 9659.
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Coding {
    fn of(token: &[u8]) -> Option<Self> {
        let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            #[cfg(feature = "brotli")]
            () if is("br") => Some(Self::Brotli),
            #[cfg(feature = "zstd")]
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }

    /// Its token, as `Content-Encoding` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            #[cfg(feature = "brotli")]
            Self::Brotli => "br",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
        }
    }
}

/// Why content could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not of the coding, or a checksum in them does not fit.
    Corrupt(Coding),
    /// The content ended before the coding did.
    Truncated(Coding),
    /// Bytes follow the end of the coding.
    TrailingBytes(Coding),
    /// A stage would have yielded more than this many bytes.
    TooLarge {
        /// The bound it was made with.
        bytes_max: u64,
    },
    /// The coding asks for a larger window than a client has to provide.
    WindowTooLarge(Coding),
    /// More than four codings over each other.
    TooManyCodings,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(coding) => write!(f, "the {} content is corrupt", coding.name()),
            Self::Truncated(coding) => write!(f, "the {} content is cut short", coding.name()),
            Self::TrailingBytes(coding) => {
                write!(f, "bytes follow the end of the {} content", coding.name())
            }
            Self::TooLarge { bytes_max } => {
                write!(f, "the content decodes to more than {bytes_max} bytes")
            }
            Self::WindowTooLarge(coding) => {
                write!(f, "the {} content wants too large a window", coding.name())
            }
            Self::TooManyCodings => f.write_str("too many content codings over each other"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Undoes the codings of one body.
#[derive(Debug)]
pub struct Decoder {
    /// The outermost coding first: the order in which they are undone.
    links: Vec<Link>,
    bytes_max: u64,
    fed: bool,
}

/// One coding, and what waits to go through it.
#[derive(Debug)]
struct Link {
    coding: Coding,
    stage: Stage,
    waiting: Vec<u8>,
    /// How much of `waiting` is done with.
    at: usize,
    yielded: u64,
}

enum Stage {
    Inflate(Inflate),
    #[cfg(feature = "brotli")]
    Brotli(Box<brotli::Brotli>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::Zstd>),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inflate(_) => "Inflate",
            #[cfg(feature = "brotli")]
            Self::Brotli(_) => "Brotli",
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => "Zstd",
        })
    }
}

/// What a stage did: with input and room for output it does at least one of both.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    consumed: usize,
    yielded: usize,
}

/// What is wrong with the input of a stage, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Corrupt,
    Trailing,
    #[cfg(feature = "zstd")]
    Window,
}

impl Decoder {
    /// A decoder for a response with these `Content-Encoding` values, in their order, no stage of
    /// which may yield more than `bytes_max` bytes. `None` if there is nothing to undo, or a
    /// coding that nobody here knows.
    ///
    /// # Errors
    /// [`DecodeError::TooManyCodings`].
    pub fn new<'a>(
        values: impl Iterator<Item = &'a [u8]>,
        bytes_max: u64,
    ) -> Result<Option<Self>, DecodeError> {
        let tokens = values.flat_map(|value| value.split(|byte| *byte == b','));
        let tokens = tokens.map(<[u8]>::trim_ascii);
        let mut links = Vec::new();
        for token in tokens.filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let Some(coding) = Coding::of(token) else {
                return Ok(None);
            };
            if links.len() == CODINGS_MAX {
                return Err(DecodeError::TooManyCodings);
            }
            links.push(Link::new(coding));
        }
        // The last one applied is the first to be undone.
        links.reverse();
        Ok((!links.is_empty()).then_some(Self {
            links,
            bytes_max,
            fed: false,
        }))
    }

    /// Takes coded bytes. They wait here until they are [pulled](Self::pull).
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed |= !bytes.is_empty();
        if let Some(first) = self.links.first_mut() {
            first.take(bytes);
        }
    }

    /// Decodes into `out` and says how many bytes; none means that nothing can come before more is
    /// fed.
    ///
    /// # Errors
    /// What is wrong with the content. Nothing may be pulled after that.
    pub fn pull(&mut self, out: &mut [u8]) -> Result<usize, DecodeError> {
        pull(&mut self.links, out, self.bytes_max)
    }

    /// Whether what was fed and pulled is whole.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if a coding has not come to its end.
    pub fn finish(&self) -> Result<(), DecodeError> {
        // Servers name a coding for content they turn out not to have.
        let incomplete = self.links.iter().find(|link| !link.is_complete());
        match incomplete {
            Some(link) if self.fed => Err(DecodeError::Truncated(link.coding)),
            _ => Ok(()),
        }
    }
}

fn pull(links: &mut [Link], out: &mut [u8], bytes_max: u64) -> Result<usize, DecodeError> {
    let Some((last, before)) = links.split_last_mut() else {
        return Ok(0);
    };
    loop {
        let step = last.run(out, bytes_max)?;
        if step.yielded > 0 {
            return Ok(step.yielded);
        }
        if step.consumed > 0 {
            continue;
        }
        let mut between = [0; BETWEEN_BYTES];
        match pull(before, &mut between, bytes_max)? {
            0 => return Ok(0),
            count => last.take(&between[..count]),
        }
    }
}

impl Link {
    fn new(coding: Coding) -> Self {
        let stage = match coding {
            Coding::Gzip => Stage::Inflate(Inflate::gzip()),
            Coding::Deflate => Stage::Inflate(Inflate::deflate()),
            #[cfg(feature = "brotli")]
            Coding::Brotli => Stage::Brotli(Box::new(brotli::Brotli::new())),
            #[cfg(feature = "zstd")]
            Coding::Zstd => Stage::Zstd(Box::new(zstd::Zstd::new())),
        };
        Self {
            coding,
            stage,
            waiting: Vec::new(),
            at: 0,
            yielded: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.at);
        self.at = 0;
        self.waiting.extend_from_slice(bytes);
    }

    fn run(&mut self, out: &mut [u8], bytes_max: u64) -> Result<Step, DecodeError> {
        let input = &self.waiting[self.at..];
        let step = match &mut self.stage {
            Stage::Inflate(inflate) => inflate.run(input, out),
            #[cfg(feature = "brotli")]
            Stage::Brotli(brotli) => brotli.run(input, out),
            #[cfg(feature = "zstd")]
            Stage::Zstd(zstd) => zstd.run(input, out),
        };
        let step = step.map_err(|fault| match fault {
            Fault::Corrupt => DecodeError::Corrupt(self.coding),
            Fault::Trailing => DecodeError::TrailingBytes(self.coding),
            #[cfg(feature = "zstd")]
            Fault::Window => DecodeError::WindowTooLarge(self.coding),
        })?;
        self.at += step.consumed;
        self.yielded += step.yielded as u64;
        if self.yielded > bytes_max {
            return Err(DecodeError::TooLarge { bytes_max });
        }
        Ok(step)
    }

    fn is_complete(&self) -> bool {
        let ended = match &self.stage {
            Stage::Inflate(inflate) => inflate.at == Place::Ended,
            #[cfg(feature = "brotli")]
            Stage::Brotli(brotli) => brotli.has_ended(),
            #[cfg(feature = "zstd")]
            Stage::Zstd(zstd) => zstd.has_ended(),
        };
        ended && self.at == self.waiting.len()
    }
}

/// gzip, zlib and deflate, which differ in their wrappers.
struct Inflate {
    codec: Decompress,
    at: Place,
    /// Whether another stream may follow the first: members of a gzip file.
    repeats: bool,
    /// The first two bytes, kept until they have told which wrapper there is.
    first: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing has come.
    Start,
    /// One byte has come, which does not tell yet whether there is a wrapper.
    Second,
    /// The codec is known and has to be given the first two bytes from here on.
    Replay {
        from: usize,
    },
    Within,
    Ended,
}

/// The largest window there is; a stream with a smaller one says so itself.
const WINDOW_BITS: u8 = 15;

impl Inflate {
    fn gzip() -> Self {
        Self {
            codec: Decompress::new_gzip(WINDOW_BITS),
            at: Place::Within,
            repeats: true,
            first: [0; 2],
        }
    }

    fn deflate() -> Self {
        Self {
            codec: Decompress::new(true),
            at: Place::Start,
            repeats: false,
            first: [0; 2],
        }
    }

    fn run(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        const ONE: Step = Step {
            consumed: 1,
            yielded: 0,
        };
        match (self.at, input) {
            (Place::Replay { from }, _) => {
                let step = self.replay(from, out)?;
                match self.at {
                    Place::Within | Place::Ended if step.yielded == 0 => self.run(input, out),
                    _ => Ok(step),
                }
            }
            (Place::Within, _) => self.inflate(input, out),
            (_, []) => Ok(Step::default()),
            (Place::Start, [byte, ..]) => {
                (self.first[0], self.at) = (*byte, Place::Second);
                Ok(ONE)
            }
            (Place::Second, [byte, ..]) => {
                (self.first[1], self.at) = (*byte, Place::Replay { from: 0 });
                self.codec = Decompress::new(is_zlib(self.first));
                Ok(ONE)
            }
            (Place::Ended, [0x1f, ..]) if self.repeats => {
                self.codec = Decompress::new_gzip(WINDOW_BITS);
                self.at = Place::Within;
                self.inflate(input, out)
            }
            (Place::Ended, _) => Err(Fault::Trailing),
        }
    }

    /// Gives the codec the two bytes that were looked at.
    fn replay(&mut self, from: usize, out: &mut [u8]) -> Result<Step, Fault> {
        let first = self.first;
        let step = self.inflate(&first[from..], out)?;
        let from = from + step.consumed;
        match (self.at, from < first.len()) {
            (Place::Ended, true) => return Err(Fault::Trailing),
            (Place::Ended, false) => {}
            // Only a full `out` keeps the codec from taking so little.
            (_, true) => self.at = Place::Replay { from },
            (_, false) => self.at = Place::Within,
        }
        // They have been counted when they were looked at.
        Ok(Step {
            consumed: 0,
            ..step
        })
    }

    fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let (in_before, out_before) = (self.codec.total_in(), self.codec.total_out());
        let status = self.codec.decompress(input, out, FlushDecompress::None);
        match status {
            Ok(Status::StreamEnd) => self.at = Place::Ended,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err(Fault::Corrupt),
        }
        let moved = |after: u64, before: u64| usize::try_from(after - before).unwrap_or(usize::MAX);
        Ok(Step {
            consumed: moved(self.codec.total_in(), in_before),
            yielded: moved(self.codec.total_out(), out_before),
        })
    }
}

/// Whether a stream that begins so has zlib's wrapper. RFC 1950 §2.2: the method is 8, the window at
/// most 32 KiB, and both bytes together are a multiple of 31.
fn is_zlib(first: [u8; 2]) -> bool {
    first[0] & 15 == 8 && first[0] >> 4 <= 7 && u16::from_be_bytes(first).is_multiple_of(31)
}

#[cfg(test)]
mod tests;
