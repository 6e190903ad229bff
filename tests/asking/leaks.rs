//! After every fault, many times over: no socket and no coroutine is left.
//!
//! A script asks a server that misbehaves by the path it is asked for; sockets are counted by the
//! system, coroutines by a weak table.
//!
//! Not here: names that are not resolved, as no test asks the world (`client_face/faults.rs`).

use super::FAILS;
use crate::harness::{Huki, PATIENCE};
use crate::tls::certs::self_signed;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Asks for everything that fails, five of each at once, when it is asked for `/faults`; tells how
/// many coroutines of that are left when it is asked for `/left`.
const SCRIPT: &str = r#"
local evil, refused = "//127.0.0.1:EVIL", "//127.0.0.1:REFUSED"
local secure = net.serve({ port = 0, tls = { cert = [[CERT]], key = [[KEY]] }, request = function() return "x" end })
local faults = {
    { url = "http:" .. refused },
    { url = "http:" .. evil .. "/leave" },
    { url = "http:" .. evil .. "/reset" },
    { url = "http:" .. evil .. "/short" },
    { url = "http:" .. evil .. "/head" },
    { url = "http:" .. evil .. "/garbage" },
    { url = "http:" .. evil .. "/large", maxBodyBytes = 10 },
    { url = "http:" .. evil .. "/bomb", maxBodyBytes = 100000 },
    { url = "http:" .. evil .. "/loop", redirects = 3 },
    { url = "http:" .. evil .. "/silence", timeout = 0.2 },
    { url = "https:" .. evil .. "/", connectTimeout = 0.2 },
    { url = `https://localhost:{secure.port}/`, tls = { ca = [[OTHER]] } },
    { url = `https://127.0.0.1:{secure.port}/`, tls = { ca = [[CERT]] } },
    { url = "http:" .. evil .. "/reset-head" },
    { url = "http:" .. evil .. "/reset-body" },
}
for _, path in { "leave", "truncate", "reset", "reset-head", "short", "reset-body", "endless" } do
    table.insert(faults, { url = `https://localhost:SECURE/{path}`, tls = { ca = [[CERT]] } })
end
for _, path in { "silence", "silence-head", "silence-body" } do
    -- The last one is over when the head has come, however busy the machine.
    local timeout = if path == "silence-body" then 6 else 0.4
    table.insert(faults, { url = `https://localhost:SECURE/{path}`, tls = { ca = [[CERT]] }, stream = true, timeout = timeout, reads = true })
end
local threads = setmetatable({}, { __mode = "k" })
local function left()
    local count = 0
    for thread in threads do count += 1 end
    return count
end
local function ask(options)
    if not options.reads then return net.request(options) end
    local bare = table.clone(options)
    bare.reads = nil
    local response = net.request(bare)
    while response:read() do end
    return response
end
local function askAll()
    local told, going, main = {}, 0, coroutine.running()
    for index, options in faults do
        for _ = 1, 5 do
            going += 1
            threads[task.spawn(function()
                local why = fails(ask, options)
                -- Each of the five is told the same.
                told[index] = if told[index] == nil or told[index] == why then why else `{told[index]}; or {why}`
                going -= 1
                if going == 0 then task.spawn(main) end
            end)] = true
        end
    end
    assert(left() == going, "each of them waits")
    coroutine.yield()
    return table.concat(told, "\n")
end
local server = net.serve(0, function(request)
    if request.path == "/faults" then return askAll() end
    collectgarbage("collect")
    return tostring(left())
end)
print(`port {server.port}`)
"#;

/// A reset behind half a response: it may take from the client what had come and was not read yet, so that
/// this is a reset without a response as often. Where no system stands between, `client_face` tells them apart.
const RESET_PLAIN: &str = "127.0.0.1 reset the connection ";
const RESET_SECURE: &str = "localhost reset the connection ";

/// After so many answers nothing is on its way any more, however busy the machine.
const TURNS_MAX: usize = 50_000;

/// What is left to do below TLS, when a path has said what to say.
enum Last {
    /// Ends it as the protocol wants it.
    Leave,
    /// Ends TCP and says nothing of TLS.
    Truncate,
    /// Resets the connection.
    Reset,
    /// Waits for the client to leave.
    Wait,
}

/// Serves one connection; `config` if over TLS.
fn serve(stream: TcpStream, config: Option<Arc<rustls::ServerConfig>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (last, mut socket) = match config {
        None => {
            let mut stream = stream;
            (misbehave(&mut stream)?, stream)
        }
        Some(config) => {
            let session = rustls::ServerConnection::new(config);
            let session = session.map_err(std::io::Error::other)?;
            let mut stream = rustls::StreamOwned::new(session, stream);
            let last = misbehave(&mut stream)?;
            if matches!(last, Last::Leave) {
                stream.conn.send_close_notify();
            }
            stream.flush()?;
            (last, stream.sock)
        }
    };
    match last {
        Last::Leave => Ok(()),
        Last::Truncate => {
            socket.shutdown(std::net::Shutdown::Write)?;
            // Until the client has left: what it still says would make the system reset.
            std::io::copy(&mut socket, &mut std::io::sink()).map(drop)
        }
        Last::Reset => {
            let linger = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&socket).set_linger(linger)
        }
        Last::Wait => std::io::copy(&mut socket, &mut std::io::sink()).map(drop),
    }
}

