//! `--access-log` and `accessLog`: one line of JSON for each request, whatever it is made of.

use crate::support::{Client, Served, huki};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;

/// A log that no other test has.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let name = format!("huki-access-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    /// Its lines, without what differs from run to run.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).expect("it is UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.lines().map(plain).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A line without time and duration, whose forms are checked.
fn plain(line: &str) -> String {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let rest = line.strip_prefix("{\"time\":\"20").expect(line);
    let (time, rest) = rest.split_once("\",").expect(line);
    assert_eq!(time.len(), "26-11-21T18:15:50.123Z".len(), "{line}");
    let (before, rest) = rest.split_once("\"duration\":").expect(line);
    let (duration, after) = rest.split_once(',').expect(line);
    // Of what was refused nobody knows when it began.
    if !(duration == "null" && line.contains(",\"refused\":\"")) {
        assert!(duration.parse::<f64>().expect(line) < 60.0, "{line}");
    }
    format!("{{{before}{after}")
}

const SCRIPT: &str = r#"
    local server
    server = net.serve({ port = 0, ACCESS
        request = function(request)
            local path = request.path
            if path == "/error" then error("no")
            elseif path == "/nothing" then return nil
            elseif path == "/table" then return { status = 404, headers = { a = { "b", "c" } }, body = "nobody" }
            elseif path == "/stream" then
                return { body = function(stream) stream:write("12345") task.wait(0) stream:write("678") end }
            elseif path == "/never" then task.wait(1e6)
            end
            return "hello"
        end,
        websocket = {
            upgrade = function(request) return request.path == "/socket" end,
            message = function(ws, message) ws:send(message) end,
        },
        refusals = { [500] = { body = "a page of its own" } },
        error = function() end,
    })
"#;

fn ask(server: &Served, request: &[u8]) -> Vec<u8> {
    let mut stream = server.connect();
    stream.write_all(request).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    answer
}

#[test]
fn every_request_has_one_line_with_its_answer() {
    let file = File::new("answers");
    let options = ["--access-log", file.path()];
    let server = Served::start_with(&options, &SCRIPT.replace("ACCESS", ""));
    for path in ["/", "/nothing", "/table?q=1", "/stream", "/error"] {
        server.get(path);
    }
    let head = "HEAD /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    server.exchange(head);
    let post = "POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nUser-Agent: me/1 \"x\"\r\n\
                Referer: http://a/\r\nConnection: close\r\n\r\nabc";
    server.exchange(post);
    let (mut client, _) = Client::ask(&server, "/socket", "");
    client.text("x");
    client.expect_text("x");
    Client::ask(&server, "/refused", "");
    drop(client);
    assert_eq!(server.stop(), "");
    let from = "{\"remote\":\"127.0.0.1\",";
    let line = |method: &str, target: &str, status: u16, bytes: usize| {
        format!(
            "{from}\"method\":\"{method}\",\"target\":\"{target}\",\"status\":{status},\"bytes\":{bytes},\"worker\":1}}"
        )
    };
    let posted = line("POST", "/form", 200, 5).replace(
        "}",
        ",\"agent\":\"me/1 \\\"x\\\"\",\"referrer\":\"http://a/\"}",
    );
    assert_eq!(
        file.lines(),
        [
            line("GET", "/", 200, 5),
            line("GET", "/nothing", 204, 0),
            line("GET", "/table?q=1", 404, 6),
            line("GET", "/stream", 200, 8),
            line("GET", "/error", 500, "a page of its own".len()),
            line("HEAD", "/stream", 200, 0),
            posted,
            line("GET", "/socket", 101, 0),
            line("GET", "/refused", 403, "Forbidden\n".len()),
        ]
    );
}

#[test]
fn a_request_whose_peer_leaves_has_a_line_without_a_status() {
    let file = File::new("left");
    let access = format!(
        "accessLog = {{ path = \"{}\", agent = false }},",
        file.path()
    );
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    let mut stream = server.connect();
    let requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\
                    User-Agent: me\r\nReferer: r\r\n\r\n";
    stream.write_all(requests.as_bytes()).expect("it reads");
    assert!(stream.peek(&mut [0]).expect("it answers") > 0);
    // What is closed with an answer unread is reset.
    drop(stream);
    let line = |path: &str, rest: &str| {
        format!("{{\"remote\":\"127.0.0.1\",\"method\":\"GET\",\"target\":\"{path}\",{rest}}}")
    };
    while file.lines().len() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(
        file.lines(),
        [
            line("/", "\"status\":200,\"bytes\":5,\"worker\":1"),
            line(
                "/never",
                "\"status\":null,\"bytes\":0,\"worker\":1,\"referrer\":\"r\",\"cut\":true"
            ),
        ]
    );
    assert_eq!(server.stop(), "");
}

