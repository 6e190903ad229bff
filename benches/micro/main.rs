//! Micro benches of the parts that every byte or every request passes: `cargo bench -p
//! hukilau-benches --bench micro`.
//!
//! Each part stands beside what others do for the same job, on the same input, in the same run.
//! Before anything is measured, all are asked for their result and must agree. Inputs are warm in
//! the first-level cache and the machine is not ours alone: read the ratios within a run.
//!
//! `-- ratios` prints how many times the speed of others, by input and set of instructions.
//!
//! Not here: whole servers (`load/`).

mod inputs;
mod mask;
mod ratios;
mod request_head;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pico;

use criterion::{Criterion, criterion_group};

criterion_group! {
    name = parts;
    config = Criterion::default();
    targets = request_head::bench, mask::bench
}

fn main() {
    // The last argument may be a part's name, as criterion has it.
    let only_ratios = std::env::args().any(|argument| argument == "ratios");
    if only_ratios {
        return ratios::print();
    }
    parts();
    Criterion::default().configure_from_args().final_summary();
}
