//! How modules are found: `./`, `../`, `@self`, `init.luau`, and the aliases of `.luaurc` and
//! `.config.luau`, nearest file first.
//!
//! Sits beside `runtime.rs`, which registers `@huki/…`. Navigation is mlua's `FsRequirer`; this file
//! gives chunks the path of their file as a name, so that errors read `lib/rooms.luau:12`, and makes
//! errors of loading plain strings.
//!
//! Invariants
//! - A module is loaded once, whatever path it is required by, and however many require it while it waits
//!   (`require/once.luau`).
//! - Each script and module has globals of its own over the frozen ones that all share: what modules
//!   share is what they return, and nothing else.
//! - Standard input, which has no path, requires from the working directory.
//!
//! Not here: what is said of modules that are not found (`require/told.rs`), what the built-in modules hold (`net/`, `std/`).

mod told;

pub(crate) use told::{explained, unusable};

use crate::runtime::Worker;
use crate::surface;
use crate::vm;
use hukilau_core::transport::system_text;
use mlua::luau::{FsRequirer, NavigateError, Require};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The name of a chunk that came from standard input.
pub(crate) const STDIN_CHUNK: &str = "=stdin";

/// The name of chunks that were typed into `huki repl`.
pub(crate) const REPL_CHUNK: &str = "=repl";

/// Finds modules in the file system.
#[derive(Debug)]
pub(crate) struct Requirer {
    files: FsRequirer,
    purpose: Purpose,
}

/// Files that were met while checking: path, chunk name and source.
pub(crate) type Met = Rc<RefCell<VecDeque<(PathBuf, String, Vec<u8>)>>>;

/// What modules are looked for.
#[derive(Debug)]
enum Purpose {
    /// To run them, and to tell which files they are.
    Run(Loaded),
    /// To compile them and nothing more.
    Check(Met),
}

/// The files that scripts of a runtime have loaded, and how they were then, for whoever watches them
/// for changes. Clones share one list, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Loaded(Arc<Mutex<BTreeMap<PathBuf, Mark>>>);

/// What a file is known by: when it was written and how long it is; nothing if it is not there.
type Mark = Option<(SystemTime, u64)>;

fn mark(path: &Path) -> Mark {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}

impl Loaded {
    /// Adds a file as it is now: call it before the file is read.
    pub fn add(&self, path: &Path) {
        let mark = mark(path);
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(path.to_owned()).or_insert(mark);
    }

    /// The files so far, in the order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.keys().cloned().collect()
    }

    /// A file that is there and is not as it was when it was added.
    pub fn changed(&self) -> Option<PathBuf> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = files.iter().filter(|(path, was)| {
            // An editor that replaces a file takes it away first.
            let now = mark(path);
            now.is_some() && now != **was
        });
        changed.next().map(|(path, _)| path.clone())
    }
}

impl Requirer {
    /// Loads modules, and tells `loaded` their files.
    pub(crate) fn running(loaded: Loaded) -> Self {
        Self {
            files: FsRequirer::default(),
            purpose: Purpose::Run(loaded),
        }
    }

    /// Compiles modules, tells `met` of them, and runs nothing.
    pub(crate) fn checking(met: Met) -> Self {
        Self {
            files: FsRequirer::default(),
            purpose: Purpose::Check(met),
        }
    }
}

/// Compiles a module or script. With an [`environment`] it can be run.
///
/// # Errors
/// One line: `file:line: what is wrong`.
pub(crate) fn compile(
    lua: &mlua::Lua,
    source: &[u8],
    name: &str,
    environment: Option<mlua::Table>,
) -> Result<mlua::Function, String> {
    let source = readable(source);
    check_source(&source).map_err(|what| format!("{}{what}", shown_name(name)))?;
    let chunk = lua
        .load(&*source)
        .set_mode(mlua::chunk::ChunkMode::Text)
        .set_name(name);
    let chunk = match environment {
        Some(environment) => chunk.set_environment(environment),
        None => chunk,
    };
    chunk
        .into_function()
        .map_err(|error| syntax_message(&error))
}

/// The chunk name for a source file.
pub(crate) fn chunk_name(path: &str) -> String {
    format!("@{}", path.strip_prefix("./").unwrap_or(path))
}

/// Where the registry keeps the globals that scripts share.
const GLOBALS: &str = "huki globals";

/// Where it keeps what the globals of a script read on in: the same, or [`open_globals`]' table before it.
const BEHIND: &str = "huki globals behind a script's";

/// Remembers the globals that every script and module sees, before the sandbox closes.
pub(crate) fn keep_globals(lua: &mlua::Lua) -> mlua::Result<()> {
    lua.set_named_registry_value(GLOBALS, lua.globals())?;
    lua.set_named_registry_value(BEHIND, lua.globals())
}

/// Makes `_G` a table that scripts may write to, one for all of them; what they write is a global of those that load
/// from here on. The globals that are built in stay as they are.
pub(crate) fn open_globals(lua: &mlua::Lua) -> mlua::Result<()> {
    let shared: mlua::Table = lua.named_registry_value(GLOBALS)?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", shared)?;
    meta.set_readonly(true);
    let open = lua.create_table()?;
    open.set_metatable(Some(meta))?;
    set_global(lua, "_G", &open)?;
    lua.set_named_registry_value(BEHIND, open)
}

