//! Peers that are programs of their own: Bun, node with ws, Lune. Each is looked for, and its absence is
//! said together with the command that installs it.
//!
//! A program is, in this order: the one that an environment variable names (`BUN`, `NODE`, `LUNE`), the one
//! below `target/peers`, the one on the PATH. What each serves is a script in `scripts/`, written as the
//! program's own documentation recommends; its settings stand at its top.
//!
//! Invariants
//! - A program is asked for its version before it is measured: what cannot tell it is not there.
//!
//! Not here: starting a server (`process.rs`).

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program that need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Bun,
    Node,
    Lune,
}

/// Where it is, and what it says it is.
#[derive(Clone, Debug)]
struct Found {
    program: PathBuf,
    version: String,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Bun => "bun",
            Self::Node => "node",
            Self::Lune => "lune",
        }
    }

    /// What installs it, from the top of the repository.
    fn install(self) -> &'static str {
        match self {
            Self::Bun => "npm install --prefix target/peers bun",
            Self::Node => "install Node.js, then: npm install --prefix target/peers ws",
            Self::Lune => "cargo install lune --locked --root target/peers",
        }
    }

    /// What it is measured with.
    pub(super) fn script(self) -> PathBuf {
        let name = match self {
            Self::Bun => "bun.js",
            Self::Node => "node.cjs",
            Self::Lune => "lune.luau",
        };
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("load/peers/scripts")
            .join(name)
    }

    /// Looks for it, once.
    ///
    /// # Errors
    /// Where it was looked for and how to install it.
    pub(super) fn find(self) -> Result<(), String> {
        self.found().map(drop)
    }

    /// Its name and version; empty if it is not there.
    pub(super) fn version(self) -> String {
        self.found()
            .map_or_else(|_| String::new(), |found| found.version)
    }

    /// Where it is, if it is there.
    pub(super) fn program(self) -> Option<PathBuf> {
        self.found().ok().map(|found| found.program)
    }

    /// Appends program, script and port.
    pub(super) fn command(self, command: &mut Command) -> Result<&mut Command, String> {
        command.arg(self.found()?.program);
        if matches!(self, Self::Bun | Self::Lune) {
            command.arg("run");
        }
        command.arg(self.script());
        // Lune cannot tell which port it was given, so it gets one that was free a moment ago.
        let port = match self {
            Self::Lune => free_port().map_err(|error| format!("a free port: {error}"))?,
            Self::Bun | Self::Node => 0,
        };
        Ok(command.arg(port.to_string()))
    }

    fn found(self) -> Result<Found, String> {
        static FOUND: [OnceLock<Result<Found, String>>; 3] = [const { OnceLock::new() }; 3];
        FOUND[self as usize].get_or_init(|| self.look()).clone()
    }

    fn look(self) -> Result<Found, String> {
        let absent = |why: &str| format!("{why}; to measure it: {}", self.install());
        let program = candidates(self.name())
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| absent("not found"))?;
        let mut version = output(Command::new(&program).arg("--version"))
            .ok_or_else(|| absent(&format!("{} does not run", program.display())))?;
        if self == Self::Node {
            let ask = "process.stdout.write(require('ws/package.json').version)";
            let ws = output(
                Command::new(&program)
                    .args(["-e", ask])
                    .env("NODE_PATH", modules()),
            );
            version = format!(
                "{version}, ws {}",
                ws.ok_or_else(|| absent("no package ws"))?
            );
        }
        if !version.to_lowercase().starts_with(self.name()) {
            version = format!("{} {version}", self.name());
        }
        Ok(Found { program, version })
    }
}

fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Where node finds ws.
pub(super) fn modules() -> PathBuf {
    installed().join("node_modules")
}

/// `target/peers`.
fn installed() -> PathBuf {
    let harness = std::env::current_exe().unwrap_or_default();
    let target = harness.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("peers")
}

/// Where a program may be, the best place first.
fn candidates(name: &str) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(std::env::var_os(name.to_uppercase()).map(PathBuf::from));
    places.push(modules().join(".bin").join(name));
    places.push(installed().join("bin").join(name));
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path).map(|folder| folder.join(name)));
    places
}

/// What a command prints, on one line, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_where_it_is_looked_for() {
        for tool in [Tool::Bun, Tool::Node, Tool::Lune] {
            assert!(tool.script().is_file(), "{}", tool.script().display());
        }
    }

    #[test]
    fn what_is_installed_for_the_benches_goes_before_the_path() {
        let places = candidates("bun");
        let own = places
            .iter()
            .position(|place| place.starts_with(installed()));
        let last = places
            .iter()
            .rposition(|place| place.starts_with(installed()));
        assert!(own.is_some_and(|own| own <= 1) && last.is_some_and(|last| last <= 2));
    }
}
