//! Which proxy a request goes through, if any: said by the application, or by the environment.
//!
//! Sits in the client's face and reads no environment itself: the binary hands over a way to look
//! variables up. Lower case counts before upper case, as everywhere.
//!
//! Invariants
//! - `HTTP_PROXY` in upper case is ignored where `REQUEST_METHOD` is set: under CGI the client of
//!   our server could set it, by a field named `Proxy`.
//! - A proxy's credentials go to that proxy and nowhere else; they print as nothing.
//! - Sockets in the file system are never reached through a proxy.
//!
//! | In `NO_PROXY` | Means |
//! | --- | --- |
//! | `*` | everything |
//! | `example.com`, `.example.com`, `*.example.com` | the name and all below it |
//! | `10.1.2.3`, `[::1]`, `10.0.0.0/8`, `fd00::/8` | addresses, where the URL has one |
//! | any of the first two kinds with `:port` | at that port only |
//!
//! Not here: the tunnel (`client.rs`); SOCKS, which is refused by name.

use crate::url::absolute::{Credentials, Host, Scheme, Url, UrlError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use core::net::IpAddr;

/// A proxy that speaks HTTP in plain text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// Who.
    pub host: Host,
    /// Where.
    pub port: u16,
    /// The value of `Proxy-Authorization`. RFC 9110 §11.7.2.
    pub authorization: Option<Box<[u8]>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// Why a text names no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyError {
    /// The variable or option it came from.
    pub source: Box<str>,
    /// What is wrong; `None` for a scheme other than `http`.
    pub error: Option<UrlError>,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        match self.error {
            Some(error) => write!(f, "{source} is no URL of a proxy: {error}"),
            None => write!(
                f,
                "{source} is no URL of a proxy: only http:// proxies are spoken to"
            ),
        }
    }
}

impl core::error::Error for ProxyError {}

impl Proxy {
    /// Reads `http://user:password@host:port`; the scheme may be missing. `source` is where it
    /// comes from, for the error.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn parse(text: &str, source: &str) -> Result<Self, ProxyError> {
        let fail = |error| ProxyError {
            source: source.into(),
            error,
        };
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let url = Url::parse(whole.as_bytes()).map_err(|error| match error {
            UrlError::Scheme => fail(None),
            error => fail(Some(error)),
        })?;
        if url.scheme() != Scheme::Http || matches!(url.host(), Host::Unix(_)) {
            return Err(fail(None));
        }
        Ok(Self {
            host: url.host().clone(),
            port: url.port(),
            authorization: url.credentials().map(basic),
        })
    }
}

/// The value of `Authorization` for a name and a password. RFC 7617 §2.
pub fn basic(credentials: &Credentials) -> Box<[u8]> {
    let pair = [&credentials.user[..], b":", &credentials.password[..]].concat();
    let mut value = b"Basic ".to_vec();
    let room = pair.len().div_ceil(3) * 4;
    value.resize(value.len() + room, 0);
    // The room is exact, so that this cannot fail.
    let written = STANDARD.encode_slice(&pair, &mut value[6..]).unwrap_or(0);
    value.truncate(6 + written);
    value.into()
}

/// What is exempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    Everything,
    Name {
        suffix: String,
        port: Option<u16>,
    },
    Network {
        address: IpAddr,
        bits: u8,
        port: Option<u16>,
    },
}

/// The proxies of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

impl Proxies {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// One for everything, without exemptions.
    pub fn all(proxy: Proxy) -> Self {
        Self {
            http: Some(proxy.clone()),
            https: Some(proxy),
            exempt: Vec::new(),
        }
    }

