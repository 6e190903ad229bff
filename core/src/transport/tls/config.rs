//! What a TLS end is configured with: [`ServerTls`], whose certificates can be replaced while it
//! serves, [`ClientTls`], and the [`Identity`] either may have.
//!
//! Sits in the transport, under the filter (`tls.rs`). Both configurations are made once, shared by
//! `Arc` among connections and threads, and hold everything that outlives a connection: session
//! tickets, verified roots, the clock.
//!
//! Invariants
//! - A configuration that cannot work is refused when it is made, with the part that is at fault.
//! - A reload swaps everything at once, tickets included: a new handshake sees the old settings or
//!   the new ones, and a session resumed under the new ones was not begun under the old.
//! - Time is what the reactor's `Net` says, so a simulated year expires certificates too.
//! - HTTP/1.1 is the only protocol offered (RFC 7301), and none where the caller says so.
//!
//! Not here: reading files (whoever has paths), how bytes flow (`tls.rs`), trust (`verify.rs`).

use super::agreement::TlsVersion;
use super::certificate;
use super::verify::{self, ServerVerifier};
use core::fmt;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConnection, ConfigBuilder, ServerConnection, WantsVersions};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

/// Sessions that a client remembers, to resume them without a full handshake.
const SESSIONS_KEPT: usize = 256;

/// The only application protocol spoken here.
const ALPN: &[u8] = b"http/1.1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

/// Which part of a configuration cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfigError {
    /// `cert`, `key`, `ca`, `name` or `versions`.
    pub part: &'static str,
    /// Half a sentence about it.
    pub problem: String,
}

impl TlsConfigError {
    pub(super) fn new(part: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { part, problem }
    }
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.problem)
    }
}

impl core::error::Error for TlsConfigError {}

/// A certificate chain and the private key of its first certificate.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// From PEM text: the chain, own certificate first, and a key in PKCS#8, PKCS#1 or SEC 1 form.
    /// Both may be in one text, given twice.
    ///
    /// # Errors
    /// The part that holds no such thing, is malformed, or does not belong to the other.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        let found = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            _ if is_encrypted(key) => TlsConfigError::new("key", ENCRYPTED),
            pem::Error::NoItemsFound => TlsConfigError::new("key", "holds no private key"),
            error => malformed("key", &error),
        });
        let key = found?;
        Self::new(certificates("cert", chain)?, key)
    }

    /// From DER encodings.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, TlsConfigError> {
        let key =
            PrivateKeyDer::try_from(key).map_err(|error| TlsConfigError::new("key", error))?;
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsConfigError> {
        let certified = CertifiedKey::from_der(chain, key, &PROVIDER);
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsConfigError::new("key", "does not belong to the certificate")
            }
            rustls::Error::InvalidCertificate(_) => {
                TlsConfigError::new("cert", "holds a malformed certificate")
            }
            _ => TlsConfigError::new("key", "is of a kind that cannot be used"),
        })?;
        Ok(Self(Arc::new(certified)))
    }
}

/// What is said of a key that has a passphrase. To undo PBES2 takes some thirty crates, so others shall.
const ENCRYPTED: &str = "has a passphrase, and only keys without one can be used: \
    write one by `openssl pkey -in key.pem -out plain.pem`";

/// Whether a PEM text holds a key with a passphrase: PKCS#8 (RFC 7468 section 11), or the older form (RFC 1421 section 4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    [
        &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ]
    .iter()
    .any(|mark| text.windows(mark.len()).any(|part| part == *mark))
}

/// All certificates of a PEM text; at least one.
pub(super) fn certificates(
    part: &'static str,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| malformed(part, &error))?;
    if found.is_empty() {
        return Err(TlsConfigError::new(part, "holds no certificate"));
    }
    Ok(found)
}

fn malformed(part: &'static str, error: &pem::Error) -> TlsConfigError {
    TlsConfigError::new(part, format!("is malformed PEM: {error}"))
}

/// Whether clients must say who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Ignored,
    /// They are asked; one that has a certificate must have it from an authority of this PEM text.
    Optional(Vec<u8>),
    /// As `Optional`, and one that has none is refused.
    Required(Vec<u8>),
}

