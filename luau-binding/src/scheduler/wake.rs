//! Ends a wait: resumes the coroutine that a key names, with values or with an error.
//!
//! Sits inside `scheduler.rs`. Whoever made a coroutine wait (a socket, a stream, a timer) keeps the
//! key, and comes here when what it waited for has happened.
//!
//! Invariants
//! - A stale key resumes nobody.
//! - An error is raised where the coroutine waits, with that place in front.
//!
//! Not here: what makes a coroutine wait (`ask.rs`).

use super::{Resume, WaitKey, lose, run};
use crate::runtime::Worker;
use crate::vm::{Raise, Stack};

/// Resumes the task that `key` names, if it still waits for it. `push` puts the results of the
/// wait on its stack and returns how many. False if the key is stale.
pub(crate) fn wake(
    worker: &Worker,
    from: &Stack<'_>,
    key: WaitKey,
    push: impl FnOnce(&mut Stack<'_>) -> i32,
) -> bool {
    wake_with(worker, from, key, |stack| Resume::Values(push(stack)))
}

/// As [`wake`], but what the task waits for raises `raise` there, where a `pcall` can catch it.
pub(crate) fn wake_raising(
    worker: &Worker,
    from: &Stack<'_>,
    key: WaitKey,
    raise: impl Into<Raise>,
) -> bool {
    wake_with(worker, from, key, |stack| {
        stack.push_raise(raise.into());
        Resume::Error
    })
}

fn wake_with(
    worker: &Worker,
    from: &Stack<'_>,
    key: WaitKey,
    push: impl FnOnce(&mut Stack<'_>) -> Resume,
) -> bool {
    let coroutine = {
        let scheduler = worker.scheduler.borrow();
        if !scheduler.is_current(key) {
            return false;
        }
        scheduler
            .get(key.task)
            .and_then(|task| task.coroutine.clone())
    };
    let Some(coroutine) = coroutine else {
        return false;
    };
    if !coroutine.is_suspended() {
        lose(
            worker,
            key.task,
            "its coroutine was resumed or closed by somebody else",
        );
        return false;
    }
    let with = push(&mut coroutine.stack(worker));
    run(worker, from, key.task, &coroutine, with);
    true
}
