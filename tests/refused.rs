//! What is refused without the application is told to it, on a simulated network: once, with what was
//! answered and what is known of the request, however its bytes came.

use crate::sim::{Script, SimNet, SimOptions, Step};
use hukilau_core::conn::{RefusalPage, Refusals, Response};
use hukilau_core::limits::Limits;
use hukilau_core::proxy_header::{AddressBlock, ProxyHeaders};
use hukilau_core::reactor::figures::Counter;
use hukilau_core::reactor::inbox::{Completion, Inbox, Refusal, What};
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::{Endpoint, Peer};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

/// What a run leaves behind.
struct Told {
    refusals: Vec<Refusal>,
    turned_away: Vec<Refusal>,
    requests: usize,
    heard: Vec<String>,
    /// Refused, and responses of 4xx and 5xx.
    figures: [u64; 3],
}

fn run(seed: u64, config: ServerConfig, scripts: &[Script]) -> Told {
    let dice = usize::try_from(seed % 40).expect("small");
    let options = SimOptions {
        accept_exhausted: 0,
        // What is long comes in longer pieces, or it would be late.
        piece_max: match scripts.iter().any(is_long) {
            true => 500 + 100 * dice,
            false => 12 + dice,
        },
        ..SimOptions::tricky()
    };
    let net = SimNet::<true>::new(seed, options);
    let mut reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let listener = reactor.listen(&at, config).expect("nobody listens yet");
    let dial = |script: &Script| net.dial_in(&at, Duration::ZERO, script.clone());
    let peers: Vec<_> = scripts.iter().map(dial).collect();
    let mut inbox = Inbox::new();
    let (mut refusals, mut turned_away, mut requests) = (Vec::new(), Vec::new(), 0);
    loop {
        match reactor.turn(&mut inbox, None) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.expect("a simulated poll does not fail"),
        }
        turned_away.extend_from_slice(inbox.turned_away());
        for Completion { conn, what } in inbox.completions() {
            match what {
                What::Refused { refusal } => {
                    assert_eq!(refusal.listener, listener);
                    assert!(matches!(refusal.peer, Some(Peer::Ip(_))));
                    refusals.push(refusal.clone());
                }
                // With a body it is answered when that is there; an upgrade never is.
                What::Request {
                    exchange, request, ..
                } => {
                    requests += 1;
                    if !request.has_body() && !request.head().upgrades_to_websocket {
                        let response = Response {
                            status: 200,
                            fields: &[],
                            body: b"hi",
                        };
                        // Who broke a rule behind it may be gone.
                        let _ = reactor.respond(conn, exchange, &response);
                    }
                }
                _ => {}
            }
        }
    }
    let hear = |peer| String::from_utf8_lossy(&net.received(peer)).into_owned();
    let figures = reactor.figures();
    let class = |at: usize| Counter::value(&figures.responses[at]);
    Told {
        refusals,
        turned_away,
        requests,
        heard: peers.iter().map(|peer| hear(*peer)).collect(),
        figures: [figures.refused.value(), class(3), class(4)],
    }
}

/// Whether it sends more than a few packets.
fn is_long(script: &Script) -> bool {
    let mut steps = script.steps.iter();
    steps.any(|step| matches!(step, Step::Send(bytes) if bytes.len() > 1_000))
}

/// Sends `bytes`, waits, and leaves.
fn sends(bytes: &[u8]) -> Script {
    let stay = Step::Pause(Duration::from_secs(100));
    Script::new([Step::Send(bytes.to_vec()), stay, Step::HalfClose])
}

/// What `bytes` are answered with, by status, rule and line, behind `requests` that were heard of.
#[track_caller]
fn check(bytes: &[u8], requests: usize, status: u16, rule: &str, line: &str) {
    for seed in 0..60 {
        let config = ServerConfig {
            websocket: true,
            limits: Some(Limits {
                body_bytes_max: 10,
                ..Limits::default()
            }),
            ..ServerConfig::default()
        };
        let told = run(seed, config, &[sends(bytes)]);
        let [refusal] = &told.refusals[..] else {
            panic!("SEED={seed}: {:?}", told.refusals);
        };
        assert_eq!(
            (refusal.status, refusal.rule),
            (Some(status), rule),
            "SEED={seed}"
        );
        // The rule may be broken before the line has come whole.
        let told_line = String::from_utf8_lossy(&refusal.line);
        assert!(line.starts_with(&*told_line), "SEED={seed}: {told_line}");
        assert_eq!(told_line.is_empty(), line.is_empty(), "SEED={seed}");
        assert_eq!(told.requests, requests, "SEED={seed}");
        let heard = &told.heard[0];
        let head = format!("HTTP/1.1 {status} ");
        let said = heard.split(&head).nth(1);
        let said = said.and_then(|said| said.split_once("\r\n\r\n"));
        let (_, body) = said.unwrap_or_else(|| panic!("SEED={seed}: {heard}"));
        assert_eq!(body.len(), refusal.bytes, "SEED={seed}: {body}");
        let (client, server) = match status {
            400..500 => (1, 0),
            _ => (0, 1),
        };
        assert_eq!(told.figures, [1, client, server], "SEED={seed}");
    }
}

