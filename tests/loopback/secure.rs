//! All of `loopback.rs` over TLS: the real reactor and the real rustls at both ends of a simulated
//! network, in both versions, with handshakes and records in pieces.
//!
//! What is deterministic, and what is not: keys, nonces and session identifiers are the system's
//! chance, as rustls and ring offer no other, so the *bytes* on the wire differ from run to run. Their
//! *number* does not: the certificates have Ed25519 keys, whose signatures are all equally long, and
//! everything else that is random has a fixed size. A simulated network looks at numbers only, and time
//! is the reactor's `Net`'s, so the same seed gives the same calls, the same completions and the same
//! transcript. (The keys of tickets change with the system's clock, every six hours; no run is as long.)
//!
//! Not here: certificates that are refused, ends and resets at each byte (`client_face/over_tls.rs`);
//! real peers (`tls.rs`).

use super::{Loopback, fair_scene, rough_scene};
use crate::sim::scene::{
    self, Scene, causes_of, check_each_failing, check_met, check_repeats, seeds,
};
use crate::sim::{Call, Script, SimNet, SimOptions, Step};
use crate::tls::certs::{Ca, Pair};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Completion, Inbox, What};
use hukilau_core::reactor::{DialTls, Reactor, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::tls::{
    ClientCertificates, ClientTls, ClientTlsOptions, ServerTls, TlsVersion,
};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Seeds of each kind in an ordinary run: a handshake costs what a hundred requests do.
const SEEDS: usize = 24;

/// The settings of both ends.
pub(super) struct Secure {
    server: Arc<ServerTls>,
    client: Arc<ClientTls>,
}

impl Secure {
    pub(super) fn server(&self) -> Arc<ServerTls> {
        Arc::clone(&self.server)
    }

    pub(super) fn client(&self) -> DialTls {
        DialTls {
            client: Arc::clone(&self.client),
            host: "server.test".to_owned(),
        }
    }
}

/// What one end says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    at_server: bool,
    version: TlsVersion,
    is_resumed: bool,
    protocol: Option<Vec<u8>>,
    server_name: Option<String>,
    /// By its certificate.
    peer: Option<String>,
}

impl Agreed {
    /// As soon as the application hears of a connection.
    pub(super) fn of<const D: bool>(
        reactor: &Reactor<SimNet<D>>,
        completion: &Completion<'_>,
    ) -> Option<Self> {
        let at_server = match completion.what {
            What::Connected { .. } => false,
            What::Request { .. } => true,
            _ => return None,
        };
        let agreement = reactor.tls_agreement(completion.conn)?;
        let certificate = reactor.peer_certificate(completion.conn);
        Some(Self {
            at_server,
            version: agreement.version,
            is_resumed: agreement.is_resumed,
            protocol: agreement.protocol.map(<[u8]>::to_vec),
            server_name: agreement.server_name.map(str::to_owned),
            peer: certificate.map(|certificate| certificate.subject()),
        })
    }
}

/// Certificates for all scenes of a test.
struct Certs {
    ca: Ca,
    servers: [Pair; 2],
    alice: Pair,
}

impl Certs {
    fn new() -> Self {
        let ca = Ca::new("authority");
        Self {
            servers: ["other.test", "server.test"].map(|name| ca.issue_steady(&[name])),
            alice: ca.issue_steady(&["alice"]),
            ca,
        }
    }

    /// By the seed: either version, clients that must have a certificate or are not asked.
    fn secure(&self, seed: u64) -> Secure {
        let knows = seed & 2 != 0;
        let clients = match knows {
            true => ClientCertificates::Required(self.ca.pem().into_bytes()),
            false => ClientCertificates::Ignored,
        };
        let identities = self.servers.each_ref().map(Pair::identity);
        let server = ServerTls::new(&identities, &clients).expect("the settings agree");
        let client = ClientTls::new(&ClientTlsOptions {
            system_roots: false,
            ca: Some(self.ca.pem().into_bytes()),
            identity: knows.then(|| self.alice.identity()),
            versions: versions(seed),
            ..ClientTlsOptions::default()
        });
        Secure {
            server: Arc::new(server),
            client: Arc::new(client.expect("the settings agree")),
        }
    }

    fn over(&self, scene: Loopback) -> Loopback {
        Loopback {
            tls: Some(self.secure(scene.seed)),
            ..scene
        }
    }
}

/// Each with either kind of readiness, which the lowest bit decides.
fn versions(seed: u64) -> &'static [TlsVersion] {
    match seed & 4 {
        0 => &[TlsVersion::Tls13],
        _ => &[TlsVersion::Tls12],
    }
}

/// Fewer than elsewhere, unless it is said how many.
fn some_seeds() -> impl Iterator<Item = u64> {
    let all = seeds();
    let is_ordinary = all.end - all.start == scene::SEEDS;
    all.take(if is_ordinary { SEEDS } else { usize::MAX })
}

