//! From the local kernel to the wire: plaintext in P becomes frames in C.
//!
//! New bytes are framed in order, once. What the kernel sends again is answered with the frames that were made then
//! (TC-27), never by sealing again. What only exists in C (Init messages, empty rekey frames) the kernel cannot
//! send again: a timer here does (RFC 6298).

use std::ops::Range;

use tcpcrypt::frame::MAX_FRAME;

use super::context::Context;
use super::encrypted::{AbortReason, Bare, Cut, Encrypted, Next, Stage, piece};
use super::gate::{self, LocalPosition, Reason, Verdict};
use super::inbound::Eof;
use super::outbound::Fin;
use crate::wire::options::SegmentOptions;
use crate::wire::{C, Flags, Offset, P, Segment, Seq};

/// Own retransmissions without an answer before the connection is given up: at the least 942 s, as long as the kernel's
/// `tcp_retries2`, whose pauses grow to twice as long.
const MAX_RETRIES: u8 = 23;
/// As many count of a peer that answers with a closed window: the time between two is the longest then.
const PATIENT_RETRIES: u8 = 10;
/// With this many frames in flight no empty one is added.
const MAX_UNANSWERED: usize = 1024;
/// What every path takes (RFC 9293, section 3.7.1): smaller segments of the kernel's say nothing of the path.
const SMALL_SEGMENT: usize = 536;
/// P bytes beyond a gap (the TUN lost a packet) that are kept for one connection.
const MAX_EARLY: usize = 1 << 20;

impl Encrypted {
    /// Takes in a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Next {
        self.wire_told = false;
        self.kernel_told = false;
        let options = SegmentOptions::parse(packet.options());
        let start = self.out.next().nearest(self.out.isn, packet.seq);
        match self.judge_local(packet, start) {
            Verdict::Reset => {
                self.emit_wire_bare(cx, Bare::Next, Flags::RST);
                self.kernel_gone = true;
                return Next::Reset;
            }
            Verdict::Refused(why) if !packet.flags.any(Flags::SYN) => {
                self.refuse_local(cx, why, !packet.payload.is_empty());
                return Next::Stay;
            }
            _ => {}
        }
        self.note_use(cx.now);
        if packet.flags.any(Flags::SYN) {
            // The kernel has not seen the acknowledgement of its SYN-ACK.
            let seq = self.inn.delivered;
            self.emit_plain_bare(cx, seq, Flags::default(), &[]);
            return Next::Stay;
        }
        if let (Some(clocks), Some(ts)) = (&mut self.clocks, options.timestamps) {
            clocks.from_kernel(ts, cx.now);
        }
        let told = self.inn.told();
        let has_room_again = self.inn.from_kernel(cx.now, packet.ack, packet.window, cx.pool);
        if has_room_again || !options.sack().is_empty() {
            self.redeliver(cx);
        }
        let keep = Flags(packet.flags.0 & (Flags::ECE.0 | Flags::CWR.0 | Flags::PSH.0));

