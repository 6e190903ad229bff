//! A `huki` process under test, and clients that speak to it byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// No answer takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs `source` from standard input.
pub(crate) fn run(source: &str, args: &[&str]) -> Output {
    let mut child = huki(&[&["run", "-"], args].concat());
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(source.as_bytes()).expect("huki reads it");
    drop(stdin);
    child.wait_with_output().expect("huki ends")
}

/// Starts `huki` with piped streams.
pub(crate) fn huki(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huki"));
    // What this machine asks through is not what a test asks through.
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("huki starts")
}

/// Starts `huki` with piped streams, in a folder.
pub(crate) fn huki_in(folder: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_huki"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("huki starts")
}

/// A script that serves: it prints its port as its first line.
pub(crate) struct Served {
    child: Option<Child>,
    out: BufReader<std::process::ChildStdout>,
    pub(crate) port: u16,
}

impl Served {
    /// Runs `source`, in which `port` prints `server.port`.
    pub(crate) fn start(source: &str) -> Self {
        Self::start_with(&[], source)
    }

    /// The same, with options of `huki run`.
    pub(crate) fn start_with(options: &[&str], source: &str) -> Self {
        let mut child = huki(&[&["run"], options, &["-"]].concat());
        let mut stdin = child.stdin.take().expect("piped");
        let prelude = "local net = require('@huki/net') local task = require('@huki/task') ";
        stdin
            .write_all(format!("{prelude}{source}\nprint(server.port)").as_bytes())
            .expect("huki reads it");
        drop(stdin);
        Self::of(child)
    }

    /// Runs `source` in so many workers. It prints its port itself, in one of them.
    pub(crate) fn in_workers(workers: &str, source: &str) -> Self {
        let mut child = huki(&["run", "--workers", workers, "-"]);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(source.as_bytes()).expect("huki reads it");
        drop(stdin);
        Self::of(child)
    }

    /// Takes a process whose first line ends with its port.
    pub(crate) fn of(mut child: Child) -> Self {
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("huki prints UTF-8");
        let digits = line.trim_end().trim_end_matches("/tasks");
        let digits = digits.rsplit(|c: char| !c.is_ascii_digit()).next();
        let port = digits.and_then(|digits| digits.parse().ok());
        let Some(port) = port else {
            let output = child.wait_with_output().expect("huki ends");
            panic!(
                "no port in {line:?}; {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        Self {
            child: Some(child),
            out,
            port,
        }
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The next line the script prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("huki prints UTF-8");
        line.trim_end().to_owned()
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream
    }

    /// Sends `request`, ends sending, and returns all that comes.
    pub(crate) fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// `GET path`: status line and body.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        split(&self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )))
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) -> Output {
        let child = self.child.take().expect("once");
        child.wait_with_output().expect("it ends")
    }

    /// Sends it a signal.
    pub(crate) fn kill(&self, signal: &str) {
        let child = self.child.as_ref().expect("it runs");
        let id = child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Ends it by a signal and returns status and standard error.
    pub(crate) fn signal(mut self, signal: &str) -> (Option<i32>, String) {
        self.kill(signal);
        let child = self.child.take().expect("once");
        // What it prints from here on is read, so that it cannot block.
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("UTF-8");
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code(), stderr)
    }

    /// Ends it and returns standard error.
    pub(crate) fn stop(self) -> String {
        let (status, stderr) = self.signal("-TERM");
        assert_eq!(status, Some(0), "{stderr}");
        stderr
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A failed test leaves no process behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Status line and body of an answer.
pub(crate) fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.lines().next().unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

/// A WebSocket client that does what it is told.
pub(crate) struct Client(pub(crate) TcpStream);

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            opcode: 1,
            payload: text.as_bytes().to_vec(),
        }
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self {
            opcode: 8,
            payload: [&code.to_be_bytes(), reason.as_bytes()].concat(),
        }
    }
}

impl Client {
    /// Opens a WebSocket at `target` with further `fields`.
    pub(crate) fn open(server: &Served, target: &str, fields: &str) -> Self {
        let (client, head) = Self::ask(server, target, fields);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// Asks for a WebSocket and returns the answer's head.
    pub(crate) fn ask(server: &Served, target: &str, fields: &str) -> (Self, String) {
        Self::upgrade(server.connect(), target, fields)
    }

    /// Asks for a WebSocket on `stream`.
    pub(crate) fn upgrade(mut stream: TcpStream, target: &str, fields: &str) -> (Self, String) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("ASCII");
        (Self(stream), head)
    }

    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | u8::try_from(len).expect("small")),
            len => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(len).expect("tests are small").to_be_bytes());
            }
        }
        let key = [7, 11, 13, 17];
        frame.extend(key);
        let masked = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b);
        frame.extend(masked);
        self.0.write_all(&frame).expect("it reads");
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(1, text.as_bytes());
    }

    /// The next frame; pings are answered on the way.
    pub(crate) fn receive(&mut self) -> Frame {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame comes");
        assert_eq!(head[0] & 0xf0, 0x80, "whole and without extensions");
        let len = match head[1] {
            126 => {
                let mut long = [0; 2];
                self.0.read_exact(&mut long).expect("a frame comes");
                usize::from(u16::from_be_bytes(long))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).expect("a frame comes");
        Frame {
            opcode: head[0] & 15,
            payload,
        }
    }

    #[track_caller]
    pub(crate) fn expect_text(&mut self, text: &str) {
        assert_eq!(self.receive(), Frame::text(text));
    }
}
