//! Init1 and Init2 (RFC 8548, section 4.1; TC-3).

use alloc::vec::Vec;

use crate::aead::AeadId;
use crate::codec::Reader;
use crate::constants::{INIT1_MAGIC, INIT2_MAGIC, MAX_INIT_LEN, NONCE_LEN};
use crate::error::{Error, Malformed, Misuse};
use crate::kex::{decode_public_key, encode_public_key};
use crate::tep::{Role, Tep};

/// Magic and message length: the bytes needed to know how much follows.
pub const PREFIX_LEN: usize = 8;

/// The length of the Init message that starts with `prefix`, sent by `sender` (A sends Init1, B sends Init2). `None`:
/// more bytes are needed to tell.
///
/// # Errors
/// A wrong magic as soon as it is visible; a length that is impossible or over [`MAX_INIT_LEN`].
pub fn message_len(sender: Role, prefix: &[u8]) -> Result<Option<usize>, Error> {
    let magic = magic(sender).to_be_bytes();
    if prefix.iter().zip(&magic).any(|(is, should)| is != should) {
        return Err(Malformed::BadMagic.into());
    }
    if prefix.len() < PREFIX_LEN {
        return Ok(None);
    }
    let mut reader = Reader::new(prefix);
    reader.take(magic.len())?;
    match usize::try_from(reader.u32()?) {
        Ok(len) if len < PREFIX_LEN => Err(Malformed::Truncated.into()),
        Ok(len) if len <= MAX_INIT_LEN => Ok(Some(len)),
        _ => Err(Malformed::TooLong.into()),
    }
}

fn magic(sender: Role) -> u32 {
    match sender {
        Role::A => INIT1_MAGIC,
        Role::B => INIT2_MAGIC,
    }
}

/// The fields after magic and length of a message that has exactly the length it states.
fn body(sender: Role, message: &[u8]) -> Result<Reader<'_>, Error> {
    if message_len(sender, message)? != Some(message.len()) {
        return Err(Malformed::Truncated.into());
    }
    let mut reader = Reader::new(message);
    reader.take(PREFIX_LEN)?;
    Ok(reader)
}

fn begin(sender: Role) -> Vec<u8> {
    let mut message = magic(sender).to_be_bytes().to_vec();
    message.extend_from_slice(&[0; 4]);
    message
}

fn finish(mut message: Vec<u8>) -> Vec<u8> {
    // At most 255 ciphers and a 69-byte key: far below the bound.
    let len = (message.len() as u32).to_be_bytes();
    message.iter_mut().skip(4).zip(len).for_each(|(byte, len)| *byte = len);
    message
}

/// A's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init1<'a> {
    /// `sym_cipher` values, known and unknown.
    pub ciphers: Vec<u16>,
    /// N_A.
    pub nonce: [u8; NONCE_LEN],
    /// Pub_A, without the length that NIST curves have on the wire.
    pub public_key: &'a [u8],
}

impl<'a> Init1<'a> {
    /// Parses a whole message; what follows the key is ignored (TC-3).
    ///
    /// # Errors
    /// [`Malformed`], by kind.
    pub fn parse(tep: Tep, message: &'a [u8]) -> Result<Self, Error> {
        let mut reader = body(Role::A, message)?;
        let nciphers = usize::from(reader.u8()?);
        let ciphers = reader.take(2 * nciphers)?.as_chunks().0.iter().map(|id| u16::from_be_bytes(*id)).collect();
        let nonce = reader.array()?;
        Ok(Self { ciphers, nonce, public_key: decode_public_key(tep, &mut reader)? })
    }

    /// The message.
    ///
    /// # Errors
    /// [`Misuse::NoCiphers`] if there is no cipher, or more than 255.
    pub fn encode(&self, tep: Tep) -> Result<Vec<u8>, Error> {
        let nciphers = u8::try_from(self.ciphers.len()).ok().filter(|n| *n > 0).ok_or(Misuse::NoCiphers)?;
        let mut message = begin(Role::A);
        message.push(nciphers);
        for id in &self.ciphers {
            message.extend_from_slice(&id.to_be_bytes());
        }
        message.extend_from_slice(&self.nonce);
        encode_public_key(tep, self.public_key, &mut message);
        Ok(finish(message))
    }
}

/// B's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init2<'a> {
    /// The `sym_cipher` value that B chose.
    pub cipher: u16,
    /// N_B.
    pub nonce: [u8; NONCE_LEN],
    /// Pub_B, without the length that NIST curves have on the wire.
    pub public_key: &'a [u8],
}

impl<'a> Init2<'a> {
    /// Parses a whole message; what follows the key is ignored (TC-3).
    ///
    /// # Errors
    /// [`Malformed`], by kind.
    pub fn parse(tep: Tep, message: &'a [u8]) -> Result<Self, Error> {
        let mut reader = body(Role::B, message)?;
        let cipher = reader.u16()?;
        let nonce = reader.array()?;
        Ok(Self { cipher, nonce, public_key: decode_public_key(tep, &mut reader)? })
    }

    /// The message.
    #[must_use]
    pub fn encode(&self, tep: Tep) -> Vec<u8> {
        let mut message = begin(Role::B);
        message.extend_from_slice(&self.cipher.to_be_bytes());
        message.extend_from_slice(&self.nonce);
        encode_public_key(tep, self.public_key, &mut message);
        finish(message)
    }
}

/// The cipher in A's list that B prefers; `preference` is in order of increasing preference (TC-5).
#[must_use]
pub fn choose_cipher(offered: &[u16], preference: &[AeadId]) -> Option<AeadId> {
    preference.iter().rev().copied().find(|aead| offered.contains(&aead.id()))
}

#[cfg(test)]
mod tests;
