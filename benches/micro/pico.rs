//! picohttpparser through its C interface, compiled with SSE4.2 (so x86-64 only) from the sources
//! that `picohttpparser-sys` holds.
//!
//! The array of headers is kept between calls, as a C program would: the parser writes an entry
//! before it counts it.
//!
//! Not here: an idiomatic binding; this is a yardstick.

use std::ffi::{c_char, c_int};
use std::ptr;

use picohttpparser_sys::{phr_header, phr_parse_request, phr_parse_response};

use crate::request_head::{FIELDS_MAX, Found};

/// The parser's working memory.
pub(crate) struct Parser {
    headers: [phr_header; FIELDS_MAX],
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self {
            headers: [phr_header::default(); FIELDS_MAX],
        }
    }

    /// Head length and number of fields.
    #[expect(unsafe_code, reason = "the yardstick is a C function")]
    pub(crate) fn parse(&mut self, head: &[u8]) -> Found {
        let (mut method, mut path): (*const c_char, *const c_char) = (ptr::null(), ptr::null());
        let (mut method_len, mut path_len, mut minor_version): (usize, usize, c_int) = (0, 0, 0);
        let mut count = self.headers.len();
        // SAFETY: `head` is valid for `head.len()` bytes and `headers` for `count` entries; every
        // out-pointer is to a live local. The parser reads only within the former and writes at
        // most `count` entries of the latter. What it stores points into `head` and is never read
        // here.
        let len = unsafe {
            phr_parse_request(
                head.as_ptr().cast(),
                head.len(),
                &raw mut method,
                &raw mut method_len,
                &raw mut path,
                &raw mut path_len,
                &raw mut minor_version,
                self.headers.as_mut_ptr(),
                &raw mut count,
                0,
            )
        };
        Some((usize::try_from(len).ok()?, count))
    }

    /// Length and number of fields of the head of a response.
    #[expect(unsafe_code, reason = "the yardstick is a C function")]
    pub(crate) fn parse_response(&mut self, head: &[u8]) -> Found {
        let mut message: *const c_char = ptr::null();
        let (mut message_len, mut minor_version, mut status): (usize, c_int, c_int) = (0, 0, 0);
        let mut count = self.headers.len();
        // SAFETY: as in `parse`.
        let len = unsafe {
            phr_parse_response(
                head.as_ptr().cast(),
                head.len(),
                &raw mut minor_version,
                &raw mut status,
                &raw mut message,
                &raw mut message_len,
                self.headers.as_mut_ptr(),
                &raw mut count,
                0,
            )
        };
        Some((usize::try_from(len).ok()?, count))
    }
}
