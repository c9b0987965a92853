//! The opening of a connection: SYNs with ENO options, and what follows from them.
//!
//! The local kernel never sees ENO; what it sees of the peer's SYN or SYN-ACK has its MSS lowered by what a frame adds, and, until
//! keys are made, a window of zero, so that it sends nothing that would have to wait here. A resumed session has its keys with the
//! SYNs: the window is the peer's at once.
//!
//! `active` has the openings of the local kernel and hands those in which SYNs cross to `simultaneous`; `passive` has those of the
//! peer. What they have in common is below them: `offered` and `core` (state), `syn_received` (the first segment after the SYNs),
//! `peers` (what the peer has said), `negotiation` (what ENO options say), `syn_rewrite` (what the kernel gets to see). What a
//! packet causes is an `outcome`, which the caller carries out.

mod active;
mod core;
mod negotiation;
mod offered;
mod outcome;
mod passive;
mod peers;
mod simultaneous;
mod syn_received;
mod syn_rewrite;

use self::core::Core;
use active::ActiveOpening;
use offered::ActiveProgress;
pub(crate) use outcome::{Begin, Change, Emit, Numbers, Opened, Resets};
use passive::PassiveOpening;
pub(crate) use syn_rewrite::strip_eno;

use super::states::State;
use super::{Context, Link, Rules, Side};
use crate::time::Instant;
use crate::wire::options::OptionBuf;
use crate::wire::{C, Flags, P, Segment};

/// The SYN exchange, up to the first segment after it.
pub(crate) struct Opening(Role);

enum Role {
    /// The local kernel opens; its first SYN is at hand.
    New(Core),
    Active(ActiveOpening),
    Passive(PassiveOpening),
}

impl Opening {
    /// One that begins with a SYN from `side`.
    pub(crate) fn new(cx: &Context<'_>, link: Link, rules: Rules, side: Side) -> Self {
        let core = Core::new(cx, link, rules);
        Self(match side {
            Side::Plain => Role::New(core),
            Side::Wire => Role::Passive(PassiveOpening::new(core)),
        })
    }

    fn core(&self) -> &Core {
        match &self.0 {
            Role::New(core) => core,
            Role::Active(active) => &active.offered.core,
            Role::Passive(passive) => &passive.core,
        }
    }

    fn core_mut(&mut self) -> &mut Core {
        match &mut self.0 {
            Role::New(core) => core,
            Role::Active(active) => &mut active.offered.core,
            Role::Passive(passive) => &mut passive.core,
        }
    }

    /// Where it is.
    pub(crate) fn state(&self) -> State {
        match &self.0 {
            Role::New(_) => State::New,
            Role::Active(active) => match active.offered.progress {
                ActiveProgress::SynSent => State::SynSent,
                ActiveProgress::Answered => State::Answered,
                ActiveProgress::Crossed => State::Crossed,
                ActiveProgress::CrossedAndAcked => State::CrossedAndAcked,
                ActiveProgress::SynReceived => State::CrossedSynAckSent,
            },
            Role::Passive(passive) if passive.has_answered() => State::SynAckSent,
            Role::Passive(_) => State::SynReceived,
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.core().link
    }

    /// When it is given up.
    pub(crate) fn deadline(&self) -> Instant {
        self.core().deadline
    }

    /// The SYN it began with.
    pub(crate) fn isn(&self) -> Option<u32> {
        match (&self.0, self.isns()) {
            (Role::New(_) | Role::Active(_), [local, _]) => local,
            (Role::Passive(_), [_, peer]) => peer,
        }
    }

    /// The first sequence numbers of both ends, as far as they are known, the local kernel's first.
    fn isns(&self) -> [Option<u32>; 2] {
        match &self.0 {
            Role::New(_) => [None; 2],
            Role::Active(active) => active.offered.isns(),
            Role::Passive(passive) => passive.isns(),
        }
    }

    /// Whether the local kernel opens, not only answers.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.0, Role::New(_) | Role::Active(_))
    }

    /// Whether a SYN-ACK that negotiates encryption was sent, or was given to the local kernel: what the peer sends from now on
    /// may be frames, which no application is to see, and what the kernel sends must not get onto the wire.
    pub(crate) fn has_agreed(&self) -> bool {
        match &self.0 {
            Role::New(_) => false,
            Role::Active(active) => active.offered.has_agreed(),
            Role::Passive(passive) => passive.has_agreed(),
        }
    }

    /// The next sequence numbers of the peer and of the local kernel, if that may take the connection for open.
    pub(crate) fn kernel_expects(&self) -> Option<Numbers> {
        match &self.0 {
            Role::Active(active) => active.offered.kernel_expects(),
            Role::New(_) | Role::Passive(_) => None,
        }
    }

    /// Whether one of the peer's SYNs or SYN-ACKs has resumed a session.
    pub(crate) fn resumes(&self) -> bool {
        match &self.0 {
            Role::New(_) => false,
            Role::Active(active) => active.offered.peers.any_resumed(),
            Role::Passive(passive) => passive.peers.any_resumed(),
        }
    }

    /// Whether a SYN or SYN-ACK of this host has named a session secret and a nonce: what keys are made of then.
    pub(crate) fn has_named_a_secret(&self) -> bool {
        self.resumes() || matches!(&self.0, Role::Active(active) if active.offered.offer.proposal.is_some())
    }

    /// The ENO option of this host's SYN.
    pub(crate) fn own(&self) -> Option<&[u8]> {
        match &self.0 {
            Role::Active(active) => Some(&active.offered.offer.option),
            Role::New(_) | Role::Passive(_) => None,
        }
    }

    /// What tells whoever knows of the connection that it is over.
    pub(crate) fn resets(&self) -> Resets {
        Resets::after_syns(self.isns())
    }

    /// Takes in a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        self.core_mut().link.learn(Side::Plain, segment);
        match &mut self.0 {
            Role::New(core) => {
                if segment.flags.any(Flags::RST) {
                    return Opened::send(Emit::Rewritten { options: OptionBuf::default(), window: segment.window });
                }
                if !segment.flags.any(Flags::SYN) || segment.flags.any(Flags::ACK) {
                    return Opened::stay();
                }
                match ActiveOpening::open(core, cx, segment) {
                    Ok(mut active) => {
                        let opened = active.send_syn(cx, segment);
                        self.0 = Role::Active(active);
                        opened
                    }
                    Err(why) => core.fall_back(self::core::left_of_syn(why, segment.seq.0), Emit::Forward),
                }
            }
            Role::Active(active) => active.from_kernel(cx, segment),
            Role::Passive(passive) => passive.from_kernel(cx, segment),
        }
    }

    /// Takes in a segment from the wire.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        self.core_mut().link.learn(Side::Wire, segment);
        match &mut self.0 {
            Role::New(_) => Opened::stay(),
            Role::Active(active) => active.from_wire(cx, segment),
            Role::Passive(passive) => passive.from_wire(cx, segment),
        }
    }
}
