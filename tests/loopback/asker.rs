//! The asking half: clients that dial, each with its errands, and check every byte they hear.
//!
//! Invariants it asserts
//! - `Connected` comes once and first, `Closed` once and last.
//! - Each request is answered in its turn by its own body; each message by itself.
//! - A refused WebSocket says how it was refused.
//!
//! Not here: who answers (`echo.rs`).

use crate::sim::{Dice, SimNet};
use hukilau_core::conn::{Ask, AskBody, Exchange, HandshakeError, Misuse, Pressure};
use hukilau_core::conn::{WsOpening, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, What};
use hukilau_core::reactor::{Destination, DialConfig, DialTls, Reactor};
use hukilau_core::ws::deflate::DeflateSettings;
use hukilau_core::ws::{MessageKind, Role};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a request's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Whole,
    Length,
    Chunked,
}

/// One thing to do on a connection.
enum Errand {
    Ask {
        target: &'static [u8],
        manner: Manner,
        body: Vec<u8>,
        collects: bool,
        closes: bool,
    },
    /// The last of its connection.
    Chat { messages: Vec<Vec<u8>> },
    /// Likewise.
    BeRefused,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask {
                target,
                manner,
                body,
                ..
            } => {
                let target = String::from_utf8_lossy(target);
                write!(f, "{target} {manner:?} {}", body.len())
            }
            Self::Chat { messages } => write!(f, "chat of {}", messages.len()),
            Self::BeRefused => f.write_str("be refused"),
        }
    }
}

/// A client and what it has heard.
#[derive(Debug)]
struct Client {
    key: Option<ConnKey>,
    dials_at: Duration,
    errands: VecDeque<Errand>,
    connected: bool,
    /// The request under way, how much of its body is sent, and what has come back.
    exchange: Option<Exchange>,
    sent: usize,
    heard: Vec<u8>,
    opened: bool,
    echoes: usize,
    status: u16,
    /// The server has said that its answer is the last.
    server_closes: bool,
    terminated: bool,
    closed: bool,
}

/// See the module.
pub(super) struct Asker {
    dice: Dice,
    cuts: u16,
    clients: Vec<Client>,
    settings: [Rc<WsSettings>; 2],
    origin: Option<Instant>,
    /// Whether they speak TLS, and with whom.
    pub(super) tls: Option<DialTls>,
    pub(super) causes: BTreeMap<String, usize>,
}

impl Asker {
    pub(super) fn new(seed: u64, clients: usize, cuts: u16, limits: &Limits) -> Self {
        let mut dice = Dice::new(seed ^ 0xa5);
        let clients = (0..clients).map(|_| Client::new(&mut dice)).collect();
        let plain = WsSettings::new(Role::Client, limits);
        let mut deflating = plain.clone();
        deflating.deflate = Some(DeflateSettings::default());
        Self {
            dice,
            cuts,
            clients,
            settings: [Rc::new(plain), Rc::new(deflating)],
            origin: None,
            tls: None,
            causes: BTreeMap::new(),
        }
    }

    pub(super) fn knows(&self, conn: ConnKey) -> bool {
        self.clients.iter().any(|client| client.key == Some(conn))
    }

