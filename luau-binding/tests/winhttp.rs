//! What the Net API's surface asks of the native module that no program can wait for. Its programs are in
//! `tests/luau/winhttp`.

use crate::{stub, types};

/// The connect timeout and the one of each step of an answer that `call` asks for, in seconds. In a coroutine: elsewhere
/// the event loop would turn, and there is none.
#[track_caller]
fn timeouts(call: &str) -> Vec<f64> {
    stub::values(&format!(
        "local api = require('@huki/winhttp')
        coroutine.wrap(function() api.{call} end)()
        return asked.options.connectTimeout, asked.options.timeout"
    ))
}

#[test]
fn rows_027_028_and_096_each_phase_has_the_time_that_is_given() {
    for call in [
        "net_http_get('http://localhost', 1500)",
        "net_http_post('http://localhost', 'a/b', 'x', 1500)",
        "ws_connect('ws://localhost', 1500)",
    ] {
        // Sending and receiving are two of the phases.
        assert_eq!(timeouts(call), [1.5, 3.0], "{call}");
    }
}

#[test]
fn rows_027_028_and_096_nothing_zero_and_less_are_the_defaults() {
    for millis in ["nil", "0", "-5", "0/0"] {
        for call in [
            format!("net_http_get('http://localhost', {millis})"),
            format!("net_http_post('http://localhost', 'a/b', 'x', {millis})"),
            format!("ws_connect('ws://localhost', {millis})"),
        ] {
            // Sending and receiving, and the wait for the first byte.
            assert_eq!(timeouts(&call), [60.0, 90.0], "{call}");
        }
    }
}

#[test]
fn every_method_is_documented_and_every_documented_one_there() {
    let real = types::names_behind(
        include_str!("../src/surface/winhttp/net.luau"),
        "function methods.",
    );
    let (module, globals) = (
        include_str!("../types/winhttp/winhttp.luau"),
        include_str!("../types/winhttp/globals.d.luau"),
    );
    assert_eq!(types::fields(module, "NetWs"), real);
    assert_eq!(types::names_behind(globals, "\tfunction "), real);
    let functions = types::names_behind(globals, "declare function ");
    let read = format!(
        "local ws = ws_connect
        for _, name in {{ '{}' }} do print(`is: {{name}} {{typeof(require('@huki/winhttp')[name])}}`) end",
        functions.join("', '")
    );
    for (_, words) in types::printed(&read) {
        assert_eq!(words[1], "function", "{}", words[0]);
    }
    assert_eq!(functions, types::names_behind(module, "function winhttp."));
}
