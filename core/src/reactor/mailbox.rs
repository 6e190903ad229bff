//! Mail from other threads: a queue that is swapped whole, and one wake-up for a batch.
//!
//! Sits in the reactor. [`Mailbox`] is the reactor's end, [`Remote`] everyone else's. It knows of
//! the poll only a [`Waker`], so it works the same under any `Net`.
//!
//! Invariants
//! - Mail of one sender arrives in the order it was sent.
//! - No mail is stranded: the flag is cleared before the queue is taken, so mail that comes later
//!   finds the flag down and wakes the reactor again.
//! - However much is sent between two turns, the reactor is woken once.
//!
//! Not here: what the reactor does about a mail (`mod.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// What another thread may ask of a reactor.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mail {
    /// Stop listening, finish what is under way, and cut what is left after `grace`.
    Drain {
        /// How long the rest may take.
        grace: Duration,
    },
}

/// Mail crosses threads, so nothing of a reactor may ever be put in it.
const fn is_send<T: Send>() {}
const _: () = is_send::<Mail>();

#[derive(Debug)]
struct Shared {
    queue: Mutex<Vec<Mail>>,
    /// Whether the reactor has been woken and has not looked since.
    woken: AtomicBool,
    /// Whether the reactor is gone.
    closed: AtomicBool,
    waker: Waker,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Vec<Mail>> {
        // A push cannot stop half-way, so a thread that died holding the lock broke nothing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.waker.wake_by_ref();
        }
    }
}

/// The reactor's end. Dropping it refuses all further mail.
#[derive(Debug)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

impl Mailbox {
    /// An empty one; `waker` makes the reactor's poll return.
    pub fn new(waker: Waker) -> Self {
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                woken: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                waker,
            }),
        }
    }

    /// Another thread's end.
    pub fn remote(&self) -> Remote {
        Remote {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Replaces `mail`, which the caller has read, by what has come since; both vectors keep their
    /// memory. Costs one atomic operation when nothing has come. Call it after every poll.
    pub fn collect(&self, mail: &mut Vec<Mail>) {
        mail.clear();
        if self.shared.woken.swap(false, Ordering::AcqRel) {
            std::mem::swap(&mut *self.shared.queue(), mail);
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.queue().clear();
    }
}

/// Another thread's end of a reactor: clone it freely, send it anywhere.
#[derive(Clone, Debug)]
pub struct Remote {
    shared: Arc<Shared>,
}

impl Remote {
    /// Makes the reactor's current or next turn return without waiting.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Sends `mail` and wakes the reactor.
    ///
    /// # Errors
    /// Gives `mail` back if the reactor is gone.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        {
            let mut queue = self.shared.queue();
            // Asked under the lock: mail queued before the reactor left is cleared by it.
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(mail);
            }
            queue.push(mail);
        }
        self.shared.wake();
        Ok(())
    }

    /// Asks the reactor to drain, as `Reactor::drain` does. `false` if it is gone already.
    pub fn drain(&self, grace: Duration) -> bool {
        self.send(Mail::Drain { grace }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Mail, Mailbox, Remote};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn drain(seconds: u64) -> Mail {
        let grace = Duration::from_secs(seconds);
        Mail::Drain { grace }
    }

    #[test]
    fn a_batch_costs_one_wake_and_arrives_in_order() {
        let wakes = Arc::new(Count::default());
        let mailbox = Mailbox::new(Waker::from(Arc::clone(&wakes)));
        let remote = mailbox.remote();
        let mut mail = vec![drain(99)];
        mailbox.collect(&mut mail);
        assert_eq!(mail, []);
        for batch in 1..=3 {
            for second in 0..5 {
                remote.send(drain(second)).unwrap();
            }
            remote.wake();
            mailbox.collect(&mut mail);
            assert_eq!(mail, [0, 1, 2, 3, 4].map(drain));
            assert_eq!(wakes.0.load(Ordering::SeqCst), batch);
        }
    }

    #[test]
    fn no_mail_is_stranded_however_threads_interleave() {
        const SENDERS: u64 = 4;
        const MAILS: u64 = 5_000;
        let wakes = Arc::new(Count::default());
        let mailbox = Mailbox::new(Waker::from(Arc::clone(&wakes)));
        let threads: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let remote = mailbox.remote();
                std::thread::spawn(move || {
                    for number in 0..MAILS {
                        remote.send(drain(sender * MAILS + number)).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0, MAILS, 2 * MAILS, 3 * MAILS];
        let (mut mail, mut handled_wakes, mut received) = (Vec::new(), 0, 0);
        while received < SENDERS * MAILS {
            // Looks only when woken, as a reactor does: stranded mail would hang the test.
            while wakes.0.load(Ordering::SeqCst) == handled_wakes {
                std::thread::yield_now();
            }
            handled_wakes = wakes.0.load(Ordering::SeqCst);
            mailbox.collect(&mut mail);
            for Mail::Drain { grace } in mail.drain(..) {
                let sender = usize::try_from(grace.as_secs() / MAILS).unwrap();
                assert_eq!(grace.as_secs(), next[sender], "order of sender {sender}");
                next[sender] += 1;
                received += 1;
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_reactor_that_is_gone_refuses_mail() {
        let mailbox = Mailbox::new(Waker::noop().clone());
        let remote: Remote = mailbox.remote();
        assert!(remote.drain(Duration::ZERO));
        drop(mailbox);
        assert_eq!(remote.send(drain(1)), Err(drain(1)));
        assert!(!remote.drain(Duration::ZERO));
        remote.wake();
    }
}
