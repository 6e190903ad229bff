//! The rules of the house that no compiler checks, each a test that names file, line and reason.
//!
//! Reads the sources as text. [`LAYERS`] is the map of core: which top-level module may speak of
//! which. A new arrow is a change to that table, and so a reviewer's eye. [`ONLY_IN`] fences what
//! one file owns: a clock, a selector, a C interface.
//!
//! Offenders that exist today stand in [`NAUGHTY`], which may only shrink: an entry that no longer
//! offends fails the test as surely as a new offence.
//!
//! Not here: what rustc and clippy can say (`Cargo.toml`, `.clippy.toml`).

use hukilau_core::violation::Violation;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Known offences as (rule, path). May only shrink.
const NAUGHTY: &[(&str, &str)] = &[];

/// Lines of code and comments in one file, without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of one file with its tests.
const FILE_LINES_WITH_TESTS_MAX: usize = 800;
/// A header says what, where, what must stay true and what is not here: not in fewer lines.
const HEADER_LINES_MIN: usize = 5;

/// L0, and L1.
const NUMBERS: &[&str] = &["violation", "limits", "buffer", "topics", "addresses"];
const PROTOCOL: &[&str] = &["http1", "ws", "url", "date", "proxy_header"];

/// Each top-level module of core, and the ones it may name. Arrows go down only.
const LAYERS: &[(&str, &str)] = &[
    // L0: numbers, byte containers, plain tables.
    ("violation", ""),
    ("limits", ""),
    ("buffer", ""),
    ("topics", ""),
    ("addresses", ""),
    // L1: pure functions and codecs. The WebSocket handshake is HTTP, so ws may name http1.
    ("date", ""),
    // A URI's byte classes stand in the one table of bytes, http1's.
    ("url", "buffer http1"),
    ("proxy_header", ""),
    ("http1", "buffer limits violation date"),
    ("ws", "buffer limits violation http1"),
    // L2: drivers, bytes and a time to events and bytes.
    ("conn", "buffer limits violation http1 ws url date"),
    // L3: the seam. It sees bytes, and of those the few that a proxy says before any protocol.
    ("transport", "buffer limits proxy_header"),
    // L4: the loop.
    (
        "reactor",
        "buffer limits violation topics conn transport http1 ws date proxy_header addresses",
    ),
    // L5: faces. Leaves: nobody names them but lib.rs.
    (
        "server",
        "buffer limits violation topics conn http1 ws transport reactor",
    ),
    (
        "client",
        "buffer limits violation conn http1 ws url transport reactor",
    ),
    (
        "workers",
        "buffer limits violation topics conn transport reactor server",
    ),
];

const MIO: &str = "core/src/transport/mio";
const TLS: &str = "core/src/transport/tls";
const VM: &str = "luau-binding/src/vm.rs";

/// What one file owns and no other may name: needle, how its path begins, reason.
const ONLY_IN: &[(&str, &str, &str)] = &[
    ("mio::", MIO, "a dependency change touches one file"),
    ("socket2::", MIO, "a dependency change touches one file"),
    (
        "getrandom::",
        MIO,
        "chance comes through the seam, or runs are not repeatable",
    ),
    ("rustls::", TLS, "a dependency change touches one file"),
    ("mlua::ffi", VM, "the raw VM interface has one fenced file"),
    ("epoll", MIO, "no other file may assume a selector"),
    ("kqueue", MIO, "no other file may assume a selector"),
    ("target_os", MIO, "systems differ in one file"),
    ("std::os::", MIO, "file descriptors belong to the transport"),
    ("Instant::now", MIO, "time is an argument"),
    ("SystemTime::now", MIO, "time is an argument"),
    ("thread::sleep", "nobody", "a reactor waits in poll"),
];

