//! How modules are found: `./`, `../`, `@self`, `init.luau`, and the aliases of `.luaurc` and
//! `.config.luau`, nearest file first.
//!
//! Sits beside `runtime.rs`, which registers `@huki/…`. Navigation is mlua's `FsRequirer`; this file
//! gives chunks the path of their file as a name, so that errors read `lib/rooms.luau:12`, and makes
//! errors of loading plain strings.
//!
//! Invariants
//! - A module is loaded once, whatever path it is required by.
//! - Each script and module has globals of its own over the frozen ones that all share: what modules
//!   share is what they return, and nothing else.
//! - Standard input, which has no path, requires from the working directory.
//!
//! Not here: what the built-in modules hold (`net/`, `std/`).

use mlua::luau::{FsRequirer, NavigateError, Require};
use std::path::Path;

/// The name of a chunk that came from standard input.
pub(crate) const STDIN_CHUNK: &str = "=stdin";

/// Finds modules in the file system.
#[derive(Debug, Default)]
pub(crate) struct Requirer {
    files: FsRequirer,
}

/// The chunk name for a source file.
pub(crate) fn chunk_name(path: &str) -> String {
    format!("@{}", path.strip_prefix("./").unwrap_or(path))
}

/// Where the registry keeps the globals that scripts share.
const GLOBALS: &str = "huki globals";

/// Remembers the globals that every script and module sees, before the sandbox closes.
pub(crate) fn keep_globals(lua: &mlua::Lua) -> mlua::Result<()> {
    lua.set_named_registry_value(GLOBALS, lua.globals())
}

/// Globals for one script or module: what it sets is its own, and what it reads is everybody's.
pub(crate) fn environment(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    let shared: mlua::Table = lua.named_registry_value(GLOBALS)?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", shared)?;
    meta.set_readonly(true);
    let own = lua.create_table()?;
    own.set_metatable(Some(meta))?;
    // What is shared is frozen, so the compiler may rely on it until a script sets a global.
    own.set_safeenv(true);
    Ok(own)
}

/// The source of the script at `path`.
pub(crate) fn read_source(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::IsADirectory => "; a script is a file, such as init.luau in it",
            _ => "",
        };
        format!("cannot read {path}: {error}{hint}")
    })
}

/// Refuses what the compiler would read in part: it takes a source to end at the first NUL.
///
/// # Errors
/// `:line: what is wrong`.
pub(crate) fn check_source(source: &[u8]) -> Result<(), String> {
    let Some(at) = source.iter().position(|byte| *byte == 0) else {
        return Ok(());
    };
    let before = source.get(..at).unwrap_or_default();
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    Err(format!(
        ":{line}: a NUL byte (byte {at} of the file), which no script has; write \\0 inside a string"
    ))
}

/// A chunk name as errors show it.
pub(crate) fn shown_name(name: &str) -> &str {
    name.strip_prefix(['@', '=']).unwrap_or(name)
}

impl Require for Requirer {
    fn is_require_allowed(&self, chunk_name: &str) -> bool {
        chunk_name == STDIN_CHUNK || self.files.is_require_allowed(chunk_name)
    }

    fn reset(&mut self, chunk_name: &str) -> Result<(), NavigateError> {
        if chunk_name == STDIN_CHUNK {
            return self.files.reset("@./stdin.rs");
        }
        // A module in `lib/init.luau` is the module `lib`, and looks around from there.
        let path = ["/init.luau", "/init.lua"]
            .into_iter()
            .find_map(|file| chunk_name.strip_suffix(file))
            .unwrap_or(chunk_name);
        self.files.reset(path)
    }

    fn jump_to_alias(&mut self, path: &str) -> Result<(), NavigateError> {
        self.files.jump_to_alias(path)
    }

    fn to_parent(&mut self) -> Result<(), NavigateError> {
        self.files.to_parent()
    }

    fn to_child(&mut self, name: &str) -> Result<(), NavigateError> {
        self.files.to_child(name)
    }

    fn has_module(&self) -> bool {
        self.files.has_module()
    }

    fn cache_key(&self) -> String {
        self.files.cache_key()
    }

    fn has_config(&self) -> bool {
        self.files.has_config()
    }

    fn config(&self) -> std::io::Result<Vec<u8>> {
        self.files.config()
    }

    fn loader(&self, lua: &mlua::Lua) -> mlua::Result<mlua::Function> {
        let path = self.files.cache_key();
        let shown = std::env::current_dir()
            .ok()
            .and_then(|cwd| Path::new(&path).strip_prefix(cwd).ok())
            .map_or_else(|| path.clone(), |inside| inside.display().to_string());
        let environment = environment(lua)?;
        let loaded = std::fs::read(&path)
            .map_err(|error| format!("cannot read {shown}: {error}"))
            .and_then(|source| {
                check_source(&source).map_err(|what| format!("{shown}{what}"))?;
                lua.load(source)
                    .set_mode(mlua::chunk::ChunkMode::Text)
                    .set_name(chunk_name(&shown))
                    .set_environment(environment.clone())
                    .into_function()
                    .map_err(|error| syntax_message(&error))
            });
        match loaded {
            Ok(function) => Ok(function),
            Err(message) => lua
                .load("local message = ... return function() error(message, 0) end")
                .set_name("=require")
                .call(message),
        }
    }
}

/// The one line of a compile error: `file:line: what`.
pub(crate) fn syntax_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } => message.trim_end().to_owned(),
        other => other.to_string(),
    }
}
