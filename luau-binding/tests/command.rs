//! The command line: what a script that cannot start, or fails, looks like.

use crate::support::{Served, huki, run};
use std::io::Write;
use std::net::TcpListener;
use std::process::Output;

#[track_caller]
fn check(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let shown = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert_eq!(
        (
            output.status.code(),
            shown(&output.stdout).as_str(),
            shown(&output.stderr).as_str()
        ),
        (Some(status), stdout, stderr)
    );
}

fn finish(args: &[&str]) -> Output {
    huki(args).wait_with_output().expect("huki ends")
}

#[test]
fn the_version_names_luau_too() {
    let output = finish(&["--version"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.starts_with("huki 0."), "{text}");
    assert!(text.contains("(Luau 0."), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

/// As `build.rs` promises: what the loader has to find decides how soon a script starts.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_program_needs_no_cpp_library_where_the_compiler_has_a_static_one() {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let has = |library: &str| {
        let mut asked = std::process::Command::new(&compiler);
        let answer = asked.arg(format!("-print-file-name={library}")).output();
        answer.is_ok_and(|answer| answer.stdout.starts_with(b"/"))
    };
    let mut ldd = std::process::Command::new("ldd");
    let needs = ldd.arg(env!("CARGO_BIN_EXE_huki")).output();
    let needs = String::from_utf8(needs.expect("glibc has it").stdout).expect("UTF-8");
    assert!(needs.contains("libc.so"), "{needs}");
    for shared in ["libstdc++", "libgcc_s"] {
        let is_linked_in = has("libstdc++.a") && has("libgcc_eh.a");
        assert_eq!(needs.contains(shared), !is_linked_in, "{needs}");
    }
}

/// Machine code made at run time lies in executable memory that no file is behind: a page of it there
/// is always, by which the VM would enter the rest.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn scripts_run_as_native_code_unless_that_is_turned_off() {
    let source = "local server = net.serve({ port = 0, request = function(request) return request.path end })";
    let [native, bytecode] = [&[][..], &["--no-codegen"]].map(|options| {
        let served = Served::start_with(options, source);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", served.id()));
        let maps = maps.expect("the process runs");
        // Range, rights, offset, device, inode, and a name if there is one.
        let made = maps.lines().filter_map(|line| {
            let parts: Vec<_> = line.split_whitespace().collect();
            let [range, "r-xp", _, _, _] = parts[..] else {
                return None;
            };
            let (start, end) = range.split_once('-')?;
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16));
            Some(end.ok()? - start.ok()?)
        });
        made.sum::<u64>()
    });
    assert!(native > bytecode, "{native} and {bytecode} bytes");
}

#[test]
fn help_goes_to_standard_output_and_wrong_use_to_standard_error() {
    let help = finish(&["--help"]);
    assert!(help.stdout.starts_with(b"An event-loop"));
    assert_eq!(help.status.code(), Some(0));
    for args in [&[][..], &["walk"], &["run"], &["--fast"]] {
        let output = finish(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(output.stderr.starts_with(b"huki: "), "{args:?}");
    }
}

#[test]
fn a_script_that_is_not_there_is_one_line() {
    let output = finish(&["run", "no/such.luau"]);
    let stderr = "cannot read no/such.luau: No such file or directory\n";
    check(&output, 1, "", stderr);
}

#[test]
fn a_syntax_error_is_one_line_with_file_and_line() {
    let output = run("local a = 1\nlocal b = = 2", &[]);
    let stderr = "stdin:2: Expected identifier when parsing expression, got '='\n";
    check(&output, 1, "", stderr);
}

#[test]
fn a_port_in_use_is_one_line_with_file_and_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = taken.local_addr().expect("bound").port();
    let source = format!("\nrequire('@huki/net').serve({port}, print)");
    let stderr =
        format!("stdin:2: net.serve: cannot listen on 127.0.0.1:{port}: the address is in use\n");
    check(&run(&source, &[]), 1, "", &stderr);
}

#[test]
fn an_error_comes_with_the_calls_that_led_to_it() {
    let source = "local function deep(x)\n  error('no ' .. x)\nend\nlocal function outer()\n  deep('luck')\n  return 1\nend\nouter()";
    let stderr = "stdin:2: no luck\nstack traceback:\n  [huki] in error\n  stdin:2 in deep\n  stdin:5 in outer\n  stdin:8\n";
    check(&run(source, &[]), 1, "", stderr);
}

#[test]
fn errors_that_are_no_strings_are_shown_as_tostring_shows_them() {
    let source = "error(setmetatable({}, { __tostring = function() return 'made of glass' end }))";
    let output = run(source, &[]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.starts_with("made of glass\n"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_status_is_the_same_when_nobody_reads_what_is_said() {
    let mut child = huki(&["run", "-"]);
    drop((child.stdout.take(), child.stderr.take()));
    let mut input = child.stdin.take().expect("it is piped");
    input
        .write_all(b"print('to nobody')")
        .expect("huki reads it");
    drop(input);
    assert_eq!(child.wait().expect("huki ends").code(), Some(1));
}

#[test]
fn exit_gives_the_status_and_nothing_runs_after_it() {
    let source = "local process, task = require('@huki/process'), require('@huki/task')
        task.spawn(function() process.exit(7) end)
        print('not reached')";
    check(&run(source, &[]), 7, "", "");
    let source = "require('@huki/process').exit(256)";
    let output = run(source, &[]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn arguments_behind_the_script_are_its_own() {
    let source = "print(table.concat(require('@huki/process').args, '|'))";
    check(
        &run(source, &["a", "--help", "b c"]),
        0,
        "a|--help|b c\n",
        "",
    );
}

#[test]
fn an_error_in_a_task_is_reported_and_the_rest_goes_on() {
    let source = "local task = require('@huki/task')
        task.spawn(function() error('oops') end)
        task.delay(0.01, print, 'still here')";
    let output = run(source, &[]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        stderr.starts_with("error in a task: stdin:2: oops\n"),
        "{stderr}"
    );
    assert_eq!(output.stdout, b"still here\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_signal_drains_and_answers_what_is_under_way() {
    use std::io::{Read, Write};
    let mut server = Served::start(
        "server = net.serve(0, function(request)
            print('asked')
            task.wait(0.3)
            return 'late but whole'
        end)
        task.spawn(function() while true do task.wait(60) end end)",
    );
    let mut stream = server.connect();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).expect("it reads");
    assert_eq!(server.line(), "asked");
    let stderr = server.stop();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with("\r\n\r\nlate but whole"), "{answer}");
    assert_eq!(stderr, "");
}

#[test]
fn a_stopped_server_lets_the_process_end() {
    let source = "local net = require('@huki/net')
        local server = net.serve(0, function() end)
        server:stop()
        server:stop()
        print('stopped')";
    check(&run(source, &[]), 0, "stopped\n", "");
}
