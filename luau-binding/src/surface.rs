//! Dialects: the modules and globals of other Luau systems, as Luau over `@huki/net`.
//!
//! Sits above `require.rs`. A surface is a file of `surface/`, part of the binary and compiled when a
//! script first requires it. What the native modules lack and only surfaces want is in
//! `surface/helpers.rs`, which they require as `@huki/surface`.
//!
//! ```text
//! require("@lune/net") ─▶ MODULES ─▶ compile ─▶ the surface ─▶ @huki/net, @huki/surface
//! zune.net, ws_connect ─▶ GLOBALS ─▶ the same, when a source that names them is loaded
//! ```
//!
//! Invariants
//! - A script that uses no dialect pays for none: but for a stand-in nothing is compiled, no global is set.
//! - The dialect of a process is the first that it uses; `--dialect` decides before.
//! - No error names a surface's own lines: a surface's frames are skipped (`vm/function.rs`).
//! - Surfaces load without suspending, and keep no state in globals.
//!
//! Not here: what a dialect's functions do (`surface/*/`), how files are found (`require.rs`).

mod children;
mod files;
mod helpers;
pub(crate) mod lost;

use crate::check::{Scan, Token};
use crate::require;
use crate::runtime::install::untranslated;
use crate::runtime::{Options, Worker};
use crate::vm;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

/// A system whose scripts run unmodified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// `@lune/…`
    Lune,
    /// `@lute/…` and `@std/…`
    Lute,
    /// The global `zune`.
    Zune,
    /// `@zcore/…`, the generation of Zune before.
    Zcore,
    /// The globals `net_http_get`, `net_http_post` and `ws_connect`.
    WinHttp,
}

impl Dialect {
    /// All of them with the names that `--dialect` knows.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("lune", Self::Lune),
        ("lute", Self::Lute),
        ("zune", Self::Zune),
        ("zcore", Self::Zcore),
        ("winhttp", Self::WinHttp),
    ];

    /// `_VERSION` as the scripts of this system expect it; `None` where it is Luau's own. The number
    /// behind the plus sign is Luau's release.
    fn version(self) -> Option<String> {
        let luau = vm::luau_version();
        let release = luau.strip_prefix("0.").unwrap_or(luau);
        match self {
            Self::Lune => Some(format!("Lune 0.10.5+{release}")),
            Self::Zune => Some(format!("zune 0.5.7+{luau}")),
            Self::Zcore => Some(format!("Zune 0.4.2+{luau}")),
            Self::Lute | Self::WinHttp => None,
        }
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let known: Vec<&str> = Self::ALL.iter().map(|(known, _)| *known).collect();
        found
            .map(|(_, dialect)| *dialect)
            .ok_or_else(|| format!("must be one of {}, not '{name}'", known.join(", ")))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, dialect)| dialect == self);
        f.write_str(found.map_or("", |(name, _)| *name))
    }
}

/// A module that is compiled when it is first required.
struct Module {
    /// What scripts require; what begins with [`PART`] only surfaces can.
    path: &'static str,
    source: &'static str,
    dialect: Dialect,
}

macro_rules! modules {
    ($( $dialect:ident { $( $path:literal = $file:literal, )* } )*) => {
        &[ $( $( Module {
            path: $path,
            source: include_str!(concat!("surface/", $file, ".luau")),
            dialect: Dialect::$dialect,
        }, )* )* ]
    };
}

/// How the paths begin that only surfaces may require. The bare `@huki/surface` is `helpers.rs`.
const PART: &str = "@huki/surface/";

