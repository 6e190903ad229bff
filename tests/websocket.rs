//! WebSocket against a real script: once with tungstenite, a client of other hands, and once with
//! frames made by hand, which may break any rule.

use crate::harness::{Huki, PATIENCE, Wire, show};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Bytes, Message, WebSocket};

/// Sends back what it gets. Each message that names a deed makes the server do it.
const ECHO: &str = r#"
local server = net.serve({
    port = 0,
    request = function(request) return "plain" end,
    websocket = {
        upgrade = function(request)
            if request.path == "/refuse" then return false end
            if request.path == "/later" then task.wait(0.05) end
            if request.path == "/chat" then return { protocol = "chat", headers = { ["X-Room"] = "1" } } end
            return true
        end,
        open = function(ws) if ws.protocol == "chat" then ws:send("welcome") end end,
        message = function(ws, message)
            if message == "close" then ws:close(3001, "as asked")
            elseif message == "raise" then error("on purpose")
            elseif message == "slow" then task.wait(0.05) ws:send("slow")
            elseif message == "kind" then ws:send(buffer.fromstring("binary"))
            elseif message == "not text" then
                local ok, why = pcall(function() ws:send("\255") end)
                ws:send(`{ok} {why}`)
            else ws:send(message) end
        end,
        close = function(ws, code, reason) print(`closed {code} {reason}`) end,
        maxMessageBytes = 65536,
    },
})
print(`port {server.port}`)
"#;

type Client = WebSocket<TcpStream>;

#[track_caller]
fn open(huki: &Huki, path: &str) -> Client {
    let wire = huki.connect();
    let url = format!("ws://127.0.0.1:{}{path}", huki.port);
    let (client, _) = tungstenite::client(url, wire.stream).expect("the handshake succeeds");
    client
}

#[track_caller]
fn read(client: &mut Client) -> Message {
    client.read().expect("a message arrives")
}

#[track_caller]
fn send(client: &mut Client, message: Message) {
    client.send(message).expect("the server reads");
}

/// Reads up to the server's close frame.
#[track_caller]
fn close_code(client: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(frame) = read(client) {
            // tungstenite has its answer ready and sends it with the next flush. The server closes
            // first, so that may fail.
            let _ = client.flush();
            let frame = frame.expect("the close frame has a code");
            return (frame.code.into(), frame.reason.as_str().to_owned());
        }
    }
}

#[test]
fn text_and_binary_come_back_as_they_went() {
    let huki = Huki::serve(ECHO);
    let mut client = open(&huki, "/");
    for length in [0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536] {
        let text = Message::text("é".repeat(length / 2));
        send(&mut client, text.clone());
        assert_eq!(read(&mut client), text, "text of {length}");
        let binary = Message::binary(vec![0xfe; length]);
        send(&mut client, binary.clone());
        assert_eq!(read(&mut client), binary, "binary of {length}");
    }
    send(&mut client, Message::text("kind"));
    assert_eq!(read(&mut client), Message::binary(&b"binary"[..]));
}

#[test]
fn fragments_are_joined_and_control_frames_may_stand_between() {
    let huki = Huki::serve(ECHO);
    let mut client = open(&huki, "/");
    let piece = |bytes: &'static [u8], opcode, fin| {
        Message::Frame(Frame::message(
            Bytes::from_static(bytes),
            OpCode::Data(opcode),
            fin,
        ))
    };
    // The cut goes through a character of two bytes.
    send(&mut client, piece(b"caf\xc3", Data::Text, false));
    send(&mut client, Message::Ping(Bytes::from_static(b"now")));
    assert_eq!(read(&mut client), Message::Pong(Bytes::from_static(b"now")));
    send(&mut client, piece(b"", Data::Continue, false));
    send(&mut client, piece(b"\xa9", Data::Continue, true));
    assert_eq!(read(&mut client), Message::text("café"));
}

#[test]
fn messages_are_answered_in_order_though_a_handler_yields() {
    let huki = Huki::serve(ECHO);
    let mut client = open(&huki, "/later");
    for message in ["1", "slow", "2", "slow", "3"] {
        send(&mut client, Message::text(message));
    }
    for message in ["1", "slow", "2", "slow", "3"] {
        assert_eq!(read(&mut client), Message::text(message));
    }
}

