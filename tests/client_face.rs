//! The client's face on a simulated network: one [`Face`] is a reactor with a client over it, which
//! runs until nothing will ever happen again; then nothing may be left.
//!
//! - `client_face/far.rs`       the other end of TLS, in the same reactor
//! - `client_face/faults.rs`    every way to fail, with its sentence
//! - `client_face/over_tls.rs`  every way to fail over TLS, by certificate and at each byte
//! - `client_face/phases.rs`    resets and ends in each phase, every fault on a bad network
//! - `client_face/secure.rs`    TLS on real sockets, straight and through a tunnel
//! - `client_face/straight.rs`  the pool, bodies, codings, streams, cancelling
//! - `client_face/ways.rs`      redirects, proxies, WebSockets
//!
//! Not here: the parts that need no network (beside their sources), dialling (`client.rs`).

mod far;
mod faults;
mod over_tls;
mod phases;
mod secure;
mod straight;
mod ways;

use crate::sim::{Script, SimNet, SimOptions, Step};
use far::Far;
use hukilau_core::client::{
    Client, ClientConfig, ClientEvent, PoolLimits, RequestBody, RequestKey, RequestSpec,
};
use hukilau_core::conn::Pressure;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::Reactor;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::transport::Endpoint;
use hukilau_core::url::absolute::Url;
use std::io::ErrorKind;
use std::time::Duration;

/// Turns after which a test counts as endless.
const TURNS_MAX: usize = 20_000;

