//! A request as scripts see it: one piece of userdata that holds a copy of the head and the body,
//! and turns into Luau values only what is asked for.
//!
//! Sits in the native module. A request is a record: numbers and the peer ([`Prefix`]), the spans
//! of its fields, the head's bytes, the body's bytes. It refers to nothing, so the collector frees
//! it without a destructor, and a script may keep it as long as it likes.
//!
//! Invariants
//! - Spans of the head were checked by the parser; one that does not fit reads as empty.
//! - Names of fields compare without case (RFC 9110 §5.1); values are bytes as sent.
//!
//! Not here: its header fields as a value (`headers.rs`), who answers it (`bridge.rs`), what an
//! answer may be (`response.rs`).

use super::{body, cookies, form, methods};
use crate::json;
use crate::runtime::Worker;
use crate::value::bad_argument;
use crate::vm::atom::Atom;
use crate::vm::object::{Metatable, Tag};
use crate::vm::{Outcome, Raise, Returns, Stack};
use core::net::IpAddr;
use hukilau_core::conn::Exchange;
use hukilau_core::http1::Request;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::transport::Peer;
use hukilau_core::url;
use std::rc::Rc;

/// Bytes of [`Prefix`] in front of each record.
const PREFIX_BYTES: usize = 48;
/// Bytes of one field's spans: offset and length of name and value, 16 bits each.
const FIELD_BYTES: usize = 8;

/// What stands in front of a record. Offsets into a head fit 16 bits (`Limits::head_bytes_max`).
#[derive(Clone, Copy)]
struct Prefix {
    fields: u16,
    head_len: u16,
    method: (u16, u16),
    target: (u16, u16),
    port: u16,
    /// Bytes of the address that count: 0 for a socket file, 4, or 16.
    address_len: u8,
    address: [u8; 16],
    /// The connection's key as a token, and the number of the exchange.
    token: u64,
    exchange: u32,
    /// The head announces a body.
    has_body: bool,
    /// The body comes by `request:read()`, and is not in the record.
    is_streamed: bool,
    /// It came over TLS.
    is_secure: bool,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) conn: ConnKey,
    pub(crate) exchange: Exchange,
    pub(crate) peer: Option<Peer>,
    /// Its body comes by `request:read()`.
    pub(crate) is_streamed: bool,
    /// It came over TLS.
    pub(crate) is_secure: bool,
}

impl Prefix {
    fn of(request: &Request<'_>, origin: &Origin) -> Self {
        let head = request.head();
        let narrow = |n: u32| u16::try_from(n).unwrap_or(0);
        let (port, address_len, address) = match origin.peer {
            Some(Peer::Ip(peer)) => match peer.ip() {
                IpAddr::V4(ip) => {
                    let mut address = [0; 16];
                    address[..4].copy_from_slice(&ip.octets());
                    (peer.port(), 4, address)
                }
                IpAddr::V6(ip) => (peer.port(), 16, ip.octets()),
            },
            _ => (0, 0, [0; 16]),
        };
        Self {
            fields: u16::try_from(request.field_spans().len()).unwrap_or(0),
            head_len: narrow(head.len),
            method: (narrow(head.method_span.start), narrow(head.method_span.len)),
            target: (narrow(head.target.start), narrow(head.target.len)),
            port,
            address_len,
            address,
            token: origin.conn.to_token(),
            exchange: origin.exchange.0,
            has_body: request.has_body(),
            is_streamed: origin.is_streamed,
            is_secure: origin.is_secure,
        }
    }

    fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        let numbers = [
            self.fields,
            self.head_len,
            self.method.0,
            self.method.1,
            self.target.0,
            self.target.1,
            self.port,
            u16::from(self.address_len),
        ];
        for (place, number) in bytes.chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes[16..32].copy_from_slice(&self.address);
        bytes[32..40].copy_from_slice(&self.token.to_ne_bytes());
        bytes[40..44].copy_from_slice(&self.exchange.to_ne_bytes());
        bytes[44] = u8::from(self.has_body);
        bytes[45] = u8::from(self.is_streamed);
        bytes[46] = u8::from(self.is_secure);
        bytes
    }
}

