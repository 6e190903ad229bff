//! The client over TLS on real sockets: certificates good and bad, reuse, a tunnel.

use super::url;
use crate::harness::PATIENCE;
use crate::tls::certs::{Ca, Pair, params};
use crate::tls::server::Server;
use hukilau_core::Reactor;
use hukilau_core::client::{
    Client, ClientConfig, ClientEvent, Proxy, ProxyChoice, RequestBody, RequestSpec,
};
use hukilau_core::limits::Limits;
use hukilau_core::reactor::inbox::Inbox;
use hukilau_core::transport::mio::MioNet;
use hukilau_core::transport::tls::{ClientCertificates, ClientTls, ClientTlsOptions};
use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A client and the loop it lives on.
struct Caller {
    reactor: Reactor,
    client: Client,
    inbox: Inbox,
}

impl Caller {
    fn new(options: &ClientTlsOptions) -> Self {
        let net = MioNet::new().expect("the system has a selector");
        let tls = ClientTls::new(options).expect("the settings agree");
        Self {
            reactor: Reactor::new(net, Limits::default()).expect("the limits agree"),
            client: Client::new(ClientConfig {
                tls: Some(Arc::new(tls)),
                ..ClientConfig::default()
            }),
            inbox: Inbox::new(),
        }
    }

    fn trusting(ca: &Ca) -> Self {
        Self::new(&trust(ca))
    }

    /// Status and length of the body, or what went wrong.
    fn ask(&mut self, mut spec: RequestSpec) -> String {
        spec.timeouts.total = Some(PATIENCE);
        if let Err(error) = self.client.request(&mut self.reactor, spec) {
            return error.to_string();
        }
        loop {
            self.turn();
            match self.client.next_event() {
                Some(ClientEvent::Response { response, body, .. }) => {
                    return format!("{} {}", response.status, body.len());
                }
                Some(ClientEvent::Failed { error, .. }) => return error.to_string(),
                _ => {}
            }
        }
    }

    fn turn(&mut self) {
        let wake_at = self.client.wake_at();
        let turned = self.reactor.turn(&mut self.inbox, wake_at);
        turned.expect("the selector works");
        for completion in self.inbox.completions() {
            assert!(self.client.offer(&mut self.reactor, &completion));
        }
        self.client.handle_time(&mut self.reactor);
    }

    /// Closes what rests; then nothing is left.
    fn finish(mut self) {
        self.client.close_resting(&mut self.reactor);
        // An alert may still be on its way to a peer.
        while self.reactor.connections() > 0 {
            self.turn();
        }
        assert_eq!(self.client.connections(), 0);
        self.inbox = Inbox::new();
        assert_eq!(self.reactor.buffers_taken(), 0);
    }
}

fn trust(ca: &Ca) -> ClientTlsOptions {
    ClientTlsOptions {
        system_roots: false,
        ca: Some(ca.pem().into_bytes()),
        ..ClientTlsOptions::default()
    }
}

fn get(host: &str, port: u16, path: &str) -> RequestSpec {
    RequestSpec::new(url(&format!("https://{host}:{port}{path}")))
}

fn server(pair: &Pair) -> Server {
    Server::new(&[pair], &ClientCertificates::Ignored)
}

#[test]
fn requests_over_tls_share_a_connection() {
    let ca = Ca::new("authority");
    let server = server(&ca.issue(&["localhost", "127.0.0.1"]));
    let mut caller = Caller::trusting(&ca);
    for len in [0, 5, 300_000] {
        let told = caller.ask(get("localhost", server.port, &format!("/bytes/{len}")));
        assert_eq!(told, format!("200 {len}"));
        assert_eq!(caller.client.connections(), 1);
    }
    let body = RequestBody::Whole(vec![b'x'; 200_000]);
    let told = caller.ask(RequestSpec {
        method: b"POST".to_vec(),
        body,
        ..get("localhost", server.port, "/")
    });
    assert_eq!(told, "200 200000");
    assert_eq!(caller.client.connections(), 1);
    // Another name of the same server is another origin.
    let told = caller.ask(get("127.0.0.1", server.port, "/bytes/5"));
    assert_eq!(told, "200 5");
    assert_eq!(caller.client.connections(), 2);
    caller.finish();
}

#[test]
fn each_fault_of_a_certificate_has_its_words() {
    let ca = Ca::new("authority");
    let mut stale = params(&["localhost"]);
    stale.not_before = rcgen::date_time_ymd(2001, 1, 1);
    stale.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let table = [
        (
            ca.issue(&["other.test"]),
            "the certificate is for another name",
        ),
        (ca.sign(&stale), "the certificate has expired"),
        (
            Ca::new("stranger").issue(&["localhost"]),
            "the certificate was not issued by anyone trusted here",
        ),
    ];
    for (pair, words) in table {
        let server = server(&pair);
        let mut caller = Caller::trusting(&ca);
        let told = caller.ask(get("localhost", server.port, "/bytes/1"));
        let want = format!("TLS with localhost failed: {words}");
        assert!(told.starts_with(&want), "{told}");
        caller.finish();
        // Who insists is heard.
        let mut careless = Caller::new(&ClientTlsOptions {
            insecure: true,
            ..trust(&ca)
        });
        assert_eq!(
            careless.ask(get("localhost", server.port, "/bytes/1")),
            "200 1"
        );
        careless.finish();
    }
}

