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
//! `SEED=17` runs one seed, `SEEDS=100000` so many; a failure names its seed.
//!
//! - `loopback/asker.rs`  the asking half
//! - `loopback/echo.rs`   the serving half
//! - `loopback/secure.rs` all of it over TLS
//!
//! Not here: hostile servers and single phases (`client.rs`), real sockets.

mod asker;
mod echo;
mod secure;

use crate::reactor::seeds;
use crate::sim::{Call, Dice, SimNet, SimOptions};
use asker::Asker;
use echo::Echo;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use secure::{Agreed, Secure};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// Turns after which a scene counts as endless.
const TURNS_MAX: usize = 200_000;

struct Scene {
    seed: u64,
    options: SimOptions,
    clients: usize,
    /// Chances in a thousand that a client cuts its connection when something comes.
    cuts: u16,
    drain_at: Option<Duration>,
    fault: Option<(Call, u64, ErrorKind)>,
    /// Whether everything that was asked for must have arrived.
    strict: bool,
    tls: Option<Secure>,
}

struct Rest {
    /// How clients' connections ended.
    causes: BTreeMap<String, usize>,
    /// What connections over TLS have agreed on, in the order in which either end said so.
    agreed: Vec<Agreed>,
    transcript: String,
    calls: u64,
}

/// Names the seed if the scene fails, and what happened last.
struct Named<const D: bool>(u64, SimNet<D>);

impl<const D: bool> Drop for Named<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\nfailed with SEED={}", self.1.last_lines(4000), self.0);
        }
    }
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

fn run<const D: bool>(scene: &Scene) -> Rest {
    let net = SimNet::<D>::new(scene.seed, scene.options.clone());
    let named = Named(scene.seed, net.clone());
    if let Some((call, n, with)) = scene.fault {
        net.fail(call, n, with);
    }
    let at = |address: [u8; 4]| SocketAddr::from((address, 0));
    let nobody: SocketAddr = "[2001:db8::1]:0".parse().expect("it is an address");
    let addresses = [at([10, 9, 9, 9]), nobody, at([127, 0, 0, 1])];
    let time = Some(Duration::from_millis(40 * (scene.seed % 3)));
    net.name("server.test", time, Ok(addresses.into()));

    let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
    let config = ServerConfig {
        collect_bodies: scene.seed % 4 < 2,
        websocket: true,
        tls: scene.tls.as_ref().map(Secure::server),
        ..ServerConfig::default()
    };
    let place = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    reactor.listen(&place, config).expect("nobody listens yet");
    let mut asker = Asker::new(scene.seed, scene.clients, scene.cuts, &limits());
    asker.tls = scene.tls.as_ref().map(Secure::client);
    let mut agreed = Vec::new();
    let (mut echo, mut inbox) = (Echo::new(&limits()), Inbox::new());
    let (mut drain_at, mut turns) = (scene.drain_at, 0);
    loop {
        asker.dial(&mut reactor);
        match reactor.turn(&mut inbox, asker.wake_at()) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.expect("a simulated poll does not fail"),
        }
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
        turns += 1;
        assert!(turns < TURNS_MAX, "endless");
    }
    asker.check_rest(scene.strict);
    drop(inbox);
    assert_eq!(reactor.connections(), 0, "the table is empty");
    assert_eq!(reactor.deadlines(), 0, "the wheel is empty");
    assert_eq!(reactor.buffers_taken(), 0, "the pool is whole");
    assert_eq!(net.questions(), 0, "nobody waits for a name");
    assert_eq!(net.open_sockets(), 0, "every socket is closed");
    drop(named);
    let transcript = net.transcript().to_owned();
    Rest {
        causes: asker.causes,
        agreed,
        transcript,
        calls: scene.fault.map_or(0, |(call, ..)| net.calls(call)),
    }
}

/// Under either kind of readiness, by the seed.
fn run_either(scene: &Scene) -> Rest {
    if scene.seed.is_multiple_of(2) {
        run::<true>(scene)
    } else {
        run::<false>(scene)
    }
}

fn fair_scene(seed: u64) -> Scene {
    Scene {
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

fn rough_scene(seed: u64) -> Scene {
    let mut dice = Dice::new(seed);
    let drains = dice.chance(300);
    Scene {
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
        run_either(&fair_scene(seed));
    }
}

#[test]
fn on_a_rough_network_every_request_has_one_outcome() {
    let mut causes = BTreeMap::new();
    for seed in seeds() {
        for (cause, count) in run_either(&rough_scene(seed)).causes {
            *causes.entry(cause).or_insert(0) += count;
        }
    }
    if seeds().count() >= 100 {
        for cause in ["agreed", "connect", "io", "terminated"] {
            assert!(
                causes.contains_key(cause),
                "{cause} was never met: {causes:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    for seed in seeds().take(10) {
        let (first, second) = (
            run_either(&rough_scene(seed)),
            run_either(&rough_scene(seed)),
        );
        assert!(first.transcript == second.transcript, "SEED={seed}");
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
    for (call, with) in calls {
        let mut n = 1;
        loop {
            let scene = Scene {
                options: SimOptions::calm(),
                clients: 4,
                fault: Some((call, n, with)),
                strict: false,
                ..fair_scene(n)
            };
            if run_either(&scene).calls < n {
                break;
            }
            n += 1;
        }
        assert!(n > 1, "{call:?} was never made");
    }
}