/// A record, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// As [`Prefix::to_bytes`] has laid it out. Read number by number: most uses need two of them.
    prefix: &'a [u8; PREFIX_BYTES],
    fields: &'a [u8],
    head: &'a [u8],
    body: &'a [u8],
}

/// The `n`th of the numbers that a prefix begins with.
fn number(prefix: &[u8; PREFIX_BYTES], n: usize) -> u16 {
    u16::from_ne_bytes([prefix[2 * n], prefix[2 * n + 1]])
}

fn cut(bytes: &[u8], (start, len): (u16, u16)) -> &[u8] {
    let start = usize::from(start);
    bytes.get(start..start + usize::from(len)).unwrap_or(&[])
}

impl<'a> View<'a> {
    /// The request in the bytes of a record.
    pub(crate) fn of(record: &'a [u8]) -> Option<Self> {
        let (prefix, rest) = record.split_first_chunk::<PREFIX_BYTES>()?;
        let fields = usize::from(number(prefix, 0)) * FIELD_BYTES;
        let (fields, rest) = rest.split_at_checked(fields)?;
        let (head, body) = rest.split_at_checked(usize::from(number(prefix, 1)))?;
        Some(Self {
            prefix,
            fields,
            head,
            body,
        })
    }

    /// The request at `index` of `stack`.
    pub(crate) fn at(stack: &'a Stack<'_>, index: i32) -> Option<Self> {
        Self::of(stack.record(index, Tag::Request)?)
    }

    /// The method as sent.
    pub(crate) fn method(&self) -> &'a [u8] {
        cut(self.head, (number(self.prefix, 2), number(self.prefix, 3)))
    }

    /// The request-target as sent.
    pub(crate) fn target(&self) -> &'a [u8] {
        cut(self.head, (number(self.prefix, 4), number(self.prefix, 5)))
    }

    /// The body, as far as it is in the record.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether the head announced a body.
    pub(super) fn has_body(&self) -> bool {
        self.prefix[44] != 0
    }

    /// Whether the body comes by `request:read()`.
    pub(super) fn is_streamed(&self) -> bool {
        self.prefix[45] != 0
    }

    /// Whether it came over TLS.
    fn is_secure(&self) -> bool {
        self.prefix[46] != 0
    }

    /// The path of the target, as sent.
    fn path(&self) -> &'a [u8] {
        url::split_target(self.target()).path
    }

    /// Whose request it is.
    pub(super) fn origin(&self) -> Option<(ConnKey, Exchange)> {
        let (_, numbers) = self.prefix.split_first_chunk::<32>()?;
        let (token, rest) = numbers.split_first_chunk()?;
        let exchange = rest.first_chunk()?;
        let conn = ConnKey::from_token(u64::from_ne_bytes(*token))?;
        Some((conn, Exchange(u32::from_ne_bytes(*exchange))))
    }

    /// How many [`fields`](Self::fields) there are.
    pub(super) fn field_count(&self) -> usize {
        self.fields.len() / FIELD_BYTES
    }

    /// Names and values in wire order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (head, fields) = (self.head, self.fields);
        fields.chunks_exact(FIELD_BYTES).map(move |spans| {
            let number = |n: usize| u16::from_ne_bytes([spans[2 * n], spans[2 * n + 1]]);
            (
                cut(head, (number(0), number(1))),
                cut(head, (number(2), number(3))),
            )
        })
    }

    /// The values of all fields called `name`.
    pub(super) fn values<'n>(
        &self,
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields()
            .filter(move |(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The peer's address; `None` for a socket file.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let mut address = [0; 16];
        address.copy_from_slice(&self.prefix[16..32]);
        let [a, b, c, d, ..] = address;
        match number(self.prefix, 7) {
            4 => Some(IpAddr::from([a, b, c, d])),
            16 => Some(IpAddr::from(address)),
            _ => None,
        }
    }

    /// The peer's address as text; empty for a socket file.
    pub(crate) fn ip(&self) -> String {
        self.address().map_or_else(String::new, |ip| ip.to_string())
    }

    /// The peer's port; 0 for a socket file.
    pub(crate) fn port(&self) -> u16 {
        number(self.prefix, 6)
    }

    /// The bytes of the head from the first field's name on; empty without fields.
    pub(super) fn field_lines(&self) -> &'a [u8] {
        let first = self.fields.first_chunk::<2>();
        let start = first.map(|start| usize::from(u16::from_ne_bytes(*start)));
        start
            .and_then(|start| self.head.get(start..))
            .unwrap_or_default()
    }
}