    /// As `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say, in either case. `variable`
    /// looks one up.
    ///
    /// # Errors
    /// The first variable that names no proxy.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_cgi = variable("REQUEST_METHOD").is_some();
        let proxy = |lower: &str| {
            let upper = lower.to_ascii_uppercase();
            let trusts_upper = !(is_cgi && lower == "http_proxy");
            let found = match variable(lower) {
                Some(value) => Some((lower, value)),
                None if trusts_upper => variable(&upper).map(|value| (&upper[..], value)),
                None => None,
            };
            let parsed = found.map(|(name, value)| Proxy::parse(value.trim(), name));
            parsed.transpose()
        };
        let all = proxy("all_proxy")?;
        let exempt = variable("no_proxy").or_else(|| variable("NO_PROXY"));
        Ok(Self {
            http: proxy("http_proxy")?.or_else(|| all.clone()),
            https: proxy("https_proxy")?.or(all),
            exempt: exempt.as_deref().map(exemptions).unwrap_or_default(),
        })
    }

    /// The proxy for `url`.
    pub fn of(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.scheme().is_secure() {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        };
        let is_file = matches!(url.host(), Host::Unix(_));
        let is_exempt = || self.exempt.iter().any(|exempt| exempt.covers(url));
        proxy.filter(|_| !is_file && !is_exempt())
    }
}

/// Reads the list of `NO_PROXY`. What makes no sense exempts nothing.
fn exemptions(list: &str) -> Vec<Exempt> {
    let separates = |c: char| c == ',' || c.is_ascii_whitespace();
    let entries = list.split(separates).filter(|entry| !entry.is_empty());
    entries.filter_map(exemption).collect()
}

