//! Real sockets on loopback, against blocking peers of the standard library.

use super::{MioNet, MioSocket};
use crate::transport::{Endpoint, Net, Peer, Ready};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LISTENER: u64 = 1;
const CONN: u64 = 7 << 32 | 3;

/// Longer than any event takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Polls until an event for `token` satisfies `wanted`; other events pass by, as edges may be
/// spurious or come piecemeal.
#[track_caller]
fn wait(net: &mut MioNet, token: u64, wanted: impl Fn(&Ready) -> bool) -> Ready {
    let mut ready = Vec::new();
    let give_up_at = net.now() + PATIENCE;
    while net.now() < give_up_at {
        net.poll(&mut ready, Some(PATIENCE)).unwrap();
        if let Some(event) = ready.iter().find(|it| it.token == token && wanted(it)) {
            return *event;
        }
    }
    panic!("no such event for token {token}");
}

fn loopback() -> Endpoint {
    Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn address(endpoint: Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Ip(address) => address,
        Endpoint::Unix(path) => panic!("{} has no address", path.display()),
    }
}

/// A net, a registered socket of it, and the peer's end.
fn connected() -> (MioNet, MioSocket, TcpStream) {
    let mut net = MioNet::new().unwrap();
    let mut listener = net.listen(&loopback(), LISTENER).unwrap();
    let client = TcpStream::connect(address(net.local_endpoint(&listener).unwrap())).unwrap();
    wait(&mut net, LISTENER, |event| event.readable);
    let (mut socket, peer) = net.accept(&mut listener).unwrap();
    assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
    let none = net.accept(&mut listener).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    net.register(&mut socket, CONN).unwrap();
    net.close_listener(listener);
    (net, socket, client)
}

fn read(net: &mut MioNet, socket: &mut MioSocket) -> Result<Vec<u8>, ErrorKind> {
    let mut into = [0; 64];
    let count = net.read(socket, &mut into).map_err(|error| error.kind())?;
    Ok(into[..count].to_vec())
}

#[test]
fn bytes_are_announced_once_and_again_after_the_socket_was_drained() {
    let (mut net, mut socket, mut client) = connected();
    let is_readable = |event: &Ready| event.readable;
    assert_eq!(read(&mut net, &mut socket), Err(ErrorKind::WouldBlock));
    for message in [&b"one"[..], b"two", b"three"] {
        client.write_all(message).unwrap();
        let event = wait(&mut net, CONN, is_readable);
        assert!(!event.hung_up);
        assert_eq!(read(&mut net, &mut socket).as_deref(), Ok(message));
        if !MioNet::SHORT_READ_DRAINS {
            assert_eq!(read(&mut net, &mut socket), Err(ErrorKind::WouldBlock));
        }
    }
}

#[test]
fn a_peer_that_has_finished_hangs_up_and_can_still_be_written_to() {
    let (mut net, mut socket, mut client) = connected();
    client.write_all(b"last").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    wait(&mut net, CONN, |event| event.readable);
    assert_eq!(read(&mut net, &mut socket).as_deref(), Ok(&b"last"[..]));
    // The end comes with the bytes or behind them; either way a read finds it.
    let mut end = read(&mut net, &mut socket);
    if end == Err(ErrorKind::WouldBlock) {
        wait(&mut net, CONN, |event| event.readable);
        end = read(&mut net, &mut socket);
    }
    assert_eq!(end.as_deref(), Ok(&b""[..]));
    let slices = [IoSlice::new(b"fare"), IoSlice::new(b"well")];
    assert_eq!(net.write(&mut socket, &slices).unwrap(), 8);
    net.shutdown_write(&mut socket).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "farewell");
    net.close(socket, false);
}

#[test]
fn a_full_socket_blocks_and_announces_room() {
    let (mut net, mut socket, mut client) = connected();
    let chunk = vec![b'x'; 1 << 20];
    let mut written = 0;
    let blocked = loop {
        match net.write(&mut socket, &[IoSlice::new(&chunk)]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; written];
        client.read_exact(&mut received).map(|()| client)
    });
    wait(&mut net, CONN, |event| event.writable);
    assert!(net.write(&mut socket, &[IoSlice::new(b"more")]).is_ok());
    reader.join().unwrap().unwrap();
}

