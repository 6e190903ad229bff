//! Micro benches of the parts that every byte or every request passes: `cargo bench -p
//! hukilau-benches --bench micro`.
//!
//! Each part stands beside what others do for the same job, on the same input, in the same run.
//! Before anything is measured, all are asked for their result and must agree. Inputs are warm in
//! the first-level cache and the machine is not ours alone: read the ratios within a run.
//!
//! Not here: whole servers (`load/`).

mod inputs;
mod mask;
mod request_head;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pico;

use criterion::{criterion_group, criterion_main};

criterion_group! {
    name = parts;
    config = criterion::Criterion::default();
    targets = request_head::bench, mask::bench
}
criterion_main!(parts);
