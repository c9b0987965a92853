//! The surroundings of an engine in a test: what it sends is kept, what it draws follows from a seed.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use enotun::engine::{Env, RandomFor, Side};
use enotun::wire::split::{segments, segments_of_bytes};
use enotun::wire::{Offload, Outgoing};

/// Where random bytes come from.
pub trait Source {
    fn fill(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]);
}

/// The seed of all sources that are not given another one: 1, or what `ENOTUN_TEST_SEED` says.
pub fn seed() -> u64 {
    thread_local! { static SEED: Cell<Option<u64>> = const { Cell::new(None) } }
    SEED.get().unwrap_or_else(|| {
        let set = std::env::var("ENOTUN_TEST_SEED").ok();
        let seed = set.map_or(1, |text| text.parse().expect("ENOTUN_TEST_SEED is a number"));
        println!("ENOTUN_TEST_SEED={seed}");
        SEED.set(Some(seed));
        seed
    })
}

/// A generator. What bytes are wanted for goes into them, as the trait asks (TC-14); without that, its state is all they
/// depend on.
#[derive(Debug, Clone)]
pub struct Generator {
    seed: u64,
    mixing: bool,
    /// Requests so far.
    pub count: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { seed, mixing: true, count: 0 }
    }

    pub fn without_mixing(seed: u64) -> Self {
        Self { mixing: false, ..Self::new(seed) }
    }
}

impl Source for Generator {
    fn fill(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        self.count += 1;
        for (block, bytes) in out.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (self.seed, self.count, block).hash(&mut hasher);
            if self.mixing {
                (wanted.purpose, wanted.local, wanted.remote, wanted.context).hash(&mut hasher);
            }
            bytes.copy_from_slice(&hasher.finish().to_be_bytes()[..bytes.len()]);
        }
    }
}

/// A packet that an engine sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub side: Side,
    pub bytes: Vec<u8>,
    pub offload: Offload,
    /// The engine built it; otherwise it has passed as it came.
    pub built: bool,
}

/// The surroundings: every engine of a test has these.
pub struct TestEnv<S = Generator> {
    /// What was sent and not yet taken, in order.
    pub out: Vec<Emitted>,
    pub source: S,
    /// Whether randomness is ready (ENO-18). Before that it must not be asked for.
    pub ready: bool,
}

impl Default for TestEnv {
    fn default() -> Self {
        Self::new(Generator::new(seed()))
    }
}

impl<S> TestEnv<S> {
    pub fn new(source: S) -> Self {
        Self { out: Vec::new(), source, ready: true }
    }

    /// Takes what was sent.
    pub fn take(&mut self) -> Vec<Emitted> {
        std::mem::take(&mut self.out)
    }

    fn keep(&mut self, side: Side, offload: Offload, built: bool, bytes: impl FnOnce() -> Vec<u8>) {
        let before = ASIDE.replace(true);
        self.out.push(Emitted { side, bytes: bytes(), offload, built });
        ASIDE.set(before);
    }
}

thread_local! { static ASIDE: Cell<bool> = const { Cell::new(false) } }

/// Whether memory that is allocated now, by this thread, is for what a test keeps and not for the engine.
pub fn is_aside() -> bool {
    ASIDE.get()
}

impl<S: Source> Env for TestEnv<S> {
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>) {
        self.keep(side, packet.offload, true, || {
            let bytes = packet.to_vec();
            // Devices get the pieces; what tests look at is the whole.
            if packet.payload.len() > 1 && packet.offload.gso.is_some() {
                assert_eq!(segments(packet), segments_of_bytes(&bytes, packet.offload), "cut in pieces and as a whole");
            }
            bytes
        });
    }

    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]) {
        self.keep(side, offload, false, || bytes.to_vec());
    }

    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        assert!(self.ready, "randomness was asked for before it was ready");
        self.source.fill(wanted, out);
    }

    fn random_is_ready(&self) -> bool {
        self.ready
    }
}
