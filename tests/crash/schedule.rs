//! What one seed does: pushes of some clients, and who dies when. The same seed gives the same schedule.

use lemnos::failpoint::Point;

/// splitmix64: small, and the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `limit`, without it.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

#[derive(Debug, Clone)]
pub struct Schedule {
    /// What each client does, one after the other.
    pub clients: Vec<Vec<Op>>,
    pub crash: Crash,
    /// How long the victim stays away.
    pub away_ms: u64,
}

#[derive(Debug, Clone)]
pub struct Op {
    pub branch: &'static str,
    pub kind: Kind,
    /// Lines of the Dockerfile for the fake builder.
    pub orders: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On top of what the client knows.
    Plain,
    /// A history of its own, forced.
    Force,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The server, where it passes this point the `hit`-th time.
    AtPoint { point: Point, hit: u64 },
    /// Somebody, some time after the first push began.
    At { victim: Victim, after_ms: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Server,
    Builder,
    Registry,
    /// The push that runs then.
    Client,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let clients = (0..=dice.below(3)).map(|_| (0..=dice.below(2)).map(|_| op(&mut dice)).collect());
        let clients = clients.collect();
        let crash = if dice.chance(65) {
            // every point has its turn, whatever the dice say
            let at = usize::try_from(seed).unwrap() % Point::ALL.len();
            Crash::AtPoint { point: Point::ALL[at], hit: 1 + dice.below(3) / 2 + dice.below(4) / 3 }
        } else {
            let victims = [Victim::Server, Victim::Server, Victim::Builder, Victim::Registry, Victim::Client];
            Crash::At { victim: dice.pick(&victims), after_ms: dice.below(500) }
        };
        Self { clients, crash, away_ms: dice.below(80) }
    }
}

fn op(dice: &mut Dice) -> Op {
    let branch = if dice.chance(75) { "main" } else { "dev" };
    let kind = match dice.below(10) {
        0 => Kind::Delete,
        1..=3 => Kind::Force,
        _ => Kind::Plain,
    };
    let mut orders = Vec::new();
    if dice.chance(40) {
        orders.push(format!("sleep {}", 5 + dice.below(60)));
    }
    if dice.chance(30) {
        orders.push("say working".to_owned());
    }
    if dice.chance(8) {
        orders.push("fail".to_owned());
    }
    Op { branch, kind, orders }
}
