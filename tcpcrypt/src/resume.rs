//! Sessions and their resumption (RFC 8548, section 3.5; TC-12 to TC-21). These are the values; storing them, and
//! using no secret twice (TC-19), is up to the caller. Nothing here may be written to non-volatile storage (TC-21),
//! and nothing here can be serialised.

use core::fmt;

use crate::aead::AeadId;
use crate::constants::RESUME_HALF_LEN;
use crate::eno::negotiated::Negotiated;
pub use crate::nonce::{ResumeNonce, SessionNonce};
use crate::schedule::{KeyFingerprint, MasterKey, SessionId, SessionSecret};
use crate::tep::{Role, Tep};

/// The session of one connection, from which its keys and its session ID derive. It results from the key exchange or
/// from a resumption, and yields the [`Record`](crate::record::Record). Do not keep it beside the record, because
/// `ss[i]` must be erased (TC-19): turn it into what can be cached, or drop it.
#[derive(Clone)]
pub struct Session {
    tep: Tep,
    tep_byte: u8,
    aead: AeadId,
    original_role: Role,
    secret: SessionSecret,
    sn: SessionNonce,
}

impl Session {
    /// The session that results from a key exchange.
    #[must_use]
    pub fn fresh(negotiated: &Negotiated, aead: AeadId, secret: SessionSecret) -> Self {
        let Negotiated { role, tep, tep_byte, .. } = *negotiated;
        Self { tep, tep_byte, aead, original_role: role, secret, sn: SessionNonce::default() }
    }

    /// The session that resumes `cached`. `tep_byte` is the byte B sent, v bit included.
    #[must_use]
    pub fn resumed(tep_byte: u8, cached: &CachedSecret, own: &ResumeNonce, peer: &ResumeNonce) -> Self {
        Self {
            tep: cached.tep,
            tep_byte,
            aead: cached.aead,
            original_role: cached.original_role,
            secret: cached.secret.clone(),
            sn: SessionNonce::new(cached.original_role, own, peer),
        }
    }

    /// The session ID (TC-10).
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.secret.session_id(self.tep_byte, &self.sn)
    }

    /// Identifies the keys that this session begins with, without revealing them.
    #[must_use]
    pub fn key_fingerprint(&self) -> KeyFingerprint {
        self.secret.master_key(&self.sn).fingerprint()
    }

    /// The cipher.
    #[must_use]
    pub fn aead(&self) -> AeadId {
        self.aead
    }

    /// This host's role in the session with `ss[0]`, which decides what key it encrypts with (TC-15).
    #[must_use]
    pub fn original_role(&self) -> Role {
        self.original_role
    }

    /// The resumption nonces, empty in a fresh session.
    #[must_use]
    pub fn nonce(&self) -> &SessionNonce {
        &self.sn
    }

    /// `mk[0]`, from which this connection's keys derive, and no other connection's (TC-8).
    #[must_use]
    pub fn master_key(&self) -> MasterKey {
        self.secret.master_key(&self.sn)
    }

    pub(crate) fn secret(&self) -> &SessionSecret {
        &self.secret
    }

    /// `ss[i+1]` for the cache; `ss[i]` is erased (TC-19).
    #[must_use]
    pub fn into_next(self) -> CachedSecret {
        CachedSecret::new(self.tep, self.aead, self.original_role, self.secret.next())
    }
}

/// An unused session secret with everything needed to use it. Good for at most one connection (TC-19).
#[derive(Clone)]
pub struct CachedSecret {
    tep: Tep,
    aead: AeadId,
    original_role: Role,
    secret: SessionSecret,
    own_half: [u8; RESUME_HALF_LEN],
    peer_half: [u8; RESUME_HALF_LEN],
}

impl CachedSecret {
    /// `original_role` is this host's role in the session with `ss[0]`.
    #[must_use]
    pub fn new(tep: Tep, aead: AeadId, original_role: Role, secret: SessionSecret) -> Self {
        let (a, b) = secret.resume_halves();
        let (own_half, peer_half) = match original_role {
            Role::A => (a, b),
            Role::B => (b, a),
        };
        Self { tep, aead, original_role, secret, own_half, peer_half }
    }

    /// The secret after this one in the chain, which replaces it in the cache the moment this one is reserved.
    #[must_use]
    pub fn next(&self) -> Self {
        Self::new(self.tep, self.aead, self.original_role, self.secret.next())
    }

    /// The TEP of the original session.
    #[must_use]
    pub fn tep(&self) -> Tep {
        self.tep
    }

    /// The cipher of the original session.
    #[must_use]
    pub fn aead(&self) -> AeadId {
        self.aead
    }

    /// This host's role in the original session.
    #[must_use]
    pub fn original_role(&self) -> Role {
        self.original_role
    }

    /// The half of the identifier that this host sends (TC-12).
    #[must_use]
    pub fn own_half(&self) -> &[u8; RESUME_HALF_LEN] {
        &self.own_half
    }

    /// The half that the peer sends, by which a passive opener finds the secret (TC-16).
    #[must_use]
    pub fn peer_half(&self) -> &[u8; RESUME_HALF_LEN] {
        &self.peer_half
    }
}

/// A reserved secret and the nonce that accompanies it in this host's suboption.
#[derive(Clone)]
pub struct Proposal {
    /// The secret; no other SYN may name it (docs/readings.md, reading 7).
    pub secret: CachedSecret,
    /// This host's nonce (TC-14).
    pub nonce: ResumeNonce,
}

macro_rules! hide_secret {
    ($($name:ident)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
}
hide_secret!(Session CachedSecret Proposal);
