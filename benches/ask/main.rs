//! What a request costs who asks: the client of hukilau-core beside hyper's pooled client, on
//! tokio's current-thread runtime. Plain HTTP, connections kept, a fixed answer of 13 bytes.
//!
//! ```sh
//! cargo run --release -p hukilau-benches --example ask -- [REQUESTS] [ROUNDS]
//! ```
//!
//! Counted is the CPU time of the asking thread alone; the server's threads are others. Peers take
//! turns within each round, ratios are taken within rounds, and medians over the rounds are shown.
//!
//! Not here: servers (`load/`).

#[cfg(target_os = "linux")]
mod asking;

#[cfg(target_os = "linux")]
fn main() {
    asking::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the clock that this needs is Linux's");
}
