//! JSON ⇄ Luau values, straight from the parser's tape onto the stack and back. RFC 8259.
//!
//! Sits beside `value.rs`; `net/mod.rs` gives it its script face. Decoding copies the text into a
//! buffer that is kept, for the parser unescapes in place, and walks the tape it leaves. Encoding
//! walks the stack into a buffer that is kept.
//!
//! Rules that JSON leaves open
//! - `null` decodes to `net.null`, so that no array has holes and no field goes missing; `net.null`
//!   and, inside arrays, nothing else encodes to `null`.
//! - A table with elements 1 to n and nothing else is an array; with string keys, an object. The
//!   empty table is `[]`. Any other mixture is refused, with the key that does not fit.
//! - NaN and the infinities are refused. Whole numbers below 2^53 are written without a fraction.
//! - Integers that a number cannot hold are decoded to the nearest number, as `JSON.parse` does.
//! - Strings must be UTF-8. Functions, threads, buffers and userdata are refused.
//! - With repeated keys the last one counts. An object's fields have no order; `pretty` sorts them.
//!
//! Invariants
//! - Depth is at most [`DEPTH_MAX`] in both directions, so neither stack can be exhausted.
//!
//! Not here: content types and bodies (`net/`).

use crate::vm::{Kind, Stack};
use simd_json::{Buffers, Node, StaticNode, Tape};
use std::io::Write;

/// Arrays and objects inside one another.
pub(crate) const DEPTH_MAX: usize = 128;
/// A scratch buffer that grew above this is given back after use.
const SCRATCH_BYTES_KEPT: usize = 1024 * 1024;

/// Memory that is kept from one call to the next.
#[derive(Default)]
pub(crate) struct Json {
    input: Vec<u8>,
    buffers: Buffers,
    tape: Option<Tape<'static>>,
    output: Vec<u8>,
}

impl Json {
    /// Takes a copy of `text` to decode.
    pub(crate) fn load(&mut self, text: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(text);
    }
}

/// Decodes the text that was loaded last, and pushes the value. The text is used up by it.
///
/// # Errors
/// What is wrong with the text, as half a sentence; nothing is pushed then.
pub(crate) fn decode(json: &mut Json, stack: &mut Stack<'_>) -> Result<(), String> {
    let mut tape: Tape<'_> = match json.tape.take() {
        Some(tape) => tape.reset(),
        None => Tape(Vec::new()),
    };
    let parsed = simd_json::fill_tape(&mut json.input, &mut json.buffers, &mut tape);
    let result = match parsed {
        Err(error) => Err(explain(&error)),
        Ok(()) if !stack.reserve(8) => Err("no stack left".to_owned()),
        Ok(()) => {
            let bottom = stack.len();
            let walked = push_value(&tape.0, 0, 0, stack).map(|_| ());
            if walked.is_err() {
                stack.pop(stack.len() - bottom);
            }
            walked
        }
    };
    json.tape = Some(tape.reset());
    if json.input.capacity() > SCRATCH_BYTES_KEPT {
        json.input = Vec::new();
        json.buffers = Buffers::default();
        json.tape = None;
    }
    result
}

fn explain(error: &simd_json::Error) -> String {
    format!(
        "invalid JSON at byte {}: {:?}",
        error.index(),
        error.error()
    )
}

/// Pushes the value that begins at `tape[at]`, and returns where the next one begins.
fn push_value(
    tape: &[Node<'_>],
    at: usize,
    depth: usize,
    stack: &mut Stack<'_>,
) -> Result<usize, String> {
    let truncated = || "invalid JSON: it ends too early".to_owned();
    if depth > DEPTH_MAX || !stack.reserve(8) {
        return Err(format!("JSON nested deeper than {DEPTH_MAX} levels"));
    }
    match tape.get(at).ok_or_else(truncated)? {
        Node::String(text) => stack.push_string(text),
        Node::Static(StaticNode::Null) => stack.push_null(),
        Node::Static(StaticNode::Bool(value)) => stack.push_boolean(*value),
        Node::Static(StaticNode::F64(value)) => stack.push_number(*value),
        // Numbers of Luau are doubles; the nearest one is what every other decoder gives too.
        Node::Static(StaticNode::I64(value)) => stack.push_number(nearest(*value)),
        Node::Static(StaticNode::U64(value)) => stack.push_number(nearest_unsigned(*value)),
        Node::Array { len, .. } => {
            stack.push_table(*len, 0);
            let table = stack.len();
            let mut next = at + 1;
            for element in 1..=*len {
                next = push_value(tape, next, depth + 1, stack)?;
                stack.set_element(table, element);
            }
            return Ok(next);
        }
        Node::Object { len, .. } => {
            stack.push_table(0, *len);
            let table = stack.len();
            let mut next = at + 1;
            for _ in 0..*len {
                next = push_value(tape, next, depth + 1, stack)?;
                next = push_value(tape, next, depth + 1, stack)?;
                stack.set_entry(table);
            }
            return Ok(next);
        }
    }
    Ok(at + 1)
}

fn nearest(value: i64) -> f64 {
    value as f64
}

fn nearest_unsigned(value: u64) -> f64 {
    value as f64
}

/// Encodes the value at `index`; the text is lent until the next call.
///
/// # Errors
/// What cannot be encoded, as half a sentence with the path to it.
pub(crate) fn encode<'j>(
    json: &'j mut Json,
    stack: &mut Stack<'_>,
    index: i32,
    is_pretty: bool,
) -> Result<&'j [u8], String> {
    if json.output.capacity() > SCRATCH_BYTES_KEPT {
        json.output = Vec::new();
    }
    json.output.clear();
    let bottom = stack.len();
    let mut encoder = Encoder {
        out: &mut json.output,
        stack,
        is_pretty,
    };
    let encoded = encoder.value(index, 0);
    stack.pop(stack.len() - bottom);
    encoded.map_err(|unfit| unfit.explain())?;
    Ok(&json.output)
}

