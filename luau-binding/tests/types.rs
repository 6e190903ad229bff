//! The type modules are the documentation: they must say what there is.

use crate::support::{Client, Served, run};
use std::path::Path;

/// The names a module has, one a line, sorted.
fn names(expression: &str) -> String {
    let source = format!(
        "local module = {expression}
        -- A module may be a single function.
        if type(module) == 'function' then module = {{ module = module }} end
        local names = {{}}
        for name in module do table.insert(names, name) end
        table.sort(names)
        print(table.concat(names, '\\n'))"
    );
    let output = run(&source, &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_exported_name_is_documented_and_every_documented_name_exported() {
    let dialects = hukilau::DIALECT_TYPE_MODULES;
    for (name, source) in hukilau::TYPE_MODULES.iter().chain(dialects) {
        let real = names(&format!("require('{name}')"));
        let documented = names(&format!("(function() {source} end)()"));
        assert_eq!(documented, real, "{name}");
    }
}

#[test]
fn every_option_is_documented() {
    let (_, source) = hukilau::TYPE_MODULES[0];
    for (given, declared) in [
        (
            "net.serve({ zzzzzzzz = newproxy() })",
            "export type ServeOptions = {",
        ),
        (
            "net.serve({ websocket = { zzzzzzzz = newproxy() } })",
            "export type WebSocketOptions = {",
        ),
        (
            "net.serve({ limits = { zzzzzzzz = newproxy() } })",
            "export type LimitOptions = {",
        ),
        (
            "net.request({ zzzzzzzz = newproxy() })",
            "export type RequestOptions = {",
        ),
        (
            "net.websocket('ws://127.0.0.1:1', { zzzzzzzz = newproxy() })",
            "export type WebSocketRequest = {",
        ),
    ] {
        let output = run(&format!("local net = require('@huki/net')\n{given}"), &[]);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(stderr.contains("unknown option 'zzzzzzzz'"), "{stderr}");
        let (_, behind) = source.split_once(declared).expect("the type is there");
        let (body, _) = behind.split_once("\n}").expect("the type ends");
        let documented = body
            .lines()
            .filter_map(|line| line.strip_prefix('\t')?.split_once(':'))
            .filter(|(name, _)| name.chars().all(char::is_alphanumeric))
            .map(|(name, _)| name);
        let mut count = 0;
        for name in documented {
            let given = given.replace("zzzzzzzz", name);
            let output = run(&format!("local net = require('@huki/net')\n{given}"), &[]);
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert!(!stderr.contains("unknown option"), "{name}: {stderr}");
            count += 1;
        }
        assert!(count >= 6, "{declared}: {count} options found");
    }
}

/// What an object has, as its file lists it: the type, the file that answers for it, the module that documents it.
const OBJECTS: &[(&str, &str, usize)] = &[
    ("Request", include_str!("../src/net/request.rs"), 0),
    ("WebSocket", include_str!("../src/net/socket/members.rs"), 0),
    ("Server", include_str!("../src/net/server.rs"), 0),
    ("Stream", include_str!("../src/net/stream.rs"), 0),
    ("EventStream", include_str!("../src/net/events.rs"), 0),
    ("RawStream", include_str!("../src/net/raw/stream.rs"), 0),
    ("Listener", include_str!("../src/net/raw/listener.rs"), 0),
    ("UdpSocket", include_str!("../src/net/raw/udp.rs"), 0),
    ("Ticker", include_str!("../src/std/every.rs"), 1),
];

#[test]
fn every_member_of_an_object_is_documented_and_every_documented_member_listed() {
    for (name, file, module) in OBJECTS {
        assert_eq!(
            fields(hukilau::TYPE_MODULES[*module].1, name),
            listed(file, "const MEMBERS: &[&str] = &["),
            "{name}"
        );
    }
}

#[test]
fn every_option_that_is_taken_is_documented_and_no_other() {
    let serve = include_str!("../src/net/server.rs");
    let nested = include_str!("../src/net/server/options.rs");
    let client = include_str!("../src/net/client/options.rs");
    let (options, given) = ("const OPTIONS: &[&str] = &[", "check_keys(stack, &[");
    for (name, file, list) in [
        ("ServeOptions", serve, options),
        (
            "WebSocketOptions",
            nested,
            "const WEBSOCKET_OPTIONS: &[&str] = &[",
        ),
        ("LimitOptions", nested, "const LIMITS: &[&str] = &["),
        ("CompressionOptions", nested, "let known = ["),
        (
            "BackpressureOptions",
            nested,
            "check_keys(stack, &[\"limit\"",
        ),
        ("RefusalPage", nested, given),
        (
            "AccessLogOptions",
            include_str!("../src/access.rs"),
            "check_keys(stack, &[\"path\"",
        ),
        ("ServerEvent", include_str!("../src/net/events.rs"), given),
        (
            "ConnectOptions",
            include_str!("../src/net/raw/connect.rs"),
            options,
        ),
        (
            "ListenOptions",
            include_str!("../src/net/raw/listener.rs"),
            options,
        ),
        (
            "StreamTlsOptions",
            include_str!("../src/net/raw/tls.rs"),
            "const CLIENT_OPTIONS: &[&str] = &[",
        ),
        (
            "ClientTlsOptions",
            include_str!("../src/net/client/tls.rs"),
            options,
        ),
        ("RequestOptions", client, "const REQUEST: &[&str] = &["),
        ("WebSocketRequest", client, "const WEBSOCKET: &[&str] = &["),
        (
            "JsonDecodeOptions",
            include_str!("../src/json/face.rs"),
            "check_keys(stack, &[\"null\"",
        ),
    ] {
        let documented = fields(hukilau::TYPE_MODULES[0].1, name);
        assert_eq!(documented, listed(file, list), "{name}");
    }
}

/// The names of a list in a source file, which `begins` so, sorted.
fn listed<'s>(file: &'s str, begins: &str) -> Vec<&'s str> {
    let at = file.find(begins).expect("the list is there");
    let from = at + begins.rfind('[').expect("it begins with a bracket");
    let (list, _) = file[from..].split_once(']').expect("the list ends");
    let mut listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    listed.sort_unstable();
    listed
}

