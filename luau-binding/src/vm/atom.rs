//! Member names as small numbers, so that `request.path` is a `match` and not a string comparison.
//!
//! Sits beside `vm.rs`. The VM asks [`assign`] once for each string that is used as a member name
//! and keeps the answer with the string.
//!
//! Invariants
//! - Atoms are dense from 0; a string without one has −1, which the VM never confuses with any.
//!
//! Not here: what the members do (`net/`).

use mlua_ffi::lua_State;
use std::ffi::{c_char, c_int};

use super::ffi as mlua_ffi;

/// Declares the enum and both directions of the mapping in one place.
macro_rules! atoms {
    ($( $variant:ident = $name:literal, )*) => {
        /// A member name that some value of ours has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Atom {
            $( $variant, )*
        }

        impl Atom {
            const ALL: &'static [Atom] = &[ $( Atom::$variant, )* ];

            /// The atom of `name`.
            fn of(name: &[u8]) -> Option<Self> {
                match std::str::from_utf8(name).ok()? {
                    $( $name => Some(Self::$variant), )*
                    _ => None,
                }
            }

            #[cfg(test)]
            const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }
        }
    };
}

atoms! {
    Accept = "accept",
    Address = "address",
    All = "all",
    BindClose = "bindClose",
    BindDrain = "bindDrain",
    BindMessage = "bindMessage",
    BindOpen = "bindOpen",
    Body = "body",
    Buffer = "buffer",
    BufferedBytes = "bufferedBytes",
    Cancel = "cancel",
    Cancelled = "cancelled",
    ClientSubject = "clientSubject",
    Close = "close",
    CloseCode = "closeCode",
    CloseReason = "closeReason",
    Closed = "closed",
    ClosedByPeer = "closedByPeer",
    Connected = "connected",
    Cookies = "cookies",
    Data = "data",
    Finish = "finish",
    Form = "form",
    Headers = "headers",
    Hz = "hz",
    Ip = "ip",
    IsSubscribed = "isSubscribed",
    Json = "json",
    LocalIp = "localIp",
    LocalPort = "localPort",
    Method = "method",
    Next = "next",
    Ok = "ok",
    Overruns = "overruns",
    Pairs = "pairs",
    Path = "path",
    Ping = "ping",
    Port = "port",
    Protocol = "protocol",
    Publish = "publish",
    Query = "query",
    Read = "read",
    Receive = "receive",
    ReloadTls = "reloadTls",
    RemoteIp = "remoteIp",
    RemotePort = "remotePort",
    Scheme = "scheme",
    Send = "send",
    SendLatest = "sendLatest",
    SendTo = "sendTo",
    SetNoDelay = "setNoDelay",
    SetOption = "setOption",
    SetTtl = "setTtl",
    StartTls = "startTls",
    Stats = "stats",
    Status = "status",
    StatusText = "statusText",
    Stop = "stop",
    Subscribe = "subscribe",
    Subscribers = "subscribers",
    Target = "target",
    Terminate = "terminate",
    Ticks = "ticks",
    Topics = "topics",
    Unsubscribe = "unsubscribe",
    Url = "url",
    Write = "write",
}

impl Atom {
    /// The atom that the VM knows as `number`.
    pub(super) fn from_number(number: c_int) -> Option<Self> {
        usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
    }
}

/// Says which atom a string is. Uses no stack.
///
/// # Safety
/// Called by the VM only, with a string of its own and that string's length.
pub(super) unsafe extern "C-unwind" fn assign(
    _: *mut lua_State,
    start: *const c_char,
    len: usize,
) -> i16 {
    // SAFETY: the VM passes a string of its own and its length.
    let name = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) };
    // Fewer than a hundred atoms exist.
    Atom::of(name).map_or(-1, |atom| i16::try_from(atom as usize).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::Atom;

    #[test]
    fn each_atom_is_found_by_its_name_and_by_its_number() {
        for (number, atom) in Atom::ALL.iter().enumerate() {
            assert_eq!(Atom::of(atom.name().as_bytes()), Some(*atom));
            let number = i32::try_from(number).expect("few atoms");
            assert_eq!(Atom::from_number(number), Some(*atom));
        }
        assert_eq!(Atom::of(b"nothing"), None);
        assert_eq!(Atom::from_number(-1), None);
    }
}
