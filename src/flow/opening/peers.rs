//! What the peer has said in its SYN or SYN-ACK, and what follows from it. Anybody who knows the addresses can send another one before
//! the connection is open: the local kernel decides which one counts, by what it acknowledges (RFC 9293, section 3.10.7), and nothing
//! of the others stays.

use tcpcrypt::eno::option::SynArea;
use tcpcrypt::{Acceptable, AckPhase, Negotiated, PlainReason, Session};

use crate::store::ChainId;
use crate::time::Instant;
use crate::wire::Segment;
use crate::wire::options::SynOptions;

/// What a SYN or SYN-ACK of either end said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) isn: u32,
    pub(super) options: SynOptions,
    pub(super) window: u16,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn new<S>(segment: &Segment<'_, S>, now: Instant) -> Self {
        Self { isn: segment.seq.0, options: SynOptions::parse(segment.options()), window: segment.window, at: now }
    }

    /// The number of the byte behind it.
    pub(super) fn next(&self) -> u32 {
        self.isn.wrapping_add(1)
    }
}

/// What both ENO options come to, if the connection is to be encrypted.
pub(super) enum Agreed {
    /// Keys are to be made.
    Fresh(Negotiated),
    /// The session of this chain is resumed.
    Resumed(Negotiated, ChainId, Box<Session>),
}

impl Agreed {
    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Resumed(_, _, session) => Some(session),
            Self::Fresh(_) => None,
        }
    }
}

/// A SYN or SYN-ACK of the peer's. `R` is what is kept to answer it.
pub(super) struct PeerSyn<R> {
    pub(super) seen: Seen,
    /// What it is to [`tcpcrypt::AckPhase`] once it counts.
    pub(super) acceptable: Acceptable,
    /// Its ENO option, if that is well-formed (ENO-13): one that comes again with another is another one.
    pub(super) eno: Option<Vec<u8>>,
    /// What follows from its option and this host's; or why the connection is plain TCP.
    pub(super) agreed: Result<Agreed, PlainReason>,
    pub(super) reply: R,
}

impl<R> PeerSyn<R> {
    /// The session that is resumed with it.
    pub(super) fn session(&self) -> Option<&Session> {
        self.agreed.as_ref().ok()?.session()
    }

    /// The peer's latest segment with this number: its window and clock are newer.
    pub(super) fn renew(&mut self, seen: Seen) {
        let timestamps = self.seen.options.timestamps.and(seen.options.timestamps);
        self.seen = Seen { options: SynOptions { timestamps, ..self.seen.options }, ..seen };
    }
}

/// The ENO option in `area`, if it is well-formed.
pub(super) fn well_formed(area: &SynArea<'_>) -> Option<Vec<u8>> {
    match area {
        SynArea::Option(option) => Some(option.raw().to_vec()),
        _ => None,
    }
}

/// All there are. The kernel takes the first it gets, unless that is lost, and then the last: these are kept.
pub(super) struct PeerSyns<R> {
    /// The one in force is the last.
    known: Vec<PeerSyn<R>>,
}

/// So many are kept.
const MOST: usize = 2;

impl<R> PeerSyns<R> {
    pub(super) fn none() -> Self {
        Self { known: Vec::new() }
    }

    /// The one in force.
    pub(super) fn current(&self) -> Option<&PeerSyn<R>> {
        self.known.last()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The one with this number.
    pub(super) fn get(&mut self, isn: u32) -> Option<&mut PeerSyn<R>> {
        self.known.iter_mut().find(|syn| syn.seen.isn == isn)
    }

    /// One with a number that is not known yet is in force until the kernel has acknowledged another.
    pub(super) fn push(&mut self, syn: PeerSyn<R>) {
        self.known.truncate(MOST - 1);
        self.known.push(syn);
    }

    /// The kernel has acknowledged `ack`: if that is one of them, it is in force from now on, and the others are forgotten.
    pub(super) fn choose(&mut self, ack: u32) -> Option<&mut PeerSyn<R>> {
        let is = |syn: &PeerSyn<R>| syn.seen.next() == ack;
        if self.known.iter().any(is) {
            self.known.retain(is);
            return self.known.last_mut();
        }
        None
    }

    /// The same for a kernel that has opened itself: the one it has acknowledged counts in `phase`, unless it has declined.
    pub(super) fn take_up(&mut self, ack: u32, phase: &mut AckPhase) -> Option<Result<(), PlainReason>> {
        let syn = self.choose(ack)?;
        Some(match &syn.agreed {
            Err(why) => Err(*why),
            Ok(_) => {
                let _ = phase.received(syn.acceptable);
                Ok(())
            }
        })
    }

    /// Takes out the one in force, and forgets the others.
    pub(super) fn take_current(&mut self) -> Option<PeerSyn<R>> {
        std::mem::take(&mut self.known).pop()
    }

    /// Whether the byte behind one of them has this number.
    pub(super) fn any_next(&self, seq: u32) -> bool {
        self.known.iter().any(|syn| syn.seen.next() == seq)
    }

    /// Whether encryption was agreed on with one of them.
    pub(super) fn any_agreed(&self) -> bool {
        self.known.iter().any(|syn| syn.agreed.is_ok())
    }

    /// Whether one of them has resumed a session.
    pub(super) fn any_resumed(&self) -> bool {
        self.known.iter().any(|syn| syn.session().is_some())
    }
}
