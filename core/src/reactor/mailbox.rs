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
//! - Publications that wait are bounded in bytes: a reactor that does not turn costs the others no
//!   memory, and what it has missed is counted.
//!
//! Not here: what a drain, a publication or an arrival is (`drain.rs`, `publish.rs`, `handover.rs`).

use super::{Arrival, ListenerKey, Reactor};
use crate::conn::Publication;
use crate::transport::Net;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Queue a publication for every subscriber of a topic, as `Reactor::publish` does.
    Publish {
        /// The topic's name.
        topic: Arc<[u8]>,
        /// The message, framed.
        publication: Arc<Publication>,
    },
    /// Take a connection that was accepted elsewhere, as `Reactor::adopt` does.
    Adopt {
        /// The shared listener of the reactor that gets it.
        listener: ListenerKey,
        /// The connection.
        arrival: Arrival,
    },
}

/// Bytes of publications that may wait for one reactor. One that turns takes them all each time;
/// one whose script is stuck for seconds would collect them without end.
const PUBLISHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Mail crosses threads, so nothing of a reactor may ever be put in it.
const fn is_send<T: Send>() {}
const _: () = is_send::<Mail>();

#[derive(Debug, Default)]
struct Queue {
    mail: Vec<Mail>,
    /// Bytes of publications in it.
    published_bytes: usize,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Publications that found no room.
    lost: AtomicU64,
    /// Whether the reactor has been woken and has not looked since.
    woken: AtomicBool,
    /// Whether the reactor is gone.
    closed: AtomicBool,
    waker: Waker,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
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
                lost: AtomicU64::new(0),
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

    /// Whether something may have come since [`collect`](Self::collect) was called last. What comes
    /// just now makes the next poll return.
    pub fn has_some(&self) -> bool {
        self.shared.woken.load(Ordering::Acquire)
    }

    /// Replaces `mail`, which the caller has read, by what has come since; both vectors keep their
    /// memory. Call it after every poll, if [`has_some`](Self::has_some).
    pub fn collect(&self, mail: &mut Vec<Mail>) {
        mail.clear();
        if self.shared.woken.swap(false, Ordering::AcqRel) {
            let mut queue = self.shared.queue();
            queue.published_bytes = 0;
            std::mem::swap(&mut queue.mail, mail);
        }
    }

    /// Publications that other threads sent and that found no room, since the beginning.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.queue().mail.clear();
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
            queue.mail.push(mail);
        }
        self.shared.wake();
        Ok(())
    }

    /// Sends publications, each with its topic, in order and under one lock. Those that find no
    /// room are counted as lost. `false` if the reactor is gone.
    pub fn publish(&self, batch: &[(Arc<[u8]>, Arc<Publication>)]) -> bool {
        {
            let mut queue = self.shared.queue();
            if self.shared.closed.load(Ordering::Acquire) {
                return false;
            }
            for (topic, publication) in batch {
                if queue.published_bytes >= PUBLISHED_BYTES_MAX {
                    self.shared.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                queue.published_bytes += publication.frame_len() + topic.len();
                queue.mail.push(Mail::Publish {
                    topic: Arc::clone(topic),
                    publication: Arc::clone(publication),
                });
            }
        }
        self.shared.wake();
        true
    }

    /// Asks the reactor to drain, as `Reactor::drain` does. `false` if it is gone already.
    pub fn drain(&self, grace: Duration) -> bool {
        self.send(Mail::Drain { grace }).is_ok()
    }
}

impl<N: Net> Reactor<N> {
    /// Does what other threads have asked for since the last turn. A turn does so by itself; before a
    /// listener is closed by hand, what was handed to it may still be in the mail.
    pub fn collect_mail(&mut self) {
        if !self.mailbox.has_some() {
            return;
        }
        let mut mail = core::mem::take(&mut self.scratch.mail);
        self.mailbox.collect(&mut mail);
        for mail in mail.drain(..) {
            match mail {
                Mail::Drain { grace } => self.drain(grace),
                Mail::Publish { topic, publication } => {
                    self.publish(&topic, &publication, None);
                }
                Mail::Adopt { listener, arrival } => self.adopt(listener, arrival),
            }
        }
        self.scratch.mail = mail;
    }
}

#[cfg(test)]
mod tests {
    use super::{Mail, Mailbox, Remote};
    use crate::conn::Publication;
    use crate::ws::MessageKind;
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
            for mail in mail.drain(..) {
                let Mail::Drain { grace } = mail else {
                    panic!("nobody has sent {mail:?}");
                };
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
    fn publications_are_bounded_and_the_lost_ones_counted() {
        let mailbox = Mailbox::new(Waker::noop().clone());
        let remote = mailbox.remote();
        let payload = vec![0; 1 << 20];
        let framed = Publication::new(MessageKind::Binary, &payload).unwrap();
        let one = [(Arc::from(&b"all"[..]), Arc::new(framed))];
        for _ in 0..70 {
            assert!(remote.publish(&one));
        }
        assert!(remote.drain(Duration::ZERO), "other mail has room");
        let mut mail = Vec::new();
        mailbox.collect(&mut mail);
        assert_eq!((mail.len(), mailbox.lost()), (65, 6));
        assert_eq!(mail.pop(), Some(drain(0)));
        assert!(remote.publish(&one));
        mailbox.collect(&mut mail);
        assert_eq!((mail.len(), mailbox.lost()), (1, 6));
        drop(mailbox);
        assert!(!remote.publish(&one));
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
