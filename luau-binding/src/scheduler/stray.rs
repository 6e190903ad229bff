//! Coroutines that scripts have got hold of: they may be run to their end by `coroutine.resume`, or closed, and
//! nobody tells the scheduler.
//!
//! Sits inside `scheduler.rs`. Those that were started for a purpose are looked at after something ran, a bounded
//! number in each turn, and the purpose of one that has ended without us is settled.
//!
//! Invariants
//! - A request whose coroutine was taken away from it is still answered.
//!
//! Not here: how a task becomes a stray (`Scheduler::suspend`).

use super::{Scheduler, lose};
use crate::bridge::Purpose;
use crate::runtime::Worker;

/// Coroutines in the hands of scripts that are looked after in one turn.
const LOOKS_PER_TURN: usize = 256;

/// Settles what was to come of coroutines that scripts have run to their end by themselves.
pub(crate) fn settle_strays(worker: &Worker) {
    for _ in 0..LOOKS_PER_TURN {
        let look = worker.scheduler.borrow_mut().look();
        match look {
            Look::NoneLeft => return,
            Look::Waits => {}
            Look::Ended(id) => {
                let why = "its coroutine was run to its end by coroutine.resume or closed, so its \
                           result is lost: wake it with task.spawn instead";
                lose(worker, id, why);
            }
        }
    }
}

/// What became of a coroutine that a script has.
enum Look {
    /// All have been looked at since something ran.
    NoneLeft,
    /// It is still suspended, or has been settled.
    Waits,
    /// It has ended without us.
    Ended(u32),
}

impl Scheduler {
    /// Looks at the next stray.
    fn look(&mut self) -> Look {
        if self.unseen == 0 {
            return Look::NoneLeft;
        }
        self.unseen -= 1;
        // From the back, so that taking one out moves none that has not been seen.
        let Some(&id) = self.strays.get(self.unseen) else {
            return Look::Waits;
        };
        let Some(task) = self.get(id) else {
            return Look::Waits;
        };
        let is_settled = matches!(task.purpose, Purpose::Detached);
        let waits = task.coroutine.as_ref().is_some_and(|c| c.is_suspended());
        if !is_settled && waits {
            return Look::Waits;
        }
        self.strays.swap_remove(self.unseen);
        if let Some(task) = self.get_mut(id) {
            task.is_stray = false;
        }
        if is_settled {
            Look::Waits
        } else {
            Look::Ended(id)
        }
    }
}
