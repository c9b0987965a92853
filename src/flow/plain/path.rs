//! What the peer's next segments on a plain connection can show about the path, and whether the peer takes the
//! connection for encrypted.

use tcpcrypt::frame::{Header, OVERHEAD};
use tcpcrypt::{OpenError, Record};

use crate::flow::LostOption;
use crate::time::Instant;
use crate::wire::options::{self, SegmentOptions, SynOptions, kind};
use crate::wire::{C, Flags, Segment};

/// What the peer's segments may still show.
#[derive(Debug)]
pub(crate) enum OpenQuestion {
    /// Nothing more.
    None,
    /// Whether a SYN without ENO is answered where those with it were not.
    Answer {
        /// The timestamp that it had.
        sent: Option<u32>,
        /// When the first of the others was sent.
        began: Instant,
    },
    /// Whether the peer's acknowledgement has ENO although its SYN had none.
    FirstAck,
    /// Whether the peer's first data is an Init1 or a frame: whether it took for encrypted what ENO-13 made plain here.
    FirstData {
        /// Tells a frame of a session that this host has agreed to resume.
        keys: Option<SuspectKeys>,
    },
}

/// Keys that tell a frame from plaintext where a peer may have taken for encrypted what became plain here. They are kept until
/// the peer's first data has been looked at, and not longer than a handshake may take: no plain connection keeps keys.
#[derive(Debug)]
pub(crate) struct SuspectKeys {
    pub(crate) record: Box<Record>,
    pub(crate) until: Instant,
}

/// What a segment of a plain connection has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// A SYN with ENO was answered without.
    NoEno,
    /// A SYN without ENO was answered; those with it, the first of which was sent then, were not.
    SynDropped { began: Instant },
    /// The peer encrypts: this option of its was lost on the way.
    OneSided(LostOption),
}

impl OpenQuestion {
    /// Takes in a segment of the peer's, on a connection with these first sequence numbers.
    pub(super) fn answer(&mut self, [local, peer]: [Option<u32>; 2], segment: &Segment<'_, C>) -> Option<Learnt> {
        let [local, peer] = [local, peer].map(|isn| isn.map(|isn| isn.wrapping_add(1)));
        let (syn, ack) = (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK));
        match self {
            Self::Answer { sent, began } if syn && ack && Some(segment.ack.0) == local => {
                let (sent, began) = (*sent, *began);
                *self = Self::None;
                syn_answered(sent, began, segment.options())
            }
            Self::FirstAck if !syn && ack && Some(segment.seq.0) == peer => {
                *self = Self::None;
                SegmentOptions::parse(segment.options()).eno.then_some(Learnt::OneSided(LostOption::Syn))
            }
            Self::FirstData { keys } if Some(segment.seq.0) == peer && !segment.payload().is_empty() => {
                let (keys, payload) = (keys.take(), segment.payload());
                let encrypted = begins_init1(payload) || keys.is_some_and(|mut k| begins_frame(&mut k.record, payload));
                encrypted.then_some(Learnt::OneSided(LostOption::Ack))
            }
            Self::None | Self::Answer { .. } | Self::FirstAck | Self::FirstData { .. } => None,
        }
    }

    /// The keys it keeps.
    pub(super) fn keys(&self) -> Option<&SuspectKeys> {
        match self {
            Self::FirstData { keys } => keys.as_ref(),
            Self::None | Self::Answer { .. } | Self::FirstAck => None,
        }
    }

    /// Erases keys that were kept long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Self::FirstData { keys } = self {
            keys.take_if(|keys| keys.until <= now);
        }
    }
}

/// What a SYN-ACK with `area` says that answers a SYN without ENO, which had the timestamp `sent`.
fn syn_answered(sent: Option<u32>, began: Instant, area: &[u8]) -> Option<Learnt> {
    // With the option it is late, and nothing was lost. So it is if it answers an earlier SYN, which had it.
    if options::walk(area).any(|(k, _)| k == kind::ENO) {
        return None;
    }
    let echo = SynOptions::parse(area).timestamps.map(|ts| ts.echo);
    let earlier = sent.zip(echo).is_some_and(|(sent, echo)| sent.wrapping_sub(echo).cast_signed() > 0);
    Some(if earlier { Learnt::NoEno } else { Learnt::SynDropped { began } })
}

/// Whether these first bytes of a stream are those of an Init1: the peer encrypts, and its ENO option was lost on the
/// way. ENO-13 makes the connection plain TCP here, but the application is not given the peer's frames for its data.
pub(crate) fn begins_init1(payload: &[u8]) -> bool {
    payload.starts_with(&tcpcrypt::constants::INIT1_MAGIC.to_be_bytes())
}

/// Whether these first bytes of a stream are those of a frame, or may be: the same as [`begins_init1`] for a session
/// that was resumed.
pub(crate) fn begins_frame(record: &mut Record, payload: &[u8]) -> bool {
    let may_be = payload.first().is_some_and(|control| *control <= 1);
    match Header::parse(payload) {
        None => may_be,
        Some(header) => match payload.get(..header.frame_len()) {
            Some(frame) => {
                !matches!(record.open(0, &mut frame.to_vec()), Err(OpenError::NotAuthentic | OpenError::Misuse(_)))
            }
            None => may_be && header.frame_len() >= OVERHEAD,
        },
    }
}
