//! A generator in a process of its own, so that what a process may hold open bounds none but itself.
//!
//! ```text
//!  harness ── spawn ──▶ load launch CORES PARENT load generate WORKLOAD CONNECTIONS PORT
//!     │                    opens all connections, prints "connected"
//!     ├── "all MS" or "window N MS" on its standard input ──▶  runs
//!     ◀── "ANSWERS NANOSECONDS", or why not ───────────────────┘
//! ```
//!
//! Several of them are set going before any is waited for, so they run at the same time.
//!
//! Invariants
//! - It ends with the harness, or when it is dropped.
//! - Between two answers it does nothing.
//!
//! Not here: what the bytes are (`mod.rs`), how many processes there are (`spread.rs`).

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::{Client, Tally};
use crate::peers::process;
use crate::workload::{WORKLOADS, Workload};

/// What a generator is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Every connection has a batch under way.
    All(Duration),
    /// So many batches are under way at a time and pass through all connections in turn.
    Window(usize, Duration),
}

impl Task {
    fn line(self) -> String {
        match self {
            Self::All(long) => format!("all {}", long.as_millis()),
            Self::Window(window, long) => format!("window {window} {}", long.as_millis()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let millis = |word: &str| Some(Duration::from_millis(word.parse().ok()?));
        match words.as_slice() {
            ["all", long] => Some(Self::All(millis(long)?)),
            ["window", window, long] => Some(Self::Window(window.parse().ok()?, millis(long)?)),
            _ => None,
        }
    }
}

/// The harness's end of such a generator.
pub(crate) struct Apart {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Apart {
    /// Starts one that connects to `port` as `workload` says.
    pub(crate) fn start(port: u16, workload: &Workload, cores: &[usize]) -> Result<Self, String> {
        let harness = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
        let mut command = process::launched(&harness, cores);
        command.arg(&harness).args(["generate", workload.name]);
        command.args([workload.connections.to_string(), port.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a generator does not start: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a generator without standard input and output".to_owned());
        };
        let mut apart = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        };
        apart.line()?; // that it was launched
        Ok(apart)
    }

    /// Waits until all its connections are open.
    pub(crate) fn connected(&mut self) -> Result<(), String> {
        match self.line()?.as_str() {
            "connected" => Ok(()),
            other => Err(other.to_owned()),
        }
    }

    /// Sets it going.
    pub(crate) fn begin(&mut self, task: Task) -> Result<(), String> {
        writeln!(self.stdin, "{}", task.line()).map_err(|error| format!("a generator: {error}"))
    }

    /// Waits until it has done what it was set to.
    pub(crate) fn end(&mut self) -> Result<Tally, String> {
        let line = self.line()?;
        let tally = line.split_once(' ').and_then(|(answers, wall)| {
            Some(Tally {
                answers: answers.parse().ok()?,
                wall: Duration::from_nanos(wall.parse().ok()?),
            })
        });
        tally.ok_or(line)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err("a generator ended early".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("a generator: {error}")),
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// `load generate WORKLOAD CONNECTIONS PORT`: the role of that process. What fails is told on its standard output.
pub(crate) fn main(arguments: &[String]) -> Result<(), String> {
    generate(arguments).or_else(|error| tell(&error))
}

fn generate(arguments: &[String]) -> Result<(), String> {
    let [name, connections, port] = arguments else {
        return Err("generate: expected WORKLOAD CONNECTIONS PORT".to_owned());
    };
    let workload = WORKLOADS.iter().find(|workload| workload.name == name);
    let workload = Workload {
        connections: connections
            .parse()
            .map_err(|_| "generate: CONNECTIONS is no number")?,
        ..*workload.ok_or_else(|| format!("generate: no workload {name}"))?
    };
    let port = port
        .parse()
        .map_err(|_| "generate: PORT is no number".to_owned())?;
    let mut client = Client::connect(port, &workload)?;
    tell("connected")?;
    for line in io::stdin().lines() {
        let line = line.map_err(|error| format!("generate: {error}"))?;
        let tally = match Task::parse(&line) {
            Some(Task::All(long)) => client.run(long)?,
            Some(Task::Window(window, long)) => client.run_window(window, long)?,
            None => return Err(format!("generate: what is {line:?}?")),
        };
        tell(&format!("{} {}", tally.answers, tally.wall.as_nanos()))?;
    }
    Ok(())
}

fn tell(line: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("generate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_understood_as_they_are_said() {
        let long = Duration::from_millis(300);
        for task in [Task::All(long), Task::Window(64, long)] {
            assert_eq!(Task::parse(&task.line()), Some(task));
        }
        for wrong in ["", "all", "window 3", "all x", "run 1"] {
            assert_eq!(Task::parse(wrong), None, "{wrong:?}");
        }
    }
}
