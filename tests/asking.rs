//! `net.request` and `net.websocket` from outside: TLS with certificates good and bad, the limits of
//! each phase, proxies of the environment, sockets in the file system, bodies of any size.
//!
//! - `asking/leaks.rs`  after every fault, many times over: nothing is left
//!
//! What scripts say and see in plain HTTP stands in the binding's own tests.

mod leaks;

use crate::harness::{Finished, Huki, folder, repository};
use crate::tls::certs::{Ca, Pair, params, self_signed};
use rcgen::date_time_ymd;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Gives the error of a call, without its place.
const FAILS: &str = r#"
local function fails(call, ...)
    local isWell, why = pcall(call, ...)
    return if isWell then "it went well" else (string.gsub(why, "^[^ ]+:%d+: ", ""))
end
"#;

/// Runs `script` to its end, behind `fails`.
#[track_caller]
fn run(script: &str) -> Finished {
    let finished = Huki::run_in(&folder("asking"), &format!("{FAILS}{script}")).finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    finished
}

/// The script's lines, where nothing is told on standard error.
#[track_caller]
fn lines(script: &str) -> Vec<String> {
    let finished = run(script);
    assert_eq!(finished.stderr, "");
    finished.stdout.lines().map(str::to_owned).collect()
}

/// `local server`, which speaks TLS with the certificate `pair`.
fn server(pair: &Pair, more: &str) -> String {
    format!(
        "local ports = {{}}
        local server = net.serve({{ port = 0, {more}
            tls = {{ cert = [[{}]], key = [[{}]] }},
            request = function(request) ports[request.port] = true return request.path end,
            websocket = {{ message = function(ws, message) ws:send(message) end }},
        }})
        local host = 'localhost:' .. server.port\n",
        pair.cert, pair.key
    )
}

#[test]
fn a_thousand_urls_by_64_coroutines_share_few_connections_over_tls() {
    let ca = Ca::new("authority");
    let script = format!(
        "{}
        local tls = {{ ca = [[{}]] }}
        local next, done, main = 0, 0, coroutine.running()
        for _ = 1, 64 do
            task.spawn(function()
                while next < 1000 do
                    next += 1
                    local path = `/{{next}}`
                    local options = {{ url = `https://{{host}}{{path}}`, tls = tls }}
                    assert(net.request(options).body == path)
                end
                done += 1
                if done == 64 then task.defer(main) end
            end)
        end
        coroutine.yield()
        local connections = 0
        for _ in ports do connections += 1 end
        print(connections <= 64)
        server:stop()",
        server(&ca.issue(&["localhost"]), ""),
        ca.pem(),
    );
    assert_eq!(lines(&script), ["true"]);
}

#[test]
fn trust_is_what_the_script_says_it_is() {
    let (ca, stranger) = (Ca::new("authority"), Ca::new("stranger"));
    let alice = ca.issue(&["alice"]);
    let script = format!(
        "{}
        local trusted = [[{}]]
        local function ask(tls)
            local isWell, response = pcall(net.request, {{ url = `https://{{host}}/well`, tls = tls }})
            print(if isWell then response.body else (string.gsub(response, '^[^ ]+:%d+: ', '')))
        end
        ask({{ ca = trusted }})
        ask(nil)
        ask({{ ca = [[{}]] }})
        ask({{ ca = trusted, serverName = 'other.example' }})
        ask({{ ca = trusted, cert = [[{}]], key = [[{}]] }})
        local ws = net.websocket(`wss://{{host}}`, {{ tls = {{ ca = trusted }} }})
        ws:send('over tls')
        print(ws:next())
        ws:close()
        print(fails(net.websocket, `wss://{{host}}`))
        server:stop()",
        server(&ca.issue(&["localhost"]), ""),
        ca.pem(),
        stranger.pem(),
        alice.cert,
        alice.key,
    );
    let told = lines(&script);
    assert_eq!(told[0], "/well");
    for stranger in [&told[1], &told[2], &told[6]] {
        let words = ": tls failed: TLS with localhost failed: ";
        assert!(stranger.contains(words), "{stranger}");
        assert!(stranger.contains("not issued by anyone trusted here"));
    }
    assert!(told[3].contains("net.request: tls failed: "), "{}", told[3]);
    assert!(told[3].contains("other.example"), "{}", told[3]);
    assert_eq!(told[4..6], ["/well", "over tls"]);
}

