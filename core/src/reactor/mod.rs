//! The loop: which connection reads, writes or times out next, generic over `Net`.
//!
//! Sits above transport and drivers and below the application, which it never calls.
//!
//! - `conns.rs`    keys and the connection table
//! - `timer.rs`    deadlines
//! - `mailbox.rs`  mail from other threads
//!
//! Not here: what bytes mean (`conn/`), how they travel (`transport/`).

pub mod conns;
pub mod mailbox;
pub mod timer;
