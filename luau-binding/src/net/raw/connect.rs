//! `net.connect`: opens a stream, and suspends the coroutine until it is open.
//!
//! Sits inside `raw.rs`. Names are resolved, addresses raced and TLS agreed on by core; what went
//! wrong is raised where the coroutine waits.
//!
//! Invariants
//! - A stream for whose coroutine somebody else has found another use is closed when it opens.
//! - Errors name what was asked for.
//! - `timeout` bounds name, addresses and TLS together.
//!
//! Not here: what a stream can do (`stream.rs`).

use super::{StreamState, tls};
use crate::scheduler;
use crate::value::{Options, bad_argument};
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use core::time::Duration;
use hukilau_core::conn::Misuse;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::{Destination, DialConfig, Protocol};
use std::rc::Rc;

const OPTIONS: &[&str] = &["host", "port", "tls", "timeout"];

/// Time until a stream is open, where the script sets none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `net.connect(options)`.
pub(crate) fn connect(stack: &mut Stack<'_>) -> Outcome {
    if stack.kind(1) != Kind::Table {
        let must = "a table of options";
        return Err(bad_argument(stack, "net.connect", 1, must));
    }
    stack.resize(1);
    let worker = stack.worker()?;
    let options = Options {
        index: 1,
        owner: "net.connect",
    };
    options.check_keys(stack, OPTIONS)?;
    let Some(host) = options.text(stack, c"host")? else {
        return Err(options.error("option 'host', a name, an address or \"unix:/path\", is needed"));
    };
    let port = options.whole(stack, c"port", (1, 65_535))?;
    let (to, place) = match (host.strip_prefix("unix:"), port) {
        (Some(path), None) if !path.is_empty() => (Destination::Unix(path.into()), path.to_owned()),
        (Some(_), Some(_)) => return Err(options.error("a socket file has no 'port'")),
        (Some(_), None) => return Err(options.error("option 'host' lacks the path of its file")),
        (None, None) => return Err(options.error("option 'port' is needed")),
        (None, Some(port)) => {
            let port = u16::try_from(port).unwrap_or(0);
            (Destination::tcp(&host, port), format!("{host}:{port}"))
        }
    };
    let mut config = DialConfig {
        protocol: Protocol::Stream,
        tls: tls::read_client(worker, stack, options, &host)?,
        ..DialConfig::default()
    };
    config.total_timeout = Some(TIMEOUT);
    if let Some(timeout) = options.seconds(stack, c"timeout")? {
        config.total_timeout = Some(timeout);
        (config.resolve_timeout, config.connect_timeout) = (timeout, timeout);
        config.limits = Some(Rc::new(Limits {
            tls_handshake_timeout: timeout,
            ..Limits::clone(worker.reactor.borrow().limits())
        }));
    }
    if !stack.may_suspend() {
        return Err(Raise::from("net.connect: this coroutine cannot wait"));
    }
    let dialled = worker.reactor.borrow_mut().dial(&to, &config);
    let conn = dialled.map_err(|misuse| match misuse {
        Misuse::InvalidHost => {
            let text = format!("{misuse}: \"{}\"", host.escape_debug());
            options.error(text)
        }
        misuse => options.error(misuse),
    })?;
    let state = StreamState::begin(worker, conn, place);
    state
        .opener
        .set(Some(scheduler::wait_for_wire(worker, stack)?));
    Ok(Returns::Suspend)
}
