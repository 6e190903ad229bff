//! The client's face: requests to anywhere, over connections that are kept and used again.
//!
//! A leaf over the reactor, which it never drives: whoever owns the loop hands it completions.
//!
//! - `client/decode.rs`   content codings
//!
//! Not here: one connection's exchanges (`conn/client.rs`); dialling (`reactor/`).

pub mod decode;
