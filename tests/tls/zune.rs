//! TLS as scripts for Zune use it: certificates that are trusted themselves, under any name, and
//! streams with TLS on top. The programs are in `luau-binding/tests/luau/zune/tls`.

use super::certs::{Pair, params, self_signed};
use super::file;
use crate::harness::{Huki, repository};
use rcgen::{BasicConstraints, IsCa, KeyPair};

/// One that says it is an authority's, and is the server's own all the same.
fn authority_itself() -> Pair {
    let mut params = params(&["leaf.test"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("keys can be made");
    let cert = params.self_signed(&key).expect("it can be signed");
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    }
}

#[track_caller]
fn run(program: &str, own: &Pair) {
    let program = repository()
        .join("luau-binding/tests/luau/zune/tls")
        .join(program);
    let program = program.to_str().expect("UTF-8");
    let (cert, key) = (file("cert.pem", &own.cert), file("key.pem", &own.key));
    let other = file("other.pem", &self_signed(&["leaf.test"]).cert);
    let finished = Huki::run_to_end(&["run", program, &cert, &key, &other]);
    let told = format!("{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.status.success(), "{told}");
    assert_eq!(finished.stderr, "", "{told}");
    assert!(finished.stdout.ends_with("ok\n"), "{told}");
}

#[test]
fn b7_https_and_wss_with_a_certificate_that_is_trusted_itself() {
    run("b7_http.luau", &self_signed(&["leaf.test"]));
    run("b7_http.luau", &authority_itself());
}

#[test]
fn b6_sockets_speak_tls_with_a_certificate_that_is_trusted_itself() {
    run("b6_sockets.luau", &self_signed(&["leaf.test"]));
    run("b6_sockets.luau", &authority_itself());
}

#[test]
fn the_rows_about_tls_that_say_yes_for_zune() {
    run("rows.luau", &self_signed(&["leaf.test"]));
}
