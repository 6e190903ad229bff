//! `net.resolve`: the addresses of a name.
//!
//! Sits inside `raw.rs`, as who sends datagrams needs addresses. The coroutine is suspended until the
//! resolver has answered; what it has to say if there are none is raised there.
//!
//! Invariants
//! - A question for whose answer nobody waits any more keeps no process alive.
//!
//! Not here: resolving (core, on threads of its own).

use super::words;
use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::value::bad_argument;
use crate::vm::{Outcome, Raise, Returns, Stack};
use core::net::SocketAddr;
use core::time::Duration;
use hukilau_core::conn::Misuse;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Completion, What};
use std::collections::HashMap;

/// Time for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who waits for an answer, and about which name.
pub(super) type Lookups = HashMap<ConnKey, (WaitKey, String)>;

/// `net.resolve(name)`.
pub(crate) fn resolve(stack: &mut Stack<'_>) -> Outcome {
    let name = stack.string(1).map(String::from_utf8_lossy);
    let Some(name) = name
        .map(|name| name.into_owned())
        .filter(|name| !name.is_empty())
    else {
        return Err(bad_argument(stack, "net.resolve", 1, "the name of a host"));
    };
    if !stack.may_suspend() {
        return Err(Raise::from("net.resolve: this coroutine cannot wait"));
    }
    let worker = stack.worker()?;
    let begun = worker.reactor.borrow_mut().resolve(&name, TIMEOUT);
    let conn = begun.map_err(|misuse| {
        Raise::from(match misuse {
            Misuse::InvalidHost => format!("net.resolve: {misuse}: \"{}\"", name.escape_debug()),
            misuse => format!("net.resolve: {misuse}"),
        })
    })?;
    let key = scheduler::wait_for_wire(worker, stack)?;
    worker.raw.borrow_mut().lookups.insert(conn, (key, name));
    Ok(Returns::Suspend)
}

/// Hands an answer to whoever waits for it. False if it is none.
pub(super) fn deliver(worker: &Worker, completion: &Completion<'_>) -> bool {
    let asked = {
        let mut raw = worker.raw.borrow_mut();
        if raw.lookups.is_empty() {
            return false;
        }
        raw.lookups.remove(&completion.conn)
    };
    let Some((waiter, name)) = asked else {
        return false;
    };
    let from = worker.root.stack(worker);
    match completion.what {
        What::Resolved { addresses } => {
            scheduler::wake(worker, &from, waiter, |stack| push(stack, addresses));
        }
        What::Closed { cause } => {
            let why = words(cause).unwrap_or_default();
            let why = format!("net.resolve: {name}: {why}");
            scheduler::wake_raising(worker, &from, waiter, why);
        }
        _ => return false,
    }
    true
}

/// Each address once, in the resolver's order.
fn push(stack: &mut Stack<'_>, addresses: &[SocketAddr]) -> i32 {
    stack.push_table(addresses.len(), 0);
    let list = stack.len();
    let mut seen = Vec::new();
    for address in addresses {
        if seen.contains(&address.ip()) {
            continue;
        }
        seen.push(address.ip());
        stack.push_table(0, 2);
        let entry = stack.len();
        stack.push_string(if address.is_ipv4() { "ipv4" } else { "ipv6" });
        stack.set_field(entry, c"family");
        stack.push_string(address.ip().to_string());
        stack.set_field(entry, c"ip");
        stack.set_element(list, seen.len());
    }
    1
}

/// Whether somebody waits for an answer.
pub(super) fn is_awaited(worker: &Worker, lookups: &Lookups) -> bool {
    let scheduler = worker.scheduler.borrow();
    lookups
        .values()
        .any(|(waiter, _)| scheduler.is_current(*waiter))
}
