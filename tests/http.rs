//! HTTP/1.1 over a real socket against a real script: what a well-behaved client sees.
//!
//! Each test runs one `huki` and speaks to it byte by byte. Refusals and hostile peers are in
//! `hostile.rs`.

use crate::harness::{Huki, Wire};

/// Answers with what it got; `/slow?ms=N` takes its time, other paths see `hostile.rs`.
pub(crate) const ECHO: &str = r#"
local server = net.serve({
    port = 0,
    limits = { bodyBytes = 65536 },
    request = function(request)
        if request.path == "/slow" then
            task.wait(tonumber(request.query.ms) / 1000)
        elseif request.path == "/raise" then
            error("on purpose")
        elseif request.path == "/none" then
            return nil
        elseif request.path == "/teapot" then
            return { status = 418, headers = { ["X-Kind"] = "pot", ["Set-Cookie"] = { "a=1", "b=2" } }, body = "short" }
        elseif request.path == "/buffer" then
            return buffer.fromstring("\0\255\r\n")
        elseif request.path == "/large" then
            return string.rep("0123456789abcdef", 65536)
        elseif request.path == "/inject" then
            return { headers = { ["X-Bad"] = "a\r\nSet-Cookie: stolen=1" }, body = "x" }
        end
        return `{request.method} {request.target} {#request.body} {request.body}`
    end,
})
print(`port {server.port}`)
"#;

#[test]
fn one_connection_carries_many_exchanges() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    for number in 0..100 {
        let reply = wire.get(&format!("/{number}?q"));
        assert_eq!(
            (reply.status, reply.text()),
            (200, &*format!("GET /{number}?q 0 "))
        );
        assert!(
            reply
                .field("date")
                .is_some_and(|date| date.ends_with(" GMT") && date.len() == 29)
        );
    }
    // The last one says goodbye.
    wire.send("GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let reply = wire.reply();
    assert_eq!(
        (reply.text(), reply.field("connection")),
        ("GET /last 0 ", Some("close"))
    );
    wire.expect_end();
}

