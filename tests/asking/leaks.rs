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
}
local threads = setmetatable({}, { __mode = "k" })
local function left()
    local count = 0
    for thread in threads do count += 1 end
    return count
end
local function askAll()
    local told, going, main = {}, 0, coroutine.running()
    for index, options in faults do
        for _ = 1, 5 do
            going += 1
            threads[task.spawn(function()
                local why = fails(net.request, options)
                assert(told[index] == nil or told[index] == why, why)
                told[index] = why
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

/// After so many answers nothing is on its way any more, however busy the machine.
const TURNS_MAX: usize = 50_000;

/// Reads a head, and does what its path says; whoever does not speak HTTP hears nothing.
fn misbehave(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let ok = "HTTP/1.1 200 OK\r\n";
    match head.split(' ').nth(1).unwrap_or_default() {
        "/reset" => {
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
            return Ok(());
        }
        "/short" => write!(stream, "{ok}Content-Length: 9\r\n\r\nhalf")?,
        "/head" => write!(stream, "{ok}X: {}", "x".repeat(100_000))?,
        "/garbage" => write!(stream, "220 mail.example ESMTP\r\n\r\n")?,
        "/large" => write!(stream, "{ok}Content-Length: 999\r\n\r\n")?,
        "/bomb" => {
            let bomb = include_bytes!("../../core/testdata/codings/zeros.zst");
            let len = bomb.len();
            write!(
                stream,
                "{ok}Content-Encoding: zstd\r\nContent-Length: {len}\r\n\r\n"
            )?;
            stream.write_all(bomb)?;
        }
        "/loop" => {
            let found = "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n";
            write!(stream, "{found}Connection: close\r\n\r\n")?;
        }
        "/silence" => {
            // Until the client has left.
            while stream.read(&mut byte)? > 0 {}
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn after_every_fault_no_socket_and_no_coroutine_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let evil = listener.local_addr().expect("it has one").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // What a client that has left does not hear is no concern of its server.
            thread::spawn(move || misbehave(stream));
        }
    });
    // Bound and not listening: nobody else can have it, and nobody answers there.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("sockets can be made");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let refused = socket.local_addr().expect("it has one");
    let refused = refused.as_socket().expect("an IP address").port();

    let (pair, other) = (self_signed(&["localhost"]), self_signed(&["other.test"]));
    let script = SCRIPT
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
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, words) in told.iter().zip(expected) {
        assert!(line.contains(words), "{line} instead of {words}");
    }
}
