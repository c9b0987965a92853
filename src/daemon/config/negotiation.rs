//! The protocol part of the file: offers, resumption, rekeying.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tcpcrypt::constants::RESUME_NONCE_MAX;
use tcpcrypt::{AeadId, Aware, Tep};

use super::position::InvalidValue;
use super::range::{DAY, ENTRIES_MAX, in_range};
use crate::engine;

/// What is offered and accepted (ENO-7 to ENO-10, TC-5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Negotiation {
    /// TEPs in order of increasing preference.
    #[serde(deserialize_with = "teps")]
    pub teps: Option<Vec<Tep>>,
    /// AEADs in order of increasing preference.
    #[serde(deserialize_with = "aeads")]
    pub aeads: Option<Vec<AeadId>>,
    /// Send a = 1 on every connection.
    pub aware: bool,
    /// Encrypt only if the peer sends a = 1.
    pub mandatory_aware: bool,
    /// Send b = 1 in every SYN.
    pub role_b: bool,
}

/// The session cache, see [`engine::SessionLimits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Resumption {
    /// Whether sessions are resumed and cached at all (TC-22).
    pub enabled: Option<bool>,
    /// Bytes of this host's nonces (TC-13).
    pub nonce_length: Option<usize>,
    /// [`engine::SessionLimits::max`].
    pub max_sessions: Option<usize>,
    /// [`engine::SessionLimits::per_peer`].
    pub per_peer: Option<usize>,
    /// [`engine::SessionLimits::lifetime`], seconds.
    pub lifetime: Option<u32>,
    /// [`engine::SessionLimits::max_age`], seconds.
    pub max_age: Option<u32>,
    /// [`engine::SessionLimits::max_uses`].
    pub max_uses: Option<u32>,
    /// [`engine::SessionLimits::lookahead`].
    pub look_ahead: Option<u8>,
}

/// When keys are replaced, see [`engine::RekeyLimits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rekey {
    /// [`engine::RekeyLimits::frames`].
    pub frames: Option<u64>,
    /// [`engine::RekeyLimits::bytes`].
    pub bytes: Option<u64>,
    /// [`engine::RekeyLimits::time`], seconds.
    pub seconds: Option<u32>,
}

/// More than this under one key is beyond what the AEADs are analysed for (RFC 8446, section 5.5: 2^24.5 full records).
const FRAMES_MAX: u64 = 1 << 24;
const BYTES_MAX: u64 = 1 << 38;
/// The secrets kept for each chain derive from one another: very many are useless.
const LOOK_AHEAD_MAX: u8 = 64;

impl Negotiation {
    pub(super) fn apply(&self, config: &mut engine::Config) {
        let negotiation = &mut config.negotiation;
        if let Some(teps) = &self.teps {
            negotiation.teps.clone_from(teps);
        }
        if let Some(aeads) = &self.aeads {
            config.ciphers.clone_from(aeads);
        }
        negotiation.aware = Aware::new(self.aware, self.mandatory_aware);
        negotiation.active_b = self.role_b;
    }

    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        let teps = self.teps.as_ref().map_or(Ok(()), |teps| check_offer(teps));
        teps.map_err(|error| InvalidValue::new("negotiation.teps", error))?;
        let aeads = self.aeads.as_ref().map_or(Ok(()), |aeads| check_offer(aeads));
        aeads.map_err(|error| InvalidValue::new("negotiation.aeads", error))
    }
}

impl Resumption {
    pub(super) fn apply(&self, config: &mut engine::Config) {
        let (negotiation, sessions) = (&mut config.negotiation, &mut config.sessions);
        negotiation.resume = self.enabled.unwrap_or(negotiation.resume);
        negotiation.nonce_len = self.nonce_length.unwrap_or(negotiation.nonce_len);
        sessions.max = self.max_sessions.unwrap_or(sessions.max);
        sessions.per_peer = self.per_peer.unwrap_or(sessions.per_peer);
        sessions.lifetime = self.lifetime.map_or(sessions.lifetime, |seconds| Duration::from_secs(seconds.into()));
        sessions.max_age = self.max_age.map_or(sessions.max_age, |seconds| Duration::from_secs(seconds.into()));
        sessions.max_uses = self.max_uses.unwrap_or(sessions.max_uses);
        sessions.lookahead = self.look_ahead.unwrap_or(sessions.lookahead);
    }

    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        let size = |value: Option<usize>| value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        let nonce = u64::try_from(RESUME_NONCE_MAX).unwrap_or(u64::MAX);
        in_range("resumption.nonce-length", size(self.nonce_length), 0..=nonce)?;
        in_range("resumption.max-sessions", size(self.max_sessions), 0..=ENTRIES_MAX)?;
        in_range("resumption.per-peer", size(self.per_peer), 0..=ENTRIES_MAX)?;
        in_range("resumption.lifetime", self.lifetime.map(u64::from), 1..=365 * DAY)?;
        in_range("resumption.max-age", self.max_age.map(u64::from), 1..=365 * DAY)?;
        in_range("resumption.max-uses", self.max_uses.map(u64::from), 1..=u32::MAX.into())?;
        in_range("resumption.look-ahead", self.look_ahead.map(u64::from), 1..=LOOK_AHEAD_MAX.into())
    }
}

impl Rekey {
    pub(super) fn apply(&self, config: &mut engine::Config) {
        let rekey = &mut config.rekey;
        rekey.frames = self.frames.unwrap_or(rekey.frames);
        rekey.bytes = self.bytes.unwrap_or(rekey.bytes);
        rekey.time = self.seconds.map_or(rekey.time, |seconds| Duration::from_secs(seconds.into()));
    }

    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        in_range("rekey.frames", self.frames, 1..=FRAMES_MAX)?;
        in_range("rekey.bytes", self.bytes, 1..=BYTES_MAX)?;
        in_range("rekey.seconds", self.seconds.map(u64::from), 1..=u32::MAX.into())
    }
}

/// Whether a list is a valid offer: not empty, no duplicates.
///
/// # Errors
/// What is wrong with it.
pub fn check_offer<T: PartialEq + std::fmt::Display>(list: &[T]) -> Result<(), String> {
    if list.is_empty() {
        return Err("the list is empty, so nothing could be encrypted".to_owned());
    }
    match list.iter().enumerate().find(|(at, it)| list.iter().skip(at + 1).any(|other| other == *it)) {
        Some((_, twice)) => Err(format!("{twice} is given twice")),
        None => Ok(()),
    }
}

/// Parses the name of a TEP.
///
/// # Errors
/// The known ones.
pub fn parse_tep(name: &str) -> Result<Tep, String> {
    let known = || Tep::ALL.map(Tep::short_name).join(", ");
    Tep::from_name(name).ok_or_else(|| format!("`{name}` is not a TEP; known are {}", known()))
}

/// Parses the name of an AEAD.
///
/// # Errors
/// The known ones.
pub fn parse_aead(name: &str) -> Result<AeadId, String> {
    let known = || AeadId::ALL.map(AeadId::short_name).join(", ");
    AeadId::from_name(name).ok_or_else(|| format!("`{name}` is not an AEAD; known are {}", known()))
}

fn teps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Tep>>, D::Error> {
    list(deserializer, parse_tep)
}

fn aeads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<AeadId>>, D::Error> {
    list(deserializer, parse_aead)
}

fn list<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| parse(name)).collect::<Result<_, _>>().map(Some).map_err(serde::de::Error::custom)
}
