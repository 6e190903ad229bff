//! Luau values to JSON text. RFC 8259.
//!
//! Sits inside `json.rs`. The walk goes over the stack itself and writes into a buffer that is kept.
//!
//! Rules that JSON leaves open; the second choice is a field of [`Spelling`]
//! - `net.null`, and nil where a value is asked for, is `null`.
//! - A table with elements 1 to n and nothing else is an array, with string keys an object. The
//!   empty table is `[]`, or what it was decoded from, or what `net.object` says; or `{}`.
//! - Holes are refused, or written as `null` while there are at most ten for each element.
//! - Number keys beside string keys are refused, or written as text. Other keys are refused.
//! - NaN and the infinities are refused, or written as `null`.
//! - Numbers are the shortest text that reads back as the same number: whole ones without fraction,
//!   and `-0` as `-0.0`, for many readers take `-0` for an integer.
//! - Strings must be UTF-8. Functions, threads, buffers, vectors and userdata are refused.
//! - An object's fields have the order the table has them in, or are sorted by their bytes.
//!
//! Not here: the options of a script (`face.rs`).

use super::{BYTES, DEPTH, Json};
use crate::vm::Stack;
use crate::vm::tape::Peek;
use crate::vm::walk::Entry;

/// The buffer for a text is given back if it grew above this. It grows by doubling, so one of half
/// the size is always kept.
const OUTPUT_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// How values are written.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent option of a script"
)]
pub(crate) struct Spelling {
    /// Over several lines, two blanks a level, one blank behind a colon.
    pub(crate) is_pretty: bool,
    /// Fields in the order of their names.
    pub(crate) is_sorted: bool,
    /// An empty table that does not say otherwise is `{}`.
    pub(crate) empty_is_object: bool,
    /// Holes of arrays are `null`.
    pub(crate) fills_holes: bool,
    /// NaN and infinities are `null`.
    pub(crate) odd_is_null: bool,
    /// Number keys are written as text.
    pub(crate) keys_as_text: bool,
    /// Tables inside one another.
    pub(crate) depth_max: u32,
    /// Bytes of the text.
    pub(crate) bytes_max: u32,
}

impl Default for Spelling {
    fn default() -> Self {
        Self {
            is_pretty: false,
            is_sorted: false,
            empty_is_object: false,
            fills_holes: false,
            odd_is_null: false,
            keys_as_text: false,
            depth_max: DEPTH,
            bytes_max: BYTES,
        }
    }
}

/// Encodes the value at `index`; the text is lent until the next call.
///
/// # Errors
/// What cannot be encoded, as half a sentence with the path to it.
pub(crate) fn encode<'j>(
    json: &'j mut Json,
    stack: &mut Stack<'_>,
    index: i32,
    spelling: Spelling,
) -> Result<&'j [u8], String> {
    if json.output.capacity() > OUTPUT_BYTES_KEPT {
        json.output = Vec::new();
    }
    json.output.clear();
    let marks = json.marks.as_ref();
    let stack = &*stack;
    let mut encoder = Encoder {
        array_mark: marks.map_or(std::ptr::null(), |marks| marks.array_address),
        object_mark: marks.map_or(std::ptr::null(), |marks| marks.object_address),
        out: &mut json.output,
        stack,
        spelling,
    };
    let encoded = encoder.value(index, 0).and_then(|()| encoder.check_bytes());
    encoded.map_err(|unfit| unfit.explain())?;
    Ok(&json.output)
}

/// What could not be encoded, and where: the keys from the inside out. Boxed: failing is rare, and
/// results are passed through every level.
struct Unfit(Box<(String, Vec<String>)>);

impl Unfit {
    fn new(what: impl Into<String>) -> Self {
        Self(Box::new((what.into(), Vec::new())))
    }

    fn inside(mut self, key: impl FnOnce() -> String) -> Self {
        self.0.1.push(key());
        self
    }

    fn explain(&self) -> String {
        let (what, path) = &*self.0;
        // A path as long as the deepest nesting would hide what it is for.
        let shown: String = path.iter().rev().take(8).map(String::as_str).collect();
        let place = match shown.is_empty() {
            true => String::new(),
            false => format!(" at value{shown}"),
        };
        // Advice comes last.
        match what.split_once(" (") {
            Some((what, advice)) => format!("cannot encode {what}{place} ({advice}"),
            None => format!("cannot encode {what}{place}"),
        }
    }
}

