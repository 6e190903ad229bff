//! Requests straight to their server: the pool, bodies, codings, streams, cancelling.

use super::*;

#[test]
fn one_connection_serves_one_request_after_the_other() {
    let mut face = Face::new();
    let script = server(&[
        ("GET /1 ", &ok("one")),
        ("POST /2 ", &ok("two")),
        ("GET /3 ", &ok("")),
    ]);
    face.net.serve(at("10.0.0.1:80"), script);
    face.ask(get("http://10.0.0.1/1"));
    face.run_until_done();
    assert_eq!(face.client.resting(), 1);
    face.ask(post("http://10.0.0.1/2", "x=y"));
    face.run_until_done();
    face.ask(get("http://10.0.0.1/3"));
    assert_eq!(face.run(), "1 200 one\n2 200 two\n3 200 ");
    let heard = face.net.heard();
    assert_eq!(heard.len(), 1);
    let first = format!(
        "GET /1 HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: hukilau/{}\r\nAccept: */*\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(heard[0].starts_with(&first), "{}", heard[0]);
    assert!(
        heard[0].contains("Content-Length: 3\r\n\r\nx=y"),
        "{}",
        heard[0]
    );
}

#[test]
fn a_rush_queues_in_order_for_few_connections() {
    let pool = PoolLimits {
        per_route_max: 2,
        total_max: 3,
        waiting_max: 6,
    };
    let config = ClientConfig {
        pool,
        ..ClientConfig::default()
    };
    let mut face = Face::with(config);
    // Whichever connection gets which request, each is answered by its own target.
    let any: Vec<(&str, String)> = vec![("GET /", ok("hi")); 4];
    let mut script = Script::default();
    for (index, (_, words)) in any.iter().enumerate() {
        script.steps.push_back(Step::AwaitBytes(150 * index + 1));
        script
            .steps
            .push_back(Step::Pause(Duration::from_millis(10)));
        script
            .steps
            .push_back(Step::Send(words.as_bytes().to_vec()));
    }
    face.net.serve(at("10.0.0.1:80"), script.clone());
    face.net.serve(at("10.0.0.2:80"), script);
    for _ in 0..6 {
        face.ask(get("http://10.0.0.1/"));
    }
    for _ in 0..3 {
        face.ask(get("http://10.0.0.2/"));
    }
    assert_eq!(face.client.waiting(), 6);
    let refused = face
        .client
        .request(&mut face.reactor, get("http://10.0.0.1/"));
    let text = refused.expect_err("the queue is full").to_string();
    assert_eq!(text, "more than 6 requests wait for a connection");
    let mut told: Vec<String> = face.run().lines().map(str::to_owned).collect();
    let of_first: Vec<_> = told.iter().filter(|line| line.as_str() < "7").collect();
    for (index, pair) in of_first.chunks(2).enumerate() {
        let mut numbers: Vec<_> = pair.iter().map(|line| &line[..1]).collect();
        numbers.sort_unstable();
        let want = [2 * index + 1, 2 * index + 2].map(|number| number.to_string());
        assert_eq!(numbers, want, "first come, first served");
    }
    told.sort();
    assert_eq!(told.len(), 9);
    assert_eq!(face.connects(), 3);
}

#[test]
fn rfc9110_9_2_2_a_stale_connection_costs_an_idempotent_request_one_repetition() {
    let stale = || leaving(&[("/1 ", &ok("one")), ("/2 ", "")]);
    for (second, want) in [
        (get("http://a.test/2"), "2 200 again"),
        (
            RequestSpec {
                method: b"PUT".to_vec(),
                ..post("http://a.test/2", "body")
            },
            "2 200 again",
        ),
        (
            post("http://a.test/2", "body"),
            "2 failed: a.test closed the connection without a response; it had been kept open, \
             and the request may not be repeated",
        ),
    ] {
        let mut face = Face::new();
        // The first address takes one connection only: the second connection goes elsewhere.
        let first = "10.0.0.1:80".parse().expect("an address");
        face.net
            .name("a.test", Some(Duration::ZERO), Ok([first].into()));
        face.net.serve(at("10.0.0.1:80"), stale());
        face.ask(get("http://a.test/1"));
        face.run_until_done();
        face.net
            .serve_instead(at("10.0.0.1:80"), server(&[("/2 ", &ok("again"))]));
        face.ask(second);
        assert_eq!(face.run(), format!("1 200 one\n{want}"));
    }
}

#[test]
fn a_fresh_connection_that_closes_is_no_reason_to_repeat() {
    let mut face = Face::new();
    face.net.serve(at("10.0.0.1:80"), leaving(&[("GET", "")]));
    face.ask(get("http://10.0.0.1/"));
    assert_eq!(
        face.run(),
        "1 failed: 10.0.0.1 closed the connection without a response"
    );
    assert_eq!(face.connects(), 1);
}

#[test]
fn a_repetition_is_not_repeated() {
    let mut face = Face::new();
    let stale = || leaving(&[("/1 ", &ok("one")), ("/2 ", "")]);
    face.net.serve(at("10.0.0.1:80"), stale());
    face.ask(get("http://10.0.0.1/1"));
    face.ask(get("http://10.0.0.1/1"));
    face.run_until_done();
    assert_eq!(face.client.resting(), 2);
    face.ask(get("http://10.0.0.1/2"));
    let told = face.run();
    assert!(
        told.contains("3 failed: 10.0.0.1 closed the connection"),
        "{told}"
    );
    assert_eq!(face.connects(), 2, "both of them were stale");
}

#[test]
fn rfc9112_9_3_a_connection_that_closes_itself_while_it_rests_is_noticed() {
    let mut face = Face::new();
    face.net
        .serve(at("10.0.0.1:80"), leaving(&[("/1 ", &ok("one"))]));
    face.ask(get("http://10.0.0.1/1"));
    assert_eq!(face.run(), "1 200 one");
    face.net
        .serve_instead(at("10.0.0.1:80"), server(&[("POST /2 ", &ok("two"))]));
    face.ask(post("http://10.0.0.1/2", "x"));
    assert_eq!(face.run(), "2 200 two");
}

#[test]
fn rfc9112_6_3_responses_end_where_they_should() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n\
                   3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: trailer\r\n\r\n";
    let interim = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
        ok("late")
    );
    let script = server(&[
        (
            "HEAD /1 ",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n\r\n",
        ),
        ("DELETE /2 ", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET /3 ",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        ("GET /4 ", chunked),
        ("GET /5 ", &interim),
        ("GET /6 ", "HTTP/1.1 200 OK\r\n\r\nup to the end"),
    ]);
    let mut script = script;
    script.steps.push_back(Step::Close);
    let mut face = Face::new();
    face.net.serve(at("10.0.0.1:80"), script);
    let methods = ["HEAD", "DELETE", "GET", "GET", "GET", "GET"];
    for (index, method) in methods.iter().enumerate() {
        let spec = get(&format!("http://10.0.0.1/{}", index + 1));
        face.ask(RequestSpec {
            method: method.as_bytes().to_vec(),
            ..spec
        });
        face.run_until_done();
    }
    assert_eq!(
        face.run(),
        "1 200 \n2 204 \n3 304 \n4 200 abcde\n5 200 late\n6 200 up to the end"
    );
    assert_eq!(face.connects(), 1);
}

