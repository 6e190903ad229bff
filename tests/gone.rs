//! A peer that is gone, but whose connection does not say so, is noticed while we keep sending to it: on
//! a simulated network, under either kind of readiness.
//!
//! Not here: peers to which nothing is sent (`reactor.rs`), each timeout by itself (core's own tests).

use crate::sim::scene::{Causes, Stage};
use crate::sim::{Script, SimOptions, Step};
use hukilau_core::conn::{Backpressure, Deadline, Overflow, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, Inbox, What};
use hukilau_core::reactor::{Accept, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::ws::{MessageKind, Role};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Time between two messages to the peer.
const EVERY: Duration = Duration::from_millis(50);

/// Opens a WebSocket to a peer that does `steps`, and sends it messages of `len` bytes until it is
/// closed: which deadline it missed, and when.
fn run<const DRAINS: bool>(seed: u64, steps: &[Step], len: usize) -> (Deadline, Duration) {
    let mut stage = Stage::<DRAINS>::new(seed, &SimOptions::calm(), None);
    let net = stage.net.clone();
    let mut reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let config = ServerConfig {
        websocket: true,
        ..ServerConfig::default()
    };
    reactor.listen(&at, config).expect("nobody listens yet");
    net.dial_in(&at, Duration::ZERO, Script::new(steps.iter().cloned()));
    let settings = Rc::new(WsSettings {
        ping_interval: Some(Duration::from_secs(10)),
        pong_timeout: Some(Duration::from_secs(5)),
        backpressure: Backpressure {
            limit_bytes: 64 * 1024,
            overflow: Overflow::Drop,
        },
        ..WsSettings::new(Role::Server, &Limits::default())
    });
    let (mut inbox, payload) = (Inbox::new(), vec![7; len]);
    let (mut open, mut missed): (Option<ConnKey>, _) = (None, None);
    loop {
        let wake_at = open.map(|_| reactor.now() + EVERY);
        if !stage.turn(&mut reactor, &mut inbox, wake_at) {
            break;
        }
        for Completion { conn, what } in inbox.completions() {
            match what {
                What::Request { exchange, .. } => {
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings: Rc::clone(&settings),
                    };
                    assert_eq!(reactor.accept_websocket(conn, exchange, &accept), Ok(()));
                }
                What::Open => open = Some(conn),
                What::Closed { cause } => {
                    open = None;
                    missed = match cause {
                        Cause::TimedOut(deadline) => Some((*deadline, net.elapsed())),
                        other => panic!("{other:?}"),
                    };
                }
                _ => {}
            }
        }
        if let Some(conn) = open {
            // It may be closing, which ends in `Closed`.
            let _ = reactor.send(conn, MessageKind::Binary, &payload);
        }
    }
    drop(inbox);
    stage.clear(&reactor, Causes::new(), ());
    missed.expect("it was closed")
}

#[track_caller]
fn check(steps: &[Step], len: usize, deadlines: &[Deadline], seconds: u64) {
    for seed in 0..10 {
        for (missed, at) in [
            run::<true>(seed, steps, len),
            run::<false>(seed, steps, len),
        ] {
            assert!(deadlines.contains(&missed), "{missed:?}");
            assert!(at <= Duration::from_secs(seconds), "{missed:?} at {at:?}");
        }
    }
}

#[test]
fn one_whose_system_takes_all_bytes_but_that_never_answers_is_given_up_after_a_ping() {
    let steps = [Step::Send(UPGRADE.to_vec())];
    // Ten seconds, five more, and the time that a close frame is waited for.
    for len in [10, 1_000] {
        check(&steps, len, &[Deadline::Ping], 20);
    }
}

#[test]
fn one_that_takes_no_bytes_any_more_is_given_up_when_nothing_moves() {
    let steps = [Step::Send(UPGRADE.to_vec()), Step::StopReading];
    for len in [10, 1_000, 60_000] {
        check(&steps, len, &[Deadline::Ping, Deadline::Write], 60);
    }
}
