//! The options `limits`, `websocket` and `refusals` of `net.serve`, turned into what core is configured with.
//!
//! Sits inside `server.rs`. Every value has its bounds here, and a message that names the option;
//! core checks once more that they do not contradict each other.
//!
//! Invariants
//! - A limit that is not given is the reactor's default.
//!
//! Not here: what the limits do (core), the other options (`server.rs`).

use super::WebSocketOptions;
use crate::net::guards::Rates;
use crate::net::response::{self, Fields};
use crate::value::{Options, describe};
use crate::vm::{Kind, Raise, Stack};
use hukilau_core::conn::{Backpressure, Misuse, Overflow, RefusalPage, Refusals, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::ws::Role;
use hukilau_core::ws::deflate::DeflateSettings;
use std::rc::Rc;

/// Unsent bytes of one WebSocket above which its `policy` applies.
pub(in crate::net) const BACKPRESSURE_BYTES: u32 = 1024 * 1024;

const WEBSOCKET_OPTIONS: &[&str] = &[
    "upgrade",
    "open",
    "message",
    "drain",
    "close",
    "idleTimeout",
    "pingInterval",
    "pongTimeout",
    "maxMessageBytes",
    "compression",
    "backpressure",
    "concurrent",
    "messagesAfterClose",
    "messagesPerSecond",
    "bytesPerSecond",
];

const LIMITS: &[&str] = &[
    "headBytes",
    "targetBytes",
    "headers",
    "bodyBytes",
    "chunkFramingBytes",
    "connections",
    "connectionsPerIp",
    "requestsPerSecondPerIp",
    "handshakesPerSecondPerIp",
    "pipelinedRequests",
    "highWaterBytes",
    "lowWaterBytes",
    "unsentBytes",
    "fragments",
    "topics",
    "topicBytes",
    "headTimeout",
    "bodyTimeout",
    "idleTimeout",
    "writeTimeout",
    "lingerTimeout",
    "upgradeTimeout",
];

/// The limits of the server's connections.
pub(super) fn read_limits(stack: &mut Stack<'_>, options: Options<'_>) -> Result<Limits, Raise> {
    let mut limits = Limits::default();
    let Some(index) = options.table(stack, c"limits")? else {
        return Ok(limits);
    };
    let given = Options {
        index,
        owner: "net.serve: limits",
    };
    given.check_keys(stack, LIMITS)?;
    if let Some(bytes) = given.whole(stack, c"headBytes", (1_024, 65_535))? {
        limits.head_bytes_max = bytes;
        limits.segment_bytes_max = limits.segment_bytes_max.max(bytes);
        limits.target_bytes_max = limits.target_bytes_max.min(bytes - 1);
    }
    if let Some(bytes) = given.whole(stack, c"bodyBytes", (0, 1 << 30))? {
        limits.body_bytes_max = u64::from(bytes);
    }
    if let Some(count) = given.whole(stack, c"pipelinedRequests", (1, 64))? {
        limits.exchanges_in_flight_max = u8::try_from(count).unwrap_or(u8::MAX);
    }
    if let Some(bytes) = given.whole(stack, c"highWaterBytes", (1_024, 1 << 30))? {
        limits.out_bytes_high = bytes;
        limits.out_bytes_low = limits.out_bytes_low.min(bytes / 4);
        limits.out_bytes_max = limits.out_bytes_max.max(bytes.saturating_mul(2));
    }
    let sizes = [
        (c"targetBytes", (1, 65_000), &mut limits.target_bytes_max),
        (c"connections", (1, 1 << 24), &mut limits.connections_max),
        (
            c"connectionsPerIp",
            (1, 1 << 24),
            &mut limits.connections_per_ip_max,
        ),
        (c"lowWaterBytes", (0, 1 << 30), &mut limits.out_bytes_low),
        (c"unsentBytes", (1_024, 1 << 31), &mut limits.out_bytes_max),
        (c"fragments", (1, 1 << 30), &mut limits.fragments_max),
        (
            c"chunkFramingBytes",
            (64, 1 << 30),
            &mut limits.chunk_framing_bytes_max,
        ),
    ];
    for (name, range, limit) in sizes {
        if let Some(value) = given.whole(stack, name, range)? {
            *limit = value;
        }
    }
    let counts = [
        (c"headers", 10_000, &mut limits.fields_max),
        (c"topics", 65_535, &mut limits.topics_per_connection_max),
        (c"topicBytes", 65_535, &mut limits.topic_bytes_max),
    ];
    for (name, max, limit) in counts {
        if let Some(value) = given.whole(stack, name, (1, max))? {
            *limit = u16::try_from(value).unwrap_or(u16::MAX);
        }
    }
    read_timeouts(stack, given, &mut limits)?;
    limits.check().map_err(|error| {
        let name = option_of(error.limit);
        // Core's sentence, in the words of scripts.
        let words = error.must.split(' ').map(option_of).collect::<Vec<_>>();
        given.error(format!("option '{name}' must {}", words.join(" ")))
    })?;
    stack.pop(1);
    Ok(limits)
}

fn read_timeouts(
    stack: &mut Stack<'_>,
    given: Options<'_>,
    limits: &mut Limits,
) -> Result<(), Raise> {
    let timeouts = [
        (c"headTimeout", &mut limits.head_timeout),
        (c"bodyTimeout", &mut limits.body_timeout),
        (c"idleTimeout", &mut limits.idle_timeout),
        (c"writeTimeout", &mut limits.write_timeout),
        (c"lingerTimeout", &mut limits.linger_timeout),
        (c"upgradeTimeout", &mut limits.handshake_timeout),
    ];
    for (name, timeout) in timeouts {
        if let Some(duration) = given.seconds(stack, name)? {
            *timeout = duration;
        }
    }
    Ok(())
}

/// `refusals`: by status, a page `{ reason, headers, body }`, or false to close without a word.
pub(super) fn read_refusals(
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Refusals, Raise> {
    let mut refusals = Refusals::default();
    let Some(index) = options.table(stack, c"refusals")? else {
        return Ok(refusals);
    };
    let owner = "net.serve: refusals";
    let mut cursor = 0;
    while let Some(next) = stack.next_entry(index, cursor) {
        cursor = next;
        let (key, value) = (stack.len() - 1, stack.len());
        let number = stack.number(key).filter(|number| number.fract() == 0.0);
        let number = number.filter(|number| (400.0..=599.0).contains(number));
        let number = number.ok_or_else(|| {
            let found = describe(stack, key);
            Raise::from(format!(
                "{owner}: its keys must be statuses from 400 to 599, not {found}"
            ))
        })?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be below 600")]
        let status = number as u16;
        let set = match (stack.kind(value), stack.boolean(value)) {
            (Kind::Boolean, Some(false)) => refusals.set_silent(status),
            (Kind::Table, _) => refusals.set_page(status, read_page(stack, value, status)?),
            _ => {
                let found = describe(stack, value);
                return Err(Raise::from(format!(
                    "{owner}[{status}]: it must be a table {{ reason, headers, body }} or false, not {found}"
                )));
            }
        };
        set.map_err(|misuse| match misuse {
            Misuse::InvalidField => Raise::from(format!(
                "{owner}: the page for {status} has a header or a reason that cannot be sent"
            )),
            other => Raise::from(format!("{owner}: {status}: {other}")),
        })?;
        stack.pop(2);
    }
    stack.pop(1);
    Ok(refusals)
}

/// The page at `index`.
fn read_page(stack: &mut Stack<'_>, index: i32, status: u16) -> Result<RefusalPage, Raise> {
    let owner = format!("net.serve: refusals[{status}]");
    let given = Options {
        index,
        owner: &owner,
    };
    given.check_keys(stack, &["reason", "headers", "body"])?;
    let mut page = RefusalPage::default();
    if let Some(reason) = given.text(stack, c"reason")? {
        page.reason = Some(reason.into_bytes().into());
    }
    if let Some(at) = given.table(stack, c"headers")? {
        let mut fields = Fields::default();
        response::read_headers(stack, at, &mut fields).map_err(|text| given.error(text))?;
        fields.with(|fields| {
            let own = |(name, value): &(&[u8], &[u8])| (Box::from(*name), Box::from(*value));
            page.fields = fields.iter().map(own).collect();
        });
        stack.pop(1);
    }
    stack.push_field(index, c"body");
    let at = stack.len();
    if !stack.is_nil(at) {
        let body = stack.bytes(at).map(Box::from);
        page.body = body.ok_or_else(|| {
            let found = describe(stack, at);
            given.error(format!(
                "option 'body' must be a string or a buffer, not {found}"
            ))
        })?;
    }
    stack.pop(1);
    Ok(page)
}

/// What scripts call a limit of core that other limits can contradict.
fn option_of(limit: &'static str) -> &'static str {
    match limit {
        "head_bytes_max" => "headBytes",
        "out_bytes_max" => "unsentBytes",
        "target_bytes_max" => "targetBytes",
        "out_bytes_low" => "lowWaterBytes",
        "out_bytes_high" => "highWaterBytes",
        other => other,
    }
}

/// The option `websocket`, if it is given.
pub(super) fn read_websocket(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    limits: &Limits,
) -> Result<Option<WebSocketOptions>, Raise> {
    let Some(index) = options.table(stack, c"websocket")? else {
        return Ok(None);
    };
    let given = Options {
        index,
        owner: "net.serve: websocket",
    };
    given.check_keys(stack, WEBSOCKET_OPTIONS)?;
    let mut settings = WsSettings::new(Role::Server, limits);
    if let Some(bytes) = given.whole(stack, c"maxMessageBytes", (125, 1 << 30))? {
        settings.message_bytes_max = bytes;
    }
    let timeouts = [
        (c"idleTimeout", &mut settings.idle_timeout),
        (c"pingInterval", &mut settings.ping_interval),
        (c"pongTimeout", &mut settings.pong_timeout),
    ];
    for (name, timeout) in timeouts {
        if let Some(time) = given.seconds_or_never(stack, name)? {
            *timeout = time;
        }
    }
    settings.deflate = read_compression(stack, given)?;
    settings.hears_out = given.flag(stack, c"messagesAfterClose")?.unwrap_or(false);
    settings.backpressure = read_backpressure(stack, given, limits)?;
    let websocket = WebSocketOptions {
        settings: Rc::new(settings),
        rates: Rates::read(stack, given)?,
        is_concurrent: given.flag(stack, c"concurrent")?.unwrap_or(false),
        upgrade: given.function(stack, c"upgrade")?,
        open: given.function(stack, c"open")?,
        message: given.function(stack, c"message")?,
        drain: given.function(stack, c"drain")?,
        close: given.function(stack, c"close")?,
    };
    stack.pop(1);
    Ok(Some(websocket))
}

/// `compression`: false, true, or `{ threshold, contextTakeover, windowBits, level }`. RFC 7692.
pub(in crate::net) fn read_compression(
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Option<DeflateSettings>, Raise> {
    stack.push_field(options.index, c"compression");
    let at = stack.len();
    let is_on = stack.boolean(at);
    let mut settings = DeflateSettings::default();
    match stack.kind(at) {
        Kind::Nil | Kind::Boolean => {
            stack.pop(1);
            return Ok((is_on == Some(true)).then_some(settings));
        }
        Kind::Table => {}
        _ => {
            return Err(options.error(format!(
                "option 'compression' must be true, false or a table, not {}",
                describe(stack, at)
            )));
        }
    }
    let owner = format!("{}: compression", options.owner);
    let given = Options {
        index: at,
        owner: &owner,
    };
    let known = ["threshold", "contextTakeover", "windowBits", "level"];
    given.check_keys(stack, &known)?;
    if let Some(bytes) = given.whole(stack, c"threshold", (0, 1 << 30))? {
        settings.compress_bytes_min = bytes as usize;
    }
    if let Some(takes_over) = given.flag(stack, c"contextTakeover")? {
        settings.own_context_takeover = takes_over;
        settings.peer_context_takeover = takes_over;
    }
    if let Some(bits) = given.whole(stack, c"windowBits", (9, 15))? {
        let bits = u8::try_from(bits).unwrap_or(15);
        (settings.own_window_bits, settings.peer_window_bits) = (bits, bits);
    }
    if let Some(level) = given.whole(stack, c"level", (1, 9))? {
        settings.level = u8::try_from(level).unwrap_or(9);
    }
    stack.pop(1);
    Ok(Some(settings))
}

/// `backpressure = { limit, policy }`.
pub(in crate::net) fn read_backpressure(
    stack: &mut Stack<'_>,
    options: Options<'_>,
    limits: &Limits,
) -> Result<Backpressure, Raise> {
    let mut backpressure = Backpressure {
        limit_bytes: BACKPRESSURE_BYTES.min(limits.out_bytes_max),
        overflow: Overflow::Close,
    };
    let Some(index) = options.table(stack, c"backpressure")? else {
        return Ok(backpressure);
    };
    let owner = format!("{}: backpressure", options.owner);
    let given = Options {
        index,
        owner: &owner,
    };
    given.check_keys(stack, &["limit", "policy"])?;
    // Above that core cuts the connection, whatever the policy.
    if let Some(bytes) = given.whole(stack, c"limit", (0, limits.out_bytes_max))? {
        backpressure.limit_bytes = bytes;
    }
    if let Some(policy) = given.text(stack, c"policy")? {
        backpressure.overflow = match policy.as_str() {
            "close" => Overflow::Close,
            "drop" => Overflow::Drop,
            "latest" => Overflow::Latest,
            other => {
                return Err(given.error(format!(
                    "option 'policy' must be \"close\", \"drop\" or \"latest\", not \"{}\"",
                    other.escape_debug()
                )));
            }
        };
    }
    stack.pop(1);
    Ok(backpressure)
}
