//! TLS as a filter between a socket and whoever reads and writes plaintext: one [`TlsStream`] is
//! one connection's TLS 1.2 or 1.3 (RFC 5246, RFC 8446), by the rustls library.
//!
//! Sits in the transport, as its second variant; drivers cannot tell it from a plain socket. Only
//! this file and those under `tls/` know rustls.
//!
//! - `tls/agreement.rs`    what the two ends have agreed on
//! - `tls/config.rs`       certificates, keys, reload
//! - `tls/verify.rs`       whom a client believes
//! - `tls/certificate.rs`  what we read of a certificate ourselves
//!
//! Invariants
//! - A read makes one call of the system, with the whole of the caller's area: records are
//!   decrypted out of it and their plaintext closed up to its front, where it always fits.
//! - `drained` is said only if the socket was drained *and* the session holds no plaintext, no end
//!   and no failure that a further read would tell: an edge will come for nothing else.
//! - A read never writes. What the protocol wants sent waits in the session
//!   ([`TlsStream::has_unsent`]) for the next write, so there is one path to the socket.
//! - Plaintext is taken from the send buffer only while no ciphertext waits, 64 KiB at a time.
//! - An end without `close_notify` is told apart from one with it.
//!
//! Not here: when to read and write, the handshake's deadline and budget (`reactor/`).

mod agreement;
mod certificate;
mod config;
mod verify;

pub use agreement::{TlsAgreement, TlsVersion};
pub use certificate::PeerCertificate;
pub use config::{
    ClientCertificates, ClientTls, ClientTlsOptions, Identity, ServerTls, TlsConfigError,
};

use super::tls_error::{TlsError, TlsErrorKind};
use super::write::write_socket;
use super::{CHUNKS_PER_WRITE, Net, ReadOutcome, WriteOutcome, read_socket};
use crate::buffer::SendBuffer;
use config::Clock;
use rustls::{AlertDescription, CertificateError, Connection, Error, InvalidMessage};
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

/// A socket with a TLS session over it.
#[derive(Debug)]
pub struct TlsStream<S> {
    socket: S,
    session: Connection,
    clock: Arc<Clock>,
    /// A server that has not received a byte yet: the first tells TLS from HTTP.
    is_fresh: bool,
    /// The peer speaks without TLS, and so may we, to tell it.
    is_plain: bool,
    /// The last read of the socket took all there was.
    socket_drained: bool,
    /// The peer has sent its last byte.
    socket_ended: bool,
    /// Our `close_notify` is queued or sent.
    is_closing: bool,
    /// The peer has said that nothing follows.
    peer_closed: bool,
    /// The session is of no use any more; what still comes is dropped.
    has_failed: bool,
    /// Why, until a read has told it.
    failure: Option<TlsError>,
}

/// Lets a session write to a socket.
struct SocketWriter<'a, N: Net> {
    net: &'a mut N,
    socket: &'a mut N::Socket,
}

