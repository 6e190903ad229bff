//! `huki run --workers`: several threads, one port, one space of topics.

use crate::support::{Client, Frame, Served, huki};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Output;

/// Each worker tells a new socket its index. A socket can publish, and make its worker fail.
const SCRIPT: &str = r#"
    local net, task, process = require("@huki/net"), require("@huki/task"), require("@huki/process")
    local fails, index = false, process.worker.index
    assert(process.worker.count == 3)
    local server server = net.serve({ port = 0, websocket = {
        open = function(ws)
            ws:subscribe("all")
            ws:send(tostring(index))
        end,
        message = function(ws, message)
            if message == "fail" then fails = true
            elseif message == "exit" then process.exit(7)
            else
                for n = 1, 50 do server:publish("all", `{message} {n}`) end
            end
        end,
    } })
    if index == 1 then print(server.port) end
    -- Another listener of the same kind must not get the first one's port.
    local other other = net.serve({ port = 0, request = function() return tostring(other) end })
    assert(other.port ~= server.port)
    other:stop(0)
    while not fails do task.wait(0.01) end
    error("as told")
"#;

/// Connects until each of `count` workers has a socket; they come by chance.
fn one_of_each(server: &Served, count: usize) -> BTreeMap<u8, Client> {
    let mut clients = BTreeMap::new();
    for _ in 0..1_000 {
        if clients.len() == count {
            return clients;
        }
        let mut client = Client::open(server, "/", "");
        let index = client.receive().payload[0] - b'0';
        clients.entry(index).or_insert(client);
    }
    panic!("after 1000 connections only {:?}", clients.keys());
}

/// Connects until the worker that has failed serves again.
fn back(server: &Served, wanted: &[u8]) -> Client {
    loop {
        // One that came just before the listener was closed is lost with it.
        let opened = std::panic::catch_unwind(|| {
            let mut client = Client::open(server, "/", "");
            let index = client.receive().payload;
            (client, index)
        });
        if let Ok((client, index)) = opened
            && index == wanted
        {
            return client;
        }
    }
}

