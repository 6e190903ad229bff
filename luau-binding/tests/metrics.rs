//! `huki run --metrics`: the text that Prometheus reads, read strictly, and `server:stats()`.

use crate::support::{Client, PATIENCE, huki, split};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command};

type Labels = Vec<(String, String)>;

/// A family of samples: its type, and the samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<(String, Labels), f64>,
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name{label="value",…} number`, and nothing else.
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, labels) = match head.split_once('{') {
        None => (head, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').expect("a closing brace")),
    };
    assert!(is_name(name), "{line}");
    let mut seen = BTreeSet::new();
    let labels = labels.split(',').filter(|label| !label.is_empty());
    let labels: Vec<_> = labels
        .map(|label| {
            let (name, value) = label.split_once('=').expect("label=value");
            let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = quoted.unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && seen.insert(name), "{line}");
            assert!(!value.contains(['"', '\\', '\n']), "{line}");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    (name.to_owned(), labels, value)
}

/// Reads text format 0.0.4, more strictly than Prometheus does: one HELP, then one TYPE, then the
/// samples of a family, each once, counters with `_total`.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut helped, mut current) = (None, String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a text");
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(helped.take().as_deref(), Some(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            current = name.to_owned();
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(families.insert(current.clone(), family).is_none(), "{line}");
        } else {
            let (name, labels, value) = sample(line);
            let family = families.get_mut(&current).expect("a TYPE comes first");
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let fits = |suffix: &&str| name.strip_suffix(*suffix) == Some(&current);
            assert!(suffixes.iter().any(fits), "{line} in {current}");
            assert!(value >= 0.0, "{line}");
            assert!(
                family.samples.insert((name, labels), value).is_none(),
                "{line}"
            );
        }
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name}");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

fn check_histogram(name: &str, family: &Family) {
    let mut buckets = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
    for ((sample, labels), count) in &family.samples {
        if *sample == format!("{name}_bucket") {
            let mut others = labels.clone();
            let at = others.iter().position(|(name, _)| name == "le");
            let (_, bound) = others.remove(at.expect("buckets have a bound"));
            let bound = bound.replace("+Inf", "inf").parse().expect("a number");
            buckets.entry(others).or_default().push((bound, *count));
        }
    }
    for (labels, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "cumulative");
        let (last, count) = buckets.last().copied().expect("buckets");
        assert_eq!(last, f64::INFINITY);
        let total = family.samples[&(format!("{name}_count"), labels.clone())];
        assert_eq!(count, total);
        assert!(
            family
                .samples
                .contains_key(&(format!("{name}_sum"), labels))
        );
    }
}

/// A served script with figures; standard error says where they are.
struct Measured {
    child: Child,
    port: u16,
    figures: u16,
}

impl Measured {
    fn start(options: &[&str], script: &str) -> Self {
        let options = [&["run", "--metrics", "127.0.0.1:0"], options, &["-"]].concat();
        let mut child = huki(&options);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(script.as_bytes()).expect("huki reads it");
        drop(stdin);
        let mut line = String::new();
        let mut err = BufReader::new(child.stderr.as_mut().expect("piped"));
        err.read_line(&mut line).expect("UTF-8");
        let rest = line.strip_prefix("huki: figures at http://127.0.0.1:");
        let figures = rest.and_then(|rest| rest.trim_end().strip_suffix("/metrics"));
        let figures = figures.and_then(|port| port.parse().ok()).expect(&line);
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().expect("piped"));
        out.read_line(&mut line).expect("UTF-8");
        let port = line.trim_end().parse().expect("a port");
        Self {
            child,
            port,
            figures,
        }
    }

    /// Status line and body of `GET path` at `port`.
    fn get(port: u16, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        split(&answer)
    }

    /// The sum over workers of the samples of `family` with `labels`.
    fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        let (status, text) = Self::get(self.figures, "/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        let families = parse(&text);
        let family = families.get(family).unwrap_or_else(|| panic!("{text}"));
        let has = |of: &[(String, String)], label: &(&str, &str)| {
            of.iter().any(|(name, value)| (&**name, &**value) == *label)
        };
        let samples = family.samples.iter();
        let samples = samples.filter(|((_, of), _)| labels.iter().all(|label| has(of, label)));
        samples.map(|(_, value)| value).sum()
    }

    /// How often the loop has turned.
    fn turns(&self) -> f64 {
        let (_, text) = Self::get(self.figures, "/metrics");
        let mut counts = text
            .lines()
            .filter(|line| line.contains("turn_seconds_count"));
        sample(counts.next().expect("turns are counted")).2
    }

    fn end(self) {
        self.signal();
        self.wait();
    }

    fn signal(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.expect("kill is there").success());
    }

    fn wait(mut self) {
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // A failed test leaves no process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SCRIPT: &str = r#"
    local net, process = require("@huki/net"), require("@huki/process")
    local server
    server = net.serve({ port = 0,
        request = function(request)
            if request.path == "/stats" then return net.json(server:stats()) end
            if request.path == "/fail" then error("as asked") end
            if request.path == "/garbage" then
                local t = {}
                for i = 1, 5_000 do t = { i, {} } end
                return "x"
            end
            return { status = tonumber(string.sub(request.path, 2)), body = "x" }
        end,
        websocket = { message = function(ws, message) ws:send(message) end },
    })
    if process.worker.index == 1 then print(server.port) end
"#;

#[test]
fn standard_input_at_its_end_does_not_keep_the_loop_turning() {
    const REQUESTS: u16 = 50;
    // The script is all that there is on standard input: its end has come, and is asked for again and again.
    let served = Measured::start(
        &[],
        r#"
        local net, stdio, task = require("@huki/net"), require("@huki/stdio"), require("@huki/task")
        for _ = 1, 3 do
            assert(stdio.readLine() == nil)
        end
        for _ = 1, 3 do
            task.spawn(function() assert(stdio.readLine() == nil) end)
        end
        local server = net.serve(0, function() return `{stdio.readLine()}` end)
        print(server.port)
    "#,
    );
    let before = served.turns();
    for _ in 0..REQUESTS {
        assert_eq!(Measured::get(served.port, "/").1, "nil");
    }
    let turns = served.turns() - before;
    // A connection with its request comes, waits for a line and goes in a few turns. A loop that turns for nothing
    // does so a hundred times meanwhile.
    assert!(turns <= f64::from(10 * REQUESTS), "{turns} turns");
    served.end();
}

#[test]
fn figures_count_what_has_happened() {
    let served = Measured::start(&[], SCRIPT);
    for status in [200, 200, 204, 301, 404, 500] {
        Measured::get(served.port, &format!("/{status}"));
    }
    Measured::get(served.port, "/fail");
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).expect("it listens");
    stream.write_all(b"GET /\r\n\r\n").expect("it reads");
    let mut refused = Vec::new();
    stream.read_to_end(&mut refused).expect("it is refused");
    // Figures for figures count too: the classes besides 2xx are the script's, and what was refused.
    assert_eq!(served.sum("hukilau_requests_refused_total", &[]), 1.0);
    for (class, count) in [("1xx", 0.0), ("3xx", 1.0), ("4xx", 2.0), ("5xx", 2.0)] {
        let counted = served.sum("hukilau_responses_total", &[("class", class)]);
        assert_eq!(counted, count, "{class}");
    }
    let cause = [("cause", "violation")];
    assert_eq!(served.sum("hukilau_connections_ended_total", &cause), 1.0);
    assert!(served.sum("hukilau_vm_heap_bytes", &[]) > 100_000.0);
    assert!(served.sum("hukilau_turn_seconds", &[("le", "+Inf")]) > 6.0);
    assert!(served.sum("hukilau_received_bytes_total", &[]) > 300.0);
    let scripts = served.sum("hukilau_script_seconds_total", &[]);
    assert!(scripts > 0.0, "{scripts}");

    // One turn in 64 is looked at.
    let collector = || served.sum("hukilau_collector_seconds_total", &[]);
    while collector() == 0.0 {
        Measured::get(served.port, "/garbage");
    }

    let (_, stats) = Measured::get(served.port, "/stats");
    for part in [
        r#""3xx":1"#,
        r#""violation":1"#,
        r#""acceptErrors":0"#,
        r#""heapBytes":"#,
        r#""scriptSeconds":"#,
        r#""collectorSeconds":"#,
        r#""logLinesDropped":0"#,
    ] {
        assert!(stats.contains(part), "{stats} has no {part}");
    }
    served.end();
}

#[test]
fn messages_of_websockets_are_counted() {
    let served = Measured::start(&[], SCRIPT);
    let stream = TcpStream::connect(("127.0.0.1", served.port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let (mut client, head) = Client::upgrade(stream, "/", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for _ in 0..5 {
        client.text("x");
        client.expect_text("x");
    }
    assert_eq!(served.sum("hukilau_messages_received_total", &[]), 5.0);
    assert_eq!(served.sum("hukilau_messages_sent_total", &[]), 5.0);
    assert_eq!(
        served.sum("hukilau_responses_total", &[("class", "1xx")]),
        1.0
    );
    drop(client);
    served.end();
}

#[test]
fn whichever_worker_is_asked_tells_of_all_and_whether_they_are_ready() {
    let served = Measured::start(&["--workers", "2"], SCRIPT);
    assert_eq!(Measured::get(served.figures, "/healthz"), ok("ok\n"));
    // The second worker starts when the first has come as far as waiting.
    let ready = ok("2 of 2 workers serve\n");
    while Measured::get(served.figures, "/readyz") != ready {}
    for _ in 0..20 {
        Measured::get(served.port, "/404");
        for worker in ["1", "2"] {
            assert!(served.sum("hukilau_vm_heap_bytes", &[("worker", worker)]) > 0.0);
        }
    }
    assert_eq!(
        served.sum("hukilau_responses_total", &[("class", "4xx")]),
        20.0
    );
    assert_eq!(
        Measured::get(served.figures, "/").0,
        "HTTP/1.1 404 Not Found"
    );
    served.end();
}

/// By SIGTERM, with a socket that takes its time to say goodbye.
#[test]
fn during_a_drain_the_process_is_alive_and_not_ready() {
    let served = Measured::start(&[], SCRIPT);
    let connect = |port| {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream
    };
    let ready = ok("1 of 1 workers serve\n");
    assert_eq!(Measured::get(served.figures, "/readyz"), ready);
    let (mut client, head) = Client::upgrade(connect(served.port), "/", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // A prober that keeps its connection.
    let mut prober = connect(served.figures);

    served.signal();
    let farewell = client.receive();
    assert_eq!(farewell.payload[..2], 1001_u16.to_be_bytes());
    let (status, body) = Measured::get(served.figures, "/readyz");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(body, "0 of 1 workers serve\n");
    assert_eq!(Measured::get(served.figures, "/healthz"), ok("ok\n"));
    assert!(served.sum("hukilau_connections", &[]) >= 2.0);
    let probe = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    prober.write_all(probe).expect("it is open");
    let mut answer = [0; 12];
    prober.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"HTTP/1.1 503");
    // Probers keep no process alive.
    client.send(8, &farewell.payload);
    served.wait();
}

#[test]
fn a_writer_that_is_told_to_wait_is_counted_and_counted_again_when_it_may_go_on() {
    let served = Measured::start(
        &[],
        r#"
        local net = require("@huki/net")
        local server = net.serve({ port = 0, websocket = {
            message = function(ws)
                local sent = 0
                repeat sent += 1 until not ws:send(string.rep("x", 65_000))
                ws:send(`{sent + 1}`)
            end,
        } })
        print(server.port)
    "#,
    );
    let stream = TcpStream::connect(("127.0.0.1", served.port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let (mut client, head) = Client::upgrade(stream, "/", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.text("go");
    while served.sum("hukilau_pressure_total", &[]) == 0.0 {}
    while client.receive().payload.len() == 65_000 {}
    while served.sum("hukilau_pressure_relieved_total", &[]) == 0.0 {}
    assert_eq!(served.sum("hukilau_pressure_total", &[]), 1.0);
    drop(client);
    served.end();
}

/// Of two workers one has nothing left to do long before the other.
#[test]
fn probes_are_answered_until_the_last_of_all_workers_has_come_to_its_end() {
    let served = Measured::start(&["--workers", "2"], SCRIPT);
    let ready = ok("2 of 2 workers serve\n");
    while Measured::get(served.figures, "/readyz") != ready {}
    let stream = TcpStream::connect(("127.0.0.1", served.port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let (mut client, head) = Client::upgrade(stream, "/", "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    served.signal();
    let farewell = client.receive();
    assert_eq!(farewell.payload[..2], 1001_u16.to_be_bytes());
    let probe = || {
        let (status, body) = Measured::get(served.figures, "/readyz");
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        body
    };
    // One worker has said goodbye; the other may hear of the signal a moment later.
    while probe() != "0 of 2 workers serve\n" {}
    // The system gives each worker its share of them.
    for _ in 0..200 {
        assert_eq!(probe(), "0 of 2 workers serve\n");
    }
    client.send(8, &farewell.payload);
    served.wait();
}

fn ok(body: &str) -> (String, String) {
    ("HTTP/1.1 200 OK".to_owned(), body.to_owned())
}

#[test]
fn figures_keep_no_process_alive_and_wrong_addresses_are_refused() {
    let child = huki(&["run", "--metrics", "0", "-"]);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for wrong in ["x", "1.2.3.4", "70000", "localhost:80"] {
        let output = huki(&["run", "--metrics", wrong, "-"])
            .wait_with_output()
            .expect("it ends");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
