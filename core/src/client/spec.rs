//! What a request is made of, and what comes of it.
//!
//! Sits in the client's face: plain values, owned, because a request outlives the call that made it
//! and a response the inbox that brought it.
//!
//! Invariants
//! - A [`RequestKey`] is never used again.
//! - Every request that was taken ends in exactly one of `Response`, `End`, `Opened` and `Failed`,
//!   unless it is cancelled.
//!
//! Not here: how a request comes to its connection (`client.rs`); why it fails (`error.rs`).

use super::error::ClientError;
use super::proxy::Proxy;
use super::redirect::RedirectMethod;
use crate::buffer::Span;
use crate::conn::WsSettings;
use crate::http1;
use crate::reactor::conns::ConnKey;
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTls;
use crate::url::absolute::Url;
use core::time::Duration;
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;

/// Names a request for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(pub(super) u64);

/// A request to send. [`RequestSpec::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct RequestSpec {
    /// Any token, in its case. Default `GET`.
    pub method: Vec<u8>,
    /// Of whom. Its credentials become `Authorization`, unless that is given.
    pub url: Url,
    /// Names and values, in order. A `Host` replaces the URL's. What delimits messages, and
    /// `Expect`, is refused; `Connection` may be `close`.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of fields that are not to be added where they are missing: `User-Agent`, `Accept`,
    /// `Accept-Encoding`.
    pub omitted: Vec<Vec<u8>>,
    /// The body. Default none.
    pub body: RequestBody,
    /// Use a connection that has been kept, and keep it. Default true; else the request has one of
    /// its own, beside the pool, and says `Connection: close` (RFC 9112 §9.6).
    pub keeps_alive: bool,
    /// Deliver the response's body piece by piece, no faster than they are taken.
    pub streams: bool,
    /// Ask for content codings and undo them. Default true.
    pub decompresses: bool,
    /// Redirects to follow. Default 10; with 0 they are answers like others.
    pub redirects_max: u32,
    /// What they make of the method. Default as RFC 9110 has it.
    pub redirect_method: RedirectMethod,
    /// The most bytes of a response's body, before and after decoding. Default 64 MiB; `None` is
    /// for streams.
    pub body_bytes_max: Option<u64>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Through whom. Default: as the client is configured.
    pub proxy: ProxyChoice,
    /// Whom to trust, and who we are, where that differs from the client's. It does not follow a
    /// redirect to another origin.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<ClientTls>>,
    /// Ask for a WebSocket, by a `GET`; body, redirects and the options of responses mean nothing
    /// then.
    pub websocket: Option<WebSocketSpec>,
}

impl RequestSpec {
    /// A `GET` of `url`.
    pub fn new(url: Url) -> Self {
        Self {
            method: b"GET".to_vec(),
            url,
            fields: Vec::new(),
            omitted: Vec::new(),
            body: RequestBody::None,
            keeps_alive: true,
            streams: false,
            decompresses: true,
            redirects_max: 10,
            redirect_method: RedirectMethod::Standard,
            body_bytes_max: Some(64 * 1024 * 1024),
            timeouts: Timeouts::default(),
            proxy: ProxyChoice::Configured,
            #[cfg(feature = "tls")]
            tls: None,
            websocket: None,
        }
    }

    /// Whether a field with this name is to be added.
    pub(super) fn lacks(&self, name: &str) -> bool {
        let is_it = |known: &Vec<u8>| known.eq_ignore_ascii_case(name.as_bytes());
        self.field(name).is_none() && !self.omitted.iter().any(is_it)
    }

    /// The value of the first field with this name.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let is_it = |known: &[u8]| known.eq_ignore_ascii_case(name.as_bytes());
        let found = self.fields.iter().find(|(known, _)| is_it(known));
        found.map(|(_, value)| &value[..])
    }
}

/// What a WebSocket is asked with. RFC 6455 §4.1.
#[derive(Clone, Debug)]
pub struct WebSocketSpec {
    /// Subprotocols, the favourite first.
    pub protocols: Vec<Vec<u8>>,
    /// How it is to behave; its role must be the client's.
    pub settings: Rc<WsSettings>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// None.
    None,
    /// All of it; it can be sent again.
    Whole(Vec<u8>),
    /// It follows by [`write_body`](super::Client::write_body): this many bytes, or chunks if that
    /// is not known. It cannot be sent again.
    Pieces(Option<u64>),
}

