//! A request on its way to a connection, and away from it: routes, grants, asking, retiring.
//!
//! Sits in the client's face. Nothing here looks at a completion; `receive.rs` does, and calls these.
//!
//! Invariants
//! - Every grant of the pool is followed in the same call, or given back.
//! - A request that is `Opening` is in the pool's queue or has a connection that is being made.
//! - A link that leaves is not in the pool; its end is awaited so that its completions find it.
//!
//! Not here: which connection (`pool.rs`).

#[cfg(feature = "tls")]
use super::SharedTls;
use super::error::{ClientError, Phase};
use super::pool::Grant;
use super::proxy::{Proxy, basic};
use super::redirect::{RedirectError, Step};
use super::spec::{ProxyChoice, RequestBody, RequestKey, RequestSpec};
use super::{Client, ClientEvent, Link, LinkStage, Request, Route, Stage, Tunnel, decode};
use crate::conn::{Ask, AskBody, Misuse, WsOpening};
use crate::http1::{Method, token, write};
use crate::limits::Limits;
#[cfg(feature = "tls")]
use crate::reactor::DialTls;
use crate::reactor::conns::ConnKey;
use crate::reactor::{Destination, DialConfig, Host as DialHost, Protocol, Reactor};
use crate::transport::Net;
#[cfg(feature = "tls")]
use crate::transport::tls::{ClientTls, ClientTlsOptions};
use crate::url::absolute::Host;
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Instant;

/// Fields that are the driver's, or the handshake's.
pub(super) const RESERVED: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "expect",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
];

/// Refuses what no connection would take.
pub(super) fn check(spec: &RequestSpec) -> Result<(), ClientError> {
    if !token::is_field_name(&spec.method) {
        return Err(ClientError::Invalid(Misuse::InvalidField));
    }
    // Tunnels are the client's own business.
    if Method::of(&spec.method) == Method::Connect {
        return Err(ClientError::Invalid(Misuse::NotAnUpgrade));
    }
    for (name, value) in &spec.fields {
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        let is_connection = name.eq_ignore_ascii_case(b"connection");
        let bad_connection = is_connection && !value.eq_ignore_ascii_case(b"close");
        let is_good = write::check_field(name, value).is_ok();
        if !is_good || bad_connection || RESERVED.iter().any(is) {
            return Err(ClientError::Field(name.escape_ascii().to_string().into()));
        }
    }
    Ok(())
}

