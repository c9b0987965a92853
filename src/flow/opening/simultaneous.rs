//! Simultaneous open (RFC 9293, section 3.5): both kernels open at once, and their SYNs cross. One of the two hosts was told
//! to be B (ENO-7); if none was, or both, the connection is plain TCP.
//!
//! Each kernel gets the peer's SYN and answers with a SYN-ACK, which goes out with the option of this host's SYN (ENO-14). The
//! peer's SYN-ACK decides (ENO-15). The kernel does not get to see it: what it is given is the acknowledgement of its SYN
//! alone, which all kernels understand in SYN-RECEIVED. If the peer's SYN is lost, its SYN-ACK comes first, and the
//! opening is an ordinary one here, but for the roles.

use tcpcrypt::eno::option::find_syn;
use tcpcrypt::{Acceptable, Decision};

use super::offered::{ActiveProgress, Offered};
use super::outcome::{Begin, Change, Emit, Opened};
use super::peers::{PeerSyn, Seen, well_formed};
use super::syn_received::{self, Verdict};
use super::syn_rewrite::strip_eno;
use crate::flow::Context;
use crate::flow::plain::FallbackReason;
use crate::wire::options::SynOptions;
use crate::wire::{C, P, Segment};

/// The peer opens although the local kernel does.
pub(super) fn syn_in(opening: &mut Offered, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
    if let Some(known) = opening.peers.current()
        && known.seen.isn != segment.seq.0
    {
        // Forged, or the peer has forgotten the first one: then its RST answers this (RFC 5961, section 4.2).
        return opening.core.challenge(cx, &opening.local, &known.seen);
    }
    if opening.progress == ActiveProgress::Answered {
        // Its SYN-ACK has overtaken it, and the kernel has that.
        return Opened::stay();
    }
    let area = find_syn(segment.options());
    let (seen, eno, acceptable) = (Seen::new(segment, cx.now), well_formed(&area), Acceptable::syn(&area));
    let first = opening.peers.is_empty();
    // ENO-13: a retransmitted SYN counts, too.
    if first || eno.is_none() {
        let agreed = opening.conclude(cx, &area);
        let declined = agreed.as_ref().err().copied();
        if first {
            opening.peers.push(PeerSyn { seen, acceptable, eno, agreed, reply: () });
        }
        if let Some(why) = declined {
            return opening.fall_back(cx, FallbackReason::Eno(why));
        }
    }
    let _ = opening.core.phase.received(acceptable);
    match opening.progress {
        // The kernel retransmits its SYN-ACK by itself.
        ActiveProgress::SynReceived => return Opened::stay(),
        ActiveProgress::SynSent => opening.progress = ActiveProgress::Crossed,
        ActiveProgress::Crossed | ActiveProgress::CrossedAndAcked | ActiveProgress::Answered => {}
    }
    opening.core.to_kernel(cx, Some(&opening.local), segment, segment.window)
}

/// The local kernel, which has opened, answers the peer's SYN.
pub(super) fn syn_ack_out(opening: &mut Offered, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Opened {
    // It counts now that the kernel has taken it, be it a SYN or, from a kernel that answers those too, a SYN-ACK.
    match opening.peers.take_up(segment.ack.0, &mut opening.core.phase) {
        // In SYN-SENT it has had a SYN of the peer's that is not known here any more.
        None => return Opened::stay(),
        Some(Err(why)) => return opening.fall_back(cx, FallbackReason::Eno(why)),
        Some(Ok(())) => {}
    }
    opening.local = Seen::new(segment, cx.now);
    let mut options = strip_eno(segment.options());
    // ENO-14: the option is that of the SYN.
    if !options.push(&opening.offer.option) {
        return opening.fall_back(cx, FallbackReason::OptionSpace);
    }
    opening.core.phase.sent_ack();
    let emit = Emit::Rewritten { options, window: segment.window };
    match opening.progress {
        // The peer has acknowledged the SYN before.
        ActiveProgress::CrossedAndAcked | ActiveProgress::Answered => crossed(opening, cx, emit),
        ActiveProgress::SynSent | ActiveProgress::Crossed | ActiveProgress::SynReceived => {
            opening.progress = ActiveProgress::SynReceived;
            Opened::send(emit)
        }
    }
}

/// The peer acknowledges this host's SYN with a SYN-ACK, after its SYN.
pub(super) fn syn_ack_in(opening: &mut Offered, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
    let Some(peer) = opening.peers.get(segment.seq.0) else {
        // One of the two is forged. As in SYN-RECEIVED (RFC 9293, section 3.10.7.4): who is genuine resets it.
        return match opening.peers.current() {
            Some(peer) => opening.core.challenge(cx, &opening.local, &peer.seen),
            None => Opened::stay(),
        };
    };
    let area = segment.options();
    peer.seen.window = segment.window;
    peer.seen.options.timestamps = peer.seen.options.timestamps.and(SynOptions::parse(area).timestamps);
    if opening.core.phase.received(Acceptable::syn_ack(&find_syn(area))) == Decision::Plain {
        return opening.fall_back(cx, FallbackReason::AckWithoutEno);
    }
    // ENO-15: an acknowledgement must have been sent as well.
    if opening.progress == ActiveProgress::SynReceived {
        return crossed(opening, cx, Emit::Nothing);
    }
    opening.progress = ActiveProgress::CrossedAndAcked;
    Opened::stay()
}

/// The peer's first segment that is no SYN, after this host's SYN-ACK.
pub(super) fn first_from_wire(opening: &mut Offered, cx: &mut Context<'_>, segment: &Segment<'_, C>) -> Opened {
    let Some(peer) = opening.peers.current() else { return Opened::stay() };
    match syn_received::judge(&mut opening.core, cx, &opening.local, peer, segment) {
        Verdict::Ignored(opened) => opened,
        // The times of segments of a simultaneous open say nothing about the round trip.
        Verdict::Encrypted => match opening.begin(cx, None, None) {
            Ok(encrypted) => Opened { change: Change::Encrypted(encrypted, Begin::WithSegment), emit: Emit::Nothing },
            Err(aborted) => aborted,
        },
        Verdict::Plain(why) => opening.fall_back(cx, why),
        Verdict::OneSided => {
            opening.core.one_sided(cx, [&opening.local, &peer.seen], segment, opening.kernel_expects())
        }
    }
}

/// Both SYNs are acknowledged with ENO.
fn crossed(opening: &mut Offered, cx: &mut Context<'_>, emit: Emit) -> Opened {
    debug_assert_eq!(opening.core.phase.decision(), Decision::Encrypted);
    match opening.begin(cx, None, None) {
        Ok(encrypted) => Opened { change: Change::Encrypted(encrypted, Begin::Crossed), emit },
        Err(aborted) => aborted,
    }
}
