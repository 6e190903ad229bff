//! Every rule a peer can break, in one table: what we answer and where the rule is written.
//!
//! Sits at the bottom: parsers, framers and drivers all return [`Violation`], so the answer on the
//! wire, the completion's cause and the metric's label can never drift apart.
//!
//! Invariants
//! - A violation is one byte and `Copy`: reporting one allocates nothing.
//! - It is always the *peer's* fault. What the caller broke is `conn::Misuse`; what the system
//!   refused is an `io::Error`.
//!
//! Not here: deadlines (`conn::Deadline`), which no rule of a protocol names.

use core::fmt;

/// Declares the variants with their status, close code, section and sentence, so that no row can
/// be forgotten in one of four matches.
macro_rules! violations {
    ($( $(#[$doc:meta])* $name:ident: $status:literal, $code:literal, $section:literal, $rule:literal; )*) => {
        /// A rule of HTTP/1.1 or of WebSocket that the peer broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Violation {
            $( $(#[$doc])* $name, )*
        }

        impl Violation {
            /// All of them, in the table's order; for tests and for metric labels.
            pub const ALL: &'static [Violation] = &[ $( Violation::$name, )* ];

            /// The HTTP status a server answers with before it closes; 0 after an upgrade, when
            /// only [`close_code`](Self::close_code) can be sent.
            pub const fn status(self) -> u16 {
                match self { $( Self::$name => $status, )* }
            }

            /// The WebSocket close code sent before closing; 0 where the connection speaks HTTP.
            pub const fn close_code(self) -> u16 {
                match self { $( Self::$name => $code, )* }
            }

            /// Where the rule is written down.
            pub const fn section(self) -> &'static str {
                match self { $( Self::$name => $section, )* }
            }

            /// The broken rule as half a sentence, for logs and close reasons. Never longer than
            /// the 123 bytes that a close frame has for it.
            pub const fn rule(self) -> &'static str {
                match self { $( Self::$name => $rule, )* }
            }

            /// The variant's name, for logs, transcripts and metric labels.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }
        }
    };
}

violations! {
    /// The method is empty or has a byte outside `tchar`.
    Method: 400, 0, "RFC 9112 §3.1", "malformed method";
    /// The request-target is empty, has a byte no URI has, or is of a form its method forbids.
    Target: 400, 0, "RFC 9112 §3.2", "malformed request-target";
    /// The request line alone is longer than `Limits::target_bytes_max` allows.
    TargetTooLong: 414, 0, "RFC 9110 §15.5.15", "request-target too long";
    /// What stands where `HTTP/1.1` should is not a version.
    Version: 400, 0, "RFC 9112 §2.3", "malformed HTTP version";
    /// A well-formed version whose major number is not 1; also the HTTP/2 preface.
    VersionUnsupported: 505, 0, "RFC 9110 §15.6.6", "HTTP version not supported";
    /// The status line of a response is malformed.
    StatusLine: 400, 0, "RFC 9112 §4", "malformed status line";
    /// A bare CR or a bare LF where a line should end with CRLF.
    LineEnding: 400, 0, "RFC 9112 §2.2", "line not ended by CRLF";
    /// A field name is empty or has a byte outside `tchar`.
    FieldName: 400, 0, "RFC 9112 §5.1", "malformed field name";
    /// White space between a field name and its colon.
    SpaceBeforeColon: 400, 0, "RFC 9112 §5.1", "space before colon";
    /// A field line that begins with white space: obsolete line folding.
    LineFolding: 400, 0, "RFC 9112 §5.2", "folded field line";
    /// NUL or another control byte in a field value.
    FieldValue: 400, 0, "RFC 9110 §5.5", "control byte in field value";
    /// More field lines than `Limits::fields_max`.
    TooManyFields: 431, 0, "RFC 6585 §5", "too many fields";
    /// A head longer than `Limits::head_bytes_max`.
    HeadTooLarge: 431, 0, "RFC 6585 §5", "head too large";
    /// HTTP/1.1 without `Host`.
    HostMissing: 400, 0, "RFC 9112 §3.2", "no Host";
    /// More than one `Host`.
    HostRepeated: 400, 0, "RFC 9112 §3.2", "more than one Host";
    /// `Host` is not `uri-host [":" port]`.
    HostInvalid: 400, 0, "RFC 9112 §3.2", "malformed Host";
    /// `Content-Length` is not a plain decimal number that fits in 63 bits.
    ContentLength: 400, 0, "RFC 9110 §8.6", "malformed Content-Length";
    /// `Content-Length` twice, or as a list, even with equal values.
    ContentLengthRepeated: 400, 0, "RFC 9110 §8.6", "repeated Content-Length";
    /// `Content-Length` beside `Transfer-Encoding`.
    FramingConflict: 400, 0, "RFC 9112 §6.1", "both Content-Length and Transfer-Encoding";
    /// `Transfer-Encoding` in HTTP/1.0.
    TransferEncodingVersion: 400, 0, "RFC 9112 §6.1", "Transfer-Encoding in HTTP/1.0";
    /// `Transfer-Encoding` whose list is malformed or does not end in a single `chunked`.
    TransferEncoding: 400, 0, "RFC 9112 §6.3", "final transfer coding is not chunked";
    /// A transfer coding other than `chunked`.
    TransferCodingUnknown: 501, 0, "RFC 9112 §6.1", "transfer coding not implemented";
    /// `Expect` with anything but `100-continue`.
    Expectation: 417, 0, "RFC 9110 §10.1.1", "expectation not supported";
    /// `CONNECT`: there are no tunnels here, and a 2xx would promise one.
    Connect: 501, 0, "RFC 9110 §9.3.6", "tunnels are not implemented";
    /// `Connection` or `Upgrade` is no list of tokens.
    Connection: 400, 0, "RFC 9110 §7.6.1", "malformed Connection";
    /// A body longer than `Limits::body_bytes_max` where bodies are collected.
    BodyTooLarge: 413, 0, "RFC 9110 §15.5.14", "body too large";
    /// A chunk-size that is empty or has a byte that is no hexadecimal digit.
    ChunkSize: 400, 0, "RFC 9112 §7.1", "malformed chunk-size";
    /// A chunk-size of more than 15 digits.
    ChunkSizeTooLong: 400, 0, "RFC 9112 §7.1", "chunk-size too long";
    /// A chunk extension that the grammar does not allow.
    ChunkExtension: 400, 0, "RFC 9112 §7.1.1", "malformed chunk extension";
    /// A chunk or its size line not ended by CRLF.
    ChunkLineEnding: 400, 0, "RFC 9112 §7.1", "chunk not ended by CRLF";
    /// More framing (sizes, extensions, trailers) than the data of the body has earned.
    ChunkFraming: 400, 0, "RFC 9112 §7.1.1", "more chunk framing than data";
    /// A trailer field that is malformed.
    Trailer: 400, 0, "RFC 9112 §7.1.2", "malformed trailer field";
    /// The peer stopped sending inside a message.
    Incomplete: 400, 0, "RFC 9112 §8", "incomplete message";
    /// A server stopped sending inside the body of a response. Never answered.
    BodyIncomplete: 400, 0, "RFC 9112 §8", "incomplete body";
    /// A server sent what nobody had asked for. Never answered, as only requests are.
    Unsolicited: 400, 0, "RFC 9112 §9.3", "response without a request";
    /// A WebSocket handshake with another method than GET.
    WebSocketMethod: 405, 0, "RFC 6455 §4.1", "WebSocket handshake is not a GET";
    /// A WebSocket handshake of another version than 13.
    WebSocketVersion: 426, 0, "RFC 6455 §4.4", "WebSocket version not supported";
    /// A WebSocket handshake that lacks a field, repeats one, or has a malformed one.
    WebSocketHandshake: 400, 0, "RFC 6455 §4.2.1", "malformed WebSocket handshake";

    /// A reserved bit without the extension that gives it a meaning.
    ReservedBit: 0, 1002, "RFC 6455 §5.2", "reserved bit set";
    /// An opcode that is reserved.
    Opcode: 0, 1002, "RFC 6455 §5.2", "reserved opcode";
    /// A client's frame without a mask, or a server's with one.
    Masking: 0, 1002, "RFC 6455 §5.1", "wrong masking";
    /// A control frame with FIN clear.
    ControlFragmented: 0, 1002, "RFC 6455 §5.5", "fragmented control frame";
    /// A control frame of more than 125 bytes.
    ControlTooLong: 0, 1002, "RFC 6455 §5.5", "control frame too long";
    /// A payload length with the top bit set.
    FrameLength: 0, 1002, "RFC 6455 §5.2", "frame length out of range";
    /// A payload length written in more bytes than it needs.
    FrameLengthNotMinimal: 0, 1002, "RFC 6455 §5.2", "frame length not minimal";
    /// A continuation frame with no message to continue.
    ContinuationUnexpected: 0, 1002, "RFC 6455 §5.4", "continuation without a message";
    /// A new data frame inside a fragmented message.
    ContinuationExpected: 0, 1002, "RFC 6455 §5.4", "new message inside a fragmented one";
    /// A close frame whose payload is one byte.
    ClosePayload: 0, 1002, "RFC 6455 §5.5.1", "close payload of one byte";
    /// A close code that may not be sent.
    CloseCode: 0, 1002, "RFC 6455 §7.4", "invalid close code";
    /// A close reason that is not UTF-8.
    CloseReason: 0, 1007, "RFC 6455 §5.5.1", "close reason is not UTF-8";
    /// A text message that is not UTF-8, found as soon as it can be known.
    TextNotUtf8: 0, 1007, "RFC 6455 §8.1", "text is not UTF-8";
    /// A message longer than `Limits::message_bytes_max`, before or after inflating.
    MessageTooLarge: 0, 1009, "RFC 6455 §7.4.1", "message too large";
    /// More fragments in one message than its bytes have earned.
    TooManyFragments: 0, 1008, "RFC 6455 §10.4", "too many fragments";
    /// Compressed data that does not inflate.
    Inflate: 0, 1007, "RFC 7692 §7.2.2", "compressed data is corrupt";
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.rule(), self.section())
    }
}

impl core::error::Error for Violation {}

const _: () = assert!(size_of::<Violation>() == 1);

#[cfg(test)]
mod tests {
    use super::Violation;

    #[test]
    fn each_violation_is_answered_in_exactly_one_protocol() {
        for violation in Violation::ALL {
            let http = matches!(violation.status(), 400..=599);
            let websocket = matches!(violation.close_code(), 1002..=1011);
            assert!(http != websocket, "{violation:?}");
            assert!(violation.section().starts_with("RFC "), "{violation:?}");
            assert!(violation.rule().len() <= 123, "{violation:?}");
        }
    }
}
