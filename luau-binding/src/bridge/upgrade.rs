//! Upgrades to WebSocket: the callback that decides, and what it has decided.
//!
//! Sits inside `bridge.rs`, which starts coroutines and answers what fails.
//!
//! Invariants
//! - Whoever returns nothing, or false, refuses. What looks like an answer never accepts: a table with
//!   a `body` needs a `status`.
//! - A protocol that the client has not offered is an error (RFC 6455 §4.2.2).
//!
//! Not here: the handshake itself (core), the socket's object (`net/socket.rs`).

use super::report::{Context, report};
use super::{Asked, Failure, Purpose, fail_request, start};
use crate::net::response::{self, Fields};
use crate::net::server::refusal;
use crate::net::socket;
use crate::net::stream::Begun;
use crate::runtime::Worker;
use crate::value::{Options, describe};
use crate::vm::{Kind, Raise, Stack};
use hukilau_core::conn::Misuse;
use hukilau_core::http1::Request;
use hukilau_core::reactor::Accept;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::ws::handshake;
use std::rc::Rc;

/// An upgrade that waits for its decision.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(super) asked: Asked,
    /// What the client offers, as sent: names with commas between them.
    protocols: Vec<u8>,
}

/// Lets the script decide on an upgrade, whose request is on top of `from`.
pub(super) fn ask(worker: &Worker, from: &mut Stack<'_>, asked: Asked, request: &Request<'_>) {
    let mut protocols = Vec::new();
    if let Ok(offer) = handshake::check_upgrade(request) {
        for protocol in offer.protocols() {
            protocols.extend_from_slice(protocol);
            protocols.push(b',');
        }
    }
    let server = Rc::clone(&asked.server);
    let callback = server
        .websocket
        .as_ref()
        .and_then(|websocket| websocket.upgrade.as_ref());
    let offer = Box::new(Offer { asked, protocols });
    match callback {
        Some(callback) => start(worker, from, Purpose::Upgrade(offer), callback, &server),
        None => {
            let accepted = accept(worker, from, &offer, None, None, &Fields::default());
            if let Err(message) = accepted {
                fail_request(worker, &offer.asked, "upgrade", &Failure::plain(&message));
            }
        }
    }
}

/// The time to decide is over, and the client of `conn` has been told 503. Whoever wrote the callback wants to know.
pub(super) fn timed_out(worker: &Worker, conn: ConnKey) {
    let is_it =
        |purpose: &Purpose| matches!(purpose, Purpose::Upgrade(offer) if offer.asked.conn == conn);
    let taken = match worker.scheduler.borrow_mut().find(is_it) {
        Some(Purpose::Upgrade(offer)) => Some((
            Rc::clone(&offer.asked.server),
            // Back below: an error that is still to come has the same place.
            offer.asked.request.take(),
        )),
        _ => None,
    };
    // It may have been a connection of our own.
    let Some((server, request)) = taken else {
        return;
    };
    let why =
        "upgrade: it has not decided within limits.upgradeTimeout, so the client was told 503";
    let context = Context {
        kind: "upgrade",
        conn,
        request: request.as_ref(),
    };
    let failure = refusal(worker, &server, "upgrade", why);
    report(worker, Some(&server), &failure, &context);
    if let Some(Purpose::Upgrade(offer)) = worker.scheduler.borrow_mut().find(is_it) {
        offer.asked.request = request;
    }
}

/// Acts on the result of an upgrade callback, at the bottom of `stack`.
pub(super) fn decide(
    worker: &Worker,
    stack: &mut Stack<'_>,
    offer: &Offer,
) -> Result<Option<Begun>, String> {
    let Asked { conn, exchange, .. } = offer.asked;
    match (stack.kind(1), stack.boolean(1)) {
        (Kind::None | Kind::Nil, _) | (_, Some(false)) => {
            response::respond_plain(worker, conn, exchange, 403, &[]);
            Ok(None)
        }
        (_, Some(true)) => {
            accept(worker, stack, offer, None, None, &Fields::default()).map(|()| None)
        }
        (Kind::Table, _) => decide_by_table(worker, stack, offer),
        _ => Err(format!(
            "upgrade: it returns true, false or a table, not {}",
            describe(stack, 1)
        )),
    }
}

/// `{ status, headers, body }` refuses; `{ protocol, headers, data }` accepts.
fn decide_by_table(
    worker: &Worker,
    stack: &mut Stack<'_>,
    offer: &Offer,
) -> Result<Option<Begun>, String> {
    stack.resize(1);
    stack.push_field(1, c"status");
    let is_refused = !stack.is_nil(2);
    stack.pop(1);
    if is_refused {
        return response::respond(worker, stack, offer.asked.conn, offer.asked.exchange);
    }
    let options = Options {
        index: 1,
        owner: "upgrade",
    };
    let plain = |raise: Raise| raise.0.into_owned();
    for key in [c"body", c"events"] {
        stack.push_field(1, key);
        if !stack.is_nil(2) {
            return Err(format!(
                "upgrade: a table with '{}' refuses, and says so by its 'status'; one that accepts has protocol, headers \
                 and data",
                key.to_string_lossy()
            ));
        }
        stack.pop(1);
    }
    options
        .check_keys(stack, &["protocol", "headers", "data", "status"])
        .map_err(plain)?;
    let protocol = options.text(stack, c"protocol").map_err(plain)?;
    let mut fields = Fields::default();
    stack.push_field(1, c"headers");
    if !stack.is_nil(2) {
        response::read_headers(stack, 2, &mut fields)?;
    }
    stack.push_field(1, c"data");
    let data = (!stack.is_nil(3)).then_some(3);
    accept(worker, stack, offer, protocol.as_deref(), data, &fields).map(|()| None)
}

/// Accepts an upgrade, and makes the socket's object.
fn accept(
    worker: &Worker,
    stack: &mut Stack<'_>,
    offer: &Offer,
    protocol: Option<&str>,
    data: Option<i32>,
    fields: &Fields,
) -> Result<(), String> {
    let Asked {
        conn,
        exchange,
        server,
        ..
    } = &offer.asked;
    let Some(websocket) = &server.websocket else {
        return Err("the server has no websocket options".to_owned());
    };
    let protocol = protocol.map(str::as_bytes);
    let mut offered = offer.protocols.split(|byte| *byte == b',');
    if let Some(protocol) = protocol
        && (protocol.is_empty() || !offered.any(|offered| offered == protocol))
    {
        return Err(format!(
            "upgrade: the client did not offer the protocol '{}'",
            protocol.escape_ascii()
        ));
    }
    let refused = "upgrade: Connection, Upgrade, Sec-WebSocket-… and the like are written by the server itself";
    let accepted = fields.with(|fields| {
        let accept = Accept {
            protocol,
            fields,
            settings: Rc::clone(&websocket.settings),
        };
        let mut reactor = worker.reactor.borrow_mut();
        reactor
            .accept_websocket(*conn, *exchange, &accept)
            .map_err(|misuse| (misuse, response::explain_field(fields)))
    });
    match accepted {
        Ok(()) => {
            worker.access.upgraded(*conn, *exchange);
            socket::create(worker, stack, *conn, Some(server), protocol, data);
        }
        // The client has gone while the script decided.
        Err((Misuse::Gone, _)) => {}
        Err((Misuse::InvalidField, Some(why))) => return Err(format!("upgrade: {why}")),
        Err((Misuse::InvalidField, None)) => return Err(refused.to_owned()),
        Err((misuse, _)) => return Err(format!("upgrade: {misuse}")),
    }
    Ok(())
}
