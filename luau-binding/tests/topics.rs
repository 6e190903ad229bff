//! Topics as scripts use them, over real sockets.

use crate::support::{Client, Frame, Served};

/// A server whose sockets do what they are told: `+topic`, `-topic`, `topics`, `pub topic text`.
const HUB: &str = r#"
    local function hub(port)
        return net.serve({ port = port, websocket = {
            message = function(ws, message)
                local sign, rest = string.sub(message, 1, 1), string.sub(message, 2)
                if sign == "+" then ws:send(`{ws:subscribe(rest)} {ws:isSubscribed(rest)}`)
                elseif sign == "-" then ws:send(`{ws:unsubscribe(rest)} {ws:isSubscribed(rest)}`)
                elseif sign == "?" then
                    local topics = ws:topics()
                    table.sort(topics)
                    ws:send(table.concat(topics, " "))
                elseif sign == "p" then
                    local topic, text = string.match(rest, "^(%S+) (.*)$")
                    ws:publish(topic, text)
                else server:publish("all", buffer.fromstring(message)) end
            end,
            close = function(ws)
                print(#ws:topics(), pcall(ws.subscribe, ws, "late"))
                ws:publish("all", "one has left")
            end,
        } })
    end
    server = hub(0)
"#;

fn tell(client: &mut Client, command: &str, answer: &str) {
    client.text(command);
    client.expect_text(answer);
}

#[test]
fn a_message_reaches_all_subscribers_but_the_socket_that_publishes() {
    let mut server = Served::start(HUB);
    let mut clients = [0; 3].map(|_| Client::open(&server, "/", ""));
    for client in &mut clients {
        tell(client, "+all", "true true");
        tell(client, "+all", "false true");
    }
    let [ann, bob, eve] = &mut clients;
    tell(eve, "+own", "true true");
    tell(eve, "?", "all own");
    tell(eve, "-own", "true false");
    tell(eve, "-own", "false false");
    ann.text("pall from Ann");
    ann.text("pnobody hears this");
    bob.expect_text("from Ann");
    eve.expect_text("from Ann");
    bob.text("bytes");
    for client in [&mut *ann, bob, eve] {
        let bytes = Frame {
            opcode: 2,
            payload: b"bytes".to_vec(),
        };
        assert_eq!(client.receive(), bytes);
    }
    tell(bob, "-all", "true false");
    // A socket that has closed is in no topic, and can still tell the others.
    eve.send(8, &[]);
    assert_eq!(eve.receive().opcode, 8);
    let line = server.line();
    assert!(
        line.starts_with("0\tfalse\t") && line.ends_with("ws:subscribe: the WebSocket is closed"),
        "{line}"
    );
    ann.expect_text("one has left");
    tell(bob, "?", "");
    assert_eq!(server.stop(), "");
}

#[test]
fn servers_of_one_process_share_topics() {
    let source = format!("{HUB} local second = hub(0) print(second.port)");
    let mut server = Served::start(&source);
    let mut ann = Client::open(&server, "/", "");
    server.port = server.line().parse().expect("the second port");
    let mut bob = Client::open(&server, "/", "");
    tell(&mut ann, "+all", "true true");
    bob.text("pall across");
    ann.expect_text("across");
    assert_eq!(server.stop(), "");
}

#[test]
fn wrong_arguments_raise_and_name_themselves() {
    let server = Served::start(
        r#"
        local function fails(text, call, ...)
            local ok, message = pcall(call, ...)
            assert(not ok and string.find(message, text, 1, true), `{message} should say {text}`)
        end
        server = net.serve({ port = 0, limits = { topics = 2, topicBytes = 4 }, websocket = { open = function(ws)
            fails("ws:subscribe: argument #1 must be a string that is not empty, not nil", ws.subscribe, ws)
            fails("ws:subscribe: argument #1 must be a string that is not empty", ws.subscribe, ws, "")
            fails("ws:subscribe: the topic's name is longer than limits.topicBytes allows", ws.subscribe, ws, "12345")
            fails("ws:publish: argument #2 must be a string or a buffer, not 7", ws.publish, ws, "a", 7)
            fails("ws:publish: text must be valid UTF-8", ws.publish, ws, "a", "\xff")
            fails("ws:sendLatest: argument #1", ws.sendLatest, ws, nil, "x")
            fails("server:publish: argument #1", server.publish, server, {}, "x")
            fails("server:subscribers: argument #1", server.subscribers, server)
            fails("did you mean 'subscribe'?", function() ws:subscrib("a") end)
            ws:subscribe("a")
            ws:subscribe("b")
            fails("ws:subscribe: the connection is subscribed to too many topics", ws.subscribe, ws, "c")
            assert(server:subscribers("a") == 1 and server:subscribers("c") == 0)
            ws:publish("a", "\xff", true)
            assert(ws:sendLatest("key", "done"))
        end } })"#,
    );
    Client::open(&server, "/", "").expect_text("done");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_peer_that_is_behind_gets_the_newest_of_each_topic_and_key() {
    // The peer reads nothing until the script has published far beyond what the system buffers.
    let mut server = Served::start(
        r#"server = net.serve({ port = 0, websocket = {
            backpressure = { limit = 1000, policy = "latest" },
            message = function(ws)
                ws:subscribe("a")
                ws:subscribe("b")
                local filler, most = string.rep("x", 4096), 0
                for n = 1, 5000 do
                    server:publish("a", `a{n} {filler}`)
                    server:publish("b", `b{n} {filler}`)
                    ws:sendLatest("k", `k{n}`)
                    most = math.max(most, ws.bufferedBytes)
                    if n % 100 == 0 then task.wait() end
                end
                print(most)
            end,
        } })"#,
    );
    let mut client = Client::open(&server, "/", "");
    client.text("go");
    let most: usize = server.line().parse().expect("a number");
    assert!(most < 16_000, "{most} bytes waited");
    // In order, and the last of each.
    let mut last = [0_u32; 3];
    let mut count = 0;
    while last != [5_000; 3] {
        let frame = client.receive();
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        let (name, n) = text.split_at(1);
        let n = n.split(' ').next().and_then(|n| n.parse().ok());
        let of = ["a", "b", "k"].iter().position(|of| *of == name);
        let (of, n) = (of.expect("one of three"), n.expect("a number"));
        assert!(last[of] < n, "{name}{n} after {name}{}", last[of]);
        last[of] = n;
        count += 1;
    }
    assert!(count < 14_000, "all {count} have come");
    assert_eq!(server.stop(), "");
}

