//! Writing to a socket: all that waits, in as few calls as there must be.
//!
//! Sits inside the transport, below its variants: what waits is plain bytes here, of the application or
//! of TLS. The usual answer is one piece of memory and leaves in a plain send; what stands in several is
//! gathered.
//!
//! Invariants
//! - Bytes leave in order, and what a socket does not take stays in the send buffer.
//! - A socket that takes nothing of something has failed: nobody is kept here for ever.
//!
//! Not here: when something is written (`reactor/flush.rs`), records of TLS (`tls.rs`).

use super::{CHUNKS_PER_WRITE, Net, WriteOutcome};
use crate::buffer::SendBuffer;
use std::io::{self, ErrorKind, IoSlice};

/// Writes `out`, then `last`; what the socket does not take of `last` waits in `out`, too.
pub(super) fn write_socket<N: Net>(
    net: &mut N,
    socket: &mut N::Socket,
    out: &mut SendBuffer,
    mut last: &[u8],
) -> WriteOutcome {
    let mut progressed = false;
    while !out.is_empty() || !last.is_empty() {
        let written = match out.only_chunk() {
            Some(only) if last.is_empty() => net.write(socket, &[IoSlice::new(only)]),
            _ => write_gathered(net, socket, out, last),
        };
        match written {
            // A socket that takes nothing of something would keep us here for ever.
            Ok(0) => return WriteOutcome::Failed(ErrorKind::WriteZero.into()),
            Ok(count) => {
                progressed = true;
                let queued = count.min(out.len());
                out.consume(queued);
                last = last.get(count - queued..).unwrap_or_default();
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => {
                    if !last.is_empty() {
                        out.append(last);
                    }
                    return WriteOutcome::Blocked { progressed };
                }
                _ => return WriteOutcome::Failed(error),
            },
        }
    }
    WriteOutcome::Flushed
}

/// Writes as many chunks as one call takes.
fn write_gathered<N: Net>(
    net: &mut N,
    socket: &mut N::Socket,
    out: &SendBuffer,
    last: &[u8],
) -> io::Result<usize> {
    let mut gathered = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
    let mut used = 0;
    let behind = (!last.is_empty()).then_some(last);
    for (slot, chunk) in gathered.iter_mut().zip(out.chunks().chain(behind)) {
        *slot = IoSlice::new(chunk);
        used += 1;
    }
    net.write(socket, &gathered[..used])
}