/// One source file.
struct Source {
    /// Path from the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The lines before the unit tests, numbered from 1.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let mut in_tests = is_tests;
        let mut lines = self.text.lines().peekable();
        let mut number = 0;
        std::iter::from_fn(move || {
            let line = lines.next()?;
            number += 1;
            let opens_tests = line == "#[cfg(test)]"
                && lines
                    .peek()
                    .is_some_and(|next| next.starts_with("mod tests"));
            in_tests |= opens_tests;
            (!in_tests).then_some((number, line))
        })
    }

    /// Product lines without comments, so that prose may name anything.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product_lines()
            .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
            .filter(|(_, code)| !code.trim().is_empty())
    }

    /// The top-level module of core the file belongs to; none for lib.rs and for other packages.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("core/src/")?;
        let name = inside.split(['/', '.']).next()?;
        (name != "lib").then_some(name)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust sources under `folder`, in the order of their paths.
fn sources(folder: &str) -> Vec<Source> {
    files(folder, "rs")
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(root().join(&path)).expect("sources are UTF-8"),
            path,
        })
        .collect()
}

/// Paths under `folder` that end with `extension`, from the root, sorted.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.expect("the repository is readable");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let path = format!("{folder}/{name}");
            if entry.path().is_dir() {
                if name != "target" && name != "corpus" {
                    folders.push(path);
                }
            } else if Path::new(&name)
                .extension()
                .is_some_and(|have| have == extension)
            {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

fn product() -> Vec<Source> {
    let mut all = sources("core/src");
    all.extend(sources("luau-binding/src"));
    assert!(!all.is_empty(), "no sources found below {:?}", root());
    all
}

fn everything() -> Vec<Source> {
    let mut all = product();
    for folder in ["core/tests", "tests", "benches", "fuzz"] {
        all.extend(sources(folder));
    }
    all
}

/// Fails with every offence against `rule` that the naughty list does not know, and with every
/// entry of the list that no longer offends. An offence is (path, what).
#[track_caller]
fn check(rule: &str, offences: &[(String, String)]) {
    let known: BTreeSet<&str> = NAUGHTY
        .iter()
        .filter(|(of, _)| *of == rule)
        .map(|(_, path)| *path)
        .collect();
    let mut complaints: Vec<String> = offences
        .iter()
        .filter(|(path, _)| !known.contains(path.as_str()))
        .map(|(path, what)| format!("{path}: {what}"))
        .collect();
    for path in known {
        if !offences.iter().any(|(offender, _)| offender == path) {
            complaints.push(format!("{path}: is tidy now, take it off the naughty list"));
        }
    }
    assert!(complaints.is_empty(), "{rule}:\n{}", complaints.join("\n"));
}

/// The first segments of all paths in `code` that begin with `root::`, groups included:
/// `use std::{io, net::Ip}` gives io and net. Deeper segments, if any, come with them.
fn paths<'a>(code: &'a str, root: &str) -> Vec<&'a str> {
    let prefix = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group)),
            None => found.push(path_at_front(rest)),
        }
    }
    found
}

/// The members of a `{…}` group whose opening brace is already taken off.
fn group_members(group: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members
        .into_iter()
        .map(|member| path_at_front(member.trim_start()))
        .filter(|member| !member.is_empty())
        .collect()
}

/// The longest prefix of `text` that is a path: identifiers and `::`.
fn path_at_front(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    &text[..end]
}

