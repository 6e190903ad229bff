//! How the last answer of a reactor began, for the next one: most answers of a server begin alike.
//!
//! Sits inside `response.rs`, which writes heads. Status line, `Date` and fields are kept as they were
//! written. An answer with the same status and fields, byte for byte, needs neither to have its fields
//! checked nor to have them written one by one: it begins with a copy.
//!
//! Invariants
//! - What is kept was checked, and only an answer that is its equal in every field begins with it.
//! - Only fields that the driver has no say in are kept, so that there is nothing to decide about them.
//! - It is as old as the second that its `Date` tells.
//!
//! Not here: lengths, `Connection`, reason phrases that somebody chose.

use super::response::Response;

/// Bytes of a beginning that is kept; longer ones differ from one another more often than not.
const BYTES_MAX: usize = 1024;

/// Of so many answers in a row that begin otherwise one takes the place of what is kept: where each
/// is different, keeping them costs little, and where the kept one was the exception it leaves soon.
const PATIENCE: u8 = 8;

/// The beginning that was kept last.
#[derive(Debug, Default)]
pub(super) struct LastHead {
    status: u16,
    /// Bytes of name and value of each field.
    lens: Vec<(usize, usize)>,
    /// Where the first field begins.
    fields_at: usize,
    /// Status line, `Date` and fields; empty for none.
    bytes: Vec<u8>,
    /// Answers that may still begin otherwise before one of them is kept.
    patience: u8,
}

impl LastHead {
    /// What is kept; empty for nothing.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is kept, if `response` has the same status and fields.
    pub(super) fn of(&self, response: &Response<'_>) -> Option<&[u8]> {
        let is_candidate = !self.bytes.is_empty()
            && self.status == response.status
            && self.lens.len() == response.fields.len();
        if !is_candidate {
            return None;
        }
        let mut rest = self.bytes.get(self.fields_at..)?;
        for ((name, value), (name_len, value_len)) in response.fields.iter().zip(&self.lens) {
            // Lengths first: a value could otherwise imitate the end of its field.
            if name.len() != *name_len || value.len() != *value_len {
                return None;
            }
            let (kept_name, behind) = rest.split_at_checked(*name_len)?;
            let (kept_value, behind) = behind.get(": ".len()..)?.split_at_checked(*value_len)?;
            if kept_name != *name || kept_value != *value {
                return None;
            }
            rest = behind.get("\r\n".len()..)?;
        }
        Some(&self.bytes)
    }

    /// Keeps how `response` begins, now and then: `bytes`, which are `fields_at` bytes before its
    /// fields and nothing behind them.
    pub(super) fn keep(&mut self, response: &Response<'_>, bytes: &[u8], fields_at: usize) {
        if self.patience > 0 {
            self.patience -= 1;
            return;
        }
        if bytes.len() > BYTES_MAX {
            return;
        }
        self.patience = PATIENCE;
        self.status = response.status;
        self.fields_at = fields_at;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.lens.clear();
        let lens = response.fields.iter();
        self.lens
            .extend(lens.map(|(name, value)| (name.len(), value.len())));
    }

    /// Forgets it, as its `Date` has passed.
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.patience = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{LastHead, PATIENCE};
    use crate::conn::Response;

    const LINE: &[u8] = b"HTTP/1.1 200 OK\r\n";

    fn response<'a>(fields: &'a [(&'a [u8], &'a [u8])]) -> Response<'a> {
        Response {
            status: 200,
            fields,
            body: b"",
        }
    }

    fn kept(fields: &[(&[u8], &[u8])]) -> LastHead {
        let (mut last, mut bytes) = (LastHead::default(), LINE.to_vec());
        for (name, value) in fields {
            bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
        }
        last.keep(&response(fields), &bytes, LINE.len());
        assert_eq!(last.of(&response(fields)), Some(bytes.as_slice()));
        last
    }

    #[test]
    fn only_its_equal_begins_with_what_is_kept() {
        let last = kept(&[(b"a", b"1"), (b"b", b"2")]);
        let others: [&[(&[u8], &[u8])]; 7] = [
            &[],
            &[(b"a", b"1")],
            &[(b"a", b"1"), (b"b", b"3")],
            &[(b"b", b"2"), (b"a", b"1")],
            &[(b"A", b"1"), (b"b", b"2")],
            &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")],
            &[(b"a", b"1"), (b"b", b"22")],
        ];
        for fields in others {
            assert_eq!(last.of(&response(fields)), None, "{fields:?}");
        }
        let mut other = response(&[(b"a", b"1"), (b"b", b"2")]);
        other.status = 201;
        assert_eq!(last.of(&other), None);
        assert_eq!(LastHead::default().of(&response(&[])), None);
    }

    #[test]
    fn a_value_cannot_imitate_the_fields_behind_it() {
        let last = kept(&[(b"a", b"1"), (b"b", b"2")]);
        let injected: [&[(&[u8], &[u8])]; 3] = [
            &[(b"a", b"1\r\nb: 2")],
            &[(b"a", b"1\r\nb: 2\r\n"), (b"", b"")],
            &[(b"a: 1\r\nb", b"2")],
        ];
        for fields in injected {
            assert_eq!(last.of(&response(fields)), None, "{fields:?}");
        }
    }

    #[test]
    fn one_of_many_that_differ_takes_the_place() {
        let mut last = kept(&[(b"a", b"1")]);
        let fields: &[(&[u8], &[u8])] = &[(b"b", b"2")];
        for _ in 0..PATIENCE {
            last.keep(
                &response(fields),
                b"HTTP/1.1 200 OK\r\nb: 2\r\n",
                LINE.len(),
            );
            assert_eq!(last.of(&response(fields)), None);
        }
        last.keep(
            &response(fields),
            b"HTTP/1.1 200 OK\r\nb: 2\r\n",
            LINE.len(),
        );
        assert!(last.of(&response(fields)).is_some());
        last.forget();
        assert_eq!(last.of(&response(fields)), None);
    }
}