/// What could not be encoded, and where: the keys from the inside out.
struct Unfit {
    what: String,
    path: Vec<String>,
}

impl Unfit {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            path: Vec::new(),
        }
    }

    fn inside(mut self, key: impl FnOnce() -> String) -> Self {
        self.path.push(key());
        self
    }

    fn explain(&self) -> String {
        // A path as long as the deepest nesting would hide what it is for.
        let shown: String = self.path.iter().rev().take(8).map(String::as_str).collect();
        match shown.is_empty() {
            true => format!("cannot encode {}", self.what),
            false => format!("cannot encode {} at value{shown}", self.what),
        }
    }
}

struct Encoder<'e, 's> {
    out: &'e mut Vec<u8>,
    stack: &'e mut Stack<'s>,
    is_pretty: bool,
}

impl Encoder<'_, '_> {
    /// Writes the value at `index`; leaves the stack as it was unless it fails.
    fn value(&mut self, index: i32, depth: usize) -> Result<(), Unfit> {
        match self.stack.kind(index) {
            Kind::Nil | Kind::None => self.out.extend_from_slice(b"null"),
            Kind::LightUserdata if self.stack.is_null(index) => {
                self.out.extend_from_slice(b"null");
            }
            Kind::Boolean => {
                let is_true = self.stack.boolean(index) == Some(true);
                self.out
                    .extend_from_slice(if is_true { b"true" } else { b"false" });
            }
            Kind::Number => self.number(self.stack.number(index).unwrap_or(0.0))?,
            Kind::Integer => {
                let value = self.stack.integer(index).unwrap_or(0);
                let _ = write!(self.out, "{value}");
            }
            Kind::String => {
                let bytes = self.stack.string(index).unwrap_or_default();
                string(self.out, bytes)?;
            }
            Kind::Table => return self.table(index, depth),
            _ => {
                let name = self.stack.type_name(index);
                return Err(Unfit::new(format!("a value of type {name}")));
            }
        }
        Ok(())
    }

