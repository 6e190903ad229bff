//! What a server says where it refuses by itself: pages by status, in place of the built-in line.
//!
//! Sits beside `server.rs`, which asks here before it answers a broken rule or a missed deadline,
//! and for the application where that leaves an answer to us. RFC 9110 §15 leaves the content of
//! an error response to the server, and RFC 9112 §4 the reason phrase.
//!
//! Invariants
//! - A page was checked when it was set, so that writing one cannot fail.
//! - Framing stays the driver's: a page has no `Content-Length` and no `Transfer-Encoding`.
//!
//! Not here: which status a rule has (`violation.rs`).

use super::response::FieldPlan;
use super::{Exchange, Misuse};
use crate::http1::token;

/// What nginx calls a request without TLS where there should be some. It is answered with 400, and
/// can be silenced by this number.
pub(super) const PLAIN_HTTP: u16 = 497;

/// A name and its value.
type OwnField = (Box<[u8]>, Box<[u8]>);

/// The page of one status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalPage {
    /// The reason phrase; `None` for the registered one.
    pub reason: Option<Box<[u8]>>,
    /// Names and values. `Connection` may be `close`.
    pub fields: Vec<OwnField>,
    /// The body.
    pub body: Box<[u8]>,
}

impl RefusalPage {
    /// The fields as slices.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// A request that was refused without the application, or one whose answer was left to it too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number.
    pub exchange: Exchange,
    /// What it is answered with; `None` if the connection closes without a word.
    pub status: Option<u16>,
    /// What it has done, as half a sentence.
    pub rule: &'static str,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// Where its head begins in the segment, or in what was left of that; `None` if the application
    /// knows the request, or nothing is known of its head.
    pub head_at: Option<usize>,
}

/// What becomes of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// This is said.
    Page(RefusalPage),
    /// The connection closes without a word, unless earlier answers are owed.
    Silence,
}

/// The pages of a server. The default has none: each refusal is a line that names the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(Vec<(u16, Manner)>);

impl Refusals {
    /// Has refusals with `status` say `page`.
    ///
    /// # Errors
    /// [`Misuse::InvalidStatus`] below 400 or above 599, and for 497, which has no page;
    /// [`Misuse::InvalidField`] for a field or a reason phrase that may not be sent.
    pub fn set_page(&mut self, status: u16, page: RefusalPage) -> Result<(), Misuse> {
        if status == PLAIN_HTTP {
            return Err(Misuse::InvalidStatus);
        }
        let fields: Vec<_> = page.fields().collect();
        let plan = FieldPlan::of(&fields)?;
        let is_phrase = page.reason.as_deref().is_none_or(token::is_field_value);
        if plan.length.is_some() || !is_phrase {
            return Err(Misuse::InvalidField);
        }
        self.set(status, Manner::Page(page))
    }

    /// Has the connection closed without a word where `status` would be the answer; 497 is for
    /// requests without TLS where there should be some.
    ///
    /// # Errors
    /// [`Misuse::InvalidStatus`] below 400 or above 599.
    pub fn set_silent(&mut self, status: u16) -> Result<(), Misuse> {
        self.set(status, Manner::Silence)
    }

    fn set(&mut self, status: u16, manner: Manner) -> Result<(), Misuse> {
        if !(400..=599).contains(&status) {
            return Err(Misuse::InvalidStatus);
        }
        self.0.retain(|(known, _)| *known != status);
        self.0.push((status, manner));
        Ok(())
    }

    /// Bytes of the page for `status`; `None` if there is none.
    pub fn body_len(&self, status: u16) -> Option<usize> {
        match self.of(status)? {
            Manner::Page(page) => Some(page.body.len()),
            Manner::Silence => None,
        }
    }

    /// What becomes of a refusal with `status`.
    pub(super) fn of(&self, status: u16) -> Option<&Manner> {
        let found = self.0.iter().find(|(known, _)| *known == status);
        found.map(|(_, manner)| manner)
    }
}
