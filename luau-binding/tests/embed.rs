//! The library inside a Rust program: own functions that wait, own loops, own threads.

use crate::support::split;
use hukilau::{Options, Runtime, Turn, Waiter, mlua};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its main is for those who run it")]
mod game;

fn runtime() -> Runtime {
    Runtime::new(&Options::default()).expect("a VM")
}

/// Adds `@app/host` with a function `ask(text)` that hands its waiter to `take`.
fn add_ask(runtime: &Runtime, take: impl Fn(String, Waiter) + 'static) {
    let ask = runtime
        .waiting_function(move |_, text: String, waiter| {
            if text == "refuse" {
                return Err(mlua::Error::runtime("refused at once"));
            }
            take(text, waiter);
            Ok(())
        })
        .expect("memory");
    let module = runtime.lua().create_table().expect("memory");
    module.raw_set("ask", ask).expect("a table");
    runtime.add_module("@app/host", module).expect("a name");
}

#[test]
fn a_call_is_answered_from_another_thread_with_any_values() {
    let mut runtime = runtime();
    add_ask(&runtime, |text, waiter| {
        std::thread::spawn(move || match text.as_str() {
            "table" => waiter.resume_with(|lua| lua.create_sequence_from([1, 2, 3])),
            "fail" => waiter.fail("no such thing"),
            "drop" => drop(waiter),
            _ => waiter.resume((format!("{text}!"), true)),
        });
    });
    let source = r#"local host = require("@app/host")
        local text, flag = host.ask("hello")
        assert(text == "hello!" and flag == true)
        assert(#host.ask("table") == 3)
        local function fails(text, expected)
            local ok, message = pcall(host.ask, text)
            assert(not ok and string.find(message, expected, 1, true), message)
        end
        fails("fail", "no such thing")
        fails("drop", "the host gave up on this call")
        fails("refuse", "refused at once")
        local ok, message = pcall(function()
            host.ask("fail")
        end)
        assert(message == "app:13: no such thing", message)
        local task = require("@huki/task")
        local order = {}
        for n = 1, 20 do
            task.spawn(function() table.insert(order, (host.ask(`{n}`))) end)
        end
        repeat task.wait() until #order == 20
        require("@huki/process").exit(7)"#;
    let status = runtime.run_source("=app", source.as_bytes());
    assert_eq!(status.expect("no assertion fails"), 7);
}

#[test]
fn a_call_that_waits_keeps_the_loop_and_a_cancelled_one_does_not() {
    let mut runtime = runtime();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let waiters = Rc::clone(&kept);
    add_ask(&runtime, move |_, waiter| waiters.borrow_mut().push(waiter));
    let source = r#"local host, task = require("@app/host"), require("@huki/task")
        local lost = task.spawn(function() host.ask("a") error("resumed") end)
        task.cancel(lost)
        answer = host.ask("b")
        assert(answer == "late")"#;
    runtime
        .start_source("=app", source.as_bytes())
        .expect("it compiles");
    for _ in 0..3 {
        let turn = runtime.turn(Some(Duration::ZERO)).expect("it waits");
        assert_eq!(turn, Turn::Running);
    }
    for waiter in kept.borrow_mut().drain(..) {
        waiter.resume("late");
    }
    let turned = std::iter::repeat_with(|| runtime.turn(None).expect("no assertion fails"));
    assert_eq!(turned.take(9).last(), Some(Turn::Ended(0)));
}

#[test]
fn a_host_calls_into_scripts_and_starts_several() {
    let mut runtime = runtime();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (sink, handler) = (Rc::clone(&heard), Rc::new(RefCell::new(None)));
    let lua = runtime.lua();
    let module = lua.create_table().expect("memory");
    let say = lua.create_function(move |_, text: String| {
        sink.borrow_mut().push(text);
        Ok(())
    });
    module
        .raw_set("say", say.expect("memory"))
        .expect("a table");
    let slot = Rc::clone(&handler);
    let on = lua.create_function(move |_, function: mlua::Function| {
        *slot.borrow_mut() = Some(function);
        Ok(())
    });
    module.raw_set("on", on.expect("memory")).expect("a table");
    runtime.add_module("@app/host", module).expect("a name");
    let first = b"local host = require('@app/host') own = 1
        host.on(function(...) require('@huki/task').wait(0.001) host.say(`heard {...}`) end)";
    runtime.start_source("=first", first).expect("it compiles");
    let second = b"require('@app/host').say(`second {_G.own}`)";
    runtime
        .start_source("=second", second)
        .expect("it compiles");
    let function = handler.borrow().clone().expect("set by the script");
    runtime.spawn(&function, 42).expect("a number converts");
    while runtime.turn(None).expect("no script fails") == Turn::Running {}
    assert_eq!(*heard.borrow(), ["second nil", "heard 42"]);
    assert!(runtime.add_module("@huki/net", 1).is_err());
    drop(handler);
}

#[test]
fn a_runtime_lives_on_a_thread_of_the_hosts_choice_and_is_stopped_from_another() {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut runtime = runtime();
        tell.send(runtime.stop()).expect("the test waits");
        runtime.run_source("=app", b"require('@huki/task').wait(1e6)")
    });
    let stop = told.recv().expect("the thread has begun");
    stop.drain(Duration::ZERO);
    let status = thread.join().expect("no panic").expect("no error");
    assert_eq!(status, 0);
}