#[test]
fn a_message_published_by_one_worker_reaches_the_sockets_of_all_in_order() {
    let server = Served::in_workers("3", SCRIPT);
    let mut clients = one_of_each(&server, 3);
    assert_eq!(clients.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    for index in 1..=3 {
        clients
            .get_mut(&index)
            .expect("one of each")
            .text(&format!("from {index}"));
        for client in clients.values_mut() {
            for n in 1..=50 {
                client.expect_text(&format!("from {index} {n}"));
            }
        }
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn a_worker_that_fails_starts_again_and_the_others_go_on() {
    let server = Served::in_workers("3", SCRIPT);
    let mut clients = one_of_each(&server, 3);
    let mut failing = clients.remove(&2).expect("one of each");
    failing.text("fail");
    // Its sockets go with it, without a word.
    let mut rest = Vec::new();
    let _cut = std::io::Read::read_to_end(&mut failing.0, &mut rest);
    // The others are where they were, and speak to the one that took its place.
    let mut again = back(&server, b"2");
    clients.get_mut(&1).expect("one of each").text("on");
    for client in clients.values_mut().chain([&mut again]) {
        client.expect_text("on 1");
    }
    let (status, stderr) = server.signal("-TERM");
    assert_eq!(status, Some(0), "{stderr}");
    let told = "huki: worker 2 has failed and starts again in 0.1 s:\nstdin:";
    assert!(stderr.starts_with(told), "{stderr}");
    assert_eq!(stderr.matches("as told").count(), 1, "{stderr}");
}

/// Sockets join and leave, tell all of it, and ask how many are subscribed.
const COUNTING: &str = r#"
    local net, task, process = require("@huki/net"), require("@huki/task"), require("@huki/process")
    local fails, index = false, tostring(process.worker.index)
    local server server = net.serve({ port = 0, websocket = {
        open = function(ws)
            local own = server:subscribers(`own/{index}`)
            ws:subscribe(`own/{index}`)
            assert(server:subscribers(`own/{index}`) == own + 1)
            ws:subscribe("all")
            ws:send(index)
        end,
        message = function(ws, message)
            local verb, topic = string.match(message, "^(%l+) ?(.*)$")
            if verb == "fail" then fails = true
            elseif verb == "count" then ws:send(tostring(server:subscribers(topic)))
            else
                if verb == "join" then ws:subscribe(topic) else ws:unsubscribe(topic) end
                server:publish("all", message)
            end
        end,
    } })
    if index == "1" then print(server.port) end
    while not fails do task.wait(0.01) end
    error("as told")
"#;

/// Asks until `topic` has `count` subscribers: what another worker has not told yet, it will.
#[track_caller]
fn comes_to(client: &mut Client, topic: &str, count: usize) {
    let mut told = count_of(client, topic);
    // Far more often than the others need to turn once.
    for _ in 0..200_000 {
        if told == count.to_string() {
            return;
        }
        told = count_of(client, topic);
    }
    panic!("{told} subscribers of {topic}, not {count}");
}

/// What its worker says how many are subscribed.
fn count_of(client: &mut Client, topic: &str) -> String {
    client.text(&format!("count {topic}"));
    String::from_utf8(client.receive().payload).expect("UTF-8")
}

#[test]
fn subscribers_are_counted_over_all_workers_as_they_join_leave_fail_and_come_back() {
    let server = Served::in_workers("3", COUNTING);
    let mut clients = one_of_each(&server, 3);
    // Who has heard of it knows it: nobody has to ask twice.
    let steps = [("join", 1, 1), ("join", 2, 2), ("join", 3, 3)];
    let steps = steps.into_iter().chain([("leave", 2, 2), ("join", 2, 3)]);
    for (verb, who, count) in steps {
        let told = format!("{verb} room");
        clients.get_mut(&who).expect("one of each").text(&told);
        for client in clients.values_mut() {
            client.expect_text(&told);
            assert_eq!(count_of(client, "room"), count.to_string());
        }
    }
    // With a worker that fails its subscribers go.
    let mut failing = clients.remove(&2).expect("one of each");
    failing.text("fail");
    let mut rest = Vec::new();
    let _cut = std::io::Read::read_to_end(&mut failing.0, &mut rest);
    for client in clients.values_mut() {
        comes_to(client, "room", 2);
        comes_to(client, "own/2", 0);
    }
    // The one that takes its place knows of the others, and they of it.
    let mut again = back(&server, b"2");
    again.text("join room");
    for client in clients.values_mut().chain([&mut again]) {
        client.expect_text("join room");
        assert_eq!(count_of(client, "room"), "3");
        comes_to(client, "own/2", 1);
        comes_to(client, "all", 3);
    }
    // Sockets that end leave their topics.
    drop(clients.remove(&1));
    drop(again);
    let mut last = clients.remove(&3).expect("one of each");
    comes_to(&mut last, "room", 1);
    comes_to(&mut last, "all", 1);
    comes_to(&mut last, "own/1", 0);
    let (status, stderr) = server.signal("-TERM");
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(stderr.matches("error").count(), 0, "{stderr}");
}

#[test]
fn process_exit_ends_all_workers_with_its_status() {
    let server = Served::in_workers("3", SCRIPT);
    let mut clients = one_of_each(&server, 3);
    clients.get_mut(&3).expect("one of each").text("exit");
    for client in clients.values_mut() {
        let mut rest = Vec::new();
        let _cut = std::io::Read::read_to_end(&mut client.0, &mut rest);
    }
    let output = server.wait();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_signal_drains_all_workers() {
    let server = Served::in_workers("3", SCRIPT);
    let mut clients = one_of_each(&server, 3);
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| server.signal("-TERM"));
        for client in clients.values_mut() {
            let close = client.receive();
            assert_eq!(close, Frame::close(1001, "server is shutting down"));
            client.send(8, &close.payload);
        }
        ended.join().expect("it does not panic")
    });
    assert_eq!(ended, (Some(0), String::new()));
}

fn run(workers: &str, script: &str) -> Output {
    let mut child = huki(&["run", "--workers", workers, "-"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(script.as_bytes()).expect("huki reads it");
    drop(stdin);
    child.wait_with_output().expect("huki ends")
}

#[test]
fn a_script_that_cannot_start_says_so_once() {
    for (script, told) in [("error('no')", "stdin:1: no\n"), ("local", "stdin:1: ")] {
        let output = run("4", script);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(stderr.starts_with(told), "{stderr}");
        assert_eq!(stderr.matches("stdin:1").count(), 1, "{stderr}");
    }
}

#[test]
fn a_port_of_another_process_is_in_use_though_workers_share_theirs() {
    let script = "local net = require('@huki/net')
        local server = net.serve(PORT, function() return 'hi' end)
        if require('@huki/process').worker.index == 1 then print(server.port) end";
    let server = Served::in_workers("2", &script.replace("PORT", "0"));
    let output = run("2", &script.replace("PORT", &server.port.to_string()));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the address is in use"), "{stderr}");
    assert_eq!(server.stop(), "");
}

#[test]
fn scripts_that_end_have_run_once_for_each_worker() {
    let output = run(
        "3",
        "local worker = require('@huki/process').worker print(`{worker.index} of {worker.count}`)",
    );
    let mut lines: Vec<_> = std::str::from_utf8(&output.stdout)
        .expect("UTF-8")
        .lines()
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1 of 3", "2 of 3", "3 of 3"], "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}
