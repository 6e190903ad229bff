//! Benches that are programs of their own, run by the same command: TLS, the client, JSON.
//!
//! Each is built by cargo into the same target folder and prints its table as Markdown, which is taken as it is. They
//! stand apart because they need libraries that the harness does not: a VM within the process, another TLS client.
//!
//! Invariants
//! - A program that fails, or prints no table, is an error that says what it printed last.
//! - Its figures are its own: nothing is computed from them here.
//!
//! Not here: what they measure (`tls/`, `ask/`, `json/`).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::extra::{Extra, Stage, Table};
use crate::peers;

/// `load tls`: handshakes and requests.
pub(crate) const TLS: Extra = Extra {
    name: "tls",
    title: "TLS beside hyper over tokio-rustls",
    measure: |stage| run(stage, "tls", &["--release", "--example", "tls"], &[]),
};

/// `load tls-bulk`: bytes in bulk.
pub(crate) const TLS_BULK: Extra = Extra {
    name: "tls-bulk",
    title: "Bytes in bulk, over TLS and plain, beside tokio",
    measure: |stage| {
        run(
            stage,
            "tls-bulk",
            &["--release", "--example", "tls"],
            &["echo"],
        )
    },
};

/// `load ask`: the client.
pub(crate) const ASK: Extra = Extra {
    name: "ask",
    title: "The client beside hyper-util's",
    measure: |stage| run(stage, "ask", &["--release", "--example", "ask"], &[]),
};

/// `load json`: within a script.
pub(crate) const JSON: Extra = Extra {
    name: "json",
    title: "JSON beside mlua with serde, serde_json and JavaScript",
    measure: |stage| run(stage, "json", &["--bench", "json"], &[]),
};

/// Builds and runs what cargo calls `which`, with these arguments, and takes its first table.
fn run(
    stage: &mut Stage<'_>,
    name: &str,
    which: &[&str],
    arguments: &[&str],
) -> Result<Table, String> {
    let kind = match which.first() {
        Some(&"--bench") => "bench",
        _ => "run",
    };
    (stage.progress)(&format!("{name}: cargo builds it"));
    let mut command = Command::new("cargo");
    // The engine that JSON is compared with; what it finds by itself, if not there.
    command.envs(peers::bun().map(|path| ("BUN", path)));
    let mut child = command
        .args([kind, "--quiet", "--package", "hukilau-benches"])
        .args(which)
        .arg("--")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    let mut lines = Vec::new();
    for line in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(|out| out.lines())
    {
        let line = line.map_err(|error| format!("{name}: {error}"))?;
        (stage.progress)(&format!("{name}: {line}"));
        lines.push(line);
    }
    let status = child.wait().map_err(|error| format!("{name}: {error}"))?;
    let table = table(&lines);
    match table {
        Some(table) if status.success() => Ok(table),
        _ => Err(format!(
            "{name}: {status}; its last line: {:?}",
            lines.last()
        )),
    }
}

/// The first table among lines of Markdown.
fn table(lines: &[String]) -> Option<Table> {
    let is_row = |line: &&String| line.starts_with('|');
    let rows = lines.iter().skip_while(|line| !is_row(line));
    let mut rows = rows.take_while(is_row).map(|line| cells(line));
    let heads = rows.next()?;
    // The line that tells how columns are aligned.
    let rows: Vec<Vec<String>> = rows.skip(1).collect();
    (!rows.is_empty()).then_some(Table { heads, rows })
}

fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_table_is_taken_with_its_empty_cells() {
        let printed = "30 handshakes\n\n| | core |\n| --- | ---: |\n| full | 1 |\n| resumed | |\n\nafter\n| x |";
        let table = table(&lines(printed)).unwrap();
        assert_eq!(table.heads, ["", "core"]);
        assert_eq!(table.rows, [["full", "1"], ["resumed", ""]]);
    }

    #[test]
    fn heads_alone_are_no_table() {
        assert_eq!(table(&lines("| a | b |\n| --- | --- |\n")), None);
        assert_eq!(table(&[]), None);
    }
}
