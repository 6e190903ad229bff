//! Every bound of the house: its name, its unit, its default, and whose precedent it follows.
//!
//! Sits at the bottom; everything that can grow or last reads its bound here. A number that guards
//! memory or time and is not in this file is a bug.
//!
//! Invariants
//! - [`Limits::check`] has passed before a reactor runs, so code may rely on the order of marks.
//!
//! Not here: what an application may configure beside limits (`server.rs`).

use core::{fmt, time::Duration};

/// The bounds of one reactor. [`Limits::default`] is safe on the open internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and fields together. Default 16 KiB, at most 65,535 (offsets into a
    /// head are 16-bit). Node 16 KiB, nginx 4 × 8 KiB, Apache about 8 KiB a line. Over it: 431.
    pub head_bytes_max: u32,
    /// Bytes of a request-target. Default 8,000, which RFC 9112 §3 asks for at least. Over it: 414.
    pub target_bytes_max: u32,
    /// Field lines of one head. Default 100; hyper and Apache agree. Over it: 431.
    pub fields_max: u16,
    /// Requests parsed ahead of their answers on one connection. Default 16, at most 64; 1 forbids
    /// pipelining. At the bound the connection is not read.
    pub exchanges_in_flight_max: u8,
    /// Bytes of a collected body. Default 1 MiB; streamed bodies are unbounded. Over it: 413.
    pub body_bytes_max: u64,
    /// Framing (chunk sizes, extensions, trailers) a body may spend before its data earns more,
    /// 4:1. Default 16 KiB. A flat limit would refuse long honest bodies; picohttpparser allows
    /// 100 KB, then demands a ratio.
    pub chunk_framing_bytes_max: u32,
    /// Bytes of one WebSocket message, assembled and inflated. Default 16 MiB. Over it: 1009.
    pub message_bytes_max: u32,
    /// Fragments of one message before its bytes must have earned more, one for each 16 bytes.
    /// Default 1,024. Guards against endless empty continuation frames. Over it: 1008.
    pub fragments_max: u32,
    /// Unsent bytes above which a connection is not read and `send` answers `Pressure::High`.
    /// Default 64 KiB.
    pub out_bytes_high: u32,
    /// Unsent bytes below which `Writable` is reported again. Default 16 KiB.
    pub out_bytes_low: u32,
    /// Unsent bytes above which the connection is cut: the peer does not read. Default 16 MiB.
    /// One message or response may pass it; what comes while it waits may not.
    pub out_bytes_max: u32,
    /// Bytes of a topic's name. Default 255.
    pub topic_bytes_max: u16,
    /// Topics that one connection may be subscribed to. Default 256.
    pub topics_per_connection_max: u16,
    /// Bytes read from one connection before the next ready one has its turn. Default 64 KiB and
    /// 256 bytes, so that a message of 64 KiB comes in one piece with its frame header.
    pub segment_bytes_max: u32,
    /// Connections of one reactor, and of one listener whose own limits say so. Default 65,536. At
    /// the bound, listeners pause.
    pub connections_max: u32,
    /// Connections of one IP address at one listener. Default no bound, as a proxy has one address;
    /// 0 takes nobody in. Over it a connection is closed as soon as it is accepted.
    pub connections_per_ip_max: u32,
    /// Connections accepted in one turn, so that a rush cannot starve those already here.
    /// Default 64.
    pub accepts_per_turn: u16,
    /// Reads of one turn, whatever is ready. Default 128. What they are answered with waits until the
    /// turn ends, so this bounds how much memory a rush takes, and keeps it in the cache.
    pub reads_per_turn: u16,
    /// Heads, chunks and frames taken from one connection in a turn; what is left of its input comes
    /// behind that of others. Default 128, after which tasks of tokio yield, too. 64 KiB hold 10,000
    /// of the smallest, for which nobody else should wait.
    pub steps_per_turn: u16,
    /// TLS handshakes advanced in one turn, as each costs a millisecond of CPU. Default 8;
    /// µSockets 5.
    pub handshakes_per_turn: u16,
    /// Time from the connection to the end of its TLS handshake. Default 10 s; nginx 60 s. Then a
    /// cut and `Deadline::TlsHandshake`.
    pub tls_handshake_timeout: Duration,
    /// Time from the first byte of a head to its last. Default 10 s.
    ///
    /// Guards against peers that trickle a head to hold a connection (slowloris). Raise it for
    /// clients on very slow links; below one round-trip time it will refuse honest ones. A head
    /// that is late ends the connection with 408 and `Deadline::Head`.
    pub head_timeout: Duration,
    /// Time from the last byte of a request of ours to the end of its response's head, interim
    /// responses included. Default 60 s, as nginx gives its upstreams. Then `Deadline::FirstByte`,
    /// or `Deadline::Head` if some of it has come.
    pub response_timeout: Duration,
    /// Time without a byte of a body that is awaited. Default 30 s. Then 408 and `Deadline::Body`.
    pub body_timeout: Duration,
    /// Time an HTTP connection may rest between exchanges. Default 75 s, as nginx. Then a close
    /// without a word (RFC 9112 §9.5) and `Deadline::Idle`.
    pub idle_timeout: Duration,
    /// Time without progress of unsent bytes. Default 30 s. Then a cut and `Deadline::Write`.
    pub write_timeout: Duration,
    /// Time after a close frame or a refusal for the peer to finish its side, during which what it
    /// sends is read and dropped so that it can read our last words. Default 2 s.
    pub linger_timeout: Duration,
    /// Time an application may take to answer an upgrade request, and a server may take to answer
    /// one of ours. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: u32 = 1024;
        Self {
            head_bytes_max: 16 * KIB,
            target_bytes_max: 8_000,
            fields_max: 100,
            exchanges_in_flight_max: 16,
            body_bytes_max: 1024 * 1024,
            chunk_framing_bytes_max: 16 * KIB,
            message_bytes_max: 16 * KIB * KIB,
            fragments_max: 1_024,
            out_bytes_high: 64 * KIB,
            out_bytes_low: 16 * KIB,
            out_bytes_max: 16 * KIB * KIB,
            topic_bytes_max: 255,
            topics_per_connection_max: 256,
            segment_bytes_max: 64 * KIB + 256,
            connections_max: 65_536,
            connections_per_ip_max: u32::MAX,
            accepts_per_turn: 64,
            reads_per_turn: 128,
            steps_per_turn: 128,
            handshakes_per_turn: 8,
            tls_handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// A contradiction between limits, found before a reactor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsError {
    /// The limit to change, by its field name.
    pub limit: &'static str,
    /// What it has to satisfy, as half a sentence.
    pub must: &'static str,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} must {}", self.limit, self.must)
    }
}

