//! Notes every (key, nonce) pair that seals a frame in a run: none may seal two (TC-19, TC-26, TC-27), whatever is resumed,
//! rekeyed or sent again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use tcpcrypt::aead::{AeadKey, NotAuthentic};
use tcpcrypt::kex::PrivateKey;
use tcpcrypt::{AeadId, Error, Provider, Tep};

#[derive(Default)]
struct Seals {
    /// What a copy does while it is made was done by its original.
    paused: bool,
    seen: HashSet<u64>,
    repeated: u64,
}

thread_local! {
    static SEALS: RefCell<Seals> = RefCell::default();
}

/// Begins a new run on this thread.
pub fn begin() {
    SEALS.set(Seals::default());
}

/// How many frames were sealed with a pair that had sealed one before, since [`begin`].
pub fn repeated() -> u64 {
    SEALS.with_borrow(|seals| seals.repeated)
}

/// Whether seals count from now on.
pub fn pause(paused: bool) {
    SEALS.with_borrow_mut(|seals| seals.paused = paused);
}

/// The daemon's provider, under watch.
pub fn provider() -> &'static dyn Provider {
    &Noting
}

struct Noting;

struct NotedKey {
    key: Vec<u8>,
    inner: Box<dyn AeadKey>,
}

impl Provider for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }
    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error> {
        let inner = enotun::crypto::provider().aead(id, key)?;
        Ok(Box::new(NotedKey { key: key.to_vec(), inner }))
    }
    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error> {
        enotun::crypto::provider().private_key(tep, bytes)
    }
}

impl AeadKey for NotedKey {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        // 64 bits of it are enough to tell a few million apart.
        let mut hasher = DefaultHasher::new();
        (&self.key, nonce).hash(&mut hasher);
        SEALS.with_borrow_mut(|seals| {
            if !seals.paused && !seals.seen.insert(hasher.finish()) {
                seals.repeated += 1;
            }
        });
        self.inner.seal(nonce, aad, buffer)
    }
    fn open(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8], tag: &[u8; 16]) -> Result<(), NotAuthentic> {
        self.inner.open(nonce, aad, buffer, tag)
    }
}
