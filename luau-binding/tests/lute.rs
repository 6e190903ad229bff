//! Lute's server seen from the wire. Its programs are in `tests/luau/lute`.

use crate::stub;
use crate::support::{Client, Frame, Served, run};
use std::io::{Read, Write};

/// A script that serves with `configuration`, after `before`.
fn serve(before: &str, configuration: &str) -> Served {
    Served::start(&format!(
        "{before} local server = require('@lute/net/server').serve({configuration})"
    ))
}

#[test]
fn row_053_a_plain_string_is_html() {
    let server = serve(
        "",
        "{ port = 0, handler = function() return '<p>a\\0b' end }",
    );
    let answer = server.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nContent-Type: text/html\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n<p>a\0b"), "{answer}");
    assert_eq!(server.stop(), "");
}

#[test]
fn answers_have_the_status_fields_and_body_of_the_table() {
    let server = serve(
        "",
        "{ port = 0, handler = function(request)
            if request.path == '/nothing' then return nil end
            if request.path == '/number' then return 42 end
            if request.path == '/empty' then return {} end
            return { status = 201, body = 'b', headers = {
                ['X-Case'] = 'kept', ['X-Number'] = 7, [1] = 'no', ['X-Table'] = {},
                ['CONTENT-LENGTH'] = '999', Connection = 'x' } }
        end }",
    );
    let table = server.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(table.starts_with("HTTP/1.1 201 Created\r\n"), "{table}");
    for field in ["X-Case: kept", "X-Number: 7", "Content-Length: 1"] {
        assert!(table.contains(&format!("\r\n{field}\r\n")), "{table}");
    }
    for field in ["999", "X-Table", "no", "Content-Type"] {
        assert!(!table.contains(field), "{field}: {table}");
    }
    assert!(table.ends_with("\r\n\r\nb"), "{table}");
    let (status, body) = server.get("/number");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "42"));
    let (status, body) = server.get("/empty");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
    let (status, body) = server.get("/nothing");
    assert_eq!(status, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(body, "Handler must return a string or a response table");
    assert_eq!(server.stop(), "");
}

#[test]
fn row_066_a_handler_that_raises_is_500_with_the_errors_text() {
    let server = serve(
        "local function deep() error('boom') end",
        "{ port = 0, handler = function(request)
            task.wait(0)
            if request.path == '/table' then error({}) end
            deep()
        end }",
    );
    let (status, body) = server.get("/");
    assert_eq!(status, "HTTP/1.1 500 Internal Server Error");
    assert_eq!(body, "Server error: stdin:1: boom");
    assert_eq!(server.get("/table").1, "Server error: Server error");
    let stderr = server.stop();
    assert!(
        stderr
            .starts_with("error in the handler of GET /: stdin:1: boom\n  stdin:1 function deep\n"),
        "{stderr}"
    );
    assert!(!stderr.contains("[huki"), "{stderr}");
}

#[test]
fn rows_048_and_049_a_request_has_method_path_query_headers_and_body() {
    let server = serve(
        "",
        "{ port = 0, handler = function(request)
            local parts = { request.method, request.path, request.body }
            for _, name in { 'a', '%62', 'b', 'c', 'd', 'e' } do
                table.insert(parts, request.query[name] or '-')
            end
            table.insert(parts, request.headers['x-twice'])
            table.insert(parts, tostring(request.headers['X-Twice']))
            return table.concat(parts, '|')
        end }",
    );
    let answer = server.exchange(
        "POST /p%20q?a=x%41+y&a=2&%62=1&c&d= HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let expected = "\r\n\r\nPOST|/p%20q|abcde|xA y|1|-|-||-|2|nil";
    assert!(answer.ends_with(expected), "{answer}");
    assert_eq!(server.stop(), "");
}

#[test]
fn rows_046_058_and_047_handlers_may_wait_and_answers_keep_their_order() {
    let server = serve(
        "local same local known",
        "{ port = 0, handler = function(request, server)
            if known == nil then known = server end
            assert(known == server and server.hostname == '127.0.0.1' and server.port > 0)
            if request.path == '/slow' then task.wait(0.02) end
            return request.path
        end }",
    );
    let answer = server
        .exchange("GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /fast HTTP/1.1\r\nHost: x\r\n\r\n");
    let slow = answer.find("\r\n\r\n/slow").expect("answered");
    let fast = answer.find("\r\n\r\n/fast").expect("answered");
    assert!(slow < fast, "{answer}");
    assert_eq!(server.stop(), "");
}

