//! A connection's bytes, plain or over TLS, and how it is opened.
//!
//! Sits under the generator, which reads and writes without knowing which of both it is. TLS is rustls with
//! ring, TLS 1.3 only, with the servers' one certificate as the root.
//!
//! Invariants
//! - A connection is opened with blocking calls that time out, and does not block from then on.
//! - No two connections share source address, source port and target: from the 2,000th on the source is an address
//!   of the loopback net that is this process's own, and 31,000 ports of it.
//!
//! Not here: when it is read (`mod.rs`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Dialect, STALL};
use crate::peers::certificate;

/// Connections whose source the system chooses.
const FROM_SYSTEM: usize = 2_000;

/// Ports of an own address; those above are the system's to deal out.
const OWN_PORTS: Range<u16> = 1_100..32_000;

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

/// Opens the connections of these indices, with TLS if there are settings for it, and exchanges the greetings: all
/// speak before the first is listened to, so that a server answers many in a turn.
pub(super) fn open(
    port: u16,
    indices: Range<usize>,
    tls: Option<&Arc<ClientConfig>>,
    dialect: &dyn Dialect,
) -> Result<Vec<Stream>, String> {
    let patience = Duration::from_secs(STALL.tv_sec.unsigned_abs());
    let mut streams = Vec::new();
    for index in indices {
        let mut stream = dial(port, index, tls, patience)?;
        stream
            .write_all(dialect.greeting())
            .and_then(|()| stream.flush())
            .map_err(|error| format!("greeting: {error}"))?;
        streams.push(stream);
    }
    for stream in &mut streams {
        hear(stream, dialect)?;
        let socket = stream.socket();
        let unblocked = socket.set_nonblocking(true);
        unblocked.map_err(|error| format!("O_NONBLOCK: {error}"))?;
    }
    Ok(streams)
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

/// A blocking connection to `port`. The first ones get a port from the system, which looks the longer for one the fewer
/// are left; the others take the next port of an address that is this process's own.
pub(super) fn connect(port: u16, index: usize) -> io::Result<TcpStream> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Some(own) = index.checked_sub(FROM_SYSTEM) else {
        return TcpStream::connect(to);
    };
    let address = own_address(std::process::id(), own / OWN_PORTS.len());
    let own_port = u16::try_from(usize::from(OWN_PORTS.start) + own % OWN_PORTS.len());
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    match rustix::net::bind(&socket, &SocketAddr::from((address, own_port.unwrap_or(0)))) {
        // Somebody has it on all addresses.
        Err(Errno::ADDRINUSE) => rustix::net::bind(&socket, &SocketAddr::from((address, 0)))?,
        bound => bound?,
    }
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// The `nth` address of the loopback net that belongs to process `id`: other than those of any other process, and than
/// 127.0.0.1.
fn own_address(id: u32, nth: usize) -> Ipv4Addr {
    let [_, high, middle, low] = id.to_be_bytes();
    let nth = u8::try_from(nth).unwrap_or(1) & 1;
    // Process ids have 22 bits.
    Ipv4Addr::new(127, 0x40 | (high & 0x3f) | nth << 7, middle, low)
}

/// Reads the answer to the greeting.
fn hear(stream: &mut Stream, dialect: &dyn Dialect) -> Result<(), String> {
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
    fn connections_beyond_what_the_system_deals_out_have_addresses_and_ports_of_their_own() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ours = [0, 1].map(|nth| own_address(std::process::id(), nth));
        let second = FROM_SYSTEM + OWN_PORTS.len();
        for (index, address) in [
            (0, Ipv4Addr::LOCALHOST),
            (FROM_SYSTEM, ours[0]),
            (FROM_SYSTEM + 1, ours[0]),
            (second, ours[1]),
        ] {
            let _socket = connect(port, index).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), address, "{index}");
        }
        assert_ne!(own_address(1, 0), own_address(0x01_0001, 0));
    }
}