const MODULES: &[Module] = modules! {
    Lune {
        "@lune/fs" = "lune/fs",
        "@lune/net" = "lune/net",
        "@lune/process" = "lune/process",
        "@lune/serde" = "lune/serde",
        "@lune/stdio" = "lune/stdio",
        "@lune/task" = "lune/task",
        "@huki/surface/lune/http" = "lune/http",
        "@huki/surface/lune/server" = "lune/server",
        "@huki/surface/lune/socket" = "lune/socket",
        "@huki/surface/lune/tcp" = "lune/tcp",
    }
    Zune {
        "@huki/surface/zune" = "zune/init",
        "@huki/surface/zune/constants" = "zune/constants",
        "@huki/surface/zune/crypto_tls" = "zune/crypto_tls",
        "@huki/surface/zune/io" = "zune/io",
        "@huki/surface/zune/fs" = "zune/fs",
        "@huki/surface/zune/message" = "zune/message",
        "@huki/surface/zune/names" = "zune/names",
        "@huki/surface/zune/net" = "zune/net",
        "@huki/surface/zune/options" = "zune/options",
        "@huki/surface/zune/process" = "zune/process",
        "@huki/surface/zune/request" = "zune/request",
        "@huki/surface/zune/serde" = "zune/serde",
        "@huki/surface/zune/serve" = "zune/serve",
        "@huki/surface/zune/socket" = "zune/socket",
        "@huki/surface/zune/sockets" = "zune/sockets",
        "@huki/surface/zune/task" = "zune/task",
        "@huki/surface/zune/testing" = "zune/testing",
        "@huki/surface/zune/uri" = "zune/uri",
        "@huki/surface/zune/version" = "zune/version",
        "@huki/surface/zune/websocket" = "zune/websocket",
    }
    Zcore {
        "@zcore/fs" = "zune/fs",
        "@zcore/net" = "zune/seed_net",
        "@zcore/process" = "zune/process",
        "@zcore/serde" = "zune/serde",
        "@zcore/task" = "zune/task",
        "@zcore/testing" = "zune/testing",
        "@zune/fs" = "zune/fs",
        "@zune/net" = "zune/seed_net",
        "@zune/process" = "zune/process",
        "@zune/serde" = "zune/serde",
        "@zune/task" = "zune/task",
        "@zune/testing" = "zune/testing",
        "@huki/surface/zune/seed_request" = "zune/seed_request",
        "@huki/surface/zune/seed_serve" = "zune/seed_serve",
        "@huki/surface/zune/seed_socket" = "zune/seed_socket",
    }
    Lute {
        "@lute/net" = "lute/net",
        "@lute/net/client" = "lute/client",
        "@lute/net/server" = "lute/server",
        "@lute/process" = "lute/process",
        "@lute/task" = "lute/task",
        "@lute/time" = "lute/time_module",
        "@lute/vm" = "lute/vm",
        "@batteries/pp" = "lute/pp",
        "@std/json" = "lute/std_json",
        "@std/net" = "lute/std_net",
        "@std/process" = "lute/process",
        "@std/task" = "lute/std_task",
        "@std/test" = "lute/test",
        "@std/time" = "lute/time_module",
        "@huki/surface/lute/time" = "lute/time",
        "@huki/surface/lute/trace" = "lute/trace",
    }
    WinHttp {
        "@huki/winhttp" = "winhttp/net",
    }
};

/// A global that appears when a source names it.
#[derive(Debug)]
struct Global {
    name: &'static str,
    /// The module that it comes from, a path of [`MODULES`], scripts may require it or not.
    path: &'static str,
    /// The module's field that it is; `None` for the module itself.
    field: Option<&'static str>,
    dialect: Dialect,
    /// There only by `--dialect`, as scripts of other systems have their own.
    is_asked_for: bool,
}

const GLOBALS: &[Global] = &[
    Global {
        name: "zune",
        path: "@huki/surface/zune",
        field: None,
        dialect: Dialect::Zune,
        is_asked_for: false,
    },
    winhttp("net_http_get", false),
    winhttp("net_http_post", false),
    winhttp("ws_connect", false),
    winhttp("json_encode", true),
    winhttp("json_decode", true),
];

/// A function of the WinHTTP-style API.
const fn winhttp(name: &'static str, is_asked_for: bool) -> Global {
    Global {
        name,
        path: "@huki/winhttp",
        field: Some(name),
        dialect: Dialect::WinHttp,
        is_asked_for,
    }
}

/// Requires that begin so are never files: an unknown one is told the known ones.
const OURS: &[&str] = &["@lune/", "@lute/", "@zcore/", "@zune/", "@huki/surface"];

/// Lute's library, of which some is here.
const STD: &str = "@std/";

/// The modules of all dialects that scripts may require.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    let modules = MODULES.iter().map(|module| module.path);
    modules.filter(|path| !path.starts_with(PART))
}

/// How chunks of surfaces are named. Errors and tracebacks skip frames whose source begins so.
pub(crate) const CHUNK: &str = "[huki surface";

