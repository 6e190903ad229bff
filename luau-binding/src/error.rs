//! Why a runtime could not be made, or a script did not come to a good end.
//!
//! Sits below `runtime.rs`, which gives these to whoever drives it.
//!
//! Invariants
//! - Its text is what a terminal shows, and begins with the place wherever there is one.
//! - Calls that led to an error are shown unless they say nothing new.
//!
//! Not here: errors that scripts see (`vm.rs`, `value.rs`), and where those of handlers go
//! (`bridge.rs`).

use hukilau_core::transport::system_text;
use std::fmt;

/// Why a runtime could not be made, or a script did not come to a good end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The script could not be read; the text names the file.
    Unreadable(String),
    /// The script is no Luau: `file:line: what is wrong`.
    Syntax(String),
    /// The script raised an error that nothing caught.
    Script {
        /// The error, with its place in front.
        message: String,
        /// The calls that led to it, innermost first, one a line.
        trace: String,
    },
    /// The system refused what every runtime needs.
    System(std::io::Error),
    /// The VM could not be set up.
    Vm(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(text) | Self::Syntax(text) | Self::Vm(text) => f.write_str(text),
            Self::System(error) => f.write_str(&system_text(error)),
            Self::Script { message, trace } => {
                f.write_str(message)?;
                // One frame that the message names already says nothing new.
                let mut frames = trace.lines().filter(|line| !line.starts_with("  [huki]"));
                let (first, more) = (frames.next(), frames.next().is_some());
                let is_told = first.is_none_or(|line| message.starts_with(line.trim_start()));
                if more || !is_told {
                    write!(f, "\nstack traceback:\n{}", trace.trim_end())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<mlua::Error> for Error {
    fn from(error: mlua::Error) -> Self {
        Self::Vm(error.to_string())
    }
}
