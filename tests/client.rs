//! The reactor as a client, in virtual time: names, races between addresses, what servers say and
//! do not say, and how each failure is told.
//!
//! Sits on `sim.rs`. A [`Story`] is one reactor with nothing to accept; it runs until nothing will
//! ever happen again, and then nothing may be left.
//!
//! Not here: a client and a server of ours face to face (`reactor.rs`), real sockets (`dial.rs`).

use crate::sim::{Call, Script, SimNet, SimOptions, Step};
use hukilau_core::conn::{Ask, AskBody, Deadline, Misuse};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Destination, DialConfig, DialTls, Reactor};
use hukilau_core::transport::tls::{ClientTls, ClientTlsOptions};
use hukilau_core::transport::{Endpoint, ResolveError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const GET: Ask<'_> = Ask {
    method: b"GET",
    target: b"/",
    host: b"x",
    fields: &[],
    body: AskBody::None,
    collect_bytes_max: Some(100_000),
};

/// One reactor and what it was told.
struct Story {
    net: SimNet<true>,
    reactor: Reactor<SimNet<true>>,
    inbox: Inbox,
    /// `milliseconds what`, a line each.
    told: Vec<String>,
}

fn at(text: &str) -> Endpoint {
    Endpoint::Ip(text.parse().unwrap())
}

fn addresses(texts: &[&str]) -> std::sync::Arc<[SocketAddr]> {
    texts
        .iter()
        .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
        .collect()
}

