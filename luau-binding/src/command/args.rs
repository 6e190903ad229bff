//! The command line of `huki`, read and checked.
//!
//! Sits below `main.rs`.
//!
//! Invariants
//! - An unknown command or option is refused, with the nearest one there is.
//! - Everything behind a script's name is the script's own.
//!
//! Not here: what the commands do (`run.rs` and its neighbours).

use core::net::SocketAddr;
use hukilau::Options;
use lexopt::prelude::{Long, Short, Value};
use std::num::NonZeroU32;
use std::time::Duration;

/// What `huki --help` prints.
pub(crate) const HELP: &str = "\
An event-loop networking runtime for Luau.

Usage: huki run [OPTIONS] FILE [ARGS...]   run a script; its arguments are its own
       huki run [OPTIONS] - [ARGS...]      read the script from standard input
       huki check FILE...                  parse scripts and all they require, run nothing
       huki repl [OPTIONS]                 read, run and print, line by line
       huki setup [FOLDER]                 write types/ and the aliases in .luaurc, for editors

Options of run and repl:
      --budget SEC    stop script code that runs this long without yielding; 0 for
                      never; default 10
      --memory MIB    raise `not enough memory` in script code above this; 0, the
                      default, for no limit
      --no-codegen    run bytecode only, without native code

Options of run:
      --dialect NAME  whose scripts these are: lune, lute, zune, zcore or winhttp;
                      default: seen from what they require
      --workers N     run the script N times, each with a thread and a VM of its own, on the
                      same ports; `auto` for one on each processor
      --metrics ADDR  serve /metrics for Prometheus, /healthz and /readyz at IP:PORT, or at
                      PORT of 127.0.0.1
      --access-log FILE
                      write a line of JSON for each request to FILE, or to standard output
                      for `-`
      --watch         start again when the script or a module it requires changes,
                      after an error too; what is under way has two seconds to finish

Options:
  -h, --help          print this help
  -V, --version       print the versions of huki and of Luau

A script starts a server with require(\"@huki/net\").serve. SIGINT and SIGTERM let requests under
way finish; a second signal ends the process at once. SIGHUP has the certificates of servers
with TLS read anew, and files of access logs opened anew; without either it is as SIGTERM. Exit
status: 0 if all went well or as the script says, 1 if it failed, 2 if the command was wrong.
";

/// `huki run`.
#[derive(Debug)]
pub(crate) struct Run {
    /// A path, or `-`.
    pub(crate) file: String,
    pub(crate) options: Options,
    pub(crate) is_watched: bool,
    /// How many workers; `None` for one that is alone.
    pub(crate) workers: Option<NonZeroU32>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Box<Run>),
    Check { files: Vec<String> },
    Setup { folder: String },
    Repl { options: Box<Options> },
}

const COMMANDS: &[&str] = &["run", "check", "repl", "setup", "help", "version"];
const RUN_OPTIONS: &[&str] = &[
    "access-log",
    "budget",
    "dialect",
    "memory",
    "metrics",
    "no-codegen",
    "watch",
    "workers",
    "help",
];
const REPL_OPTIONS: &[&str] = &["budget", "memory", "no-codegen", "help"];

type Parsed = Result<Command, lexopt::Error>;

/// Reads the command line.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Parsed {
    let Some(first) = parser.next()? else {
        return Err("what shall it do? A script is run by `huki run FILE`".into());
    };
    match first {
        Long("help") | Short('h') => Ok(Command::Help),
        Long("version") | Short('V') => Ok(Command::Version),
        Value(command) => match command.to_string_lossy().as_ref() {
            "run" => parse_run(parser),
            "check" => parse_check(parser),
            "setup" => parse_setup(parser),
            "repl" => parse_repl(parser),
            "help" => Ok(Command::Help),
            "version" => Ok(Command::Version),
            other => Err(unknown_command(other)),
        },
        option => Err(unknown(option, &["help", "version"])),
    }
}

fn unknown_command(name: &str) -> lexopt::Error {
    if name.ends_with(".luau") || name.ends_with(".lua") {
        return format!("a script is run by `huki run {name}`").into();
    }
    let advice = match hukilau::nearest_name(name, COMMANDS) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "a script is run by `huki run FILE`".to_owned(),
    };
    format!("unknown command '{name}'; {advice}").into()
}

/// Refuses an argument, and suggests one of `known`.
fn unknown(argument: lexopt::Arg<'_>, known: &[&str]) -> lexopt::Error {
    if let Long(name) = argument
        && let Some(near) = hukilau::nearest_name(name, known)
    {
        return format!("unknown option '--{name}'; did you mean '--{near}'?").into();
    }
    match argument {
        Long(name) => format!("unknown option '--{name}'").into(),
        Short(letter) => format!("unknown option '-{letter}'").into(),
        Value(value) => format!("unexpected argument '{}'", value.to_string_lossy()).into(),
    }
}

