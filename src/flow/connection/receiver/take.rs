//! Segments from the peer: what is in order is opened; what is beyond a gap, or part of a frame, waits.

use std::time::Duration;

use super::open::{Opener, Progress};
use super::suspicion::Damage;
use super::{Eof, Incomplete, Receiver, acknowledge};
use crate::flow::connection::outcome::{AbortReason, Outcome};
use crate::flow::context::Context;
use crate::flow::reassembly::Inserted;
use crate::time::Instant;
use crate::wire::{C, Offset};

/// A frame is acknowledged in part once more than this many segments of it are here: an initial window (RFC 6928).
const INITIAL_WINDOW: usize = 10;
/// and nothing came for this long: until then a clean copy of a segment with a forged length may come.
const PARTIAL_WAIT: Duration = Duration::from_millis(50);
/// Or once the peer sends its beginning again this much later, as TCP does whose window is too small for the frame
/// (its timer runs for 200 ms at least): up to where it was sent again. The network's own duplicates come sooner.
const PARTIAL_RESENT: Duration = Duration::from_millis(150);

impl Receiver {
    /// Processes payload and FIN of an acceptable segment.
    pub(in super::super) fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        opener: Opener<'_>,
        start: Offset<C>,
        payload: &mut [u8],
        fin: bool,
    ) -> Outcome<Progress> {
        let end = start + payload.len();
        if start == self.advertised_edge && !payload.is_empty() {
            cx.counters.out_of_window += 1;
            cx.actions.owe_acknowledgement();
            return Ok(Progress::Waits);
        }
        if end + i64::from(fin) <= self.next.c {
            // All of it was here before: the peer has not heard, or the kernel has not.
            cx.actions.owe_acknowledgement();
            self.note_again(start..end);
            self.redeliver(cx);
            return Ok(Progress::Waits);
        }
        // What is beyond the edge was never allowed.
        let keep = payload.len().min(self.advertised_edge.ahead_of(start));
        let fin = fin && keep == payload.len();
        if fin {
            self.fin_at = Some(end);
        }
        let expected = start <= self.expected();
        let skip = self.next.c.ahead_of(start).min(keep);
        if skip > 0 {
            cx.actions.owe_acknowledgement();
            self.note_again(start..start + skip);
        }
        let new = &mut payload[skip..keep];
        let mut progress = Progress::Fine;
        // Nothing follows a FIN.
        if !new.is_empty() && self.eof != Eof::Closed {
            progress = self.take_bytes(cx, opener, start + skip, new)?;
        }
        if progress == Progress::Fine && fin && expected && self.eof == Eof::Open {
            self.refuse_fin(cx, end)?;
        }
        self.settle(cx, progress);
        Ok(progress)
    }

    /// A FIN that nothing can come behind, and yet no FINp has (TC-29): forged, or the peer's end-of-file is not authentic.
    fn refuse_fin(&mut self, cx: &mut Context<'_>, end: Offset<C>) -> Outcome {
        self.fin_at = None;
        cx.actions.owe_acknowledgement();
        cx.counters.frames_rejected += 1;
        if self.suspect(cx, Damage::fin(end)) { Err(AbortReason::FinWithoutFinp) } else { Ok(()) }
    }

    /// Opens what waits now that there are keys.
    pub(in super::super) fn take_waiting(&mut self, cx: &mut Context<'_>, opener: Opener<'_>) -> Outcome {
        let progress = self.open_waiting(cx, opener)?;
        self.settle(cx, progress);
        Ok(())
    }

    /// Draws the conclusions from what was taken in.
    pub(in super::super) fn settle(&mut self, cx: &mut Context<'_>, progress: Progress) {
        if progress == Progress::Dropped {
            cx.actions.owe_acknowledgement();
        }
        self.take_fin();
        // Frames without data need no kernel to be acknowledged.
        self.frames.acknowledge_p(self.delivery.acknowledged());
        self.note_partial(cx);
        self.waits_since = if self.waiting.is_empty() { None } else { self.waits_since.or(Some(cx.now)) };
    }

    /// Holds bytes that cannot be opened yet.
    fn take_bytes(
        &mut self,
        cx: &mut Context<'_>,
        opener: Opener<'_>,
        at: Offset<C>,
        new: &mut [u8],
    ) -> Outcome<Progress> {
        let opener = match opener {
            Opener::Frames(record) if at == self.next.c && self.waiting.is_empty() => {
                return self.open_run(cx, record, new);
            }
            other => other,
        };
        if cx.memory_pressure && !self.comes_next(at, new.len()) {
            cx.counters.limit_memory += 1;
            self.challenge(cx, true);
            return Ok(Progress::Waits);
        }
        let inserted = self.waiting.insert(at, new);
        if inserted == Inserted::Refused {
            cx.counters.limit_pieces += 1;
            self.challenge(cx, true);
            return Ok(Progress::Waits);
        }
        if at > self.next.c || inserted == Inserted::Duplicate {
            cx.actions.owe_acknowledgement();
        }
        match inserted {
            Inserted::Conflict => cx.counters.conflicting_segments += 1,
            Inserted::Duplicate => self.note_resent(cx.now, at, at + new.len()),
            Inserted::New | Inserted::Refused => {}
        }
        self.open_waiting(cx, opener)
    }

    /// Whether a segment continues what is here of the frame at `next`, and not by much: without these nothing that waits
    /// would ever be opened and let go of.
    fn comes_next(&self, at: Offset<C>, len: usize) -> bool {
        at <= self.waiting.contiguous_end(self.next.c) && (at + len).ahead_of(self.next.c) <= self.next_room()
    }

    /// The peer has sent again what waits.
    fn note_resent(&mut self, now: Instant, at: Offset<C>, end: Offset<C>) {
        self.duplicate = Some(at..end);
        let waits = self.incomplete.is_some_and(|incomplete| now.since(incomplete.since) >= PARTIAL_RESENT);
        if waits && at <= self.expected() {
            self.acknowledge_part(end);
        }
    }

    /// Acknowledges the beginning of an incomplete frame, up to `until` at most.
    fn acknowledge_part(&mut self, until: Offset<C>) {
        let until = until.min(self.waiting.contiguous_end(self.next.c));
        if until > self.next.c {
            self.own_ack = self.own_ack.max(until);
            if let Some(incomplete) = &mut self.incomplete {
                incomplete.acknowledge_at = None;
            }
        }
    }

    /// Sees whether the incomplete frame at `next` has to be acknowledged in part: late, so that a single forged
    /// segment never is, nor what follows one whose forged length claims it.
    fn note_partial(&mut self, cx: &mut Context<'_>) {
        let here = self.waiting.contiguous_end(self.next.c);
        if here <= self.next.c || self.eof != Eof::Open {
            self.incomplete = None;
            return;
        }
        let unacknowledged = here.ahead_of(self.ack_point().max(self.next.c));
        let wait = cx.now + PARTIAL_WAIT;
        let incomplete = self.incomplete.get_or_insert(Incomplete { since: cx.now, acknowledge_at: None });
        if unacknowledged == 0 {
            incomplete.acknowledge_at = None;
        } else if self.own_ack > self.next.c {
            // Committed to this frame.
            if unacknowledged >= 2 * self.peer_segment {
                self.acknowledge_part(here);
                cx.actions.owe_acknowledgement();
            } else {
                incomplete.acknowledge_at.get_or_insert(wait);
            }
        } else if here.ahead_of(self.next.c) > INITIAL_WINDOW * self.peer_segment {
            // So much of it is here that the peer may not be able to send more.
            incomplete.acknowledge_at = Some(wait);
        }
    }

    /// When [`Self::handle_partial_frame`] wants to be called.
    pub(in super::super) fn acknowledge_part_at(&self) -> Option<Instant> {
        self.incomplete?.acknowledge_at
    }

    /// Nothing has come for a while of a frame whose beginning is here.
    pub(in super::super) fn handle_partial_frame(&mut self, cx: &mut Context<'_>) {
        let before = self.ack_point();
        if let Some(incomplete) = &mut self.incomplete {
            incomplete.acknowledge_at = None;
        }
        self.acknowledge_part(self.waiting.contiguous_end(self.next.c));
        if self.ack_point() > before {
            acknowledge(cx);
        }
    }
}
