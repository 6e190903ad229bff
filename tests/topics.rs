//! Publishing over real sockets, driven turn by turn: who gets what, and what becomes of those who
//! do not read.

use crate::sim::{Call, Script, SimNet, SimOptions, Step};
use hukilau_core::Reactor;
use hukilau_core::conn::{Backpressure, Misuse, Overflow, Publication, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::Accept;
use hukilau_core::reactor::ServerConfig;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Inbox, What};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::{MessageKind, Role};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

struct Server {
    reactor: Reactor,
    inbox: Inbox,
    address: SocketAddr,
    settings: Rc<WsSettings>,
    closed: Vec<(ConnKey, &'static str)>,
}

impl Server {
    fn with(backpressure: Backpressure) -> Self {
        let limits = Limits {
            linger_timeout: Duration::from_millis(50),
            ..Limits::default()
        };
        let net = MioNet::new().expect("the system polls");
        let mut reactor = Reactor::new(net, limits.clone()).expect("the limits agree");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let config = ServerConfig {
            websocket: true,
            ..ServerConfig::default()
        };
        let listener = reactor
            .listen(&Endpoint::Ip(loopback), config)
            .expect("loopback has a free port");
        let Some(Endpoint::Ip(address)) = reactor.local_endpoint(listener) else {
            panic!("it listens at an address");
        };
        let settings = WsSettings {
            backpressure,
            ..WsSettings::new(Role::Server, &limits)
        };
        Self {
            reactor,
            inbox: Inbox::new(),
            address,
            settings: Rc::new(settings),
            closed: Vec::new(),
        }
    }

    /// One turn; returns the connections that opened.
    fn turn(&mut self, wait: Option<Duration>) -> Vec<ConnKey> {
        let wake_at = wait.map(|wait| self.reactor.now() + wait);
        self.reactor
            .turn(&mut self.inbox, wake_at)
            .expect("the poll works");
        let mut opened = Vec::new();
        for completion in self.inbox.completions() {
            match completion.what {
                What::Request { exchange, .. } => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(&self.settings),
                    };
                    let accepted =
                        self.reactor
                            .accept_websocket(completion.conn, exchange, &accept);
                    assert_eq!(accepted, Ok(()));
                }
                What::Open => opened.push(completion.conn),
                What::Closed { cause } => self.closed.push((completion.conn, cause.name())),
                _ => {}
            }
        }
        opened
    }

    fn open(&mut self) -> (ConnKey, TcpStream) {
        let mut client = TcpStream::connect(self.address).expect("it listens");
        client.write_all(UPGRADE).expect("it reads");
        let key = loop {
            if let Some(key) = self.turn(None).pop() {
                break key;
            }
        };
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).expect("the 101 came");
            head.push(byte[0]);
        }
        (key, client)
    }

    fn publish(&mut self, topic: &str, words: &[u8]) -> usize {
        let publication = Publication::new(MessageKind::Binary, words).expect("any bytes");
        self.reactor
            .publish(topic.as_bytes(), &Arc::new(publication), None)
    }

    /// Turns until `count` connections have ended.
    fn until_closed(&mut self, count: usize) {
        while self.closed.len() < count {
            self.turn(None);
        }
    }
}

/// The payload of the next frame, which is short of 64 KiB and neither masked nor a fragment.
fn message(client: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 2];
    client.read_exact(&mut header).expect("a frame comes");
    assert_eq!(header[0], 0x82, "a whole binary message");
    let mut len = usize::from(header[1]);
    if len == 126 {
        let mut long = [0; 2];
        client.read_exact(&mut long).expect("a frame comes");
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut payload = vec![0; len];
    client.read_exact(&mut payload).expect("a frame comes");
    payload
}

const ROOMY: Backpressure = Backpressure {
    limit_bytes: 1024 * 1024,
    overflow: Overflow::Close,
};