#[test]
fn a_bad_certificate_is_refused_and_believing_it_is_warned_of() {
    let ca = Ca::new("authority");
    let mut expired = params(&["localhost"]);
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let expired = ca.sign(&expired);
    let wrong = ca.issue(&["elsewhere.example"]);
    let own = self_signed(&["localhost"]);
    for (pair, trusted, words) in [
        (&expired, ca.pem(), "expired"),
        (&wrong, ca.pem(), "elsewhere.example"),
        (&own, ca.pem(), "not issued by anyone trusted here"),
        // A certificate that is given is trusted itself.
        (&own, own.cert.clone(), "it went well"),
    ] {
        let script = format!(
            "{}
            local url = `https://{{host}}/x`
            print(fails(net.request, {{ url = url, tls = {{ ca = [[{trusted}]] }} }}))
            for _ = 1, 2 do
                print(net.request({{ url = url, tls = {{ insecureSkipVerify = true }} }}).body)
            end
            server:stop()",
            server(pair, "")
        );
        let finished = run(&script);
        let told: Vec<&str> = finished.stdout.lines().collect();
        assert!(told[0].contains(words), "{} instead of {words}", told[0]);
        assert_eq!(told[1..], ["/x", "/x"]);
        let warnings = finished.stderr.matches("insecureSkipVerify").count();
        assert_eq!(warnings, 1, "{}", finished.stderr);
    }
}

/// A listener whose queue is full: who connects now hears nothing.
fn full() -> (TcpListener, Vec<TcpStream>, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("sockets can be made");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(1).expect("it can listen");
    let listener = TcpListener::from(socket);
    let at = listener.local_addr().expect("it has one");
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (listener, queued, at.port())
}

