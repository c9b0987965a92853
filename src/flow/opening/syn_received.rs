//! The peer's first segment that is no SYN, after this host's SYN-ACK: it says whether encryption is on (ENO-13, ENO-15).

use tcpcrypt::{Acceptable, Decision, Record};

use super::core::Core;
use super::outcome::{Emit, Numbers, Opened, Resets};
use super::peers::{PeerSyn, Seen};
use crate::flow::Context;
use crate::flow::plain::{FallbackReason, begins_frame, begins_init1};
use crate::store::Finding;
use crate::wire::options::SegmentOptions;
use crate::wire::{C, Segment};

/// What the peer's segment says.
pub(super) enum Verdict {
    /// Nothing; this is what it comes to.
    Ignored(Opened),
    /// Encryption is on.
    Encrypted,
    /// Encryption is off.
    Plain(FallbackReason),
    /// It came without ENO, and yet its data is encrypted.
    OneSided,
}

/// What a segment of the peer's with ACK and without SYN says, after a SYN-ACK of the `local` kernel was sent.
pub(super) fn judge<R>(
    core: &mut Core,
    cx: &mut Context<'_>,
    local: &Seen,
    peer: &PeerSyn<R>,
    segment: &Segment<'_, C>,
) -> Verdict {
    let options = SegmentOptions::parse(segment.options());
    let ahead = segment.seq.0.wrapping_sub(peer.seen.next());
    // RFC 9293, section 3.10.7.4, in SYN-RECEIVED: what is outside of the window is answered with what is expected ...
    if ahead >= u32::from(local.window).max(1) {
        cx.counters.out_of_window += 1;
        return Verdict::Ignored(core.challenge(cx, local, &peer.seen));
    }
    // ... and what acknowledges something else with a RST: whoever takes that for its own has another connection in mind.
    if segment.ack.0 != local.next() {
        cx.counters.out_of_window += 1;
        if ahead != 0 {
            return Verdict::Ignored(Opened::stay());
        }
        let to_peer = Some(Numbers::of(segment).turned());
        return Verdict::Ignored(Opened::send(Emit::Reset(Resets { to_kernel: None, to_peer, lost: None })));
    }
    // With the keys there, segments behind a lost one may wait. Others have lost the acknowledgement of the SYN-ACK on the
    // way, and will be sent again.
    if ahead != 0 && !(peer.session().is_some() && options.eno) {
        return Verdict::Ignored(Opened::stay());
    }
    match core.phase.received(Acceptable::non_syn(options.eno)) {
        Decision::Encrypted => Verdict::Encrypted,
        Decision::Plain | Decision::Pending if is_encrypted(cx, peer, segment.payload()) => Verdict::OneSided,
        Decision::Plain | Decision::Pending if options.eno => Verdict::Plain(FallbackReason::NotNegotiated),
        Decision::Plain | Decision::Pending => {
            cx.learn(core.link.key, false, Finding::AckWithoutEno);
            Verdict::Plain(FallbackReason::AckWithoutEno)
        }
    }
}

/// Whether the first data of a stream is that of a peer that encrypts.
fn is_encrypted<R>(cx: &Context<'_>, peer: &PeerSyn<R>, payload: &[u8]) -> bool {
    let resumed = peer.session().map(|session| Record::new(cx.provider, session));
    begins_init1(payload) || resumed.is_some_and(|mut record| begins_frame(&mut record, payload))
}
