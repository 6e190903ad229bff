//! Resets and ends in each phase of a request, and every fault again on a bad network.
//!
//! Not here: silence in each phase, and the faults themselves (`faults.rs`).

use super::faults::{FAULTS, More as _, WHOLE, serve, trusting_nobody};
use super::*;

/// What somebody does, whom it is asked of, and what is said.
type Break = (
    &'static str,
    fn(&mut Face, Step) -> RequestSpec,
    [&'static str; 2],
);

/// A script that waits for a request, says `words` and does `last`.
fn breaking(words: &str, last: Step) -> Script {
    let mut script = server(&[(WHOLE, words)]);
    script.steps.push_back(last);
    script
}

/// By phase: what is said of a reset, and of an end.
const BREAKS: &[Break] = &[
    (
        "while a proxy makes a tunnel",
        |face, last| {
            let proxy = breaking("", last);
            face.net.serve(at("10.0.0.9:3128"), proxy);
            serve(face, Script::default())
                .of("ws://10.0.0.1/")
                .by_proxy()
        },
        [
            "the proxy reset the connection without a response",
            "the proxy closed the connection without a response",
        ],
    ),
    (
        "in the TLS handshake",
        |face, last| {
            let server = Script::new([Step::AwaitBytes(1), last]);
            face.net.serve(at("10.0.0.1:443"), server);
            trusting_nobody(serve(face, Script::default()).of("https://10.0.0.1/"))
        },
        [
            "10.0.0.1 reset the connection during the TLS handshake",
            "TLS with 10.0.0.1 failed: the peer closed the connection during the TLS handshake",
        ],
    ),
    (
        "before the response",
        |face, last| serve(face, breaking("", last)),
        [
            "10.0.0.1 reset the connection without a response",
            "10.0.0.1 closed the connection without a response",
        ],
    ),
    (
        "in the head",
        |face, last| serve(face, breaking("HTTP/1.1 200 OK\r\nCont", last)),
        [
            "10.0.0.1 reset the connection without a response",
            "the response of 10.0.0.1 was cut short",
        ],
    ),
    (
        "in a body of a length",
        |face, last| {
            let words = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
            serve(face, breaking(words, last))
        },
        [
            "10.0.0.1 reset the connection in the middle of its response",
            "the response of 10.0.0.1 was cut short",
        ],
    ),
    (
        "in chunks",
        |face, last| {
            let words = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
            serve(face, breaking(words, last))
        },
        [
            "10.0.0.1 reset the connection in the middle of its response",
            "the response of 10.0.0.1 was cut short",
        ],
    ),
    (
        // RFC 9112 §6.3: such a body ends with the connection, but a reset is no end.
        "in a body without a length",
        |face, last| serve(face, breaking("HTTP/1.1 200 OK\r\n\r\nhalf", last)),
        [
            "10.0.0.1 reset the connection in the middle of its response",
            "",
        ],
    ),
    (
        "in the handshake of a WebSocket",
        |face, last| serve(face, breaking("HTTP/1.1 101 Sw", last)).of("ws://10.0.0.1/"),
        [
            "10.0.0.1 reset the connection without a response",
            "the response of 10.0.0.1 was cut short",
        ],
    ),
];

#[test]
fn a_reset_and_an_end_in_each_phase_have_their_sentence_and_leave_nothing() {
    for (phase, ask, [reset, end]) in BREAKS {
        for (step, sentence) in [(Step::Reset, reset), (Step::Close, end)] {
            let mut face = Face::new();
            let what = format!("{phase}: {step:?}");
            let spec = ask(&mut face, step);
            face.ask(spec);
            let expected = if sentence.is_empty() {
                "1 200 half".to_owned()
            } else {
                format!("1 failed: {sentence}")
            };
            assert_eq!(face.run(), expected, "{what}");
        }
    }
}

#[test]
fn on_a_bad_network_every_fault_reads_the_same_and_leaves_nothing() {
    for seed in 0..20 {
        for (fault, ask, sentence) in FAULTS {
            let options = SimOptions::tricky();
            let mut face = Face::over(seed, options, ClientConfig::default());
            let spec = ask(&mut face);
            face.ask(spec);
            let told = face.run();
            assert_eq!(told, format!("1 failed: {sentence}"), "{fault}: {seed}");
        }
    }
}

#[test]
fn a_server_that_leaves_at_once_is_not_connected_to_again() {
    for seed in 0..40 {
        for (step, to) in [
            (Step::Close, "http://10.0.0.1/"),
            (Step::Close, "ws://10.0.0.1/"),
            (Step::Reset, "http://10.0.0.1/"),
            (Step::Reset, "ws://10.0.0.1/"),
        ] {
            let mut face = Face::over(seed, SimOptions::calm(), ClientConfig::default());
            let spec = serve(&mut face, Script::new([step])).of(to);
            face.ask(spec);
            let told = face.run();
            assert!(told.ends_with(" without a response"), "{seed}: {told}");
            assert_eq!(face.connects(), 1, "{seed}: {told}");
        }
    }
}
