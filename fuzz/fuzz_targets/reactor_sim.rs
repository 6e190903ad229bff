//! The whole reactor over the simulated network of the tests: the seed is the input. Every run
//! asserts the invariants that `tests/reactor.rs` lists, on a fair network and on a rough one.
#![no_main]

#[expect(unused, reason = "the tests themselves are not built here")]
// The simulation lives with the tests; an inline module with a path borrows it from there.
#[path = "../../tests"]
mod house {
    pub(crate) mod reactor;
    pub(crate) mod sim;
}

use house::reactor::{fair_scene, rough_scene};
// The borrowed modules speak of `crate::sim`.
use house::sim;
use house::sim::scene::Scene as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let seed = data
        .iter()
        .take(8)
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    fair_scene(seed).run_either();
    rough_scene(seed).run_either();
});
