//! Connections that begin with a header of the PROXY protocol, on a simulated network: who the client
//! then is, what is refused, how long it may take, and that nothing is left.
//!
//! Sits on `sim.rs`. The application answers each request with the address that it comes from.
//! Peers of a simulation have addresses in 10.0.0.0/16 and the port 40000.

use crate::sim::scene::{Causes, Stage, seeds};
use crate::sim::{PeerEnd, PeerId, Script, SimOptions, Step};
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::proxy_header::{AddressBlock, ProxyHeaders};
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::{Reactor, ServerConfig};
use hukilau_core::transport::{Endpoint, Peer};
use std::net::SocketAddr;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 50123 443\r\n";

/// A header of version 2.
fn binary(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let length = u16::try_from(said.len()).expect("short").to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[command, family][..], &length, said].concat()
}

/// Addresses and ports of 192.0.2.8:80, a no-op TLV, and a checksum that is none.
const SAID: &[u8] = &[
    192, 0, 2, 8, 198, 51, 100, 1, 0, 80, 1, 187, 4, 0, 1, 0, 3, 0, 4, 1, 2, 3, 4,
];

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

/// What it takes to run a scene.
struct Setting {
    seed: u64,
    options: SimOptions,
    trusted: &'static str,
    per_ip_max: u32,
    drain_at: Option<Duration>,
}

impl Setting {
    fn of(seed: u64, options: SimOptions) -> Self {
        Self {
            seed,
            options,
            trusted: "10.0.0.0/16",
            per_ip_max: u32::MAX,
            drain_at: None,
        }
    }
}

/// What each peer has received, and how and when it saw the end.
struct Outcome {
    heard: String,
    end: Option<PeerEnd>,
}

/// Runs peers until the world is at rest; also when the last connection went.
fn run<const DRAINS: bool>(setting: &Setting, scripts: &[Script]) -> (Vec<Outcome>, Duration) {
    let mut stage = Stage::<DRAINS>::new(setting.seed, &setting.options, None);
    let net = stage.net.clone();
    let limits = Limits {
        connections_per_ip_max: setting.per_ip_max,
        ..Limits::default()
    };
    let mut reactor = Reactor::new(net.clone(), limits).expect("the limits agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)));
    let block = AddressBlock::parse(setting.trusted).expect("a block");
    let config = ServerConfig {
        proxy_headers: ProxyHeaders::From(vec![block]),
        ..ServerConfig::default()
    };
    reactor.listen(&at, config).expect("nobody listens yet");
    let dial = |script: &Script| net.dial_in(&at, Duration::from_millis(1), script.clone());
    let peers: Vec<PeerId> = scripts.iter().map(dial).collect();
    let (mut inbox, mut ended, mut drain_at) = (Inbox::new(), Duration::ZERO, setting.drain_at);
    loop {
        let wake_at = drain_at.map(|at| reactor.now() + at.saturating_sub(net.elapsed()));
        if !stage.turn(&mut reactor, &mut inbox, wake_at) {
            break;
        }
        for Completion { conn, what } in inbox.completions() {
            if let What::Request { exchange, .. } = what {
                let is_unnamed = reactor.is_unnamed(conn);
                let who = match reactor.peer(conn) {
                    Some(Peer::Ip(peer)) if is_unnamed => format!("for someone, {peer}"),
                    Some(Peer::Ip(peer)) => peer.to_string(),
                    other => format!("{other:?}"),
                };
                let response = Response {
                    status: 200,
                    fields: &[],
                    body: who.as_bytes(),
                };
                // It may have left meanwhile.
                let _ = reactor.respond(conn, exchange, &response);
            }
        }
        if drain_at.is_some_and(|at| at <= net.elapsed()) {
            drain_at = None;
            reactor.drain(Duration::from_secs(5));
        }
        if reactor.connections() > 0 {
            ended = net.elapsed();
        }
    }
    stage.clear(&reactor, Causes::new(), ());
    let outcome = |peer| Outcome {
        heard: String::from_utf8(net.received(peer)).expect("answers are text"),
        end: net.end(peer),
    };
    (peers.into_iter().map(outcome).collect(), ended)
}

fn run_either(setting: &Setting, scripts: &[Script]) -> (Vec<Outcome>, Duration) {
    match setting.seed.is_multiple_of(2) {
        true => run::<true>(setting, scripts),
        false => run::<false>(setting, scripts),
    }
}

/// One peer that does `steps` on a calm network.
fn run_one(trusted: &'static str, steps: &[Step]) -> (Outcome, Duration) {
    let setting = Setting {
        trusted,
        ..Setting::of(0, SimOptions::calm())
    };
    let (mut outcomes, ended) = run_either(&setting, &[Script::new(steps.iter().cloned())]);
    (outcomes.remove(0), ended)
}

/// Headers, and who asks behind them. Empty stands for the peer's own address.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let mut v6 = [0; 36];
    (v6[0], v6[15], v6[33]) = (0xfd, 9, 7);
    vec![
        (LINE.into(), "192.0.2.7:50123"),
        ("PROXY TCP6 fd00::8 ::1 9 443\r\n".into(), "[fd00::8]:9"),
        ("PROXY UNKNOWN\r\n".into(), "for someone, "),
        ("PROXY UNKNOWN and so on\r\n".into(), "for someone, "),
        (binary(0x21, 0x11, SAID), "192.0.2.8:80"),
        (binary(0x21, 0x21, &v6), "[fd00::9]:7"),
        (binary(0x21, 0x31, &[b'/'; 216]), "for someone, "),
        (binary(0x21, 0, &[]), "for someone, "),
        (binary(0x20, 0, &[]), ""),
        (binary(0x20, 0x11, SAID), ""),
    ]
}

