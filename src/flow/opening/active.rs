//! Active open: the local kernel's SYN goes out with ENO, and the peer answers.

use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::{Acceptable, PlainReason};

use super::core::{Core, kernel_ends_it};
use super::negotiation;
use super::offered::{ActiveProgress, Offered};
use super::outcome::{Begin, Change, Emit, Numbers, Opened};
use super::peers::{PeerSyn, PeerSyns, Seen, well_formed};
use super::simultaneous;
use super::syn_rewrite::strip_eno;
use crate::flow::connection::Sender;
use crate::flow::plain::FallbackReason;
use crate::flow::{Context, ProbeMode, Side};
use crate::store::{Advice, Finding, PathKey};
use crate::wire::options::{self, OptionBuf, SegmentOptions, SynOptions, kind};
use crate::wire::{C, Flags, P, Segment};

/// SYNs with ENO of a connection that retries it on a path that seemed to drop them: any single one can be lost.
const RETRY_SYNS: u8 = 2;

/// An opening by the local kernel.
pub(super) struct ActiveOpening {
    pub(super) offered: Offered,
    /// SYNs sent with ENO.
    sent: u8,
    /// Maximum number of them, if policy allows plain TCP.
    tries: u8,
}

impl ActiveOpening {
    /// The local kernel's first SYN: it offers ENO, unless there is a reason not to. [`Self::send_syn`] must follow.
    pub(super) fn open(core: &Core, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Result<Self, FallbackReason> {
        let seen = Seen::new(segment, cx.now);
        if !core.requires_encryption() && matches!(find_syn(segment.options()), SynArea::Option(_)) {
            // Its stack, or one behind this gateway, negotiates end to end.
            return Err(FallbackReason::LocalEno);
        }
        if !cx.env.random_is_ready() {
            return Err(FallbackReason::NoEntropy);
        }
        match seen.options {
            SynOptions { mptcp: true, .. } => return Err(FallbackReason::Mptcp),
            SynOptions { signed: true, .. } => return Err(FallbackReason::Signed),
            _ => {}
        }
        let tries = tries(core, cx)?;
        let room = strip_eno(segment.options()).room();
        let offer = negotiation::offer(cx, &core.rules, core.link.key, segment, room);
        let offer = offer.ok_or(FallbackReason::OptionSpace)?;
        let (core, peers) = (core.clone(), PeerSyns::none());
        let offered = Offered { core, local: seen, offer, peers, progress: ActiveProgress::SynSent };
        Ok(Self { offered, sent: 0, tries })
    }

    /// Sends the kernel's SYN on, with ENO.
    pub(super) fn send_syn(&mut self, cx: &Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let opening = &mut self.offered;
        self.sent = self.sent.saturating_add(1);
        // ENO-14: the option is remembered for as long as the kernel retransmits its SYN.
        opening.core.deadline = cx.now + cx.config.handshake_timeout;
        let mut options = strip_eno(segment.options());
        if !options.push(&opening.offer.option) {
            return opening.fall_back(cx, FallbackReason::OptionSpace);
        }
        Opened::send(match opening.core.rules.probe {
            Some(ProbeMode::Insist { hops }) if self.sent == 1 => Emit::Traced { options, hops },
            _ => Emit::Rewritten { options, window: segment.window },
        })
    }

    /// Processes a segment from the local kernel.
    pub(super) fn from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let opening = &mut self.offered;
        if segment.flags.any(Flags::RST) {
            if kernel_ends_it(Some(&opening.local), &opening.peers, segment) {
                return self.reset();
            }
            return Opened::send(Emit::Rewritten { options: OptionBuf::default(), window: segment.window });
        }
        match (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK)) {
            (true, true) => simultaneous::syn_ack_out(opening, cx, segment),
            (true, false) => self.syn_again(cx, segment),
            (false, _) => self.first_from_kernel(cx, segment),
        }
    }

    /// Processes a segment from the wire.
    pub(super) fn from_wire(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        let opening = &mut self.offered;
        let acknowledges = segment.flags.any(Flags::ACK) && segment.ack.0 == opening.local.next();
        if segment.flags.any(Flags::RST) {
            // Believable in SYN-SENT only if it acknowledges the SYN, after a SYN of the peer's only if it is exactly
            // where the next byte is expected (RFC 5961, section 3.2).
            if acknowledges || opening.peers.any_next(segment.seq.0) {
                return self.reset();
            }
            cx.counters.resets_ignored += 1;
            return Opened::stay();
        }
        match (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK)) {
            (true, true) if !acknowledges => {
                // An old duplicate, or forged: the kernel knows how to answer.
                let options = strip_eno(segment.options());
                Opened::send(Emit::Rewritten { options, window: segment.window })
            }
            (true, true) => match opening.progress {
                ActiveProgress::SynSent | ActiveProgress::Answered => self.syn_ack_in(cx, segment),
                ActiveProgress::Crossed | ActiveProgress::CrossedAndAcked | ActiveProgress::SynReceived => {
                    simultaneous::syn_ack_in(opening, cx, segment)
                }
            },
            (true, false) => simultaneous::syn_in(opening, cx, segment),
            (false, true) if !acknowledges && opening.peers.is_empty() => {
                // Of a connection that the peer has and this host has not: the kernel resets it, to begin anew (RFC 9293, section
                // 3.5.1). What else is in the segment is not for it (ENO-15).
                Opened::send(Emit::acknowledge(Side::Plain, Numbers::of(segment)))
            }
            (false, true) if opening.progress == ActiveProgress::SynReceived => {
                simultaneous::first_from_wire(opening, cx, segment)
            }
            // A segment of the peer that overtook nothing: the kernel has not acknowledged the SYN-ACK yet.
            (false, _) => Opened::stay(),
        }
    }

    fn reset(&self) -> Opened {
        let opening = &self.offered;
        let change =
            if opening.has_agreed() { Change::ResetAfterAgreement(opening.kernel_expects()) } else { Change::Reset };
        Opened { change, emit: Emit::Forward }
    }

    /// The local kernel retransmits its SYN.
    fn syn_again(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let opening = &mut self.offered;
        opening.local = Seen::new(segment, cx.now);
        if self.sent >= self.tries
            && opening.peers.is_empty()
            && !opening.core.requires_encryption()
            && may_go_without(&opening.core, cx)
        {
            // ENO-14: the path may be dropping SYNs with options it does not know.
            return opening.fall_back(cx, FallbackReason::SynLost);
        }
        if matches!(opening.progress, ActiveProgress::Crossed | ActiveProgress::CrossedAndAcked) {
            // It has not seen the peer's.
            opening.progress = ActiveProgress::SynSent;
        }
        self.send_syn(cx, segment)
    }

    /// The peer answers.
    fn syn_ack_in(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
        let opening = &mut self.offered;
        let (area, seen) = (find_syn(segment.options()), Seen::new(segment, cx.now));
        let eno = well_formed(&area);
        let first = opening.peers.is_empty();
        match opening.peers.get(seen.isn) {
            // Once there was one with ACK, those without the option do not count (ENO-13).
            Some(known) if known.acceptable.has_ack() && (eno.is_none() || known.eno == eno) => known.renew(seen),
            _ => {
                let agreed = opening.conclude(cx, &area);
                let declined = agreed.as_ref().err().copied().filter(|_| first);
                let syn = PeerSyn { seen, acceptable: Acceptable::syn_ack(&area), eno, agreed, reply: () };
                match opening.peers.get(seen.isn) {
                    // Another answer for the same number, or the first behind its SYN: nothing of that stays.
                    Some(known) => *known = syn,
                    None => opening.peers.push(syn),
                }
                if let Some(why) = declined {
                    return self.answered_without(cx, segment, &area, why);
                }
            }
        }
        opening.progress = ActiveProgress::Answered;
        // Until keys are made, the kernel must not send data that would have to wait here. A resumed session has keys
        // already.
        let window = match opening.peers.current() {
            Some(syn) if syn.agreed.is_err() => segment.window,
            Some(syn) if syn.session().is_some() => {
                Sender::first_window(&opening.core.parameters(cx, &opening.local, &syn.seen, None).0)
            }
            _ => 0,
        };
        opening.core.to_kernel(cx, Some(&opening.local), segment, window)
    }

    /// The peer's only answer leads to plain TCP.
    fn answered_without(
        &self,
        cx: &mut Context<'_>,
        segment: &Segment<'_, C>,
        area: &SynArea<'_>,
        why: PlainReason,
    ) -> Opened {
        let Offered { core, offer, .. } = &self.offered;
        if matches!(area, SynArea::None) {
            // No listening peer answers b = 1 (ENO-7).
            if !negotiation::config_for(&core.rules, cx.config).active_b {
                cx.learn(core.link.key, true, Finding::NoEno);
            }
            return self.offered.fall_back(cx, FallbackReason::PeerNoEno);
        }
        if options::walk(segment.options()).any(|(k, option)| k == kind::ENO && option == offer.option) {
            cx.learn(core.link.key, true, Finding::Echoed);
        }
        self.offered.fall_back(cx, FallbackReason::Eno(why))
    }

    /// The local kernel's first non-SYN segment.
    fn first_from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
        let opening = &mut self.offered;
        let follows = segment.flags.any(Flags::ACK) && segment.seq.0 == opening.local.next();
        match opening.progress {
            // It has received an answer that did not pass here.
            ActiveProgress::SynSent if follows && opening.peers.choose(segment.ack.0).is_none() => {
                return opening.core.one_direction(
                    cx,
                    opening.left(cx, FallbackReason::OneDirection),
                    Side::Plain,
                    segment,
                );
            }
            ActiveProgress::Answered => {}
            // Whoever answered a SYN cannot send before the peer's acknowledgement; what it sends is of an older
            // connection.
            ActiveProgress::SynSent
            | ActiveProgress::Crossed
            | ActiveProgress::CrossedAndAcked
            | ActiveProgress::SynReceived => return Opened::stay(),
        }
        match opening.peers.take_up(segment.ack.0, &mut opening.core.phase) {
            None if follows => {
                let left = opening.left(cx, FallbackReason::OneDirection);
                return opening.core.one_direction(cx, left, Side::Plain, segment);
            }
            None => return Opened::stay(),
            Some(Err(why)) => return opening.fall_back(cx, FallbackReason::Eno(why)),
            Some(Ok(())) => {}
        }
        let rtt = opening.peers.current().map(|syn| syn.seen.at.since(opening.local.at));
        match opening.begin(cx, rtt, SegmentOptions::parse(segment.options()).timestamps) {
            Ok(encrypted) => Opened { change: Change::Encrypted(encrypted, Begin::WithSegment), emit: Emit::Nothing },
            Err(aborted) => aborted,
        }
    }
}

