//! `balance = "connections"`: one worker accepts, and whoever serves the fewest gets the next. Sockets
//! in the file system are always shared in this way.

use crate::support::{Client, PATIENCE, Served, huki};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Each worker tells a new socket, or who asks, its index. A socket can make it fail.
const SCRIPT: &str = r#"
    local net, task, process = require("@huki/net"), require("@huki/task"), require("@huki/process")
    local fails, index = false, tostring(process.worker.index)
    local server
    server = net.serve({ port = 0, balance = "connections", OPTIONS
        request = function() return index end,
        websocket = {
            open = function(ws) ws:subscribe("all") ws:send(index) end,
            message = function(ws, message)
                fails = message == "fail"
                server:publish("all", message)
            end,
        },
    })
    if index == "1" then print(server.port) end
    while not fails do task.wait(0.01) end
    error("as told")
"#;

/// Opens a socket; who serves it.
fn open(server: &Served) -> (Client, u8) {
    let mut client = Client::open(server, "/", "");
    let index = client.receive().payload[0];
    (client, index)
}

/// A connection that has asked, and who has answered; `None` if it was turned away.
fn ask(server: &Served) -> Option<(TcpStream, u8)> {
    let mut stream = server.connect();
    let request = b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut answer = [0; 1024];
    stream.write_all(request).ok()?;
    let count = stream.read(&mut answer).ok()?;
    let index = *answer[..count].last()?;
    Some((stream, index))
}

/// Opens sockets until all of `workers` have one: the others come when the first has started.
fn all(server: &Served, workers: &str) -> Vec<(Client, u8)> {
    let mut clients = vec![open(server)];
    while workers
        .bytes()
        .any(|w| clients.iter().all(|(_, i)| *i != w))
    {
        clients.push(open(server));
    }
    clients
}

fn counts(clients: &[(Client, u8)]) -> BTreeMap<char, usize> {
    let mut counts = BTreeMap::new();
    for (_, index) in clients {
        *counts.entry(char::from(*index)).or_default() += 1;
    }
    counts
}

#[test]
fn the_worker_with_the_fewest_connections_gets_the_next() {
    let server = Served::in_workers("3", &SCRIPT.replace("OPTIONS", ""));
    let mut clients = all(&server, "123");
    // Those who came late catch up: it is connections that are even, not what was accepted.
    let most = counts(&clients).into_values().max().expect("three");
    while clients.len() < 3 * most + 9 {
        clients.push(open(&server));
    }
    let even = most + 3;
    assert_eq!(
        counts(&clients),
        BTreeMap::from([('1', even), ('2', even), ('3', even)])
    );
    // They are sockets like others.
    clients[0].0.text("hear");
    for (client, _) in &mut clients {
        client.expect_text("hear");
    }
    let (status, stderr) = std::thread::scope(|scope| {
        let ended = scope.spawn(|| server.signal("-TERM"));
        for (client, _) in &mut clients {
            let close = client.receive();
            client.send(8, &close.payload);
        }
        ended.join().expect("it does not panic")
    });
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
}

/// The first worker accepts; the others do not. The port outlives either.
#[test]
fn a_worker_that_is_down_gets_nothing_and_nobody_is_turned_away_meanwhile() {
    for failing in [b'1', b'2'] {
        let server = Served::in_workers("2", &SCRIPT.replace("OPTIONS", ""));
        let clients = all(&server, "12");
        let is_its = |(_, index): &(Client, u8)| *index == failing;
        let (mut its, others): (Vec<_>, Vec<_>) = clients.into_iter().partition(is_its);
        its[0].0.text("fail");
        for (mut client, _) in its {
            let mut rest = Vec::new();
            let _cut = client.0.read_to_end(&mut rest);
        }
        // It is down for a tenth of a second at least; each of these is served, by whoever is there.
        for _ in 0..40 {
            let (_, index) = open(&server);
            assert!(b"12".contains(&index));
        }
        while open(&server).1 != failing {}
        drop(others);
        let (status, stderr) = server.signal("-TERM");
        assert_eq!(status, Some(0), "{stderr}");
        assert_eq!(
            stderr.matches("starts again in 0.1 s").count(),
            1,
            "{stderr}"
        );
    }
}

