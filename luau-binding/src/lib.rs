//! Luau over the Hukilau core: a script is an event-driven server.
//!
//! Thin on purpose: no protocol rule, no buffer and no timeout lives here. Four verbs: *convert,
//! resume, convert, call*. A completion of the reactor is converted to Luau values, a coroutine is
//! resumed with them, what it returns is converted back, and the reactor is called.
//!
//! - `runtime.rs`    the loop
//! - `bridge.rs`     completions → coroutines → answers: the one file that knows both worlds
//! - `scheduler.rs`  coroutines, waits, timers
//! - `surface.rs`, `surface/`  the modules and globals of other Luau systems, in Luau over these
//! - `crew.rs`       several workers in one process
//! - `metrics.rs`    the figures of all of them, for Prometheus
//! - `net/`, `std/`  what scripts require: `@huki/net`, `@huki/task`, `@huki/process`, `@huki/stdio`
//! - `json.rs`, `value.rs`, `require.rs`  conversions, checks, modules
//! - `vm.rs`, `vm/`  the fenced interface to the VM
//!
//! ```no_run
//! let mut runtime = hukilau::Runtime::new(&hukilau::Options::default())?;
//! let status = runtime.run_file("server.luau")?;
//! # Ok::<(), hukilau::Error>(())
//! ```

mod access;
mod bridge;
mod check;
mod crew;
mod embed;
mod error;
mod json;
mod metrics;
mod net;
mod require;
mod runtime;
mod scheduler;
mod std;
mod surface;
mod value;
mod vm;

pub use check::{Checked, check, check_source};
pub use crew::{Crew, Seat};
pub use embed::Waiter;
pub use error::Error;
pub use hukilau_core as core;
/// The binding to Luau beneath, for embedders that add functions of their own.
pub use mlua;
pub use require::Loaded;
pub use runtime::{BUDGET, Options, Runtime, Stop, Turn};
pub use surface::Dialect;
pub use vm::heap::keep_freed_memory;

/// The name of the chunk for a script that is read from standard input.
pub const STDIN_CHUNK: &str = require::STDIN_CHUNK;

/// The name of chunks that somebody types line by line, for [`Runtime::lua`]. As those of [`STDIN_CHUNK`] they require from the
/// working directory.
pub const REPL_CHUNK: &str = require::REPL_CHUNK;

/// The one of `known` that `name` was most likely meant to be, if any is near.
pub fn nearest_name<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    value::nearest(name, known)
}

/// The version of Luau that is built in, such as `0.740`.
pub fn luau_version() -> &'static str {
    vm::luau_version()
}

/// The modules that scripts require, as their documentation: name and Luau source with types.
pub const TYPE_MODULES: &[(&str, &str)] = &[
    ("@huki/net", include_str!("../types/huki/net.luau")),
    ("@huki/task", include_str!("../types/huki/task.luau")),
    ("@huki/process", include_str!("../types/huki/process.luau")),
    ("@huki/stdio", include_str!("../types/huki/stdio.luau")),
];

/// The modules of other systems that scripts require, as their documentation, as [`TYPE_MODULES`].
pub const DIALECT_TYPE_MODULES: &[(&str, &str)] = &[
    (
        "@huki/winhttp",
        include_str!("../types/winhttp/winhttp.luau"),
    ),
    ("@lute/net", include_str!("../types/lute/net/init.luau")),
    (
        "@lute/net/client",
        include_str!("../types/lute/net/client.luau"),
    ),
    (
        "@lute/net/server",
        include_str!("../types/lute/net/server.luau"),
    ),
    ("@lute/process", include_str!("../types/lute/process.luau")),
    ("@lute/task", include_str!("../types/lute/task.luau")),
    ("@lute/time", include_str!("../types/lute/time.luau")),
    ("@lute/vm", include_str!("../types/lute/vm.luau")),
    ("@batteries/pp", include_str!("../types/batteries/pp.luau")),
    ("@std/json", include_str!("../types/std/json.luau")),
    ("@std/net", include_str!("../types/std/net.luau")),
    ("@std/process", include_str!("../types/std/process.luau")),
    ("@std/task", include_str!("../types/std/task.luau")),
    ("@std/test", include_str!("../types/std/test.luau")),
    ("@std/time", include_str!("../types/std/time.luau")),
    ("@lune/fs", include_str!("../types/lune/fs.luau")),
    ("@lune/net", include_str!("../types/lune/net.luau")),
    ("@lune/process", include_str!("../types/lune/process.luau")),
    ("@lune/serde", include_str!("../types/lune/serde.luau")),
    ("@lune/stdio", include_str!("../types/lune/stdio.luau")),
    ("@lune/task", include_str!("../types/lune/task.luau")),
    ("@zcore/fs", include_str!("../types/zune/fs.luau")),
    ("@zcore/net", include_str!("../types/zune/net.luau")),
    ("@zcore/process", include_str!("../types/zune/process.luau")),
    ("@zcore/serde", include_str!("../types/zune/serde.luau")),
    ("@zcore/task", include_str!("../types/zune/task.luau")),
    ("@zcore/testing", include_str!("../types/zune/testing.luau")),
];

/// What editors read of the globals of other systems: files of definitions, below `types/`.
pub const DEFINITION_FILES: &[(&str, &str)] = &[
    (
        "winhttp/globals.d.luau",
        include_str!("../types/winhttp/globals.d.luau"),
    ),
    (
        "zune/zune.d.luau",
        include_str!("../types/zune/zune.d.luau"),
    ),
];

/// The blocks of Rust in the guide, as tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod guide {}
