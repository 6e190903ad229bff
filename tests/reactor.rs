//! The whole reactor over a simulated network: the invariants of its specification, seed by seed.
//!
//! Sits on `sim.rs`. A scene is an application (`reactor/app.rs`), some peers
//! (`reactor/clients.rs`) and a network; it runs until nothing will ever happen again. Then:
//!
//! 1. every request has had exactly one outcome, a whole answer or `Closed`;
//! 2. no completion came for a key after its `Closed`;
//! 3. bytes delivered equal bytes sent, in order;
//! 4. whoever made no progress met a deadline, for at rest no connection is left;
//! 5. no pooled buffer is in use, the table is empty, the wheel is empty;
//! 6. what waited for a peer stayed below its bound;
//! 7. the same seed gives the same transcript, byte for byte;
//!
//! and the loop never spun.
//!
//! Not here: real sockets.

mod app;
mod clients;

use crate::sim::scene::{
    Fault, Rest, Scene, Stage, causes_of, check_each_failing, check_met, check_repeats, seeds,
};
use crate::sim::{Call, Dice, PeerEnd, Script, SimOptions, Step};
use app::App;
use clients::{Client, Expects};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Everything that decides a run.
pub(crate) struct Serving {
    seed: u64,
    options: SimOptions,
    clients: Vec<Client>,
    /// Chances in a thousand that the application cuts a connection instead of answering.
    cuts: u16,
    drain_at: Option<Duration>,
    fault: Option<Fault>,
    /// Whether everything that was asked for must have arrived.
    strict: bool,
}

/// Small, so that every bound is met.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 1_024,
        target_bytes_max: 512,
        segment_bytes_max: 4_096,
        exchanges_in_flight_max: 4,
        body_bytes_max: 100_000,
        message_bytes_max: 100_000,
        out_bytes_high: 8_192,
        out_bytes_low: 2_048,
        out_bytes_max: 400_000,
        connections_max: 5,
        accepts_per_turn: 2,
        steps_per_turn: 3,
        ..Limits::default()
    }
}

/// Two listeners, so that one may rest while the other fills the table.
fn places() -> [Endpoint; 2] {
    let at = |port| Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
    [at(80), at(81)]
}

impl Scene for Serving {
    /// When the last connection went.
    type Told = Duration;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn run<const DRAINS: bool>(&self) -> Rest<Duration> {
        let mut stage = Stage::<DRAINS>::new(self.seed, &self.options, self.fault);
        let net = stage.net.clone();
        let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
        let config = ServerConfig {
            collect_bodies: self.seed % 4 < 2,
            websocket: true,
            ..ServerConfig::default()
        };
        for place in &places() {
            let listens = reactor.listen(place, config.clone());
            listens.expect("nobody listens yet");
        }
        let mut dice = Dice::new(self.seed ^ 0xd1a1);
        let dial = |client: &Client| {
            let delay = dice.within(Duration::from_secs(2));
            net.dial_in(&places()[dice.below(2)], delay, client.script.clone())
        };
        let peers: Vec<_> = self.clients.iter().map(dial).collect();

        let (mut app, mut inbox) = (App::new(self.seed, limits()), Inbox::new());
        app.cuts = self.cuts;
        let mut drain_at = self.drain_at;
        let (mut had_connections, mut ended) = (false, Duration::ZERO);
        while stage.turn(&mut reactor, &mut inbox, app.wake_at()) {
            app.work(&mut reactor, &inbox);
            if drain_at.is_some_and(|at| at <= net.elapsed()) {
                drain_at = None;
                assert!(reactor.remote().drain(Duration::from_secs(3)));
            }
            if had_connections && reactor.connections() == 0 {
                ended = net.elapsed();
            }
            had_connections = reactor.connections() > 0;
        }

        app.check_rest();
        for (client, peer) in self.clients.iter().zip(peers) {
            let end = net.end(peer);
            if self.strict {
                assert_eq!(end, Some(PeerEnd::Finished));
            }
            client.check(&net.received(peer), self.strict);
        }
        stage.clear(&reactor, app.causes, ended)
    }
}

