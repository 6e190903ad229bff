//! `huki`: runs, checks and watches scripts, and sets projects up.
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

mod command;

use command::args::{self, Command, HELP};
use std::process::ExitCode;

fn main() -> ExitCode {
    hukilau::keep_freed_memory();
    let done = match args::parse(lexopt::Parser::from_env()) {
        Ok(Command::Help) => {
            command::say(HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            command::say(format_args!(
                "huki {} (Luau {})",
                env!("CARGO_PKG_VERSION"),
                hukilau::luau_version()
            ));
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(run)) if run.is_watched => command::watch::watch(&run),
        Ok(Command::Run(run)) => match run.workers {
            Some(count) if count.get() > 1 => command::workers::run(&run, count),
            _ => command::run::run(&run),
        },
        Ok(Command::Check { files }) => command::check(&files),
        Ok(Command::Setup { folder }) => command::setup::setup(&folder),
        Ok(Command::Repl { options }) => command::repl::repl(&options),
        Err(error) => {
            command::tell(format_args!("huki: {error}\nTry `huki --help`."));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            command::tell(&error);
            ExitCode::FAILURE
        }
    }
}
