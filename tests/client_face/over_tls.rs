//! Every way in which a request over TLS can fail, on a simulated network: the certificate, the
//! handshake, and the session after it. The real reactor and the real rustls are at both ends.
//!
//! Where the handshake breaks off is not chosen: it is broken off at every place, in both versions,
//! and the sentences must be those of the phases, in their order. What is deterministic here and what
//! is not is said in `loopback/secure.rs`.
//!
//! Not here: the same on real sockets (`secure.rs`, `asking/leaks.rs`), servers without TLS and silent
//! ones (`faults.rs`).

use super::far::{Far, Then};
use super::faults::{Fault, More as _, serve};
use super::*;
use crate::sim::Cut;
use crate::tls::certs::{Ca, Pair, params};
use hukilau_core::reactor::ServerConfig;
use hukilau_core::transport::tls::{
    ClientCertificates, ClientTls, ClientTlsOptions, ServerTls, TlsVersion,
};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

const ADDRESS: &str = "10.0.0.1";

/// Bytes between two places where a connection is cut: fewer than any record has.
const STRIDE: usize = 13;

/// More bytes than a server says in any of these tests.
const PLACES_MAX: usize = 2_500;

struct Certs {
    ca: Ca,
    good: Pair,
    of_stranger: Pair,
    of_another: Pair,
    expired: Pair,
    not_yet: Pair,
}

static CERTS: LazyLock<Certs> = LazyLock::new(|| {
    let ca = Ca::new("authority");
    let within = |from, until| {
        let mut params = params(&[ADDRESS]);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        ca.sign_steady(&params)
    };
    Certs {
        good: ca.issue_steady(&[ADDRESS]),
        of_stranger: Ca::new("stranger").issue_steady(&[ADDRESS]),
        of_another: ca.issue_steady(&["other.test"]),
        expired: within(2001, 2002),
        not_yet: within(2090, 2100),
        ca,
    }
});

/// A client that believes the authority.
fn trusting(spec: RequestSpec, more: ClientTlsOptions) -> RequestSpec {
    let options = ClientTlsOptions {
        system_roots: false,
        ca: Some(CERTS.ca.pem().into_bytes()),
        ..more
    };
    let tls = ClientTls::new(&options).expect("the settings agree");
    RequestSpec {
        tls: Some(Arc::new(tls)),
        ..spec
    }
}

fn server_tls(pair: &Pair, clients: &ClientCertificates) -> Arc<ServerTls> {
    let tls = ServerTls::for_streams(&[pair.identity()], clients);
    Arc::new(tls.expect("the settings agree"))
}

