//! How long the collector of the VM works, as an estimate from turns of the loop that are looked at.
//!
//! Sits beside `vm/guard.rs`, which lends it the VM's interrupt. Luau says when a step of the collector
//! begins and ends, but says it by the interrupt, which it also calls at every safepoint of script
//! code: too dear for always. So one turn in [`PERIOD`], chosen at random, runs with the interrupt set,
//! and what the collector takes in it counts for all.
//!
//! ```text
//!   turn, turn, … ─ one in 64 ─▶ interrupt set ─ step, step ─▶ interrupt gone ─▶ total += 64 × steps
//! ```
//!
//! Invariants
//! - A turn that is not looked at costs a count, script code in it nothing.
//! - In a turn that is, script code meets the interrupt at most [`SAFEPOINTS_MAX`] times; of what is
//!   left of such a turn the same share is taken to be the collector's.
//! - How the collector works is not changed: what it did unasked it does, when it did it.
//! - Full collections of ours are timed themselves, each.
//!
//! Not here: how the collector is set (`runtime.rs`), when all is collected (`guard.rs`).

use super::{clock, ffi};
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// One turn in so many is looked at.
const PERIOD: u32 = 64;

/// Safepoints of script code that one such turn may be slowed down at, together a tenth of a
/// millisecond at most.
const SAFEPOINTS_MAX: u32 = 16_384;

/// The turn that is looked at on this thread: there is one at most.
struct Sample {
    is_under_way: Cell<bool>,
    /// Seconds in steps.
    worked: Cell<f64>,
    /// When the step began that has not ended.
    step_from: Cell<Option<f64>>,
    /// Safepoints that are left.
    safepoints: Cell<u32>,
    /// When none was left any more.
    blind_from: Cell<Option<f64>>,
    /// What reading the clock adds to each step.
    clock_cost: Cell<f64>,
}

thread_local! {
    // Without a destructor, so that the VM may call the hook at any time.
    static SAMPLE: Sample = const {
        Sample {
            is_under_way: Cell::new(false),
            worked: Cell::new(0.0),
            step_from: Cell::new(None),
            safepoints: Cell::new(0),
            blind_from: Cell::new(None),
            clock_cost: Cell::new(0.0),
        }
    };
}

/// The collector of one VM.
#[derive(Debug)]
pub(crate) struct Collector {
    state: NonNull<ffi::lua_State>,
    /// Seconds, estimated.
    total: Cell<f64>,
    /// Turns until the next that is looked at.
    left: Cell<u32>,
    /// When the turn began that is looked at.
    looks_from: Cell<Option<f64>>,
    /// Of the numbers that choose turns.
    seed: Cell<u64>,
}

impl Collector {
    /// That of the VM with this main state.
    pub(super) fn new(state: NonNull<ffi::lua_State>) -> Self {
        let this = Self {
            state,
            total: Cell::new(0.0),
            left: Cell::new(0),
            looks_from: Cell::new(None),
            // Workers start at different moments; their numbers need not be secret.
            seed: Cell::new(clock().to_bits() | 1),
        };
        this.left.set(this.draw());
        this
    }

    /// Seconds that it has worked.
    pub(crate) fn seconds(&self) -> f64 {
        self.total.get()
    }

    /// All garbage was collected at once, and it took so many seconds.
    pub(crate) fn add(&self, seconds: f64) {
        self.total.set(self.total.get() + seconds.max(0.0));
    }

    /// A turn begins to deliver.
    #[inline]
    pub(crate) fn begin_turn(&self, now: f64) {
        match self.left.get() {
            0 | 1 => self.look(now),
            left => self.left.set(left - 1),
        }
    }

    /// It has ended.
    #[inline]
    pub(crate) fn end_turn(&self, now: f64) {
        if let Some(from) = self.looks_from.take() {
            self.conclude(from, now);
        }
    }

    /// Turns until the next that is looked at: [`PERIOD`] on average, so that nothing that recurs can
    /// keep step with it.
    fn draw(&self) -> u32 {
        // Marsaglia's xorshift.
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.set(seed);
        let below = u64::from(2 * PERIOD - 1);
        u32::try_from((seed >> 16) % below).map_or(PERIOD, |drawn| drawn + 1)
    }

    #[cold]
    fn look(&self, now: f64) {
        self.left.set(self.draw());
        SAMPLE.with(|sample| {
            // A turn of another runtime may be under way around this one.
            if !sample.is_under_way.replace(true) {
                sample.worked.set(0.0);
                sample.step_from.set(None);
                sample.safepoints.set(SAFEPOINTS_MAX);
                sample.blind_from.set(None);
                let (one, two) = (clock(), clock());
                sample.clock_cost.set(two - one);
                self.looks_from.set(Some(now));
                // If somebody else has the interrupt, this turn shows nothing.
                // SAFETY: the VM is alive, and this is its thread.
                unsafe { exchange(self.state.as_ptr(), ptr::null_mut(), hook as *mut ()) };
            }
        });
    }

