//! The certificate that every server shows in mode `tls`: made once per run, P-256, self-signed, for
//! `localhost`.
//!
//! It lies beside the harness's own executable, as two PEM files, for programs take paths.
//!
//! Not here: what a server does with it.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The name it is for.
pub(crate) const NAME: &str = "localhost";

type Files = Result<(PathBuf, PathBuf), String>;

static FILES: OnceLock<Files> = OnceLock::new();

/// Paths of certificate and key; made when first asked for.
pub(crate) fn files() -> Files {
    FILES.get_or_init(make).clone()
}

fn make() -> Files {
    let harness = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
        .map_err(|error| format!("certificate: {error}"))?;
    let write = |name: &str, text: String| {
        let path = harness.with_file_name(name);
        fs::write(&path, text)
            .map_err(|error| format!("{}: {error}", path.display()))
            .map(|()| path)
    };
    Ok((
        write("load-cert.pem", made.cert.pem())?,
        write("load-key.pem", made.signing_key.serialize_pem())?,
    ))
}
