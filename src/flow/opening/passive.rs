//! Passive open: the peer's SYN comes first, and the local kernel's SYN-ACK goes out with ENO.

use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::{Acceptable, PlainReason};

use super::core::{Core, Opener, kernel_ends_it};
use super::negotiation::{self, Reply};
use super::outcome::{Begin, Change, Emit, Numbers, Opened, Resets};
use super::peers::{Agreed, PeerSyn, PeerSyns, Seen, well_formed};
use super::syn_received::{self, Verdict};
use super::syn_rewrite::strip_eno;
use crate::flow::plain::{FallbackReason, Left, OpenQuestion};
use crate::flow::{Context, Side};
use crate::wire::options::{OptionBuf, SynOptions};
use crate::wire::{C, Flags, P, Segment};

/// An opening by the peer.
pub(super) struct PassiveOpening {
    pub(super) core: Core,
    /// The peer's SYNs, and what is answered to each.
    pub(super) peers: PeerSyns<Reply>,
    kernel: Kernel,
}

/// What the local kernel has said.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    /// Nothing. If it has shown that it has an older connection on these ports: what it has received of that.
    Silent { older: Option<u32> },
    /// Its SYN-ACK, which went out with ENO.
    Answered(Seen),
}

impl PassiveOpening {
    pub(super) fn new(core: Core) -> Self {
        Self { core, peers: PeerSyns::none(), kernel: Kernel::Silent { older: None } }
    }

    fn local(&self) -> Option<&Seen> {
        match &self.kernel {
            Kernel::Silent { .. } => None,
            Kernel::Answered(seen) => Some(seen),
        }
    }

    /// Whether a SYN-ACK with ENO was sent.
    pub(super) fn has_answered(&self) -> bool {
        self.local().is_some()
    }

    /// Whether encryption was agreed on in a SYN-ACK that was sent.
    pub(super) fn has_agreed(&self) -> bool {
        self.has_answered() && self.peers.any_agreed()
    }

    /// The first sequence numbers of both ends, as far as they are known.
    pub(super) fn isns(&self) -> [Option<u32>; 2] {
        [self.local().map(|seen| seen.isn), self.peers.current().map(|syn| syn.seen.isn)]
    }

