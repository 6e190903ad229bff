//! Checks a script without running it: it and every module it requires, however deep, must be
//! there and compile.
//!
//! Sits beside `runtime.rs` and shares with it how modules are found: each `require` with a literal
//! path is asked for in a VM of its own, in the name of the file that it stands in, and what would
//! be loaded is compiled only.
//!
//! Invariants
//! - Nothing of the script runs.
//! - A file is checked once; problems come in the order of files and lines.
//!
//! Not here: types. The language server has those (`types/huki`).

use crate::TYPE_MODULES;
use crate::require::{self, Requirer};
use crate::surface;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

/// What [`check`] has found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// The script and every module that it requires.
    pub files: Vec<PathBuf>,
    /// One line each, `file:line: what is wrong`. Empty if the script would load.
    pub problems: Vec<String>,
}

/// Asks for a module in the name of the chunk it is compiled as.
const ASK: &str =
    "local path = ... local ok, message = pcall(require, path) return ok, tostring(message)";

/// Parses the script at `path` and, recursively, every module it requires by a literal path.
///
/// Modules that an embedder adds must be `known`, by name.
///
/// # Errors
/// Without memory for a VM. What is wrong with the script is no error but a problem.
pub fn check(path: &str, known: &[&str]) -> Result<Checked, crate::Error> {
    match require::read_source(path) {
        Ok(source) => check_source(&require::chunk_name(path), source, known),
        Err(problem) => Ok(Checked {
            problems: vec![problem],
            ..Checked::default()
        }),
    }
}

/// As [`check`], of a source that is at hand. What it requires is looked for beside the file that `chunk` names, or in the
/// working directory for [`STDIN_CHUNK`](crate::STDIN_CHUNK).
///
/// # Errors
/// As [`check`].
pub fn check_source(chunk: &str, source: Vec<u8>, known: &[&str]) -> Result<Checked, crate::Error> {
    let lua = mlua::Lua::new();
    let found = Rc::new(RefCell::new(VecDeque::new()));
    let requirer = Requirer::checking(Rc::clone(&found));
    let require = lua.create_require_function(requirer)?;
    lua.globals().raw_set("require", require)?;
    let built_in = TYPE_MODULES.iter().map(|(name, _)| *name);
    let surfaces: Vec<&str> = surface::paths().collect();
    let known = surfaces.iter().chain(known).copied();
    for name in built_in.chain(known) {
        lua.register_module(name, true)?;
    }
    let mut checked = Checked::default();
    let name = chunk.to_owned();
    if let Err(problem) = require::compile(&lua, &source, &name, None) {
        checked.problems.push(problem);
    }
    checked
        .files
        .push(PathBuf::from(require::shown_name(chunk)));
    let mut seen = HashSet::from([name.clone()]);
    let mut queue = VecDeque::from([(name, source)]);
    while let Some((name, source)) = queue.pop_front() {
        let ask = lua.load(ASK).set_name(name.as_str()).into_function()?;
        for (line, required) in requires(&require::readable(&source)) {
            let (is_found, message): (bool, String) = match require::unusable(required.as_bytes()) {
                Some(refused) => (false, refused),
                None => ask.call(required.as_str())?,
            };
            if !is_found {
                // What stands in another file says so itself.
                let place = format!("{}:{line}: ", require::shown_name(&name));
                let message = message.strip_prefix("runtime error: ").unwrap_or(&message);
                let message = message.lines().next().unwrap_or_default();
                let is_placed = message.contains(".luau:") || message.contains(".lua:");
                checked.problems.push(match is_placed {
                    true => message.to_owned(),
                    false => format!(
                        "{place}{}",
                        require::explained(&required, message)
                            .unwrap_or_else(|| message.to_owned())
                    ),
                });
            }
        }
        for (path, name, source) in found.borrow_mut().drain(..) {
            if seen.insert(name.clone()) {
                checked.files.push(path);
                queue.push_back((name, source));
            }
        }
    }
    let mut told = HashSet::new();
    checked
        .problems
        .retain(|problem| told.insert(problem.clone()));
    Ok(checked)
}

