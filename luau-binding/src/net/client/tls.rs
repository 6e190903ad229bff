//! The option `tls` of what we open: whom to trust, and who we are.
//!
//! Sits in the native module's client; streams that a script opens read the same options. What is
//! made of them is kept: connections are shared only among requests with the very same settings, and
//! TLS sessions are resumed only within them.
//!
//! Invariants
//! - The same options give the same settings, until a file that they name has changed.
//! - Without options nothing is made here: core reads the system's roots when it needs them first.
//! - Who believes any certificate is warned of it, once.
//!
//! Not here: certificates of servers (`net/tls.rs`), TLS itself (core).

use crate::net::tls::pem;
use crate::runtime::Worker;
use crate::value::Options;
use crate::vm::{Raise, Stack};
use hukilau_core::transport::tls::{ClientTls, ClientTlsOptions, Identity, TlsConfigError};
use std::sync::Arc;
use std::time::SystemTime;

/// Settings that are kept. A script with more of them makes some again.
const KEPT_MAX: usize = 64;

const OPTIONS: &[&str] = &["ca", "cert", "key", "serverName", "insecureSkipVerify"];

/// What a script has said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    ca: Option<Source>,
    cert: Option<Source>,
    key: Option<Source>,
    server_name: Option<String>,
    is_insecure: bool,
}

/// PEM text, or a path and when what is there was changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source(String, Option<SystemTime>);

impl Source {
    fn new(given: String) -> Self {
        let facts = std::fs::metadata(&given);
        let changed = facts.and_then(|facts| facts.modified()).ok();
        Self(given, changed)
    }
}

/// The settings of a worker, the latest last.
#[derive(Default)]
pub(crate) struct Kept {
    made: Vec<(Given, Arc<ClientTls>)>,
    has_warned: bool,
}

/// Reads the table at `options`; `None` if it says nothing.
///
/// # Errors
/// Which option is at fault, and why.
pub(crate) fn read(
    worker: &Worker,
    stack: &mut Stack<'_>,
    options: Options<'_>,
) -> Result<Option<Arc<ClientTls>>, Raise> {
    options.check_keys(stack, OPTIONS)?;
    let given = Given {
        ca: options.text(stack, c"ca")?.map(Source::new),
        cert: options.text(stack, c"cert")?.map(Source::new),
        key: options.text(stack, c"key")?.map(Source::new),
        server_name: options.text(stack, c"serverName")?,
        is_insecure: options.flag(stack, c"insecureSkipVerify")?.unwrap_or(false),
    };
    if given.key.is_some() && given.cert.is_none() {
        return Err(options.error("option 'key' needs 'cert'"));
    }
    let nothing = Given {
        ca: None,
        cert: None,
        key: None,
        server_name: None,
        is_insecure: false,
    };
    if given == nothing {
        return Ok(None);
    }
    let mut kept = worker.client_tls.borrow_mut();
    if let Some((_, made)) = kept.made.iter().find(|(known, _)| *known == given) {
        return Ok(Some(Arc::clone(made)));
    }
    let made = make(&given).map_err(|error| {
        let part = match error.part {
            "name" => "serverName",
            part => part,
        };
        options.error(format!("option '{part}': {}", error.problem))
    })?;
    let made = Arc::new(made);
    if given.is_insecure && !std::mem::replace(&mut kept.has_warned, true) {
        worker.warn_text(&format!(
            "{}: insecureSkipVerify believes any certificate: whoever sits in between can read and \
             change everything",
            options.owner
        ));
    }
    if kept.made.len() >= KEPT_MAX {
        kept.made.remove(0);
    }
    kept.made.push((given, Arc::clone(&made)));
    Ok(Some(made))
}

fn make(given: &Given) -> Result<ClientTls, TlsConfigError> {
    let load =
        |part, source: &Source| pem(&source.0).map_err(|problem| TlsConfigError { part, problem });
    let ca = match &given.ca {
        Some(source) => Some(load("ca", source)?),
        None => None,
    };
    let identity = match &given.cert {
        Some(cert) => {
            // Without a key of its own, that is in the same text.
            let key = given.key.as_ref().unwrap_or(cert);
            let (cert, key) = (load("cert", cert)?, load("key", key)?);
            Some(Identity::from_pem(&cert, &key)?)
        }
        None => None,
    };
    ClientTls::new(&ClientTlsOptions {
        // Who names authorities means those.
        system_roots: ca.is_none(),
        ca,
        identity,
        server_name: given.server_name.clone(),
        insecure: given.is_insecure,
        ..ClientTlsOptions::default()
    })
}
