//! `huki setup`: types for the editor, and the alias by which it finds them.
//!
//! Sits beside the other commands. Writes `types/huki/*.luau` below the folder, and in `.luaurc` the
//! alias `huki` for them. At run time `@huki/…` is built in and needs neither.
//!
//! Invariants
//! - Running it again changes nothing.
//! - A `.luaurc` that cannot be read as JSON with comments stays as it is, and the error says where.
//! - Files are replaced whole: nobody sees half of one.
//!
//! Not here: how the text of `.luaurc` is edited (`luaurc.rs`).

use super::luaurc;
use hukilau::{Error, TYPE_MODULES};
use std::path::Path;

const ALIAS: &str = "huki";
const TARGET: &str = "./types/huki";

/// Sets the project in `folder` up.
pub(crate) fn setup(folder: &str) -> Result<u8, Error> {
    let folder = Path::new(folder);
    let path = folder.join(".luaurc");
    // First what may be refused, so that a refusal has written nothing.
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let after = luaurc::with_alias(&before, ALIAS, TARGET).map_err(|(line, what)| {
        let path = path.display();
        Error::Unreadable(format!("{path}:{line}: {what}; the file is left as it is"))
    })?;
    let types = folder.join("types").join("huki");
    std::fs::create_dir_all(&types).map_err(|error| unwritable(&types, &error))?;
    for (name, source) in TYPE_MODULES {
        let name = name.rsplit('/').next().unwrap_or(name);
        write(&types.join(format!("{name}.luau")), source)?;
    }
    write(&path, &after)?;
    Ok(0)
}

/// Writes `text` to `path`, unless that is what it holds, and tells.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    if std::fs::read_to_string(path).is_ok_and(|now| now == text) {
        println!("{} is up to date", path.display());
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    std::fs::write(beside, text)
        .and_then(|()| std::fs::rename(beside, path))
        .map_err(|error| unwritable(path, &error))?;
    println!("{} written", path.display());
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unreadable(format!("cannot read {}: {error}", path.display()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unreadable(format!("cannot write {}: {error}", path.display()))
}
