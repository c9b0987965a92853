//! Segments from the local kernel, on their way to the wire.

use super::{Encrypted, Liveness};
use crate::flow::connection::action::{Action, Bare};
use crate::flow::connection::outcome::{Next, Outcome};
use crate::flow::connection::sender::{KernelSegment, KernelView};
use crate::flow::context::Context;
use crate::flow::env::Side;
use crate::flow::gate::{self, LocalPosition, Reason, Verdict};
use crate::wire::options::SegmentOptions;
use crate::wire::{Flags, Offset, P, Segment};

impl Encrypted {
    /// Processes a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Next {
        let outcome = self.take_from_kernel(cx, segment);
        self.conclude(cx, outcome)
    }

    fn take_from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Outcome<Next> {
        let start = self.sender.position_p(segment.seq);
        let syn = segment.flags.any(Flags::SYN);
        match self.judge_local(segment, start) {
            Verdict::Reset => {
                cx.actions.push(Action::ResetPeer);
                return Ok(Next::Reset(Side::Plain));
            }
            Verdict::Refused(why) if !syn => {
                self.refuse_local(cx, why, !segment.payload.is_empty());
                return Ok(Next::Stay);
            }
            _ => {}
        }
        self.note_use(cx.now);
        if syn {
            // The kernel has not seen the acknowledgement of its SYN-ACK.
            cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
            return Ok(Next::Stay);
        }
        let options = SegmentOptions::parse(segment.options());
        self.emitter.note_kernel(options.timestamps, cx.now);
        let before = self.receiver.peer_view();
        if self.receiver.note_kernel(cx, segment.ack, segment.window) || !options.sack().is_empty() {
            self.receiver.redeliver(cx);
        }
        if segment.flags.any(Flags::URG) && segment.urgent > 0 {
            // The pointer names the byte after the last urgent one (RFC 6093, section 3.1).
            self.sender.note_urgent(start + usize::from(segment.urgent) - 1_i64);
        }
        let (data, fin) = (segment.payload(), segment.flags.any(Flags::FIN));
        let flags = Flags(segment.flags.0 & (Flags::ECE.0 | Flags::CWR.0 | Flags::PSH.0));
        let acknowledgement = Action::TellPeer { bare: Bare::Next, flags: flags.without(Flags::PSH) };
        // Some keep-alives have a byte of garbage in place of an acknowledged one (RFC 9293, section 3.8.4).
        let behind = start < self.sender.kernel_view().acknowledged;
        if !fin && (data.is_empty() || (data.len() == 1 && behind)) {
            if behind {
                self.answer_probe(cx, flags)?;
            } else {
                cx.actions.push(acknowledgement);
            }
        } else {
            // With data in flight the kernel's own timers show whether the peer is alive.
            self.liveness = Liveness::Unasked;
            let gso = segment.offload().gso.map(|gso| usize::from(gso.size));
            let bytes = KernelSegment { start, data, fin, gso, flags };
            self.sender.take_in(cx, self.keys.record(), &bytes, self.emitter.options_len())?;
            if self.receiver.peer_view() != before && !cx.actions.tells_peer() {
                cx.actions.push(acknowledgement);
            }
        }
        // Window opened by the kernel admits what waits.
        self.receiver.deliver(cx, Flags::default());
        Ok(Next::Stay)
    }

    /// Checks a segment of the local end at the gate.
    fn judge_local(&self, segment: &Segment<'_, P>, start: Offset<P>) -> Verdict {
        let KernelView { acknowledged, next, edge } = self.sender.kernel_view();
        let (taken, delivered) = self.receiver.kernel_view();
        let position = LocalPosition { acknowledged, next, edge, taken, delivered };
        gate::judge_local(&position, segment.flags, start, self.receiver.position_p(segment.ack))
    }

    /// Counts an unacceptable segment of the local end, and answers it with what is expected: if the local end does
    /// not have that connection, its RST is then exact (RFC 5961, section 3.2).
    fn refuse_local(&mut self, cx: &mut Context<'_>, why: Reason, has_data: bool) {
        let counters = &mut *cx.counters;
        *match why {
            Reason::ResetInWindow | Reason::ResetElsewhere => &mut counters.resets_ignored,
            Reason::Acknowledgement | Reason::NoAck => &mut counters.bad_acknowledgements,
            Reason::OutOfWindow | Reason::Syn | Reason::OldTimestamp => &mut counters.out_of_window,
        } += 1;
        if self.sender.may_answer(cx.now, has_data) {
            cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
        }
    }

    /// A segment without data before what the peer acknowledged is either a window probe, which the peer gets as one,
    /// or a keep-alive. That becomes a rekey (TC-35), so that what the kernel takes for the answer is authentic.
    fn answer_probe(&mut self, cx: &mut Context<'_>, flags: Flags) -> Outcome {
        let KernelView { next, edge, .. } = self.sender.kernel_view();
        let idle = self.sender.is_idle();
        if let Some(record) = self.keys.record()
            && edge > next
            && idle
            && !record.fin_sealed()
            // After its FINp frame the peer answers no rekey (docs/readings.md, reading 11).
            && self.receiver.is_open()
            // Nor may it be able to while this host's application does not read.
            && self.receiver.has_room_for_answer()
            && !(record.rekey_outstanding() && self.receiver.is_full())
        {
            self.liveness = Liveness::Asked;
            self.sender.start_rekey(cx, record)?;
            if !cx.actions.tells_peer() {
                // An earlier one is still unanswered. A peer that no longer knows the connection says so.
                cx.actions.push(Action::probe_peer(flags));
            }
            return Ok(());
        }
        // A rekey in flight is retransmitted by the timer for enotun's own bytes.
        if idle || self.liveness == Liveness::Unasked {
            self.liveness = Liveness::Unasked;
            cx.actions.push(Action::probe_peer(flags));
        }
        Ok(())
    }
}