#[track_caller]
fn expect_who(outcome: &Outcome, who: &str) {
    let (head, body) = outcome.heard.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    match who {
        "" => assert!(
            body.starts_with("10.0.") && body.ends_with(":40000"),
            "{body}"
        ),
        "for someone, " => assert!(body.starts_with("for someone, 10.0."), "{body}"),
        _ => assert_eq!(body, who),
    }
    assert_eq!(outcome.end, Some(PeerEnd::Finished));
}

#[test]
fn every_header_names_its_client_however_the_network_cuts_it() {
    let (headers, whos): (Vec<_>, Vec<_>) = headers().into_iter().unzip();
    let whole = |header: &Vec<u8>| Script::new([send([header, GET.as_bytes()].concat())]);
    let apart = |header: &Vec<u8>| {
        let pause = Step::Pause(Duration::from_millis(40));
        let answered = Step::AwaitText(b"\r\n\r\n".to_vec());
        Script::new([send(header), pause, send(GET), answered])
    };
    let scripts: Vec<_> = headers
        .iter()
        .map(whole)
        .chain(headers.iter().map(apart))
        .collect();
    for seed in seeds().take(60) {
        let (outcomes, _) = run_either(&Setting::of(seed, SimOptions::tricky()), &scripts);
        for (outcome, who) in outcomes.iter().zip(whos.iter().chain(&whos)) {
            expect_who(outcome, who);
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    for (header, who) in headers() {
        let text = [&header, GET.as_bytes()].concat();
        let pause = Step::Pause(Duration::from_millis(5));
        let steps: Vec<_> = text
            .iter()
            .flat_map(|byte| [send([*byte]), pause.clone()])
            .collect();
        expect_who(&run_one("10.0.0.0/16", &steps).0, who);
    }
}

#[test]
fn on_a_rough_network_nothing_is_left() {
    let scripts: Vec<_> = headers()
        .iter()
        .flat_map(|(header, _)| {
            let half = &header[..header.len() / 2];
            [
                Script::new([send([header, GET.as_bytes()].concat())]),
                Script::new([send(half), Step::Close]),
                Script::new([send(half), Step::Reset]),
                Script::new([send(header), Step::HalfClose]),
                Script::new([send(half), send("no header at all")]),
            ]
        })
        .collect();
    for seed in seeds().take(60) {
        let drain_at = seed
            .is_multiple_of(3)
            .then_some(Duration::from_millis(seed * 3));
        let setting = Setting {
            drain_at,
            ..Setting::of(seed, SimOptions::rough())
        };
        run_either(&setting, &scripts);
    }
}

#[test]
fn what_is_no_header_is_closed_without_a_word() {
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    for bytes in [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 70000\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        too_long.as_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &binary(0x21, 0x11, &[0; 5_000]),
        &binary(0x21, 0x11, &[0; 3]),
        &binary(0x2f, 0x11, SAID),
    ] {
        let steps = [send(bytes), send(GET)];
        let (outcome, ended) = run_one("10.0.0.0/16", &steps);
        let shown = bytes.escape_ascii();
        assert_eq!(outcome.heard, "", "{shown}");
        assert_eq!(outcome.end, Some(PeerEnd::Reset), "{shown}");
        assert!(ended < Duration::from_secs(1), "{shown}");
    }
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let timeout = Limits::default().tls_handshake_timeout;
    let second = Step::Pause(Duration::from_secs(1));
    let trickled = LINE.bytes().flat_map(|byte| [send([byte]), second.clone()]);
    for steps in [
        vec![],
        vec![send(&LINE[..20])],
        vec![send(&binary(0x21, 0x11, SAID)[..30])],
        trickled.collect(),
    ] {
        let (outcome, ended) = run_one("10.0.0.0/16", &steps);
        assert_eq!(outcome.heard, "");
        assert_eq!(outcome.end, Some(PeerEnd::Reset));
        assert!(
            ended.abs_diff(timeout) < Duration::from_secs(1),
            "{ended:?}"
        );
    }
    // What comes behind it has its own time: longer than the header may take.
    let late = [
        send(LINE),
        Step::Pause(2 * timeout),
        send(GET),
        Step::AwaitText(b"192.0.2.7".to_vec()),
    ];
    expect_who(&run_one("10.0.0.0/16", &late).0, "192.0.2.7:50123");
}

#[test]
fn from_others_such_a_header_is_no_http_and_without_it_they_are_served() {
    for header in [LINE.into(), binary(0x21, 0x11, SAID)] {
        let steps = [send(header), send(GET)];
        let (outcome, _) = run_one("192.0.2.0/24", &steps);
        assert!(
            outcome.heard.starts_with("HTTP/1.1 400 "),
            "{}",
            outcome.heard
        );
    }
    expect_who(&run_one("192.0.2.0/24", &[send(GET)]).0, "");
}

#[test]
fn connections_count_for_the_address_that_the_header_names() {
    let asks = |from: &str, at: u64| {
        let header = format!("PROXY TCP4 {from} 1.1.1.1 1 1\r\n");
        Script::new([
            Step::Pause(Duration::from_millis(at)),
            send(header),
            Step::Pause(Duration::from_millis(100)),
            send(GET),
        ])
    };
    let setting = Setting {
        per_ip_max: 1,
        ..Setting::of(0, SimOptions::calm())
    };
    let scripts = [
        asks("9.9.9.1", 1),
        asks("9.9.9.1", 50),
        asks("9.9.9.2", 50),
        // The first has gone.
        asks("9.9.9.1", 5_000),
    ];
    let (outcomes, _) = run_either(&setting, &scripts);
    let answered = outcomes
        .iter()
        .map(|outcome| outcome.heard.contains(" 200 "));
    assert_eq!(answered.collect::<Vec<_>>(), [true, false, true, true]);
}

#[test]
fn a_drain_answers_whose_header_is_still_on_its_way() {
    let setting = Setting {
        drain_at: Some(Duration::from_millis(200)),
        ..Setting::of(0, SimOptions::calm())
    };
    let pause = Step::Pause(Duration::from_millis(400));
    let half = LINE.len() / 2;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let late = [send(&LINE[..half]), pause, send(&LINE[half..]), send(get)];
    let (outcomes, ended) = run_either(&setting, &[Script::new(late)]);
    let heard = &outcomes[0].heard;
    assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
    assert!(heard.ends_with("192.0.2.7:50123"), "{heard}");
    assert!(ended < Duration::from_secs(4), "{ended:?}");
}