/// What a worker knows of dialects.
#[derive(Debug, Default)]
pub(crate) struct State {
    dialect: Cell<Option<Dialect>>,
    is_forced: Cell<bool>,
    /// Something that nothing caught has been reported.
    has_failed: Cell<bool>,
    /// Turns of the loop so far.
    turns: Cell<u32>,
    /// A test of a script has failed.
    has_failed_test: Cell<bool>,
    pub(crate) lost: lost::Lost,
}

impl State {
    /// Notes that the loop has looked at all sockets.
    pub(crate) fn note_turn(&self) {
        self.turns.set(self.turns.get().wrapping_add(1));
    }

    /// Notes that an error was reported.
    pub(crate) fn note_failure(&self) {
        self.has_failed.set(true);
    }

    /// Whether a script that fails leaves what it has started running: Lune's rule.
    pub(crate) fn outlives_failure(&self) -> bool {
        self.dialect.get() == Some(Dialect::Lune)
    }

    /// Whether what is due by time comes before what was deferred earlier: Zune's rule.
    pub(crate) fn times_come_first(&self) -> bool {
        matches!(self.dialect.get(), Some(Dialect::Zune | Dialect::Zcore))
    }

    /// Notes that a test of a script has failed.
    fn note_failed_test(&self) {
        self.has_failed_test.set(true);
    }

    /// The exit status when nothing is left to do: 1 if a test has failed. In Lune a failure
    /// anywhere makes it 1.
    pub(crate) fn status(&self) -> u8 {
        let has_failed = self.outlives_failure() && self.has_failed.get();
        u8::from(has_failed || self.has_failed_test.get())
    }
}

/// Runs on a miss of the table of modules; `inner` is `require` as surfaces have it.
const LOADER: &str = r"
local compile, modules, parts = ...
local inner
local function load(path, isInside)
	local chunk, problem = compile(path, isInside)
	if problem then error(problem, 0) end
	return chunk and chunk(inner)
end
function inner(path)
	if string.sub(path, 1, 13) ~= '@huki/surface' then return modules[path] end
	local value = parts[path]
	if value == nil then
		value = load(path, true)
		parts[path] = value
	end
	return value
end
return function(modules, path)
	local value = load(path, false)
	if value ~= nil then rawset(modules, path, value) end
	return value
end, inner
";

/// What stands for it until the first miss: most scripts have none, and it takes a twelfth of a start to make.
const STAND_IN: &str = r"
local make = ...
local load
return function(modules, path)
	load = load or make()
	return load(modules, path)
end
";

/// Where the function is kept that makes the loader and the `require` of surfaces.
const MAKE: &str = "_SURFACES";

/// Where they are, once they are made.
const MADE: &str = "_SURFACES_MADE";

/// What stands before each surface, on its first line: its `require` also finds what scripts cannot.
const PRELUDE: &str = "local require = ... ";

/// Where mlua keeps what `register_module` was given: looked at before files.
pub(crate) const REGISTERED: &str = "_REGISTEREDMODULES";

/// Has `require` find surfaces. Call it when the native modules are registered.
pub(crate) fn install(lua: &mlua::Lua, options: &Options) -> mlua::Result<()> {
    let options = options.clone();
    let make = lua.create_function(move |lua, ()| make(lua, &options))?;
    let stand_in = lua.load(STAND_IN).set_name(format!("={CHUNK}]"));
    let meta = lua.create_table()?;
    meta.raw_set("__index", stand_in.call::<mlua::Function>(&make)?)?;
    lua.set_named_registry_value(MAKE, make)?;
    let modules: mlua::Table = lua.named_registry_value(REGISTERED)?;
    modules.set_metatable(Some(meta))
}

/// The loader, and the `require` of surfaces; made once.
fn make(lua: &mlua::Lua, options: &Options) -> mlua::Result<(mlua::Function, mlua::Function)> {
    if let Some(made) = lua.named_registry_value::<Option<mlua::Table>>(MADE)? {
        return Ok((made.raw_get(1)?, made.raw_get(2)?));
    }
    let modules: mlua::Table = lua.named_registry_value(REGISTERED)?;
    let codegen = options.codegen;
    let compile =
        lua.create_function(move |lua, asked| untranslated(lua, codegen, || compile(lua, asked)))?;
    let parts = lua.create_table()?;
    let helpers = helpers::module(lua, &worker(lua)?, options)?;
    parts.raw_set("@huki/surface", helpers)?;
    let chunk = lua
        .load(LOADER)
        .set_name(format!("={CHUNK}]"))
        .set_environment(require::environment(lua)?);
    let (loader, inner): (mlua::Function, mlua::Function) =
        untranslated(lua, codegen, || chunk.call((compile, modules, parts)))?;
    lua.set_named_registry_value(MADE, lua.create_sequence_from([&loader, &inner])?)?;
    Ok((loader, inner))
}

