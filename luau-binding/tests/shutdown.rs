//! `process.onShutdown`, and how a drain tells many WebSockets.

use crate::support::{Client, Served};

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