/// Reads a head, and says what its path wants; whoever does not speak HTTP hears nothing.
fn misbehave(stream: &mut (impl Read + Write)) -> std::io::Result<Last> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(Last::Leave);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let ok = "HTTP/1.1 200 OK\r\n";
    let half_a_body = format!("{ok}Content-Length: 9\r\n\r\nhalf");
    let (words, last) = match head.split(' ').nth(1).unwrap_or_default() {
        "/truncate" => ("", Last::Truncate),
        "/reset" => ("", Last::Reset),
        "/reset-head" => ("HTTP/1.1 200 OK\r\nConte", Last::Reset),
        "/reset-body" => (&*half_a_body, Last::Reset),
        "/short" => (&*half_a_body, Last::Truncate),
        // The end of TCP would be the end of it, if TLS did not want its own.
        "/endless" => ("HTTP/1.1 200 OK\r\n\r\nhalf", Last::Truncate),
        "/silence" => ("", Last::Wait),
        "/silence-head" => ("HTTP/1.1 200 OK\r\nConte", Last::Wait),
        "/silence-body" => (&*half_a_body, Last::Wait),
        "/garbage" => ("220 mail.example ESMTP\r\n\r\n", Last::Leave),
        "/large" => (
            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
            Last::Leave,
        ),
        "/head" => {
            write!(stream, "{ok}X: {}", "x".repeat(100_000))?;
            ("", Last::Leave)
        }
        "/bomb" => {
            let bomb = include_bytes!("../../core/testdata/codings/zeros.zst");
            let coding = "Content-Encoding: zstd";
            write!(
                stream,
                "{ok}{coding}\r\nContent-Length: {}\r\n\r\n",
                bomb.len()
            )?;
            stream.write_all(bomb)?;
            ("", Last::Leave)
        }
        "/loop" => {
            let found = "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n";
            write!(stream, "{found}Connection: close\r\n\r\n")?;
            ("", Last::Leave)
        }
        _ => ("", Last::Leave),
    };
    stream.write_all(words.as_bytes())?;
    stream.flush()?;
    Ok(last)
}

/// Listens, serves whoever comes, and tells the port.
fn listen(config: Option<Arc<rustls::ServerConfig>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has one").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            // What a client that has left does not hear is no concern of its server.
            thread::spawn(move || serve(stream, config));
        }
    });
    port
}

#[test]
fn after_every_fault_no_socket_and_no_coroutine_is_left() {
    let (pair, other) = (self_signed(&["localhost"]), self_signed(&["other.test"]));
    let (evil, secure) = (listen(None), listen(Some(pair.rustls())));
    // Bound and not listening: nobody else can have it, and nobody answers there.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("sockets can be made");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let refused = socket.local_addr().expect("it has one");
    let refused = refused.as_socket().expect("an IP address").port();

    let script = SCRIPT
        .replace("SECURE", &secure.to_string())
        .replace("EVIL", &evil.to_string())
        .replace("REFUSED", &refused.to_string())
        .replace("CERT", &pair.cert)
        .replace("KEY", &pair.key)
        .replace("OTHER", &other.cert);
    let huki = Huki::serve(&format!("{FAILS}{script}"));
    let mut wire = huki.connect();
    assert_eq!(wire.get("/left").text(), "0");
    let before = huki.sockets();
    let mut told = Vec::new();
    for _ in 0..3 {
        let text = wire.get("/faults").text().to_owned();
        told = text.lines().map(str::to_owned).collect();
        // Each answer is a turn, in which what still has to leave may leave.
        let mut is_left = || (wire.get("/left").text(), huki.sockets()) != ("0", before);
        let turns = (0..TURNS_MAX).take_while(|_| is_left()).count();
        assert!(turns < TURNS_MAX, "something is left");
    }
    let own = format!("127.0.0.1:{refused}");
    let secure = "TLS with localhost failed: the certificate was not issued by anyone trusted here";
    let expected = [
        own.as_str(),
        "127.0.0.1 closed the connection without a response",
        "127.0.0.1 reset the connection without a response",
        "the response of 127.0.0.1 was cut short",
        "the head of the response of 127.0.0.1 is too large",
        "the response of 127.0.0.1 breaks a rule: ",
        "the response is larger than 10 bytes",
        "the content decodes to more than 100000 bytes",
        "a redirect loop: more than 3 redirects",
        "the request to 127.0.0.1 was not done within 0.2 s",
        "the TLS handshake with 127.0.0.1 was not done within 0.2 s",
        secure,
        "TLS with 127.0.0.1 failed: the certificate is for another name",
        "127.0.0.1 reset the connection without a response",
        RESET_PLAIN,
        "localhost closed the connection without a response",
        "localhost closed the connection without a response",
        "localhost reset the connection without a response",
        "localhost reset the connection without a response",
        "the response of localhost was cut short",
        RESET_SECURE,
        "the response of localhost was cut short",
        "the request to localhost was not done within 0.4 s",
        "the request to localhost was not done within 0.4 s",
        "the response of localhost stalled for 6 s",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, words) in told.iter().zip(expected) {
        assert!(line.contains(words), "{line} instead of {words}");
        let is_race = [RESET_PLAIN, RESET_SECURE].contains(&words);
        assert!(is_race || !line.contains("; or "), "{line}");
    }
}
