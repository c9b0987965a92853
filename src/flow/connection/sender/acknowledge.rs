//! The peer's acknowledgements: what it has taken of the stream, how much more it takes, and what the kernel is told
//! about both.

use super::Sender;
use crate::flow::connection::action::SackBlocks;
use crate::flow::context::Context;
use crate::flow::pool::Pool;
use crate::time::Instant;
use crate::wire::{C, Offset, Seq};

/// What an acceptable segment from the peer says about this stream.
pub(in super::super) struct Acknowledgement<'a> {
    /// Where the segment begins in the peer's stream.
    pub(in super::super) start: Offset<C>,
    pub(in super::super) ack: Seq<C>,
    pub(in super::super) window: u16,
    pub(in super::super) sack: &'a [(u32, u32)],
}

impl Sender {
    /// The position of an acknowledgement number of the peer's.
    pub(in super::super) fn position_c(&self, ack: Seq<C>) -> Offset<C> {
        self.snd_una.nearest(self.isn, ack)
    }

    /// Where the peer is in this stream: what it has acknowledged (SND.UNA), the end of all that was sent, and the largest window
    /// that it has announced (MAX.SND.WND).
    pub(in super::super) fn peer_view(&self) -> (Offset<C>, Offset<C>, usize) {
        (self.snd_una, self.snd_max, self.window.max())
    }

    /// Processes an acknowledgement; returns its SACK blocks in the kernel's numbers.
    pub(in super::super) fn note_acknowledgement(
        &mut self,
        cx: &mut Context<'_>,
        segment: &Acknowledgement<'_>,
    ) -> SackBlocks {
        let ack = self.position_c(segment.ack);
        let advances = self.advance(ack, cx.now, cx.pool);
        let window = usize::from(segment.window) << self.peer_scale;
        let reopened = ack >= self.snd_una
            && self.window.is_newest(segment.start, ack, window, advances)
            && self.move_edge(ack + window);
        let (sack, beyond) = self.translate_sack(ack, segment.sack);
        let passed = beyond && ack == self.snd_una && self.timer.is_first();
        if reopened || passed {
            // Something behind our own bytes has arrived, or the window has opened for what were probes: they are lost.
            self.resend_lost(cx);
        }
        sack
    }

    /// The peer has acknowledged everything up to `ack`; whether it had not before.
    fn advance(&mut self, ack: Offset<C>, now: Instant, pool: &mut Pool) -> bool {
        if ack <= self.snd_una {
            return false;
        }
        self.snd_una = ack;
        // It has accepted what was a probe.
        self.snd_nxt = self.snd_nxt.max(ack);
        if let Some(acknowledged) = &mut self.acknowledged {
            self.frames.up_to(ack).for_each(|end| acknowledged.note(end));
        }
        self.frames.acknowledge_c(ack);
        self.bytes.release(ack, pool);
        if self.urgent.is_some_and(|u| u < self.frames.base().p) {
            self.urgent = None;
        }
        self.timer.note_progress();
        self.arm(now);
        true
    }

    /// The peer's window ends at `edge`; whether it has opened for what were probes, which are lost then.
    fn move_edge(&mut self, edge: Offset<C>) -> bool {
        let first = self.frames.first();
        let closed = |edge| first.is_some_and(|first| edge < first.c);
        let mut reopened = false;
        if closed(edge) {
            self.timer.be_patient();
        } else if closed(self.snd_edge) {
            reopened = self.timer.is_repeating();
        }
        if edge != self.snd_edge {
            // It may shrink. What the kernel was told stands: what it sends beyond the edge waits here.
            self.snd_edge = edge;
            self.raise_advertised_edge();
        }
        reopened
    }

    /// SACK blocks of the peer's in the kernel's numbers, and whether one of them is of something beyond `ack`.
    fn translate_sack(&self, ack: Offset<C>, blocks: &[(u32, u32)]) -> (SackBlocks, bool) {
        let (mut sack, mut beyond) = (SackBlocks::default(), false);
        if self.acknowledged.is_none() {
            return (sack, beyond);
        }
        for (n, &(left, right)) in blocks.iter().enumerate() {
            let (left, right) = (Seq::new(left), Seq::new(right));
            let duplicate = if n == 0 { self.duplicate_sack_block(ack, left, right) } else { None };
            beyond |= ack.nearest(self.isn, left) > ack;
            if let Some(block) = duplicate.or_else(|| self.sack_block(left, right)) {
                sack.push(block);
            }
        }
        (sack, beyond)
    }

    /// A SACK block of the peer's in the kernel's numbers: shrunk to frames. `None` if no frame is whole in it.
    fn sack_block(&self, left: Seq<C>, right: Seq<C>) -> Option<(u32, u32)> {
        let left = self.frames.ceil_c(self.position_c(left)).p;
        let right = self.position_c(right);
        if right > self.frames.end().c {
            return None;
        }
        let right = self.frames.floor_c(right).p;
        // A block that begins at the acknowledgement would say that what is missing is nothing of the kernel's (it is a
        // frame of our own); the kernel would take it for a receiver that forgets what it has.
        (left < right && left > self.frames.base().p).then(|| (left.seq(self.isn).0, right.seq(self.isn).0))
    }

    /// The same of a first block that lies before the acknowledgement `ack` it comes with: what arrived more than once (RFC
    /// 2883, section 4), so that the kernel learns that it has sent again what was not lost.
    fn duplicate_sack_block(&self, ack: Offset<C>, left: Seq<C>, right: Seq<C>) -> Option<(u32, u32)> {
        let [left, right] = [left, right].map(|edge| ack.nearest(self.isn, edge));
        let known = self.acknowledged.as_ref().filter(|_| right <= ack)?;
        let (from, to) = known.within(left, right)?;
        Some((from.seq(self.isn).0, to.seq(self.isn).0))
    }
}
