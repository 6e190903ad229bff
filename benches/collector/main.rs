//! The collector's settings beside one another: what a request costs, and how long the slowest wait, while 100 MB of
//! a script's own are alive.
//!
//! `cargo bench -p hukilau-benches --bench collector`
//!
//! One VM, one heap of 100 MB: records in tables, as a game or a cache would hold them. A request decodes 1 KB of JSON,
//! puts one record in the place of an old one, and encodes an answer, without a socket between. Each setting serves
//! the same number of requests a round, turn and turn about, after a full collection. CPU time of the thread is counted
//! for each request, so what else the machine does shows little; a thousandth of the requests meets more of the collector
//! than p99.9 says.
//!
//! - `script.luau`  the heap, the requests, the table
//!
//! Not here: what native code gains (`benches/README.md` has the commands).

use hukilau::mlua::state::{GcIncParams, GcMode};
use std::error::Error;

/// CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, with this argument: once through, quickly.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let options = hukilau::Options {
        budget: None,
        ..hukilau::Options::default()
    };
    let mut runtime = hukilau::Runtime::new(&options)?;
    let lua = runtime.lua();
    let host = lua.create_table()?;
    host.raw_set("clock", lua.create_function(|_, ()| Ok(cpu_seconds()))?)?;
    host.raw_set("collect", lua.create_function(|lua, ()| lua.gc_collect())?)?;
    host.raw_set(
        "used",
        lua.create_function(|lua, ()| Ok(lua.used_memory()))?,
    )?;
    let set = |lua: &hukilau::mlua::Lua, (goal, multiplier, size): (i32, i32, i32)| {
        let params = GcIncParams::default()
            .goal(goal)
            .step_multiplier(multiplier)
            .step_size(size);
        lua.gc_set_mode(GcMode::Incremental(params));
        Ok(())
    };
    host.raw_set("set", lua.create_function(set)?)?;
    host.raw_set("megabytes", if is_test { 1 } else { 100 })?;
    host.raw_set("requests", if is_test { 100 } else { 60_000 })?;
    host.raw_set("rounds", if is_test { 1 } else { 3 })?;
    lua.register_module("@bench/host", host)?;
    runtime.run_source("=script", include_bytes!("script.luau"))?;
    Ok(())
}
