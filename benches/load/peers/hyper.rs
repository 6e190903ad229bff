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

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

use crate::workload::HELLO;

/// The posted document; what is not named is skipped.
#[derive(Deserialize)]
struct Post<'a> {
    message: &'a str,
}

/// Serves until the process is ended.
pub(super) fn serve(pipeline_flush: bool) -> io::Result<()> {
    super::current_thread(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        super::announce(listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_connection(stream, pipeline_flush));
        }
    })
}

async fn serve_connection(stream: TcpStream, pipeline_flush: bool) {
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
