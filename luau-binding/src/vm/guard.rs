//! What keeps a script from taking the process with it: a budget of time for code that does not
//! yield, and a limit on the memory of the VM.
//!
//! Sits beside `vm.rs`. Script code runs between [`Guard::enter`] and [`Guard::leave`], which every
//! resume and every protected call of ours makes. A thread of its own watches whether the same stay
//! lasts longer than the budget; then, and only then, it sets the VM's interrupt, which raises an
//! error at each safepoint until the stay has ended. Without that, supervision costs a stay two
//! stores, and a script nothing.
//!
//! Invariants
//! - The memory limit holds for script code only: a Rust function that a script calls, and the loop
//!   itself, are never refused memory, so they are never left halfway. Such a function, and a new
//!   request, is refused as a whole while the limit is passed by a sixteenth.
//! - A script that catches the lack of memory finds room to go on: up to a sixteenth more until the next safepoint, where
//!   the garbage is collected.
//! - An error of the interrupt meets the stay that was judged, never the next one: each has a number.
//! - The watching thread writes to the VM only under the lock that [`Guard::stop`] takes.
//!
//! Not here: what becomes of the coroutine that was stopped (`scheduler.rs`, `bridge.rs`).

use super::collector::Collector;
use super::{Stack, ffi};
use crate::runtime::Worker;
use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What Luau says when an allocation is refused.
pub(crate) const NOT_ENOUGH_MEMORY: &str = "not enough memory";

/// The watching thread looks this many times per budget, but at most once a millisecond.
const LOOKS_PER_BUDGET: f64 = 10.0;

/// The bounds of one VM.
#[derive(Debug)]
pub(crate) struct Guard {
    state: NonNull<ffi::lua_State>,
    /// How long the collector works.
    pub(crate) collector: Collector,
    watch: Option<Arc<Watch>>,
    /// Bytes the VM may have; 0 for any number.
    memory_max: usize,
    /// Stays of script code around the present one.
    depth: Cell<u32>,
    /// Whether the VM refuses memory now.
    is_enforced: Cell<bool>,
    /// Bytes in use after the last full collection of ours.
    collected_to: Cell<usize>,
    /// When there may be another one for want of memory alone, on [`super::clock`].
    collect_after: Cell<f64>,
    /// A script has caught an error with hardly any memory left: garbage is collected at the next safepoint.
    is_collection_due: Cell<bool>,
}

/// What the loop and the watching thread share.
#[derive(Debug)]
struct Watch {
    /// Seconds.
    budget: f64,
    /// Odd while script code runs; each stay has a number of its own.
    stay: AtomicU64,
    /// The stay that has lasted too long; 0 for none.
    expired: AtomicU64,
    /// The watching thread waits to be told that script code runs again.
    is_asleep: AtomicBool,
    /// Where the interrupt is set; null once the VM goes.
    callbacks: Mutex<AtomicPtr<ffi::lua_Callbacks>>,
    told: Condvar,
}

/// What [`Guard::leave`] restores.
#[must_use]
#[derive(Debug)]
pub(crate) struct Entered {
    was_enforced: bool,
}

/// What [`Guard::go_on`] restores.
#[must_use]
#[derive(Debug)]
pub(crate) struct Paused {
    depth: u32,
}

/// Memory is refused to nobody until this is dropped.
pub(crate) struct Relaxed<'g> {
    guard: &'g Guard,
    was_enforced: bool,
}

impl Drop for Relaxed<'_> {
    fn drop(&mut self) {
        if self.was_enforced {
            self.guard.enforce(true);
        }
    }
}

impl Guard {
    /// Bounds for the VM of `root`: none, until it is told.
    pub(crate) fn new(root: &super::Root, memory_max: usize) -> Self {
        Self {
            state: root.state,
            collector: Collector::new(root.state),
            watch: None,
            memory_max,
            depth: Cell::new(0),
            is_enforced: Cell::new(false),
            collected_to: Cell::new(0),
            collect_after: Cell::new(0.0),
            is_collection_due: Cell::new(false),
        }
    }

