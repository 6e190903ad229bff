//! Bodies of requests: read piece by piece, as forms, and with their cookies, over real sockets.

use crate::support::{Served, split};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// `POST target` with `fields` and `body`: status line and body of the answer.
fn post(server: &Served, target: &str, fields: &str, body: &str) -> (String, String) {
    let len = body.len();
    split(&server.exchange(&format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}Content-Length: {len}\r\n\r\n{body}"
    )))
}

#[test]
fn a_streamed_body_is_read_piece_by_piece_to_its_end() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, streamBody = true, request = function(r)
            local pieces, total = {}, 0
            for piece in function() return r:read() end do
                table.insert(pieces, piece)
                if r.path == "/slow" then task.wait(0.001) end
            end
            assert(r:read() == nil)
            return table.concat(pieces)
        end })"#,
    );
    let long = "0123456789".repeat(50_000);
    for path in ["/", "/slow"] {
        for body in ["", "x", &long] {
            let (status, answer) = post(&server, path, "", body);
            assert_eq!(status, "HTTP/1.1 200 OK");
            assert!(answer == body, "{path}: {} bytes", body.len());
        }
        let chunked = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
        );
        assert_eq!(split(&server.exchange(&chunked)).1, "hello world");
    }
    assert_eq!(server.get("/").1, "");
    // Requests behind one another on a connection keep their bodies apart.
    let both = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nonePOST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntwo";
    let answers = server.exchange(both);
    let bodies: Vec<&str> = answers
        .split("\r\n\r\n")
        .skip(1)
        .map(|body| &body[..3])
        .collect();
    assert_eq!(bodies, ["one", "two"]);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_body_is_echoed_while_it_arrives() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, streamBody = true, request = function(r)
            return { body = function(stream)
                for piece in function() return r:read() end do stream:write(piece) end
            end }
        end })"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("it reads");
    let mut seen = Vec::new();
    for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "5\r\nthree\r\n"] {
        stream.write_all(piece.as_bytes()).expect("it reads");
        while !seen.ends_with(piece.as_bytes()) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers meanwhile");
            seen.push(byte[0]);
        }
    }
    stream.write_all(b"0\r\n\r\n").expect("it reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("it ends");
    assert_eq!(rest, "0\r\n\r\n");
    assert_eq!(server.stop(), "");
}

/// Sends until the system takes no more and the server, which answers others meanwhile, has not
/// made room for a while. Returns the bytes sent, which stay below `most`.
fn flood(server: &Served, stream: &mut TcpStream, piece: &[u8], most: usize) -> usize {
    stream.set_nonblocking(true).expect("it is a socket");
    let (mut sent, mut stood) = (0, 0);
    while stood < 20 {
        match stream.write(&piece[sent % piece.len()..]) {
            Ok(count) => (sent, stood) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(server.get("/idle").0.contains(" 200 "));
                stood += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < most, "it has taken {sent} bytes and would take more");
    }
    stream.set_nonblocking(false).expect("it is a socket");
    sent
}

#[test]
fn a_peer_that_sends_faster_than_its_handler_reads_is_held_back() {
    const BODY: usize = 256 * 1024 * 1024;
    let mut server = Served::start(
        r#"local handler
        server = net.serve({ port = 0, streamBody = true, request = function(r)
            if r.path == "/idle" then return "" end
            if r.path == "/go" then task.defer(handler) return "" end
            handler = coroutine.running()
            coroutine.yield()
            local total, biggest = 0, 0
            for piece in function() return r:read() end do
                total += #piece
                biggest = math.max(biggest, #piece)
            end
            print(biggest <= 256 * 1024)
            return tostring(total)
        end })"#,
    );
    let mut stream = server.connect();
    let head = format!("POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let piece = vec![b'x'; 1024 * 1024];
    let sent = flood(&server, &mut stream, &piece, 64 * 1024 * 1024);
    assert!(server.get("/go").0.contains(" 200 "));
    let mut left = BODY - sent;
    while left > 0 {
        let count = left.min(piece.len());
        stream.write_all(&piece[..count]).expect("it reads again");
        left -= count;
    }
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with(&format!("\r\n\r\n{BODY}")), "{answer}");
    assert_eq!(server.line(), "true");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_body_that_does_not_come_to_its_end_raises() {
    let mut server = Served::start(
        r#"server = net.serve({ port = 0, streamBody = true, error = function(message) print(message) end, request = function(r)
            print(r:read())
            local ok, message = pcall(r.read, r)
            print(ok, message)
            r:read()
        end })"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        .expect("it reads");
    assert_eq!(server.line(), "half");
    drop(stream);
    let line = server.line();
    assert!(
        line.starts_with("false\tstdin:3: request:read: the body did not come to its end: "),
        "{line}"
    );
    let line = server.line();
    assert!(
        line.starts_with("stdin:5: request:read: the peer has gone"),
        "{line}"
    );
    assert_eq!(server.line(), "stack traceback:");
    assert_eq!(server.stop(), "");
}

#[test]
fn an_answer_before_the_body_has_come_ends_the_connection() {
    let server = Served::start(
        r#"server = net.serve({ port = 0, streamBody = true, request = function(r) return "enough" end })"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nfirst")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(
        answer.to_lowercase().contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nenough"), "{answer}");
    assert_eq!(server.stop(), "");
}

#[test]
fn reading_in_pieces_and_reading_whole_exclude_each_other() {
    let whole =
        Served::start("server = net.serve(0, function(r) return select(2, pcall(r.read, r)) end)");
    let (_, message) = post(&whole, "/", "", "x");
    assert!(
        message.contains("request:read: the body is whole already"),
        "{message}"
    );
    assert_eq!(whole.stop(), "");
    let streamed = Served::start(
        r#"server = net.serve({ port = 0, streamBody = true, request = function(r)
            for _, method in { "json", "form", "buffer" } do
                local ok, message = pcall(r[method], r)
                assert(not ok and string.find(message, "request:" .. method .. ": the server streams bodies"), message)
            end
            -- Only one coroutine reads.
            task.spawn(function() pcall(r.read, r) end)
            return select(2, pcall(r.read, r))
        end })"#,
    );
    let mut stream = streamed.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(
        answer.contains("request:read: another coroutine waits"),
        "{answer}"
    );
    assert_eq!(streamed.stop(), "");
}

