//! What Lune's surface asks of the native module that no program can wait for. Its programs are in
//! `tests/luau/lune`.

use crate::stub;

#[test]
fn rows_027_and_028_a_request_may_take_as_long_as_it_likes() {
    let asked = stub::values(
        "require('@lune/net').request('http://localhost')
        return asked.options.timeout, asked.options.connectTimeout, asked.options.maxBodyBytes",
    );
    assert_eq!(asked, [f64::INFINITY; 3]);
}

#[test]
fn row_064_a_head_has_thirty_seconds() {
    let asked = stub::values(
        "require('@lune/net').serve(0, print) return asked.options.limits.headTimeout",
    );
    assert_eq!(asked, [30.0]);
}

#[test]
fn row_113_a_time_to_live_reaches_the_socket_and_none_touches_it_not() {
    let given = stub::values(
        "require('@lune/net').tcp.connect('localhost', 1, { ttl = 7 }) return asked.ttl",
    );
    assert_eq!(given, [7.0]);
    let none = stub::values(
        "require('@lune/net').tcp.connect('localhost', 1, { tls = true }) return asked.ttl or -1",
    );
    assert_eq!(none, [-1.0]);
}

#[test]
fn row_085_a_message_may_have_64_mebibytes_on_either_side() {
    let bytes = stub::values(
        "local net = require('@lune/net')
        net.socket('ws://localhost')
        local ours = asked.options.maxMessageBytes
        net.serve(0, { handleWebSocket = print })
        return ours, asked.options.websocket.maxMessageBytes",
    );
    assert_eq!(bytes, [64.0 * 1024.0 * 1024.0; 2]);
}
