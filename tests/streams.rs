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
//! Not here: real sockets, TLS.

mod datagrams;
mod ends;
mod scripted;

use crate::sim::scene::{
    Fault, Rest, Scene, Stage, causes_of, check_each_failing, check_met, check_repeats, seeds,
};
use crate::sim::{Call, SimOptions};
use ends::Ends;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::reactor::{Protocol, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

struct Streaming {
    seed: u64,
    options: SimOptions,
    dials: usize,
    /// Chances in a thousand that an end cuts its connection when something comes.
    cuts: u16,
    fault: Option<Fault>,
    /// Whether everything that was sent must have arrived.
    strict: bool,
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

impl Scene for Streaming {
    type Told = ();

    fn seed(&self) -> u64 {
        self.seed
    }

    fn run<const D: bool>(&self) -> Rest<()> {
        let mut stage = Stage::<D>::new(self.seed, &self.options, self.fault);
        let net = stage.net.clone();
        let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
        reactor.listen(&place(), raw()).expect("nobody listens yet");
        let mut ends = Ends::new(self.seed, self.cuts, &limits());
        for _ in 0..self.dials {
            ends.dial(&mut reactor, &place());
        }
        let mut inbox = Inbox::new();
        loop {
            let wake_at = ends.wake_at(reactor.now());
            if !stage.turn(&mut reactor, &mut inbox, wake_at) {
                break;
            }
            for completion in inbox.completions() {
                net.note(format_args!("{} {:?}", completion.conn, completion.what));
                ends.take(&mut reactor, completion);
            }
            ends.release_some(&mut reactor);
        }
        ends.check_rest(self.strict);
        drop(inbox);
        stage.clear(&reactor, ends.causes, ())
    }
}

fn fair_scene(seed: u64) -> Streaming {
    Streaming {
        seed,
        options: SimOptions::tricky(),
        dials: 5,
        cuts: 0,
        fault: None,
        strict: true,
    }
}

fn rough_scene(seed: u64) -> Streaming {
    Streaming {
        options: SimOptions::rough(),
        cuts: 20,
        strict: false,
        ..fair_scene(seed)
    }
}

#[test]
fn both_ends_hear_all_that_was_sent_and_then_the_end() {
    for seed in seeds() {
        let rest = fair_scene(seed).run_either();
        let causes: Vec<_> = rest.causes.into_iter().collect();
        assert_eq!(causes, [("agreed".to_owned(), 10)], "SEED={seed}");
    }
}

#[test]
fn on_a_rough_network_nothing_is_left_and_nothing_wrong_is_heard() {
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
        (Call::Read, ErrorKind::ConnectionReset),
        (Call::Write, ErrorKind::BrokenPipe),
        (Call::Accept, ErrorKind::OutOfMemory),
        (Call::Register, ErrorKind::StorageFull),
        (Call::Shutdown, ErrorKind::NotConnected),
    ];
    check_each_failing(&calls, 1, |fault| Streaming {
        options: SimOptions::calm(),
        dials: 3,
        fault: Some(fault),
        strict: false,
        ..fair_scene(fault.1)
    });
}

/// Time that no peer waits, in a simulation that costs nothing.
const AGES: Duration = Duration::from_secs(86_400);
