//! Scenes: what runs on a simulated network until nothing will ever happen again, and the rules that
//! hold whatever is played.
//!
//! A scene brings its own reactor, peers and application; a [`Stage`] brings the network, turns the
//! reactor and asks at the end whether anything is left: connections, deadlines, pooled buffers,
//! questions for names, sockets. A scene that fails names its seed and what happened last. Each
//! scene is then held to two rules by one call each: the same seed gives the same transcript, and
//! whichever call to the system fails, the scene still ends as it must.
//!
//! `SEED=17` runs one seed, `SEEDS=100000` so many.
//!
//! Not here: any peer or application (`reactor.rs`, `loopback.rs`, `streams.rs`, `proxied.rs`, …).

use super::{Call, SimNet, SimOptions};
use hukilau_core::reactor::Reactor;
use hukilau_core::reactor::inbox::Inbox;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::ErrorKind;
use std::ops::Range;
use std::time::Instant;

/// Seeds of each kind in an ordinary run.
pub(crate) const SEEDS: u64 = 120;

/// Turns after which a scene counts as endless.
const TURNS_MAX: usize = 200_000;

/// Lines of the transcript that a failing scene shows.
const LINES_SHOWN: usize = 60;

/// The call that fails, the how manieth of its kind, and how.
pub(crate) type Fault = (Call, u64, ErrorKind);

/// How often each cause ended a connection, by its name.
pub(crate) type Causes = BTreeMap<String, usize>;

#[expect(
    clippy::disallowed_methods,
    reason = "a failing seed is run again, and long runs are made, without a new build"
)]
pub(crate) fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    }
}

/// Everything that decides a run.
pub(crate) trait Scene {
    /// What this kind of scene tells beside what every scene does.
    type Told: PartialEq + Debug;

    fn seed(&self) -> u64;

    fn run<const DRAINS: bool>(&self) -> Rest<Self::Told>;

    /// Under either kind of readiness, by the seed.
    fn run_either(&self) -> Rest<Self::Told> {
        if self.seed().is_multiple_of(2) {
            self.run::<true>()
        } else {
            self.run::<false>()
        }
    }
}

/// What a scene leaves behind.
pub(crate) struct Rest<T> {
    pub(crate) causes: Causes,
    pub(crate) transcript: String,
    /// How often the call that was to fail was made.
    pub(crate) calls: u64,
    pub(crate) told: T,
}

/// A network, and what is counted while a reactor turns on it.
pub(crate) struct Stage<const DRAINS: bool> {
    pub(crate) net: SimNet<DRAINS>,
    seed: u64,
    fault: Option<Fault>,
    turns: usize,
}

impl<const DRAINS: bool> Stage<DRAINS> {
    pub(crate) fn new(seed: u64, options: &SimOptions, fault: Option<Fault>) -> Self {
        let net = SimNet::new(seed, options.clone());
        if let Some((call, n, with)) = fault {
            net.fail(call, n, with);
        }
        Self {
            net,
            seed,
            fault,
            turns: 0,
        }
    }

    /// One turn; `false` once nothing will ever happen again.
    pub(crate) fn turn(
        &mut self,
        reactor: &mut Reactor<SimNet<DRAINS>>,
        inbox: &mut Inbox,
        wake_at: Option<Instant>,
    ) -> bool {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "endless");
        match reactor.turn(inbox, wake_at) {
            Err(error) if error.kind() == ErrorKind::Deadlock => false,
            outcome => {
                outcome.expect("a simulated poll does not fail");
                if inbox.steps() > 0 {
                    self.net.note_work();
                }
                true
            }
        }
    }

    /// Ends the scene: nothing may be left of it.
    pub(crate) fn clear<T>(
        self,
        reactor: &Reactor<SimNet<DRAINS>>,
        causes: Causes,
        told: T,
    ) -> Rest<T> {
        assert_eq!(reactor.connections(), 0, "the table is empty");
        assert_eq!(reactor.deadlines(), 0, "the wheel is empty");
        assert_eq!(reactor.buffers_taken(), 0, "the pool is whole");
        assert_eq!(self.net.questions(), 0, "nobody waits for a name");
        assert_eq!(self.net.open_sockets(), 0, "every socket is closed");
        let transcript = self.net.transcript().to_owned();
        Rest {
            causes,
            transcript,
            calls: self.fault.map_or(0, |(call, ..)| self.net.calls(call)),
            told,
        }
    }
}

impl<const DRAINS: bool> Drop for Stage<DRAINS> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.net.last_lines(LINES_SHOWN);
            eprintln!("{lines}\nfailed with SEED={}", self.seed);
        }
    }
}

/// Runs a scene for each seed; all that ended their connections.
pub(crate) fn causes_of<S: Scene>(
    seeds: impl Iterator<Item = u64>,
    scene: impl Fn(u64) -> S,
) -> Causes {
    let mut causes = Causes::new();
    for seed in seeds {
        for (cause, count) in scene(seed).run_either().causes {
            *causes.entry(cause).or_insert(0) += count;
        }
    }
    causes
}

/// That scenes are as varied as they are meant to be.
#[track_caller]
pub(crate) fn check_met(causes: &Causes, expected: &[&str]) {
    for cause in expected {
        let is_met = causes.contains_key(*cause);
        assert!(is_met, "{cause} was never met: {causes:?}");
    }
}

/// The same seed gives the same, byte for byte.
#[track_caller]
pub(crate) fn check_repeats<S: Scene>(scene: impl Fn() -> S) {
    let [first, second] = [(); 2].map(|()| scene().run_either());
    let seed = scene().seed();
    assert_eq!(first.told, second.told, "SEED={seed}");
    let mut lines = first.transcript.lines().zip(second.transcript.lines());
    let different = lines.find(|(one, other)| one != other);
    assert_eq!(different, None, "SEED={seed}");
    assert!(first.transcript == second.transcript, "SEED={seed}");
}

/// Runs a scene with the first call of each kind failing, then with the second, and so on until it
/// makes no such call any more; there must have been `least` of each.
#[track_caller]
pub(crate) fn check_each_failing<S: Scene>(
    calls: &[(Call, ErrorKind)],
    least: u64,
    scene: impl Fn(Fault) -> S,
) {
    for &(call, with) in calls {
        let made = (1..)
            .find(|n| scene((call, *n, with)).run_either().calls < *n)
            .map_or(0, |n| n - 1);
        assert!(made >= least, "{call:?} was made {made} times");
    }
}
