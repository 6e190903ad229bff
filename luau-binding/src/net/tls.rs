//! The `tls` option of `net.serve`: whose certificates, and whether clients must show one.
//!
//! Sits in the native module. Certificates and keys are given as PEM text or as paths; what is a
//! path is read when the server starts and again by each reload, so that renewed files are found.
//!
//! Invariants
//! - An error names the argument: `tls.cert`, or `tls[2].key` where a list was given.
//! - A reload that fails changes nothing.
//!
//! Not here: TLS itself (core's `transport/tls.rs`); who asks for a reload (`server.rs`,
//! `runtime.rs`).

use super::request::View;
use crate::runtime::Worker;
use crate::value::Options;
use crate::vm::{Kind, Raise, Stack};
use hukilau_core::transport::system_text;
use hukilau_core::transport::tls::{ClientCertificates, Identity, ServerTls, TlsConfigError};
use std::ffi::CStr;
use std::sync::Arc;

/// What begins every PEM text and no path.
const PEM_MARK: &str = "-----BEGIN ";

/// The TLS of one server, and where it came from.
#[derive(Debug)]
pub(crate) struct Tls {
    sources: Sources,
    shared: Arc<ServerTls>,
}

type Make = fn(&[Identity], &ClientCertificates) -> Result<ServerTls, TlsConfigError>;

/// PEM texts, or paths of them.
#[derive(Debug)]
struct Sources {
    /// Certificate chains with their keys.
    pairs: Vec<(String, String)>,
    client_ca: Option<String>,
    requires_client: bool,
}

impl Tls {
    /// Reads the option `tls` of `options`.
    pub(crate) fn read(stack: &mut Stack<'_>, options: Options<'_>) -> Result<Option<Self>, Raise> {
        Self::read_option(stack, options, c"tls", ServerTls::new)
    }

    /// Reads the option `key` of `options`, for raw streams.
    pub(crate) fn read_for_streams(
        stack: &mut Stack<'_>,
        options: Options<'_>,
        key: &CStr,
    ) -> Result<Option<Self>, Raise> {
        Self::read_option(stack, options, key, ServerTls::for_streams)
    }

    fn read_option(
        stack: &mut Stack<'_>,
        options: Options<'_>,
        key: &CStr,
        make: Make,
    ) -> Result<Option<Self>, Raise> {
        let Some(index) = options.table(stack, key)? else {
            return Ok(None);
        };
        let owner = format!("{}: {}", options.owner, key.to_string_lossy());
        let given = Options {
            index,
            owner: &owner,
        };
        let count = stack.table_len(index);
        let mut pairs = Vec::new();
        if count == 0 {
            given.check_keys(stack, &["cert", "key", "clientCa", "requireClientCert"])?;
            pairs.push(read_pair(stack, given)?);
        } else {
            given.check_keys_beside(stack, &["clientCa", "requireClientCert"], count)?;
        }
        for n in 1..=count {
            stack.push_element(index, n);
            let (at, owner) = (stack.len(), format!("{owner}[{n}]"));
            let listed = Options {
                index: at,
                owner: &owner,
            };
            if stack.kind(at) != Kind::Table {
                return Err(listed.error("must be a table with 'cert' and 'key'"));
            }
            listed.check_keys(stack, &["cert", "key"])?;
            pairs.push(read_pair(stack, listed)?);
            stack.pop(1);
        }
        let sources = Sources {
            pairs,
            client_ca: given.text(stack, c"clientCa")?,
            requires_client: given.flag(stack, c"requireClientCert")?.unwrap_or(false),
        };
        if sources.requires_client && sources.client_ca.is_none() {
            return Err(given.error("option 'requireClientCert' needs 'clientCa'"));
        }
        stack.pop(1);
        let refused = |what: String| options.error(what);
        let (identities, clients) = sources.load().map_err(refused)?;
        let shared =
            make(&identities, &clients).map_err(|error| refused(sources.place(0, &error)))?;
        Ok(Some(Self {
            sources,
            shared: Arc::new(shared),
        }))
    }

    /// For the listener.
    pub(crate) fn shared(&self) -> Arc<ServerTls> {
        Arc::clone(&self.shared)
    }

