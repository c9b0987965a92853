//! Segments from the peer, on their way to the local kernel.

use super::{Before, Encrypted, Liveness};
use crate::flow::connection::action::{Action, Bare, Cut, SackBlocks};
use crate::flow::connection::outcome::{Exchange, Next, Outcome};
use crate::flow::connection::receiver::Progress;
use crate::flow::connection::sender::{Acknowledgement, KernelView};
use crate::flow::context::Context;
use crate::flow::env::Side;
use crate::flow::gate::{self, Position, Reason, Verdict};
use crate::time::Instant;
use crate::wire::options::SegmentOptions;
use crate::wire::{C, Flags, Offset, Segment};

impl Encrypted {
    /// Processes a segment from the wire. Its checksum is correct.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, segment: &mut Segment<'_, C>) -> Next {
        let outcome = self.take_from_wire(cx, segment);
        self.conclude(cx, outcome)
    }

    fn take_from_wire(&mut self, cx: &mut Context<'_>, segment: &mut Segment<'_, C>) -> Outcome<Next> {
        self.receiver.forget_duplicate();
        let options = SegmentOptions::parse(segment.options());
        let start = self.receiver.position_c(segment.seq);
        let has_data = !segment.payload.is_empty();
        match self.judge(cx.now, start, segment, &options) {
            Verdict::Acceptable => {}
            other => return Ok(self.answer(cx, other, start, segment.payload_len())),
        }
        self.note_use(cx.now);
        self.emitter.learn(Side::Wire, segment);
        let (acknowledged, _) = self.receiver.advertised();
        self.emitter.note_peer(options.timestamps, options.eno, start <= acknowledged, cx.now);
        let before = self.before();
        let (ack, window) = (segment.ack, segment.window);
        let sack = self.sender.note_acknowledgement(cx, &Acknowledgement { start, ack, window, sack: options.sack() });
        let fin = segment.flags.any(Flags::FIN);
        if has_data && segment.is_congested() {
            self.receiver.note_congestion();
        }
        let flags = Flags(segment.flags.0 & (Flags::ECE.0 | Flags::CWR.0));
        if has_data || fin {
            let payload = segment.payload_mut();
            let progress = self.receiver.take_in(cx, self.keys.opener(), start, payload, fin)?;
            if progress == Progress::InitIsWhole && self.exchange == Exchange::None {
                self.exchange = Exchange::Due;
            }
        }
        self.pass_on(cx, &before, sack, !has_data && !fin, flags)?;
        Ok(Next::Stay)
    }

    /// Checks a segment at the gate.
    fn judge(&self, now: Instant, start: Offset<C>, segment: &Segment<'_, C>, options: &SegmentOptions) -> Verdict {
        let (acknowledged, edge) = self.receiver.advertised();
        let (unacknowledged, sent, max_window) = self.sender.peer_view();
        let opened = self.receiver.opened();
        let position = Position { acknowledged, opened, edge, unacknowledged, sent, max_window };
        let header = gate::Header {
            flags: segment.flags,
            start,
            len: segment.payload_len(),
            ack: self.sender.position_c(segment.ack),
            timestamps: options.timestamps,
        };
        gate::judge(&position, self.emitter.clocks(), now, &header)
    }

    /// Answers a segment with `len` bytes of payload in which nothing counts.
    fn answer(&mut self, cx: &mut Context<'_>, verdict: Verdict, start: Offset<C>, len: usize) -> Next {
        match verdict {
            Verdict::Reset => {
                cx.actions.push(Action::ResetKernel);
                return Next::Reset(Side::Wire);
            }
            // The kernel answers it.
            Verdict::Probe => cx.actions.push(Action::PROBE_KERNEL),
            Verdict::Repeated => {
                cx.counters.segments_repeated += 1;
                self.receiver.note_repeated(cx, start..start + len);
            }
            Verdict::Refused(why) => self.refuse(cx, why, len > 0),
            Verdict::Acceptable => {}
        }
        Next::Stay
    }

    /// Counts an unacceptable segment, and answers it if that may help its sender.
    fn refuse(&mut self, cx: &mut Context<'_>, why: Reason, has_data: bool) {
        let counters = &mut *cx.counters;
        let (counter, answer) = match why {
            Reason::OutOfWindow => (&mut counters.out_of_window, Some(has_data)),
            Reason::ResetInWindow => (&mut counters.resets_ignored, Some(false)),
            Reason::ResetElsewhere => (&mut counters.resets_ignored, None),
            // Our acknowledgement of the SYN-ACK was lost, or somebody forges.
            Reason::Syn => (&mut counters.syns_ignored, Some(false)),
            Reason::NoAck => (&mut counters.bad_acknowledgements, None),
            Reason::OldTimestamp => (&mut counters.old_timestamps, Some(has_data)),
            Reason::Acknowledgement => (&mut counters.bad_acknowledgements, Some(has_data)),
        };
        *counter += 1;
        if let Some(data) = answer {
            self.receiver.challenge(cx, data);
        }
    }

    /// Tells both sides the result of a segment. `bare`: it had no data, and may nevertheless tell the kernel
    /// something.
    pub(super) fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        before: &Before,
        sack: SackBlocks,
        bare: bool,
        flags: Flags,
    ) -> Outcome {
        if self.receiver.is_confirmed() && !self.keys.peer_is_confirmed() {
            let key = self.key();
            self.keys.confirm_peer(cx, key);
        }
        // Outbound: what the peer's window now admits.
        self.sender.flush(cx, self.keys.record(), Cut::Path, Flags::default())?;
        // Inbound: plaintext, which carries the acknowledgement; or the acknowledgement alone.
        self.receiver.deliver(cx, flags);
        self.receiver.acknowledge_held();
        let (_, delivered) = self.receiver.kernel_view();
        let delivered = delivered > before.delivered;
        let KernelView { acknowledged, edge, .. } = self.sender.kernel_view();
        let news = acknowledged > before.kernel.acknowledged || edge > before.kernel.edge;
        if self.liveness == Liveness::Asked {
            self.answer_liveness(cx, delivered);
        } else if !sack.is_empty() || (!cx.actions.tells_kernel() && (news || bare)) {
            cx.actions.push(Action::TellKernel { bare: Bare::Next, flags, sack });
        }
        // The kernel acknowledges what it was given; everything else is acknowledged here.
        if self.receiver.peer_view().acknowledged > before.peer.acknowledged && !delivered {
            cx.actions.owe_acknowledgement();
        }
        Ok(())
    }

    /// Tells the kernel that the peer is alive once that is authentic: it has answered the rekey.
    fn answer_liveness(&mut self, cx: &mut Context<'_>, delivered: bool) {
        let answered = self.keys.record().is_some_and(|record| delivered || !record.rekey_outstanding());
        if answered {
            self.liveness = Liveness::Unasked;
            if !delivered {
                cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
            }
        }
    }
}
