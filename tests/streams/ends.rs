//! The ends of simulated streams: what each sends, and what it must hear.
//!
//! Every end sends a text that its number determines and that begins with that number, so whoever
//! hears it knows what is still to come. It writes while it may, finishes behind the last byte, now
//! and then stops reading, and by chance cuts its connection.
//!
//! Not here: the network and what is left at its end (`streams.rs`).

use crate::sim::{Dice, SimNet};
use hukilau_core::conn::{Misuse, Pressure};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Completion, What};
use hukilau_core::reactor::{Destination, DialConfig, Protocol, Reactor};
use hukilau_core::transport::Endpoint;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest text.
const TEXT_MAX: usize = 60_000;

#[derive(Debug, Default)]
struct End {
    text: Vec<u8>,
    written: usize,
    heard: Vec<u8>,
    is_open: bool,
    /// Told to stop writing.
    is_pressed: bool,
    is_held: bool,
    has_finished: bool,
    /// The other end has.
    heard_end: bool,
    closed: Option<String>,
}

/// All ends of a scene.
pub(super) struct Ends {
    dice: Dice,
    cuts: u16,
    out_bytes_high: usize,
    ends: BTreeMap<ConnKey, End>,
    pub(super) causes: BTreeMap<String, usize>,
}

/// The text of end `number`.
fn text(number: u8) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(number) + 7);
    let length = match number % 4 {
        0 => 0,
        1 => dice.below(10),
        _ => dice.below(TEXT_MAX),
    };
    let rest = (0..length).map(|_| u8::try_from(dice.below(256)).expect("a byte"));
    std::iter::once(number).chain(rest).collect()
}

impl Ends {
    pub(super) fn new(seed: u64, cuts: u16, limits: &Limits) -> Self {
        Self {
            dice: Dice::new(seed ^ 0x57e4),
            cuts,
            out_bytes_high: limits.out_bytes_high as usize,
            ends: BTreeMap::new(),
            causes: BTreeMap::new(),
        }
    }

    /// One more that connects to `to`.
    pub(super) fn dial<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>, to: &Endpoint) {
        let Endpoint::Ip(to) = to else {
            panic!("the simulation has no file system")
        };
        let config = DialConfig {
            protocol: Protocol::Stream,
            ..DialConfig::default()
        };
        let to = Destination::tcp(&to.ip().to_string(), to.port());
        let conn = reactor.dial(&to, &config).expect("the table has room");
        self.begin(conn);
    }

    fn begin(&mut self, conn: ConnKey) {
        let number = u8::try_from(self.ends.len()).expect("a scene has few ends");
        let end = End {
            text: text(number),
            ..End::default()
        };
        assert!(self.ends.insert(conn, end).is_none(), "{conn}: begun twice");
    }

    /// One that does not read goes on by itself after a while.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let is_held = self.ends.values().any(|end| end.is_held);
        is_held.then(|| now + Duration::from_millis(5))
    }

    pub(super) fn release_some<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>) {
        for (conn, end) in &mut self.ends {
            if end.is_held && self.dice.chance(300) {
                end.is_held = false;
                reactor.release(*conn);
            }
        }
    }

    pub(super) fn take<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        completion: Completion<'_>,
    ) {
        let conn = completion.conn;
        if let What::Accepted { peer, .. } = completion.what {
            self.begin(conn);
            assert!(reactor.peer(conn).is_none_or(|known| known == peer));
        }
        let cuts = self.dice.chance(self.cuts);
        let end = self.ends.get_mut(&conn).expect("someone unknown");
        assert!(end.closed.is_none(), "{conn}: {completion:?} after Closed");
        match completion.what {
            What::Accepted { .. } | What::Connected { .. } => {
                assert!(!end.is_open, "{conn}: opened twice");
                end.is_open = true;
                end.go_on(reactor, conn, &mut self.dice);
            }
            What::Bytes { bytes } => {
                assert!(end.is_open && !end.heard_end && !bytes.is_empty());
                end.heard.extend_from_slice(bytes);
                if self.dice.chance(200) && !end.is_held {
                    end.is_held = true;
                    reactor.hold(conn);
                }
            }
            What::Finished => {
                assert!(end.is_open && !std::mem::replace(&mut end.heard_end, true));
            }
            What::Writable => {
                assert!(end.is_pressed, "{conn}: nobody was told to stop");
                end.is_pressed = false;
                end.go_on(reactor, conn, &mut self.dice);
            }
            What::Closed { cause } => {
                if matches!(cause, Cause::Agreed) {
                    assert!(end.heard_end && end.has_finished, "{conn}: not agreed");
                }
                end.closed = Some(cause.name().to_owned());
                *self.causes.entry(cause.name().to_owned()).or_default() += 1;
                return;
            }
            other => panic!("{conn}: {other:?}"),
        }
        // The very bound is for what was written at once.
        let waits = reactor.waiting_bytes(conn).unwrap_or(0);
        assert!(waits <= self.out_bytes_high + PIECE_MAX, "{conn}: {waits}");
        if cuts {
            let _gone = reactor.terminate(conn);
        }
    }

    pub(super) fn check_rest(&self, strict: bool) {
        for (conn, end) in &self.ends {
            assert!(end.closed.is_some(), "{conn}: never closed");
            let Some(number) = end.heard.first() else {
                assert!(!end.heard_end && !strict, "{conn}: heard nothing");
                continue;
            };
            let expected = text(*number);
            assert!(
                expected.starts_with(&end.heard),
                "{conn}: heard what nobody said"
            );
            // An end that was told is the end of all.
            assert!(
                !end.heard_end || end.heard.len() == expected.len(),
                "{conn}: told of an end before all had come"
            );
            assert!(end.heard_end || !strict, "{conn}: no end");
        }
    }
}

/// Longest piece that is written at once.
const PIECE_MAX: usize = 5_000;

impl End {
    /// Writes what may be written.
    fn go_on<const D: bool>(
        &mut self,
        reactor: &mut Reactor<SimNet<D>>,
        conn: ConnKey,
        dice: &mut Dice,
    ) {
        while self.written < self.text.len() {
            let rest = &self.text[self.written..];
            let piece = &rest[..dice.up_to(PIECE_MAX).min(rest.len())];
            match reactor.write_stream(conn, piece) {
                Ok(pressure) => {
                    self.written += piece.len();
                    if pressure == Pressure::High {
                        self.is_pressed = true;
                        return;
                    }
                }
                Err(Misuse::Gone) => return,
                Err(misuse) => panic!("{conn}: {misuse}"),
            }
        }
        if self.has_finished {
            return;
        }
        match reactor.finish_stream(conn) {
            Ok(()) => {
                self.has_finished = true;
                let again = reactor.finish_stream(conn);
                assert_eq!(again, Err(Misuse::Closing), "{conn}: finished twice");
                let late = reactor.write_stream(conn, b"late");
                assert_eq!(late, Err(Misuse::Closing), "{conn}: written after the end");
            }
            Err(Misuse::Gone) => {}
            Err(misuse) => panic!("{conn}: {misuse}"),
        }
    }
}
