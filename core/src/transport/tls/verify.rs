//! Whom a client believes: webpki's verdict, with three exceptions that are asked for by name.
//!
//! Sits in the transport, under [`ClientTls`](super::ClientTls). webpki decides about chains,
//! names and dates. The exceptions: a certificate that was given to be trusted *itself* (webpki
//! refuses a server's own certificate as an anchor unless it is an authority's), a client that does
//! not mind the name, and one that was told to believe anything.
//!
//! Invariants
//! - A certificate trusted itself is compared whole; its name and its dates still count.
//! - Signatures of the handshake are checked in every case: even a client that believes any
//!   certificate talks to whoever holds its key.
//! - The system's roots are read once in a process, by the first client that wants them.
//!
//! Not here: the file formats of certificates (`config.rs`, `certificate.rs`).

use super::certificate;
use super::config::TlsConfigError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::{Arc, LazyLock};

/// What the system trusts; Mozilla's list where it has nothing to say.
static SYSTEM_ROOTS: LazyLock<RootCertStore> =
    LazyLock::new(|| or_bundled(rustls_native_certs::load_native_certs().certs));

/// A store of what the system has; of Mozilla's list, as it was when this was built, if that is
/// nothing, or nothing that can be used.
fn or_bundled(found: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Some stores hold certificates of forms long gone; those that remain are what counts.
    let _ignored = roots.add_parsable_certificates(found);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// A store of `given` alone.
pub(super) fn roots_of(given: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, given)?;
    Ok(roots)
}

fn add(roots: &mut RootCertStore, given: &[CertificateDer<'static>]) -> Result<(), TlsConfigError> {
    for authority in given {
        let added = roots.add(authority.clone());
        added.map_err(|_| TlsConfigError::new("ca", "holds a malformed certificate"))?;
    }
    Ok(())
}

/// Decides whether a server is the one we mean.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    provider: Arc<CryptoProvider>,
    /// `None` believes anybody.
    trust: Option<Trust>,
    /// Whatever name a certificate bears that is trusted otherwise.
    any_name: bool,
}

#[derive(Debug)]
struct Trust {
    webpki: Arc<WebPkiServerVerifier>,
    /// Those that may be a server's own.
    itself: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    /// Believes the system's roots, if `system_roots`, and those `given`.
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        system_roots: bool,
        given: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsConfigError> {
        let mut roots = match system_roots {
            true => SYSTEM_ROOTS.clone(),
            false => RootCertStore::empty(),
        };
        add(&mut roots, &given)?;
        let built =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let unusable = |error| TlsConfigError::new("ca", format!("cannot be used: {error}"));
        let trust = Trust {
            webpki: built.build().map_err(unusable)?,
            itself: given,
        };
        Ok(Self {
            provider,
            trust: Some(trust),
            any_name: false,
        })
    }

    /// Does not mind the name if `any_name`. Issuers and dates still count.
    pub(super) fn for_any_name(self, any_name: bool) -> Self {
        Self { any_name, ..self }
    }

    /// Believes any certificate.
    pub(super) fn believing_all(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            trust: None,
            any_name: true,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if !trust.itself.contains(end_entity) {
            let verdict = trust.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            return match verdict {
                // The name is looked at last: all else is as it should be.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) if self.any_name => Ok(ServerCertVerified::assertion()),
                verdict => verdict,
            };
        }
        if !self.any_name {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match certificate::validity(end_entity) {
            None => Err(CertificateError::BadEncoding.into()),
            Some((from, _)) if now < from => Err(CertificateError::NotValidYet.into()),
            Some((_, until)) if now > until => Err(CertificateError::Expired.into()),
            Some(_) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{CertificateDer, or_bundled};

    #[test]
    fn mozillas_list_is_for_systems_that_trust_nobody_and_for_no_others() {
        let bundled = webpki_roots::TLS_SERVER_ROOTS;
        let malformed = CertificateDer::from(b"\x30\x00".to_vec());
        for found in [vec![], vec![malformed.clone()]] {
            let roots = or_bundled(found).roots;
            assert!(!roots.is_empty() && roots == bundled);
        }
        let one = rcgen::generate_simple_self_signed(["own.test".to_owned()]);
        let own = one.expect("it can be made").cert.der().clone();
        assert_eq!(or_bundled(vec![malformed, own]).len(), 1);
    }
}
