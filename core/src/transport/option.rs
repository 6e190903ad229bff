//! What an application may ask of a socket beside what the reactor does by itself.
//!
//! Sits beside the seam, [`Net`](super::Net), whose implementations turn an option into the system's.
//! The names are the system's too, spelled out.
//!
//! Invariants
//! - None of them changes what has been read or written, nor whether a call may block.
//! - What a system does not have is refused and never ignored.
//!
//! Not here: options of listeners, which are set before they listen (`MioNet`), and `TCP_NODELAY` and `IP_TTL`
//! of streams, which have methods of their own.

use std::time::Duration;

/// An option of one socket, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// `SO_KEEPALIVE`: ask a silent peer whether it is still there. RFC 9293 §3.8.4.
    KeepAlive(bool),
    /// `TCP_KEEPIDLE`: after so much silence.
    KeepAliveIdle(Duration),
    /// `TCP_KEEPINTVL`: and again so much later.
    KeepAliveInterval(Duration),
    /// `TCP_KEEPCNT`: so often before it is given up.
    KeepAliveCount(u32),
    /// `SO_SNDBUF`: bytes that the system holds to send. Systems clamp and double it.
    SendBuffer(u32),
    /// `SO_RCVBUF`: bytes that the system holds to be read.
    ReceiveBuffer(u32),
    /// `SO_BROADCAST`: datagrams may go to everybody of a network.
    Broadcast(bool),
    /// `IP_TTL`: routers that a packet may pass, 1 to 255.
    Ttl(u8),
    /// `IP_TOS`: how routers are to treat packets. RFC 2474 §3.
    TypeOfService(u8),
}
