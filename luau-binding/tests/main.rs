//! The binding from outside: the `huki` binary, its scripts, and clients on loopback.
//!
//! One binary: one link. Each module is one area.

mod bodies;
mod command;
mod embed;
mod examples;
mod http;
mod runaway;
mod scripts;
mod streams;
mod support;
mod surfaces;
mod tools;
mod topics;
mod types;
mod websocket;