const SOCKETS: &str = "
    local log = {}
    local function note(...) print(...) end
    local websocket = {
        open = function(ws) note('open', typeof(ws)) ws:send('welcome') end,
        message = function(ws, message)
            if message == 'number' then return ws:send(17) end
            if message == 'close' then
                ws:close(4001, 'enough')
                note('sent', ws:send('late'))
                return ws:close()
            end
            if message == 'wrong' then
                local ok, why = pcall(ws.send, ws, {})
                note(ok, string.find(why, 'string or buffer', 1, true) ~= nil)
                note(pcall(ws.close, ws, 70000))
                return
            end
            note(type(message), ws:send(message))
        end,
        close = function(ws, code, message) note('close', code, message) end,
    }";

#[test]
fn rows_074_to_084_a_handler_upgrades_and_sockets_speak() {
    let mut server = serve(
        SOCKETS,
        "{ port = 0, websocket = websocket, handler = function(request, server)
            if request.path == '/no' then return { status = 401, body = 'no' } end
            if request.path == '/plain' then return tostring(server:upgrade(request)) end
            if request.path == '/copy' then return tostring(server:upgrade(table.clone(request))) end
            assert(request.body == '' and request.headers.upgrade == 'websocket')
            if request.path == '/later' then task.wait(0.01) end
            note(server:upgrade(request), server:upgrade(request))
            if request.path == '/long' then task.wait(1e6) end
        end }",
    );
    assert_eq!(server.get("/plain").1, "false");
    let (_, head) = Client::ask(&server, "/no", "");
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let (_, head) = Client::ask(&server, "/copy", "");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");

    for target in ["/", "/later", "/long"] {
        let protocols = "Sec-WebSocket-Protocol: first, second\r\n";
        let (mut client, head) = Client::ask(&server, target, protocols);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains("\r\nsec-websocket-protocol: first\r\n"),
            "{head}"
        );
        assert!(!head.contains("permessage-deflate"), "{head}");
        assert_eq!(server.line(), "true\tfalse");
        assert_eq!(server.line(), "open\tServerWebSocketHandle");
        client.expect_text("welcome");
        client.text("hello");
        client.expect_text("hello");
        assert_eq!(server.line(), "string\t5");
        client.text("");
        client.expect_text("");
        assert_eq!(server.line(), "string\t1");
        client.send(2, b"\0\xff");
        assert_eq!(
            client.receive(),
            Frame {
                opcode: 2,
                payload: b"\0\xff".to_vec()
            }
        );
        assert_eq!(server.line(), "buffer\t2");
        client.text("number");
        client.expect_text("17");
        client.text("wrong");
        assert_eq!(server.line(), "false\ttrue");
        assert_eq!(
            server.line(),
            "false\tstdin:16: invalid websocket close code 70000"
        );
        client.text("close");
        assert_eq!(client.receive(), Frame::close(4001, "enough"));
        assert_eq!(server.line(), "sent\t0");
        assert_eq!(server.line(), "close\t4001\tenough");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn rows_081_and_082_close_handlers_hear_how_it_ended() {
    let mut server = serve(SOCKETS, "{ port = 0, websocket = websocket }");
    let (status, _) = server.get("/");
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    for (payload, told) in [
        (&b"\x0f\xa0why"[..], "close\t4000\twhy"),
        (b"", "close\t1005"),
        // A code that no frame may carry: a payload that is invalid.
        (b"\x03\xed", "close\t1006"),
        (b"\x03", "close\t1006"),
    ] {
        let mut client = Client::open(&server, "/", "");
        client.expect_text("welcome");
        assert_eq!(server.line(), "open\tServerWebSocketHandle");
        client.send(8, payload);
        assert_eq!(server.line(), told);
    }
    let mut client = Client::open(&server, "/", "");
    client.expect_text("welcome");
    assert_eq!(server.line(), "open\tServerWebSocketHandle");
    drop(client);
    assert_eq!(server.line(), "close\t1006");
    assert_eq!(server.stop(), "");
}

