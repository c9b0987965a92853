//! The fast backend: AWS-LC through `aws-lc-rs`. It has no X448; that comes from the pure-Rust backend.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement;
use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyCompressedBin};
use tcpcrypt::aead::{AeadId, AeadKey, NotAuthentic};
use tcpcrypt::constants::{AEAD_NONCE_LEN, TAG_LEN};
use tcpcrypt::kex::PrivateKey;
use tcpcrypt::{Error, Misuse, PeerViolation, Provider, Tep, rust_crypto};
use zeroize::Zeroizing;

/// The backend.
pub static PROVIDER: AwsLc = AwsLc;

/// The backend's type; it has no state.
#[derive(Debug, Clone, Copy)]
pub struct AwsLc;

impl Provider for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error> {
        let algorithm: &'static Algorithm = match id {
            AeadId::Aes128Gcm => &AES_128_GCM,
            AeadId::Aes256Gcm => &AES_256_GCM,
            AeadId::Chacha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Misuse::KeyLength)?;
        Ok(Box::new(Key(LessSafeKey::new(key))))
    }

    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error> {
        let algorithm = match tep {
            Tep::P256 => &agreement::ECDH_P256,
            Tep::P521 => &agreement::ECDH_P521,
            Tep::Curve25519 => &agreement::X25519,
            Tep::Curve448 => return rust_crypto::PROVIDER.private_key(tep, bytes),
        };
        if bytes.len() != tep.private_key_len() {
            return Err(Misuse::KeyLength.into());
        }
        let Ok(key) = agreement::PrivateKey::from_private_key(algorithm, bytes) else { return Ok(None) };
        let Some(public) = public_key(tep, &key) else { return Ok(None) };
        Ok(Some(Box::new(Agreement { tep, key, public })))
    }
}

/// `LessSafeKey` lets the caller choose nonces, which TC-26 prescribes; [`tcpcrypt::Record`] makes sure that none is
/// used twice.
struct Key(LessSafeKey);

impl AeadKey for Key {
    fn seal(&self, nonce: &[u8; AEAD_NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut tag = [0; TAG_LEN];
        match self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer) {
            Ok(made) => tag.copy_from_slice(made.as_ref()),
            // It can only fail for a length that no frame has.
            Err(_) => unreachable!("a frame is shorter than 64 KiB"),
        }
        tag
    }

    fn open(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        match self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer) {
            Ok(_) => Ok(()),
            Err(_) => Err(NotAuthentic),
        }
    }
}

struct Agreement {
    tep: Tep,
    key: agreement::PrivateKey,
    public: Vec<u8>,
}

fn public_key(tep: Tep, key: &agreement::PrivateKey) -> Option<Vec<u8>> {
    let public = key.compute_public_key().ok()?;
    if tep == Tep::Curve25519 {
        return Some(public.as_ref().to_vec());
    }
    let compressed: EcPublicKeyCompressedBin<'_> = public.as_be_bytes().ok()?;
    Some(compressed.as_ref().to_vec())
}

impl PrivateKey for Agreement {
    fn public_key(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        // AWS-LC would also accept other encodings of a point (TC-1: compressed only).
        if self.tep != Tep::Curve25519 && !matches!(peer.first(), Some(0x02 | 0x03)) {
            return Err(PeerViolation::InvalidPublicKey.into());
        }
        // For X25519, AWS-LC rejects keys of the wrong length and those that make the secret zero.
        let why = if self.tep == Tep::Curve25519 && peer.len() == self.tep.public_key_len() {
            PeerViolation::ZeroSharedSecret
        } else {
            PeerViolation::InvalidPublicKey
        };
        let peer = agreement::UnparsedPublicKey::new(self.key.algorithm(), peer);
        agreement::agree(&self.key, peer, why.into(), |secret| Ok(Zeroizing::new(secret.to_vec())))
    }
}

#[cfg(test)]
mod tests;
