//! Files, for the dialects whose network scripts read certificates and pages.
//!
//! Sits below `surface/helpers.rs`, whose module these functions join. They block: a script that
//! serves reads its files before it starts.
//!
//! | Member | Result |
//! | --- | --- |
//! | `readFile(path)` | the bytes as a string |
//! | `writeFile(path, contents)` | true |
//! | `moveFile(from, to)` | true |
//! | `removeFile(path)` | true |
//! | `kindOf(path)` | `file`, `dir`, or nil if nothing is there |
//!
//! What the system refuses is nil and a text that names the path.
//!
//! Not here: folders, metadata, whole file libraries.

use crate::value::bad_argument;
use crate::vm::{Outcome, Raise, Returns, Stack};

/// The path at `index`.
fn path(stack: &Stack<'_>, function: &str, index: i32) -> Result<String, Raise> {
    let path = stack
        .string(index)
        .and_then(|path| std::str::from_utf8(path).ok());
    path.map(ToOwned::to_owned)
        .ok_or_else(|| bad_argument(stack, function, index, "a path"))
}

fn refused(stack: &mut Stack<'_>, verb: &str, path: &str, error: &std::io::Error) -> Outcome {
    stack.push_nil();
    stack.push_string(format!("cannot {verb} {path}: {error}"));
    Ok(Returns::Values(2))
}

pub(super) fn read(stack: &mut Stack<'_>) -> Outcome {
    let path = path(stack, "readFile", 1)?;
    match std::fs::read(&path) {
        Ok(bytes) => stack.push_string(bytes),
        Err(error) => return refused(stack, "read", &path, &error),
    }
    Ok(Returns::Values(1))
}

pub(super) fn write(stack: &mut Stack<'_>) -> Outcome {
    let path = path(stack, "writeFile", 1)?;
    let contents = stack.bytes(2);
    let contents =
        contents.ok_or_else(|| bad_argument(stack, "writeFile", 2, "a string or a buffer"))?;
    match std::fs::write(&path, contents) {
        Ok(()) => stack.push_boolean(true),
        Err(error) => return refused(stack, "write", &path, &error),
    }
    Ok(Returns::Values(1))
}

pub(super) fn rename(stack: &mut Stack<'_>) -> Outcome {
    let from = path(stack, "move", 1)?;
    let to = path(stack, "move", 2)?;
    match std::fs::rename(&from, &to) {
        Ok(()) => stack.push_boolean(true),
        Err(error) => return refused(stack, "move", &from, &error),
    }
    Ok(Returns::Values(1))
}

pub(super) fn remove(stack: &mut Stack<'_>) -> Outcome {
    let path = path(stack, "removeFile", 1)?;
    match std::fs::remove_file(&path) {
        Ok(()) => stack.push_boolean(true),
        Err(error) => return refused(stack, "remove", &path, &error),
    }
    Ok(Returns::Values(1))
}

pub(super) fn kind_of(stack: &mut Stack<'_>) -> Outcome {
    let path = path(stack, "kindOf", 1)?;
    match std::fs::metadata(&path) {
        Ok(data) if data.is_dir() => stack.push_string("dir"),
        Ok(_) => stack.push_string("file"),
        Err(_) => stack.push_nil(),
    }
    Ok(Returns::Values(1))
}
