//! A connection's bytes, plain or over TLS, and how it is opened.
//!
//! Sits under the generator, which reads and writes without knowing which of both it is. TLS is rustls with
//! ring, TLS 1.3 only, with the servers' one certificate as the root.
//!
//! Invariants
//! - A connection is opened with blocking calls that time out, and does not block from then on.
//! - No two connections share source address, source port and target: from the 20,000th on another address of
//!   the loopback net is the source, as an address has 28,000 ports.
//!
//! Not here: when it is read (`mod.rs`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Dialect, STALL};
use crate::peers::certificate;

/// Connections from one source address.
const PER_ADDRESS: usize = 20_000;

/// An open connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, area: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(area),
            Self::Tls(stream) => stream.read(area),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

/// What a client of mode `tls` believes.
pub(crate) fn tls_settings() -> Result<Arc<ClientConfig>, String> {
    let (cert, _) = certificate::files()?;
    let cert = CertificateDer::from_pem_file(&cert).map_err(|error| format!("PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add(cert).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// Opens the connection of that index, with TLS if there are settings for it, and exchanges the
/// greeting.
pub(super) fn open(
    port: u16,
    index: usize,
    tls: Option<&Arc<ClientConfig>>,
    dialect: &dyn Dialect,
) -> Result<Stream, String> {
    let patience = Duration::from_secs(STALL.tv_sec.unsigned_abs());
    let mut stream = dial(port, index, tls, patience)?;
    greet(&mut stream, dialect)?;
    stream
        .socket()
        .set_nonblocking(true)
        .map_err(|error| format!("O_NONBLOCK: {error}"))?;
    Ok(stream)
}

/// Opens a connection that blocks, and reads for `patience` at the longest.
pub(crate) fn dial(
    port: u16,
    index: usize,
    tls: Option<&Arc<ClientConfig>>,
    patience: Duration,
) -> Result<Stream, String> {
    let socket = connect(port, index).map_err(|error| format!("connect: {error}"))?;
    socket
        .set_nodelay(true)
        .and_then(|()| socket.set_read_timeout(Some(patience)))
        .and_then(|()| socket.set_write_timeout(Some(patience)))
        .map_err(|error| format!("setsockopt: {error}"))?;
    let Some(settings) = tls else {
        return Ok(Stream::Plain(socket));
    };
    let name = ServerName::try_from(certificate::NAME).map_err(|error| error.to_string())?;
    let session =
        ClientConnection::new(Arc::clone(settings), name).map_err(|error| error.to_string())?;
    Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
}

/// A blocking connection to `port`.
pub(super) fn connect(port: u16, index: usize) -> io::Result<TcpStream> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if index < PER_ADDRESS {
        return TcpStream::connect(to);
    }
    let last = u8::try_from(2 + index / PER_ADDRESS).unwrap_or(u8::MAX);
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn greet(stream: &mut Stream, dialect: &dyn Dialect) -> Result<(), String> {
    stream
        .write_all(dialect.greeting())
        .and_then(|()| stream.flush())
        .map_err(|error| format!("greeting: {error}"))?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let got = stream
            .read(&mut piece)
            .map_err(|error| format!("answer to the greeting: {error}"))?;
        if got == 0 {
            return Err("the peer closed the connection at the greeting".to_owned());
        }
        answer.extend_from_slice(&piece[..got]);
        match dialect.check_greeting(&answer)? {
            Some(len) if len == answer.len() => return Ok(()),
            Some(_) => return Err("bytes follow the answer to the greeting".to_owned()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_one_address_come_from_another() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for (index, last) in [(0, 1), (PER_ADDRESS, 3), (2 * PER_ADDRESS, 4)] {
            let _socket = connect(port, index).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, last));
        }
    }
}
