//! Requests as plain values, and answers as three: the short way between the wire and a handler of a
//! dialect, whose API promises tables.
//!
//! Sits in the native module, used by surfaces only (`surface.plain`). The server's `request`
//! function is a surface's: it gets the parts of a request, makes the table that its dialect
//! promises, calls the script, and returns what its table holds under `status`, `headers` and
//! `body`. So no userdata is made for a request, and no table for an answer.
//!
//! ```text
//! entry(method, path, query, headers, body, …) ─▶ script ─▶ status, headers, body
//! ```
//!
//! Invariants
//! - `headers` is a table of the handler's own, which it may keep and change.
//! - What most requests have in common is nil, for the entry to say: the method GET, no query, no body.
//! - What is no common answer is not sent: the surface's `refit` makes a native answer of the same
//!   three values, or raises.
//! - One result alone is a native answer. Of three the first may be nil, which is 200.
//!
//! Not here: which tables and values a dialect has (`surface/*/`), who runs the entry and hears of
//! its errors (`bridge/plain.rs`).

mod parts;
mod shapes;
mod templates;

pub(crate) use parts::Arriving;

use super::request::{push_ip, push_pairs};
use super::response;
use crate::runtime::Worker;
use crate::value::{Options, bad_argument};
use crate::vm::walk::Met;
use crate::vm::{Kind, Outcome, Pin, Returns, Stack};
use core::net::IpAddr;
use hukilau_core::conn::{Exchange, Response};
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::url;
use parts::Parts;
use std::cell::RefCell;
use templates::Templates;

/// Fields that a common answer may have, those that are filled in among them.
const FIELDS_MAX: usize = 12;
/// Parts of a query beyond which [`Query::Parts`] refuses it.
const QUERY_PARTS_MAX: usize = 24;
/// Fields that the server writes itself. An answer that has one is no common one.
const OWN: &[&[u8]] = &[
    b"date",
    b"upgrade",
    b"connection",
    b"keep-alive",
    b"content-length",
    b"transfer-encoding",
];

/// What becomes of fields that repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Joined by `, `, and cookies by `; `.
    List,
    /// Joined by `,`.
    Comma,
    /// The last one counts.
    Last,
}

/// How a query becomes a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Query {
    /// Names and values are decoded; the values of a name that repeats are an array.
    Lists,
    /// Only values are decoded, what has no `=` is left out, and the first of a name counts.
    First,
    /// Both are decoded, the last of a name counts, and what has no `=` stands in the array part.
    /// With too many parts it is `false`.
    Parts,
}

/// How a surface wants requests and answers.
#[derive(Debug)]
pub(crate) struct Plain {
    query: Query,
    /// The entry also gets the peer's address and port.
    has_peer: bool,
    /// The entry also gets the target as sent, and the bytes of all field lines.
    has_target: bool,
    /// Fields that an answer has unless it names them itself.
    filled: Vec<Filled>,
    /// Empty values and fields of the server's own are for `refit`.
    is_strict: bool,
    /// Makes a native answer of three values that are not common.
    pub(crate) refit: Pin,
    /// Makes the answer to a request whose handler has raised.
    pub(crate) failed: Option<Pin>,
    templates: RefCell<Templates>,
    /// The last peer's address, and once it has come twice in a row, its text.
    address: RefCell<Option<(IpAddr, Option<Pin>)>>,
}

/// A field that is filled in.
#[derive(Debug)]
struct Filled {
    name: Vec<u8>,
    lower: Vec<u8>,
    value: Vec<u8>,
}

impl Filled {
    /// Whether `name` names it. The two usual spellings are known without a look at each letter.
    fn is_named(&self, name: &[u8]) -> bool {
        name.len() == self.name.len()
            && (name == self.lower || name == self.name || name.eq_ignore_ascii_case(&self.name))
    }
}

/// How an answer of three values was taken.
pub(crate) enum Taken {
    /// It was sent, or the first is an answer that cannot be sent, and this is why.
    Answered(Result<Option<super::stream::Begun>, String>),
    /// It is not a common one: nothing was sent.
    Uncommon,
}

