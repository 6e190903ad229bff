//! What was refused without the application, told to it all the same: for logs and figures.
//!
//! Sits in the reactor, beside `drive.rs`, which finds that a rule was broken or a deadline missed;
//! the driver has said by then what there is to say. Those whom a listener turns away, with a word or
//! without, are told of here, too.
//!
//! Invariants
//! - What is told needs no answer, and can have none.
//! - Of a head that was not understood its first line is told, as far as it came, and of that
//!   [`LINE_BYTES_MAX`] bytes at most.
//! - Who is not refused costs nothing.
//!
//! Not here: what is refused, and with which words (`conn/server/refuse.rs`, `shed.rs`).

use super::conns::ConnKey;
use super::drive::{Connection, Phase};
use super::figures::Figures;
use super::inbox::{Cause, Inbox, Refusal};
use super::{ListenerKey, Reactor};
use crate::conn::{Driver, Refused};
use crate::transport::{Net, Peer, TlsError, TlsErrorKind};
use core::ops::Range;

/// Bytes of a request line that are kept.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// The first line of `head`, as far as it is there.
fn first_line(head: &[u8]) -> &[u8] {
    // The empty line before a request that is let pass. RFC 9112 §2.2.
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let head = &head[..head.len().min(LINE_BYTES_MAX)];
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    &head[..end.unwrap_or(head.len())]
}

impl<S> Connection<S> {
    /// Delivers what the driver has refused, if it has. What it was about lies in what was left of
    /// the input before, or else in `segment` of the area.
    pub(super) fn tell_refusal(
        &mut self,
        key: ConnKey,
        inbox: &mut Inbox,
        figures: &Figures,
        segment: Range<usize>,
    ) {
        let Driver::Server(server) = &mut self.driver else {
            return;
        };
        let Some(refused) = server.take_refused() else {
            return;
        };
        let Refused {
            exchange,
            status,
            rule,
            bytes,
            head_at,
        } = *refused;
        let input = match &self.spill {
            Some(spill) => spill.bytes(),
            None => inbox.area.get(segment).unwrap_or_default(),
        };
        let head = head_at.and_then(|at| input.get(at..)).unwrap_or_default();
        let line = first_line(head).to_vec();
        figures.note_refusal(status);
        let refusal = Refusal {
            listener: self.listener,
            peer: self.known_peer(),
            exchange: Some(exchange),
            status,
            rule,
            bytes,
            line,
        };
        inbox.deliver_refused(key, refusal);
    }

    /// What TLS has to say about it is sent, and nothing else.
    pub(super) fn fail_tls(&mut self, error: TlsError) {
        if self.phase == Phase::Lingering {
            return;
        }
        self.phase = Phase::Finishing;
        self.spill = None;
        self.out.clear();
        if error.kind() == TlsErrorKind::PlainHttp {
            let words = self.driver.plain_http_refusal();
            self.out.append(words);
            if let Driver::Server(server) = &mut self.driver {
                server.note_plain_http(words.len());
            }
        }
        self.cause.get_or_insert(Cause::Tls(Box::new(error)));
    }
}

impl<N: Net> Reactor<N> {
    /// A connection was turned away at `listener`, with `status` or without a word.
    pub(super) fn note_turned_away(
        &mut self,
        listener: ListenerKey,
        peer: Peer,
        (status, rule, bytes): (Option<u16>, &'static str, usize),
    ) {
        self.figures.turned_away.add(1);
        if status.is_some() {
            self.figures.note_refusal(status);
        }
        self.scratch.turned_away.push(Refusal {
            listener,
            peer: Some(peer),
            exchange: None,
            status,
            rule,
            bytes,
            line: Vec::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, first_line};

    #[test]
    fn a_line_is_told_as_far_as_it_came() {
        for (head, line) in [
            (
                &b"GET / HTTP/1.1\r\nHost: x\r\n"[..],
                &b"GET / HTTP/1.1"[..],
            ),
            (b"GET / HTTP/1.1\nHost: x\r\n", b"GET / HTTP/1.1"),
            (b"\r\nGET /a", b"GET /a"),
            (b"", b""),
            (b"\r\n\r\n", b""),
        ] {
            assert_eq!(first_line(head), line);
        }
        assert_eq!(
            first_line(&[b'x'; 2 * LINE_BYTES_MAX]).len(),
            LINE_BYTES_MAX
        );
    }
}
