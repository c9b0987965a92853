//! The negotiation (RFC 8547, sections 4.3 and 4.5 to 4.7; RFC 8548, section 3.5; ENO-7 to ENO-11 and TC-12 to
//! TC-20): what to put into a SYN or SYN-ACK, and what follows from both options.
//!
//! ENO-14: an option is built once per connection and sent unchanged in every retransmission; keep the bytes.
//! ENO-16: a SYN with ENO carries neither data nor a non-empty Fast Open option.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

pub use super::negotiated::Negotiated;
use super::option::{GLOBAL_A, GLOBAL_B, IllFormed, KIND, Suboption, SynArea, SynOption};
use super::transcript::transcript;
use crate::constants::{RESUME_HALF_LEN, RESUME_NONCE_MAX};
use crate::resume::{CachedSecret, Proposal, ResumeNonce, Session};
use crate::tep::{Role, Tep};

/// Room for TCP options in a segment.
pub const MAX_OPTION_AREA: usize = 40;

/// Whether the application knows of the encryption (ENO-8; RFC 8547, section 8.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aware {
    /// It does not: a = 0.
    #[default]
    No,
    /// It does: a = 1.
    Yes,
    /// It does, and the connection is encrypted only if the peer sends a = 1, too. This host sends it as well:
    /// otherwise two such hosts would never encrypt.
    Mandatory,
}

impl Aware {
    /// From two switches: send the bit, and insist on the peer's.
    #[must_use]
    pub fn new(aware: bool, mandatory: bool) -> Self {
        match (mandatory, aware) {
            (true, _) => Self::Mandatory,
            (false, true) => Self::Yes,
            (false, false) => Self::No,
        }
    }
}

/// How this host negotiates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiationConfig {
    /// Use ENO at all.
    pub enabled: bool,
    /// The a bit, and what is expected of the peer's (ENO-8).
    pub aware: Aware,
    /// Send b = 1 as an active opener: for exactly one side of a simultaneous open (ENO-7).
    pub active_b: bool,
    /// Propose and accept resumption (TC-22).
    pub resume: bool,
    /// The TEPs to use, in order of increasing preference.
    pub teps: Vec<Tep>,
    /// Length of this host's resumption nonce, 0 to 8 bytes (TC-13).
    pub nonce_len: usize,
}

impl Default for NegotiationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            aware: Aware::No,
            active_b: false,
            resume: true,
            teps: Tep::ALL.to_vec(),
            nonce_len: RESUME_NONCE_MAX,
        }
    }
}

impl NegotiationConfig {
    fn global(&self, b: bool) -> u8 {
        (if b { GLOBAL_B } else { 0 }) | (if self.aware > Aware::No { GLOBAL_A } else { 0 })
    }

    /// Whether the peer's a bit is compatible (ENO-8).
    fn suits(&self, peer: &SynOption<'_>) -> bool {
        self.aware < Aware::Mandatory || peer.aware()
    }
}

/// An active opener's option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveOption {
    /// The whole option, kind and length included.
    pub bytes: Vec<u8>,
    /// Whether it contains the proposal: only then is its secret used up.
    pub proposes: bool,
}

/// The ENO option of a SYN, in at most `room` bytes of the option area: with the proposal if it fits, and as many
/// other TEPs as fit, most preferred first. `None`: no ENO (off, no TEPs, or no room).
#[must_use]
pub fn active_option(settings: &NegotiationConfig, proposal: Option<&Proposal>, room: usize) -> Option<ActiveOption> {
    if !settings.enabled {
        return None;
    }
    let mut bytes = vec![KIND, 0];
    match settings.global(settings.active_b) {
        0 => {}
        global => bytes.push(global),
    }
    let room = room.min(MAX_OPTION_AREA).checked_sub(bytes.len())?;
    let resumption = proposal
        .filter(|p| settings.resume && settings.teps.contains(&p.secret.tep()))
        .map(resumption_suboption)
        .filter(|suboption| suboption.len() <= room);
    // A host that may become B offers another TEP beside a proposal, or makes no proposal: if the peer does not
    // propose the same, B's resumption is not a valid TEP (TC-18), and nothing would be left.
    let resumption = resumption.filter(|suboption| {
        let other = settings.teps.iter().any(|tep| Some(*tep) != proposal.map(|p| p.secret.tep()));
        !settings.active_b || (other && suboption.len() < room)
    });
    // TC-20: a TEP that is proposed for resumption is not offered a second time without data.
    let resumed_tep = resumption.as_ref().and(proposal).map(|p| p.secret.tep());
    let others: Vec<Tep> = settings.teps.iter().copied().filter(|tep| Some(*tep) != resumed_tep).collect();
    let fitting = others.len().min(room - resumption.as_ref().map_or(0, Vec::len));
    bytes.extend(others[others.len() - fitting..].iter().map(|tep| tep.id()));
    let proposes = resumption.is_some();
    if fitting == 0 && !proposes {
        return None;
    }
    // Last, so that it needs no length byte (ENO-6), and has the highest priority if this host becomes B.
    bytes.extend(resumption.unwrap_or_default());
    Some(ActiveOption { bytes: with_length(bytes), proposes })
}