    /// Has the VM tell when a script catches an error, as that may be the lack of memory: [`caught`].
    pub(crate) fn hear_of_caught(&self) {
        if self.memory_max != 0 {
            // SAFETY: the VM is alive, and this is its thread.
            unsafe {
                (*ffi::lua_callbacks(self.state.as_ptr())).debugprotectederror = Some(caught)
            };
        }
    }

    /// A script has caught an error. What it goes on with needs memory before the collector gets to what failed.
    fn on_caught(&self) {
        if !self.is_enforced.get() || self.used() < self.memory_max / 16 * 15 {
            return;
        }
        self.is_collection_due.set(true);
        let _ = self.vm().set_memory_limit(self.memory_max / 16 * 17);
        // SAFETY: the VM is alive, and this is its thread.
        unsafe { set_interrupt(ffi::lua_callbacks(self.state.as_ptr()), Some(interrupt)) };
    }

    /// At a safepoint: the collection that is due, if one is.
    fn collect_if_due(&self) {
        if self.is_collection_due.replace(false) {
            // The collector makes its own tables anew, and is never refused what that takes.
            let _relaxed = self.relax();
            self.collect();
        }
    }

    /// Begins to watch that no stay lasts longer than `budget`. [`stop`](Self::stop) must be called
    /// before the VM is closed.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn watch(&mut self, budget: Duration) -> std::io::Result<()> {
        // SAFETY: the VM is alive; this is the address of a part of it.
        let callbacks = unsafe { ffi::lua_callbacks(self.state.as_ptr()) };
        let watch = Arc::new(Watch {
            budget: budget.as_secs_f64(),
            stay: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            callbacks: Mutex::new(AtomicPtr::new(callbacks)),
            told: Condvar::new(),
        });
        self.watch = Some(Arc::clone(&watch));
        std::thread::Builder::new()
            .name("script budget".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || watch.run())
            .map(|_| ())
    }

    /// Ends the watching; the VM may go.
    pub(crate) fn stop(&self) {
        if let Some(watch) = &self.watch {
            let callbacks = watch
                .callbacks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            callbacks.store(ptr::null_mut(), Ordering::Relaxed);
            watch.told.notify_all();
        }
    }

    /// Script code begins to run, or a part of it within another.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth == 0
            && let Some(watch) = &self.watch
        {
            // Only this thread writes it, so no atomic addition is needed.
            let stay = watch.stay.load(Ordering::Relaxed) + 1;
            watch.stay.store(stay, Ordering::Relaxed);
            if watch.is_asleep.load(Ordering::Relaxed) {
                watch.rouse();
            }
        }
        let was_enforced = self.is_enforced.get();
        if self.memory_max != 0 && !was_enforced {
            self.enforce(true);
        }
        Entered { was_enforced }
    }

    /// Script code has ended, or suspended itself, or raised.
    #[inline]
    pub(crate) fn leave(&self, entered: Entered) {
        if entered.was_enforced != self.is_enforced.get() {
            self.enforce(entered.was_enforced);
        }
        let depth = self.depth.get().saturating_sub(1);
        self.depth.set(depth);
        if depth == 0
            && let Some(watch) = &self.watch
        {
            let stay = watch.stay.load(Ordering::Relaxed) + 1;
            watch.stay.store(stay, Ordering::Relaxed);
            if watch.expired.load(Ordering::Relaxed) != 0 {
                watch.forgive();
            }
        }
    }

    /// Script code that runs lets others have their turn. [`go_on`](Self::go_on) ends that, and its time counts anew.
    pub(crate) fn pause(&self) -> Paused {
        let depth = self.depth.replace(0);
        if depth > 0
            && let Some(watch) = &self.watch
        {
            let stay = watch.stay.load(Ordering::Relaxed) + 1;
            watch.stay.store(stay, Ordering::Relaxed);
            if watch.expired.load(Ordering::Relaxed) != 0 {
                watch.forgive();
            }
        }
        Paused { depth }
    }

    /// The inverse of [`pause`](Self::pause).
    pub(crate) fn go_on(&self, Paused { depth }: Paused) {
        self.depth.set(depth);
        if depth > 0
            && let Some(watch) = &self.watch
        {
            let stay = watch.stay.load(Ordering::Relaxed) + 1;
            watch.stay.store(stay, Ordering::Relaxed);
            if watch.is_asleep.load(Ordering::Relaxed) {
                watch.rouse();
            }
        }
    }

    /// Refuses memory to nobody for as long as the result lives.
    #[inline]
    pub(crate) fn relax(&self) -> Relaxed<'_> {
        let was_enforced = self.is_enforced.get();
        if was_enforced {
            self.enforce(false);
        }
        Relaxed {
            guard: self,
            was_enforced,
        }
    }

    /// Whether the VM has more than it may, and a sixteenth more: so much is left for what frees
    /// memory after script code has come to the limit.
    ///
    /// What is garbage does not count: it is collected first, if there may be enough of it. A function that a script calls
    /// may make what is larger than the limit, and the script let go of it.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.memory_max != 0 && self.is_above(self.memory_max / 16 * 17)
    }

    #[cold]
    fn is_above(&self, bytes: usize) -> bool {
        let used = self.used();
        if used <= bytes {
            return false;
        }
        if used > self.collected_to.get() + self.memory_max / 8 || self.may_collect() {
            self.collect();
        }
        self.used() > bytes
    }

    /// Whether the VM has more than it may: nothing new should begin.
    pub(crate) fn is_full(&self) -> bool {
        self.memory_max != 0 && self.used() > self.memory_max
    }

    /// For the loop: collects all garbage where the collector, which lets the heap double, would
    /// come too late.
    pub(crate) fn tend(&self) {
        if self.memory_max == 0 {
            return;
        }
        let used = self.used();
        let has_grown = used > self.collected_to.get() + self.memory_max / 8;
        let is_near = used > self.memory_max / 4 * 3;
        if used > self.memory_max / 2 && (has_grown || is_near && self.may_collect()) {
            self.collect();
        } else if used < self.collected_to.get() {
            self.collected_to.set(used);
        }
    }

    /// After memory was refused: what failed is garbage now, and the next should not fail for it.
    pub(crate) fn recover(&self) {
        if self.memory_max != 0 && self.used() > self.memory_max / 2 && self.may_collect() {
            self.collect();
        }
    }

    /// Whether full collections have taken less than a tenth of the time.
    fn may_collect(&self) -> bool {
        super::clock() >= self.collect_after.get()
    }

    fn collect(&self) {
        let start = super::clock();
        // SAFETY: the VM is alive and between two instructions of a script, or at the beginning of
        // a function of ours; a collection runs no script code.
        unsafe { ffi::lua_gc(self.state.as_ptr(), ffi::LUA_GCCOLLECT, 0) };
        let end = super::clock();
        self.collector.add(end - start);
        self.collect_after.set(end + 10.0 * (end - start));
        self.collected_to.set(self.used());
    }

    fn vm(&self) -> &mlua::Lua {
        // SAFETY: the VM was made by mlua and outlives this guard, which its worker owns.
        unsafe { mlua::Lua::get_or_init_from_ptr(self.state.as_ptr()) }
    }

    /// Bytes the VM has.
    fn used(&self) -> usize {
        self.vm().used_memory()
    }

    #[cold]
    fn enforce(&self, is_enforced: bool) {
        let limit = if is_enforced { self.memory_max } else { 0 };
        // A VM of mlua's own always has a limit to set.
        if self.vm().set_memory_limit(limit).is_ok() {
            self.is_enforced.set(is_enforced);
        }
    }
}