#[test]
fn a_body_that_nobody_reads_any_more_raises_and_leaves_nobody_waiting() {
    let mut server = Served::start(
        r#"local kept
        server = net.serve({ port = 0, streamBody = true, request = function(r)
            print(pcall(function() return r.body end))
            kept = r
            task.spawn(function() print(pcall(r.read, r)) print(pcall(r.read, kept)) end)
            return "answered"
        end })"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        .expect("it reads");
    let place = |line: u8| format!("false\tstdin:{line}: ");
    let streams =
        "request.body: the server streams bodies (streamBody = true): read it with request:read()";
    assert_eq!(server.line(), place(3) + streams);
    let answered = "request:read: the request has been answered, and its body given up with that";
    assert_eq!(server.line(), place(5) + answered);
    assert_eq!(server.line(), place(5) + answered);
    assert_eq!(server.stop(), "");
}

#[test]
fn a_request_knows_when_its_peer_has_left() {
    let mut server = Served::start(
        r#"server = net.serve(0, function(r)
            print("here", r:closed())
            while not r:closed() do task.wait(0.001) end
            print("left", r:closed())
        end)"#,
    );
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("it reads");
    assert_eq!(server.line(), "here\tfalse");
    drop(stream);
    assert_eq!(server.line(), "left\ttrue");
    assert_eq!(server.stop(), "");
}

/// Shows the form that it is sent, or why there is none.
fn form_server() -> Served {
    Served::start(
        r#"local function show(value)
            if type(value) ~= "table" then return `"{value}"` end
            if value.filename then return `<{value.name} {value.filename} {value.contentType} {value.body}>` end
            local all = {}
            for _, one in value do table.insert(all, show(one)) end
            return table.concat(all, "+")
        end
        server = net.serve(0, function(r)
            local ok, form = pcall(r.form, r)
            if not ok then return { status = 400, body = form } end
            local names, all = {}, {}
            for name in form do table.insert(names, name) end
            table.sort(names)
            for _, name in names do table.insert(all, name .. "=" .. show(form[name])) end
            return table.concat(all, " ")
        end)"#,
    )
}

const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=\"x y\"\r\n";

#[test]
fn forms_of_both_kinds_are_read() {
    let server = form_server();
    let urlencoded = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";
    assert_eq!(
        post(&server, "/", urlencoded, "a=1+2&b=%41&a=3&c").1,
        r#"a="1 2"+"3" b="A" c="""#
    );
    let field = |rest: &str, body: &str| {
        format!("--x y\r\nContent-Disposition: form-data; {rest}\r\n\r\n{body}\r\n")
    };
    let body = [
        field("name=\"a\"", "1"),
        field(
            "name=f; filename=\"a.txt\"\r\nContent-Type: text/css",
            "\r\nbytes\r\n",
        ),
        field("name=\"a\"", ""),
        field("name=f; filename=b.txt", "second"),
        field("name=a", "3"),
        "--x y--\r\n".to_owned(),
    ]
    .concat();
    assert_eq!(
        post(&server, "/", MULTIPART, &body),
        (
            "HTTP/1.1 200 OK".into(),
            "a=\"1\"+\"\"+\"3\" f=<f a.txt text/css \r\nbytes\r\n>+<f b.txt text/plain second>"
                .into()
        )
    );
    assert_eq!(server.stop(), "");
}

#[test]
fn a_body_that_is_no_form_raises_and_says_why() {
    let server = form_server();
    for (fields, body, message) in [
        (
            "",
            "a=1",
            "there is no content-type; it must be application/x-www-form-urlencoded or multipart/form-data",
        ),
        (
            "Content-Type: text/plain\r\n",
            "a=1",
            "the body's content-type is 'text/plain', not",
        ),
        (
            "Content-Type: multipart/form-data\r\n",
            "",
            "the content-type has no boundary",
        ),
        (
            "Content-Type: multipart/form-data; boundary=\r\n",
            "",
            "the content-type is malformed",
        ),
        (
            MULTIPART,
            "--x y\r\n",
            "the header fields of a part do not end",
        ),
    ] {
        let (status, answer) = post(&server, "/", fields, body);
        assert_eq!(status, "HTTP/1.1 400 Bad Request");
        assert!(
            answer.contains(&format!("request:form: {message}")),
            "{answer}"
        );
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn rfc6265_5_4_of_cookies_that_repeat_the_first_counts() {
    let server = Served::start(
        r#"server = net.serve(0, function(r)
            local c = r.cookies
            return table.concat({ c.a, c.b, c.q, c.Session, tostring(c.session), tostring(c.none) }, "|")
        end)"#,
    );
    let answer = server.exchange(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: a=1; b=x=y; a=2\r\nCookie: b=z; q=\"quoted\"; Session=S\r\n\r\n",
    );
    assert_eq!(split(&answer).1, "1|x=y|quoted|S|nil|nil");
    assert_eq!(server.stop(), "");
}