/// What the two ends agree on in a scene, and that it is what was wanted.
#[track_caller]
fn check_agreed(seed: u64, agreed: &[Agreed]) {
    let at = |server: bool| agreed.iter().filter(move |one| one.at_server == server);
    for one in agreed {
        assert_eq!([one.version], versions(seed));
        assert_eq!(one.protocol.as_deref(), Some(&b"http/1.1"[..]));
    }
    for one in at(true) {
        assert_eq!(one.server_name.as_deref(), Some("server.test"));
        let subject = (seed & 2 != 0).then_some("CN=alice");
        assert_eq!(one.peer.as_deref(), subject);
    }
    // The name decides, and not the order.
    assert!(at(false).all(|one| one.peer.as_deref() == Some("CN=server.test")));
    let of_kind = |is_resumed| at(false).filter(move |one| one.is_resumed == is_resumed);
    assert!(of_kind(false).count() > 0, "the first knows no ticket");
}

#[test]
fn over_tls_on_a_fair_network_every_client_hears_what_it_asked_for() {
    let certs = Certs::new();
    let mut resumed = BTreeSet::new();
    for seed in some_seeds() {
        let rest = certs.over(fair_scene(seed)).run_either();
        check_agreed(seed, &rest.told);
        let later = rest.told.iter().filter(|one| one.is_resumed);
        resumed.extend(later.map(|one| (one.version, one.at_server, one.peer.clone())));
    }
    if some_seeds().count() >= SEEDS {
        // Either version, at either end, with a client that is known and one that is not.
        assert_eq!(resumed.len(), 2 * 3, "{resumed:?}");
    }
}

#[test]
fn over_tls_on_a_rough_network_every_request_has_one_outcome() {
    let certs = Certs::new();
    let causes = causes_of(some_seeds(), |seed| certs.over(rough_scene(seed)));
    if some_seeds().count() >= SEEDS {
        check_met(&causes, &["agreed", "connect", "terminated"]);
    }
}

/// The first words of a client.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "server.test".try_into().expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name);
    let mut hello = Vec::new();
    let written = client.expect("the settings agree").write_tls(&mut hello);
    written.expect("a Vec takes all");
    hello
}

#[test]
fn a_turn_advances_as_many_handshakes_as_it_may_and_no_more() {
    const CLIENTS: usize = 20;
    const PER_TURN: u16 = 3;
    let options = SimOptions {
        delay_max: Duration::ZERO,
        ..SimOptions::calm()
    };
    let net = SimNet::<true>::new(1, options);
    let limits = Limits {
        handshakes_per_turn: PER_TURN,
        ..Limits::default()
    };
    let mut reactor = Reactor::new(net.clone(), limits).expect("the limits agree");
    let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 443)));
    let config = ServerConfig {
        tls: Some(Certs::new().secure(0).server()),
        ..ServerConfig::default()
    };
    reactor.listen(&at, config).expect("nobody listens yet");
    let hello = hello();
    for _ in 0..CLIENTS {
        let mut script = Script::new([Step::Send(hello.clone())]);
        script.is_stubborn = true;
        net.dial_in(&at, Duration::ZERO, script);
    }
    let (mut inbox, mut advanced) = (Inbox::new(), Vec::new());
    loop {
        let before = net.calls(Call::Read);
        match reactor.turn(&mut inbox, None) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.expect("a simulated poll does not fail"),
        }
        advanced.push(net.calls(Call::Read) - before);
    }
    // Each hello is one read, until nobody says anything more and all meet their deadline.
    let busy: Vec<u64> = advanced.into_iter().filter(|count| *count > 0).collect();
    assert_eq!(busy, [3, 3, 3, 3, 3, 3, 2]);
    let answered = net.heard().iter().filter(|heard| !heard.is_empty()).count();
    assert_eq!((answered, reactor.connections()), (CLIENTS, 0));
}

#[test]
fn handshakes_and_records_may_come_byte_by_byte() {
    let certs = Certs::new();
    for seed in some_seeds().take(8) {
        let options = SimOptions {
            piece_max: 1 + usize::try_from(seed % 3).expect("it is small"),
            delay_max: Duration::from_micros(20),
            socket_buffer_max: 64 * 1024,
            ..SimOptions::tricky()
        };
        let scene = Loopback {
            options,
            clients: 2,
            ..fair_scene(seed)
        };
        check_agreed(seed, &certs.over(scene).run_either().told);
    }
}

#[test]
fn over_tls_the_same_seed_gives_the_same_transcript() {
    let certs = Certs::new();
    for seed in some_seeds().take(8) {
        for scene in [fair_scene, rough_scene] {
            check_repeats(|| certs.over(scene(seed)));
        }
    }
}

#[test]
fn whichever_call_fails_over_tls_nothing_is_left_and_nothing_is_wrong() {
    let certs = Certs::new();
    let calls = [
        (Call::Read, ErrorKind::ConnectionReset),
        (Call::Write, ErrorKind::BrokenPipe),
        (Call::Shutdown, ErrorKind::NotConnected),
    ];
    check_each_failing(&calls, 1, |fault| {
        certs.over(Loopback {
            options: SimOptions::calm(),
            clients: 4,
            fault: Some(fault),
            strict: false,
            ..fair_scene(fault.1 % 8)
        })
    });
}
