//! The table of workloads: what is asked, by how many connections, how much at once, on which
//! cores.
//!
//! A workload fixes everything but the server. Its requests and the answers that are right are
//! bytes made here, so that every peer gets the same ones. "One core" pins server and generator to
//! the same core: no cross-core wake-ups, so the server's own work shows best. "Two cores" gives
//! each its own.
//!
//! Invariants
//! - The answer to a workload is the same bytes from every peer, heads aside.
//! - Connections are few enough for one source address (ports), many enough to batch readiness.
//!
//! Not here: how the bytes are exchanged and checked (`client/`), how often (`rounds.rs`).

use std::fmt::Write as _;

/// Body of the answer to `GET /`.
pub(crate) const HELLO: &str = "Hello, World!";

/// Where the JSON field's value starts in [`json_body`]: servers without a JSON parser cut it out
/// there.
pub(crate) const FIELD_AT: usize = br#"{"message":""#.len();

/// Bytes of the JSON field's value, which is plain ASCII without escapes.
pub(crate) const FIELD_LEN: usize = 64;

/// Bytes of the posted JSON document.
const JSON_LEN: usize = 1024;

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `GET /`, answered by [`HELLO`] as `text/plain`.
    Get,
    /// `POST /field` with 1 KiB of JSON, answered by the value of its field `message` as
    /// `text/plain`.
    PostJson,
    /// A WebSocket message of so many bytes at `/echo`, answered by itself. Text if `binary` is
    /// false.
    Echo { bytes: usize, binary: bool },
    /// A text message of so many bytes that one WebSocket of a room sends; the answers are its
    /// deliveries, one to each socket.
    Room { bytes: usize },
    /// `GET /` with `Connection: close`, each on a connection of its own, from opening to end.
    Churn,
    /// [`Get`](Self::Get) over TLS 1.3, the handshakes done before.
    TlsGet,
}

/// What is measured of the server meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// CPU time per answer, over interleaved rounds.
    CpuTime,
    /// Resident bytes that each of so many idle connections adds, after one exchange on each.
    IdleMemory,
    /// Milliseconds from the start of the program to the first answer.
    Start,
    /// What clients wait at shares of the capacity (`at_rate.rs`).
    Latency,
    /// CPU time and memory by the number of connections (`scale.rs`).
    Scale,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Names it on the command line and in the records.
    pub(crate) name: &'static str,
    /// Heads its table.
    pub(crate) title: &'static str,
    pub(crate) measure: Measure,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    /// Requests or messages sent at once on one connection; the next batch leaves when all are
    /// answered.
    pub(crate) in_flight: u32,
    /// 1: generator and server share a core. 2: one each.
    pub(crate) cores: u8,
}

impl Workload {
    /// The same with so many connections.
    pub(crate) fn of(&self, connections: usize) -> Self {
        Self {
            connections,
            ..*self
        }
    }

    /// Whether it is of so many connections that a glance has no time for it, and that only the peers that are
    /// drawn as lines take part.
    pub(crate) fn is_crowded(&self) -> bool {
        self.measure == Measure::IdleMemory && self.connections > 10_000
    }
}

