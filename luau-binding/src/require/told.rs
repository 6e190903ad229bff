//! What scripts are told of modules that cannot be found.
//!
//! Sits below `require.rs` and `vm/function.rs`, which raises it with the place of the call. The finder's own words name a
//! component of a path and no file; these say which file was looked for, and what the path should have been.
//!
//! Invariants
//! - Every message begins with `error requiring module`, and quotes the path as the script wrote it, shortened if it is long.
//! - What is no path at all, for its bytes or its length, is refused before anything is looked for: below are C strings, which
//!   end at a NUL, and file systems.
//!
//! Not here: what is said of dialects' modules (`surface.rs`).

use crate::surface;
use crate::value::advice;

/// How the finder's own messages begin.
const PREFIX: &str = "error requiring module";

/// What the finder says, without a path, of a folder that is no module.
const NO_MODULE: &str = "no module present at resolved path";

/// How `once.luau` begins what it says of modules that require each other: it does not know by which path.
pub(crate) const CIRCLE: &str = "error requiring module: ";

/// How the finder ends what it says, with a line of its own, where no script is among the callers.
const NO_CALLER: &str = "require is not supported in this context";

/// Bytes of a path that a script may require: more than file systems take.
const PATH_BYTES_MAX: usize = 4096;

/// What is wrong with `path` by itself, if anything is.
pub(crate) fn unusable(path: &[u8]) -> Option<String> {
    let what = if path.len() > PATH_BYTES_MAX {
        format!("it has {} bytes, more than paths have", path.len())
    } else if path.contains(&0) {
        "it holds a NUL byte, which no path does".to_owned()
    } else if std::str::from_utf8(path).is_err() {
        "it is not valid UTF-8".to_owned()
    } else {
        return None;
    };
    let shown = path.get(..path.len().min(80)).unwrap_or_default();
    Some(format!("{PREFIX} \"{}\": {what}", shown.escape_ascii()))
}

/// The words of the finder for `path`, in better ones; nothing if `message` is not the finder's.
pub(crate) fn explained(path: &str, message: &str) -> Option<String> {
    // Only the finder names the path that was asked for: a module's own error is passed on.
    let start = format!("{PREFIX} \"{path}\": ");
    let said = match message.strip_prefix(&start) {
        Some(said) => said,
        None if message == NO_MODULE => message,
        None if message.ends_with(NO_CALLER) => {
            return Some(format!(
                "{start}it is called by no script, whose file says where to look: call it inside a function of yours"
            ));
        }
        None => {
            return message
                .strip_prefix(CIRCLE)
                .map(|said| format!("{start}{said}"));
        }
    };
    if let Some(told) = surface::unknown_to_all(path) {
        return Some(told);
    }
    Some(format!("{start}{}", better(path, said)))
}

fn better(path: &str, said: &str) -> String {
    let built_in: Vec<&str> = crate::TYPE_MODULES.iter().map(|(name, _)| *name).collect();
    if path == "@huki" || path.starts_with("@huki/") {
        return format!("there is no such module{}", advice(path, &built_in));
    }
    let last = path.trim_end_matches('/').rsplit('/').next();
    let last = last.unwrap_or_default();
    if said.starts_with("require path must start") {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/.".contains(&byte);
        let known = format!("@huki/{path}");
        return match built_in.contains(&known.as_str()) {
            true => format!("{said} (did you mean '{known}'?)"),
            false
                if path.bytes().all(is_name)
                    && !path.starts_with(['/', '.'])
                    && !path.is_empty() =>
            {
                let path = without_ending(path).unwrap_or(path);
                format!("{said} (did you mean './{path}'?)")
            }
            false => said.to_owned(),
        };
    }
    if said == NO_MODULE {
        return format!("{path} is a folder without an init.luau");
    }
    if let Some(stem) = without_ending(last) {
        let shorter = path.strip_suffix(last).unwrap_or_default();
        return format!("paths have no file ending (did you mean '{shorter}{stem}'?)");
    }
    let Some(part) = said.strip_prefix("could not resolve child component \"") else {
        return match said.strip_suffix(" is not a valid alias") {
            Some(alias) => {
                format!("no .luaurc or .config.luau from here upwards has an alias {alias}")
            }
            None => said.to_owned(),
        };
    };
    if let Some(part) = part.strip_suffix("\" (ambiguous)") {
        return format!(
            "there are several of {part}.luau, {part}.lua and {part}/init.luau; only one may stay"
        );
    }
    let part = part.strip_suffix('"').unwrap_or(part);
    if part == "init" {
        let folder = path
            .trim_end_matches('/')
            .strip_suffix("/init")
            .unwrap_or(path);
        let folder = folder.trim_end_matches('/');
        return format!("init.luau is required by its folder (did you mean '{folder}'?)");
    }
    if part == last {
        return format!("there is neither {part}.luau nor {part}/init.luau");
    }
    match path.split('/').any(|asked| asked == part) {
        true => format!("there is no folder {part}"),
        false => format!("its alias leads to {part}, which is not there"),
    }
}

/// A name without the ending of a script's file, if it has one.
fn without_ending(name: &str) -> Option<&str> {
    [".luau", ".lua"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .filter(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{explained, unusable};

    #[test]
    fn what_is_no_path_is_refused_before_anything_is_looked_for() {
        for (path, told) in [
            (&b"./m\0zzz"[..], "\"./m\\x00zzz\": it holds a NUL byte"),
            (b"./\xff", "\"./\\xff\": it is not valid UTF-8"),
            (&[b'x'; 5000], "it has 5000 bytes"),
        ] {
            let message = unusable(path).expect("it is refused");
            assert!(message.contains(told) && message.len() < 200, "{message}");
        }
        assert_eq!(unusable(b"./m"), None);
        assert_eq!(unusable("./größe".as_bytes()), None);
    }

    #[test]
    fn the_words_of_the_finder_become_those_of_files() {
        let lost = |part: &str| format!("could not resolve child component \"{part}\"");
        for (path, said, told) in [
            ("./no/such", lost("no"), "there is no folder no"),
            (
                "./no/such",
                lost("such"),
                "there is neither such.luau nor such/init.luau",
            ),
            (
                "./m.luau",
                lost("m.luau"),
                "paths have no file ending (did you mean './m'?)",
            ),
            (
                "@lib/a/m.lua",
                lost("m.lua"),
                "paths have no file ending (did you mean '@lib/a/m'?)",
            ),
            (
                "./lib/init",
                lost("init"),
                "init.luau is required by its folder (did you mean './lib'?)",
            ),
            (
                "./two",
                lost("two") + " (ambiguous)",
                "there are several of two.luau, two.lua and two/init.luau; only one may stay",
            ),
            (
                "@lib/x",
                "@lib is not a valid alias".to_owned(),
                "no .luaurc or .config.luau from here upwards has an alias @lib",
            ),
        ] {
            let message = format!("error requiring module \"{path}\": {said}");
            let expected = format!("error requiring module \"{path}\": {told}");
            assert_eq!(explained(path, &message), Some(expected));
        }
        let folder = explained("./lib", "no module present at resolved path");
        assert_eq!(
            folder.as_deref(),
            Some("error requiring module \"./lib\": ./lib is a folder without an init.luau")
        );
        let other =
            "error requiring module \"./deeper\": could not resolve child component \"deeper\"";
        assert_eq!(
            explained("./m", other),
            None,
            "a module's own error is its own"
        );
    }
}