#[test]
fn rfc6455_7_the_closing_handshake_carries_code_and_reason_both_ways() {
    let mut huki = Huki::serve(ECHO);
    let mut client = open(&huki, "/");
    send(&mut client, Message::text("close"));
    assert_eq!(close_code(&mut client), (3001, "as asked".to_owned()));
    huki.expect_stdout("closed 3001");

    let mut client = open(&huki, "/");
    let reason = CloseFrame {
        code: CloseCode::Library(4321),
        reason: "enough".into(),
    };
    client.close(Some(reason)).expect("the server reads");
    assert_eq!(close_code(&mut client).0, 4321);
    huki.expect_stdout("closed 4321 enough");
}

#[test]
fn an_end_without_a_close_frame_is_1006_for_the_script() {
    let mut huki = Huki::serve(ECHO);
    drop(open(&huki, "/"));
    huki.expect_stdout("closed 1006");
}

#[test]
fn a_callback_that_raises_is_reported_and_the_room_goes_on() {
    let mut huki = Huki::serve(ECHO);
    let mut neighbour = open(&huki, "/");
    let mut client = open(&huki, "/");
    send(&mut client, Message::text("raise"));
    let line = huki.expect_stderr("on purpose");
    assert!(line.contains("main.luau:"), "says where: {line}");
    send(&mut neighbour, Message::text("still here"));
    assert_eq!(read(&mut neighbour), Message::text("still here"));
    send(&mut client, Message::text("not text"));
    let answer = read(&mut client).into_text().expect("text");
    assert!(
        answer.starts_with("false ") && answer.contains("UTF-8"),
        "{answer}"
    );
}

#[test]
fn a_protocol_and_fields_chosen_by_the_script_are_in_the_handshake() {
    let huki = Huki::serve(ECHO);
    let mut request = tungstenite::http::Request::builder()
        .uri(format!("ws://127.0.0.1:{}/chat", huki.port))
        .header("Host", "test")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "WebSocket")
        .header("Sec-WebSocket-Version", "13")
        .header(
            "Sec-WebSocket-Key",
            tungstenite::handshake::client::generate_key(),
        );
    request = request.header("Sec-WebSocket-Protocol", "soap, chat");
    let request = request.body(()).expect("a request");
    let wire = huki.connect();
    let (mut client, response) = tungstenite::client(request, wire.stream).expect("accepted");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "chat");
    assert_eq!(response.headers()["X-Room"], "1");
    assert_eq!(read(&mut client), Message::text("welcome"));
}

/// A handshake with one line replaced.
fn handshake(from: &str, to: &str) -> String {
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .replace(from, to)
}

#[track_caller]
fn raw(huki: &Huki) -> Wire {
    let mut wire = huki.connect();
    wire.send(handshake("", ""));
    let reply = wire.reply();
    assert_eq!(reply.status, 101);
    assert_eq!(
        reply.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    wire
}

#[test]
fn rfc6455_4_2_handshakes_that_are_wrong_are_refused_in_http() {
    let huki = Huki::serve(ECHO);
    let refused = [
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
        ("GET / ", "GET /refuse ", 403),
    ];
    for (from, to, status) in refused {
        let mut wire = huki.connect();
        wire.send(handshake(from, to));
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{from:?} as {to:?}");
        if status == 426 {
            assert_eq!(reply.field("sec-websocket-version"), Some("13"));
        }
    }
    // Without the wish to upgrade it is a request like any other.
    let mut wire = huki.connect();
    wire.send(handshake("Connection: Upgrade", "Connection: keep-alive"));
    assert_eq!(wire.reply().text(), "plain");
}

/// A frame with the mask of a client, all zero, so that the payload is legible.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | u8::try_from(short).expect("below 126")],
        long => {
            let long = u16::try_from(long).expect("test payloads are short");
            [&[0x80 | 126], &long.to_be_bytes()[..]].concat()
        }
    };
    [&[first], &length[..], &[0; 4], payload].concat()
}

/// Reads the server's close frame off `wire` and the end after it.
#[track_caller]
fn closing(wire: &mut Wire, name: &str) -> u16 {
    let header = wire.exactly(2);
    assert_eq!(header[0], 0x88, "{name}: a close frame");
    let payload = wire.exactly(usize::from(header[1]));
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    code.unwrap_or_else(|| panic!("{name}: no code in {}", show(&payload)))
}

fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let text = 0x81;
    vec![
        ("reserved bit", frame(0xc1, b"a"), 1002),
        ("reserved opcode", frame(0x83, b"a"), 1002),
        ("reserved control opcode", frame(0x8b, b""), 1002),
        ("no mask", vec![text, 1, b'a'], 1002),
        ("fragmented ping", frame(0x09, b""), 1002),
        ("long ping", frame(0x89, &[b'x'; 126]), 1002),
        (
            "length not minimal",
            [&[text, 0xfe, 0, 5, 0, 0, 0, 0][..], b"hello"].concat(),
            1002,
        ),
        ("continuation of nothing", frame(0x80, b"a"), 1002),
        (
            "text inside a message",
            [frame(0x01, b"a"), frame(text, b"b")].concat(),
            1002,
        ),
        ("close of one byte", frame(0x88, b"\x03"), 1002),
        (
            "close code 1005",
            frame(0x88, &1005_u16.to_be_bytes()),
            1002,
        ),
        ("close reason not UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
        ("text not UTF-8", frame(text, b"a\xff"), 1007),
        ("surrogate", frame(text, b"\xed\xa0\x80"), 1007),
        (
            "text that ends inside a character",
            frame(text, b"\xc3"),
            1007,
        ),
        (
            "bad text in an unfinished message",
            frame(0x01, b"\xff"),
            1007,
        ),
        (
            "too large, by its header",
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0],
            1009,
        ),
        (
            "too large, by its fragments",
            [frame(0x02, &[b'x'; 40_000]), frame(0x80, &[b'x'; 40_000])].concat(),
            1009,
        ),
    ]
}

#[test]
fn every_broken_rule_closes_with_its_code() {
    let huki = Huki::serve(ECHO);
    let mut neighbour = open(&huki, "/");
    for (name, bytes, code) in violations() {
        let mut wire = raw(&huki);
        wire.send(&bytes);
        assert_eq!(closing(&mut wire, name), code, "{name}");
        wire.half_close();
        wire.expect_end();
        send(&mut neighbour, Message::text(name));
        assert_eq!(read(&mut neighbour), Message::text(name));
    }
}

#[test]
fn every_broken_rule_is_found_byte_by_byte_too() {
    let huki = Huki::serve(ECHO);
    for (name, bytes, code) in violations()
        .into_iter()
        .filter(|(_, bytes, _)| bytes.len() < 200)
    {
        let mut wire = raw(&huki);
        for byte in bytes {
            if !wire.try_send([byte]) {
                break;
            }
        }
        assert_eq!(closing(&mut wire, name), code, "{name}");
    }
}

#[test]
fn a_handshake_or_a_message_cut_at_any_point_ends_that_connection_only() {
    let huki = Huki::serve(ECHO);
    let mut steady = open(&huki, "/");
    let whole = [
        handshake("", "").into_bytes(),
        frame(0x81, b"hello"),
        frame(0x88, b""),
    ]
    .concat();
    for cut in 0..whole.len() {
        let mut wire = huki.connect();
        wire.send(&whole[..cut]);
        if cut % 2 == 0 {
            wire.half_close();
            wire.ends();
        } else {
            wire.reset();
        }
        send(&mut steady, Message::text("steady"));
        assert_eq!(read(&mut steady), Message::text("steady"), "cut at {cut}");
    }
}

#[test]
fn frames_behind_the_handshake_in_the_same_segment_are_not_lost() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send([handshake("", "").into_bytes(), frame(0x81, b"early")].concat());
    assert_eq!(wire.reply().status, 101);
    assert_eq!(wire.exactly(7), b"\x81\x05early");
}

#[test]
fn a_script_may_read_with_next_or_bind_and_loses_nothing() {
    let huki = Huki::serve(
        r#"
        local server = net.serve({
            port = 0,
            request = function() return "plain" end,
            websocket = {
                open = function(ws)
                    if ws.protocol == "bind" then error("not asked for") end
                    task.spawn(function()
                        local first = ws:next()
                        task.wait(0.05)
                        if first == "bind" then
                            ws:bindMessage(function(ws, message) ws:send(`bound {message}`) end)
                            return
                        end
                        local count = 0
                        for message in ws do
                            count += 1
                            ws:send(`{count} {message}`)
                            task.wait(0.01)
                        end
                    end)
                end,
            },
        })
        print(`port {server.port}`)
        "#,
    );
    for (mode, answer) in [("next", "1 a 2 b 3 c"), ("bind", "bound a bound b bound c")] {
        let mut client = open(&huki, "/");
        for message in [mode, "a", "b", "c"] {
            send(&mut client, Message::text(message));
        }
        let got: Vec<String> = (0..3)
            .map(|_| {
                read(&mut client)
                    .into_text()
                    .expect("text")
                    .as_str()
                    .to_owned()
            })
            .collect();
        assert_eq!(got.join(" "), answer, "{mode}");
    }
}

