//! Sockets whose last handle a dialect's script has dropped: they are closed.
//!
//! Sits below `surface/helpers.rs`, whose userdata may carry a [`Closes`]. The garbage collector
//! drops it, and may not be disturbed: it only leaves a note, which the loop reads between turns.
//!
//! Invariants
//! - Nothing is closed that a script can still reach through the userdata.
//! - A note for a connection that has gone meanwhile does nothing: keys have generations.
//! - The notes of one collection are acted on before the loop waits again.
//! - Sockets of `@huki/net` itself do not end so: there a server keeps what it has accepted.
//!
//! Not here: which dialects promise this (`surface/*/`), how closing goes on (core).

use crate::runtime::Worker;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::ws::close_code;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Connections that nobody can reach any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost(Rc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    lost: RefCell<Vec<ConnKey>>,
    /// Userdata that would leave a note.
    held: Cell<usize>,
    /// How many were left when they were last looked for.
    looked_at: Cell<usize>,
}

/// Has a connection closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Closes {
    conn: ConnKey,
    lost: Lost,
}

impl Lost {
    /// What closes `conn` when it is dropped.
    pub(crate) fn closes(&self, conn: ConnKey) -> Closes {
        self.0.held.set(self.0.held.get() + 1);
        Closes {
            conn,
            lost: self.clone(),
        }
    }
}

impl Drop for Closes {
    fn drop(&mut self) {
        let notes = &self.lost.0;
        notes.held.set(notes.held.get().saturating_sub(1));
        if let Ok(mut lost) = notes.lost.try_borrow_mut() {
            lost.push(self.conn);
        }
    }
}

/// Whether nothing but such sockets keeps the process alive, and nobody has looked since there was
/// another of them: then the collector should, as a script that has ended holds none.
pub(crate) fn is_alone(worker: &Worker) -> bool {
    let notes = &worker.surface.lost.0;
    let held = notes.held.get();
    if held == notes.looked_at.get()
        || worker.reactor.borrow().listeners() > 0
        || worker.scheduler.borrow().is_pending()
    {
        return false;
    }
    notes.looked_at.set(held);
    held > 0
}

/// Closes what was lost since the last call.
pub(crate) fn sweep(worker: &Worker) {
    let notes = &worker.surface.lost.0;
    let lost = &notes.lost;
    if lost.borrow().is_empty() {
        return;
    }
    for conn in lost.take() {
        // One that is closing, or has gone, is as it should be.
        let _ = worker
            .reactor
            .borrow_mut()
            .close(conn, close_code::NORMAL, b"");
    }
}