impl core::error::Error for LimitsError {}

impl Limits {
    /// Refuses contradictions at start, not at three in the morning.
    ///
    /// # Errors
    /// The first limit that contradicts another or a bound of the implementation.
    pub fn check(&self) -> Result<(), LimitsError> {
        let rules = [
            (
                "head_bytes_max",
                "lie between 128 and 65,535",
                (128..=65_535).contains(&self.head_bytes_max),
            ),
            (
                "target_bytes_max",
                "be at least 1 and below head_bytes_max",
                (1..self.head_bytes_max).contains(&self.target_bytes_max),
            ),
            ("fields_max", "be at least 1", self.fields_max >= 1),
            (
                "exchanges_in_flight_max",
                "lie between 1 and 64",
                (1..=64).contains(&self.exchanges_in_flight_max),
            ),
            (
                "body_bytes_max",
                "be below 2^32, as a collected body has 32-bit offsets",
                u32::try_from(self.body_bytes_max).is_ok(),
            ),
            (
                "chunk_framing_bytes_max",
                "be at least 64",
                self.chunk_framing_bytes_max >= 64,
            ),
            (
                "message_bytes_max",
                "be at least 125",
                self.message_bytes_max >= 125,
            ),
            ("fragments_max", "be at least 1", self.fragments_max >= 1),
            (
                "out_bytes_low",
                "be below out_bytes_high",
                self.out_bytes_low < self.out_bytes_high,
            ),
            (
                "out_bytes_high",
                "be below out_bytes_max",
                self.out_bytes_high < self.out_bytes_max,
            ),
            (
                "segment_bytes_max",
                "be at least 4,096 and at least head_bytes_max",
                self.segment_bytes_max >= 4_096.max(self.head_bytes_max),
            ),
            (
                "connections_max",
                "lie between 1 and 2^24",
                (1..=1 << 24).contains(&self.connections_max),
            ),
            (
                "accepts_per_turn",
                "be at least 1",
                self.accepts_per_turn >= 1,
            ),
            ("reads_per_turn", "be at least 1", self.reads_per_turn >= 1),
            ("steps_per_turn", "be at least 1", self.steps_per_turn >= 1),
            (
                "handshakes_per_turn",
                "be at least 1",
                self.handshakes_per_turn >= 1,
            ),
        ];
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            Some((limit, must, _)) => Err(LimitsError { limit, must }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn the_defaults_do_not_contradict_each_other() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_contradiction_names_the_limit() {
        let limits = Limits {
            out_bytes_low: 70_000,
            ..Limits::default()
        };
        let error = limits.check().expect_err("low is above high");
        assert_eq!(
            error.to_string(),
            "limit out_bytes_low must be below out_bytes_high"
        );
    }
}