/// A request that has arrived, wherever it lies.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// In the connection's buffer, without a body.
    Head(&'a Request<'a>, &'a Origin),
    /// Kept until its body was there.
    Whole(&'a Unfinished),
}

impl Source<'_> {
    /// Pushes the request as userdata.
    pub(crate) fn push(&self, worker: &Worker, stack: &mut Stack<'_>) {
        match self {
            Self::Head(request, origin) => push(worker, stack, request, origin),
            Self::Whole(whole) => whole.push(stack),
        }
    }
}

/// A request whose body has not arrived: its record without the body.
pub(crate) struct Unfinished {
    prefix: [u8; PREFIX_BYTES],
    fields: Box<[u8]>,
    head: Box<[u8]>,
    /// What has arrived of the body.
    pub(crate) body: Vec<u8>,
}

/// Pushes an address as text.
pub(super) fn push_ip(stack: &mut Stack<'_>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        return stack.push_string(ip.to_string());
    };
    let mut text = [b'.'; 15];
    let mut len = 0;
    for byte in ip.octets() {
        for (digit, is_shown) in [
            (byte / 100, byte >= 100),
            (byte / 10 % 10, byte >= 10),
            (byte % 10, true),
        ] {
            if is_shown && let Some(place) = text.get_mut(len) {
                *place = b'0' + digit;
                len += 1;
            }
        }
        // The dot is there.
        len += 1;
    }
    stack.push_string(text.get(..len - 1).unwrap_or_default());
}

/// Writes the spans of a request's fields.
fn write_fields(request: &Request<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(request.field_spans().len() * FIELD_BYTES);
    for field in request.field_spans() {
        let narrow = |n: u32| u16::try_from(n).unwrap_or(0).to_ne_bytes();
        let [[a, b], [c, d]] = [narrow(field.name.start), narrow(field.name.len)];
        let [[e, f], [g, h]] = [narrow(field.value.start), narrow(field.value.len)];
        out.extend_from_slice(&[a, b, c, d, e, f, g, h]);
    }
}

/// Pushes a request that has no body, or one that is read piece by piece.
pub(crate) fn push(worker: &Worker, stack: &mut Stack<'_>, request: &Request<'_>, origin: &Origin) {
    let prefix = Prefix::of(request, origin).to_bytes();
    let mut fields = worker.scratch.borrow_mut();
    write_fields(request, &mut fields);
    stack.push_record(Tag::Request, [&prefix, &fields, request.bytes(), &[]]);
}

impl Unfinished {
    /// Keeps a request until its body is there.
    pub(crate) fn new(request: &Request<'_>, origin: &Origin) -> Self {
        let mut fields = Vec::new();
        write_fields(request, &mut fields);
        Self {
            prefix: Prefix::of(request, origin).to_bytes(),
            fields: fields.into_boxed_slice(),
            head: request.bytes().into(),
            body: Vec::new(),
        }
    }

    /// The request with what has arrived of its body.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            prefix: &self.prefix,
            fields: &self.fields,
            head: &self.head,
            body: &self.body,
        }
    }

    /// Pushes the request with what has arrived of its body.
    pub(crate) fn push(&self, stack: &mut Stack<'_>) {
        stack.push_record(
            Tag::Request,
            [&self.prefix, &self.fields, &self.head, &self.body],
        );
    }
}