/// The worker whose VM this is.
fn worker(lua: &mlua::Lua) -> mlua::Result<Rc<Worker>> {
    let found = lua.app_data_ref::<Rc<Worker>>();
    found
        .map(|found| Rc::clone(&found))
        .ok_or_else(|| mlua::Error::RuntimeError("the runtime has ended".to_owned()))
}

/// The process speaks the dialect that it was told to. Call it when the sandbox is closed, which freezes what it finds.
pub(crate) fn decide(lua: &mlua::Lua, worker: &Worker, options: &Options) -> mlua::Result<()> {
    let Some(dialect) = options.dialect else {
        return Ok(());
    };
    worker.surface.is_forced.set(true);
    speak(lua, worker, dialect)
}

/// The chunk for `path`; nil if it is no surface, and what to say if it should be one.
fn compile(
    lua: &mlua::Lua,
    (path, is_inside): (String, bool),
) -> mlua::Result<(Option<mlua::Function>, Option<String>)> {
    let module = MODULES
        .iter()
        .find(|module| module.path == path && (is_inside || !path.starts_with(PART)));
    let Some(module) = module else {
        return Ok((None, unknown(&path)));
    };
    speak(lua, &*worker(lua)?, module.dialect)?;
    let environment = require::environment(lua)?;
    let compiler = mlua::chunk::Compiler::new()
        .set_optimization_level(2)
        .set_debug_level(1);
    let chunk = lua
        .load(format!("{PRELUDE}{}", module.source))
        .set_name(format!("={CHUNK} {path}]"))
        .set_compiler(compiler)
        .set_environment(environment)
        .into_function()?;
    Ok((Some(chunk), None))
}

/// What to say of a path that looks like a surface and is none.
pub(crate) fn unknown(path: &str) -> Option<String> {
    let ours = OURS.iter().find(|ours| path.starts_with(**ours))?;
    Some(lacking(path, ours))
}

/// As [`unknown`], for what no file has turned out to be either: `@std` may be an alias of a script's own.
pub(crate) fn unknown_to_all(path: &str) -> Option<String> {
    let is_std = path.starts_with(STD);
    unknown(path).or_else(|| is_std.then(|| lacking(path, STD)))
}

fn lacking(path: &str, prefix: &str) -> String {
    let known: Vec<&str> = paths().filter(|known| known.starts_with(prefix)).collect();
    let hint = match known.is_empty() {
        true => "there is none of that name".to_owned(),
        false => format!("there are {}", known.join(", ")),
    };
    format!("error requiring module \"{path}\": {hint}")
}

/// The process speaks `dialect`, unless it has decided on one.
fn speak(lua: &mlua::Lua, worker: &Worker, dialect: Dialect) -> mlua::Result<()> {
    if worker.surface.dialect.get().is_some() {
        return Ok(());
    }
    worker.surface.dialect.set(Some(dialect));
    if let Some(version) = dialect.version() {
        require::set_global(lua, "_VERSION", version)?;
    }
    match dialect {
        // Hosts of the one have no sandbox, and Lune makes `_G` a table for what scripts share.
        Dialect::WinHttp | Dialect::Lune => require::open_globals(lua),
        _ => Ok(()),
    }
}

/// What a source names of dialects.
#[derive(Debug, Default)]
struct Named {
    /// The dialect that comes first.
    dialect: Option<Dialect>,
    globals: Vec<&'static Global>,
}

impl Named {
    /// Notes a global by its name.
    fn global(&mut self, name: &[u8]) -> Option<&'static Global> {
        let global = GLOBALS
            .iter()
            .find(|global| global.name.as_bytes() == name)?;
        if !self.globals.iter().any(|known| known.name == global.name) {
            self.globals.push(global);
        }
        Some(global)
    }

    /// Notes one that is perhaps reached through a table, `_G.ws_connect` or `_G["ws_connect"]`: those of the Net API,
    /// whose names nothing else has.
    fn member(&mut self, name: &[u8]) {
        let is_one =
            |global: &Global| global.dialect == Dialect::WinHttp && global.name.as_bytes() == name;
        if GLOBALS.iter().any(is_one) {
            self.global(name);
        }
    }
}

