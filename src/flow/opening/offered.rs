//! An opening of the local kernel's: its SYN has offered ENO.

use std::time::Duration;

use tcpcrypt::PlainReason;
use tcpcrypt::eno::option::SynArea;

use super::core::{Core, Opener};
use super::negotiation::{self, Offer};
use super::outcome::{Change, Emit, Numbers, Opened};
use super::peers::{Agreed, PeerSyns, Seen};
use crate::flow::connection::Encrypted;
use crate::flow::plain::{FallbackReason, Left, OpenQuestion};
use crate::flow::{Context, ProbeMode, Side};
use crate::wire::options::Timestamps;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ActiveProgress {
    /// The kernel has seen nothing of the peer's.
    SynSent,
    /// The kernel was given the peer's SYN-ACK; its acknowledgement decides.
    Answered,
    /// The SYNs have crossed: the kernel was given the peer's.
    Crossed,
    /// The same, and the peer has acknowledged the kernel's.
    CrossedAndAcked,
    /// The SYNs have crossed: the kernel's SYN-ACK was sent, and the peer's acknowledgement is awaited.
    SynReceived,
}

/// An opening whose SYN has offered ENO.
pub(super) struct Offered {
    pub(super) core: Core,
    /// The local kernel's latest SYN or SYN-ACK.
    pub(super) local: Seen,
    pub(super) offer: Offer,
    /// The peer's SYNs or SYN-ACKs, and what was agreed with each.
    pub(super) peers: PeerSyns<()>,
    pub(super) progress: ActiveProgress,
}

impl Offered {
    /// What follows from the peer's options.
    pub(super) fn conclude(&self, cx: &Context<'_>, area: &SynArea<'_>) -> Result<Agreed, PlainReason> {
        let config = negotiation::config_for(&self.core.rules, cx.config);
        negotiation::conclude(&config, Some(&self.offer.option), self.offer.proposal.as_ref(), area)
    }

    /// The first sequence numbers of both ends, as far as they are known.
    pub(super) fn isns(&self) -> [Option<u32>; 2] {
        [Some(self.local.isn), self.peers.current().map(|syn| syn.seen.isn)]
    }

    /// The next sequence numbers of the peer and of the local kernel, if that may take the connection for open.
    pub(super) fn kernel_expects(&self) -> Option<Numbers> {
        let peer = self.peers.current()?.seen;
        let given = self.progress != ActiveProgress::SynSent;
        given.then(|| Numbers { seq: peer.next(), ack: self.local.next() })
    }

    /// Whether encryption was agreed on in a SYN-ACK that was sent or given to the local kernel.
    pub(super) fn has_agreed(&self) -> bool {
        let answered = matches!(self.progress, ActiveProgress::Answered | ActiveProgress::SynReceived);
        answered && self.peers.any_agreed()
    }

    /// What is left of it once it is plain TCP.
    pub(super) fn left(&self, cx: &Context<'_>, why: FallbackReason) -> Left {
        let question = match why {
            FallbackReason::SynLost => {
                let sent = self.local.options.timestamps.map(|ts| ts.value);
                OpenQuestion::Answer { sent, began: self.core.began }
            }
            FallbackReason::AckWithoutEno => self.core.suspicion(cx, self.peers.current()),
            _ => OpenQuestion::None,
        };
        let probes = matches!(self.core.rules.probe, Some(ProbeMode::Insist { .. }));
        Left {
            why,
            isns: self.isns(),
            opened_on: Side::Plain,
            answered: self.progress == ActiveProgress::SynReceived,
            question,
            insists: probes && why == FallbackReason::PeerNoEno,
        }
    }

    /// Plain TCP, or refusal if policy says so; the segment at hand is to be passed on as it is.
    pub(super) fn fall_back(&self, cx: &Context<'_>, why: FallbackReason) -> Opened {
        self.core.fall_back(self.left(cx, why), Emit::Forward)
    }

    /// The connection as an encrypted one. `now`: the kernel's clock in the segment at hand.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        rtt: Option<Duration>,
        now: Option<Timestamps>,
    ) -> Result<Box<Encrypted>, Opened> {
        let expects = self.kernel_expects();
        let opener = Opener::Kernel { proposed: self.offer.proposal.take().map(|(chain, _)| chain) };
        let begun = self.core.begin(cx, opener, &self.local, &mut self.peers, rtt, now);
        begun.map_err(|why| Opened { change: Change::Aborted(why, expects), emit: Emit::Nothing })
    }
}
