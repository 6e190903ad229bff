//! Who runs when: coroutines, what they wait for, and timers.
//!
//! Sits between the bridge, which starts coroutines for completions, and `vm`, which resumes them.
//! Every coroutine that ran for us has a task: a slot that knows the coroutine, its purpose, and
//! whether it is *running*, *ready*, *waiting*, *parked* (suspended, and only a script can wake it)
//! or *pooled*. A task is in exactly one of these states.
//!
//! A [`WaitKey`] names one suspension of one task. Resuming, cancelling or ending the task makes it
//! stale, and firing a stale key does nothing: a cancelled wait finds nothing.
//!
//! Invariants
//! - The cell that holds the scheduler is never borrowed while Luau runs.
//! - A coroutine that a script got hold of is not pooled: the script's handle must not come to name
//!   somebody else's request.
//! - Time is an argument, in seconds of [`vm::clock`].
//!
//! What scripts ask for is in `scheduler/ask.rs`, what ends a wait in `scheduler/wake.rs`, calls at a rate in
//! `scheduler/every.rs`, how many wait for what in `scheduler/count.rs`, coroutines that scripts ran by themselves in `scheduler/stray.rs`.
//!
//! Not here: what a finished coroutine's results mean (`bridge.rs`), the script's face of all this
//! (`std/task.rs`).

mod ask;
mod count;
pub(crate) mod every;
mod stray;
mod wake;

pub(crate) use ask::{When, cancel, forget, spawn, wait_for_time, wait_for_wire};
pub(crate) use stray::settle_strays;
pub(crate) use wake::{wake, wake_raising};

use crate::bridge::{self, Failure, Purpose};
use crate::runtime::Worker;
use crate::vm::coroutine::{Coroutine, Resumed};
use crate::vm::guard::NOT_ENOUGH_MEMORY;
use crate::vm::{Root, Stack};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

/// Coroutines resumed in one turn before sockets are looked at again.
const RESUMES_PER_TURN: usize = 4_096;
/// Coroutines kept for reuse; more are left to the collector.
const POOLED_MAX: usize = 1_024;
/// Stale timers that may lie in the heap before it is cleaned.
const STALE_TIMERS_MAX: usize = 64;

/// Names one suspension of one task, and nothing once the task has moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaitKey {
    task: u32,
    suspension: u32,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The slot has no coroutine, or one that waits to be used again.
    Pooled,
    /// On the C stack.
    Running,
    /// In the ready queue.
    Ready,
    /// In the timer heap.
    Timer,
    /// A connection will wake it.
    Wire,
    /// Suspended, and only a script can wake it.
    Parked,
}

struct Task {
    coroutine: Option<Rc<Coroutine>>,
    purpose: Purpose,
    /// Counts up at each change, so that keys of former suspensions are stale.
    suspension: u32,
    state: State,
    /// A script has, or may have, the coroutine as a value.
    is_exposed: bool,
    /// It is in `Scheduler::strays`.
    is_stray: bool,
}

/// What a timer does when it is due.
#[derive(Clone, Copy, Debug)]
enum Wake {
    /// Resume with the seconds that have passed since.
    Elapsed { since: f64 },
    /// Start with so many arguments that lie ready on the coroutine's stack.
    Start { args: i32 },
    /// The next call of a ticker, which has a slot of its own and no coroutine in it.
    Tick,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    at: f64,
    /// Timers due at the same time fire in the order they were set.
    sequence: u64,
    key: WaitKey,
    wake: Wake,
}

