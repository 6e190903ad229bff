//! The binary under test as a child process, and a client made of nothing but a socket.
//!
//! [`Huki`] writes a script to a folder of its own, runs it, and learns the port from the line
//! `port N` that the script prints (every script listens on port 0). Dropping it kills the child.
//! [`Wire`] sends bytes as they are and reads answers strictly, so that a malformed answer fails
//! the test that got it.
//!
//! Nothing here sleeps: a wait is always for something, with [`PATIENCE`] as its bound.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Longest wait for anything that should happen at once; generous, as test machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary, built from the same `main.rs` as `huki`.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_huki-under-test");

/// Prepended to scripts: the modules they all need.
const PRELUDE: &str = "local net = require(\"@huki/net\") local task = require(\"@huki/task\") ";

/// Whether tests must find every client program: set by `.ci/run`, which installs them.
pub(crate) fn clients_required() -> bool {
    std::env::var_os("HUKI_REQUIRE_CLIENTS").is_some()
}

/// Whether `program --version` runs. Says what is skipped if not, and fails where none may be.
pub(crate) fn has_client(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(found || !clients_required(), "{program} is required here");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A new empty folder under `target`.
pub(crate) fn folder(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let unique = format!("{name}-{}-{number}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    std::fs::create_dir_all(&path).expect("target is writable");
    path
}

/// What a child has written to one of its pipes, line by line.
struct Lines {
    lines: Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let seen = String::new();
        Self { lines, seen }
    }

    /// Reads on until a line satisfies `wanted`; `None` if the pipe ends first.
    #[track_caller]
    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    writeln!(self.seen, "{line}").expect("strings grow");
                    if wanted(&line) {
                        return Some(line);
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    panic!("waited in vain; so far:\n{}", self.seen)
                }
            }
        }
    }

    /// Everything, once the pipe has ended.
    #[track_caller]
    fn drain(&mut self) -> &str {
        assert!(self.wait_for(|_| false).is_none(), "no line is wanted");
        &self.seen
    }
}

/// What a run that ended by itself left behind.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One running `huki`.
pub(crate) struct Huki {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    /// Where the script listens.
    pub(crate) port: u16,
}

impl Huki {
    /// Runs `script` and waits for its port.
    #[track_caller]
    pub(crate) fn serve(script: &str) -> Self {
        Self::run_in(&folder("script"), script).listening()
    }

    /// Runs the script in file `path`, which must print `port N`, with `arguments`.
    #[track_caller]
    pub(crate) fn serve_file(path: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("run").arg(path).args(arguments);
        Self::spawn(command).listening()
    }

    /// Runs `script` from `folder` without waiting for anything.
    pub(crate) fn run_in(folder: &Path, script: &str) -> Self {
        Self::run_with(folder, script, &[])
    }

    /// Runs `script` on so many workers and waits for its port.
    #[track_caller]
    pub(crate) fn serve_on(workers: &str, script: &str) -> Self {
        let path = folder("workers").join("main.luau");
        std::fs::write(&path, format!("{PRELUDE}{script}")).expect("target is writable");
        let mut command = Command::new(BINARY);
        command.args(["run", "--workers", workers]).arg(path);
        Self::spawn(command).listening()
    }

    /// As [`run_in`](Self::run_in), with these variables in its environment.
    #[track_caller]
    pub(crate) fn run_with(folder: &Path, script: &str, variables: &[(&str, &str)]) -> Self {
        let path = folder.join("main.luau");
        std::fs::write(&path, format!("{PRELUDE}{script}")).expect("target is writable");
        let mut command = Command::new(BINARY);
        // What this machine asks through is not what a test asks through.
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.arg("run").arg(path).envs(variables.iter().copied());
        Self::spawn(command)
    }

    /// Runs the binary with `arguments` and waits for its end.
    #[track_caller]
    pub(crate) fn run_to_end(arguments: &[&str]) -> Finished {
        let mut command = Command::new(BINARY);
        command.args(arguments);
        Self::spawn(command).finish()
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary under test runs");
        let stdout = Lines::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Lines::of(child.stderr.take().expect("stderr is piped"));
        let port = 0;
        Self {
            child,
            stdout,
            stderr,
            port,
        }
    }

    /// Waits for the line that names the port.
    #[track_caller]
    pub(crate) fn listening(mut self) -> Self {
        let line = self.stdout.wait_for(|line| port_in(line).is_some());
        let Some(port) = line.as_deref().and_then(port_in) else {
            panic!("the script ended without a port: {}", self.stderr.drain());
        };
        self.port = port;
        self
    }

    /// Waits for a line on standard output that contains `words`.
    #[track_caller]
    pub(crate) fn expect_stdout(&mut self, words: &str) -> String {
        let line = self.stdout.wait_for(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("no {words:?} on stdout:\n{}", self.stdout.seen))
    }

