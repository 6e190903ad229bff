//! Other ways to a response than straight: redirects, proxies, and to WebSockets.

use super::*;
use hukilau_core::client::{Proxies, Proxy, ProxyChoice, WebSocketSpec};
use hukilau_core::conn::WsSettings;
use hukilau_core::ws::Role;
use std::rc::Rc;

pub(super) fn websocket() -> WebSocketSpec {
    let settings = WsSettings::new(Role::Client, &Limits::default());
    WebSocketSpec {
        protocols: Vec::new(),
        settings: Rc::new(settings),
    }
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nContent-Length: 5\r\nLocation: {location}\r\n\r\nmoved")
}

#[test]
fn a_redirect_within_an_origin_keeps_its_connection_and_its_fields() {
    let mut face = Face::new();
    let script = server(&[("POST /a ", &to("b?x")), ("GET /b?x ", &ok("there"))]);
    face.net.serve(at("10.0.0.1:80"), script);
    let spec = field(post("http://u:p@10.0.0.1/a", "body"), "Cookie", "k=v");
    face.ask(field(spec, "Content-Type", "text/x"));
    assert_eq!(face.run(), "1 200 there");
    let heard = face.net.heard();
    assert_eq!(heard.len(), 1);
    let (first, second) = heard[0].split_once("body").expect("the body was sent once");
    for name in ["Cookie: k=v", "Authorization: Basic dTpw"] {
        assert!(
            first.contains(name) && second.contains(name),
            "{}",
            heard[0]
        );
    }
    assert!(
        first.contains("Content-Type: ") && !second.contains("Content-"),
        "{}",
        heard[0]
    );
}

#[test]
fn a_redirect_to_another_origin_leaves_behind_who_we_are() {
    let mut face = Face::new();
    face.net.serve(
        at("10.0.0.1:80"),
        server(&[("GET /a ", &to("//10.0.0.2:8080/b"))]),
    );
    face.net
        .serve(at("10.0.0.2:8080"), server(&[("GET /b ", &ok("there"))]));
    let mut spec = get("http://u:p@10.0.0.1/a");
    for (name, value) in [
        ("Cookie", "k=v"),
        ("Host", "virtual.test"),
        ("X-Mine", "stays"),
    ] {
        spec = field(spec, name, value);
    }
    let key = face.ask(spec);
    face.run_until_done();
    assert_eq!(face.number(key), 1);
    assert_eq!(face.run(), "1 200 there");
    let heard = face.net.heard();
    assert!(heard[0].contains("Host: virtual.test\r\n"), "{}", heard[0]);
    assert!(
        heard[0].contains("Authorization: Basic dTpw\r\n"),
        "{}",
        heard[0]
    );
    assert!(heard[1].contains("Host: 10.0.0.2:8080\r\n"), "{}", heard[1]);
    assert!(heard[1].contains("X-Mine: stays\r\n"), "{}", heard[1]);
    for name in ["Cookie", "Authorization", "virtual"] {
        assert!(!heard[1].contains(name), "{}", heard[1]);
    }
}

#[test]
fn rfc9110_15_4_8_a_307_sends_the_body_again_if_it_is_at_hand() {
    let words = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: /b\r\n\r\n";
    let script = || server(&[("PUT /a ", words), ("PUT /b ", &ok("there"))]);
    let put = |body| RequestSpec {
        method: b"PUT".to_vec(),
        body,
        ..get("http://10.0.0.1/a")
    };
    let mut face = Face::new();
    face.net.serve(at("10.0.0.1:80"), script());
    face.ask(put(RequestBody::Whole(b"body".to_vec())));
    assert_eq!(face.run(), "1 200 there");
    assert_eq!(face.net.heard()[0].matches("\r\n\r\nbody").count(), 2);
    face.upload(put(RequestBody::Pieces(None)), &["body"]);
    assert_eq!(
        face.run(),
        "2 failed: a redirect (307) asks for the body again, which was given piece by piece"
    );
}

#[test]
fn redirects_that_are_not_wanted_are_answers() {
    let mut face = Face::new();
    face.net
        .serve(at("10.0.0.1:80"), server(&[("GET", &to("/b"))]));
    face.ask(RequestSpec {
        redirects_max: 0,
        ..get("http://10.0.0.1/a")
    });
    assert_eq!(face.run(), "1 302 moved");
}

#[test]
fn a_redirect_with_a_long_body_costs_the_connection_not_the_wait() {
    let mut face = Face::new();
    let long = "x".repeat(200_000);
    let words =
        format!("HTTP/1.1 302 Found\r\nContent-Length: 200000\r\nLocation: /b\r\n\r\n{long}");
    face.net
        .serve(at("10.0.0.1:80"), server(&[("GET /a", &words)]));
    face.ask(get("http://10.0.0.1/a"));
    while face.connects() < 2 {
        // The second connection is for the second request.
        face.net
            .serve_instead(at("10.0.0.1:80"), server(&[("GET /b", &ok("there"))]));
        if face.connects() == 0 {
            face.net
                .serve_instead(at("10.0.0.1:80"), server(&[("GET /a", &words)]));
        }
        face.turn().expect("something happens");
    }
    assert_eq!(face.run(), "1 200 there");
}

