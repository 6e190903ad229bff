//! The options of `net.request` and `net.websocket`, checked one by one, turned into a request of
//! core.
//!
//! Sits in the native module's client. Nothing is sent until every option was found to be right.
//!
//! Invariants
//! - A message begins with the function and names the option, what it must be and what it was.
//! - Names and values of fields are checked by core before a byte leaves: a script cannot inject a
//!   line.
//! - Pairs of a query leave in the order of their names, so that a request reads alike each time.
//!
//! Not here: `tls` (`tls.rs`), what becomes of the request (`client.rs`).

use super::tls;
use crate::json::{self, Spelling};
use crate::net::server::options::{BACKPRESSURE_BYTES, read_backpressure, read_compression};
use crate::value::{Options, bad_argument, describe};
use crate::vm::{Kind, Pin, Raise, Stack};
use hukilau_core::client::{
    Proxy, ProxyChoice, RedirectMethod, RequestBody, RequestSpec, Timeouts, WebSocketSpec,
};
use hukilau_core::conn::WsSettings;
use hukilau_core::http1::token::is_token_byte;
use hukilau_core::limits::Limits;
use hukilau_core::url::absolute::Url;
use hukilau_core::url::percent_encode;
use hukilau_core::ws::Role;
use std::rc::Rc;
use std::time::Duration;

/// For everything, unless the script says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// As good as never, and short enough to be added to a clock.
const AGES: Duration = Duration::from_secs(365 * 86_400);

/// What a script wants sent.
pub(crate) struct Asked {
    pub(super) spec: RequestSpec,
    /// What writes the body, if that is a function.
    pub(super) upload: Option<Pin>,
    /// The proxy is the environment's to choose.
    pub(super) is_configured: bool,
}

const REQUEST: &[&str] = &[
    "url",
    "method",
    "headers",
    "query",
    "body",
    "json",
    "timeout",
    "connectTimeout",
    "redirects",
    "redirectMethod",
    "decompress",
    "maxBodyBytes",
    "stream",
    "keepAlive",
    "tls",
    "proxy",
];

const WEBSOCKET: &[&str] = &[
    "protocols",
    "headers",
    "query",
    "timeout",
    "connectTimeout",
    "tls",
    "proxy",
    "compression",
    "backpressure",
    "maxMessageBytes",
    "idleTimeout",
    "pingInterval",
    "pongTimeout",
    "messagesAfterClose",
];

/// Reads the argument of `net.request`: a URL, or a table.
pub(super) fn read_request(stack: &mut Stack<'_>) -> Result<Asked, Raise> {
    const OWNER: &str = "net.request";
    let index = 1;
    if stack.kind(2) == Kind::Table {
        return Err(Raise::from(format!(
            "{OWNER}: options stand in one table, the URL among them: net.request({{ url = …, method = … }})"
        )));
    }
    if let Some(text) = stack.string(1).map(<[u8]>::to_vec) {
        let url = url(OWNER, &text, false)?;
        let mut spec = RequestSpec::new(url);
        spec.timeouts = timeouts(TIMEOUT, None, false);
        return Ok(Asked {
            spec,
            upload: None,
            is_configured: true,
        });
    }
    if stack.kind(index) != Kind::Table {
        return Err(bad_argument(stack, OWNER, 1, "a URL or a table of options"));
    }
    stack.resize(1);
    let options = Options {
        index,
        owner: OWNER,
    };
    options.check_keys(stack, REQUEST)?;
    let Some(text) = options.text(stack, c"url")? else {
        return Err(options.error("option 'url' is needed"));
    };
    let mut spec = RequestSpec::new(url(OWNER, text.as_bytes(), false)?);
    if let Some(method) = options.text(stack, c"method")? {
        if !is_token(method.as_bytes()) {
            let must = "must be a word such as \"GET\", without spaces and separators";
            return Err(options.error(format!("option 'method' {must}, not {method:?}")));
        }
        spec.method = method.into_bytes();
    }
    spec.streams = options.flag(stack, c"stream")?.unwrap_or(false);
    if spec.streams {
        spec.body_bytes_max = None;
    }
    spec.decompresses = options.flag(stack, c"decompress")?.unwrap_or(true);
    spec.keeps_alive = options.flag(stack, c"keepAlive")?.unwrap_or(true);
    if let Some(redirects) = options.whole(stack, c"redirects", (0, 100))? {
        spec.redirects_max = redirects;
    }
    if let Some(name) = options.text(stack, c"redirectMethod")? {
        spec.redirect_method = redirect_method(options, &name)?;
    }
    if options.is_huge(stack, c"maxBodyBytes") {
        spec.body_bytes_max = None;
    } else if let Some(bytes) = options.whole(stack, c"maxBodyBytes", (0, u32::MAX))? {
        spec.body_bytes_max = Some(u64::from(bytes));
    }
    read_common(stack, options, &mut spec)?;
    let upload = read_body(stack, options, &mut spec)?;
    settle_length(options, &mut spec)?;
    let is_configured = spec.proxy == ProxyChoice::Configured;
    Ok(Asked {
        spec,
        upload,
        is_configured,
    })
}