impl<N: Net> Write for SocketWriter<'_, N> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.net.write(self.socket, &[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.net.write(self.socket, chunks)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S> TlsStream<S> {
    /// The server's end of a connection over `socket`.
    ///
    /// # Errors
    /// The settings, or the system's randomness, do not allow it.
    pub fn server(socket: S, tls: &ServerTls) -> Result<Self, (S, TlsError)> {
        match tls.session() {
            Ok(session) => Ok(Self::new(socket, Connection::Server(session), tls.clock())),
            Err(error) => Err((socket, told(&error))),
        }
    }

    /// The client's end of a connection to `host` over `socket`. Its first flight waits to be
    /// written.
    ///
    /// # Errors
    /// `host` is no name that a certificate could bear.
    pub fn client(socket: S, tls: &ClientTls, host: &str) -> Result<Self, (S, TlsError)> {
        match tls.session(host) {
            Ok(session) => Ok(Self::new(socket, Connection::Client(session), tls.clock())),
            Err(error) => {
                let error = TlsError::with_detail(TlsErrorKind::Internal, error.to_string());
                Err((socket, error))
            }
        }
    }

    fn new(socket: S, session: Connection, clock: &Arc<Clock>) -> Self {
        Self {
            socket,
            is_fresh: matches!(session, Connection::Server(_)),
            session,
            clock: Arc::clone(clock),
            is_plain: false,
            socket_drained: false,
            socket_ended: false,
            is_closing: false,
            peer_closed: false,
            has_failed: false,
            failure: None,
        }
    }

    /// Reads the socket once at most, unless plaintext is left from before.
    pub(super) fn read<N: Net<Socket = S>>(&mut self, net: &mut N, into: &mut [u8]) -> ReadOutcome {
        if let Some(error) = self.failure.take() {
            return ReadOutcome::TlsFailed(error);
        }
        if self.has_failed {
            return self.discard(net, into);
        }
        let left = self.take_plaintext(into);
        if left > 0 {
            // The socket may have been announced anew since it was read last.
            return ReadOutcome::Bytes {
                count: left,
                drained: false,
            };
        }
        if let Some(end) = self.end() {
            return end;
        }
        let count = match read_socket(net, &mut self.socket, into) {
            ReadOutcome::Bytes { count, drained } => {
                self.socket_drained = drained;
                count
            }
            ReadOutcome::Eof => {
                self.socket_ended = true;
                return self.end().unwrap_or(ReadOutcome::Truncated);
            }
            outcome => return outcome,
        };
        // No record begins with a letter; every HTTP request does.
        if core::mem::take(&mut self.is_fresh) && into[0].is_ascii_uppercase() {
            (self.has_failed, self.is_plain) = (true, true);
            return ReadOutcome::TlsFailed(TlsError::new(TlsErrorKind::PlainHttp));
        }
        if self.session.is_handshaking() {
            self.clock.set(net.unix_time());
        }
        let plain = self.decrypt(into, count);
        if plain == 0 {
            if let Some(error) = self.failure.take() {
                return ReadOutcome::TlsFailed(error);
            }
            if let Some(end) = self.end() {
                return end;
            }
        }
        self.delivered(plain)
    }

    /// Feeds the session the first `count` bytes of `area`, and leaves the plaintext in their
    /// place. Returns how much that is; more may be left in the session, if a record began in an
    /// earlier read.
    fn decrypt(&mut self, area: &mut [u8], count: usize) -> usize {
        let (mut fed, mut plain) = (0, 0);
        while fed < count && !self.peer_closed {
            let mut rest = &area[fed..count];
            let state = match self.session.read_tls(&mut rest) {
                // A record or handshake message longer than the session will hold.
                Err(_) => Err(Error::PeerSentOversizedRecord),
                Ok(_) => self.session.process_new_packets(),
            };
            let left = rest.len();
            fed = if left < count - fed {
                count - left
            } else {
                count
            };
            match state {
                Ok(state) => self.peer_closed = state.peer_has_closed(),
                Err(error) => {
                    self.has_failed = true;
                    self.failure = Some(told(&error));
                    break;
                }
            }
            plain += self.take_plaintext(&mut area[plain..fed]);
        }
        plain
    }

    /// Moves decrypted bytes to the front of `into`.
    fn take_plaintext(&mut self, into: &mut [u8]) -> usize {
        // The only errors are ends and their lack, which are told apart elsewhere.
        self.session.reader().read(into).unwrap_or(0)
    }

    fn delivered(&mut self, count: usize) -> ReadOutcome {
        let is_over = self.peer_closed || self.socket_ended || self.has_failed;
        let drained = self.socket_drained && !is_over && !self.has_plaintext();
        ReadOutcome::Bytes { count, drained }
    }

    fn has_plaintext(&mut self) -> bool {
        let mut reader = self.session.reader();
        reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// How it has ended, once all plaintext is taken.
    fn end(&mut self) -> Option<ReadOutcome> {
        if self.peer_closed {
            return Some(ReadOutcome::Eof);
        }
        if !self.socket_ended {
            return None;
        }
        if self.session.is_handshaking() {
            self.has_failed = true;
            let error = TlsError::new(TlsErrorKind::HandshakeCut);
            return Some(ReadOutcome::TlsFailed(error));
        }
        Some(ReadOutcome::Truncated)
    }

    /// Reads the socket for its end alone.
    fn discard<N: Net<Socket = S>>(&mut self, net: &mut N, into: &mut [u8]) -> ReadOutcome {
        match read_socket(net, &mut self.socket, into) {
            ReadOutcome::Bytes { drained, .. } => ReadOutcome::Bytes { count: 0, drained },
            outcome => outcome,
        }
    }

    /// Writes what the session wants sent, then what waits in `out`, until nothing waits or the
    /// socket is full. What waits stays there until the handshake is done.
    pub(super) fn write<N: Net<Socket = S>>(
        &mut self,
        net: &mut N,
        out: &mut SendBuffer,
    ) -> WriteOutcome {
        if self.is_plain {
            return write_socket(net, &mut self.socket, out, &[]);
        }
        let mut progressed = false;
        loop {
            while self.session.wants_write() {
                let socket = &mut self.socket;
                match self.session.write_tls(&mut SocketWriter { net, socket }) {
                    // A socket that takes nothing of something would keep us here for ever.
                    Ok(0) => return WriteOutcome::Failed(ErrorKind::WriteZero.into()),
                    Ok(_) => progressed = true,
                    Err(error) => match error.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::WouldBlock => return WriteOutcome::Blocked { progressed },
                        _ => return WriteOutcome::Failed(error),
                    },
                }
            }
            if out.is_empty() {
                return WriteOutcome::Flushed;
            }
            if self.session.is_handshaking() && !self.has_failed {
                return WriteOutcome::Handshaking;
            }
            match self.encrypt(out) {
                // The session has failed, which the next read tells, or has been closed.
                Ok(0) | Err(_) => return WriteOutcome::Failed(ErrorKind::BrokenPipe.into()),
                Ok(count) => out.consume(count),
            }
        }
    }

    /// Makes records of the front of `out`, as much as the session will hold; returns how much.
    fn encrypt(&mut self, out: &SendBuffer) -> io::Result<usize> {
        let mut chunks = out.chunks();
        let Some(first) = chunks.next() else {
            return Ok(0);
        };
        let mut gathered = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
        gathered[0] = IoSlice::new(first);
        let mut used = 1;
        for (slot, chunk) in gathered[1..].iter_mut().zip(chunks) {
            *slot = IoSlice::new(chunk);
            used += 1;
        }
        let mut writer = self.session.writer();
        match used {
            1 => writer.write(first),
            _ => writer.write_vectored(&gathered[..used]),
        }
    }

    /// Queues `close_notify`, once; whether this call did.
    pub(super) fn begin_close(&mut self) -> bool {
        if self.is_closing || self.has_failed {
            return false;
        }
        self.is_closing = true;
        self.session.send_close_notify();
        self.session.wants_write()
    }

    /// Whether the session has something to send.
    pub fn has_unsent(&self) -> bool {
        !self.is_plain && self.session.wants_write()
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking() && !self.has_failed
    }

    /// The certificate by which the peer has proved who it is, if it has.
    pub fn peer_certificate(&self) -> Option<PeerCertificate<'_>> {
        let chain = self.session.peer_certificates()?;
        Some(PeerCertificate::new(chain.first()?))
    }

    /// What the two ends have agreed on, once they have.
    pub fn agreement(&self) -> Option<TlsAgreement<'_>> {
        TlsAgreement::of(&self.session)
    }

    /// The socket under the session.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket under the session, to register it.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The socket without the session.
    pub fn into_socket(self) -> S {
        self.socket
    }
}

