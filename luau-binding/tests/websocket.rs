//! WebSockets as scripts see them, over real sockets.

use crate::support::{Client, Frame, Served};
use std::io::{ErrorKind, Read, Write};

#[test]
fn an_upgrade_is_decided_by_the_script_and_may_take_its_time() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            upgrade = function(r, s)
                assert(s == server)
                task.wait(0.01)
                if r.path == "/no" then return false end
                if r.path == "/nothing" then return nil end
                if r.path == "/why" then return { status = 401, headers = { ["www-authenticate"] = "Token" }, body = "who?" } end
                if r.path == "/chat" then return { protocol = "chat", headers = { ["x-room"] = "1" }, data = { n = 7 } } end
                if r.path == "/wrong" then return { protocol = "other" } end
                if r.path == "/typo" then return { protocl = "chat" } end
                if r.path == "/raise" then error("no") end
                return true
            end,
            open = function(ws) ws:send(`{ws.protocol} {if ws.data then ws.data.n else nil} {ws.ip} {ws.connected}`) end,
        }, error = function() end })"#,
    );
    let offer = "Sec-WebSocket-Protocol: superchat, chat\r\n";
    for (path, status) in [
        ("/no", "403 Forbidden"),
        ("/nothing", "403 Forbidden"),
        ("/why", "401 Unauthorized"),
        ("/wrong", "500 Internal Server Error"),
        ("/typo", "500 Internal Server Error"),
        ("/raise", "500 Internal Server Error"),
    ] {
        let (_, head) = Client::ask(&server, path, offer);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{path}: {head}"
        );
    }
    let (mut client, head) = Client::ask(&server, "/chat", offer);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("\r\nsec-websocket-protocol: chat\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nx-room: 1\r\n"), "{head}");
    client.expect_text("chat 7 127.0.0.1 true");
    Client::open(&server, "/yes", "").expect_text("nil nil 127.0.0.1 true");
    assert_eq!(server.stop(), "");
}

#[test]
fn without_websocket_options_an_upgrade_is_a_request_like_any_other() {
    let server = Served::start(
        "server = net.serve(0, function(r) return { status = 200, body = r.headers.upgrade } end)",
    );
    let (_, head) = Client::ask(&server, "/", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(server.stop(), "");
}

#[test]
fn messages_are_delivered_in_order_one_callback_at_a_time() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            message = function(ws, message)
                ws:send("begin " .. message)
                task.wait(0.005)
                ws:send("end " .. message)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    for n in 0..200 {
        client.text(&n.to_string());
    }
    for n in 0..200 {
        client.expect_text(&format!("begin {n}"));
        client.expect_text(&format!("end {n}"));
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn a_loop_over_a_socket_ends_when_it_closes() {
    let mut server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            open = function(ws)
                task.spawn(function()
                    for message in ws do
                        task.wait(0.001)
                        ws:send(typeof(message) .. " " .. (if type(message) == "string" then message else buffer.tostring(message)))
                    end
                    print("over", ws.closeCode, ws.closeReason, ws.connected, ws:next())
                end)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    for n in 0..100 {
        client.text(&n.to_string());
    }
    client.send(2, b"bin");
    for n in 0..100 {
        client.expect_text(&format!("string {n}"));
    }
    client.expect_text("buffer bin");
    client.send(8, &[&4001_u16.to_be_bytes()[..], b"bye"].concat());
    assert_eq!(client.receive().opcode, 8);
    assert_eq!(server.line(), "over\t4001\tbye\tfalse\tnil");
    assert_eq!(server.stop(), "");
}

#[test]
fn messages_before_the_first_bind_are_kept_in_order() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            open = function(ws)
                task.delay(0.05, function()
                    ws:bindMessage(function(ws, message) ws:send("1 " .. message) end)
                end)
                task.delay(0.1, function()
                    ws:bindMessage(function(ws, message) ws:send("2 " .. message) end)
                    ws:send("rebound")
                end)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    for n in 0..500 {
        client.text(&n.to_string());
    }
    for n in 0..500 {
        client.expect_text(&format!("1 {n}"));
    }
    client.expect_text("rebound");
    client.text("x");
    client.expect_text("2 x");
    assert_eq!(server.stop(), "");
}

#[test]
fn the_close_callback_hears_who_closed_and_why() {
    let mut server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            message = function(ws, message)
                if message == "close" then ws:close(4000, "enough") ws:close() end
                if message == "terminate" then ws:terminate() end
                if message == "bind" then ws:bindClose(function(ws, code) print("bound", code, ws.data) end) end
            end,
            close = function(ws, code, reason) print(code, reason, ws.connected, ws.closeCode, pcall(ws.send, ws, "x")) end,
        } })"#,
    );
    let gone = "false\tstdin:7: ws:send: the WebSocket is closed";
    let mut client = Client::open(&server, "/", "");
    client.text("close");
    assert_eq!(client.receive(), Frame::close(4000, "enough"));
    client.send(8, &Frame::close(4000, "enough").payload);
    assert_eq!(server.line(), format!("4000\tenough\tfalse\t4000\t{gone}"));

    let mut client = Client::open(&server, "/", "");
    client.text("terminate");
    assert_eq!(server.line(), format!("1006\t\tfalse\t1006\t{gone}"));

    drop(Client::open(&server, "/", ""));
    assert_eq!(server.line(), format!("1006\t\tfalse\t1006\t{gone}"));

    let mut client = Client::open(&server, "/", "");
    client.send(1, b"\xff");
    assert_eq!(client.receive().opcode, 8);
    assert_eq!(
        server.line(),
        format!("1007\ttext is not UTF-8\tfalse\t1007\t{gone}")
    );

    let mut client = Client::open(&server, "/", "");
    client.text("bind");
    client.send(8, &[]);
    assert_eq!(client.receive().opcode, 8);
    assert_eq!(server.line(), "bound\t1005\tnil");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_callback_that_fails_disturbs_no_other_message_and_no_other_socket() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            open = function(ws) if ws.data == "bad" then error("not open") end end,
            upgrade = function(r) return { data = r.query.data } end,
            message = function(ws, message)
                if message == "wait" then task.wait(0.01) error("after waiting") end
                if message == "bad" then error("bad message") end
                ws:send(message)
            end,
        } })"#,
    );
    let mut good = Client::open(&server, "/", "");
    let mut bad = Client::open(&server, "/?data=bad", "");
    assert_eq!(bad.receive(), Frame::close(1011, ""));
    for text in ["bad", "wait", "good"] {
        good.text(text);
    }
    good.expect_text("good");
    let stderr = server.stop();
    for report in [
        "in open from 127.0.0.1 port ",
        "stdin:2: not open",
        "in message from 127.0.0.1 port ",
        "stdin:6: bad message",
        "stdin:5: after waiting",
    ] {
        assert!(stderr.contains(report), "{report} in {stderr}");
    }
}

