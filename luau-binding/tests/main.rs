//! The binding from outside: the `huki` binary, its scripts, and clients on loopback.
//!
//! One binary: one link. Each module is one area.

mod access;
mod balance;
mod bodies;
mod client;
mod command;
mod embed;
mod examples;
mod guards;
mod guide;
mod http;
mod interop;
mod lune;
mod lute;
mod metrics;
mod mistakes;
mod plain;
mod proxied;
mod quiet;
mod rows;
mod runaway;
#[cfg(unix)]
mod scarce;
mod scripts;
mod shutdown;
mod stdio;
mod streams;
mod stress;
mod stub;
mod support;
mod surfaces;
mod tools;
mod topics;
mod types;
mod websocket;
mod winhttp;
mod workers;
mod zune;