/// A passive opener's answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The whole option for the SYN-ACK, if any.
    pub option: Option<Vec<u8>>,
    /// The proposal that the option accepts; pass it to [`conclude`].
    pub resumes: Option<Proposal>,
}

/// The ENO option of a SYN-ACK, in at most `room` bytes, in reply to a SYN with `peer`. `lookup(tep, half)` finds the
/// unused secret whose [`peer_half`](CachedSecret::peer_half) is `half`, and reserves it. `nonce` is this host's
/// fresh resumption nonce, of which `nonce_len` bytes are used.
pub fn passive_reply(
    settings: &NegotiationConfig,
    peer: &SynArea<'_>,
    room: usize,
    nonce: &[u8; RESUME_NONCE_MAX],
    mut lookup: impl FnMut(Tep, &[u8; RESUME_HALF_LEN]) -> Option<CachedSecret>,
) -> Reply {
    let SynArea::Option(peer) = peer else { return Reply::default() };
    // ENO-7: a passive opener is always B; b = 1 in the SYN leads nowhere. ENO-13: no option is sent any more once it
    // is clear that there is no encryption (docs/readings.md, reading 13).
    if !settings.enabled || peer.b() || !settings.suits(peer) {
        return Reply::default();
    }
    let room = room.min(MAX_OPTION_AREA);
    let head = vec![KIND, 0, settings.global(true)];

    let nonce = nonce.get(..settings.nonce_len).and_then(ResumeNonce::new).unwrap_or_default();
    let resumption_len = head.len() + 1 + RESUME_HALF_LEN + nonce.as_bytes().len();
    if settings.resume && resumption_len <= room {
        let accepted = settings.teps.iter().rev().find_map(|&tep| {
            let (half, _) = resumption_data(&peer.only(tep.id())?)?;
            lookup(tep, half).filter(|secret| secret.tep() == tep && secret.peer_half() == half)
        });
        if let Some(secret) = accepted {
            let proposal = Proposal { secret, nonce };
            let bytes = [head, resumption_suboption(&proposal)].concat();
            return Reply { option: Some(with_length(bytes)), resumes: Some(proposal) };
        }
    }

    // ENO-10: exactly one TEP, a valid one; by this host's preference.
    let tep = settings.teps.iter().rev().find(|tep| peer.only(tep.id()).is_some());
    let mut bytes = head;
    match tep {
        Some(tep) => bytes.push(tep.id()),
        // ENO-11: a SYN that only asks whether ENO is supported gets an answer.
        None if peer.is_vacuous() => {}
        None => return Reply::default(),
    }
    Reply { option: (bytes.len() <= room).then(|| with_length(bytes)), resumes: None }
}

/// The result of the two SYN-form options. Encryption may still be disabled by what comes after the SYNs: see
/// [`AckPhase`](super::ack::AckPhase).
#[derive(Debug)]
pub enum Outcome {
    /// Plain TCP; no ENO option is sent any more.
    Plain(PlainReason),
    /// A fresh key exchange.
    Fresh(Negotiated),
    /// A cached session is resumed: no key exchange.
    Resumed(Negotiated, Session),
}

/// Why a connection is plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlainReason {
    /// This host sent no ENO option.
    NotOffered,
    /// The peer sent no ENO option.
    PeerNoEno,
    /// The peer's SYN has more than one ENO option (ENO-3).
    Duplicate,
    /// The option area of the peer's SYN is broken.
    MalformedArea,
    /// The peer's option is ill-formed (ENO-5).
    IllFormed(IllFormed),
    /// Both hosts have the same b bit, or a middlebox echoes options (ENO-7).
    SameRole,
    /// The peer is not application-aware, and that is required (ENO-8).
    NotAware,
    /// The peer's option names no TEP: supported, not wanted (ENO-11).
    Vacuous,
    /// No TEP is valid (ENO-9, TC-18).
    NoCommonTep,
}

impl fmt::Display for PlainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "not-offered",
            Self::PeerNoEno => "peer-no-eno",
            Self::Duplicate => "duplicate-eno",
            Self::MalformedArea => "malformed-options",
            Self::IllFormed(_) => "ill-formed",
            Self::SameRole => "same-role",
            Self::NotAware => "not-aware",
            Self::Vacuous => "vacuous",
            Self::NoCommonTep => "no-common-tep",
        })
    }
}

