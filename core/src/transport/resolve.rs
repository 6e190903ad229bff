//! Names to addresses, off the loop: a few threads around the system's `getaddrinfo`.
//!
//! Sits under `MioNet`. The reactor asks and goes on; threads look names up, one at a time each,
//! and wake the loop, which collects the answers after its next poll. The threads start when there
//! is work for them and end with the resolver.
//!
//! Invariants
//! - The loop never waits: asking and collecting hold the lock for moments, no look-up does.
//! - A name is looked up once however many ask for it, and for some seconds not again, whether it
//!   was found or not. Time to live is not known here: `getaddrinfo` does not tell it.
//! - Threads, names that wait and names that are remembered are bounded. A question that finds the
//!   queue full fails at once.
//! - A name that nobody waits for any more is not looked up, unless that has begun.
//!
//! Not here: literal addresses and racing (`reactor/dial.rs`).

use super::{Resolution, ResolveError, Resolved};
use core::fmt;
use std::collections::{HashMap, VecDeque};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

/// Look-ups at a time. They wait for the network, not for a processor; a dead name server holds
/// each for some seconds.
const THREADS_MAX: usize = 4;

/// Names that wait for a thread.
const QUEUE_MAX: usize = 256;

/// Names whose answers are remembered.
const CACHE_MAX: usize = 1024;

/// How long a found name is remembered. Short, as services move and nobody says when.
const FOUND_FOR: Duration = Duration::from_secs(10);

/// How long a name that was not found is remembered.
const MISSED_FOR: Duration = Duration::from_secs(2);

/// The system's resolver, or a test's.
type Lookup = Box<dyn Fn(&str) -> Resolution + Send + Sync>;

/// The loop's side.
pub(super) struct Resolver {
    shared: Arc<Shared>,
    /// Who waits for which name.
    waiting: HashMap<Arc<str>, Vec<u64>>,
    cache: HashMap<Arc<str>, Remembered>,
}

struct Remembered {
    outcome: Resolution,
    until: Instant,
}

/// What the threads see.
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    waker: Waker,
    lookup: Lookup,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<str>>,
    done: Vec<(Arc<str>, Resolution)>,
    threads: usize,
    /// Of the threads, those that wait for work.
    idle: usize,
    closed: bool,
}

impl Resolver {
    /// A resolver without threads yet, that will wake the loop by `waker`.
    pub(super) fn new(waker: Waker) -> Self {
        Self::with_lookup(waker, Box::new(ask_system))
    }

    fn with_lookup(waker: Waker, lookup: Lookup) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                waker,
                lookup,
            }),
            waiting: HashMap::new(),
            cache: HashMap::new(),
        }
    }

    /// As `Net::resolve`.
    pub(super) fn resolve(&mut self, host: &str, request: u64, now: Instant) -> Option<Resolution> {
        let host: Arc<str> = host.to_ascii_lowercase().into();
        if let Some(known) = self.cache.get(&host)
            && now < known.until
        {
            return Some(known.outcome.clone());
        }
        if let Some(waiting) = self.waiting.get_mut(&host) {
            waiting.push(request);
            return None;
        }
        let mut state = self.shared.lock();
        if state.queue.len() >= QUEUE_MAX {
            return Some(Err(ResolveError::new(
                "too many names wait to be looked up",
            )));
        }
        if state.idle <= state.queue.len() && state.threads < THREADS_MAX {
            match Shared::start_thread(&self.shared) {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let text = format!("no thread to look names up: {error}");
                    return Some(Err(ResolveError::new(text)));
                }
                // Those that run will come to it.
                Err(_) => {}
            }
        }
        state.queue.push_back(Arc::clone(&host));
        drop(state);
        self.shared.work.notify_one();
        self.waiting.insert(host, vec![request]);
        None
    }

    /// As `Net::forget_resolve`.
    pub(super) fn forget(&mut self, request: u64) {
        let mut state = self.shared.lock();
        self.waiting.retain(|host, waiting| {
            waiting.retain(|waits| *waits != request);
            if !waiting.is_empty() {
                return true;
            }
            match state.queue.iter().position(|queued| queued == host) {
                Some(index) => {
                    state.queue.remove(index);
                    false
                }
                // A thread is at it; its answer will be remembered.
                None => true,
            }
        });
    }

    /// Whether some name is being looked up.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Appends the answers that have come.
    pub(super) fn take(&mut self, into: &mut Vec<Resolved>, now: Instant) {
        let done = core::mem::take(&mut self.shared.lock().done);
        for (host, outcome) in done {
            for request in self.waiting.remove(&host).unwrap_or_default() {
                let outcome = outcome.clone();
                into.push(Resolved { request, outcome });
            }
            self.remember(host, outcome, now);
        }
    }

    fn remember(&mut self, host: Arc<str>, outcome: Resolution, now: Instant) {
        if self.cache.len() >= CACHE_MAX {
            self.cache.retain(|_, known| now < known.until);
        }
        if self.cache.len() >= CACHE_MAX {
            // All are fresh: whoever asks for so many names gains nothing by memory.
            self.cache.clear();
        }
        let lasts = if outcome.is_ok() {
            FOUND_FOR
        } else {
            MISSED_FOR
        };
        if let Some(until) = now.checked_add(lasts) {
            self.cache.insert(host, Remembered { outcome, until });
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        // Not joined: a look-up may take as long as its name server pleases.
        self.shared.work.notify_all();
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("waiting", &self.waiting.len())
            .field("remembered", &self.cache.len())
            .finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(shared: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name("hukilau-resolver".to_owned());
        thread.spawn(move || shared.work()).map(drop)
    }

    /// The life of one thread.
    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(host) = state.queue.pop_front() {
                drop(state);
                let outcome = (self.lookup)(&host);
                state = self.lock();
                state.done.push((host, outcome));
                self.waker.wake_by_ref();
            } else {
                state.idle += 1;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// `getaddrinfo`, by the standard library.
fn ask_system(host: &str) -> Resolution {
    let found = (host, 0).to_socket_addrs();
    let found: Arc<[_]> = found
        .map_err(|error| {
            // What stands before it is said already.
            let told = error.to_string();
            let why = told.rsplit_once("address information: ");
            ResolveError::new(why.map_or(told.as_str(), |(_, why)| why))
        })?
        .collect();
    if found.is_empty() {
        return Err(ResolveError::new("the name has no addresses"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
