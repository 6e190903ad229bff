//! Every way in which a request can fail, the sentence it fails with, and that nothing is left.
//!
//! Not here: what certificates can be wrong about (`secure.rs`).

use super::*;
use crate::sim::Call;
use hukilau_core::client::{ClientError, Proxy, ProxyChoice, Timeouts};
use hukilau_core::transport::tls::{ClientTls, ClientTlsOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A fault: what the network does, what is asked, and what is said.
pub(super) type Fault = (&'static str, fn(&mut Face) -> RequestSpec, &'static str);

/// Who leaves before the head is whole makes the system reset, and says something else by it.
pub(super) const WHOLE: &str = "\r\n\r\n";

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn serve(face: &mut Face, script: Script) -> RequestSpec {
    face.net.serve(at("10.0.0.1:80"), script);
    let mut spec = get("http://10.0.0.1/");
    spec.timeouts = Timeouts {
        resolve: SECOND,
        connect: 2 * SECOND,
        tls: 3 * SECOND,
        first_byte: Some(4 * SECOND),
        body: Some(5 * SECOND),
        total: Some(600 * SECOND),
    };
    spec
}

fn says(face: &mut Face, words: &str) -> RequestSpec {
    serve(face, server(&[(WHOLE, words)]))
}

fn says_and_leaves(face: &mut Face, words: &str) -> RequestSpec {
    serve(face, leaving(&[(WHOLE, words)]))
}

fn moved(location: &str, connection: &str) -> String {
    let head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n";
    format!("{head}Connection: {connection}\r\nLocation: {location}\r\n\r\n")
}

/// In the order in which they would meet a request.
pub(super) const FAULTS: &[Fault] = &[
    (
        "a name that nobody knows",
        |face| says(face, "").of("http://missing.test/"),
        "the name missing.test was not resolved: no such name",
    ),
    (
        "a resolver that is silent",
        |face| {
            let address = "10.0.0.1:80".parse().expect("an address");
            face.net.name("slow.test", None, Ok([address].into()));
            says(face, "").of("http://slow.test/")
        },
        "the name slow.test was not resolved within 1 s",
    ),
    (
        "a port where nobody listens",
        |face| says(face, "").of("http://10.0.0.1:81/"),
        "10.0.0.1:81 refused the connection",
    ),
    (
        "a network that is not there",
        |face| {
            face.net
                .fail(Call::Connect, 1, ErrorKind::NetworkUnreachable);
            says(face, "")
        },
        "no connection to 10.0.0.1:80: network unreachable",
    ),
    (
        "a server that does not take connections",
        |face| {
            face.net.route(at("10.0.0.1:80"), None);
            says(face, "")
        },
        "no connection to 10.0.0.1 within 2 s",
    ),
    (
        "a server that is silent",
        |face| says(face, ""),
        "no response from 10.0.0.1 within 4 s",
    ),
    (
        "a server that stops in the head",
        |face| {
            RequestSpec {
                method: b"OPTIONS".to_vec(),
                ..serve(face, server(&[("OPT", "HTTP/1.1 200 OK\r\nX")]))
            }
            .of("http://10.0.0.1/")
        },
        "no response from 10.0.0.1 within 4 s",
    ),
    (
        "a server that stops in the body",
        |face| says(face, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        "the response of 10.0.0.1 stalled for 5 s",
    ),
    (
        "a server that drips for ever",
        |face| {
            let mut script = server(&[("GET", "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")]);
            for _ in 0..400 {
                script.steps.push_back(Step::Pause(3 * SECOND));
                script.steps.push_back(Step::Send(b".".to_vec()));
            }
            serve(face, script)
        },
        "the request to 10.0.0.1 was not done within 600 s",
    ),
    (
        "a server that leaves",
        |face| says_and_leaves(face, ""),
        "10.0.0.1 closed the connection without a response",
    ),
    (
        "a server that resets",
        |face| {
            let mut script = server(&[(WHOLE, "")]);
            script.steps.push_back(Step::Reset);
            serve(face, script)
        },
        "10.0.0.1 reset the connection without a response",
    ),
    (
        "a connection that breaks",
        |face| {
            face.net.fail(Call::Read, 1, ErrorKind::TimedOut);
            says(face, &ok("x"))
        },
        "the connection to 10.0.0.1 broke: timed out",
    ),
    (
        "a head that is cut short",
        |face| says_and_leaves(face, "HTTP/1.1 200 OK\r\nContent-"),
        "the response of 10.0.0.1 was cut short",
    ),
    (
        "a body of a length that is cut short",
        |face| says_and_leaves(face, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        "the response of 10.0.0.1 was cut short",
    ),
    (
        "chunks that are cut short",
        |face| {
            says_and_leaves(
                face,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            )
        },
        "the response of 10.0.0.1 was cut short",
    ),
    (
        "no HTTP at all",
        |face| says(face, "SSH-2.0-OpenSSH_9.9\r\n"),
        "the response of 10.0.0.1 breaks a rule: malformed HTTP version (RFC 9112 §2.3)",
    ),
    (
        "two lengths",
        |face| {
            says(
                face,
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            )
        },
        "the response of 10.0.0.1 breaks a rule: repeated Content-Length (RFC 9110 §8.6)",
    ),
    (
        "a head without end",
        |face| {
            says(
                face,
                &format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000)),
            )
        },
        "the head of the response of 10.0.0.1 is too large",
    ),
    (
        "a body that says it is too large",
        |face| RequestSpec {
            body_bytes_max: Some(1000),
            ..says(face, "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        },
        "the response is larger than 1000 bytes",
    ),
    (
        "a body that turns out too large",
        |face| RequestSpec {
            body_bytes_max: Some(1000),
            ..says_and_leaves(
                face,
                &format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001)),
            )
        },
        "the response is larger than 1000 bytes",
    ),
    (
        "a decompression bomb",
        |face| {
            let bomb = include_bytes!("../../core/testdata/codings/zeros.zst");
            let mut words = format!(
                "HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: {}\r\n\r\n",
                bomb.len()
            )
            .into_bytes();
            words.extend_from_slice(bomb);
            let steps = [Step::AwaitText(b"GET".to_vec()), Step::Send(words)];
            RequestSpec {
                body_bytes_max: Some(100_000),
                ..serve(face, Script::new(steps))
            }
        },
        "the content decodes to more than 100000 bytes",
    ),
    (
        "content that is not what it is called",
        |face| {
            says(
                face,
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain",
            )
        },
        "the gzip content is corrupt",
    ),
    (
        "content that ends too early",
        |face| {
            let words = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0";
            let steps = [Step::AwaitText(b"GET".to_vec()), Step::Send(words.to_vec())];
            serve(face, Script::new(steps))
        },
        "the gzip content is cut short",
    ),
    (
        "a redirect to itself",
        |face| RequestSpec {
            redirects_max: 3,
            ..serve(face, leaving(&[(WHOLE, &moved("/", "close"))]))
        },
        "a redirect loop: more than 3 redirects, and again to http://10.0.0.1/",
    ),
    (
        "redirects without end",
        |face| {
            let [two, three, four] = ["/2", "/3", "/4"].map(|to| moved(to, "x"));
            let script = server(&[("/ ", &two), ("/2 ", &three), ("/3 ", &four)]);
            RequestSpec {
                redirects_max: 2,
                ..serve(face, script)
            }
        },
        "more than 2 redirects, the last to http://10.0.0.1/4",
    ),
    (
        "a redirect to nowhere",
        |face| says(face, &moved("ftp://x/", "x")),
        "a redirect to \"ftp://x/\", which cannot be followed: \
         its scheme is none of http, https, ws, wss, http+unix, ws+unix",
    ),
    (
        "a redirect into the file system",
        |face| says(face, &moved("http+unix://%2Fs/x", "x")),
        "a redirect to http+unix://%2Fs/x is not followed",
    ),
    (
        "a proxy that is silent",
        |face| {
            face.net
                .serve(at("10.0.0.9:3128"), server(&[("CONNECT", "")]));
            says(face, "").of("ws://10.0.0.1/").by_proxy()
        },
        "the proxy made no connection to 10.0.0.1 within 2 s",
    ),
    (
        "a proxy that leaves",
        |face| {
            face.net.serve(at("10.0.0.9:3128"), leaving(&[(WHOLE, "")]));
            says(face, "").of("ws://10.0.0.1/").by_proxy()
        },
        "the proxy closed the connection without a response",
    ),
    (
        "a proxy that refuses",
        |face| {
            let words = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            face.net
                .serve(at("10.0.0.9:3128"), server(&[("CONNECT", words)]));
            says(face, "").of("ws://10.0.0.1/").by_proxy()
        },
        "the proxy does not make the connection: 407 Proxy Authentication Required",
    ),
    (
        "a server that is silent in the TLS handshake",
        |face| {
            face.net.serve(at("10.0.0.1:443"), Script::default());
            trusting_nobody(says(face, "").of("https://10.0.0.1/"))
        },
        "the TLS handshake with 10.0.0.1 was not done within 3 s",
    ),
    (
        "a server without TLS",
        |face| {
            let words = Step::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
            let script = Script::new([Step::AwaitBytes(1), words]);
            face.net.serve(at("10.0.0.1:443"), script);
            trusting_nobody(says(face, "").of("https://10.0.0.1/"))
        },
        "TLS with 10.0.0.1 failed: the peer does not speak TLS",
    ),
    (
        "a server without WebSockets",
        |face| {
            serve(
                face,
                server(&[(
                    "GET",
                    "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
                )]),
            )
            .of("ws://10.0.0.1/")
        },
        "the server does not open a WebSocket (404): status is not 101 (RFC 6455 §4.1)",
    ),
];

/// By TLS settings that read nothing from this machine.
pub(super) fn trusting_nobody(spec: RequestSpec) -> RequestSpec {
    let options = ClientTlsOptions {
        system_roots: false,
        insecure: true,
        ..ClientTlsOptions::default()
    };
    let tls = ClientTls::new(&options).expect("the settings agree");
    RequestSpec {
        tls: Some(Arc::new(tls)),
        ..spec
    }
}

/// More that a request may be.
pub(super) trait More {
    fn of(self, text: &str) -> Self;
    fn by_proxy(self) -> Self;
}

impl More for RequestSpec {
    fn of(self, text: &str) -> Self {
        let url = url(text);
        let websocket = url.scheme().is_websocket().then(super::ways::websocket);
        Self {
            url,
            websocket,
            ..self
        }
    }

    fn by_proxy(self) -> Self {
        let proxy = Proxy::parse("10.0.0.9:3128", "proxy").expect("a good proxy");
        Self {
            proxy: ProxyChoice::Through(proxy),
            ..self
        }
    }
}

#[test]
fn every_fault_has_its_sentence_and_leaves_nothing() {
    for (fault, ask, sentence) in FAULTS {
        let mut face = Face::new();
        let spec = ask(&mut face);
        face.ask(spec);
        assert_eq!(face.run(), format!("1 failed: {sentence}"), "{fault}");
    }
}

#[test]
fn faults_that_differ_read_differently() {
    let sentences: BTreeSet<_> = FAULTS.iter().map(|(_, _, sentence)| sentence).collect();
    // Ends that are too early are one fault, wherever; so are silence before and within a head, and
    // bodies that are too large, announced or not.
    assert_eq!(FAULTS.len() - sentences.len(), 4);
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is() {
    let mut face = Face::new();
    let plain = || get("http://10.0.0.1/");
    let table = [
        (
            field(plain(), "Content-Length", "1"),
            "the header \"Content-Length\" cannot be sent: the client writes it itself",
        ),
        (
            field(plain(), "transfer-encoding", "chunked"),
            "the header \"transfer-encoding\" cannot be sent: the client writes it itself",
        ),
        (
            field(plain(), "Connection", "keep-alive, x"),
            "the header \"Connection\" cannot be sent: it may only say close",
        ),
        (
            field(plain(), "X", "a\r\nY: b"),
            "the header \"X\" cannot be sent: its value holds a line end or another control character",
        ),
        (
            field(plain(), "X Y", "a"),
            "the header \"X Y\" cannot be sent: its name holds what no header's may: letters, digits and -_ are safe",
        ),
        (
            RequestSpec {
                method: b"G T".to_vec(),
                ..plain()
            },
            "the request cannot be sent: a header has an invalid name or value",
        ),
        (
            RequestSpec {
                method: b"CONNECT".to_vec(),
                ..plain()
            },
            "the request cannot be sent: the request does not ask for a WebSocket",
        ),
    ];
    for (spec, sentence) in table {
        let refused: Result<_, ClientError> = face.client.request(&mut face.reactor, spec);
        assert_eq!(
            refused.expect_err("it may not be sent").to_string(),
            sentence
        );
    }
    assert_eq!(face.run(), "");
}

#[test]
fn each_call_of_the_system_may_fail_and_nothing_is_left() {
    for call in [Call::Connect, Call::Read, Call::Write] {
        for n in 1..8 {
            let mut face = Face::new();
            face.net.fail(call, n, ErrorKind::ConnectionReset);
            let exchanges = [("/1 ", ok("one")), ("/2 ", ok("two")), ("/3 ", ok("three"))];
            let script = server(
                &exchanges
                    .each_ref()
                    .map(|(text, words)| (*text, &words[..])),
            );
            face.net.serve(at("10.0.0.1:80"), script.clone());
            for number in 1..4 {
                face.ask(get(&format!("http://10.0.0.1/{number}")));
                face.run_until_done();
                // A second connection begins at the number that is due.
                let mut rest = script.clone();
                rest.steps.drain(..2 * number);
                face.net.serve_instead(at("10.0.0.1:80"), rest);
            }
            let told = face.run();
            assert_eq!(told.lines().count(), 3, "{call:?} {n}: {told}");
        }
    }
}
