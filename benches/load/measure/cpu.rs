//! CPU time of a process, from `/proc`.
//!
//! Two sources, for neither alone is enough. `/proc/PID/task/*/schedstat` gives the scheduler's own
//! sum of run time in nanoseconds: exact, and without the time that a hypervisor took away.
//! `/proc/PID/stat` tells user from system time, but on most kernels by sampling at the timer tick
//! (4 ms at 250 Hz) and in units of 10 ms. So the total of each round comes from the first, and the
//! *share* of user time from the second over all rounds together: some thousand samples, within 1
//! or 2 %.
//!
//! Loopback packets are delivered within the sender's system call: a server's time includes the
//! delivery of its answers, and the generator's the delivery of its requests. Both hold for every
//! peer alike.
//!
//! Invariants
//! - Read while the process is idle: the scheduler books a running thread's time only when it stops
//!   or at the tick.
//! - Threads that ended are not counted; the peers here keep theirs.
//!
//! Not here: memory.

use std::fs;
use std::iter::Sum;

/// CPU time of a process since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Nanoseconds on a core, all threads.
    pub(crate) total_ns: u64,
    /// Clock ticks seen in user mode.
    pub(crate) user_ticks: u64,
    /// Clock ticks seen in the kernel.
    pub(crate) system_ticks: u64,
}

impl CpuTime {
    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }
}

impl Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, one| Self {
            total_ns: sum.total_ns + one.total_ns,
            user_ticks: sum.user_ticks + one.user_ticks,
            system_ticks: sum.system_ticks + one.system_ticks,
        })
    }
}

/// Reads the CPU time of process `id`.
pub(crate) fn cpu_time(id: u32) -> Result<CpuTime, String> {
    let total_ns = thread_ns(id)?.into_iter().sum();
    let path = format!("/proc/{id}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let (user_ticks, system_ticks) = ticks(&text).ok_or_else(|| format!("{path}: {text:?}"))?;
    Ok(CpuTime {
        total_ns,
        user_ticks,
        system_ticks,
    })
}

/// Nanoseconds that each thread of process `id` has been on a core, in the order of their ids.
pub(crate) fn thread_ns(id: u32) -> Result<Vec<u64>, String> {
    let tasks = format!("/proc/{id}/task");
    let mut paths = Vec::new();
    for task in fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))? {
        let task = task.map_err(|error| format!("{tasks}: {error}"))?;
        paths.push(task.path().join("schedstat"));
    }
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        // A thread may end between the listing and here.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        all.push(first_number(&text).ok_or_else(|| format!("{}: {text:?}", path.display()))?);
    }
    Ok(all)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted from the last parenthesis: the name before it may
/// hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "71 (a (b) c) S 1 71 71 0 -1 4194304 10 0 0 0 123 456 0 0 20 0 1 0 99 0 0";
        assert_eq!(ticks(stat), Some((123, 456)));
    }

    #[test]
    fn own_cpu_time_is_readable_and_grows() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu_time(std::process::id()).unwrap().since(before).total_ns == 0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time(std::process::id()).unwrap().total_ns > before.total_ns);
    }
}
