//! What the peer is told: acknowledgement, window, SACK blocks.

use std::ops::Range;

use tcpcrypt::frame::{MAX_FRAME, OVERHEAD};

use super::Receiver;
use crate::flow::connection::action::SackBlocks;
use crate::wire::{C, Offset};

impl Receiver {
    /// Acknowledgement and window fields for the wire.
    pub(in super::super) fn advertise(&mut self) -> (u32, u16) {
        let ack = self.ack_point();
        self.advertised_ack = self.advertised_ack.max(ack);
        // Frames shrink when opened, so what fits the kernel's window fits in C as well.
        let room = self.delivery.edge().ahead_of(self.next.p);
        let owed = self.next.c + self.owed_room();
        let edge = (self.next.c + room).max(owed).max(self.advertised_edge);
        // Rounding down would cut the frame that must be able to come, or take back a part of what was announced. That is
        // done when what was opened waits (RFC 7323, section 2.4): rounded up, each acknowledgement would let in a little more.
        let least = if self.is_full() { owed } else { owed.max(self.advertised_edge) };
        let unit = self.delivery.unit();
        let mut field = edge.ahead_of(ack) / unit;
        if ack + field * unit < least {
            field += 1;
        }
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.advertised_edge = self.advertised_edge.max(ack + usize::from(field) * unit);
        (ack.seq(self.isn).0, field)
    }

    /// What is announced whatever the kernel's window. A whole frame must always be able to come, and when what was opened
    /// waits for the kernel still an empty one, or a rekey is not answered (TC-32, TC-35) as long as the application does not
    /// read. A peer that puts data there gets no more of it.
    fn owed_room(&self) -> usize {
        match self.next.p.ahead_of(self.delivery.delivered()) {
            0 => MAX_FRAME,
            waiting if waiting <= 2 * MAX_FRAME => OVERHEAD,
            _ => 0,
        }
    }

    /// Whether the peer has been given room for the answer to a rekey.
    pub(in super::super) fn has_room_for_answer(&self) -> bool {
        self.advertised_edge.ahead_of(self.next.c) >= OVERHEAD
    }

    /// What has come twice and what waits behind a gap, as SACK blocks for the peer. The former is said once.
    pub(in super::super) fn take_sack(&mut self) -> SackBlocks {
        let mut ranges = std::array::from_fn(|_| Offset::START..Offset::START);
        let n = self.waiting.sack(self.waiting.contiguous_end(self.next.c), &mut ranges);
        // What is acknowledged stands alone; else the block that it is part of has to follow.
        let [whole, ..] = &ranges;
        let inside = |range: &Range<Offset<C>>| n > 0 && whole.start <= range.start && range.end <= whole.end;
        let duplicate = self.duplicate.take().filter(|range| range.end <= self.ack_point() || inside(range));
        let mut sack = SackBlocks::default();
        for range in duplicate.into_iter().chain(ranges.into_iter().take(n)) {
            sack.push((range.start.seq(self.isn).0, range.end.seq(self.isn).0));
        }
        sack
    }
}
