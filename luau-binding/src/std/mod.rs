//! The small support surface beside the network: tasks, the process, its streams, print and warn.
//!
//! Sits above `scheduler` and `vm`. Each file is one module that scripts require, and is typed in
//! `types/huki/`.
//!
//! - `task.rs`     `@huki/task`
//! - `every.rs`    `task.every`, and the object it returns
//! - `process.rs`  `@huki/process`
//! - `stdio.rs`    `@huki/stdio`, and the globals `print` and `warn`
//! - `lines.rs`    the lines of standard input
//! - `memory.rs`   the global `collectgarbage`
//!
//! Not here: the network (`net/`), how modules are found (`require.rs`).

pub(crate) mod every;
pub(crate) mod lines;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod stdio;
pub(crate) mod task;
