//! What is to be said in a conversation, read off a fuzzer's input. Every input is a plan.
//!
//! Sits beside `conn_pair.rs`, which plays it.

use hukilau_core::http1::token;
use hukilau_core::ws::MessageKind;

pub(crate) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Whole,
    Length,
    Chunked,
}

/// One exchange as it is meant.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) method: &'static [u8],
    pub(crate) target: Vec<u8>,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) manner: Manner,
    /// Whether the client, or the server, says that it is the last.
    pub(crate) closes: (bool, bool),
    pub(crate) status: u16,
    pub(crate) answer_fields: Fields,
    pub(crate) answer: Vec<u8>,
    pub(crate) answer_manner: Manner,
}

/// What one end says on a WebSocket.
pub(crate) type Message = (MessageKind, Vec<u8>);

/// All that is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) exchanges: Vec<Planned>,
    /// Messages of the client and of the server, and whether the server closes first.
    pub(crate) websocket: Option<([Vec<Message>; 2], bool)>,
    pub(crate) deflate: bool,
    pub(crate) collects: bool,
}

/// Plans are read off the front of the input; an end that is not there is zeros.
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// Up to 63 bytes, or many times that.
    fn bytes(&mut self) -> Vec<u8> {
        let what = self.byte();
        let (bytes, rest) = self.0.split_at(self.0.len().min(usize::from(what & 0x3f)));
        self.0 = rest;
        bytes.repeat(match what >> 6 {
            3 => 401,
            2 => 17,
            _ => 1,
        })
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    fn fields(&mut self) -> Fields {
        let count = self.byte() % 4;
        let field = |_| {
            let mut name = b"X-".to_vec();
            name.extend(
                self.bytes()
                    .into_iter()
                    .filter(|byte| token::is_token_byte(*byte)),
            );
            name.truncate(200);
            let mut value = self.bytes();
            value.retain(|byte| token::is_value_byte(*byte));
            value.truncate(1000);
            (name, value.trim_ascii().to_vec())
        };
        (0..count).map(field).collect()
    }
}

impl Plan {
    pub(crate) fn read(from: &mut Source<'_>) -> Self {
        let flags = from.byte();
        let mut plan = Self {
            collects: flags & 1 == 0,
            deflate: flags & 2 == 0,
            ..Self::default()
        };
        for _ in 0..=flags >> 5 {
            let planned = Planned::read(from);
            let is_last = planned.closes != (false, false);
            plan.exchanges.push(planned);
            if is_last {
                return plan;
            }
        }
        if flags & 4 == 0 {
            let mut say = |_| {
                let count = from.byte() % 5;
                let message = |_| match from.byte() & 1 {
                    0 => (MessageKind::Binary, from.bytes()),
                    _ => {
                        let text = String::from_utf8_lossy(&from.bytes()).into_owned();
                        (MessageKind::Text, text.into_bytes())
                    }
                };
                (0..count).map(message).collect()
            };
            plan.websocket = Some(([say(0), say(1)], flags & 8 == 0));
        }
        plan
    }
}

impl Planned {
    fn read(from: &mut Source<'_>) -> Self {
        let methods: [&[u8]; 8] = [
            b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"BREW",
        ];
        let method = from.pick(&methods);
        let mut target = b"/".to_vec();
        target.extend(
            from.bytes()
                .into_iter()
                .filter(|byte| token::is_target_byte(*byte)),
        );
        target.truncate(5000);
        let manners = [Manner::Whole, Manner::Length, Manner::Chunked];
        let closes = from.byte();
        Self {
            method,
            target,
            fields: from.fields(),
            body: from.bytes(),
            manner: from.pick(&manners),
            closes: (closes & 0xf == 0xf, closes & 0xf0 == 0xf0),
            status: from.pick(&[200, 201, 204, 206, 304, 404, 500, 599]),
            answer_fields: from.fields(),
            answer: from.bytes(),
            answer_manner: from.pick(&manners),
        }
    }

    /// What the client must hear of the answer's body.
    pub(crate) fn heard_body(&self) -> &[u8] {
        match self.status {
            _ if self.method == b"HEAD" => b"",
            204 | 304 => b"",
            _ => &self.answer,
        }
    }
}
