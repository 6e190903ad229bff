//! A whole WebSocket connection: any cut gives the same events, the same verdict and the same bytes
//! out; what it sends a peer of the other role can read; memory goes back to the pool.
#![no_main]

use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::websocket::{WsConn, WsSettings};
use hukilau_core::conn::{Appetite, Event, EventLog, Payload};
use hukilau_core::limits::Limits;
use hukilau_core::violation::Violation;
use hukilau_core::ws::message::{MessageDecoder, MessageRules};
use hukilau_core::ws::{MessageKind, Role};
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

/// Above this much unsent, the connection answers only the last ping of a segment, so that what it
/// sends may depend on the cuts.
const PONG_BACKLOG_BYTES: usize = 16 * 1024;

#[derive(Debug, PartialEq)]
enum Fact {
    Message(MessageKind, Vec<u8>),
    Pong(Vec<u8>),
    Closing(u16, Vec<u8>),
    Other(Event),
}

#[derive(Debug, PartialEq)]
struct Heard {
    facts: Vec<Fact>,
    verdict: Option<Violation>,
    out: Vec<u8>,
    closed: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let begin_close = seed.below(4) == 0;
    for role in [Role::Server, Role::Client] {
        let whole = hear(role, bytes, &[0..bytes.len()], begin_close);
        let cut = hear(role, bytes, &pieces(bytes.len(), &mut seed), begin_close);
        if whole.out.len() < PONG_BACKLOG_BYTES {
            assert_eq!(cut, whole, "{role:?}: the cut changed the meaning");
        }
        other_side_reads(role, &whole.out);
    }
});

/// Drives one connection as a reactor does.
fn hear(role: Role, bytes: &[u8], cuts: &[Range<usize>], begin_close: bool) -> Heard {
    let pool = BufferPool::default();
    let limits = Limits {
        message_bytes_max: 300,
        fragments_max: 6,
        ..Limits::default()
    };
    let settings = Rc::new(WsSettings::new(role, &limits));
    let now = Instant::now();
    let (mut log, mut out) = (EventLog::default(), SendBuffer::new(&pool));
    let mut conn = WsConn::new(settings, now, 7);
    if begin_close {
        conn.begin_close(1000, b"enough", now, &mut out)
            .expect("an open connection may close");
    }
    let (mut facts, mut verdict, mut spill) = (Vec::new(), None, Vec::new());
    for cut in cuts {
        if conn.appetite() == Appetite::Close {
            break;
        }
        spill.extend_from_slice(&bytes[cut.clone()]);
        let received = conn.receive(&mut spill, now, &mut log, &mut out);
        for event in log.events() {
            let of = |payload: Payload| log.payload(payload, &spill).to_vec();
            facts.push(match *event {
                Event::Message { kind, payload } => Fact::Message(kind, of(payload)),
                Event::Pong { payload } => Fact::Pong(of(payload)),
                Event::Closing { code, reason } => Fact::Closing(code, of(reason)),
                other => Fact::Other(other),
            });
        }
        log.clear();
        conn.conclude(now, &mut out);
        match received {
            Ok(used) => drop(spill.drain(..used)),
            Err(violation) => {
                assert_eq!(conn.appetite(), Appetite::Close);
                verdict = Some(violation);
                break;
            }
        }
        assert!(
            conn.appetite() == Appetite::Close || conn.deadline().is_some(),
            "every silence meets a deadline"
        );
    }
    let closed = conn.appetite() == Appetite::Close;
    let sent: Vec<u8> = out.chunks().flatten().copied().collect();
    drop(conn);
    out.clear();
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
    Heard {
        facts,
        verdict,
        out: sent,
        closed,
    }
}

/// Everything we send is whole, legal frames for the other role.
fn other_side_reads(role: Role, out: &[u8]) {
    let other = if role == Role::Server {
        Role::Client
    } else {
        Role::Server
    };
    let rules = MessageRules {
        role: other,
        message_bytes_max: 1 << 20,
        fragments_max: 1,
    };
    let (mut bytes, mut at) = (out.to_vec(), 0);
    let mut decoder = MessageDecoder::default();
    let pool = BufferPool::default();
    while decoder
        .next(&mut bytes, &mut at, rules, &pool, None)
        .expect("what we send is legal")
        .is_some()
    {}
    assert_eq!(at, bytes.len(), "what we send is whole");
}
