//! Responses that leave piece by piece, and server-sent events, over real sockets.

use crate::support::{Served, split};
use std::io::{Read, Write};

/// The bytes of a chunked body, which must be whole.
fn unchunk(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    loop {
        let (size, behind) = rest.split_once("\r\n").expect("a chunk has a size");
        let size = usize::from_str_radix(size, 16).expect("in hexadecimal");
        if size == 0 {
            assert_eq!(behind, "\r\n", "nothing follows the last chunk");
            return whole;
        }
        whole.push_str(&behind[..size]);
        rest = behind[size..].strip_prefix("\r\n").expect("a chunk ends");
    }
}

#[test]
fn a_body_that_is_a_function_leaves_piece_by_piece() {
    let server = Served::start(
        r#"server = net.serve(0, function(r)
            local status = tonumber(r.query.status)
            return { status = status, headers = { ["x-a"] = "1", ["content-length"] = r.query.length }, body = function(stream)
                assert(stream:write("one ") == true)
                task.wait(0.001)
                assert(stream:write("") == true)
                assert(pcall(stream.write, stream, buffer.fromstring("two")))
            end }
        end)"#,
    );
    let (status, body) = server.get("/");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(unchunk(&body), "one two");
    assert_eq!(server.get("/?length=7").1, "one two");
    assert_eq!(
        server.get("/?status=204"),
        ("HTTP/1.1 204 No Content".into(), String::new())
    );
    let answer = server.exchange("GET / HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\r\nx-a: 1\r\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("chunked"), "{answer}");
    assert_eq!(split(&answer).1, "one two");
    // A connection goes on behind a streamed answer, and answers stay in order.
    let request = "GET /?status=201 HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = server.exchange(&request.repeat(3));
    assert_eq!(
        answers.matches("HTTP/1.1 201 Created\r\n").count(),
        3,
        "{answers}"
    );
    assert_eq!(
        answers
            .matches("4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")
            .count(),
        3,
        "{answers}"
    );
    assert_eq!(server.stop(), "");
}

