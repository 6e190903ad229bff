//! The simulator itself, under the smallest server that keeps the rules of readiness.

use super::{Call, PeerEnd, PeerId, Script, SimNet, SimOptions, SimSocket, Step};
use hukilau_core::buffer::{BufferPool, SendBuffer};
use hukilau_core::transport::{Endpoint, Net, ReadOutcome, Ready, Transport, WriteOutcome};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

fn here() -> Endpoint {
    Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 80)))
}

struct Echo {
    transport: Transport<SimSocket>,
    out: SendBuffer,
    readable: bool,
    hung_up: bool,
    ended: bool,
}

/// Sends everything back, one connection per token from 2^32 on, until the world is at rest.
fn echo<const DRAINS: bool>(net: &mut SimNet<DRAINS>) {
    let pool = BufferPool::default();
    let mut listener = net.listen(&here(), 1).unwrap();
    let mut conns: Vec<Option<Echo>> = Vec::new();
    let (mut ready, mut acceptable, mut retry) = (Vec::new(), false, false);
    loop {
        let busy = conns.iter().flatten().any(|conn| conn.readable);
        let timeout = match (busy, retry) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => Some(Duration::from_millis(100)),
            (false, false) => None,
        };
        match net.poll(&mut ready, timeout) {
            Err(error) if error.kind() == ErrorKind::Deadlock => break,
            outcome => outcome.unwrap(),
        }
        for event in &ready {
            acceptable |= event.token == 1;
            let index = usize::try_from(event.token >> 32).unwrap();
            if let Some(Some(conn)) = index.checked_sub(1).and_then(|index| conns.get_mut(index)) {
                conn.readable |= event.readable;
                conn.hung_up |= event.hung_up;
            }
        }
        retry = false;
        while acceptable {
            match net.accept(&mut listener) {
                Ok((mut socket, _)) => {
                    let token = (conns.len() as u64 + 1) << 32;
                    if net.register(&mut socket, token).is_err() {
                        net.close(socket, true);
                        continue;
                    }
                    conns.push(Some(Echo {
                        transport: Transport::Plain(socket),
                        out: SendBuffer::new(&pool),
                        readable: false,
                        hung_up: false,
                        ended: false,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => acceptable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    retry = true;
                    break;
                }
            }
        }
        for slot in &mut conns {
            if let Some(conn) = slot
                && drive(net, conn)
                && let Some(conn) = slot.take()
            {
                conn.transport.close(net, false);
            }
        }
    }
    net.close_listener(listener);
    assert_eq!(pool.taken(), 0);
}

/// One read, and as many writes as there is room for; whether it is over.
fn drive<const DRAINS: bool>(net: &mut SimNet<DRAINS>, conn: &mut Echo) -> bool {
    let mut into = [0; 300];
    if conn.readable {
        match conn.transport.read(net, &mut into) {
            ReadOutcome::Bytes { count, drained } => {
                conn.out.append(&into[..count]);
                conn.readable = !drained || conn.hung_up;
            }
            ReadOutcome::Blocked => conn.readable = false,
            ReadOutcome::Eof | ReadOutcome::Truncated => {
                (conn.readable, conn.ended) = (false, true)
            }
            ReadOutcome::Failed(_) | ReadOutcome::TlsFailed(_) => return true,
        }
    }
    match conn.transport.write(net, &mut conn.out) {
        WriteOutcome::Flushed => conn.ended,
        WriteOutcome::Blocked { .. } | WriteOutcome::Handshaking => false,
        WriteOutcome::Failed(_) => true,
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251).to_le_bytes()[0]).collect()
}

fn run<const DRAINS: bool>(seed: u64, options: SimOptions) -> (SimNet<DRAINS>, Vec<PeerId>) {
    let mut net = SimNet::<DRAINS>::new(seed, options);
    let peers = [0, 1, 5_000, 20_000].map(|len| {
        let steps = [
            Step::Pause(Duration::from_millis(3)),
            Step::Send(bytes(len / 2)),
            Step::AwaitBytes(len / 4),
            Step::Send(bytes(len)[len / 2..].to_vec()),
            Step::HalfClose,
        ];
        net.dial_in(&here(), Duration::from_millis(1), Script::new(steps))
    });
    echo(&mut net);
    (net, peers.to_vec())
}

#[track_caller]
fn check<const DRAINS: bool>(seed: u64, options: &SimOptions) {
    let (net, peers) = run::<DRAINS>(seed, options.clone());
    for (peer, len) in peers.into_iter().zip([0, 1, 5_000, 20_000]) {
        assert!(net.received(peer) == bytes(len), "seed {seed}, {len} bytes");
        assert_eq!(net.end(peer), Some(PeerEnd::Finished), "seed {seed}");
    }
}

#[test]
fn all_bytes_arrive_in_order_whatever_the_network_does() {
    for seed in 0..100 {
        for options in [SimOptions::calm(), SimOptions::tricky()] {
            check::<true>(seed, &options);
            check::<false>(seed, &options);
        }
    }
}

#[test]
fn a_rough_network_ends_connections_and_changes_no_byte() {
    let mut ends = [0; 3];
    for seed in 0..100 {
        let (net, peers) = run::<true>(seed, SimOptions::rough());
        for (peer, len) in peers.into_iter().zip([0, 1, 5_000, 20_000]) {
            let received = net.received(peer);
            assert!(
                bytes(len).starts_with(&received),
                "seed {seed}, {len} bytes"
            );
            let end = net.end(peer);
            ends[end.map_or(0, |end| 1 + usize::from(end == PeerEnd::Reset))] += 1;
        }
    }
    let [none, finished, reset] = ends;
    assert!(none == 0 && finished > 200 && reset > 5, "{ends:?}");
}

#[test]
fn a_peer_that_stops_reading_stops_us_until_it_goes_on() {
    let second = Duration::from_secs(1);
    let mut net = SimNet::<true>::new(1, SimOptions::tricky());
    let steps = [
        Step::StopReading,
        Step::Send(bytes(50_000)),
        Step::HalfClose,
        Step::Pause(second),
        Step::ResumeReading,
    ];
    let peer = net.dial_in(&here(), Duration::ZERO, Script::new(steps));
    echo(&mut net);
    assert!(net.received(peer) == bytes(50_000) && net.elapsed() > second);
}

#[test]
fn a_peer_may_leave_in_the_middle() {
    for last in [Step::Reset, Step::Close] {
        for seed in 0..50 {
            let mut net = SimNet::<false>::new(seed, SimOptions::tricky());
            let steps = [
                Step::Send(bytes(9_000)),
                Step::AwaitText(vec![1, 2, 3]),
                last.clone(),
            ];
            let peer = net.dial_in(&here(), Duration::ZERO, Script::new(steps));
            echo(&mut net);
            let received = net.received(peer);
            assert!(
                received.len() >= 4 && bytes(9_000).starts_with(&received),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_transcript_and_another_gives_another() {
    let transcript = |seed| {
        let (net, _) = run::<true>(seed, SimOptions::tricky());
        net.transcript().to_owned()
    };
    assert_eq!(transcript(7), transcript(7));
    assert_ne!(transcript(7), transcript(8));
}

#[test]
fn a_server_that_closes_over_unread_bytes_destroys_its_last_words() {
    let mut net = SimNet::<true>::new(1, SimOptions::calm());
    let mut listener = net.listen(&here(), 1).unwrap();
    let script = Script::new([Step::Send(bytes(100))]);
    let peer = net.dial_in(&here(), Duration::ZERO, script);
    let mut ready = Vec::new();
    net.poll(&mut ready, None).unwrap();
    let (mut socket, _) = net.accept(&mut listener).unwrap();
    net.register(&mut socket, 1 << 32).unwrap();
    let is_readable = |event: &Ready| event.token == 1 << 32 && event.readable;
    while !ready.iter().any(is_readable) {
        net.poll(&mut ready, None).unwrap();
    }
    let words = std::io::IoSlice::new(b"last words");
    assert_eq!(net.write(&mut socket, &[words]).unwrap(), 10);
    net.close(socket, false);
    let over = net.poll(&mut ready, None).unwrap_err();
    assert_eq!(over.kind(), ErrorKind::Deadlock);
    assert_eq!(
        (net.end(peer), net.received(peer)),
        (Some(PeerEnd::Reset), vec![])
    );
}

#[test]
fn the_chosen_call_fails_and_no_other() {
    let mut net = SimNet::<true>::new(1, SimOptions::calm());
    net.fail(Call::Accept, 2, ErrorKind::OutOfMemory);
    let mut listener = net.listen(&here(), 1).unwrap();
    let mut fails = || net.accept(&mut listener).unwrap_err().kind();
    let (blocks, broken) = (ErrorKind::WouldBlock, ErrorKind::OutOfMemory);
    assert_eq!([fails(), fails(), fails()], [blocks, broken, blocks]);
    assert_eq!(net.calls(Call::Accept), 3);
}

#[test]
fn a_connect_finds_a_service_or_is_refused() {
    let mut net = SimNet::<true>::new(1, SimOptions::calm());
    net.serve(here(), Script::new([Step::Send(b"welcome".to_vec())]));
    let mut ready = Vec::new();
    let mut socket = net.connect(&here(), 1 << 32).unwrap();
    let early = net.connect_outcome(&socket).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    net.poll(&mut ready, None).unwrap();
    assert!(ready.iter().any(|event| event.writable));
    assert!(net.connect_outcome(&socket).is_ok());
    net.poll(&mut ready, None).unwrap();
    assert_eq!(net.read(&mut socket, &mut [0; 16]).unwrap(), 7);

    let nobody = Endpoint::Unix("/nowhere".into());
    let socket = net.connect(&nobody, 2 << 32).unwrap();
    net.poll(&mut ready, None).unwrap();
    let refused = net.connect_outcome(&socket).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
