//! Calls at a rate: `task.every(hz, fn)`, for games and whatever else has a beat.
//!
//! Sits inside `scheduler.rs`, below `std/every.rs`, which checks arguments. A ticker has a slot without a
//! coroutine, whose timer is its next call; each call runs in a coroutine of its own, as a handler does.
//!
//! Invariants
//! - Call `n` is due at `start + n / hz`: lateness of one call never moves the next, so there is no drift.
//! - Calls never overlap and are never made up for: one that is due while the last still runs, and all but the
//!   newest of those whose time passed unseen, are counted as overruns.
//! - What was cancelled holds nothing: no slot, no timer, no function, no suspended call.
//!
//! Not here: the object that scripts hold (`std/every.rs`).

use super::{Progress, Scheduler, State, WaitKey, Wake, start};
use crate::bridge::{Failure, Purpose};
use crate::runtime::Worker;
use crate::vm::{Pin, Raise, Stack};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A function that is called at a rate.
#[derive(Debug)]
pub(crate) struct Ticker {
    /// Calls a second.
    pub(crate) hz: f64,
    start: f64,
    /// The number of the call that the timer is set for. Whole, and far below 2^53.
    next: Cell<f64>,
    /// When the last call began, or the ticker itself.
    since: Cell<f64>,
    /// Calls that were made.
    pub(crate) ticks: Cell<f64>,
    /// Calls that were due and not made.
    pub(crate) overruns: Cell<f64>,
    /// Its slot; none once it is cancelled.
    slot: Cell<Option<u32>>,
    call: Cell<Call>,
    /// The function, and the object that it is given.
    values: RefCell<Option<(Pin, Pin)>>,
}

/// What the last call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Ended,
    Running,
    /// It waits for something, in this task.
    Suspended(u32),
}

impl Ticker {
    /// A ticker that has not begun.
    pub(crate) fn new(hz: f64, now: f64) -> Rc<Self> {
        Rc::new(Self {
            hz,
            start: now,
            next: Cell::new(1.0),
            since: Cell::new(now),
            ticks: Cell::new(0.0),
            overruns: Cell::new(0.0),
            slot: Cell::new(None),
            call: Cell::new(Call::Ended),
            values: RefCell::new(None),
        })
    }

    /// Whether there is nothing more to come of it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.slot.get().is_none()
    }

    fn due(&self) -> f64 {
        self.start + self.next.get() / self.hz
    }

    /// Counts what is due at `now`, sets the number of the call after, and returns whether to make one now, with the
    /// seconds since the last.
    fn advance(&self, now: f64) -> Option<f64> {
        // Rounding must not make the call that fired one that is not due yet.
        let latest = ((now - self.start) * self.hz).floor().max(self.next.get());
        let due = latest - self.next.get() + 1.0;
        self.next.set(latest + 1.0);
        if self.call.get() != Call::Ended {
            self.overruns.set(self.overruns.get() + due);
            return None;
        }
        self.overruns.set(self.overruns.get() + due - 1.0);
        self.ticks.set(self.ticks.get() + 1.0);
        Some(now - self.since.replace(now))
    }
}

/// Begins to call the function in `values` with the object beside it.
///
/// # Errors
/// If there are too many tasks.
pub(crate) fn begin(worker: &Worker, ticker: &Rc<Ticker>, values: (Pin, Pin)) -> Result<(), Raise> {
    let mut scheduler = worker.scheduler.borrow_mut();
    let id = scheduler
        .open_slot()
        .ok_or_else(|| Raise::from("too many coroutines"))?;
    if let Some(task) = scheduler.get_mut(id) {
        task.purpose = Purpose::Tick(Rc::clone(ticker));
    }
    ticker.slot.set(Some(id));
    *ticker.values.borrow_mut() = Some(values);
    scheduler.set_tick(id, ticker);
    Ok(())
}