/// What the library says, in our words.
fn told(error: &Error) -> TlsError {
    use TlsErrorKind as Kind;
    let detail = |kind| TlsError::with_detail(kind, error.to_string());
    match error {
        Error::InvalidCertificate(problem) => certificate_told(problem),
        Error::NoCertificatesPresented => TlsError::new(Kind::NoCertificate),
        Error::AlertReceived(alert) => TlsError::with_detail(Kind::Alert, alert_told(*alert)),
        Error::PeerIncompatible(incompatible) => match incompatible {
            rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13
            | rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | rustls::PeerIncompatible::SupportedVersionsExtensionRequired
            | rustls::PeerIncompatible::Tls12NotOffered
            | rustls::PeerIncompatible::Tls12NotOfferedOrEnabled => TlsError::new(Kind::Version),
            other => {
                TlsError::with_detail(Kind::NothingInCommon, words(&format!("{other:?}"), ' '))
            }
        },
        Error::NoApplicationProtocol => TlsError::with_detail(
            Kind::NothingInCommon,
            "http/1.1 is not among what was offered",
        ),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsError::new(Kind::NotTls),
        Error::DecryptError => TlsError::new(Kind::Corrupt),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord => detail(Kind::Misbehaved),
        _ => detail(Kind::Internal),
    }
}

