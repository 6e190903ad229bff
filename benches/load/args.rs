//! The command line: what to measure, against whom, how long.
//!
//! Not here: the roles `serve` and `launch`, which only the harness itself calls (`run.rs`).

use std::path::PathBuf;
use std::time::Duration;

use crate::extra::{EXTRAS, Extra};
use crate::peers::{PEERS, Peer};
use crate::workload::{WORKLOADS, Workload};
use crate::{at_rate, rounds, scale};

/// Shown for `--help` and with each misuse.
pub(crate) const USAGE: &str = "\
usage: load [all | quick] [WORKLOAD | TABLE…] [--peers NAME,…] [--rounds N] [--round-ms N] [--latency] [--huki PATH] [--list]
       load report FILE            tables into benches/README.md, pictures into benches/charts, of a run's JSON lines
       load soak [MINUTES]         everything at once against one process of huki, 30 minutes
       load rooms [--workers N]    a game's load for two minutes
       load neighbour [PEER…]      what floods do to others; of these peers only

  all            every workload, then every table of its own: under 30 minutes, once all is built
  quick          fewer and shorter rounds: a glance, not a figure to quote
  WORKLOAD       by name; none: all of them
  TABLE          what has a table of its own, by name
  --peers        only these; floor and hyper are always measured, for the ratios
  --rounds N     interleaved rounds per workload
  --round-ms N   milliseconds per peer and round
  --latency      percentiles too, of a closed loop at full load
  --huki PATH    measure this binary instead of building it from the sources here
  --list         print workloads, tables and peers

Apart, for their length or for valgrind: soak, rooms; the benches micro, instructions and collector (cargo bench -p
hukilau-benches --bench NAME); what a dialect adds (benches/luau/dialects/*.py).";

/// How long and how often, for each kind of measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plans {
    pub(crate) rounds: rounds::Plan,
    pub(crate) latency: at_rate::Plan,
    pub(crate) scale: scale::Plan,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) workloads: Vec<&'static Workload>,
    pub(crate) extras: Vec<&'static Extra>,
    pub(crate) peers: Vec<&'static Peer>,
    pub(crate) plans: Plans,
    pub(crate) is_quick: bool,
    pub(crate) lists: bool,
    /// The binary to measure as the peer `huki`; none: the one of these sources, built if need be.
    pub(crate) huki: Option<PathBuf>,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args {
        workloads: Vec::new(),
        extras: Vec::new(),
        peers: PEERS.iter().collect(),
        plans: at_length(),
        is_quick: false,
        lists: false,
        huki: None,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "quick" => {
                args.is_quick = true;
                let latencies = args.plans.rounds.latencies;
                args.plans = quick();
                args.plans.rounds.latencies = latencies;
            }
            "--huki" => match arguments.next() {
                Some(path) => args.huki = Some(PathBuf::from(path)),
                None => return Err(format!("--huki: expected a path\n{USAGE}")),
            },
            "--latency" => args.plans.rounds.latencies = true,
            "all" => {
                args.workloads = WORKLOADS.iter().collect();
                args.extras = EXTRAS.iter().collect();
            }
            "--list" => args.lists = true,
            "--help" | "-h" => return Err(USAGE.to_owned()),
            "--rounds" => args.plans.rounds.rounds = number(&argument, arguments.next())?,
            "--round-ms" => {
                args.plans.rounds.round =
                    Duration::from_millis(number(&argument, arguments.next())? as u64);
            }
            "--peers" => args.peers = peers(&arguments.next().unwrap_or_default())?,
            name => args.choose(name)?,
        }
    }
    if args.workloads.is_empty() && args.extras.is_empty() {
        let is_quick = args.is_quick;
        let wanted = |workload: &&Workload| !(is_quick && workload.is_crowded());
        args.workloads = WORKLOADS.iter().filter(wanted).collect();
        if !is_quick {
            args.extras = EXTRAS.iter().collect();
        }
    }
    Ok(args)
}

impl Args {
    /// Adds what `name` names.
    fn choose(&mut self, name: &str) -> Result<(), String> {
        let workload = WORKLOADS.iter().find(|workload| workload.name == name);
        let extra = EXTRAS.iter().find(|extra| extra.name == name);
        if workload.is_none() && extra.is_none() {
            return Err(format!("no workload or option {name}\n{USAGE}"));
        }
        self.workloads.extend(workload);
        self.extras.extend(extra);
        Ok(())
    }
}

fn at_length() -> Plans {
    Plans {
        rounds: rounds::Plan {
            rounds: 12,
            round: Duration::from_millis(500),
            warm_up: Duration::from_secs(1),
            samples: 5,
            latencies: false,
        },
        latency: at_rate::Plan {
            rounds: 9,
            capacity: Duration::from_millis(300),
            load: Duration::from_millis(700),
        },
        scale: scale::Plan {
            rounds: 7,
            round: Duration::from_millis(300),
            most: usize::MAX,
        },
    }
}

fn quick() -> Plans {
    Plans {
        rounds: rounds::Plan {
            rounds: 3,
            round: Duration::from_millis(120),
            warm_up: Duration::from_millis(300),
            samples: 1,
            latencies: false,
        },
        latency: at_rate::Plan {
            rounds: 1,
            capacity: Duration::from_millis(200),
            load: Duration::from_millis(500),
        },
        scale: scale::Plan {
            rounds: 2,
            round: Duration::from_millis(100),
            most: 1000,
        },
    }
}

fn number(option: &str, value: Option<String>) -> Result<usize, String> {
    let value = value.unwrap_or_default();
    let number = value
        .parse()
        .ok()
        .filter(|number| (1..=100_000).contains(number));
    number.ok_or_else(|| format!("{option}: expected a number from 1 to 100000, got {value:?}"))
}

fn peers(names: &str) -> Result<Vec<&'static Peer>, String> {
    let asked: Vec<&str> = names.split(',').collect();
    if let Some(unknown) = asked
        .iter()
        .find(|name| PEERS.iter().all(|peer| peer.name != **name))
    {
        return Err(format!("--peers: no peer {unknown:?}; see --list"));
    }
    let is_asked =
        |peer: &&Peer| ["floor", "hyper"].contains(&peer.name) || asked.contains(&peer.name);
    Ok(PEERS.iter().filter(is_asked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn no_arguments_mean_everything() {
        let args = parsed("").unwrap();
        assert_eq!(args.workloads.len(), WORKLOADS.len());
        assert_eq!(args.extras.len(), EXTRAS.len());
        assert_eq!(args.peers.len(), PEERS.len());
    }

    #[test]
    fn yardsticks_stay_when_peers_are_chosen() {
        let args = parsed("get --peers hyper-flush --rounds 3").unwrap();
        let names: Vec<_> = args.peers.iter().map(|peer| peer.name).collect();
        assert_eq!(names, ["floor", "hyper", "hyper-flush"]);
        assert_eq!((args.workloads.len(), args.plans.rounds.rounds), (1, 3));
    }

    #[test]
    fn unknown_names_and_senseless_numbers_are_refused() {
        for line in [
            "gte",
            "--peers nobody",
            "--rounds 0",
            "--rounds x",
            "--round-ms",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
