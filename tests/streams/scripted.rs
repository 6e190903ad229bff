//! One accepted stream against a scripted peer: one rule at a time.
//!
//! Sits on `streams.rs`. The network is calm, and time is virtual; the application of each test is
//! a closure that sees every completion.

use super::{AGES, limits, place, raw};
use crate::sim::{PeerEnd, PeerId, Script, SimNet, SimOptions, Step};
use hukilau_core::conn::Misuse;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{ListenerKey, Reactor};
use std::io::ErrorKind;
use std::time::Duration;

type Sim = Reactor<SimNet<true>>;

/// What became of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    bytes: Vec<u8>,
    finished: bool,
    cause: Option<String>,
}

struct Stage {
    net: SimNet<true>,
    reactor: Sim,
    listener: ListenerKey,
    inbox: Inbox,
    heard: Heard,
}

impl Stage {
    fn new() -> Self {
        let net = SimNet::new(1, SimOptions::calm());
        let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
        let listener = reactor.listen(&place(), raw()).expect("nobody listens yet");
        Self {
            net,
            reactor,
            listener,
            inbox: Inbox::new(),
            heard: Heard::default(),
        }
    }

    fn peer(&self, steps: impl IntoIterator<Item = Step>) -> PeerId {
        let mut script = Script::new(steps);
        // It finishes where its script says so.
        script.is_stubborn = true;
        self.net.dial_in(&place(), Duration::ZERO, script)
    }