/// A client, its reactor, and what it was told.
struct Face {
    net: SimNet<true>,
    reactor: Reactor<SimNet<true>>,
    inbox: Inbox,
    client: Client,
    /// A line for each event: the request's number, and what.
    told: Vec<String>,
    /// In the order in which they were asked.
    keys: Vec<RequestKey>,
    /// Pieces of request bodies still to be written, by request.
    uploads: Vec<(RequestKey, Vec<&'static str>)>,
    /// Ask for more of streams as soon as a piece has come.
    eager: bool,
    /// The server, where it is no script.
    far: Option<Far>,
}

fn at(text: &str) -> Endpoint {
    Endpoint::Ip(text.parse().expect("an address"))
}

fn url(text: &str) -> Url {
    Url::parse(text.as_bytes()).expect("a good URL")
}

fn get(text: &str) -> RequestSpec {
    RequestSpec::new(url(text))
}

fn post(text: &str, body: &str) -> RequestSpec {
    RequestSpec {
        method: b"POST".to_vec(),
        body: RequestBody::Whole(body.into()),
        ..get(text)
    }
}

fn field(mut spec: RequestSpec, name: &str, value: &str) -> RequestSpec {
    spec.fields.push((name.into(), value.into()));
    spec
}

/// A server that waits for each text and then says what goes with it. Empty words say nothing.
fn server(exchanges: &[(&str, &str)]) -> Script {
    let steps = exchanges.iter().flat_map(|(text, words)| {
        let send = (!words.is_empty()).then(|| Step::Send(words.as_bytes().to_vec()));
        [Step::AwaitText(text.as_bytes().to_vec())]
            .into_iter()
            .chain(send)
    });
    Script::new(steps)
}

/// As [`server`], and leaves at the end.
fn leaving(exchanges: &[(&str, &str)]) -> Script {
    let mut script = server(exchanges);
    script.steps.push_back(Step::Close);
    script
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Face {
    fn new() -> Self {
        Self::with(ClientConfig::default())
    }

    fn with(config: ClientConfig) -> Self {
        let mut options = SimOptions::calm();
        options.delay_max = Duration::ZERO;
        options.turn_time_max = Duration::ZERO;
        Self::over(1, options, config)
    }

    fn over(seed: u64, options: SimOptions, config: ClientConfig) -> Self {
        let net = SimNet::new(seed, options);
        let reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
        Self {
            net,
            reactor,
            inbox: Inbox::new(),
            client: Client::new(config),
            told: Vec::new(),
            keys: Vec::new(),
            uploads: Vec::new(),
            eager: true,
            far: None,
        }
    }

    fn ask(&mut self, spec: RequestSpec) -> RequestKey {
        let key = self
            .client
            .request(&mut self.reactor, spec)
            .expect("it may be sent");
        self.keys.push(key);
        key
    }

    /// Asks, and writes the body in these pieces.
    fn upload(&mut self, spec: RequestSpec, pieces: &[&'static str]) -> RequestKey {
        let key = self.ask(spec);
        self.uploads.push((key, pieces.to_vec()));
        key
    }

    fn turn(&mut self) -> Result<(), ErrorKind> {
        let wakes = [
            self.client.wake_at(),
            self.far.as_ref().and_then(Far::wake_at),
        ];
        let wake_at = wakes.into_iter().flatten().min();
        let outcome = self.reactor.turn(&mut self.inbox, wake_at);
        outcome.map_err(|error| error.kind())?;
        let inbox = std::mem::take(&mut self.inbox);
        for completion in inbox.completions() {
            if let Some(far) = &mut self.far
                && far.offer(&completion)
            {
                continue;
            }
            if !self.client.offer(&mut self.reactor, &completion) {
                match completion.what {
                    What::Message { payload, .. } => {
                        self.told
                            .push(format!("message {}", payload.escape_ascii()));
                    }
                    What::Closed { cause } => self.told.push(format!("closed: {cause}")),
                    _ => {}
                }
            }
            self.take_events();
        }
        self.inbox = inbox;
        self.client.handle_time(&mut self.reactor);
        if let Some(far) = &mut self.far {
            far.act(&mut self.reactor);
        }
        self.take_events();
        Ok(())
    }

    fn number(&self, key: RequestKey) -> usize {
        let at = self.keys.iter().position(|known| *known == key);
        at.expect("it was asked") + 1
    }

    fn take_events(&mut self) {
        while let Some(event) = self.client.next_event() {
            let key = event.key();
            let what = match event {
                ClientEvent::Response { response, body, .. } => {
                    format!("{} {}", response.status, body.escape_ascii())
                }
                ClientEvent::Head { response, .. } => format!("head {}", response.status),
                ClientEvent::Piece { bytes, .. } => {
                    if self.eager {
                        self.client.resume(&mut self.reactor, key);
                    }
                    format!("piece {}", bytes.escape_ascii())
                }
                ClientEvent::End { .. } => "end".to_owned(),
                ClientEvent::Opened { conn, response, .. } => {
                    let closing = self.reactor.close(conn, 1000, b"done");
                    closing.expect("it is open");
                    format!("open {}", response.status)
                }
                ClientEvent::WantsBody { .. } => {
                    self.write(key);
                    continue;
                }
                ClientEvent::Failed { error, .. } => format!("failed: {error}"),
                other => format!("{other:?}"),
            };
            let number = self.number(key);
            self.told.push(format!("{number} {what}"));
        }
    }

    fn write(&mut self, key: RequestKey) {
        let Some((_, pieces)) = self.uploads.iter_mut().find(|(of, _)| *of == key) else {
            return;
        };
        while !pieces.is_empty() {
            let piece = pieces.remove(0).as_bytes();
            let pressure = self.client.write_body(&mut self.reactor, key, piece);
            if pressure.expect("it fits") == Pressure::High {
                return;
            }
        }
        let finished = self.client.finish_body(&mut self.reactor, key);
        finished.expect("it is complete");
    }

    /// Runs until nothing will ever happen; then nothing is left.
    #[track_caller]
    fn run(&mut self) -> String {
        let mut turns = 0;
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(ErrorKind::Deadlock) => break,
                Err(other) => panic!("a simulated poll does not fail: {other}"),
            }
            turns += 1;
            assert!(turns < TURNS_MAX, "endless: {}", self.net.last_lines(40));
        }
        assert_eq!(self.client.requests(), 0, "every request is done");
        assert_eq!(self.client.connections(), 0, "every connection is told of");
        assert_eq!(self.client.resting(), 0, "nothing rests for ever");
        assert_eq!(self.client.waiting(), 0, "nobody waits");
        assert_eq!(self.client.wake_at(), None, "no deadline is left");
        assert_eq!(self.reactor.connections(), 0, "the table is empty");
        assert_eq!(self.reactor.deadlines(), 0, "the wheel is empty");
        self.inbox = Inbox::new();
        assert_eq!(self.reactor.buffers_taken(), 0, "the pool is whole");
        assert_eq!(self.net.questions(), 0, "nobody waits for a name");
        assert_eq!(self.net.open_sockets(), 0, "every socket is closed");
        std::mem::take(&mut self.told).join("\n")
    }

    /// Runs until `key` is done.
    fn run_until_done(&mut self) {
        while self.client.requests() > 0 {
            self.turn().expect("somebody will answer");
        }
    }

    /// Connections made so far.
    fn connects(&self) -> usize {
        self.net.heard().len()
    }
}
