//! Starts a peer as a child on its cores, learns its port, and ends it.
//!
//! ```text
//!  harness ── spawn ──▶ load launch CORES PARENT PROGRAM ARGS…     pins itself, asks to die with its parent
//!                         │                                        prints "launched NANOSECONDS"
//!                         └── exec ──▶ PROGRAM ARGS…               prints "listening PORT"
//! ```
//!
//! Core and death signal survive `exec`, so programs that know nothing of the harness are pinned
//! and ended like the others, and nothing here needs to run between `fork` and `exec`.
//!
//! Invariants
//! - Dropping a `Process` ends the child and collects it.
//! - A child that says nothing within [`START_LIMIT`] is an error, not a wait.
//!
//! Not here: which programs there are (`mod.rs`).

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Mode, Peer, Program, certificate, found, script};
use crate::measure::clock;

/// Longest time from start to the line that tells the port.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running peer.
pub(crate) struct Process {
    child: Child,
    /// Kept open: a server that prints later must not fail.
    _stdout: ChildStdout,
    pub(crate) port: u16,
    /// When its program began, on [`clock::monotonic`].
    pub(crate) launched: Duration,
}

impl Process {
    /// Starts `peer` on `core`, for `mode`, and waits for its port.
    pub(crate) fn start(peer: &Peer, mode: Mode, core: usize) -> Result<Self, String> {
        Self::start_on(peer, mode, &[core])
    }

    /// The same, on any of these cores.
    pub(crate) fn start_on(peer: &Peer, mode: Mode, cores: &[usize]) -> Result<Self, String> {
        Self::start_with(peer, mode, cores, Stdio::inherit())
    }

    /// The same, for clients that misbehave: what it says about them is dropped.
    pub(crate) fn start_quietly(peer: &Peer, core: usize) -> Result<Self, String> {
        Self::start_with(peer, Mode::Plain, &[core], Stdio::null())
    }

    fn start_with(peer: &Peer, mode: Mode, cores: &[usize], stderr: Stdio) -> Result<Self, String> {
        let harness = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
        let mut command = launched(&harness, cores);
        match peer.program {
            Program::Within(_) => command.arg(&harness).arg("serve").arg(peer.name),
            Program::Script { file, workers } => {
                command.arg(script::huki(&harness)).arg("run");
                if workers > 1 {
                    command.args(["--workers", &workers.to_string()]);
                }
                command.arg(script::path(file)).arg("0")
            }
            Program::SameScript(tool) => command
                .arg(script::huki(&harness))
                .arg("run")
                .arg(tool.script())
                .arg("0")
                .env("KEEPS", "no"),
            Program::Found(tool) => tool
                .command(&mut command)?
                .env("NODE_PATH", found::modules())
                .env("NODE_ENV", "production"),
        };
        command.arg(mode.name());
        if mode == Mode::Tls {
            let (cert, key) = certificate::files()?;
            command.arg(cert).arg(key);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", peer.name))?;
        let outcome = match child.stdout.take() {
            Some(mut stdout) => read_announcement(&mut stdout).map(|told| (stdout, told)),
            None => Err("no standard output".to_owned()),
        };
        match outcome {
            Ok((stdout, told)) => Ok(Self {
                child,
                _stdout: stdout,
                port: told.port,
                launched: told.launched,
            }),
            Err(error) => {
                end(&mut child);
                Err(format!("{} does not start: {error}", peer.name))
            }
        }
    }

    /// The child's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills and collects. A child that is gone already is what was wanted.
pub(crate) fn end(child: &mut Child) {
    if child.kill().is_ok() {
        let _ = child.wait();
    }
}

/// What the child's first two lines say.
struct Announcement {
    launched: Duration,
    port: u16,
}

/// Reads until both lines are here, or the child has had its time.
fn read_announcement(stdout: &mut ChildStdout) -> Result<Announcement, String> {
    let give_up = clock::now() + START_LIMIT;
    let mut text = Vec::new();
    while text.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let left = give_up.saturating_duration_since(clock::now());
        let left = Timespec::try_from(left).map_err(|_| "start limit out of range")?;
        let ready = poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&left))
            .map_err(|error| error.to_string())?;
        if ready == 0 {
            return Err(format!("no port within {} s", START_LIMIT.as_secs()));
        }
        let mut piece = [0; 128];
        match stdout.read(&mut piece) {
            Ok(0) => return Err("it ended before it told its port".to_owned()),
            Ok(got) => text.extend_from_slice(&piece[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("standard output: {error}")),
        }
    }
    let text = String::from_utf8_lossy(&text);
    parse_announcement(&text).ok_or_else(|| format!("expected \"listening PORT\", got {text:?}"))
}

fn parse_announcement(text: &str) -> Option<Announcement> {
    let mut lines = text.lines();
    let launched = lines.next()?.strip_prefix("launched ")?.parse().ok()?;
    let port = lines
        .next()?
        .strip_prefix("listening ")?
        .trim()
        .parse()
        .ok()?;
    Some(Announcement {
        launched: Duration::from_nanos(launched),
        port,
    })
}

/// Pins this thread (and what it becomes) to one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    pin_to(&[core])
}

/// The same to several, on any of which it may run.
pub(crate) fn pin_to(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cores {cores:?}: {error}"))
}

/// A command that becomes, on any of `cores`, the program that is appended to it.
pub(crate) fn launched(harness: &Path, cores: &[usize]) -> Command {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new(harness);
    command
        .arg("launch")
        .arg(cores.join(","))
        .arg(std::process::id().to_string());
    command
}

/// `load launch CORES PARENT PROGRAM ARGS…`: never returns unless it fails.
pub(crate) fn launch(arguments: &[OsString]) -> Result<(), String> {
    let [cores, parent, program, rest @ ..] = arguments else {
        return Err("launch: expected CORES PARENT PROGRAM ARGS…".to_owned());
    };
    let cores: Result<Vec<usize>, _> = cores.to_string_lossy().split(',').map(str::parse).collect();
    let cores = cores.map_err(|_| "launch: CORES are no numbers")?;
    let parent = parent.to_str().and_then(|id| id.parse().ok());
    let parent = parent.and_then(Pid::from_raw);
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("launch: {error}"))?;
    // The harness may have died before the line above took effect.
    if getppid() != parent {
        return Err("launch: the harness is gone".to_owned());
    }
    pin_to(&cores)?;
    println!("launched {}", clock::monotonic().as_nanos());
    let error = Command::new(program).args(rest).exec();
    Err(format!("{}: {error}", program.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_is_a_time_and_a_port() {
        let told = parse_announcement("launched 1500\nlistening 8080\n").unwrap();
        assert_eq!(
            (told.launched, told.port),
            (Duration::from_nanos(1500), 8080)
        );
        for wrong in [
            "",
            "launched 1\n",
            "launched 1\nlistening\n",
            "listening 1\nlaunched 1\n",
            "launched 1\nlistening 99999\n",
        ] {
            assert!(parse_announcement(wrong).is_none(), "{wrong:?}");
        }
    }
}
