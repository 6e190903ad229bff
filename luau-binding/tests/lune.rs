//! What Lune's surface asks of the native module that no program can wait for. Its programs are in
//! `tests/luau/lune`.

use crate::{stub, types};

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

/// The types of `@lune/net`.
const TYPES: &str = include_str!("../types/lune/net.luau");

#[test]
fn every_member_of_an_object_is_documented_and_every_documented_one_there() {
    let real = types::printed(
        "local net = require('@lune/net')
        local function told(name, object, ...)
            local names = { ... }
            for key in object do table.insert(names, key) end
            table.sort(names)
            print(`{name}: {table.concat(names, ' ')}`)
        end
        local handle = net.serve(0, {
            handleRequest = function(request) told('ServeRequest', request) return '' end,
            handleWebSocket = function() end,
        })
        told('ServeHandle', handle)
        told('FetchResponse', net.request(`http://127.0.0.1:{handle.port}`))
        local socket = net.socket(`ws://127.0.0.1:{handle.port}`)
        socket.close(3000)
        told('WebSocket', socket, if socket.closeCode == 3000 then 'closeCode' else nil)
        handle.stop()",
    );
    assert_eq!(real.len(), 4);
    for (name, members) in real {
        assert_eq!(types::fields(TYPES, &name), members, "{name}");
    }
}

#[test]
fn every_option_that_is_looked_at_is_documented_and_no_other() {
    let http = include_str!("../src/surface/lune/http.luau");
    let server = include_str!("../src/surface/lune/server.luau");
    let tcp = include_str!("../src/surface/lune/tcp.luau");
    let mut serve = types::names_behind(server, " config.");
    serve.extend(types::names_behind(server, "callback(config, \""));
    let mut stream = types::names_behind(tcp, "function methods.");
    let (_, list) = tcp.split_once("FIELDS = { ").expect("the list is there");
    let (list, _) = list.split_once('}').expect("it ends");
    stream.extend(
        list.split(" = true")
            .map(|name| name.trim_matches([',', ' '])),
    );
    stream.retain(|name| !name.is_empty());
    stream.sort_unstable();
    serve.extend(types::names_behind(server, "(config."));
    serve.sort_unstable();
    serve.dedup();
    for (name, real) in [
        ("FetchParams", types::names_behind(http, "config.")),
        ("FetchParamsOptions", types::names_behind(http, "options.")),
        ("ServeConfig", serve),
        ("TcpConfig", types::names_behind(tcp, "config.")),
        ("TcpStream", stream),
    ] {
        assert_eq!(types::fields(TYPES, name), real, "{name}");
    }
}

#[test]
fn every_function_of_the_modules_inside_is_documented_and_every_documented_one_there() {
    let script = format!(
        "local function told(net)
            local names = {{}}
            for _, part in {{ 'http', 'ws', 'tcp' }} do
                for name in net[part] do table.insert(names, `{{part}}.{{name}}`) end
            end
            table.sort(names)
            print(`net: {{table.concat(names, ' ')}}`)
        end
        told((function() {TYPES} end)())
        told(require('@lune/net'))"
    );
    let told = types::printed(&script);
    let expected = ["http.request", "http.serve", "tcp.connect", "ws.connect"];
    assert_eq!(told.len(), 2);
    for (_, names) in told {
        assert_eq!(names, expected);
    }
}
