//! Delivery of plaintext to the local kernel: what it was given, what it has acknowledged, how much more it takes.

use std::time::Duration;

use tcpcrypt::frame::MAX_FRAME;

use crate::flow::connection::action::Action;
use crate::flow::context::Context;
use crate::flow::frames::{MAX_PIECES, Store};
use crate::flow::pool::Pool;
use crate::time::Instant;
use crate::wire::{Flags, Offset, P};

/// Plaintext is delivered again if it was not acknowledged for this long: longer than a delayed acknowledgement.
const REDELIVER_AFTER: Duration = Duration::from_millis(300);
/// And at most this often when something hints at a loss.
const REDELIVER_PAUSE: Duration = Duration::from_millis(10);
/// Like the kernel's `tcp_retries2`.
const MAX_REDELIVERIES: u8 = 15;
/// As many times without an answer count of a kernel that has answered with a closed window.
const PATIENT_REDELIVERIES: u8 = 8;

#[derive(Debug)]
pub(super) struct Delivery {
    /// Plaintext that the kernel has not acknowledged.
    plaintext: Store<P>,
    /// Plaintext up to here was given to the kernel at least once.
    delivered: Offset<P>,
    /// What the kernel has acknowledged.
    acknowledged: Offset<P>,
    /// Right edge of the kernel's window.
    edge: Offset<P>,
    /// The same from its latest segment: kernels may retract what they have announced (Linux's `tcp_shrink_window`).
    latest_edge: Offset<P>,
    scale: u8,
    /// Payload of the segments given to the kernel: what the peer's frames carry, at most the kernel's MSS.
    segment: u16,
    mss: u16,
    last_delivery: Instant,
    redeliveries: u8,
    /// The kernel has dropped data that was inside its window, and says that it has no room.
    taken_back: bool,
    /// A segment came marked by a congested router, and nothing was given to the kernel since.
    congested: bool,
}

impl Delivery {
    /// `window`, `scale`: as the kernel has announced them; `mss`: payload of its segments.
    pub(super) fn new(window: usize, scale: u8, mss: usize) -> Self {
        let mss = u16::try_from(mss).unwrap_or(u16::MAX);
        Self {
            plaintext: Store::default(),
            delivered: Offset::START,
            acknowledged: Offset::START,
            edge: Offset::START + window,
            latest_edge: Offset::START + window,
            scale,
            segment: mss,
            mss,
            last_delivery: Instant::ZERO,
            redeliveries: 0,
            taken_back: false,
            congested: false,
        }
    }

    pub(super) fn delivered(&self) -> Offset<P> {
        self.delivered
    }

    pub(super) fn acknowledged(&self) -> Offset<P> {
        self.acknowledged
    }

    pub(super) fn edge(&self) -> Offset<P> {
        self.edge
    }

    /// The unit of the kernel's windows, in bytes.
    pub(super) fn unit(&self) -> usize {
        1 << self.scale
    }

    pub(super) fn segment(&self) -> u16 {
        self.segment
    }

    /// Where a segment without data is acceptable; `fin`: the kernel was given the FIN.
    pub(super) fn acceptable(&self, fin: bool) -> Offset<P> {
        self.delivered.min(self.latest_edge.max(self.acknowledged) + i64::from(fin))
    }

    /// Notes how much data one of the peer's frames has.
    pub(super) fn note_frame(&mut self, data: usize) {
        if data > 0 {
            self.segment = u16::try_from(data).unwrap_or(u16::MAX).clamp(self.segment.min(self.mss), self.mss);
        }
    }

    pub(super) fn note_congestion(&mut self) {
        self.congested = true;
    }

    /// Appends plaintext.
    pub(super) fn push(&mut self, from: Offset<P>, bytes: Vec<u8>, pool: &mut Pool) {
        self.plaintext.push(from, bytes, pool);
    }

    pub(super) fn gather<'a, 'b>(
        &'a self,
        from: Offset<P>,
        to: Offset<P>,
        slices: &'b mut [&'a [u8]; MAX_PIECES],
    ) -> Option<(&'b [&'a [u8]], Offset<P>)> {
        self.plaintext.gather(from, to, slices)
    }

    /// The kernel has acknowledged everything up to `ack`; whether it had not before.
    pub(super) fn advance(&mut self, ack: Offset<P>, now: Instant, pool: &mut Pool) -> bool {
        let advances = ack > self.acknowledged;
        if advances {
            self.acknowledged = ack;
            self.plaintext.release(ack, pool);
            self.redeliveries = 0;
            self.last_delivery = now;
        }
        advances
    }

    /// A segment with the acknowledgement `ack` has announced `window`; whether the kernel has room again for what it had no
    /// memory for.
    pub(super) fn note_window(&mut self, ack: Offset<P>, window: u16) -> bool {
        let edge = ack + (usize::from(window) << self.scale);
        self.edge = self.edge.max(edge);
        if ack == self.acknowledged {
            self.latest_edge = edge;
        }
        // Windows are rounded down to their unit.
        let takes_back = edge + self.unit() <= self.delivered;
        if takes_back {
            // It is there, and that is waited for, as for a window that was never opened (RFC 9293, section 3.8.6.1).
            self.redeliveries = self.redeliveries.min(PATIENT_REDELIVERIES);
        }
        std::mem::replace(&mut self.taken_back, takes_back) && !takes_back && self.acknowledged < self.delivered
    }

    /// Gives the kernel what it has room for, of a stream whose data ends at `data_end` and that ends, a FIN included, at `end`.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>, data_end: Offset<P>, end: Offset<P>, flags: Flags) {
        // A FIN goes behind a full window too.
        let to = if self.edge >= data_end { end } else { self.edge };
        if to > self.delivered {
            // The mark may have come with another segment of the same frames, or with one that had to wait.
            let congested = std::mem::take(&mut self.congested);
            cx.actions.push(Action::Deliver { from: self.delivered, to, flags, congested });
            self.delivered = to;
            self.last_delivery = cx.now;
        }
    }

    /// Delivers again what the kernel has not acknowledged, unless that was done just now.
    pub(super) fn redeliver(&mut self, cx: &mut Context<'_>) {
        if self.acknowledged < self.delivered && cx.now.since(self.last_delivery) >= REDELIVER_PAUSE {
            let (from, to) = (self.acknowledged, self.delivered.min(self.acknowledged + MAX_FRAME));
            self.last_delivery = cx.now;
            cx.actions.push(Action::Deliver { from, to, flags: Flags::default(), congested: false });
        }
    }

    /// When [`Self::expire`] wants to be called, if the stream that is opened ends at `end`.
    pub(super) fn redeliver_at(&self, end: Offset<P>) -> Option<Instant> {
        let owed = self.acknowledged < self.delivered || self.delivered < end;
        owed.then(|| self.last_delivery + REDELIVER_AFTER.saturating_mul(1 << self.redeliveries.min(8)))
    }

    /// The kernel has not acknowledged what it was given, or has no room; false if that has been so for too long.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) -> bool {
        self.redeliveries = self.redeliveries.saturating_add(1);
        if self.acknowledged < self.delivered {
            if self.redeliveries > MAX_REDELIVERIES {
                return false;
            }
            self.redeliver(cx);
        } else {
            // Its window is closed: it is asked for it, as its peer would.
            cx.actions.push(Action::PROBE_KERNEL);
        }
        self.last_delivery = cx.now;
        true
    }

    pub(super) fn held(&self) -> usize {
        self.plaintext.held()
    }

    pub(super) fn shrink(&mut self) {
        self.plaintext.shrink();
    }
}