    /// Reads everything anew, for connections that come from now on.
    ///
    /// # Errors
    /// Which argument is at fault, and why; the server goes on as before.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let (identities, clients) = self.sources.load()?;
        let reloaded = self.shared.reload(&identities, &clients);
        reloaded.map_err(|error| self.sources.place(0, &error))
    }
}

/// `cert` and `key`; without `key`, that is in the same text.
fn read_pair(stack: &mut Stack<'_>, options: Options<'_>) -> Result<(String, String), Raise> {
    let Some(cert) = options.text(stack, c"cert")? else {
        return Err(options.error("option 'cert', a path or PEM text, is needed"));
    };
    let key = options.text(stack, c"key")?;
    Ok((cert.clone(), key.unwrap_or(cert)))
}

impl Sources {
    fn load(&self) -> Result<(Vec<Identity>, ClientCertificates), String> {
        let mut identities = Vec::new();
        for (index, (cert, key)) in self.pairs.iter().enumerate() {
            let read = |part, source| pem(source).map_err(|why| problem(part, why));
            let identity = read("cert", cert)
                .and_then(|cert| Ok((cert, read("key", key)?)))
                .and_then(|(cert, key)| Identity::from_pem(&cert, &key));
            identities.push(identity.map_err(|error| self.place(index, &error))?);
        }
        let Some(ca) = &self.client_ca else {
            return Ok((identities, ClientCertificates::Ignored));
        };
        let ca = pem(ca).map_err(|why| self.place(0, &problem("ca", why)))?;
        let clients = match self.requires_client {
            true => ClientCertificates::Required(ca),
            false => ClientCertificates::Optional(ca),
        };
        Ok((identities, clients))
    }

    /// Names the argument that `error` is about.
    fn place(&self, index: usize, error: &TlsConfigError) -> String {
        let problem = &error.problem;
        let has_key = self.pairs.get(index).is_some_and(|(cert, key)| cert != key);
        let pair = match self.pairs.len() {
            1 => "tls".to_owned(),
            _ => format!("tls[{}]", index + 1),
        };
        match error.part {
            "key" if !has_key => {
                format!("{pair}: option 'key' is not given, and 'cert' {problem}")
            }
            "ca" => format!("tls.clientCa: {problem}"),
            part => format!("{pair}.{part}: {problem}"),
        }
    }
}

fn problem(part: &'static str, problem: String) -> TlsConfigError {
    TlsConfigError { part, problem }
}

/// PEM text as it is; else the contents of the file of that name.
pub(crate) fn pem(source: &str) -> Result<Vec<u8>, String> {
    if source.contains(PEM_MARK) {
        return Ok(source.as_bytes().to_vec());
    }
    if source.is_empty() {
        return Err("is empty; it takes a path or PEM text".to_owned());
    }
    std::fs::read(source).map_err(|error| {
        let why = system_text(&error);
        format!("cannot read {}: {why}", source.escape_debug())
    })
}

/// Reloads every server that speaks TLS; whether there is one. What fails is reported.
pub(crate) fn reload_all(worker: &Worker) -> bool {
    let mut has_tls = false;
    let mut failures = Vec::new();
    for server in worker.servers.borrow().iter() {
        if let Some(tls) = &server.tls {
            has_tls = true;
            failures.extend(tls.reload().err());
        }
    }
    has_tls |= worker.raw.borrow().reload_tls(&mut failures);
    for failure in failures {
        worker.report_text(&format!("TLS was not reloaded: {failure}"));
    }
    has_tls
}

/// Pushes the subject of the certificate that the client of the request at 1 has shown, or nil.
pub(crate) fn push_subject(stack: &mut Stack<'_>) -> Result<(), Raise> {
    let origin = View::at(stack, 1).and_then(|view| view.origin());
    let subject = {
        let reactor = stack.worker()?.reactor.borrow();
        let certificate = origin.and_then(|(conn, _)| reactor.peer_certificate(conn));
        certificate.map(|certificate| certificate.subject())
    };
    match subject {
        Some(subject) => stack.push_string(subject),
        None => stack.push_nil(),
    }
    Ok(())
}