#[test]
fn a_publication_reaches_the_subscribers_of_its_topic_and_nobody_else() {
    let mut server = Server::with(ROOMY);
    let mut clients = [server.open(), server.open(), server.open()];
    let [(a, _), (b, _), (c, _)] = clients;
    for (key, topic) in [(a, "room"), (b, "room"), (b, "lobby"), (c, "lobby")] {
        assert_eq!(server.reactor.subscribe(key, topic.as_bytes()), Ok(true));
    }
    assert_eq!(
        server.reactor.subscribe(a, b"room"),
        Ok(false),
        "it is already"
    );
    assert_eq!(server.publish("room", b"1"), 2);
    assert_eq!(server.publish("lobby", b"2"), 2);
    assert_eq!(server.publish("nowhere", b"3"), 0);
    assert!(server.reactor.unsubscribe(b, b"room"));
    assert!(!server.reactor.unsubscribe(b, b"room"));
    let publication = Arc::new(Publication::new(MessageKind::Binary, b"4").expect("any bytes"));
    assert_eq!(
        server.reactor.publish(b"lobby", &publication, Some(c)),
        1,
        "not its own sender"
    );
    assert_eq!(server.publish("lobby", b"5"), 2);
    server.turn(Some(Duration::ZERO));
    let expected: [&[&[u8]]; 3] = [&[b"1"], &[b"1", b"2", b"4", b"5"], &[b"2", b"5"]];
    for ((_, client), expected) in clients.iter_mut().zip(expected) {
        for words in expected {
            assert_eq!(message(client), *words);
        }
    }
    let [_, (_, leaves), _] = clients;
    drop(leaves);
    server.until_closed(1);
    assert_eq!(server.reactor.subscribers(b"lobby"), 1);
    assert_eq!(server.reactor.subscribe(b, b"lobby"), Err(Misuse::Gone));
}

/// What one reactor tells of its subscribers is what another can add up.
#[test]
fn changes_of_topics_are_told_to_who_asks_whether_sockets_leave_or_end() {
    let mut server = Server::with(ROOMY);
    let [(a, _a), (b, leaves), (c, _c)] = [server.open(), server.open(), server.open()];
    assert_eq!(server.reactor.subscribe(a, b"early"), Ok(true));
    assert_eq!(server.reactor.take_topic_changes(), None, "nobody asked");
    server.reactor.track_topic_changes();
    for (key, topic) in [(a, "room"), (b, "room"), (b, "lobby"), (c, "gone")] {
        assert_eq!(server.reactor.subscribe(key, topic.as_bytes()), Ok(true));
    }
    assert!(server.reactor.unsubscribe(c, b"gone"));
    let changes = |server: &mut Server| {
        let changes = server.reactor.take_topic_changes();
        let named = |(name, change): (Box<[u8]>, i64)| {
            (String::from_utf8(name.into_vec()).expect("UTF-8"), change)
        };
        let mut changes: Vec<_> = changes.into_iter().flatten().map(named).collect();
        changes.sort();
        changes
    };
    let named = |name: &str, change| (name.to_owned(), change);
    assert_eq!(
        changes(&mut server),
        [named("early", 1), named("lobby", 1), named("room", 2)]
    );
    assert_eq!(server.reactor.take_topic_changes(), None, "told already");
    drop(leaves);
    server.until_closed(1);
    assert!(server.reactor.unsubscribe(a, b"early"));
    assert_eq!(
        changes(&mut server),
        [named("early", -1), named("lobby", -1), named("room", -1)]
    );
}

#[test]
fn topics_are_bounded_in_length_and_number() {
    let mut server = Server::with(ROOMY);
    let (key, _client) = server.open();
    for bad in [&b""[..], &[b'x'; 256]] {
        assert_eq!(
            server.reactor.subscribe(key, bad),
            Err(Misuse::InvalidTopic)
        );
    }
    for number in 0..256_u32 {
        assert_eq!(
            server.reactor.subscribe(key, &number.to_be_bytes()),
            Ok(true)
        );
    }
    assert_eq!(
        server.reactor.subscribe(key, b"one more"),
        Err(Misuse::TooManyTopics)
    );
    assert_eq!(server.reactor.topics_of(key).count(), 256);
}

type Clients = Vec<(ConnKey, TcpStream)>;

/// Four of twelve never read. The others get everything, in order, at once; what waits for the four
/// is bounded by what their policy says. Returns the slow and the fast ones.
#[track_caller]
fn crowd(overflow: Overflow) -> (Server, Clients, Clients) {
    const ROUNDS: u32 = 1_500;
    let limit_bytes = 128 * 1024;
    let mut server = Server::with(Backpressure {
        limit_bytes,
        overflow,
    });
    let mut clients: Vec<_> = (0..12).map(|_| server.open()).collect();
    for (key, _) in &clients {
        assert_eq!(server.reactor.subscribe(*key, b"world"), Ok(true));
    }
    let mut fast = clients.split_off(4);
    let mut payload = [0; 8 * 1024];
    for round in 0..ROUNDS {
        payload[..4].copy_from_slice(&round.to_be_bytes());
        server.publish("world", &payload);
        server.turn(Some(Duration::ZERO));
        for (_, client) in &mut fast {
            assert_eq!(message(client), payload, "round {round}");
        }
        for (key, _) in &clients {
            let waits = server.reactor.waiting_bytes(*key).unwrap_or(0);
            assert!(
                waits <= limit_bytes as usize + 8 * 1024 + 100,
                "{waits} bytes wait"
            );
        }
    }
    (server, clients, fast)
}

