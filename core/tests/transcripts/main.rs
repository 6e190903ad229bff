//! The conformance record: every case of `core/testdata` is played to a connection and its log
//! compared. `core/testdata/README.md` explains the notation.
//!
//! A case is played whole, byte by byte, cut in two at every offset (at a sample of them where it is
//! long), and with one or two steps of the driver at a time, each time to a fresh connection; all logs
//! must be equal. With `UPDATE` set in the
//! environment, logs are rewritten instead of compared, and the diff is the review.

mod client;
mod connection;
mod frames;
mod index;
mod markdown;
mod notation;
mod output;
mod responses;
mod settings;

use client::Client;
use connection::Connection;
use hukilau_core::violation::Violation;
use markdown::{Case, Document};
use notation::{Action, Step};
use responses::Responses;
use settings::Settings;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Inputs up to this length are cut at every offset.
const CUT_EVERYWHERE_MAX: usize = 400;
/// Longer ones near both ends, and at this many places between.
const CUT_SAMPLE: usize = 24;
/// How near.
const CUT_ENDS: usize = 32;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Something that receives bytes and writes a log.
trait Machine {
    /// The peer sends `bytes`.
    fn receive(&mut self, bytes: &[u8]);
    /// Something else happens, after all that the peer has sent so far.
    fn act(&mut self, action: &Action);
    /// The log, which does not depend on how the input was cut.
    fn finish(self: Box<Self>) -> String;
    /// Bytes received until a violation was found, if one was.
    fn violated_after(&self) -> Option<usize>;
}

/// Plays `script` to a fresh connection, with a cut at each of `cuts`, which ascend.
fn play(settings: &Settings, script: &[Step], cuts: impl Iterator<Item = usize>) -> Played {
    let mut machine: Box<dyn Machine> = if settings.is_responses {
        Box::new(Responses::new(settings))
    } else if settings.is_client {
        Box::new(Client::new(settings))
    } else {
        Box::new(Connection::new(settings))
    };
    let mut cuts = cuts.peekable();
    let mut offset = 0;
    for step in script {
        let bytes = match step {
            Step::Bytes(bytes) => bytes,
            Step::Act(action) => {
                machine.act(action);
                continue;
            }
        };
        let mut start = 0;
        while let Some(cut) = cuts.next_if(|cut| *cut < offset + bytes.len()) {
            let cut = cut.saturating_sub(offset);
            machine.receive(&bytes[start..cut]);
            start = cut;
        }
        machine.receive(&bytes[start..]);
        offset += bytes.len();
    }
    Played {
        violated_after: machine.violated_after(),
        log: machine.finish(),
    }
}

/// How a case went.
struct Played {
    log: String,
    violated_after: Option<usize>,
}

/// The log of `case`, or what is wrong with the case whatever its log.
fn log_of(case: &Case) -> Result<String, String> {
    let settings = Settings::parse(&case.language, &case.info)?;
    let script = settings.parse_input(&case.input)?;
    let len: usize = script.iter().map(Step::len).sum();
    let whole = play(&settings, &script, std::iter::empty()).log;
    let check = |log: String, how: &str| {
        if log == whole {
            Ok(())
        } else {
            Err(format!(
                "{how} it has another log:\n{}",
                difference(&whole, &log)
            ))
        }
    };
    let bytewise = play(&settings, &script, 1..len);
    check(bytewise.log, "byte by byte")?;
    for steps in [1, 2] {
        let settings = Settings {
            steps: Some(steps),
            ..settings.clone()
        };
        let stepwise = play(&settings, &script, std::iter::empty());
        check(stepwise.log, &format!("with {steps} steps at a time"))?;
    }
    for cut in (1..len).filter(|cut| is_cut_at(*cut, len)) {
        let played = play(&settings, &script, std::iter::once(cut));
        check(played.log, &format!("cut at {cut}"))?;
    }
    Ok(match bytewise.violated_after {
        // How soon corrupt deflate data is found is the business of another crate.
        Some(after) if settings.deflate.is_none() => with_offset(&whole, after),
        _ => whole,
    })
}

