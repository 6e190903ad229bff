//! What a dialect asks of the native module, without asking it: for limits that no test can wait for.
//!
//! A surface is loaded with a `require` that gives it a stand-in for `@huki/net`, which keeps the options
//! that it was called with. That the native module then keeps to them is shown where its own tests
//! have a clock to turn.

/// The stand-ins: `net` keeps options as `asked`, the other modules do nothing.
const STUB: &str = r#"
local open = ...
local asked = {}
local function nothing() end
local quiet = setmetatable({}, { __index = function() return nothing end })
local function keep(result)
    return function(first, second)
        asked.options = if type(second) == "table" then second else first
        return result
    end
end
local headers = setmetatable({ pairs = function() return nothing end }, { __iter = function() return nothing end })
local response = { ok = true, status = 200, statusText = "OK", headers = headers, body = "" }
local net = setmetatable({
    request = keep(response),
    serve = keep(setmetatable({ port = 1, address = "127.0.0.1" }, { __index = quiet })),
    websocket = keep(setmetatable({}, { __index = quiet })),
    connect = keep(setmetatable({ setTtl = function(_, ttl) asked.ttl = ttl end }, { __index = quiet })),
    statusText = function() return "OK" end,
}, { __index = quiet })
local surface = setmetatable({
    raise = function(text) error(text, 0) end,
    newtype = function(_, methods) return methods end,
    wrap = function(_, state) return state end,
    unwrap = function(_, state) return state end,
}, { __index = quiet })
local loaded = { ["@huki/net"] = net, ["@huki/surface"] = surface }
local function require(path)
    if loaded[path] == nil then
        local load = open(path)
        loaded[path] = if load then load(require) else quiet
    end
    return loaded[path]
end
return require, asked
"#;

/// Where the module is that a surface requires as `path`; `None` for one that is not a surface.
fn file(path: &str) -> Option<String> {
    let name = path
        .strip_prefix("@huki/surface/")
        .map(str::to_owned)
        .or_else(|| {
            path.strip_prefix("@lute/net/")
                .map(|name| format!("lute/{name}"))
        })
        .or_else(|| {
            path.strip_prefix("@lune/")
                .map(|name| format!("lune/{name}"))
        })
        .or_else(|| (path == "@huki/winhttp").then(|| "winhttp/net".to_owned()))?;
    let folder = env!("CARGO_MANIFEST_DIR");
    Some(format!("{folder}/src/surface/{name}.luau"))
}

/// Runs `script`, which finds the surface's modules by `require` and the last options that the native
/// module was given as `asked.options`; what it returns.
#[track_caller]
pub(crate) fn values(script: &str) -> Vec<f64> {
    let lua = mlua::Lua::new();
    let open = lua.create_function(|lua, path: String| {
        let Some(file) = file(&path) else {
            return Ok(None);
        };
        let source = std::fs::read_to_string(&file).expect("the surface is there");
        let source = format!("local require = ... {source}");
        lua.load(source)
            .set_name(format!("={path}"))
            .into_function()
            .map(Some)
    });
    let stub = lua.load(STUB).set_name("=stub");
    let (require, asked): (mlua::Function, mlua::Table) = stub
        .call(open.expect("a function can be made"))
        .expect("the stand-ins are made");
    let script = format!("local require, asked = ... {script}");
    let values: mlua::Variadic<f64> = lua
        .load(script)
        .set_name("=script")
        .call((require, asked))
        .expect("the script runs");
    values.to_vec()
}
