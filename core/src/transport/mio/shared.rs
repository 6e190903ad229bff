//! A listening socket that several [`MioNet`]s can accept from, one after another.
//!
//! Sits beside `mio.rs`. It belongs to no selector itself: each net that is to accept gets a
//! descriptor of its own for the same socket, and the connections that wait at it stay when one net
//! goes and another takes over.
//!
//! Invariants
//! - The socket closes, and its file goes, with the last of its descriptors and of its clones.
//!
//! Not here: who accepts, and what becomes of a connection (`reactor/handover.rs`).

use super::{Listener, MioListener, MioNet, mio_token};
use crate::transport::Endpoint;
use mio::Interest;
use mio::net::TcpListener;
use std::io;
use std::sync::Arc;

/// A socket that listens, for [`MioNet::share`]. Clone it freely, send it anywhere.
#[derive(Clone, Debug)]
pub struct SharedListener {
    socket: Arc<Socket>,
    at: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(super::unix::SocketFile),
}

impl SharedListener {
    /// Where it listens, with the port that the system chose.
    pub fn endpoint(&self) -> &Endpoint {
        &self.at
    }
}

impl MioNet {
    /// A socket that listens at `at` and reports to nobody yet. It is made as
    /// [`listen`](crate::transport::Net::listen) makes one.
    ///
    /// # Errors
    /// As `listen`.
    pub fn listen_shared(&self, at: &Endpoint) -> io::Result<SharedListener> {
        let (socket, at) = match at {
            Endpoint::Ip(at) => {
                let socket = self.listen_tcp(*at)?;
                let at = Endpoint::Ip(socket.local_addr()?);
                (Socket::Tcp(socket), at)
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                let file = super::unix::SocketFile::listen(path)?;
                (Socket::Unix(file), at.clone())
            }
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Arc::new(socket);
        Ok(SharedListener { socket, at })
    }

    /// A listener of this net on a socket that others have, too. Its connections are reported as
    /// readable `token`; those that wait already, at once.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn share(&mut self, shared: &SharedListener, token: u64) -> io::Result<MioListener> {
        let mut listener = match &*shared.socket {
            Socket::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket.try_clone()?)),
            #[cfg(unix)]
            Socket::Unix(file) => Listener::UnixShare(file.share()?),
        };
        let registry = self.poll.registry();
        registry.register(listener.source(), mio_token(token)?, Interest::READABLE)?;
        Ok(MioListener(listener))
    }
}
