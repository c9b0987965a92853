//! Nonces of resumed sessions.

use crate::constants::RESUME_NONCE_MAX;
use crate::tep::Role;

/// One host's nonce in a resumption suboption: 0 to 8 bytes (TC-13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResumeNonce {
    bytes: [u8; RESUME_NONCE_MAX],
    len: u8,
}

impl ResumeNonce {
    /// `None` if it is longer than 8 bytes.
    #[must_use]
    pub fn new(nonce: &[u8]) -> Option<Self> {
        let mut bytes = [0; RESUME_NONCE_MAX];
        bytes.get_mut(..nonce.len())?.copy_from_slice(nonce);
        Some(Self { bytes, len: nonce.len() as u8 })
    }

    /// The nonce.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// `sn[i]` = nonce_a | nonce_b, by the hosts' roles in the original session (TC-13). Empty in a fresh session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionNonce {
    bytes: [u8; 2 * RESUME_NONCE_MAX],
    len: u8,
}

impl SessionNonce {
    /// From both nonces; `own` is that of the host that had `original_role`.
    #[must_use]
    pub fn new(original_role: Role, own: &ResumeNonce, peer: &ResumeNonce) -> Self {
        let (a, b) = match original_role {
            Role::A => (own, peer),
            Role::B => (peer, own),
        };
        let mut bytes = [0; 2 * RESUME_NONCE_MAX];
        let both = a.as_bytes().iter().chain(b.as_bytes());
        bytes.iter_mut().zip(both).for_each(|(to, from)| *to = *from);
        Self { bytes, len: a.len + b.len }
    }

    /// The nonces, one after the other.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
