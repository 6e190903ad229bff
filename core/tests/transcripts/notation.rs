//! Bytes as text: escapes, repetitions, and what the application does between them.

use std::time::Duration;

/// Runs of one byte from this length on are written as a repetition.
const RUN_MIN: usize = 20;

/// One step of a script.
#[derive(Debug)]
pub(crate) enum Step {
    /// The peer sends.
    Bytes(Vec<u8>),
    /// Something else happens.
    Act(Action),
}

/// What happens beside bytes, and where a cut cannot fall.
#[derive(Debug)]
pub(crate) enum Action {
    /// The peer finishes its side.
    Eof,
    /// Time passes.
    Wait(Duration),
    /// The application sends a message; text unless `binary`.
    Send { binary: bool, payload: Vec<u8> },
    /// The application pings.
    Ping(Vec<u8>),
    /// The application begins to close.
    Close { code: u16, reason: Vec<u8> },
    /// The server shuts down.
    Drain,
}

impl Step {
    /// Bytes the peer sends in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Act(_) => 0,
        }
    }
}

/// The bytes `text` stands for. Line ends of the text itself stand for nothing.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let behind = &rest[character.len_utf8()..];
        rest = match character {
            '\n' => behind,
            '\\' => {
                let (byte, behind) = escape(behind).ok_or_else(|| wrong("escape", rest))?;
                bytes.push(byte);
                behind
            }
            '⟨' => {
                let (body, behind) = behind
                    .split_once('⟩')
                    .ok_or_else(|| wrong("repetition", rest))?;
                let (unit, count) = body
                    .rsplit_once('×')
                    .ok_or_else(|| wrong("repetition", rest))?;
                let count = count.parse().map_err(|_| wrong("repetition", rest))?;
                bytes.extend(unescape(unit)?.repeat(count));
                behind
            }
            _ => {
                bytes.extend_from_slice(&rest.as_bytes()[..character.len_utf8()]);
                behind
            }
        };
    }
    Ok(bytes)
}

fn wrong(what: &str, rest: &str) -> String {
    format!("malformed {what} at: {rest}")
}

/// The byte of one escape, behind its backslash, and what follows.
fn escape(text: &str) -> Option<(u8, &str)> {
    let byte = match text.as_bytes().first()? {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b'0' => 0,
        b'\\' => b'\\',
        b'"' => b'"',
        b'x' => return Some((u8::from_str_radix(text.get(1..3)?, 16).ok()?, &text[3..])),
        _ => return None,
    };
    Some((byte, &text[1..]))
}

/// `bytes` as text that [`unescape`] reads back. Letters and digits of any script stand for
/// themselves if all of it is UTF-8.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    let utf8 = std::str::from_utf8(bytes).is_ok();
    let mut rest = bytes;
    while let [byte, ..] = rest {
        let run = rest.iter().take_while(|next| *next == byte).count();
        if run >= RUN_MIN {
            text.push_str(&format!("⟨{}×{run}⟩", escaped(&[*byte])));
            rest = &rest[run..];
            continue;
        }
        let letter = std::str::from_utf8(&rest[..rest.len().min(4)])
            .or_else(|error| std::str::from_utf8(&rest[..error.valid_up_to()]))
            .ok()
            .and_then(|head| head.chars().next())
            .filter(|letter| utf8 && !letter.is_ascii() && letter.is_alphanumeric());
        if let Some(letter) = letter {
            text.push(letter);
            rest = &rest[letter.len_utf8()..];
            continue;
        }
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0 => text.push_str("\\0"),
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
        rest = &rest[1..];
    }
    text
}

/// ` "…"`, or nothing where there are no bytes.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", escaped(bytes))
    }
}

/// A number of seconds or milliseconds: `25s`, `9999ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit): (&str, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis),
        None => (
            text.strip_suffix('s').unwrap_or_default(),
            Duration::from_secs,
        ),
    };
    digits
        .parse()
        .map(unit)
        .map_err(|_| format!("no duration: {text}"))
}

/// The steps of an HTTP input: bytes, with `<EOF>`, `<DRAIN>` and `<WAIT 10s>` between them.
pub(crate) fn http_steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    loop {
        let mark = ["<EOF>", "<DRAIN>", "<WAIT "]
            .iter()
            .filter_map(|mark| rest.find(mark))
            .min();
        let (bytes, behind) = rest.split_at(mark.unwrap_or(rest.len()));
        let bytes = unescape(bytes)?;
        if !bytes.is_empty() {
            steps.push(Step::Bytes(bytes));
        }
        let Some((mark, behind)) = behind.split_once('>') else {
            return Ok(steps);
        };
        steps.push(Step::Act(match mark {
            "<EOF" => Action::Eof,
            "<DRAIN" => Action::Drain,
            wait => Action::Wait(duration(wait.trim_start_matches("<WAIT "))?),
        }));
        rest = behind;
    }
}

#[test]
fn escapes_are_undone() {
    let all: Vec<u8> = (0..=u8::MAX)
        .chain([b'a'; 99])
        .chain("ñ⟨×⟩".bytes())
        .collect();
    assert_eq!(unescape(&escaped(&all)).as_deref(), Ok(&all[..]));
    assert_eq!(
        unescape("a\nb⟨\\r\\n×2⟩").as_deref(),
        Ok(&b"ab\r\n\r\n"[..])
    );
    assert_eq!(escaped("grün".as_bytes()), "grün");
    assert!(unescape("\\q").is_err() && unescape("⟨a⟩").is_err());
}
