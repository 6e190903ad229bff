//! The text of a `.luaurc` with an alias added or changed, and everything else as it was.
//!
//! Sits below `setup.rs`. The file is JSON with comments and commas behind last fields, as Luau
//! reads it; people put comments there, so it is edited as text, not read and written again.
//!
//! Invariants
//! - Only the alias's own value is replaced, or one field inserted.
//! - A text that is none of this is refused, with the line.
//!
//! Not here: files (`setup.rs`).

use std::ops::Range;

/// A line, counted from 1, and what is wrong there.
pub(super) type Refusal = (usize, String);

/// What the alias `name` stands for in `text`, as it is written there; `None` if there is none.
pub(super) fn alias(text: &str, name: &str) -> Result<Option<String>, Refusal> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let top = whole(text)?;
    let Some((_, aliases)) = top.fields.iter().find(|(key, _)| key == "aliases") else {
        return Ok(None);
    };
    let inner = object_at(text, aliases.start)?;
    let known = inner.field(name).and_then(|span| text.get(span));
    Ok(known.map(|value| value.trim_matches('"').to_owned()))
}

/// `text` with the alias `name` for `target`; aliases do not care for case.
pub(super) fn with_alias(text: &str, name: &str, target: &str) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Ok(format!(
            "{{\n    \"aliases\": {{\n        \"{name}\": \"{target}\"\n    }}\n}}\n"
        ));
    }
    let top = whole(text)?;
    let Some((_, aliases)) = top.fields.iter().find(|(key, _)| key == "aliases") else {
        let field = format!("\n    \"aliases\": {{\n        \"{name}\": \"{target}\"\n    }}");
        return Ok(insert(text, &top, &field, "\n"));
    };
    let inner = object_at(text, aliases.start)?;
    let value = format!("\"{target}\"");
    Ok(match inner.field(name) {
        Some(span) => replace(text, span, &value),
        None => {
            let field = format!("\n        \"{name}\": {value}");
            insert(text, &inner, &field, "\n    ")
        }
    })
}

/// The object that `text` is.
fn whole(text: &str) -> Result<Object, Refusal> {
    let mut scan = Scan { text, at: 0 };
    scan.blanks()?;
    let top = scan.object()?;
    scan.blanks()?;
    if scan.at < text.len() {
        return Err(scan.refuse("the end of the file expected"));
    }
    Ok(top)
}

fn object_at(text: &str, at: usize) -> Result<Object, Refusal> {
    Scan { text, at }.object()
}

fn replace(text: &str, span: Range<usize>, by: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(span, by);
    text
}

/// Inserts `field` as the first of `object`.
fn insert(text: &str, object: &Object, field: &str, end: &str) -> String {
    let at = object.open + 1;
    let behind = match object.fields.is_empty() {
        true => end,
        false => ",",
    };
    replace(text, at..at, &format!("{field}{behind}"))
}

/// An object of the text.
struct Object {
    /// Where its brace is.
    open: usize,
    /// Keys, and where their values stand.
    fields: Vec<(String, Range<usize>)>,
}

