//! `net.request` and `net.websocket` from scripts, against servers of the same script, and against
//! sockets that misbehave.

use crate::support::{PATIENCE, run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Runs `source` behind a prelude, and returns what it prints. `fails(f, …)` calls `f` and returns
/// its error without the place.
fn printed(source: &str) -> String {
    let prelude = r#"local net = require("@huki/net")
        local task = require("@huki/task")
        local function fails(call, ...)
            local ok, why = pcall(call, ...)
            assert(not ok, "it went well")
            assert(type(why) == "string" and string.find(why, "^%S+:%d+: "), why)
            return (string.gsub(why, "^%S+:%d+: ", ""))
        end
        "#;
    let prelude = prelude.replace('\n', " ");
    let output = run(&format!("{prelude}{source}"), &[]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_response_is_a_table_whose_headers_do_not_care_for_case() {
    let printed = printed(
        r#"local server = net.serve(0, function(request)
            return { status = 201, headers = { ["X-Case-Kept"] = "v", ["set-cookie"] = { "a", "b" } }, body = "hi" }
        end)
        local response = net.request("http://127.0.0.1:" .. server.port .. "/x")
        print(response.ok, response.status, response.statusText, response.body)
        print(response.url == `http://127.0.0.1:{server.port}/x`, type(response))
        print(response.headers["x-case-kept"], table.concat(response.headers:all("Set-Cookie"), ","))
        local names = {}
        for name in response.headers:pairs() do table.insert(names, name) end
        print(table.find(names, "X-Case-Kept") ~= nil)
        for name in response.headers do assert(name == string.lower(name)) end
        server:stop()"#,
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        ["true\t201\tCreated\thi", "true\ttable", "v\ta,b", "true"]
    );
}

#[test]
fn a_request_says_what_the_script_says_and_nothing_it_does_not_want() {
    let printed = printed(
        r#"local server = net.serve(0, function(request)
            local names = {}
            for name, value in request.headers do
                if name ~= "host" then table.insert(names, name .. "=" .. value) end
            end
            return `{request.method} {request.target} {table.concat(names, ";")} [{request.body}]`
        end)
        local url = "http://127.0.0.1:" .. server.port
        local function ask(options)
            options.url = url .. (options.url or "/")
            print(net.request(options).body)
        end
        local bare = { ["user-agent"] = false, accept = false, ["accept-encoding"] = false }
        ask({ headers = bare })
        ask({ headers = bare, method = "brew", url = "/pot?a", query = { b = "ä &", c = { 1, 2 } } })
        ask({ headers = bare, keepAlive = false, method = "POST", body = buffer.fromstring("raw") })
        ask({ headers = bare, method = "PUT", json = { net.null, true } })
        ask({ headers = { ["x-n"] = { 1, "two" }, accept = "a", ["User-Agent"] = "me" }, decompress = false })
        ask({ headers = bare, method = "POST", body = function(stream)
            for _, piece in { "one ", buffer.fromstring("two") } do
                assert(stream:write(piece) == true)
                task.wait()
            end
        end })
        bare["content-length"] = 3
        ask({ headers = bare, method = "POST", body = function(stream) stream:write("abc") end })
        server:stop()"#,
    );
    let expected = [
        "GET /  []",
        "brew /pot?a&b=%C3%A4%20%26&c=1&c=2  []",
        "POST / connection=close;content-length=3 [raw]",
        "PUT / content-type=application/json;content-length=11 [[null,true]]",
        "GET / x-n=1;x-n=two;accept=a;user-agent=me []",
        "POST / transfer-encoding=chunked [one two]",
        "POST / content-length=3 [abc]",
    ];
    // The order of a table's fields is nobody's.
    let sorted = |line: &str| {
        let mut parts: Vec<String> = line.split([' ', ';']).map(str::to_owned).collect();
        parts.sort();
        parts
    };
    for (line, expected) in printed.lines().zip(expected) {
        assert_eq!(sorted(line), sorted(expected), "{line}");
    }
    assert_eq!(printed.lines().count(), expected.len());
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_option_at_fault() {
    let printed = printed(
        r#"local url = "http://127.0.0.1:1/"
        for _, options in {
            { url = url, metod = "GET" }, {}, { url = "127.0.0.1:80" }, { url = "ws://127.0.0.1:1" },
            { url = url, timeout = 0 }, { url = url, body = 5 }, { url = url, body = "a", json = 1 },
            { url = url, headers = { ["x y"] = "1" } }, { url = url, headers = { x = "a\nb" } },
            { url = url, headers = { x = {} , y = true } }, { url = url, headers = { ["content-length"] = 3 }, body = "four" },
            { url = url, headers = { ["Transfer-Encoding"] = "chunked" } }, { url = url, proxy = 3 },
            { url = url, proxy = "socks5://x" }, { url = url, tls = { cert = "/nowhere" } }, { url = url, tls = { key = "x" } },
            { url = url, query = { a = true } }, { url = url, query = { a = 0 / 0 } }, { url = url, method = "G T" },
        } do print(fails(net.request, options)) end
        print(fails(net.request, 5))
        print(fails(net.websocket, "http//x"))
        print(fails(net.websocket, "ws://127.0.0.1:1", { compression = { treshold = 1 } }))
        print(fails(net.websocket, "ws://127.0.0.1:1", { protocols = { {} } }))
        print(fails(net.websocket, "ws://127.0.0.1:1", { protocols = { "a b" } }))
        print(fails(net.websocket, "ws://127.0.0.1:1", { protocols = { "a", "a" } }))"#,
    );
    let expected = [
        "net.request: unknown option 'metod' (did you mean 'method'?)",
        "net.request: option 'url' is needed",
        "net.request: invalid url \"127.0.0.1:80\": it is not absolute (as https://host/path is)",
        "net.request: invalid url \"ws://127.0.0.1:1\": net.websocket opens WebSockets",
        "net.request: option 'timeout' must be a number of seconds, above 0 and at most a year, not 0",
        "net.request: option 'body' must be a string, a buffer or a function, not 5",
        "net.request: options 'body' and 'json' exclude each other",
        "net.request: invalid request: the header \"x y\" cannot be sent: its name holds what no header's may: letters, digits and -_ are safe",
        "net.request: invalid request: the header \"x\" cannot be sent: its value holds a line end or another control character",
        "net.request: header 'y' must be a string, a number, a list of them, or false, not true",
        "net.request: header 'content-length' is not the length of the body",
        "net.request: invalid request: the header \"Transfer-Encoding\" cannot be sent: the client writes it itself",
        "net.request: option 'proxy' must be a URL or false, not 3",
        "net.request: option 'proxy' is no URL of a proxy: only http:// proxies are spoken to",
        "net.request: tls: option 'cert': cannot read /nowhere: No such file or directory",
        "net.request: tls: option 'key' needs 'cert'",
        "net.request: option 'query': 'a' must be a string, a number or a list of them, not true",
        "net.request: option 'query': 'a' must be a string, a number or a list of them, not NaN",
        "net.request: option 'method' must be a word such as \"GET\", without spaces and separators, not \"G T\"",
        "net.request: argument #1 must be a URL or a table of options, not 5",
        "net.websocket: invalid url \"http//x\": it is not absolute (as https://host/path is)",
        "net.websocket: compression: unknown option 'treshold' (did you mean 'threshold'?)",
        "net.websocket: option 'protocols' must be a list of strings, not of a table",
        "net.websocket: option 'protocols' must be names without spaces and separators, each once, not \"a b\"",
        "net.websocket: option 'protocols' must be names without spaces and separators, each once, not \"a\"",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_thousand_urls_by_64_coroutines_share_few_connections() {
    let printed = printed(
        r#"local ports, served = {}, 0
        local server = net.serve(0, function(request)
            ports[request.port] = true
            served += 1
            return request.path
        end)
        local next, done, main = 0, 0, coroutine.running()
        for _ = 1, 64 do
            task.spawn(function()
                while next < 1000 do
                    next += 1
                    local path = "/" .. next
                    assert(net.request("http://127.0.0.1:" .. server.port .. path).body == path)
                end
                done += 1
                if done == 64 then task.defer(main) end
            end)
        end
        coroutine.yield()
        local connections = 0
        for _ in ports do connections += 1 end
        print(served, connections <= 64)
        server:stop()"#,
    );
    assert_eq!(printed, "1000\ttrue\n");
}

#[test]
fn a_stream_is_read_as_it_comes_and_given_up_when_it_is_let_go() {
    let printed = printed(
        r#"local gone = 0
        local server = net.serve(0, function(request)
            return { headers = { ["x-a"] = "1" }, body = function(stream)
                for n = 1, tonumber(request.query.n) do
                    if not stream:write(string.rep("x", 65536)) then gone += 1 return end
                end
            end }
        end)
        local function ask(n)
            return net.request({ url = `http://127.0.0.1:{server.port}/?n={n}`, stream = true })
        end
        local response = ask(100)
        print(response.ok, response.status, response.headers["X-A"], typeof(response))
        local bytes = 0
        for piece in response do bytes += #piece end
        print(bytes == 100 * 65536, response:read())
        print(fails(function() return response.body end))
        local closed = ask(100000)
        assert(closed:read())
        closed:close()
        print(fails(closed.read, closed))
        local forgotten = ask(100000)
        assert(forgotten:read())
        forgotten = nil
        local reader = ask(100000)
        local thread = task.spawn(function() while reader:read() do end end)
        task.cancel(thread)
        while gone < 3 do
            -- Garbage makes the collector come by.
            local _ = table.create(100000, 0)
            task.wait()
        end
        print("all gone")
        server:stop()"#,
    );
    let expected = [
        "true\t200\t1\tResponse",
        "true\tnil",
        "response: its body comes in pieces (stream = true): read it with response:read()",
        "response:read: the response was closed",
        "all gone",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn cancelling_who_waits_frees_the_connection() {
    let printed = printed(
        r#"local waits = 0
        local server = net.serve(0, function(request)
            waits += 1
            while not request:closed() do task.wait() end
            waits -= 1
        end)
        local threads = {}
        for n = 1, 8 do
            threads[n] = task.spawn(net.request, "http://127.0.0.1:" .. server.port)
        end
        while waits < 8 do task.wait() end
        for _, thread in threads do task.cancel(thread) end
        while waits > 0 do task.wait() end
        print("freed")
        server:stop()"#,
    );
    assert_eq!(printed, "freed\n");
}

#[test]
fn a_script_ends_though_connections_are_kept_and_streams_unread() {
    let printed = printed(
        r#"local server
        server = net.serve(0, function(request)
            if request.path == "/stop" then server:stop(0) end
            return { body = function(stream) for _ = 1, 1000 do stream:write(string.rep("x", 65536)) end end }
        end)
        local url = "http://127.0.0.1:" .. server.port
        local kept = net.request({ url = url, stream = true })
        net.request({ url = url .. "/stop", stream = true })
        print(kept.status)"#,
    );
    assert_eq!(printed, "200\n");
}

#[test]
fn a_body_function_that_fails_fails_the_request() {
    let printed = printed(
        r#"local server = net.serve(0, function(request) return request.body end)
        local url = "http://127.0.0.1:" .. server.port
        local function ask(length, body)
            return fails(net.request, { url = url, method = "POST", body = body, headers = { ["content-length"] = length } })
        end
        print((string.gsub(ask(nil, function(stream) stream:write("abc") error("oops") end), "%S+:%d+: ", "")))
        print(ask(4, function(stream) stream:write("abc") end))
        print((string.gsub(ask(2, function(stream) stream:write("abc") end), "failed: %S+:%d+: ", "failed: ")))
        print(net.request({ url = url, method = "POST", body = "goes on" }).body)
        server:stop()"#,
    );
    let expected = [
        "net.request: the body function failed: oops",
        "net.request: the body function wrote less than the content-length announced",
        "net.request: the body function failed: stream:write: more bytes than the request's content-length announced",
        "goes on",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_websocket_goes_on_with_who_asked_and_then_with_its_callbacks() {
    let printed = printed(
        r#"local server = net.serve({ port = 0, websocket = {
            upgrade = function(request)
                if request.path == "/no" then
                    return { status = 401, headers = { ["www-authenticate"] = "Basic" }, body = "go away\n" }
                end
                return { protocol = request.headers["sec-websocket-protocol"] and "b", headers = { ["x-a"] = "1" } }
            end,
            open = function(ws) ws:send("one") ws:send(buffer.fromstring("two")) end,
            message = function(ws, message) ws:send(message) end,
        } })
        local url = "ws://127.0.0.1:" .. server.port
        local told, main = {}, coroutine.running()
        local ws, response = net.websocket(url, { protocols = { "a", "b" }, compression = true })
        print(ws.protocol, ws.connected, response.status, response.headers["x-a"])
        ws:bindOpen(function() table.insert(told, "open") end)
        ws:bindMessage(function(_, message) table.insert(told, `{typeof(message)}`) end)
        ws:bindClose(function(_, code, reason)
            table.insert(told, `close {code} {reason}`)
            task.defer(main)
        end)
        print(#told)
        task.wait()
        while #told < 3 do task.wait() end
        ws:close(4000, "bye")
        coroutine.yield()
        print(table.concat(told, ", "))
        print(fails(ws.send, ws, "late"))
        -- Messages that came before anybody asked are kept.
        local late = net.websocket(url)
        late:send("three")
        task.wait(0.01)
        print(late:next(), typeof(late:next()), late:next())
        task.spawn(function() late:close() end)
        for message in late do print(message) end
        print(late.closeCode)
        print((string.gsub(fails(net.websocket, url .. "/no"), "Date=.- GMT, ", "")))
        print(fails(net.websocket, "ws://127.0.0.1:1"))
        server:stop()"#,
    );
    let expected = [
        "b\ttrue\t101\t1",
        "0",
        "open, string, buffer, close 4000 ",
        "ws:send: the WebSocket is closed",
        "one\tbuffer\tthree",
        "1000",
        "net.websocket: upgrade refused: the server does not open a WebSocket (401): status is not 101 (RFC 6455 §4.1); \
         headers: www-authenticate=Basic, Content-Length=8; body: \"go away\\n\"",
        "net.websocket: connection refused: 127.0.0.1:1 refused the connection",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn messages_before_the_end_are_read_after_it_and_then_the_end_is_told() {
    let printed = printed(
        r#"local server = net.serve({ port = 0, websocket = {
            open = function(ws) ws:send("one") ws:send("two") ws:close(4001, "enough") end,
        } })
        local url = "ws://127.0.0.1:" .. server.port
        local function ended()
            local ws = net.websocket(url)
            while not ws.closeCode do task.wait() end
            return ws
        end
        -- Pulled, with a callback for the end.
        local ws = ended()
        print(ws:next())
        local isTold = false
        ws:bindClose(function(_, code, reason) isTold = true print("closed", code, reason) end)
        task.wait()
        print(isTold, ws:next(), ws:next(), ws:next())
        while not isTold do task.wait() end
        -- Pushed.
        ws = ended()
        ws:bindMessage(function(ws, message) print(typeof(ws), message) end)
        isTold = false
        ws:bindClose(function(ws, code) isTold = true print(typeof(ws), code) end)
        while not isTold do task.wait() end
        -- Pulled.
        for message in ended() do print(message) end
        -- Not read at all: nothing but the script keeps it.
        local lost = setmetatable({ ended() }, { __mode = "v" })
        while lost[1] do
            task.wait()
            collectgarbage("collect")
        end
        print(lost[1])
        server:stop()"#,
    );
    let expected = [
        "one",
        "false\ttwo\tnil\tnil",
        "closed\t4001\tenough",
        "WebSocket\tone",
        "WebSocket\ttwo",
        "WebSocket\t4001",
        "one",
        "two",
        "nil",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

/// Asks `urls` of a listener that treats each connection by `treat`.
fn asked_of(treat: fn(TcpStream), script: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // A script that fails leaves nobody waiting here.
            let _ = stream.set_read_timeout(Some(PATIENCE));
            treat(stream);
        }
    });
    printed(&script.replace("PORT", &port.to_string())).replace(&port.to_string(), "PORT")
}

/// Reads one request's head.
fn head(stream: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
}

/// How a server treats a connection, options of the request, and what its error begins with.
type Fault = (fn(TcpStream), &'static str, &'static str);

/// Answers a request with `answer`, and leaves.
fn answer(mut stream: TcpStream, answer: &str) {
    head(&mut stream);
    // A client that has left already has what it wants.
    let _ = stream.write_all(answer.as_bytes());
}

const FAULTS: [Fault; 8] = [
    (
        |stream| answer(stream, ""),
        "",
        "connection closed: 127.0.0.1 closed the connection without a response",
    ),
    (
        // What is not read makes the system reset.
        |mut stream| {
            let _ = stream.read(&mut [0]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-");
        },
        "",
        "connection reset: 127.0.0.1 reset the connection without a response",
    ),
    (
        |stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour"),
        "",
        "connection closed: the response of 127.0.0.1 was cut short",
    ),
    (
        |stream| answer(stream, "220 mail.example ESMTP\r\n\r\n"),
        "",
        "malformed response: the response of 127.0.0.1 breaks a rule: ",
    ),
    (
        |stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"),
        "maxBodyBytes = 10",
        "body too large: the response is larger than 10 bytes",
    ),
    (
        |mut stream| {
            head(&mut stream);
            let _ = stream.read(&mut [0]);
        },
        "timeout = 0.05",
        "timed out (total): the request to 127.0.0.1 was not done within 0.05 s",
    ),
    (
        // Part of the first flight is not read: what TLS has to say about it meets a reset.
        |mut stream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        },
        "url = 'https://127.0.0.1:PORT/'",
        "",
    ),
    (
        |stream| {
            answer(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        },
        "redirects = 3",
        "too many redirects: a redirect loop: more than 3 redirects, and again to http://127.0.0.1:PORT/",
    ),
];

#[test]
fn each_fault_of_a_server_has_words_of_its_own() {
    for (treat, option, expected) in FAULTS {
        let script = format!(
            "local options = {{ {option} }}
            options.url = options.url or 'http://127.0.0.1:PORT/'
            local begun = os.clock()
            print(fails(net.request, options))
            assert(os.clock() - begun < 20, 'only time has ended it')"
        );
        let told = asked_of(treat, &script);
        let expected = format!("net.request: {expected}");
        assert!(told.starts_with(&expected), "{told} instead of {expected}");
    }
}
