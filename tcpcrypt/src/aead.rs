//! Authenticated encryption (RFC 8548, section 6): identifiers, and the trait that a backend implements.

use core::fmt;

use crate::constants::{AEAD_NONCE_LEN, TAG_LEN};

/// An AEAD algorithm of RFC 8548.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum AeadId {
    /// AEAD_AES_128_GCM, which every implementation supports.
    Aes128Gcm = 0x0001,
    /// AEAD_AES_256_GCM.
    Aes256Gcm = 0x0002,
    /// AEAD_CHACHA20_POLY1305.
    Chacha20Poly1305 = 0x0010,
}

impl AeadId {
    /// All of them, by identifier.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// The AEAD with this `sym_cipher` value.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        match id {
            0x0001 => Some(Self::Aes128Gcm),
            0x0002 => Some(Self::Aes256Gcm),
            0x0010 => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }

    /// The `sym_cipher` value.
    #[must_use]
    pub fn id(self) -> u16 {
        self as u16
    }

    /// The AEAD with this name, as in the IANA registry or without its prefix (`AES-128-GCM`). Case and punctuation do
    /// not matter.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aead| crate::tep::is_name(name, aead.name(), &["AEAD"]))
    }

    /// A shorter name that [`Self::from_name`] accepts.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Chacha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    /// The name in the IANA registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AEAD_AES_128_GCM",
            Self::Aes256Gcm => "AEAD_AES_256_GCM",
            Self::Chacha20Poly1305 => "AEAD_CHACHA20_POLY1305",
        }
    }

    /// Length of the key in bytes.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }
}

impl fmt::Display for AeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The ciphertext failed authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

/// One AEAD key, ready for use. It is wiped when dropped.
pub trait AeadKey: Send + Sync {
    /// Encrypts `buffer` in place and returns the tag.
    fn seal(&self, nonce: &[u8; AEAD_NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `buffer` in place.
    ///
    /// # Errors
    /// [`NotAuthentic`] if the tag does not match; the contents of `buffer` are then unspecified.
    fn open(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), NotAuthentic>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aead_is_known_by_its_names_and_its_number() {
        for (aead, id) in AeadId::ALL.into_iter().zip([0x0001, 0x0002, 0x0010]) {
            assert_eq!((AeadId::from_id(id), aead.id()), (Some(aead), id));
            assert_eq!(alloc::format!("{aead}"), aead.name());
            for name in [aead.name(), aead.short_name(), &aead.name().to_lowercase()] {
                assert_eq!(AeadId::from_name(name), Some(aead), "{name}");
            }
        }
        for name in ["", "AEAD", "AES_192_GCM", "AES-128-GCM-SIV"] {
            assert_eq!(AeadId::from_name(name), None, "{name}");
        }
    }
}
