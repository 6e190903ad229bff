//! Raw streams over a simulated network: the reactor at both ends, and against scripted peers.
//!
//! Sits on `sim.rs`. In a scene, ends dial one listener; each sends bytes that tell whose they are,
//! in pieces, as backpressure allows, stops reading now and then, and finishes. It runs until
//! nothing will ever happen again. Then:
//!
//! 1. every end that began has had its one `Closed`, and nothing after it;
//! 2. what was heard is what the other end sent, in order; all of it, where nothing was cut;
//! 3. `Finished` came once, behind all bytes, and only if all had come;
//! 4. what waited for a peer stayed near its bound;
//! 5. no connection, deadline, pooled buffer or socket is left.
//!
//! `SEED=17` runs one seed, `SEEDS=100000` so many; a failure names its seed.
//!
//! Not here: real sockets, TLS.

mod datagrams;
mod ends;
mod scripted;

use crate::reactor::seeds;
use crate::sim::{Call, SimNet, SimOptions};
use ends::Ends;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Protocol, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// Turns after which a scene counts as endless.
const TURNS_MAX: usize = 200_000;

struct Scene {
    seed: u64,
    options: SimOptions,
    dials: usize,
    /// Chances in a thousand that an end cuts its connection when something comes.
    cuts: u16,
    fault: Option<(Call, u64, ErrorKind)>,
    /// Whether everything that was sent must have arrived.
    strict: bool,
}

struct Rest {
    causes: BTreeMap<String, usize>,
    transcript: String,
    calls: u64,
}

/// Names the seed if the scene fails, and what happened last.
struct Named<const D: bool>(u64, SimNet<D>);

impl<const D: bool> Drop for Named<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\nfailed with SEED={}", self.1.last_lines(60), self.0);
        }
    }
}

/// Small, so that every bound is met.
fn limits() -> Limits {
    Limits {
        head_bytes_max: 1_024,
        target_bytes_max: 512,
        segment_bytes_max: 4_096,
        out_bytes_high: 8_192,
        out_bytes_low: 2_048,
        out_bytes_max: 400_000,
        connections_max: 32,
        accepts_per_turn: 2,
        ..Limits::default()
    }
}

fn place() -> Endpoint {
    Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)))
}

fn raw() -> ServerConfig {
    ServerConfig {
        protocol: Protocol::Stream,
        ..ServerConfig::default()
    }
}

fn run<const D: bool>(scene: &Scene) -> Rest {
    let net = SimNet::<D>::new(scene.seed, scene.options.clone());
    let named = Named(scene.seed, net.clone());
    if let Some((call, n, with)) = scene.fault {
        net.fail(call, n, with);
    }
    let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
    reactor.listen(&place(), raw()).expect("nobody listens yet");
    let mut ends = Ends::new(scene.seed, scene.cuts, &limits());
    for _ in 0..scene.dials {
        ends.dial(&mut reactor, &place());
    }
    let (mut inbox, mut turns) = (Inbox::new(), 0);
    loop {
        match reactor.turn(&mut inbox, ends.wake_at(reactor.now())) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.expect("a simulated poll does not fail"),
        }
        for completion in inbox.completions() {
            net.note(format_args!("{} {:?}", completion.conn, completion.what));
            ends.take(&mut reactor, completion);
        }
        ends.release_some(&mut reactor);
        turns += 1;
        assert!(turns < TURNS_MAX, "endless");
    }
    ends.check_rest(scene.strict);
    drop(inbox);
    assert_eq!(reactor.connections(), 0, "the table is empty");
    assert_eq!(reactor.deadlines(), 0, "the wheel is empty");
    assert_eq!(reactor.buffers_taken(), 0, "the pool is whole");
    assert_eq!(net.open_sockets(), 0, "no socket is left");
    drop(named);
    let transcript = net.transcript().to_owned();
    Rest {
        causes: ends.causes,
        transcript,
        calls: scene.fault.map_or(0, |(call, ..)| net.calls(call)),
    }
}

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
        dials: 5,
        cuts: 0,
        fault: None,
        strict: true,
    }
}

fn rough_scene(seed: u64) -> Scene {
    Scene {
        options: SimOptions::rough(),
        cuts: 20,
        strict: false,
        ..fair_scene(seed)
    }
}

#[test]
fn both_ends_hear_all_that_was_sent_and_then_the_end() {
    for seed in seeds() {
        let rest = run_either(&fair_scene(seed));
        let causes: Vec<_> = rest.causes.into_iter().collect();
        assert_eq!(causes, [("agreed".to_owned(), 10)], "SEED={seed}");
    }
}

#[test]
fn on_a_rough_network_nothing_is_left_and_nothing_wrong_is_heard() {
    let mut causes = BTreeMap::new();
    for seed in seeds() {
        for (cause, count) in run_either(&rough_scene(seed)).causes {
            *causes.entry(cause).or_insert(0) += count;
        }
    }
    // A few seeds of one's own need not meet everything.
    if seeds().count() >= 100 {
        for cause in ["agreed", "connect", "io", "terminated"] {
            assert!(causes.contains_key(cause), "{cause} never met: {causes:?}");
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
                dials: 3,
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

/// Time that no peer waits, in a simulation that costs nothing.
const AGES: Duration = Duration::from_secs(86_400);
