//! What is decoded and encoded: answers of an API, as lists of records, from 100 B to 1 MB.
//!
//! Records mix what such answers are made of: short names that repeat, strings with and without
//! escapes and beyond ASCII, whole and broken numbers, flags, a nested list and a nested record.
//!
//! Invariants
//! - The same size gives the same text, on every machine.
//!
//! Not here: who reads it (`peers.rs`, `script.luau`).

use std::fmt::Write;

/// A document of about `bytes` bytes; the one of 100 is a single small record.
pub(crate) fn of_size(bytes: usize) -> String {
    if bytes <= 100 {
        return r#"{"id":17,"name":"Ann Lee","online":true,"score":12.5,"tags":["admin","ops"],"room":"lobby","at":3}"#
            .to_owned();
    }
    records(bytes, 1, 0)
}

/// So many documents of about 1 KB in which no number is the same, nor a string that is not made to recur.
pub(crate) fn different(count: u32) -> impl Iterator<Item = String> {
    (1..=count).map(|n| records(1_000, n, 8 * n))
}

/// A list of records of about `bytes` bytes.
fn records(bytes: usize, mut seed: u32, first: u32) -> String {
    let mut text = String::from("[");
    for id in first.. {
        // A linear congruence: digits without a pattern, the same each time.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let ratio = f64::from(seed >> 8) / 1_000.0;
        let _ = write!(
            text,
            r#"{{"id":{id},"name":"Person number {seed}","email":"p{id}@example.test","active":{},"score":{ratio},"visits":{},"note":"said \"hi\"\nand left, naïve as ever","tags":["red","green","blue"],"address":{{"street":"{} Main Street","city":"Lübeck","zip":"{:05}"}},"parent":null}}"#,
            seed & 64 == 0,
            seed >> 20,
            seed % 200,
            seed % 100_000,
        );
        if text.len() >= bytes {
            break;
        }
        text.push(',');
    }
    text.push(']');
    text
}
