//! A budget that can be broken is a test: once warm, core serves keep-alive requests and WebSocket
//! messages over real sockets without one heap allocation.
//!
//! The allocator of this test binary counts calls and bytes, for each thread by itself, so that other
//! tests and the client, which runs on a thread of its own, do not disturb the count. It is the only `unsafe impl`
//! of the tests.

use hukilau_core::Reactor;
use hukilau_core::conn::{Exchange, Response, WsSettings};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::reactor::inbox::{Inbox, What};
use hukilau_core::reactor::{Accept, ServerConfig};
use hukilau_core::transport::Endpoint;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::ws::Role;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated less bytes freed, and the most that has been.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody to read it.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

/// Counts bytes that were allocated, and such that were freed.
fn count_bytes(allocated: usize, freed: usize) {
    let _ = LIVE.try_with(|live| {
        let (before, most) = live.get();
        let now = before
            .wrapping_add_unsigned(allocated)
            .wrapping_sub_unsigned(freed);
        live.set((now, most.max(now)));
    });
}

/// The most bytes that this thread had allocated at a time while `work` ran, beyond those before.
pub(crate) fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.with(|live| {
        let (now, _) = live.get();
        live.set((now, now));
        now
    });
    let outcome = work();
    let (_, most) = LIVE.with(Cell::get);
    (outcome, usize::try_from(most - before).unwrap_or(0))
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; this one only counts"
)]
// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        count_bytes(layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is also `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        count_bytes(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        count_bytes(size, layout.size());
        // SAFETY: `block` came from `System`, as every block of this allocator does.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count_bytes(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds before counting, and counted.
const WARM_UP: u32 = 200;
const COUNTED: u32 = 1000;

/// A server on this thread that answers requests and echoes messages.
struct Server {
    reactor: Reactor,
    inbox: Inbox,
    settings: Rc<WsSettings>,
    port: u16,
    /// Requests answered and messages echoed.
    served: u32,
    closed: bool,
}

impl Server {
    fn new() -> Self {
        let net = MioNet::new().expect("the system has a selector");
        let mut reactor = Reactor::new(net, Limits::default()).expect("the defaults agree");
        let at = Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = ServerConfig {
            websocket: true,
            ..ServerConfig::default()
        };
        let listener = reactor.listen(&at, config).expect("a free port");
        let Some(Endpoint::Ip(address)) = reactor.local_endpoint(listener) else {
            panic!("a listener has an address");
        };
        let settings = Rc::new(WsSettings::new(Role::Server, &Limits::default()));
        let inbox = Inbox::new();
        Self {
            reactor,
            inbox,
            settings,
            port: address.port(),
            served: 0,
            closed: false,
        }
    }

    /// One turn, and what the application does about it.
    fn turn(&mut self) {
        let patience = self.reactor.now().checked_add(Duration::from_secs(20));
        self.reactor
            .turn(&mut self.inbox, patience)
            .expect("poll works");
        for completion in self.inbox.completions() {
            let conn = completion.conn;
            match completion.what {
                What::Request {
                    exchange, request, ..
                } if request.target() == b"/ws" => {
                    let settings = Rc::clone(&self.settings);
                    let accept = Accept {
                        protocol: None,
                        fields: &[],
                        settings,
                    };
                    let accepted = self.reactor.accept_websocket(conn, exchange, &accept);
                    accepted.expect("it asks for a WebSocket");
                }
                What::Request {
                    exchange, request, ..
                } if !request.has_body() => {
                    answer(&mut self.reactor, conn, exchange, request.target());
                    self.served += 1;
                }
                What::End { exchange } => {
                    answer(&mut self.reactor, conn, exchange, b"/up");
                    self.served += 1;
                }
                What::Message { kind, payload } => {
                    self.reactor.send(conn, kind, payload).expect("it is open");
                    self.served += 1;
                }
                What::Closed { .. } => self.closed = true,
                _ => {}
            }
        }
    }

    /// Serves until the client has gone; the allocations between the end of the warm-up and the
    /// last counted round.
    fn allocations_once_warm(mut self) -> u64 {
        while self.served < WARM_UP {
            self.turn();
        }
        let before = allocations();
        while self.served < WARM_UP + COUNTED {
            self.turn();
        }
        let after = allocations();
        while !self.closed {
            self.turn();
        }
        after - before
    }
}

