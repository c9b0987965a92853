//! The key exchange (RFC 8548, sections 3.2 and 3.3; TC-3 to TC-7, TC-11): from the negotiated parameters to a
//! session. After any error here the connection must be aborted (TC-6).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::aead::AeadId;
use crate::constants::NONCE_LEN;
use crate::eno::negotiate::Negotiated;
use crate::error::{Error, NoCommonGround, PeerViolation};
use crate::kex::{PrivateKey, Provider, Random, RandomUse, generate};
use crate::messages::{Init1, Init2, choose_cipher};
use crate::resume::Session;
use crate::schedule::SessionSecret;
use crate::stack;
use crate::tep::Role;

/// A host that is A, after sending Init1, waiting for Init2.
pub struct Initiator {
    negotiated: Negotiated,
    ciphers: Vec<AeadId>,
    nonce: [u8; NONCE_LEN],
    private_key: Box<dyn PrivateKey>,
    init1: Vec<u8>,
}

impl core::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Initiator").field("negotiated", &self.negotiated).finish_non_exhaustive()
    }
}

impl Initiator {
    /// Makes the key pair and Init1, which begins this host's stream. `ciphers` are those to offer; their order means
    /// nothing to B.
    ///
    /// # Errors
    /// [`Misuse`](crate::Misuse) by the caller, or a TEP that `provider` does not implement.
    pub fn start(
        provider: &dyn Provider,
        negotiated: Negotiated,
        ciphers: &[AeadId],
        random: &mut Random<'_>,
    ) -> Result<(Vec<u8>, Self), Error> {
        debug_assert_eq!(negotiated.role, Role::A, "only A sends Init1");
        stack::wiped(|| {
            let private_key = generate(provider, negotiated.tep, random)?;
            let mut nonce = [0; NONCE_LEN];
            random(RandomUse::Nonce, &mut nonce);
            let init1 = Init1 {
                ciphers: ciphers.iter().map(|aead| aead.id()).collect(),
                nonce,
                public_key: &private_key.public_key(),
            }
            .encode(negotiated.tep)?;
            Ok((init1.clone(), Self { negotiated, ciphers: ciphers.to_vec(), nonce, private_key, init1 }))
        })
    }

    /// Processes the whole Init2 and completes the key exchange.
    ///
    /// # Errors
    /// Anything that can be wrong with the message, the cipher or the key in it.
    pub fn handle_init2(self, init2: &[u8]) -> Result<Session, Error> {
        let (message, aead) = self.parse(init2)?;
        stack::wiped(|| {
            let es = self.private_key.agree(message.public_key)?;
            let secret = SessionSecret::extract(&self.nonce, &self.negotiated.transcript, &self.init1, init2, &es);
            Ok(Session::fresh(&self.negotiated, aead, secret))
        })
    }

    /// Whether [`Self::handle_init2`] would accept the message, apart from the key in it. Nothing is consumed: as
    /// long as the message was not acknowledged it may be forged, and the peer's may still come.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_init2(&self, init2: &[u8]) -> Result<(), Error> {
        self.parse(init2).map(|_| ())
    }

    fn parse<'a>(&self, init2: &'a [u8]) -> Result<(Init2<'a>, AeadId), Error> {
        let message = Init2::parse(self.negotiated.tep, init2)?;
        let aead = AeadId::from_id(message.cipher)
            .filter(|aead| self.ciphers.contains(aead))
            .ok_or(PeerViolation::CipherNotOffered)?;
        Ok((message, aead))
    }
}

/// B processes the whole Init1 and completes the key exchange. Returns Init2, which begins this host's stream, and
/// the session. Frames may follow at once (TC-11). `preference` are the ciphers allowed, in order of increasing
/// preference.
///
/// # Errors
/// Anything that can be wrong with the message, the ciphers or the key in it; a random source that does not work.
pub fn respond(
    provider: &dyn Provider,
    negotiated: &Negotiated,
    preference: &[AeadId],
    init1: &[u8],
    random: &mut Random<'_>,
) -> Result<(Vec<u8>, Session), Error> {
    debug_assert_eq!(negotiated.role, Role::B, "only B sends Init2");
    let tep = negotiated.tep;
    let message = Init1::parse(tep, init1)?;
    let aead = choose_cipher(&message.ciphers, preference).ok_or(NoCommonGround::NoCommonCipher)?;
    stack::wiped(|| {
        let private_key = generate(provider, tep, random)?;
        let mut nonce = [0; NONCE_LEN];
        random(RandomUse::Nonce, &mut nonce);
        let init2 = Init2 { cipher: aead.id(), nonce, public_key: &private_key.public_key() }.encode(tep);
        let es = private_key.agree(message.public_key)?;
        let secret = SessionSecret::extract(&message.nonce, &negotiated.transcript, init1, &init2, &es);
        Ok((init2, Session::fresh(negotiated, aead, secret)))
    })
}

#[cfg(test)]
mod tests;