#[test]
fn a_drained_server_says_1001_and_ends_with_status_0() {
    let huki = Huki::serve(ECHO);
    let mut client = open(&huki, "/");
    send(&mut client, Message::text("hello"));
    assert_eq!(read(&mut client), Message::text("hello"));
    huki.signal(rustix::process::Signal::TERM);
    assert_eq!(close_code(&mut client).0, 1001);
    client
        .get_ref()
        .set_read_timeout(Some(PATIENCE))
        .expect("a valid timeout");
    assert!(client.read().is_err());
    let finished = huki.finish();
    assert!(finished.status.success(), "{}", finished.stderr);
}

#[test]
fn peers_that_vanish_during_a_broadcast_cost_the_others_nothing() {
    const ROOM: &str = r#"
local members = {}
local server = net.serve({
    port = 0,
    request = function() return "plain" end,
    error = function(message) print("raised " .. message) end,
    websocket = {
        open = function(ws) members[ws] = true ws:send("joined") end,
        message = function(ws, message)
            for member in members do
                if member.connected then member:send(message) end
            end
        end,
        close = function(ws) members[ws] = nil end,
    },
})
print(`port {server.port}`)
"#;
    let huki = Huki::serve(ROOM);
    let mut speaker = open(&huki, "/");
    assert_eq!(read(&mut speaker), Message::text("joined"));
    for round in 0..40 {
        let others: Vec<_> = (0..8)
            .map(|_| {
                let mut other = open(&huki, "/");
                assert_eq!(read(&mut other), Message::text("joined"));
                other
            })
            .collect();
        for (number, other) in others.into_iter().enumerate() {
            // Some leave with a reset, some with a bare end, some break a rule; none with a word.
            let stream = other.get_ref();
            match number % 3 {
                0 => {
                    let linger = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                    linger.expect("a socket that lingers for no time");
                }
                1 => {}
                _ => {
                    let _ = (&mut &*stream).write_all(b"\xff\xff");
                }
            }
            drop(other);
            send(&mut speaker, Message::text(format!("{round}.{number}")));
        }
        for number in 0..8 {
            assert_eq!(
                read(&mut speaker),
                Message::text(format!("{round}.{number}"))
            );
        }
    }
    drop(speaker);
    huki.signal(rustix::process::Signal::TERM);
    let finished = huki.finish();
    assert!(!finished.stdout.contains("raised"), "{}", finished.stdout);
}

/// The largest message that is promised, both ways, in one frame and in a thousand.
#[test]
fn a_message_of_64_mib_comes_back_whole() {
    const LENGTH: usize = 64 << 20;
    let huki = Huki::serve(
        r#"
        local server = net.serve({
            limits = { unsentBytes = 160 * 1024 * 1024 },
            websocket = {
                message = function(ws, message) ws:send(message) end,
                maxMessageBytes = 64 * 1024 * 1024,
            },
        })
        print(`port {server.port}`)
        "#,
    );
    let mut client = open(&huki, "/");
    client.set_config(|config| {
        config.max_message_size = Some(LENGTH);
        config.max_frame_size = Some(LENGTH);
    });
    let bytes: Vec<u8> = (0..LENGTH)
        .map(|at| u8::try_from(at % 251).unwrap_or(0))
        .collect();
    let bytes = Bytes::from(bytes);
    let echo = |client: &mut Client| {
        let Message::Binary(back) = read(client) else {
            panic!("no binary message");
        };
        assert!(back == bytes, "{} bytes, and not the same", back.len());
    };
    send(&mut client, Message::Binary(bytes.clone()));
    echo(&mut client);

    let pieces = LENGTH >> 16;
    for number in 0..pieces {
        let piece = bytes.slice(number << 16..(number + 1) << 16);
        let kind = if number == 0 {
            Data::Binary
        } else {
            Data::Continue
        };
        let frame = Frame::message(piece, OpCode::Data(kind), number + 1 == pieces);
        send(&mut client, Message::Frame(frame));
    }
    echo(&mut client);

    // The head of a frame says enough: a masked binary one, a byte too long.
    let mut head = vec![0x82, 0xff];
    head.extend((LENGTH as u64 + 1).to_be_bytes());
    head.extend([0; 4]);
    client.get_mut().write_all(&head).expect("the server reads");
    assert_eq!(close_code(&mut client).0, 1009);
}