#[test]
fn a_client_that_does_not_mind_the_name_minds_issuer_and_date() {
    let ca = Ca::new("authority");
    let mut stale = params(&["other.test"]);
    stale.not_before = rcgen::date_time_ymd(2001, 1, 1);
    stale.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let other = Ca::new("stranger").issue(&["other.test"]);
    let table = [
        (ca.issue(&["other.test"]), "200 1"),
        (
            ca.sign(&stale),
            "TLS with localhost failed: the certificate has expired",
        ),
        (
            other,
            "TLS with localhost failed: the certificate was not issued",
        ),
    ];
    for (pair, want) in table {
        let server = server(&pair);
        let mut caller = Caller::new(&ClientTlsOptions {
            server_name: Some(String::new()),
            ..trust(&ca)
        });
        let told = caller.ask(get("localhost", server.port, "/bytes/1"));
        assert!(told.starts_with(want), "{told}");
        caller.finish();
    }
}

#[test]
fn settings_of_one_request_are_not_lent_to_another() {
    let ca = Ca::new("authority");
    let server = server(&ca.issue(&["localhost"]));
    let mut caller = Caller::new(&ClientTlsOptions {
        system_roots: false,
        ca: Some(Ca::new("stranger").pem().into_bytes()),
        ..ClientTlsOptions::default()
    });
    let own = Arc::new(ClientTls::new(&trust(&ca)).expect("the settings agree"));
    let told = caller.ask(RequestSpec {
        tls: Some(own),
        ..get("localhost", server.port, "/bytes/1")
    });
    assert_eq!(told, "200 1");
    assert_eq!(caller.client.resting(), 1);
    let told = caller.ask(get("localhost", server.port, "/bytes/1"));
    assert!(told.contains("not issued by anyone trusted here"), "{told}");
    caller.finish();
}

/// A server for one response without a length, which takes leave of TLS or does not.
fn abrupt(pair: &Pair, takes_leave: bool) -> (u16, JoinHandle<()>) {
    let config = pair.rustls();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has one").port();
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody comes");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid timeout");
        let session = rustls::ServerConnection::new(config).expect("it agrees");
        let mut stream = BufReader::new(rustls::StreamOwned::new(session, stream));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).expect("a head comes"), 0);
        }
        let stream = stream.get_mut();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            .expect("it reads");
        if takes_leave {
            stream.conn.send_close_notify();
        }
        stream.flush().expect("it reads");
        stream.sock.shutdown(Shutdown::Write).expect("it is open");
        // Until the client has left: what it still says would make the system reset.
        let _ = copy(&mut stream.sock, &mut std::io::sink());
    });
    (port, thread)
}

#[test]
fn rfc9112_9_8_a_response_cut_short_is_not_taken_for_whole() {
    let ca = Ca::new("authority");
    let pair = ca.issue(&["localhost"]);
    for (takes_leave, want) in [
        (true, "200 4"),
        (false, "the response of localhost was cut short"),
    ] {
        let (port, thread) = abrupt(&pair, takes_leave);
        let mut caller = Caller::trusting(&ca);
        assert_eq!(caller.ask(get("localhost", port, "/")), want);
        caller.finish();
        thread.join().expect("it ends well");
    }
}

/// A proxy for one tunnel.
fn proxy() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has one").port();
    let thread = thread::spawn(move || {
        let (mut near, _) = listener.accept().expect("somebody comes");
        let mut reader = BufReader::new(near.try_clone().expect("a second handle"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = reader.read_line(&mut head).expect("a head");
            assert!(read > 0, "{head}");
        }
        let to = head.split(' ').nth(1).expect("an authority");
        let mut far = TcpStream::connect(to).expect("the server is there");
        let agreed = near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
        agreed.expect("it is there");
        let mut back = (
            far.try_clone().expect("a handle"),
            near.try_clone().expect("a handle"),
        );
        let backwards = thread::spawn(move || {
            // How the tunnel ends is not what is tested.
            drop(copy(&mut back.0, &mut back.1));
            drop(back.1.shutdown(Shutdown::Both));
        });
        drop(copy(&mut reader, &mut far));
        drop(far.shutdown(Shutdown::Both));
        backwards.join().expect("it ends");
        head
    });
    (port, thread)
}

#[test]
fn rfc9110_9_3_6_tls_goes_through_a_tunnel() {
    let ca = Ca::new("authority");
    let server = server(&ca.issue(&["localhost"]));
    let (port, thread) = proxy();
    let mut caller = Caller::trusting(&ca);
    let through = Proxy::parse(&format!("http://me:pw@127.0.0.1:{port}"), "proxy");
    let through = ProxyChoice::Through(through.expect("a good proxy"));
    for len in [7, 200_000] {
        let told = caller.ask(RequestSpec {
            proxy: through.clone(),
            ..get("localhost", server.port, &format!("/bytes/{len}"))
        });
        assert_eq!(told, format!("200 {len}"));
        assert_eq!(caller.client.connections(), 1);
    }
    caller.finish();
    let asked = thread.join().expect("it ends");
    let want = format!(
        "CONNECT localhost:{0} HTTP/1.1\r\nHost: localhost:{0}\r\n\
         Proxy-Authorization: Basic bWU6cHc=\r\n\r\n",
        server.port
    );
    assert_eq!(asked, want);
}
