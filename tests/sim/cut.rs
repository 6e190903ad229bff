//! The network that gives up a connection after so many bytes: an end, a reset or silence, at a place
//! that neither end has chosen.
//!
//! Sits under `sim.rs`, beside `link.rs`, which carries the bytes. For peers that cannot be scripted,
//! as what they say is not known before: the other end of TLS. Counted is what comes back on a
//! connection that the reactor has opened.
//!
//! Invariants
//! - Exactly so many bytes arrive, and none after them.
//! - An end or a reset reaches both ends; silence reaches none.
//!
//! Not here: peers that break off by their script (`link.rs`).

use super::link::LinkId;
use super::{Happening, SimNet, World};
use hukilau_core::transport::Endpoint;

/// How a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing more comes, and TCP says so.
    End,
    /// It is reset.
    Reset,
    /// Nothing more comes.
    Silence,
}

/// What is to become of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    /// After so many more bytes.
    ahead: Option<(usize, Cut)>,
    met: bool,
}

impl Fate {
    pub(super) fn is_met(&self) -> bool {
        self.met
    }

    /// Whether not even the end of the connection arrives.
    pub(super) fn is_silent(&self) -> bool {
        self.met && matches!(self.ahead, Some((_, Cut::Silence)))
    }

    /// How many of `count` bytes arrive.
    pub(super) fn take(&mut self, count: usize) -> usize {
        let Some((left, _)) = &mut self.ahead else {
            return count;
        };
        let count = count.min(*left);
        *left -= count;
        self.met = *left == 0;
        count
    }
}

impl<const DRAINS: bool> SimNet<DRAINS> {
    /// Lets connects to `at`, from now on, be given up after `bytes` have come back.
    pub(crate) fn cut_after(&self, at: Endpoint, bytes: usize, how: Cut) {
        self.world().cuts.push((at, bytes, how));
    }
}

impl World {
    /// What is to become of a connection to `at`.
    pub(super) fn fate(&self, at: &Endpoint) -> Fate {
        let found = self.cuts.iter().find(|(place, ..)| place == at);
        Fate {
            ahead: found.map(|(_, bytes, how)| (*bytes, *how)),
            met: false,
        }
    }

    /// The last byte that arrives has arrived.
    pub(super) fn cut(&mut self, id: LinkId) {
        let link = &mut self.links[id.0];
        let Some((_, how)) = link.fate.ahead else {
            return;
        };
        let twin = link.twin;
        match how {
            Cut::Silence => {}
            Cut::End => {
                (link.inbound_ended, link.peer_finishes, link.peer_left) = (true, true, true);
            }
            Cut::Reset => {
                link.peer_left = true;
                self.soon(Happening::ResetFromPeer(id));
            }
        }
        if let (Cut::End | Cut::Reset, Some(twin)) = (how, twin) {
            self.soon(Happening::ResetFromPeer(twin));
        }
        self.note(format_args!("{id} is given up: {how:?}"));
    }
}