/// Looks through `source`.
fn names(source: &[u8]) -> Named {
    let mut named = Named::default();
    let mut scan = Scan::new(source);
    let (mut is_required, mut is_member) = (false, false);
    while let Some(token) = scan.token() {
        let is_dot = matches!(token, Token::Other(b'.' | b':'));
        match token {
            Token::Word(word) if !is_member => {
                is_required = word == b"require";
                let global = named.global(word);
                if let Some(global) = global.filter(|global| !global.is_asked_for) {
                    named.dialect = named.dialect.or(Some(global.dialect));
                }
            }
            Token::Word(word) => {
                is_required = false;
                named.member(word);
            }
            Token::Other(b'(') => {}
            Token::Text(text) if is_required => {
                is_required = false;
                let path = String::from_utf8_lossy(&text).to_ascii_lowercase();
                let module = MODULES.iter().find(|module| module.path == path);
                named.dialect = named.dialect.or(module.map(|module| module.dialect));
            }
            Token::Text(text) => named.member(&text),
            Token::Other(_) => is_required = false,
        }
        is_member = is_dot;
    }
    named
}

/// Sets what a source that is about to be loaded expects: its dialect's `_VERSION`, and the globals
/// that it names.
pub(crate) fn prepare(lua: &mlua::Lua, worker: &Worker, source: &[u8]) -> mlua::Result<()> {
    let named = names(source);
    if let Some(dialect) = named.dialect {
        speak(lua, worker, dialect)?;
    }
    let forced = (worker.surface.dialect.get()).filter(|_| worker.surface.is_forced.get());
    for global in GLOBALS {
        // The Net API's own are there for what no source names, too: `send_json` looks for `json_encode`.
        let is_forced = forced == Some(global.dialect);
        let is_named = named.globals.iter().any(|named| named.name == global.name);
        let is_wanted = match global.dialect {
            Dialect::WinHttp => is_forced || (is_named && !global.is_asked_for),
            _ => is_named,
        };
        if !is_wanted {
            continue;
        }
        let make: mlua::Function = lua.named_registry_value(MAKE)?;
        let (_, inner): (mlua::Function, mlua::Function) = make.call(())?;
        let module: mlua::Value = inner.call(global.path)?;
        let value = match (global.field, &module) {
            (Some(field), mlua::Value::Table(module)) => module.raw_get(field)?,
            _ => module,
        };
        require::set_global(lua, global.name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Dialect, MODULES, PART, names};

    #[test]
    fn the_first_dialect_that_a_source_requires_is_its_own() {
        for (source, expected) in [
            ("local net = require('@lune/net')", Some(Dialect::Lune)),
            (
                "print(_VERSION) local t = require '@Lune/Task'",
                Some(Dialect::Lune),
            ),
            ("-- require('@lune/net')", None),
            ("print(\"require('@lune/net')\")", None),
            ("x.require('@lune/net')", None),
            ("require('@lune/unheard-of')", None),
            ("require('@huki/net')", None),
        ] {
            assert_eq!(names(source.as_bytes()).dialect, expected, "{source}");
        }
    }

    #[test]
    fn paths_are_told_apart_and_written_as_require_asks_for_them() {
        for (at, module) in MODULES.iter().enumerate() {
            assert_eq!(module.path, module.path.to_ascii_lowercase());
            assert!(
                module.path.starts_with('@') && module.path != PART,
                "{}",
                module.path
            );
            let again = MODULES
                .iter()
                .skip(at + 1)
                .any(|other| other.path == module.path);
            assert!(!again, "{}", module.path);
        }
    }

    #[test]
    fn a_dialect_is_written_as_it_is_read() {
        for (name, dialect) in Dialect::ALL {
            assert_eq!(name.parse(), Ok(*dialect));
            assert_eq!(dialect.to_string(), *name);
        }
        let refused = "luna".parse::<Dialect>();
        assert!(refused.is_err_and(|text| text.contains("lune, lute, zune")));
    }
}
