//! Transport over a scripted socket: each call of the system answers with the next line of a list.

use super::{
    Endpoint, Net, Peer, ReadOutcome, Ready, Resolution, Resolved, Transport, WriteOutcome,
};
use crate::buffer::{BufferPool, SendBuffer};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Answers of a socket, in order: how many bytes it moves, or how it fails.
#[derive(Default)]
struct Script {
    answers: VecDeque<Result<usize, ErrorKind>>,
    written: Vec<u8>,
    slices_per_call: Vec<usize>,
}

/// A net whose only working calls are those that a transport makes.
struct Scripted;

impl Net for Scripted {
    type Socket = Script;
    type Listener = ();
    type Datagrams = ();
    const SHORT_READ_DRAINS: bool = true;

    fn now(&self) -> Instant {
        unreachable!("a transport asks no clock")
    }
    fn unix_time(&self) -> u64 {
        unreachable!("a transport asks no clock")
    }
    fn poll(&mut self, _: &mut Vec<Ready>, _: Option<Duration>) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn listen(&mut self, _: &Endpoint, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn local_endpoint(&self, (): &()) -> io::Result<Endpoint> {
        Err(ErrorKind::Unsupported.into())
    }
    fn accept(&mut self, (): &mut ()) -> io::Result<(Script, Peer)> {
        Err(ErrorKind::Unsupported.into())
    }
    fn spend_reserve(&mut self) -> bool {
        false
    }

    fn restore_reserve(&mut self) {}

    fn register(&mut self, _: &mut Script, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn connect(&mut self, _: &Endpoint, _: u64) -> io::Result<Script> {
        Err(ErrorKind::Unsupported.into())
    }
    fn connect_outcome(&mut self, _: &Script) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn local_address(&self, _: &Script) -> io::Result<Peer> {
        Err(ErrorKind::Unsupported.into())
    }
    fn set_nodelay(&mut self, _: &mut Script, _: bool) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn set_ttl(&mut self, _: &mut Script, _: u8) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn read(&mut self, socket: &mut Script, into: &mut [u8]) -> io::Result<usize> {
        let count = socket.answers.pop_front().expect("one more answer")?;
        into[..count].fill(b'r');
        Ok(count)
    }
    fn write(&mut self, socket: &mut Script, from: &[IoSlice<'_>]) -> io::Result<usize> {
        socket.slices_per_call.push(from.len());
        let count = socket.answers.pop_front().expect("one more answer")?;
        let bytes = from.iter().flat_map(|slice| slice.iter().copied());
        socket.written.extend(bytes.take(count));
        Ok(count)
    }
    fn shutdown_write(&mut self, _: &mut Script) -> io::Result<()> {
        Ok(())
    }
    fn close(&mut self, _: Script, _: bool) {}
    fn close_listener(&mut self, (): ()) {}
    fn bind_datagrams(&mut self, _: SocketAddr, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn datagrams_address(&self, (): &()) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }
    fn receive_from(&mut self, (): &mut (), _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Err(ErrorKind::Unsupported.into())
    }
    fn send_to(&mut self, (): &mut (), _: &[u8], _: SocketAddr) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
    fn close_datagrams(&mut self, (): ()) {}
    fn resolve(&mut self, _: &str, _: u64) -> Option<Resolution> {
        unreachable!("a transport has its address")
    }
    fn forget_resolve(&mut self, _: u64) {}
    fn take_resolved(&mut self, _: &mut Vec<Resolved>) {}
    fn fill_random(&mut self, _: &mut [u8]) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    fn waker(&self) -> Waker {
        Waker::noop().clone()
    }
}

fn scripted<const N: usize>(answers: [Result<usize, ErrorKind>; N]) -> Transport<Script> {
    Transport::Plain(Script {
        answers: answers.into(),
        ..Script::default()
    })
}

#[test]
fn a_short_read_drains_and_a_full_one_does_not() {
    let mut transport = scripted([Ok(3), Ok(8), Ok(0)]);
    let mut into = [0; 8];
    let short = transport.read(&mut Scripted, &mut into);
    let (count, drained) = (3, true);
    assert!(
        matches!(short, ReadOutcome::Bytes { count: c, drained: d } if (c, d) == (count, drained))
    );
    let full = transport.read(&mut Scripted, &mut into);
    let (count, drained) = (8, false);
    assert!(
        matches!(full, ReadOutcome::Bytes { count: c, drained: d } if (c, d) == (count, drained))
    );
    let end = transport.read(&mut Scripted, &mut into);
    assert!(matches!(end, ReadOutcome::Eof));
}

#[test]
fn an_interrupted_call_is_repeated_and_a_blocked_one_is_not() {
    use ErrorKind::{ConnectionReset, Interrupted, WouldBlock};
    let mut transport = scripted([Err(Interrupted), Err(WouldBlock), Err(ConnectionReset)]);
    let blocked = transport.read(&mut Scripted, &mut [0; 8]);
    assert!(matches!(blocked, ReadOutcome::Blocked));
    let failed = transport.read(&mut Scripted, &mut [0; 8]);
    assert!(matches!(failed, ReadOutcome::Failed(error) if error.kind() == ConnectionReset));

    let pool = BufferPool::default();
    let mut out = SendBuffer::new(&pool);
    out.append(b"hello");
    let mut transport = scripted([Err(Interrupted), Ok(2), Err(WouldBlock), Ok(3)]);
    let blocked = transport.write(&mut Scripted, &mut out);
    assert!(matches!(blocked, WriteOutcome::Blocked { .. }));
    assert_eq!(out.len(), 3);
    let flushed = transport.write(&mut Scripted, &mut out);
    assert!(matches!(flushed, WriteOutcome::Flushed));
    assert_eq!(transport.socket().written, b"hello");
}

#[test]
fn sixteen_chunks_go_to_one_write_and_nothing_waiting_makes_none() {
    let pool = BufferPool::default();
    let mut out = SendBuffer::new(&pool);
    let shared: std::sync::Arc<[u8]> = vec![b's'; 300].into();
    for _ in 0..20 {
        out.append_shared(&shared);
    }
    let mut transport = scripted([Ok(16 * 300), Ok(4 * 300)]);
    let flushed = transport.write(&mut Scripted, &mut out);
    assert!(matches!(flushed, WriteOutcome::Flushed));
    assert_eq!(transport.socket().slices_per_call, [16, 4]);
    let flushed = transport.write(&mut Scripted, &mut out);
    assert!(matches!(flushed, WriteOutcome::Flushed));
    assert_eq!(transport.socket().slices_per_call.len(), 2);
}

#[test]
fn a_socket_that_takes_nothing_is_broken() {
    let pool = BufferPool::default();
    let mut out = SendBuffer::new(&pool);
    out.append(b"x");
    let failed = scripted([Ok(0)]).write(&mut Scripted, &mut out);
    assert!(matches!(failed, WriteOutcome::Failed(error) if error.kind() == ErrorKind::WriteZero));
}

#[test]
fn what_is_written_through_leaves_behind_what_waits_wherever_the_socket_stops() {
    use ErrorKind::{Interrupted, WouldBlock};
    let pool = BufferPool::default();
    let shared: std::sync::Arc<[u8]> = vec![b's'; 300].into();
    let last: Vec<u8> = (0..700_u32).map(|at| at.to_le_bytes()[0]).collect();
    let whole = [&b"head"[..], &shared, b"tail", &last].concat();
    for first in 1..whole.len() {
        for second in [0, 1, 5, 333] {
            let mut out = SendBuffer::new(&pool);
            out.append(b"head");
            out.append_shared(&shared);
            out.append(b"tail");
            let second = second.min(whole.len() - first);
            let blocks = [Ok(first), Err(Interrupted), Ok(second), Err(WouldBlock)];
            let answers = blocks.into_iter().filter(|answer| *answer != Ok(0));
            let mut transport = scripted([]);
            transport.socket_mut().answers.extend(answers);
            let outcome = transport.write_through(&mut Scripted, &mut out, &last);
            let left = whole.len() - first - second;
            assert_eq!(out.len(), left);
            let is_flushed = matches!(outcome, WriteOutcome::Flushed);
            assert_eq!(is_flushed, left == 0);
            if left > 0 {
                transport.socket_mut().answers = [Ok(left)].into();
                let outcome = transport.write(&mut Scripted, &mut out);
                assert!(matches!(outcome, WriteOutcome::Flushed));
            }
            assert!(transport.socket().written == whole, "{first} {second}");
            assert_eq!(pool.taken(), 0, "an empty send buffer owns nothing");
        }
    }
}

#[test]
fn what_is_written_through_waits_for_its_turn_behind_more_chunks_than_one_write_takes() {
    let pool = BufferPool::default();
    let mut out = SendBuffer::new(&pool);
    let shared: std::sync::Arc<[u8]> = vec![b's'; 300].into();
    for _ in 0..20 {
        out.append_shared(&shared);
    }
    let mut transport = scripted([Ok(16 * 300), Ok(4 * 300 + 5)]);
    let outcome = transport.write_through(&mut Scripted, &mut out, b"after");
    assert!(matches!(outcome, WriteOutcome::Flushed));
    assert_eq!(transport.socket().slices_per_call, [16, 5]);
    assert!(transport.socket().written.ends_with(b"sssafter"));
}
