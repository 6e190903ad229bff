//! hukilau with a Luau handler as a peer: finds the binary `huki`, and builds it if it is not there
//! or not of today.
//!
//! The harness asks cargo for it, into the same target folder and in the same profile as itself, so
//! that the figures belong to the sources beside it. When all is built already that takes a
//! fraction of a second.
//!
//! Not here: starting it (`process.rs`), what it serves (`benches/luau/`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The script's path; `name` is its file in `benches/luau`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("luau")
        .join(name)
}

/// A binary that the command line names, instead of the one that belongs to these sources.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// The binary `huki`: the chosen one, or the one beside the harness's own.
pub(crate) fn huki(harness: &Path) -> PathBuf {
    CHOSEN
        .get()
        .cloned()
        .unwrap_or_else(|| harness.with_file_name("huki"))
}

/// Measures the binary at `path`; nothing is built.
///
/// # Errors
/// If there is no file, or another was chosen before.
pub(super) fn choose(path: PathBuf) -> Result<(), String> {
    if !path.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    CHOSEN
        .set(path)
        .map_err(|path| format!("{}: another binary was chosen before", path.display()))
}

/// Has cargo build `huki`, unless another binary was chosen.
///
/// # Errors
/// As [`build`].
pub(crate) fn ready() -> Result<(), String> {
    CHOSEN.get().map_or_else(build, |_| Ok(()))
}

/// Has cargo build `huki`.
///
/// # Errors
/// What went wrong, in words; cargo itself has printed the rest.
pub(crate) fn build() -> Result<(), String> {
    let harness = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let folder = harness.parent().unwrap_or(Path::new("."));
    let target = folder.parent().unwrap_or(Path::new("."));
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let status = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--package",
            "hukilau",
            "--bin",
            "huki",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !status.success() {
        return Err("cargo could not build the binary huki".to_owned());
    }
    let huki = huki(&harness);
    if huki.is_file() {
        Ok(())
    } else {
        Err(format!("cargo built it, but not at {}", huki.display()))
    }
}