#[test]
fn a_runtime_may_be_dropped_in_the_middle_of_everything() {
    let mut runtime = runtime();
    let waiters = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&waiters);
    add_ask(&runtime, move |_, waiter| taken.borrow_mut().push(waiter));
    let source = br#"
        local net, task = require("@huki/net"), require("@huki/task")
        local ask = require("@app/host").ask
        local server = net.serve({
            streamBody = true,
            request = function(request) request:read() end,
            websocket = { message = function(ws) ws:next() end },
        })
        local url = `127.0.0.1:{server.port}/`
        for _, wait in {
            function() ask("never") end,
            function() task.wait(1e6) end,
            function() net.request({ url = "http://" .. url, method = "POST", body = function() task.wait(1e6) end }) end,
            function() net.websocket("ws://" .. url):next() end,
            function() net.resolve("localhost") task.wait(1e6) end,
            function() task.every(1000, function() task.wait(1e6) end) end,
            function() net.udp():receive() end,
        } do
            task.spawn(wait)
        end"#;
    runtime.start_source("=app", source).expect("it starts");
    for _ in 0..50 {
        let turn = runtime.turn(Some(Duration::from_millis(2)));
        assert_eq!(turn.expect("no error"), Turn::Running);
    }
    drop(runtime);
    // Answers that come too late reach nobody.
    for waiter in waiters.take() {
        std::thread::spawn(move || waiter.resume("late"))
            .join()
            .expect("no panic");
    }
}

#[test]
fn a_listener_of_the_host_shares_the_reactor_with_scripts() {
    use hukilau::core::conn::Response;
    use hukilau::core::reactor::ServerConfig;
    use hukilau::core::reactor::inbox::What;
    use hukilau::core::transport::Endpoint;
    let mut runtime = runtime();
    let at = Endpoint::Ip(([127, 0, 0, 1], 0).into());
    let (listener, port) = {
        let mut reactor = runtime.reactor();
        let listener = reactor
            .listen(&at, ServerConfig::default())
            .expect("loopback");
        let Some(Endpoint::Ip(address)) = reactor.local_endpoint(listener) else {
            panic!("it listens");
        };
        (listener, address.port())
    };
    let client = std::thread::spawn(move || get(port, "/own"));
    let mut answered = 0;
    while answered == 0 {
        let turn = runtime.turn_sharing(None, |reactor, completion| match completion.what {
            What::Request {
                exchange,
                request,
                listener: found,
            } if found == listener => {
                assert_eq!(request.target(), b"/own");
                let response = Response {
                    status: 200,
                    fields: &[],
                    body: b"from Rust",
                };
                let sent = reactor.respond(completion.conn, exchange, &response);
                answered += usize::from(sent.is_ok());
                true
            }
            _ => false,
        });
        assert_eq!(turn.expect("the system polls"), Turn::Running);
    }
    runtime.stop().drain(Duration::from_secs(5));
    while runtime.turn(None).expect("the system polls") == Turn::Running {}
    assert_eq!(client.join().expect("no panic").1, "from Rust");
}