/// The literal paths that `source` requires, each with its line.
fn requires(source: &[u8]) -> Vec<(usize, String)> {
    let mut scan = Scan::new(source);
    let (mut found, mut asked, mut is_member) = (Vec::new(), None, false);
    while let Some(token) = scan.token() {
        let is_dot = matches!(token, Token::Other(b'.' | b':'));
        match token {
            Token::Word(b"require") if !is_member => asked = Some(scan.line),
            Token::Other(b'(') => {}
            Token::Text(text) => {
                if let (Some(line), Ok(text)) = (asked.take(), String::from_utf8(text)) {
                    found.push((line, text));
                }
            }
            _ => asked = None,
        }
        is_member = is_dot;
    }
    found
}

/// What Luau source is made of, as far as finding calls goes.
pub(crate) enum Token<'s> {
    Word(&'s [u8]),
    /// A string, without its quotes and escapes.
    Text(Vec<u8>),
    Other(u8),
}

pub(crate) struct Scan<'s> {
    source: &'s [u8],
    at: usize,
    line: usize,
}

impl<'s> Scan<'s> {
    /// From the beginning.
    pub(crate) fn new(source: &'s [u8]) -> Self {
        Self {
            source,
            at: 0,
            line: 1,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    /// The next token; comments and blanks are none.
    pub(crate) fn token(&mut self) -> Option<Token<'s>> {
        loop {
            let byte = self.peek(0)?;
            if byte.is_ascii_whitespace() {
                self.bump();
            } else if byte == b'-' && self.peek(1) == Some(b'-') {
                self.at += 2;
                if self.long_bracket().is_none() {
                    while self.peek(0).is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
            } else {
                break;
            }
        }
        if let Some(text) = self.long_bracket() {
            return Some(Token::Text(text));
        }
        let start = self.at;
        let byte = self.bump()?;
        match byte {
            b'"' | b'\'' => Some(Token::Text(self.quoted(byte))),
            b'`' => {
                // What is interpolated is a path that nobody knows before the script runs.
                self.quoted(byte);
                Some(Token::Other(b'`'))
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                while self
                    .peek(0)
                    .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                {
                    self.at += 1;
                }
                self.source.get(start..self.at).map(Token::Word)
            }
            other => Some(Token::Other(other)),
        }
    }

    /// `[[…]]`, `[=[…]=]`, if one begins here.
    fn long_bracket(&mut self) -> Option<Vec<u8>> {
        let rest = self.source.get(self.at..)?;
        let level = rest
            .get(1..)?
            .iter()
            .take_while(|byte| **byte == b'=')
            .count();
        if rest.first() != Some(&b'[') || rest.get(level + 1) != Some(&b'[') {
            return None;
        }
        let end = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
        let inside = rest.get(level + 2..)?;
        let len = inside
            .windows(end.len())
            .position(|window| window == end)
            .unwrap_or(inside.len());
        let text = inside.get(..len)?.to_vec();
        for _ in 0..(level + 2 + len + end.len()) {
            self.bump();
        }
        Some(text)
    }

    fn quoted(&mut self, quote: u8) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(byte) = self.bump() {
            match byte {
                byte if byte == quote => break,
                b'\\' => text.extend(self.bump()),
                byte => text.push(byte),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::requires;

    #[test]
    fn requires_are_found_where_they_are_calls() {
        let source = br#"
local a = require("./a") -- require("./comment")
local b = require './b'
--[[ require("./block") ]] local c = require [[./c]]
local text = "require('./text')" .. `require("{1}")`
foo.require("./member") foo:require("./method")
local d = require(
    "@lib/d"
)
require(computed) print("x")
local mine = requires("./other")
"#;
        let expected = [(2, "./a"), (3, "./b"), (4, "./c"), (7, "@lib/d")];
        let expected = expected.map(|(line, path)| (line, path.to_owned()));
        assert_eq!(requires(source), expected);
    }
}