#[test]
fn rows_079_and_080_send_tells_of_backpressure_and_drain_follows() {
    let mut server = serve(
        "local piece = string.rep('x', 16 * 1024)
        local websocket = {
            message = function(ws)
                local counts = { taken = 0, waiting = 0, dropped = 0 }
                for _ = 1, 1000 do
                    local result = ws:send(piece)
                    local name = if result == #piece then 'taken' elseif result == -1 then 'waiting' else 'dropped'
                    counts[name] += 1
                    assert(name ~= 'dropped' or result == 0)
                end
                print(counts.taken > 0, counts.waiting > 0, counts.dropped > 0)
                print(counts.taken + counts.waiting)
            end,
            drain = function(ws) print('drained', ws:send('more')) end,
        }",
        "{ port = 0, websocket = websocket }",
    );
    let mut client = Client::open(&server, "/", "");
    client.text("go");
    assert_eq!(server.line(), "true\ttrue\ttrue");
    let sent: usize = server.line().parse().expect("a number");
    let mut head = [0; 4];
    let mut payload = vec![0; 16 * 1024];
    for _ in 0..sent {
        client.0.read_exact(&mut head).expect("a frame comes");
        assert_eq!(head, [0x81, 126, 0x40, 0]);
        client.0.read_exact(&mut payload).expect("a frame comes");
    }
    client.expect_text("more");
    assert_eq!(server.line(), "drained\t4");
    assert_eq!(server.stop(), "");
}

#[test]
fn an_open_handler_that_never_returns_holds_nothing_up() {
    let mut server = serve(
        "local websocket = {
            open = function(ws) while true do task.wait(1e6) end end,
            message = function(ws, message)
                if message == 'wait' then task.wait(1e6) end
                ws:send(message)
            end,
            close = function() print('closed') end,
        }",
        "{ port = 0, websocket = websocket }",
    );
    let mut client = Client::open(&server, "/", "");
    client.text("wait");
    client.text("go");
    client.expect_text("go");
    client.send(8, b"\x03\xe8");
    assert_eq!(server.line(), "closed");
    assert_eq!(server.stop(), "");
}

#[test]
fn messages_that_waited_for_their_handlers_are_not_told_of_once_the_script_has_closed() {
    // So many handlers of one connection run at once; the other messages wait until one returns.
    let server = serve(
        "local count, isClosed = 0, false
        local websocket = { message = function(ws)
            count += 1
            if count == 256 then
                ws:close()
                isClosed = true
            end
            while not isClosed do task.wait() end
        end }",
        "{ port = 0, websocket = websocket, handler = function(request, server)
            if request.path == '/count' then return tostring(count) end
            server:upgrade(request)
        end }",
    );
    let mut client = Client::open(&server, "/", "");
    for _ in 0..300 {
        client.text("go");
    }
    assert_eq!(client.receive(), Frame::close(1000, ""));
    client.send(8, b"\x03\xe8");
    for _ in 0..10 {
        assert_eq!(server.get("/count").1, "256");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn row_069_close_is_true_once_and_cuts_everything() {
    let mut served = serve(
        "local server_",
        "{ port = 0, handler = function(request, server)
            if request.headers.upgrade then return if server:upgrade(request) then nil else 'no' end
            server_ = server
            task.delay(0, function() print(server.close(), server.close(), server:close()) end)
            task.wait(1e6)
        end, websocket = { close = function(_, code, message) print('close', code, message) end } }",
    );
    let client = Client::open(&served, "/", "");
    let mut stream = served.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it reads");
    assert_eq!(served.line(), "true\tfalse\tfalse");
    assert_eq!(served.line(), "close\t1006");
    let mut rest = Vec::new();
    // A reset or an end: the request gets no answer from its handler either way.
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    drop(client);
}

#[test]
fn a_signal_has_the_vms_of_modules_finish_what_they_are_at() {
    let mut served = Served::start(
        "local worker = require('@lute/vm').create('./tests/luau/lute/modules/worker')
        local server = { port = worker.serveToTheEnd() }",
    );
    let mut stream = served.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    assert_eq!(served.line(), "asked");
    served.kill("-TERM");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with("\r\n\r\nanswered at the end"), "{answer}");
    drop(stream);
    let output = served.wait();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
}