/// A server that shows `pair`, says `pieces` and does `then`.
fn far(face: &mut Face, pair: &Pair, pieces: &[&'static str], then: Then) -> RequestSpec {
    let tls = server_tls(pair, &ClientCertificates::Ignored);
    face.far = Some(Far::listen(&mut face.reactor, tls, pieces, then));
    let spec = serve(face, Script::default()).of("https://10.0.0.1/");
    trusting(spec, ClientTlsOptions::default())
}

fn shows(face: &mut Face, pair: &Pair) -> RequestSpec {
    far(face, pair, &[], Then::Wait)
}

fn says(face: &mut Face, pieces: &[&'static str], then: Then) -> RequestSpec {
    far(face, &CERTS.good, pieces, then)
}

const HALF_A_HEAD: &[&str] = &["HTTP/1.1 200 OK\r\nConte"];
const HALF_A_BODY: &[&str] = &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "half"];
const ENDLESS: &[&str] = &["HTTP/1.1 200 OK\r\n\r\n", "half"];

const SILENT: &str = "no response from 10.0.0.1 within 4 s";
const RESET: &str = "10.0.0.1 reset the connection without a response";

const FAULTS: &[Fault] = &[
    (
        "a certificate of a stranger",
        |face| shows(face, &CERTS.of_stranger),
        "TLS with 10.0.0.1 failed: the certificate was not issued by anyone trusted here",
    ),
    (
        "a certificate for another name",
        |face| shows(face, &CERTS.of_another),
        "TLS with 10.0.0.1 failed: the certificate is for another name: \
         asked for 10.0.0.1, it is for other.test",
    ),
    (
        "a certificate that has expired",
        |face| shows(face, &CERTS.expired),
        "TLS with 10.0.0.1 failed: the certificate has expired",
    ),
    (
        "a certificate of the future",
        |face| shows(face, &CERTS.not_yet),
        "TLS with 10.0.0.1 failed: the certificate is not valid yet",
    ),
    (
        "a server that wants to know who asks",
        |face| {
            let clients = ClientCertificates::Required(CERTS.ca.pem().into_bytes());
            let tls = server_tls(&CERTS.good, &clients);
            face.far = Some(Far::listen(&mut face.reactor, tls, &[], Then::Wait));
            let spec = serve(face, Script::default()).of("https://10.0.0.1/");
            trusting(spec, ClientTlsOptions::default())
        },
        "TLS with 10.0.0.1 failed: the peer refused: certificate_required",
    ),
    (
        "a server that speaks another protocol",
        |face| {
            let identities = [CERTS.good.identity()];
            let tls = ServerTls::new(&identities, &ClientCertificates::Ignored);
            let config = ServerConfig {
                tls: Some(Arc::new(tls.expect("the settings agree"))),
                ..ServerConfig::default()
            };
            let listens = face.reactor.listen(&at("10.0.0.1:443"), config);
            listens.expect("nobody listens yet");
            let options = ClientTlsOptions {
                protocols: vec![b"h2".to_vec()],
                ..ClientTlsOptions::default()
            };
            trusting(
                serve(face, Script::default()).of("https://10.0.0.1/"),
                options,
            )
        },
        "TLS with 10.0.0.1 failed: the peer refused: no_application_protocol",
    ),
    (
        "silence before the head",
        |face| says(face, &[], Then::Wait),
        SILENT,
    ),
    (
        "silence in the head",
        |face| says(face, HALF_A_HEAD, Then::Wait),
        SILENT,
    ),
    (
        "silence in the body",
        |face| says(face, HALF_A_BODY, Then::Wait),
        "the response of 10.0.0.1 stalled for 5 s",
    ),
    (
        "a reset before the head",
        |face| says(face, &[], Then::Reset),
        RESET,
    ),
    (
        "a reset in the head",
        |face| says(face, HALF_A_HEAD, Then::Reset),
        RESET,
    ),
    (
        "a reset in the body",
        |face| says(face, HALF_A_BODY, Then::Reset),
        "10.0.0.1 reset the connection in the middle of its response",
    ),
    (
        // RFC 9112 §9.8: who says nothing of the end may have been silenced.
        "a reset in a body without a length",
        |face| says(face, ENDLESS, Then::Reset),
        "10.0.0.1 reset the connection in the middle of its response",
    ),
    (
        "an end before the head",
        |face| says(face, &[], Then::Leave),
        "10.0.0.1 closed the connection without a response",
    ),
    (
        "an end in the head",
        |face| says(face, HALF_A_HEAD, Then::Leave),
        "the response of 10.0.0.1 was cut short",
    ),
    (
        "an end in the body",
        |face| says(face, HALF_A_BODY, Then::Leave),
        "the response of 10.0.0.1 was cut short",
    ),
];

#[test]
fn every_fault_over_tls_has_its_sentence_and_leaves_nothing() {
    for (fault, ask, sentence) in FAULTS {
        let mut face = Face::new();
        let spec = ask(&mut face);
        face.ask(spec);
        assert_eq!(face.run(), format!("1 failed: {sentence}"), "{fault}");
    }
}

#[test]
fn on_a_bad_network_every_fault_over_tls_reads_the_same() {
    for seed in 0..8 {
        for (fault, ask, sentence) in FAULTS {
            // A reset may overtake what was said before it, and a body is none then.
            if fault.starts_with("a reset in") {
                continue;
            }
            let mut face = Face::over(seed, SimOptions::tricky(), ClientConfig::default());
            let spec = ask(&mut face);
            face.ask(spec);
            let told = face.run();
            assert_eq!(told, format!("1 failed: {sentence}"), "{fault}: {seed}");
        }
    }
}

#[test]
fn faults_over_tls_that_differ_read_differently() {
    let sentences: BTreeSet<_> = FAULTS.iter().map(|(_, _, sentence)| sentence).collect();
    // Before and within a head is one, twice; a body's length is nothing to a reset; and what is cut
    // short is, wherever.
    assert_eq!(FAULTS.len() - sentences.len(), 4);
}

const ANSWER: &[&str] = &[
    "HTTP/1.1 200 OK\r\nConte",
    "nt-Length: 9\r\n\r\nhalf",
    "_and5",
];

/// What is said when the connection is cut at each place, each sentence once.
fn cut_everywhere(
    how: Cut,
    pieces: &[&'static str],
    versions: &'static [TlsVersion],
) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for place in (0..).step_by(STRIDE) {
        let mut face = Face::new();
        let spec = far(&mut face, &CERTS.good, pieces, Then::Leave);
        let options = ClientTlsOptions {
            versions,
            ..ClientTlsOptions::default()
        };
        face.net.cut_after(at("10.0.0.1:443"), place, how);
        face.ask(trusting(spec, options));
        let told = face.run();
        let is_whole = told.starts_with("1 200 ");
        if !sentences.contains(&told) {
            sentences.push(told);
        }
        if is_whole {
            break;
        }
        assert!(
            place < PLACES_MAX,
            "never whole: {sentences:?} {}",
            face.net.last_lines(60)
        );
    }
    sentences
}

#[test]
fn wherever_tls_breaks_off_the_phase_is_named_and_nothing_is_left() {
    let table = [
        (
            Cut::End,
            [
                "TLS with 10.0.0.1 failed: the peer closed the connection during the TLS handshake",
                "10.0.0.1 closed the connection without a response",
                "the response of 10.0.0.1 was cut short",
            ],
        ),
        (
            Cut::Reset,
            [
                "10.0.0.1 reset the connection during the TLS handshake",
                "10.0.0.1 reset the connection without a response",
                "10.0.0.1 reset the connection in the middle of its response",
            ],
        ),
        (
            Cut::Silence,
            [
                "the TLS handshake with 10.0.0.1 was not done within 3 s",
                "no response from 10.0.0.1 within 4 s",
                "the response of 10.0.0.1 stalled for 5 s",
            ],
        ),
    ];
    for versions in [&[TlsVersion::Tls12], &[TlsVersion::Tls13]] {
        for (how, sentences) in table {
            let mut expected = sentences
                .map(|sentence| format!("1 failed: {sentence}"))
                .to_vec();
            expected.push("1 200 half_and5".to_owned());
            let told = cut_everywhere(how, ANSWER, versions);
            assert_eq!(told, expected, "{how:?} {versions:?}");
        }
    }
}

#[test]
fn rfc9112_9_8_no_part_of_a_body_without_a_length_is_taken_for_all_of_it() {
    for versions in [&[TlsVersion::Tls12], &[TlsVersion::Tls13]] {
        for how in [Cut::End, Cut::Reset] {
            let told = cut_everywhere(how, &["HTTP/1.1 200 OK\r\n\r\n", "half", "_and5"], versions);
            let (last, failed) = told.split_last().expect("it ends well some time");
            assert_eq!(last, "1 200 half_and5");
            assert!(
                failed.iter().all(|one| one.starts_with("1 failed: ")),
                "{told:?}"
            );
        }
    }
}

#[test]
fn http_on_the_port_of_tls_is_answered_in_words() {
    let mut face = Face::new();
    let tls = ServerTls::new(&[CERTS.good.identity()], &ClientCertificates::Ignored);
    let config = ServerConfig {
        tls: Some(Arc::new(tls.expect("the settings agree"))),
        ..ServerConfig::default()
    };
    let listens = face.reactor.listen(&at("10.0.0.1:443"), config);
    listens.expect("nobody listens yet");
    face.ask(get("http://10.0.0.1:443/"));
    let told = face.run();
    assert!(told.starts_with("1 400 "), "{told}");
    assert!(told.contains("speaks HTTPS"), "{told}");
}