#[test]
fn with_close_a_peer_that_is_behind_gets_1013_and_the_others_hear_on() {
    let server = Served::start(
        r#"local deaf
        server = net.serve({ port = 0, websocket = {
            backpressure = { limit = 200000 },
            upgrade = function(request) return { data = request.path } end,
            open = function(ws)
                if ws.data == "/deaf" then deaf = ws end
                ws:subscribe("all")
                ws:send("open")
            end,
            message = function(ws)
                for _ = 1, 10 do server:publish("all", string.rep("x", 10000)) end
                ws:send(tostring(deaf.connected))
            end,
        } })"#,
    );
    let mut deaf = Client::open(&server, "/deaf", "");
    deaf.expect_text("open");
    let mut good = Client::open(&server, "/good", "");
    good.expect_text("open");
    let mut is_heard = true;
    while is_heard {
        good.text("more");
        for _ in 0..10 {
            assert_eq!(good.receive().payload.len(), 10_000);
        }
        is_heard = good.receive() == Frame::text("true");
    }
    // What was under way comes first.
    let end = loop {
        let frame = deaf.receive();
        if frame.opcode != 1 {
            break frame;
        }
    };
    assert_eq!(end, Frame::close(1013, "too far behind"));
    assert_eq!(server.stop(), "");
}
