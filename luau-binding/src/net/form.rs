//! Forms: `request:form()` of an urlencoded body, or of a multipart one. WHATWG URL §5.1; RFC 7578,
//! RFC 2046 §5.1.
//!
//! Sits in the native module. The body has arrived whole, within `limits.bodyBytes`; a multipart
//! one is cut into parts that borrow from it, and only then made Luau values.
//!
//! Invariants
//! - The parser is strict: what does not have the form of RFC 2046 is refused as a whole, with the
//!   rule it broke, and never half understood. Two readers of one body must not see two forms.
//! - Parts and their heads are bounded ([`PARTS_MAX`], [`HEAD_BYTES_MAX`]).
//!
//! Not here: bodies that are read piece by piece (`body.rs`).

use super::request;
use crate::vm::{Kind, Outcome, Raise, Returns, Stack};
use hukilau_core::http1::token::{is_field_name, is_field_value};
use hukilau_core::url;
use std::borrow::Cow;

/// Parts of one form.
const PARTS_MAX: usize = 1_000;
/// Bytes of the header fields of one part.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a boundary. RFC 2046 §5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// `request:form()`: a table of fields by name. The values of a name that repeats are an array. A
/// file is a table `{ name, filename, contentType, body }`.
pub(super) fn read(stack: &mut Stack<'_>) -> Outcome {
    let view = request::with_whole_body(stack, "form")?;
    let content_type = view.values(b"content-type").next().unwrap_or_default();
    let (kind, params) = split_params(content_type);
    if kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        let body = view.body().to_vec();
        request::push_pairs(stack, url::query_pairs(&body));
        return Ok(Returns::Values(1));
    }
    if !kind.eq_ignore_ascii_case(b"multipart/form-data") {
        let found = match kind {
            b"" => "there is no content-type; it must be".to_owned(),
            _ => format!("the body's content-type is '{}', not", kind.escape_ascii()),
        };
        return Err(Raise::from(format!(
            "request:form: {found} application/x-www-form-urlencoded or multipart/form-data"
        )));
    }
    let refuse = |rule: &str| Raise::from(format!("request:form: {rule}"));
    let boundary = params
        .ok_or("the content-type is malformed")
        .and_then(|params| {
            let boundary = params.into_iter().find(|(name, _)| name == b"boundary");
            boundary.ok_or("the content-type has no boundary")
        })
        .map_err(refuse)?
        .1;
    let body = view.body().to_vec();
    let parts = parse(&body, &boundary).map_err(refuse)?;
    push_parts(stack, &parts);
    Ok(Returns::Values(1))
}

/// Pushes the table of fields.
fn push_parts(stack: &mut Stack<'_>, parts: &[Part<'_>]) {
    stack.push_table(0, parts.len().min(64));
    let table = stack.len();
    for part in parts {
        stack.push_string(&part.name);
        let key = stack.len();
        stack.push_value_of(table, key);
        // A file is a table too, but has no elements.
        let before = stack.len();
        let is_list = stack.kind(before) == Kind::Table && stack.table_len(before) > 0;
        if stack.is_nil(before) {
            stack.pop(1);
            push_part(stack, part);
        } else if is_list {
            let n = stack.table_len(before) + 1;
            push_part(stack, part);
            stack.set_element(before, n);
        } else {
            stack.push_table(2, 0);
            let list = stack.len();
            stack.push_copy(before);
            stack.set_element(list, 1);
            push_part(stack, part);
            stack.set_element(list, 2);
            stack.remove(before);
        }
        stack.set_entry(table);
    }
}

/// Pushes the value of one field: a string, or the table of a file.
fn push_part(stack: &mut Stack<'_>, part: &Part<'_>) {
    let Some(filename) = &part.filename else {
        return stack.push_string(part.body);
    };
    stack.push_table(0, 4);
    let table = stack.len();
    for (key, value) in [
        (c"name", part.name.as_ref()),
        (c"filename", filename.as_ref()),
        (c"contentType", part.content_type),
        (c"body", part.body),
    ] {
        stack.push_string(value);
        stack.set_field(table, key);
    }
}

/// One field of a multipart form.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    name: Cow<'a, [u8]>,
    /// There if the field is a file, even if none was chosen.
    filename: Option<Cow<'a, [u8]>>,
    /// `text/plain` unless given. RFC 7578 §4.4.
    content_type: &'a [u8],
    body: &'a [u8],
}

/// Cuts a multipart body into its parts.
///
/// # Errors
/// The rule it breaks, as half a sentence.
fn parse<'a>(body: &'a [u8], boundary: &[u8]) -> Result<Vec<Part<'a>>, &'static str> {
    if !is_boundary(boundary) {
        return Err("the boundary is not one to seventy of the bytes it may have");
    }
    let delimiter = [b"\r\n--", boundary].concat();
    // The first delimiter has no line before it; some clients send an empty one all the same.
    let start = body.strip_prefix(b"\r\n").unwrap_or(body);
    let mut rest = start
        .strip_prefix(&delimiter[2..])
        .ok_or("the body does not begin with its boundary")?;
    let mut parts = Vec::new();
    loop {
        // RFC 2046 §5.1.1: behind a boundary, spaces and tabs may stand before the line's end.
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            return match trim_padding(epilogue) {
                b"" | b"\r\n" => Ok(parts),
                _ => Err("bytes follow the last boundary"),
            };
        }
        let part = trim_padding(rest)
            .strip_prefix(b"\r\n")
            .ok_or("a boundary is not followed by a line's end")?;
        if parts.len() == PARTS_MAX {
            return Err("it has more than 1000 parts");
        }
        let (head, content) = split_head(part)?;
        let end = find(content, &delimiter).ok_or("the last boundary is missing")?;
        parts.push(read_part(head, &content[..end])?);
        rest = &content[end + delimiter.len()..];
    }
}

