//! How the WebSocket connections of one listener, or of one client, behave.
//!
//! Sits beside the driver, which holds them by `Rc`: a thousand connections, one set of settings.
//!
//! Invariants
//! - The defaults find a dead peer within a minute, and cost a quiet live one two small frames in
//!   each `ping_interval`.
//!
//! Not here: what the driver does about them (`conn/websocket.rs`), limits of the whole reactor
//! (`limits.rs`), which some of these are taken from.

use super::{Backpressure, Overflow};
use crate::limits::Limits;
use crate::ws::Role;
use crate::ws::deflate::DeflateSettings;
use core::time::Duration;

/// Silence before a ping. Well below the minute after which most proxies drop a quiet connection.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Wait for an answer to it. Generous, as a busy script answers late.
const PONG_TIMEOUT: Duration = Duration::from_secs(30);

/// How the connections of one listener, or one client, behave. Shared by all of them.
#[derive(Clone, Debug)]
pub struct WsSettings {
    /// Which end we are.
    pub role: Role,
    /// Bytes of one message, assembled and inflated. Over it: 1009.
    pub message_bytes_max: u32,
    /// Fragments of one message before its bytes must have earned more, one for each 16 bytes.
    /// Over it: 1008.
    pub fragments_max: u32,
    /// Time without a byte from the peer, pongs included. Then 1001 and `Deadline::Idle`.
    /// None by default: pings find the dead.
    pub idle_timeout: Option<Duration>,
    /// Time without a byte from the peer before it is pinged. Default 25 s.
    pub ping_interval: Option<Duration>,
    /// Time after such a ping without a byte from the peer. Then 1011 and `Deadline::Ping`.
    /// Default 30 s. Without it, pings go on, one each `ping_interval`.
    pub pong_timeout: Option<Duration>,
    /// Time after our close frame for the peer to finish its side. Then `Deadline::Close`.
    pub linger_timeout: Duration,
    /// How far the peer may fall behind with reading. By default as far as
    /// `Limits::out_bytes_max`, and then the connection ends.
    pub backpressure: Backpressure,
    /// permessage-deflate, for connections that agree to it. None by default: it costs more memory
    /// and time than all the rest of a connection. RFC 7692.
    pub deflate: Option<DeflateSettings>,
    /// Deliver the messages that come between our close frame and the peer's. Default false, as in
    /// browsers (WHATWG WebSockets §4).
    pub hears_out: bool,
}

impl WsSettings {
    /// The defaults for `role`, within `limits`.
    pub fn new(role: Role, limits: &Limits) -> Self {
        Self {
            role,
            message_bytes_max: limits.message_bytes_max,
            fragments_max: limits.fragments_max,
            idle_timeout: None,
            ping_interval: Some(PING_INTERVAL),
            pong_timeout: Some(PONG_TIMEOUT),
            linger_timeout: limits.linger_timeout,
            backpressure: Backpressure {
                limit_bytes: limits.out_bytes_max,
                overflow: Overflow::Close,
            },
            deflate: None,
            hears_out: false,
        }
    }
}
