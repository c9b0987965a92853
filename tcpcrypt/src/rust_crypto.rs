//! The pure-Rust backend: RustCrypto's AEADs and NIST curves, x25519-dalek, x448.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{AeadId, AeadKey, NotAuthentic};
use crate::constants::{AEAD_NONCE_LEN, TAG_LEN};
use crate::error::{Error, Misuse, PeerViolation};
use crate::kex::{PrivateKey, Provider};
use crate::stack;
use crate::tep::Tep;

/// The backend.
pub static PROVIDER: RustCrypto = RustCrypto;

/// The backend's type; it has no state.
#[derive(Debug, Clone, Copy)]
pub struct RustCrypto;

impl Provider for RustCrypto {
    fn name(&self) -> &'static str {
        "rust-crypto"
    }

    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error> {
        // A key is expanded on the stack and then moved. For AES, the implementation that the processor needs is one
        // of several in a union, so bytes that were never written move along: they must not be those of another key.
        stack::wiped(|| ());
        stack::wiped(|| match id {
            AeadId::Aes128Gcm => aead::<aes_gcm::Aes128Gcm>(key),
            AeadId::Aes256Gcm => aead::<aes_gcm::Aes256Gcm>(key),
            AeadId::Chacha20Poly1305 => aead::<chacha20poly1305::ChaCha20Poly1305>(key),
        })
    }

    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error> {
        if bytes.len() != tep.private_key_len() {
            return Err(Misuse::KeyLength.into());
        }
        Ok(match tep {
            Tep::P256 => p256::SecretKey::from_slice(bytes).ok().map(boxed),
            Tep::P521 => p521::SecretKey::from_slice(bytes).ok().map(boxed),
            Tep::Curve25519 => array(bytes).map(|key| boxed(x25519_dalek::StaticSecret::from(*key))),
            Tep::Curve448 => array(bytes).map(|key| boxed(X448(key))),
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    bytes.try_into().ok().map(Zeroizing::new)
}

fn boxed(key: impl PrivateKey + 'static) -> Box<dyn PrivateKey> {
    Box::new(key)
}

struct Aead<C>(C);

fn aead<C: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync + 'static>(
    key: &[u8],
) -> Result<Box<dyn AeadKey>, Error> {
    Ok(Box::new(Aead(C::new_from_slice(key).map_err(|_| Misuse::KeyLength)?)))
}

impl<C: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync> AeadKey for Aead<C> {
    fn seal(&self, nonce: &[u8; AEAD_NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        // Fails only for more than 64 GiB, which no frame has.
        match self.0.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer)) {
            Ok(made) => tag.copy_from_slice(&made),
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
        self.0.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(buffer), tag.into()).map_err(|_| NotAuthentic)
    }
}

impl PrivateKey for x25519_dalek::StaticSecret {
    fn public_key(&self) -> Vec<u8> {
        x25519_dalek::PublicKey::from(self).as_bytes().to_vec()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| PeerViolation::InvalidPublicKey)?;
        let shared = self.diffie_hellman(&x25519_dalek::PublicKey::from(peer));
        // TC-1: all zero, checked in constant time.
        if !shared.was_contributory() {
            return Err(PeerViolation::ZeroSharedSecret.into());
        }
        Ok(Zeroizing::new(shared.as_bytes().to_vec()))
    }
}

/// An X448 private key; the crate's own type cannot be made from bytes.
struct X448(Zeroizing<[u8; 56]>);

impl PrivateKey for X448 {
    fn public_key(&self) -> Vec<u8> {
        x448::x448_unchecked(*self.0, x448::X448_BASEPOINT_BYTES).to_vec()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let peer = <[u8; 56]>::try_from(peer).map_err(|_| PeerViolation::InvalidPublicKey)?;
        let mut shared = x448::x448_unchecked(*self.0, peer);
        let secret = Zeroizing::new(shared.to_vec());
        shared.zeroize();
        // TC-1. Or-ing all bytes leaks nothing but the answer.
        if secret.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(PeerViolation::ZeroSharedSecret.into());
        }
        Ok(secret)
    }
}

macro_rules! nist_curve {
    ($curve:ident) => {
        impl PrivateKey for $curve::SecretKey {
            fn public_key(&self) -> Vec<u8> {
                $curve::elliptic_curve::sec1::ToSec1Point::to_sec1_point(self.public_key().as_affine(), true)
                    .as_bytes()
                    .to_vec()
            }

            fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
                // TC-1: compressed only; decompression puts the point on the curve.
                if !matches!(peer.first(), Some(0x02 | 0x03)) {
                    return Err(PeerViolation::InvalidPublicKey.into());
                }
                let peer = $curve::PublicKey::from_sec1_bytes(peer).map_err(|_| PeerViolation::InvalidPublicKey)?;
                let shared = $curve::ecdh::diffie_hellman(self.to_nonzero_scalar(), peer.as_affine());
                Ok(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
            }
        }
    };
}
nist_curve!(p256);
nist_curve!(p521);

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 1, 2, 3 and so on as a private key, and its public key by another implementation (OpenSSL).
    #[test]
    fn a_private_key_is_the_one_that_was_given() {
        assert_eq!(PROVIDER.name(), "rust-crypto");
        for (tep, public) in [
            (Tep::Curve25519, "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"),
            (
                Tep::Curve448,
                "bda7365ba1bd9a66f2ef38db6ec5ac5fad5452e990d8b2f88f721fd53363237e775f65205d1d4667d473f0e1f4c57694d2d802e8dff06026",
            ),
        ] {
            let private: Vec<u8> = (1..).take(tep.private_key_len()).collect();
            let key = PROVIDER.private_key(tep, &private).ok().flatten().expect("a key");
            assert_eq!(hex::encode(key.public_key()), public, "{tep}");
            assert!(PROVIDER.private_key(tep, &private[1..]).is_err());
        }
    }

    /// TC-1 refuses what is zero, and nothing like it: the bytes of this secret cancel each other out.
    #[test]
    fn tc_1_a_shared_secret_with_a_one_in_it_is_not_zero() {
        let key = |private: &[u8]| PROVIDER.private_key(Tep::Curve448, private).ok().flatten().expect("a key");
        let own: Vec<u8> = (1..=56).collect();
        let mut peer = [0; 56];
        peer[54..].copy_from_slice(&285_u16.to_be_bytes());
        let secret = key(&own).agree(&key(&peer).public_key()).expect("a secret");
        assert_eq!(secret.iter().fold(0, |all, byte| all ^ byte), 0);
        assert_eq!(secret[..4], [0x01, 0x9c, 0xb3, 0x57]);
        assert!(key(&own).agree(&[0; 56]).is_err());
    }
}
