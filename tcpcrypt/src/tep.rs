//! TCP encryption protocols (TEPs) and their parameters: identifiers of RFC 8548, section 7.

use core::fmt;

/// A TEP of RFC 8548: tcpcrypt with one key agreement scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tep {
    /// TCPCRYPT_ECDHE_P256.
    P256 = 0x21,
    /// TCPCRYPT_ECDHE_P521.
    P521 = 0x22,
    /// TCPCRYPT_ECDHE_Curve25519, which every implementation supports.
    Curve25519 = 0x23,
    /// TCPCRYPT_ECDHE_Curve448.
    Curve448 = 0x24,
}

impl Tep {
    /// All of them, by identifier.
    pub const ALL: [Self; 4] = [Self::P256, Self::P521, Self::Curve25519, Self::Curve448];

    /// The TEP with this identifier (the v bit is ignored), if it is one of tcpcrypt's.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        match id & 0x7f {
            0x21 => Some(Self::P256),
            0x22 => Some(Self::P521),
            0x23 => Some(Self::Curve25519),
            0x24 => Some(Self::Curve448),
            _ => None,
        }
    }

    /// The seven-bit identifier.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The TEP with this name, as in the IANA registry or without its prefixes (`Curve25519`). Case and punctuation do
    /// not matter.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tep| is_name(name, tep.name(), &["TCPCRYPT", "ECDHE"]))
    }

    /// The shortest name that [`Self::from_name`] accepts.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        self.name().trim_start_matches("ECDHE-")
    }

    /// The name in the IANA registry, without its prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "ECDHE-P256",
            Self::P521 => "ECDHE-P521",
            Self::Curve25519 => "ECDHE-Curve25519",
            Self::Curve448 => "ECDHE-Curve448",
        }
    }

    /// Length of a public key without the two-byte length that NIST curves have on the wire.
    #[must_use]
    pub fn public_key_len(self) -> usize {
        match self {
            Self::P256 => 33,
            Self::P521 => 67,
            Self::Curve25519 => 32,
            Self::Curve448 => 56,
        }
    }

    /// Length of a private key.
    #[must_use]
    pub fn private_key_len(self) -> usize {
        match self {
            Self::P256 | Self::Curve25519 => 32,
            Self::P521 => 66,
            Self::Curve448 => 56,
        }
    }

    /// Whether a two-byte length precedes the public key (TC-2).
    #[must_use]
    pub fn has_key_length(self) -> bool {
        matches!(self, Self::P256 | Self::P521)
    }
}

/// Whether `given` is `name`, comparing only letters and digits and ignoring `prefixes` in both.
pub(crate) fn is_name(given: &str, name: &str, prefixes: &[&str]) -> bool {
    fn plain(text: &str) -> impl Iterator<Item = u8> + Clone + '_ {
        text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_uppercase())
    }
    fn stripped<'a>(text: &'a str, prefixes: &[&str]) -> impl Iterator<Item = u8> + use<'a> {
        let skipped = prefixes.iter().fold(0, |skipped, prefix| {
            let here = plain(text).skip(skipped).take(prefix.len());
            skipped + if here.eq(prefix.bytes()) { prefix.len() } else { 0 }
        });
        plain(text).skip(skipped)
    }
    stripped(given, prefixes).eq(stripped(name, prefixes))
}

impl fmt::Display for Tep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The role of a host (ENO-7): the host whose `b` bit is 0 is A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `b` = 0: usually the active opener. Sends Init1.
    A,
    /// `b` = 1: usually the passive opener. Sends Init2.
    B,
}

impl Role {
    /// The other host's.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::A => 'A',
            Self::B => 'B',
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tep_is_known_by_its_names_and_its_number() {
        for (tep, id) in Tep::ALL.into_iter().zip(0x21..) {
            assert_eq!((Tep::from_id(id), Tep::from_id(id | 0x80), tep.id()), (Some(tep), Some(tep), id));
            assert_eq!(alloc::format!("{tep}"), tep.name());
            for name in [tep.name(), tep.short_name(), &tep.short_name().to_lowercase()] {
                assert_eq!(Tep::from_name(name), Some(tep), "{name}");
            }
        }
        assert_eq!(alloc::format!("{}{}", Role::A, Role::B), "AB");
        assert_eq!(Tep::from_name("TCPCRYPT_ECDHE_P256"), Some(Tep::P256));
        assert_eq!(Tep::from_name("p-521"), Some(Tep::P521));
        for name in ["", "ECDHE", "25519", "P2567", "curve", "Curve25519 Curve448"] {
            assert_eq!(Tep::from_name(name), None, "{name}");
        }
    }
}
