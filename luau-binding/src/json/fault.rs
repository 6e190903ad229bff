//! What is wrong with a text that is no JSON, and where. RFC 8259.
//!
//! Sits inside `json.rs`. The parser is made for texts that are right and is brief about others:
//! only when it has refused one is it read again here, byte by byte, for a message that helps.
//!
//! Invariants
//! - Only messages depend on this reading: what is JSON and what is not, the parser decides.
//!
//! Not here: what texts become (`json.rs`).

use std::fmt::Write;

/// Half a sentence on what is wrong with `text`: `invalid JSON at line 2, column 5 (byte 17): …`.
pub(super) fn explain(text: &[u8], depth_max: u32) -> String {
    let mut scan = Scan {
        text,
        at: 0,
        depth_left: depth_max,
    };
    let syntax = scan.document().err();
    let utf8 = std::str::from_utf8(text).err().map(|error| Fault {
        at: error.valid_up_to(),
        what: "bytes that are not UTF-8".to_owned(),
    });
    let first = match (syntax, utf8) {
        (Some(syntax), Some(utf8)) if syntax.at < utf8.at => Some(syntax),
        (syntax, utf8) => utf8.or(syntax),
    };
    let Some(fault) = first else {
        return "invalid JSON".to_owned();
    };
    let before = text.get(..fault.at).unwrap_or(text);
    let line = before.split(|byte| *byte == b'\n').count();
    let last = before
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or(before);
    // Bytes that continue a character do not count.
    let column = last.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
    format!(
        "invalid JSON at line {line}, column {column} (byte {}): {}",
        fault.at, fault.what
    )
}

/// What is wrong at which byte.
struct Fault {
    at: usize,
    what: String,
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    depth_left: u32,
}

type Scanned = Result<(), Fault>;

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault {
            at: self.at,
            what: what.into(),
        }
    }

    /// `expected`, but there is something else.
    fn expected(&self, what: &str) -> Fault {
        let mut text = format!("{what} expected, ");
        match self.peek() {
            None => text.push_str("but the text ends"),
            Some(byte) if byte.is_ascii_graphic() => {
                let _ = write!(text, "not '{}'", char::from(byte));
            }
            Some(byte) => {
                let _ = write!(text, "not byte 0x{byte:02x}");
            }
        }
        self.fault(text)
    }

    fn document(&mut self) -> Scanned {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            return Err(self.fault("a byte order mark, which JSON does not have"));
        }
        self.value()?;
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the text")),
        }
    }

    fn value(&mut self) -> Scanned {
        self.blanks();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'\'') => Err(self.fault("strings have double quotes, not single ones")),
            Some(b'/') => Err(self.fault("JSON has no comments")),
            _ => Err(self.expected("a value")),
        }
    }

    fn nested(&mut self, inside: impl Fn(&mut Self) -> Scanned) -> Scanned {
        match self.depth_left.checked_sub(1) {
            None => return Err(self.fault("nested too deep (the option maxDepth allows more)")),
            Some(left) => self.depth_left = left,
        }
        self.at += 1;
        inside(self)?;
        self.depth_left += 1;
        Ok(())
    }

    fn array(&mut self) -> Scanned {
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            self.blanks();
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => self.at += 1,
                _ => return Err(self.expected("',' or ']'")),
            }
            self.blanks();
            if self.peek() == Some(b']') {
                return Err(self.fault("no comma may stand behind the last element"));
            }
        }
    }

    fn object(&mut self) -> Scanned {
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in double quotes"));
            }
            self.string()?;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.expected("':'"));
            }
            self.at += 1;
            self.value()?;
            self.blanks();
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => self.at += 1,
                _ => return Err(self.expected("',' or '}'")),
            }
            self.blanks();
            if self.peek() == Some(b'}') {
                return Err(self.fault("no comma may stand behind the last field"));
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Scanned {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        if rest.get(..len) != Some(word) {
            return Err(self.fault("a value expected: true, false, null, or text in double quotes"));
        }
        self.at += len;
        Ok(())
    }

    fn digits(&mut self) -> Scanned {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.expected("a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Scanned {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.fault("a number does not begin with a zero"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let value = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok());
        if value.is_some_and(f64::is_infinite) {
            self.at = start;
            return Err(self.fault("a number beyond the greatest there is, about 1.8e308"));
        }
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => {
                    self.at = start;
                    return Err(self.fault("a string that does not end"));
                }
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(byte @ 0..=0x1f) => {
                    return Err(self.fault(format!(
                        "a string holds byte 0x{byte:02x}, which must be escaped as \\u{byte:04x}"
                    )));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Scanned {
        let start = self.at;
        let unit = |at: usize| {
            let digits = std::str::from_utf8(self.text.get(at..at + 4)?).ok()?;
            // `from_str_radix` takes a sign, JSON does not.
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
        };
        let what = match self.text.get(start + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                return Ok(());
            }
            Some(b'u') => match unit(start + 2) {
                None => "\\u needs four hexadecimal digits",
                Some(0xdc00..=0xdfff) => "half a surrogate pair",
                Some(0xd800..=0xdbff) => {
                    let is_paired = self.text.get(start + 6..start + 8) == Some(b"\\u")
                        && matches!(unit(start + 8), Some(0xdc00..=0xdfff));
                    if is_paired {
                        self.at += 12;
                        return Ok(());
                    }
                    "half a surrogate pair"
                }
                Some(_) => {
                    self.at += 6;
                    return Ok(());
                }
            },
            _ => "an escape that JSON does not have; a backslash itself is \\\\",
        };
        Err(self.fault(what))
    }
}