#[test]
fn each_phase_that_takes_too_long_is_named() {
    // It accepts by itself, reads, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it has one").port();
    let (_listener, _queued, full) = full();
    let script = format!(
        "local url = '//127.0.0.1:{port}/'
        print(fails(net.request, {{ url = 'http:' .. url, timeout = 0.3 }}))
        print(fails(net.request, {{ url = 'https:' .. url, connectTimeout = 0.3 }}))
        print(fails(net.request, {{ url = 'https:' .. url, timeout = 0.3 }}))
        print(fails(net.request, {{ url = 'https://x.test', proxy = '127.0.0.1:{port}', connectTimeout = 0.3 }}))
        print(fails(net.websocket, 'ws:' .. url, {{ timeout = 0.3 }}))
        print(fails(net.request, {{ url = 'http://127.0.0.1:{full}', connectTimeout = 0.3 }}))
        local stalls = net.serve(0, function()
            return {{ body = function(stream) stream:write('x') while not stream:closed() do task.wait(0.01) end end }}
        end)
        local response = net.request({{ url = `http://127.0.0.1:{{stalls.port}}/`, stream = true, timeout = 2 }})
        assert(response:read() == 'x')
        print(fails(response.read, response))
        stalls:stop(0)"
    );
    let told = lines(&script);
    let expected = [
        "net.request: timed out (total): the request to 127.0.0.1 was not done within 0.3 s",
        "net.request: timed out (tls): the TLS handshake with 127.0.0.1 was not done within 0.3 s",
        "net.request: timed out (total): the request to 127.0.0.1 was not done within 0.3 s",
        "net.request: timed out (proxy): the proxy made no connection to x.test within 0.3 s",
        "net.websocket: timed out (total): the request to 127.0.0.1 was not done within 0.3 s",
        "net.request: timed out (connect): no connection to 127.0.0.1 within 0.3 s",
        "response:read: timed out (body): the response of 127.0.0.1 stalled for 2 s",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_stream_is_open_in_time_or_says_what_took_too_long() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("it has one").port();
    let (_listener, _queued, full) = full();
    let script = format!(
        "print(fails(net.connect, {{ host = '127.0.0.1', port = {port}, tls = true, timeout = 0.3 }}))
        print(fails(net.connect, {{ host = '127.0.0.1', port = {full}, timeout = 0.3 }}))"
    );
    assert_eq!(
        lines(&script),
        [
            format!("net.connect: 127.0.0.1:{port}: timed out in the TLS handshake"),
            format!("net.connect: 127.0.0.1:{full}: timed out"),
        ]
    );
}

#[test]
fn a_host_that_can_be_none_is_refused_by_its_name() {
    let told = lines(
        r"for _, host in { 'a\0.test', 'a b', 'a\n.test' } do
            print(fails(net.connect, { host = host, port = 80 }))
            print(fails(net.resolve, host))
            print(fails(net.request, `http://{host}/`))
            print(fails(net.websocket, `ws://{host}/`))
        end
        print(fails(net.connect, { host = 'unix:/a\0b' }))",
    );
    for (line, host) in told.chunks(4).zip([r"a\0.test", "a b", r"a\n.test"]) {
        let none = "the host is neither a name nor an address";
        let refused = match host.contains(r"\0") {
            // No option is a string with one, whatever it means.
            true => {
                "option 'host' must be a string without NUL bytes, not the string \"a\\x00.test\""
                    .to_owned()
            }
            false => format!("{none}: \"{host}\""),
        };
        assert_eq!(line[0], format!("net.connect: {refused}"));
        assert_eq!(line[1], format!("net.resolve: {none}: \"{host}\""));
        for (line, function) in line[2..].iter().zip(["net.request", "net.websocket"]) {
            assert!(line.starts_with(function), "{line}");
            let words = [
                "its host is neither a name nor an address",
                "it has a control character",
            ];
            assert!(words.iter().any(|words| line.contains(words)), "{line}");
        }
    }
    assert!(
        told[12].contains("must be a string without NUL bytes"),
        "{}",
        told[12]
    );
}

#[test]
fn the_environment_names_proxies_and_a_script_may_do_without() {
    let ask = "
        local server = net.serve(0, function(request) return `direct {request.target}` end)
        local own = `http://127.0.0.1:{server.port}/own`
        print(net.request('http://x.test/a?b').body)
        print(net.request({ url = own, proxy = false }).body)
        print(string.match(net.request(own).body, '%a+'))
        server:stop()";
    let proxy = Huki::serve(
        "local server = net.serve(0, function(request)
            return `proxied {request.target} {request.headers.host} {request.headers['proxy-authorization']}`
        end)
        print(`port {server.port}`)",
    );
    let at = format!("http://me:pw@127.0.0.1:{}", proxy.port);
    let run = |variables: &[(&str, &str)]| {
        let folder = folder("proxied");
        Huki::run_with(&folder, &format!("{FAILS}{ask}"), variables).finish()
    };
    for (exempt, word) in [("", "proxied"), ("127.0.0.1", "direct")] {
        let finished = run(&[("HTTP_PROXY", &at), ("NO_PROXY", exempt)]);
        let told: Vec<&str> = finished.stdout.lines().collect();
        let proxied = "proxied http://x.test/a?b x.test Basic bWU6cHc=";
        assert_eq!(told, [proxied, "direct /own", word], "{}", finished.stderr);
    }
    let tunnel = "
        print(fails(net.request, 'https://x.test/'))
        print(fails(net.websocket, 'wss://x.test/'))";
    let place = folder("tunnelled");
    let finished = Huki::run_with(&place, &format!("{FAILS}{tunnel}"), &[("HTTPS_PROXY", &at)]);
    let refused = "the proxy does not make the connection: ";
    let told = finished.finish().stdout;
    assert_eq!(told.matches(refused).count(), 2, "{told}");
    let finished = run(&[("http_proxy", "socks5://x")]);
    let words = "net.request: http_proxy is no URL of a proxy: only http:// proxies are spoken to";
    assert!(finished.stderr.contains(words), "{}", finished.stderr);
}