/// The timer of the ticker in the slot of `key` is due.
pub(super) fn fire(worker: &Worker, from: &Stack<'_>, key: WaitKey, now: f64) {
    let ticker = {
        let mut scheduler = worker.scheduler.borrow_mut();
        let Some(Purpose::Tick(ticker)) = scheduler.purpose_mut(key.task) else {
            return;
        };
        Rc::clone(ticker)
    };
    let elapsed = ticker.advance(now);
    // Set before the call, which may cancel it.
    worker.scheduler.borrow_mut().set_tick(key.task, &ticker);
    let Some(elapsed) = elapsed else { return };
    ticker.call.set(Call::Running);
    let purpose = Purpose::Tick(Rc::clone(&ticker));
    let progress = start(worker, from, purpose, |stack| {
        match &*ticker.values.borrow() {
            Some((function, object)) => {
                stack.push_pin(function);
                stack.push_number(elapsed);
                stack.push_pin(object);
            }
            None => stack.resize(3),
        }
        2
    });
    ticker.call.set(match progress {
        Progress::Done => Call::Ended,
        Progress::Pending(id) => Call::Suspended(id),
    });
}

/// A call has ended, well or not.
pub(crate) fn ended(worker: &Worker, ticker: &Ticker, failure: Option<&Failure>) {
    ticker.call.set(Call::Ended);
    if let Some(failure) = failure {
        worker.report("in a function of task.every", failure);
    }
}

/// Makes no more calls, and ends one that is suspended. One that is running, because it is what cancels, goes on
/// to its end.
pub(crate) fn cancel(worker: &Worker, ticker: &Ticker) {
    let Some(slot) = ticker.slot.take() else {
        return;
    };
    let values = ticker.values.take();
    let mut scheduler = worker.scheduler.borrow_mut();
    scheduler.retire(slot, false);
    if let Call::Suspended(id) = ticker.call.replace(Call::Ended) {
        let coroutine = scheduler
            .get(id)
            .and_then(|task| task.coroutine.clone())
            .filter(|coroutine| coroutine.reset());
        if coroutine.is_some() {
            scheduler.retire(id, false);
        }
    }
    drop(scheduler);
    drop(values);
}

impl Scheduler {
    /// Sets the timer of a ticker's next call.
    fn set_tick(&mut self, id: u32, ticker: &Ticker) {
        if let Some(key) = self.enter(id, State::Timer) {
            self.at(ticker.due(), key, Wake::Tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Ticker};

    #[test]
    fn lateness_never_moves_the_next_call_and_missed_ones_are_counted() {
        let ticker = Ticker::new(10.0, 100.0);
        // When the timer was seen; whether a call is made then, and of which length; overruns; next.
        for (now, elapsed, overruns, next) in [
            (100.1, Some(0.1), 0.0, 2.0),
            (100.25, Some(0.15), 0.0, 3.0),
            (100.3, Some(0.05), 0.0, 4.0),
            (100.75, Some(0.45), 3.0, 8.0),
            (100.8, Some(0.05), 3.0, 9.0),
            // Seen a rounding error early: it is the ninth all the same.
            (100.899_999_999, Some(0.099_999_999), 3.0, 10.0),
        ] {
            let got = ticker.advance(now);
            assert_eq!(got.is_some(), elapsed.is_some(), "{now}");
            let difference = got.unwrap_or_default() - elapsed.unwrap_or_default();
            assert!(difference.abs() < 1.0e-9, "{now}: {got:?}");
            assert_eq!((ticker.overruns.get(), ticker.next.get()), (overruns, next));
        }
        assert_eq!(ticker.ticks.get(), 6.0);
    }

    #[test]
    fn a_call_that_is_due_while_the_last_one_waits_is_an_overrun() {
        let ticker = Ticker::new(2.0, 0.0);
        ticker.call.set(Call::Suspended(7));
        assert_eq!(ticker.advance(0.5), None);
        assert_eq!(ticker.advance(2.0), None);
        assert_eq!((ticker.ticks.get(), ticker.overruns.get()), (0.0, 4.0));
        ticker.call.set(Call::Ended);
        assert_eq!(ticker.advance(2.5), Some(2.5));
        assert_eq!((ticker.ticks.get(), ticker.overruns.get()), (1.0, 4.0));
    }
}
