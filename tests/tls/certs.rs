//! Certificates, made anew by each test that needs one: an authority, and what it signs.

use hukilau_core::transport::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// A certificate with its key, both as PEM text.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pair {
    fn of(cert: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// As a server of rustls takes it.
    pub(crate) fn rustls(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certs = CertificateDer::pem_slice_iter(self.cert.as_bytes())
            .collect::<Result<_, _>>()
            .expect("it is PEM");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("it is PEM");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .expect("the two belong together");
        Arc::new(config)
    }

    /// As a server or a client takes it.
    pub(crate) fn identity(&self) -> Identity {
        let identity = Identity::from_pem(self.cert.as_bytes(), self.key.as_bytes());
        identity.expect("the two belong together")
    }
}

/// Parameters of a certificate for `names`, whose common name is the first.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("the names are names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, &names[0]);
    params
}

/// A certificate that nobody but itself has signed.
pub(crate) fn self_signed(names: &[&str]) -> Pair {
    let key = KeyPair::generate().expect("keys can be made");
    let cert = params(names).self_signed(&key).expect("it can be signed");
    Pair::of(&cert, &key)
}

/// An authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[name]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("it can be signed"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.sign(&params(names))
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Pair {
        self.sign_with(params, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// With an Ed25519 key, whose signatures are all equally long: handshakes with it always take as
    /// many bytes (RFC 8032 §5.1.6).
    pub(crate) fn issue_steady(&self, names: &[&str]) -> Pair {
        self.sign_steady(&params(names))
    }

    pub(crate) fn sign_steady(&self, params: &CertificateParams) -> Pair {
        self.sign_with(params, &rcgen::PKCS_ED25519)
    }

    fn sign_with(&self, params: &CertificateParams, kind: &'static SignatureAlgorithm) -> Pair {
        let key = KeyPair::generate_for(kind).expect("keys can be made");
        let cert = params.signed_by(&key, &self.0).expect("it can be signed");
        Pair::of(&cert, &key)
    }
}
