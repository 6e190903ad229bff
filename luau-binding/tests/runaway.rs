//! Scripts that never yield, never stop allocating, or get lost: they cost their own request, and
//! the process lives.

use crate::support::{Client, Frame, Served, huki};
use std::io::Write;
use std::process::Output;

/// Long enough for an innocent handler on a busy machine, short enough for a test.
const BUDGET: &[&str] = &["--budget", "0.5"];

fn run_with(options: &[&str], source: &str) -> Output {
    let mut child = huki(&[&["run"], options, &["-"]].concat());
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(source.as_bytes()).expect("huki reads it");
    drop(stdin);
    child.wait_with_output().expect("huki ends")
}

#[track_caller]
fn check_failure(output: &Output, first_line: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().next(), Some(first_line), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

const STOPPED: &str = "stopped after running for 0.5 s without yielding (huki run --budget)";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error";

#[test]
fn a_handler_that_never_yields_is_stopped_and_the_next_one_is_served() {
    let server = Served::start_with(
        BUDGET,
        r#"server = net.serve(0, function(r)
            if r.path == "/loop" then
                while true do end
            elseif r.path == "/caught" then
                while true do pcall(function() while true do end end) end
            elseif r.path == "/pattern" then
                string.find(("a"):rep(100000), ".-.-.-.-.-.-b")
            elseif r.path == "/nested" then
                task.spawn(function() while true do end end)
                while true do end
            end
            return "fine"
        end)"#,
    );
    for path in ["/loop", "/caught", "/pattern", "/nested"] {
        assert_eq!(server.get(path).0, FAILED, "{path}");
        assert_eq!(server.get("/").1, "fine");
    }
    let stderr = server.stop();
    assert!(
        stderr.contains("error in GET /loop from 127.0.0.1 port "),
        "{stderr}"
    );
    for line in [3, 5, 7, 9, 10] {
        assert!(
            stderr.contains(&format!("stdin:{line}: {STOPPED}")),
            "{line}: {stderr}"
        );
    }
}

#[test]
fn a_callback_that_never_yields_costs_its_own_socket_one_message() {
    let server = Served::start_with(
        BUDGET,
        r#"server = net.serve({ port = 0, websocket = {
            message = function(ws, text)
                if text == "loop" then while true do end end
                ws:send(text)
            end,
        }, error = function(message, context)
            print(context.kind, (string.split(message, "\n")[1]))
        end })"#,
    );
    let mut client = Client::open(&server, "/", "");
    client.text("loop");
    client.text("on");
    client.expect_text("on");
    let mut server = server;
    assert_eq!(server.line(), format!("message\tstdin:3: {STOPPED}"));
    assert_eq!(server.stop(), "");
}

#[test]
fn the_top_level_of_a_script_and_of_a_module_have_the_same_budget() {
    let output = run_with(BUDGET, "\nlocal n = 0\nrepeat n += 1 until false");
    check_failure(&output, &format!("stdin:3: {STOPPED}"));
    let output = run_with(
        BUDGET,
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
    );
    check_failure(&output, "an error of type table");
    // Whoever yields now and then has all the time.
    let patient = "local task = require('@huki/task')
        local start = os.clock()
        while os.clock() - start < 1.2 do
            local slice = os.clock()
            while os.clock() - slice < 0.02 do end
            task.wait()
        end
        print('done')";
    let output = run_with(BUDGET, patient);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    let endless = "local start = os.clock() while os.clock() - start < 0.8 do end print('done')";
    let output = run_with(&["--budget", "0"], endless);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}

