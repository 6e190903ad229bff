//! The serving half: whatever is asked, it says again.
//!
//! - `/whole`   when all of the body is here, in one piece
//! - `/pieces`  likewise, in chunks
//! - `/duplex`  as it comes
//! - `/refused` a request for a WebSocket that is answered with 403
//! - else       a WebSocket, if one is asked for
//!
//! Not here: what the client makes of it (`asker.rs`).

use crate::sim::SimNet;
use hukilau_core::conn::{Exchange, Misuse, Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Completion, What};
use hukilau_core::reactor::{Accept, Reactor};
use hukilau_core::ws::Role;
use hukilau_core::ws::deflate::DeflateSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const OK: Response<'_> = Response {
    status: 200,
    fields: &[],
    body: b"",
};

/// See the module.
pub(super) struct Echo {
    settings: Rc<WsSettings>,
    /// Target and body of what is arriving.
    arriving: BTreeMap<(ConnKey, Exchange), (Vec<u8>, Vec<u8>)>,
    closed: BTreeSet<ConnKey>,
}

impl Echo {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut settings = WsSettings::new(Role::Server, limits);
        settings.deflate = Some(DeflateSettings::default());
        Self {
            settings: Rc::new(settings),
            arriving: BTreeMap::new(),
            closed: BTreeSet::new(),
        }
    }

    pub(super) fn take<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        Completion { conn, what }: Completion<'_>,
    ) {
        assert!(
            !self.closed.contains(&conn),
            "{conn}: {what:?} after Closed"
        );
        let outcome = match what {
            What::Request {
                exchange, request, ..
            } => {
                let target = request.target().to_vec();
                let begins = target == b"/duplex";
                let has_body = request.has_body();
                self.arriving.insert((conn, exchange), (target, Vec::new()));
                let begun = match begins {
                    true => reactor.begin_response(conn, exchange, &OK).map(drop),
                    false => Ok(()),
                };
                match has_body {
                    true => begun,
                    false => begun.and_then(|()| self.answer(reactor, conn, exchange)),
                }
            }
            What::Body { exchange, bytes } => {
                let asked = self.arriving.get_mut(&(conn, exchange));
                let (target, body) = asked.expect("a body has its request");
                if target == b"/duplex" {
                    reactor.write_body(conn, exchange, bytes).map(drop)
                } else {
                    body.extend_from_slice(bytes);
                    Ok(())
                }
            }
            What::End { exchange } => self.answer(reactor, conn, exchange),
            What::Message { kind, payload } => reactor.send(conn, kind, payload).map(drop),
            What::Closed { .. } => {
                self.closed.insert(conn);
                self.arriving.retain(|(of, _), _| *of != conn);
                Ok(())
            }
            What::Refused { .. }
            | What::Open
            | What::Closing { .. }
            | What::Writable
            | What::Pong { .. } => Ok(()),
            What::Connected { .. } | What::Response { .. } => panic!("{conn}: {what:?}"),
            What::Accepted { .. }
            | What::Bytes { .. }
            | What::Finished
            | What::Resolved { .. }
            | What::Datagram { .. } => {
                panic!("{conn}: no stream")
            }
        };
        assert!(
            matches!(outcome, Ok(()) | Err(Misuse::Gone | Misuse::Closing)),
            "{conn}: {outcome:?}"
        );
    }

    fn answer<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        exchange: Exchange,
    ) -> Result<(), Misuse> {
        let asked = self.arriving.remove(&(conn, exchange));
        let (target, body) = asked.expect("it is being asked");
        match &target[..] {
            b"/duplex" => reactor.finish_body(conn, exchange).map(drop),
            b"/whole" => {
                let response = Response { body: &body, ..OK };
                reactor.respond(conn, exchange, &response).map(drop)
            }
            b"/pieces" => {
                reactor.begin_response(conn, exchange, &OK)?;
                for piece in body.chunks(700) {
                    reactor.write_body(conn, exchange, piece)?;
                }
                reactor.finish_body(conn, exchange).map(drop)
            }
            b"/refused" => {
                let response = Response {
                    status: 403,
                    body: b"not here",
                    ..OK
                };
                reactor.respond(conn, exchange, &response).map(drop)
            }
            _ => {
                let accept = Accept {
                    protocol: Some(b"echo"),
                    fields: &[],
                    settings: Rc::clone(&self.settings),
                };
                reactor.accept_websocket(conn, exchange, &accept)
            }
        }
    }
}
