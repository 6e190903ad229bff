//! End-to-end tests, and the rules of the house: one binary, one module for each area.
//!
//! - `alloc`      no heap allocation once warm
//! - `asking`     scripts as clients: trust, limits of each phase, proxies, bodies of any size
//! - `browser`    Chromium opens the chat page twice, and a page over `https` that talks over `wss`
//! - `cli`        the command line, signals, the examples
//! - `client`     the reactor as a client, in virtual time
//! - `client_face` requests through the pool: redirects, proxies, codings, every fault in its words
//! - `clients`    curl, and Python's `websockets`
//! - `gone`       a peer that is gone is noticed while we send to it
//! - `harness`    the binary under test as a child process, and a bare client
//! - `hostile`    garbage, oversize, slow bytes, half-close, reset
//! - `http`       what a well-behaved HTTP client sees of a script
//! - `drain`      one listener of several goes
//! - `neighbour`  what floods cost those beside them, in turns and in memory
//! - `loopback`   the reactor at both ends of a simulated network, by seeds
//! - `proxied`    clients behind proxies that announce them by the PROXY protocol, by seeds
//! - `reactor`    the whole reactor on a simulated network, by seeds
//! - `scarce`     descriptors run out, on a simulated network
//! - `sim`        a network made of a seed, and virtual time
//! - `slow`       a thousand readers of which a hundred never read; a drain in steps
//! - `streams`    raw streams: both ends on a simulated network, by seeds
//! - `tidy`       what no compiler checks: layers, sizes, headers, forbidden words
//! - `tls`        TLS against curl, OpenSSL and rustls
//! - `websocket`  tungstenite, and frames made by hand
//!
//! The modules are `cfg(test)` so that lints know them for what they are.

#[cfg(test)]
mod alloc;
#[cfg(test)]
mod asking;
#[cfg(test)]
mod brief;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod client;
#[cfg(test)]
mod client_face;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod gone;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod neighbour;
#[cfg(test)]
mod proxied;
#[cfg(test)]
mod reactor;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod scarce;
#[cfg(test)]
mod sim;
#[cfg(all(test, unix))]
mod slow;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
mod topics;
#[cfg(test)]
mod websocket;
