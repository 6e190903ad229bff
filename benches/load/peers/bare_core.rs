//! hukilau-core as a peer: the reactor driven from Rust, no script between.
//!
//! Settings: the default limits, timeouts and strictness, nothing turned off. Bodies are collected.
//! The JSON field is cut out at its known place, as the floor does: JSON is no part of core, so
//! that workload says what posting costs, not parsing.
//!
//! In mode `room` every WebSocket is subscribed to one topic and publishes there.
//!
//! Invariants
//! - The same routes, fields and bodies as every peer (`workload.rs`).
//!
//! Not here: the reactor; this is its use in one page.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use hukilau_core::Reactor;
use hukilau_core::conn::{Misuse, Publication, Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::{Accept, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::transport::tls::{ClientCertificates, Identity, ServerTls};
use hukilau_core::ws::Role;

use super::{Mode, Setup};
use crate::workload::{FIELD_AT, FIELD_LEN, HELLO};

/// What everybody in mode `room` is subscribed to.
const TOPIC: &[u8] = b"room";

/// Serves until the process is ended.
pub(super) fn serve(setup: &Setup) -> io::Result<()> {
    let limits = Limits::default();
    let settings = Rc::new(WsSettings::new(Role::Server, &limits));
    let mut reactor = Reactor::new(MioNet::new()?, limits).map_err(io::Error::other)?;
    let config = ServerConfig {
        websocket: true,
        tls: tls(setup)?,
        ..ServerConfig::default()
    };
    let is_room = setup.mode == Mode::Room;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = reactor.listen(&Endpoint::Ip(any_port), config)?;
    match reactor.local_endpoint(listener) {
        Some(Endpoint::Ip(address)) => super::announce(address.port())?,
        other => return Err(io::Error::other(format!("listens at {other:?}"))),
    }
    let mut inbox = Inbox::new();
    loop {
        reactor.turn(&mut inbox, None)?;
        for completion in inbox.completions() {
            if let Err(misuse) = answer(&mut reactor, &settings, is_room, completion) {
                eprintln!("core: not answered: {misuse}");
            }
        }
    }
}

fn tls(setup: &Setup) -> io::Result<Option<Arc<ServerTls>>> {
    let Some((cert, key)) = &setup.pair else {
        return Ok(None);
    };
    let identity = Identity::from_pem(&std::fs::read(cert)?, &std::fs::read(key)?);
    let tls =
        identity.and_then(|identity| ServerTls::new(&[identity], &ClientCertificates::Ignored));
    tls.map(|tls| Some(Arc::new(tls))).map_err(io::Error::other)
}

fn answer(
    reactor: &mut Reactor,
    settings: &Rc<WsSettings>,
    is_room: bool,
    completion: Completion<'_>,
) -> Result<(), Misuse> {
    let conn = completion.conn;
    match completion.what {
        What::Request {
            exchange, request, ..
        } if request.head().upgrades_to_websocket => {
            let accept = Accept {
                protocol: None,
                fields: &[],
                settings: Rc::clone(settings),
            };
            reactor.accept_websocket(conn, exchange, &accept)
        }
        // A request with a body is answered when that is here.
        What::Request { request, .. } if request.has_body() => Ok(()),
        What::Request {
            exchange, request, ..
        } => match request.target() {
            b"/" => reactor
                .respond(conn, exchange, &text(200, HELLO.as_bytes()))
                .map(drop),
            _ => reactor.respond(conn, exchange, &text(404, b"")).map(drop),
        },
        What::Body { exchange, bytes } => {
            let response = match bytes.get(FIELD_AT..FIELD_AT + FIELD_LEN) {
                Some(field) => text(200, field),
                None => text(400, b""),
            };
            reactor.respond(conn, exchange, &response).map(drop)
        }
        What::Open if is_room => reactor.subscribe(conn, TOPIC).map(drop),
        What::Message { kind, payload } if is_room => {
            reactor.publish(TOPIC, &Arc::new(Publication::new(kind, payload)?), None);
            Ok(())
        }
        What::Message { kind, payload } => match reactor.send(conn, kind, payload) {
            // A client that has just left wants no echo.
            Ok(_) | Err(Misuse::Gone) => Ok(()),
            Err(misuse) => Err(misuse),
        },
        What::Connected { .. }
        | What::Response { .. }
        | What::End { .. }
        | What::Open
        | What::Pong { .. }
        | What::Closing { .. }
        | What::Accepted { .. }
        | What::Bytes { .. }
        | What::Finished
        | What::Resolved { .. }
        | What::Datagram { .. }
        | What::Refused { .. }
        | What::Writable => Ok(()),
        What::Closed { .. } => Ok(()),
    }
}

fn text(status: u16, body: &[u8]) -> Response<'_> {
    Response {
        status,
        fields: &[(b"Content-Type", b"text/plain")],
        body,
    }
}