fn certificate_told(problem: &CertificateError) -> TlsError {
    use CertificateError as Problem;
    use TlsErrorKind as Kind;
    match problem {
        Problem::UnknownIssuer => TlsError::new(Kind::UnknownIssuer),
        Problem::Expired | Problem::ExpiredContext { .. } => TlsError::new(Kind::Expired),
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
            TlsError::new(Kind::NotYetValid)
        }
        Problem::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            let listed = names.join(", ");
            let detail = format!("asked for {}, it is for {listed}", expected.to_str());
            TlsError::with_detail(Kind::WrongName, detail)
        }
        Problem::NotValidForName => TlsError::new(Kind::WrongName),
        // A problem of the library below is told by its name alone, inside those of what it was wrapped in.
        Problem::Other(other) => {
            TlsError::with_detail(Kind::BadCertificate, flaw(&other.to_string()))
        }
        other => TlsError::with_detail(Kind::BadCertificate, flaw(&format!("{other:?}"))),
    }
}

/// What is wrong with a certificate whose flaw has this name.
fn flaw(name: &str) -> String {
    let name = name.split([' ', '{', '(']).next().unwrap_or_default();
    match name {
        "CaUsedAsEndEntity" => {
            "it is an authority's own, not one for a server; if it is yours, trust it itself"
                .to_owned()
        }
        _ => words(name, ' '),
    }
}

/// `localhost` of `DnsName("localhost")`, as the library writes the names of a certificate.
fn plain_name(presented: &str) -> String {
    let inside = presented
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    let name = inside.unwrap_or(presented).trim_matches('"');
    name.escape_debug().to_string()
}

/// An alert as RFC 8446 §6 spells it.
fn alert_told(alert: AlertDescription) -> String {
    let Some(name) = alert.as_str() else {
        return format!("alert {}", u8::from(alert));
    };
    words(name, '_')
}

/// The words of a name in capitals, small and with `between` between them.
fn words(name: &str, between: char) -> String {
    let mut words = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() && !words.ends_with('C') {
            words.push(between);
        }
        words.push(character);
    }
    words.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{alert_told, flaw, plain_name};
    use rustls::AlertDescription;

    #[test]
    fn the_names_of_the_library_are_told_in_words() {
        for (name, told) in [
            ("BadEncoding", "bad encoding"),
            (
                "UnsupportedSignatureAlgorithmContext { algorithm: [] }",
                "unsupported signature algorithm context",
            ),
            ("OtherError(Revoked)", "other error"),
        ] {
            assert_eq!(flaw(name), told);
        }
        assert!(flaw("CaUsedAsEndEntity").contains("trust it itself"));
        for (name, told) in [
            ("DnsName(\"a.test\")", "a.test"),
            ("IpAddress(10.0.0.1)", "10.0.0.1"),
            ("plain\n", "plain\\n"),
        ] {
            assert_eq!(plain_name(name), told);
        }
        assert_eq!(
            alert_told(AlertDescription::BadCertificate),
            "bad_certificate"
        );
    }
}