/// Reads the arguments of `net.websocket`: a URL, and perhaps a table.
pub(super) fn read_websocket(stack: &mut Stack<'_>) -> Result<Asked, Raise> {
    const OWNER: &str = "net.websocket";
    let Some(text) = stack.string(1).map(<[u8]>::to_vec) else {
        return Err(bad_argument(stack, OWNER, 1, "a URL"));
    };
    let mut spec = RequestSpec::new(url(OWNER, &text, true)?);
    spec.timeouts = timeouts(TIMEOUT, None, false);
    let limits = super::outbound(Limits::default());
    let mut settings = WsSettings::new(Role::Client, &limits);
    settings.backpressure.limit_bytes = BACKPRESSURE_BYTES;
    let mut protocols = Vec::new();
    if stack.kind(2) == Kind::Table {
        stack.resize(2);
        let options = Options {
            index: 2,
            owner: OWNER,
        };
        options.check_keys(stack, WEBSOCKET)?;
        read_common(stack, options, &mut spec)?;
        protocols = read_protocols(stack, options)?;
        read_settings(stack, options, &limits, &mut settings)?;
    } else if !stack.is_nil(2) {
        return Err(bad_argument(stack, OWNER, 2, "a table of options"));
    }
    spec.websocket = Some(WebSocketSpec {
        protocols,
        settings: Rc::new(settings),
    });
    let is_configured = spec.proxy == ProxyChoice::Configured;
    Ok(Asked {
        spec,
        upload: None,
        is_configured,
    })
}

fn redirect_method(options: Options<'_>, name: &str) -> Result<RedirectMethod, Raise> {
    match name {
        "standard" => Ok(RedirectMethod::Standard),
        "get" => Ok(RedirectMethod::Get),
        "keep" => Ok(RedirectMethod::Keep),
        other => Err(options.error(format!(
            "option 'redirectMethod' must be \"standard\", \"get\" or \"keep\", not \"{}\"",
            other.escape_debug()
        ))),
    }
}

fn read_settings(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    limits: &Limits,
    settings: &mut WsSettings,
) -> Result<(), Raise> {
    if let Some(bytes) = options.whole(stack, c"maxMessageBytes", (125, 1 << 30))? {
        settings.message_bytes_max = bytes;
    }
    let timeouts = [
        (c"idleTimeout", &mut settings.idle_timeout),
        (c"pingInterval", &mut settings.ping_interval),
        (c"pongTimeout", &mut settings.pong_timeout),
    ];
    for (name, timeout) in timeouts {
        if let Some(given) = options.seconds_or_never(stack, name)? {
            *timeout = given;
        }
    }
    settings.deflate = read_compression(stack, options)?;
    settings.hears_out = options.flag(stack, c"messagesAfterClose")?.unwrap_or(false);
    settings.backpressure = read_backpressure(stack, options, limits)?;
    Ok(())
}

/// What requests of both kinds have.
fn read_common(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    spec: &mut RequestSpec,
) -> Result<(), Raise> {
    let total = options
        .seconds_or_never(stack, c"timeout")?
        .unwrap_or(Some(TIMEOUT));
    let connect = options.seconds_or_never(stack, c"connectTimeout")?;
    let connect = connect.map(|time| time.unwrap_or(AGES));
    spec.timeouts = timeouts(total.unwrap_or(AGES), connect, spec.streams);
    if total.is_none() {
        spec.timeouts.total = None;
    }
    stack.push_field(options.index, c"headers");
    let at = stack.len();
    if !stack.is_nil(at) {
        read_headers(stack, options, spec)?;
    }
    stack.pop(1);
    read_query(stack, options, spec)?;
    read_proxy(stack, options, spec)?;
    if let Some(index) = options.table(stack, c"tls")? {
        let owner = format!("{}: tls", options.owner);
        let given = Options {
            index,
            owner: &owner,
        };
        spec.tls = tls::read(stack.worker()?, stack, given)?;
        stack.pop(1);
    }
    Ok(())
}

/// Of a response that is collected, one bound is for everything; of a stream, it is for the head and
/// then for each silence.
fn timeouts(total: Duration, connect: Option<Duration>, streams: bool) -> Timeouts {
    let mut timeouts = Timeouts {
        first_byte: None,
        body: streams.then_some(total),
        total: Some(total),
        ..Timeouts::default()
    };
    if let Some(connect) = connect {
        timeouts.resolve = connect;
        timeouts.connect = connect;
        timeouts.tls = connect;
    }
    timeouts
}

