//! A connection that goes on in plain TCP: its packets pass unchanged, and what they tell of it is noted.

use std::fmt;
use std::time::Duration;

use tcpcrypt::{PlainReason, Record};

use super::link::{Cx, FlowKey, Link};
use super::syn::{begins_frame, begins_init1};
use crate::engine::Side;
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{self, OptionBuf, SegmentOptions, SynOptions, kind};
use crate::wire::{C, Flags, P, Packet};

/// Why a connection is plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// The negotiation ended that way.
    Eno(PlainReason),
    /// The peer sent no ENO option.
    PeerNoEno,
    /// The peer's first acknowledgement had no ENO option (ENO-13).
    AckWithoutEno,
    /// This host could not agree to anything the peer offered.
    NotNegotiated,
    /// The options of the SYN leave no room for ENO.
    OptionSpace,
    /// Multipath TCP is left alone.
    Mptcp,
    /// The segments are signed (MD5, AO), which no rewriter can keep right.
    Signed,
    /// The random source is not ready (ENO-18).
    NoEntropy,
    /// SYNs with ENO were not answered.
    SynLost,
    /// SYNs with ENO were not answered on this path before.
    PathDropsEno,
    /// ENO was taken out of segments on this path before.
    PathStripsEno,
    /// It was opened to see what plain TCP does.
    Probe,
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eno(why) => return why.fmt(f),
            Self::PeerNoEno => "peer-no-eno",
            Self::AckWithoutEno => "ack-without-eno",
            Self::NotNegotiated => "not-negotiated",
            Self::OptionSpace => "option-space",
            Self::Mptcp => "mptcp",
            Self::Signed => "signed-segments",
            Self::NoEntropy => "no-entropy",
            Self::SynLost => "syn-lost",
            Self::PathDropsEno => "path-drops-eno",
            Self::PathStripsEno => "path-strips-eno",
            Self::Probe => "probe",
        })
    }
}

/// A plain connection: its packets pass unchanged.
#[derive(Debug)]
pub(crate) struct PlainFlow {
    pub(crate) why: Plain,
    /// The first sequence numbers of both ends, the local kernel's first, to tell the retransmission of a SYN from a new
    /// connection.
    pub(crate) isns: [Option<u32>; 2],
    pub(crate) last_seen: Instant,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) idle: Duration,
    /// The same once it has ended.
    pub(crate) linger: Duration,
    /// Which side has sent its FIN: the plain one, the wire.
    pub(crate) ended: [bool; 2],
    /// The keys of a session that this host has agreed to resume.
    pub(crate) suspect: Option<Box<Record>>,
    /// What the peer's next segment can tell about the path.
    pub(crate) open: OpenQuestion,
    /// A probe whose segments carry ENO although the peer's SYN-ACK did not.
    pub(crate) insist: bool,
}

/// What the peer's next segment on a plain connection can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenQuestion {
    /// Nothing any more.
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
}

/// What a plain connection's segment has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// A SYN with ENO was answered without.
    NoEno,
    /// A SYN without ENO was answered; those with it, the first of which was sent then, were not.
    SynDropped { began: Instant },
    /// The peer has sent ENO in its SYN, which has lost it.
    StrippedHere,
}

impl PlainFlow {
    /// Takes in the flags of a segment from `side`: a connection that has ended is soon forgotten. If that was forged,
    /// nothing is lost, for what is not known passes as well.
    pub(crate) fn note_end(&mut self, side: Side, flags: Flags) {
        let [plain, wire] = &mut self.ended;
        *(if side == Side::Plain { plain } else { wire }) |= flags.any(Flags::FIN);
        if flags.any(Flags::RST) {
            self.ended = [true; 2];
        }
    }

    /// Sends a segment of the local kernel's on with an ENO option, if this is a probe that insists and there is room; whether
    /// it did.
    pub(crate) fn insist(&self, cx: &mut Cx<'_>, key: FlowKey, packet: &Packet<P>, bytes: &[u8]) -> bool {
        if !self.insist || packet.flags.any(Flags::SYN.with(Flags::RST)) || !packet.payload.is_empty() {
            return false;
        }
        let mut options = OptionBuf::default();
        let fits = options::walk(packet.options(bytes)).all(|(_, option)| options.push(option));
        if !fits || !options.push(&tcpcrypt::eno::option::NON_SYN_OPTION) {
            return false;
        }
        let mut link = Link::new(key);
        link.learn(Side::Plain, packet);
        let tcp = TcpFields {
            seq: packet.seq.0,
            ack: packet.ack.0,
            flags: packet.flags,
            window: packet.window,
            urgent: packet.urgent,
            options: options.padded(),
        };
        link.emit(cx.env, Side::Wire, &tcp, &[], None);
        true
    }

    /// Takes in a segment of the peer's: what it tells about the path, if it does.
    pub(crate) fn note_path(&mut self, packet: &Packet<C>, bytes: &[u8]) -> Option<Learnt> {
        let area = packet.options(bytes);
        let (syn, ack) = (packet.flags.any(Flags::SYN), packet.flags.any(Flags::ACK));
        let [local, peer] = self.isns.map(|isn| isn.map(|isn| isn.wrapping_add(1)));
        match self.open {
            OpenQuestion::None => None,
            OpenQuestion::Answer { sent, began } if syn && ack && Some(packet.ack.0) == local => {
                self.open = OpenQuestion::None;
                // With the option it is late, and nothing was lost. So it is if it answers an earlier SYN, which had it.
                if options::walk(area).any(|(k, _)| k == kind::ENO) {
                    return None;
                }
                let echo = SynOptions::parse(area).timestamps.map(|ts| ts.echo);
                let earlier = sent.zip(echo).is_some_and(|(sent, echo)| sent.wrapping_sub(echo).cast_signed() > 0);
                Some(if earlier { Learnt::NoEno } else { Learnt::SynDropped { began } })
            }
            OpenQuestion::FirstAck if !syn && ack && Some(packet.seq.0) == peer => {
                self.open = OpenQuestion::None;
                let carries = SegmentOptions::parse(area).eno;
                carries.then_some(Learnt::StrippedHere)
            }
            OpenQuestion::Answer { .. } | OpenQuestion::FirstAck => None,
        }
    }

    /// Whether both ends have sent their FIN, or one a RST.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended == [true; 2]
    }

    /// Whether the local kernel's `packet` is the answer to another SYN than the one this connection began with.
    pub(crate) fn is_answered_anew<S>(&self, packet: &Packet<S>) -> bool {
        let [_, peer] = self.isns;
        packet.flags.any(Flags::SYN)
            && packet.flags.any(Flags::ACK)
            && peer.is_some_and(|isn| isn.wrapping_add(1) != packet.ack.0)
    }

    pub(super) fn until(&self) -> Instant {
        self.last_seen + if self.has_ended() { self.linger } else { self.idle }
    }

    /// Whether a segment of the peer's is the beginning of an Init1 or of a frame: the peer took for encrypted what
    /// ENO-13 made plain here.
    pub(crate) fn is_one_sided(&mut self, seq: u32, payload: &[u8]) -> bool {
        let [_, peer] = self.isns;
        let first = self.why == Plain::AckWithoutEno && peer.is_some_and(|isn| seq == isn.wrapping_add(1));
        first && (begins_init1(payload) || self.suspect.as_mut().is_some_and(|record| begins_frame(record, payload)))
    }
}
