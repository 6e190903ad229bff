//! Request heads to parse: the shortest sensible one, a browser's, and one with many cookies.
//!
//! Their sizes are those that peers are compared at: 35 B, about 700 B, about 3 KB. Names, order
//! and kinds of value are what current browsers send; the values are made up.
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

/// The three heads.
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

fn input(name: &'static str, head: String) -> Input {
    let fields = head.lines().count() - 2;
    let head = head.into_bytes();
    Input { name, head, fields }
}