/// Reads a URL; `unix:/path:/target` is one too.
fn url(owner: &str, text: &[u8], is_websocket: bool) -> Result<Url, Raise> {
    let mut whole = text.to_vec();
    if let Some(rest) = text.strip_prefix(b"unix:") {
        let mut parts = rest.splitn(2, |byte| *byte == b':');
        let path = percent_encode(parts.next().unwrap_or_default());
        let target = parts.next().unwrap_or(b"/");
        whole = [b"http+unix://", &*path, target].concat();
    }
    if is_websocket && whole.get(..4).is_some_and(|begin| begin == b"http") {
        whole.splice(..4, *b"ws");
    }
    let refused = |why: &dyn std::fmt::Display| {
        // A password may stand in it, so little is shown.
        let shown = text.split(|byte| *byte == b'@').next_back();
        let shown = shown.unwrap_or_default();
        let shown = shown.get(..100).unwrap_or(shown).escape_ascii();
        Raise::from(format!("{owner}: invalid url \"{shown}\": {why}"))
    };
    let url = Url::parse(&whole).map_err(|error| refused(&error))?;
    match (url.scheme().is_websocket(), is_websocket) {
        (true, false) => Err(refused(&"net.websocket opens WebSockets")),
        _ => Ok(url),
    }
}

/// Reads the table of header fields on top of the stack: names to strings, numbers, lists of them,
/// or false for none at all.
fn read_headers(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    spec: &mut RequestSpec,
) -> Result<(), Raise> {
    let index = stack.len();
    if stack.kind(index) != Kind::Table {
        return Err(options.error(format!(
            "option 'headers' must be a table, not {}",
            describe(stack, index)
        )));
    }
    let mut cursor = 0;
    while let Some(next) = stack.next_entry(index, cursor) {
        cursor = next;
        let (key, value) = (index + 1, index + 2);
        let Some(name) = stack.string(key).map(<[u8]>::to_vec) else {
            return Err(options.error(format!(
                "the name of a header must be a string, not {}",
                describe(stack, key)
            )));
        };
        if stack.boolean(value) == Some(false) {
            spec.omitted.push(name);
            stack.pop(2);
            continue;
        }
        let values = texts(stack, value).map_err(|bad| {
            options.error(format!(
                "header '{}' must be a string, a number, a list of them, or false, not {bad}",
                name.escape_ascii()
            ))
        })?;
        let fields = values.into_iter().map(|value| (name.clone(), value));
        spec.fields.extend(fields);
        stack.pop(2);
    }
    Ok(())
}

/// The strings and finite numbers at `index`: one, or a list.
fn texts(stack: &mut Stack<'_>, index: i32) -> Result<Vec<Vec<u8>>, String> {
    let text = |stack: &Stack<'_>, at: i32| match (stack.string(at), stack.number(at)) {
        (Some(text), _) => Ok(text.to_vec()),
        (None, Some(number)) if number.is_finite() => Ok(number.to_string().into_bytes()),
        (None, Some(number)) => Err(number.to_string()),
        (None, None) => Err(describe(stack, at)),
    };
    if stack.kind(index) != Kind::Table {
        return Ok(vec![text(stack, index)?]);
    }
    let mut all = Vec::new();
    for n in 1..=stack.table_len(index) {
        stack.push_element(index, n);
        let at = stack.len();
        all.push(text(stack, at)?);
        stack.pop(1);
    }
    Ok(all)
}

/// `query = { name = value | { values } }`, behind what the URL has.
fn read_query(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    spec: &mut RequestSpec,
) -> Result<(), Raise> {
    let Some(index) = options.table(stack, c"query")? else {
        return Ok(());
    };
    let (mut pairs, mut cursor) = (Vec::new(), 0);
    while let Some(next) = stack.next_entry(index, cursor) {
        cursor = next;
        let (key, value) = (index + 1, index + 2);
        let name = texts(stack, key).ok().and_then(|mut names| names.pop());
        let Some(name) = name else {
            return Err(options.error("option 'query': names must be strings"));
        };
        let values = texts(stack, value).map_err(|bad| {
            options.error(format!(
                "option 'query': '{}' must be a string, a number or a list of them, not {bad}",
                name.escape_ascii()
            ))
        })?;
        pairs.push((name, values));
        stack.pop(2);
    }
    stack.pop(1);
    pairs.sort();
    let mut query = String::new();
    for (name, values) in &pairs {
        for value in values {
            if !query.is_empty() {
                query.push('&');
            }
            for (part, end) in [(name, "="), (value, "")] {
                query.push_str(&String::from_utf8_lossy(&percent_encode(part)));
                query.push_str(end);
            }
        }
    }
    spec.url.push_query(&query);
    Ok(())
}

