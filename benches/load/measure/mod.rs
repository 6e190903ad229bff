//! What the system knows about a process and about the machine.
//!
//! `cpu.rs` reads CPU time, `memory.rs` what is resident, `clock.rs` is the harness's only clock.
//!
//! Not here: what the figures mean (`rounds.rs`, `report.rs`).

pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod machine;
pub(crate) mod memory;
