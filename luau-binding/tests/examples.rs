//! Each example runs as it stands.

use crate::support::{Client, Frame, Served, huki, split};
use std::io::{Read, Write};
use std::net::Shutdown;

fn example(name: &str) -> Served {
    let path = format!("{}/examples/{name}.luau", env!("CARGO_MANIFEST_DIR"));
    Served::of(huki(&["run", &path, "0"]))
}

#[test]
fn chat_serves_its_page_and_its_room() {
    let server = example("chat");
    let (status, page) = server.get("/");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert_eq!(server.get("/favicon.ico").0, "HTTP/1.1 404 Not Found");

    let mut ann = Client::open(&server, "/?name=Ann%20Lee", "");
    ann.expect_text(r#"{"text":"Ann Lee has joined"}"#);
    let mut bob = Client::open(&server, "/?name=Bob", "");
    ann.expect_text(r#"{"text":"Bob has joined"}"#);
    bob.expect_text(r#"{"text":"Bob has joined"}"#);
    bob.text("hi <b>");
    for client in [&mut ann, &mut bob] {
        let frame = client.receive();
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        assert!(text.contains(r#""from":"Bob""#), "{text}");
        assert!(text.contains(r#""text":"hi <b>""#), "{text}");
    }
    drop(bob);
    ann.expect_text(r#"{"text":"Bob has left"}"#);
    assert_eq!(server.stop(), "");
}

#[test]
fn rooms_are_topics_with_members_that_come_and_go() {
    let server = example("rooms");
    let (_, head) = Client::ask(&server, "/red", "");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(server.get("/a/b").0, "HTTP/1.1 404 Not Found");
    let mut ann = Client::open(&server, "/red?name=Ann", "");
    expect_json(&mut ann, &["\"joined\":\"Ann\"", "\"members\":1"]);
    let mut bob = Client::open(&server, "/red?name=Bob", "");
    for client in [&mut ann, &mut bob] {
        expect_json(client, &["\"joined\":\"Bob\"", "\"members\":2"]);
    }
    bob.text("{\"state\":[3,4]}");
    bob.text("{\"say\":\"hi\"}");
    expect_json(&mut ann, &["\"state\":[3,4]"]);
    for client in [&mut ann, &mut bob] {
        expect_json(client, &["\"say\":\"hi\"", "\"from\":\"Bob\""]);
    }
    bob.text("{\"join\":\"blue\"}");
    expect_json(&mut ann, &["\"left\":\"Bob\"", "\"members\":1"]);
    expect_json(&mut bob, &["\"joined\":\"Bob\"", "\"members\":1"]);
    assert!(server.get("/blue").1.contains("\"members\":1"));
    ann.text("no JSON");
    assert_eq!(ann.receive(), Frame::close(1007, "JSON, please"));
    ann.send(8, &[]);
    drop((ann, bob));
    assert_eq!(server.stop(), "");
}

#[test]
fn the_arena_tells_each_tick_where_its_players_are() {
    let server = example("arena");
    assert!(server.get("/").1.contains("<canvas"));
    let (_, head) = Client::ask(&server, "/elsewhere", "");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let mut ann = Client::open(&server, "/play", "");
    expect_json(&mut ann, &["\"id\":1"]);
    let mut bob = Client::open(&server, "/play", "");
    expect_json(&mut bob, &["\"id\":2"]);
    // Ann goes right until she stands at the wall, where Bob sees her.
    ann.send(2, &[2]);
    let mut last = 0;
    loop {
        let frame = bob.receive();
        assert_eq!(frame.opcode, 2);
        let word = |at: usize| u32::from_le_bytes(frame.payload[at..at + 4].try_into().expect("4"));
        assert!(word(0) > last, "ticks go on");
        last = word(0);
        assert_eq!(frame.payload.len(), 8 + 2 * 10, "two players");
        let coin = word(4);
        assert!((20..=620).contains(&(coin & 0xffff)), "{coin:x}");
        let right = |at: usize| word(at) == 1 && word(at + 4) & 0xffff == 626;
        if right(8) || right(18) {
            break;
        }
        // She reads, too: the present is all she needs.
        ann.receive();
    }
    drop((ann, bob));
    assert_eq!(server.stop(), "");
}

#[test]
fn bots_play_in_the_arena_and_say_what_they_see() {
    let server = example("arena");
    let path = format!("{}/examples/bots.luau", env!("CARGO_MANIFEST_DIR"));
    let url = format!("ws://127.0.0.1:{}/play", server.port);
    let bots = huki(&["run", &path, &url, "10", "2"]);
    let output = bots.wait_with_output().expect("it ran");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(told.starts_with("10 bots play, "), "{told}");
    assert!(!told.contains(" 0.0 snapshots"), "{told}");
    assert_eq!(server.stop(), "");
}

#[track_caller]
fn expect_json(client: &mut Client, parts: &[&str]) {
    let text = String::from_utf8(client.receive().payload).expect("UTF-8");
    for part in parts {
        assert!(text.contains(part), "{text} has no {part}");
    }
}

#[test]
fn echo_sends_back_text_as_text_and_binary_as_binary() {
    let server = example("echo");
    let mut client = Client::open(&server, "/", "");
    for (opcode, payload) in [(1, &b"text"[..]), (2, &[0, 255, 128]), (1, b"")] {
        client.send(opcode, payload);
        let frame = client.receive();
        assert_eq!((frame.opcode, frame.payload.as_slice()), (opcode, payload));
    }
    assert_eq!(server.get("/").0, "HTTP/1.1 426 Upgrade Required");
    assert_eq!(server.stop(), "");
}

#[test]
fn rest_creates_reads_changes_and_deletes() {
    let server = example("rest");
    let send = |method: &str, path: &str, body: &str| {
        let len = body.len();
        split(&server.exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
        )))
    };
    let (status, _) = send("POST", "/tasks", r#"{"title":"sleep"}"#);
    assert_eq!(status, "HTTP/1.1 201 Created");
    for wrong in ["", "{", "[]", r#"{"title":3}"#, "null"] {
        assert_eq!(
            send("POST", "/tasks", wrong).0,
            "HTTP/1.1 400 Bad Request",
            "{wrong}"
        );
    }
    let (status, body) = send("PUT", "/tasks/1", r#"{"done":true}"#);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains(r#""done":true"#), "{body}");
    let (_, body) = server.get("/tasks");
    assert!(
        body.starts_with('[') && body.contains(r#""title":"sleep""#),
        "{body}"
    );
    assert_eq!(
        send("PATCH", "/tasks", "").0,
        "HTTP/1.1 405 Method Not Allowed"
    );
    assert_eq!(send("DELETE", "/tasks/1", "").0, "HTTP/1.1 204 No Content");
    assert_eq!(server.get("/tasks/1").0, "HTTP/1.1 404 Not Found");
    assert_eq!(server.get("/tasks").1, "[]");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_proxy_passes_requests_on_and_says_when_it_cannot() {
    let server = example("proxy");
    let (status, body) = server.get("/a?b=1");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, "GET /a?b=1 by way of 1.1 huki, for 127.0.0.1\n");
    let answer = server.exchange("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("\r\nContent-Length: 41\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(server.stop(), "");

    let path = format!("{}/examples/proxy.luau", env!("CARGO_MANIFEST_DIR"));
    let server = Served::of(huki(&["run", &path, "0", "http://127.0.0.1:1"]));
    assert_eq!(server.get("/").0, "HTTP/1.1 502 Bad Gateway");
    let told = server.stop();
    assert!(told.contains("connection refused"), "{told}");
}

#[test]
fn forward_carries_both_directions_and_both_ends() {
    let far = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = far.local_addr().expect("bound").port().to_string();
    let path = format!("{}/examples/forward.luau", env!("CARGO_MANIFEST_DIR"));
    let forward = Served::of(huki(&["run", &path, "0", "127.0.0.1", &port]));
    let mut near = forward.connect();
    near.write_all(b"question").expect("it reads");
    near.shutdown(Shutdown::Write).expect("it is open");
    let (mut asked, _) = far.accept().expect("it connects");
    let mut question = String::new();
    asked.read_to_string(&mut question).expect("it ends");
    assert_eq!(question, "question");
    // Far more than is buffered anywhere.
    let answer = "answer ".repeat(1_000_000);
    let sent = answer.clone();
    let sender = std::thread::spawn(move || {
        asked.write_all(sent.as_bytes()).expect("it reads");
    });
    let mut heard = String::new();
    near.read_to_string(&mut heard).expect("it ends");
    assert!(heard == answer);
    sender.join().expect("it has sent");
}