/// Installs the metatable of requests.
pub(crate) fn install(lua: &mlua::Lua, worker: &Rc<Worker>) -> mlua::Result<()> {
    Metatable::new(lua, worker, Tag::Request, c"Request")?
        .with(c"__index", index)?
        .with(c"__newindex", refuse_write)?
        .with(c"__namecall", call)?
        .install()?;
    methods::add(lua, worker, (Tag::Request, Atom::Json), c"json", json)?;
    methods::add(lua, worker, (Tag::Request, Atom::Buffer), c"buffer", buffer)?;
    methods::add(lua, worker, (Tag::Request, Atom::Form), c"form", form::read)?;
    methods::add(lua, worker, (Tag::Request, Atom::Read), c"read", body::read)?;
    methods::add(lua, worker, (Tag::Request, Atom::Closed), c"closed", closed)
}

pub(super) fn not_a_request(stack: &Stack<'_>) -> Raise {
    bad_argument(stack, "request", 1, "a request (call methods with a colon)")
}

fn refuse_write(_: &mut Stack<'_>) -> Outcome {
    Err(Raise::from("a request cannot be changed"))
}

/// `request.name`.
fn index(stack: &mut Stack<'_>) -> Outcome {
    let atom = stack.atom(2);
    let is_elsewhere = |view: View<'_>| view.is_streamed() && view.has_body();
    if atom == Some(Atom::Body) && View::at(stack, 1).is_some_and(is_elsewhere) {
        return Err(Raise::from(
            "request.body: the server streams bodies (streamBody = true): read it with request:read()",
        ));
    }
    let is_pushed = match atom {
        Some(Atom::Method) => push_part(stack, |view| view.method()),
        Some(Atom::Path) => push_part(stack, |view| view.path()),
        Some(Atom::Target) => push_part(stack, |view| view.target()),
        Some(Atom::Body) => push_part(stack, |view| view.body()),
        _ => false,
    };
    if is_pushed {
        return Ok(Returns::Values(1));
    }
    let view = View::at(stack, 1).ok_or_else(|| not_a_request(stack))?;
    match atom {
        Some(Atom::Scheme) if view.is_secure() => stack.push_string("https"),
        Some(Atom::Scheme) => stack.push_string("http"),
        Some(Atom::ClientSubject) => super::tls::push_subject(stack)?,
        Some(Atom::Port) => {
            let port = view.port();
            stack.push_number(f64::from(port));
        }
        Some(Atom::Ip) => {
            let ip = view.ip();
            stack.push_string(ip);
        }
        Some(Atom::Query) => {
            let query = url::split_target(view.target()).query.unwrap_or(&[]);
            let query = query.to_vec();
            push_pairs(stack, url::query_pairs(&query));
        }
        Some(Atom::Cookies) => cookies::push(stack),
        Some(Atom::Headers) => push_headers(stack),
        Some(atom) if methods::push(stack, Tag::Request, atom)? => {}
        _ => return Err(methods::unknown(stack, "request", MEMBERS)),
    }
    Ok(Returns::Values(1))
}

const MEMBERS: &[&str] = &[
    "method",
    "path",
    "target",
    "query",
    "headers",
    "cookies",
    "body",
    "ip",
    "port",
    "scheme",
    "clientSubject",
    "json",
    "buffer",
    "form",
    "read",
    "closed",
];

/// Pushes a part of the record at 1 as a string; false, and nothing, if there is none.
fn push_part(stack: &mut Stack<'_>, part: impl for<'v> Fn(&View<'v>) -> &'v [u8]) -> bool {
    stack.push_borrowed(|stack| Some(part(&View::at(stack, 1)?)))
}

/// Pushes a table of decoded pairs; the values of a name that repeats become an array.
pub(crate) fn push_pairs<'p, N, V>(stack: &mut Stack<'_>, pairs: impl Iterator<Item = (N, V)> + 'p)
where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    stack.push_table(0, 4);
    let table = stack.len();
    for (name, value) in pairs {
        stack.push_string(&name);
        let key = stack.len();
        stack.push_value_of(table, key);
        let before = stack.len();
        match stack.kind(before) {
            crate::vm::Kind::Nil => {
                stack.pop(1);
                stack.push_string(&value);
            }
            crate::vm::Kind::Table => {
                let n = stack.table_len(before) + 1;
                stack.push_string(&value);
                stack.set_element(before, n);
            }
            _ => {
                stack.push_table(2, 0);
                let list = stack.len();
                stack.push_copy(before);
                stack.set_element(list, 1);
                stack.push_string(&value);
                stack.set_element(list, 2);
                stack.remove(before);
            }
        }
        stack.set_entry(table);
    }
}