/// Who stands in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// Whom the client's configuration names for the URL.
    #[default]
    Configured,
    /// Nobody.
    Direct,
    /// This one, whatever the URL.
    Through(Proxy),
}

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name. Default 10 s.
    pub resolve: Duration,
    /// For the connection, once addresses are known; and again for a proxy's answer. Default 10 s.
    pub connect: Duration,
    /// For the TLS handshake. Default 10 s.
    pub tls: Duration,
    /// From the request's end to the end of the response's head. Default 60 s.
    pub first_byte: Option<Duration>,
    /// Silence within the response's body, as long as it is wanted. Default 60 s.
    pub body: Option<Duration>,
    /// For everything, redirects and waiting for a connection included; of a stream, for
    /// everything up to the head. Default none.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            first_byte: Some(Duration::from_secs(60)),
            body: Some(Duration::from_secs(60)),
            total: None,
        }
    }
}

/// The head of a response, kept.
#[derive(Clone, Debug)]
pub struct ClientResponse {
    /// The status, 200 to 999; 101 of a WebSocket.
    pub status: u16,
    /// Who answered: the URL behind all redirects.
    pub url: Url,
    reason: Span,
    bytes: Vec<u8>,
    fields: Vec<(Span, Span)>,
}

impl ClientResponse {
    pub(super) fn new(response: &http1::Response<'_>, url: Url) -> Self {
        let mut bytes = response.reason().to_vec();
        let reason = Span::new(0..bytes.len());
        let mut keep = |text: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(text);
            Span::new(start..bytes.len())
        };
        let fields = response.fields();
        let fields = fields.map(|(name, value)| (keep(name), keep(value)));
        Self {
            status: response.head().status,
            url,
            fields: fields.collect(),
            reason,
            bytes,
        }
    }

    /// The reason phrase as sent; often empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.bytes)
    }

    /// Names and values in wire order. Where a coding was undone, the fields that spoke of the
    /// coded content (`Content-Encoding`, `Content-Length`) are gone.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (name.of(&self.bytes), value.of(&self.bytes)))
    }

    /// The values of all fields with this name, compared without case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let is_it = move |known: &[u8]| known.eq_ignore_ascii_case(name.as_bytes());
        let found = self.fields().filter(move |(known, _)| is_it(known));
        found.map(|(_, value)| value)
    }

    /// Forgets the fields that spoke of coded content.
    pub(super) fn forget_coding(&mut self) {
        let bytes = &self.bytes;
        self.fields.retain(|(name, _)| {
            let is = |known: &str| name.of(bytes).eq_ignore_ascii_case(known.as_bytes());
            !is("content-encoding") && !is("content-length")
        });
    }
}

/// What became of a request, or comes of it meanwhile.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The response is here, whole: the request is done.
    Response {
        /// Whose.
        key: RequestKey,
        /// Its head.
        response: Box<ClientResponse>,
        /// Its body, decoded.
        body: Vec<u8>,
    },
    /// The head of a streamed response. Pieces follow.
    Head {
        /// Whose.
        key: RequestKey,
        /// The head.
        response: Box<ClientResponse>,
    },
    /// Part of a streamed body, decoded. No more is read until
    /// [`resume`](super::Client::resume); what has been read already may follow all the same.
    Piece {
        /// Whose.
        key: RequestKey,
        /// At least one byte.
        bytes: Vec<u8>,
    },
    /// A streamed body is complete: the request is done.
    End {
        /// Whose.
        key: RequestKey,
    },
    /// The server has agreed to a WebSocket: the request is done, and the connection is the
    /// application's from here on.
    Opened {
        /// Whose.
        key: RequestKey,
        /// Its completions are not the client's any more.
        conn: ConnKey,
        /// The 101.
        response: Box<ClientResponse>,
    },
    /// There is room for pieces of the request's body.
    WantsBody {
        /// Whose.
        key: RequestKey,
    },
    /// It came to nothing: the request is done.
    Failed {
        /// Whose.
        key: RequestKey,
        /// Why.
        error: ClientError,
    },
}

impl ClientEvent {
    /// Whose it is.
    pub fn key(&self) -> RequestKey {
        match self {
            Self::Response { key, .. }
            | Self::Head { key, .. }
            | Self::Piece { key, .. }
            | Self::End { key }
            | Self::Opened { key, .. }
            | Self::WantsBody { key }
            | Self::Failed { key, .. } => *key,
        }
    }
}