impl Object {
    /// Where the value of `name` stands; aliases do not care for case.
    fn field(&self, name: &str) -> Option<Range<usize>> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, span)| span.clone())
    }
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn refuse(&self, what: &str) -> Refusal {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line = 1 + before.matches('\n').count();
        (line, format!("not JSON: {what}"))
    }

    /// Skips white space and comments.
    fn blanks(&mut self) -> Result<(), Refusal> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            if blank > 0 {
                self.at += blank;
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let end = rest.find("*/");
                self.at += end.ok_or_else(|| self.refuse("a comment that does not end"))? + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn take(&mut self, byte: char) -> Result<(), Refusal> {
        if !self.rest().starts_with(byte) {
            return Err(self.refuse(&format!("'{byte}' expected")));
        }
        self.at += byte.len_utf8();
        Ok(())
    }

    fn object(&mut self) -> Result<Object, Refusal> {
        let mut object = Object {
            open: self.at,
            fields: Vec::new(),
        };
        self.take('{')?;
        loop {
            self.blanks()?;
            if self.rest().starts_with('}') {
                self.at += 1;
                return Ok(object);
            }
            let start = self.at;
            self.string()?;
            let key = self.text.get(start + 1..self.at - 1).unwrap_or_default();
            self.blanks()?;
            self.take(':')?;
            self.blanks()?;
            let start = self.at;
            self.value()?;
            object.fields.push((key.to_owned(), start..self.at));
            self.blanks()?;
            if !self.rest().starts_with('}') {
                self.take(',')?;
            }
        }
    }

    fn value(&mut self) -> Result<(), Refusal> {
        match self.rest().bytes().next() {
            Some(b'{') => self.object().map(|_| ()),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            _ => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                let len = self.rest().find(|c| !is_word(c)).unwrap_or(0);
                if len == 0 {
                    return Err(self.refuse("a value expected"));
                }
                self.at += len;
                Ok(())
            }
        }
    }

    fn array(&mut self) -> Result<(), Refusal> {
        self.take('[')?;
        loop {
            self.blanks()?;
            if self.rest().starts_with(']') {
                self.at += 1;
                return Ok(());
            }
            self.value()?;
            self.blanks()?;
            if !self.rest().starts_with(']') {
                self.take(',')?;
            }
        }
    }

    fn string(&mut self) -> Result<(), Refusal> {
        if !self.rest().starts_with('"') {
            return Err(self.refuse("a string in double quotes expected"));
        }
        let mut escaped = false;
        let end = self.rest().bytes().skip(1).position(|byte| {
            let is_end = byte == b'"' && !escaped || byte == b'\n';
            escaped = byte == b'\\' && !escaped;
            is_end
        });
        match end {
            Some(end) if self.rest().as_bytes().get(end + 1) == Some(&b'"') => {
                self.at += end + 2;
                Ok(())
            }
            _ => Err(self.refuse("a string that does not end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{alias, with_alias};

    #[track_caller]
    fn check(before: &str, after: &str) {
        let once = with_alias(before, "huki", "./t").expect("it can be read");
        assert_eq!(once, after);
        let twice = with_alias(&once, "huki", "./t").expect("it can be read");
        assert_eq!(twice, once, "again changes nothing");
    }

    #[test]
    fn an_alias_is_added_and_all_else_stays() {
        check(
            "",
            "{\n    \"aliases\": {\n        \"huki\": \"./t\"\n    }\n}\n",
        );
        check(
            "{}",
            "{\n    \"aliases\": {\n        \"huki\": \"./t\"\n    }\n}",
        );
        check(
            "// mine\n{ \"lint\": { \"*\": true, }, /* and */ \"x\": [1, \"]\",], }\n",
            "// mine\n{\n    \"aliases\": {\n        \"huki\": \"./t\"\n    }, \"lint\": { \"*\": true, }, /* and */ \"x\": [1, \"]\",], }\n",
        );
        check(
            "{\"aliases\": {\"lib\": \"./lib\" /* ours */}}",
            "{\"aliases\": {\n        \"huki\": \"./t\",\"lib\": \"./lib\" /* ours */}}",
        );
    }

    #[test]
    fn an_alias_is_changed_whatever_its_case() {
        check(
            "{\"aliases\": {\"Huki\": \"old\\\"\", \"b\": \"c\"}}",
            "{\"aliases\": {\"Huki\": \"./t\", \"b\": \"c\"}}",
        );
    }

    #[test]
    fn what_an_alias_stands_for_is_told_whatever_its_case() {
        let text = "// x\n{\"lint\": {}, \"aliases\": {\"Lune\": \"~/.lune/t/\" /* theirs */, }}";
        let told = |name| alias(text, name).expect("it can be read");
        assert_eq!(told("lune").as_deref(), Some("~/.lune/t/"));
        assert_eq!(told("lint"), None);
        assert_eq!(alias("", "lune"), Ok(None));
        assert_eq!(alias("{}", "lune"), Ok(None));
        assert_eq!(
            alias("{\"aliases\": 1}", "lune").map_err(|(line, _)| line),
            Err(1)
        );
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_line() {
        for (text, line) in [
            ("{", 1),
            ("[]", 1),
            ("{\n\"a\" 1}", 2),
            ("{\"aliases\": []}", 1),
            ("{\"a\": \"\n\"}", 1),
            ("{} x", 1),
            ("/* open", 1),
            ("return {}", 1),
            ("{\"a\": }", 1),
        ] {
            let refused = with_alias(text, "huki", "./t").expect_err(text);
            assert_eq!(refused.0, line, "{text}: {}", refused.1);
        }
    }
}