/// Pushes a record that has these fields and nothing else, for responses. What does not fit the
/// bounds of a head is left out.
pub(super) fn push_fields<'f>(
    stack: &mut Stack<'_>,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) {
    let (mut spans, mut text, mut count) = (Vec::new(), Vec::new(), 0_u16);
    for (name, value) in fields {
        if text.len() + name.len() + value.len() > usize::from(u16::MAX) || count == u16::MAX {
            break;
        }
        for part in [name, value] {
            for number in [text.len(), part.len()] {
                spans.extend_from_slice(&u16::try_from(number).unwrap_or(0).to_ne_bytes());
            }
            text.extend_from_slice(part);
        }
        count += 1;
    }
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..2].copy_from_slice(&count.to_ne_bytes());
    let len = u16::try_from(text.len()).unwrap_or(0);
    prefix[2..4].copy_from_slice(&len.to_ne_bytes());
    stack.push_record(Tag::Headers, [&prefix, &spans, &text, &[]]);
}

/// Pushes a record of the fields alone.
fn push_headers(stack: &mut Stack<'_>) {
    stack.push_record_of(Tag::Headers, |stack| {
        let record = stack.record(1, Tag::Request)?;
        let body = View::of(record)?.body.len();
        record.get(..record.len() - body)
    });
}

/// `request:name()`.
fn call(stack: &mut Stack<'_>) -> Outcome {
    match stack.called_member() {
        Some(Atom::Json) => json(stack),
        Some(Atom::Buffer) => buffer(stack),
        Some(Atom::Form) => form::read(stack),
        Some(Atom::Read) => body::read(stack),
        Some(Atom::Closed) => closed(stack),
        _ => Err(methods::unknown_call(stack, "request", MEMBERS)),
    }
}

/// `request:json()`: the body, decoded. Raises if it is no JSON.
fn json(stack: &mut Stack<'_>) -> Outcome {
    with_whole_body(stack, "json")?;
    let worker = stack.worker()?;
    json::decode(worker, stack, json::Reading::default(), |stack| {
        View::at(stack, 1).map(|view| view.body)
    })
    .map_err(|error| Raise::from(format!("request:json: {error}")))?;
    Ok(Returns::Values(1))
}

/// `request:buffer()`: the body as a buffer.
fn buffer(stack: &mut Stack<'_>) -> Outcome {
    let view = with_whole_body(stack, "buffer")?;
    let body = view.body.to_vec();
    stack.push_buffer(&body);
    Ok(Returns::Values(1))
}

/// `request:closed()`: whether the peer has gone, or has said that it sends nothing more.
fn closed(stack: &mut Stack<'_>) -> Outcome {
    let view = View::at(stack, 1).ok_or_else(|| not_a_request(stack))?;
    let conn = view.origin().map(|(conn, _)| conn);
    let reactor = stack.worker()?.reactor.borrow();
    let has_left = conn.is_none_or(|conn| reactor.has_left(conn));
    drop(reactor);
    stack.push_boolean(has_left);
    Ok(Returns::Values(1))
}

/// The request at 1, whose whole body `method` needs.
pub(super) fn with_whole_body<'s>(stack: &'s Stack<'_>, method: &str) -> Result<View<'s>, Raise> {
    let view = View::at(stack, 1).ok_or_else(|| not_a_request(stack))?;
    if view.is_streamed() {
        return Err(Raise::from(format!(
            "request:{method}: the server streams bodies (streamBody = true): read it with \
             request:read()"
        )));
    }
    Ok(view)
}