fn trim_padding(bytes: &[u8]) -> &[u8] {
    let padding = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    &bytes[padding.count()..]
}

/// RFC 2046 §5.1.1, `bchars`: a space may not be the last.
fn is_boundary(boundary: &[u8]) -> bool {
    let may_have = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
        && boundary.iter().all(may_have)
        && boundary.last() != Some(&b' ')
}

/// Where `needle`, which begins with CR, first stands in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == b'\r') {
        let at = from + at;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The fields of a part without their last line's end, and what is behind the empty line.
fn split_head(part: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let window = &part[..part.len().min(HEAD_BYTES_MAX + 4)];
    let end = window.windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(end) => Ok((&part[..end], &part[end + 4..])),
        None if part.len() > HEAD_BYTES_MAX => Err("the header fields of a part exceed 8 KiB"),
        None => Err("the header fields of a part do not end"),
    }
}

/// Reads the fields of one part.
fn read_part<'a>(head: &'a [u8], body: &'a [u8]) -> Result<Part<'a>, &'static str> {
    let (mut disposition, mut content_type) = (None, None);
    let mut rest = head;
    loop {
        let end = find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(colon) => (&line[..colon], line[colon + 1..].trim_ascii()),
            None => return Err("a header field of a part has no colon"),
        };
        if !is_field_name(name) || !is_field_value(value) {
            return Err("a header field of a part is malformed");
        }
        let repeats = match name.to_ascii_lowercase().as_slice() {
            b"content-disposition" => disposition.replace(value).is_some(),
            b"content-type" => content_type.replace(value).is_some(),
            b"content-transfer-encoding" if !is_identity(value) => {
                return Err("a part is encoded, which RFC 7578 section 4.7 does not allow");
            }
            _ => false,
        };
        if repeats {
            return Err("a header field of a part repeats");
        }
        match end {
            Some(end) => rest = &rest[end + 2..],
            None => break,
        }
    }
    let disposition = disposition.ok_or("a part has no Content-Disposition")?;
    let (kind, params) = split_params(disposition);
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return Err("a part's Content-Disposition is not form-data");
    }
    let params = params.ok_or("a part's Content-Disposition is malformed")?;
    let (mut name, mut filename) = (None, None);
    for (key, value) in params {
        match key.as_slice() {
            b"name" => name = Some(value),
            b"filename" => filename = Some(value),
            // RFC 7578 §4.2: `filename*` must not be used, so it means nothing.
            _ => {}
        }
    }
    Ok(Part {
        name: name.ok_or("a part has no name")?,
        filename,
        content_type: content_type.unwrap_or(b"text/plain"),
        body,
    })
}

fn is_identity(encoding: &[u8]) -> bool {
    let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
    plain
        .iter()
        .any(|plain| encoding.eq_ignore_ascii_case(plain))
}

/// Parameters by their names, which are in lower case.
type Params<'a> = Vec<(Vec<u8>, Cow<'a, [u8]>)>;

/// Splits `value; name=token; name="quoted"`. RFC 9110 §5.6.6. `None` for parameters that are
/// malformed, or of which one repeats.
fn split_params(field: &[u8]) -> (&[u8], Option<Params<'_>>) {
    let end = field.iter().position(|byte| *byte == b';');
    let (value, rest) = field.split_at(end.unwrap_or(field.len()));
    (value.trim_ascii(), read_params(rest))
}

fn read_params(mut rest: &[u8]) -> Option<Params<'_>> {
    let mut params: Params<'_> = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        let Some(behind) = rest.strip_prefix(b";") else {
            return rest.is_empty().then_some(params);
        };
        rest = behind.trim_ascii_start();
        if rest.is_empty() || rest.starts_with(b";") {
            continue;
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let name = rest[..equals].to_ascii_lowercase();
        let (value, behind) = read_value(&rest[equals + 1..])?;
        if !is_field_name(&name) || params.iter().any(|(have, _)| *have == name) {
            return None;
        }
        params.push((name, value));
        rest = behind;
    }
}

/// Reads a token or a quoted string, and returns what is behind it.
fn read_value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';');
        let (value, behind) = text.split_at(end.unwrap_or(text.len()));
        let value = value.trim_ascii_end();
        return is_field_name(value).then_some((Cow::Borrowed(value), behind));
    };
    let end = quoted
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\'))?;
    if quoted[end] == b'"' {
        return Some((Cow::Borrowed(&quoted[..end]), &quoted[end + 1..]));
    }
    let mut value = quoted[..end].to_vec();
    let mut rest = &quoted[end..];
    loop {
        match rest {
            [b'"', behind @ ..] => return Some((Cow::Owned(value), behind)),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests;
