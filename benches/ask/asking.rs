//! The two clients, the server that both ask, and the rounds.
//!
//! Sits behind `main.rs`, which is empty on other systems.
//!
//! Invariants
//! - Every answer is checked; a peer that fails ends the run.

use http_body_util::{BodyExt, Empty};
use hukilau_core::Reactor;
use hukilau_core::client::{Client, ClientConfig, ClientEvent, RequestSpec};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::url::absolute::Url;
use hyper::body::Bytes;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
const BODY: &[u8] = b"Hello, World!";

/// Requests under way at once.
const WIDTHS: [usize; 2] = [1, 64];

type Failure = Box<dyn std::error::Error>;

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// Answers each request on a connection.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut held) = ([0; 4096], 0);
    loop {
        let count = stream.read(&mut buffer[held..])?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        if buffer[..held].ends_with(b"\r\n\r\n") {
            held = 0;
            stream.write_all(ANSWER)?;
        }
    }
}

/// A client that makes so many requests, so many at once.
trait Peer {
    fn run(&mut self, requests: usize, width: usize) -> Result<(), Failure>;
}

struct Ours {
    reactor: Reactor,
    client: Client,
    inbox: Inbox,
    url: Url,
}

impl Ours {
    fn new(url: &str) -> Result<Self, Failure> {
        Ok(Self {
            reactor: Reactor::new(MioNet::new()?, Limits::default())?,
            client: Client::new(ClientConfig::default()),
            inbox: Inbox::new(),
            url: Url::parse(url.as_bytes())?,
        })
    }

    fn ask(&mut self) -> Result<(), Failure> {
        let spec = RequestSpec::new(self.url.clone());
        self.client.request(&mut self.reactor, spec)?;
        Ok(())
    }
}

impl Peer for Ours {
    fn run(&mut self, requests: usize, width: usize) -> Result<(), Failure> {
        for _ in 0..width {
            self.ask()?;
        }
        let (mut asked, mut done) = (width, 0);
        while done < requests {
            let wake_at = self.client.wake_at();
            self.reactor.turn(&mut self.inbox, wake_at)?;
            let mut answered = 0;
            for completion in self.inbox.completions() {
                self.client.offer(&mut self.reactor, &completion);
                while let Some(event) = self.client.next_event() {
                    match event {
                        ClientEvent::Response { response, body, .. } => {
                            assert!(response.status == 200 && body == BODY, "it is the answer");
                            answered += 1;
                        }
                        other => return Err(format!("{other:?}").into()),
                    }
                }
            }
            self.client.handle_time(&mut self.reactor);
            done += answered;
            for _ in 0..answered.min(requests - asked) {
                self.ask()?;
                asked += 1;
            }
        }
        Ok(())
    }
}

struct Hyper {
    runtime: tokio::runtime::Runtime,
    client: hyper_util::client::legacy::Client<HttpConnector, Empty<Bytes>>,
    url: hyper::Uri,
}

impl Hyper {
    fn new(url: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Ok(Self {
            runtime,
            client: builder.clone().build(connector),
            url: url.parse()?,
        })
    }
}

impl Peer for Hyper {
    fn run(&mut self, requests: usize, width: usize) -> Result<(), Failure> {
        let left = Rc::new(Cell::new(requests));
        let local = tokio::task::LocalSet::new();
        let tasks: Vec<_> = (0..width)
            .map(|_| {
                let (client, url, left) = (self.client.clone(), self.url.clone(), Rc::clone(&left));
                local.spawn_local(async move {
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        let response = client.get(url.clone()).await.map_err(|e| e.to_string())?;
                        let is_ok = response.status() == 200;
                        let body = response.into_body().collect().await;
                        let body = body.map_err(|e| e.to_string())?.to_bytes();
                        assert!(is_ok && body == BODY, "it is the answer");
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        self.runtime.block_on(local.run_until(async {
            for task in tasks {
                task.await??;
            }
            Ok(())
        }))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub(crate) fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse());
    let mut number = |default| match arguments.next() {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => panic!("ask [REQUESTS] [ROUNDS]"),
    };
    let (requests, rounds) = (number(20_000), number(11));
    if let Err(failure) = compare(requests, rounds) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}

fn compare(requests: usize, rounds: usize) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/hello", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection ends when its client leaves.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let per_request = 1e6 / requests as f64;
    println!("{requests} requests, {rounds} rounds; CPU us of the asking thread per request\n");
    println!("| at once | core | hyper | core / hyper |");
    println!("| ---: | ---: | ---: | ---: |");
    for width in WIDTHS {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut core, mut hyper) = (Ours::new(&url)?, Hyper::new(&url)?);
        for round in 0..=rounds {
            let mut costs = [0.0; 2];
            let peers: [&mut dyn Peer; 2] = [&mut core, &mut hyper];
            for (peer, cost) in peers.into_iter().zip(&mut costs) {
                let begun = cpu();
                peer.run(requests, width)?;
                *cost = (cpu() - begun) * per_request;
            }
            // The first makes the connections.
            if round > 0 {
                ours.push(costs[0]);
                theirs.push(costs[1]);
                ratios.push(costs[0] / costs[1]);
            }
        }
        println!(
            "| {width} | {:.1} us | {:.1} us | {:.2} |",
            median(ours),
            median(theirs),
            median(ratios)
        );
    }
    Ok(())
}