fn first_segment(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// The code of `source` as one text, comments and tests left out.
fn code(source: &Source) -> String {
    let lines: Vec<&str> = source.code_lines().map(|(_, line)| line).collect();
    lines.join("\n")
}

#[test]
fn arrows_go_down_only() {
    let mut offences = Vec::new();
    for source in sources("core/src") {
        let Some(module) = source.module() else {
            continue;
        };
        let Some((_, may)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            offences.push((
                source.path.clone(),
                format!("`{module}` is not in the layer table"),
            ));
            continue;
        };
        for path in paths(&code(&source), "crate") {
            let names = first_segment(path);
            let is_module = LAYERS.iter().any(|(name, _)| *name == names);
            if is_module && names != module && !may.split(' ').any(|may| may == names) {
                offences.push((
                    source.path.clone(),
                    format!("{module} may not name crate::{path}"),
                ));
            }
        }
    }
    check("layers", &offences);
}

#[test]
fn the_reactor_speaks_to_drivers_not_to_parsers() {
    let mut offences = Vec::new();
    for source in sources("core/src/reactor") {
        for path in paths(&code(&source), "crate") {
            let mut segments = path.split("::");
            let protocol = segments
                .next()
                .is_some_and(|first| PROTOCOL.contains(&first));
            let inner = segments.next().is_some_and(|second| {
                second.starts_with(char::is_lowercase) && second != "close_code"
            });
            if protocol && inner {
                offences.push((source.path.clone(), format!("names crate::{path}")));
            }
        }
    }
    check("reactor to parsers", &offences);
}

#[test]
fn protocol_code_knows_no_socket_no_clock_no_thread() {
    const IMPURE: &[&str] = &["io", "net", "thread", "fs", "env", "process"];
    let mut offences = Vec::new();
    for source in sources("core/src") {
        let pure = source.module().is_some_and(|module| {
            NUMBERS.contains(&module) || PROTOCOL.contains(&module) || module == "conn"
        });
        if !pure {
            continue;
        }
        for path in paths(&code(&source), "std") {
            if IMPURE.contains(&first_segment(path)) {
                offences.push((source.path.clone(), format!("names std::{path}")));
            }
        }
    }
    check("purity", &offences);
}

#[test]
fn what_one_file_owns_no_other_names() {
    let mut offences = Vec::new();
    for source in product() {
        for (number, line) in source.code_lines() {
            for (needle, owner, reason) in ONLY_IN {
                if !source.path.starts_with(owner) && names_path(line, needle) {
                    offences.push((
                        source.path.clone(),
                        format!("line {number}: {needle}: {reason}"),
                    ));
                }
            }
        }
    }
    check("fences", &offences);
}

/// Whether `line` has `needle` at the start of a word: `mio::` is not in `transport_mio::`, and
/// `transport::mio::MioNet` is our own module.
fn names_path(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| {
            c.is_alphanumeric() || c == '_' || (c == ':' && needle.ends_with("::"))
        })
    })
}

#[test]
fn the_binding_knows_no_socket() {
    let mut offences = Vec::new();
    for source in sources("luau-binding/src") {
        for (number, line) in source.code_lines() {
            for needle in ["std::net", "TcpStream", "TcpListener", "net::Udp", "RawFd"] {
                if line.contains(needle) {
                    offences.push((source.path.clone(), format!("line {number}: {needle}")));
                }
            }
        }
    }
    check("binding without sockets", &offences);
}

#[test]
fn every_module_begins_with_a_header() {
    let mut offences = Vec::new();
    for source in everything() {
        let lines = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        let is_product = source.path.contains("/src/") && !source.path.ends_with("/tests.rs");
        let wanted = if is_product { HEADER_LINES_MIN } else { 1 };
        if lines < wanted {
            offences.push((
                source.path,
                format!("header of {lines} lines, at least {wanted}"),
            ));
        }
    }
    check("headers", &offences);
}

#[test]
fn core_headers_say_what_is_not_there() {
    let offences: Vec<_> = sources("core/src")
        .into_iter()
        .filter(|source| source.module().is_some() && !source.path.ends_with("tests.rs"))
        .filter(|source| {
            !source
                .text
                .lines()
                .any(|line| line.starts_with("//! Not here"))
        })
        .map(|source| (source.path, "no `Not here:` in the header".to_owned()))
        .collect();
    check("not here", &offences);
}

#[test]
fn a_page_has_an_end() {
    let mut offences = Vec::new();
    for source in everything() {
        let product = source.product_lines().count();
        let all = source.text.lines().count();
        if product > FILE_LINES_MAX {
            offences.push((
                source.path,
                format!("{product} lines without tests, over {FILE_LINES_MAX}"),
            ));
        } else if all > FILE_LINES_WITH_TESTS_MAX {
            offences.push((
                source.path,
                format!("{all} lines, over {FILE_LINES_WITH_TESTS_MAX}"),
            ));
        }
    }
    check("size", &offences);
}