/// `proxy`: a URL, or false for none whatever the environment says.
fn read_proxy(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    spec: &mut RequestSpec,
) -> Result<(), Raise> {
    stack.push_field(options.index, c"proxy");
    let at = stack.len();
    let text = stack.string(at).map(String::from_utf8_lossy);
    spec.proxy = match (text, stack.boolean(at)) {
        (Some(text), _) => {
            let proxy = Proxy::parse(&text, "option 'proxy'");
            ProxyChoice::Through(proxy.map_err(|error| options.error(error))?)
        }
        (None, Some(false)) => ProxyChoice::Direct,
        (None, None) if stack.is_nil(at) => ProxyChoice::Configured,
        _ => {
            return Err(options.error(format!(
                "option 'proxy' must be a URL or false, not {}",
                describe(stack, at)
            )));
        }
    };
    stack.pop(1);
    Ok(())
}

/// Reads `body` and `json`; a function that writes the body is returned.
fn read_body(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    spec: &mut RequestSpec,
) -> Result<Option<Pin>, Raise> {
    let worker = stack.worker()?;
    stack.push_field(options.index, c"json");
    let at = stack.len();
    let has_json = !stack.is_nil(at);
    if has_json {
        let mut scratch = worker.json.borrow_mut();
        let text = json::encode(&mut scratch, stack, at, Spelling::default())
            .map_err(|error| options.error(format!("option 'json': {error}")))?;
        spec.body = RequestBody::Whole(text.to_vec());
        if !has_field(spec, "content-type") {
            let field = (&b"Content-Type"[..], &b"application/json"[..]);
            spec.fields.push((field.0.to_vec(), field.1.to_vec()));
        }
    }
    stack.pop(1);
    stack.push_field(options.index, c"body");
    let at = stack.len();
    if has_json && !stack.is_nil(at) {
        return Err(options.error("options 'body' and 'json' exclude each other"));
    }
    let mut upload = None;
    match stack.kind(at) {
        Kind::Nil => {}
        Kind::String | Kind::Buffer => {
            spec.body = RequestBody::Whole(stack.bytes(at).unwrap_or(&[]).to_vec());
        }
        Kind::Function => {
            spec.body = RequestBody::Pieces(None);
            upload = Some(stack.pin(at, worker.root.released()));
        }
        _ => {
            return Err(options.error(format!(
                "option 'body' must be a string, a buffer or a function, not {}",
                describe(stack, at)
            )));
        }
    }
    stack.pop(1);
    Ok(upload)
}

/// A `content-length` that the script gives announces the length of a body that a function writes;
/// for others it must be true, and is written by core.
fn settle_length(options: Options<'_>, spec: &mut RequestSpec) -> Result<(), Raise> {
    let is_length = |name: &[u8]| name.eq_ignore_ascii_case(b"content-length");
    let Some(at) = spec.fields.iter().position(|(name, _)| is_length(name)) else {
        return Ok(());
    };
    let (_, text) = spec.fields.remove(at);
    let digits = String::from_utf8_lossy(&text);
    let length = digits
        .parse::<u64>()
        .map_err(|_| options.error("header 'content-length' must be a whole number"))?;
    let is_true = match &mut spec.body {
        RequestBody::None => length == 0,
        RequestBody::Whole(body) => length == body.len() as u64,
        RequestBody::Pieces(announced) => {
            *announced = Some(length);
            true
        }
    };
    is_true
        .then_some(())
        .ok_or_else(|| options.error("header 'content-length' is not the length of the body"))
}

fn has_field(spec: &RequestSpec, name: &str) -> bool {
    let is = |known: &Vec<u8>| known.eq_ignore_ascii_case(name.as_bytes());
    spec.omitted.iter().any(is) || spec.fields.iter().any(|(known, _)| is(known))
}

/// `protocols`: a list of names, the favourite first.
fn read_protocols(stack: &mut Stack<'_>, options: Options<'_>) -> Result<Vec<Vec<u8>>, Raise> {
    let Some(index) = options.table(stack, c"protocols")? else {
        return Ok(Vec::new());
    };
    let protocols = texts(stack, index);
    stack.resize(index - 1);
    let protocols = protocols.map_err(|bad| {
        options.error(format!(
            "option 'protocols' must be a list of strings, not of {bad}"
        ))
    })?;
    for (at, name) in protocols.iter().enumerate() {
        if !is_token(name) || protocols.iter().take(at).any(|earlier| earlier == name) {
            let must = "must be names without spaces and separators, each once";
            let name = name.escape_ascii();
            return Err(options.error(format!("option 'protocols' {must}, not \"{name}\"")));
        }
    }
    Ok(protocols)
}

/// RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}
