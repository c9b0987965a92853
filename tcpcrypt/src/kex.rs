//! Key agreement (RFC 8548, section 5): what a cryptographic backend provides, and how a public key is encoded on the
//! wire (TC-2).

use alloc::boxed::Box;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::aead::{AeadId, AeadKey};
use crate::codec::Reader;
use crate::error::{Error, Malformed};
use crate::tep::Tep;

/// What random bytes of a key exchange are used for. A private key is secret, a nonce is public: a source that mixes
/// the use into its output never reveals through one what the other is (TC-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomUse {
    /// An ephemeral private key.
    PrivateKey,
    /// N_A or N_B.
    Nonce,
}

/// Fills the slice with bytes fit for keys. This is the crate's only source of randomness.
pub type Random<'a> = dyn FnMut(RandomUse, &mut [u8]) + 'a;

/// A cryptographic backend.
pub trait Provider: Send + Sync {
    /// A name for logs.
    fn name(&self) -> &'static str;

    /// Expands `key` for use.
    ///
    /// # Errors
    /// [`Misuse::KeyLength`](crate::Misuse::KeyLength) if `key` is not [`AeadId::key_len`] bytes long.
    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error>;

    /// A private key for `tep` from [`Tep::private_key_len`] bytes: for P-256 and P-521 the scalar as a big-endian
    /// string, for Curve25519 and Curve448 the byte string of RFC 7748. `None` if the bytes are not a private key (a
    /// scalar that is zero or not below the order).
    ///
    /// # Errors
    /// [`NoCommonGround::TepNotImplemented`](crate::NoCommonGround::TepNotImplemented).
    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error>;
}

/// An ephemeral private key. It is wiped when dropped.
pub trait PrivateKey: Send {
    /// The public key: a compressed point for the NIST curves, a u coordinate for the others, without the length that
    /// precedes it on the wire.
    fn public_key(&self) -> Vec<u8>;

    /// The shared secret ES with the peer's public key (without its length): the x coordinate for the NIST curves, as
    /// long as a field element.
    ///
    /// # Errors
    /// [`PeerViolation::InvalidPublicKey`](crate::PeerViolation::InvalidPublicKey) if the key is not valid,
    /// [`PeerViolation::ZeroSharedSecret`](crate::PeerViolation::ZeroSharedSecret) if the secret is all zero (TC-1).
    ///
    /// The caller must wipe what this leaves on the stack ([`crate::handshake`] does).
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error>;
}

/// A fresh private key for `tep`. The caller must wipe what this leaves on the stack ([`crate::handshake`] does).
///
/// # Errors
/// [`Misuse::RandomSource`](crate::Misuse::RandomSource) if `random` yields no valid key in many attempts, and those
/// of [`Provider::private_key`].
pub fn generate(provider: &dyn Provider, tep: Tep, random: &mut Random<'_>) -> Result<Box<dyn PrivateKey>, Error> {
    let mut bytes = Zeroizing::new([0; 66]);
    let bytes = bytes.split_at_mut(tep.private_key_len()).0;
    // A uniform value is below the order of P-256 except once in 2^32 times, and below that of P-521 if its top seven
    // bits are cleared: rejection sampling almost never repeats.
    for _ in 0..64 {
        random(RandomUse::PrivateKey, bytes);
        if tep == Tep::P521
            && let Some(top) = bytes.first_mut()
        {
            *top &= 0x01;
        }
        if let Some(key) = provider.private_key(tep, bytes)? {
            return Ok(key);
        }
    }
    Err(crate::Misuse::RandomSource.into())
}

/// Appends a public key as encoded on the wire.
pub(crate) fn encode_public_key(tep: Tep, key: &[u8], out: &mut Vec<u8>) {
    if tep.has_key_length() {
        // TC-2: the length counts its own two bytes. No key is longer than 67 bytes.
        let len = u16::try_from(key.len() + 2).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(key);
}

/// Reads a public key from the wire; the result excludes its length.
pub(crate) fn decode_public_key<'a>(tep: Tep, reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = tep.public_key_len();
    if tep.has_key_length() {
        let field = usize::from(reader.u16()?);
        // TC-2: the self-counting length and the bare one are both accepted.
        if field != len + 2 && field != len {
            return Err(Malformed::KeyLength);
        }
    }
    reader.take(len)
}