#[test]
fn every_documented_member_of_an_object_can_be_read() {
    let list = |name: &str, module: usize| {
        let fields = fields(hukilau::TYPE_MODULES[module].1, name);
        format!("{{ '{}' }}", fields.join("', '"))
    };
    let [request, ws, server, stream, events] =
        ["Request", "WebSocket", "Server", "Stream", "EventStream"].map(|name| list(name, 0));
    let mut served = Served::start(&format!(
        "local function all(object, members) for _, name in members do local _ = object[name] end end
        local function told(message) print(message) end
        local server = net.serve({{ port = 0, error = told,
            request = function(request, server)
                all(request, {request})
                all(server, {server})
                if request.path == '/events' then
                    return net.eventStream(function(events) all(events, {events}) print('events') end)
                end
                return {{ body = function(stream) all(stream, {stream}) print('stream') end }}
            end,
            websocket = {{ open = function(ws) all(ws, {ws}) print('socket') end }} }})
        local ticker = task.every(1, print)
        all(ticker, {})
        ticker:cancel()",
        list("Ticker", 1)
    ));
    let _ = served.get("/");
    assert_eq!(served.line(), "stream");
    let _ = served.get("/events");
    assert_eq!(served.line(), "events");
    let client = Client::open(&served, "/", "");
    assert_eq!(served.line(), "socket");
    drop(client);
}

/// Whether a name may have the character.
fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The names in a source that stand behind `before`, sorted, each once.
pub(crate) fn names_behind<'s>(source: &'s str, before: &str) -> Vec<&'s str> {
    let mut names: Vec<&str> = (source.split(before).skip(1))
        .filter_map(|rest| rest.split(|character| !is_of_a_name(character)).next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a script prints: lists of names by the name of their type, as in `Type: one two`.
#[track_caller]
pub(crate) fn printed(source: &str) -> Vec<(String, Vec<String>)> {
    let output = run(source, &[]);
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = stdout.lines().filter_map(|line| line.split_once(": "));
    let words = |list: &str| list.split_whitespace().map(str::to_owned).collect();
    lines
        .map(|(name, list)| (name.to_owned(), words(list)))
        .collect()
}

#[test]
fn every_type_function_and_field_of_lune_and_the_net_api_has_a_comment() {
    let modules = hukilau::DIALECT_TYPE_MODULES.iter();
    let ours = modules.filter(|(name, _)| name.starts_with("@lune/") || *name == "@huki/winhttp");
    let globals = include_str!("../types/winhttp/globals.d.luau");
    for (name, source) in ours.chain([&("the Net API's globals", globals)]) {
        let (mut before, mut is_inside) = ("", false);
        for line in source.lines() {
            is_inside = line.starts_with("export type ") || (is_inside && line != "}");
            let is_field = is_inside
                && line.strip_prefix('\t').is_some_and(|field| {
                    let name = field.split(':').next().unwrap_or_default();
                    !name.is_empty() && field.contains(':') && name.chars().all(is_of_a_name)
                });
            let is_export = ["export type ", "function ", "\tfunction ", "declare "]
                .iter()
                .any(|begins| line.starts_with(begins));
            let is_told = before.trim_start().starts_with("---");
            assert!(is_told || !(is_field || is_export), "{name}: {line}");
            before = line;
        }
    }
}

/// The fields of a type, sorted.
pub(crate) fn fields<'s>(source: &'s str, name: &str) -> Vec<&'s str> {
    let declared = format!("export type {name} = {{");
    let (_, behind) = source.split_once(&declared).expect("the type is there");
    let (body, _) = behind.split_once("\n}").expect("the type ends");
    let mut fields: Vec<&str> = body
        .lines()
        .filter_map(|line| Some(line.strip_prefix('\t')?.split_once(':')?.0))
        .filter(|name| !name.is_empty() && name.chars().all(is_of_a_name))
        .collect();
    fields.sort_unstable();
    fields
}

