//! What a server sends to a client connection: any cut brings the same events; a head we accept
//! another parser reads alike; a response that the end of input cuts short is never whole; what is
//! collected keeps its limit; no buffer stays behind.
#![no_main]

use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::conn::client::{Ask, AskBody, ClientConn};
use hukilau_core::conn::{Appetite, Event, EventLog};
use hukilau_core::http1::Response;
use hukilau_core::limits::Limits;
use hukilau_core::violation::Violation;
use hukilau_fuzz::{pieces, seeded};
use libfuzzer_sys::fuzz_target;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

/// Bytes of a body that may be collected.
const COLLECT_BYTES_MAX: usize = 200;

#[derive(Debug, PartialEq)]
enum Fact {
    Response(u16, Vec<(Vec<u8>, Vec<u8>)>),
    Body(Vec<u8>),
    End,
}

#[derive(Debug, PartialEq)]
struct Heard {
    facts: Vec<Fact>,
    verdict: Option<Violation>,
    end: Appetite,
}

fuzz_target!(|data: &[u8]| {
    let Some((mut seed, bytes)) = seeded(data) else {
        return;
    };
    let method: &[u8] = match seed.below(3) {
        0 => b"GET",
        1 => b"HEAD",
        _ => b"POST",
    };
    let whole: Range<usize> = 0..bytes.len();
    let heard = hear(method, bytes, std::slice::from_ref(&whole));
    let cut = hear(method, bytes, &pieces(bytes.len(), &mut seed));
    assert_eq!(cut, heard, "the cut changed what was heard");
    assert_ne!(heard.end, Appetite::Read, "input has ended");
    let ends = heard
        .facts
        .iter()
        .filter(|fact| **fact == Fact::End)
        .count();
    assert!(ends <= 1, "one request has one response");
    let cut_short = [Violation::Incomplete, Violation::BodyIncomplete];
    if heard
        .verdict
        .is_some_and(|verdict| cut_short.contains(&verdict))
    {
        assert_eq!(ends, 0, "a response cut short was taken for whole");
    }
});

/// One request, then all of `bytes`, then the end of input.
fn hear(method: &[u8], bytes: &[u8], cuts: &[Range<usize>]) -> Heard {
    let pool = BufferPool::default();
    let limits = Limits {
        head_bytes_max: 512,
        fields_max: 8,
        chunk_framing_bytes_max: 256,
        ..Limits::default()
    };
    let (mut log, mut out) = (EventLog::default(), SendBuffer::new(&pool));
    let now = Instant::now();
    let mut conn = ClientConn::new(Rc::new(limits), now);
    let ask = Ask {
        method,
        target: b"/",
        host: b"a",
        fields: &[],
        body: AskBody::None,
        collect_bytes_max: Some(COLLECT_BYTES_MAX as u64),
    };
    conn.ask(&ask, &mut out).expect("a fresh connection");
    let (mut facts, mut verdict, mut spill) = (Vec::new(), None, Vec::new());
    for cut in cuts {
        if conn.appetite() != Appetite::Read {
            break;
        }
        spill.extend_from_slice(&bytes[cut.clone()]);
        let received = conn.receive(&mut spill, now, &mut log, &mut out);
        note(&mut log, &spill, &mut facts);
        match received {
            Ok(consumed) => drop(spill.drain(..consumed)),
            Err(violation) => verdict = Some(violation),
        }
    }
    if conn.appetite() == Appetite::Read {
        verdict = conn.receive_eof(&mut log, &out).err();
        note(&mut log, &[], &mut facts);
    }
    let end = conn.appetite();
    drop(conn);
    out.clear();
    assert_eq!(pool.taken(), 0, "no buffer stays behind");
    Heard {
        facts,
        verdict,
        end,
    }
}

fn note(log: &mut EventLog, segment: &[u8], facts: &mut Vec<Fact>) {
    for event in log.events() {
        facts.push(match *event {
            Event::Response { head, at, .. } => {
                let response = log
                    .response(head, at, segment)
                    .expect("its head is in the log");
                agrees_with_httparse(&response, &segment[at as usize..]);
                let fields = response.fields();
                let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec()));
                Fact::Response(response.head().status, fields.collect())
            }
            Event::Body { payload, .. } => {
                let body = log.payload(payload, segment).to_vec();
                assert!((1..=COLLECT_BYTES_MAX).contains(&body.len()));
                Fact::Body(body)
            }
            Event::End { .. } => Fact::End,
            other => panic!("no HTTP client logs {other:?}"),
        });
    }
    log.clear();
}

/// What we accept must be accepted elsewhere, with the same parts.
fn agrees_with_httparse(response: &Response<'_>, bytes: &[u8]) {
    let mut theirs = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut theirs);
    let outcome = parsed.parse(bytes);
    // Allowed difference: httparse knows 1.0 and 1.1; we take any 1.x for 1.1 (RFC 9110 §2.5).
    if outcome == Err(httparse::Error::Version) {
        return;
    }
    let len = response.head().len as usize;
    assert_eq!(outcome, Ok(httparse::Status::Complete(len)));
    assert_eq!(parsed.code, Some(response.head().status));
    let ours: Vec<_> = response.fields().collect();
    assert_eq!(parsed.headers.len(), ours.len());
    for (theirs, (name, value)) in parsed.headers.iter().zip(ours) {
        assert_eq!(theirs.name.as_bytes(), name);
        assert_eq!(theirs.value.trim_ascii(), value.trim_ascii());
    }
}