    /// Waits for a line on standard error that contains `words`.
    #[track_caller]
    pub(crate) fn expect_stderr(&mut self, words: &str) -> String {
        let line = self.stderr.wait_for(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("no {words:?} on stderr:\n{}", self.stderr.seen))
    }

    /// A new connection.
    #[track_caller]
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.port)
    }

    /// Sends one signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child is ours");
    }

    /// Waits until the child has ended by itself.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let stdout = self.stdout.drain().to_owned();
        let stderr = self.stderr.drain().to_owned();
        let status = self.child.wait().expect("the child is ours");
        Finished {
            status,
            stdout,
            stderr,
        }
    }

    /// Memory the process keeps resident, in KiB; `None` where the system has no `/proc`.
    pub(crate) fn resident_kib(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Sockets the process has open; `None` where the system has no `/proc`.
    pub(crate) fn sockets(&self) -> Option<usize> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?;
        // A descriptor may be closed while we look.
        let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:"));
        Some(sockets.count())
    }
}

impl Drop for Huki {
    fn drop(&mut self) {
        // Both fail only if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port in `port N`, which test scripts print, or in `scheme://host:N`, which examples print.
fn port_in(line: &str) -> Option<u16> {
    let digits = match line.strip_prefix("port ") {
        Some(digits) => digits,
        None => line.split_once("://")?.1.split_once(':')?.1,
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A connection that sends what it is told and reads answers strictly.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// Read and not yet part of an answer.
    rest: Vec<u8>,
}

impl Wire {
    #[track_caller]
    pub(crate) fn connect(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid timeout");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a valid timeout");
        stream.set_nodelay(true).expect("a TCP option");
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the server reads");
    }

    /// Sends as much as the server takes: it may close while we write.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends `GET target` and reads the answer.
    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.reply()
    }

    /// Ends our side; the server's stays open.
    pub(crate) fn half_close(&mut self) {
        // The server may have reset the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both sides at once, without a farewell.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a TCP option");
    }

    /// Reads one answer to a request other than HEAD.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_to(false)
    }

    /// Reads one answer; that to a HEAD has no body.
    #[track_caller]
    pub(crate) fn reply_to(&mut self, head_request: bool) -> Reply {
        let end = loop {
            if let Some(at) = find(&self.rest, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "no whole head before the end: {}",
                show(&self.rest)
            );
        };
        let head: Vec<u8> = self.rest.drain(..end).collect();
        let mut reply = parse_head(&head);
        if head_request || reply.status < 200 || matches!(reply.status, 204 | 304) {
            return reply;
        }
        if reply.field("transfer-encoding") == Some("chunked") {
            reply.body = self.chunked_body();
        } else if let Some(length) = reply.field("content-length") {
            let length = length.parse().expect("a decimal length");
            reply.body = self.exactly(length);
        } else {
            reply.body = self.read_to_end();
        }
        reply
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            assert!(
                self.fill(),
                "{} of {length} bytes before the end",
                self.rest.len()
            );
        }
        self.rest.drain(..length).collect()
    }

    #[track_caller]
    fn chunked_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = find(&self.rest, b"\r\n") {
                    break self.exactly(at + 2);
                }
                assert!(self.fill(), "the body ends inside a chunk-size");
            };
            let digits = std::str::from_utf8(&line[..line.len() - 2]).expect("digits");
            let size = usize::from_str_radix(digits, 16).expect("hexadecimal");
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n", "a chunk ends with CRLF");
            if size == 0 {
                return body;
            }
        }
    }

    /// Reads until the server has closed its side. A reset counts as an end only where
    /// [`ends`](Self::ends) asks: here it fails.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.rest)
    }

    /// Fails unless the server closes now without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "more before the end: {}", show(&rest));
    }

    /// Reads until the connection is over, be it by close or by reset; what came, if anything.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Vec<u8> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.rest.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_gone(error.kind()) => break,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
        std::mem::take(&mut self.rest)
    }

    /// Reads more; false at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => {
                    self.rest.extend(&piece[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("read: {error}; so far: {}", show(&self.rest)),
            }
        }
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// Parses the head of an answer, with no tolerance.
#[track_caller]
fn parse_head(head: &[u8]) -> Reply {
    let text = std::str::from_utf8(head).expect("heads are ASCII");
    let mut lines = text
        .strip_suffix("\r\n\r\n")
        .expect("a whole head")
        .split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let rest = status_line.strip_prefix("HTTP/1.1 ");
    let code = rest
        .and_then(|rest| rest.split_once(' '))
        .map(|(code, _)| code);
    let status = code.and_then(|code| code.parse().ok());
    let fields = lines
        .map(|line| {
            line.split_once(": ")
                .unwrap_or_else(|| panic!("field line {line:?}"))
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Reply {
        status: status.unwrap_or_else(|| panic!("status line {status_line:?}")),
        fields,
        body: Vec::new(),
    }
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Bytes for a failure message.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