/// The line of a request that was refused: what is empty is not known.
fn line(method: &str, target: &str, status: u16, bytes: usize, rule: &str) -> String {
    let quoted = |text: &str| match text {
        "" => "null".to_owned(),
        text => format!("\"{text}\""),
    };
    let (method, target) = (quoted(method), quoted(target));
    format!(
        "{{\"remote\":\"127.0.0.1\",\"method\":{method},\"target\":{target},\"status\":{status},\"bytes\":{bytes},\"worker\":1,\
         \"refused\":\"{rule}\"}}"
    )
}

/// Of which no script hears, or whose answer core gives because something of it did not come.
#[test]
fn what_is_refused_without_the_script_has_a_line_that_says_why() {
    let file = File::new("refused");
    let access = format!(
        "accessLog = \"{}\", limits = {{ bodyBytes = 10, targetBytes = 100, bodyTimeout = 0.05 }},",
        file.path()
    );
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    let long = "x".repeat(101);
    let cases = [
        (
            "GET /\x1b[31m\"\u{e9} HTTP/1.1\r\n\r\n",
            line(
                "GET",
                "/\\u001b[31m\\\"\u{e9}",
                400,
                42,
                "malformed request-target",
            ),
        ),
        (
            "GET / HTTP/1.1\r\n\r\n",
            line("GET", "/", 400, 25, "no Host"),
        ),
        (
            &format!("GET /{long} HTTP/1.1\r\n\r\n"),
            line(
                "GET",
                &format!("/{long}"),
                414,
                45,
                "request-target too long",
            ),
        ),
        (
            "GET / HTTP/3.0\r\n\r\n",
            line("GET", "/", 505, 47, "HTTP version not supported"),
        ),
        (
            "\x16\x03\x01 \r\n\r\n",
            line("\\u0016\\u0003\\u0001", "", 400, 34, "malformed method"),
        ),
        (
            "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n",
            line("PUT", "/p", 413, 36, "body too large"),
        ),
        (
            "PUT /late HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            line("PUT", "/late", 408, 0, "body not whole in time"),
        ),
        (
            "PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            line("PUT", "/c", 400, 38, "malformed chunk-size"),
        ),
    ];
    for (request, line) in &cases {
        let answer = ask(&server, request.as_bytes());
        let status = line.split_once("\"status\":").expect("a status").1;
        let head = format!("HTTP/1.1 {} ", &status[..3]);
        assert!(answer.starts_with(head.as_bytes()), "{request:?}");
    }
    assert_eq!(server.stop(), "");
    let lines = file.lines();
    let refused: Vec<_> = cases.iter().map(|(_, line)| line.clone()).collect();
    assert_eq!(lines, refused);
}

#[test]
fn who_is_turned_away_for_his_address_has_a_line_without_a_status() {
    let file = File::new("away");
    let access = format!(
        "accessLog = \"{}\", limits = {{ connectionsPerIp = 1 }},",
        file.path()
    );
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    let asks = |stream: &mut std::net::TcpStream| {
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let answered = asked.and_then(|()| stream.read(&mut [0; 1_024]));
        answered.is_ok_and(|count| count > 0)
    };
    let mut first = server.connect();
    assert!(asks(&mut first));
    assert!(!asks(&mut server.connect()));
    drop(first);
    assert_eq!(server.stop(), "");
    let lines = file.lines();
    let away = "{\"remote\":\"127.0.0.1\",\"method\":null,\"target\":null,\"status\":null,\"bytes\":0,\"worker\":1,\
                \"refused\":\"too many connections of one address\"}";
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], away);
}

/// What a peer can put into a request, and what a terminal or a reader of lines might act on.
#[test]
fn hostile_targets_and_fields_stay_within_their_line() {
    let file = File::new("hostile");
    let access = format!("accessLog = \"{}\",", file.path());
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    let mut request = b"GET /%0a%1b[31m\"},{\"\\x?<script> HTTP/1.1\r\nHost: x\r\n".to_vec();
    request.extend_from_slice(b"Connection: close\r\nUser-Agent: \"}\\\t");
    request.extend_from_slice(b"\xff\xe2\x80\xa8\xc2\x9b31m\r\nReferer: ");
    request.extend_from_slice(&[b'a'; 5_000]);
    request.extend_from_slice(b"\r\n\r\n");
    let answer = ask(&server, &request);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
    assert_eq!(server.stop(), "");
    let referrer = "a".repeat(2_047);
    assert_eq!(
        file.lines(),
        [format!(
            "{{\"remote\":\"127.0.0.1\",\"method\":\"GET\",\"target\":\"/%0a%1b[31m\\\"}},{{\\\"\\\\x?<script>\",\"status\":200,\"bytes\":5,\
             \"worker\":1,\"agent\":\"\\\"}}\\\\\\u0009\\u00ff\\u2028\\u009b31m\",\"referrer\":\"{referrer}…\"}}"
        )]
    );
}

