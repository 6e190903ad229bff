//! The other ways: mlua through serde, serde_json alone, and `JSON` of Bun or Node.
//!
//! The engine is a child process that is told on its standard input what to repeat how often, and
//! answers with the nanoseconds of one.
//!
//! Invariants
//! - Every peer takes the text as it would get it, and gives a value, or the other way round.
//!
//! Not here: the loop that times what runs in the VM (`script.luau`).

use mlua::{Lua, LuaSerdeExt, LuaString, Table, Value};
use std::cell::RefCell;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

const ENGINE: &str = r"
const lines = require('readline').createInterface({ input: process.stdin });
let text = '', value = null, kept = null;
const texts = [], bytes = [], values = [];
const each = {
    decode: () => { for (const text of texts) kept = JSON.parse(text); },
    encode: () => { for (const value of values) kept = JSON.stringify(value); },
    'decode-bytes': () => { for (const all of bytes) kept = JSON.parse(all.toString()); },
    'encode-bytes': () => { for (const value of values) kept = Buffer.from(JSON.stringify(value)); },
};
const now = () => Number(process.hrtime.bigint());
lines.on('line', (line) => {
    if (line.startsWith('=')) { text = line.slice(1); value = JSON.parse(text); console.log(0); return; }
    if (line.startsWith('+')) {
        bytes.push(Buffer.from(line.slice(1)));
        texts.push(bytes.at(-1).toString());
        values.push(JSON.parse(texts.at(-1)));
        console.log(0);
        return;
    }
    const [what, count] = line.split(' ');
    const start = now();
    if (count === 'each') { each[what](); console.log((now() - start) / texts.length); return; }
    if (what === 'decode') for (let i = 0; i < +count; i++) kept = JSON.parse(text);
    else for (let i = 0; i < +count; i++) kept = JSON.stringify(value);
    console.log((now() - start) / +count);
});
";

/// Bun or Node, which waits for work.
struct Engine {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Engine {
    /// Bun if there is one, else Node; `None` without either. And its name.
    fn start() -> Option<(Self, String)> {
        let bun = std::env::var_os("BUN").unwrap_or_else(|| "bun".into());
        [bun.as_os_str(), "node".as_ref()]
            .into_iter()
            .find_map(|program| {
                let mut child = Command::new(program)
                    .args(["-e", ENGINE])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .ok()?;
                let version = Command::new(program).arg("--version").output().ok()?;
                let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
                let name = std::path::Path::new(program).file_name().unwrap_or(program);
                let name = name.to_string_lossy();
                let engine = Self {
                    input: child.stdin.take()?,
                    output: BufReader::new(child.stdout.take()?),
                    child,
                };
                Some((
                    engine,
                    format!("{name} {}", version.trim_start_matches('v')),
                ))
            })
    }

    fn ask(&mut self, line: &str) -> Option<f64> {
        writeln!(self.input, "{line}").ok()?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).ok()?;
        answer.trim().parse().ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> mlua::Error {
    mlua::Error::external(error)
}

/// CPU time of this thread: other processes of a busy machine do not count.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The module that the script measures ours against.
pub(crate) fn module(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    // The usual way: text to `serde_json::Value`, and that to Luau by mlua's serializer.
    let decode = lua.create_function(|lua, text: LuaString| {
        let value: serde_json::Value =
            serde_json::from_slice(&text.as_bytes()).map_err(external)?;
        lua.to_value(&value)
    })?;
    let encode = lua.create_function(|lua, value: Value| {
        lua.create_string(serde_json::to_vec(&value).map_err(external)?)
    })?;
    let serde = lua.create_function(|_, (what, text, count): (String, LuaString, u32)| {
        let text = text.as_bytes().to_vec();
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(external)?;
        let start = cpu_seconds();
        for _ in 0..count {
            if what == "decode" {
                let value: serde_json::Value =
                    serde_json::from_slice(black_box(&text)).map_err(external)?;
                black_box(&value);
            } else {
                black_box(serde_json::to_vec(black_box(&value)).map_err(external)?);
            }
        }
        Ok((cpu_seconds() - start) / f64::from(count))
    })?;
    module.raw_set("clock", lua.create_function(|_, ()| Ok(cpu_seconds()))?)?;
    module.raw_set("decode", decode)?;
    module.raw_set("encode", encode)?;
    module.raw_set("serde", serde)?;
    if let Some((engine, name)) = Engine::start() {
        let engine = Rc::new(RefCell::new(engine));
        let add = Rc::clone(&engine);
        let add = lua.create_function(move |_, text: String| {
            add.borrow_mut().ask(&format!("+{text}"));
            Ok(())
        })?;
        let each = Rc::clone(&engine);
        let each = lua.create_function(move |_, what: String| {
            let nanoseconds = each.borrow_mut().ask(&format!("{what} each"));
            Ok(nanoseconds.map(|nanoseconds| nanoseconds / 1e9))
        })?;
        module.raw_set("engineAdd", add)?;
        module.raw_set("engineEach", each)?;
        let load = Rc::clone(&engine);
        let load = lua.create_function(move |_, text: String| {
            load.borrow_mut().ask(&format!("={text}"));
            Ok(())
        })?;
        let time = lua.create_function(move |_, (what, count): (String, u32)| {
            let nanoseconds = engine.borrow_mut().ask(&format!("{what} {count}"));
            Ok(nanoseconds.map(|nanoseconds| nanoseconds / 1e9))
        })?;
        module.raw_set("engine", name)?;
        module.raw_set("engineLoad", load)?;
        module.raw_set("engineTime", time)?;
    }
    Ok(module)
}