fn ms(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

impl Story {
    fn new() -> Self {
        let mut options = SimOptions::calm();
        options.delay_max = Duration::ZERO;
        options.turn_time_max = Duration::ZERO;
        let net = SimNet::new(1, options);
        let reactor = Reactor::new(net.clone(), Limits::default()).expect("the limits agree");
        Self {
            net,
            reactor,
            inbox: Inbox::new(),
            told: Vec::new(),
        }
    }

    fn dial(&mut self, to: &Destination) -> ConnKey {
        self.reactor.dial(to, &DialConfig::default()).unwrap()
    }

    /// Runs until nothing will ever happen, asking `ask` of each connection that is made. Times are
    /// of the wheel's grain, so they are told in quarters of a second.
    fn run(&mut self, ask: Option<&Ask<'_>>) -> String {
        let began = self.net.elapsed();
        loop {
            match self.reactor.turn(&mut self.inbox, None) {
                Err(error) if error.kind() == ErrorKind::Deadlock => break,
                outcome => outcome.expect("a simulated poll does not fail"),
            }
            let quarters = (self.net.elapsed() - began).as_millis() / 250;
            for completion in self.inbox.completions() {
                let line = match completion.what {
                    What::Connected { peer } => {
                        if let Some(ask) = ask {
                            self.reactor.ask(completion.conn, ask).expect("it is fresh");
                        }
                        format!("connected {peer:?}")
                    }
                    What::Response { response, .. } => format!("{}", response.head().status),
                    What::Body { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
                    What::End { .. } => "end".to_owned(),
                    What::Closed { cause } => format!("closed: {cause}"),
                    other => format!("{other:?}"),
                };
                self.told.push(format!("{quarters} {line}"));
            }
        }
        assert_eq!(self.reactor.connections(), 0, "the table is empty");
        assert_eq!(self.reactor.deadlines(), 0, "the wheel is empty");
        self.inbox = Inbox::new();
        assert_eq!(self.reactor.buffers_taken(), 0, "the pool is whole");
        assert_eq!(self.net.questions(), 0, "nobody waits for a name");
        assert_eq!(self.net.open_sockets(), 0, "every socket is closed");
        std::mem::take(&mut self.told).join("\n")
    }
}

/// A server that answers the first request and closes.
fn answers() -> Script {
    Script::new([
        Step::AwaitText(b"\r\n\r\n".to_vec()),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".to_vec()),
    ])
}

#[test]
fn a_name_is_resolved_and_the_answer_comes() {
    let mut story = Story::new();
    story
        .net
        .name("a.test", ms(500), Ok(addresses(&["10.0.0.1"])));
    story.net.serve(at("10.0.0.1:80"), answers());
    story.dial(&Destination::tcp("a.test", 80));
    assert_eq!(
        story.run(Some(&GET)),
        "2 connected Ip(10.0.0.1:80)\n2 200\n2 hi\n2 end\n2 closed: closed"
    );
}

#[test]
fn names_that_do_not_resolve_say_so_in_the_resolvers_words() {
    let mut story = Story::new();
    let failure = Err(ResolveError::new("Name or service not known"));
    story.net.name("missing.test", ms(250), failure);
    story.dial(&Destination::tcp("missing.test", 80));
    assert_eq!(
        story.run(None),
        "1 closed: the name was not resolved: Name or service not known"
    );
    story
        .net
        .name("silent.test", None, Ok(addresses(&["10.0.0.1"])));
    story.dial(&Destination::tcp("silent.test", 80));
    let told = story.run(None);
    assert!(
        told.ends_with(&format!("the {:?} deadline passed", Deadline::Resolve)),
        "{told}"
    );
}

/// The parts of a dial with a bound for all of it: a name after a while, a connection after another,
/// then a handshake that never ends.
#[test]
fn a_bound_of_the_whole_dial_ends_whatever_part_is_under_way() {
    let options = ClientTlsOptions {
        system_roots: false,
        insecure: true,
        ..ClientTlsOptions::default()
    };
    let client = Arc::new(ClientTls::new(&options).expect("the settings agree"));
    // Seconds of the whole; which part meets it; quarters of a second.
    for (seconds, part, quarters) in [
        (1, Deadline::Resolve, 4),
        (6, Deadline::Connect, 24),
        (12, Deadline::TlsHandshake, 48),
        // Longer than all parts together.
        (60, Deadline::TlsHandshake, 64),
    ] {
        let mut story = Story::new();
        let known = Ok(addresses(&["10.0.0.1"]));
        story.net.name("a.test", ms(2_000), known);
        story.net.serve(at("10.0.0.1:443"), Script::default());
        story.net.route(
            at("10.0.0.1:443"),
            ms(4_000 + 2_000 * u64::from(seconds == 6)),
        );
        let config = DialConfig {
            total_timeout: Some(Duration::from_secs(seconds)),
            tls: Some(DialTls {
                client: Arc::clone(&client),
                host: "a.test".to_owned(),
            }),
            ..DialConfig::default()
        };
        let to = Destination::tcp("a.test", 443);
        story.reactor.dial(&to, &config).expect("it may be dialled");
        let told = story.run(None);
        let expected = format!("closed: the {part:?} deadline passed");
        let (after, what) = told.split_once(' ').expect("a time and what");
        assert_eq!(what, expected);
        // A deadline is met within a tick of the wheel.
        let after: u64 = after.parse().expect("a number");
        assert!(
            (quarters..=quarters + 1).contains(&after),
            "{seconds}: {told}"
        );
    }
}

#[test]
fn what_can_be_no_host_is_refused_before_anybody_is_asked() {
    let mut story = Story::new();
    let long = "a".repeat(255);
    let bad = ["", "a\0b", "a b", "a/b", "a\nb", "ä.test", "a@b", &long];
    for host in bad {
        let dialled = story
            .reactor
            .dial(&Destination::tcp(host, 80), &DialConfig::default());
        assert_eq!(dialled, Err(Misuse::InvalidHost), "{host:?}");
        let looked_up = story.reactor.resolve(host, Duration::from_secs(1));
        assert_eq!(looked_up, Err(Misuse::InvalidHost), "{host:?}");
    }
    let path = Destination::Unix("/a\0b".into());
    let dialled = story.reactor.dial(&path, &DialConfig::default());
    assert_eq!(dialled, Err(Misuse::InvalidHost));
    assert_eq!(story.run(None), "");
    assert!(!story.net.transcript().contains("is looked up"));
    // Whoever has them knows what to make of them.
    for host in [
        "_srv.a-b.test.",
        "fe80::1%eth0",
        "[2001:db8::1]",
        "xn--nxasmq6b",
    ] {
        assert!(
            story
                .reactor
                .dial(&Destination::tcp(host, 80), &DialConfig::default())
                .is_ok()
        );
    }
    story.run(None);
}

#[test]
fn rfc8305_4_families_take_turns_and_ipv6_begins() {
    let mut story = Story::new();
    let six = ["2001:db8::1", "2001:db8::2"];
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", six[0], six[1]];
    story.net.name("a.test", ms(0), Ok(addresses(&all)));
    for address in all {
        let at = Endpoint::Ip(SocketAddr::new(address.parse().unwrap(), 80));
        story.net.route(at, None);
    }
    story.dial(&Destination::tcp("a.test", 80));
    let told = story.run(None);
    assert!(told.ends_with("the Connect deadline passed"), "{told}");
    let transcript = story.net.transcript().to_owned();
    let tried: Vec<&str> = transcript
        .lines()
        .filter_map(|line| line.split_once("connects to ").map(|(_, to)| to))
        .collect();
    assert_eq!(
        tried,
        [
            "[2001:db8::1]:80",
            "10.0.0.1:80",
            "[2001:db8::2]:80",
            "10.0.0.2:80",
            "10.0.0.3:80"
        ]
    );
}

#[test]
fn rfc8305_5_the_next_address_joins_after_a_quarter_of_a_second_and_the_first_to_connect_wins() {
    let mut story = Story::new();
    let both = addresses(&["2001:db8::1", "10.0.0.1"]);
    story.net.name("a.test", ms(0), Ok(both));
    story.net.serve(at("[2001:db8::1]:80"), answers());
    story.net.serve(at("10.0.0.1:80"), answers());
    story.net.route(at("[2001:db8::1]:80"), None);
    story.dial(&Destination::tcp("a.test", 80));
    let told = story.run(Some(&GET));
    assert!(
        told.starts_with("1 connected Ip(10.0.0.1:80)\n1 200"),
        "{told}"
    );
}

#[test]
fn an_address_that_refuses_makes_room_for_the_next_at_once() {
    let mut story = Story::new();
    let both = addresses(&["2001:db8::1", "10.0.0.1"]);
    story.net.name("a.test", ms(0), Ok(both));
    story.net.serve(at("10.0.0.1:80"), answers());
    story.dial(&Destination::tcp("a.test", 80));
    let told = story.run(Some(&GET));
    assert!(told.starts_with("0 connected Ip(10.0.0.1:80)"), "{told}");
}

#[test]
fn a_destination_that_refuses_is_named() {
    let mut story = Story::new();
    story.dial(&Destination::tcp("10.0.0.9", 81));
    assert_eq!(
        story.run(None),
        "0 closed: no connection to 10.0.0.9:81: connection refused"
    );
    story.dial(&Destination::tcp("localhost", 81));
    assert_eq!(
        story.run(None),
        "0 closed: no connection to 127.0.0.1:81: connection refused"
    );
    story.dial(&Destination::Unix("/nowhere".into()));
    assert_eq!(
        story.run(None),
        "0 closed: no connection to /nowhere: connection refused"
    );
    story
        .net
        .fail(Call::Connect, 5, ErrorKind::NetworkUnreachable);
    story.dial(&Destination::tcp("[2001:db8::1]", 81));
    assert_eq!(
        story.run(None),
        "0 closed: no connection to [2001:db8::1]:81: network unreachable"
    );
}

#[test]
fn a_dial_may_be_cancelled_in_every_phase() {
    let mut story = Story::new();
    story.net.name("a.test", None, Ok(addresses(&["10.0.0.1"])));
    story.net.route(at("10.0.0.1:80"), None);
    for (to, turns) in [
        ("a.test", 0),
        ("a.test", 1),
        ("10.0.0.1", 0),
        ("10.0.0.1", 1),
    ] {
        let key = story.dial(&Destination::tcp(to, 80));
        for _ in 0..turns {
            let now = story.reactor.now();
            story.reactor.turn(&mut story.inbox, Some(now)).unwrap();
        }
        assert!(story.reactor.ask(key, &GET).is_err(), "it is not connected");
        story.reactor.terminate(key).expect("it is known");
        let told = story.run(None);
        assert!(told.ends_with("closed: terminated"), "{to} {turns}: {told}");
        assert!(story.reactor.terminate(key).is_err(), "it is gone");
    }
}
