//! Heads to parse. Requests: the shortest sensible one, a browser's, and one with many cookies.
//! Responses: an API's, and a page's behind a cache.
//!
//! The requests have the sizes that peers are compared at: 35 B, about 700 B, about 3 KB. Names,
//! order and kinds of value are what current browsers and servers send; the values are made up.
//!
//! Not here: heads that break a rule, which nobody needs fast.

use std::fmt::Write as _;

/// A head and how tables name it.
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) head: Vec<u8>,
    pub(crate) fields: usize,
}

const SHORT: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

const BROWSER: &str = "GET /articles/2026/11/an-article-with-a-long-name?source=feed&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n";

/// Bytes of cookies in the largest head.
const COOKIE_BYTES: usize = 2400;

/// The three heads of requests.
pub(crate) fn all() -> Vec<Input> {
    let mut cookies = String::new();
    let mut number = 0_u64;
    while cookies.len() < COOKIE_BYTES {
        let separator = if number == 0 { "" } else { "; " };
        let value = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let _ = write!(cookies, "{separator}_id{number}={value:016x}.{value:x}");
        number += 1;
    }
    vec![
        input("35 B", SHORT.to_owned()),
        input("browser", format!("{BROWSER}\r\n")),
        input("cookies", format!("{BROWSER}Cookie: {cookies}\r\n\r\n")),
    ]
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 27\r\n\
    Date: Sat, 21 Nov 2026 11:12:13 GMT\r\n\r\n";

const PAGE: &str = "HTTP/1.1 200 OK\r\n\
    Date: Sat, 21 Nov 2026 11:12:13 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Transfer-Encoding: chunked\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0, private, must-revalidate\r\n\
    ETag: W/\"6f1c2ae7d3b94f0c8a5e7d1b2c3f4a59\"\r\n\
    Vary: Accept-Encoding, Accept, X-Requested-With\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n\
    X-Frame-Options: deny\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: origin-when-cross-origin, strict-origin-when-cross-origin\r\n\
    Content-Security-Policy: default-src 'none'; base-uri 'self'; img-src 'self' data: blob:\r\n\
    Set-Cookie: _session=0fb1a7c29d3e4f58; path=/; secure; HttpOnly; SameSite=Lax\r\n\
    Server: example\r\n\r\n";

/// Two heads of responses.
pub(crate) fn responses() -> Vec<Input> {
    vec![
        input("API", ANSWER.to_owned()),
        input("page", PAGE.to_owned()),
    ]
}

fn input(name: &'static str, head: String) -> Input {
    let fields = head.lines().count() - 2;
    let head = head.into_bytes();
    Input { name, head, fields }
}
