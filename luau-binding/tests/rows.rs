//! The feature comparison of the four systems: each row that says yes for one has a test that is named
//! after it.
//!
//! `rows.txt` has the rows and the systems. A test is a function of Rust, or a case of a program in
//! `tests/luau/<system>`, whose name begins with `row_012_` or, for several rows, with
//! `rows_012_and_014_` or `rows_012_to_014_`. All that is found so is run: by the modules beside this one and, what needs
//! certificates, by the end-to-end tests' `tls`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The systems, and the tests in Rust that each has beside its programs.
const SYSTEMS: &[(&str, &[&str])] = &[
    ("lune", &["lune.rs"]),
    ("lute", &["lute.rs", "../../tests/tls/system.rs"]),
    ("zune", &["zune.rs"]),
    ("winhttp", &["winhttp.rs"]),
];

/// What stands before the name of a test.
const BEFORE: &[&str] = &["fn ", "function ", "row(\"", "test(\"", "case(\""];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The rows that a test's name begins with; none if it is named after none.
fn rows_of(name: &str) -> BTreeSet<u32> {
    let mut rows = BTreeSet::new();
    let Some(rest) = name.strip_prefix("row_").or(name.strip_prefix("rows_")) else {
        return rows;
    };
    let mut is_range = false;
    for word in rest.split('_') {
        match (word, word.parse::<u32>()) {
            ("and", _) => {}
            ("to", _) => is_range = true,
            (_, Ok(row)) if word.len() == 3 => {
                let first = match rows.last() {
                    Some(last) if is_range => *last,
                    _ => row,
                };
                rows.extend(first..=row);
                is_range = false;
            }
            _ => break,
        }
    }
    rows
}

/// The rows that the tests of a source are named after.
fn rows_in(source: &str) -> BTreeSet<u32> {
    let lines = source.lines().map(str::trim_start);
    let names = lines.filter_map(|line| {
        let (_, name) = BEFORE.iter().find_map(|before| line.split_once(before))?;
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        name.get(..end.unwrap_or(name.len()))
    });
    names.flat_map(rows_of).collect()
}

/// The programs in a folder and below it.
fn programs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            programs(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "luau")
        {
            found.push(path);
        }
    }
}

/// By system, the rows that say yes.
fn wanted() -> BTreeMap<&'static str, BTreeSet<u32>> {
    let mut wanted: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    let lines = include_str!("rows.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (row, systems) = line.split_once(' ').expect("a row and its systems");
        let row = row.parse().expect("a number");
        for system in systems.split(' ') {
            wanted.entry(system).or_default().insert(row);
        }
    }
    wanted
}

#[test]
fn every_row_that_says_yes_for_a_system_has_a_test_of_its_name() {
    let wanted = wanted();
    assert_eq!(wanted.len(), SYSTEMS.len());
    let mut missing = Vec::new();
    for (system, sources) in SYSTEMS {
        let mut files: Vec<PathBuf> = sources.iter().map(|name| tests().join(name)).collect();
        programs(&tests().join("luau").join(system), &mut files);
        let read = |path: &PathBuf| std::fs::read_to_string(path).expect("it is there");
        let have: BTreeSet<u32> = files.iter().flat_map(|path| rows_in(&read(path))).collect();
        let wanted = wanted.get(system).expect("the list has rows for it");
        let lacks = wanted.difference(&have);
        missing.extend(lacks.map(|row| format!("{system} row {row:03}")));
    }
    assert!(missing.is_empty(), "no test for {}", missing.join(", "));
}

/// Typical programs: what each is, and where it is run for each system. The Net API has clients only.
const PROGRAMS: &[(&str, &[&str])] = &[
    (
        "echo",
        &[
            "lune/program_echo",
            "lute/program_echo",
            "zune/program_echo",
            "zune/program_seed",
        ],
    ),
    (
        "chat",
        &[
            "lune/program_chat",
            "lute/program_chat",
            "zune/program_chat",
            "zune/program_seed",
            "winhttp/program_chat",
        ],
    ),
    (
        "a JSON API",
        &[
            "lune/program_json_api",
            "lute/program_json_api",
            "zune/program_json_api",
            "zune/program_seed",
            "winhttp/program_chat",
        ],
    ),
    (
        "a client that connects again",
        &[
            "lune/program_reconnect",
            "lute/program_reconnect",
            "zune/program_reconnect",
            "zune/program_seed",
            "winhttp/program_reconnect",
        ],
    ),
    (
        "a client that looks in each frame",
        &[
            "lune/program_polling",
            "lute/program_polling",
            "zune/program_polling",
            "zune/program_seed_polling",
            "winhttp/program_per_frame",
        ],
    ),
];

#[test]
fn every_typical_program_is_there_for_every_system_and_asserts() {
    for (what, programs) in PROGRAMS {
        for program in *programs {
            let path = tests().join("luau").join(format!("{program}.luau"));
            let source = std::fs::read_to_string(&path).expect("it is there");
            let asserts = source.matches("assert(").count();
            assert!(asserts >= 1, "{what}: {program} has {asserts} assertions");
        }
    }
}

#[test]
fn names_of_tests_tell_their_rows() {
    let rows = |name| rows_of(name).into_iter().collect::<Vec<_>>();
    assert_eq!(rows("row_007_get_by_url"), [7]);
    assert_eq!(rows("rows_046_058_and_047_order"), [46, 47, 58]);
    assert_eq!(rows("rows_001_and_003_to_006_globals"), [1, 3, 4, 5, 6]);
    assert_eq!(rows("row_85_is_no_row"), []);
    assert_eq!(rows("arrows_003"), []);
    let found =
        rows_in("\tsuite:case(\"row_002_x\", f)\n-- row_003_no\nlocal function row_004_y()");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 4]);
}