#[test]
fn sending_says_when_the_peer_is_slow_and_drain_when_it_is_not() {
    let mut server = Served::start(
        r#"local sent = 0
        server = net.serve({ port = 0, websocket = {
            message = function(ws)
                while ws:send(string.rep("x", 1000)) do sent += 1 end
                print("slow", ws.bufferedBytes > 0)
            end,
            drain = function(ws)
                ws:close()
                print("drained", ws.bufferedBytes < 65536)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    client.text("go");
    assert_eq!(server.line(), "slow\ttrue");
    let mut frames = 0;
    while client.receive().opcode == 1 {
        frames += 1;
    }
    assert!(frames > 64, "{frames}");
    assert_eq!(server.line(), "drained\ttrue");
    assert_eq!(server.stop(), "");
}

#[test]
fn arguments_of_a_socket_are_checked() {
    let server = Served::start(
        r#"local function try(...) local _, message = pcall(...) return (string.gsub(message, "stdin:%d+: ", "")) end
        server = net.serve({ port = 0, websocket = {
            open = function(ws)
                ws:send(try(ws.send, ws, 5))
                ws:send(try(ws.send, ws, "\255"))
                ws:send(try(ws.close, ws, 5))
                ws:send(try(ws.close, ws, 1006))
                ws:send(try(ws.ping, ws, string.rep("x", 126)))
                ws:send(try(ws.bindMessage, ws, 1))
                ws:send(try(function() ws.date = 1 end))
                ws:send(try(function() ws:sned("x") end))
                ws:send(try(ws.send, nil, "x"))
                ws.data = { ws }
                ws:send(tostring(ws.data[1] == ws))
                ws:send("bin", true)
                ws:send(buffer.fromstring("txt"), false)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    for text in [
        "ws:send: argument #1 must be a string or a buffer, not 5",
        "ws:send: text must be valid UTF-8",
        "ws:close: argument #1 must be a close code from 1000 to 4999, not 5",
        "ws:close: argument #1 must be a close code that may be sent: 1000 to 1003, 1007 to 1014 or 3000 to 4999, not 1006",
        "ws:ping: a ping carries at most 125 bytes",
        "ws:bindMessage: argument #1 must be a function, not 1",
        "WebSocket: only `data` can be assigned; put what belongs to the script there",
        "WebSocket has no member 'sned' (did you mean 'send'?)",
        "WebSocket: argument #1 must be a WebSocket (call methods with a colon), not nil",
        "true",
    ] {
        client.expect_text(text);
    }
    let binary = Frame {
        opcode: 2,
        payload: b"bin".to_vec(),
    };
    assert_eq!(client.receive(), binary);
    client.expect_text("txt");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_stop_says_goodbye_to_sockets() {
    let server = Served::start("server = net.serve({ port = 0, websocket = {} })");
    let mut client = Client::open(&server, "/", "");
    client.text("never read, and nobody minds");
    let stopper = std::thread::spawn(move || server.stop());
    let goodbye = client.receive();
    assert_eq!(
        (goodbye.opcode, &goodbye.payload[..2]),
        (8, &1001_u16.to_be_bytes()[..])
    );
    client.send(8, &goodbye.payload);
    assert_eq!(stopper.join().expect("it stops"), "");
}

#[test]
fn sockets_that_have_closed_are_collected() {
    let server = Served::start(
        r#"local held = setmetatable({}, { __mode = "k" })
        server = net.serve({ port = 0,
            websocket = { open = function(ws)
                -- A cycle through the socket's own slots.
                ws.data = { ws = ws }
                ws:bindMessage(function() ws:send(ws.data) end)
                held[ws] = true
            end },
            request = function()
                for _ = 1, 200 do table.create(10000) end
                local count = 0
                for _ in held do count += 1 end
                return tostring(count)
            end,
        })"#,
    );
    for _ in 0..10 {
        let mut client = Client::open(&server, "/", "");
        client.send(8, &[]);
        assert_eq!(client.receive().opcode, 8);
    }
    let is_empty = (0..200).any(|_| server.get("/").1 == "0");
    assert!(is_empty, "closed sockets are still there");
    assert_eq!(server.stop(), "");
}

#[test]
fn with_concurrent_a_message_does_not_wait_for_the_one_before_but_for_open() {
    let server = Served::start(
        r#"local waiting = {}
        server = net.serve({ port = 0, websocket = { concurrent = true,
            open = function(ws) task.wait(0.02) ws:send("open") end,
            message = function(ws, message)
                ws:send("begin " .. message)
                if message == "all" then
                    for _, thread in waiting do task.spawn(thread) end
                    return
                end
                table.insert(waiting, coroutine.running())
                coroutine.yield()
                ws:send("end " .. message)
            end,
            close = function(ws) print("closed") end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    for text in ["1", "2", "3", "all"] {
        client.text(text);
    }
    for text in [
        "open",
        "begin 1",
        "begin 2",
        "begin 3",
        "begin all",
        "end 1",
        "end 2",
        "end 3",
    ] {
        client.expect_text(text);
    }
    assert_eq!(server.stop(), "");
}

/// Sends messages until the system takes no more and the server, which answers others meanwhile,
/// has not made room for a while. Returns how many left whole, and completes the last.
fn flood(server: &Served, client: &mut Client, most: usize) -> usize {
    const MESSAGE: usize = 1000;
    let mut frame = vec![0x82, 0x80 | 126, 3, 232, 0, 0, 0, 0];
    frame.resize(8 + MESSAGE, b'x');
    client.0.set_nonblocking(true).expect("it is a socket");
    let (mut sent, mut stood) = (0, 0);
    while stood < 20 {
        match client.0.write(&frame[sent % frame.len()..]) {
            Ok(count) => (sent, stood) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(server.get("/").0.contains(" 200 "));
                stood += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < most, "it has taken {sent} bytes and would take more");
    }
    client.0.set_nonblocking(false).expect("it is a socket");
    sent
}

#[test]
fn a_peer_that_floods_a_callback_that_waits_is_held_back_by_tcp() {
    for options in ["", "concurrent = true,"] {
        let server = Served::start(&format!(
            r#"local waiting, count, is_open = {{}}, 0, false
            server = net.serve({{ port = 0,
                request = function(r)
                    if r.path == "/go" then
                        is_open = true
                        for _, thread in waiting do task.defer(thread) end
                    end
                    return tostring(count)
                end,
                websocket = {{ {options}
                    message = function(ws, message)
                        if not is_open then
                            table.insert(waiting, coroutine.running())
                            coroutine.yield()
                        end
                        count += 1
                        if type(message) == "string" then ws:send(tostring(count)) end
                    end,
                }},
            }})"#
        ));
        let mut client = Client::open(&server, "/", "");
        let sent = flood(&server, &mut client, 64 * 1024 * 1024);
        assert_eq!(server.get("/").1, "0");
        assert!(server.get("/go").0.contains(" 200 "));
        // The rest of the frame that was cut short, and one more to be answered behind all.
        let whole = sent.div_ceil(1008);
        let rest = vec![b'x'; whole * 1008 - sent];
        assert!(
            rest.len() <= 1000,
            "it was cut inside the payload or between frames"
        );
        client.0.write_all(&rest).expect("it reads again");
        client.text("last");
        client.expect_text(&(whole + 1).to_string());
        assert_eq!(server.stop(), "");
    }
}

#[test]
fn rfc7692_7_2_messages_are_compressed_for_peers_that_offer_it() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            compression = { threshold = 100, contextTakeover = true, windowBits = 10 },
            message = function(ws, message) ws:send(string.rep(message, 100)) ws:send(message) end,
        } })"#,
    );
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (mut client, head) = Client::ask(&server, "/", offer);
    let head = head.to_lowercase();
    assert!(
        head.contains("\r\nsec-websocket-extensions: permessage-deflate"),
        "{head}"
    );
    assert!(head.contains("server_max_window_bits=10"), "{head}");
    assert!(head.contains("client_max_window_bits=10"), "{head}");
    assert!(!head.contains("no_context_takeover"), "{head}");
    // "Hello" as RFC 7692 §7.2.3.1 compresses it.
    let key = [7, 11, 13, 17];
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let masked = hello.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b);
    let mut frame = vec![0xc1, 0x87, 7, 11, 13, 17];
    frame.extend(masked);
    client.0.write_all(&frame).expect("it reads");
    let mut head = [0; 2];
    client.0.read_exact(&mut head).expect("a frame comes");
    assert_eq!(head[0], 0xc1, "compressed text");
    assert!(head[1] < 100, "{} bytes of 500", head[1]);
    let mut payload = vec![0; usize::from(head[1])];
    client.0.read_exact(&mut payload).expect("a frame comes");
    client.expect_text("Hello");
    // Who offers nothing gets it as it is.
    let mut plain = Client::open(&server, "/", "");
    plain.text("a");
    plain.expect_text(&"a".repeat(100));
    assert_eq!(server.stop(), "");
}

#[test]
fn a_peer_far_behind_is_closed_or_spared_as_the_policy_says() {
    let mut server = Served::start(
        r#"local function options(policy)
            return { backpressure = { limit = 200000, policy = policy },
                open = function(ws)
                    -- More than the system takes for a peer that does not read: true while it takes it.
                    local size = string.rep("x", 100000)
                    local answers = {}
                    for n = 1, 500 do
                        if not ws.connected then break end
                        local ok, answer = pcall(ws.send, ws, size)
                        answers[tostring(ok and answer)] = true
                        if n % 10 == 0 then task.wait() end
                    end
                    print(policy, answers["true"], answers["false"], ws.connected, ws.bufferedBytes < 400000)
                end,
                close = function(ws, code) print(policy, "close", code) end,
            }
        end
        local drop = net.serve({ websocket = options("drop") })
        print(drop.port)
        server = net.serve({ websocket = options("close") })"#,
    );
    let close_port: u16 = server.line().parse().expect("a port");
    let drop_port = std::mem::replace(&mut server.port, close_port);
    let client = Client::open(&server, "/", "");
    assert_eq!(server.line(), "close\ttrue\ttrue\tfalse\ttrue");
    drop(client);
    let line = server.line();
    assert!(line.starts_with("close\tclose\t1"), "{line}");
    server.port = drop_port;
    let client = Client::open(&server, "/", "");
    assert_eq!(server.line(), "drop\ttrue\ttrue\ttrue\ttrue");
    drop(client);
    assert_eq!(server.line(), "drop\tclose\t1006");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_server_takes_no_more_connections_than_its_limit_until_one_leaves() {
    let server = Served::start(
        "server = net.serve({ port = 0, limits = { connections = 2 }, request = function() return 'in' end })",
    );
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answered = |stream: &mut std::net::TcpStream| {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nin") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            answer.push(byte[0]);
        }
    };
    let [mut first, mut second, mut third] = [(); 3].map(|()| server.connect());
    for stream in [&mut first, &mut second] {
        stream.write_all(ask).expect("it reads");
        answered(stream);
    }
    third.write_all(ask).expect("the system takes it");
    for _ in 0..20 {
        second.write_all(ask).expect("it reads");
        answered(&mut second);
        third.set_nonblocking(true).expect("it is a socket");
        let early = third.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::WouldBlock));
        third.set_nonblocking(false).expect("it is a socket");
    }
    drop(first);
    answered(&mut third);
    drop((second, third));
    assert_eq!(server.stop(), "");
}
