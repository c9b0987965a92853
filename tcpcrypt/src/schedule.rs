//! The key schedule (RFC 8548, sections 3.3 and 3.4; TC-7 to TC-10): one type per stage, so that a key of a
//! later stage can only be made from the right secret of an earlier one. Every type erases itself on drop.

use core::fmt;

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::AeadId;
use crate::constants::{
    AEAD_KEY_MAX, AEAD_NONCE_LEN, CONST_KEY_A, CONST_KEY_B, CONST_NEXTK, CONST_REKEY, CONST_RESUME, CONST_SESSID,
    FINGERPRINT_LEN, NONCE_LEN, RESUME_HALF_LEN, SECRET_LEN, SESSION_ID_LEN,
};
use crate::resume::SessionNonce;
use crate::tep::Role;

/// `CPRF(key, info, out.len())` = HKDF-Expand-SHA256; `info` in parts.
fn cprf(key: &[u8; SECRET_LEN], info: &[&[u8]], out: &mut [u8]) {
    // A key of the hash's length and an output far below 255 hashes: neither call can fail.
    if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(key) {
        let done = hkdf.expand_multi_info(info, out);
        debug_assert!(done.is_ok(), "output too long for HKDF");
    }
}

fn cprf32(key: &[u8; SECRET_LEN], info: &[&[u8]]) -> [u8; SECRET_LEN] {
    let mut out = [0; SECRET_LEN];
    cprf(key, info, &mut out);
    out
}

/// `ss[i]`: what a connection's keys, its session ID and all later sessions of the chain come from.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionSecret([u8; SECRET_LEN]);

impl SessionSecret {
    /// `ss[0]` = PRK = `Extract(N_A, transcript | Init1 | Init2 | ES)`, the messages as transmitted (TC-7).
    #[must_use]
    pub fn extract(n_a: &[u8; NONCE_LEN], transcript: &[u8], init1: &[u8], init2: &[u8], es: &[u8]) -> Self {
        let mut extract = HkdfExtract::<Sha256>::new(Some(n_a));
        for part in [transcript, init1, init2, es] {
            extract.input_ikm(part);
        }
        let (mut prk, _) = extract.finalize();
        let secret = Self(prk.into());
        prk.as_mut_slice().zeroize();
        secret
    }

    /// A secret from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// `ss[i+1]` (TC-7).
    #[must_use]
    pub fn next(&self) -> Self {
        Self(cprf32(&self.0, &[&[CONST_NEXTK]]))
    }

    /// `mk[0]` (TC-8).
    #[must_use]
    pub fn master_key(&self, sn: &SessionNonce) -> MasterKey {
        MasterKey(cprf32(&self.0, &[&[CONST_REKEY], sn.as_bytes()]))
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

/// `mk[j]`: what the keys of one generation, and all later generations, come from.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; SECRET_LEN]);

impl MasterKey {
    /// `mk[j+1]` (TC-8).
    #[must_use]
    pub fn next(&self) -> Self {
        Self(cprf32(&self.0, &[&[CONST_REKEY]]))
    }

    /// Its bytes, for a key log with which a capture of this one connection can be read. They go to memory only (TC-21).
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// What tells these keys from others and from which they cannot be had: HKDF-Expand of `mk[j]` with a label of
    /// enotun's own, longer than any of the RFC's constants.
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
        let mut okm = [0; AEAD_KEY_MAX + AEAD_NONCE_LEN];
        let key_len = aead.key_len();
        cprf(&self.0, &[&[constant]], &mut okm[..key_len + AEAD_NONCE_LEN]);
        let mut key = TrafficKey { key: [0; AEAD_KEY_MAX], key_len: key_len as u8, randomizer: [0; AEAD_NONCE_LEN] };
        key.key[..key_len].copy_from_slice(&okm[..key_len]);
        key.randomizer.copy_from_slice(&okm[key_len..key_len + AEAD_NONCE_LEN]);
        okm.zeroize();
        key
    }
}

/// One direction's AEAD key K and nonce randomizer NR in one generation (TC-9).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TrafficKey {
    key: [u8; AEAD_KEY_MAX],
    key_len: u8,
    randomizer: [u8; AEAD_NONCE_LEN],
}

impl TrafficKey {
    /// The AEAD key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get(..usize::from(self.key_len)).unwrap_or_default()
    }

    /// The nonce of the frame that starts at `offset`: NR xor the offset, padded on the left (TC-26).
    #[must_use]
    pub fn nonce(&self, offset: u64) -> [u8; AEAD_NONCE_LEN] {
        let mut nonce = self.randomizer;
        for (byte, offset) in nonce.iter_mut().skip(4).zip(offset.to_be_bytes()) {
            *byte ^= offset;
        }
        nonce
    }
}

/// A session ID: the same at both ends, and only there; not a secret (TC-10).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; SESSION_ID_LEN]);

impl SessionId {
    /// The TEP byte and 32 more.
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

/// A hash of the keys that a connection began with: different keys have different ones. Not a secret.
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
#[path = "schedule_tests.rs"]
mod tests;
