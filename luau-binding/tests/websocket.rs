//! WebSockets as scripts see them, over real sockets.

use crate::support::{Client, Frame, Served};

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
        "ws:send: argument #2 must be a string or a buffer, not 5",
        "ws:send: text must be valid UTF-8",
        "ws:close: argument #2 must be a close code, not 5",
        "ws:close: the close code or reason may not be sent",
        "ws:ping: a ping carries at most 125 bytes",
        "ws:bindMessage: argument #2 must be a function, not 1",
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
