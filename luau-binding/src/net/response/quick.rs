//! The common response table, `{ status, headers, body }` with text in it, on the shortest way:
//! nothing is copied between the script's strings and the send buffer.
//!
//! Sits inside `response.rs`, which reads every table that is refused here, and knows how to say
//! what is wrong with one.
//!
//! Invariants
//! - A table is answered as `response.rs` would, or not at all.
//!
//! Not here: numbers and lists as values of headers, streams, errors.

use super::send;
use crate::runtime::Worker;
use crate::vm::Stack;
use crate::vm::atom::Atom;
use crate::vm::walk::Met;
use hukilau_core::conn::{Exchange, Response};
use hukilau_core::reactor::conns::ConnKey;

/// Fields that a quick answer may have.
const FIELDS_MAX: usize = 8;

/// Answers with the table at the bottom of `stack`; `None`, and nothing was sent, if it is not a
/// common one.
pub(super) fn respond(
    worker: &Worker,
    stack: &Stack<'_>,
    conn: ConnKey,
    exchange: Exchange,
) -> Option<Result<(), String>> {
    let (mut status, mut body): (_, &[u8]) = (200, &[]);
    let mut fields: [(&[u8], &[u8]); FIELDS_MAX] = [(&[], &[]); FIELDS_MAX];
    let mut count = 0;
    let is_common = stack.walk(1, |key, value| match (key.atom, value) {
        (Some(Atom::Status), Met::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "compared below")]
            let whole = number as u16;
            status = whole;
            f64::from(whole) == number && (200..=599).contains(&whole)
        }
        (Some(Atom::Body), Met::Text(bytes) | Met::Buffer(bytes)) => {
            body = bytes;
            true
        }
        (Some(Atom::Headers), Met::Table(at)) => stack.walk(at, |key, value| {
            let (Some(place), Some(name), Met::Text(value)) =
                (fields.get_mut(count), key.name, value)
            else {
                return false;
            };
            *place = (name, value);
            count += 1;
            true
        }),
        _ => false,
    });
    let response = Response {
        status,
        fields: fields.get(..count)?,
        body,
    };
    is_common.then(|| send(worker, conn, exchange, &response))
}
