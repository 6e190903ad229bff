//! Where lines of an access log go: a file or standard output, written on a thread of its own.
//!
//! Sits below `access.rs`. All servers and workers of the process that name the same place share one
//! sink, so lines stay whole and a file has one descriptor.
//!
//! ```text
//!   workers ─ lines of a turn ─▶ waiting (4 MiB at most) ─ every 20 ms ─▶ one write
//! ```
//!
//! Invariants
//! - Who hands lines over never waits for the place: what finds no room is dropped, and the caller
//!   counts it. Opening one, the first time, waits for a second at most: a pipe in the file system
//!   that nobody reads from would otherwise hold up who opens it for ever.
//! - When the last who writes there has gone, what waits is written; but a place that takes nothing
//!   holds the end of the process up for two seconds at most.
//! - A file is appended to, and opened anew when that is asked: who rotates logs renames first.
//!
//! Not here: what a line says (`access.rs`).

use hukilau_core::transport::system_text;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

/// Bytes of lines that may wait: a second of very many requests.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long lines are gathered before they are written, so that a busy worker wakes nobody per turn.
const GATHER: Duration = Duration::from_millis(20);

/// How long the end waits for what is still to be written.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The sinks that are open, by their place.
static OPEN: Mutex<Vec<(String, Weak<Handle>)>> = Mutex::new(Vec::new());

/// How long a place may take to open.
const OPEN_WAIT: Duration = Duration::from_secs(1);

/// What names standard output.
const STDOUT: &str = "-";

/// A place for lines; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Handle>);

/// Ends the thread when the last sink has gone.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_file: bool,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// All is done.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    is_reopened: bool,
    is_closed: bool,
    is_done: bool,
}

/// A lock of plain data, which no thread can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// The sink for `place`, a path or `-` for standard output; made if there is none.
    ///
    /// # Errors
    /// If the file cannot be opened, or no thread be started.
    pub(super) fn open(place: &str) -> io::Result<Self> {
        let mut open = lock(&OPEN);
        open.retain(|(_, sink)| sink.strong_count() > 0);
        let known = open.iter().find(|(known, _)| known == place);
        if let Some(handle) = known.and_then(|(_, sink)| sink.upgrade()) {
            return Ok(Self(handle));
        }
        let shared = Arc::new(Shared {
            is_file: place != STDOUT,
            ..Shared::default()
        });
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            file: None,
            place: place.to_owned(),
            has_failed: false,
        };
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || {
                let opened = writer.open();
                let is_open = opened.is_ok();
                // Who asked may have given up.
                if tell.send(opened).is_ok() && is_open {
                    writer.run();
                }
            })?;
        told.recv_timeout(OPEN_WAIT).unwrap_or_else(|_| {
            let what = "it does not open; if it is a pipe, nobody reads from it";
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        })?;
        let handle = Arc::new(Handle(shared));
        open.push((place.to_owned(), Arc::downgrade(&handle)));
        Ok(Self(handle))
    }

    /// Hands `lines` over and empties it; false if they were dropped for want of room.
    pub(super) fn write(&self, lines: &mut Vec<u8>) -> bool {
        let shared = &*self.0.0;
        let mut state = lock(&shared.state);
        let has_room = state.waiting.len() + lines.len() <= WAITING_BYTES_MAX;
        if has_room {
            let was_empty = state.waiting.is_empty();
            state.waiting.append(lines);
            drop(state);
            if was_empty {
                shared.work.notify_one();
            }
        }
        lines.clear();
        has_room
    }

    /// Has the file opened anew; false if it is none.
    pub(super) fn reopen(&self) -> bool {
        let shared = &*self.0.0;
        if shared.is_file {
            lock(&shared.state).is_reopened = true;
            shared.work.notify_one();
        }
        shared.is_file
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.is_closed = true;
        self.0.work.notify_one();
        let is_going_on = |state: &mut State| !state.is_done;
        let waited = self
            .0
            .done
            .wait_timeout_while(state, LAST_WAIT, is_going_on);
        drop(waited);
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    /// `None` for standard output.
    file: Option<File>,
    place: String,
    /// The last write has failed; of several in a row the first is reported.
    has_failed: bool,
}

