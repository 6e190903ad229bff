//! Requests and answers through a handler, over real sockets.

use crate::support::{Served, split};
use std::io::{Read, Write};

#[test]
fn every_field_of_a_request_reads_as_sent() {
    let server = Served::start(
        r#"server = net.serve(0, function(r, s)
            assert(s == server)
            local all = {}
            for name, value in r.headers do table.insert(all, name .. "=" .. value) end
            return table.concat({ r.method, r.path, r.target, r.query.a[1] .. r.query.a[2], r.query.b,
                r.headers["X-One"], r.headers["x-one"], table.concat(r.headers:all("x-two"), "+"),
                tostring(r.headers.nope), r.cookies.id, r.body, buffer.tostring(r:buffer()), r.ip,
                tostring(r.port > 0), r.scheme, table.concat(all, ","), typeof(r) }, "\n")
        end)"#,
    );
    let answer = server.exchange(
        "POST /p%20q?a=1&b=x+y&a=%32 HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nX-Two: a\r\nx-two: b\r\n\
         Cookie: id=7; x=8\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
    );
    let (status, body) = split(&answer);
    assert_eq!(status, "HTTP/1.1 200 OK");
    let expected = [
        "POST",
        "/p%20q",
        "/p%20q?a=1&b=x+y&a=%32",
        "12",
        "x y",
        "1",
        "1",
        "a+b",
        "nil",
        "7",
        "body",
        "body",
        "127.0.0.1",
        "true",
        "http",
        "host=h,x-one=1,x-two=a,x-two=b,cookie=id=7; x=8,content-length=4,connection=close",
        "Request",
    ];
    assert_eq!(body.split('\n').collect::<Vec<_>>(), expected);
    assert_eq!(server.stop(), "");
}

#[test]
fn every_form_of_answer_leaves_as_it_should() {
    let server = Served::start(
        r#"local answers = {
            string = "text", empty = "", nothing = nil,
            buffer = buffer.fromstring("\0\1bytes"),
            table = { status = 418, headers = { ["X-A"] = "1", ["set-cookie"] = { "a=1", "b=2" }, n = 3 }, body = "tea" },
            json = net.json({ ok = true }, 202),
        }
        server = net.serve(0, function(r) return answers[string.sub(r.path, 2)] end)"#,
    );
    assert_eq!(
        server.get("/string"),
        ("HTTP/1.1 200 OK".into(), "text".into())
    );
    assert_eq!(
        server.get("/empty"),
        ("HTTP/1.1 200 OK".into(), String::new())
    );
    assert_eq!(server.get("/nothing").0, "HTTP/1.1 204 No Content");
    assert_eq!(server.get("/buffer").1, "\0\u{1}bytes");
    assert_eq!(
        server.get("/json"),
        ("HTTP/1.1 202 Accepted".into(), r#"{"ok":true}"#.into())
    );
    let answer = server.exchange("GET /table HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for line in [
        "HTTP/1.1 418 ",
        "\r\nX-A: 1\r\n",
        "\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n",
        "\r\nn: 3\r\n",
        "\r\n\r\ntea",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn a_handler_that_fails_is_a_plain_500_and_a_report() {
    let server = Served::start(
        r#"server = net.serve(0, function(r)
            if r.path == "/wait" then task.wait(0.01) end
            error("secret of " .. r.path)
        end)"#,
    );
    for path in ["/now", "/wait"] {
        let (status, body) = server.get(path);
        assert_eq!(status, "HTTP/1.1 500 Internal Server Error");
        assert_eq!(body, "Internal Server Error\n");
    }
    let stderr = server.stop();
    for path in ["/now", "/wait"] {
        let report = format!(" in GET {path} from 127.0.0.1 port ");
        assert!(stderr.contains(&report), "{stderr}");
        let message = format!(": stdin:3: secret of {path}\nstack traceback:\n");
        assert!(stderr.contains(&message), "{stderr}");
    }
}

#[test]
fn what_cannot_be_an_answer_is_a_500_that_names_it() {
    let server = Served::start(
        r#"local errors = {}
        local answers = {
            number = 5, code = { statusCode = 404 }, status = { status = 99 }, body = { body = {} },
            headers = { headers = "x" }, value = { headers = { a = print } }, list = { "x" },
            name = { headers = { ["a b"] = "c" } }, inject = { headers = { a = "b\r\nc: d" } },
            length = { headers = { ["content-length"] = "1" }, body = "long" },
        }
        server = net.serve({ port = 0,
            request = function(r)
                if r.path == "/errors" then return table.concat(errors, "\n") end
                return answers[string.sub(r.path, 2)]
            end,
            error = function(message, context)
                assert(context.kind == "request" and context.method == "GET")
                table.insert(errors, context.target .. ": " .. message)
            end,
        })"#,
    );
    let cases = [
        (
            "number",
            "response: a handler returns a string, a buffer, a table { status, headers, body } or nothing, not 5",
        ),
        (
            "code",
            "response: unknown key 'statusCode' (did you mean 'status'?)",
        ),
        (
            "status",
            "response: status must be a whole number from 200 to 599, not 99",
        ),
        (
            "body",
            "response: body must be a string, a buffer or a function, not a table",
        ),
        (
            "headers",
            "response: headers must be a table of names and values, not the string \"x\"",
        ),
        (
            "value",
            "response: header 'a' must be a string, a number or a list of them, not a function",
        ),
        (
            "list",
            "response: a table has status, headers and body, not a key of type number",
        ),
        (
            "name",
            "response: 'a b' cannot be the name of a header: letters, digits and -_ are safe",
        ),
        (
            "inject",
            "response: the value of header 'a' holds a line end or another control character",
        ),
    ];
    let mut expected = Vec::new();
    for (path, message) in cases {
        let (status, _) = server.get(&format!("/{path}"));
        assert_eq!(status, "HTTP/1.1 500 Internal Server Error", "{path}");
        // The line is that of the handler: where it returned is not known any more.
        expected.push(format!("/{path}: stdin:9: {message}"));
    }
    assert_eq!(server.get("/errors").1, expected.join("\n"));
    assert_eq!(
        server.get("/length").0,
        "HTTP/1.1 500 Internal Server Error"
    );
    assert_eq!(server.stop(), "");
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let server = Served::start(
        r#"server = net.serve(0, function(r)
            task.wait(tonumber(string.sub(r.path, 2)) / 100)
            return r.path
        end)"#,
    );
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let all: String = ["/5", "/0", "/3", "/1"].into_iter().map(request).collect();
    let answers = server.exchange(&all);
    let bodies: Vec<&str> = answers
        .split("\r\n\r\n")
        .skip(1)
        .map(|piece| piece.split("HTTP").next().unwrap_or_default())
        .collect();
    assert_eq!(bodies, ["/5", "/0", "/3", "/1"]);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_peer_that_leaves_disturbs_nobody() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            if r.path == "/slow" then
                print("slow")
                task.wait(0.05)
            end
            return string.rep("x", 100000)
        end)"#,
    );
    for _ in 0..20 {
        let mut stream = server.connect();
        let request = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).expect("it reads");
        assert_eq!(server.line(), "slow");
        drop(stream);
    }
    let mut half = server.connect();
    half.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        .expect("it reads");
    drop(half);
    assert_eq!(server.get("/").1.len(), 100_000);
    assert_eq!(server.stop(), "");
}

