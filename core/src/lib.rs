//! An event-loop networking core.
#![doc = ""]

pub mod buffer;
pub mod conn;
pub mod http1;
pub mod limits;
pub mod violation;
pub mod ws;