#[test]
fn rows_002_039_042_and_043_what_serve_is_given_is_checked() {
    let output = run(
        "local serve = require('@lute/net/server').serve
        local function fails(ending, given)
            local ok, why = pcall(serve, given)
            assert(not ok and type(why) == 'string' and string.find(why, 'stdin:%d+: ') == 1, why)
            assert(string.find(why, ending, 1, true), `{why} lacks {ending}`)
        end
        fails('serve requires a handler function or config table', nil)
        fails('config table requires a handler function, websocket config, or both', {})
        fails(\"tls config requires 'certfilename' (string)\", { handler = print, tls = {} })
        fails(\"tls config requires 'keyfilename' (string)\", { handler = print, tls = { certfilename = 'x' } })
        local server = serve({ port = 0, handler = print, tls = nil })
        assert(server.hostname == '127.0.0.1' and server.port > 0)
        fails(`failed to listen on port {server.port}, is it already in use? consider the reuseport option`,
            { port = server.port, handler = print })
        local a = serve({ port = 0, reuseport = true, handler = print })
        local b = serve({ port = a.port, reuseport = true, handler = print })
        assert(a.port == b.port and a.close() and b.close())
        assert(server.close())",
        &[],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
}

#[test]
fn rows_059_063_and_067_what_is_no_request_is_refused_by_its_status() {
    let server = serve(
        "",
        "{ port = 0, handler = function(request) return request.path end }",
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", 400),
        (
            &format!(
                "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
                "x".repeat(17_000)
            ),
            431,
        ),
        (
            &format!(
                "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "A: x\r\n".repeat(150)
            ),
            431,
        ),
        // Lute's engine refuses HTTP/1.0; answering it takes nothing from anybody.
        ("GET /old HTTP/1.0\r\n\r\n", 200),
    ] {
        let answer = server.exchange(request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:.60}: {answer}"
        );
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn row_090_fragments_are_joined_and_text_is_checked() {
    let mut server = serve(SOCKETS, "{ port = 0, websocket = websocket }");
    let mut client = Client::open(&server, "/", "");
    client.expect_text("welcome");
    assert_eq!(server.line(), "open\tServerWebSocketHandle");
    // A text in three frames, the first without FIN: the mask is zero.
    for frame in [
        &b"\x01\x82\0\0\0\0he"[..],
        b"\x00\x82\0\0\0\0ll",
        b"\x80\x81\0\0\0\0o",
    ] {
        client.0.write_all(frame).expect("it reads");
    }
    client.expect_text("hello");
    assert_eq!(server.line(), "string\t5");
    client.send(1, b"\xff");
    assert_eq!(client.receive().opcode, 8);
    assert_eq!(server.line(), "close\t1006");
    assert_eq!(server.stop(), "");
}

#[test]
fn rows_027_and_028_a_request_has_five_minutes_and_thirty_seconds_to_connect() {
    let asked = stub::values(
        "require('@lute/net/client').request('localhost')
        return asked.options.timeout, asked.options.connectTimeout",
    );
    assert_eq!(asked, [300.0, 30.0]);
}

#[test]
fn row_096_a_websocket_has_five_minutes_to_connect() {
    // The default of curl, which Lute leaves as it is.
    let asked = stub::values(
        "require('@lute/net/client').websocket('localhost')
        return asked.options.timeout, asked.options.connectTimeout",
    );
    assert_eq!(asked, [300.0, 300.0]);
}

#[test]
fn row_064_a_connection_may_be_silent_for_ten_seconds() {
    let asked = stub::values(
        "require('@lute/net/server').serve(print)
        local limits = asked.options.limits
        return limits.idleTimeout, limits.headTimeout, limits.bodyTimeout",
    );
    assert_eq!(asked, [10.0; 3]);
}

#[test]
fn row_086_a_websocket_may_be_silent_for_two_minutes() {
    let asked = stub::values(
        "require('@lute/net/server').serve({ websocket = {} })
        return asked.options.websocket.idleTimeout, asked.options.websocket.maxMessageBytes",
    );
    assert_eq!(asked, [120.0, 16.0 * 1024.0 * 1024.0]);
}

#[test]
fn rows_039_and_042_without_a_place_it_is_127_0_0_1_and_3000() {
    let asked = stub::values(
        "local server = require('@lute/net/server').serve(print)
        local options = asked.options
        return options.port, if options.address == '127.0.0.1' then 1 else 0",
    );
    assert_eq!(asked, [3000.0, 1.0]);
}

#[test]
fn row_023_twenty_redirects_are_followed_and_bodies_have_no_bound_of_the_clients() {
    let asked = stub::values(
        "require('@lute/net/client').request('localhost')
        return asked.options.redirects, asked.options.maxBodyBytes",
    );
    assert_eq!(asked, [20.0, f64::INFINITY]);
}
