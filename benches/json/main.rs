//! JSON in a script: `net.jsonDecode` and `net.jsonEncode` beside mlua's way through serde, plain
//! serde_json without a script, and a JavaScript engine. RFC 8259.
//!
//! `cargo bench -p hukilau-benches --bench json`; `BUN=/path/to/bun` before it if bun is not on the path. Without
//! bun it is node, and without node the column stays empty and says so.
//!
//! Both ways into Luau run in one VM, called from the same loop of the same script (`script.luau`),
//! turn and turn about, so that collector, allocator and processor treat them alike. CPU time of the
//! thread is counted; ratios are taken within each round, and their median is shown beside the least
//! time. The engine counts by the wall, as its CPU time is too coarse: its ratio is that of the least times. serde_json
//! decodes to its own `Value`, which is no Luau value: a mark of what the text alone costs.
//!
//! With the argument `different` it is a thousand different documents of 1 KB in turn, as a server meets them, and
//! the engine is also given bytes and asked for bytes, which is what comes and goes over a network and what our
//! functions take and give. A string of an engine holds what was decoded from UTF-8 before the clock ran.
//!
//! - `documents.rs`  the texts, from 100 B to 1 MB
//! - `peers.rs`      mlua with serde, serde_json, and the engine as a child process
//! - `script.luau`   the loop
//!
//! Not here: correctness (`luau-binding/src/json/tests.rs`).
mod documents;
mod peers;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, with this argument: once through, quickly.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let options = hukilau::Options {
        budget: None,
        ..hukilau::Options::default()
    };
    let mut runtime = hukilau::Runtime::new(&options)?;
    let host = peers::module(runtime.lua())?;
    host.raw_set("rounds", if is_test { 1 } else { 15 })?;
    host.raw_set("seconds", if is_test { 0.0 } else { 0.02 })?;
    let texts = runtime.lua().create_table()?;
    for bytes in [100, 1_000, 10_000, 100_000, 1_000_000] {
        texts.raw_push(documents::of_size(bytes))?;
    }
    host.raw_set("documents", texts)?;
    if std::env::args().any(|argument| argument == "different") {
        let different: Vec<String> = documents::different(1_000).collect();
        host.raw_set("different", different)?;
    }
    runtime.lua().register_module("@bench/host", host)?;
    runtime.run_source("=script", include_bytes!("script.luau"))?;
    Ok(())
}