#[test]
fn codings_are_undone_and_their_fields_with_them() {
    // printf 'hello, hello, hello' | gzip -9n
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\xd7\x51\xc8\x40\xa2\x00\x9f\xa1\xca\x09\x13\x00\x00\x00";
    let mut words = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ".to_vec();
    words.extend_from_slice(format!("{}\r\n\r\n", gzip.len()).as_bytes());
    words.extend_from_slice(gzip);
    let script =
        |words: &[u8]| Script::new([Step::AwaitText(b"GET".to_vec()), Step::Send(words.to_vec())]);
    let mut face = Face::new();
    face.net.serve(at("10.0.0.1:80"), script(&words));
    face.ask(get("http://10.0.0.1/"));
    face.ask(RequestSpec {
        decompresses: false,
        ..get("http://10.0.0.1/")
    });
    face.ask(RequestSpec {
        streams: true,
        ..get("http://10.0.0.1/")
    });
    let raw = gzip.escape_ascii().to_string();
    let mut told: Vec<String> = face.run().lines().map(str::to_owned).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "1 200 hello, hello, hello".to_owned(),
            format!("2 200 {raw}"),
            "3 end".to_owned(),
            "3 head 200".to_owned(),
            "3 piece hello, hello, hello".to_owned(),
        ]
    );
    let asked = face.net.heard();
    assert!(!asked[1].contains("Accept-Encoding"), "{}", asked[1]);
}

#[test]
fn bodies_are_sent_whole_by_length_or_in_chunks() {
    let mut face = Face::new();
    let script = server(&[
        ("\r\n\r\nall of it", &ok("1")),
        ("\r\n\r\nfirst, second", &ok("2")),
        ("5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n", &ok("3")),
    ]);
    face.net.serve(at("10.0.0.1:80"), script);
    face.ask(post("http://10.0.0.1/", "all of it"));
    face.run_until_done();
    let pieces = |len| RequestSpec {
        body: RequestBody::Pieces(len),
        ..post("http://10.0.0.1/", "")
    };
    face.upload(pieces(Some(13)), &["first", ", ", "second"]);
    face.run_until_done();
    face.upload(pieces(None), &["first", "", "second"]);
    assert_eq!(face.run(), "1 200 1\n2 200 2\n3 200 3");
    assert_eq!(face.connects(), 1);
}

