//! What the system says, in its words alone.
//!
//! Sits beside `transport/mod.rs`; errors of connections and clients show it.
//!
//! Invariants
//! - The number of an error is left out: people read the words, and programs `io::Error::raw_os_error`.
//!
//! Not here: which errors there are (`reactor/inbox.rs`, `client/error.rs`).

use std::io;

/// What the system said, without the number by which it said it.
pub fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::system_text;
    use std::io::Error;

    #[test]
    fn the_number_of_a_system_error_is_left_out() {
        let refused = Error::from_raw_os_error(2);
        assert!(refused.to_string().contains("os error"));
        assert!(!system_text(&refused).contains("os error"));
        assert_eq!(system_text(&Error::other("of our own")), "of our own");
    }
}
