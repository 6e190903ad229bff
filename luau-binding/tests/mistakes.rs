//! The mistakes that scripts make, and exactly what they are told: `mistakes.md`, case by case.
//!
//! `UPDATE=1 cargo test -p hukilau mistakes` writes what they are told now; the difference is the review.

use crate::support::{Client, Served};
use hukilau::{Options, Runtime, STDIN_CHUNK};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the code of a case runs: the word behind `luau`.
const PLACES: &[&str] = &["", "request", "socket", "closed", "upgrade"];

/// One case of the file.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    place: String,
    code: String,
    told: String,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes.md")
}

/// The cases of `text`: a block of Luau, and a block of text behind it.
fn cases(text: &str) -> Vec<Case> {
    let blocks: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
    let body = |block: &str| block.split_once('\n').map(|(_, body)| body.to_owned());
    blocks
        .chunks(2)
        .map(|pair| {
            let info = pair[0].lines().next().unwrap_or_default();
            let place = info.strip_prefix("luau").expect("a block of Luau first");
            assert!(pair[1].starts_with("text\n"), "{pair:?}");
            Case {
                place: place.trim().to_owned(),
                code: body(pair[0]).expect("it has lines"),
                told: body(pair[1]).expect("it has lines"),
            }
        })
        .collect()
}

/// What the script of a case is told: its message, without the calls that led to it.
fn told(case: &Case) -> String {
    let code = case.code.trim_end();
    let message = if case.place.is_empty() {
        let prelude = "local net, task, process, stdio = require('@huki/net'), require('@huki/task'), \
                       require('@huki/process'), require('@huki/stdio') ";
        // One that is no mistake would serve for ever.
        let source = format!("{prelude}{code}\nprocess.exit(0)");
        let mut runtime = Runtime::new(&Options::default()).expect("a VM");
        match runtime.run_source(STDIN_CHUNK, source.as_bytes()) {
            Ok(status) => format!("nothing, and ends with {status}"),
            Err(error) => error.to_string(),
        }
    } else {
        told_in_a_callback(&case.place, code)
    };
    let message = message.split("\nstack traceback:").next();
    format!("{}\n", message.unwrap_or_default().trim_end())
}

/// The same, for code that runs in a callback: what the `error` callback hears.
fn told_in_a_callback(place: &str, code: &str) -> String {
    let callback = match place {
        "request" => format!("request = function(request, server) {code}\nend"),
        "upgrade" => format!("websocket = {{ upgrade = function(request) {code}\nend }}"),
        "socket" => format!("websocket = {{ message = function(ws, message) {code}\nend }}"),
        "closed" => format!("websocket = {{ close = function(ws) {code}\nend }}"),
        other => panic!("no place is called {other}; there are {PLACES:?}"),
    };
    // The message is one line behind the first; calls that led to it may follow.
    let mut server = Served::start(&format!(
        "local server = net.serve({{ port = 0, error = function(message) print(message) print('.') end, {callback} }})
        task.delay(10, function() print('nothing') print('.') end)"
    ));
    // What has asked stays until it is told.
    let _client = match place {
        "request" => {
            let form = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                        Content-Type: text/plain\r\nContent-Length: 9\r\n\r\n{\"a\": 1,}";
            let _ = server.exchange(form);
            None
        }
        "upgrade" => Some(Client::ask(&server, "/", "").0),
        "socket" => {
            let mut client = Client::open(&server, "/", "");
            client.text("hello");
            Some(client)
        }
        _ => {
            drop(Client::open(&server, "/", ""));
            None
        }
    };
    let mut text = String::new();
    loop {
        match server.line().as_str() {
            "." => return text,
            line => text.push_str(&format!("{line}\n")),
        }
    }
}

/// What each case is told now, a few at a time.
fn told_now(cases: &[Case]) -> Vec<String> {
    let share = cases.len().div_ceil(4);
    std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .chunks(share)
            .map(|cases| scope.spawn(move || cases.iter().map(told).collect::<Vec<_>>()))
            .collect();
        let told = threads.into_iter().map(|thread| thread.join());
        told.flat_map(|told| told.expect("no case panics"))
            .collect()
    })
}

#[test]
fn each_mistake_is_told_as_written_down() {
    let text = std::fs::read_to_string(path()).expect("the file is there");
    let cases = cases(&text);
    assert!(cases.len() > 100, "{} cases", cases.len());
    let now = told_now(&cases);
    if std::env::var_os("UPDATE").is_some() {
        let mut rest = text.as_str();
        let mut updated = String::new();
        for told in &now {
            let (before, behind) = rest.split_once("```text\n").expect("a block of text");
            let (_, behind) = behind.split_once("```").expect("it ends");
            let _ = write!(updated, "{before}```text\n{told}```");
            rest = behind;
        }
        std::fs::write(path(), updated + rest).expect("writable");
        return;
    }
    let mut wrong = String::new();
    for (case, now) in cases.iter().zip(now) {
        if now != case.told {
            let _ = writeln!(wrong, "{}told  {now}not   {}", case.code, case.told);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_message_names_its_line() {
    let text = std::fs::read_to_string(path()).expect("the file is there");
    for case in cases(&text) {
        assert!(case.told.starts_with("stdin:"), "{case:?}");
    }
}
