//! The other end of TLS: a listener for raw streams in the client's own reactor, that says what it is
//! told to, record by record, and then does what no HTTP server would.
//!
//! Sits beside [`Face`](super::Face), which offers it completions. It hears a head, and then speaks:
//! each piece in a turn of its own, so that each is a record of its own.
//!
//! Not here: what is said of it (`over_tls.rs`).

use super::at;
use crate::sim::SimNet;
use hukilau_core::conn::Misuse;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Completion, What};
use hukilau_core::reactor::{Protocol, Reactor, ServerConfig};
use hukilau_core::transport::tls::ServerTls;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a server does when it has said all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing, for ever.
    Wait,
    /// Ends the connection as TLS wants it.
    Leave,
    /// Resets it.
    Reset,
}

/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct Speaker {
    heard: Vec<u8>,
    /// When the next piece is due.
    due: Option<Instant>,
    left: VecDeque<&'static str>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Far {
    pieces: Vec<&'static str>,
    then: Then,
    speakers: BTreeMap<ConnKey, Speaker>,
    /// How its connections ended.
    pub(super) ends: Vec<String>,
}

impl Far {
    /// Listens at 10.0.0.1:443.
    pub(super) fn listen(
        reactor: &mut Reactor<SimNet<true>>,
        tls: Arc<ServerTls>,
        pieces: &[&'static str],
        then: Then,
    ) -> Self {
        let config = ServerConfig {
            protocol: Protocol::Stream,
            tls: Some(tls),
            ..ServerConfig::default()
        };
        let listens = reactor.listen(&at("10.0.0.1:443"), config);
        listens.expect("nobody listens yet");
        Self {
            pieces: pieces.to_vec(),
            then,
            speakers: BTreeMap::new(),
            ends: Vec::new(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.speakers.values().filter_map(|one| one.due).min()
    }

    /// Takes what is of its connections.
    pub(super) fn offer(&mut self, completion: &Completion<'_>) -> bool {
        if let What::Accepted { .. } = completion.what {
            let left = self.pieces.iter().copied().collect();
            let speaker = Speaker {
                left,
                ..Speaker::default()
            };
            self.speakers.insert(completion.conn, speaker);
            return true;
        }
        let Some(speaker) = self.speakers.get_mut(&completion.conn) else {
            return false;
        };
        match completion.what {
            What::Bytes { bytes } => speaker.heard.extend_from_slice(bytes),
            What::Closed { cause } => {
                self.ends.push(cause.to_string());
                self.speakers.remove(&completion.conn);
            }
            _ => {}
        }
        true
    }

    /// Says what is due.
    pub(super) fn act(&mut self, reactor: &mut Reactor<SimNet<true>>) {
        let now = reactor.now();
        for (conn, speaker) in &mut self.speakers {
            if speaker.due.is_none() && speaker.heard.ends_with(b"\r\n\r\n") {
                speaker.heard.clear();
                speaker.due = Some(now);
            }
            if speaker.due.is_none_or(|due| now < due) {
                continue;
            }
            let (outcome, goes_on) = match (speaker.left.pop_front(), self.then) {
                (Some(piece), then) => {
                    let written = reactor.write_stream(*conn, piece.as_bytes());
                    let goes_on = !speaker.left.is_empty() || then != Then::Wait;
                    (written.map(drop), goes_on)
                }
                (None, Then::Wait) => (Ok(()), false),
                (None, Then::Leave) => (reactor.close_stream(*conn), false),
                (None, Then::Reset) => (reactor.terminate(*conn), false),
            };
            speaker.due = goes_on.then_some(now + PAUSE);
            // The client may have left, which `Closed` tells.
            assert!(matches!(outcome, Ok(()) | Err(Misuse::Gone)), "{outcome:?}");
        }
    }
}