#[test]
fn pipelined_answers_leave_in_request_order_whoever_is_ready_first() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let delays = [80, 0, 40, 10, 60, 0, 0, 20];
    let mut requests = String::new();
    for ms in delays {
        requests.push_str(&format!("GET /slow?ms={ms} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    wire.send(&requests);
    for ms in delays {
        assert_eq!(wire.reply().text(), format!("GET /slow?ms={ms} 0 "));
    }
}

#[test]
fn more_requests_than_may_be_in_flight_are_all_answered_in_order() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let mut requests = String::new();
    for number in 0..500 {
        let ms = if number % 50 == 0 { 5 } else { 0 };
        requests.push_str(&format!(
            "GET /slow?ms={ms}&n={number} HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
    }
    wire.send(&requests);
    for number in 0..500 {
        let reply = wire.reply();
        assert!(
            reply.text().contains(&format!("&n={number} ")),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn slow_handlers_run_side_by_side_across_connections() {
    let huki = Huki::serve(ECHO);
    let mut wires: Vec<Wire> = (0..20).map(|_| huki.connect()).collect();
    for wire in &mut wires {
        wire.send("GET /slow?ms=300 HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    // A quick one is not behind them.
    assert_eq!(huki.connect().get("/quick").status, 200);
    for wire in &mut wires {
        assert_eq!(wire.reply().status, 200);
    }
}

#[test]
fn rfc9110_9_3_2_head_is_answered_like_get_without_the_body() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let length = wire.get("/large").body.len();
    wire.send("HEAD /large HTTP/1.1\r\nHost: test\r\n\r\nGET /next HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = wire.reply_to(true);
    assert_eq!(reply.field("content-length"), Some(&*length.to_string()));
    assert_eq!(wire.reply().text(), "GET /next 0 ");
}

#[test]
fn rfc9110_10_1_1_expect_continue_is_answered_before_the_body() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send(
        "PUT /up HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(wire.reply().status, 100);
    wire.send("hello");
    assert_eq!(wire.reply().text(), "PUT /up 5 hello");
    // With the body already there, no interim answer is needed; either way the final one comes.
    wire.send(
        "PUT /up HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    );
    let mut reply = wire.reply();
    if reply.status == 100 {
        reply = wire.reply();
    }
    assert_eq!(reply.text(), "PUT /up 5 hello");
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_to_stay() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(wire.reply().text(), "GET /old 0 ");
    wire.expect_end();

    let mut wire = huki.connect();
    for _ in 0..3 {
        wire.send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let reply = wire.reply();
        assert_eq!(reply.text(), "GET /old 0 ");
        assert_eq!(reply.field("connection"), Some("keep-alive"));
    }
}

#[test]
fn rfc9112_7_1_chunked_uploads_are_put_together() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send(
        "POST /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nWiki\r\n6;name=value\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-Trailer: 1\r\n\r\n",
    );
    assert_eq!(
        wire.reply().text(),
        "POST /up 24 Wikipedia in \r\n\r\nchunks."
    );
    // The connection is in step: the next request is found.
    assert_eq!(wire.get("/next").text(), "GET /next 0 ");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let request = "POST /slowly HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        wire.send([byte]);
    }
    assert_eq!(wire.reply().text(), "POST /slowly 3 abc");
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send(
        "GET /slow?ms=50 HTTP/1.1\r\nHost: test\r\n\r\nGET /b HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    wire.half_close();
    assert_eq!(wire.reply().text(), "GET /slow?ms=50 0 ");
    assert_eq!(wire.reply().text(), "GET /b 0 ");
    wire.expect_end();
}

#[test]
fn answers_have_the_shape_the_script_gave_them() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let reply = wire.get("/none");
    assert_eq!((reply.status, reply.field("content-length")), (204, None));
    let reply = wire.get("/teapot");
    assert_eq!(
        (reply.status, reply.text(), reply.field("x-kind")),
        (418, "short", Some("pot"))
    );
    assert_eq!(wire.get("/buffer").body, b"\0\xff\r\n");
    let reply = wire.get("/large");
    assert_eq!(reply.body, b"0123456789abcdef".repeat(65536));
}

#[test]
fn a_repeated_field_is_sent_once_for_each_value() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    wire.send("GET /teapot HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(wire.read_to_end())
        .expect("heads are ASCII")
        .to_ascii_lowercase();
    assert!(
        text.contains("\r\nset-cookie: a=1\r\n") && text.contains("\r\nset-cookie: b=2\r\n"),
        "{text}"
    );
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    // Sixteen answers of a megabyte: more than the kernel keeps for a client that does not read.
    wire.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n".repeat(16));
    assert_eq!(huki.connect().get("/meanwhile").status, 200);
    for _ in 0..16 {
        assert_eq!(wire.reply().body.len(), 16 * 65536);
    }
}

#[test]
fn a_field_value_with_a_line_end_never_reaches_the_wire() {
    let mut huki = Huki::serve(ECHO);
    let mut wire = huki.connect();
    let reply = wire.get("/inject");
    assert_eq!((reply.status, reply.field("set-cookie")), (500, None));
    huki.expect_stderr("X-Bad");
}

#[test]
fn a_handler_that_raises_is_a_plain_500_and_a_traceback_on_stderr() {
    let mut huki = Huki::serve(ECHO);
    let mut neighbour = huki.connect();
    neighbour.send("GET /slow?ms=100 HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut wire = huki.connect();
    let reply = wire.get("/raise");
    assert_eq!(reply.status, 500);
    assert!(
        !reply.text().contains("on purpose"),
        "the error's text stays here"
    );
    let line = huki.expect_stderr("on purpose");
    assert!(line.contains("main.luau:"), "says where: {line}");
    // The same connection and its neighbours go on.
    assert_eq!(wire.get("/after").text(), "GET /after 0 ");
    assert_eq!(neighbour.reply().status, 200);
}
