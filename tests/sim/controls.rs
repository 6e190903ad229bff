//! What a test tells a [`SimNet`] to be like, and asks it afterwards.
//!
//! Sits beside `sim.rs`, whose calls are the reactor's; these are the test's. Peers dial in or are
//! dialled, names are known or not, a call fails; and at the end: what each peer has received, how
//! it saw its connection end, and the transcript.
//!
//! Not here: what the network does by itself (`link.rs`, `options.rs`).

use super::*;

impl<const DRAINS: bool> SimNet<DRAINS> {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor; only differences to it are ever used"
    )]
    pub(crate) fn new(seed: u64, options: SimOptions) -> Self {
        Self(Rc::new(RefCell::new(World {
            drains: DRAINS,
            options,
            dice: Dice::new(seed),
            origin: Instant::now(),
            now: Duration::ZERO,
            happenings: BTreeMap::new(),
            sequence: 0,
            links: Vec::new(),
            listeners: BTreeMap::new(),
            services: Vec::new(),
            routes: Vec::new(),
            cuts: Vec::new(),
            names: Names::default(),
            mail: Mail::default(),
            closed_tokens: Vec::new(),
            calls: [0; CALLS],
            calls_before: 0,
            idle_polls: 0,
            fault: None,
            reserve_spent: false,
            transcript: String::new(),
            woken: Arc::default(),
        })))
    }

    /// Lets a peer connect to `at` after `delay`, and do what `script` says.
    pub(crate) fn dial_in(&self, at: &Endpoint, delay: Duration, script: Script) -> PeerId {
        let mut world = self.world();
        let link = world.open_link(script, Stage::Waiting);
        world.links[link.0].dials = Some(at.clone());
        world.after(delay, Happening::Arrival(link));
        PeerId(link)
    }

    /// Lets every connect to `at` find a peer that does what `script` says.
    pub(crate) fn serve(&self, at: Endpoint, script: Script) {
        self.world().services.push((at, script));
    }

    /// As [`serve`](Self::serve), for connects from now on.
    pub(crate) fn serve_instead(&self, at: Endpoint, script: Script) {
        self.world().services.retain(|(known, _)| *known != at);
        self.serve(at, script);
    }

    /// Lets connects to `at` take `time`, or never end.
    pub(crate) fn route(&self, at: Endpoint, time: Option<Duration>) {
        self.world().routes.push((at, time));
    }

    /// Lets the resolver answer so about `host` after `time`, or never. It knows no other names.
    pub(crate) fn name(&self, host: &str, time: Option<Duration>, outcome: Resolution) {
        self.world().names.learn(host, time, outcome);
    }

    /// Questions that the resolver has still to answer.
    pub(crate) fn questions(&self) -> usize {
        self.world().names.questions()
    }

    /// Sockets that the reactor has not closed.
    pub(crate) fn open_sockets(&self) -> usize {
        self.world().open_sockets()
    }

    /// Lets the `n`-th call of its kind fail, counted from 1.
    pub(crate) fn fail(&self, call: Call, n: u64, with: ErrorKind) {
        self.world().fault = Some((call, n, with));
    }

    /// How often `call` was made.
    pub(crate) fn calls(&self, call: Call) -> u64 {
        self.world().calls[call as usize]
    }

    /// The reactor was busy with what it had read before: then it may poll without a call between.
    pub(crate) fn note_work(&self) {
        self.world().idle_polls = 0;
    }

    /// Everything a peer has received.
    pub(crate) fn received(&self, peer: PeerId) -> Vec<u8> {
        self.world().links[peer.0.0].received.clone()
    }

    /// What each peer has received, in the order in which their connections were begun.
    pub(crate) fn heard(&self) -> Vec<String> {
        let heard = |link: &Link| String::from_utf8_lossy(&link.received).into_owned();
        self.world().links.iter().map(heard).collect()
    }

    /// How a peer saw its connection end, if it has.
    pub(crate) fn end(&self, peer: PeerId) -> Option<PeerEnd> {
        let world = self.world();
        let link = &world.links[peer.0.0];
        match (link.peer_was_reset, link.peer_saw_end) {
            (true, _) => Some(PeerEnd::Reset),
            (false, true) => Some(PeerEnd::Finished),
            (false, false) => None,
        }
    }

    /// Time since the simulation began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.world().now
    }

    /// Adds a line to the transcript.
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.world().note(line);
    }

    /// The end of the transcript, for a test that has failed: perhaps in the middle of a call.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let Ok(world) = self.0.try_borrow() else {
            return "failed inside the simulation".to_owned();
        };
        let lines: Vec<&str> = world.transcript.lines().collect();
        let short = |line: &&str| line.chars().take(200).collect::<String>();
        let tail = lines[lines.len().saturating_sub(count)..].iter();
        tail.map(short).collect::<Vec<_>>().join("\n")
    }

    /// What happened so far, a line each.
    pub(crate) fn transcript(&self) -> Ref<'_, str> {
        Ref::map(self.0.borrow(), |world| world.transcript.as_str())
    }

    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }
}
