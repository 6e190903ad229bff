//! Sockets of datagrams on a simulated network that loses, repeats and reorders them.
//!
//! Two sockets send each other numbered datagrams as fast as they may; the invariants are those of UDP:
//! what arrives was sent, whole, by who it says; nothing is left, and nobody spins.

use super::{AGES, limits};
use crate::sim::scene::{Causes, Stage, seeds};
use crate::sim::{Dice, SimNet, SimOptions};
use hukilau_core::conn::Pressure;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Cause, Inbox, What};
use hukilau_core::reactor::{DATAGRAM_BYTES_MAX, Reactor};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// Datagrams that each socket sends.
const COUNT: u32 = 200;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The datagram of number `number` from `port`.
fn text(port: u16, number: u32) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(port) << 32 | u64::from(number));
    let mut text = number.to_le_bytes().to_vec();
    let length = dice.below(3_000);
    text.extend((0..length).map(|_| u8::try_from(dice.below(256)).expect("a byte")));
    text
}

struct Side {
    port: u16,
    next: u32,
    dropped: u32,
    is_pressed: bool,
    heard: Vec<u32>,
}

impl Side {
    fn go_on<const D: bool>(&mut self, reactor: &mut Reactor<SimNet<D>>, conn: ConnKey) {
        let to = at(if self.port == 1 { 2 } else { 1 });
        // Not all at once: the other's mailbox is small.
        for _ in 0..8 {
            if self.next == COUNT || self.is_pressed {
                return;
            }
            let sent = reactor.send_datagram(conn, to, &text(self.port, self.next));
            self.next += 1;
            match sent.expect("nothing refuses it") {
                Pressure::Low => {}
                Pressure::High => self.is_pressed = true,
                Pressure::Dropped => self.dropped += 1,
            }
        }
    }
}

fn run<const D: bool>(seed: u64) -> usize {
    let options = SimOptions {
        datagram_lost: 100,
        ..SimOptions::tricky()
    };
    let mut stage = Stage::<D>::new(seed, &options, None);
    let net = stage.net.clone();
    let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
    let mut sides = BTreeMap::new();
    for port in [1, 2] {
        let conn = reactor.bind_datagrams(at(port)).expect("nobody is there");
        assert_eq!(reactor.datagrams_address(conn), Some(at(port)));
        sides.insert(
            conn,
            Side {
                port,
                next: 0,
                dropped: 0,
                is_pressed: false,
                heard: Vec::new(),
            },
        );
    }
    let again = reactor.bind_datagrams(at(1)).expect_err("someone is there");
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    assert_eq!(reactor.connections(), 2, "a refused one leaves no key");
    let mut inbox = Inbox::new();
    loop {
        let is_done = sides.values().all(|side| side.next == COUNT);
        let step = Duration::from_millis(3);
        let wake_at = (!is_done).then(|| reactor.now() + step);
        if !stage.turn(&mut reactor, &mut inbox, wake_at) {
            break;
        }
        for completion in inbox.completions() {
            let side = sides.get_mut(&completion.conn).expect("one of ours");
            match completion.what {
                What::Datagram { from, bytes } => {
                    let number = bytes[..4].try_into().map(u32::from_le_bytes);
                    let number = number.expect("four bytes");
                    assert_eq!(bytes, text(from.port(), number), "SEED={seed}");
                    assert_ne!(from.port(), side.port);
                    side.heard.push(number);
                }
                What::Writable => {
                    assert!(std::mem::take(&mut side.is_pressed), "SEED={seed}");
                }
                other => panic!("SEED={seed}: {other:?}"),
            }
        }
        for (conn, side) in &mut sides {
            side.go_on(&mut reactor, *conn);
        }
    }
    let mut heard = 0;
    for (conn, side) in &sides {
        assert!(!side.is_pressed, "SEED={seed}: never relieved");
        assert_eq!(side.dropped, 0, "who stops when told loses nothing here");
        heard += side.heard.len();
        reactor.close_datagrams(*conn);
    }
    drop(inbox);
    stage.clear(&reactor, Causes::new(), ());
    heard
}

#[test]
fn datagrams_come_whole_from_whom_they_say_or_not_at_all() {
    for seed in seeds() {
        let heard = match seed % 2 {
            0 => run::<true>(seed),
            _ => run::<false>(seed),
        };
        // A tenth is lost, and what finds the mailbox full.
        assert!(heard > 100, "SEED={seed}: {heard}");
    }
}

#[test]
fn a_datagram_is_bounded_and_a_drain_ends_its_socket() {
    let net = SimNet::<true>::new(1, SimOptions::calm());
    let mut reactor = Reactor::new(net.clone(), limits()).expect("the limits agree");
    let one = reactor.bind_datagrams(at(1)).expect("nobody is there");
    let other = reactor.bind_datagrams(at(2)).expect("nobody is there");
    let long = vec![0; DATAGRAM_BYTES_MAX + 1];
    let refused = reactor.send_datagram(one, at(2), &long);
    assert_eq!(
        refused.expect_err("too long").kind(),
        ErrorKind::InvalidInput
    );
    for piece in [&long[1..], &[]] {
        reactor
            .send_datagram(one, at(2), piece)
            .expect("it is taken");
    }
    let (mut inbox, mut lengths, mut causes) = (Inbox::new(), Vec::new(), Vec::new());
    reactor.hold(other);
    let soon = reactor.now() + Duration::from_secs(1);
    while net.elapsed() < Duration::from_secs(1) {
        reactor.turn(&mut inbox, Some(soon)).expect("no poll fails");
        assert!(inbox.is_empty(), "it is held");
    }
    reactor.release(other);
    while net.elapsed() < AGES {
        if lengths.len() == 2 && causes.is_empty() {
            assert!(reactor.remote().drain(Duration::from_secs(5)));
        }
        match reactor.turn(&mut inbox, None) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.expect("a simulated poll does not fail"),
        }
        for completion in inbox.completions() {
            match completion.what {
                What::Datagram { bytes, .. } => lengths.push(bytes.len()),
                What::Closed { cause } => {
                    assert!(matches!(cause, Cause::Shutdown));
                    causes.push(completion.conn);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    lengths.sort_unstable();
    assert_eq!(lengths, [0, DATAGRAM_BYTES_MAX]);
    assert_eq!(causes, [one, other]);
    assert_eq!(reactor.connections(), 0);
    let gone = reactor.send_datagram(one, at(2), b"late");
    assert_eq!(
        gone.expect_err("it has gone").kind(),
        ErrorKind::NotConnected
    );
}
