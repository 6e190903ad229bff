//! A whole server on the core alone: answers GET, echoes WebSocket messages.
//!
//! `cargo run --release -p hukilau-core --example hello -- 127.0.0.1:8080`, with ` compress` behind
//! it for permessage-deflate.

use hukilau_core::Reactor;
use hukilau_core::conn::{Exchange, Response, WsSettings};
use hukilau_core::http1::Request;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Accept, ListenerKey, ServerConfig};
use hukilau_core::server::{Handler, dispatch};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::deflate::DeflateSettings;
use hukilau_core::ws::{MessageKind, Role};
use std::error::Error;
use std::rc::Rc;

struct Hello {
    settings: Rc<WsSettings>,
}

impl Handler<MioNet> for Hello {
    fn on_request(
        &mut self,
        reactor: &mut Reactor,
        conn: ConnKey,
        exchange: Exchange,
        request: Request<'_>,
        _: ListenerKey,
    ) {
        let outcome = if request.head().upgrades_to_websocket {
            let settings = Rc::clone(&self.settings);
            let accept = Accept {
                protocol: None,
                fields: &[],
                settings,
            };
            reactor.accept_websocket(conn, exchange, &accept)
        } else {
            let fields: &[(&[u8], &[u8])] = &[(b"Content-Type", b"text/plain")];
            let response = Response {
                status: 200,
                fields,
                body: b"Hello, World!",
            };
            reactor.respond(conn, exchange, &response).map(|_| ())
        };
        if let Err(misuse) = outcome {
            eprintln!("not answered: {misuse}");
        }
    }

    fn on_message(
        &mut self,
        reactor: &mut Reactor,
        conn: ConnKey,
        kind: MessageKind,
        payload: &[u8],
    ) {
        // A socket that has just closed is no error of ours.
        let _gone = reactor.send(conn, kind, payload);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let limits = Limits::default();
    let mut settings = WsSettings::new(Role::Server, &limits);
    if arguments.next().as_deref() == Some("compress") {
        settings.deflate = Some(DeflateSettings::default());
    }
    let settings = Rc::new(settings);
    let mut reactor = Reactor::new(MioNet::new()?, limits)?;
    let config = ServerConfig {
        websocket: true,
        ..ServerConfig::default()
    };
    let listener = reactor.listen(&Endpoint::Ip(address.parse()?), config)?;
    if let Some(Endpoint::Ip(address)) = reactor.local_endpoint(listener) {
        println!("listening at {address}");
    }
    let (mut inbox, mut hello) = (Inbox::new(), Hello { settings });
    loop {
        reactor.turn(&mut inbox, None)?;
        dispatch(&inbox, &mut reactor, &mut hello);
    }
}
