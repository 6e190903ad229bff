//! `server:stats()`: the figures of this worker as a table.
//!
//! Sits inside `server.rs`. A reactor counts for all its servers together, so every server of a
//! worker tells the same.
//!
//! Invariants
//! - Names are those of `--metrics`, in the style of scripts and without units in them where the
//!   type says it all; durations are in seconds.
//!
//! Not here: what is counted (`reactor/figures.rs` of core), other workers (`metrics.rs`).

use crate::metrics::CLASSES;
use crate::vm::{Outcome, Returns, Stack};
use hukilau_core::reactor::figures::{CAUSES, Counter, DEADLINES};

/// `server:stats()`.
pub(super) fn stats(stack: &mut Stack<'_>) -> Outcome {
    super::this(stack)?;
    let own = stack.worker()?.peers.own();
    let figures = &own.figures;
    let numbers = [
        ("connections", figures.connections.value()),
        ("turnedAway", figures.turned_away.value()),
        ("messagesRefused", own.messages_refused.value()),
        ("accepted", figures.accepted.value()),
        ("acceptErrors", figures.accept_errors.value()),
        ("requests", figures.requests.value()),
        ("requestsRefused", figures.refused.value()),
        ("messagesReceived", figures.messages_received.value()),
        ("messagesSent", figures.messages_sent.value()),
        ("messagesDropped", figures.messages_dropped.value()),
        ("messagesReplaced", figures.messages_replaced.value()),
        ("slowPeersClosed", figures.closed_behind.value()),
        ("pressure", figures.pressed.value()),
        ("pressureRelieved", figures.relieved.value()),
        ("bytesReceived", figures.bytes_received.value()),
        ("bytesSent", figures.bytes_sent.value()),
        ("publicationsLost", figures.publications_lost.value()),
        ("heapBytes", own.heap.value()),
        ("logLinesDropped", own.log_lines_dropped.value()),
        ("turns", figures.turns.buckets().sum()),
    ];
    stack.push_table(0, numbers.len() + 6);
    let table = stack.len();
    for (name, value) in numbers {
        set(stack, table, name, float(value));
    }
    let seconds = figures.turns.total().as_secs_f64();
    set(stack, table, "turnSeconds", seconds);
    let nanos = [
        ("scriptSeconds", &own.script_nanos),
        ("collectorSeconds", &own.collector_nanos),
    ];
    for (name, nanos) in nanos {
        set(stack, table, name, float(nanos.value()) / 1e9);
    }
    let groups: [(&str, &[&str], &[Counter]); 3] = [
        ("ended", &CAUSES, &figures.ended),
        ("timeouts", &DEADLINES, &figures.timed_out),
        ("responses", &CLASSES, &figures.responses),
    ];
    for (name, members, counters) in groups {
        stack.push_string(name);
        stack.push_table(0, members.len());
        let group = stack.len();
        for (member, counter) in members.iter().zip(counters) {
            set(stack, group, member, float(counter.value()));
        }
        stack.set_entry(table);
    }
    Ok(Returns::Values(1))
}

fn set(stack: &mut Stack<'_>, table: i32, name: &str, value: f64) {
    stack.push_string(name);
    stack.push_number(value);
    stack.set_entry(table);
}

/// Counters stay far below 2^53, above which a float would skip some.
fn float(value: u64) -> f64 {
    value as f64
}
