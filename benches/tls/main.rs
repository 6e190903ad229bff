//! What TLS costs a server: hukilau-core's listener beside hyper over tokio-rustls, both with the
//! same rustls, the same cryptography and the same certificate.
//!
//! ```sh
//! cargo run --release -p hukilau-benches --example tls -- [HANDSHAKES] [REQUESTS] [ROUNDS]
//! cargo run --release -p hukilau-benches --example tls -- echo [MIB] [ROUNDS]
//! ```
//!
//! Each server is a thread, and counted is the CPU time of that thread, user and system; the client
//! is another. Peers take turns within each round, ratios are taken within rounds, and medians over
//! the rounds are shown.
//!
//! - `tls/servers.rs`    the two servers
//! - `tls/comparing.rs`  the client and the rounds
//! - `tls/echo.rs`       bytes in bulk, over TLS and plain
//!
//! Not here: plain HTTP (`load/`).

#[cfg(target_os = "linux")]
mod comparing;
#[cfg(target_os = "linux")]
mod echo;
#[cfg(target_os = "linux")]
mod servers;

#[cfg(target_os = "linux")]
fn main() {
    comparing::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the CPU time that this needs is in Linux's /proc");
}