    /// Processes a segment from the local kernel.
    pub(super) fn from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let (syn, ack) = (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK));
        if segment.flags.any(Flags::RST) {
            if kernel_ends_it(self.local(), &self.peers, segment) {
                return self.reset();
            }
            return Opened::send(Emit::Rewritten { options: OptionBuf::default(), window: segment.window });
        }
        match self.kernel {
            _ if syn && ack => self.syn_ack_out(cx, segment),
            Kernel::Silent { .. } if ack => {
                // A connection from before that the kernel takes for open, or in TIME-WAIT: it asks the peer (RFC 5961, section 4.2).
                self.kernel = Kernel::Silent { older: Some(segment.ack.0) };
                Opened::send(Emit::acknowledge(Side::Wire, Numbers::of(segment)))
            }
            // Whoever answered a SYN cannot send before the peer's acknowledgement; what it sends is of an older
            // connection.
            Kernel::Silent { .. } | Kernel::Answered(_) => Opened::stay(),
        }
    }

    /// Processes a segment from the wire.
    pub(super) fn from_wire(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        if segment.flags.any(Flags::RST) {
            return self.reset_in(cx, segment);
        }
        match (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK)) {
            (true, false) => self.syn_in(cx, segment),
            (false, true) => self.first_from_wire(cx, segment),
            // It answers what was never sent, or is nothing.
            (true, true) | (false, false) => Opened::stay(),
        }
    }

    fn reset(&self) -> Opened {
        let change = if self.has_agreed() { Change::ResetAfterAgreement(None) } else { Change::Reset };
        Opened { change, emit: Emit::Forward }
    }

    /// The peer's RST: believable only exactly where the next byte is expected (RFC 5961, section 3.2).
    fn reset_in(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        if self.peers.any_next(segment.seq.0) {
            return self.reset();
        }
        match self.kernel {
            Kernel::Silent { older: Some(next) } if next == segment.seq.0 => {
                // The peer did not receive that one. It retransmits its SYN.
                self.kernel = Kernel::Silent { older: None };
                let to_kernel = Some(Numbers::of(segment));
                Opened::send(Emit::Reset(Resets { to_kernel, to_peer: None, lost: None }))
            }
            Kernel::Silent { .. } | Kernel::Answered(_) => {
                cx.counters.resets_ignored += 1;
                Opened::stay()
            }
        }
    }

    /// What is left of it once it is plain TCP.
    fn left(&self, cx: &Context<'_>, why: FallbackReason) -> Left {
        let question = match why {
            FallbackReason::PeerNoEno => OpenQuestion::FirstAck,
            // It may have taken the answer to its first SYN.
            FallbackReason::Eno(_) if self.peers.any_agreed() => OpenQuestion::FirstAck,
            FallbackReason::AckWithoutEno => self.core.suspicion(cx, self.peers.current()),
            _ => OpenQuestion::None,
        };
        let (isns, answered) = (self.isns(), self.has_answered());
        Left { why, isns, opened_on: Side::Wire, answered, question, insists: false }
    }

    /// Plain TCP, or refusal if policy says so; the segment at hand is to be passed on as it is.
    fn fall_back(&self, cx: &Context<'_>, why: FallbackReason) -> Opened {
        self.core.fall_back(self.left(cx, why), Emit::Forward)
    }

    /// The peer opens.
    fn syn_in(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        let (area, seen) = (find_syn(segment.options()), Seen::new(segment, cx.now));
        if let (Some(peer), Kernel::Answered(local)) = (self.peers.current(), &self.kernel)
            && peer.seen.isn != seen.isn
        {
            // Forged, or the peer has forgotten the first one: then its RST answers this (RFC 5961, section 4.2).
            return self.core.challenge(cx, local, &peer.seen);
        }
        let eno = well_formed(&area);
        match self.peers.get(seen.isn) {
            Some(known) if known.eno.is_some() && eno.is_none() => {
                // ENO-13: the peer, or the path, has disabled ENO, for good (docs/readings.md, reading 9).
                let why = match &area {
                    SynArea::None => FallbackReason::PeerNoEno,
                    _ => FallbackReason::Eno(self.why_none(cx, &area)),
                };
                return self.fall_back(cx, why);
            }
            Some(known) => known.renew(seen),
            None => {
                let first = self.peers.is_empty();
                let (agreed, reply, why) = match self.first_syn(cx, segment, &seen.options) {
                    Ok((agreed, reply)) => (agreed, reply, None),
                    Err(why @ FallbackReason::Eno(reason)) => (Err(reason), Reply::default(), Some(why)),
                    Err(why) => (Err(PlainReason::NotOffered), Reply::default(), Some(why)),
                };
                self.peers.push(PeerSyn { seen, acceptable: Acceptable::syn(&area), eno, agreed, reply });
                if let Some(why) = why.filter(|_| first) {
                    return self.fall_back(cx, why);
                }
            }
        }
        self.core.to_kernel(cx, self.local(), segment, segment.window)
    }

    /// What a SYN of the peer's comes to, and this host's answer, which the kernel's SYN-ACK takes along.
    fn first_syn(
        &self,
        cx: &Context<'_>,
        segment: &Segment<'_, C>,
        said: &SynOptions,
    ) -> Result<(Result<Agreed, PlainReason>, Reply), FallbackReason> {
        if said.mptcp {
            return Err(FallbackReason::Mptcp);
        }
        if said.signed {
            return Err(FallbackReason::Signed);
        }
        if !cx.env.random_is_ready() {
            return Err(FallbackReason::NoEntropy);
        }
        let config = negotiation::config_for(&self.core.rules, cx.config);
        let required = self.core.requires_encryption();
        match negotiation::reply(&config, segment.options()) {
            // ENO-11: the kernel's SYN-ACK tells the peer, in a vacuous option.
            (Err(why), reply) if reply.option.is_some() && !required => Ok((Err(why), reply)),
            // To a peer with b = 1 nobody answers who waits for connections. But the kernel may be opening, too, and its SYN under way
            // (ENO-7); it is refused when the kernel answers.
            (Err(why @ PlainReason::SameRole), _) if required => Ok((Err(why), Reply::default())),
            (Err(PlainReason::PeerNoEno), _) if self.peers.is_empty() => Err(FallbackReason::PeerNoEno),
            (Err(why), _) => Err(FallbackReason::Eno(why)),
            agreed => Ok(agreed),
        }
    }

    /// Why a SYN with `area` is answered without ENO.
    fn why_none(&self, cx: &Context<'_>, area: &SynArea<'_>) -> PlainReason {
        let config = negotiation::config_for(&self.core.rules, cx.config);
        negotiation::conclude(&config, None, None, area).err().unwrap_or(PlainReason::NotOffered)
    }

    /// The local kernel answers: its SYN-ACK goes out with ENO, unless the peer's SYN had none.
    fn syn_ack_out(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let Some(syn) = self.peers.choose(segment.ack.0) else {
            // It answers a SYN of an older connection, or one that is not known any more: another one will come.
            return Opened::stay();
        };
        let seen = Seen::new(segment, cx.now);
        let mut options = strip_eno(segment.options());
        if !seen.options.signed {
            negotiation::accept(cx, &self.core.rules, self.core.link.key, syn, segment, options.room());
        }
        let declined = syn.agreed.as_ref().err().map(|why| FallbackReason::Eno(*why));
        let acceptable = syn.acceptable;
        let fits = syn.reply.option.as_deref().map(|own| options.push(own));
        self.kernel = Kernel::Answered(seen);
        match (declined, fits) {
            (Some(why), None) => return self.fall_back(cx, why),
            // The kernel still sees a lowered MSS, which is harmless.
            _ if seen.options.signed => return self.fall_back(cx, FallbackReason::Signed),
            (_, None | Some(false)) => return self.fall_back(cx, FallbackReason::OptionSpace),
            (_, Some(true)) => {}
        }
        // What the kernel answers, it has judged.
        let _ = self.core.phase.received(acceptable);
        self.core.phase.sent_ack();
        let emit = Emit::Rewritten { options, window: segment.window };
        match declined {
            // ENO-11: a vacuous answer has been given; nothing more will come of it.
            Some(why) => self.core.fall_back(self.left(cx, why), emit),
            None => Opened::send(emit),
        }
    }

    /// The peer's first non-SYN segment.
    fn first_from_wire(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        let Kernel::Answered(local) = self.kernel else {
            if self.peers.any_next(segment.seq.0) {
                // The answer to its SYN did not pass here.
                let left = self.left(cx, FallbackReason::OneDirection);
                return self.core.one_direction(cx, left, Side::Wire, segment);
            }
            return Opened::stay();
        };
        let Some(peer) = self.peers.current() else { return Opened::stay() };
        match syn_received::judge(&mut self.core, cx, &local, peer, segment) {
            Verdict::Ignored(opened) => opened,
            Verdict::Encrypted => {
                let rtt = Some(cx.now.since(local.at));
                match self.core.begin(cx, Opener::Peer, &local, &mut self.peers, rtt, None) {
                    Ok(encrypted) => {
                        Opened { change: Change::Encrypted(encrypted, Begin::WithSegment), emit: Emit::Nothing }
                    }
                    Err(why) => Opened { change: Change::Aborted(why, None), emit: Emit::Nothing },
                }
            }
            Verdict::Plain(why) => self.fall_back(cx, why),
            Verdict::OneSided => self.core.one_sided(cx, [&local, &peer.seen], segment, None),
        }
    }
}
