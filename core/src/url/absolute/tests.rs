//! What is a URL and what is not, and the tables of RFC 3986 §5.4.

use super::*;
use proptest::prelude::*;

fn url(text: &str) -> Url {
    Url::parse(text.as_bytes()).expect("a good URL")
}

#[test]
fn rfc3986_3_the_parts_of_a_url() {
    let url = url("HTTPS://Alice%40x:s%3Acret@Example.COM:8443/a/../b?q=1 2#frag");
    assert_eq!(url.scheme(), Scheme::Https);
    assert_eq!(url.host(), &Host::Name("example.com".to_owned()));
    assert_eq!(url.port(), 8443);
    assert_eq!(url.target(), "/a/../b?q=1%202");
    let credentials = url.credentials().expect("they are there");
    assert_eq!(credentials.user, b"Alice@x");
    assert_eq!(credentials.password, b"s:cret");
    assert_eq!(url.host_field(), "example.com:8443");
    let (shown, debugged) = (url.to_string(), format!("{url:?}"));
    assert_eq!(shown, "https://example.com:8443/a/../b?q=1%202");
    assert!(!debugged.contains("cret"), "{debugged}");
}

#[test]
fn hosts_are_names_addresses_or_sockets() {
    let table: [(&str, &str, u16, &str); 9] = [
        ("http://a", "a", 80, "a"),
        ("ws://a:80", "a", 80, "a"),
        ("wss://a:80", "a", 80, "a:80"),
        (
            "http://a.b-c_d.example.:99?x",
            "a.b-c_d.example.",
            99,
            "a.b-c_d.example.:99",
        ),
        ("http://127.0.0.1:1/", "127.0.0.1", 1, "127.0.0.1:1"),
        (
            "https://[2001:DB8::1]",
            "[2001:db8::1]",
            443,
            "[2001:db8::1]",
        ),
        ("http://[::1]:8080/x", "[::1]", 8080, "[::1]:8080"),
        (
            "http://xn--bcher-kva.example/",
            "xn--bcher-kva.example",
            80,
            "xn--bcher-kva.example",
        ),
        (
            "http+unix://%2Frun%2Fa%20b.sock/v1?x",
            "%2Frun%2Fa%20b.sock",
            0,
            "localhost",
        ),
    ];
    for (text, host, port, host_field) in table {
        let url = url(text);
        assert_eq!(url.host().to_string(), host, "{text}");
        assert_eq!(url.port(), port, "{text}");
        assert_eq!(url.host_field(), host_field, "{text}");
        assert!(url.target().starts_with('/'), "{text}");
    }
    let socket = url("http+unix://%2Frun%2Fa%20b.sock/v1?x");
    assert_eq!(socket.host(), &Host::Unix("/run/a b.sock".to_owned()));
    assert_eq!(socket.to_string(), "http+unix://%2Frun%2Fa%20b.sock/v1?x");
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_reason() {
    let table = [
        ("", UrlError::NotAbsolute),
        ("/path", UrlError::NotAbsolute),
        ("example.com/x", UrlError::NotAbsolute),
        ("http:/x", UrlError::NotAbsolute),
        ("ftp://a/", UrlError::Scheme),
        ("file:///etc/passwd", UrlError::Scheme),
        ("http://", UrlError::HostMissing),
        ("http:///x", UrlError::HostMissing),
        ("http://:80/", UrlError::HostMissing),
        ("http+unix:///x", UrlError::HostMissing),
        ("http://a b/", UrlError::Host),
        ("http://a..b/", UrlError::Host),
        ("http://a%2Fb/", UrlError::Host),
        ("http://127.1/", UrlError::Host),
        ("http://0x7f000001/", UrlError::Host),
        ("http://2130706433/", UrlError::Host),
        ("http://256.1.1.1/", UrlError::Host),
        ("http://[::1/", UrlError::Host),
        ("http://[::1]x/", UrlError::Host),
        ("http://[fe80::1%25eth0]/", UrlError::Host),
        ("http://[v1.x]/", UrlError::Host),
        ("http://b\u{fc}cher.example/", UrlError::HostNotAscii),
        ("http://a:0/", UrlError::Port),
        ("http://a:65536/", UrlError::Port),
        ("http://a:+1/", UrlError::Port),
        ("http://a:8o/", UrlError::Port),
        ("http://a/\r\nX: y", UrlError::ControlByte),
        ("http://a\0/", UrlError::ControlByte),
    ];
    for (text, error) in table {
        assert_eq!(Url::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn rfc3986_5_4_references_resolve() {
    let base = url("http://a/b/c/d;p?q");
    let table = [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q"),
        ("g#s", "http://a/b/c/g"),
        ("g?y#s", "http://a/b/c/g?y"),
        (";x", "http://a/b/c/;x"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/../x", "http://a/b/c/g"),
        ("https://B:8/../x?y", "https://b:8/x?y"),
        ("a b/\u{fc}", "http://a/b/c/a%20b/%C3%BC"),
        ("1:2", "http://a/b/c/1:2"),
    ];
    for (reference, want) in table {
        let got = base
            .resolve(reference.as_bytes())
            .map(|url| url.to_string());
        assert_eq!(got.as_deref(), Ok(want), "{reference:?}");
    }
    assert_eq!(base.resolve(b"mailto:x"), Err(UrlError::NotAbsolute));
    assert_eq!(base.resolve(b"http:g"), Err(UrlError::NotAbsolute));
    assert_eq!(base.resolve(b"g\r\nh"), Err(UrlError::ControlByte));
    let socket = url("http+unix://%2Fs/a/b").resolve(b"c");
    assert_eq!(
        socket.map(|url| url.to_string()),
        Ok("http+unix://%2Fs/a/c".to_owned())
    );
}

#[test]
fn a_query_is_appended_to_what_there_is() {
    let table = [
        ("http://a", "http://a/?k=v"),
        ("http://a/x?", "http://a/x?k=v"),
        ("http://a/x?y=1", "http://a/x?y=1&k=v"),
        ("http://a/x?y=1&", "http://a/x?y=1&k=v"),
    ];
    for (text, want) in table {
        let mut url = url(text);
        url.push_query("");
        url.push_query("k=v");
        assert_eq!(url.to_string(), want);
    }
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_and_may_stand_in_a_request(text in "[ -~]{0,12}", reference in ".{0,24}") {
        let base = url("https://example.com/a/b?c");
        let given = Url::parse(format!("http://h/{text}").as_bytes());
        for url in [given, base.resolve(reference.as_bytes())].into_iter().flatten() {
            prop_assert!(url.target().bytes().all(is_target_byte));
            let again = Url::parse(url.to_string().as_bytes());
            prop_assert_eq!(again, Ok(url.without_credentials()));
        }
    }

    #[test]
    fn no_bytes_upset_it(bytes: Vec<u8>) {
        if let Ok(url) = Url::parse(&bytes) {
            prop_assert!(url.host_field().bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