/// What one worker accepts and another serves is bounded as what it accepts itself; what one address has, at both together.
#[test]
fn limits_hold_for_connections_that_were_handed_over() {
    let limits = "limits = { connectionsPerIp = 4, connections = 3 },";
    let server = Served::in_workers("2", &SCRIPT.replace("OPTIONS", limits));
    let mut held = Vec::new();
    // Until the second worker has started, the fourth waits.
    while held.len() < 4 {
        held.extend(ask(&server));
    }
    let first = held.iter().filter(|(_, index)| *index == b'1').count();
    assert!((1..=3).contains(&first), "{first}");
    for _ in 0..3 {
        assert!(ask(&server).is_none());
    }
    drop(held.pop());
    // Its place is free as soon as its worker has noticed.
    while ask(&server).is_none() {}
    drop(held);
    assert_eq!(server.stop(), "");
}

#[test]
fn workers_that_are_full_leave_connections_waiting_and_lose_none() {
    let limits = "limits = { connections = 1 },";
    let server = Served::in_workers("2", &SCRIPT.replace("OPTIONS", limits));
    let mut first = vec![open(&server)];
    // The second worker may not be there yet, and then the first is full.
    first.push(open(&server));
    assert_eq!(counts(&first), BTreeMap::from([('1', 1), ('2', 1)]));
    let mut waiting: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for stream in &mut waiting {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("it is connected");
    }
    drop(first);
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(server.stop(), "");
}

/// Who is connected when the signal comes has been accepted as far as it can know.
#[test]
fn a_drain_answers_all_who_have_connected() {
    let server = Served::in_workers("3", &SCRIPT.replace("OPTIONS", ""));
    let sockets = all(&server, "123");
    drop(sockets);
    let mut asking: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    for stream in &mut asking {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).expect("it is connected");
    }
    let (status, stderr) = server.signal("-TERM");
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for stream in &mut asking {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    }
}

#[test]
fn workers_share_a_socket_in_the_file_system_and_it_goes_with_the_last() {
    use std::os::unix::net::UnixStream;
    let path = std::env::temp_dir().join(format!("huki-{}.sock", std::process::id()));
    let address = format!("address = \"unix:{}\",", path.display());
    let script = SCRIPT.replace("balance = \"connections\",", "");
    let server = Served::in_workers("3", &script.replace("OPTIONS", &address));
    let mut streams = Vec::new();
    let mut seen = BTreeMap::new();
    while seen.len() < 3 || seen.values().any(|count| *count < 2) {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).expect("it reads");
        let mut answer = [0; 1024];
        let count = stream.read(&mut answer).expect("it answers");
        *seen.entry(answer[count - 1]).or_insert(0) += 1;
        streams.push(stream);
        assert!(streams.len() < 1_000, "{seen:?}");
    }
    assert_eq!(server.stop(), "");
    assert!(!path.exists());
}

#[test]
fn workers_that_share_by_handing_over_notice_a_port_of_another_process() {
    let script = "local net = require('@huki/net')
        local server = net.serve({ port = PORT, balance = 'connections', request = function() return '' end })
        if require('@huki/process').worker.index == 1 then print(server.port) end";
    let server = Served::in_workers("2", &script.replace("PORT", "0"));
    let mut child = huki(&["run", "--workers", "2", "-"]);
    let mut stdin = child.stdin.take().expect("piped");
    let taken = script.replace("PORT", &server.port.to_string());
    stdin.write_all(taken.as_bytes()).expect("huki reads it");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the address is in use"), "{stderr}");
    assert_eq!(server.stop(), "");
}

/// Port 0 twice is two ports; and when the worker that accepts for all stops listening, another does.
#[test]
fn a_server_that_stops_leaves_its_port_to_the_other_workers() {
    let script = r#"
        local net, process = require("@huki/net"), require("@huki/process")
        local index = tostring(process.worker.index)
        local server
        local options = { port = 0, balance = "connections", request = function(request)
            if request.path == "/stop" and index == "1" then server:stop() end
            return index
        end }
        local other = net.serve(options)
        server = net.serve(options)
        assert(server.port ~= other.port)
        if index == "1" then print(server.port) end
    "#;
    let server = Served::in_workers("2", script);
    while server.get("/").1 != "2" {}
    while server.get("/stop").1 != "1" {}
    for _ in 0..20 {
        assert_eq!(server.get("/").1, "2");
    }
    assert_eq!(server.stop(), "");
}