#[test]
fn sockets_in_the_file_system_are_asked_like_any_other() {
    let path = folder("unix").join("s");
    let path = path.to_str().expect("paths are UTF-8");
    let script = format!(
        "local path = [[{path}]]
        local server = net.serve({{ address = 'unix:' .. path,
            request = function(request) return `{{request.headers.host}} {{request.target}}` end,
            websocket = {{ message = function(ws, message) ws:send(message) end }} }})
        print(net.request(`unix:{{path}}:/a?b`).body)
        print(net.request(`unix:{{path}}`).body)
        print(net.request(`http+unix://{{net.urlEncode(path)}}/c`).body)
        local ws = net.websocket(`unix:{{path}}:/`)
        ws:send('hello')
        print(ws:next())
        ws:close()
        server:stop()"
    );
    assert_eq!(
        lines(&script),
        ["localhost /a?b", "localhost /", "localhost /c", "hello"]
    );
}

/// Bytes of the bodies that pass through the proxy.
const BODY: usize = 100 << 20;
/// What the proxy's memory may grow by meanwhile.
const GROWTH_KIB: u64 = 16 << 10;

#[test]
fn a_proxy_passes_bodies_of_any_size_in_bounded_memory() {
    let upstream = Huki::serve(
        "local piece = string.rep('x', 65536)
        local server = net.serve({ port = 0, streamBody = true, request = function(request)
            local bytes = 0
            for piece in function() return request:read() end do bytes += #piece end
            if request.method == 'PUT' then return tostring(bytes) end
            return { body = function(stream)
                for _ = 1, tonumber(request.query.pieces) do
                    if not stream:write(piece) then return end
                end
            end }
        end })
        print(`port {server.port}`)",
    );
    let to = format!("http://127.0.0.1:{}", upstream.port);
    let example = repository().join("luau-binding/examples/proxy.luau");
    let proxy = Huki::serve_file(&example, &["0", &to]);
    let mut down = TcpStream::connect(("127.0.0.1", proxy.port)).expect("it listens");
    // As much as buffers hold, so that what grows behind it is a leak.
    let pieces = BODY / 65_536;
    let get = format!("GET /?pieces={pieces} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    down.write_all(get.as_bytes()).expect("it reads");
    let mut buffer = vec![0; 1 << 20];
    let (mut read, mut base, mut peak) = (0, None, 0);
    loop {
        let count = down.read(&mut buffer).expect("it goes on");
        read += count;
        if count == 0 {
            break;
        }
        if read > 4 << 20 {
            let resident = proxy.resident_kib();
            base = base.or(resident);
            peak = peak.max(resident.unwrap_or(0));
        }
    }
    assert!(read > BODY, "{read} bytes came");
    let mut up = TcpStream::connect(("127.0.0.1", proxy.port)).expect("it listens");
    let put =
        format!("PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {BODY}\r\n\r\n");
    up.write_all(put.as_bytes()).expect("it reads");
    for _ in 0..BODY / buffer.len() {
        up.write_all(&buffer).expect("it reads");
        peak = peak.max(proxy.resident_kib().unwrap_or(0));
    }
    let mut answer = String::new();
    up.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with(&format!("\r\n\r\n{BODY}")), "{answer}");
    // Where the system tells nothing of memory, that all came is what is tested.
    let growth = base.map_or(0, |base| peak.saturating_sub(base));
    assert!(growth < GROWTH_KIB, "it grew by {growth} KiB");
}
