//! Segments from the local kernel: new bytes are framed, retransmissions are answered with the frames that were made.

use tcpcrypt::Record;
use tcpcrypt::frame::{MAX_FRAME, OVERHEAD, URGENT_LEN};

use super::segment_size::piece;
use super::{Fin, Sender};
use crate::flow::connection::action::{Action, Bare, Cut, SackBlocks};
use crate::flow::connection::outcome::{AbortReason, Outcome};
use crate::flow::context::Context;
use crate::flow::reassembly::Prefer;
use crate::wire::{Flags, Offset, P};

/// What every path takes (RFC 9293, section 3.7.1): smaller segments of the kernel's say nothing of the path.
const SMALL_SEGMENT: usize = 536;
/// Maximum number of P bytes beyond a gap (the TUN lost a packet) kept for one connection.
const MAX_EARLY: usize = 1 << 20;

/// A segment of the kernel's with data or a FIN.
pub(in super::super) struct KernelSegment<'a> {
    pub(in super::super) start: Offset<P>,
    pub(in super::super) data: &'a [u8],
    pub(in super::super) fin: bool,
    /// Payload of each segment, if it is a super-packet.
    pub(in super::super) gso: Option<usize>,
    /// The flags that are passed on.
    pub(in super::super) flags: Flags,
}

impl Sender {
    /// Processes bytes from the kernel, old or new. `options`: bytes of TCP options in segments to the peer.
    pub(in super::super) fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        record: Option<&mut Record>,
        segment: &KernelSegment<'_>,
        options: usize,
    ) -> Outcome {
        let KernelSegment { start, data, fin, gso, flags } = *segment;
        let next = self.next();
        let end = start + data.len();
        // The window is not the sender's to exceed, but for what it was told with rounding, and a probe.
        if end.ahead_of(self.advertised_edge) > (1 << self.peer_scale) + MAX_FRAME {
            cx.counters.out_of_window += 1;
            return Ok(());
        }
        if start > next {
            self.keep_early(cx, start, data);
            return Ok(());
        }
        if start < next {
            self.note_repeated(start, cx.now);
            self.resend(cx, segment, next);
        }
        if self.fin != Fin::Open {
            return Ok(());
        }
        let (_, new) = data.split_at(next.ahead_of(start).min(data.len()));
        let fin = fin && end >= next;
        if new.is_empty() && !fin {
            return Ok(());
        }
        let most = self.size.most(options);
        let gso = gso.map(|payload| {
            self.size.note_super_packet(payload, options);
            // The kernel of a passive opener has not been told of its own interface's limit.
            payload.min(piece(most))
        });
        self.frame(cx, record, (new, fin), gso, most, flags)
    }

    /// The TUN lost something in between: asks the kernel for it.
    fn keep_early(&mut self, cx: &mut Context<'_>, start: Offset<P>, data: &[u8]) {
        if self.early.held() < MAX_EARLY {
            self.early.insert(start, data);
        }
        let mut ranges = std::array::from_fn(|_| Offset::START..Offset::START);
        let known = self.early.sack(self.next(), &mut ranges);
        let mut sack = SackBlocks::default();
        for range in ranges.iter().take(known) {
            sack.push((range.start.seq(self.isn).0, range.end.seq(self.isn).0));
        }
        cx.actions.push(Action::TellKernel { bare: Bare::Next, flags: Flags::default(), sack });
    }

    /// Answers the kernel's retransmission with the frames that hold it, as far as there are any, in segments of the kernel's size
    /// and what a frame adds: it may have found out that the path takes less (RFC 4821).
    fn resend(&mut self, cx: &mut Context<'_>, segment: &KernelSegment<'_>, next: Offset<P>) {
        let KernelSegment { start, data, fin, gso, flags } = *segment;
        let end = (start + data.len() + i64::from(fin)).min(next);
        let (from, to) = self.frames.cover_p(start.max(self.frames.base().p), end);
        let (from, to) = (from.max(self.snd_una), to.min(self.snd_nxt));
        if from < to && start < self.frames.end().p {
            cx.counters.frames_resent += 1;
            // One packet leaves as one segment, if it was framed as one.
            let size = gso.unwrap_or(data.len()) + OVERHEAD + self.urgent.map_or(0, |_| URGENT_LEN);
            let cut = Cut::At(size.max(SMALL_SEGMENT));
            cx.actions.push(Action::Send { from, to, cut, flags: flags.with(Flags::PSH) });
        } else {
            // It was acknowledged already, or it waits for the peer's window: query the peer's position.
            cx.actions.push(Action::probe_peer(Flags::default()));
        }
    }

    /// Frames new bytes at once if possible, otherwise keeps them.
    fn frame(
        &mut self,
        cx: &mut Context<'_>,
        mut record: Option<&mut Record>,
        (new, fin): (&[u8], bool),
        gso: Option<usize>,
        most: usize,
        flags: Flags,
    ) -> Outcome {
        // One packet, one frame, one segment, however large those of super-packets are: it may be the kernel that tries
        // out what the path takes (RFC 4821).
        let piece = gso.unwrap_or_else(|| new.len().clamp(1, piece(most)));
        let start = self.frames.end().c;
        let mut cut = Cut::Path;
        let cost = new.len() + new.len().div_ceil(piece).max(1) * (OVERHEAD + URGENT_LEN);
        let room = if new.is_empty() { self.fin_room() } else { self.data_room() };
        let fits = self.pending.is_empty() && self.early.is_empty() && cost <= room;
        match &mut record {
            Some(record) if fits => {
                self.seal(cx, record, new, piece, fin)?;
                if gso.is_none() && self.snd_nxt == start {
                    // Nothing of enotun's own makes it larger.
                    cut = Cut::At(self.data_end().ahead_of(start));
                }
            }
            _ => {
                self.pending.extend_from_slice(new);
                if fin {
                    self.fin = Fin::Wanted;
                } else if !self.early.is_empty() {
                    self.drain_early()?;
                }
            }
        }
        self.flush(cx, record, cut, flags)
    }

    /// Takes over what was waiting beyond a gap that is now closed.
    fn drain_early(&mut self) -> Outcome {
        let next = self.next();
        let end = self.early.contiguous_end(next);
        let mut bytes = vec![0; end.ahead_of(next)];
        if !self.early.copy(Prefer::First, next, &mut bytes) {
            debug_assert!(false, "what is contiguous can be copied");
            return Err(AbortReason::Internal);
        }
        self.pending.append(&mut bytes);
        self.early.remove_before(end);
        Ok(())
    }
}
