//! A server over TLS on a thread of its own, by core alone: what it answers, and what it saw.
//!
//! `GET /bytes/N` answers with N bytes, `GET /whoami` with the subject of the client's
//! certificate, `POST` with what was posted, an upgrade with an echo. Everything that ends is
//! reported by its cause.

use crate::harness::PATIENCE;
use hukilau_core::Reactor;
use hukilau_core::conn::{Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::mailbox::Remote;
use hukilau_core::reactor::{Accept, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::transport::tls::{ClientCertificates, ServerTls};
use hukilau_core::ws::Role;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::certs::Pair;

/// A running server; dropping it ends it.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) tls: Arc<ServerTls>,
    ended: Receiver<String>,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// With certificates, and whatever clients need.
    pub(crate) fn new(pairs: &[&Pair], clients: &ClientCertificates) -> Self {
        Self::with_limits(pairs, clients, Limits::default())
    }

    pub(crate) fn with_limits(
        pairs: &[&Pair],
        clients: &ClientCertificates,
        limits: Limits,
    ) -> Self {
        let identities: Vec<_> = pairs.iter().map(|pair| pair.identity()).collect();
        let tls = Arc::new(ServerTls::new(&identities, clients).expect("the settings agree"));
        let (tell, told) = channel();
        let (tell_end, ended) = channel();
        let shared = Arc::clone(&tls);
        let thread = thread::spawn(move || {
            let net = MioNet::new().expect("the system has a selector");
            let mut reactor = Reactor::new(net, limits).expect("the limits agree");
            let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
            let config = ServerConfig {
                websocket: true,
                tls: Some(shared),
                ..ServerConfig::default()
            };
            let listener = reactor.listen(&at, config).expect("a free port");
            let Some(Endpoint::Ip(at)) = reactor.local_endpoint(listener) else {
                panic!("a listener has an address");
            };
            let heard = tell.send((at.port(), reactor.remote()));
            heard.expect("the test waits for it");
            serve(reactor, &tell_end);
        });
        let (port, remote) = told.recv_timeout(PATIENCE).expect("it listens");
        Self {
            port,
            tls,
            ended,
            remote,
            thread: Some(thread),
        }
    }

    /// The cause of the next connection that ends after it has asked for something.
    pub(crate) fn next_end(&self) -> String {
        self.ended.recv_timeout(PATIENCE).expect("one ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        assert!(self.remote.drain(Duration::ZERO));
        let joined = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            joined.expect("it runs").expect("it ends well");
        }
    }
}

fn serve(mut reactor: Reactor, ended: &Sender<String>) {
    let (mut inbox, mut posted) = (Inbox::new(), Vec::new());
    let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
    while reactor.listeners() > 0 || reactor.connections() > 0 {
        reactor.turn(&mut inbox, None).expect("poll works");
        for Completion { conn, what } in inbox.completions() {
            let mut answer = |exchange, body: &[u8]| {
                let response = Response {
                    status: 200,
                    fields: &[],
                    body,
                };
                // A client may have left meanwhile, which `Closed` tells.
                let _ = reactor.respond(conn, exchange, &response);
            };
            match what {
                What::Request {
                    exchange, request, ..
                } if request.target() == b"/ws" => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(&settings),
                    };
                    let _ = reactor.accept_websocket(conn, exchange, &accept);
                }
                What::Request {
                    exchange, request, ..
                } if !request.has_body() => match request.target() {
                    b"/whoami" => {
                        let certificate = reactor.peer_certificate(conn);
                        let subject = certificate.map(|certificate| certificate.subject());
                        let subject = subject.unwrap_or_else(|| "nobody".to_owned());
                        let response = Response {
                            status: 200,
                            fields: &[],
                            body: subject.as_bytes(),
                        };
                        let _ = reactor.respond(conn, exchange, &response);
                    }
                    target => {
                        let text = String::from_utf8_lossy(target).into_owned();
                        let count = text.strip_prefix("/bytes/").map(str::parse);
                        answer(
                            exchange,
                            &bytes(count.map_or(0, |count| count.unwrap_or(0))),
                        );
                    }
                },
                What::Body { exchange, bytes } => {
                    posted.clear();
                    posted.extend_from_slice(bytes);
                    answer(exchange, &posted);
                }
                What::Message { kind, payload } => {
                    let _ = reactor.send(conn, kind, payload);
                }
                What::Closed { cause } => {
                    let _ = ended.send(cause.to_string());
                }
                _ => {}
            }
        }
    }
}

/// What `/bytes/N` answers with.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| b'a' + (at % 23).to_le_bytes()[0])
        .collect()
}
