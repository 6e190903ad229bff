//! `huki`: runs a script.
//!
//! Sits above the library: arguments, environment, signals, exit status, and how errors look on a
//! terminal.
//!
//! Invariants
//! - Whatever stops a script from starting is one line on standard error, with file and line where
//!   there are any, and status 1. Wrong use of the command is status 2.
//! - The first SIGINT or SIGTERM drains; the second ends the process at once.
//!
//! Not here: everything a script can see (`lib.rs`).

use hukilau::{Error, Options, Runtime};
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

/// How long a drain waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);

const HELP: &str = "\
An event-loop networking runtime for Luau.

Usage: huki run [OPTIONS] FILE [ARGS...]
       huki run [OPTIONS] - [ARGS...]      read the script from standard input

Options:
  -h, --help          print this help
  -V, --version       print the versions of huki and of Luau
      --budget SEC    stop script code that runs this long without yielding; 0 for
                      never; default 10
      --memory MIB    raise `not enough memory` in script code above this; 0, the
                      default, for no limit
      --no-codegen    run bytecode only, without native code

A script starts a server with require(\"@huki/net\").serve. SIGINT and SIGTERM let requests under
way finish; a second signal ends the process at once. SIGHUP has the certificates of servers
with TLS read anew; without such a server it is as SIGTERM.
";

/// What the command line asks for.
enum Command {
    Help,
    Version,
    Run { file: String, options: Box<Options> },
}

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!(
                "huki {} (Luau {})",
                env!("CARGO_PKG_VERSION"),
                hukilau::luau_version()
            );
            ExitCode::SUCCESS
        }
        Ok(Command::Run { file, options }) => match run(&file, &options) {
            Ok(status) => ExitCode::from(status),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("huki: {error}\nTry `huki --help`.");
            ExitCode::from(2)
        }
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    use lexopt::prelude::{Long, Short, Value};
    let Some(first) = parser.next()? else {
        return Err("what shall it do? A script is run by `huki run FILE`".into());
    };
    match first {
        Long("help") | Short('h') => Ok(Command::Help),
        Long("version") | Short('V') => Ok(Command::Version),
        Value(command) if command == "run" => parse_run(parser),
        Value(command) => Err(format!(
            "unknown command '{}'; a script is run by `huki run FILE`",
            command.to_string_lossy()
        )
        .into()),
        option => Err(option.unexpected()),
    }
}

/// What follows `huki run`.
fn parse_run(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    use lexopt::prelude::{Long, Short, Value};
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("budget") => options.budget = budget(&text(parser.value()?)?)?,
            Long("memory") => options.memory_bytes_max = memory(&text(parser.value()?)?)?,
            Long("no-codegen") => options.codegen = false,
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(file) => {
                let file = text(file)?;
                // Everything behind the file is the script's own, options too.
                options.args = parser.raw_args()?.map(text).collect::<Result<_, _>>()?;
                let options = Box::new(options);
                return Ok(Command::Run { file, options });
            }
            option => return Err(option.unexpected()),
        }
    }
    Err("`huki run` needs a file, or `-` for standard input".into())
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

fn run(file: &str, options: &Options) -> Result<u8, Error> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let options = Options {
        env,
        ..options.clone()
    };
    let mut runtime = Runtime::new(&options)?;
    drain_on_signal(&runtime)?;
    if file != "-" {
        return runtime.run_file(file);
    }
    let mut source = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut source)
        .map_err(|error| Error::Unreadable(format!("cannot read standard input: {error}")))?;
    runtime.run_source(hukilau::STDIN_CHUNK, &source)
}

/// Watches for signals on a thread of its own.
#[cfg(unix)]
fn drain_on_signal(runtime: &Runtime) -> Result<(), Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = runtime.stop();
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(Error::System)?;
    let watch = move || {
        let mut is_draining = false;
        for signal in &mut signals {
            if signal == SIGHUP {
                stop.reload_tls_or_drain(GRACE);
                continue;
            }
            if is_draining {
                // As a shell reports a process that a signal has ended.
                std::process::exit(128 + signal);
            }
            is_draining = true;
            stop.drain(GRACE);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map(|_| ())
        .map_err(Error::System)
}

/// Other systems end the process by themselves.
#[cfg(not(unix))]
fn drain_on_signal(_: &Runtime) -> Result<(), Error> {
    Ok(())
}