    /// When the next client dials.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let waiting = self.clients.iter().filter(|client| client.key.is_none());
        let first = waiting.map(|client| client.dials_at).min()?;
        Some(self.origin? + first)
    }

    /// Lets those dial whose time has come.
    pub(super) fn dial<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>) {
        let origin = *self.origin.get_or_insert(reactor.now());
        for client in &mut self.clients {
            if client.key.is_none() && origin + client.dials_at <= reactor.now() {
                let to = Destination::tcp("server.test", 80);
                let config = DialConfig {
                    tls: self.tls.clone(),
                    ..DialConfig::default()
                };
                let key = reactor.dial(&to, &config);
                client.key = Some(key.expect("there is room for all"));
            }
        }
    }

    pub(super) fn take<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        Completion { conn, what }: Completion<'_>,
    ) {
        let cuts = self.dice.chance(self.cuts);
        let clients = &mut self.clients;
        let client = clients.iter_mut().find(|client| client.key == Some(conn));
        let client = client.expect("it is known");
        assert!(!client.closed, "{conn}: {what:?} after Closed");
        match what {
            What::Connected { .. } => {
                assert!(!client.connected, "{conn}: connected twice");
                client.connected = true;
                client.begin(reactor, conn, &self.settings);
            }
            What::Response { exchange, response } => {
                assert_eq!(client.exchange, Some(exchange), "{conn}: whose is it");
                client.status = response.head().status;
                // As it does where it answers before it has heard all.
                client.server_closes = response.field(b"Connection") == Some(b"close");
                if !response.has_body() && client.status != 101 {
                    client.finish(reactor, conn, &self.settings);
                }
            }
            What::Body { exchange, bytes } => {
                assert_eq!(client.exchange, Some(exchange), "{conn}: whose is it");
                client.heard.extend_from_slice(bytes);
            }
            What::End { exchange } => {
                assert_eq!(client.exchange, Some(exchange), "{conn}: whose is it");
                client.finish(reactor, conn, &self.settings);
            }
            What::Open => {
                assert_eq!(client.status, 101);
                client.opened = true;
                client.go_on(reactor, conn);
            }
            What::Message { payload, .. } => client.hear_echo(reactor, conn, payload),
            What::Writable => client.go_on(reactor, conn),
            What::Closing { .. } | What::Pong { .. } => assert!(client.opened),
            What::Closed { cause } => {
                client.closed = true;
                let is_refused = matches!(cause, Cause::Handshake(HandshakeError::Status));
                assert_eq!(
                    is_refused,
                    client.status == 403 && !client.terminated || is_refused
                );
                *self.causes.entry(cause.name().to_owned()).or_default() += 1;
            }
            What::Request { .. } | What::Refused { .. } | What::Accepted { .. } => {
                panic!("{conn}: {what:?}")
            }
            What::Bytes { .. } | What::Finished | What::Resolved { .. } | What::Datagram { .. } => {
                panic!("{conn}: {what:?}")
            }
        }
        if cuts && !client.closed {
            client.terminated = true;
            // It may be ending by itself.
            let _ = reactor.terminate(conn);
        }
    }

    pub(super) fn check_rest(&self, strict: bool) {
        for client in &self.clients {
            assert!(client.closed, "never ended: {client:?}");
            assert!(!strict || client.errands.is_empty(), "not done: {client:?}");
        }
    }
}

impl Client {
    fn new(dice: &mut Dice) -> Self {
        let count = dice.up_to(4);
        let mut errands: VecDeque<Errand> = (0..count).map(|_| Errand::ask(dice)).collect();
        match dice.below(4) {
            0 => errands.push_back(Errand::chat(dice)),
            1 => errands.push_back(Errand::BeRefused),
            // What is left idle is closed by the server, some time.
            _ => {
                if let Some(Errand::Ask { closes, .. }) = errands.back_mut() {
                    *closes = dice.chance(500);
                }
            }
        }
        Self {
            key: None,
            dials_at: dice.within(Duration::from_secs(2)),
            errands,
            connected: false,
            exchange: None,
            sent: 0,
            heard: Vec::new(),
            opened: false,
            echoes: 0,
            status: 0,
            server_closes: false,
            terminated: false,
            closed: false,
        }
    }