#[test]
fn forbidden_words_stop_the_merge() {
    // Written in halves, or this file would offend.
    let words = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
        concat!("#[", "ignore"),
        concat!("#[", "should_panic"),
        concat!("#[", "allow"),
        concat!("#![", "allow"),
        concat!("dbg", "!("),
        concat!("unimple", "mented!("),
        concat!("to", "do!("),
    ];
    let mut offences = Vec::new();
    for source in everything() {
        for (number, line) in source.text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    offences.push((source.path.clone(), format!("line {}: {word}", number + 1)));
                }
            }
        }
    }
    check("words", &offences);
}

#[test]
fn every_limit_says_its_default() {
    let path = "core/src/limits.rs";
    let text = fs::read_to_string(root().join(path)).expect("limits.rs is there");
    let (_, body) = text
        .split_once("pub struct Limits {")
        .expect("the struct is there");
    let (body, _) = body.split_once("\n}").expect("the struct ends");
    let (mut doc, mut offences, mut limits) = (String::new(), Vec::new(), 0);
    for line in body.lines().map(str::trim) {
        if let Some(sentence) = line.strip_prefix("///") {
            doc.push_str(sentence);
        } else if let Some(field) = line.strip_prefix("pub ") {
            limits += 1;
            if !doc.contains("Default ") {
                offences.push((
                    path.to_owned(),
                    format!("no default in the words on `{field}`"),
                ));
            }
            doc.clear();
        }
    }
    assert!(limits > 0, "no limit found in {path}");
    check("limits", &offences);
}

#[test]
fn every_violation_is_seen_in_a_transcript_or_a_test() {
    let mut seen = String::new();
    for path in files("core/testdata", "md") {
        seen.push_str(&fs::read_to_string(root().join(path)).expect("transcripts are UTF-8"));
    }
    for source in everything() {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        let product_lines = if source.path.contains("/src/") {
            source.product_lines().count()
        } else {
            0
        };
        seen.extend(
            source
                .text
                .lines()
                .skip(product_lines)
                .flat_map(|line| [line, "\n"]),
        );
    }
    let mut complaints = Vec::new();
    for violation in Violation::ALL {
        let name = violation.name();
        let tested = seen
            .match_indices(name)
            .any(|(at, _)| is_whole_word(&seen, at, name.len()));
        if !tested {
            complaints.push(format!("{name} is in no transcript and in no test"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn is_whole_word(text: &str, at: usize, len: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let before = text[..at].chars().next_back();
    let after = text[at + len..].chars().next();
    !before.is_some_and(is_word) && !after.is_some_and(is_word)
}

#[test]
fn the_readme_names_files_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    for command in [
        "cargo run --release -- run luau-binding/examples/chat.luau",
        "cargo test",
    ] {
        assert!(readme.contains(command), "README.md lacks `{command}`");
    }
    let named = readme
        .split(|c: char| c.is_whitespace() || "`()[]".contains(c))
        .filter(|word| {
            [
                "core/",
                "luau-binding/",
                "tests/",
                "benches/",
                "fuzz/",
                "LICENSE",
                "CHANGELOG",
            ]
            .iter()
            .any(|start| word.starts_with(start))
        });
    for word in named {
        let path = word.trim_end_matches(['.', ',', ':', ';']);
        assert!(
            root().join(path).exists(),
            "README.md names {path}, which is not there"
        );
    }
}

#[test]
fn cargo_run_at_the_root_means_huki() {
    // cargo runs the binary of the one member that names a default; a second would make the
    // README's command ambiguous.
    let mut named = Vec::new();
    for package in ["core", "luau-binding", "benches", "tests"] {
        let path = root().join(package).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("each member has a manifest");
        let lines = manifest.lines().map(str::to_owned);
        named.extend(lines.filter(|line| line.starts_with("default-run")));
    }
    assert_eq!(named, ["default-run = \"huki\""]);
}

#[test]
fn path_collection_sees_through_groups() {
    let code = "use crate::{buffer::Span, ws::{Role, frame::decode}};\nlet x = crate::http1::Method::Get; my_crate::no();";
    let mut found: Vec<&str> = paths(code, "crate")
        .into_iter()
        .map(first_segment)
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["buffer", "http1", "ws"]);
}