/// Every workload, in the order of the report.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "get",
        title: "GET, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::Get,
        connections: 64,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "get-2c",
        title: "GET, two cores, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::Get,
        connections: 64,
        in_flight: 1,
        cores: 2,
    },
    Workload {
        name: "get-2c-512",
        title: "GET, two cores, 512 connections",
        measure: Measure::CpuTime,
        kind: Kind::Get,
        connections: 512,
        in_flight: 1,
        cores: 2,
    },
    Workload {
        name: "get-x16",
        title: "GET x16 pipelined, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::Get,
        connections: 64,
        in_flight: 16,
        cores: 1,
    },
    Workload {
        name: "post-json",
        title: "POST 1 KiB JSON, echo a field, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::PostJson,
        connections: 64,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "echo-32",
        title: "WebSocket echo 32 B, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::Echo {
            bytes: 32,
            binary: false,
        },
        connections: 64,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "echo-32-x16",
        title: "WebSocket echo 32 B, 16 in flight, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::Echo {
            bytes: 32,
            binary: false,
        },
        connections: 64,
        in_flight: 16,
        cores: 1,
    },
    Workload {
        name: "echo-64k",
        title: "WebSocket echo 64 KiB binary, one core, 16 connections",
        measure: Measure::CpuTime,
        kind: Kind::Echo {
            bytes: 64 * 1024,
            binary: true,
        },
        connections: 16,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "room-1000",
        title: "Broadcast of 32 B to 1,000, one core, per delivery",
        measure: Measure::CpuTime,
        kind: Kind::Room { bytes: 32 },
        connections: 1000,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "room-100-x16",
        title: "Broadcast to 100, bursts of 16, one core, per delivery",
        measure: Measure::CpuTime,
        kind: Kind::Room { bytes: 32 },
        connections: 100,
        in_flight: 16,
        cores: 1,
    },
    Workload {
        name: "churn",
        title: "Connect, GET, close, one core, 64 at once",
        measure: Measure::CpuTime,
        kind: Kind::Churn,
        connections: 64,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "tls-get",
        title: "GET over TLS 1.3, one core, 64 connections",
        measure: Measure::CpuTime,
        kind: Kind::TlsGet,
        connections: 64,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "idle-http",
        title: "Memory of an idle HTTP connection, of 5,000",
        measure: Measure::IdleMemory,
        kind: Kind::Get,
        connections: 5000,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "idle-ws",
        title: "Memory of an idle WebSocket connection, of 5,000",
        measure: Measure::IdleMemory,
        kind: Kind::Echo {
            bytes: 32,
            binary: false,
        },
        connections: 5000,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "idle-ws-50k",
        title: "Memory of an idle WebSocket connection, of 50,000",
        measure: Measure::IdleMemory,
        kind: Kind::Echo {
            bytes: 32,
            binary: false,
        },
        connections: 50_000,
        in_flight: 1,
        cores: 1,
    },
    Workload {
        name: "start",
        title: "Start of the program to its first answer",
        measure: Measure::Start,
        kind: Kind::Get,
        connections: 1,
        in_flight: 1,
        cores: 1,
    },
    crate::at_rate::WORKLOAD,
    crate::scale::WORKLOAD,
];

/// The posted document: the field first, at [`FIELD_AT`], then members of each JSON type up to 1
/// KiB.
pub(crate) fn json_body() -> String {
    let mut body = format!(
        r#"{{"message":"{}","id":4711,"ratio":0.25,"active":true,"note":null,"items":["#,
        field_value()
    );
    let mut item = 0;
    while body.len() + 60 < JSON_LEN {
        let _ = write!(body, r#"{{"n":{item},"tag":"tag-{item}","on":false}},"#);
        item += 1;
    }
    let closing = r#""]}"#;
    body.push('"');
    while body.len() + closing.len() < JSON_LEN {
        body.push('x');
    }
    body.push_str(closing);
    body
}

/// The value of the field `message`.
pub(crate) fn field_value() -> String {
    (b'0'..=b'9')
        .chain(b'a'..=b'z')
        .map(char::from)
        .cycle()
        .take(FIELD_LEN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_body_is_one_kibibyte_of_json_with_the_field_where_it_is_said_to_be() {
        let body = json_body();
        assert_eq!(body.len(), JSON_LEN);
        assert_eq!(&body[FIELD_AT..FIELD_AT + FIELD_LEN], field_value());
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed["message"], field_value());
    }

    #[test]
    fn workload_names_are_unique() {
        for (index, workload) in WORKLOADS.iter().enumerate() {
            assert!(
                WORKLOADS[index + 1..]
                    .iter()
                    .all(|other| other.name != workload.name)
            );
        }
    }
}
