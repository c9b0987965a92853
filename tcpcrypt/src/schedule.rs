//! The key schedule (RFC 8548, sections 3.3 and 3.4; TC-7 to TC-10): one type per stage, so that a key of a later
//! stage can only be made from the right secret of an earlier one. A secret is derived where it will stay, in a box
//! that wipes itself (TC-34): moving it moves a pointer, and nothing is left in its old place or on the stack
//! ([`crate::stack`]).

use alloc::boxed::Box;
use core::fmt;
use core::hint::black_box;

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::AeadId;
use crate::constants::{
    AEAD_KEY_MAX, AEAD_NONCE_LEN, CONST_KEY_A, CONST_KEY_B, CONST_NEXTK, CONST_REKEY, CONST_RESUME, CONST_SESSID,
    FINGERPRINT_LEN, NONCE_LEN, RESUME_HALF_LEN, SECRET_LEN, SESSION_ID_LEN,
};
use crate::nonce::SessionNonce;
use crate::stack;
use crate::tep::Role;

/// `CPRF(key, info, out.len())` = HKDF-Expand-SHA256; `info` in parts.
fn cprf(key: &Secret, info: &[&[u8]], out: &mut [u8]) {
    stack::wiped_shallow(|| {
        // The key has the hash's length and the output is far below 255 hashes: neither call can fail.
        if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(&key.0[..]) {
            let done = hkdf.expand_multi_info(info, out);
            debug_assert!(done.is_ok(), "output too long for HKDF");
        }
    });
}

/// A secret in its only place in memory, wiped on drop.
struct Secret<const N: usize = SECRET_LEN>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// An all-zero secret, to be filled.
    fn room() -> Self {
        // The compiler would make a call of calloc of it, which goes past what glibc keeps at hand for malloc.
        Self(Box::new(black_box([0; N])))
    }
}

impl Secret {
    fn derive(key: &Secret, info: &[&[u8]]) -> Self {
        let mut secret = Self::room();
        cprf(key, info, &mut secret.0[..]);
        secret
    }
}

impl<const N: usize> Clone for Secret<N> {
    fn clone(&self) -> Self {
        let mut copy = Self::room();
        copy.0.copy_from_slice(&self.0[..]);
        copy
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

/// `ss[i]`, from which a connection's keys, its session ID and all later sessions of the chain derive.
#[derive(Clone)]
pub struct SessionSecret(Secret);

impl SessionSecret {
    /// `ss[0]` = PRK = `Extract(N_A, transcript | Init1 | Init2 | ES)`, the messages as transmitted (TC-7).
    #[must_use]
    pub fn extract(n_a: &[u8; NONCE_LEN], transcript: &[u8], init1: &[u8], init2: &[u8], es: &[u8]) -> Self {
        let mut secret = Secret::room();
        stack::wiped_shallow(|| {
            let mut extract = HkdfExtract::<Sha256>::new(Some(n_a));
            for part in [transcript, init1, init2, es] {
                extract.input_ikm(part);
            }
            let (prk, _) = extract.finalize();
            secret.0.copy_from_slice(&prk);
        });
        Self(secret)
    }

    /// A secret from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SECRET_LEN]) -> Self {
        let mut secret = Secret::room();
        secret.0.copy_from_slice(bytes);
        Self(secret)
    }

    /// `ss[i+1]` (TC-7).
    #[must_use]
    pub fn next(&self) -> Self {
        Self(Secret::derive(&self.0, &[&[CONST_NEXTK]]))
    }

    /// `mk[0]` (TC-8).
    #[must_use]
    pub fn master_key(&self, sn: &SessionNonce) -> MasterKey {
        MasterKey(Secret::derive(&self.0, &[&[CONST_REKEY], sn.as_bytes()]))
    }

    /// `session_id[i]`; `tep_byte` is the byte B sent, v bit included (TC-10).
    #[must_use]
    pub fn session_id(&self, tep_byte: u8, sn: &SessionNonce) -> SessionId {
        let mut id = [tep_byte; SESSION_ID_LEN];
        cprf(&self.0, &[&[CONST_SESSID], sn.as_bytes()], &mut id[1..]);
        SessionId(id)
    }

    /// `resume[i]`, the half of the original A and that of the original B (TC-12).
    #[must_use]
    pub fn resume_halves(&self) -> ([u8; RESUME_HALF_LEN], [u8; RESUME_HALF_LEN]) {
        let mut both = [[0; RESUME_HALF_LEN]; 2];
        cprf(&self.0, &[&[CONST_RESUME]], both.as_flattened_mut());
        (both[0], both[1])
    }
}

/// `mk[j]`, from which the keys of one generation and of all later ones derive.
#[derive(Clone)]
pub struct MasterKey(Secret);

impl MasterKey {
    /// `mk[j+1]` (TC-8).
    #[must_use]
    pub fn next(&self) -> Self {
        Self(Secret::derive(&self.0, &[&[CONST_REKEY]]))
    }

    /// Its bytes, for a key log that decrypts a capture of this one connection. They go to memory only (TC-21).
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0.0
    }

    /// Identifies these keys without revealing them: HKDF-Expand of `mk[j]` with a label of enotun's own, longer than
    /// any of the RFC's constants.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        let mut fingerprint = [0; FINGERPRINT_LEN];
        cprf(&self.0, &[b"enotun key fingerprint"], &mut fingerprint);
        KeyFingerprint(fingerprint)
    }

    /// The key that the host with this role in the original session encrypts with: `k_ab` for A, `k_ba` for B
    /// (TC-9, TC-15).
    #[must_use]
    pub fn traffic_key(&self, sender: Role, aead: AeadId) -> TrafficKey {
        let constant = match sender {
            Role::A => CONST_KEY_A,
            Role::B => CONST_KEY_B,
        };
        let mut key = TrafficKey { both: Secret::room(), key_len: aead.key_len() };
        cprf(&self.0, &[&[constant]], &mut key.both.0[..key.key_len + AEAD_NONCE_LEN]);
        key
    }
}

/// One direction's AEAD key K and nonce randomizer NR in one generation (TC-9).
#[derive(Clone)]
pub struct TrafficKey {
    /// K, followed by NR.
    both: Secret<{ AEAD_KEY_MAX + AEAD_NONCE_LEN }>,
    /// At most [`AEAD_KEY_MAX`].
    key_len: usize,
}

impl TrafficKey {
    /// The AEAD key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.both.0[..self.key_len]
    }

    /// The nonce of the frame that starts at `offset`: NR xor the left-padded offset (TC-26).
    #[must_use]
    pub fn nonce(&self, offset: u64) -> [u8; AEAD_NONCE_LEN] {
        let mut nonce = [0; AEAD_NONCE_LEN];
        nonce.copy_from_slice(&self.both.0[self.key_len..self.key_len + AEAD_NONCE_LEN]);
        for (byte, offset) in nonce.iter_mut().skip(4).zip(offset.to_be_bytes()) {
            *byte ^= offset;
        }
        nonce
    }
}

/// A session ID: the same at both ends, and only there; not secret (TC-10).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; SESSION_ID_LEN]);

impl SessionId {
    /// The TEP byte and 32 bytes more.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SESSION_ID_LEN] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash of the keys that a connection began with: different keys have different fingerprints. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint([u8; FINGERPRINT_LEN]);

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! hide {
    ($($name:ident)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
}
hide!(SessionSecret MasterKey TrafficKey);

#[cfg(test)]
mod tests;
