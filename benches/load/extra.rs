//! Measurements whose table is not "peers by workload": each has a question and a table of its own.
//!
//! They are named on the command line like workloads, run behind them with `all`, and stand in the records as one line
//! each. `load report FILE` puts each table into the README between the marks that bear its name.
//!
//! Invariants
//! - What is printed, recorded and put into the README is the same table.
//! - One that fails says why; the others go on.
//!
//! Not here: how any of them measures.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{neighbour, programs, rooms, timers, workers};

/// A table of words.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Table {
    pub(crate) heads: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// With these heads and no rows.
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self {
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as Markdown; the first column is of words, the others of figures.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| {} |\n| ---", self.heads.join(" | "));
        for _ in self.heads.iter().skip(1) {
            text.push_str(" | ---:");
        }
        text.push_str(" |\n");
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// Where and how thoroughly.
pub(crate) struct Stage<'a> {
    /// The cores that may be used; at least one.
    pub(crate) cores: &'a [usize],
    /// How long everything takes, as a share of the usual: a try needs figures that no one quotes.
    pub(crate) is_quick: bool,
    /// Told what runs now.
    pub(crate) progress: &'a mut dyn FnMut(&str),
}

/// One line of the table of these measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra {
    /// Names it on the command line, in the records and in the README's marks.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) measure: fn(&mut Stage<'_>) -> Result<Table, String>,
}

/// All of them, in the order in which they run.
pub(crate) const EXTRAS: &[Extra] = &[
    workers::REQUESTS,
    workers::PUBLICATIONS,
    rooms::SLOW_READERS,
    timers::TIMERS,
    neighbour::NEIGHBOUR,
    programs::TLS,
    programs::TLS_BULK,
    programs::ASK,
    programs::JSON,
];

/// What encloses the table of that name in the README.
fn marks(name: &str) -> (String, String) {
    (
        format!("<!-- {name}: begin; written by `-- report FILE` -->"),
        format!("<!-- {name}: end -->"),
    )
}

/// The README with the table of that name replaced.
pub(crate) fn replaced(readme: &str, name: &str, table: &Table) -> Result<String, String> {
    let (begin, end) = marks(name);
    crate::markdown::between(readme, (&begin, &end), &table.markdown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_place_for_every_table() {
        let readme = include_str!("../README.md");
        for extra in EXTRAS {
            let table = Table::new(&["a", "b"]);
            assert!(
                replaced(readme, extra.name, &table).is_ok(),
                "{}",
                extra.name
            );
        }
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["what", "us"]);
        table.row(["GET".to_owned(), "5".to_owned()]);
        assert_eq!(
            table.markdown(),
            "| what | us |\n| --- | ---: |\n| GET | 5 |\n"
        );
    }
}
