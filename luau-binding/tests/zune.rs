//! Servers for Zune, of both generations, against clients that speak to them byte by byte. What two
//! scripts say to each other is in `tests/luau/zune/`.

use crate::stub;
use crate::support::{Client, Frame, Served, huki, split};
use std::io::{Read, Write};

/// Runs a script whose first line of output is its port.
fn serve(source: &str) -> Served {
    let mut child = huki(&["run", "-"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(source.as_bytes()).expect("huki reads it");
    drop(stdin);
    Served::of(child)
}

const TELLING: &str = "
    local server = zune.net.http.serve({
        port = 0,
        client_timeout = 1,
        max_body_size = 4096,
        request = function(request)
            local parts = {}
            for key, value in request.query do table.insert(parts, `{key}={value}`) end
            table.sort(parts)
            local x = request.headers.x
            return `{request.method} {request.path} {request.raw_path} [{table.concat(parts, ' ')}] {x} {request.body}`
        end,
    })
    print(server:getPort())";

#[test]
fn b2_a_request_is_a_table_with_the_query_rules_of_zune() {
    let server = serve(TELLING);
    let tell = |request: &str| split(&server.exchange(request)).1;
    let get = |target: &str| tell(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(get("/a%20b"), "GET /a%20b /a%20b [] nil nil");
    assert_eq!(
        get("/?a=1&b&a=%32+x&c%21"),
        "GET / /?a=1&b&a=%32+x&c%21 [1=b 2=c! a=2 x] nil nil"
    );
    assert_eq!(
        tell("PUT / HTTP/1.1\r\nHost: x\r\nX: 1\r\nx: 2\r\nContent-Length: 2\r\n\r\nhi"),
        "PUT / / [] 1,2 hi"
    );
    let many = "a&".repeat(25);
    let (status, _) = split(&server.exchange(&format!("GET /?{many} HTTP/1.1\r\nHost: x\r\n\r\n")));
    assert_eq!(status, "HTTP/1.1 414 URI Too Long");
    let long = "v".repeat(4093);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n");
    let (status, _) = split(&server.exchange(&request));
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
    server.stop();
}

#[test]
fn b2_bad_input_has_the_status_that_zune_gives_it() {
    let server = serve(TELLING);
    for (request, status) in [
        ("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad line\r\n\r\n", 400),
        (
            "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n",
            413,
        ),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ] {
        let answer = server.exchange(request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {answer}"
        );
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    server.stop();
}

#[test]
fn b2_a_body_too_large_is_refused_in_zune_s_words() {
    let server = serve(TELLING);
    let body = "Hello World! ".repeat(1000);
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = server.exchange(&request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(
        head.starts_with("HTTP/1.1 413 Payload Too Large\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nContent-Length: 67\r\n"), "{head}");
    assert_eq!(
        body,
        "The content you provided exceeds the server's maximum allowed size."
    );
    server.stop();
}

#[test]
fn b1_a_client_that_does_not_finish_its_request_is_closed_without_a_word() {
    let server = serve(TELLING);
    for begun in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhi",
    ] {
        let mut stream = server.connect();
        stream.write_all(begun.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it closes");
        assert_eq!(answer, "", "{begun:?}");
    }
    server.stop();
}

#[test]
fn c3_single_double_request_both_are_handled_and_answered() {
    let server = serve(TELLING);
    let answer = server.exchange(
        "GET /1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    let first = answer.find("GET /1").expect("answered");
    assert!(first < answer.find("GET /2").expect("answered"), "{answer}");
    server.stop();
}

#[test]
fn b2_what_is_no_answer_is_a_fixed_500_that_closes() {
    let server = serve(
        "local server = zune.net.http.serve({
            port = 0,
            error = function() end,
            request = function(request)
                if request.path == '/raise' then error('no') end
                if request.path == '/late' then zune.task.wait(0.01) error('no') end
                if request.path == '/two' then return 'a', 'b' end
                if request.path == '/number' then return 5 end
                if request.path == '/status' then return { status_code = 299, body = '' } end
                if request.path == '/body' then return { status_code = 200, body = 5 } end
                return { status_code = 200, headers = { A = 1 } }
            end,
        })
        print(server:getPort())",
    );
    for path in [
        "/raise", "/late", "/two", "/number", "/status", "/body", "/headers",
    ] {
        let answer = server.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(
            head.starts_with("HTTP/1.1 500 Internal Server Error\r\n"),
            "{path}: {head}"
        );
        assert!(head.contains("\r\nContent-Type: text/plain\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 31\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert_eq!(body, "An error occurred on the server", "{path}");
    }
    server.stop();
}

#[test]
fn b3_an_upgrade_is_refused_with_403_and_in_the_seed_with_404() {
    let current = serve(
        "local server = zune.net.http.serve({
            port = 0,
            error = function() end,
            request = function() return 'plain' end,
            websocket = { upgrade = function(request)
                if request.path == '/nil' then return nil end
                if request.path == '/two' then return true, true end
                return false
            end },
        })
        print(server:getPort())",
    );
    for (path, status) in [("/", 403), ("/nil", 500), ("/two", 500)] {
        let (_, head) = Client::ask(&current, path, "");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {head}"
        );
    }
    let (_, head) = Client::ask(&current, &format!("/?{}", "a&".repeat(25)), "");
    assert!(head.starts_with("HTTP/1.1 414 "), "{head}");
    let long = format!("X: {}\r\n", "x".repeat(4093));
    let (_, head) = Client::ask(&current, "/", &long);
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    let long = format!("{}: x\r\n", "x".repeat(4093));
    let (_, head) = Client::ask(&current, "/", &long);
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    current.stop();
    let seed = serve(
        "local ok, server = require('@zcore/net').serve({
            port = 0,
            request = function() return 'plain' end,
            webhook = { upgrade = function(request) return request.path ~= '/no' end,
                message = function(ws, message) ws:send(typeof(message) .. message) end },
        })
        assert(ok, server)
        print(server.port)",
    );
    let (_, head) = Client::ask(&seed, "/no", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let mut client = Client::open(&seed, "/", "");
    client.send(2, b"binary");
    client.expect_text("stringbinary");
    seed.stop();
}

#[test]
fn b3_messages_do_not_wait_for_handlers_and_close_tells_the_code() {
    let mut server = serve(
        "local waiting = {}
        local server = zune.net.http.serve({
            port = 0,
            request = function() return 'plain' end,
            websocket = {
                open = function(ws) zune.task.wait(1e6) end,
                message = function(ws, message)
                    if message ~= 'third' then
                        table.insert(waiting, coroutine.running())
                        coroutine.yield()
                    end
                    ws:send(`{type(message)} {typeof(ws)}`)
                    if #waiting > 0 then zune.task.spawn(table.remove(waiting)) end
                end,
                close = function(ws, code) print(code, ws:isConnected()) end,
            },
        })
        print(server:getPort())",
    );
    let mut client = Client::open(&server, "/", "Sec-WebSocket-Protocol: a, b\r\n");
    client.text("first");
    client.send(2, b"second");
    client.text("third");
    client.expect_text("string HTTPWebSocket");
    client.expect_text("buffer HTTPWebSocket");
    client.expect_text("string HTTPWebSocket");
    client.send(8, b"\x0f\xa1bye");
    assert_eq!(client.receive(), Frame::close(4001, ""));
    assert_eq!(server.line(), "4001\tfalse");
    let mut bare = Client::open(&server, "/", "");
    bare.send(8, b"");
    assert_eq!(server.line(), "1000\tfalse");
    drop(Client::open(&server, "/", ""));
    assert_eq!(server.line(), "1006\tfalse");
    server.stop();
}

#[test]
fn b3_a_socket_whose_client_has_given_up_opens_and_closes_for_the_script() {
    let mut server = serve(
        "local server
        server = zune.net.http.serve({
            port = 0,
            request = function() return 'plain' end,
            websocket = {
                upgrade = function() print('upgrade') zune.task.wait(0.5) return true end,
                open = function(ws) print('open', pcall(ws.send, ws, 'x')) end,
                close = function(ws, code) print('close', code) end,
            },
        })
        print(server:getPort())",
    );
    let mut stream = server.connect();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("it reads");
    assert_eq!(server.line(), "upgrade");
    drop(stream);
    assert_eq!(server.line(), "open\tfalse\tClosed");
    assert_eq!(server.line(), "close\t1006");
    server.stop();
}

#[test]
fn a1_the_seed_returns_what_goes_wrong_and_its_handle_stops_by_either_name() {
    let server = serve(
        "local net = require('@zcore/net')
        local ok, first = net.serve({ port = 0, request = function(request)
            if request.path == '/raise' then error('no') end
            return { statusCode = 201, headers = { A = 'b' }, body = `{request.method} {request.query.q} {#request.body}` }
        end })
        print(first.port)
        assert(ok and typeof(first) == 'NetServer' and not first.stopped)
        local taken, name = net.serve({ port = first.port, request = function() return '' end })
        assert(taken == false and name == 'AddressInUse', name)
        local _, other = net.serve({ port = 0, request = function() return '' end })
        other:close() other:stop()
        assert(other.stopped)
        print(_VERSION)",
    );
    let answer = server.exchange("GET /?q=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("\r\nServer: Zune\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nGET 1 0"), "{answer}");
    let answer = server.exchange("GET /raise HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        answer.ends_with("\r\n\r\nAn error occurred on the server"),
        "{answer}"
    );
    let stderr = server.stop();
    assert!(stderr.contains("in GET /raise"), "{stderr}");
}

#[test]
fn row_028_connecting_has_the_time_of_the_whole() {
    let asked = stub::values(
        "require('@huki/surface/zune/request')('http://localhost', { timeout = 60 })
        local one = asked.options
        require('@huki/surface/zune/request')('http://localhost', { timeout = 0 })
        local two = asked.options
        require('@huki/surface/zune/websocket').open('ws://localhost', { timeout = 50 })
        local three = asked.options
        require('@huki/surface/zune/seed_request')('http://localhost')
        local four = asked.options
        return one.timeout, one.connectTimeout, two.timeout, two.connectTimeout,
            three.timeout, three.connectTimeout, four.timeout, four.connectTimeout",
    );
    let endless = f64::INFINITY;
    assert_eq!(
        asked,
        [60.0, 60.0, endless, endless, 50.0, 50.0, 30.0, 30.0]
    );
}

#[test]
fn row_044_the_backlog_goes_to_the_system() {
    let asked = stub::values(
        "local serve = require('@huki/surface/zune/serve')
        serve({ port = 0, request = print, backlog = 7 })
        local given = asked.options.backlog
        serve({ port = 0, request = print })
        return given, asked.options.backlog",
    );
    assert_eq!(asked, [7.0, 128.0]);
}

#[test]
fn row_085_a_message_may_have_a_gibibyte_on_either_side_of_both_generations() {
    let asked = stub::values(
        "local function of(path, ...)
            local found = require(path)
            local call = if type(found) == 'table' then found.open else found
            call(...)
            return (asked.options.websocket or asked.options).maxMessageBytes
        end
        local handlers = { message = print }
        return of('@huki/surface/zune/serve', { port = 0, request = print, websocket = handlers }),
            of('@huki/surface/zune/seed_serve', { port = 0, request = print, websocket = handlers }),
            of('@huki/surface/zune/websocket', 'ws://localhost', {}),
            of('@huki/surface/zune/seed_socket', 'ws://localhost')",
    );
    assert_eq!(asked, [f64::from(1 << 30); 4]);
}

#[test]
fn rows_027_029_062_064_and_065_limits_have_the_defaults_of_zune() {
    let asked = stub::values(
        "require('@huki/surface/zune/request')('http://localhost')
        local one = asked.options
        require('@huki/surface/zune/websocket').open('ws://localhost', {})
        local two = asked.options
        require('@huki/surface/zune/seed_request')('http://localhost')
        local three = asked.options
        require('@huki/surface/zune/serve')({ port = 0, request = print })
        local four = asked.options.limits
        return one.timeout, one.maxBodyBytes, two.timeout, three.timeout, three.maxBodyBytes, three.redirects,
            four.bodyBytes, four.headers, four.headTimeout, four.bodyTimeout, four.idleTimeout, four.connections",
    );
    let mib = f64::from(1 << 20);
    assert_eq!(
        asked,
        [
            30.0,
            mib,
            30.0,
            30.0,
            2.0 * mib,
            3.0,
            mib,
            100.0,
            10.0,
            10.0,
            10.0,
            1024.0
        ]
    );
}
