//! The lines of standard input: a thread reads them, and coroutines wait for them.
//!
//! Sits beside `stdio.rs`, whose `readLine` this is. A process has one standard input, so it has one thread, which
//! reads a line when a worker asks for one and never before: what nobody asks for stays in the pipe.
//!
//! Invariants
//! - The loop never waits for standard input.
//! - A line belongs to the oldest coroutine that still waits. One that was cancelled loses none: the line is kept for
//!   the next that asks.
//! - At most [`LINE_BYTES_MAX`] bytes are held for a line.
//!
//! Not here: standard output (`stdio.rs`).

use crate::runtime::Worker;
use crate::scheduler::{self, WaitKey};
use crate::vm::{Outcome, Returns, Stack};
use hukilau_core::reactor::mailbox::Remote;
use hukilau_core::transport::system_text;
use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A longer line is an error of whoever writes it, or no text.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A line without its end, nothing at the end of input, or why there is none.
type Answer = Result<Option<Vec<u8>>, String>;

/// Answers on their way to a loop.
type Answers = Arc<Mutex<VecDeque<Answer>>>;

/// A worker that wants a line.
struct Ask {
    answers: Answers,
    remote: Remote,
}

/// The lines a worker waits for.
#[derive(Default)]
pub(crate) struct Lines {
    answers: Answers,
    /// Who waits, oldest first.
    waiting: VecDeque<WaitKey>,
    /// Lines that came for coroutines which had been cancelled.
    kept: VecDeque<Answer>,
    /// Lines that were asked for and have not come.
    asked: usize,
}

impl Lines {
    /// Whether somebody still waits for a line.
    pub(crate) fn is_pending(&self, is_current: impl Fn(WaitKey) -> bool) -> bool {
        self.waiting.iter().any(|key| is_current(*key))
    }
}

/// `stdio.readLine()`: suspends until there is a line, or the end of input.
pub(super) fn read_line(stack: &mut Stack<'_>) -> Outcome {
    let worker = stack.worker()?;
    let kept = worker.lines.borrow_mut().kept.pop_front();
    if let Some(answer) = kept {
        push(stack, answer?);
        return Ok(Returns::Values(1));
    }
    let key = scheduler::wait_for_wire(worker, stack)?;
    let remote = worker.reactor.borrow().remote();
    let mut lines = worker.lines.borrow_mut();
    {
        let scheduler = worker.scheduler.borrow();
        lines.waiting.retain(|key| scheduler.is_current(*key));
    }
    lines.waiting.push_back(key);
    if lines.asked < lines.waiting.len() {
        lines.asked += 1;
        let answers = Arc::clone(&lines.answers);
        ask(Ask { answers, remote });
    }
    Ok(Returns::Suspend)
}

/// Resumes the coroutines whose lines have come.
pub(crate) fn deliver(worker: &Worker) {
    if worker.lines.borrow().asked == 0 {
        return;
    }
    loop {
        let next = {
            let mut lines = worker.lines.borrow_mut();
            let answer = lock(&lines.answers).pop_front();
            let Some(answer) = answer else { return };
            lines.asked -= 1;
            let scheduler = worker.scheduler.borrow();
            let mut next = lines.waiting.pop_front();
            while next.is_some_and(|key| !scheduler.is_current(key)) {
                next = lines.waiting.pop_front();
            }
            match next {
                Some(key) => Some((key, answer)),
                // The end of input comes again when it is asked for again.
                None if matches!(answer, Ok(None)) => None,
                None => {
                    lines.kept.push_back(answer);
                    None
                }
            }
        };
        let Some((key, answer)) = next else { continue };
        let from = worker.root.stack(worker);
        match answer {
            Ok(line) => scheduler::wake(worker, &from, key, |stack| {
                push(stack, line);
                1
            }),
            Err(message) => scheduler::wake_raising(worker, &from, key, message),
        };
    }
}

fn push(stack: &mut Stack<'_>, line: Option<Vec<u8>>) {
    match line {
        Some(line) => stack.push_string(&line),
        None => stack.push_nil(),
    }
}

fn lock(answers: &Answers) -> std::sync::MutexGuard<'_, VecDeque<Answer>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the thread of the process read a line.
fn ask(ask: Ask) {
    static READER: OnceLock<Mutex<Option<Sender<Ask>>>> = OnceLock::new();
    let reader = READER.get_or_init(Mutex::default);
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*reader {
        Some(sender) => sender.clone(),
        None => {
            let (sender, asked) = mpsc::channel::<Ask>();
            let thread = std::thread::Builder::new().name("standard input".to_owned());
            let spawned = thread.spawn(move || {
                let mut input = std::io::stdin().lock();
                for ask in asked {
                    ask.answer(read(&mut input, LINE_BYTES_MAX));
                }
            });
            if let Err(error) = spawned {
                let message = format!(
                    "stdio.readLine: no thread can be started: {}",
                    system_text(&error)
                );
                return ask.answer(Err(message));
            }
            *reader = Some(sender.clone());
            sender
        }
    };
    if let Err(mpsc::SendError(ask)) = sender.send(ask) {
        *reader = None;
        ask.answer(Err("stdio.readLine: standard input is gone".to_owned()));
    }
}

impl Ask {
    fn answer(self, answer: Answer) {
        lock(&self.answers).push_back(answer);
        self.remote.wake();
    }
}

/// The next line of `input`, of at most `max` bytes; what is too long is skipped to its end.
fn read(input: &mut impl BufRead, max: usize) -> Answer {
    let fault = |error: std::io::Error| format!("stdio.readLine: {}", system_text(&error));
    let mut line = Vec::new();
    // Room for the line's end, which does not count.
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(2);
    let mut bounded = input.take(limit);
    let read = bounded.read_until(b'\n', &mut line).map_err(fault)?;
    if read == 0 {
        return Ok(None);
    }
    let has_end = line.last() == Some(&b'\n');
    if has_end {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() <= max {
        return Ok(Some(line));
    }
    if !has_end {
        input.skip_until(b'\n').map_err(fault)?;
    }
    Err(format!(
        "stdio.readLine: the line is longer than {max} bytes; it was skipped"
    ))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_line_ends_with_lf_crlf_or_the_input_and_a_long_one_is_skipped() {
        let mut input: &[u8] = b"one\r\n\n8 bytes.\r\nmuch too long\r\n9 bytes..\nend";
        let mut next = || read(&mut input, 8);
        let line = |text: &str| Ok(Some(text.as_bytes().to_vec()));
        assert_eq!(next(), line("one"));
        assert_eq!(next(), line(""));
        assert_eq!(next(), line("8 bytes."));
        for _ in 0..2 {
            let refusal = next().expect_err("it is too long");
            assert!(refusal.contains("longer than 8 bytes"), "{refusal}");
        }
        assert_eq!(next(), line("end"));
        assert_eq!(next(), Ok(None));
        assert_eq!(next(), Ok(None));
    }
}