#[test]
fn a_broken_rule_is_told_with_its_status_and_the_line() {
    check(
        b"GET / HTTP/1.1\r\n\r\n",
        0,
        400,
        "no Host",
        "GET / HTTP/1.1",
    );
    check(
        b"\r\nGET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        0,
        400,
        "more than one Host",
        "GET /a HTTP/1.1",
    );
    check(
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
        0,
        400,
        "malformed request-target",
        "GET /\x1b[31m HTTP/1.1",
    );
    check(
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        0,
        505,
        "HTTP version not supported",
        "GET / HTTP/2.0",
    );
    check(
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        0,
        501,
        "tunnels are not implemented",
        "CONNECT a:1 HTTP/1.1",
    );
    check(
        b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
        0,
        413,
        "body too large",
        "PUT /x HTTP/1.1",
    );
    check(
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        0,
        426,
        "Sec-WebSocket-Version is not 13",
        "GET /x HTTP/1.1",
    );
}

#[test]
fn what_is_too_long_is_told_as_far_as_it_is_kept() {
    let target = [
        b"GET /".as_slice(),
        &[b'a'; 9_000],
        b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat();
    check(
        &target,
        0,
        414,
        "request-target too long",
        &format!("GET /{}", "a".repeat(9_000)),
    );
    let head = [
        b"GET / HTTP/1.1\r\nHost: a\r\nA: ".as_slice(),
        &[b'a'; 20_000],
        b"\r\n\r\n",
    ]
    .concat();
    check(&head, 0, 431, "head too large", "GET / HTTP/1.1");
}

#[test]
fn behind_other_requests_and_in_bodies_it_is_the_one_that_broke_the_rule() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    check(
        format!("{good}{good}GET /bad HTTP/1.1\r\nHost: a\r\n b\r\n\r\n").as_bytes(),
        2,
        400,
        "folded field line",
        "GET /bad HTTP/1.1",
    );
    // The application knows which.
    check(
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\n",
        1,
        400,
        "malformed chunk-size",
        "",
    );
    check(
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n12345678901234567890\r\n",
        1,
        413,
        "body too large",
        "",
    );
}

#[test]
fn deadlines_and_ends_that_come_too_early_are_told() {
    check(
        b"GET /slow HTTP/1.1\r\nHo",
        0,
        408,
        "head not whole in time",
        "GET /slow HTTP/1.1",
    );
    check(
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        1,
        408,
        "body not whole in time",
        "",
    );
    check(
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        1,
        503,
        "upgrade not decided in time",
        "",
    );
    for seed in 0..60 {
        let steps = [Step::Send(b"GET /half HTTP/1.1".to_vec()), Step::HalfClose];
        let told = run(seed, ServerConfig::default(), &[Script::new(steps)]);
        let [refusal] = &told.refusals[..] else {
            panic!("SEED={seed}: {:?}", told.refusals);
        };
        assert_eq!(
            (refusal.status, refusal.rule, &refusal.line[..]),
            (Some(400), "incomplete message", &b"GET /half HTTP/1.1"[..]),
            "SEED={seed}"
        );
    }
}

#[test]
fn where_a_page_or_silence_is_asked_for_that_is_what_is_told() {
    let bad = b"GET / HTTP/1.1\r\n\r\n";
    let mut refusals = Refusals::default();
    refusals.set_silent(400).expect("a status");
    let config = ServerConfig {
        refusals,
        ..ServerConfig::default()
    };
    let told = run(1, config, &[sends(bad)]);
    let [refusal] = &told.refusals[..] else {
        panic!("{:?}", told.refusals);
    };
    assert_eq!((refusal.status, refusal.bytes), (None, 0));
    assert_eq!((&*told.heard[0], told.figures), ("", [1, 0, 0]));

    let mut refusals = Refusals::default();
    let page = RefusalPage {
        body: b"twelve bytes".as_slice().into(),
        ..RefusalPage::default()
    };
    refusals.set_page(400, page).expect("a page");
    let config = ServerConfig {
        refusals,
        ..ServerConfig::default()
    };
    let told = run(1, config, &[sends(bad)]);
    assert_eq!(
        (told.refusals[0].status, told.refusals[0].bytes),
        (Some(400), 12)
    );
}

#[test]
fn who_is_turned_away_for_his_address_is_told_of_and_has_no_key() {
    let limits = Limits {
        connections_per_ip_max: 1,
        ..Limits::default()
    };
    // Simulated peers have addresses of their own, until a proxy gives them one.
    let stays = Script::new([
        Step::Send(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 80\r\n".to_vec()),
        Step::Pause(Duration::from_secs(1)),
        Step::HalfClose,
    ]);
    let scripts = vec![stays; 3];
    let mut count = 0;
    for seed in 0..30 {
        let config = ServerConfig {
            limits: Some(limits.clone()),
            proxy_headers: ProxyHeaders::From(
                AddressBlock::parse("0.0.0.0/0").into_iter().collect(),
            ),
            ..ServerConfig::default()
        };
        let told = run(seed, config, &scripts);
        assert_eq!(told.refusals, [], "SEED={seed}");
        for refusal in &told.turned_away {
            let rule = "too many connections of one address";
            assert_eq!((refusal.status, refusal.rule), (None, rule));
            assert_eq!((refusal.exchange, refusal.line.len()), (None, 0));
            let client = Peer::Ip(SocketAddr::from(([1, 2, 3, 4], 9)));
            assert_eq!(refusal.peer, Some(client));
        }
        count += told.turned_away.len();
    }
    assert_eq!(count, 60);
}