const RULES: &[&str] = &[
    "repeats", "query", "peer", "target", "fill", "strict", "refit", "failed",
];

/// `surface.plain(server, rules)`: from here on the server's `request` function is an entry.
pub(crate) fn install(stack: &mut Stack<'_>) -> Outcome {
    const OWNER: &str = "surface.plain";
    let server = super::server::this(stack)?;
    if stack.kind(2) != Kind::Table {
        return Err(bad_argument(stack, OWNER, 2, "a table"));
    }
    stack.resize(2);
    let rules = Options {
        index: 2,
        owner: OWNER,
    };
    rules.check_keys(stack, RULES)?;
    let repeats = match rules.text(stack, c"repeats")?.as_deref() {
        Some("comma") => Repeats::Comma,
        Some("last") => Repeats::Last,
        _ => Repeats::List,
    };
    let query = match rules.text(stack, c"query")?.as_deref() {
        Some("first") => Query::First,
        Some("parts") => Query::Parts,
        _ => Query::Lists,
    };
    let mut filled = Vec::new();
    if let Some(fill) = rules.table(stack, c"fill")? {
        let mut cursor = 0;
        while let Some(next) = stack.next_entry(fill, cursor) {
            cursor = next;
            let top = stack.len();
            if let (Some(name), Some(value)) = (stack.string(top - 1), stack.string(top)) {
                filled.push(Filled {
                    name: name.to_vec(),
                    lower: name.to_ascii_lowercase(),
                    value: value.to_vec(),
                });
            }
            stack.pop(2);
        }
    }
    let refit = rules.function(stack, c"refit")?;
    let plain = Plain {
        query,
        has_peer: rules.flag(stack, c"peer")?.unwrap_or(false),
        has_target: rules.flag(stack, c"target")?.unwrap_or(false),
        filled,
        is_strict: rules.flag(stack, c"strict")?.unwrap_or(false),
        refit: refit.ok_or_else(|| rules.error("option 'refit' is needed"))?,
        failed: rules.function(stack, c"failed")?,
        templates: RefCell::new(Templates::new(repeats)),
        address: RefCell::default(),
    };
    // A second call changes nothing.
    let _ = server.plain.set(Box::new(plain));
    Ok(Returns::Values(0))
}

impl Plain {
    /// Pushes the arguments of the entry, and returns how many there are.
    pub(crate) fn push_arguments(&self, stack: &mut Stack<'_>, request: &impl Parts) -> i32 {
        let (target, bottom) = (url::split_target(request.target()), stack.len());
        match request.method() {
            b"GET" => stack.push_nil(),
            method => stack.push_string(method),
        }
        stack.push_string(target.path);
        match target.query {
            Some(query) => self.push_query(stack, query),
            None => stack.push_nil(),
        }
        self.templates.borrow_mut().push(stack, request);
        match request.body() {
            [] => stack.push_nil(),
            body => stack.push_string(body),
        }
        let mut count = 5;
        if self.has_peer {
            self.push_address(stack, request.address());
            stack.push_number(f64::from(request.port()));
            count += 2;
        }
        if self.has_target {
            match target.path.len() == request.target().len() {
                true => stack.push_copy(bottom + 2),
                false => stack.push_string(request.target()),
            }
            stack.push_number(request.field_lines().len() as f64);
            count += 2;
        }
        count
    }

    /// Pushes the text of an address. Behind a proxy, and for requests of one connection, it is the last one's.
    fn push_address(&self, stack: &mut Stack<'_>, address: Option<IpAddr>) {
        let Some(address) = address else {
            return stack.push_string(b"");
        };
        let mut last = self.address.borrow_mut();
        match &mut *last {
            Some((last, Some(text))) if *last == address => stack.push_pin(text),
            Some((last, text)) if *last == address => {
                push_ip(stack, address);
                let at = stack.len();
                *text = (stack.worker().ok()).map(|worker| stack.pin(at, worker.root.released()));
            }
            _ => {
                push_ip(stack, address);
                *last = Some((address, None));
            }
        }
    }

