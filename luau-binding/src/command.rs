//! The commands of `huki`, one file each.
//!
//! Sits below `main.rs` and above the library.
//!
//! - `args.rs`    the command line
//! - `run.rs`     `huki run`, signals
//! - `watch.rs`   `huki run --watch`
//! - `workers.rs` `huki run --workers`
//! - `repl.rs`    `huki repl`
//! - `setup.rs`   `huki setup`; `luaurc.rs` edits the file of aliases
//! - this file    `huki check`
//!
//! Not here: what scripts can do (`lib.rs`).

use std::io::Write;

pub(crate) mod args;
mod luaurc;
pub(crate) mod repl;
pub(crate) mod run;
pub(crate) mod setup;
pub(crate) mod watch;
pub(crate) mod workers;

/// Writes a line to standard error, which may be closed: then there is nobody to tell.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes a line to standard output, whose reader may have seen enough.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Checks scripts and what they require; problems go to standard error, one a line.
pub(crate) fn check(files: &[String]) -> Result<u8, hukilau::Error> {
    let (mut count, mut is_well) = (0, true);
    for file in files {
        let checked = match file.as_str() {
            "-" => hukilau::check_source(hukilau::STDIN_CHUNK, run::read_stdin()?, &[])?,
            file => hukilau::check(file, &[])?,
        };
        for problem in &checked.problems {
            tell(problem);
        }
        count += checked.files.len();
        is_well &= checked.problems.is_empty();
    }
    if is_well {
        say(format_args!(
            "{count} file{} checked",
            if count == 1 { "" } else { "s" }
        ));
    }
    Ok(u8::from(!is_well))
}
