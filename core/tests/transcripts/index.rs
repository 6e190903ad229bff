//! The list of transcripts by RFC section, `core/testdata/SECTIONS.md`.

use crate::markdown::{self, Document};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Cases of one section: how many in which file.
type Cases = BTreeMap<String, usize>;

/// The index of the transcripts below `testdata`, as Markdown.
pub(crate) fn of(testdata: &Path) -> String {
    let (mut sections, mut total): (BTreeMap<_, Cases>, _) = (BTreeMap::new(), 0);
    for folder in ["http1", "ws"] {
        for path in markdown::files(&testdata.join(folder)) {
            let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
            let mut document = Document::parse(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let file = path.file_name().and_then(|name| name.to_str());
            let file = format!("{folder}/{}", file.expect("file names are UTF-8"));
            for case in document.cases_mut() {
                let cases = sections.entry(in_order(&case.section)).or_default();
                *cases.entry(file.clone()).or_default() += 1;
                total += 1;
            }
        }
    }
    let mut text = format!(
        "# Transcripts by RFC section\n\n\
        {total} cases, {} sections. `UPDATE=1 cargo test -p hukilau-core --test transcripts` rewrites this list, and the same\n\
        without `UPDATE` fails if it is out of date.\n\n\
        | section | cases | where |\n| --- | --- | --- |\n",
        sections.len()
    );
    for ((_, section), cases) in &sections {
        let places = cases.iter();
        let places: Vec<String> = places
            .map(|(file, count)| format!("[{file}]({file}) {count}"))
            .collect();
        let count: usize = cases.values().sum();
        let _ = writeln!(text, "| {section} | {count} | {} |", places.join(", "));
    }
    text
}

/// A section behind what orders it: the numbers in it, and letters of appendices behind all numbers.
fn in_order(section: &str) -> (Vec<u32>, String) {
    let words = section.split(|c: char| !c.is_alphanumeric());
    let numbers = words.filter(|word| !word.is_empty() && *word != "RFC");
    let order = |word: &str| {
        let letter = word.bytes().next().unwrap_or_default();
        word.parse().unwrap_or(1000 + u32::from(letter))
    };
    (numbers.map(order).collect(), section.to_owned())
}