/// Peers that keep the rules or are told that they do not, on a network that loses nothing.
pub(crate) fn fair_scene(seed: u64) -> Serving {
    let mut dice = Dice::new(seed);
    let client = |number| match dice.below(6) {
        0 => clients::refused(&mut dice),
        _ => clients::honest(number, &mut dice),
    };
    Serving {
        seed,
        options: SimOptions::tricky(),
        clients: (0..8).map(client).collect(),
        cuts: 0,
        drain_at: None,
        fault: None,
        strict: true,
    }
}

/// Peers of all kinds on a network that breaks things, and an application that cuts and drains.
pub(crate) fn rough_scene(seed: u64) -> Serving {
    let mut dice = Dice::new(seed);
    let client = |number| match dice.below(3) {
        0 => clients::refused(&mut dice),
        1 => clients::hostile(number, &mut dice),
        _ => clients::honest(number, &mut dice),
    };
    let clients = (0..12).map(client).collect();
    let drains = dice.chance(300);
    Serving {
        options: SimOptions::rough(),
        clients,
        cuts: if dice.chance(300) { 50 } else { 0 },
        drain_at: drains.then(|| dice.within(Duration::from_secs(4))),
        strict: false,
        ..fair_scene(seed)
    }
}

#[test]
fn on_a_fair_network_everyone_gets_what_they_asked_for() {
    for seed in seeds() {
        fair_scene(seed).run_either();
    }
}

#[test]
fn on_a_rough_network_nothing_is_wrong_and_everything_ends() {
    let causes = causes_of(seeds(), rough_scene);
    // A few seeds of one's own need not meet everything.
    if seeds().count() >= 100 {
        let ends = ["agreed", "peer_gone", "terminated", "shutdown"];
        check_met(&causes, &ends);
        check_met(&causes, &["Write", "Body"]);
    }
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    for seed in seeds().take(10) {
        check_repeats(|| rough_scene(seed));
    }
}

#[test]
fn whichever_call_fails_only_its_connection_suffers() {
    let calls = [
        (Call::Read, ErrorKind::ConnectionReset),
        (Call::Write, ErrorKind::Other),
        (Call::Accept, ErrorKind::OutOfMemory),
        (Call::Register, ErrorKind::StorageFull),
    ];
    let scene = |fault: Fault| {
        let mut dice = Dice::new(fault.1);
        let honest = |number| clients::honest(number, &mut dice);
        Serving {
            options: SimOptions::calm(),
            clients: (0..3).map(honest).collect(),
            fault: Some(fault),
            strict: false,
            ..fair_scene(fault.1)
        }
    };
    check_each_failing(&calls, 2, scene);
    // Most of them say that they leave, and are closed without it.
    let shutdown = (Call::Shutdown, ErrorKind::NotConnected);
    check_each_failing(&[shutdown], 1, scene);
}

/// Runs one peer on a calm network; it must be got rid of for `cause`, in time.
#[track_caller]
fn check_deadline(steps: &[Step], cause: Option<&str>, seconds: RangeInclusive<u64>) {
    for seed in 0..4 {
        let mut script = Script::new(steps.iter().cloned());
        script.is_stubborn = true;
        let scene = Serving {
            options: SimOptions::calm(),
            clients: vec![Client {
                script,
                expects: Expects::End,
            }],
            strict: false,
            ..fair_scene(seed)
        };
        let rest = scene.run_either();
        let causes: Vec<&str> = rest.causes.keys().map(String::as_str).collect();
        assert_eq!(causes, cause.into_iter().collect::<Vec<_>>());
        let elapsed = rest.told.as_secs();
        assert!(seconds.contains(&elapsed), "ended after {elapsed} s");
    }
}

#[test]
fn a_peer_without_progress_meets_its_deadline() {
    let send = |text: &str| Step::Send(text.as_bytes().to_vec());
    // Peers arrive within two seconds, and refused ones may linger for two more.
    check_deadline(&[], None, 75..=77);
    check_deadline(&[send("GET / HTTP/1.1\r\nHo")], None, 10..=14);
    let body = "POST /echo/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    check_deadline(&[send(body)], Some("Body"), 30..=34);
    let large = send("GET /bytes/a/300000 HTTP/1.1\r\nHost: a\r\n\r\n");
    check_deadline(&[Step::StopReading, large], Some("Write"), 30..=33);
    let small = send("GET /bytes/a/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    check_deadline(&[small], Some("Idle"), 75..=78);
    let websocket = Step::Send(clients::upgrade(0));
    check_deadline(&[websocket], Some("Ping"), 55..=60);
}
