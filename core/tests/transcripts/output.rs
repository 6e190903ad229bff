//! What a connection sent, in words: responses first, frames after an upgrade.

use crate::frames;
use crate::notation::quoted;
use hukilau_core::violation::Violation;
use std::fmt::Write as _;

/// Fields of our responses that a log shows, in this order; `Connection` only its value.
const SHOWN: &[&str] = &[
    "Connection",
    "Allow",
    "Upgrade",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Transfer-Encoding",
];

/// Describes `bytes` as responses, and as frames once one of them was a 101.
pub(crate) fn describe(mut bytes: &[u8], upgraded: &mut bool, masked: bool) -> String {
    let mut text = String::new();
    while !bytes.is_empty() {
        if *upgraded {
            text.push_str(&frames::describe(bytes, masked));
            break;
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.expect("we send whole heads") + 4;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).expect("our heads are ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .expect("we speak HTTP/1.1");
        let fields: Vec<(&str, &str)> = lines
            .map(|line| line.split_once(": ").expect("a name and a value"))
            .collect();
        *upgraded = status.starts_with("101");
        let length = value(&fields, "Content-Length")
            .map_or(0, |digits| digits.parse().expect("our lengths are numbers"));
        // The answers of the runner to HEAD have no body; nothing follows a refusal.
        let (body, rest) = rest.split_at(rest.len().min(length));
        bytes = rest;
        let _ = write!(text, "< {status}");
        for name in SHOWN {
            match value(&fields, name) {
                Some(value) if *name == "Connection" => {
                    let _ = write!(text, " {value}");
                }
                Some(value) => {
                    let _ = write!(text, " {name}={value}");
                }
                None => {}
            }
        }
        if length > 0 && body.is_empty() {
            text.push_str(" bodiless");
        }
        let is_refusal = Violation::ALL.iter().any(|violation| {
            let sentence = format!("{violation}\n");
            sentence.as_bytes() == body
        });
        if !is_refusal {
            text.push_str(&quoted(body));
        }
        text.push('\n');
    }
    text
}

fn value<'a>(fields: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    let mut values = fields.iter().filter(|(have, _)| *have == name);
    let value = values.next().map(|(_, value)| *value);
    assert!(values.next().is_none(), "we send {name} twice");
    value
}
