//! `huki setup`: types for the editor, and the aliases by which it finds them.
//!
//! Sits beside the other commands. Writes a folder below `types/` for each set of modules, `@huki/…`
//! and those of the dialects, and in `.luaurc` an alias for each. At run time these modules are built
//! in and need neither.
//!
//! Invariants
//! - Running it again changes nothing.
//! - An alias of a dialect that the project has already stays: it may lead to the other system's own
//!   types, or to a library of the same name.
//! - A `.luaurc` that cannot be read as JSON with comments stays as it is, and the error says where.
//! - Files are replaced whole: nobody sees half of one. A file that is not ours is not replaced.
//!
//! Not here: how the text of `.luaurc` is edited (`luaurc.rs`).

use super::luaurc;
use hukilau::core::transport::system_text;
use hukilau::{DEFINITION_FILES, DIALECT_TYPE_MODULES, Error, TYPE_MODULES};
use std::path::{Path, PathBuf};

/// Each alias with its folder below `types/`. Zune's modules have had two names.
const ALIASES: &[(&str, &str)] = &[
    ("huki", "huki"),
    ("lune", "lune"),
    ("lute", "lute"),
    ("std", "std"),
    ("batteries", "batteries"),
    ("zcore", "zune"),
    ("zune", "zune"),
];

/// The alias that is ours alone: one that leads elsewhere is out of date.
const OURS: &str = "huki";

/// What every file that we write says, and no other is likely to.
const SIGN: &str = "built into `huki`";

/// An alias that leads elsewhere, and where.
type Kept = (&'static str, String);

/// Sets the project in `folder` up.
pub(crate) fn setup(folder: &str) -> Result<u8, Error> {
    let folder = Path::new(folder);
    let path = folder.join(".luaurc");
    // First what may be refused, so that a refusal has written nothing.
    refuse_two_configurations(folder)?;
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let (after, kept) = with_aliases(&before).map_err(|(line, what)| {
        let path = path.display();
        Error::Unreadable(format!("{path}:{line}: {what}; the file is left as it is"))
    })?;
    let types = folder.join("types");
    for (name, _) in files() {
        refuse_foreign(&types.join(name))?;
    }
    for (name, source) in files() {
        write(&types.join(name), source)?;
    }
    write(&path, &after)?;
    for (alias, target) in kept {
        println!(
            "{}: the alias \"{alias}\" is left as it is, \"{target}\"",
            path.display()
        );
    }
    Ok(0)
}

/// Luau refuses a folder with two configurations, so we must not make the second.
fn refuse_two_configurations(folder: &Path) -> Result<(), Error> {
    let other = folder.join(".config.luau");
    if !other.exists() {
        return Ok(());
    }
    let aliases: Vec<String> = ALIASES
        .iter()
        .map(|(alias, folder)| format!("{alias} = \"./types/{folder}\""))
        .collect();
    Err(Error::Unreadable(format!(
        "{} is there, and a folder has one configuration: add {} to its luau.aliases, and run `huki setup` in a folder \
         without one for the files",
        other.display(),
        aliases.join(", ")
    )))
}

/// A file at `path` must be one that an earlier setup has written.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.contains(SIGN) => Err(Error::Unreadable(format!(
            "{} is a file of yours, and setup would replace it: move it; nothing is written",
            path.display()
        ))),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// `text` with all aliases, and those of them that lead elsewhere and were left so.
fn with_aliases(text: &str) -> Result<(String, Vec<Kept>), luaurc::Refusal> {
    let (mut text, mut kept) = (text.to_owned(), Vec::new());
    // Each is inserted before those that are there, so the last comes first.
    for (alias, folder) in ALIASES.iter().rev() {
        let target = format!("./types/{folder}");
        match luaurc::alias(&text, alias)? {
            Some(known) if *alias != OURS && known != target => kept.push((*alias, known)),
            _ => text = luaurc::with_alias(&text, alias, &target)?,
        }
    }
    kept.reverse();
    Ok((text, kept))
}

/// What is written, by its path below `types/`.
fn files() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let modules = || TYPE_MODULES.iter().chain(DIALECT_TYPE_MODULES);
    let modules = modules().map(move |(module, source)| {
        let module = module.trim_start_matches('@');
        let (alias, name) = module.split_once('/').unwrap_or((module, "init"));
        let found = ALIASES.iter().find(|(known, _)| *known == alias);
        let folder = found.map_or(alias, |(_, folder)| folder);
        // A module that has others below it is the `init` of their folder.
        let below = format!("@{module}/");
        let has_parts = modules().any(|(other, _)| other.starts_with(&below));
        let file = if has_parts { "/init.luau" } else { ".luau" };
        (PathBuf::from(format!("{folder}/{name}{file}")), *source)
    });
    let definitions = DEFINITION_FILES.iter();
    modules.chain(definitions.map(|(path, source)| (PathBuf::from(path), *source)))
}

/// Writes `text` to `path`, unless that is what it holds, and tells.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    if std::fs::read_to_string(path).is_ok_and(|now| now == text) {
        super::say(format_args!("{} is up to date", path.display()));
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    std::fs::write(beside, text)
        .and_then(|()| std::fs::rename(beside, path))
        .map_err(|error| unwritable(path, &error))?;
    super::say(format_args!("{} written", path.display()));
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unreadable(format!(
        "cannot read {}: {}",
        path.display(),
        system_text(error)
    ))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unreadable(format!(
        "cannot write {}: {}",
        path.display(),
        system_text(error)
    ))
}
