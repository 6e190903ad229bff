//! Requests for the handlers of dialects: arguments in, three values out.
//!
//! Sits inside `bridge.rs`, whose way for native handlers this shortens: no userdata is made of a
//! request unless somebody is to hear of it.
//!
//! Invariants
//! - While a handler has not been suspended, the request is at hand: what fails until then waits in
//!   [`AtHand`] for [`handle`], which can say of which request it was.
//! - A handler that is suspended has its request kept as userdata, as any other.
//!
//! Not here: what the values are (`net/plain.rs`), what a dialect makes of them (`surface/*/`).

use super::{Asked, Failure, Purpose, fail_request, settle_answer};
use crate::net::plain::{Arriving, Taken};
use crate::net::request::{Source, View};
use crate::runtime::Worker;
use crate::scheduler::{self, Progress};
use crate::vm::Stack;
use hukilau_core::conn::Exchange;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::url;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The request whose handler is being started, and how it has failed.
#[derive(Debug, Default)]
pub(crate) struct AtHand {
    current: Cell<Option<(ConnKey, Exchange)>>,
    failed: RefCell<Option<(Asked, Failure)>>,
}

/// Starts the entry of the server that was asked, which is plain, with the request in `source`.
pub(super) fn handle(worker: &Worker, from: &mut Stack<'_>, asked: Asked, source: Source<'_>) {
    let server = Rc::clone(&asked.server);
    let (Some(plain), Some(entry)) = (server.plain.get(), server.request.as_ref()) else {
        return super::fail_request(
            worker,
            &asked,
            "request",
            &Failure::plain("a plain server has no handler"),
        );
    };
    // There is one around it if a call of that one's handler blocks.
    let at_hand = &worker.at_hand.current;
    let around = at_hand.replace(Some((asked.conn, asked.exchange)));
    let progress = scheduler::start(worker, from, Purpose::Plain(asked), |stack| {
        stack.push_pin(entry);
        match source {
            Source::Head(request, origin) => {
                plain.push_arguments(stack, &Arriving { request, origin })
            }
            Source::Whole(whole) => plain.push_arguments(stack, &whole.view()),
        }
    });
    worker.at_hand.current.set(around);
    match progress {
        Progress::Done => {
            let Some((mut asked, failure)) = worker.at_hand.failed.take() else {
                return;
            };
            source.push(worker, from);
            let at = from.len();
            asked.request = Some(from.pin(at, worker.root.released()));
            from.pop(1);
            fail(worker, asked, &failure);
        }
        Progress::Pending(id) => {
            source.push(worker, from);
            let at = from.len();
            let pin = from.pin(at, worker.root.released());
            from.pop(1);
            let mut scheduler = worker.scheduler.borrow_mut();
            if let Some(Purpose::Plain(asked)) = scheduler.purpose_mut(id) {
                asked.request = Some(pin);
            }
        }
    }
}

/// The entry, or what fits its results to an answer, has returned `stack`.
pub(super) fn returned(worker: &Worker, asked: Asked, stack: &mut Stack<'_>) {
    let server = Rc::clone(&asked.server);
    let Some(plain) = server.plain.get() else {
        return;
    };
    match plain.respond(worker, stack, (asked.conn, asked.exchange)) {
        Taken::Answered(Err(why)) => {
            let failure = super::refusal(worker, &server, "request", &why);
            raised(worker, asked, failure);
        }
        Taken::Answered(answered) => settle_answer(worker, stack, asked, "request", answered),
        Taken::Uncommon => {
            let results: &Stack<'_> = stack;
            scheduler::start(worker, results, Purpose::Plain(asked), |stack| {
                stack.push_pin(&plain.refit);
                for index in 1..=3 {
                    results.copy_to(stack, index);
                }
                3
            });
        }
    }
}

/// The entry, or what fits its results to an answer, has raised.
pub(super) fn raised(worker: &Worker, asked: Asked, failure: Failure) {
    let key = (asked.conn, asked.exchange);
    if asked.request.is_none() && worker.at_hand.current.get() == Some(key) {
        *worker.at_hand.failed.borrow_mut() = Some((asked, failure));
    } else {
        fail(worker, asked, &failure);
    }
}

/// Has the dialect answer for a handler that raised, or answers 500 and reports it.
fn fail(worker: &Worker, asked: Asked, failure: &Failure) {
    let server = Rc::clone(&asked.server);
    let failed = server.plain.get().and_then(|plain| plain.failed.as_ref());
    let Some(failed) = failed else {
        return fail_request(worker, &asked, "request", failure);
    };
    let (mut method, mut path) = (Vec::new(), Vec::new());
    let mut from = worker.root.stack(worker);
    if let Some(pin) = &asked.request {
        from.push_pin(pin);
        if let Some(view) = View::at(&from, from.len()) {
            method = view.method().to_vec();
            path = url::split_target(view.target()).path.to_vec();
        }
        from.pop(1);
    }
    scheduler::start(worker, &from, Purpose::Request(asked), |stack| {
        stack.push_pin(failed);
        match failure.is_text {
            true => stack.push_string(&failure.message),
            false => stack.push_nil(),
        }
        stack.push_string(&failure.trace);
        stack.push_string(&method);
        stack.push_string(&path);
        4
    });
}
