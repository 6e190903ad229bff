//! The options of TLS on raw streams, at either end, from the start or begun late.
//!
//! Sits inside `raw.rs`. No application protocol is offered or asked for (RFC 7301): what is spoken
//! is the script's business.
//!
//! Invariants
//! - An error names the option.
//! - `tls = true` makes its settings once for a worker, so that sessions are resumed.
//!
//! Not here: certificates of listeners (`net/tls.rs`, which servers share), TLS itself (core).

use super::StreamState;
use crate::net::tls::{Tls, pem};
use crate::runtime::Worker;
use crate::value::Options;
use crate::vm::{Kind, Raise, Stack};
use hukilau_core::conn::Misuse;
use hukilau_core::reactor::{DialTls, StreamTls};
use hukilau_core::transport::tls::{ClientTls, ClientTlsOptions, Identity, TlsConfigError};
use std::sync::Arc;

const CLIENT_OPTIONS: &[&str] = &["ca", "cert", "key", "serverName", "insecureSkipVerify"];

/// The option `tls` of a stream to `host`: true, false or a table.
pub(super) fn read_client(
    worker: &Worker,
    stack: &mut Stack<'_>,
    options: Options<'_>,
    host: &str,
) -> Result<Option<DialTls>, Raise> {
    stack.push_field(options.index, c"tls");
    let index = stack.len();
    let owner = format!("{}: tls", options.owner);
    let client = match (stack.kind(index), stack.boolean(index)) {
        (Kind::Nil, _) | (_, Some(false)) => None,
        (_, Some(true)) => Some(plain_client(worker, options)?),
        (Kind::Table, _) => {
            let owner = owner.as_str();
            Some(client(worker, stack, Options { index, owner })?)
        }
        _ => {
            let what = crate::value::describe(stack, index);
            let must = "option 'tls' must be true, false or a table";
            return Err(options.error(format!("{must}, not {what}")));
        }
    };
    stack.pop(1);
    let host = host.to_owned();
    Ok(client.map(|client| DialTls { client, host }))
}

/// What trusts as the system does.
fn plain_client(worker: &Worker, options: Options<'_>) -> Result<Arc<ClientTls>, Raise> {
    let mut raw = worker.raw.borrow_mut();
    if let Some(made) = &raw.plain_tls {
        return Ok(Arc::clone(made));
    }
    let made = make(ClientTlsOptions::default(), options)?;
    raw.plain_tls = Some(Arc::clone(&made));
    Ok(made)
}

/// By the table at `options`.
fn client(
    worker: &Worker,
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Arc<ClientTls>, Raise> {
    options.check_keys(stack, CLIENT_OPTIONS)?;
    let mut settings = ClientTlsOptions::default();
    let refused = |part, problem| options.error(format!("option '{part}': {problem}"));
    if let Some(ca) = options.text(stack, c"ca")? {
        settings.ca = Some(pem(&ca).map_err(|why| refused("ca", why))?);
        settings.system_roots = false;
    }
    if let Some(cert) = options.text(stack, c"cert")? {
        let key = options.text(stack, c"key")?.unwrap_or_else(|| cert.clone());
        let cert = pem(&cert).map_err(|why| refused("cert", why))?;
        let key = pem(&key).map_err(|why| refused("key", why))?;
        let identity = Identity::from_pem(&cert, &key);
        settings.identity = Some(identity.map_err(|error| named(&error, options))?);
    }
    settings.server_name = options.text(stack, c"serverName")?;
    settings.insecure = options.flag(stack, c"insecureSkipVerify")?.unwrap_or(false);
    let is_plain = settings.ca.is_none() && settings.identity.is_none() && !settings.insecure;
    if is_plain && settings.server_name.is_none() {
        return plain_client(worker, options);
    }
    make(settings, options)
}

fn make(settings: ClientTlsOptions, options: Options<'_>) -> Result<Arc<ClientTls>, Raise> {
    let settings = ClientTlsOptions {
        protocols: Vec::new(),
        ..settings
    };
    let made = ClientTls::new(&settings);
    made.map(Arc::new).map_err(|error| named(&error, options))
}

fn named(error: &TlsConfigError, options: Options<'_>) -> Raise {
    let part = match error.part {
        "name" => "serverName",
        part => part,
    };
    options.error(format!("option '{part}': {}", error.problem))
}

/// Begins TLS on `stream` by the options at 2: those of a client, or of a server under `server`.
pub(super) fn start(
    worker: &Worker,
    stack: &mut Stack<'_>,
    stream: &StreamState,
) -> Result<(), Raise> {
    let options = Options {
        index: 2,
        owner: "stream:startTls",
    };
    let (mut server, mut host) = (None, stream.host());
    let client = match (stack.kind(2), stack.boolean(2)) {
        (Kind::None | Kind::Nil, _) | (_, Some(true)) => Some(plain_client(worker, options)?),
        (Kind::Table, _) => {
            server = Tls::read_for_streams(stack, options, c"server")?;
            match server {
                Some(_) => {
                    options.check_keys(stack, &["server"])?;
                    None
                }
                None => Some(client(worker, stack, options)?),
            }
        }
        _ => return Err(options.error("the options must be a table")),
    };
    if host.is_empty() {
        // Who has a name of its own in the options does not need one.
        host = match stream.peer.get() {
            Some(hukilau_core::transport::Peer::Ip(at)) => at.ip().to_string(),
            _ => "localhost".to_owned(),
        };
    }
    let shared = server.as_ref().map(Tls::shared);
    let how = match (&shared, &client) {
        (Some(server), _) => StreamTls::Server(server),
        (None, Some(client)) => StreamTls::Client(client, &host),
        (None, None) => return Err(options.error("the options must be a table")),
    };
    let begun = worker
        .reactor
        .borrow_mut()
        .start_stream_tls(stream.conn, how);
    begun.map_err(|misuse| match misuse {
        Misuse::Gone => options.error(stream.trouble()),
        Misuse::Busy => options.error("TLS has begun already, or what was written has not left"),
        Misuse::Closing => options.error("our side has finished"),
        other => options.error(other),
    })
}