impl Writer {
    /// Opens the place for the first time.
    fn open(&mut self) -> io::Result<()> {
        if self.shared.is_file {
            self.file = Some(open_file(&self.place)?);
        }
        Ok(())
    }

    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut lines = Vec::new();
        loop {
            let mut state = lock(&shared.state);
            while state.waiting.is_empty() && !state.is_closed && !state.is_reopened {
                state = shared
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let is_calm = |state: &mut State| !state.is_closed && !state.is_reopened;
            let gathered = shared.work.wait_timeout_while(state, GATHER, is_calm);
            let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            lines.clear();
            std::mem::swap(&mut lines, &mut state.waiting);
            let is_reopened = std::mem::take(&mut state.is_reopened);
            if lines.is_empty() && state.is_closed && !is_reopened {
                state.is_done = true;
                shared.done.notify_all();
                return;
            }
            drop(state);
            // What came before belongs to the old file, which has a new name by now.
            self.write(&lines);
            if is_reopened {
                self.reopen();
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let written = match &mut self.file {
            Some(file) => file.write_all(lines),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(lines).and_then(|()| out.flush())
            }
        };
        if let Err(error) = &written
            && !self.has_failed
        {
            self.report("written", error);
        }
        self.has_failed = written.is_err();
    }

    fn reopen(&mut self) {
        if self.file.is_some() {
            match open_file(&self.place) {
                Ok(file) => self.file = Some(file),
                // The old one still takes lines.
                Err(error) => self.report("opened anew", &error),
            }
        }
    }

    fn report(&self, what: &str, error: &io::Error) {
        let place = &self.place;
        // Standard error may be closed, and then there is nobody to tell.
        let _ = writeln!(
            io::stderr().lock(),
            "error the access log {place} cannot be {what}: {}",
            system_text(error)
        );
    }
}

fn open_file(path: &str) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::{Sink, WAITING_BYTES_MAX, lock};

    fn place(name: &str) -> String {
        let name = format!("huki-sink-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        path.into_os_string().into_string().unwrap()
    }

    #[test]
    fn what_was_handed_over_is_written_when_the_last_has_gone() {
        let place = place("last");
        let (one, two) = (Sink::open(&place).unwrap(), Sink::open(&place).unwrap());
        assert!(one.write(&mut b"one\n".to_vec()));
        drop(one);
        assert!(two.write(&mut b"two\n".to_vec()));
        drop(two);
        assert_eq!(std::fs::read_to_string(&place).unwrap(), "one\ntwo\n");
        // A sink that was closed is opened anew, and appends.
        let again = Sink::open(&place).unwrap();
        assert!(again.write(&mut b"three\n".to_vec()));
        drop(again);
        let text = std::fs::read_to_string(&place).unwrap();
        std::fs::remove_file(&place).unwrap();
        assert_eq!(text, "one\ntwo\nthree\n");
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_told() {
        let place = place("room");
        let sink = Sink::open(&place).unwrap();
        let mut most = vec![b'x'; WAITING_BYTES_MAX];
        {
            // As if the writer were busy.
            let mut state = lock(&sink.0.0.state);
            state.waiting.append(&mut most);
        }
        let mut more = b"more\n".to_vec();
        // The writer may have taken what waits meanwhile.
        while sink.write(&mut more) {
            let mut state = lock(&sink.0.0.state);
            let missing = WAITING_BYTES_MAX - state.waiting.len();
            state.waiting.extend(vec![b'x'; missing]);
            more = b"more\n".to_vec();
        }
        assert_eq!(more, b"");
        drop(sink);
        std::fs::remove_file(&place).unwrap();
    }
}
