//! Wiping the stack after work with secrets. Secrets live in boxes that wipe themselves, but the code that computes
//! with them (HKDF, key agreement, ciphers) leaves copies and intermediate values below the stack pointer, where
//! nothing erases them (TC-34).
//!
//! The key schedule wipes the stack after each derivation, and the key exchange ([`crate::handshake`]) once after all the
//! work for one message. Sealing and opening do not, since that would cost as much as a short frame does, and the keys
//! in use are in memory anyway: whoever drops a [`Record`](crate::Record), or sees its generation change, wipes the
//! stack from where it had called it, with [`wiped`].
//!
//! Wiping evicts other data from the processor's cache, which costs more than the writes do: so no more is wiped than
//! is used, with a margin (`tests/secrets` measures it).

use core::hint::black_box;

/// Unoptimised code has frames several times as large. The optimisation level itself is not visible to the code.
const OPTIMISED: bool = !cfg!(debug_assertions);

/// Deeper than any cipher, hash or curve here reaches, with its callers' frames.
pub const DEEP_BYTES: usize = if OPTIMISED { 16 * 1024 } else { 64 * 1024 };

/// Deeper than a few calls of HKDF reach.
pub const SHALLOW_BYTES: usize = if OPTIMISED { 4 * 1024 } else { 8 * 1024 };

/// Runs `f` and wipes the stack that it used. Its result is moved, so it may contain secrets only behind a pointer.
pub fn wiped<R>(f: impl FnOnce() -> R) -> R {
    let result = apart(f);
    wipe::<DEEP_BYTES>();
    result
}

/// Runs `f` and wipes the stack that it used if `f` returns true.
pub fn wiped_if(f: impl FnOnce() -> bool) {
    if apart(f) {
        wipe::<DEEP_BYTES>();
    }
}

/// [`wiped`] for code that needs no more stack than HKDF.
pub fn wiped_shallow<R>(f: impl FnOnce() -> R) -> R {
    let result = apart(f);
    wipe::<SHALLOW_BYTES>();
    result
}

/// Runs `f` in a separate frame, which begins a little below where that of [`wipe`] will.
#[inline(never)]
fn apart<R>(f: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn call<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    let between = [0_u64; 16];
    black_box(&between);
    let result = call(f);
    black_box(&between);
    result
}

/// Overwrites `BYTES` of the stack below the caller's frame.
#[inline(never)]
fn wipe<const BYTES: usize>() {
    let mut below = [0_u8; BYTES];
    // The whole array must exist, since anything might read it.
    black_box(&mut below);
}
