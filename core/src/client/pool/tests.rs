//! The pool against a model that is a list of connections and a list of askers.

use super::*;
use proptest::prelude::*;

type Route = u8;
type Conn = u32;
type Asker = u32;

/// The rules, said as slowly as possible.
#[derive(Debug, Default)]
struct Model {
    /// Route, connection, and whether it rests; in the order in which they began to rest or open.
    conns: Vec<(Route, Conn, bool)>,
    queue: Vec<(Asker, Route)>,
}

impl Model {
    fn grant(&mut self, route: Route, limits: PoolLimits) -> Option<Grant<Conn>> {
        let resting = |conn: &(Route, Conn, bool)| conn.2;
        let of_route = |conn: &(Route, Conn, bool)| conn.0 == route;
        let youngest = self.conns.iter().rposition(|c| resting(c) && of_route(c));
        if let Some(index) = youngest {
            self.conns[index].2 = false;
            return Some(Grant::Reuse(self.conns[index].1));
        }
        if self.conns.iter().filter(|c| of_route(c)).count() >= limits.per_route_max as usize {
            return None;
        }
        if self.conns.len() < limits.total_max as usize {
            return Some(Grant::Open { evicts: None });
        }
        let oldest = self.conns.iter().position(resting)?;
        let evicts = Some(self.conns.remove(oldest).1);
        Some(Grant::Open { evicts })
    }

    fn next(&mut self, limits: PoolLimits) -> Option<Served<Route, Conn, Asker>> {
        for index in 0..self.queue.len() {
            let (who, route) = self.queue[index];
            if let Some(grant) = self.grant(route, limits) {
                self.queue.remove(index);
                return Some((who, route, grant));
            }
        }
        None
    }

    fn rest(&mut self, conn: Conn) {
        let index = self.conns.iter().position(|c| c.1 == conn);
        let (route, ..) = self.conns.remove(index.expect("it is there"));
        self.conns.push((route, conn, true));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Ask(Route),
    /// The n-th connection in use rests.
    Rest(usize),
    /// The n-th connection ends.
    End(usize),
    /// The n-th asker gives up.
    Withdraw(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_u8..4).prop_map(Op::Ask),
        3 => any::<usize>().prop_map(Op::Rest),
        2 => any::<usize>().prop_map(Op::End),
        1 => any::<usize>().prop_map(Op::Withdraw),
    ]
}

/// Both, driven side by side.
struct Pair {
    pool: Pool<Route, Conn, Asker>,
    model: Model,
    limits: PoolLimits,
    next_name: u32,
}

impl Pair {
    /// A grant to open is followed at once, or found impossible now and then.
    fn follow(&mut self, route: Route, grant: &Grant<Conn>) {
        if let Grant::Open { .. } = grant {
            let conn = self.next_name;
            self.next_name += 1;
            if conn % 7 == 3 {
                self.pool.not_opened(&route);
            } else {
                self.pool.opened(&route, conn);
                self.model.conns.push((route, conn, false));
            }
        }
    }

    fn settle(&mut self) {
        loop {
            let served = self.pool.next();
            assert_eq!(served, self.model.next(self.limits));
            match served {
                Some((_, route, grant)) => self.follow(route, &grant),
                None => break,
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.pool.total() as usize, self.model.conns.len());
        assert_eq!(self.pool.waiting(), self.model.queue.len());
        let resting = self.model.conns.iter().filter(|conn| conn.2).count();
        assert_eq!(self.pool.resting(), resting);
        assert!(self.pool.total() <= self.limits.total_max);
        let places = self.pool.places.iter().flatten().count();
        assert_eq!(places, self.pool.by_route.len());
        assert!(places <= self.model.conns.len() + self.model.queue.len());
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Ask(route) => {
                let who = self.next_name;
                self.next_name += 1;
                let got = self.pool.ask(&route, who);
                let want = match self.model.grant(route, self.limits) {
                    Some(grant) => Ok(Some(grant)),
                    None if self.model.queue.len() >= self.limits.waiting_max as usize => Err(Full),
                    None => {
                        self.model.queue.push((who, route));
                        Ok(None)
                    }
                };
                assert_eq!(got, want);
                if let Ok(Some(grant)) = got {
                    self.follow(route, &grant);
                }
            }
            Op::Rest(n) => {
                let used: Vec<_> = self.model.conns.iter().filter(|c| !c.2).collect();
                if let Some(conn) = n.checked_rem(used.len()).map(|n| used[n].1) {
                    self.pool.rest(conn);
                    self.model.rest(conn);
                }
            }
            Op::End(n) => {
                if let Some(n) = n.checked_rem(self.model.conns.len()) {
                    let (_, conn, _) = self.model.conns.remove(n);
                    self.pool.remove(conn);
                }
            }
            Op::Withdraw(n) => {
                if let Some(n) = n.checked_rem(self.model.queue.len()) {
                    let (who, _) = self.model.queue.remove(n);
                    self.pool.withdraw(&who);
                }
            }
        }
        self.settle();
        self.check();
    }
}

proptest! {
    #[test]
    fn it_does_what_the_naive_model_does(
        ops in proptest::collection::vec(op(), 1..200),
        per_route_max in 1_u32..4,
        total_max in 1_u32..6,
        waiting_max in 0_u32..6,
    ) {
        let limits = PoolLimits { per_route_max, total_max, waiting_max };
        let mut pair = Pair {
            pool: Pool::new(limits),
            model: Model::default(),
            limits,
            next_name: 0,
        };
        for op in &ops {
            pair.play(op);
        }
        // Whatever happened, nothing is left when everybody has gone.
        while !pair.model.queue.is_empty() {
            pair.play(&Op::Withdraw(0));
        }
        while !pair.model.conns.is_empty() {
            pair.play(&Op::End(0));
        }
        prop_assert!(pair.pool.by_route.is_empty());
        prop_assert!(pair.pool.of_conn.is_empty());
        prop_assert!(pair.pool.ages.is_empty());
    }
}