fn answer(reactor: &mut Reactor, conn: ConnKey, exchange: Exchange, body: &[u8]) {
    let fields: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"text/plain")];
    let response = Response {
        status: 200,
        fields: &fields,
        body,
    };
    let answered = reactor.respond(conn, exchange, &response);
    answered.expect("it waits for an answer");
}

/// A client on its own thread: says hello, then sends `ask` and awaits `answer_len` bytes that end
/// with `answer_end`, round after round.
fn client(
    port: u16,
    hello: &'static [u8],
    ask: Vec<u8>,
    answer_end: Vec<u8>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP option");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a valid timeout");
        let read_up_to = |stream: &mut TcpStream, end: &[u8]| {
            let (mut got, mut piece) = (Vec::new(), [0; 4096]);
            while !got.ends_with(end) {
                let count = stream.read(&mut piece).expect("the server answers");
                assert!(count > 0, "the server closed after {}", got.escape_ascii());
                got.extend(&piece[..count]);
            }
        };
        if !hello.is_empty() {
            stream.write_all(hello).expect("the server reads");
            read_up_to(&mut stream, b"\r\n\r\n");
        }
        for _ in 0..WARM_UP + COUNTED {
            stream.write_all(&ask).expect("the server reads");
            read_up_to(&mut stream, &answer_end);
        }
    })
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(allocations(), before + 1);
}

#[test]
fn keep_alive_requests_allocate_nothing_once_warm() {
    let server = Server::new();
    let ask = b"GET /hello?world HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nUser-Agent: t\r\n\r\n";
    let client = client(
        server.port,
        b"",
        ask.to_vec(),
        b"\r\n\r\n/hello?world".to_vec(),
    );
    assert_eq!(server.allocations_once_warm(), 0, "for {COUNTED} requests");
    client.join().expect("all answers were right");
}

#[test]
fn connections_that_ask_at_once_take_a_slot_and_a_small_buffer_each() {
    const CLIENTS: u32 = 100;
    // A slot, in a table that has doubled, and 2 KiB for the answer, which wait for the end of the turn.
    const BYTES_MAX: usize = CLIENTS as usize * 3 * 1024;
    let mut server = Server::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream =
                TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
            let ask = b"GET /hello HTTP/1.1\r\nHost: a.test\r\n\r\n";
            stream.write_all(ask).expect("the system has room");
            stream
        })
        .collect();
    let serve = || {
        while server.served < CLIENTS {
            server.turn();
        }
    };
    let ((), most) = peak_bytes(serve);
    assert!(most < BYTES_MAX, "{most} for {CLIENTS}");
    drop(clients);
}

#[test]
fn collected_bodies_allocate_nothing_once_warm() {
    let server = Server::new();
    let mut ask =
        b"POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    ask.extend(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let client = client(server.port, b"", ask, b"\r\n\r\n/up".to_vec());
    assert_eq!(server.allocations_once_warm(), 0, "for {COUNTED} uploads");
    client.join().expect("all answers were right");
}

#[test]
fn websocket_messages_allocate_nothing_once_warm() {
    const HELLO: &[u8] =
        b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let server = Server::new();
    // A text of eleven bytes under an all-zero mask; then one in two fragments.
    let mut ask = b"\x81\x8b\0\0\0\0hello there".to_vec();
    let client = client(
        server.port,
        HELLO,
        ask.clone(),
        b"\x81\x0bhello there".to_vec(),
    );
    assert_eq!(server.allocations_once_warm(), 0, "for {COUNTED} messages");
    client.join().expect("all answers were right");

    let server = Server::new();
    ask = b"\x02\x83\0\0\0\0abc\x80\x83\0\0\0\0def".to_vec();
    let client = self::client(server.port, HELLO, ask, b"\x82\x06abcdef".to_vec());
    assert_eq!(
        server.allocations_once_warm(),
        0,
        "for {COUNTED} messages in fragments"
    );
    client.join().expect("all answers were right");
}
