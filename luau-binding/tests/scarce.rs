//! A process with few descriptors, and more clients than it can have: who is there is served, who
//! comes is told, and the loop does not spin.

use crate::support::Served;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const SCRIPT: &str = r#"
    local net = require("@huki/net")
    local server
    server = net.serve({ port = 0, limits = { idleTimeout = 300 }, request = function(request)
        if request.path == "/stats" then
            local stats = server:stats()
            return `{stats.turns} {stats.acceptErrors} {stats.turnedAway} {os.clock() // 1}`
        end
        return "hi"
    end })
    print(server.port)
"#;

/// Runs [`SCRIPT`] with at most so many descriptors.
fn start(descriptors: u32) -> Served {
    let run = format!("ulimit -n {descriptors}; exec \"$0\" run -");
    let mut child = Command::new("sh")
        .args(["-c", &run, env!("CARGO_BIN_EXE_huki")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(SCRIPT.as_bytes()).expect("huki reads it");
    drop(stdin);
    Served::of(child)
}

/// Asks, without waiting for the answer.
fn send(stream: &mut TcpStream, path: &str) {
    let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    // Who is turned away may have been so before it asks.
    let _asked = stream.write_all(get.as_bytes());
}

/// The whole answer on a connection that stays open, or what there is of one.
fn receive(stream: &mut TcpStream) -> String {
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !is_whole(&answer) && matches!(stream.read(&mut byte), Ok(1)) {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).expect("answers are text")
}

fn ask(stream: &mut TcpStream, path: &str) -> String {
    send(stream, path);
    receive(stream)
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    length == Some(body.len())
}

/// Turns, accepts that failed and connections turned away, so far; and the time in seconds.
fn stats(control: &mut TcpStream) -> [u32; 4] {
    let answer = ask(control, "/stats");
    let (_, body) = answer.split_once("\r\n\r\n").expect("it is served");
    let mut numbers = body
        .split(' ')
        .map(|number| number.parse().expect("a number"));
    [(); 4].map(|()| numbers.next().expect("four numbers"))
}

#[test]
fn without_descriptors_who_comes_is_told_503_and_nothing_spins() {
    const CLIENTS: u32 = 60;
    let server = start(40);
    let mut control = server.connect();
    let [turns, errors, _, began] = stats(&mut control);
    assert_eq!(errors, 0);
    let mut held: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = server.connect();
            send(&mut stream, "/");
            stream
        })
        .collect();
    let answers: Vec<_> = held.iter_mut().map(receive).collect();
    let count = |status: &str| answers.iter().filter(|it| it.starts_with(status)).count();
    let (served, refused) = (count("HTTP/1.1 200 "), count("HTTP/1.1 503 "));
    assert!((10..40).contains(&served), "{served} were served");
    // One whose question was still on its way when we closed may have been reset.
    assert!(refused >= 1, "{answers:?}");
    let refusal = answers.iter().find(|it| it.starts_with("HTTP/1.1 503 "));
    let refusal = refusal
        .map(|it| it.to_ascii_lowercase())
        .unwrap_or_default();
    assert!(refusal.contains("\r\nconnection: close\r\n"), "{refusal}");
    assert!(refusal.contains("\r\nretry-after: 1\r\n"), "{refusal}");

    // Who is there is served meanwhile, and the loop has turned for those who came, and ten times a
    // second to see whether it could go on.
    let [turns_now, errors, away, now] = stats(&mut control);
    assert_eq!(away + u32::try_from(served).expect("few"), CLIENTS);
    assert!(errors >= 1);
    let most = 20 * CLIENTS + 20 * (now - began + 1);
    assert!(turns_now - turns <= most, "{} turns", turns_now - turns);

    // When they have left, there is room again.
    drop(held);
    let is_served = || {
        let answer = ask(&mut server.connect(), "/");
        answer.starts_with("HTTP/1.1 200 ")
    };
    assert!((0..10_000).any(|_| is_served()), "it has not recovered");
    drop(control);
    let told = server.stop();
    assert!(
        told.contains("a connection could not be accepted: "),
        "{told}"
    );
}