#[test]
fn every_name_of_the_global_zune_is_declared() {
    let source = "local function walk(value, path)
            for name, member in value do
                print(`{path}{name}`)
                if type(member) == 'table' and not string.match(name, '^%u') and name ~= 'args' and name ~= 'env'
                    and name ~= 'expect' and name ~= 'indents' and name ~= 'values' then
                    walk(member, `{path}{name}.`)
                end
            end
        end
        for _, name in { 'crypto', 'fs', 'io', 'net', 'platform', 'process', 'serde', 'task', 'testing' } do
            print(name)
            walk(zune[name], `{name}.`)
        end";
    let output = run(source, &[]);
    assert!(output.status.success(), "{output:?}");
    let real = String::from_utf8(output.stdout).expect("UTF-8");
    let declared = include_str!("../types/zune/zune.d.luau");
    let (_, table) = declared.split_once("declare zune: {\n").expect("declared");
    let (mut path, mut names) = (Vec::new(), Vec::new());
    let uncommented = |line: &&str| !line.trim_start().starts_with("--");
    for line in table.lines().filter(uncommented) {
        let depth = line.chars().take_while(|c| *c == '\t').count();
        let Some((name, _)) = line.trim_start().split_once(':') else {
            continue;
        };
        path.truncate(depth - 1);
        path.push(name);
        names.push(path.join("."));
    }
    let mut real: Vec<&str> = real.lines().collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    real.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, real);
}

/// What Zune's functions read of their options: the surface's file, the file of types, and the type.
const ZUNE_OPTIONS: &[(&str, &str, &str)] = &[
    (
        include_str!("../src/surface/zune/serve.luau"),
        include_str!("../types/zune/zune.d.luau"),
        "HttpServeOptions",
    ),
    (
        include_str!("../src/surface/zune/request.luau"),
        include_str!("../types/zune/zune.d.luau"),
        "HttpRequestOptions",
    ),
    (
        include_str!("../src/surface/zune/websocket.luau"),
        include_str!("../types/zune/zune.d.luau"),
        "HttpWebSocketOptions",
    ),
    (
        include_str!("../src/surface/zune/seed_serve.luau"),
        include_str!("../types/zune/net.luau"),
        "ServeOptions",
    ),
    (
        include_str!("../src/surface/zune/seed_request.luau"),
        include_str!("../types/zune/net.luau"),
        "RequestOptions",
    ),
];

/// The identifiers behind each `before` in `source`.
fn behind<'s>(source: &'s str, before: &'s str) -> impl Iterator<Item = &'s str> {
    source.split(before).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn every_option_that_zune_s_functions_read_is_documented_and_no_other() {
    for (surface, types, name) in ZUNE_OPTIONS {
        let mut read: Vec<&str> = behind(surface, "(given, \"")
            .chain(behind(surface, "given."))
            .collect();
        read.sort_unstable();
        read.dedup();
        let declared = format!("export type {name} = {{");
        let (_, body) = types.split_once(&declared).expect("the type is there");
        let (body, _) = body.split_once("\n}").expect("the type ends");
        let mut documented: Vec<&str> = behind(body, "\n\t")
            .filter(|name| !name.is_empty())
            .collect();
        documented.sort_unstable();
        assert_eq!(documented, read, "{name}");
    }
}

#[test]
fn every_export_of_lute_and_zune_has_a_comment() {
    let types = Path::new(env!("CARGO_MANIFEST_DIR")).join("types");
    let mut count = 0;
    for folder in ["batteries", "lute", "lute/net", "std", "zune"] {
        for entry in std::fs::read_dir(types.join(folder)).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("UTF-8");
            let mut before = "";
            let mut is_in_table = false;
            for line in source.lines() {
                is_in_table = is_in_table || line == "declare zune: {";
                if is_export(line, is_in_table) {
                    count += 1;
                    let is_told = before.trim_start().starts_with("--");
                    assert!(is_told, "{}: {line}", path.display());
                }
                before = line;
            }
        }
    }
    assert!(count > 150, "{count} exports were found");
}

/// Whether a line of a file of types declares something that scripts can name; `is_in_table`: within the global `zune`.
fn is_export(line: &str, is_in_table: bool) -> bool {
    let begins = ["export type ", "function ", "declare ", "\tfunction "];
    if begins.iter().any(|begin| line.starts_with(begin)) {
        return true;
    }
    let is_name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_in_table {
        return line
            .trim_start()
            .split_once(": ")
            .is_some_and(|(name, _)| is_name(name));
    }
    // `module.name = `
    let assigned = line
        .split_once(" = ")
        .and_then(|(left, _)| left.split_once('.'));
    assigned.is_some_and(|(module, name)| is_name(module) && is_name(name))
}
