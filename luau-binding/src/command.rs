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

pub(crate) mod args;
mod luaurc;
pub(crate) mod repl;
pub(crate) mod run;
pub(crate) mod setup;
pub(crate) mod watch;
pub(crate) mod workers;

/// Checks scripts and what they require; problems go to standard error, one a line.
pub(crate) fn check(files: &[String]) -> Result<u8, hukilau::Error> {
    let (mut count, mut is_well) = (0, true);
    for file in files {
        let checked = hukilau::check(file, &[])?;
        for problem in &checked.problems {
            eprintln!("{problem}");
        }
        count += checked.files.len();
        is_well &= checked.problems.is_empty();
    }
    if is_well {
        println!("{count} file{} checked", if count == 1 { "" } else { "s" });
    }
    Ok(u8::from(!is_well))
}
