//! Options tables and other arguments: read, checked, and refused with a message that helps.
//!
//! Sits between `vm`, whose stack it reads, and the native modules.
//!
//! Invariants
//! - Every message begins with the function and names the option or argument, what it must be and
//!   what it was.
//! - An unknown key is an error that suggests the nearest known one.
//!
//! Not here: bodies and header fields (`net/response.rs`).

use crate::vm::{Kind, Pin, Raise, Stack};
use std::ffi::CStr;
use std::time::Duration;

/// A table of options on the stack, and whose it is.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    /// Where it stands.
    pub(crate) index: i32,
    /// What messages begin with, such as `net.serve: option 'limits'`.
    pub(crate) owner: &'a str,
}

impl Options<'_> {
    /// Refuses a table with keys that are not `known`.
    pub(crate) fn check_keys(&self, stack: &mut Stack<'_>, known: &[&str]) -> Result<(), Raise> {
        self.check_keys_beside(stack, known, 0)
    }

    /// As [`check_keys`](Self::check_keys), of a table that is a list of `elements` as well.
    pub(crate) fn check_keys_beside(
        &self,
        stack: &mut Stack<'_>,
        known: &[&str],
        elements: usize,
    ) -> Result<(), Raise> {
        let mut cursor = 0;
        while let Some(next) = stack.next_entry(self.index, cursor) {
            let key = stack.len() - 1;
            if elements > 0 && stack.kind(key) == Kind::Number {
                stack.pop(2);
                cursor = next;
                continue;
            }
            let name = stack.string(key).map(String::from_utf8_lossy);
            let Some(name) = name else {
                return Err(self.error(format!(
                    "options have names, but one key is a {}",
                    stack.type_name(key)
                )));
            };
            if !known.contains(&name.as_ref()) {
                let hint = advice(&name, known);
                return Err(self.error(format!("unknown option '{}'{hint}", name.escape_debug())));
            }
            stack.pop(2);
            cursor = next;
        }
        Ok(())
    }

    /// An error that begins with the owner.
    pub(crate) fn error(&self, what: impl std::fmt::Display) -> Raise {
        Raise::from(format!("{}: {what}", self.owner))
    }

    fn mismatch(&self, stack: &Stack<'_>, key: &CStr, index: i32, must: &str) -> Raise {
        self.error(format!(
            "option '{}' must be {must}, not {}",
            key.to_string_lossy(),
            describe(stack, index)
        ))
    }

    /// Reads the option `key` with `read`, which gets where it stands; `None` if it is not given.
    fn read<T>(
        &self,
        stack: &mut Stack<'_>,
        key: &CStr,
        must: &str,
        read: impl FnOnce(&mut Stack<'_>, i32) -> Option<T>,
    ) -> Result<Option<T>, Raise> {
        stack.push_field(self.index, key);
        let at = stack.len();
        if stack.is_nil(at) {
            stack.pop(1);
            return Ok(None);
        }
        let value = read(stack, at);
        let result = match value {
            Some(value) => Ok(Some(value)),
            None => Err(self.mismatch(stack, key, at, must)),
        };
        stack.pop(stack.len() - at + 1);
        result
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn whole(
        &self,
        stack: &mut Stack<'_>,
        key: &CStr,
        (min, max): (u32, u32),
    ) -> Result<Option<u32>, Raise> {
        let must = format!("a whole number from {min} to {max}");
        self.read(stack, key, &must, |stack, at| {
            let value = stack.number(at)?;
            let fits = value.fract() == 0.0 && value >= f64::from(min) && value <= f64::from(max);
            #[expect(clippy::cast_possible_truncation, reason = "checked to lie within u32")]
            fits.then_some(value as u32)
        })
    }

    /// Seconds, above zero and at most a year.
    pub(crate) fn seconds(
        &self,
        stack: &mut Stack<'_>,
        key: &CStr,
    ) -> Result<Option<Duration>, Raise> {
        const YEAR: f64 = 365.0 * 86_400.0;
        let must = "a number of seconds, above 0 and at most a year";
        self.read(stack, key, must, |stack, at| {
            let value = stack.number(at)?;
            (value > 0.0 && value <= YEAR).then(|| Duration::from_secs_f64(value))
        })
    }

    /// The same, or `math.huge` for none: `Some(None)`.
    pub(crate) fn seconds_or_never(
        &self,
        stack: &mut Stack<'_>,
        key: &CStr,
    ) -> Result<Option<Option<Duration>>, Raise> {
        if self.is_huge(stack, key) {
            return Ok(Some(None));
        }
        Ok(self.seconds(stack, key)?.map(Some))
    }

    /// Whether it is `math.huge`.
    pub(crate) fn is_huge(&self, stack: &mut Stack<'_>, key: &CStr) -> bool {
        stack.push_field(self.index, key);
        let is_huge = stack.number(stack.len()) == Some(f64::INFINITY);
        stack.pop(1);
        is_huge
    }

    /// True or false.
    pub(crate) fn flag(&self, stack: &mut Stack<'_>, key: &CStr) -> Result<Option<bool>, Raise> {
        self.read(stack, key, "true or false", |stack, at| stack.boolean(at))
    }

    /// Text, copied: names, addresses and paths, which hold no NUL byte. What is not UTF-8 would become something else on its
    /// way to the system, and is refused.
    pub(crate) fn text(&self, stack: &mut Stack<'_>, key: &CStr) -> Result<Option<String>, Raise> {
        let bytes = self.read(stack, key, "a string", |stack, at| {
            stack.string(at).map(<[u8]>::to_vec)
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let must = match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => return Ok(Some(text)),
            Ok(_) => "a string without NUL bytes",
            Err(_) => "valid UTF-8",
        };
        stack.push_field(self.index, key);
        let mismatch = self.mismatch(stack, key, stack.len(), must);
        stack.pop(1);
        Err(mismatch)
    }

    /// A function, kept.
    pub(crate) fn function(&self, stack: &mut Stack<'_>, key: &CStr) -> Result<Option<Pin>, Raise> {
        let root = &stack.worker()?.root;
        self.read(stack, key, "a function", |stack, at| {
            (stack.kind(at) == Kind::Function).then(|| stack.pin(at, root.released()))
        })
    }

    /// A table, left on the stack: the caller pops it. Its index, or `None` with nothing pushed.
    pub(crate) fn table(&self, stack: &mut Stack<'_>, key: &CStr) -> Result<Option<i32>, Raise> {
        stack.push_field(self.index, key);
        let at = stack.len();
        match stack.kind(at) {
            Kind::Table => Ok(Some(at)),
            Kind::Nil => {
                stack.pop(1);
                Ok(None)
            }
            _ => Err(self.mismatch(stack, key, at, "a table")),
        }
    }
}

/// The value at `index` for a message: its type, and what it is if that is short.
pub(crate) fn describe(stack: &Stack<'_>, index: i32) -> String {
    if let Some(number) = stack.number(index) {
        return show_number(number);
    }
    if let Some(is_true) = stack.boolean(index) {
        return is_true.to_string();
    }
    match stack.string(index) {
        Some(bytes) if bytes.len() <= 40 => {
            format!("the string \"{}\"", bytes.escape_ascii())
        }
        Some(bytes) => format!("a string of {} bytes", bytes.len()),
        None if stack.is_nil(index) => "nil".to_owned(),
        None => {
            let name = stack.type_name(index);
            let article = match name.bytes().next() {
                Some(b'a' | b'e' | b'i' | b'o' | b'u') => "an",
                _ => "a",
            };
            format!("{article} {name}")
        }
    }
}

/// A number as scripts would write it: what takes many digits has an exponent.
fn show_number(number: f64) -> String {
    let is_plain = number == 0.0 || !number.is_finite() || (1e-5..1e17).contains(&number.abs());
    match is_plain {
        true => number.to_string(),
        false => format!("{number:e}"),
    }
}

/// Refuses the argument at `n`: `function: argument #n must be …, not …`. Those of a method are counted as the
/// script writes them, without the object before the colon.
pub(crate) fn bad_argument(stack: &Stack<'_>, function: &str, n: i32, must: &str) -> Raise {
    let shown = n - i32::from(n > 1 && function.contains(':'));
    Raise::from(format!(
        "{function}: argument #{shown} must be {must}, not {}",
        describe(stack, n)
    ))
}

/// What to say of a name that is not one of `known`: the nearest of them, those that share a word with
/// it, or all if they are few.
pub(crate) fn advice(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known) {
        return match near == name {
            true => String::new(),
            false => format!(" (did you mean '{near}'?)"),
        };
    }
    let alike: Vec<_> = known
        .iter()
        .filter(|candidate| shares_word(name, candidate))
        .map(|candidate| format!("'{candidate}'"))
        .collect();
    match alike.len() {
        1..=ALIKE_MAX => format!(" (did you mean {}?)", alike.join(" or ")),
        _ if known.len() <= LISTED_MAX => format!(" (there are {})", known.join(", ")),
        _ => String::new(),
    }
}

/// Whether a word of `name`, as capitals and underscores divide it, is in `candidate`: `maxBody` and
/// `bodyBytes`. Words of three letters are in everything.
fn shares_word(name: &str, candidate: &str) -> bool {
    let candidate = candidate.to_ascii_lowercase();
    let mut start = 0;
    let ends = name.char_indices().skip(1);
    let ends = ends.filter(|(_, c)| c.is_ascii_uppercase() || *c == '_');
    ends.map(|(at, _)| at).chain([name.len()]).any(|end| {
        let word = name.get(start..end).unwrap_or_default();
        start = end;
        let word = word.trim_matches('_').to_ascii_lowercase();
        word.len() >= 4 && candidate.contains(&word)
    })
}

/// As many names as are alike without being nearer one than another.
const ALIKE_MAX: usize = 3;

/// As many names as one looks through in a message.
const LISTED_MAX: usize = 32;

/// The known name that `name` was most likely meant to be: one begins with the other, or at most a
/// third of it differs.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let wanted = name.to_ascii_lowercase();
    let begins = |a: &str, b: &str| b.len() >= 4 && a.starts_with(b);
    let extended = known.iter().copied().find(|candidate| {
        let candidate = candidate.to_ascii_lowercase();
        begins(&wanted, &candidate) || begins(&candidate, &wanted)
    });
    if extended.is_some() {
        return extended;
    }
    known
        .iter()
        .map(|candidate| {
            (
                distance(&wanted, &candidate.to_ascii_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two names: insertions, deletions, substitutions, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Longer names than these are no typing errors.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            let mut best = (last[j] + 1)
                .min(row[j - 1] + 1)
                .min(last[j - 1] + usize::from(!same));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{LISTED_MAX, advice, nearest};

    #[test]
    fn a_mistyped_name_is_recognised_and_a_different_one_is_not() {
        let known = ["port", "address", "request", "websocket"];
        for (typed, meant) in [
            ("adress", Some("address")),
            ("Port", Some("port")),
            ("websockte", Some("websocket")),
            ("requets", Some("request")),
            ("prot", Some("port")),
            ("requestHandler", Some("request")),
            ("addr", Some("address")),
            ("handler", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }

    #[test]
    fn a_name_of_which_one_word_is_right_is_told_the_names_that_have_it() {
        let mut known = vec!["bodyBytes", "bodyTimeout", "headBytes", "headTimeout"];
        known.resize(LISTED_MAX + 1, "a");
        let known = known.as_slice();
        for (typed, told) in [
            ("maxBody", " (did you mean 'bodyBytes' or 'bodyTimeout'?)"),
            ("max_head", " (did you mean 'headBytes' or 'headTimeout'?)"),
            ("headBites", " (did you mean 'headBytes'?)"),
            ("somethingElse", ""),
            ("maxAll", ""),
        ] {
            assert_eq!(advice(typed, known), told, "{typed}");
        }
        assert_eq!(
            advice("handler", &["port", "request"]),
            " (there are port, request)"
        );
    }
}