/// `log` with the number of bytes after which its violation was known.
fn with_offset(log: &str, after: usize) -> String {
    let lines = log.lines().map(|line| match line.split_once(' ') {
        Some(("violation", _)) => format!("{line} after={after}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn is_cut_at(cut: usize, len: usize) -> bool {
    len <= CUT_EVERYWHERE_MAX
        || cut < CUT_ENDS
        || len - cut < CUT_ENDS
        || cut.is_multiple_of(len / CUT_SAMPLE)
}

/// Both texts line by line: `-` what was recorded, `+` what happened.
fn difference(recorded: &str, happened: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (recorded.lines().collect(), happened.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for line in &old[..same] {
        let _ = writeln!(text, "    {line}");
    }
    for line in &old[same..] {
        let _ = writeln!(text, "  - {line}");
    }
    for line in &new[same..] {
        let _ = writeln!(text, "  + {line}");
    }
    text
}

/// Whether logs are to be rewritten instead of compared. The files are in motion then.
fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Plays all cases of the Markdown files in `folder`; at least `least` must be there.
#[track_caller]
fn check_folder(folder: &str, least: usize) {
    let update = is_update();
    let (mut count, mut complaints) = (0, String::new());
    for path in markdown::files(&testdata().join(folder)) {
        let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
        let mut document =
            Document::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in document.cases_mut() {
            count += 1;
            // A panic inside the crate is a failure of this case and not of those behind it.
            let outcome = catch_unwind(AssertUnwindSafe(|| log_of(case)))
                .unwrap_or_else(|_| Err("it panics, see above\n".to_owned()));
            match outcome {
                Ok(log) if update => case.log = Some(log),
                Ok(log) if case.log.as_deref() == Some(&log) => {}
                outcome => {
                    let what = outcome.map_or_else(
                        |wrong| wrong,
                        |log| difference(case.log.as_deref().unwrap_or(""), &log),
                    );
                    let (title, section) = (&case.title, &case.section);
                    let _ = writeln!(
                        complaints,
                        "{}: {title} ({section})\n{what}",
                        path.display()
                    );
                }
            }
        }
        if update {
            let rewritten = document.text();
            if rewritten != text {
                fs::write(&path, rewritten).expect("transcripts can be rewritten");
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
    assert!(
        count >= least,
        "{count} cases in {folder}, expected {least}"
    );
}

#[test]
fn http1_is_spoken_as_recorded() {
    check_folder("http1", 640);
}

#[test]
fn websocket_is_spoken_as_recorded() {
    check_folder("ws", 228);
}

#[test]
fn the_index_by_section_is_current() {
    let path = testdata().join("SECTIONS.md");
    let index = index::of(&testdata());
    if is_update() {
        fs::write(&path, index).expect("the index can be rewritten");
        return;
    }
    let recorded = fs::read_to_string(&path).expect("the index is there");
    assert!(
        recorded == index,
        "core/testdata/SECTIONS.md is out of date; UPDATE=1 rewrites it:\n{}",
        difference(&recorded, &index)
    );
}

#[test]
fn each_case_has_a_title_of_its_own_and_a_section() {
    if is_update() {
        return;
    }
    let mut titles = std::collections::BTreeSet::new();
    for folder in ["http1", "ws"] {
        for path in markdown::files(&testdata().join(folder)) {
            let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
            let mut document = Document::parse(&text).expect("the other tests parse it");
            for case in document.cases_mut() {
                let section = case.section.strip_prefix("RFC ");
                assert!(section.is_some(), "{}: no RFC section", case.title);
                assert!(titles.insert(case.title.clone()), "twice: {}", case.title);
            }
        }
    }
}

#[test]
fn every_violation_is_recorded_and_no_other() {
    if is_update() {
        return;
    }
    let mut recorded = std::collections::BTreeSet::new();
    for folder in ["http1", "ws"] {
        for path in markdown::files(&testdata().join(folder)) {
            let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
            let violations = text
                .lines()
                .filter_map(|line| line.strip_prefix("violation "));
            let names = violations.map(|line| line.split(' ').next().unwrap_or(line).to_owned());
            recorded.extend(names);
        }
    }
    let mut all: Vec<_> = Violation::ALL.iter().map(|known| known.name()).collect();
    all.sort_unstable();
    assert!(
        all.iter().eq(&recorded),
        "recorded {recorded:?}, known {all:?}"
    );
}