impl Watch {
    /// The watching thread.
    fn run(&self) {
        let period = (self.budget / LOOKS_PER_BUDGET).clamp(0.001, 1.0);
        let (mut seen, mut lasted) = (0, 0.0);
        let period_of_time = Duration::from_secs_f64(period);
        let mut callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let place = callbacks.load(Ordering::Relaxed);
            if place.is_null() {
                return;
            }
            let stay = self.stay.load(Ordering::Relaxed);
            let mut may_sleep = false;
            if stay != seen {
                (seen, lasted) = (stay, 0.0);
                self.is_asleep.store(false, Ordering::Relaxed);
            } else if stay % 2 == 1 {
                // Looks are counted, not time, so that a process that was stopped and goes on is
                // not blamed for the pause.
                lasted += period;
                if lasted >= self.budget {
                    self.expired.store(stay, Ordering::Relaxed);
                    // SAFETY: the VM is alive while the lock is held with an address in it. Luau
                    // allows this field to be set from any thread.
                    unsafe { set_interrupt(place, Some(interrupt)) };
                }
            } else {
                // Nothing has run for a period. Who begins to run later than that finds the flag
                // set; who began meanwhile is seen at the next look, one period from here.
                may_sleep = self.is_asleep.swap(true, Ordering::Relaxed);
            }
            callbacks = if may_sleep {
                self.told
                    .wait(callbacks)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.told
                    .wait_timeout(callbacks, period_of_time)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
    }

    /// Wakes the watching thread.
    #[cold]
    fn rouse(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
        drop(
            self.callbacks
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.told.notify_all();
    }

    /// The stay that had lasted too long has ended.
    #[cold]
    fn forgive(&self) {
        let callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.expired.store(0, Ordering::Relaxed);
        let place = callbacks.load(Ordering::Relaxed);
        if !place.is_null() {
            // SAFETY: as in `run`; this is the VM's own thread.
            unsafe { set_interrupt(place, None) };
        }
    }
}

type Interrupt = unsafe extern "C-unwind" fn(*mut ffi::lua_State, c_int);

/// Sets the interrupt, which the VM reads at every safepoint. Stack: none.
///
/// # Safety
/// `callbacks` is of a live VM.
unsafe fn set_interrupt(callbacks: *mut ffi::lua_Callbacks, interrupt: Option<Interrupt>) {
    let address = interrupt.map_or(ptr::null_mut(), |function| function as *mut ());
    // SAFETY: by the contract above. An absent function is a null pointer, so the field has the
    // size and alignment of a pointer, and it is written whole.
    unsafe {
        let field = &raw mut (*callbacks).interrupt;
        AtomicPtr::from_ptr(field.cast::<*mut ()>()).store(address, Ordering::Release);
    }
}

/// Tells the guard that a script has caught an error. Stack: none.
///
/// # Safety
/// Called by the VM only, before what the protected call had on the stack is gone.
unsafe extern "C-unwind" fn caught(state: *mut ffi::lua_State) {
    // SAFETY: the VM was made by mlua.
    let lua = unsafe { mlua::Lua::get_or_init_from_ptr(state) };
    if let Some(worker) = lua.app_data_ref::<Rc<Worker>>() {
        worker.guard.on_caught();
    }
}

/// Raises in the script that has run for too long, behind a collection if one is due. Stack: 1.
///
/// # Safety
/// Called by the VM only, at a safepoint (`phase` is negative) or from the collector.
unsafe extern "C-unwind" fn interrupt(state: *mut ffi::lua_State, phase: c_int) {
    let Some(here) = NonNull::new(state).filter(|_| phase < 0) else {
        return;
    };
    // SAFETY: the VM was made by mlua.
    let lua = unsafe { mlua::Lua::get_or_init_from_ptr(state) };
    let budget = lua.app_data_ref::<Rc<Worker>>().and_then(|worker| {
        worker.guard.collect_if_due();
        worker.guard.overrun()
    });
    let Some(budget) = budget else {
        // The stay that was meant has ended.
        // SAFETY: the VM is alive, and this is its thread.
        unsafe { set_interrupt(ffi::lua_callbacks(state), None) };
        return;
    };
    let mut stack = Stack {
        state: here,
        worker: None,
    };
    let place = stack.place_from(0);
    stack.push_string(format!(
        "{place}stopped after running for {budget} s without yielding (huki run --budget)"
    ));
    drop(place);
    // SAFETY: the error is on top of the stack, and nothing here has a destructor left.
    unsafe { ffi::lua_error(state) }
}

impl Guard {
    /// The budget in seconds, if the present stay was found to pass it.
    fn overrun(&self) -> Option<f64> {
        let watch = self.watch.as_ref()?;
        let stay = watch.stay.load(Ordering::Relaxed);
        (watch.expired.load(Ordering::Relaxed) == stay && stay % 2 == 1).then_some(watch.budget)
    }
}
