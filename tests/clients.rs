//! Clients of other hands: curl, and the `websockets` package of Python. Where one is missing the
//! test says that it is skipped; where `HUKI_REQUIRE_CLIENTS` is set it fails instead.

use crate::harness::{Huki, clients_required, folder, has_client, repository};
use crate::http::ECHO;
use std::process::Command;

/// Runs curl with `arguments`; what it printed.
#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(arguments)
        .output()
        .expect("curl runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("answers are text")
}

#[test]
fn curl_gets_posts_uploads_and_keeps_its_connection() {
    if !has_client("curl") {
        return;
    }
    let huki = Huki::serve(ECHO);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", huki.port);
    assert_eq!(curl(&[&url("/a?b=c")]), "GET /a?b=c 0 ");
    assert_eq!(curl(&["--data", "k=v", &url("/form")]), "POST /form 3 k=v");
    assert_eq!(curl(&["--http1.0", &url("/old")]), "GET /old 0 ");
    let head = curl(&["--head", &url("/large")]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("content-length: 1048576\r\n"),
        "{head}"
    );

    // Two transfers, one connection.
    let both = curl(&[
        "--write-out",
        " connects %{num_connects};",
        &url("/1"),
        &url("/2"),
    ]);
    assert_eq!(both, "GET /1 0  connects 1;GET /2 0  connects 0;");

    // An upload with `Expect: 100-continue`, and one of unknown length, which is chunked.
    let file = folder("curl").join("upload");
    std::fs::write(&file, "x".repeat(5000)).expect("target is writable");
    let file = file.to_str().expect("paths are UTF-8");
    let answer = curl(&[
        "--header",
        "Expect: 100-continue",
        "--upload-file",
        file,
        &url("/up"),
    ]);
    assert!(answer.starts_with("PUT /up 5000 x"), "{answer}");
    let chunked = [
        "--header",
        "Transfer-Encoding: chunked",
        "--upload-file",
        file,
    ];
    let answer = curl(&[&chunked[..], &[&url("/up")]].concat());
    assert!(answer.starts_with("PUT /up 5000 x"), "{answer}");

    // A body over the limit: the status arrives although curl is still sending.
    std::fs::write(file, "x".repeat(3_000_000)).expect("target is writable");
    let refused = [
        "--output",
        "-",
        "--write-out",
        "%{http_code}",
        "--upload-file",
        file,
    ];
    let answer = curl(&[&refused[..], &[&url("/up")]].concat());
    assert!(answer.ends_with("413"), "{answer}");
}

/// What the Python client does; it exits with 0 if everything was as it should be.
const PYTHON: &str = r#"
import asyncio, sys
import websockets

async def main(url):
    async with websockets.connect(url, compression=None, max_size=None) as ws:
        for message in ["", "hello", "é" * 10000, b"", b"\x00\xff" * 20000]:
            await ws.send(message)
            assert await ws.recv() == message, message
        await ws.send(["frag", "men", "ted"])
        assert await ws.recv() == "fragmented"
        pong = await ws.ping(b"are you there")
        await asyncio.wait_for(pong, 10)
    assert ws.close_code == 1000, ws.close_code
    async with websockets.connect(url) as ws:
        await ws.send("with deflate offered")
        assert await ws.recv() == "with deflate offered"
        try:
            await ws.send("x" * 100000)
            await ws.recv()
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1009, closed
        else:
            raise AssertionError("a message over the limit was taken")

asyncio.run(main(sys.argv[1]))
"#;

/// A Python that has `websockets`: that of the environment `.ci/run` makes, else the system's.
fn python() -> Option<String> {
    let own = repository().join("target/clients/bin/python3");
    let candidates = [own.to_string_lossy().into_owned(), "python3".to_owned()];
    candidates.into_iter().find(|python| {
        let probe = Command::new(python)
            .args(["-c", "import websockets"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn python_websockets_talks_to_us() {
    let Some(python) = python() else {
        assert!(
            !clients_required(),
            "the Python package websockets is required here"
        );
        eprintln!("skipped: no Python with the package websockets");
        return;
    };
    let huki = Huki::serve(
        r#"
        local server = net.serve({
            port = 0,
            request = function() return "plain" end,
            websocket = { message = function(ws, message) ws:send(message) end, maxMessageBytes = 65536 },
        })
        print(`port {server.port}`)
        "#,
    );
    let url = format!("ws://127.0.0.1:{}/", huki.port);
    let output = Command::new(python)
        .args(["-c", PYTHON, &url])
        .output()
        .expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
