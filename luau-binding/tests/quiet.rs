//! A loop that has nothing to do waits: neither the end of a stream, nor a peer that has left, nor a listener beside
//! them makes it turn for nothing.

use hukilau::{Error, Options, Runtime, Turn};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long a turn of a loop with nothing to do waits.
const WAIT: Duration = Duration::from_millis(10);
/// Turns until a loop must have come to rest; one that spins takes them all.
const TURNS_MAX: usize = 5_000;

/// Takes a turn, and says whether it has waited as long as it might: nothing was there to do.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a turn has waited is what is tested, and only that it is not shorter"
)]
pub(crate) fn turn(runtime: &mut Runtime) -> (Result<Turn, Error>, bool) {
    let start = Instant::now();
    let turned = runtime.turn(Some(WAIT));
    (turned, start.elapsed() >= WAIT)
}

/// Takes turns until three on end have rested.
#[track_caller]
fn expect_rest(runtime: &mut Runtime, case: &str) {
    let mut rested = 0;
    for _ in 0..TURNS_MAX {
        let (turned, is_rest) = turn(runtime);
        turned.expect("no script fails");
        rested = if is_rest { rested + 1 } else { 0 };
        if rested == 3 {
            return;
        }
    }
    panic!("{case}: the loop turns for nothing");
}

const SERVER: &str = r#"
    local net, task = require("@huki/net"), require("@huki/task")
    local server = net.serve({
        port = 0,
        request = function(request)
            if request.path == "/wait" then
                task.wait(1000)
            elseif request.path == "/stream" then
                return { body = function(stream)
                    while stream:write(string.rep("x", 65536)) do end
                    task.wait(1000)
                end }
            end
            return "fine"
        end,
        websocket = { message = function() end, idleTimeout = 3600 },
    })
    tell(server.port)
"#;

/// A runtime that serves, and its port.
fn serve() -> (Runtime, u16) {
    let mut runtime = Runtime::new(&Options::default()).expect("a VM");
    let (told, port) = std::sync::mpsc::channel();
    let tell = runtime.lua().create_function(move |_, port: u16| {
        told.send(port).map_err(hukilau::mlua::Error::external)
    });
    let module = runtime.lua().create_table().expect("memory");
    module
        .raw_set("tell", tell.expect("memory"))
        .expect("a table");
    runtime.add_module("@app/test", module).expect("a name");
    let source = format!("local tell = require('@app/test').tell {SERVER}");
    runtime
        .start_source("=quiet", source.as_bytes())
        .expect("it compiles");
    let port = port.try_recv().expect("it listens");
    (runtime, port)
}

/// Sends `request`, lets the loop answer, and then ends the connection as `end` says.
#[track_caller]
fn check(request: &str, answers: bool, end: impl Fn(&TcpStream)) {
    let (mut runtime, port) = serve();
    expect_rest(&mut runtime, "a listener");
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    expect_rest(&mut runtime, "a connection that says nothing");
    client.write_all(request.as_bytes()).expect("it is open");
    expect_rest(&mut runtime, request);
    if answers {
        let mut head = [0; 12];
        client.read_exact(&mut head).expect("it answers");
        assert!(head.starts_with(b"HTTP/1.1 "));
    }
    end(&client);
    expect_rest(&mut runtime, &format!("{request} after the end"));
    drop(client);
    expect_rest(
        &mut runtime,
        &format!("{request} after the client has gone"),
    );
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_connection_at_its_end_does_not_keep_the_loop_turning() {
    for (request, answers) in [
        ("", false),
        ("GET / HT", false),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
        ("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", false),
        ("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
            false,
        ),
        (UPGRADE, true),
    ] {
        check(request, answers, |client| {
            client.shutdown(Shutdown::Write).expect("it is open");
        });
        check(request, answers, |client| {
            // The other side may have gone already.
            let _ = client.shutdown(Shutdown::Both);
        });
    }
}
