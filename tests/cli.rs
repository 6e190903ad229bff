//! The command line: what a person sees who mistypes, and what a supervisor sees who stops it.

use crate::harness::{Finished, Huki, folder, repository};
use rustix::process::Signal;
use std::net::TcpListener;

/// Runs `huki run` on `script`, which must fail: status 1, nothing on stdout.
#[track_caller]
fn fails(script: &str) -> Finished {
    let folder = folder("cli");
    let path = folder.join("broken.luau");
    std::fs::write(&path, script).expect("target is writable");
    let finished = Huki::run_to_end(&["run", path.to_str().expect("paths are UTF-8")]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    finished
}

/// Fails unless standard error is one line that has every one of `words`.
#[track_caller]
fn one_line(finished: &Finished, words: &[&str]) {
    assert_eq!(
        finished.stderr.lines().count(),
        1,
        "one line: {:?}",
        finished.stderr
    );
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{word:?} in {:?}",
            finished.stderr
        );
    }
}

#[test]
fn a_syntax_error_is_one_line_with_file_and_line() {
    one_line(&fails("local x = 1\nlocal y = = 2\n"), &["broken.luau:2:"]);
}

#[test]
fn a_missing_file_is_one_line_that_names_it() {
    let finished = Huki::run_to_end(&["run", "no/such/file.luau"]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    one_line(&finished, &["no/such/file.luau"]);
}

#[test]
fn a_port_in_use_is_one_line_with_file_line_and_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let script = format!(
        "local net = require(\"@huki/net\")\n\n\
         net.serve({{ port = {port}, request = function() return \"x\" end }})\n"
    );
    one_line(
        &fails(&script),
        &["broken.luau:3:", &format!("{port}"), "in use"],
    );
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_name() {
    let script = "local net = require(\"@huki/net\")\nnet.serve({ prot = 0, request = function() return \"x\" end })\n";
    one_line(&fails(script), &["broken.luau:2:", "prot", "port"]);
}

#[test]
fn an_error_at_the_top_of_a_script_says_where_and_ends_with_status_1() {
    let finished = fails("local function deep()\n    error(\"on purpose\")\nend\ndeep()\n");
    assert!(
        finished.stderr.contains("broken.luau:2: on purpose"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_module_that_does_not_exist_says_who_asked() {
    let finished = fails("\nlocal x = require(\"./nowhere\")\n");
    assert!(
        finished.stderr.contains("broken.luau:2"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("nowhere"), "{}", finished.stderr);
}

#[test]
fn modules_are_found_beside_the_script_and_by_alias() {
    let folder = folder("require");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
        std::fs::write(path, text).expect("target is writable");
    };
    write("beside.luau", "return { word = 'beside' }");
    write("shared/tool.luau", "return { word = 'aliased' }");
    write(".luaurc", r#"{ "aliases": { "Shared": "./shared" } }"#);
    let huki = Huki::run_in(
        &folder,
        "print(require('./beside').word, require('@shared/tool').word, require('./beside') == require('./beside'))",
    );
    let finished = huki.finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(finished.stdout, "beside\taliased\ttrue\n");
}

#[test]
fn a_script_that_serves_nothing_ends_when_it_is_done() {
    let huki = Huki::run_in(
        &folder("done"),
        "task.delay(0.05, function() print('later') end) print('now')",
    );
    let finished = huki.finish();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(finished.stdout, "now\nlater\n");
}

#[test]
fn arguments_reach_the_script() {
    let folder = folder("arguments");
    let path = folder.join("main.luau");
    let script = "local process = require('@huki/process') print(#process.args, process.args[1], process.args[2])";
    std::fs::write(&path, script).expect("target is writable");
    let path = path.to_str().expect("paths are UTF-8");
    let finished = Huki::run_to_end(&["run", path, "one", "--two"]);
    assert_eq!(finished.stdout, "2\tone\t--two\n", "{}", finished.stderr);
}

#[test]
fn version_and_help_answer_and_nonsense_is_refused() {
    let version = Huki::run_to_end(&["--version"]);
    assert!(
        version.status.success() && version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.stdout
    );
    assert!(version.stdout.contains("Luau"), "{}", version.stdout);
    let help = Huki::run_to_end(&["--help"]);
    assert!(
        help.status.success() && help.stdout.contains("huki run"),
        "{}",
        help.stdout
    );
    let nonsense = Huki::run_to_end(&["frobnicate"]);
    assert!(
        !nonsense.status.success() && nonsense.stderr.contains("frobnicate"),
        "{}",
        nonsense.stderr
    );
}

#[test]
fn sigterm_and_sigint_finish_what_was_begun_and_end_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut huki = Huki::serve(
            r#"
            local server = net.serve({
                port = 0,
                request = function() print("begun") task.wait(0.3) return "finished" end,
            })
            print(`port {server.port}`)
            "#,
        );
        let mut wire = huki.connect();
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut idle = huki.connect();
        huki.expect_stdout("begun");
        huki.signal(signal);
        let reply = wire.reply();
        assert_eq!(
            (reply.text(), reply.field("connection")),
            ("finished", Some("close"))
        );
        wire.expect_end();
        idle.expect_end();
        let finished = huki.finish();
        assert_eq!(
            finished.status.code(),
            Some(0),
            "{signal:?}: {}",
            finished.stderr
        );
    }
}

#[test]
fn the_examples_run_as_they_stand() {
    let folder = repository().join("luau-binding/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the examples are there") {
        let path = entry.expect("readable").path();
        // What forwards needs a place to forward to, and bots an arena; other tests give them one.
        let is_alone = path
            .file_stem()
            .is_some_and(|stem| stem != "forward" && stem != "bots");
        let is_script = path
            .extension()
            .is_some_and(|extension| extension == "luau");
        if is_script && is_alone {
            seen += 1;
            let huki = Huki::serve_file(&path, &["0"]);
            assert!(huki.connect().get("/").status < 500, "{path:?}");
            huki.signal(Signal::TERM);
            assert!(huki.finish().status.success(), "{path:?}");
        }
    }
    assert!(seen >= 3, "chat, echo and rest are among the examples");
}