#[test]
fn json_bodies_are_read_and_refused_by_the_handler() {
    let server = Served::start(
        r#"server = net.serve(0, function(r)
            local ok, value = pcall(r.json, r)
            local same, message = pcall(function() return r:json() end)
            assert(ok == same)
            return if ok then net.json({ value.a }) else { status = 400, body = value }
        end)"#,
    );
    let post = |body: &str| {
        let len = body.len();
        split(&server.exchange(&format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
        )))
    };
    assert_eq!(post(r#"{"a":[1,2]}"#).1, "[[1,2]]");
    let (status, body) = post("{\"a\":");
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(
        body.contains("request:json: invalid JSON at line 1, column 6 (byte 5): a value expected"),
        "{body}"
    );
    let big = format!("{{\"a\":\"{}\"}}", "y".repeat(200_000));
    assert_eq!(post(&big).1.len(), 200_000 + 4);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_request_may_be_kept_and_read_after_its_answer() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            task.delay(0.02, function()
                for _ = 1, 1000 do string.rep("x", 1000) end
                print(r.path, r.headers.host, r.body)
            end)
            return "ok"
        end)"#,
    );
    assert_eq!(server.get("/kept").1, "ok");
    assert_eq!(server.line(), "/kept\tx");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_cancelled_handler_still_answers() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, error = function() end, request = function(r)
            local me = coroutine.running()
            task.delay(0.01, r.path == "/close" and coroutine.close or task.cancel, me)
            task.wait(if r.path == "/close" then 0.05 else 60)
            return "too late"
        end })"#,
    );
    for path in ["/cancel", "/close"] {
        assert_eq!(server.get(path).0, "HTTP/1.1 500 Internal Server Error");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn coroutines_are_used_again_but_not_those_a_script_has() {
    // Whoever kept its coroutine from an earlier request must not cancel somebody else's.
    let server = Served::start(
        r#"local first
        server = net.serve(0, function(r)
            if r.path == "/first" then
                first = coroutine.running()
                return "kept"
            end
            task.delay(0.01, function() pcall(task.cancel, first) end)
            task.wait(0.05)
            return "whole"
        end)"#,
    );
    assert_eq!(server.get("/first").1, "kept");
    assert_eq!(server.get("/second").1, "whole");
    assert_eq!(server.stop(), "");
}

#[test]
fn bodies_over_the_limit_are_refused_before_the_handler() {
    let server = Served::start(
        "server = net.serve({ port = 0, limits = { bodyBytes = 10 }, request = function(r) return r.body end })",
    );
    let answer =
        server.exchange("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let answer = server.exchange(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_server_listens_at_a_socket_file() {
    use std::os::unix::net::UnixStream;
    let path = std::env::temp_dir().join(format!("huki-{}.sock", std::process::id()));
    let shown = path.display();
    let server = Served::start(&format!(
        "local unix = net.serve({{ address = 'unix:{shown}', request = function(r) return r.ip .. r.port end }})
        assert(unix.address == 'unix:{shown}' and unix.port == 0)
        server = net.serve(0, function() end)"
    ));
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with("\r\n\r\n0"), "{answer}");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_server_says_its_own_words_where_it_refuses_by_itself() {
    let server = Served::start(
        "local server = net.serve({
            limits = { bodyBytes = 4 },
            refusals = {
                [400] = false,
                [413] = {
                    reason = 'Payload Too Large',
                    headers = { ['content-type'] = 'application/json' },
                    body = '{}',
                },
                [500] = { headers = { connection = 'close' }, body = buffer.fromstring('sorry') },
            },
            request = function() error('x') end,
            error = function() end,
        })",
    );
    let answer = server.exchange("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(
        head.starts_with("HTTP/1.1 413 Payload Too Large\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\ncontent-type: application/json\r\n"),
        "{head}"
    );
    assert_eq!(body, "{}");
    let answer = server.exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nsorry"), "{answer}");
    assert_eq!(server.exchange("GARBAGE\r\n\r\n"), "");
    server.stop();
}
