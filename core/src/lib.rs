//! An event-loop networking core for a program that drives it: HTTP/1.1 and WebSocket over a
//! readiness-driven reactor that never calls you.
//!
//! Each turn of the reactor fills an inbox that the caller owns; the caller walks its completions
//! and calls the reactor freely meanwhile. Bottom to top, and arrows go down only:
//!
//! - L0 [`violation`], [`limits`], [`buffer`], [`topics`]: rules, bounds, byte containers, plain
//!   tables;
//! - L1 [`http1`], [`ws`], `url`, `date`: the protocols as pure functions of bytes;
//! - L2 [`conn`]: one connection as a machine, bytes and a time in, events and bytes out;
//! - L3 [`transport`]: the one seam to the world, `trait Net`;
//! - L4 [`reactor`]: the loop; L5 `server`, `client`: the faces.
//!
//! Without features the crate is pure: no socket, no clock. `core/ARCHITECTURE.md` has the walk
//! of one request from wire to wire.

pub mod addresses;
pub mod buffer;
pub mod client;
pub mod conn;
pub mod date;
pub mod http1;
pub mod limits;
pub mod proxy_header;
pub mod reactor;
pub mod server;
pub mod topics;
pub mod transport;
pub mod url;
pub mod violation;
pub mod ws;

/// The reactor over real sockets.
#[cfg(feature = "mio")]
pub type Reactor = reactor::Reactor<transport::mio::MioNet>;
