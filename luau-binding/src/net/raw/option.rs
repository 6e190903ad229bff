//! `stream:setOption(name, value)` and the same of sockets of datagrams.
//!
//! Sits inside `raw.rs`. Names and values are checked here; what the system makes of them is its
//! business, and what it refuses is raised.
//!
//! Invariants
//! - An option that is not known, or whose value is none, raises and changes nothing.
//! - What a system or a kind of socket does not have raises too.
//!
//! Not here: options with methods of their own (`stream.rs`), options of listeners (`net.listen`).

use super::error_words;
use crate::value::bad_argument;
use crate::vm::{Outcome, Raise, Returns, Stack};
use core::time::Duration;
use hukilau_core::reactor::conns::ConnKey;
use hukilau_core::transport::SocketOption;

const NAMES: &str = "\"keepAlive\", \"keepAliveIdle\", \"keepAliveInterval\", \"keepAliveCount\", \"sendBuffer\", \
                     \"receiveBuffer\", \"broadcast\", \"ttl\" or \"typeOfService\"";

/// Reads the option from arguments 2 and 3 of `call` and sets it.
pub(super) fn set(stack: &mut Stack<'_>, conn: ConnKey, call: &str) -> Outcome {
    let option = read(stack, call)?;
    let worker = stack.worker()?;
    let set = worker.reactor.borrow_mut().set_option(conn, option);
    set.map_err(|error| Raise::from(format!("{call}: {}", error_words(&error))))?;
    Ok(Returns::Values(0))
}

fn read(stack: &Stack<'_>, call: &str) -> Result<SocketOption, Raise> {
    let flag = || {
        let value = stack.boolean(3);
        value.ok_or_else(|| bad_argument(stack, call, 3, "true or false"))
    };
    let seconds = || -> Result<Duration, Raise> {
        let whole = whole(stack, call, (1, 32_767), "a whole number of seconds")?;
        Ok(Duration::from_secs(u64::from(whole)))
    };
    let bytes = || whole(stack, call, (1, 1 << 30), "a whole number of bytes");
    let byte = |least, must| -> Result<u8, Raise> {
        let value = whole(stack, call, (least, 255), must)?;
        Ok(u8::try_from(value).unwrap_or(u8::MAX))
    };
    Ok(match stack.string(2) {
        Some(b"keepAlive") => SocketOption::KeepAlive(flag()?),
        Some(b"keepAliveIdle") => SocketOption::KeepAliveIdle(seconds()?),
        Some(b"keepAliveInterval") => SocketOption::KeepAliveInterval(seconds()?),
        Some(b"keepAliveCount") => {
            SocketOption::KeepAliveCount(whole(stack, call, (1, 127), "1 to 127")?)
        }
        Some(b"sendBuffer") => SocketOption::SendBuffer(bytes()?),
        Some(b"receiveBuffer") => SocketOption::ReceiveBuffer(bytes()?),
        Some(b"broadcast") => SocketOption::Broadcast(flag()?),
        Some(b"ttl") => SocketOption::Ttl(byte(1, "a whole number from 1 to 255")?),
        Some(b"typeOfService") => {
            SocketOption::TypeOfService(byte(0, "a whole number from 0 to 255")?)
        }
        _ => return Err(bad_argument(stack, call, 2, NAMES)),
    })
}

/// The whole number at 3, from `least` to `most`.
fn whole(
    stack: &Stack<'_>,
    call: &str,
    (least, most): (u32, u32),
    must: &str,
) -> Result<u32, Raise> {
    let number = stack.number(3).filter(|number| number.fract() == 0.0);
    let number = number.filter(|number| (f64::from(least)..=f64::from(most)).contains(number));
    let number = number.ok_or_else(|| bad_argument(stack, call, 3, must))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie within u32"
    )]
    Ok(number as u32)
}
