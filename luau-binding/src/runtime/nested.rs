//! A turn of the loop from within a script, for calls that block where no coroutine can be suspended.
//!
//! Sits inside `runtime.rs`. A metamethod or a function that `table.sort` calls has frames of the VM's own
//! below it, so it cannot wait as others do; a dialect whose calls block all the same lets the loop
//! turn around it, once after the other, until what it waits for is there.
//!
//! ```text
//! turn ─▶ completion ─▶ coroutine ─▶ native frames ─▶ blocking call ─▶ the rest of the completions ─▶ turn …
//! ```
//!
//! Invariants
//! - Completions are delivered once and in their order: what the turns around have not delivered comes
//!   first, and they go on behind it.
//! - Turns within turns are bounded, as the C stack is. A host with connections of its own, which only it can deliver, has none.
//! - Time that a script spends in them is not counted as its own.
//!
//! Not here: which calls block (`surface/winhttp`), what a turn does (`runtime.rs`).

use super::{Worker, pump};
use crate::bridge;
use crate::metrics::Metrics;
use crate::net::client;
use crate::net::raw;
use crate::scheduler;
use crate::std::lines;
use crate::surface;
use crate::vm::{self, Raise};
use hukilau_core::Reactor;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Turns inside one another. Each takes some KiB of stack, of which a thread has at least 2 MiB.
const LEVELS_MAX: usize = 16;

/// The longest that such a turn waits: it does not know of all that ends a wait of the outermost.
const WAIT_MAX: f64 = 0.05;

/// What a turn found, and how far it has been delivered.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) inbox: RefCell<Inbox>,
    next: Cell<usize>,
}

/// The turns that are under way, the outermost first.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    under_way: RefCell<Vec<Rc<Delivery>>>,
    /// A call that blocked was cut short, because the process is to end.
    is_cut: Cell<bool>,
    /// Seconds that the turn that is under way has spent in other turns' polls and reads.
    waited: Cell<f64>,
    /// How many of them a script has begun.
    level: Cell<usize>,
    /// Inboxes to use again.
    spare: RefCell<Vec<Rc<Delivery>>>,
    /// The host takes completions of its own.
    pub(super) is_shared: Cell<bool>,
    pub(super) metrics: Cell<Option<Metrics>>,
}

