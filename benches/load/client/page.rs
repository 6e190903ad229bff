//! One page, asked for once on a connection of its own: what a script has counted.
//!
//! Not here: what is measured; this is asked before and after.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::STALL;

/// The body of the page at `path`.
///
/// # Errors
/// If the answer is not 200, or does not come.
pub(crate) fn get(port: u16, path: &str) -> Result<String, String> {
    let fail = |error| format!("{path}: {error}");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(fail)?;
    let patience = Duration::from_secs(STALL.tv_sec.unsigned_abs());
    stream.set_read_timeout(Some(patience)).map_err(fail)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    body(&answer)
        .map(str::to_owned)
        .ok_or_else(|| format!("{path}: {answer:?}"))
}

/// The body of a whole answer with status 200.
fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_and_good_answer_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nDate: x\r\n\r\n17"), Some("17"));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\n17"), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\n"), None);
    }
}