const MIXED: &str = "a table with both elements and named fields (the option keys = \"text\" writes both as fields)";
const HOLES: &str = "an array with holes (use net.null for null, or the option sparse = \"null\")";

/// What a table has been written as so far.
#[derive(Clone, Copy)]
enum Written {
    Nothing,
    Array,
    Object,
}

/// Why a table is not written in one pass.
enum Leave {
    Unfit(Unfit),
    /// Its fields come in the order of their names.
    Sorted,
    /// Its entries are no array in order.
    Scattered,
}

struct Encoder<'e, 's> {
    out: &'e mut Vec<u8>,
    stack: &'e Stack<'s>,
    spelling: Spelling,
    array_mark: *const std::ffi::c_void,
    object_mark: *const std::ffi::c_void,
}

impl Encoder<'_, '_> {
    /// Writes the value at `index`.
    fn value(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        match self.stack.peek(index) {
            Peek::String(bytes) => return string(self.out, bytes),
            Peek::Number(value) => return self.number(value),
            Peek::Table => return self.table(index, depth),
            Peek::Boolean(true) => self.out.extend_from_slice(b"true"),
            Peek::Boolean(false) => self.out.extend_from_slice(b"false"),
            Peek::Nil | Peek::Null => self.out.extend_from_slice(b"null"),
            Peek::Integer(value) => {
                let mut digits = itoa::Buffer::new();
                self.out.extend_from_slice(digits.format(value).as_bytes());
            }
            Peek::Other => {
                let name = self.stack.type_name(index);
                let hint = match name.as_str() {
                    "buffer" => " (buffer.tostring gives its text)",
                    "function" | "thread" => " (code is no data: leave it out)",
                    "vector" => " (write its parts as an array)",
                    _ => "",
                };
                return Err(Unfit::new(format!("a value of type {name}{hint}")));
            }
        }
        Ok(())
    }

