//! hyper as a peer: http1 on a current-thread tokio runtime, as its own examples build a server.
//!
//! Settings: TCP_NODELAY, keep-alive, one task per connection, no timer (its examples' optional
//! head timeout is left out, in its favour), vectored writes left to its default. `pipeline_flush`
//! is measured as a peer of its own: it is off by default and its documentation calls it
//! experimental. The JSON document goes through serde_json into a struct that borrows its one
//! field.
//!
//! Invariants
//! - The same routes, fields and bodies as every peer (`workload.rs`).
//!
//! Not here: WebSocket over hyper (fastwebsockets, `websockets.rs`).

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Setup;
use crate::workload::HELLO;

/// The posted document; what is not named is skipped.
#[derive(Deserialize)]
struct Post<'a> {
    message: &'a str,
}

/// Serves until the process is ended.
pub(super) fn serve(setup: &Setup, pipeline_flush: bool) -> io::Result<()> {
    let acceptor = acceptor(setup)?;
    super::current_thread(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        super::announce(listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            match acceptor.clone() {
                None => tokio::spawn(serve_connection(stream, pipeline_flush)),
                Some(acceptor) => tokio::spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(stream) => serve_connection(stream, pipeline_flush).await,
                        Err(error) => eprintln!("hyper: TLS: {error}"),
                    }
                }),
            };
        }
    })
}

/// As core sets up rustls by itself, if the certificate is given.
fn acceptor(setup: &Setup) -> io::Result<Option<TlsAcceptor>> {
    let Some((cert, key)) = &setup.pair else {
        return Ok(None);
    };
    let cert = CertificateDer::from_pem_file(cert).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![cert], key)
        })
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

async fn serve_connection<S>(stream: S, pipeline_flush: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = http1::Builder::new()
        .keep_alive(true)
        .pipeline_flush(pipeline_flush)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(error) = outcome {
        eprintln!("hyper: {error}");
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_post = request.method() == Method::POST;
    Ok(match request.uri().path() {
        "/" => text(Bytes::from_static(HELLO.as_bytes())),
        "/field" if is_post => match request.into_body().collect().await {
            Ok(body) => match serde_json::from_slice::<Post<'_>>(&body.to_bytes()) {
                Ok(post) => text(Bytes::copy_from_slice(post.message.as_bytes())),
                Err(_) => refusal(StatusCode::BAD_REQUEST),
            },
            Err(_) => refusal(StatusCode::BAD_REQUEST),
        },
        _ => refusal(StatusCode::NOT_FOUND),
    })
}

fn text(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