#[test]
fn rfc9110_9_3_2_the_function_of_a_body_is_not_called_for_head() {
    let server = Served::start(
        r#"local calls = 0
        server = net.serve(0, function(r)
            if r.path == "/calls" then return tostring(calls) end
            if r.path == "/text" then return { status = tonumber(r.query.status), body = "text" } end
            return { body = function(stream) calls += 1 stream:write("x") end }
        end)"#,
    );
    let head = |target: &str| {
        server.exchange(&format!(
            "HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    };
    let answer = head("/");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(server.get("/calls").1, "0");
    // The length of the body that a GET would have.
    let answer = head("/text");
    assert!(
        answer.to_lowercase().contains("\r\ncontent-length: 4\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    for status in ["204", "304"] {
        let (line, body) = server.get(&format!("/text?status={status}"));
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
        assert_eq!(body, "", "{status}");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn a_body_whose_function_fails_never_looks_whole() {
    let mut server = Served::start(
        r#"server = net.serve({ port = 0,
            request = function(r)
                return { headers = { ["content-length"] = r.query.length }, body = function(stream)
                    stream:write("part")
                    if r.path == "/late" then task.wait(0.001) end
                    if r.path == "/short" then return end
                    error("no more of " .. r.path)
                end }
            end,
            error = function(message, context)
                local line, trace = string.match(message, "^(.-)\n(.*)$")
                print(context.kind, context.method, context.target, context.ip, line or message, trace and string.find(trace, "stdin:6") ~= nil)
            end,
        })"#,
    );
    let ask = |target: &str, version: &str| {
        let mut stream = server.connect();
        let request = format!("GET {target} HTTP/{version}\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        (String::from_utf8(answer).expect("ASCII"), end.is_ok())
    };
    for target in ["/now", "/late"] {
        let (answer, _) = ask(target, "1.1");
        assert!(answer.ends_with("4\r\npart\r\n"), "{answer}");
    }
    let (answer, _) = ask("/now?length=9", "1.1");
    assert!(answer.ends_with("\r\n\r\npart"), "{answer}");
    let (answer, _) = ask("/short?length=9", "1.1");
    assert!(answer.ends_with("\r\n\r\npart"), "{answer}");
    // The end of the connection would be the end of the body, so only a reset can tell.
    let (answer, ended_well) = ask("/late", "1.0");
    assert!(!ended_well, "{answer}");
    let failed = |target: &str, path: &str| {
        format!("stream\tGET\t{target}\t127.0.0.1\tstdin:7: no more of {path}\tfalse")
    };
    let mut lines: Vec<String> = (0..5).map(|_| server.line()).collect();
    for line in &mut lines {
        *line = line.replace("\ttrue", "\tfalse");
    }
    assert_eq!(lines[0], failed("/now", "/now"));
    assert_eq!(lines[1], failed("/late", "/late"));
    assert_eq!(lines[2], failed("/now?length=9", "/now"));
    assert_eq!(
        lines[3],
        "stream\tGET\t/short?length=9\t127.0.0.1\tresponse: the body's length differs from the announced one\tnil"
    );
    assert_eq!(lines[4], failed("/late", "/late"));
    assert_eq!(server.stop(), "");
}

#[test]
fn a_writer_waits_while_its_peer_does_not_read() {
    const PIECES: usize = 2_000;
    let server = Served::start(&format!(
        r#"local written = 0
        local piece = string.rep("x", 65536)
        server = net.serve(0, function(r)
            if r.path == "/written" then return tostring(written) end
            return {{ body = function(stream)
                for _ = 1, {PIECES} do
                    assert(stream:write(piece))
                    written += 1
                end
            end }}
        end)"#
    ));
    let mut reader = server.connect();
    reader
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it reads");
    // It fills what the system takes, and then stands still while the server goes on.
    let written = || -> usize { server.get("/written").1.parse().expect("a number") };
    let mut last = written();
    let stood_still = (0..10_000).any(|_| {
        let now = written();
        std::mem::replace(&mut last, now) == now && now > 0
    });
    assert!(stood_still && last < PIECES, "{last} pieces");
    let mut whole = Vec::new();
    reader.read_to_end(&mut whole).expect("it all comes");
    assert!(whole.len() > PIECES * 65_536);
    assert_eq!(written(), PIECES);
    assert_eq!(server.stop(), "");
}

#[test]
fn writing_to_a_peer_that_has_gone_answers_false() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            return { body = function(stream)
                local late = stream
                while stream:write(string.rep("x", 10000)) do task.wait() end
                print("gone", stream:closed(), stream:write("x"), r:closed())
                task.delay(0.001, function() print(pcall(late.write, late, "x")) end)
            end }
        end)"#,
    );
    for _ in 0..3 {
        let mut stream = server.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("it reads");
        let mut some = [0; 100];
        stream.read_exact(&mut some).expect("it has begun");
        drop(stream);
        assert_eq!(server.line(), "gone\ttrue\tfalse\ttrue");
        let line = server.line();
        assert!(
            line.ends_with("stream:write: the response has ended, as its function has returned"),
            "{line}"
        );
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn a_parked_writer_is_woken_when_its_peer_leaves() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            return { body = function(stream)
                repeat until not stream:write(string.rep("x", 1000000))
                print("gone")
            end }
        end)"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it reads");
    let mut some = [0; 100];
    stream.read_exact(&mut some).expect("it has begun");
    drop(stream);
    assert_eq!(server.line(), "gone");
    assert_eq!(server.stop(), "");
}

#[test]
fn events_reach_their_reader_and_cannot_be_injected() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            local response = net.eventStream(function(events)
                local function try(event) return (select(2, pcall(events.send, events, event))) end
                events:send("one")
                events:send({ event = "two", data = "a\nb\r\nid: 9", id = "7", retry = 2.5 })
                events:send({ comment = "still here" })
                print(try({ event = "x\ndata: y", data = "z" }))
                print(try({ data = { 1 } }))
                print(try({ dta = "x" }))
                print(try({}))
                print(try(5))
                print(try({ retry = -1 }))
                print(events:closed(), pcall(function() return events.sned end))
            end)
            response.headers["x-extra"] = "1"
            return response
        end)"#,
    );
    let (head, body) = {
        let answer = server.exchange("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.to_lowercase(), unchunk(body))
    };
    assert!(
        head.contains("\r\ncontent-type: text/event-stream"),
        "{head}"
    );
    assert!(head.contains("\r\ncache-control: no-cache"), "{head}");
    assert!(head.contains("\r\nx-extra: 1"), "{head}");
    let want = "data: one\n\nevent: two\nid: 7\nretry: 2500\ndata: a\ndata: b\ndata: id: 9\n\n: still here\n\n";
    assert_eq!(body, want);
    for message in [
        "events:send: 'event' may hold no line end and no NUL",
        "events:send: 'data' must be a string, not a table; net.jsonEncode makes one of a table",
        "events:send: unknown option 'dta' (did you mean 'data'?)",
        "events:send: the event is empty; it has 'data', or at least a 'comment'",
        "events:send: argument #1 must be a string or a table { event, data, id, retry, comment }, not 5",
        "events:send: option 'retry' must be a number of seconds, above 0 and at most a year, not -1",
        "event stream has no member 'sned' (did you mean 'send'?)",
    ] {
        let line = server.line();
        assert!(line.contains("stdin:") && line.contains(message), "{line}");
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn what_cannot_be_a_streamed_answer_is_a_500_that_names_it() {
    let server = Served::start(
        r#"local errors = {}
        local f = function() end
        local answers = {
            both = { body = "x", events = f }, number = { body = 5 }, events = { events = "x" },
            status = { status = 99, body = f }, name = { headers = { ["a b"] = "c" }, body = f },
        }
        server = net.serve({ port = 0,
            request = function(r)
                if r.path == "/errors" then return table.concat(errors, "\n") end
                return answers[string.sub(r.path, 2)]
            end,
            error = function(message, context) table.insert(errors, context.kind .. " " .. message) end,
        })"#,
    );
    let mut want = Vec::new();
    for (path, message) in [
        ("both", "it has a body and events; it can have one of them"),
        (
            "number",
            "body must be a string, a buffer or a function, not 5",
        ),
        ("events", "events must be a function, not the string \"x\""),
        (
            "status",
            "status must be a whole number from 200 to 599, not 99",
        ),
        (
            "name",
            "'a b' cannot be the name of a header: letters, digits and -_ are safe",
        ),
    ] {
        assert!(
            server.get(&format!("/{path}")).0.contains(" 500 "),
            "{path}"
        );
        want.push(format!("request stdin:8: response: {message}"));
    }
    assert_eq!(server.get("/errors").1, want.join("\n"));
    assert_eq!(server.stop(), "");
}
