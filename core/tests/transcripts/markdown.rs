//! Transcripts as Markdown: prose, headings, and two fenced blocks for each case.

use std::fs;
use std::path::{Path, PathBuf};

/// One case: a heading of the second level, an input block, a log block.
pub(crate) struct Case {
    pub(crate) title: String,
    /// `RFC 9112 §7.1`: what stands from the last `RFC` of the heading on.
    pub(crate) section: String,
    /// First word behind the opening fence.
    pub(crate) language: String,
    /// The words behind it.
    pub(crate) info: String,
    pub(crate) input: String,
    /// None where no log is recorded yet.
    pub(crate) log: Option<String>,
}

enum Part {
    /// A line of prose, or a heading of another level.
    Line(String),
    Case(Case),
}

/// A file of transcripts, which writes itself back as it was read.
pub(crate) struct Document(Vec<Part>);

impl Document {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut lines = text.lines();
        let mut heading: Option<(String, String)> = None;
        while let Some(line) = lines.next() {
            if let Some(title) = line.strip_prefix("## ") {
                heading = Some(split_heading(title)?);
                continue;
            }
            let Some(fence) = line.strip_prefix("```") else {
                if heading.is_none() || !line.is_empty() {
                    parts.push(Part::Line(line.to_owned()));
                }
                continue;
            };
            let block = take_block(&mut lines);
            if fence == "log" {
                match parts.last_mut() {
                    Some(Part::Case(case)) if case.log.is_none() => case.log = Some(block),
                    _ => return Err("a log without an input".to_owned()),
                }
                continue;
            }
            let (title, section) = heading
                .take()
                .ok_or_else(|| format!("a block without a heading: {block}"))?;
            let (language, info) = fence.split_once(' ').unwrap_or((fence, ""));
            parts.push(Part::Case(Case {
                title,
                section,
                language: language.to_owned(),
                info: info.to_owned(),
                input: block,
                log: None,
            }));
        }
        match heading {
            Some((title, _)) => Err(format!("a heading without a block: {title}")),
            None => Ok(Self(parts)),
        }
    }

    pub(crate) fn cases_mut(&mut self) -> impl Iterator<Item = &mut Case> {
        self.0.iter_mut().filter_map(|part| match part {
            Part::Case(case) => Some(case),
            Part::Line(_) => None,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Case(case) => {
                    while text.ends_with("\n\n") {
                        text.pop();
                    }
                    text.push_str(&case.text());
                }
                Part::Line(line) => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text
    }
}

impl Case {
    fn text(&self) -> String {
        let Self {
            title,
            section,
            language,
            info,
            input,
            log,
        } = self;
        let info = if info.is_empty() {
            String::new()
        } else {
            format!(" {info}")
        };
        let log = log.as_deref().unwrap_or_default();
        format!("\n## {title}   {section}\n```{language}{info}\n{input}```\n```log\n{log}```\n")
    }
}

/// The title and the section of a heading.
fn split_heading(heading: &str) -> Result<(String, String), String> {
    let at = heading
        .rfind("RFC ")
        .ok_or_else(|| format!("no RFC section in the heading: {heading}"))?;
    let (title, section) = heading.split_at(at);
    Ok((title.trim().to_owned(), section.trim().to_owned()))
}

/// The lines up to the closing fence, each with its line end.
fn take_block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    lines
        .take_while(|line| *line != "```")
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The Markdown files of a folder in the order of their names.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    files
}