    fn number(&mut self, value: f64) -> Result<(), Unfit> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if !value.is_finite() {
            return Err(Unfit::new(if value.is_nan() {
                "NaN"
            } else {
                "an infinity"
            }));
        }
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number below 2^53 fits"
            )]
            let whole = value as i64;
            digits(self.out, whole);
        } else {
            // The shortest digits that read back as the same number; large ones with an exponent.
            let _ = write!(self.out, "{value:?}");
        }
        Ok(())
    }

    /// Writes a table in one pass, as what its first key makes it.
    fn table(&mut self, index: i32, depth: usize) -> Result<(), Unfit> {
        if depth >= DEPTH_MAX || !self.stack.reserve(8) {
            return Err(Unfit::new(format!(
                "tables nested deeper than {DEPTH_MAX} levels (or inside themselves)"
            )));
        }
        let key = self.stack.len() + 1;
        let Some(cursor) = self.stack.next_entry(index, 0) else {
            self.out.extend_from_slice(b"[]");
            return Ok(());
        };
        match self.stack.kind(key) {
            Kind::Number => self.array(index, cursor, depth),
            Kind::String if self.is_pretty => {
                self.stack.pop(2);
                self.sorted_object(index, depth)
            }
            Kind::String => self.object(index, cursor, depth),
            _ => {
                let name = self.stack.type_name(key);
                Err(Unfit::new(format!("a table with a key of type {name}")))
            }
        }
    }

    /// Writes an array whose first entry has been pushed. Elements of the array part come in
    /// order; if they lie elsewhere, they are fetched by number.
    fn array(&mut self, index: i32, first: i32, depth: usize) -> Result<(), Unfit> {
        let key = self.stack.len() - 1;
        let (start, mut cursor, mut n) = (self.out.len(), first, 0_usize);
        self.out.push(b'[');
        loop {
            let is_next = self.stack.number(key) == Some((n + 1) as f64);
            if !is_next {
                self.out.truncate(start);
                self.stack.pop(2);
                return self.scattered_array(index, depth);
            }
            n += 1;
            if n > 1 {
                self.out.push(b',');
            }
            self.line(depth + 1);
            self.value(key + 1, depth + 1)
                .map_err(|unfit| unfit.inside(|| format!("[{n}]")))?;
            self.stack.pop(2);
            match self.stack.next_entry(index, cursor) {
                Some(next) => cursor = next,
                None => break,
            }
        }
        self.line(depth);
        self.out.push(b']');
        Ok(())
    }

    /// Writes an array whose elements are not all in the array part, once every key is known to
    /// be one of 1 to n.
    fn scattered_array(&mut self, index: i32, depth: usize) -> Result<(), Unfit> {
        let len = self.stack.table_len(index);
        let (mut cursor, mut count) = (0, 0_usize);
        while let Some(next) = self.stack.next_entry(index, cursor) {
            let key = self.stack.len() - 1;
            let fits = self
                .stack
                .number(key)
                .is_some_and(|n| n >= 1.0 && n <= len as f64 && n.fract() == 0.0);
            if !fits {
                let what = match self.stack.kind(key) {
                    Kind::String => "a table with both elements and named fields",
                    Kind::Number => "an array with holes (use net.null for null)",
                    _ => "a table with a key that is neither string nor number",
                };
                return Err(Unfit::new(what));
            }
            self.stack.pop(2);
            (cursor, count) = (next, count + 1);
        }
        if count != len {
            return Err(Unfit::new("an array with holes (use net.null for null)"));
        }
        self.out.push(b'[');
        for n in 1..=len {
            if n > 1 {
                self.out.push(b',');
            }
            self.line(depth + 1);
            self.stack.push_element(index, n);
            let top = self.stack.len();
            self.value(top, depth + 1)
                .map_err(|unfit| unfit.inside(|| format!("[{n}]")))?;
            self.stack.pop(1);
        }
        self.line(depth);
        self.out.push(b']');
        Ok(())
    }

    /// Writes an object whose first entry has been pushed.
    fn object(&mut self, index: i32, first: i32, depth: usize) -> Result<(), Unfit> {
        let key = self.stack.len() - 1;
        let mut cursor = first;
        self.out.push(b'{');
        loop {
            self.entry(key, depth)?;
            self.stack.pop(2);
            match self.stack.next_entry(index, cursor) {
                Some(next) => cursor = next,
                None => break,
            }
            self.out.push(b',');
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes `"key":value` of the two values from `key` on.
    fn entry(&mut self, key: i32, depth: usize) -> Result<(), Unfit> {
        let Some(name) = self.stack.string(key) else {
            return Err(Unfit::new("a table with both elements and named fields"));
        };
        string(self.out, name)?;
        self.out.push(b':');
        if self.is_pretty {
            self.out.push(b' ');
        }
        self.value(key + 1, depth + 1).map_err(|unfit| {
            let name = self.stack.string(key).unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            unfit.inside(|| format!(".{name}"))
        })
    }

    /// Writes an object with its fields in the order of their names, one a line.
    fn sorted_object(&mut self, index: i32, depth: usize) -> Result<(), Unfit> {
        let (mut cursor, mut names) = (0, Vec::new());
        while let Some(next) = self.stack.next_entry(index, cursor) {
            let key = self.stack.len() - 1;
            let Some(name) = self.stack.string(key) else {
                return Err(Unfit::new("a table with both elements and named fields"));
            };
            names.push((name.to_vec(), next));
            self.stack.pop(2);
            cursor = next;
        }
        names.sort();
        self.out.push(b'{');
        for (position, (name, _)) in names.iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.line(depth + 1);
            self.stack.push_string(name);
            let key = self.stack.len();
            self.stack.push_value_of(index, key);
            self.entry(key, depth)?;
            self.stack.pop(2);
        }
        self.line(depth);
        self.out.push(b'}');
        Ok(())
    }

    /// A line break and two blanks for each level, when pretty.
    fn line(&mut self, depth: usize) {
        if self.is_pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * depth, b' ');
        }
    }
}

/// Writes `value` in decimal.
fn digits(out: &mut Vec<u8>, value: i64) {
    let mut scratch = [0_u8; 20];
    let mut at = scratch.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        // A digit is below ten.
        scratch[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&scratch[at..]);
}

/// Which bytes of a string have to be escaped. RFC 8259 §7.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Writes a string with quotes and escapes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Unfit> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if !bytes.is_ascii() && std::str::from_utf8(bytes).is_err() {
        return Err(Unfit::new("a string that is not UTF-8"));
    }
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
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
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
    Ok(())
}