/// Delivers what a turn has found.
pub(super) fn deliver(
    worker: &Worker,
    delivery: &Rc<Delivery>,
    own: impl FnMut(&mut Reactor, Completion<'_>) -> bool,
) {
    delivery.next.set(0);
    let under_way = &worker.turns.under_way;
    under_way.borrow_mut().push(Rc::clone(delivery));
    deliver_rest(worker, delivery, own);
    under_way.borrow_mut().pop();
    for refusal in delivery.inbox.borrow().turned_away() {
        worker.access.turned_away(worker, refusal);
    }
    for (_, error) in delivery.inbox.borrow().accept_errors() {
        worker.report_text(&format!("a connection could not be accepted: {error}"));
    }
}

/// Goes on from where the delivery has come to, and returns whether there was something left.
fn deliver_rest(
    worker: &Worker,
    delivery: &Delivery,
    mut own: impl FnMut(&mut Reactor, Completion<'_>) -> bool,
) -> bool {
    let metrics = worker.turns.metrics.get();
    let inbox = delivery.inbox.borrow();
    let mut had_some = false;
    for (at, completion) in inbox.completions().enumerate() {
        if at < delivery.next.get() {
            continue;
        }
        delivery.next.set(at + 1);
        had_some = true;
        let is_own = own(&mut worker.reactor.borrow_mut(), completion);
        // A request is a server's: the commonest completion is asked about least.
        let is_request = matches!(completion.what, What::Request { .. });
        let is_taken = is_own
            || metrics.is_some_and(|it| it.answer(worker, completion))
            || !is_request
                && (client::offer(worker, &completion) || raw::deliver(worker, &completion));
        if !is_taken {
            bridge::deliver(worker, completion);
        }
        if worker.exit_code().is_some() {
            break;
        }
    }
    had_some
}

/// Lets the loop turn once, waiting at most so many seconds for something to happen.
///
/// # Errors
/// Where the loop cannot turn, or if the process is to end: then nobody should wait any longer.
pub(crate) fn turn(worker: &Worker, seconds: f64) -> Result<(), Raise> {
    let level = worker.turns.level.get();
    if worker.turns.is_shared.get() {
        return Err(Raise::from(
            "cannot wait here: a metamethod, a sort or another call from native code is below",
        ));
    } else if level >= LEVELS_MAX {
        return Err(Raise::from(format!(
            "cannot wait here: {LEVELS_MAX} calls that block wait inside one another already"
        )));
    }
    let paused = worker.guard.pause();
    worker.turns.level.set(level + 1);
    let turned = turn_inside(worker, seconds);
    worker.turns.level.set(level);
    worker.guard.go_on(paused);
    turned?;
    match worker.exit_code() {
        Some(_) => {
            worker.turns.is_cut.set(true);
            Err(Raise::from("the process ends"))
        }
        None => Ok(()),
    }
}

impl Worker {
    /// Counts the time of a turn in which scripts have run: so many seconds, those not counted that turns
    /// within have waited.
    pub(super) fn note_scripts(&self, seconds: f64) {
        let own = (seconds - self.turns.waited.take()).max(0.0);
        let member = self.peers.own();
        let total = &member.script_nanos;
        total.set(total.value() + nanos(own));
        member
            .collector_nanos
            .set(nanos(self.guard.collector.seconds()));
    }

    /// Whether what scripts raise from now on is of no consequence: the process ends, and they were told so.
    pub(crate) fn is_cut(&self) -> bool {
        self.turns.is_cut.get()
    }
}

fn turn_inside(worker: &Worker, seconds: f64) -> Result<(), Raise> {
    let around = worker.turns.under_way.borrow().clone();
    let mut is_idle = true;
    for delivery in &around {
        is_idle &= !deliver_rest(worker, delivery, |_, _| false);
    }
    worker.root.sweep();
    surface::lost::sweep(worker);
    raw::sweep(worker);
    worker.peers.flush(&mut worker.reactor.borrow_mut());
    let is_idle =
        is_idle && worker.pump.borrow().is_empty() && !worker.outbound.borrow().has_events();
    let delay = match is_idle {
        true => {
            let due = worker.scheduler.borrow_mut().delay(vm::clock());
            due.unwrap_or(WAIT_MAX).clamp(0.0, seconds.min(WAIT_MAX))
        }
        false => 0.0,
    };
    let spare = worker.turns.spare.borrow_mut().pop();
    let delivery = spare.unwrap_or_default();
    {
        let mut reactor = worker.reactor.borrow_mut();
        let wake_at = reactor.now() + Duration::from_secs_f64(delay);
        let asked_at = worker.outbound.borrow().wake_at();
        let wake_at = asked_at.map_or(wake_at, |asked| asked.min(wake_at));
        let began = vm::clock();
        let turned = reactor.turn(&mut delivery.inbox.borrow_mut(), Some(wake_at));
        turned.map_err(|error| Raise::from(format!("the loop cannot turn: {error}")))?;
        worker.peers.tend(&mut reactor);
        let waited = &worker.turns.waited;
        waited.set(waited.get() + vm::clock() - began);
    }
    let now = vm::clock();
    worker.surface.note_turn();
    deliver(worker, &delivery, |_, _| false);
    worker.turns.spare.borrow_mut().push(delivery);
    client::tend(worker);
    lines::deliver(worker);
    pump(worker);
    scheduler::run_due(worker, now);
    scheduler::settle_strays(worker);
    pump(worker);
    worker.access.flush(worker);
    Ok(())
}

/// Whole nanoseconds.
fn nanos(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^53"
    )]
    let nanos = (seconds * 1e9).round() as u64;
    nanos
}
