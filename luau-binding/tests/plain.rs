//! Requests as the tables that dialects promise: each handler has its own, however often a client says
//! the same, and what fails says of which request.

use crate::support::{Served, split};

/// Begins a server of each dialect whose handler is `handle(request)`, which returns text.
const SERVERS: [(&str, &str); 4] = [
    (
        "lune",
        "local server = require('@lune/net').serve(0, function(request) return handle(request) end)",
    ),
    (
        "lute",
        "local server = require('@lute/net/server').serve({ port = 0, handler = function(request)
            return { body = handle(request) }
        end })",
    ),
    (
        "zune",
        "local native = zune.net.http.serve({ port = 0, request = function(request)
            return handle(request)
        end })
        local server = { port = native:getPort() }",
    ),
    (
        "zcore",
        "local _, server = require('@zcore/net').serve({ port = 0, address = '127.0.0.1', request = function(request)
            return { statusCode = 200, body = handle(request) }
        end })",
    ),
];

/// A handler that tells all it was given, and then spoils it.
const TELLS: &str = "local function list(fields)
    local all = {}
    for name, value in fields do table.insert(all, `{name}={value}`) end
    table.sort(all)
    return table.concat(all, ' ')
end
local function handle(request)
    assert(type(request.headers) == 'table' and getmetatable(request.headers) == nil)
    local told = `{request.method} {request.path} [{list(request.query)}] [{list(request.headers)}] {request.body}`
    for name in table.clone(request.headers) do request.headers[name] = 'spoilt' end
    request.headers.new, request.query.new, request.path = 'new', 'new', 'spoilt'
    return told
end ";

fn start(handler: &str, server: &str) -> Served {
    Served::start(&format!("{handler} {server}"))
}

#[test]
fn a_handler_owns_the_tables_of_its_request_however_often_the_same_fields_come() {
    for (dialect, server) in SERVERS {
        let server = start(TELLS, server);
        let get = "GET /a?b=1 HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nCookie: a=b\r\n\r\n";
        let expected = "GET /a [b=1] [cookie=a=b host=x x-one=1] ";
        for round in 0..6 {
            let answer = split(&server.exchange(get)).1;
            let body = answer.trim_end_matches("nil");
            assert_eq!(body, expected, "{dialect}, round {round}");
        }
        let put = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
        for round in 0..4 {
            let answer = split(&server.exchange(put)).1;
            let expected = "PUT / [] [content-length=2 host=x] hi";
            assert_eq!(answer, expected, "{dialect}, round {round}");
        }
        server.stop();
    }
}

#[test]
fn clients_with_other_fields_each_have_their_own_told() {
    for (dialect, server) in SERVERS {
        let server = start(TELLS, server);
        for round in 0..3 {
            for client in 0..90 {
                let (name, long) = (client % 7, "v".repeat(client * client / 2));
                let request =
                    format!("GET / HTTP/1.1\r\nHost: x\r\nX-{name}: {client}\r\nY: {long}\r\n\r\n");
                let mut fields = [
                    "host=x".to_owned(),
                    format!("x-{name}={client}"),
                    format!("y={long}"),
                ];
                fields.sort();
                let answer = split(&server.exchange(&request)).1;
                let expected = format!("GET / [] [{}] ", fields.join(" "));
                let body = answer.trim_end_matches("nil");
                assert_eq!(body, expected, "{dialect}, client {client}, round {round}");
            }
        }
        server.stop();
    }
}

#[test]
fn fields_that_repeat_are_what_each_system_makes_of_them() {
    let get = "GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\nCookie: a\r\nCookie: b\r\n\r\n";
    let joined = "a=1,2 cookie=a,b host=x";
    for (dialect, fields) in [
        ("lune", "a=1, 2 cookie=a; b host=x"),
        ("lute", "a=2 cookie=b host=x"),
        ("zune", joined),
        ("zcore", joined),
    ] {
        let server = SERVERS.iter().find(|(name, _)| *name == dialect);
        let server = start(TELLS, server.expect("it is there").1);
        for _ in 0..3 {
            let answer = split(&server.exchange(get)).1;
            let expected = format!("GET / [] [{fields}] ");
            assert_eq!(answer.trim_end_matches("nil"), expected, "{dialect}");
        }
        server.stop();
    }
}

#[test]
fn a_report_names_the_request_before_the_handler_was_suspended_and_after() {
    for (dialect, server) in [SERVERS[0], SERVERS[2], SERVERS[3]] {
        let handler = "local function handle(request)
            if request.path == '/later' then task.wait() end
            if request.path == '/bad' then return {} end
            error('boom', 0)
        end";
        let server = start(handler, server);
        for target in ["/now?a", "/later?b"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            let (status, _) = split(&server.exchange(&request));
            assert_eq!(status, "HTTP/1.1 500 Internal Server Error", "{dialect}");
        }
        let (status, _) =
            split(&server.exchange("POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"));
        assert_eq!(status, "HTTP/1.1 500 Internal Server Error", "{dialect}");
        // Where something has failed, Lune's status is 1.
        let (_, stderr) = server.signal("-TERM");
        for place in [
            "in GET /now?a from 127.0.0.1",
            "in GET /later?b from",
            "in POST /now from",
        ] {
            assert!(stderr.contains(place), "{dialect}: {place}: {stderr}");
        }
        assert_eq!(stderr.matches("boom").count(), 3, "{dialect}: {stderr}");
    }
}

#[test]
fn an_answer_that_is_not_common_is_sent_as_a_common_one_would_be() {
    let many: String = (0..20).map(|n| format!("['X-{n}'] = 'v{n}', ")).collect();
    let server = Served::start(&format!(
        "local server = require('@lune/net').serve(0, function(request)
            if request.path == '/lists' then
                return {{ headers = {{ ['Set-Cookie'] = {{ 'a=1', 'b=2' }}, ['X-N'] = 7 }}, body = 'x' }}
            elseif request.path == '/many' then
                return {{ status = 201, headers = {{ {many} }}, body = buffer.fromstring('x') }}
            elseif request.path == '/meta' then
                return setmetatable({{}}, {{ __index = {{ status = 202, body = 'x' }} }})
            elseif request.path == '/status' then
                return {{ status = 1000 }}
            end
            return {{ headers = {{ ['X-Bad'] = 'a\\nb' }} }}
        end)"
    ));
    let get = |path: &str| server.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let lists = get("/lists");
    for field in ["Set-Cookie: a=1", "Set-Cookie: b=2", "X-N: 7"] {
        assert!(lists.contains(&format!("\r\n{field}\r\n")), "{lists}");
    }
    let many = get("/many");
    assert!(many.starts_with("HTTP/1.1 201 Created\r\n"), "{many}");
    for n in 0..20 {
        assert!(many.contains(&format!("\r\nX-{n}: v{n}\r\n")), "{many}");
    }
    assert!(get("/meta").starts_with("HTTP/1.1 202 Accepted\r\n"));
    for path in ["/status", "/field"] {
        let answer = get(path);
        assert!(answer.starts_with("HTTP/1.1 500 "), "{path}: {answer}");
    }
    let (_, stderr) = server.signal("-TERM");
    for words in [
        "in GET /status from",
        "status must be a whole number from 200 to 599, not 1000",
        "in GET /field from",
        "the value of header 'X-Bad' holds a line end",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert!(!stderr.contains("surface"), "{stderr}");
}