impl Ord for Timer {
    /// Earliest first out of a heap that gives the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .at
            .total_cmp(&self.at)
            .then(other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timer {}

/// All tasks of one worker.
pub(crate) struct Scheduler {
    tasks: Vec<Task>,
    /// Slots without a coroutine.
    vacant: Vec<u32>,
    /// Slots with a coroutine to use again.
    idle: Vec<u32>,
    ready: VecDeque<(WaitKey, i32)>,
    timers: BinaryHeap<Timer>,
    sequence: u64,
    /// Tasks in state `Ready` or `Timer`: they keep the process alive.
    pending: usize,
    /// Entries of `timers` whose key is stale.
    stale: usize,
    /// Suspended tasks with a purpose whose coroutine a script has: it may run it to its end
    /// itself, and nobody would tell us.
    strays: Vec<u32>,
    /// How many of them have not been looked at since something ran.
    unseen: usize,
    /// A coroutine that a connection would have woken was cancelled.
    has_cancelled: bool,
}

/// What [`Scheduler::advance`] found to resume.
struct Due {
    key: WaitKey,
    args: i32,
    elapsed: Option<f64>,
    is_tick: bool,
}

impl Scheduler {
    /// With nothing to do.
    pub(crate) fn new() -> Self {
        Self {
            tasks: Vec::new(),
            vacant: Vec::new(),
            idle: Vec::new(),
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            sequence: 0,
            pending: 0,
            stale: 0,
            strays: Vec::new(),
            unseen: 0,
            has_cancelled: false,
        }
    }

    /// Whether something waits that will run without a completion.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// Seconds from `now` until something has to run; `None` if nothing waits for time.
    pub(crate) fn delay(&mut self, now: f64) -> Option<f64> {
        if !self.ready.is_empty() || self.unseen > 0 {
            return Some(0.0);
        }
        while let Some(timer) = self.timers.peek() {
            if self.is_current(timer.key) {
                return Some((timer.at - now).max(0.0));
            }
            self.timers.pop();
            self.stale = self.stale.saturating_sub(1);
        }
        None
    }

    fn get(&self, id: u32) -> Option<&Task> {
        self.tasks.get(id as usize)
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut Task> {
        self.tasks.get_mut(id as usize)
    }

    /// Whether the task is still in the suspension that `key` names.
    pub(crate) fn is_current(&self, key: WaitKey) -> bool {
        self.get(key.task)
            .is_some_and(|task| task.suspension == key.suspension)
    }

    /// Moves a task to another state. Every former key of it is stale from here on.
    fn enter(&mut self, id: u32, state: State) -> Option<WaitKey> {
        self.unseen = self.strays.len();
        let task = self.get_mut(id)?;
        let before = std::mem::replace(&mut task.state, state);
        task.suspension = task.suspension.wrapping_add(1);
        let key = WaitKey {
            task: id,
            suspension: task.suspension,
        };
        let counts = |state| usize::from(matches!(state, State::Ready | State::Timer));
        self.pending = self.pending + counts(state) - counts(before);
        if before == State::Timer {
            self.stale += 1;
            if self.stale > STALE_TIMERS_MAX && self.stale * 2 > self.timers.len() {
                let tasks = &self.tasks;
                self.timers.retain(|timer| {
                    tasks
                        .get(timer.key.task as usize)
                        .is_some_and(|task| task.suspension == timer.key.suspension)
                });
                self.stale = 0;
            }
        }
        Some(key)
    }

    /// A task for a coroutine, new or used before, whose stack is empty.
    fn take(&mut self, root: &Root) -> Option<(u32, Rc<Coroutine>)> {
        if let Some(id) = self.idle.pop() {
            let task = self.get_mut(id)?;
            let coroutine = Rc::clone(task.coroutine.as_ref()?);
            return Some((id, coroutine));
        }
        let coroutine = Rc::new(root.new_coroutine()?);
        let id = self.adopt(Rc::clone(&coroutine), Purpose::Detached, false)?;
        Some((id, coroutine))
    }

    /// Gives a coroutine a task.
    fn adopt(
        &mut self,
        coroutine: Rc<Coroutine>,
        purpose: Purpose,
        is_exposed: bool,
    ) -> Option<u32> {
        let id = self.open_slot()?;
        coroutine.set_label(Some(id));
        let task = self.get_mut(id)?;
        task.coroutine = Some(coroutine);
        task.purpose = purpose;
        task.is_exposed = is_exposed;
        Some(id)
    }

    /// A slot for a task, without a coroutine yet.
    fn open_slot(&mut self) -> Option<u32> {
        if let Some(id) = self.vacant.pop() {
            return Some(id);
        }
        let id = u32::try_from(self.tasks.len()).ok()?;
        self.tasks.push(Task {
            coroutine: None,
            purpose: Purpose::Detached,
            suspension: 0,
            state: State::Pooled,
            is_exposed: false,
            is_stray: false,
        });
        Some(id)
    }

    /// The task has ended: its coroutine is used again if nobody else can have it.
    fn retire(&mut self, id: u32, may_reuse: bool) {
        self.enter(id, State::Pooled);
        let pooled = self.idle.len();
        let Some(task) = self.get_mut(id) else { return };
        task.purpose = Purpose::Detached;
        if may_reuse && !task.is_exposed && pooled < POOLED_MAX {
            self.idle.push(id);
            return;
        }
        task.is_exposed = false;
        if let Some(coroutine) = task.coroutine.take() {
            coroutine.set_label(None);
        }
        self.vacant.push(id);
    }

    fn at(&mut self, at: f64, key: WaitKey, wake: Wake) {
        self.sequence += 1;
        self.timers.push(Timer {
            at,
            sequence: self.sequence,
            key,
            wake,
        });
    }

    /// The next task that is due at `now`.
    fn advance(&mut self, now: f64) -> Option<Due> {
        while let Some(timer) = self.timers.peek() {
            if timer.at > now {
                break;
            }
            let timer = *timer;
            self.timers.pop();
            if !self.is_current(timer.key) {
                self.stale = self.stale.saturating_sub(1);
                continue;
            }
            let (args, elapsed) = match timer.wake {
                Wake::Elapsed { since } => (1, Some(now - since)),
                Wake::Start { args } => (args, None),
                Wake::Tick => (0, None),
            };
            let is_tick = matches!(timer.wake, Wake::Tick);
            // From one counted state to the other; its entry has left the heap and is not stale.
            let task = self.get_mut(timer.key.task)?;
            task.state = State::Ready;
            task.suspension = task.suspension.wrapping_add(1);
            let key = WaitKey {
                task: timer.key.task,
                suspension: task.suspension,
            };
            return Some(Due {
                key,
                args,
                elapsed,
                is_tick,
            });
        }
        let mut all = usize::MAX;
        self.next_ready(&mut all)
    }

    /// The next of the first `most` tasks that are ready; those that are looked at are taken off it.
    fn next_ready(&mut self, most: &mut usize) -> Option<Due> {
        while *most > 0 {
            let (key, args) = self.ready.pop_front()?;
            *most -= 1;
            if self.is_current(key) {
                return Some(Due {
                    key,
                    args,
                    elapsed: None,
                    is_tick: false,
                });
            }
        }
        None
    }
}

/// Whether a coroutine that was started is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has ended, and what it was for is settled.
    Done,
    /// It is suspended.
    Pending(u32),
}

/// Starts a coroutine for `purpose`. `push` puts the function and its arguments on its stack and
/// returns the number of arguments.
pub(crate) fn start(
    worker: &Worker,
    from: &Stack<'_>,
    purpose: Purpose,
    push: impl FnOnce(&mut Stack<'_>) -> i32,
) -> Progress {
    if worker.guard.is_over() && purpose.is_asked_for() {
        // Sockets and timers still run: they may be what frees memory.
        bridge::raised(worker, purpose, Failure::plain(NOT_ENOUGH_MEMORY));
        return Progress::Done;
    }
    let taken = {
        let mut scheduler = worker.scheduler.borrow_mut();
        let taken = scheduler.take(&worker.root);
        if let Some((id, _)) = &taken {
            scheduler.enter(*id, State::Running);
        }
        taken
    };
    let Some((id, coroutine)) = taken else {
        worker.report_text("out of memory: a coroutine could not be made");
        return Progress::Done;
    };
    let args = push(&mut coroutine.stack(worker));
    resume(
        worker,
        from,
        (id, &coroutine),
        purpose,
        Resume::Values(args),
    )
}

/// What a coroutine goes on with.
#[derive(Clone, Copy, Debug)]
enum Resume {
    /// The topmost so many values of its stack.
    Values(i32),
    /// The topmost value of its stack, as an error.
    Error,
}

/// Resumes the coroutine of task `id`, which is suspended, for the purpose that it has.
fn run(
    worker: &Worker,
    from: &Stack<'_>,
    id: u32,
    coroutine: &Rc<Coroutine>,
    with: Resume,
) -> Progress {
    let purpose = {
        let mut scheduler = worker.scheduler.borrow_mut();
        scheduler.enter(id, State::Running);
        scheduler.purpose(id)
    };
    resume(worker, from, (id, coroutine), purpose, with)
}

/// Resumes the coroutine of a task that is in state *running*, and settles what it was for if it
/// ends. The slot of a task has its purpose only while it is suspended.
fn resume(
    worker: &Worker,
    from: &Stack<'_>,
    (id, coroutine): (u32, &Rc<Coroutine>),
    purpose: Purpose,
    with: Resume,
) -> Progress {
    let resumed = match with {
        Resume::Values(args) => coroutine.resume(from, args),
        Resume::Error => coroutine.resume_error(from),
    };
    match resumed {
        Resumed::Returned => {
            bridge::returned(worker, purpose, &mut coroutine.stack(worker));
            coroutine.clear();
            worker.scheduler.borrow_mut().retire(id, true);
            Progress::Done
        }
        Resumed::Suspended => suspended(worker, id, purpose),
        Resumed::Raised => {
            let failure = coroutine.failure(worker);
            let may_reuse = coroutine.reset();
            worker.guard.recover();
            bridge::raised(worker, purpose, failure);
            worker.scheduler.borrow_mut().retire(id, may_reuse);
            Progress::Done
        }
        Resumed::Panicked(text) => {
            let failure = Failure::plain(&format!("internal error: {text}"));
            bridge::raised(worker, purpose, failure);
            worker.scheduler.borrow_mut().retire(id, false);
            Progress::Done
        }
    }
}

/// The coroutine gave up control. If nothing of ours will wake it and it has no purpose but its
/// own, it belongs to the script alone; if no script has it either, it is lost.
fn suspended(worker: &Worker, id: u32, purpose: Purpose) -> Progress {
    let is_lost = worker.scheduler.borrow_mut().suspend(id, purpose);
    if is_lost && worker.exit_code().is_none() {
        let why = "coroutine.yield in a coroutine that no script can resume: get it with \
                   coroutine.running first, and wake it with task.spawn";
        lose(worker, id, why);
        return Progress::Done;
    }
    Progress::Pending(id)
}

/// Ends a task whose coroutine will never tell.
fn lose(worker: &Worker, id: u32, why: &str) {
    let purpose = worker.scheduler.borrow_mut().purpose(id);
    let coroutine = worker.scheduler.borrow().coroutine(id);
    // Where it has yielded for ever.
    let place = coroutine
        .filter(|coroutine| coroutine.is_suspended())
        .map(|coroutine| coroutine.stack(worker).place_of_call());
    let why = place.unwrap_or_default() + why;
    worker.scheduler.borrow_mut().retire(id, false);
    if matches!(purpose, Purpose::Detached) {
        return;
    }
    bridge::raised(worker, purpose, Failure::plain(&why));
}

/// Resumes what is due at `now`, at most as much as a turn may.
pub(crate) fn run_due(worker: &Worker, now: f64) {
    let from = worker.root.stack(worker);
    // What was deferred by the script itself, or by what has arrived, comes before what time brings.
    let mut deferred = match worker.surface.times_come_first() {
        true => 0,
        false => worker.scheduler.borrow().ready.len(),
    };
    for _ in 0..RESUMES_PER_TURN {
        if worker.exit_code().is_some() {
            return;
        }
        let due = {
            let mut scheduler = worker.scheduler.borrow_mut();
            let due = scheduler.next_ready(&mut deferred);
            due.or_else(|| scheduler.advance(now))
        };
        let Some(due) = due else {
            return;
        };
        if due.is_tick {
            every::fire(worker, &from, due.key, now);
            continue;
        }
        wake(worker, &from, due.key, |stack| {
            if let Some(elapsed) = due.elapsed {
                stack.push_number(elapsed);
            }
            due.args
        });
    }
}

impl Scheduler {
    /// Sorts a task that was suspended. True if nobody can ever resume it.
    fn suspend(&mut self, id: u32, purpose: Purpose) -> bool {
        let Some(task) = self.get_mut(id) else {
            return false;
        };
        task.purpose = purpose;
        let is_unclaimed = task.state == State::Running;
        match task.purpose {
            Purpose::Detached if is_unclaimed => self.retire(id, false),
            Purpose::Detached => {}
            _ if task.is_exposed => {
                if !std::mem::replace(&mut task.is_stray, true) {
                    self.strays.push(id);
                }
                if is_unclaimed {
                    self.enter(id, State::Parked);
                }
            }
            _ if is_unclaimed => {
                let waits_for_ever = matches!(task.purpose, Purpose::Main);
                self.enter(id, State::Parked);
                return !waits_for_ever;
            }
            _ => {}
        }
        false
    }

    /// Takes the purpose out of a task.
    fn purpose(&mut self, id: u32) -> Purpose {
        self.get_mut(id).map_or(Purpose::Detached, |task| {
            std::mem::replace(&mut task.purpose, Purpose::Detached)
        })
    }

    /// The coroutine of a task.
    fn coroutine(&self, id: u32) -> Option<Rc<Coroutine>> {
        self.get(id)?.coroutine.clone()
    }

    /// Changes the purpose of a suspended task, to remember what it will need when it goes on.
    pub(crate) fn purpose_mut(&mut self, id: u32) -> Option<&mut Purpose> {
        self.get_mut(id).map(|task| &mut task.purpose)
    }

    /// The purpose of a task that `is_it` accepts. Looks at all of them.
    pub(crate) fn find(&mut self, is_it: impl Fn(&Purpose) -> bool) -> Option<&mut Purpose> {
        let mut purposes = self.tasks.iter_mut().map(|task| &mut task.purpose);
        purposes.find(|purpose| is_it(purpose))
    }

    /// A script has got hold of the coroutine of task `id`.
    pub(crate) fn expose(&mut self, id: u32) {
        if let Some(task) = self.get_mut(id) {
            task.is_exposed = true;
        }
    }
}