/// A timer of the script that a request sets, while thousands of others wait that are many turns' work.
#[test]
fn a_timer_fires_in_the_turn_that_finds_it_due_however_many_requests_wait() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 2_000;
    let mut runtime = runtime();
    let noted = Rc::new(RefCell::new(Vec::new()));
    let notes = Rc::clone(&noted);
    let note = runtime.lua().create_function(move |_, text: String| {
        notes.borrow_mut().push(text);
        Ok(())
    });
    let module = runtime.lua().create_table().expect("memory");
    module
        .raw_set("note", note.expect("memory"))
        .expect("a table");
    runtime.add_module("@app/host", module).expect("a name");
    let source = r#"local host, net, task = require("@app/host"), require("@huki/net"), require("@huki/task")
        local server = net.serve({
            port = 0,
            address = "127.0.0.1",
            request = function(request)
                host.note(request.path)
                if request.path == "/set" then
                    task.delay(0, function() host.note("fired") end)
                end
                return ""
            end,
        })
        host.note(tostring(server.port))"#;
    runtime
        .start_source("=app", source.as_bytes())
        .expect("it compiles");
    while noted.borrow().is_empty() {
        runtime.turn(Some(Duration::ZERO)).expect("no script fails");
    }
    let port: u16 = noted.take()[0].parse().expect("a port");
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS);
            if number == 0 {
                bytes.splice(..0, *b"GET /set HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            client.write_all(&bytes).expect("the buffers take it");
            client
        })
        .collect();
    let has = |text: &str| noted.borrow().iter().any(|note| note == text);
    while !has("/set") {
        runtime.turn(None).expect("no script fails");
    }
    if !has("fired") {
        runtime.turn(Some(Duration::ZERO)).expect("no script fails");
    }
    assert!(has("fired"), "it was due when this turn began");
    let served = noted.borrow().len();
    assert!(served < CLIENTS * REQUESTS / 2, "{served} in two turns");
    drop(clients);
}

#[test]
fn a_call_that_blocks_inside_a_sort_raises_where_only_the_host_could_deliver() {
    let mut runtime = runtime();
    let turn = runtime.turn_sharing(Some(Duration::ZERO), |_, _| false);
    turn.expect("the system polls");
    let source = "local ok, why = pcall(table.sort, { 2, 1 }, function()
            net_http_get('http://127.0.0.1:1/')
            return true
        end)
        assert(not ok and string.find(why, 'cannot wait here', 1, true), why)";
    let status = runtime.run_source("=script", source.as_bytes());
    assert_eq!(status.expect("no error"), 0);
}

/// Status line and body of a GET.
fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    split(&answer)
}

#[test]
fn a_game_loop_has_its_frames_and_a_script_serves_http_meanwhile() {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let client = std::thread::spawn(move || {
        let port = told.recv().expect("the script listens");
        let joined = [get(port, "/join?name=Ann"), get(port, "/join?name=Bob")];
        let (_, players) = get(port, "/");
        drop(end);
        (joined, players)
    });
    let (mut has_told, mut frames) = (false, 0);
    game::play(0, |world| {
        frames = world.frame;
        if let (Some(port), false) = (world.port, has_told) {
            has_told = true;
            tell.send(port).expect("the client waits");
        }
        // The client drops its end when it has seen enough.
        ended.try_recv() != Err(mpsc::TryRecvError::Disconnected)
    })
    .expect("the game plays");
    let (joined, players) = client.join().expect("no panic");
    for (seat, (status, body)) in (1..).zip(&joined) {
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(body.contains(&format!("\"seat\":{seat}")), "{body}");
    }
    assert!(players.contains(r#""players":["Ann","Bob"]"#), "{players}");
    assert!(frames >= 2, "each player has waited for a frame");
}
