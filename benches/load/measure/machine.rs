//! Which machine and which commit the figures belong to, and the cores that may be used.
//!
//! Not here: anything about a peer.

use std::fs;
use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;

/// Cores this process may run on, in order.
pub(crate) fn cores() -> Result<Vec<usize>, String> {
    let set = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect())
}

/// Lets this process and its children open as many files as the system allows at all.
pub(crate) fn raise_file_limit() -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("RLIMIT_NOFILE: {error}"))
}

/// How many files a process may have open, once [`raise_file_limit`] has been called.
pub(crate) fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    name.map_or_else(
        || "unknown".to_owned(),
        |name| name.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The congestion control that new TCP connections get: it is part of what the kernel costs per
/// packet.
pub(crate) fn congestion_control() -> String {
    let path = "/proc/sys/net/ipv4/tcp_congestion_control";
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The commit that is checked out, with `+` if the tree differs from it; "unknown" without git.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let is_changed = git(&["status", "--porcelain"]).is_none_or(|status| !status.trim().is_empty());
    format!("{}{}", commit.trim(), if is_changed { "+" } else { "" })
}