impl Client {
    /// Sends a request on its way: to a connection, or into the queue.
    pub(super) fn start<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
    ) -> Result<(), ClientError> {
        let route = Rc::new(self.route(key)?);
        let Some(request) = self.requests.get_mut(&key) else {
            return Ok(());
        };
        request.stage = Stage::Opening;
        request.conn = None;
        request.exchange = None;
        if request.spec.websocket.is_some() || !request.spec.keeps_alive {
            // It would not come back to the pool.
            return self.open(reactor, key, &route).map(|_| ());
        }
        match self.pool.ask(&route, key) {
            Ok(Some(grant)) => self.follow(reactor, key, &route, grant),
            Ok(None) => Ok(()),
            Err(_) => Err(ClientError::QueueFull {
                waiting_max: self.config.pool.waiting_max,
            }),
        }
    }

    /// As [`start`](Self::start), where nobody waits for an answer.
    pub(super) fn restart<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        if let Err(error) = self.start(reactor, key) {
            self.fail(key, error);
        }
    }

    /// Serves those in the queue who can be.
    pub(super) fn serve_queue<N: Net>(&mut self, reactor: &mut Reactor<N>) {
        while let Some((key, route, grant)) = self.pool.next() {
            if let Err(error) = self.follow(reactor, key, &route, grant) {
                self.fail(key, error);
            }
        }
    }

    fn follow<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        route: &Rc<Route>,
        grant: Grant<ConnKey>,
    ) -> Result<(), ClientError> {
        match grant {
            Grant::Reuse(conn) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.request = Some(key);
                }
                if let Some(request) = self.requests.get_mut(&key) {
                    request.conn = Some(conn);
                }
                self.send(reactor, key, conn);
                Ok(())
            }
            Grant::Open { evicts } => {
                if let Some(conn) = evicts {
                    self.cut(reactor, conn);
                }
                match self.open(reactor, key, route) {
                    Ok(conn) => {
                        self.pool.opened(route, conn);
                        Ok(())
                    }
                    Err(error) => {
                        self.pool.not_opened(route);
                        Err(error)
                    }
                }
            }
        }
    }

    fn open<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        route: &Rc<Route>,
    ) -> Result<ConnKey, ClientError> {
        let Some(request) = self.requests.get_mut(&key) else {
            return Err(ClientError::Invalid(Misuse::Gone));
        };
        let timeouts = request.spec.timeouts;
        let limits = if timeouts.tls == self.limits.tls_handshake_timeout {
            Rc::clone(&self.limits)
        } else {
            Rc::new(Limits {
                tls_handshake_timeout: timeouts.tls,
                ..Limits::clone(&self.limits)
            })
        };
        let config = DialConfig {
            limits: Some(limits),
            resolve_timeout: timeouts.resolve,
            connect_timeout: timeouts.connect,
            // The face has a bound of its own, over redirects and repetitions.
            total_timeout: None,
            protocol: Protocol::Http,
            // Through a tunnel, TLS begins behind it.
            #[cfg(feature = "tls")]
            tls: dial_tls(route),
        };
        let conn = reactor
            .dial(&route.to, &config)
            .map_err(|misuse| ClientError::Cut(misuse.to_string().into()))?;
        request.conn = Some(conn);
        let link = Link {
            route: Rc::clone(route),
            stage: LinkStage::Dialling,
            request: Some(key),
            uses: 0,
            is_last: false,
        };
        self.links.insert(conn, link);
        Ok(conn)
    }

    /// Asks `conn`, which is ready.
    pub(super) fn send<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        conn: ConnKey,
    ) {
        let (Some(request), Some(link)) = (self.requests.get_mut(&key), self.links.get_mut(&conn))
        else {
            return self.retire(reactor, conn, true);
        };
        link.uses += 1;
        let asked = match &request.spec.websocket {
            Some(_) => open_websocket(reactor, conn, &request.spec),
            None => {
                let proxy = forwarding_proxy(&self.config.proxies, &request.spec);
                ask(reactor, conn, &request.spec, proxy, &self.config.user_agent)
            }
        };
        match asked {
            Ok(exchange) => {
                request.exchange = Some(exchange);
                request.stage = Stage::Asked;
                request.uploads = matches!(request.spec.body, RequestBody::Pieces(_));
                if request.uploads {
                    self.events.push_back(ClientEvent::WantsBody { key });
                    self.arm(key, None);
                } else {
                    self.await_head(reactor.net().now(), key);
                }
            }
            // It has ended as soon as it was made; how, is told by the completion that has not been
            // offered yet. Another might end likewise, and so for ever.
            Err(Misuse::Gone) if link.uses == 1 => {}
            // It had been kept, and has ended meanwhile. Nothing was sent, so this is no repetition.
            Err(Misuse::Gone) => {
                link.request = None;
                link.stage = LinkStage::Leaving;
                self.pool.remove(conn);
                self.restart(reactor, key);
            }
            Err(misuse) => {
                self.retire(reactor, conn, true);
                self.fail(key, ClientError::Invalid(misuse));
            }
        }
    }

    /// The exchange on `conn` is over; if both messages are complete, it rests for the next.
    pub(super) fn retire<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        conn: ConnKey,
        is_whole: bool,
    ) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.request = None;
        if is_whole {
            reactor.release(conn);
            self.pool.rest(conn);
        } else {
            self.cut(reactor, conn);
        }
    }

    /// Ends a connection that nobody wants.
    pub(super) fn cut<N: Net>(&mut self, reactor: &mut Reactor<N>, conn: ConnKey) {
        self.pool.remove(conn);
        if let Some(link) = self.links.get_mut(&conn) {
            link.request = None;
            link.stage = LinkStage::Leaving;
            // One that has ended already says so by itself.
            let _ended_meanwhile = reactor.terminate(conn);
        }
    }

    /// Takes `key` off its connection, or out of the queue.
    pub(super) fn abandon<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        match request.conn.take() {
            Some(conn) => self.cut(reactor, conn),
            None => self.pool.withdraw(&key),
        }
    }

    /// The deadline of `key` has come.
    pub(super) fn time_out<N: Net>(&mut self, reactor: &mut Reactor<N>, key: RequestKey) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let Some((_, phase)) = request.armed.take() else {
            return;
        };
        let timeouts = request.spec.timeouts;
        let after = match phase {
            Phase::Resolve => timeouts.resolve,
            Phase::Connect | Phase::Proxy => timeouts.connect,
            Phase::Tls => timeouts.tls,
            Phase::FirstByte => timeouts.first_byte.unwrap_or_default(),
            Phase::Body | Phase::Write => timeouts.body.unwrap_or_default(),
            Phase::Total => timeouts.total.unwrap_or_default(),
        };
        let host = request.spec.url.host().to_string().into();
        self.abandon(reactor, key);
        self.fail(key, ClientError::TimedOut { phase, host, after });
    }

    /// Goes where a response has sent `key`. Its connection is not its own any more.
    pub(super) fn follow_redirect<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        key: RequestKey,
        step: Step,
    ) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        if let Err(error) = request.take_step(step) {
            return self.fail(key, ClientError::Redirect(error));
        }
        self.arm(key, None);
        self.restart(reactor, key);
    }

    /// The way to the server of `key`, by way of its proxy.
    fn route(&mut self, key: RequestKey) -> Result<Route, ClientError> {
        let Some(request) = self.requests.get(&key) else {
            return Err(ClientError::Invalid(Misuse::Gone));
        };
        let url = &request.spec.url;
        let is_secure = url.scheme().is_secure();
        #[cfg(not(feature = "tls"))]
        if is_secure {
            return Err(ClientError::NoTls);
        }
        #[cfg(feature = "tls")]
        let tls = match &request.spec.tls {
            _ if !is_secure => None,
            Some(own) => Some(Arc::clone(own)),
            None => Some(shared_tls(&mut self.config.tls)?),
        };
        let proxy = proxy_of(&self.config.proxies, &request.spec);
        let needs_tunnel = is_secure || url.scheme().is_websocket();
        let tunnel = proxy.filter(|_| needs_tunnel).map(|proxy| Tunnel {
            authority: url.authority().into(),
            authorization: proxy.authorization.clone(),
        });
        let to = match proxy {
            Some(proxy) => destination(&proxy.host, proxy.port),
            None => destination(url.host(), url.port()),
        };
        Ok(Route {
            to,
            tunnel,
            #[cfg(feature = "tls")]
            tls: tls.map(|tls| (url.host().to_string().into(), SharedTls(tls))),
        })
    }

    /// Asks the proxy at the other end of `conn` for a tunnel. RFC 9110 §9.3.6.
    pub(super) fn ask_tunnel<N: Net>(&mut self, reactor: &mut Reactor<N>, conn: ConnKey) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let Some(tunnel) = &link.route.tunnel else {
            return;
        };
        link.stage = LinkStage::Tunnelling;
        let authority = tunnel.authority.as_bytes();
        let proof = tunnel
            .authorization
            .as_deref()
            .map(|value| (&b"Proxy-Authorization"[..], value));
        let ask = Ask {
            method: b"CONNECT",
            target: authority,
            host: authority,
            fields: proof.as_slice(),
            body: AskBody::None,
            collect_bytes_max: None,
        };
        let (asked, key) = (reactor.ask(conn, &ask), link.request);
        let Some(key) = key else {
            return;
        };
        match asked {
            Ok(_) => self.await_tunnel(reactor.net().now(), key),
            // The end that follows tells why.
            Err(Misuse::Gone) => {}
            Err(misuse) => {
                self.cut(reactor, conn);
                self.fail(key, ClientError::Invalid(misuse));
            }
        }
    }

    /// From `now` on, a proxy's silence counts.
    fn await_tunnel(&mut self, now: Instant, key: RequestKey) {
        let request = self.requests.get(&key);
        let timeout = request.map(|request| request.spec.timeouts.connect);
        let at = timeout.and_then(|timeout| now.checked_add(timeout));
        self.arm(key, at.map(|at| (at, Phase::Proxy)));
    }
}

