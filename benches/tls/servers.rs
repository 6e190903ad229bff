//! The two servers, each on a thread of its own: hukilau-core, and hyper over tokio-rustls on
//! tokio's current-thread runtime.
//!
//! Settings: both TLS 1.2 and 1.3 by ring, `http/1.1` offered, tickets from ring's ticketer, one
//! certificate, TCP_NODELAY; else the defaults of each. hyper has no timer, in its favour.
//!
//! Invariants
//! - Both answer every request with the same body and the same three fields.
//! - A server ends only with the process.
//!
//! Not here: who asks (`comparing.rs`).

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use http_body_util::Full;
use hukilau_core::Reactor;
use hukilau_core::conn::Response;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::ServerConfig;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::transport::tls::{ClientCertificates, Identity, ServerTls};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::thread::{Pid, gettid};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::comparing::{Failure, pin};

/// What every answer holds.
pub(super) const BODY: &[u8] = b"Hello, World!";

pub(super) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A certificate with its key, as PEM text.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

/// Where a server listens, and the thread that is the server.
pub(super) struct Running {
    pub(super) at: SocketAddr,
    pub(super) thread: Pid,
}

/// A server, which tells its address once it listens.
pub(super) type Serve = fn(&Pair, &Sender<Running>) -> Result<(), Failure>;

/// Starts `serve` on a thread pinned to the machine's first core.
pub(super) fn start(serve: Serve, pair: &Pair) -> Result<Running, Failure> {
    let (tell, told) = channel();
    let pair = pair.clone();
    thread::spawn(move || {
        if let Err(failure) = pin(0).and_then(|()| serve(&pair, &tell)) {
            eprintln!("{failure}");
            std::process::exit(1);
        }
    });
    Ok(told.recv()?)
}

pub(super) fn announce(at: SocketAddr, tell: &Sender<Running>) -> Result<(), Failure> {
    let thread = gettid();
    tell.send(Running { at, thread })
        .map_err(|_| "nobody waits for the server".into())
}

pub(super) fn core(pair: &Pair, tell: &Sender<Running>) -> Result<(), Failure> {
    let identity = Identity::from_pem(pair.cert.as_bytes(), pair.key.as_bytes())?;
    let tls = ServerTls::new(&[identity], &ClientCertificates::Ignored)?;
    let config = ServerConfig {
        tls: Some(Arc::new(tls)),
        ..ServerConfig::default()
    };
    let mut reactor = Reactor::new(MioNet::new()?, Limits::default())?;
    let listener = reactor.listen(&Endpoint::Ip(ANY_PORT), config)?;
    match reactor.local_endpoint(listener) {
        Some(Endpoint::Ip(at)) => announce(at, tell)?,
        other => return Err(format!("listens at {other:?}").into()),
    }
    let response = Response {
        status: 200,
        fields: &[(b"Content-Type", b"text/plain")],
        body: BODY,
    };
    let mut inbox = Inbox::new();
    loop {
        reactor.turn(&mut inbox, None)?;
        for completion in inbox.completions() {
            if let What::Request { exchange, .. } = completion.what {
                reactor.respond(completion.conn, exchange, &response)?;
            }
        }
    }
}

/// The settings that core makes for itself, made for hyper.
pub(super) fn settings(pair: &Pair) -> Result<rustls::ServerConfig, Failure> {
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

pub(super) fn hyper(pair: &Pair, tell: &Sender<Running>) -> Result<(), Failure> {
    let acceptor = TlsAcceptor::from(Arc::new(settings(pair)?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
        announce(listener.local_addr()?, tell)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Err(error) = serve_connection(stream, acceptor).await {
                    eprintln!("hyper: {error}");
                }
            });
        }
    })
}

async fn serve_connection(stream: tokio::net::TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
        .map_err(io::Error::other)
}

async fn answer(
    _: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let mut response = hyper::Response::new(Full::new(Bytes::from_static(BODY)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
