//! What a poll of the simulation reports: what is pending, some that is not, in any order.
//!
//! Sits under `sim.rs`, which decides when a poll returns.
//!
//! Not here: what makes an event pending (`link.rs`).

use super::World;
use super::link::Stage;
use hukilau_core::transport::Ready;

impl World {
    pub(super) fn has_events(&self) -> bool {
        !self.names.answers.is_empty()
            || self.has_mail_events()
            || self.listeners.values().any(|backlog| backlog.pending)
            || self.links.iter().any(|link| link.pending.is_some())
    }

    /// Reports what is pending, and some that is not.
    pub(super) fn report(&mut self, ready: &mut Vec<Ready>) {
        let options = self.options.clone();
        for (token, backlog) in &mut self.listeners {
            if std::mem::take(&mut backlog.pending) {
                backlog.armed = self.drains;
                ready.push(listener_event(*token));
            }
        }
        self.report_mail(ready);
        for link in &mut self.links {
            // One at least is reported, or the poll would have had to go on waiting.
            let is_first = ready.is_empty();
            if link.pending.is_some() && (!self.dice.chance(options.held_back) || is_first) {
                ready.extend(link.take_event(self.drains));
            }
        }
        if self.dice.chance(options.late_event) && !self.closed_tokens.is_empty() {
            let token = self.closed_tokens[self.dice.below(self.closed_tokens.len())];
            ready.push(Ready {
                token,
                readable: true,
                writable: true,
                hung_up: true,
            });
        }
        if self.dice.chance(options.spurious) && !self.links.is_empty() {
            let bits = self.dice.next();
            let link = self.dice.below(self.links.len());
            if let (Some(token), Stage::Open) = (self.links[link].token, self.links[link].stage) {
                ready.push(Ready {
                    token,
                    readable: bits & 1 != 0,
                    writable: bits & 2 != 0,
                    hung_up: false,
                });
            }
        }
        if self.dice.chance(options.spurious) && !self.listeners.is_empty() {
            let listener = self.dice.below(self.listeners.len());
            ready.extend(
                self.listeners
                    .keys()
                    .nth(listener)
                    .copied()
                    .map(listener_event),
            );
        }
        for index in (1..ready.len()).rev() {
            ready.swap(index, self.dice.below(index + 1));
        }
        for event in ready.iter() {
            self.note(format_args!("{event:?}"));
        }
    }
}

fn listener_event(token: u64) -> Ready {
    Ready {
        token,
        readable: true,
        writable: false,
        hung_up: false,
    }
}