/// Takes an option that `run` and `repl` share. False if it is none.
fn common(
    option: &str,
    parser: &mut lexopt::Parser,
    options: &mut Options,
) -> Result<bool, lexopt::Error> {
    match option {
        "budget" => options.budget = budget(&text(parser.value()?)?)?,
        "memory" => options.memory_bytes_max = memory(&text(parser.value()?)?)?,
        "no-codegen" => options.codegen = false,
        _ => return Ok(false),
    }
    Ok(true)
}

/// What follows `huki run`.
fn parse_run(mut parser: lexopt::Parser) -> Parsed {
    let (mut options, mut is_watched, mut workers) = (Options::default(), false, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("watch") => is_watched = true,
            Long("dialect") => {
                let name = text(parser.value()?)?;
                let dialect = name.parse::<hukilau::Dialect>();
                options.dialect = Some(dialect.map_err(|must| format!("--dialect {must}"))?);
            }
            Long("access-log") => options.access_log = Some(text(parser.value()?)?),
            Long("metrics") => options.metrics = Some(address(&text(parser.value()?)?)?),
            Long("workers") => workers = Some(count(&text(parser.value()?)?)?),
            Long(name) => {
                let name = name.to_owned();
                if !common(&name, &mut parser, &mut options)? {
                    return Err(unknown(Long(&name), RUN_OPTIONS));
                }
            }
            Value(file) => {
                let file = text(file)?;
                if is_watched && file == "-" {
                    return Err("--watch needs a file: standard input is read once".into());
                }
                if is_watched && workers.is_some() {
                    return Err("--watch runs one worker; leave --workers out".into());
                }
                // Everything behind the file is the script's own, options too.
                options.args = parser.raw_args()?.map(text).collect::<Result<_, _>>()?;
                return Ok(Command::Run(Box::new(Run {
                    file,
                    options,
                    is_watched,
                    workers,
                })));
            }
            option @ Short(_) => return Err(unknown(option, RUN_OPTIONS)),
        }
    }
    Err("`huki run` needs a file, or `-` for standard input".into())
}

/// What follows `huki repl`.
fn parse_repl(mut parser: lexopt::Parser) -> Parsed {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(name) => {
                let name = name.to_owned();
                if !common(&name, &mut parser, &mut options)? {
                    return Err(unknown(Long(&name), REPL_OPTIONS));
                }
            }
            other => return Err(unknown(other, REPL_OPTIONS)),
        }
    }
    let options = Box::new(options);
    Ok(Command::Repl { options })
}

/// What follows `huki check`.
fn parse_check(mut parser: lexopt::Parser) -> Parsed {
    let mut files = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(file) => files.push(text(file)?),
            option => return Err(unknown(option, &["help"])),
        }
    }
    match files.is_empty() {
        true => Err("`huki check` needs a file".into()),
        false => Ok(Command::Check { files }),
    }
}

/// What follows `huki setup`.
fn parse_setup(mut parser: lexopt::Parser) -> Parsed {
    let mut folder = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(given) if folder.is_none() => folder = Some(text(given)?),
            other => return Err(unknown(other, &["help"])),
        }
    }
    let folder = folder.unwrap_or_else(|| ".".to_owned());
    Ok(Command::Setup { folder })
}

/// The value of `--budget`: seconds, at most a year, 0 for no budget.
fn budget(value: &str) -> Result<Option<Duration>, lexopt::Error> {
    const YEAR: f64 = 365.0 * 86_400.0;
    let seconds: f64 = value.parse().unwrap_or(f64::NAN);
    if seconds == 0.0 {
        return Ok(None);
    }
    if !(0.001..=YEAR).contains(&seconds) {
        let must = "a number of seconds, 0.001 or more, or 0 for no budget";
        return Err(format!("--budget must be {must}, not '{value}'").into());
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// The value of `--metrics`.
fn address(value: &str) -> Result<SocketAddr, lexopt::Error> {
    let port = value.parse().ok();
    let local = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    local.or_else(|| value.parse().ok()).ok_or_else(|| {
        format!("--metrics must be IP:PORT, or a port of 127.0.0.1, not '{value}'").into()
    })
}

/// The value of `--workers`.
fn count(value: &str) -> Result<NonZeroU32, lexopt::Error> {
    const WORKERS_MAX: u32 = 1024;
    if value == "auto" {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        return Ok(u32::try_from(count)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN));
    }
    let count = value.parse().ok().filter(|count| *count <= WORKERS_MAX);
    count.and_then(NonZeroU32::new).ok_or_else(|| {
        format!("--workers must be `auto` or a whole number from 1 to {WORKERS_MAX}, not '{value}'")
            .into()
    })
}

/// The value of `--memory`, in bytes.
fn memory(value: &str) -> Result<usize, lexopt::Error> {
    // A VM with the native modules has two thirds of a mebibyte before the script begins.
    let mebibytes = value.parse::<usize>().ok();
    mebibytes
        .and_then(|mebibytes| mebibytes.checked_mul(1024 * 1024))
        .ok_or_else(|| {
            format!("--memory must be a whole number of mebibytes, not '{value}'").into()
        })
}

fn text(argument: std::ffi::OsString) -> Result<String, lexopt::Error> {
    argument
        .into_string()
        .map_err(|argument| format!("not UTF-8: {}", argument.to_string_lossy()).into())
}
