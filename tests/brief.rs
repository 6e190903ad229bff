//! Connections for one request: what they cost in calls to the system, and that sparing calls loses no
//! answer.
//!
//! Sits on `sim.rs`, where calls are counted. A client that says `Connection: close` sends nothing more
//! (RFC 9112 §9.6): its answer is written and the socket closed, without shutting it, waiting and reading
//! to the end first. Where something could still come, all of that is done.
//!
//! Not here: what such a connection costs in time (`load -- churn`).

use crate::sim::{Call, PeerEnd, Script, SimNet, SimOptions, Step};
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use std::net::SocketAddr;
use std::time::Duration;

/// What a connection came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answers: usize,
    end: Option<PeerEnd>,
    registered: u64,
    shut: u64,
}

/// Lets a peer send `request`, which is there when it is accepted, then `more` once it is answered.
fn ask(request: &[u8], more: &[u8]) -> Outcome {
    let options = SimOptions {
        delay_max: Duration::ZERO,
        turn_time_max: Duration::ZERO,
        ..SimOptions::calm()
    };
    let net = SimNet::<true>::new(7, options);
    let mut reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
    let place = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let listens = reactor.listen(&place, ServerConfig::default());
    listens.expect("nobody listens yet");
    let mut script = Script::new([
        Step::Send(request.to_vec()),
        Step::AwaitText(b"answer".to_vec()),
        Step::Send(more.to_vec()),
    ]);
    script.is_stubborn = true;
    let peer = net.dial_in(&place, Duration::ZERO, script);
    let mut inbox = Inbox::new();
    for _ in 0..20 {
        let turned = reactor.turn(&mut inbox, Some(reactor.now()));
        turned.expect("a simulated poll does not fail");
        for completion in inbox.completions() {
            if let What::Request { exchange, .. } = completion.what {
                let response = Response {
                    status: 200,
                    fields: &[],
                    body: b"answer",
                };
                let answered = reactor.respond(completion.conn, exchange, &response);
                answered.expect("it is there");
            }
        }
        net.note_work();
    }
    let received = net.received(peer);
    Outcome {
        answers: received.windows(6).filter(|text| text == b"answer").count(),
        end: net.end(peer),
        registered: net.calls(Call::Register),
        shut: net.calls(Call::Shutdown),
    }
}

#[test]
fn rfc9112_9_6_who_says_close_is_answered_and_closed_without_another_call() {
    for request in [
        &b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let expected = Outcome {
            answers: 1,
            end: Some(PeerEnd::Finished),
            registered: 0,
            shut: 0,
        };
        assert_eq!(ask(request, b""), expected, "{}", request.escape_ascii());
    }
}

#[test]
fn who_sends_more_than_its_last_request_is_waited_for() {
    let outcome = ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nmore",
        b"",
    );
    assert_eq!((outcome.answers, outcome.shut), (1, 1), "{outcome:?}");
    assert_ne!(outcome.end, Some(PeerEnd::Reset));
}

#[test]
fn who_stays_is_registered_once() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let outcome = ask(request, request);
    let expected = Outcome {
        answers: 2,
        end: None,
        registered: 1,
        shut: 0,
    };
    assert_eq!(outcome, expected);
}