        let data = packet.payload();
        let fin = packet.flags.any(Flags::FIN);
        if packet.flags.any(Flags::URG) && packet.urgent > 0 {
            // The pointer names the byte after the last urgent one (RFC 6093, section 3.1).
            let last = start + usize::from(packet.urgent) - 1_i64;
            self.out.urgent = self.out.urgent.max(Some(last));
        }
        // Some keep-alives have a byte of garbage in the place of one that was acknowledged (RFC 9293, section 3.8.4).
        let garbage = data.len() == 1 && start < self.out.ends.base().p;
        if (data.is_empty() || garbage) && !fin {
            match self.answer_probe(cx, start, keep) {
                Some(Next::Stay) => {}
                Some(next) => return next,
                None => {
                    self.emit_wire_bare(cx, Bare::Next, keep.without(Flags::PSH));
                }
            }
        } else {
            // With data in flight the kernel's own timers say whether the peer is alive.
            self.liveness_asked = false;
            let gso = packet.offload().gso.map(|g| usize::from(g.size));
            let next = self.accept(cx, start, data, fin, gso, keep);
            if next != Next::Stay {
                return next;
            }
            if !self.wire_told && self.inn.told() != told {
                self.emit_wire_bare(cx, Bare::Next, keep.without(Flags::PSH));
            }
        }
        // Window the kernel has opened lets in what waits.
        self.deliver(cx, Flags::default());
        self.next()
    }

    /// Takes a segment of the local end through the gate.
    fn judge_local(&self, packet: &Segment<'_, P>, start: Offset<P>) -> Verdict {
        let (inn, out) = (&self.inn, &self.out);
        let position = LocalPosition {
            acknowledged: out.ends.base().p,
            next: out.next(),
            edge: out.told_edge,
            taken: inn.kernel_ack,
            delivered: inn.delivered,
        };
        gate::judge_local(&position, packet.flags, start, inn.kernel_ack.nearest(inn.isn, packet.ack))
    }

    /// Counts a segment of the local end that is not believed, and answers it with what is expected: if that is not what it has,
    /// its RST is exact then (RFC 5961, section 3.2).
    fn refuse_local(&mut self, cx: &mut Context<'_>, why: Reason, has_data: bool) {
        let counters = &mut *cx.counters;
        *match why {
            Reason::ResetInWindow | Reason::ResetElsewhere => &mut counters.resets_ignored,
            Reason::Acknowledgement | Reason::NoAck => &mut counters.bad_acknowledgements,
            Reason::OutOfWindow | Reason::Syn | Reason::OldTimestamp => &mut counters.out_of_window,
        } += 1;
        if self.out.answers.allow(cx.now, has_data) {
            let seq = self.inn.delivered;
            self.emit_plain_bare(cx, seq, Flags::default(), &[]);
        }
    }

    /// A segment without data before what the peer acknowledged is a window probe, which the peer sees as one, or a
    /// keep-alive. That becomes a rekey (TC-35): what the kernel takes for the answer is then authentic.
    fn answer_probe(&mut self, cx: &mut Context<'_>, start: Offset<P>, keep: Flags) -> Option<Next> {
        if start >= self.out.ends.base().p {
            return None;
        }
        let keep_alive = self.out.told_edge > self.out.next() && self.out.ends.is_empty();
        if let Stage::Ready(record) = &self.stage
            && keep_alive
            && !record.fin_sealed()
            // After its FINp frame the peer answers no rekey (docs/readings.md, reading 11).
            && self.inn.eof == Eof::Open
            // Nor may it be able to as long as this host's application does not read.
            && self.inn.has_room_for_answer()
            && !(record.rekey_outstanding() && self.inn.is_full())
        {
            self.liveness_asked = true;
            let next = self.start_rekey(cx);
            if next == Next::Stay && !self.wire_told {
                // An earlier one is not answered yet. A peer that does not know the connection any more says so.
                self.emit_wire_bare(cx, Bare::Probe, keep.without(Flags::PSH));
            }
            return Some(next);
        }
        // A rekey in flight is repeated by the timer for enotun's own bytes.
        if self.out.ends.is_empty() || !self.liveness_asked {
            self.liveness_asked = false;
            self.emit_wire_bare(cx, Bare::Probe, keep.without(Flags::PSH));
        }
        Some(Next::Stay)
    }

    /// Takes in bytes at `start`, old or new.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        start: Offset<P>,
        data: &[u8],
        fin: bool,
        gso: Option<usize>,
        keep: Flags,
    ) -> Next {
        let next = self.out.next();
        let end = start + data.len();
        // The window is not the sender's to exceed, but for what it was told with rounding, and a probe.
        if end.ahead_of(self.out.told_edge) > (1 << self.out.peer_scale) + MAX_FRAME {
            cx.counters.out_of_window += 1;
            return Next::Stay;
        }
        if start > next {
            // The TUN lost what is between; ask the kernel for it.
            if self.out.early.held() < MAX_EARLY {
                self.out.early.insert(start, data);
            }
            let mut ranges = std::array::from_fn(|_| Offset::START..Offset::START);
            let n = self.out.early.sack(next, &mut ranges);
            let isn = self.out.isn;
            let blocks = ranges.map(|r: std::ops::Range<Offset<P>>| (r.start.seq(isn).0, r.end.seq(isn).0));
            let seq = self.inn.delivered;
            self.emit_plain_bare(cx, seq, Flags::default(), blocks.get(..n).unwrap_or(&[]));
            return Next::Stay;
        }
        if start < next {
            let to = (end + i64::from(fin)).min(next);
            self.out.note_repeated(start, cx.now);
            // One packet leaves as one segment, if it was framed as one.
            let segment = gso.unwrap_or(data.len()) + tcpcrypt::frame::OVERHEAD;
            let urgent = self.out.urgent.map_or(0, |_| tcpcrypt::frame::URGENT_LEN);
            self.resend(cx, start..to, segment + urgent, keep);
        }
        if self.out.fin != Fin::Open {
            return Next::Stay;
        }
        let new = data.get(next.ahead_of(start)..).unwrap_or(&[]);
        let fin = fin && end >= next;
        if new.is_empty() && !fin {
            return Next::Stay;
        }
        let mut gso = gso;
        if let Some(gso) = &mut gso {
            let stride = *gso + tcpcrypt::frame::OVERHEAD;
            let most = self.out.most(self.wire_options(false).padded().len());
            self.out.stride = (stride < most).then_some(stride);
            // The kernel of a passive opener has not been told of its own interface's limit.
            *gso = (*gso).min(piece(most));
        }
        self.frame(cx, new, fin, gso, keep)
    }

    /// Frames new bytes at once if that can be, else keeps them.
    fn frame(&mut self, cx: &mut Context<'_>, new: &[u8], fin: bool, gso: Option<usize>, keep: Flags) -> Next {
        let most = self.out.most(self.wire_options(false).padded().len());
        let out = &mut self.out;
        let piece = match gso {
            Some(gso) => gso,
            // One packet, one frame, one segment, however large those of super-packets are: it may be the kernel that tries
            // out what the path takes (RFC 4821).
            None => new.len().clamp(1, piece(most)),
        };
        let start = out.ends.end().c;
        let mut cut = Cut::Path;
        let cost =
            new.len() + new.len().div_ceil(piece).max(1) * (tcpcrypt::frame::OVERHEAD + tcpcrypt::frame::URGENT_LEN);
        let room = if new.is_empty() { out.fin_room() } else { out.data_room() };
        let fits = out.pending.is_empty() && out.early.is_empty() && cost <= room;
        match &mut self.stage {
            Stage::Ready(record) if fits => {
                if let Err(why) = out.seal(cx, record, new, piece, fin) {
                    return Next::Abort(why.into());
                }
                if gso.is_none() && out.sent.within == start {
                    // Nothing of enotun's own makes it larger.
                    cut = Cut::At(out.data_end().ahead_of(start));
                }
            }
            _ => {
                out.pending.extend_from_slice(new);
                if fin {
                    out.fin = Fin::Wanted;
                } else if !out.early.is_empty() {
                    self.drain_early();
                }
            }
        }
        self.flush_in(cx, cut, keep)
    }

    /// Takes over what was waiting behind a gap that is closed now.
    fn drain_early(&mut self) {
        let out = &mut self.out;
        let next = out.next();
        let end = out.early.contiguous_end(next);
        let from = out.pending.len();
        out.pending.resize(from + end.ahead_of(next), 0);
        let copied =
            out.early.copy(super::reassembly::Prefer::First, next, out.pending.get_mut(from..).unwrap_or(&mut []));
        debug_assert!(copied, "what is contiguous can be copied");
        out.early.remove_before(end);
    }

    /// Seals what is pending and fits the peer's window, answers a rekey, and sends what was not sent.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, keep: Flags) -> Next {
        self.flush_in(cx, Cut::Path, keep)
    }

    /// The same in segments of a certain size.
    fn flush_in(&mut self, cx: &mut Context<'_>, cut: Cut, keep: Flags) -> Next {
        let Self { stage: Stage::Ready(record), out, .. } = self else {
            return self.send_unsent(cx, cut, keep);
        };
        while !out.pending.is_empty() || out.fin == Fin::Wanted {
            let end = out.ends.end();
            let room = if out.pending.is_empty() { out.fin_room() } else { out.data_room() };
            let idle = out.acked == end.c;
            let unit = piece(out.segment(12));
            // At most a packet's worth at a time, whole frames if there is a choice.
            let fit = room / (unit + tcpcrypt::frame::OVERHEAD) * unit
                + (room % (unit + tcpcrypt::frame::OVERHEAD)).saturating_sub(tcpcrypt::frame::OVERHEAD);
            let mut take = out.pending.len().min(fit).min(44 * unit);
            if take < out.pending.len().min(unit) || (take == 0 && room < tcpcrypt::frame::OVERHEAD) {
                if !idle || room == 0 {
                    break;
                }
                // Nothing in flight and a window too small for a frame: it goes in parts.
                take = out.pending.len().min(take.max(1));
            }
            let fin = out.fin == Fin::Wanted && take == out.pending.len();
            let data: Vec<u8> = out.pending.drain(..take).collect();
            if let Err(why) = out.seal(cx, record, &data, unit, fin) {
                return Next::Abort(why.into());
            }
        }
        if out.pending.is_empty() && out.pending.capacity() > 0 {
            out.pending = Vec::new();
        }
        // TC-32: the answer goes out at once, in an empty frame if there is no data to carry it.
        // A peer that starts more rekeys than it acknowledges answers to is answered when it does.
        while record.rekey_answer_due() && out.fin != Fin::Sealed && out.ends.len() < MAX_UNANSWERED {
            if let Err(why) = out.seal(cx, record, &[], 1, false) {
                return Next::Abort(why.into());
            }
        }
        self.send_unsent(cx, cut, keep)
    }

    /// Sends what was made and never sent, as far as the peer's window goes.
    fn send_unsent(&mut self, cx: &mut Context<'_>, cut: Cut, keep: Flags) -> Next {
        let out = &self.out;
        let end = out.ends.end().c;
        let (from, data_end) = (out.sent.within, out.data_end());
        let mut to = out.sendable();
        if to < data_end && out.acked < from {
            // Cut only where it must be: rather wait for room for the rest of the frame.
            to = out.ends.floor_c(to).c;
        }
        if to > from {
            let push = if to == end { keep.with(Flags::PSH) } else { keep };
            self.transmit(cx, from, to, cut, push);
            self.out.note_sent(to);
        }
        if end > from {
            // If the peer's window is closed the timer sends probes: the kernel does not know that there is something to send.
            self.out.arm(cx.now);
        }
        Next::Stay
    }

    /// Answers the kernel's retransmission of `range` with the frames that hold it, in segments of `segment` bytes, the
    /// kernel's and what a frame adds: it may have found out that the path takes less (RFC 4821).
    fn resend(&mut self, cx: &mut Context<'_>, range: Range<Offset<P>>, segment: usize, keep: Flags) {
        let Range { start: from, end: to } = range;
        let out = &self.out;
        let (c_from, c_to) = out.ends.cover_p(from.max(out.ends.base().p), to);
        let (c_from, c_to) = (c_from.max(out.acked), c_to.min(out.sent.within));
        if c_from < c_to && from < out.ends.end().p {
            cx.counters.frames_resent += 1;
            self.transmit(cx, c_from, c_to, Cut::At(segment.max(SMALL_SEGMENT)), keep.with(Flags::PSH));
        } else {
            // It was acknowledged already, or it waits for the peer's window: ask the peer where it is.
            self.emit_wire_bare(cx, Bare::Probe, Flags::default());
        }
    }

    /// The timer for what the kernel cannot send again.
    pub(super) fn handle_own_timeout(&mut self, cx: &mut Context<'_>) -> Next {
        self.out.timer = None;
        self.out.retries += 1;
        if self.out.retries > MAX_RETRIES {
            return Next::Abort(AbortReason::Timeout);
        }
        cx.counters.own_timeouts += 1;
        cx.counters.own_segments += 1;
        self.resend_own(cx);
        self.out.arm(cx.now);
        Next::Stay
    }

    /// Sends the first frame in flight again, whether or not the peer's window has room: it may be a probe.
    fn resend_own(&mut self, cx: &mut Context<'_>) {
        if let Some(first) = self.out.ends.first() {
            let from = self.out.acked;
            // The FIN goes with the frame that has FINp (TC-29).
            let to = if first.c == self.out.data_end() { self.out.ends.end().c } else { first.c };
            self.transmit(cx, from, to, Cut::Path, Flags::PSH);
            self.out.note_sent(to);
        }
    }

    /// Takes in the acknowledgement side of an acceptable segment of the peer's, which begins at `start`.
    pub(super) fn acknowledged(
        &mut self,
        cx: &mut Context<'_>,
        start: Offset<C>,
        packet: &Segment<'_, C>,
        options: &SegmentOptions,
    ) -> AckNews {
        let out = &mut self.out;
        let ack = out.acked.nearest(out.isn, packet.ack);
        let mut news = AckNews::default();
        let before = out.ends.base().p;
        let mut own_lost = false;
        let advances = out.acknowledge(ack, cx.now, cx.pool);
        if advances {
            news.something = out.ends.base().p > before;
        }
        let window = usize::from(packet.window) << out.peer_scale;
        if ack >= out.acked && out.window.is_newest(start, ack, window, advances) {
            let edge = ack + window;
            let closed = |edge| out.ends.first().is_some_and(|first| edge < first.c);
            if closed(edge) {
                // Its window is closed, and it is there: that is waited for (RFC 9293, section 3.8.6.1).
                out.retries = out.retries.min(PATIENT_RETRIES);
            } else if closed(out.edge) {
                own_lost = out.retries > 0 && out.timer.is_some();
            }
            if edge != out.edge {
                // It may shrink. What the kernel was told stands: what it sends beyond the edge waits here.
                out.edge = edge;
                let told = out.told_edge;
                if self.is_ready() {
                    self.out.raise_told_edge();
                }
                news.something |= self.out.told_edge > told;
            }
        }
        if self.sack {
            let mut beyond = false;
            for (n, &(left, right)) in options.sack().iter().enumerate() {
                let (left, right) = (Seq::new(left), Seq::new(right));
                let duplicate = if n == 0 { self.out.duplicate_sack_block(ack, left, right) } else { None };
                beyond |= ack.nearest(self.out.isn, left) > ack;
                if let Some(block) = duplicate.or_else(|| self.out.sack_block(left, right))
                    && let Some(slot) = news.sack.get_mut(news.sack_blocks)
                {
                    *slot = block;
                    news.sack_blocks += 1;
                }
            }
            own_lost |= beyond && ack == self.out.acked && self.out.retries == 0 && self.out.timer.is_some();
        }
        if own_lost {
            // Something behind our own bytes has arrived, or the window has opened for what were probes: they are lost. Once per
            // loss; the timer does the rest.
            self.out.retries = 1;
            self.out.timer = None;
            self.resend_own(cx);
            self.out.arm(cx.now);
        }
        news
    }

    /// Has the keys in use replaced with the next frame that can do it (TC-33), whatever they have done yet; whether there
    /// are any that still can be.
    pub(crate) fn wear_out_keys(&mut self) -> bool {
        let Self { stage: Stage::Ready(_), out, .. } = self else { return false };
        out.key.wear_out();
        out.fin != Fin::Sealed
    }

    /// Starts a rekey now (TC-31), with an empty frame if there is no data (TC-33).
    pub(crate) fn start_rekey(&mut self, cx: &mut Context<'_>) -> Next {
        let Self { stage: Stage::Ready(record), out, .. } = self else { return Next::Stay };
        if out.fin == Fin::Sealed || !record.start_rekey() {
            return Next::Stay;
        }
        if out.pending.is_empty()
            && let Err(why) = out.seal(cx, record, &[], 1, false)
        {
            return Next::Abort(why.into());
        }
        self.flush(cx, Flags::default())
    }
}

/// What the kernel has to be told of an acknowledgement from the wire.
#[derive(Debug, Default)]
pub(super) struct AckNews {
    /// Its acknowledgement or window moves.
    pub(super) something: bool,
    sack: [(u32, u32); 4],
    sack_blocks: usize,
}

impl AckNews {
    /// SACK blocks in the kernel's numbers.
    pub(super) fn sack(&self) -> &[(u32, u32)] {
        self.sack.get(..self.sack_blocks).unwrap_or(&[])
    }
}