#[test]
fn rfc9112_3_2_2_plain_requests_go_to_a_proxy_by_their_whole_url() {
    let proxies = Proxies::all(Proxy::parse("http://me:pw@10.0.0.9:3128", "proxy").expect("good"));
    let config = ClientConfig {
        proxies,
        ..ClientConfig::default()
    };
    let mut face = Face::with(config);
    let script = server(&[
        ("GET http://one.test/x?y ", &ok("1")),
        ("GET http://two.test:81/ ", &ok("2")),
    ]);
    face.net.serve(at("10.0.0.9:3128"), script);
    face.ask(get("http://one.test/x?y#z"));
    face.run_until_done();
    face.ask(get("http://two.test:81"));
    assert_eq!(face.run(), "1 200 1\n2 200 2");
    let heard = face.net.heard();
    assert_eq!(heard.len(), 1, "origins share the connection to a proxy");
    assert!(heard[0].contains("Host: one.test\r\n"), "{}", heard[0]);
    assert_eq!(
        heard[0]
            .matches("Proxy-Authorization: Basic bWU6cHc=\r\n")
            .count(),
        2
    );
    face.net
        .serve(at("10.0.0.3:80"), server(&[("GET / ", &ok("3"))]));
    face.ask(RequestSpec {
        proxy: ProxyChoice::Direct,
        ..get("http://10.0.0.3/")
    });
    assert_eq!(face.run(), "3 200 3");
}

/// The 101 for the key that the simulation's chance makes first.
fn accept(face: &Face) -> Option<String> {
    let heard = face.net.heard();
    let request = heard.last()?;
    let (_, rest) = request.split_once("Sec-WebSocket-Key: ")?;
    let key = rest.split("\r\n").next()?;
    let accept = hukilau_core::ws::handshake::accept_key(key.as_bytes());
    let accept = String::from_utf8(accept.to_vec()).expect("base64");
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n\x01\x02"
    ))
}

#[test]
fn a_websocket_opens_by_way_of_a_tunnel_and_is_the_applications_then() {
    // Chance is the seed's: a first run tells the key.
    let story = |answer: Option<String>| {
        let mut face = Face::new();
        let tunnel = "HTTP/1.0 200 Connection established\r\n\r\n";
        let answer = answer.map(|text| text.trim_end_matches(['\x01', '\x02']).to_owned());
        let mut script = server(&[
            ("CONNECT 10.0.0.1:81 ", tunnel),
            ("GET /feed ", &answer.unwrap_or_default()),
        ]);
        // One text message, and a close frame in answer to ours.
        script.steps.push_back(Step::Send(b"\x81\x02hi".to_vec()));
        script
            .steps
            .push_back(Step::Pause(Duration::from_millis(50)));
        script
            .steps
            .push_back(Step::Send(b"\x88\x02\x03\xe8".to_vec()));
        script.steps.push_back(Step::HalfClose);
        face.net.serve(at("10.0.0.9:3128"), script);
        let proxy = Proxy::parse("10.0.0.9:3128", "proxy").expect("good");
        face.ask(RequestSpec {
            websocket: Some(websocket()),
            proxy: ProxyChoice::Through(proxy),
            ..field(get("ws://10.0.0.1:81/feed"), "Origin", "http://here")
        });
        let told = face.run();
        (accept(&face), told, face.net.heard()[0].clone())
    };
    let (answer, refused, _) = story(None);
    assert!(refused.starts_with("1 failed: "), "{refused}");
    let (_, told, heard) = story(answer);
    assert_eq!(told, "1 open 101\nmessage hi\nclosed: closed");
    assert!(heard.contains("Origin: http://here\r\n"), "{heard}");
}

#[test]
fn a_refused_websocket_shows_what_the_server_said() {
    let mut face = Face::new();
    let words = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nwho is it";
    face.net.serve(at("10.0.0.1:80"), server(&[("GET", words)]));
    let spec = RequestSpec {
        websocket: Some(websocket()),
        ..get("ws://10.0.0.1/")
    };
    let key = face
        .client
        .request(&mut face.reactor, spec)
        .expect("it may be sent");
    let mut refusal = None;
    while refusal.is_none() {
        face.reactor
            .turn(&mut face.inbox, face.client.wake_at())
            .expect("no fault");
        for completion in face.inbox.completions() {
            face.client.offer(&mut face.reactor, &completion);
        }
        refusal = face.client.next_event();
    }
    let Some(ClientEvent::Failed { key: of, error }) = refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!(of, key);
    let hukilau_core::client::ClientError::WebSocketRefused { status, body, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((status, &body[..]), (401, &b"who is it"[..]));
    face.run();
}
