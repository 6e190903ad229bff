//! The words behind an opening fence: which end we are, limits, how the application behaves.

use crate::frames;
use crate::notation::{Step, http_steps, unescape};
use hukilau_core::conn::WsSettings;
use hukilau_core::http1::Method;
use hukilau_core::limits::Limits;
use hukilau_core::ws::Role;
use hukilau_core::ws::deflate::{DeflateOffer, DeflateParams, DeflateSettings};
use hukilau_core::ws::extension::extensions;

/// How the connection of a case is set up, and what its application does.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The connection begins as a WebSocket.
    pub(crate) is_websocket: bool,
    /// The input are responses, and no connection reads them but the parser.
    pub(crate) is_responses: bool,
    /// The input is what a server sends to a client of ours that has asked once.
    pub(crate) is_client: bool,
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    /// Bodies come as they come.
    pub(crate) stream_bodies: bool,
    /// Whether upgrades are looked at.
    pub(crate) websocket: bool,
    /// The status each request is answered with once it is whole; none: no answer.
    pub(crate) answer: Option<u16>,
    /// The body of those answers.
    pub(crate) body: Vec<u8>,
    /// Upgrades are accepted, with this subprotocol if it is not empty.
    pub(crate) accept: Option<String>,
    /// The log shows the fields of requests.
    pub(crate) shows_fields: bool,
    /// permessage-deflate is on, and these parameters are offered by a client or answered by a
    /// server, behind the extension's name.
    pub(crate) deflate: Option<String>,
    /// Whether our settings keep the contexts of compression from message to message.
    pub(crate) context_takeover: bool,
    /// How many steps the driver may take at a time; none: as many as it likes.
    pub(crate) steps: Option<u16>,
    /// The method of the requests that responses answer.
    pub(crate) method: Method,
    /// The same as it is sent.
    pub(crate) method_name: String,
}

impl Settings {
    pub(crate) fn parse(language: &str, info: &str) -> Result<Self, String> {
        let mut settings = Self {
            is_websocket: language == "ws",
            is_responses: language == "response",
            is_client: language == "client",
            role: Role::Server,
            limits: Limits::default(),
            stream_bodies: false,
            websocket: true,
            answer: Some(200),
            body: Vec::new(),
            accept: None,
            shows_fields: false,
            steps: None,
            deflate: None,
            context_takeover: false,
            method: Method::Get,
            method_name: "GET".to_owned(),
        };
        if !matches!(language, "http" | "response" | "client" | "ws") {
            return Err(format!("no such input: {language}"));
        }
        for word in info.split_whitespace() {
            settings
                .set(word)
                .ok_or_else(|| format!("no such setting: {word}"))?;
        }
        settings.limits.check().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    fn set(&mut self, word: &str) -> Option<()> {
        match word.split_once('=') {
            None => match word {
                "server" => self.role = Role::Server,
                "client" if self.is_websocket => self.role = Role::Client,
                "stream-bodies" => self.stream_bodies = true,
                "no-websocket" => self.websocket = false,
                "accept" => self.accept = Some(String::new()),
                "fields" => self.shows_fields = true,
                "deflate" => self.deflate = Some(String::new()),
                "context-takeover" => self.context_takeover = true,
                _ => return None,
            },
            Some(("answer", "none")) => self.answer = None,
            Some(("answer", status)) => self.answer = Some(status.parse().ok()?),
            Some(("body", body)) => self.body = unescape(body).ok()?,
            Some(("method", method)) => {
                self.method = Method::of(method.as_bytes());
                self.method_name = method.to_owned();
            }
            Some(("deflate", params)) => self.deflate = Some(format!(";{params}")),
            Some(("accept", protocol)) => self.accept = Some(protocol.to_owned()),
            Some((limit, value)) => {
                return self.set_limit(limit.strip_prefix("limits.")?, value);
            }
        }
        Some(())
    }

    fn set_limit(&mut self, limit: &str, value: &str) -> Option<()> {
        let limits = &mut self.limits;
        match limit {
            "head_bytes_max" => limits.head_bytes_max = value.parse().ok()?,
            "target_bytes_max" => limits.target_bytes_max = value.parse().ok()?,
            "fields_max" => limits.fields_max = value.parse().ok()?,
            "exchanges_in_flight_max" => limits.exchanges_in_flight_max = value.parse().ok()?,
            "body_bytes_max" => limits.body_bytes_max = value.parse().ok()?,
            "chunk_framing_bytes_max" => limits.chunk_framing_bytes_max = value.parse().ok()?,
            "message_bytes_max" => limits.message_bytes_max = value.parse().ok()?,
            "fragments_max" => limits.fragments_max = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    /// How the WebSockets of the case behave.
    pub(crate) fn websocket_rules(&self) -> WsSettings {
        let mut rules = WsSettings::new(self.role, &self.limits);
        rules.deflate = self.deflate.as_ref().map(|_| self.deflate_settings());
        rules
    }

    fn deflate_settings(&self) -> DeflateSettings {
        DeflateSettings {
            own_context_takeover: self.context_takeover,
            peer_context_takeover: self.context_takeover,
            ..DeflateSettings::default()
        }
    }

    /// What the handshake of a case that begins as a WebSocket has agreed on.
    pub(crate) fn deflate_params(&self) -> Option<DeflateParams> {
        let value = format!("permessage-deflate{}", self.deflate.as_ref()?);
        let offered = extensions(value.as_bytes()).flatten();
        let settings = self.deflate_settings();
        match self.role {
            Role::Server => DeflateOffer::first(offered).map(|offer| offer.answer(&settings)),
            Role::Client => settings.check_answer(offered).unwrap_or_default(),
        }
    }

    pub(crate) fn parse_input(&self, input: &str) -> Result<Vec<Step>, String> {
        if self.is_websocket {
            frames::steps(input, self.role == Role::Server)
        } else {
            http_steps(input)
        }
    }
}
