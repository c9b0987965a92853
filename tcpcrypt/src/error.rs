//! What can go wrong, sorted by whose fault it is.

use core::fmt;

/// A failure of the key exchange or of the caller. After any of them the connection is aborted (TC-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// What the peer sent cannot be parsed.
    Malformed(Malformed),
    /// The peer violated the protocol.
    PeerViolation(PeerViolation),
    /// Both sides are correct, but have nothing in common.
    NoCommonGround(NoCommonGround),
    /// The caller (not the peer) made a mistake.
    Misuse(Misuse),
}

/// A message that cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// The message does not start with its magic number (TC-5).
    BadMagic,
    /// The message ends before its last field.
    Truncated,
    /// The message is too long to be buffered.
    TooLong,
    /// The length field of a public key matches no form of that key (TC-2).
    KeyLength,
}

/// A protocol rule that the peer violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerViolation {
    /// The public key is not a point on the curve, or the point at infinity (TC-1).
    InvalidPublicKey,
    /// The shared secret is all zero (TC-1).
    ZeroSharedSecret,
    /// B chose a cipher that A did not offer (TC-5).
    CipherNotOffered,
    /// An authentic frame has no flags byte (TC-24).
    NoFlags,
    /// An authentic frame has URGp but not the two bytes of the urgent field (TC-24).
    NoUrgent,
    /// A frame follows the one with FINp (TC-29).
    FrameAfterFin,
}

/// No agreement is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoCommonGround {
    /// None of the AEADs that A offers is allowed here (TC-5).
    NoCommonCipher,
    /// The cryptographic provider does not implement the negotiated TEP.
    TepNotImplemented,
}

/// A bug in the caller, or a random source that does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// The random source yielded no usable private key in many attempts.
    RandomSource,
    /// An offset at or before one already used: a key and nonce would repeat (TC-27).
    OffsetReused,
    /// The plaintext is longer than a frame can hold.
    TooMuchData,
    /// The output buffer is shorter than the frame.
    BufferTooSmall,
    /// The slice given is not exactly one frame.
    NotOneFrame,
    /// A frame after the one with FINp (TC-29).
    SealAfterFin,
    /// No cipher to offer, or more than the message can list.
    NoCiphers,
    /// A key has the wrong length for its algorithm.
    KeyLength,
    /// The key has protected as much as any key may ([`crate::record::KeyUse::MOST`]) and was not replaced.
    KeyUsedUp,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed message: {why}"),
            Self::PeerViolation(why) => write!(f, "the peer violated the protocol: {why}"),
            Self::NoCommonGround(why) => write!(f, "no agreement with the peer: {why}"),
            Self::Misuse(why) => write!(f, "misuse: {why}"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadMagic => "bad magic number",
            Self::Truncated => "too short for its fields",
            Self::TooLong => "too long to be buffered",
            Self::KeyLength => "impossible public key length",
        })
    }
}

impl fmt::Display for PeerViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidPublicKey => "invalid public key",
            Self::ZeroSharedSecret => "shared secret is all zero",
            Self::CipherNotOffered => "chose a cipher that was not offered",
            Self::NoFlags => "frame without a flags byte",
            Self::NoUrgent => "frame without its urgent field",
            Self::FrameAfterFin => "frame after the one with FINp",
        })
    }
}

impl fmt::Display for NoCommonGround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCommonCipher => "no common cipher",
            Self::TepNotImplemented => "negotiated TEP is not implemented",
        })
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RandomSource => "random source yields no usable key",
            Self::OffsetReused => "offset was used before",
            Self::TooMuchData => "more data than a frame can hold",
            Self::BufferTooSmall => "buffer shorter than the frame",
            Self::NotOneFrame => "not exactly one frame",
            Self::SealAfterFin => "frame after the one with FINp",
            Self::NoCiphers => "no cipher to offer",
            Self::KeyLength => "wrong key length",
            Self::KeyUsedUp => "key has protected all that it may",
        })
    }
}

impl core::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<PeerViolation> for Error {
    fn from(why: PeerViolation) -> Self {
        Self::PeerViolation(why)
    }
}

impl From<NoCommonGround> for Error {
    fn from(why: NoCommonGround) -> Self {
        Self::NoCommonGround(why)
    }
}

impl From<Misuse> for Error {
    fn from(why: Misuse) -> Self {
        Self::Misuse(why)
    }
}