    /// Turns until the world is at rest, or `until` has passed; `act` is the application.
    fn run(&mut self, until: Duration, mut act: impl FnMut(&mut Sim, ConnKey, &What<'_>)) {
        loop {
            let left = until.saturating_sub(self.net.elapsed());
            if left.is_zero() {
                return;
            }
            let wake_at = self.reactor.now() + left;
            match self.reactor.turn(&mut self.inbox, Some(wake_at)) {
                Err(error) if error.kind() == ErrorKind::Deadlock => return,
                outcome => outcome.expect("a simulated poll does not fail"),
            }
            for completion in self.inbox.completions() {
                match completion.what {
                    What::Bytes { bytes } => self.heard.bytes.extend_from_slice(bytes),
                    What::Finished => self.heard.finished = true,
                    What::Closed { cause } => self.heard.cause = Some(cause.to_string()),
                    _ => {}
                }
                act(&mut self.reactor, completion.conn, &completion.what);
            }
        }
    }
}

#[test]
fn rfc9293_3_6_a_peer_that_has_finished_is_still_answered() {
    let mut stage = Stage::new();
    let peer = stage.peer([Step::Send(b"question".to_vec()), Step::HalfClose]);
    stage.run(AGES, |reactor, conn, what| {
        if let What::Finished = what {
            reactor.write_stream(conn, b"answer").expect("still open");
            reactor.finish_stream(conn).expect("once");
        }
    });
    let heard = Heard {
        bytes: b"question".to_vec(),
        finished: true,
        cause: Some("closed".to_owned()),
    };
    assert_eq!(stage.heard, heard);
    assert_eq!(stage.net.received(peer), b"answer");
    assert_eq!(stage.net.end(peer), Some(PeerEnd::Finished));
}

#[test]
fn rfc9293_3_6_after_our_end_the_peer_may_go_on() {
    let mut stage = Stage::new();
    let hour = Duration::from_secs(3600);
    let steps = [
        Step::AwaitText(b"over to you".to_vec()),
        Step::Pause(hour),
        Step::Send(b"late, but here".to_vec()),
        Step::HalfClose,
    ];
    let peer = stage.peer(steps);
    stage.run(AGES, |reactor, conn, what| {
        if let What::Accepted { .. } = what {
            reactor.write_stream(conn, b"over to you").expect("open");
            reactor.finish_stream(conn).expect("once");
        }
    });
    assert_eq!(stage.heard.bytes, b"late, but here");
    assert_eq!(stage.heard.cause.as_deref(), Some("closed"));
    assert_eq!(stage.net.end(peer), Some(PeerEnd::Finished));
}

#[test]
fn a_reset_is_told_from_an_end() {
    let mut stage = Stage::new();
    let second = Duration::from_secs(1);
    stage.peer([
        Step::Send(b"half a".to_vec()),
        Step::Pause(second),
        Step::Reset,
    ]);
    stage.run(AGES, |_, _, _| {});
    assert!(!stage.heard.finished);
    let cause = stage.heard.cause.expect("it has ended");
    assert!(cause.contains("reset"), "{cause}");
}

#[test]
fn a_stream_that_is_held_is_not_read() {
    let mut stage = Stage::new();
    let flood = vec![7; 1_000_000];
    stage.peer([Step::Send(flood.clone()), Step::HalfClose]);
    let mut key = None;
    let hour = Duration::from_secs(3600);
    stage.run(hour, |reactor, conn, what| {
        if let What::Accepted { .. } = what {
            key = Some(conn);
            reactor.hold(conn);
        }
    });
    assert!(stage.heard.bytes.is_empty(), "nothing was asked for");
    let conn = key.expect("it was accepted");
    stage.reactor.release(conn);
    stage.run(AGES, |reactor, conn, what| {
        if let What::Finished = what {
            reactor.close_stream(conn).expect("open");
        }
    });
    assert!(stage.heard.bytes == flood);
}

#[test]
fn no_deadline_runs_while_a_stream_is_open() {
    let mut stage = Stage::new();
    let hour = Duration::from_secs(3600);
    let steps = [
        Step::StopReading,
        Step::Pause(hour),
        Step::ResumeReading,
        Step::AwaitBytes(300_000),
        Step::HalfClose,
    ];
    let peer = stage.peer(steps);
    let text = vec![b'x'; 300_000];
    stage.run(AGES, |reactor, conn, what| {
        if let What::Accepted { .. } = what {
            reactor.write_stream(conn, &text).expect("open");
        }
        if let What::Finished = what {
            reactor.finish_stream(conn).expect("open");
        }
    });
    assert!(stage.net.received(peer) == text);
    assert_eq!(stage.heard.cause.as_deref(), Some("closed"));
}

#[test]
fn close_sends_what_was_written_and_then_waits_for_nobody_for_ever() {
    for takes in [true, false] {
        let mut stage = Stage::new();
        let peer = match takes {
            true => stage.peer([]),
            false => stage.peer([Step::StopReading]),
        };
        let text = vec![b'x'; 300_000];
        stage.run(AGES, |reactor, conn, what| {
            if let What::Accepted { .. } = what {
                reactor.write_stream(conn, &text).expect("open");
                reactor.close_stream(conn).expect("open");
                let late = reactor.write_stream(conn, b"late");
                assert_eq!(late, Err(Misuse::Closing));
            }
        });
        assert_eq!(stage.reactor.connections(), 0);
        let cause = stage.heard.cause.expect("it has ended");
        if takes {
            assert!(stage.net.received(peer) == text);
            assert_eq!(cause, "closed");
        } else {
            assert_eq!(cause, "the Write deadline passed");
        }
    }
}

#[test]
fn a_listener_that_is_held_accepts_nobody_until_it_is_released() {
    let mut stage = Stage::new();
    stage.reactor.hold_listener(stage.listener);
    let peer = stage.peer([Step::Send(b"hi".to_vec()), Step::HalfClose]);
    let hour = Duration::from_secs(3600);
    stage.run(hour, |_, _, what| panic!("{what:?}"));
    stage.reactor.release_listener(stage.listener);
    stage.run(AGES, |reactor, conn, what| {
        if let What::Finished = what {
            reactor.close_stream(conn).expect("open");
        }
    });
    assert_eq!(stage.heard.bytes, b"hi");
    assert_eq!(stage.net.end(peer), Some(PeerEnd::Finished));
}
