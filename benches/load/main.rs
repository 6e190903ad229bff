//! The load harness: one generator, several servers, and what each request costs them in CPU time.
//!
//! The same executable is generator and peer. Run plainly, it measures; `load serve NAME` is one of
//! the servers that are compiled in (`peers/`), and `load launch …` pins itself to a core, ties its
//! life to the harness and becomes any other program.
//!
//! ```text
//!  args ─▶ workload ─▶ rounds, fresh, at_rate, scale ─▶ report, record ─▶ recorded ─▶ markdown, picture
//!                        │ ╲
//!             client ◀───┘  ╲──▶ peers (separate processes)
//!          (generator)       ╲──▶ measure (/proc of each peer)
//! ```
//!
//! Invariants
//! - A peer never outlives the harness: its `Drop` ends it, and the kernel does when the harness is
//!   killed.
//! - Every answer is compared byte for byte with the one expected; a wrong or missing one fails the
//!   peer, never counts.
//! - A round begins and ends with nothing in flight, so the CPU time between belongs to the answers
//!   counted.
//!
//! Not here: micro benches (`benches/micro.rs`).

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod at_rate;
#[cfg(target_os = "linux")]
mod chart;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod extra;
#[cfg(target_os = "linux")]
mod fresh;
#[cfg(target_os = "linux")]
mod markdown;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod neighbour;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod picture;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod recorded;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rooms;
#[cfg(target_os = "linux")]
mod rounds;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scale;
#[cfg(target_os = "linux")]
mod soak;
#[cfg(target_os = "linux")]
mod spread;
#[cfg(target_os = "linux")]
mod timers;
#[cfg(target_os = "linux")]
mod workers;
#[cfg(target_os = "linux")]
mod workload;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("load: needs Linux: its floor is epoll and its CPU times come from /proc");
    ExitCode::FAILURE
}