fn exemption(entry: &str) -> Option<Exempt> {
    if entry == "*" {
        return Some(Exempt::Everything);
    }
    let bare = |text: &str| {
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        inner.unwrap_or(text).parse::<IpAddr>().ok()
    };
    if let Some((address, bits)) = entry.split_once('/') {
        let (address, bits) = (bare(address)?, bits.parse().ok()?);
        return (bits <= width(address)).then_some(Exempt::Network {
            address,
            bits,
            port: None,
        });
    }
    let (host, port) = match entry.rsplit_once(':') {
        // A colon of an IPv6 address is none before a port.
        Some(_) if bare(entry).is_some() => (entry, None),
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Some(address) = bare(host) {
        let bits = width(address);
        return Some(Exempt::Network {
            address,
            bits,
            port,
        });
    }
    let suffix = host.strip_prefix('*').unwrap_or(host);
    let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
    let suffix = suffix.strip_suffix('.').unwrap_or(suffix);
    (!suffix.is_empty()).then(|| Exempt::Name {
        suffix: suffix.to_ascii_lowercase(),
        port,
    })
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An address as 128 bits, from the top, so that networks of both families compare alike.
fn top_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Exempt {
    fn covers(&self, url: &Url) -> bool {
        let at_port = |port: &Option<u16>| port.is_none_or(|port| port == url.port());
        match (self, url.host()) {
            (Self::Everything, _) => true,
            (Self::Name { suffix, port }, Host::Name(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let before = name.strip_suffix(&suffix[..]);
                at_port(port)
                    && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            (
                Self::Network {
                    address,
                    bits,
                    port,
                },
                host,
            ) => {
                let asked = match host {
                    Host::Ipv4(asked) => IpAddr::V4(*asked),
                    Host::Ipv6(asked) => IpAddr::V6(*asked),
                    Host::Name(_) | Host::Unix(_) => return false,
                };
                let differs = top_bits(*address) ^ top_bits(asked);
                at_port(port)
                    && width(*address) == width(asked)
                    && differs.leading_zeros() >= u32::from(*bits)
            }
            (Self::Name { .. }, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// The proxy's host for `url`, or `-`.
    fn of(variables: &[(&str, &str)], url: &str) -> String {
        let proxies = proxies(variables).expect("good variables");
        let url = Url::parse(url.as_bytes()).expect("a good URL");
        proxies
            .of(&url)
            .map_or("-".to_owned(), |proxy| proxy.host.to_string())
    }

    #[test]
    fn the_environment_names_a_proxy_for_each_scheme() {
        let both = [
            ("http_proxy", "plain:3128"),
            ("HTTPS_PROXY", "http://secret:1"),
        ];
        for (url, want) in [
            ("http://a", "plain"),
            ("ws://a", "plain"),
            ("https://a", "secret"),
            ("wss://a", "secret"),
        ] {
            assert_eq!(of(&both, url), want, "{url}");
        }
        assert_eq!(of(&[("ALL_PROXY", "all")], "https://a"), "all");
        assert_eq!(
            of(&[("ALL_PROXY", "all"), ("http_proxy", "one")], "http://a"),
            "one"
        );
        assert_eq!(
            of(&[("http_proxy", "low"), ("HTTP_PROXY", "UP")], "http://a"),
            "low"
        );
        assert_eq!(of(&[("http_proxy", " ")], "http://a"), "-");
        assert_eq!(of(&[("http_proxy", "p")], "http+unix://%2Fs/"), "-");
    }

    #[test]
    fn under_cgi_a_client_cannot_name_our_proxy() {
        let cgi = ("REQUEST_METHOD", "GET");
        assert_eq!(of(&[("HTTP_PROXY", "evil"), cgi], "http://a"), "-");
        assert_eq!(of(&[("http_proxy", "good"), cgi], "http://a"), "good");
        assert_eq!(of(&[("HTTPS_PROXY", "good"), cgi], "https://a"), "good");
    }

    #[test]
    fn no_proxy_exempts_names_networks_and_ports() {
        let list = "localhost, .corp.example *.x.org,plain.org:8080 10.0.0.0/8,192.168.1.7:81 \
                    [::1] fd00::/8 bad/entry 1.2.3.4/33";
        let table = [
            ("http://localhost:3000", "-"),
            ("http://sub.localhost", "-"),
            ("http://notlocalhost", "p"),
            ("http://corp.example", "-"),
            ("http://a.b.CORP.example.", "-"),
            ("http://evilcorp.example", "p"),
            ("http://y.x.org", "-"),
            ("http://plain.org", "p"),
            ("http://plain.org:8080", "-"),
            ("http://10.255.1.1", "-"),
            ("http://11.0.0.1", "p"),
            ("http://192.168.1.7:81", "-"),
            ("http://192.168.1.7", "p"),
            ("http://[::1]:99", "-"),
            ("http://[fd12::1]", "-"),
            ("http://[fe80::1]", "p"),
            ("http://1.2.3.4", "p"),
        ];
        for (url, want) in table {
            assert_eq!(
                of(&[("http_proxy", "p"), ("NO_PROXY", list)], url),
                want,
                "{url}"
            );
        }
        assert_eq!(
            of(&[("http_proxy", "p"), ("no_proxy", "a,*")], "http://b"),
            "-"
        );
        assert_eq!(
            of(
                &[("http_proxy", "p"), ("no_proxy", "0.0.0.0/0")],
                "http://9.9.9.9"
            ),
            "-"
        );
    }

    #[test]
    fn credentials_become_a_field_and_do_not_print() {
        let proxy = Proxy::parse("http://Aladdin:open%20sesame@p:8080", "proxy").expect("good");
        assert_eq!(
            proxy.authorization.as_deref(),
            Some(&b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="[..])
        );
        assert_eq!(format!("{proxy:?}"), "Proxy(p:8080)");
    }

    #[test]
    fn what_names_no_proxy_is_refused_by_its_source() {
        let text = |variables: &[(&str, &str)]| proxies(variables).expect_err("bad").to_string();
        assert_eq!(
            text(&[("ALL_PROXY", "socks5://p:1080")]),
            "ALL_PROXY is no URL of a proxy: only http:// proxies are spoken to"
        );
        assert_eq!(
            text(&[("https_proxy", "https://p")]),
            "https_proxy is no URL of a proxy: only http:// proxies are spoken to"
        );
        assert_eq!(
            text(&[("http_proxy", "p:port")]),
            "http_proxy is no URL of a proxy: its port is no number from 1 to 65535"
        );
    }
}
