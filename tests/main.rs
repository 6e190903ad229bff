//! End-to-end tests, and the rules of the house: one binary, one module for each area.
//!
//! - `alloc`      no heap allocation once warm
//! - `reactor`    the whole reactor on a simulated network, by seeds
//! - `sim`        a network made of a seed, and virtual time
//! - `tidy`       what no compiler checks: layers, sizes, headers, forbidden words
//!
//! The modules are `cfg(test)` so that lints know them for what they are.

#[cfg(test)]
mod alloc;
#[cfg(test)]
mod reactor;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;
