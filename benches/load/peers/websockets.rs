//! The WebSocket libraries of Rust as peers: tungstenite, fastwebsockets, tokio-websockets.
//!
//! Each is the echo server of its own examples, on tokio's current-thread runtime, with TCP_NODELAY
//! and the library's default settings. tungstenite's example forwards the stream into the sink,
//! which flushes once the stream has nothing ready; the others' examples send message by message,
//! which flushes each.
//!
//! Invariants
//! - Errors of a connection end that connection and are printed; the harness closing its end is
//!   none.
//!
//! Not here: HTTP (`hyper.rs`).

use std::io;
use std::net::Ipv4Addr;

use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::{Mode, Setup, tungstenite_room};

/// A connection's end, as text.
pub(super) type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Serves tokio-tungstenite until the process is ended.
pub(super) fn serve_tungstenite(setup: &Setup) -> io::Result<()> {
    if setup.mode == Mode::Room {
        return tungstenite_room::serve();
    }
    serve("tungstenite", |stream| async {
        let (sink, messages) = tokio_tungstenite::accept_async(stream).await?.split();
        let echoed =
            messages.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
        Ok(echoed.forward(sink).await?)
    })
}

/// Serves tokio-websockets until the process is ended.
pub(super) fn serve_tokio_websockets(_: &Setup) -> io::Result<()> {
    serve("tokio-websockets", |stream| async {
        let (_request, mut socket) = tokio_websockets::ServerBuilder::new()
            .accept(stream)
            .await?;
        while let Some(message) = socket.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                socket.send(message).await?;
            }
        }
        Ok(())
    })
}

/// Serves fastwebsockets, upgraded from hyper, until the process is ended.
pub(super) fn serve_fastwebsockets(_: &Setup) -> io::Result<()> {
    serve("fastwebsockets", |stream| async {
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(upgrade_fastwebsockets));
        Ok(connection.with_upgrades().await?)
    })
}

async fn upgrade_fastwebsockets(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(async move {
        if let Err(error) = tokio::task::unconstrained(echo_fastwebsockets(upgraded)).await {
            report("fastwebsockets", &error);
        }
    });
    Ok(response)
}

async fn echo_fastwebsockets(upgraded: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}

/// Accepts for ever; `connection` runs as a task of its own for each.
pub(super) fn serve<F>(
    name: &'static str,
    connection: impl Fn(TcpStream) -> F + 'static,
) -> io::Result<()>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    super::current_thread(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        super::announce(listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = connection(stream);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    report(name, error.as_ref());
                }
            });
        }
    })
}

/// Prints why a connection ended, unless it is that the harness closed it: it does so without a
/// closing handshake.
fn report(name: &str, error: &dyn std::error::Error) {
    let text = error.to_string();
    let is_plain_close = [
        "reset",
        "Unexpected EOF",
        "unexpected end",
        "without closing handshake",
    ]
    .iter()
    .any(|close| text.contains(close));
    if !is_plain_close {
        eprintln!("{name}: {text}");
    }
}
