//! A game's load: thousands of sockets in rooms, each room told many times a second where its members are.
//!
//! `load rooms [--sockets N] [--members N] [--hz N] [--seconds N] [--workers N]`: one `huki` with the script
//! `benches/luau/rooms.luau`, one client for all sockets. Printed are the server's CPU time and memory, what
//! a delivery costs, and the percentiles of its latency: from the tick that made the snapshot to the `recv`
//! that brought it, so the client's own delay counts as well.
//!
//! Invariants
//! - Every snapshot names its tick. A socket that misses one, or hears one twice, fails the run; and at the
//!   end every socket has heard all that any other in its room has.
//! - A peer never outlives the harness.
//!
//! Not here: the sockets (`crowd.rs`), those that never read (`slow.rs`), broadcasts beside other servers (`workload.rs`).

mod crowd;
mod slow;

pub(crate) use slow::SLOW_READERS;

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use self::crowd::{Crowd, Heard};
use crate::client::latency::POINTS;
use crate::measure::{clock, cpu, machine, memory};
use crate::peers::{process, script};

const USAGE: &str =
    "usage: load rooms [--sockets N] [--members N] [--hz N] [--seconds N] [--workers N]";

/// Left to settle before the first figure is taken.
const WARM_UP: Duration = Duration::from_secs(2);

/// What is asked for; the defaults are those of the README's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    sockets: u32,
    /// Sockets of a room.
    members: u32,
    /// Ticks of a room in a second.
    hz: u32,
    seconds: u32,
    workers: u32,
    /// What is done when so many bytes wait for a socket, if not what is done by itself.
    backlog: Option<(&'static str, u32)>,
}

impl Load {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut load = Self {
            sockets: 10_000,
            members: 50,
            hz: 20,
            seconds: 120,
            workers: 1,
            backlog: None,
        };
        while let Some(option) = arguments.next() {
            let slot = match option.as_str() {
                "--sockets" => &mut load.sockets,
                "--members" => &mut load.members,
                "--hz" => &mut load.hz,
                "--seconds" => &mut load.seconds,
                "--workers" => &mut load.workers,
                _ => return Err(format!("no option {option}\n{USAGE}")),
            };
            let value = arguments.next().unwrap_or_default();
            let number = value.parse().ok();
            *slot = number
                .filter(|number| (1..=100_000).contains(number))
                .ok_or_else(|| {
                    format!("{option}: expected a number from 1 to 100000, got {value:?}")
                })?;
        }
        Ok(load)
    }

    fn rooms(self) -> u32 {
        self.sockets.div_ceil(self.members)
    }
}

/// The server, ended when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it on these cores.
    fn start(load: Load, cores: &[usize]) -> Result<Self, String> {
        let harness = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
        let mut command = process::launched(&harness, cores);
        command
            .arg(script::huki(&harness))
            .args(["run", "--workers", &load.workers.to_string()])
            .arg(script::path("rooms.luau"))
            .arg("0")
            .args([load.rooms(), load.members, load.hz].map(|number| number.to_string()));
        if let Some((policy, bytes)) = load.backlog {
            command.args([policy, &bytes.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("huki does not start: {error}"))?;
        let stdout = child.stdout.take().map(BufReader::new);
        let lines = stdout.into_iter().flat_map(BufRead::lines);
        // Before it, that it was launched.
        let line = lines.map_while(Result::ok).nth(1).unwrap_or_default();
        let port = line
            .strip_prefix("listening ")
            .and_then(|port| port.trim().parse().ok());
        let server = Self {
            child,
            port: port.unwrap_or_default(),
        };
        match port {
            Some(_) => Ok(server),
            None => Err(format!("huki told no port but {line:?}")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that is gone already is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures and prints.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let load = Load::parse(arguments)?;
    machine::raise_file_limit()?;
    script::build()?;
    let server = Server::start(load, &machine::cores()?)?;
    let id = server.child.id();
    let empty = memory::resident_bytes(id)?;
    let mut crowd = Crowd::join(server.port, load.sockets, load.members)?;
    crowd.begin()?;
    crowd.listen(WARM_UP)?;
    crowd.take();

    let (cpu, began) = (cpu::cpu_time(id)?, clock::monotonic());
    crowd.listen(Duration::from_secs(u64::from(load.seconds)))?;
    let (cpu, took) = (cpu::cpu_time(id)?.since(cpu), clock::monotonic() - began);
    let resident = memory::resident_bytes(id)?;
    let heard = crowd.finish()?;
    print!("{}", table(load, &heard, cpu, took, resident, empty));
    Ok(ExitCode::SUCCESS)
}

fn table(
    load: Load,
    heard: &Heard,
    cpu: cpu::CpuTime,
    took: Duration,
    resident: u64,
    empty: u64,
) -> String {
    let seconds = took.as_secs_f64();
    let deliveries = heard.deliveries as f64;
    let asked = f64::from(load.sockets) * f64::from(load.hz);
    let ticks = (cpu.user_ticks + cpu.system_ticks).max(1) as f64;
    let latencies: String = POINTS
        .iter()
        .zip(heard.latencies.percentiles())
        .map(|((name, _), nanoseconds)| {
            format!("| latency {name}, ms | {:.2} |\n", nanoseconds as f64 / 1e6)
        })
        .collect();
    format!(
        "{}, {} cores, Linux {}, commit {}\n\
         {} sockets in {} rooms of {}, {} ticks a second, {} workers, {:.0} s\n\n\
         | | |\n| --- | ---: |\n\
         | deliveries | {} |\n| of those asked for | {:.2} % |\n| lost, doubled or out of order | 0 |\n\
         | CPU of the server, cores | {:.2} |\n| CPU per delivery, us | {:.2} |\n| of it user | {:.0} % |\n\
         {latencies}\
         | resident, MiB | {:.1} |\n| per socket, bytes | {} |\n",
        machine::processor(),
        machine::cores().map_or(0, |cores| cores.len()),
        machine::kernel(),
        machine::commit(),
        load.sockets,
        load.rooms(),
        load.members,
        load.hz,
        load.workers,
        seconds,
        heard.deliveries,
        deliveries / (asked * seconds) * 100.0,
        cpu.total_ns as f64 / 1e9 / seconds,
        cpu.total_ns as f64 / 1e3 / deliveries,
        cpu.user_ticks as f64 / ticks * 100.0,
        resident as f64 / f64::from(1 << 20),
        resident.saturating_sub(empty) / u64::from(load.sockets),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Load, String> {
        Load::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn rooms_are_full_but_the_last() {
        let load = parsed("--sockets 101 --members 50").unwrap();
        assert_eq!((load.rooms(), load.hz, load.seconds), (3, 20, 120));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for line in ["--sockets 0", "--sockets", "--hz x", "--rooms 3"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
