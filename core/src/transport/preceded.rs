//! A connection whose peer, a proxy, first says for whom it speaks: the PROXY protocol's header,
//! before TLS and before anything else.
//!
//! Sits in the transport, as a variant that lasts until the header has come; the reactor then goes
//! on with what is [`inside`](Preceded::into_inside), and with the address that was announced.
//!
//! Invariants
//! - The header is read exactly: what follows it is still in the socket for who comes next.
//! - Nothing is written before it has come.
//! - What is no header is a broken connection: the peer is told nothing.
//!
//! Not here: what a header is (`proxy_header.rs`); its deadline, the handshake's
//! (`reactor/drive.rs`); what becomes of the address (`reactor/accept.rs`).

use super::{Net, ReadOutcome, Transport, read_socket};
use crate::proxy_header::{Announcement, ProxyHeader};
use std::io::ErrorKind;

/// A transport that waits for a header.
#[derive(Debug)]
pub struct Preceded<S> {
    inside: Transport<S>,
    header: ProxyHeader,
    said: Option<Announcement>,
}

impl<S> Preceded<S> {
    /// Awaits a header before `inside` is used.
    pub fn new(inside: Transport<S>) -> Self {
        Self {
            inside,
            header: ProxyHeader::default(),
            said: None,
        }
    }

    /// Reads as much of the header as has come.
    pub(super) fn read<N: Net<Socket = S>>(&mut self, net: &mut N, into: &mut [u8]) -> ReadOutcome {
        loop {
            let wants = match self.said {
                None => self.header.wants().min(into.len()),
                // Left before the reactor could go on: read for its end alone.
                Some(_) => into.len(),
            };
            let socket = self.inside.socket_mut();
            let (count, drained) = match read_socket(net, socket, &mut into[..wants]) {
                ReadOutcome::Bytes { count, drained } => (count, drained),
                ReadOutcome::Eof if self.said.is_none() => {
                    return ReadOutcome::Failed(ErrorKind::ConnectionAborted.into());
                }
                outcome => return outcome,
            };
            if self.said.is_none() {
                match self.header.feed(&into[..count]) {
                    Ok(None) if !drained => continue,
                    Ok(None) => {}
                    Ok(said) => {
                        self.said = said;
                        // What follows may be here already.
                        let (count, drained) = (0, false);
                        return ReadOutcome::Bytes { count, drained };
                    }
                    Err(_) => return ReadOutcome::Failed(ErrorKind::InvalidData.into()),
                }
            }
            return ReadOutcome::Bytes { count: 0, drained };
        }
    }

    /// What the header has said, once it is there.
    pub fn said(&self) -> Option<Announcement> {
        self.said
    }

    /// What follows the header.
    pub fn into_inside(self) -> Transport<S> {
        self.inside
    }

    /// The socket that carries the bytes.
    pub(super) fn socket(&self) -> &S {
        self.inside.socket()
    }

    /// The socket, to register it.
    pub(super) fn socket_mut(&mut self) -> &mut S {
        self.inside.socket_mut()
    }
}