#[test]
fn who_does_not_read_is_closed_with_1013_and_the_others_get_everything() {
    let (mut server, slow, _fast) = crowd(Overflow::Close);
    server.until_closed(slow.len());
    for (key, _) in &slow {
        let closed = server.closed.iter().find(|(closed, _)| closed == key);
        assert_eq!(closed, Some(&(*key, Cause::TooSlow.name())));
    }
    assert_eq!(server.reactor.subscribers(b"world"), 8);
}

#[test]
fn who_does_not_read_misses_messages_where_they_may_be_dropped() {
    let (mut server, mut slow, _fast) = crowd(Overflow::Drop);
    assert!(server.closed.is_empty());
    let (key, client) = &mut slow[0];
    let mut last = None;
    // Until all that was sent is read; then there is room again.
    while server.reactor.waiting_bytes(*key) != Some(0) || last.is_none() {
        let number = message(client)[..4].try_into().map(u32::from_be_bytes);
        let number = number.expect("four bytes");
        assert!(last.is_none_or(|last| number > last), "in order");
        last = Some(number);
        server.turn(Some(Duration::ZERO));
    }
}

#[test]
fn who_reads_late_gets_the_latest_of_each_topic() {
    let (mut server, mut slow, _fast) = crowd(Overflow::Latest);
    assert!(server.closed.is_empty());
    let (_, client) = &mut slow[0];
    let (mut last, mut count) = (None, 0);
    while last != Some(1_499) {
        let number = message(client)[..4].try_into().map(u32::from_be_bytes);
        let number = number.expect("four bytes");
        assert!(last.is_none_or(|last| number > last), "in order");
        (last, count) = (Some(number), count + 1);
        server.turn(Some(Duration::ZERO));
    }
    assert!(count < 1_500, "some were replaced: {count} came");
}

/// Whatever is sent between two turns, by publishing or one by one, is one write for each socket.
#[test]
fn what_is_sent_in_a_tick_leaves_in_one_write_per_socket() {
    const SOCKETS: usize = 20;
    let net = SimNet::<true>::new(7, SimOptions::calm());
    let mut reactor = hukilau_core::reactor::Reactor::new(net.clone(), Limits::default())
        .expect("the defaults agree");
    let place = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let config = ServerConfig {
        websocket: true,
        ..ServerConfig::default()
    };
    reactor
        .listen(&place, config)
        .expect("nobody listens there yet");
    for _ in 0..SOCKETS {
        let steps = [Step::Send(UPGRADE.to_vec()), Step::AwaitBytes(1_000_000)];
        net.dial_in(&place, Duration::ZERO, Script::new(steps));
    }
    let settings = Rc::new(WsSettings::new(Role::Server, reactor.limits()));
    let (mut inbox, mut open) = (Inbox::new(), Vec::new());
    while open.len() < SOCKETS {
        reactor.turn(&mut inbox, None).expect("there is more to do");
        for completion in inbox.completions() {
            match completion.what {
                What::Request { exchange, .. } => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(&settings),
                    };
                    let accepted = reactor.accept_websocket(completion.conn, exchange, &accept);
                    assert_eq!(accepted, Ok(()));
                }
                What::Open => {
                    assert_eq!(reactor.subscribe(completion.conn, b"tick"), Ok(true));
                    open.push(completion.conn);
                }
                _ => {}
            }
        }
    }
    let soon = |reactor: &hukilau_core::reactor::Reactor<SimNet<true>>| {
        Some(reactor.now() + Duration::from_millis(1))
    };
    for _ in 0..3 {
        let wake_at = soon(&reactor);
        reactor.turn(&mut inbox, wake_at).expect("the poll works");
    }
    for _tick in 0..3 {
        let before = net.calls(Call::Write);
        for n in 0..16_u8 {
            let publication = Publication::new(MessageKind::Binary, &[n; 40]).expect("any bytes");
            let count = reactor.publish(b"tick", &Arc::new(publication), None);
            assert_eq!(count, SOCKETS);
            for key in &open {
                reactor
                    .send(*key, MessageKind::Text, b"to one")
                    .expect("it is open");
            }
        }
        assert_eq!(net.calls(Call::Write), before, "nothing leaves by itself");
        let wake_at = soon(&reactor);
        reactor.turn(&mut inbox, wake_at).expect("the poll works");
        assert_eq!(net.calls(Call::Write) - before, SOCKETS as u64);
    }
}
