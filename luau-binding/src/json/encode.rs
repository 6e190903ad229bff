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
//! Not here: the options of a script (`face.rs`), the bytes of strings (`vm/output.rs`).

use super::{BYTES, DEPTH, Json};
use crate::vm::Stack;
use crate::vm::output::{NotUtf8, Output};
use crate::vm::tape::Peek;
use crate::vm::walk::Entry;

/// The values behind a text this long are more than the processor has at hand.
const LARGE_BYTES: usize = 64 * 1024;

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
    json.output.clear();
    let marks = json.marks.as_ref();
    let stack = &*stack;
    let mut encoder = Encoder {
        array_mark: marks.map_or(std::ptr::null(), |marks| marks.array_address),
        object_mark: marks.map_or(std::ptr::null(), |marks| marks.object_address),
        out: &mut json.output,
        names: [Name::NONE; NAMES],
        stack,
        spelling,
    };
    let found = stack.peek(index);
    let encoded = encoder
        .value(found, index, 0)
        .and_then(|()| encoder.check_bytes());
    encoded.map_err(|unfit| unfit.explain())?;
    Ok(json.output.written())
}

impl From<NotUtf8> for Unfit {
    #[cold]
    fn from(_: NotUtf8) -> Self {
        Self::new("a string that is not UTF-8 (bytes travel as text in base64 or the like)")
    }
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

/// A name that was written: the address of its string, where its text stands in quotes, with the colon,
/// and how long that is.
#[derive(Clone, Copy)]
struct Name {
    address: *const std::ffi::c_void,
    text: (usize, usize),
}

impl Name {
    const NONE: Self = Self {
        address: std::ptr::null(),
        text: (0, 0),
    };
}

/// How many names are known at a time.
const NAMES: usize = 32;

struct Encoder<'e, 's> {
    out: &'e mut Output,
    /// The names of objects recur, and a string that is alive is at one place and nothing else is: each name
    /// is known by its address, while nothing is freed, and its text copied from where it stands.
    names: [Name; NAMES],
    stack: &'e Stack<'s>,
    spelling: Spelling,
    array_mark: *const std::ffi::c_void,
    object_mark: *const std::ffi::c_void,
}

impl Encoder<'_, '_> {
    /// Writes the value found at `index`.
    #[inline(always)]
    fn value(&mut self, found: Peek<'_>, index: i32, depth: u32) -> Result<(), Unfit> {
        match found {
            Peek::String(bytes) => self.out.put_string(bytes)?,
            Peek::Number(value) => self.number(value)?,
            Peek::Table => self.table(index, depth)?,
            Peek::Boolean(true) => self.out.put(b"true"),
            Peek::Boolean(false) => self.out.put(b"false"),
            Peek::Nil | Peek::Null => self.out.put(b"null"),
            Peek::Integer(value) => {
                let mut digits = itoa::Buffer::new();
                self.out.put(digits.format(value).as_bytes());
            }
            Peek::Other => return Err(self.unfit_value(index)),
        }
        Ok(())
    }

    #[cold]
    fn unfit_value(&self, index: i32) -> Unfit {
        let name = self.stack.type_name(index);
        let hint = match name.as_str() {
            "buffer" => " (buffer.tostring gives its text)",
            "function" | "thread" => " (code is no data: leave it out)",
            "vector" => " (write its parts as an array)",
            _ => "",
        };
        Unfit::new(format!("a value of type {name}{hint}"))
    }

