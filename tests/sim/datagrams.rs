//! Datagrams of the simulation: they come late, in another order, twice, or not at all.
//!
//! Sits under `sim.rs`, which owns the clock and reports what is pending. A mailbox is a bound socket; what
//! finds it full is lost, as is what finds nobody.
//!
//! Invariants
//! - A `WouldBlock` is followed by an event once the call could go on.
//! - A datagram arrives as it was sent, or it does not arrive.
//!
//! Not here: what is in them.

use super::{Happening, World};
use hukilau_core::transport::Ready;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Datagrams that a mailbox holds.
const WAITING_MAX: usize = 32;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Mailbox {
    at: SocketAddr,
    token: u64,
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The next event to report: readable, writable.
    pending: Option<(bool, bool)>,
}

/// All sockets of datagrams, and what is on the way between them.
#[derive(Debug, Default)]
pub(super) struct Mail {
    mailboxes: Vec<Option<Mailbox>>,
    on_the_way: Vec<Option<(SocketAddr, SocketAddr, Vec<u8>)>>,
}

/// A socket of datagrams of the simulation.
#[derive(Debug)]
pub(crate) struct SimDatagrams(usize);

impl World {
    pub(super) fn bind_datagrams(
        &mut self,
        at: SocketAddr,
        token: u64,
    ) -> io::Result<SimDatagrams> {
        let mut bound = self.mail.mailboxes.iter().flatten();
        if bound.any(|mailbox| mailbox.at == at) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.mail.mailboxes.push(Some(Mailbox {
            at,
            token,
            waiting: VecDeque::new(),
            pending: Some((false, true)),
        }));
        Ok(SimDatagrams(self.mail.mailboxes.len() - 1))
    }

    fn mailbox(&mut self, socket: &SimDatagrams) -> io::Result<&mut Mailbox> {
        let mailbox = self.mail.mailboxes.get_mut(socket.0);
        mailbox
            .and_then(Option::as_mut)
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn datagrams_address(&self, socket: &SimDatagrams) -> io::Result<SocketAddr> {
        let mailbox = self.mail.mailboxes.get(socket.0).and_then(Option::as_ref);
        Ok(mailbox.ok_or(ErrorKind::NotConnected)?.at)
    }

    pub(super) fn receive_from(
        &mut self,
        socket: &SimDatagrams,
        into: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        self.count(super::Call::Read)?;
        let blocks = self.options.read_blocks;
        let blocks = self.dice.chance(blocks);
        let index = socket.0;
        let mailbox = self.mailbox(socket)?;
        if mailbox.waiting.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if blocks {
            self.soon(Happening::MailEdge {
                index,
                readable: true,
            });
            return Err(ErrorKind::WouldBlock.into());
        }
        let (from, bytes) = mailbox.waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        Ok((count, from))
    }

    pub(super) fn send_to(
        &mut self,
        socket: &SimDatagrams,
        bytes: &[u8],
        to: SocketAddr,
    ) -> io::Result<usize> {
        self.count(super::Call::Write)?;
        let from = self.mailbox(socket)?.at;
        let (blocks, lost) = (self.options.write_blocks, self.options.datagram_lost);
        if self.dice.chance(blocks) {
            let (index, readable) = (socket.0, false);
            self.soon(Happening::MailEdge { index, readable });
            return Err(ErrorKind::WouldBlock.into());
        }
        // What is lost comes no times; once in a while one comes twice.
        let copies = match (self.dice.chance(lost), self.dice.chance(lost)) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        for _ in 0..copies {
            self.mail.on_the_way.push(Some((from, to, bytes.to_vec())));
            let index = self.mail.on_the_way.len() - 1;
            self.soon(Happening::Datagram(index));
        }
        Ok(bytes.len())
    }

    pub(super) fn close_datagrams(&mut self, socket: &SimDatagrams) {
        let mailbox = self.mail.mailboxes.get_mut(socket.0);
        let closed = mailbox.and_then(Option::take);
        self.closed_tokens
            .extend(closed.map(|mailbox| mailbox.token));
    }

    pub(super) fn datagram_arrives(&mut self, index: usize) {
        let arrived = self.mail.on_the_way.get_mut(index).and_then(Option::take);
        let Some((from, to, bytes)) = arrived else {
            return;
        };
        let mut mailboxes = self.mail.mailboxes.iter_mut().flatten();
        if let Some(mailbox) = mailboxes.find(|mailbox| mailbox.at == to)
            && mailbox.waiting.len() < WAITING_MAX
        {
            mailbox.waiting.push_back((from, bytes));
            mailbox.pending.get_or_insert((false, false)).0 = true;
        }
    }

    pub(super) fn raise_mailbox(&mut self, index: usize, readable: bool) {
        if let Some(mailbox) = self.mail.mailboxes.get_mut(index).and_then(Option::as_mut) {
            let pending = mailbox.pending.get_or_insert((false, false));
            *pending = (pending.0 | readable, pending.1 | !readable);
        }
    }

    pub(super) fn has_mail_events(&self) -> bool {
        let mut mailboxes = self.mail.mailboxes.iter().flatten();
        mailboxes.any(|mailbox| mailbox.pending.is_some())
    }

    pub(super) fn report_mail(&mut self, ready: &mut Vec<Ready>) {
        for mailbox in self.mail.mailboxes.iter_mut().flatten() {
            if let Some((readable, writable)) = mailbox.pending.take() {
                ready.push(Ready {
                    token: mailbox.token,
                    readable,
                    writable,
                    hung_up: false,
                });
            }
        }
    }
}