/// The TLS of a listener. Shared by all who listen with it; [`reload`](Self::reload) reaches all.
#[derive(Debug)]
pub struct ServerTls {
    clock: Arc<Clock>,
    current: RwLock<Arc<ServerConfig>>,
    /// What is spoken, as named to clients that ask.
    protocols: &'static [&'static [u8]],
}

impl ServerTls {
    /// A server with `identities`: the name that the client asks for (SNI) decides, an exact name
    /// before a wildcard; where none fits, the first does.
    ///
    /// # Errors
    /// The part that cannot be used.
    pub fn new(
        identities: &[Identity],
        clients: &ClientCertificates,
    ) -> Result<Self, TlsConfigError> {
        Self::speaking(&[ALPN], identities, clients)
    }

    /// As [`new`](Self::new), for what is not HTTP: no application protocol is agreed on.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_streams(
        identities: &[Identity],
        clients: &ClientCertificates,
    ) -> Result<Self, TlsConfigError> {
        Self::speaking(&[], identities, clients)
    }

    fn speaking(
        protocols: &'static [&'static [u8]],
        identities: &[Identity],
        clients: &ClientCertificates,
    ) -> Result<Self, TlsConfigError> {
        let clock = Arc::new(Clock::default());
        let config = server_config(identities, clients, &clock, protocols)?;
        let current = RwLock::new(Arc::new(config));
        Ok(Self {
            clock,
            current,
            protocols,
        })
    }

    /// Uses other settings for handshakes from now on; connections that are here stay as they are.
    ///
    /// # Errors
    /// The part that cannot be used; nothing has changed then.
    pub fn reload(
        &self,
        identities: &[Identity],
        clients: &ClientCertificates,
    ) -> Result<(), TlsConfigError> {
        let config = server_config(identities, clients, &self.clock, self.protocols)?;
        let config = Arc::new(config);
        // Nothing panics while it holds the lock, so a poisoned one is whole.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(super) fn session(&self) -> Result<ServerConnection, rustls::Error> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        ServerConnection::new(Arc::clone(&current))
    }
}

fn server_config(
    identities: &[Identity],
    clients: &ClientCertificates,
    clock: &Arc<Clock>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsConfigError> {
    let builder = ServerConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::clone(clock) as _);
    let builder = with_versions(builder, TlsVersion::ALL)?;
    let builder = match clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional(ca) | ClientCertificates::Required(ca) => {
            let roots = Arc::new(verify::roots_of(&certificates("ca", ca)?)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&PROVIDER));
            let verifier = match clients {
                ClientCertificates::Required(_) => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let built = verifier.build();
            let unusable = |error| TlsConfigError::new("ca", format!("cannot be used: {error}"));
            builder.with_client_cert_verifier(built.map_err(unusable)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(identities)?));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.ticketer = ring::Ticketer::new()
        .map_err(|error| TlsConfigError::new("key", format!("of tickets: {error}")))?;
    Ok(config)
}

/// Those versions, whichever side.
fn with_versions<S: rustls::ConfigSide>(
    builder: ConfigBuilder<S, WantsVersions>,
    versions: &[TlsVersion],
) -> Result<ConfigBuilder<S, rustls::WantsVerifier>, TlsConfigError> {
    let supported: Vec<_> = versions.iter().map(|version| version.supported()).collect();
    let built = builder.with_protocol_versions(&supported);
    built.map_err(|error| TlsConfigError::new("versions", error.to_string()))
}

/// Chooses a certificate by the name that the client asks for. RFC 6066 §3, RFC 6125 §6.4.3.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the name without its first label.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn new(identities: &[Identity]) -> Result<Self, TlsConfigError> {
        let Some(Identity(default)) = identities.first() else {
            return Err(TlsConfigError::new("cert", "is missing"));
        };
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        // A single one serves whoever asks, by any name.
        for Identity(identity) in identities.iter().filter(|_| identities.len() > 1) {
            let leaf = identity.cert.first().map(AsRef::as_ref);
            for name in certificate::dns_names(leaf.unwrap_or_default()) {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent.to_owned()),
                    None => (&mut exact, name),
                };
                names.entry(name).or_insert_with(|| Arc::clone(identity));
            }
        }
        Ok(Self {
            default: Arc::clone(default),
            exact,
            wildcard,
        })
    }

    fn choose(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        let wild = || self.wildcard.get(parent()?);
        self.exact.get(&name).or_else(wild)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = client_hello
            .server_name()
            .and_then(|name| self.choose(name));
        Some(Arc::clone(chosen.unwrap_or(&self.default)))
    }
}

