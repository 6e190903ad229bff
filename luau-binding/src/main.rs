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

Usage: huki run FILE [ARGS...]
       huki run - [ARGS...]      read the script from standard input

Options:
  -h, --help       print this help
  -V, --version    print the versions of huki and of Luau

A script starts a server with require(\"@huki/net\").serve. SIGINT and SIGTERM let requests under
way finish; a second signal ends the process at once.
";

/// What the command line asks for.
enum Command {
    Help,
    Version,
    Run { file: String, args: Vec<String> },
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
        Ok(Command::Run { file, args }) => match run(&file, args) {
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
        Value(command) if command == "run" => {
            let file = match parser.next()? {
                Some(Value(file)) => text(file)?,
                Some(Long("help") | Short('h')) => return Ok(Command::Help),
                Some(option) => return Err(option.unexpected()),
                None => return Err("`huki run` needs a file, or `-` for standard input".into()),
            };
            // Everything behind the file is the script's own, options too.
            let args = parser.raw_args()?.map(text).collect::<Result<_, _>>()?;
            Ok(Command::Run { file, args })
        }
        Value(command) => Err(format!(
            "unknown command '{}'; a script is run by `huki run FILE`",
            command.to_string_lossy()
        )
        .into()),
        option => Err(option.unexpected()),
    }
}

fn text(argument: std::ffi::OsString) -> Result<String, lexopt::Error> {
    argument
        .into_string()
        .map_err(|argument| format!("not UTF-8: {}", argument.to_string_lossy()).into())
}

fn run(file: &str, args: Vec<String>) -> Result<u8, Error> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let options = Options {
        args,
        env,
        ..Options::default()
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
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = runtime.stop();
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Error::System)?;
    let watch = move || {
        let mut is_draining = false;
        for signal in &mut signals {
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
