//! Descriptors run out, on a simulated network: who waits is turned away by the one in reserve, who is
//! there goes on, and the loop rests. That it never spins, the simulation sees to by itself.

use crate::sim::scene::{Causes, Stage};
use crate::sim::{Call, PeerEnd, Script, SimOptions, Step};
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::{Protocol, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::net::SocketAddr;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a run leaves behind.
struct Rest {
    /// By peer: what it has received, and how it saw the end.
    peers: Vec<(String, Option<PeerEnd>)>,
    turned_away: u64,
    accept_errors: u64,
    turns: usize,
    accepts: u64,
}

/// Lets `arrivals` connect at their times, with `descriptors` for them.
fn run<const DRAINS: bool>(
    seed: u64,
    (protocol, descriptors): (Protocol, usize),
    arrivals: &[(Duration, Script)],
) -> Rest {
    let options = SimOptions {
        descriptors_max: Some(descriptors),
        ..SimOptions::calm()
    };
    let mut stage = Stage::<DRAINS>::new(seed, &options, None);
    let net = stage.net.clone();
    let mut reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let config = ServerConfig {
        protocol,
        ..ServerConfig::default()
    };
    reactor.listen(&at, config).expect("nobody listens yet");
    let dial = |(delay, script): &(Duration, Script)| net.dial_in(&at, *delay, script.clone());
    let peers: Vec<_> = arrivals.iter().map(dial).collect();
    let (mut inbox, mut turns) = (Inbox::new(), 0);
    while stage.turn(&mut reactor, &mut inbox, None) {
        turns += 1;
        for Completion { conn, what } in inbox.completions() {
            // It may have left meanwhile.
            let _ = match what {
                What::Request { exchange, .. } => {
                    let response = Response {
                        status: 200,
                        fields: &[],
                        body: b"hi",
                    };
                    reactor.respond(conn, exchange, &response).map(drop)
                }
                What::Finished => reactor.terminate(conn),
                _ => Ok(()),
            };
        }
    }
    stage.clear(&reactor, Causes::new(), ());
    let heard = |peer| String::from_utf8(net.received(peer)).expect("text");
    let figures = reactor.figures();
    Rest {
        peers: peers
            .iter()
            .map(|peer| (heard(*peer), net.end(*peer)))
            .collect(),
        turned_away: figures.turned_away.value(),
        accept_errors: figures.accept_errors.value(),
        turns,
        accepts: net.calls(Call::Accept),
    }
}

/// Comes at `millis`, asks, and leaves after `stay`.
fn asks(millis: u64, stay: Duration) -> (Duration, Script) {
    let steps = [
        Step::Send(GET.as_bytes().to_vec()),
        Step::Pause(stay),
        Step::HalfClose,
    ];
    (Duration::from_millis(millis), Script::new(steps))
}

/// Whether who was turned away knows why. One whose question is still on its way when we close has
/// its connection reset, and our answer with it.
#[track_caller]
fn was_told(heard: &str, end: Option<PeerEnd>) -> bool {
    match end {
        Some(PeerEnd::Finished) => assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}"),
        end => assert_eq!(end, Some(PeerEnd::Reset), "{heard}"),
    }
    heard.contains(" 503 ")
}

fn run_both(setting: (Protocol, usize), arrivals: &[(Duration, Script)], check: impl Fn(&Rest)) {
    for seed in 0..20 {
        check(&run::<true>(seed, setting, arrivals));
        check(&run::<false>(seed, setting, arrivals));
    }
}

#[test]
fn who_comes_too_many_is_told_503_and_who_is_there_is_served() {
    let minute = Duration::from_secs(60);
    let mut arrivals: Vec<_> = (0..5).map(|n| asks(n, minute)).collect();
    arrivals.extend((0..30).map(|n| asks(1_000 + 40 * n, Duration::ZERO)));
    // The first five have gone by then.
    arrivals.extend((0..5).map(|n| asks(100_000 + n, minute)));
    run_both((Protocol::Http, 5), &arrivals, |rest| {
        let mut told = 0;
        for (index, (heard, end)) in rest.peers.iter().enumerate() {
            if (5..35).contains(&index) {
                told += usize::from(was_told(heard, *end));
            } else {
                assert!(heard.contains(" 200 "), "{index}: {heard}");
                assert_eq!(*end, Some(PeerEnd::Finished), "{index}");
            }
        }
        assert!(told >= 15, "{told} were told");
        assert_eq!(rest.turned_away, 30);
        // It rests for 100 ms after each failure, and they come within 1.2 s.
        assert!(
            (1..=14).contains(&rest.accept_errors),
            "{}",
            rest.accept_errors
        );
    });
}

#[test]
fn a_flood_is_turned_away_in_steps_with_rests_between_them() {
    let mut arrivals = vec![asks(0, Duration::from_secs(60))];
    arrivals.extend((0..1_000).map(|_| asks(10, Duration::ZERO)));
    run_both((Protocol::Http, 1), &arrivals, |rest| {
        let refused = rest.peers[1..].iter();
        let told = refused.filter(|(heard, end)| was_told(heard, *end)).count();
        assert!(told >= 900, "{told} were told");
        assert_eq!(rest.turned_away, 1_000);
        // 64 at a time: so many failures, each with a rest behind it.
        assert!(
            (16..=20).contains(&rest.accept_errors),
            "{}",
            rest.accept_errors
        );
        assert!(rest.turns < 300, "{} turns", rest.turns);
        assert!(rest.accepts < 1_200, "{} accepts", rest.accepts);
    });
}

#[test]
fn who_speaks_a_protocol_of_its_own_is_closed_without_a_word() {
    let arrivals = [asks(0, Duration::from_secs(5)), asks(1_000, Duration::ZERO)];
    run_both((Protocol::Stream, 1), &arrivals, |rest| {
        assert_eq!(rest.turned_away, 1);
        assert_eq!(rest.peers[1].0, "");
        assert!(rest.peers[1].1.is_some());
    });
}