/// How a client trusts, and who it says it is.
#[derive(Clone, Debug)]
pub struct ClientTlsOptions {
    /// Trust what the system trusts, or Mozilla's list where the system has none. Default true.
    pub system_roots: bool,
    /// Authorities to trust, as PEM text, besides. A certificate that is no authority's is trusted
    /// itself, if it is exactly the one that the server shows.
    pub ca: Option<Vec<u8>>,
    /// Who we are, for servers that ask.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must bear, and that it is asked for, instead of the
    /// host that is connected to. Empty: a certificate that is trusted may bear any name.
    pub server_name: Option<String>,
    /// Believe any certificate: whoever sits in between can read and change everything.
    /// Default false.
    pub insecure: bool,
    /// The application protocols to offer (RFC 7301). Default `http/1.1`; raw streams offer none.
    pub protocols: Vec<Vec<u8>>,
    /// The versions to offer. Default all, which are [`TlsVersion::ALL`].
    pub versions: &'static [TlsVersion],
}

impl Default for ClientTlsOptions {
    fn default() -> Self {
        Self {
            system_roots: true,
            ca: None,
            identity: None,
            server_name: None,
            insecure: false,
            protocols: vec![ALPN.to_vec()],
            versions: TlsVersion::ALL,
        }
    }
}

/// The TLS of connections that we open. Make one and share it: sessions are resumed among its
/// connections.
#[derive(Debug)]
pub struct ClientTls {
    clock: Arc<Clock>,
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// A client by `options`. The first that wants the system's roots reads them from disk.
    ///
    /// # Errors
    /// The part that cannot be used; `name` for a server name that is none, `versions` for none.
    pub fn new(options: &ClientTlsOptions) -> Result<Self, TlsConfigError> {
        let clock = Arc::new(Clock::default());
        let given = match &options.ca {
            Some(text) => certificates("ca", text)?,
            None => Vec::new(),
        };
        let provider = Arc::clone(&PROVIDER);
        let any_name = options.server_name.as_deref() == Some("");
        let verifier = if options.insecure {
            ServerVerifier::believing_all(provider)
        } else {
            ServerVerifier::new(provider, options.system_roots, given)?.for_any_name(any_name)
        };
        let builder =
            ClientConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::clone(&clock) as _);
        let builder = with_versions(builder, options.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &options.identity {
            Some(Identity(certified)) => builder.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(Arc::clone(certified)),
            )),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&options.protocols);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
        Ok(Self {
            clock,
            config: Arc::new(config),
            server_name: match options.server_name.as_deref() {
                None | Some("") => None,
                Some(name) => Some(name_of(name)?),
            },
        })
    }

    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(super) fn session(&self, host: &str) -> Result<ClientConnection, TlsConfigError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name_of(host)?,
        };
        let session = ClientConnection::new(Arc::clone(&self.config), name);
        session.map_err(|error| TlsConfigError::new("name", error.to_string()))
    }
}

/// A DNS name, without the dot of its root, or an address, with or without a URL's brackets.
fn name_of(host: &str) -> Result<ServerName<'static>, TlsConfigError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bare = bare.unwrap_or(host);
    let name = bare.strip_suffix('.').unwrap_or(bare).to_owned();
    ServerName::try_from(name)
        .map_err(|_| TlsConfigError::new("name", format!("{host:?} names no server")))
}

/// The time of the reactor that asked last. Threads agree on it to the second, which is all that
/// certificates and tickets ask.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    pub(super) fn set(&self, unix_time: u64) {
        self.0.store(unix_time, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(seconds))
    }
}