impl Request {
    /// Becomes the request that `step` asks for.
    fn take_step(&mut self, step: Step) -> Result<(), RedirectError> {
        let spec = &mut self.spec;
        let to = step.url.to_string().into_boxed_str();
        self.visited.push(spec.url.to_string().into());
        if self.visited.len() > spec.redirects_max as usize {
            let steps_max = spec.redirects_max;
            return Err(if self.visited.contains(&to) {
                RedirectError::Loop { steps_max, to }
            } else {
                RedirectError::TooMany { steps_max, to }
            });
        }
        spec.fields.retain(|(name, _)| step.keeps(name));
        if step.becomes_get {
            spec.method = b"GET".to_vec();
            spec.body = RequestBody::None;
        }
        #[cfg(feature = "tls")]
        if step.leaves_origin {
            spec.tls = None;
        }
        spec.url = step.url;
        self.repeated = false;
        self.uploads = false;
        self.response = None;
        self.received = 0;
        Ok(())
    }
}

fn proxy_of<'a>(configured: &'a super::Proxies, spec: &'a RequestSpec) -> Option<&'a Proxy> {
    match &spec.proxy {
        ProxyChoice::Configured => configured.of(&spec.url),
        ProxyChoice::Direct => None,
        ProxyChoice::Through(_) if matches!(spec.url.host(), Host::Unix(_)) => None,
        ProxyChoice::Through(proxy) => Some(proxy),
    }
}

/// The proxy that is asked to forward the request, rather than for a tunnel.
fn forwarding_proxy<'a>(
    configured: &'a super::Proxies,
    spec: &'a RequestSpec,
) -> Option<&'a Proxy> {
    proxy_of(configured, spec).filter(|_| !spec.url.scheme().is_secure())
}