fn may_go_without(core: &Core, cx: &mut Context<'_>) -> bool {
    let (path, session) = (PathKey::new(core.link.key.remote(), true), cx.knows(core.link.key));
    cx.paths.may_go_without(cx.now, path, session, cx.now.since(core.began))
}

/// How many SYNs offer ENO before one goes without; or why none does, if what is remembered of the path to the peer speaks against
/// it. Policy `required` has no choice.
fn tries(core: &Core, cx: &mut Context<'_>) -> Result<u8, FallbackReason> {
    match core.rules.probe {
        Some(ProbeMode::Bare) => return Err(FallbackReason::Probe),
        Some(ProbeMode::Offer | ProbeMode::Insist { .. }) => return Ok(u8::MAX),
        None if core.requires_encryption() => return Ok(cx.config.syn_attempts),
        None => {}
    }
    match cx.paths.advice(cx.now, PathKey::new(core.link.key.remote(), true)) {
        Advice::Offer => Ok(cx.config.syn_attempts),
        Advice::TryAgain => {
            cx.counters.paths_retried += 1;
            Ok(RETRY_SYNS)
        }
        Advice::Avoid(finding) => {
            cx.counters.paths_avoided += 1;
            Err(match finding {
                Finding::SynDropped => FallbackReason::PathDropsEno,
                _ => FallbackReason::PathStripsEno,
            })
        }
    }
}
