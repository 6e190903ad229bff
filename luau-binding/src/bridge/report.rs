//! Who hears of a failure: the server's `error` callback, or standard error.
//!
//! Sits inside `bridge.rs`, which knows what failed.
//!
//! Invariants
//! - Nothing that a peer chose reaches a terminal unescaped.
//! - A socket that no server of ours has given reports to standard error.
//!
//! Not here: what the peer is told (`bridge.rs`).

use super::{Failure, Purpose};
use crate::net::request::View;
use crate::net::server::ServerState;
use crate::runtime::Worker;
use crate::scheduler;
use crate::vm::Pin;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::transport::Peer;

/// Where a failure happened, for its report.
pub(super) struct Context<'a> {
    /// Which callback: `request`, `upgrade`, `stream`, `open`, `message`, `drain` or `close`.
    pub(super) kind: &'static str,
    pub(super) conn: ConnKey,
    pub(super) request: Option<&'a Pin>,
}

/// Tells the server's `error` callback, or standard error.
pub(super) fn report(
    worker: &Worker,
    server: Option<&ServerState>,
    failure: &Failure,
    context: &Context<'_>,
) {
    let mut from = worker.root.stack(worker);
    let bottom = from.len();
    if let Some(pin) = context.request {
        from.push_pin(pin);
    }
    let (mut method, mut target, mut ip, mut port) = (Vec::new(), Vec::new(), String::new(), 0);
    // Without a pin the request lies where `receive_request` has pushed it.
    let at = from.len();
    if matches!(context.kind, "request" | "upgrade" | "stream")
        && let Some(view) = View::at(&from, at)
    {
        (method, target) = (view.method().to_vec(), view.target().to_vec());
        (ip, port) = (view.ip(), view.port());
    } else if let Some(Peer::Ip(peer)) = worker.reactor.borrow().peer(context.conn) {
        (ip, port) = (peer.ip().to_string(), peer.port());
    }
    from.pop(from.len() - bottom);
    let Some(hook) = server.and_then(|server| server.error.as_ref()) else {
        let mut place = format!("in {}", context.kind);
        if !target.is_empty() {
            // A target is the peer's word: nothing of it may reach a terminal as it is.
            place = format!("in {} {}", method.escape_ascii(), target.escape_ascii());
        }
        if !ip.is_empty() {
            place = format!("{place} from {ip} port {port}");
        }
        return worker.report(&place, failure);
    };
    scheduler::start(worker, &from, Purpose::Hook, |stack| {
        stack.push_pin(hook);
        stack.push_string(failure.text());
        stack.push_table(0, 5);
        let table = stack.len();
        stack.push_string(context.kind);
        stack.set_field(table, c"kind");
        if !target.is_empty() {
            stack.push_string(&method);
            stack.set_field(table, c"method");
            stack.push_string(&target);
            stack.set_field(table, c"target");
        }
        if !ip.is_empty() {
            stack.push_string(&ip);
            stack.set_field(table, c"ip");
            stack.push_number(f64::from(port));
            stack.set_field(table, c"port");
        }
        2
    });
}
