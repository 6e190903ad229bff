//! The reactor at both ends of a simulated network: it dials its own listener, by name, and asks.
//!
//! Sits on `sim.rs`. The serving half answers each request with its own body, whole, in pieces or as
//! it comes, and each message with itself; the asking half knows what it must hear. It runs until
//! nothing will ever happen again. Then:
//!
//! 1. every dial has had its one `Closed`, and nothing after it;
//! 2. every request has had exactly one outcome, the whole answer or `Closed`;
//! 3. bytes heard equal bytes sent, and of what was cut short nothing was taken for whole;
//! 4. no connection, deadline, pooled buffer, question or socket is left.
//!
//! - `loopback/asker.rs`  the asking half
//! - `loopback/echo.rs`   the serving half
//! - `loopback/secure.rs` all of it over TLS
//!
//! Not here: hostile servers and single phases (`client.rs`), real sockets.

mod asker;
mod echo;
mod secure;

use crate::sim::scene::{
    Fault, Rest, Scene, Stage, causes_of, check_each_failing, check_met, check_repeats, seeds,
};
use crate::sim::{Call, Dice, SimOptions};
use asker::Asker;
use echo::Echo;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use secure::{Agreed, Secure};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

struct Loopback {
    seed: u64,
    options: SimOptions,
    clients: usize,
    /// Chances in a thousand that a client cuts its connection when something comes.
    cuts: u16,
    drain_at: Option<Duration>,
    fault: Option<Fault>,
    /// Whether everything that was asked for must have arrived.
    strict: bool,
    tls: Option<Secure>,
}

/// Small, so that every bound is met.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 1_024,
        target_bytes_max: 512,
        segment_bytes_max: 4_096,
        body_bytes_max: 100_000,
        message_bytes_max: 100_000,
        out_bytes_high: 8_192,
        out_bytes_low: 2_048,
        out_bytes_max: 400_000,
        connections_max: 32,
        accepts_per_turn: 2,
        ..Limits::default()
    }
}

impl Scene for Loopback {
    /// What connections over TLS have agreed on, in the order in which either end said so.
    type Told = Vec<Agreed>;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn run<const D: bool>(&self) -> Rest<Self::Told> {
        let mut stage = Stage::<D>::new(self.seed, &self.options, self.fault);
        let net = stage.net.clone();
        let at = |address: [u8; 4]| SocketAddr::from((address, 0));
        let nobody: SocketAddr = "[2001:db8::1]:0".parse().expect("it is an address");
        let addresses = [at([10, 9, 9, 9]), nobody, at([127, 0, 0, 1])];
        let time = Some(Duration::from_millis(40 * (self.seed % 3)));
        net.name("server.test", time, Ok(addresses.into()));

        let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
        let config = ServerConfig {
            collect_bodies: self.seed % 4 < 2,
            websocket: true,
            tls: self.tls.as_ref().map(Secure::server),
            ..ServerConfig::default()
        };
        let place = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
        reactor.listen(&place, config).expect("nobody listens yet");
        let mut asker = Asker::new(self.seed, self.clients, self.cuts, &limits());
        asker.tls = self.tls.as_ref().map(Secure::client);
        let mut agreed = Vec::new();
        let (mut echo, mut inbox) = (Echo::new(&limits()), Inbox::new());
        let mut drain_at = self.drain_at;
        asker.dial(&mut reactor);
        while stage.turn(&mut reactor, &mut inbox, asker.wake_at()) {
            for completion in inbox.completions() {
                net.note(format_args!("{} {:?}", completion.conn, completion.what));
                agreed.extend(Agreed::of(&reactor, &completion));
                if asker.knows(completion.conn) {
                    asker.take(&mut reactor, completion);
                } else {
                    echo.take(&mut reactor, completion);
                }
            }
            if drain_at.is_some_and(|at| at <= net.elapsed()) {
                drain_at = None;
                assert!(reactor.remote().drain(Duration::from_secs(3)));
            }
            asker.dial(&mut reactor);
        }
        asker.check_rest(self.strict);
        drop(inbox);
        stage.clear(&reactor, asker.causes, agreed)
    }
}

fn fair_scene(seed: u64) -> Loopback {
    Loopback {
        seed,
        options: SimOptions::tricky(),
        clients: 6,
        cuts: 0,
        drain_at: None,
        fault: None,
        strict: true,
        tls: None,
    }
}

fn rough_scene(seed: u64) -> Loopback {
    let mut dice = Dice::new(seed);
    let drains = dice.chance(300);
    Loopback {
        options: SimOptions::rough(),
        clients: 8,
        cuts: if dice.chance(300) { 30 } else { 0 },
        drain_at: drains.then(|| dice.within(Duration::from_secs(4))),
        strict: false,
        ..fair_scene(seed)
    }
}

#[test]
fn on_a_fair_network_every_client_hears_what_it_asked_for() {
    for seed in seeds() {
        fair_scene(seed).run_either();
    }
}

#[test]
fn on_a_rough_network_every_request_has_one_outcome() {
    let causes = causes_of(seeds(), rough_scene);
    // A few seeds of one's own need not meet everything.
    if seeds().count() >= 100 {
        check_met(&causes, &["agreed", "connect", "io", "terminated"]);
    }
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    for seed in seeds().take(10) {
        check_repeats(|| rough_scene(seed));
    }
}

#[test]
fn whichever_call_fails_nothing_is_left_and_nothing_is_wrong() {
    let calls = [
        (Call::Connect, ErrorKind::NetworkUnreachable),
        (Call::Random, ErrorKind::Other),
        (Call::Read, ErrorKind::ConnectionReset),
        (Call::Write, ErrorKind::BrokenPipe),
        (Call::Accept, ErrorKind::OutOfMemory),
        (Call::Register, ErrorKind::StorageFull),
        (Call::Shutdown, ErrorKind::NotConnected),
    ];
    check_each_failing(&calls, 1, |fault| Loopback {
        options: SimOptions::calm(),
        clients: 4,
        fault: Some(fault),
        strict: false,
        ..fair_scene(fault.1)
    });
}