#[test]
fn a_handler_that_takes_all_memory_fails_and_the_next_one_has_it_again() {
    let server = Served::start_with(
        &["--memory", "16"],
        r#"local task = task
        local keep = {}
        server = net.serve(0, function(r)
            if r.path == "/table" then
                local all = {}
                while true do all[#all + 1] = { #all } end
            elseif r.path == "/string" then
                local text = "x"
                while true do text ..= text end
            elseif r.path == "/rep" then
                return string.rep("x", 1000000000)
            elseif r.path == "/flood" then
                while true do task.spawn(function() keep[coroutine.running()] = true task.wait(1000) end) end
            elseif r.path == "/calm" then
                for co in keep do task.cancel(co) end
                table.clear(keep)
            elseif r.path == "/caught" then
                local ok, message = pcall(function() return string.rep("x", 900000000) end)
                return tostring(ok) .. " " .. message
            end
            return "fine"
        end)"#,
    );
    for _ in 0..5 {
        for path in ["/table", "/string", "/rep", "/flood"] {
            assert_eq!(server.get(path).0, FAILED, "{path}");
            let after = if path == "/flood" { "/calm" } else { "/" };
            assert_eq!(server.get(after).1, "fine", "after {path}");
        }
        assert_eq!(server.get("/caught").1, "false not enough memory");
    }
    let stderr = server.stop();
    for line in [6, 9, 11, 13] {
        let message = format!("stdin:{line}: not enough memory");
        assert!(stderr.contains(&message), "{message}: {stderr}");
    }
}

#[test]
fn who_catches_the_lack_of_memory_has_it_again_at_once() {
    let output = run_with(
        &["--memory", "16", "--budget", "0"],
        "local function tables() local all = {} while true do all[#all + 1] = { #all } end end
        local function coroutines() local all = {} while true do all[#all + 1] = coroutine.create(print) end end
        for n = 1, 20 do
            local ok, message = pcall(if n % 2 == 0 then tables else coroutines)
            -- Closures, tables and strings, all before the script waits.
            local function told() return { text = `{ok} {n}` } end
            assert(told().text == `false {n}` and string.find(message, 'not enough memory'), message)
            assert(#string.rep('x', 4000000) == 4000000)
        end
        print('done')",
    );
    assert_eq!(
        (
            String::from_utf8_lossy(&output.stdout).as_ref(),
            String::from_utf8_lossy(&output.stderr).as_ref()
        ),
        ("done\n", "")
    );
}

#[test]
fn what_a_script_has_let_go_of_is_collected_before_a_function_is_refused() {
    let output = run_with(
        &["--memory", "16", "--budget", "0"],
        "local net = require('@huki/net')
        for n = 1, 3 do
            -- Larger than all that may be had, and garbage at once.
            assert(#net.urlEncode(string.rep('\\1', 6000000)) == 18000000)
            assert(net.jsonEncode({ n }) == `[{n}]`)
        end
        print('done')",
    );
    assert_eq!(
        (
            String::from_utf8_lossy(&output.stdout).as_ref(),
            String::from_utf8_lossy(&output.stderr).as_ref()
        ),
        ("done\n", "")
    );
}

#[test]
fn the_garbage_of_many_requests_is_no_reason_to_refuse_one() {
    let server = Served::start_with(
        &["--memory", "16"],
        r#"server = net.serve(0, function(r) return string.rep("x", 4000000) end)"#,
    );
    for _ in 0..20 {
        assert_eq!(server.get("/").1.len(), 4_000_000);
    }
    assert_eq!(server.stop(), "");
}

#[test]
fn bodies_and_messages_beyond_the_limit_are_refused_in_order() {
    let server = Served::start_with(
        &["--memory", "8"],
        r#"local kept = {}
        server = net.serve({ port = 0,
            request = function(r) table.insert(kept, r) return tostring(#kept) end,
            websocket = { message = function(ws, text) table.insert(kept, text .. "!") end },
            error = function() end })"#,
    );
    let body = "x".repeat(900_000);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answers: Vec<String> = (0..20).map(|_| server.exchange(&post)).collect();
    assert!(answers[0].starts_with("HTTP/1.1 200 OK"), "{}", answers[0]);
    assert!(answers[19].starts_with(FAILED), "{}", answers[19]);
    // A socket is still accepted: the loop itself is never refused memory.
    let mut client = Client::open(&server, "/", "");
    client.text("more");
    client.send(8, &1000_u16.to_be_bytes());
    assert_eq!(client.receive(), Frame::close(1000, ""));
    let (status, _) = server.signal("-TERM");
    assert_eq!(status, Some(0));
}

#[test]
fn recursion_without_end_is_an_error_of_its_own_request() {
    let server = Served::start(
        r#"local function deep() return 1 + deep() end
        local function tasks(n) task.spawn(tasks, n + 1) return n end
        local function caught() return pcall(caught) end
        local function text() return tostring(setmetatable({}, { __tostring = text })) end
        local ways = { deep = deep, tasks = function() tasks(0) error("done") end, text = text,
            caught = function() caught() error("done") end,
            sort = function() local t = {1, 2, 3} local function s() table.sort(t, s) end s() end }
        server = net.serve(0, function(r)
            local way = ways[string.sub(r.path, 2)]
            return if way then way() else "fine"
        end)"#,
    );
    for path in ["/deep", "/tasks", "/text", "/caught", "/sort"] {
        assert_eq!(server.get(path).0, FAILED, "{path}");
        assert_eq!(server.get("/").1, "fine", "after {path}");
    }
    let stderr = server.stop();
    assert!(stderr.contains("stack overflow"), "{stderr}");
}

#[test]
fn an_error_of_any_type_is_reported_and_answered() {
    let server = Served::start(
        r#"local errors = { ["nil"] = function() error(nil) end, table = function() error({}) end,
            number = function() error(7) end, ["function"] = function() error(print) end,
            text = function() error(setmetatable({}, { __tostring = function() return "said" end })) end,
            raising = function() error(setmetatable({}, { __tostring = function() error("inner") end })) end,
            wrong = function() error(setmetatable({}, { __tostring = function() return 1 end })) end,
            yielding = function() error(setmetatable({}, { __tostring = function() task.wait() end })) end,
            bytes = function() error("\255\27[31m", 0) end }
        server = net.serve(0, function(r)
            local raise = errors[string.sub(r.path, 2)]
            return if raise then raise() else "fine"
        end)"#,
    );
    for path in [
        "/nil",
        "/table",
        "/number",
        "/function",
        "/text",
        "/raising",
        "/wrong",
        "/yielding",
        "/bytes",
    ] {
        assert_eq!(server.get(path).0, FAILED, "{path}");
        assert_eq!(server.get("/").1, "fine", "after {path}");
    }
    let stderr = server.stop();
    assert_eq!(stderr.matches("error in GET /").count(), 9, "{stderr}");
    assert!(stderr.contains(": said\n"), "{stderr}");
}

#[test]
fn a_request_whose_coroutine_gets_lost_is_still_answered() {
    let server = Served::start(
        r#"local held = {}
        server = net.serve(0, function(r)
            if r.path == "/held" then
                held[1] = coroutine.running()
                print("held")
                return coroutine.yield() .. "!"
            elseif r.path == "/resume" then
                return tostring(coroutine.resume(held[1], "taken"))
            elseif r.path == "/close" then
                return tostring(coroutine.close(held[1]))
            elseif r.path == "/spawn" then
                task.spawn(held[1], "given")
            elseif r.path == "/yield" then
                coroutine.yield()
            end
            return "fine"
        end)"#,
    );
    let mut server = server;
    let held = "GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (path, body, answer) in [
        ("/resume", "true", FAILED),
        ("/close", "true", FAILED),
        ("/spawn", "fine", "HTTP/1.1 200 OK"),
    ] {
        let mut waiting = server.connect();
        waiting.write_all(held.as_bytes()).expect("it reads");
        assert_eq!(server.line(), "held");
        assert_eq!(server.get(path).1, body);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut waiting, &mut text).expect("it answers");
        assert!(text.starts_with(answer), "{path}: {text}");
        assert_eq!(text.ends_with("given!"), path == "/spawn");
    }
    assert_eq!(server.get("/yield").0, FAILED);
    let stderr = server.stop();
    assert!(
        stderr.contains("run to its end by coroutine.resume"),
        "{stderr}"
    );
    assert!(stderr.contains("that no script can resume"), "{stderr}");
}

#[test]
fn a_flood_of_coroutines_runs_to_its_end() {
    // However slow the machine is: the flood is what is tested.
    let output = run_with(
        &["--budget", "0"],
        "local task = require('@huki/task')
        local started, ended = 0, 0
        for n = 1, 300000 do task.spawn(function() started += 1 end) end
        for n = 1, 20000 do task.spawn(function() task.wait() ended += 1 end) end
        task.wait(0.01)
        while ended < 20000 do task.wait() end
        print(started, ended)",
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "300000\t20000\n");
    assert!(output.status.success());
}

#[test]
fn wrong_bounds_are_refused_by_the_command_line() {
    for args in [
        &["run", "--budget", "soon", "-"][..],
        &["run", "--budget", "-1", "-"],
        &["run", "--memory", "1.5", "-"],
        &["run", "--budget"],
    ] {
        let output = huki(args).wait_with_output().expect("huki ends");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