    /// Begins the next errand.
    fn begin<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        settings: &[Rc<WsSettings>; 2],
    ) {
        (self.sent, self.status) = (0, 0);
        self.heard.clear();
        let Some(errand) = self.errands.front() else {
            self.exchange = None;
            return;
        };
        let opening = |target| WsOpening {
            target,
            host: b"server.test",
            protocols: &[b"chat", b"echo"],
            fields: &[(b"Origin", b"http://here")],
            settings: &settings[conn.index() as usize % 2],
        };
        let begun = match errand {
            Errand::Chat { .. } => reactor.open_websocket(conn, &opening(b"/socket")),
            Errand::BeRefused => reactor.open_websocket(conn, &opening(b"/refused")),
            Errand::Ask {
                target,
                manner,
                body,
                collects,
                closes,
            } => {
                let ask = Ask {
                    method: b"POST",
                    target,
                    host: b"server.test",
                    fields: if *closes {
                        &[(b"Connection", b"close")]
                    } else {
                        &[]
                    },
                    body: match manner {
                        Manner::Whole => AskBody::Whole(body),
                        Manner::Length => AskBody::Length(body.len() as u64),
                        Manner::Chunked => AskBody::Chunked,
                    },
                    collect_bytes_max: collects.then_some(100_000),
                };
                reactor.ask(conn, &ask)
            }
        };
        match begun {
            Ok(exchange) => self.exchange = Some(exchange),
            // The server may have left, or chance has failed: then `Closed` follows.
            Err(Misuse::Gone) => return,
            Err(misuse) => panic!("{conn}: {misuse}"),
        }
        self.go_on(reactor, conn);
    }

    /// Sends what there is to send, until told to stop.
    fn go_on<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>, conn: ConnKey) {
        match self.errands.front() {
            Some(Errand::Ask { manner, body, .. }) if *manner != Manner::Whole => {
                let Some(exchange) = self.exchange else {
                    return;
                };
                while self.sent < body.len() {
                    let end = body.len().min(self.sent + 1_500);
                    match reactor.write_request(conn, exchange, &body[self.sent..end]) {
                        Ok(pressure) => {
                            self.sent = end;
                            if pressure == Pressure::High {
                                return;
                            }
                        }
                        Err(Misuse::Gone) => return,
                        Err(misuse) => panic!("{conn}: {misuse}"),
                    }
                }
                let finished = reactor.finish_request(conn, exchange);
                assert!(
                    matches!(finished, Ok(()) | Err(Misuse::Gone)),
                    "{finished:?}"
                );
            }
            Some(Errand::Chat { messages }) if self.opened => {
                while let Some(message) = messages.get(self.sent) {
                    match reactor.send(conn, MessageKind::Binary, message) {
                        Ok(pressure) => {
                            self.sent += 1;
                            if pressure == Pressure::High {
                                return;
                            }
                        }
                        Err(Misuse::Gone | Misuse::Closing) => return,
                        Err(misuse) => panic!("{conn}: {misuse}"),
                    }
                }
            }
            _ => {}
        }
    }

    fn hear_echo<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        payload: &[u8],
    ) {
        let Some(Errand::Chat { messages }) = self.errands.front() else {
            panic!("{conn}: a message, and no WebSocket");
        };
        assert!(
            messages[self.echoes] == payload,
            "{conn}: echo {}",
            self.echoes
        );
        self.echoes += 1;
        if self.echoes == messages.len() {
            self.errands.pop_front();
            // A drain may have closed it before us.
            let closed = reactor.close(conn, 1000, b"done");
            let expected = [Ok(()), Err(Misuse::Closing), Err(Misuse::Gone)];
            assert!(expected.contains(&closed), "{closed:?}");
        }
    }

    /// An answer is complete.
    fn finish<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        settings: &[Rc<WsSettings>; 2],
    ) {
        self.exchange = None;
        match self.errands.pop_front() {
            Some(Errand::Ask { body, closes, .. }) => {
                if self.status == 408 {
                    // The machine has slept; the connection ends behind it.
                    return self.errands.clear();
                }
                assert_eq!(self.status, 200);
                assert!(self.heard == body, "{conn}: the body is another");
                if self.server_closes {
                    self.errands.clear();
                } else if !closes {
                    self.begin(reactor, conn, settings);
                }
            }
            Some(Errand::BeRefused) => {
                assert_eq!((self.status, &self.heard[..]), (403, &b"not here"[..]));
            }
            errand => panic!("{conn}: an answer to {errand:?}"),
        }
    }
}

impl Errand {
    fn ask(dice: &mut Dice) -> Self {
        let targets: [&[u8]; 3] = [b"/whole", b"/pieces", b"/duplex"];
        let manners = [Manner::Whole, Manner::Length, Manner::Chunked];
        Self::Ask {
            target: targets[dice.below(3)],
            manner: manners[dice.below(3)],
            body: bytes(dice, 30_000),
            collects: dice.chance(500),
            closes: false,
        }
    }

    fn chat(dice: &mut Dice) -> Self {
        let count = dice.up_to(6);
        let messages = (0..count).map(|_| bytes(dice, 20_000)).collect();
        Self::Chat { messages }
    }
}

/// Some bytes, often few; half of them hard to compress.
fn bytes(dice: &mut Dice, most: usize) -> Vec<u8> {
    let most = if dice.chance(600) { 100 } else { most };
    let len = dice.below(most);
    let is_noise = dice.chance(500);
    let mut byte = |at: usize| if is_noise { dice.next() } else { at as u64 / 7 };
    (0..len).map(|at| byte(at).to_le_bytes()[0]).collect()
}