/// Globals for one script or module: what it sets is its own, and what it reads is everybody's.
pub(crate) fn environment(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    let behind: mlua::Table = lua.named_registry_value(BEHIND)?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", behind)?;
    meta.set_readonly(true);
    let own = lua.create_table()?;
    own.set_metatable(Some(meta))?;
    // What is shared is frozen, so the compiler may rely on it until a script sets a global.
    own.set_safeenv(true);
    Ok(own)
}

/// Sets a global that every script and module sees.
pub(crate) fn set_global(
    lua: &mlua::Lua,
    name: &str,
    value: impl mlua::IntoLua,
) -> mlua::Result<()> {
    let shared: mlua::Table = lua.named_registry_value(GLOBALS)?;
    shared.set_readonly(false);
    let set = shared.raw_set(name, value);
    shared.set_readonly(true);
    set
}

/// The source of the script at `path`.
pub(crate) fn read_source(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::IsADirectory => {
                "; a script is a file, such as init.luau in it".to_owned()
            }
            std::io::ErrorKind::NotFound if Path::new(&format!("{path}.luau")).is_file() => {
                format!("; there is {path}.luau")
            }
            _ => String::new(),
        };
        format!("cannot read {path}: {}{hint}", system_text(&error))
    })
}

/// The source without what editors and systems put in front of it: the mark of UTF-8, and a first line that names the
/// interpreter, which becomes a comment so that lines keep their numbers.
pub(crate) fn readable(source: &[u8]) -> Cow<'_, [u8]> {
    let source = source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source);
    let Some(line) = source.strip_prefix(b"#!") else {
        return Cow::Borrowed(source);
    };
    let end = line.iter().position(|byte| *byte == b'\n');
    let rest = end.and_then(|end| line.get(end..)).unwrap_or_default();
    Cow::Owned([b"--", rest].concat())
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
        matches!(chunk_name, STDIN_CHUNK | REPL_CHUNK) || self.files.is_require_allowed(chunk_name)
    }

    fn reset(&mut self, chunk_name: &str) -> Result<(), NavigateError> {
        if matches!(chunk_name, STDIN_CHUNK | REPL_CHUNK) {
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
        let name = chunk_name(&shown);
        let environment = match self.purpose {
            Purpose::Check(_) => None,
            Purpose::Run(_) => Some(environment(lua)?),
        };
        if let Purpose::Run(loaded) = &self.purpose {
            loaded.add(Path::new(&path));
        }
        let source = std::fs::read(&path)
            .map_err(|error| format!("cannot read {shown}: {}", system_text(&error)));
        if let (Purpose::Run(_), Ok(source)) = (&self.purpose, &source)
            && let Some(worker) = lua.app_data_ref::<Rc<Worker>>()
        {
            surface::prepare(lua, &worker, source)?;
        }
        let loaded = source.and_then(|source| {
            let function = compile(lua, &source, &name, environment)?;
            if let Purpose::Check(met) = &self.purpose {
                met.borrow_mut()
                    .push_back((PathBuf::from(&path), name, source));
            }
            Ok(function)
        });
        match loaded {
            Ok(_) if matches!(self.purpose, Purpose::Check(_)) => {
                lua.load("return function() return true end").call(())
            }
            Ok(function) => once(lua, &shown, function),
            Err(message) => lua
                .load("local message = ... return function() error(message, 0) end")
                .set_name(format!("={} require]", surface::CHUNK))
                .call(message),
        }
    }
}

/// Where the registry keeps what `once.luau` returns.
const ONCE: &str = "huki once";

/// A loader that runs `chunk` once, however many coroutines require the module while it waits for something.
fn once(lua: &mlua::Lua, shown: &str, chunk: mlua::Function) -> mlua::Result<mlua::Function> {
    if let Some(make) = lua.named_registry_value::<Option<mlua::Function>>(ONCE)? {
        return make.call((shown, chunk));
    }
    let globals: mlua::Table = lua.named_registry_value(GLOBALS)?;
    let task: mlua::Table = lua
        .named_registry_value::<mlua::Table>(surface::REGISTERED)?
        .raw_get("@huki/task")?;
    let coroutines: mlua::Table = globals.raw_get("coroutine")?;
    let parts = lua.create_table()?;
    parts.raw_set("running", coroutines.raw_get::<mlua::Function>("running")?)?;
    parts.raw_set("status", coroutines.raw_get::<mlua::Function>("status")?)?;
    parts.raw_set("wait", task.get::<mlua::Function>("wait")?)?;
    if let Some(worker) = lua.app_data_ref::<Rc<Worker>>() {
        parts.raw_set("note", vm::noting(lua, &worker)?)?;
    }
    let make: mlua::Function = lua
        .load(include_str!("require/once.luau"))
        .set_name(format!("={} require]", surface::CHUNK))
        .set_environment(environment(lua)?)
        .call(parts)?;
    lua.set_named_registry_value(ONCE, &make)?;
    make.call((shown, chunk))
}

/// The one line of a compile error: `file:line: what`.
pub(crate) fn syntax_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } => message.trim_end().to_owned(),
        other => other.to_string(),
    }
}