#[test]
fn a_stream_waits_for_its_consumer() {
    let body = "0123456789".repeat(100_000);
    let mut face = Face::new();
    face.net
        .serve(at("10.0.0.1:80"), server(&[("GET", &ok(&body))]));
    face.eager = false;
    let mut spec = RequestSpec {
        streams: true,
        ..get("http://10.0.0.1/")
    };
    // Silence that we ask for is none.
    spec.timeouts.body = Some(Duration::from_secs(1));
    let key = face.ask(spec);
    let (mut got, mut rounds) = (0, 0);
    while face.client.requests() > 0 {
        // Virtual hours may pass between two pieces.
        let wake_at = face.reactor.now() + Duration::from_secs(3600);
        face.reactor
            .turn(&mut face.inbox, Some(wake_at))
            .expect("no fault");
        let inbox = std::mem::take(&mut face.inbox);
        let mut at_once = 0;
        for completion in inbox.completions() {
            face.client.offer(&mut face.reactor, &completion);
            while let Some(event) = face.client.next_event() {
                if let ClientEvent::Piece { bytes, .. } = event {
                    at_once += bytes.len();
                }
            }
        }
        face.inbox = inbox;
        face.client.handle_time(&mut face.reactor);
        assert!(
            at_once <= 256 * 1024,
            "{at_once} bytes for a consumer who asked once"
        );
        got += at_once;
        rounds += 1;
        face.client.resume(&mut face.reactor, key);
    }
    assert_eq!(got, body.len());
    assert!(rounds > 4, "{rounds} rounds");
    face.run();
}

#[test]
fn a_request_may_be_cancelled_at_any_time() {
    for turns in 0..8 {
        let mut config = ClientConfig::default();
        config.pool.per_route_max = 1;
        let mut face = Face::with(config);
        let address = "10.0.0.1:80".parse().expect("an address");
        face.net.name(
            "a.test",
            Some(Duration::from_millis(1)),
            Ok([address].into()),
        );
        let body = "x".repeat(300_000);
        face.net
            .serve(at("10.0.0.1:80"), server(&[("GET", &ok(&body))]));
        let key = face.ask(get("http://a.test/first"));
        face.ask(get("http://a.test/second"));
        for _ in 0..turns {
            face.turn().expect("something happens");
        }
        let was_done = face.client.requests() < 2;
        face.client.cancel(&mut face.reactor, key);
        let told = face.run();
        let others: Vec<_> = told
            .lines()
            .filter(|line| line.starts_with("2 200 xxx"))
            .collect();
        assert_eq!(others.len(), 1, "after {turns} turns: {}", told.len());
        assert_eq!(told.contains("1 200"), was_done, "after {turns} turns");
    }
}

#[test]
fn whatever_the_network_is_like_every_request_has_its_answer() {
    for seed in 0..60 {
        let mut config = ClientConfig::default();
        config.pool.per_route_max = 3;
        let mut face = Face::over(seed, SimOptions::tricky(), config);
        // Twelve answers on each connection, each by the number of the request before it.
        let lengths = [0, 1, 5_000, 70_000];
        let mut script = Script::default();
        for (index, len) in lengths.iter().cycle().take(12).enumerate() {
            // Every request here is as long as every other.
            let request = request_len();
            script
                .steps
                .push_back(Step::AwaitBytes(request * (index + 1)));
            script
                .steps
                .push_back(Step::Send(ok(&"y".repeat(*len)).into_bytes()));
        }
        face.net.serve(at("10.0.0.1:80"), script);
        for _ in 0..12 {
            face.ask(get("http://10.0.0.1/"));
        }
        let told = face.run();
        let whole = |line: &&str| {
            let body = line.split(' ').nth(2).unwrap_or_default();
            line.contains(" 200 ") && lengths.contains(&body.len())
        };
        let count = told.lines().filter(whole).count();
        assert_eq!(count, 12, "seed {seed}: {}", face.net.last_lines(20));
        assert!(face.connects() <= 3, "seed {seed}");
    }
}

/// Bytes of a plain `GET` of `http://10.0.0.1/`.
fn request_len() -> usize {
    let mut face = Face::new();
    face.net
        .serve(at("10.0.0.1:80"), server(&[("\r\n\r\n", &ok(""))]));
    face.ask(get("http://10.0.0.1/"));
    face.run();
    face.net.heard()[0].len()
}