    fn number(&mut self, value: f64) -> Result<(), Unfit> {
        const EXACT: i64 = 1 << 53;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what does not fit is not equal to what comes back"
        )]
        let whole = value as i64;
        let is_whole = whole as f64 == value && (whole != 0 || value.is_sign_positive());
        if is_whole && whole.abs() < EXACT {
            let mut digits = itoa::Buffer::new();
            self.out.extend_from_slice(digits.format(whole).as_bytes());
        } else if value.is_finite() {
            let mut digits = zmij::Buffer::new();
            let text = digits.format_finite(value);
            let text = text
                .strip_suffix(".0")
                .filter(|_| whole != 0)
                .unwrap_or(text);
            self.out.extend_from_slice(text.as_bytes());
        } else if self.spelling.odd_is_null {
            self.out.extend_from_slice(b"null");
        } else {
            let what = if value.is_nan() { "NaN" } else { "an infinity" };
            return Err(Unfit::new(format!(
                "{what} (JSON has none; the option nonFinite = \"null\" writes null)"
            )));
        }
        Ok(())
    }

    fn check_bytes(&self) -> Result<(), Unfit> {
        if self.out.len() > self.spelling.bytes_max as usize {
            let bytes_max = self.spelling.bytes_max;
            return Err(Unfit::new(format!(
                "more than {bytes_max} bytes (the option maxBytes allows more)"
            )));
        }
        Ok(())
    }

    /// Writes a table in one pass, as what its first key makes it.
    fn table(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        if depth >= self.spelling.depth_max || !self.stack.reserve(32) {
            return Err(Unfit::new(format!(
                "tables nested deeper than {} levels (or inside themselves)",
                self.spelling.depth_max
            )));
        }
        self.check_bytes()?;
        let (stack, start) = (self.stack, self.out.len());
        let (mut written, mut n) = (Written::Nothing, 0_u32);
        let walked = stack.each_entry(index, depth, |entry| {
            if n == 0 {
                written = self.begin(&entry)?;
            } else {
                self.out.push(b',');
            }
            n += 1;
            match written {
                Written::Object => self.entry(&entry, depth).map_err(Leave::Unfit),
                _ if matches!(entry.key, Peek::Number(found) if found == f64::from(n)) => {
                    self.element(entry.value, n, depth).map_err(Leave::Unfit)
                }
                _ => Err(Leave::Scattered),
            }
        });
        match walked {
            Ok(()) => {}
            Err(Leave::Unfit(unfit)) => return Err(unfit),
            Err(Leave::Sorted) => return self.sorted_object(index, depth),
            Err(Leave::Scattered) => {
                self.out.truncate(start);
                return self.scattered(index, depth);
            }
        }
        match written {
            Written::Nothing => self.empty(index),
            Written::Array => self.end(b']', depth),
            Written::Object => self.end(b'}', depth),
        }
        Ok(())
    }

    /// What the first entry of a table makes it, and the bracket that this begins with.
    fn begin(&mut self, first: &Entry<'_>) -> Result<Written, Leave> {
        match first.key {
            Peek::Number(_) => {
                self.out.push(b'[');
                Ok(Written::Array)
            }
            Peek::String(_) if self.spelling.is_sorted => Err(Leave::Sorted),
            Peek::String(_) => {
                self.out.push(b'{');
                Ok(Written::Object)
            }
            _ => Err(Leave::Unfit(self.unfit_key(first))),
        }
    }

    fn end(&mut self, bracket: u8, depth: u32) {
        self.line(depth);
        self.out.push(bracket);
    }

    /// Writes an empty table.
    fn empty(&mut self, index: i32) {
        let mark = self.stack.metatable_address(index);
        let is_object = match mark.is_null() {
            true => self.spelling.empty_is_object,
            false if mark == self.object_mark => true,
            false => mark != self.array_mark && self.spelling.empty_is_object,
        };
        self.out
            .extend_from_slice(if is_object { b"{}" } else { b"[]" });
    }

    fn unfit_key(&self, entry: &Entry<'_>) -> Unfit {
        // The key lies below its value.
        let name = self.stack.type_name(entry.value - 1);
        Unfit::new(format!("a table with a key of type {name}"))
    }

    /// Writes element `n`, which lies at `index`.
    fn element(&mut self, index: i32, n: u32, depth: u32) -> Result<(), Unfit> {
        self.line(depth + 1);
        self.value(index, depth + 1)
            .map_err(|unfit| unfit.inside(|| format!("[{n}]")))
    }

    /// Writes a table whose entries are no array in order: one out of order, one with holes, or,
    /// where number keys may be text, an object.
    fn scattered(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        let (mut count, mut last) = (0_u32, 0_i32);
        let mut misfit = None;
        let stack = self.stack;
        stack.each_entry(index, depth, |entry| {
            match entry.key {
                Peek::Number(n) if n >= 1.0 && n <= f64::from(i32::MAX) && n.fract() == 0.0 => {
                    #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
                    let n = n as i32;
                    last = last.max(n);
                }
                Peek::Number(_) => misfit = misfit.or(Some(HOLES)),
                Peek::String(_) => misfit = Some(MIXED),
                _ => return Err(self.unfit_key(&entry)),
            }
            count += 1;
            Ok(())
        })?;
        let has_holes = last.unsigned_abs() != count;
        if misfit.is_none() && has_holes && self.spelling.fills_holes {
            // A key that a peer has chosen must not make a text of gigabytes.
            if last.unsigned_abs() > count.saturating_mul(10) {
                return Err(Unfit::new(
                    "an array with more than ten holes for each element",
                ));
            }
        } else if misfit.is_some() || has_holes {
            if self.spelling.keys_as_text {
                return self.textual_object(index, depth);
            }
            return Err(Unfit::new(misfit.unwrap_or(HOLES)));
        }
        self.numbered(index, last, depth)
    }

    /// Writes elements 1 to `last`, holes as `null`.
    fn numbered(&mut self, index: i32, last: i32, depth: u32) -> Result<(), Unfit> {
        let stack = self.stack;
        self.out.push(b'[');
        for n in 1..=last {
            if n > 1 {
                self.out.push(b',');
            }
            stack.with_element(index, n, |at| self.element(at, n.unsigned_abs(), depth))?;
        }
        self.end(b']', depth);
        Ok(())
    }

    /// Writes an object that begins with a number for a key.
    fn textual_object(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        if self.spelling.is_sorted {
            return self.sorted_object(index, depth);
        }
        let (stack, mut is_first) = (self.stack, true);
        self.out.push(b'{');
        stack.each_entry(index, depth, |entry| {
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            self.entry(&entry, depth)
        })?;
        self.end(b'}', depth);
        Ok(())
    }

    /// Writes `"key":value`.
    fn entry(&mut self, entry: &Entry<'_>, depth: u32) -> Result<(), Unfit> {
        self.line(depth + 1);
        match entry.key {
            Peek::String(name) => string(self.out, name)?,
            Peek::Number(number) if self.spelling.keys_as_text => {
                self.out.push(b'"');
                self.number(number)?;
                self.out.push(b'"');
            }
            Peek::Number(_) => return Err(Unfit::new(MIXED)),
            _ => return Err(self.unfit_key(entry)),
        }
        self.out.push(b':');
        if self.spelling.is_pretty {
            self.out.push(b' ');
        }
        self.value(entry.value, depth + 1).map_err(|unfit| {
            let name = match entry.key {
                Peek::String(name) => String::from_utf8_lossy(name),
                _ => "".into(),
            };
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            unfit.inside(|| match name.bytes().all(is_plain) {
                true => format!(".{name}"),
                false => format!("[\"{}\"]", name.escape_debug()),
            })
        })
    }

    /// Writes an object with its fields in the order of their names.
    fn sorted_object(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        let (stack, mut names) = (self.stack, Vec::new());
        stack.each_entry(index, depth, |entry| {
            let name = match entry.key {
                Peek::String(name) => name.to_vec(),
                Peek::Number(number) => number.to_string().into_bytes(),
                _ => return Err(self.unfit_key(&entry)),
            };
            names.push((name, entry.cursor));
            Ok(())
        })?;
        names.sort_unstable();
        self.out.push(b'{');
        for (position, (_, cursor)) in names.iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            let written = stack.with_entry(index, *cursor, |entry| self.entry(&entry, depth));
            written.unwrap_or(Ok(()))?;
        }
        self.end(b'}', depth);
        Ok(())
    }

    /// A line break and two blanks for each level, when pretty.
    fn line(&mut self, depth: u32) {
        if self.spelling.is_pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * depth as usize, b' ');
        }
    }
}