    #[cold]
    fn conclude(&self, from: f64, now: f64) {
        SAMPLE.with(|sample| {
            sample.is_under_way.set(false);
            // SAFETY: the VM is alive, and this is its thread.
            unsafe { exchange(self.state.as_ptr(), hook as *mut (), ptr::null_mut()) };
            let (took, mut worked) = (now - from, sample.worked.get());
            if let Some(until) = sample.blind_from.get() {
                worked *= took / (until - from).max(1e-9);
            }
            self.add(worked.min(took) * f64::from(PERIOD));
        });
    }
}

/// Puts `new` in the place of the interrupt if that is `old`. Stack: none.
///
/// # Safety
/// `state` is of a live VM, on its thread, and `new` is null or an interrupt.
unsafe fn exchange(state: *mut ffi::lua_State, old: *mut (), new: *mut ()) {
    // SAFETY: by the contract above. An absent function is a null pointer, so the field has the size
    // and alignment of a pointer; the watching thread of the guard writes it as one, too.
    unsafe {
        let field = &raw mut (*ffi::lua_callbacks(state)).interrupt;
        let field = AtomicPtr::from_ptr(field.cast::<*mut ()>());
        // Whoever else has set it has more important things to say.
        let _ = field.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Times steps. Stack: none.
///
/// # Safety
/// Called by the VM only: at a safepoint (`phase` is negative), or as a step begins, and as it ends.
unsafe extern "C-unwind" fn hook(state: *mut ffi::lua_State, phase: c_int) {
    SAMPLE.with(|sample| {
        if phase >= 0 {
            match sample.step_from.take() {
                None => sample.step_from.set(Some(clock())),
                Some(from) => {
                    let step = clock() - from - sample.clock_cost.get();
                    sample.worked.set(sample.worked.get() + step.max(0.0));
                }
            }
            return;
        }
        let left = sample.safepoints.get().saturating_sub(1);
        sample.safepoints.set(left);
        if left == 0 {
            sample.blind_from.set(Some(clock()));
            // SAFETY: the VM that calls is alive, and this is its thread.
            unsafe { exchange(state, hook as *mut (), ptr::null_mut()) };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Collector, PERIOD, SAFEPOINTS_MAX, clock};
    use std::ptr::NonNull;

    /// A VM, its collector, and a function that makes garbage or turns a loop.
    fn vm() -> (mlua::Lua, Collector) {
        let lua = mlua::Lua::new();
        let mut state = None;
        // SAFETY: the address is taken, nothing is done with the stack.
        unsafe { lua.exec_raw::<()>((), |it| state = NonNull::new(it)) }.expect("it runs");
        let state = state.expect("a VM has a state");
        // SAFETY: of a live coroutine or the VM itself.
        let main = NonNull::new(unsafe { mlua::ffi::lua_mainthread(state.as_ptr()) });
        let collector = Collector::new(main.expect("a VM has a main state"));
        (lua, collector)
    }

    const GARBAGE: &str = "local t = {} for i = 1, 20_000 do t = { i, t and i, {} } end";

    /// Turns until one was looked at, each of which runs `source`. Seconds of that one.
    fn look(lua: &mlua::Lua, collector: &Collector, source: &str) -> f64 {
        loop {
            let from = clock();
            collector.begin_turn(from);
            let looks = collector.looks_from.get().is_some();
            lua.load(source).exec().expect("it runs");
            let now = clock();
            collector.end_turn(now);
            if looks {
                return now - from;
            }
        }
    }

    #[test]
    fn steps_of_a_turn_that_is_looked_at_count_for_all() {
        let (lua, collector) = vm();
        let took = look(&lua, &collector, GARBAGE);
        let seconds = collector.seconds();
        assert!(seconds > 0.0);
        assert!(seconds <= took * f64::from(PERIOD), "{seconds} of {took}");
        // Without steps there is nothing to count.
        lua.gc_stop();
        look(&lua, &collector, GARBAGE);
        assert_eq!(collector.seconds(), seconds);
        collector.add(1.0);
        assert_eq!(collector.seconds(), seconds + 1.0);
    }

    #[test]
    fn the_interrupt_is_set_in_turns_that_are_looked_at_and_gone_after_so_many_safepoints() {
        let (lua, collector) = vm();
        let state = collector.state.as_ptr();
        // SAFETY: the VM is alive and this is its thread.
        let is_set = || unsafe { (*mlua::ffi::lua_callbacks(state)).interrupt.is_some() };
        let mut looks = 0;
        for _ in 0..20 * PERIOD {
            collector.begin_turn(clock());
            looks += u32::from(is_set());
            collector.end_turn(clock());
            assert!(!is_set());
        }
        assert!((10..=40).contains(&looks), "{looks} of {}", 20 * PERIOD);
        while !is_set() {
            collector.begin_turn(clock());
        }
        let few = "for _ = 1, 1_000 do end";
        lua.load(few).exec().expect("it runs");
        assert!(is_set());
        let many = format!("for _ = 1, {SAFEPOINTS_MAX} do end");
        lua.load(many).exec().expect("it runs");
        assert!(!is_set());
        collector.end_turn(clock());
    }
}
