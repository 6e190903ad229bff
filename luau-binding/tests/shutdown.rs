//! `process.onShutdown`, and how a drain tells many WebSockets.

use crate::support::{Client, PATIENCE, Served};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;

#[test]
fn functions_run_when_the_process_is_asked_to_end_and_are_waited_for() {
    let server = Served::start(
        r#"local process = require("@huki/process")
        local function say(text) require("@huki/stdio").ewrite(text .. "\n") end
        assert(not pcall(process.onShutdown, 7))
        process.onShutdown(function()
            say("first")
            task.wait(0.05)
            process.onShutdown(function() say("last") end)
            say("saved")
        end)
        process.onShutdown(function() say("second") end)
        server = net.serve(0, function() return "hi" end)
        task.every(100, function() end)"#,
    );
    assert_eq!(server.get("/").1, "hi");
    let (status, stderr) = server.signal("-TERM");
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(stderr, "first\nsecond\nsaved\nlast\n");
}

#[test]
fn one_that_fails_is_reported_and_does_not_keep_the_process() {
    let server = Served::start(
        "require('@huki/process').onShutdown(function() task.wait() error('no disk') end)
        server = net.serve(0, function() return 'hi' end)",
    );
    let (status, stderr) = server.signal("-INT");
    assert_eq!(status, Some(0), "{stderr}");
    let told = "error in process.onShutdown: stdin:1: no disk";
    assert!(stderr.starts_with(told), "{stderr}");
}

#[test]
fn many_sockets_are_told_one_after_the_other_and_all_before_the_grace_is_over() {
    let mut server = Served::start(
        r#"local codes = {}
        server = net.serve({ port = 0, websocket = {
            message = function(ws, message)
                if message == "stop" then
                    server:stop(6)
                else
                    print(message)
                end
            end,
            close = function(ws, code)
                codes[code] = (codes[code] or 0) + 1
                if codes[1001] == 100 then print("all") end
            end,
        } })"#,
    );
    let mut clients: Vec<_> = (0..100).map(|_| Client::open(&server, "/", "")).collect();
    clients[0].text("stop");
    let mut told = Vec::new();
    for client in &mut clients {
        let frame = client.receive();
        told.push((frame.opcode, frame.payload[..2].to_vec()));
        client.send(8, &frame.payload);
    }
    assert!(
        told.iter()
            .all(|(opcode, code)| *opcode == 8 && code == &1001_u16.to_be_bytes())
    );
    assert_eq!(server.line(), "all");
    drop(clients);
    assert_eq!(server.wait().status.code(), Some(0));
}

/// A signal that comes while the first one's drain waits for a socket: nothing is waited for.
#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (signal, status) in [("-TERM", 143), ("-INT", 130)] {
        let server = Served::start(
            "require('@huki/process').onShutdown(function() task.wait(60) end)
            server = net.serve({ port = 0, websocket = {} })",
        );
        let mut client = Client::open(&server, "/", "");
        server.kill("-TERM");
        let farewell = client.receive();
        assert_eq!(farewell.payload[..2], 1001_u16.to_be_bytes());
        assert_eq!(server.signal(signal), (Some(status), String::new()));
    }
}

/// Asks on one connection after another until nobody listens, and tells of each answer.
fn keep_asking(port: u16, told: &Sender<()>) -> usize {
    let mut count = 0;
    while let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        while stream.write_all(get).is_ok() {
            let (mut answer, mut byte) = (Vec::new(), [0]);
            while !answer.ends_with(b"whole") && matches!(stream.read(&mut byte), Ok(1)) {
                answer.push(byte[0]);
            }
            if answer.is_empty() {
                // It was closed before our question came: one that was never taken.
                break;
            }
            let shown = String::from_utf8_lossy(&answer);
            assert!(answer.ends_with(b"whole"), "half an answer: {shown}");
            count += 1;
            // Who counts may have stopped.
            let _ = told.send(());
        }
    }
    count
}

#[test]
fn a_drain_under_load_answers_whatever_has_reached_a_handler() {
    let server = Served::start(
        "local stdio = require('@huki/stdio')
        server = net.serve(0, function()
            stdio.ewrite('x')
            task.wait(math.random() / 50)
            return 'whole'
        end)",
    );
    let (told, answers) = channel();
    let port = server.port;
    let askers = (0..12).map(|_| {
        let told = told.clone();
        thread::spawn(move || keep_asking(port, &told))
    });
    let askers: Vec<_> = askers.collect();
    for _ in 0..300 {
        answers.recv_timeout(PATIENCE).expect("it is served");
    }
    let (status, asked) = server.signal("-TERM");
    assert_eq!(status, Some(0), "{asked}");
    let answered = askers
        .into_iter()
        .map(|asker| asker.join().expect("whole answers"));
    assert_eq!(asked, "x".repeat(answered.sum()));
}