/// Writes a string with quotes and escapes. RFC 8259 §7.
fn string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Unfit> {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        if !bytes.is_ascii() && simdutf8::basic::from_utf8(bytes).is_err() {
            return Err(Unfit::new(
                "a string that is not UTF-8 (bytes travel as text in base64 or the like)",
            ));
        }
        escape(out, bytes);
    }
    out.push(b'"');
    Ok(())
}

/// Whether every byte is ASCII that stands for itself. Eight at a time: a byte is below 0x20, or is
/// `"` or `\` after a xor makes it zero, if subtracting borrows into its highest bit.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let odd = |word: u64| {
        let quote = word ^ (ONES * 0x22);
        let slash = word ^ (ONES * 0x5c);
        // A high bit makes a byte odd by itself, so borrows out of one do not matter.
        (word.wrapping_sub(ONES * 0x20)
            | quote.wrapping_sub(ONES)
            | slash.wrapping_sub(ONES)
            | word)
            & HIGHS
    };
    let (words, _) = bytes.as_chunks::<8>();
    if words.iter().any(|word| odd(u64::from_le_bytes(*word)) != 0) {
        return false;
    }
    // The last eight overlap what has been seen, which is faster than byte by byte. Shorter texts are
    // read as their first and last bytes, which meet or overlap, beside blanks.
    const BLANKS: u64 = ONES * 0x20;
    let last = match bytes {
        [.., a, b, c, d, e, f, g, h] => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        [a, b, c, d, ..] => {
            let first = u32::from_le_bytes([*a, *b, *c, *d]);
            let last = bytes
                .last_chunk()
                .map_or(0x2020_2020, |last| u32::from_le_bytes(*last));
            u64::from(first) | u64::from(last) << 32
        }
        [a, b, c] => u64::from_le_bytes([*a, *b, *c, 32, 32, 32, 32, 32]),
        [a, b] => u64::from_le_bytes([*a, *b, 32, 32, 32, 32, 32, 32]),
        [a] => u64::from_le_bytes([*a, 32, 32, 32, 32, 32, 32, 32]),
        [] => BLANKS,
    };
    odd(last) == 0
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(is_escaped) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = behind.first().copied().unwrap_or(b' ');
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => 0,
        };
        if short == 0 {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
        rest = behind.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn plain_is_what_stands_for_itself_wherever_it_stands() {
        for byte in 0..=255_u8 {
            let expected = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            for len in 1..24 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(is_plain(&bytes), expected, "{byte} at {at} of {len}");
                }
            }
        }
    }
}
