//! Bytes in bulk: what a server says again of all it hears, over TLS and plain, in bytes per CPU second.
//!
//! Four servers, each on a thread of its own: raw streams of hukilau-core and a task of tokio, both
//! with and without the same rustls. One client for all, on a blocking socket: it sends a piece, and
//! reads it back whole before it sends the next.
//!
//! Invariants
//! - Every byte that comes back is compared.
//! - All four take turns in each round; ratios are taken within rounds.
//! - tokio's task has a buffer of 64 KiB, as much as a connection of core reads at once.
//!
//! Not here: handshakes and requests (`comparing.rs`).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use hukilau_core::Reactor;
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Protocol, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::transport::tls::{ClientCertificates, Identity, ServerTls};
use rustix::thread::Pid;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::comparing::{Failure, NAME, client, cpu_asleep, pin, quartile, self_signed};
use super::servers::{self, ANY_PORT, Pair, Running, Serve, announce};

/// Bytes of a piece.
const SIZES: [usize; 2] = [16 << 10, 64 << 10];

/// Bytes that a task of tokio reads at once.
const BUFFER_BYTES: usize = 64 << 10;

fn core(pair: Option<&Pair>, tell: &Sender<Running>) -> Result<(), Failure> {
    let tls = match pair {
        Some(pair) => {
            let identity = Identity::from_pem(pair.cert.as_bytes(), pair.key.as_bytes())?;
            let tls = ServerTls::for_streams(&[identity], &ClientCertificates::Ignored)?;
            Some(Arc::new(tls))
        }
        None => None,
    };
    let config = ServerConfig {
        protocol: Protocol::Stream,
        tls,
        ..ServerConfig::default()
    };
    let mut reactor = Reactor::new(MioNet::new()?, Limits::default())?;
    let listener = reactor.listen(&Endpoint::Ip(ANY_PORT), config)?;
    match reactor.local_endpoint(listener) {
        Some(Endpoint::Ip(at)) => announce(at, tell)?,
        other => return Err(format!("listens at {other:?}").into()),
    }
    let mut inbox = Inbox::new();
    loop {
        reactor.turn(&mut inbox, None)?;
        for completion in inbox.completions() {
            if let What::Bytes { bytes } = completion.what {
                reactor.write_stream(completion.conn, bytes)?;
            }
        }
    }
}

fn tokio(pair: Option<&Pair>, tell: &Sender<Running>) -> Result<(), Failure> {
    let acceptor = match pair {
        Some(pair) => Some(TlsAcceptor::from(Arc::new(servers::settings(pair)?))),
        None => None,
    };
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
                let said = match acceptor {
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => say_again(stream).await,
                        Err(error) => Err(error),
                    },
                    None => say_again(stream).await,
                };
                if let Err(error) = said {
                    eprintln!("tokio: {error}");
                }
            });
        }
    })
}

async fn say_again(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
        stream.flush().await?;
    }
}

const SERVERS: [(&str, bool, Serve); 4] = [
    ("core, TLS", true, |pair, tell| core(Some(pair), tell)),
    ("tokio-rustls", true, |pair, tell| tokio(Some(pair), tell)),
    ("core, plain", false, |_, tell| core(None, tell)),
    ("tokio, plain", false, |_, tell| tokio(None, tell)),
];

/// One server and a connection to it.
struct Peer {
    thread: Pid,
    stream: Stream,
}

enum Stream {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Plain(TcpStream),
}

impl Stream {
    fn connect(at: SocketAddr, tls: Option<&Pair>) -> Result<Self, Failure> {
        let socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        let Some(pair) = tls else {
            return Ok(Self::Plain(socket));
        };
        let config = client(pair, Resumption::disabled())?;
        let session = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    fn echo(&mut self, piece: &[u8], heard: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::Tls(stream) => {
                stream.write_all(piece)?;
                stream.flush()?;
                stream.read_exact(heard)?;
            }
            Self::Plain(stream) => {
                stream.write_all(piece)?;
                stream.read_exact(heard)?;
            }
        }
        match heard == piece {
            true => Ok(()),
            false => Err("the echo is another".into()),
        }
    }
}

impl Peer {
    fn new(serve: Serve, is_tls: bool, pair: &Pair) -> Result<Self, Failure> {
        let Running { at, thread } = servers::start(serve, pair)?;
        let stream = Stream::connect(at, is_tls.then_some(pair))?;
        Ok(Self { thread, stream })
    }

    /// CPU nanoseconds for so many pieces.
    fn echoes(&mut self, count: usize, piece: &[u8], heard: &mut [u8]) -> Result<f64, Failure> {
        let begun = cpu_asleep(self.thread)?;
        for _ in 0..count {
            self.stream.echo(piece, heard)?;
        }
        Ok(cpu_asleep(self.thread)? - begun)
    }
}

/// Which server's cost over which other's.
const RATIOS: [(&str, usize, usize); 4] = [
    ("core / tokio-rustls", 0, 1),
    ("core / tokio, plain", 2, 3),
    ("core, TLS / plain", 0, 2),
    ("tokio, TLS / plain", 1, 3),
];

#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub(super) fn compare(mib: usize, rounds: usize) -> Result<(), Failure> {
    let pair = self_signed()?;
    let mut peers = Vec::new();
    for (_, is_tls, serve) in SERVERS {
        peers.push(Peer::new(serve, is_tls, &pair)?);
    }
    // The servers have taken the first core.
    pin(1)?;
    println!("{mib} MiB there and back in each of {rounds} rounds; TLS 1.3; MB per CPU second\n");
    let names = SERVERS.map(|(name, ..)| format!(" {name} |")).concat();
    let ratios = RATIOS.map(|(name, ..)| format!(" {name} |")).concat();
    println!("| piece |{names}{ratios}");
    println!("| --- |{}", " ---: |".repeat(SERVERS.len() + RATIOS.len()));
    for size in SIZES {
        let piece: Vec<u8> = (0..size)
            .map(|at| (at * 7 % 251).to_le_bytes()[0])
            .collect();
        let mut heard = vec![0; size];
        let count = (mib << 20) / size;
        let mut costs: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
        for round in 0..=rounds {
            for turn in 0..peers.len() {
                let index = (round + turn) % peers.len();
                let cost = peers[index].echoes(count, &piece, &mut heard)?;
                // The first warms up.
                if round > 0 {
                    costs[index].push(cost);
                }
            }
        }
        print!("| {} KiB |", size >> 10);
        let ratios = RATIOS.map(|(_, one, other)| {
            let pairs = costs[one].iter().zip(&costs[other]);
            pairs.map(|(one, other)| one / other).collect::<Vec<_>>()
        });
        for mut costs in costs {
            let nanos = quartile(&mut costs, 2);
            print!(" {:.0} |", (count * size) as f64 / nanos * 1e3);
        }
        for mut ratio in ratios {
            let spread = (quartile(&mut ratio, 3) - quartile(&mut ratio, 1)) / 2.0;
            print!(" {:.2} (±{spread:.2}) |", quartile(&mut ratio, 2));
        }
        println!();
    }
    Ok(())
}
