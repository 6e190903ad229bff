//! Raw streams over TLS, and over socket files, as scripts see them: rustls at the other end where it
//! must misbehave, and otherwise both ends in one script.

use super::certs::{Ca, Pair};
use super::{Dialer, Stream};
use crate::harness::{Finished, Huki, folder};
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

/// Runs `script` with `CERT` and `CA` as text.
#[track_caller]
fn run(script: &str, ca: &Ca, pair: &Pair) -> Finished {
    Huki::run_in(&folder("raw"), &with_text(script, ca, pair)).finish()
}

fn with_text(script: &str, ca: &Ca, pair: &Pair) -> String {
    let cert = format!("[[{}{}]]", pair.cert, pair.key);
    let script = script.replace("CERT", &cert);
    script.replace("AUTHORITY", &format!("[[{}]]", ca.pem()))
}

#[track_caller]
fn expect_ok(finished: &Finished) {
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(finished.stderr, "");
    assert_eq!(finished.stdout, "ok\n");
}

fn dial(ca: &Ca, huki: &Huki) -> Stream {
    let name = "one.test".try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(Dialer::trusting(ca).config()), name);
    StreamOwned::new(session.expect("the settings agree"), huki.connect().stream)
}

/// Sends back what it receives once it has seen the end, and tells what that was.
const ECHO: &str = r#"
local listener = net.listen({
    tls = { cert = CERT },
    accept = function(stream)
        local pieces = {}
        local ok, why = pcall(function()
            for piece in function() return stream:read() end do
                table.insert(pieces, buffer.tostring(piece))
            end
        end)
        print(if ok then "end" else why)
        if ok then
            stream:write(table.concat(pieces))
            stream:finish()
        end
    end,
})
print(`port {listener.port}`)
"#;

#[test]
fn rfc8446_6_1_each_direction_ends_by_its_own_close_notify() {
    let ca = Ca::new("authority");
    let mut huki = Huki::serve(&with_text(ECHO, &ca, &ca.issue(&["one.test"])));
    let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut stream = dial(&ca, &huki);
    stream.write_all(&text).expect("it reads");
    stream.conn.send_close_notify();
    stream.flush().expect("it reads");
    let mut heard = Vec::new();
    // Fails if the end is not vouched for.
    stream.read_to_end(&mut heard).expect("it ends well");
    assert!(heard == text);
    huki.expect_stdout("end");
}

#[test]
fn an_end_without_close_notify_is_truncation() {
    let ca = Ca::new("authority");
    let mut huki = Huki::serve(&with_text(ECHO, &ca, &ca.issue(&["one.test"])));
    let mut stream = dial(&ca, &huki);
    stream.write_all(b"half of it").expect("it reads");
    stream.flush().expect("it reads");
    stream.sock.shutdown(Shutdown::Write).expect("it is open");
    huki.expect_stdout("stream:read: truncated");
}

#[test]
fn both_ends_in_scripts_speak_tls_from_the_start() {
    let ca = Ca::new("authority");
    let finished = run(
        r#"
        local listener = net.listen({ tls = { cert = CERT } })
        local function connect(tls)
            return net.connect({ host = "127.0.0.1", port = listener.port, tls = tls, timeout = 20 })
        end
        local text = string.rep("0123456789", 100_000)
        task.spawn(function()
            for stream in listener do
                task.spawn(function()
                    stream:write(text)
                    stream:finish()
                    local total = 0
                    for piece in function() return stream:read() end do
                        total += buffer.len(piece)
                    end
                    assert(total == #text, tostring(total))
                end)
            end
        end)
        local stream = connect({ ca = AUTHORITY, serverName = "one.test" })
        task.spawn(function()
            stream:write(text)
            stream:finish()
        end)
        local pieces = {}
        for piece in function() return stream:read() end do
            table.insert(pieces, buffer.tostring(piece))
        end
        assert(table.concat(pieces) == text)

        local function fails(words, tls)
            local ok, why = pcall(connect, tls)
            assert(not ok and string.find(why, words, 1, true), tostring(why))
            assert(string.find(why, "main.luau:%d+: net.connect: 127.0.0.1:%d+: TLS: "), why)
        end
        fails("not issued by anyone trusted here", true)
        fails("for another name", { ca = AUTHORITY, serverName = "two.test" })
        connect({ insecureSkipVerify = true }):close()
        listener:close()
        print("ok")
        "#,
        &ca,
        &ca.issue(&["one.test"]),
    );
    expect_ok(&finished);
}

#[test]
fn tls_may_begin_after_words_in_plain_text() {
    let ca = Ca::new("authority");
    let finished = run(
        r#"
        local listener = net.listen({
            accept = function(stream)
                stream:write("ready?\n")
                assert(buffer.tostring(stream:read()) == "STARTTLS\n")
                stream:write("go\n")
                stream:startTls({ server = { cert = CERT } })
                assert(buffer.tostring(stream:read()) == "secret")
                stream:write("well kept")
                stream:finish()
            end,
        })
        local stream = net.connect({ host = "localhost", port = listener.port })
        assert(buffer.tostring(stream:read()) == "ready?\n")
        stream:write("STARTTLS\n")
        assert(buffer.tostring(stream:read()) == "go\n")
        stream:startTls({ ca = AUTHORITY, serverName = "one.test" })
        stream:write("secret")
        assert(buffer.tostring(stream:read()) == "well kept")
        assert(stream:read() == nil)
        local ok, why = pcall(stream.startTls, stream)
        assert(not ok and string.find(why, "TLS has begun already", 1, true), tostring(why))
        stream:close()

        -- Words that came before TLS and were not read are nobody's.
        local hasty = net.listen({})
        local eager = net.connect({ host = "127.0.0.1", port = hasty.port })
        eager:write("injected")
        local accepted = hasty:accept()
        -- Until they are here, an option that there is not keeps TLS from beginning.
        while true do
            local ok, why = pcall(accepted.startTls, accepted, { server = { cert = CERT }, tls = 1 })
            assert(not ok)
            if string.find(why, "bytes came before TLS", 1, true) then
                break
            end
            assert(string.find(why, "unknown option 'tls'", 1, true), why)
            task.wait()
        end
        listener:close()
        hasty:close()
        print("ok")
        "#,
        &ca,
        &ca.issue(&["one.test"]),
    );
    expect_ok(&finished);
}

#[cfg(unix)]
#[test]
fn a_socket_file_carries_streams_too() {
    let place = folder("file");
    let script = r#"
        local address = "unix:sock"
        local listener = net.listen({
            address = address,
            accept = function(stream)
                assert(stream.remoteIp == nil and stream.localPort == nil)
                stream:write(stream:read())
                stream:close()
            end,
        })
        assert(listener.address == address and listener.port == 0)
        local stream = net.connect({ host = address })
        stream:write("by file")
        assert(buffer.tostring(stream:read()) == "by file" and stream:read() == nil)
        listener:close()
        print("ok")
    "#;
    let path = place.join("sock");
    let address = format!("unix:{}", path.display());
    let finished = Huki::run_in(&place, &script.replace("unix:sock", &address)).finish();
    expect_ok(&finished);
    assert!(!path.exists(), "its file has gone with it");
}