/// The outcome, from this host's option (`own`, the whole option as sent) and what the peer's SYN has. `proposal` is
/// what this host's option proposes or accepts, if anything.
#[must_use]
pub fn conclude(
    settings: &NegotiationConfig,
    own: Option<&[u8]>,
    proposal: Option<&Proposal>,
    peer: &SynArea<'_>,
) -> Outcome {
    negotiate(settings, own, proposal, peer).unwrap_or_else(Outcome::Plain)
}

fn negotiate(
    settings: &NegotiationConfig,
    own: Option<&[u8]>,
    proposal: Option<&Proposal>,
    peer: &SynArea<'_>,
) -> Result<Outcome, PlainReason> {
    if !settings.enabled {
        return Err(PlainReason::NotOffered);
    }
    let peer = match peer {
        SynArea::None => return Err(PlainReason::PeerNoEno),
        SynArea::Duplicate => return Err(PlainReason::Duplicate),
        SynArea::MalformedArea { .. } => return Err(PlainReason::MalformedArea),
        SynArea::IllFormed(why) => return Err(PlainReason::IllFormed(*why)),
        SynArea::Option(option) => option,
    };
    let own = own.and_then(|own| SynOption::parse(own).ok());
    // A host that sent no option has answered the peer's with none: a passive opener, which is B.
    let own_b = own.is_none_or(|own| own.b());
    if own_b == peer.b() {
        return Err(PlainReason::SameRole);
    }
    if !settings.suits(peer) {
        return Err(PlainReason::NotAware);
    }
    if peer.is_vacuous() {
        return Err(PlainReason::Vacuous);
    }
    let Some(own) = own else {
        let common = settings.teps.iter().any(|tep| peer.only(tep.id()).is_some());
        return Err(if common { PlainReason::NotOffered } else { PlainReason::NoCommonTep });
    };
    let (role, a, b) = if own_b { (Role::B, peer, &own) } else { (Role::A, &own, peer) };
    // ENO-10: the last valid TEP in B's option.
    let mut valid = None;
    for of_b in b.suboptions() {
        valid = valid_tep(settings, role, a, b, &of_b, proposal).or(valid);
    }
    let (tep, tep_byte, session) = valid.ok_or(PlainReason::NoCommonTep)?;
    let negotiated = Negotiated { role, tep, tep_byte, transcript: transcript(role, own.raw(), peer.raw()) };
    Ok(match session {
        None => Outcome::Fresh(negotiated),
        Some(session) => Outcome::Resumed(negotiated, session),
    })
}

/// Whether B's suboption names a TEP that is valid for the connection (ENO-9), and whether it resumes a session.
fn valid_tep(
    settings: &NegotiationConfig,
    role: Role,
    a: &SynOption<'_>,
    b: &SynOption<'_>,
    of_b: &Suboption<'_>,
    proposal: Option<&Proposal>,
) -> Option<(Tep, u8, Option<Session>)> {
    let tep = Tep::from_id(of_b.tep).filter(|tep| settings.teps.contains(tep))?;
    b.only(tep.id())?;
    let of_a = a.only(tep.id())?;
    // TC-17: v = 1 with less than a half is v = 0, of either opener (docs/readings.md, reading 14).
    if !of_b.v || of_b.data.len() < RESUME_HALF_LEN {
        return Some((tep, of_b.byte(), None));
    }
    // TC-18: a resumption counts only if both halves are those of the secret that this host has.
    let (own, peer) = match role {
        Role::A => (&of_a, of_b),
        Role::B => (of_b, &of_a),
    };
    let secret = proposal.map(|p| &p.secret).filter(|secret| secret.tep() == tep)?;
    let (own_half, own_nonce) = resumption_data(own)?;
    let (peer_half, peer_nonce) = resumption_data(peer)?;
    (own_half == secret.own_half() && peer_half == secret.peer_half())
        .then(|| (tep, of_b.byte(), Some(Session::resumed(of_b.byte(), secret, &own_nonce, &peer_nonce))))
}

/// Half and nonce of a resumption suboption (TC-12); `None` if it is not one: without v, too short (TC-17) or too
/// long (docs/readings.md, reading 6).
fn resumption_data<'a>(suboption: &Suboption<'a>) -> Option<(&'a [u8; RESUME_HALF_LEN], ResumeNonce)> {
    let (half, nonce) = suboption.data.split_first_chunk()?;
    Some((half, ResumeNonce::new(nonce)?))
}

fn resumption_suboption(proposal: &Proposal) -> Vec<u8> {
    let byte = proposal.secret.tep().id() | 0x80;
    [&[byte], &proposal.secret.own_half()[..], proposal.nonce.as_bytes()].concat()
}

fn with_length(mut option: Vec<u8>) -> Vec<u8> {
    // Never more than MAX_OPTION_AREA bytes.
    let len = option.len() as u8;
    if let Some(field) = option.get_mut(1) {
        *field = len;
    }
    option
}

#[cfg(test)]
mod tests;
