//! Scripts of one dialect ask scripts of another: every client of every server, in processes of their
//! own.
//!
//! `tests/luau/interop/server_*.luau` print their port and serve; `client_*.luau` are given it, ask
//! by GET and by POST, talk by WebSocket, are told goodbye, and print `ok`.

use crate::support::{Served, huki};

const SERVERS: &[&str] = &["lune", "lute", "zune", "zcore", "huki"];
const CLIENTS: &[&str] = &["lune", "lute", "zune", "zcore", "winhttp", "huki"];

fn path(role: &str, dialect: &str) -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    format!("{folder}/tests/luau/interop/{role}_{dialect}.luau")
}

/// Runs each client against a server of `dialect`; what went wrong.
fn ask_all(dialect: &str) -> Vec<String> {
    let server = Served::of(huki(&["run", &path("server", dialect)]));
    let port = server.port.to_string();
    let clients = CLIENTS.iter().filter_map(|client| {
        let child = huki(&["run", &path("client", client), &port]);
        let output = child.wait_with_output().expect("huki ends");
        let is_right = output.status.success() && output.stdout == b"ok\n";
        let stderr = String::from_utf8_lossy(&output.stderr);
        (!is_right).then(|| format!("{client} asks {dialect}: {stderr}"))
    });
    clients.collect()
}

#[test]
fn clients_of_every_dialect_understand_servers_of_every_other() {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let servers: Vec<_> = SERVERS
            .iter()
            .map(|dialect| scope.spawn(|| ask_all(dialect)))
            .collect();
        let failed = servers.into_iter().map(|server| server.join());
        failed
            .flat_map(|failed| failed.expect("no panic"))
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_dialect_has_its_programs() {
    let folder = format!("{}/tests/luau/interop", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let count = entries.count();
    assert_eq!(count, SERVERS.len() + CLIENTS.len());
    for (name, _) in hukilau::Dialect::ALL {
        assert!(CLIENTS.contains(name), "{name}");
    }
}
