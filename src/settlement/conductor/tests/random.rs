//! Any order of events, seeded: what was sealed becomes safe once L1 behaves. `CONDUCTOR_SEEDS=10000` for long runs, `CONDUCTOR_SEED=n` for one.

use super::*;

/// Blocks between the head and the final block: reorganisations go back to it.
const FINAL_LAG: u64 = 5;

struct World {
    rig: Rig,
    rng: SimRng,
    fails: u64,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    reorganisations: u64,
    failed: u64,
    dropped: u64,
    restarts: u64,
    crashes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let tx_bytes_max = [131_072, 9_000][rng.below(2) as usize];
        // Origins lie below what reorganises, so that no block has to give way.
        let mut rig = Rig::new(Shape { tx_bytes_max, origin_depth: FINAL_LAG + 1, ..SHAPE });
        (0..FINAL_LAG + 3).for_each(|_| rig.mine());
        rig.rng = SimRng::new(rng.word());
        let fails = rng.below(3) * 10;
        Self { rig, rng, fails, tally: Tally::default() }
    }

    fn act(&mut self) {
        match self.rng.below(100) {
            0..12 => {
                let tx_count = 1 + self.rng.below(6);
                self.rig.seal(tx_count);
            }
            12..40 => self.job(),
            40..60 => self.send(),
            60..75 => self.mine(),
            75..85 => {
                self.rig.settler.now_ns += self.rng.below(2 * NS_PER_S);
                self.rig.settler.event(Event::Tick);
            }
            85..90 => self.follow(),
            90..94 => self.reorganise(),
            94..96 => {
                self.tally.restarts += 1;
                self.restart();
            }
            96..98 => self.rig.settler.fuse = Some(self.rng.below(8)),
            98 => drop(self.rig.pool.pop_first()),
            _ => self.rig.pool.clear(),
        }
        if self.rig.settler.is_over() {
            self.tally.crashes += 1;
            self.restart();
        }
        assert_eq!(self.rig.settler.halted, None);
        assert!(self.rig.settler.replacement.is_none(), "{:?}", self.rig.settler.replacement.as_ref().map(replaced));
        let (safe, finalized) = self.rig.settler.conductor.settled();
        assert!(finalized <= safe && safe <= self.rig.sealed.len() as u64);
    }

    /// The next process; its jobs and sends are its own.
    fn restart(&mut self) {
        let (disk, now_ns) = (self.rig.settler.disk.clone(), self.rig.settler.now_ns);
        self.rig.settler = settler(&self.rig.shape, &self.rig.chain, disk);
        self.rig.settler.now_ns = now_ns;
        self.rig.settler.rng = SimRng::new(self.rng.word());
        self.rig.take_sealed();
    }

    fn job(&mut self) {
        if let Some(job) = self.rig.settler.jobs.pop_front() {
            self.rig.answer(job);
        }
    }

    fn send(&mut self) {
        let Some((attempt, raw)) = self.rig.settler.sends.pop_front() else { return };
        if self.rng.chance(1, 8) {
            return self.rig.settler.sent(attempt, SendOutcome::Away);
        }
        let nonce = decode(&raw).terms.nonce;
        self.rig.sent.push(raw.clone());
        if nonce < self.rig.nonce(self.rig.l1.len()) {
            return self.rig.settler.sent(attempt, SendOutcome::NonceTooLow);
        }
        self.rig.pool.insert(nonce, raw);
        self.rig.settler.sent(attempt, SendOutcome::Accepted);
    }

    fn mine(&mut self) {
        let mut next = self.rig.nonce(self.rig.l1.len());
        let mut txs = Vec::new();
        while !self.rng.chance(1, 4)
            && let Some(raw) = self.rig.pool.remove(&next)
        {
            let success = self.fails == 0 || !self.rng.chance(1, self.fails);
            self.tally.failed += u64::from(!success);
            txs.push((raw, success));
            next += 1;
        }
        self.rig.push(txs);
        self.rig.finalized = self.rig.finalized.max((self.rig.l1.len() as u64 - 1).saturating_sub(FINAL_LAG));
        if !self.rng.chance(1, 3) {
            self.follow();
        }
    }

    fn follow(&mut self) {
        if !self.rig.settler.conductor.is_full() {
            self.rig.follow();
        }
    }

    fn reorganise(&mut self) {
        let head = self.rig.l1.len() as u64 - 1;
        let to = self.rig.finalized.max(head - self.rng.below(FINAL_LAG).min(head));
        if to >= self.rig.settler.conductor.l1_head().number {
            return;
        }
        self.tally.reorganisations += 1;
        for raw in self.rig.reorganise(to) {
            let nonce = decode(&raw).terms.nonce;
            match self.rng.chance(2, 3) {
                true => drop(self.rig.pool.entry(nonce).or_insert(raw)),
                false => self.tally.dropped += 1,
            }
        }
    }

    /// Nothing goes wrong any more.
    fn settle(&mut self) {
        self.fails = 0;
        self.rig.settler.fuse = None;
        for _ in 0..400 {
            self.rig.close();
            self.rig.mine();
            self.rig.close();
            self.rig.finalized = (self.rig.l1.len() as u64 - 1).saturating_sub(FINAL_LAG);
            if self.rig.safe() == self.rig.sealed.len() as u64 && self.rig.pool.is_empty() {
                return self.rig.check_lives();
            }
        }
        let status = self.rig.settler.conductor.status();
        panic!("{} of {} blocks are safe: {status:?}", self.rig.safe(), self.rig.sealed.len());
    }
}

#[test]
fn everything_sealed_becomes_safe_once_l1_behaves() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("CONDUCTOR_SEED").unwrap_or(0);
    let count = number("CONDUCTOR_SEED").map_or_else(|| number("CONDUCTOR_SEEDS").unwrap_or(12), |_| 1);
    let mut all = Tally::default();
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..250).for_each(|_| world.act());
            world.settle();
            world.tally
        });
        let Ok(tally) = result else { panic!("CONDUCTOR_SEED={seed} cargo test --lib conductor::tests::random") };
        all.reorganisations += tally.reorganisations;
        all.failed += tally.failed;
        all.dropped += tally.dropped;
        all.restarts += tally.restarts;
        all.crashes += tally.crashes;
    }
    let Tally { reorganisations, failed, dropped, restarts, crashes } = all;
    println!(
        "{count} seeds: {reorganisations} reorganisations, {dropped} dropped, {failed} failed on L1, {restarts} restarts, {crashes} crashes"
    );
    assert!(count < 10 || [reorganisations, failed, dropped, restarts, crashes].into_iter().all(|count| count > 1));
}