/// The TLS that a connection begins with.
#[cfg(feature = "tls")]
fn dial_tls(route: &Route) -> Option<DialTls> {
    let (host, tls) = route.tls.as_ref()?;
    route.tunnel.is_none().then(|| DialTls {
        client: Arc::clone(&tls.0),
        host: host.to_string(),
    })
}

/// The client's own configuration, made now if nobody has needed it before.
#[cfg(feature = "tls")]
fn shared_tls(configured: &mut Option<Arc<ClientTls>>) -> Result<Arc<ClientTls>, ClientError> {
    if let Some(shared) = configured {
        return Ok(Arc::clone(shared));
    }
    let made = ClientTls::new(&ClientTlsOptions::default());
    let made = made.map_err(|error| ClientError::TlsConfig(error.to_string().into()))?;
    Ok(Arc::clone(configured.insert(Arc::new(made))))
}

fn destination(host: &Host, port: u16) -> Destination {
    let host = match host {
        Host::Name(name) => DialHost::Name(name.clone()),
        Host::Ipv4(address) => DialHost::Ip((*address).into()),
        Host::Ipv6(address) => DialHost::Ip((*address).into()),
        Host::Unix(path) => return Destination::Unix(path.into()),
    };
    Destination::Tcp { host, port }
}

fn ask<N: Net>(
    reactor: &mut Reactor<N>,
    conn: ConnKey,
    spec: &RequestSpec,
    proxy: Option<&Proxy>,
    user_agent: &[u8],
) -> Result<crate::conn::Exchange, Misuse> {
    // By way of a proxy, the target is the whole URL (RFC 9112 §3.2.2).
    let absolute = proxy.map(|_| spec.url.to_string());
    let target = absolute.as_deref().unwrap_or(spec.url.target());
    let host_field = spec.url.host_field();
    let host = spec.field("host").unwrap_or(host_field.as_bytes());
    let authorization = spec.url.credentials().map(basic);
    let mut fields: Vec<(&[u8], &[u8])> = Vec::with_capacity(spec.fields.len() + 6);
    let lacks = |name: &str| spec.lacks(name);
    if !user_agent.is_empty() && lacks("user-agent") {
        fields.push((b"User-Agent", user_agent));
    }
    if lacks("accept") {
        fields.push((b"Accept", b"*/*"));
    }
    // Part of coded content is of no use to who wants part of the content.
    if spec.decompresses && lacks("range") && lacks("accept-encoding") {
        fields.push((b"Accept-Encoding", decode::ACCEPT_ENCODING.as_bytes()));
    }
    if let Some(authorization) = authorization.as_deref()
        && lacks("authorization")
    {
        fields.push((b"Authorization", authorization));
    }
    if let Some(proof) = proxy.and_then(|proxy| proxy.authorization.as_deref())
        && lacks("proxy-authorization")
    {
        fields.push((b"Proxy-Authorization", proof));
    }
    if !spec.keeps_alive && lacks("connection") {
        fields.push((b"Connection", b"close"));
    }
    let own = spec.fields.iter();
    let own = own.filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"));
    fields.extend(own.map(|(name, value)| (&name[..], &value[..])));
    let body = match &spec.body {
        RequestBody::None => AskBody::None,
        RequestBody::Whole(body) => AskBody::Whole(body),
        RequestBody::Pieces(Some(len)) => AskBody::Length(*len),
        RequestBody::Pieces(None) => AskBody::Chunked,
    };
    let ask = Ask {
        method: &spec.method,
        target: target.as_bytes(),
        host,
        fields: &fields,
        body,
        collect_bytes_max: None,
    };
    reactor.ask(conn, &ask)
}

fn open_websocket<N: Net>(
    reactor: &mut Reactor<N>,
    conn: ConnKey,
    spec: &RequestSpec,
) -> Result<crate::conn::Exchange, Misuse> {
    let Some(wanted) = &spec.websocket else {
        return Err(Misuse::NotAWebSocket);
    };
    let host_field = spec.url.host_field();
    let protocols: Vec<&[u8]> = wanted.protocols.iter().map(|name| &name[..]).collect();
    let authorization = spec.url.credentials().map(basic);
    let own = spec.fields.iter();
    let own = own.filter(|(name, _)| !name.eq_ignore_ascii_case(b"host"));
    let mut fields: Vec<(&[u8], &[u8])> =
        own.map(|(name, value)| (&name[..], &value[..])).collect();
    if let Some(authorization) = authorization.as_deref()
        && spec.field("authorization").is_none()
    {
        fields.push((b"Authorization", authorization));
    }
    let opening = WsOpening {
        target: spec.url.target().as_bytes(),
        host: spec.field("host").unwrap_or(host_field.as_bytes()),
        protocols: &protocols,
        fields: &fields,
        settings: &wanted.settings,
    };
    reactor.open_websocket(conn, &opening)
}