#[test]
fn clients_behind_a_proxy_have_their_own_address_even_if_they_are_refused() {
    let file = File::new("proxy");
    let access = format!(
        "accessLog = \"{}\", trustProxy = {{ \"127.0.0.1\" }}, limits = {{ requestsPerSecondPerIp = 1 }},",
        file.path()
    );
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.9.8.7\r\nConnection: close\r\n\r\n";
    let mut refused = 0;
    while refused == 0 {
        refused += usize::from(server.exchange(request).starts_with("HTTP/1.1 429"));
    }
    assert_eq!(server.stop(), "");
    let lines = file.lines();
    assert!(lines.len() > 1);
    for line in &lines {
        assert!(line.starts_with("{\"remote\":\"10.9.8.7\","), "{line}");
    }
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("\"status\":429"))
    );
}

/// Who rotates logs renames the file, and then sends SIGHUP.
#[test]
fn sighup_opens_the_file_anew_and_ends_nothing() {
    let file = File::new("rotate");
    let old = File::new("rotate.1");
    let options = ["--workers", "2", "--access-log", file.path()];
    let script = SCRIPT.replace("ACCESS", "");
    let prelude = "local net, task = require('@huki/net'), require('@huki/task') ";
    let mut child = huki(&[&["run"], &options[..], &["-"]].concat());
    let id = child.id().to_string();
    let mut stdin = child.stdin.take().expect("piped");
    let print = "if require('@huki/process').worker.index == 1 then print(server.port) end";
    let source = format!("{prelude}{script}{print}");
    stdin.write_all(source.as_bytes()).expect("huki reads it");
    drop(stdin);
    let server = Served::of(child);
    server.get("/old");
    while file.lines().is_empty() {
        std::thread::yield_now();
    }
    std::fs::rename(&file.0, &old.0).expect("the folder is ours");
    let status = Command::new("kill").args(["-HUP", &id]).status();
    assert!(status.expect("kill is there").success());
    while !file.0.exists() {
        std::thread::yield_now();
    }
    server.get("/new");
    assert_eq!(server.stop(), "");
    let targets = |file: &File| -> Vec<bool> {
        let lines = file.lines();
        lines
            .iter()
            .map(|line| line.contains("\"target\":\"/new\""))
            .collect()
    };
    assert_eq!((targets(&old), targets(&file)), (vec![false], vec![true]));
}

/// A pipe that nobody reads from would hold up who opens it for ever.
#[test]
fn a_pipe_without_a_reader_and_a_folder_are_refused_and_a_pipe_with_one_takes_lines() {
    let pipe = File::new("pipe");
    let made = Command::new("mkfifo").arg(pipe.path()).status();
    assert!(made.expect("mkfifo is there").success());
    let folder = std::env::temp_dir();
    for place in [pipe.path(), folder.to_str().expect("UTF-8")] {
        let source = format!(
            "require('@huki/net').serve({{ port = 0, request = print, accessLog = '{place}' }})"
        );
        let output = crate::support::run(&source, &[]);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let named = format!("option 'accessLog': cannot open \"{place}\": ");
        assert!(stderr.contains(&named), "{stderr}");
    }
    let mut reader = Command::new("cat");
    let reader = reader.arg(pipe.path()).stdout(std::process::Stdio::piped());
    let reader = reader.spawn().expect("cat is there");
    let access = format!("accessLog = \"{}\",", pipe.path());
    let server = Served::start(&SCRIPT.replace("ACCESS", &access));
    server.get("/");
    assert_eq!(server.stop(), "");
    let read = reader.wait_with_output().expect("it reads to the end");
    let text = String::from_utf8(read.stdout).expect("UTF-8");
    let lines: Vec<_> = text.lines().map(plain).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("\"status\":200"),
        "{text}"
    );
}

#[test]
fn standard_output_takes_whole_lines_and_a_wrong_place_is_refused() {
    let mut server = Served::start_with(&["--access-log", "-"], &SCRIPT.replace("ACCESS", ""));
    server.get("/");
    assert!(plain(&server.line()).contains("\"status\":200"));
    assert_eq!(server.stop(), "");

    // A server may want none, whatever the command says.
    let file = File::new("none");
    let options = ["--access-log", file.path()];
    let server = Served::start_with(&options, &SCRIPT.replace("ACCESS", "accessLog = false,"));
    server.get("/");
    assert_eq!(server.stop(), "");
    assert_eq!(file.lines(), Vec::<String>::new());

    let output = huki(&["run", "--access-log", "/no/such/folder/log", "-"])
        .wait_with_output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("/no/such/folder/log"), "{stderr}");
}