#[test]
fn an_aborted_connection_is_reset_and_a_closed_one_ends() {
    for (abort, want) in [(true, Err(ErrorKind::ConnectionReset)), (false, Ok(0))] {
        let (mut net, socket, mut client) = connected();
        net.close(socket, abort);
        let got = client.read(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(got, want, "abort: {abort}");
    }
}

#[test]
fn a_reset_is_reported_and_the_read_says_so() {
    let (mut net, mut socket, client) = connected();
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let event = wait(&mut net, CONN, |event| event.hung_up);
    assert!(event.readable && event.writable);
    assert_eq!(read(&mut net, &mut socket), Err(ErrorKind::ConnectionReset));
}

#[test]
fn accepted_and_dialled_sockets_send_without_delay() {
    let (mut net, socket, client) = connected();
    assert!(socket2::SockRef::from(tcp(&socket)).tcp_nodelay().unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Endpoint::Ip(listener.local_addr().unwrap());
    let dialled = net.connect(&to, CONN + 1).unwrap();
    assert!(tcp(&dialled).nodelay().unwrap());
    drop(client);
}

fn tcp(socket: &MioSocket) -> &mio::net::TcpStream {
    match &socket.0 {
        super::Stream::Tcp(stream) => stream,
        #[cfg(unix)]
        super::Stream::Unix(_) => panic!("not TCP"),
    }
}

#[test]
fn a_connect_tells_how_it_ended() {
    let mut net = MioNet::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut connect = |token, to| -> io::Result<()> {
        let socket = net.connect(&Endpoint::Ip(to), token)?;
        wait(&mut net, token, |event| event.writable || event.hung_up);
        net.connect_outcome(&socket)
    };
    assert!(connect(CONN, to).is_ok());
    drop(listener);
    let refused = connect(CONN + 1, to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_waker_ends_a_poll_from_any_thread_and_is_never_lost() {
    let mut net = MioNet::new().unwrap();
    let mut ready = vec![];
    for _ in 0..200 {
        let waker = net.waker();
        let thread = std::thread::spawn(move || waker.wake());
        // Waits for ever: only the waker can end it, whether it comes before or during.
        net.poll(&mut ready, None).unwrap();
        assert_eq!(ready, [], "the waker is no connection");
        thread.join().unwrap();
    }
    net.waker().wake_by_ref();
    net.waker().wake_by_ref();
    net.poll(&mut ready, None).unwrap();
    let before = net.now();
    net.poll(&mut ready, Some(Duration::from_millis(20)))
        .unwrap();
    assert!(
        net.now() >= before + Duration::from_millis(20),
        "two wakes count as one"
    );
}

#[test]
fn a_port_in_use_is_an_error_unless_it_is_shared() {
    let mut net = MioNet::new().unwrap();
    let listener = net.listen(&loopback(), LISTENER).unwrap();
    let taken = net.local_endpoint(&listener).unwrap();
    let refused = net.listen(&taken, LISTENER + 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    net.close_listener(listener);
    if cfg!(target_os = "linux") {
        net.set_reuse_port(true);
        let first = net.listen(&taken, LISTENER).unwrap();
        let second = net.listen(&taken, LISTENER + 1).unwrap();
        assert_eq!(
            net.local_endpoint(&first).unwrap(),
            net.local_endpoint(&second).unwrap()
        );
    }
}

#[test]
fn the_unspecified_ipv6_address_serves_ipv4_too() {
    let mut net = MioNet::new().unwrap();
    let any = Endpoint::Ip("[::]:0".parse().unwrap());
    let mut listener = match net.listen(&any, LISTENER) {
        Ok(listener) => listener,
        // A machine without IPv6 cannot bind it, and has nothing to show here.
        Err(error) => {
            assert!(matches!(error.raw_os_error(), Some(97 | 99)), "{error}");
            return;
        }
    };
    let port = address(net.local_endpoint(&listener).unwrap()).port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    wait(&mut net, LISTENER, |event| event.readable);
    assert!(net.accept(&mut listener).is_ok());
    drop(client);
}

#[cfg(unix)]
mod unix_sockets {
    use super::{CONN, LISTENER, MioNet, read, wait};
    use crate::transport::{Endpoint, Net, Peer};
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    /// A path of its own for each test, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("hukilau-{name}-{}.sock", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn endpoint(&self) -> Endpoint {
            Endpoint::Unix(self.0.clone())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // Most tests end with the file gone; this is for those that failed.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_socket_file_is_a_place_to_listen_and_goes_with_its_listener() {
        let scratch = Scratch::new("listen");
        let mut net = MioNet::new().unwrap();
        let mut listener = net.listen(&scratch.endpoint(), LISTENER).unwrap();
        assert_eq!(net.local_endpoint(&listener).unwrap(), scratch.endpoint());
        let mut client = UnixStream::connect(&scratch.0).unwrap();
        wait(&mut net, LISTENER, |event| event.readable);
        let (mut socket, peer) = net.accept(&mut listener).unwrap();
        assert_eq!(peer, Peer::Unix);
        net.register(&mut socket, CONN).unwrap();
        client.write_all(b"hello").unwrap();
        wait(&mut net, CONN, |event| event.readable);
        assert_eq!(read(&mut net, &mut socket).as_deref(), Ok(&b"hello"[..]));
        let dialled = net.connect(&scratch.endpoint(), CONN + 1).unwrap();
        wait(&mut net, CONN + 1, |event| event.writable);
        assert!(net.connect_outcome(&dialled).is_ok());
        net.close_listener(listener);
        assert!(!scratch.0.exists());
    }

    #[test]
    fn an_abandoned_socket_file_is_replaced_and_a_living_one_is_not() {
        let scratch = Scratch::new("abandoned");
        let mut net = MioNet::new().unwrap();
        let living = UnixListener::bind(&scratch.0).unwrap();
        let refused = net.listen(&scratch.endpoint(), LISTENER).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(scratch.0.exists());
        drop(living);
        assert!(scratch.0.exists(), "as a killed server leaves it");
        let listener = net.listen(&scratch.endpoint(), LISTENER).unwrap();
        assert!(UnixStream::connect(&scratch.0).is_ok());
        drop(listener);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let scratch = Scratch::new("plain");
        std::fs::write(&scratch.0, "precious").unwrap();
        let mut net = MioNet::new().unwrap();
        let refused = net.listen(&scratch.endpoint(), LISTENER).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&scratch.0).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_another_server_has_put_in_place_stays() {
        let scratch = Scratch::new("replaced");
        let mut net = MioNet::new().unwrap();
        let listener = net.listen(&scratch.endpoint(), LISTENER).unwrap();
        std::fs::remove_file(&scratch.0).unwrap();
        let other = UnixListener::bind(&scratch.0).unwrap();
        net.close_listener(listener);
        assert!(scratch.0.exists());
        drop(other);
    }
}
