//! Resident memory of a process, from `/proc/PID/smaps_rollup`.
//!
//! `/proc/PID/status` would be simpler, but its counters are batched per thread and can be 256 KiB
//! off: 50 bytes for each of 5,000 connections.
//!
//! Not here: memory of the kernel for its side of a socket, which no server can change.

use std::fs;

/// Bytes of process `id` that are in memory.
pub(crate) fn resident_bytes(id: u32) -> Result<u64, String> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text, "Rss:").ok_or_else(|| format!("{path}: no line Rss"))
}

/// The most bytes that were in memory at any time; within those 256 KiB.
pub(crate) fn peak_bytes(id: u32) -> Result<u64, String> {
    let path = format!("/proc/{id}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text, "VmHWM:").ok_or_else(|| format!("{path}: no line VmHWM"))
}

fn parse(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_bytes_of_this_process_are_more_than_a_page() {
        assert!(resident_bytes(std::process::id()).unwrap() > 4096);
    }

    #[test]
    fn rss_is_read_in_kibibytes() {
        assert_eq!(
            parse(
                "55d0-7ffd ---p [rollup]\nRss:     1000 kB\nPss:  10 kB\n",
                "Rss:"
            ),
            Some(1_024_000)
        );
        assert_eq!(parse("Pss: 10 kB\n", "Rss:"), None);
    }

    #[test]
    fn the_peak_of_this_process_is_no_less_than_a_page() {
        assert!(peak_bytes(std::process::id()).unwrap() > 4096);
    }
}