    fn push_query(&self, stack: &mut Stack<'_>, query: &[u8]) {
        let parts = || {
            query
                .split(|byte| *byte == b'&')
                .filter(|part| !part.is_empty())
        };
        let cut = |part: &'_ [u8]| part.iter().position(|byte| *byte == b'=');
        match self.query {
            Query::Lists => push_pairs(stack, url::query_pairs(query)),
            Query::Parts if parts().count() > QUERY_PARTS_MAX => stack.push_boolean(false),
            Query::Parts => {
                stack.push_table(0, 4);
                let (table, mut bare) = (stack.len(), 0);
                for part in parts() {
                    let Some(mark) = cut(part) else {
                        bare += 1;
                        stack.push_string(url::form_decode(part));
                        stack.set_element(table, bare);
                        continue;
                    };
                    stack.push_string(url::form_decode(part.get(..mark).unwrap_or_default()));
                    stack.push_string(url::form_decode(part.get(mark + 1..).unwrap_or_default()));
                    stack.set_entry(table);
                }
            }
            Query::First => {
                stack.push_table(0, 4);
                let table = stack.len();
                for part in parts() {
                    let Some(mark) = cut(part) else { continue };
                    stack.push_string(part.get(..mark).unwrap_or_default());
                    stack.push_value_of(table, table + 1);
                    let is_new = stack.is_nil(table + 2);
                    stack.pop(1);
                    if is_new {
                        let value = part.get(mark + 1..).unwrap_or_default();
                        stack.push_string(url::form_decode(value));
                        stack.set_entry(table);
                    } else {
                        stack.pop(1);
                    }
                }
            }
        }
    }

    /// Answers with the results of the entry, which are the whole of `stack`.
    pub(crate) fn respond(
        &self,
        worker: &Worker,
        stack: &mut Stack<'_>,
        (conn, exchange): (ConnKey, Exchange),
    ) -> Taken {
        if stack.len() == 1 {
            return Taken::Answered(response::respond(worker, stack, conn, exchange));
        }
        let status = match stack.number(1) {
            None if stack.is_nil(1) => 200,
            None => return Taken::Uncommon,
            Some(number) => {
                #[expect(clippy::cast_possible_truncation, reason = "compared below")]
                let status = number as u16;
                if f64::from(status) != number || !(200..=599).contains(&status) {
                    return Taken::Uncommon;
                }
                status
            }
        };
        let mut fields: [(&[u8], &[u8]); FIELDS_MAX] = [(&[], &[]); FIELDS_MAX];
        let Some(count) = self.read_fields(stack, &mut fields) else {
            return Taken::Uncommon;
        };
        let body = match stack.bytes(3) {
            Some(bytes) => bytes,
            None if stack.is_nil(3) => &[],
            None => return Taken::Uncommon,
        };
        let response = Response {
            status,
            fields: fields.get(..count).unwrap_or_default(),
            body,
        };
        Taken::Answered(response::send(worker, conn, exchange, &response).map(|()| None))
    }

    /// Reads the fields at 2 into `fields`, and fills in those that lack; how many there are, or
    /// `None` if they are not common.
    fn read_fields<'s>(
        &'s self,
        stack: &'s Stack<'_>,
        fields: &mut [(&'s [u8], &'s [u8]); FIELDS_MAX],
    ) -> Option<usize> {
        let mut count = 0;
        if !stack.is_nil(2) {
            let is_common = stack.is_plain_table(2)
                && stack.walk(2, |key, value| {
                    let (Some(place), Some(name), Met::Text(value)) =
                        (fields.get_mut(count), key.name, value)
                    else {
                        return false;
                    };
                    *place = (name, value);
                    count += 1;
                    !self.is_strict || (!value.is_empty() && !is_own(name))
                });
            if !is_common {
                return None;
            }
        }
        for filled in &self.filled {
            let given = fields.get(..count)?;
            if !given.iter().any(|(name, _)| filled.is_named(name)) {
                *fields.get_mut(count)? = (&filled.name, &filled.value);
                count += 1;
            }
        }
        Some(count)
    }
}

fn is_own(name: &[u8]) -> bool {
    matches!(name.len(), 4 | 7 | 10 | 14 | 17)
        && OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}
