//! Draining one listener of several, over real sockets.

use hukilau_core::Reactor;
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{ListenerKey, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct Server {
    reactor: Reactor,
    inbox: Inbox,
}

impl Server {
    fn listen(&mut self) -> ListenerKey {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listening = self
            .reactor
            .listen(&Endpoint::Ip(address), ServerConfig::default());
        listening.expect("loopback has a free port")
    }

    fn connect(&self, listener: ListenerKey) -> TcpStream {
        match self.reactor.local_endpoint(listener) {
            Some(Endpoint::Ip(address)) => TcpStream::connect(address).expect("it listens"),
            other => panic!("not where it listens: {other:?}"),
        }
    }

    /// Turns until a request came, and answers it. Returns whose listener it came by.
    fn answer_one(&mut self) -> ListenerKey {
        let mut answered = None;
        while answered.is_none() {
            self.reactor
                .turn(&mut self.inbox, None)
                .expect("the poll works");
            for completion in self.inbox.completions() {
                if let What::Request {
                    exchange, listener, ..
                } = completion.what
                {
                    let response = Response {
                        status: 200,
                        fields: &[],
                        body: b"hi",
                    };
                    let outcome = self.reactor.respond(completion.conn, exchange, &response);
                    assert!(outcome.is_ok(), "{outcome:?}");
                    answered = Some(listener);
                }
            }
        }
        self.turn();
        answered.expect("the loop has ended")
    }

    fn turn(&mut self) {
        let now = Some(self.reactor.now());
        self.reactor
            .turn(&mut self.inbox, now)
            .expect("the poll works");
    }
}

/// Everything until the end, which must not be a reset.
fn read_to_end(client: &mut TcpStream) -> String {
    let mut text = String::new();
    client
        .read_to_string(&mut text)
        .expect("an end without a reset");
    text
}

fn read_some(client: &mut TcpStream) -> usize {
    client.read(&mut [0; 1000]).expect("a peer that is there")
}

#[test]
fn draining_one_listener_leaves_the_others_connections_alone() {
    let net = MioNet::new().expect("the system polls");
    let reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
    let mut server = Server {
        reactor,
        inbox: Inbox::new(),
    };
    let (going, staying) = (server.listen(), server.listen());
    let mut clients = [server.connect(going), server.connect(staying)];
    for (client, listener) in clients.iter_mut().zip([going, staying]) {
        client.write_all(GET).expect("it listens");
        assert_eq!(server.answer_one(), listener);
        assert!(read_some(client) > 0);
    }

    server.reactor.drain_listener(going, Duration::from_secs(5));
    server.turn();
    assert_eq!(server.reactor.local_endpoint(going), None);
    let [gone, here] = &mut clients;
    assert_eq!(
        read_some(gone),
        0,
        "an idle connection of the listener is closed"
    );

    let next = server.listen();
    assert_ne!(next, going, "a key names one listener and never another");
    here.write_all(GET).expect("it is still open");
    assert_eq!(server.answer_one(), staying);
    assert!(read_some(here) > 0);
}

#[test]
fn a_drained_listener_cuts_what_outlasts_its_grace() {
    let net = MioNet::new().expect("the system polls");
    let reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
    let mut server = Server {
        reactor,
        inbox: Inbox::new(),
    };
    let going = server.listen();
    let mut client = server.connect(going);
    client.write_all(GET).expect("it listens");
    while server.inbox.is_empty() {
        server
            .reactor
            .turn(&mut server.inbox, None)
            .expect("the poll works");
    }
    server
        .reactor
        .drain_listener(going, Duration::from_millis(20));
    while server.reactor.connections() > 0 {
        server
            .reactor
            .turn(&mut server.inbox, None)
            .expect("the poll works");
    }
    assert!(
        client.read(&mut [0; 10]).is_err(),
        "the answer never came, so it is a reset"
    );
}

/// Whoever has connected believes it: a drain that reset the system's queue would lose requests.
#[test]
fn a_drain_serves_what_has_connected_but_was_not_accepted_yet() {
    let net = MioNet::new().expect("the system polls");
    let reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
    let mut server = Server {
        reactor,
        inbox: Inbox::new(),
    };
    let going = server.listen();
    let mut asks = server.connect(going);
    let mut silent = server.connect(going);
    asks.write_all(GET).expect("it listens");
    server.reactor.drain(Duration::from_secs(60));
    assert_eq!(server.reactor.listeners(), 0);
    assert_eq!(server.answer_one(), going);
    let answer = read_to_end(&mut asks);
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("hi"), "{answer}");
    assert_eq!(read_to_end(&mut silent), "");
}

#[test]
fn a_drain_answers_a_request_that_has_arrived_unread_on_an_idle_connection() {
    let net = MioNet::new().expect("the system polls");
    let reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
    let mut server = Server {
        reactor,
        inbox: Inbox::new(),
    };
    let going = server.listen();
    let mut client = server.connect(going);
    client.write_all(GET).expect("it listens");
    server.answer_one();
    assert!(read_some(&mut client) > 0);
    client.write_all(GET).expect("it is still open");
    server.reactor.drain(Duration::from_secs(60));
    server.answer_one();
    let answer = read_to_end(&mut client);
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}
