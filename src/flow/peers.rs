//! What the peer has said in its SYN or SYN-ACK, and what follows from it. Anybody who knows the addresses can send another one before
//! the connection is open: the local kernel decides which one counts, by what it acknowledges (RFC 9293, section 3.10.7), and nothing
//! of the others stays.

use tcpcrypt::eno::option::SynArea;
use tcpcrypt::{Acceptable, Negotiated, PlainReason, Session};

use super::syn::Seen;
use crate::store::ChainId;
use crate::wire::options::SynOptions;

/// What both options come to.
pub(super) enum Agreed {
    /// Keys are to be made.
    Fresh(Negotiated),
    /// The session of this chain is resumed.
    Resumed(Negotiated, ChainId, Box<Session>),
    /// Nothing: plain TCP, for this reason.
    Declined(PlainReason),
}

impl Agreed {
    /// What was negotiated, if it is to be encrypted.
    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match self {
            Self::Fresh(negotiated) | Self::Resumed(negotiated, ..) => Some(negotiated),
            Self::Declined(_) => None,
        }
    }

    /// The session that is resumed.
    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Resumed(_, _, session) => Some(session),
            Self::Fresh(_) | Self::Declined(_) => None,
        }
    }
}

/// A SYN or SYN-ACK of the peer's.
pub(super) struct PeerSyn {
    pub(super) seen: Seen,
    /// What it is to [`tcpcrypt::AckPhase`] once it counts.
    pub(super) acceptable: Acceptable,
    /// Its ENO option, if that is well-formed (ENO-13): one that comes again with another is another one.
    pub(super) eno: Option<Vec<u8>>,
    pub(super) agreed: Agreed,
    /// Of a SYN: its options, until they are answered.
    pub(super) asked: Vec<u8>,
    /// Of a SYN: the option that answers it (ENO-14).
    pub(super) reply: Option<Vec<u8>>,
}

/// The ENO option in `area`, if it is well-formed.
pub(super) fn well_formed(area: &SynArea<'_>) -> Option<Vec<u8>> {
    match area {
        SynArea::Option(option) => Some(option.raw().to_vec()),
        _ => None,
    }
}

/// All there are. The kernel takes the first it gets, unless that is lost, and then the last: these are kept.
#[derive(Default)]
pub(super) struct PeerSyns {
    /// The one in force is the last.
    known: Vec<PeerSyn>,
}

/// So many are kept.
const MOST: usize = 2;

impl PeerSyns {
    /// The one in force.
    pub(super) fn current(&self) -> Option<&PeerSyn> {
        self.known.last()
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut PeerSyn> {
        self.known.last_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The one with this number.
    pub(super) fn get(&mut self, isn: u32) -> Option<&mut PeerSyn> {
        self.known.iter_mut().find(|syn| syn.seen.isn == isn)
    }

    /// One with a number that is not known yet is in force until the kernel has acknowledged another.
    pub(super) fn push(&mut self, syn: PeerSyn) {
        self.known.truncate(MOST - 1);
        self.known.push(syn);
    }

    /// The kernel has acknowledged `ack`: whether that is one of them. It is in force then, and the others are forgotten.
    pub(super) fn choose(&mut self, ack: u32) -> bool {
        let is = |syn: &PeerSyn| syn.seen.isn.wrapping_add(1) == ack;
        let known = self.known.iter().any(is);
        if known {
            self.known.retain(is);
        }
        known
    }

    /// What was agreed with the one in force.
    pub(super) fn into_agreed(self) -> Option<Agreed> {
        self.known.into_iter().next_back().map(|syn| syn.agreed)
    }

    /// Whether the byte behind one of them has this number.
    pub(super) fn any_next(&self, seq: u32) -> bool {
        self.known.iter().any(|syn| syn.seen.isn.wrapping_add(1) == seq)
    }

    /// Whether encryption was agreed on with one of them.
    pub(super) fn any_agreed(&self) -> bool {
        self.known.iter().any(|syn| syn.agreed.negotiated().is_some())
    }

    /// Whether one of them has resumed a session.
    pub(super) fn any_resumed(&self) -> bool {
        self.known.iter().any(|syn| syn.agreed.session().is_some())
    }
}

impl PeerSyn {
    /// The peer's latest segment with this number: its window and clock are newer.
    pub(super) fn renew(&mut self, seen: Seen) {
        let timestamps = self.seen.options.timestamps.and(seen.options.timestamps);
        self.seen = Seen { options: SynOptions { timestamps, ..self.seen.options }, ..seen };
    }
}
