//! Scripts under stress: a collection wherever there can be one, and memory that ends anywhere.
//!
//! What a script does then is its own business, and may fail; the process, the VM and the next script may not.
//! `STRESS=1 cargo test -p hukilau stress` ends memory at more places.

use crate::quiet::turn;
use hukilau::{Error, Options, Runtime, Turn, mlua};

/// A script of the folder `tests/luau`.
fn script(name: &str) -> (String, Vec<u8>) {
    let path = format!("{}/tests/luau/{name}.luau", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read(&path).expect("the script is there");
    (format!("@{path}"), source)
}

/// A runtime in which each check of the collector, wherever there is one, is a whole cycle.
fn collecting() -> Runtime {
    let options = Options {
        env: vec![("PATH".to_owned(), "x".to_owned())],
        // However slow the machine is.
        budget: None,
        ..Options::default()
    };
    let runtime = Runtime::new(&options).expect("a VM");
    // The next cycle may begin at the present size, and no step is too long.
    let params = mlua::state::GcIncParams::default()
        .goal(100)
        .step_multiplier(1_000_000)
        .step_size(1024);
    let mode = mlua::state::GcMode::Incremental(params);
    runtime.lua().gc_set_mode(mode);
    runtime
}

#[test]
fn a_collection_wherever_there_can_be_one_takes_nothing_that_is_in_use() {
    // First that this is so: what nobody holds is gone after a few steps.
    let probe = b"local weak = setmetatable({}, { __mode = 'v' })
        local most = 0
        for _ = 1, 100 do
            weak[1] = {}
            local steps = 0
            while weak[1] do
                steps += 1
                local _ = { steps }
            end
            most = math.max(most, steps)
        end
        assert(most <= 10, most)";
    let status = collecting().run_source("=probe", probe);
    assert_eq!(status.expect("it is collected at once"), 0);
    for name in [
        "everything",
        "every",
        "helpers",
        "requires",
        "json",
        "sandbox",
        "serve_options",
    ] {
        let (chunk, source) = script(name);
        let status = collecting().run_source(&chunk, &source);
        assert_eq!(status.expect("no assertion fails"), 0, "{name}");
    }
}

/// How a script ended that had too little memory.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Well,
    Raised(String),
    /// It waits for something that a failed part of it will not do.
    Waits,
}

/// Turns with nothing to do until a script is taken to wait for ever.
const QUIET_MAX: usize = 5;

fn run(runtime: &mut Runtime, chunk: &str, source: &[u8]) -> End {
    if let Err(error) = runtime.start_source(chunk, source) {
        return End::Raised(error.to_string());
    }
    let mut quiet = 0;
    while quiet < QUIET_MAX {
        let (turned, is_rest) = turn(runtime);
        quiet = if is_rest { quiet + 1 } else { 0 };
        match turned {
            Ok(Turn::Ended(0)) => return End::Well,
            Ok(Turn::Ended(status)) => panic!("no script asks for status {status}"),
            Ok(Turn::Running) => {}
            Err(Error::Script { message, .. }) => return End::Raised(message),
            Err(error) => panic!("{error}"),
        }
    }
    End::Waits
}

/// Runs a script with each of some limits of memory, from what an idle VM needs on.
fn sweep(name: &str, bytes: usize, runs: usize) -> Vec<End> {
    let idle = {
        let runtime = Runtime::new(&Options::default()).expect("a VM");
        runtime.lua().used_memory()
    };
    let (chunk, source) = script(name);
    let limits = (0..runs).map(|n| idle + bytes * n / runs);
    limits
        .map(|limit| {
            let options = Options {
                memory_bytes_max: limit,
                budget: None,
                ..Options::default()
            };
            let mut runtime = Runtime::new(&options).expect("a VM");
            let end = run(&mut runtime, &chunk, &source);
            let used = runtime.lua().used_memory();
            // Functions of ours may take a little more than the limit, never much.
            assert!(used < limit + 512 * 1024, "{name}: {used} of {limit} bytes");
            end
        })
        .collect()
}

#[test]
fn memory_that_ends_anywhere_ends_a_script_and_nothing_else() {
    let runs = match std::env::var_os("STRESS") {
        Some(_) => 3_000,
        None => 100,
    };
    for (name, bytes) in [("everything", 400_000), ("json", 400_000)] {
        let ends = sweep(name, bytes, runs);
        let told = ends
            .iter()
            .filter(
                |end| matches!(end, End::Raised(message) if message.contains("not enough memory")),
            )
            .count();
        assert!(
            told > runs / 20,
            "{name}: {told} of {runs} were told: {ends:?}"
        );
    }
}