    #[inline(never)]
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
            self.out.put(digits.format(whole).as_bytes());
        } else if value.is_finite() {
            let mut digits = zmij::Buffer::new();
            let text = digits.format_finite(value);
            let text = text
                .strip_suffix(".0")
                .filter(|_| whole != 0)
                .unwrap_or(text);
            self.out.put(text.as_bytes());
        } else if self.spelling.odd_is_null {
            self.out.put(b"null");
        } else {
            let what = if value.is_nan() { "NaN" } else { "an infinity" };
            return Err(Unfit::new(format!(
                "{what} (JSON has none; the option nonFinite = \"null\" writes null)"
            )));
        }
        Ok(())
    }

    #[inline(always)]
    fn check_bytes(&self) -> Result<(), Unfit> {
        match self.out.len() > self.spelling.bytes_max as usize {
            true => Err(self.too_long()),
            false => Ok(()),
        }
    }

    #[cold]
    fn too_long(&self) -> Unfit {
        let bytes_max = self.spelling.bytes_max;
        Unfit::new(format!(
            "more than {bytes_max} bytes (the option maxBytes allows more)"
        ))
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
        let is_large = start > LARGE_BYTES;
        let walked = stack.each_entry(index, (depth, is_large), |entry| {
            let before = match written {
                Written::Nothing => {
                    written = self.what_begins(entry)?;
                    if matches!(written, Written::Array) {
                        b'['
                    } else {
                        b'{'
                    }
                }
                Written::Array | Written::Object => b',',
            };
            n += 1;
            let result = match written {
                Written::Object => self.entry(before, entry, depth),
                _ if entry.number() == Some(f64::from(n)) => {
                    self.out.push(before);
                    self.element(entry.value(), entry.value_at(), (n, depth))
                }
                _ => return Err(Leave::Scattered),
            };
            result.map_err(Leave::Unfit)
        });
        match walked {
            Ok(()) => {}
            Err(Leave::Unfit(unfit)) => return Err(unfit),
            Err(Leave::Sorted) => return self.sorted_object(index, depth),
            Err(Leave::Scattered) => {
                self.out.truncate(start);
                self.names = [Name::NONE; NAMES];
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

    /// What its first entry makes a table.
    fn what_begins(&self, first: Entry<'_>) -> Result<Written, Leave> {
        match first.number() {
            Some(1.0) => Ok(Written::Array),
            Some(_) => Err(Leave::Scattered),
            None if first.name().is_none() => Err(Leave::Unfit(self.unfit_key(first))),
            None if self.spelling.is_sorted => Err(Leave::Sorted),
            None => Ok(Written::Object),
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
        self.out.put(if is_object { b"{}" } else { b"[]" });
    }

    #[cold]
    fn unfit_key(&self, entry: Entry<'_>) -> Unfit {
        let name = self.stack.type_name(entry.key_at());
        Unfit::new(format!("a table with a key of type {name}"))
    }

    /// Writes element `n` of an array so deep, which was found at `index`.
    #[inline(always)]
    fn element(
        &mut self,
        found: Peek<'_>,
        index: i32,
        (n, depth): (u32, u32),
    ) -> Result<(), Unfit> {
        // Not the table alone bounds the text: a value that stands in many places is small in memory.
        self.check_bytes()?;
        self.line(depth + 1);
        self.value(found, index, depth + 1)
            .map_err(|unfit| unfit.inside(|| format!("[{n}]")))
    }

    /// Writes a table whose entries are no array in order: one out of order, one with holes, or,
    /// where number keys may be text, an object.
    fn scattered(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        let (mut count, mut last) = (0_u32, 0_i32);
        let mut misfit = None;
        let stack = self.stack;
        stack.each_entry(index, (depth, false), |entry| {
            match entry.number() {
                Some(n) if n >= 1.0 && n <= f64::from(i32::MAX) && n.fract() == 0.0 => {
                    #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
                    let n = n as i32;
                    last = last.max(n);
                }
                Some(_) => misfit = misfit.or(Some(HOLES)),
                None if entry.name().is_some() => misfit = Some(MIXED),
                None => return Err(self.unfit_key(entry)),
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
            stack.with_element(index, n, |at| {
                self.element(stack.peek(at), at, (n.unsigned_abs(), depth))
            })?;
        }
        self.end(b']', depth);
        Ok(())
    }

    /// Writes an object that begins with a number for a key.
    fn textual_object(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        if self.spelling.is_sorted {
            return self.sorted_object(index, depth);
        }
        let (stack, mut before) = (self.stack, b'{');
        stack.each_entry(index, (depth, false), |entry| {
            self.entry(std::mem::replace(&mut before, b','), entry, depth)
        })?;
        self.end(b'}', depth);
        Ok(())
    }

    /// Writes `before`, which is a brace or a comma, and `"key":value`.
    #[inline(always)]
    fn entry(&mut self, before: u8, entry: Entry<'_>, depth: u32) -> Result<(), Unfit> {
        self.check_bytes()?;
        let address = entry.key_address();
        // Strings are 16 bytes apart at least, and names that are made together often lie side by side.
        let slot = (address.addr() >> 4 ^ address.addr() >> 9) % NAMES;
        let known = self.names[slot];
        if known.address != address || !self.out.put_again(before, known.text) {
            self.name(before, entry, depth, slot)?;
        }
        self.value(entry.value(), entry.value_at(), depth + 1)
            .map_err(|unfit| unfit.inside(|| place_of(entry)))
    }

    /// Writes `before`, the key and a colon, and remembers in `slot` where that stands.
    #[inline(never)]
    fn name(&mut self, before: u8, entry: Entry<'_>, depth: u32, slot: usize) -> Result<(), Unfit> {
        match entry.name() {
            Some(name) if !self.spelling.is_pretty => {
                let at = self.out.len() + 1;
                self.out.put_name(before, name)?;
                self.names[slot] = Name {
                    address: entry.key_address(),
                    text: (at, self.out.len() - at),
                };
                Ok(())
            }
            _ => self.spelled_name(before, entry, depth),
        }
    }

    /// Writes `before`, the key and a colon where either is written in a special way.
    fn spelled_name(&mut self, before: u8, entry: Entry<'_>, depth: u32) -> Result<(), Unfit> {
        self.out.push(before);
        self.line(depth + 1);
        match (entry.name(), entry.number()) {
            (Some(name), _) => self.out.put_string(name)?,
            (None, Some(number)) if self.spelling.keys_as_text => {
                self.out.push(b'"');
                self.number(number)?;
                self.out.push(b'"');
            }
            (None, Some(_)) => return Err(Unfit::new(MIXED)),
            (None, None) => return Err(self.unfit_key(entry)),
        }
        self.out.push(b':');
        if self.spelling.is_pretty {
            self.out.push(b' ');
        }
        Ok(())
    }

    /// Writes an object with its fields in the order of their names.
    fn sorted_object(&mut self, index: i32, depth: u32) -> Result<(), Unfit> {
        let (stack, mut names, mut cursor) = (self.stack, Vec::new(), 0);
        let name = |entry: Entry<'_>| match (entry.name(), entry.number()) {
            (Some(name), _) => Ok(name.to_vec()),
            (None, Some(number)) => Ok(number.to_string().into_bytes()),
            (None, None) => Err(self.unfit_key(entry)),
        };
        while let Some((name, next)) = stack.with_entry(index, cursor, name) {
            names.push((name?, std::mem::replace(&mut cursor, next)));
        }
        names.sort_unstable();
        for (position, (_, cursor)) in names.iter().enumerate() {
            let before = if position == 0 { b'{' } else { b',' };
            let written =
                stack.with_entry(index, *cursor, |entry| self.entry(before, entry, depth));
            written.map_or(Ok(()), |(written, _)| written)?;
        }
        self.end(b'}', depth);
        Ok(())
    }

    /// A line break and two blanks for each level, when pretty.
    #[inline(always)]
    fn line(&mut self, depth: u32) {
        if self.spelling.is_pretty {
            self.out.put_line(2 * depth as usize);
        }
    }
}

/// The key of `entry` as a step of the path to what could not be encoded.
#[cold]
fn place_of(entry: Entry<'_>) -> String {
    let name = String::from_utf8_lossy(entry.name().unwrap_or_default());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match name.bytes().all(is_plain) {
        true => format!(".{name}"),
        false => format!("[\"{}\"]", name.escape_debug()),
    }
}
