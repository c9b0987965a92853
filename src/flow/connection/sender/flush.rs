//! Sending to the peer: frames that fit its window, retransmissions, rekeys.

use tcpcrypt::Record;
use tcpcrypt::frame::OVERHEAD;

use super::segment_size::piece;
use super::{Fin, Sender};
use crate::flow::connection::action::{Action, Cut};
use crate::flow::connection::outcome::{AbortReason, Outcome};
use crate::flow::context::Context;
use crate::wire::Flags;

/// With this many frames in flight no empty one is added.
const MAX_UNANSWERED: usize = 1024;
/// At most a packet's worth of frames is sealed at a time.
const MAX_FRAMES: usize = 44;

impl Sender {
    /// Seals what is pending and fits the peer's window, answers a rekey, and sends what was not sent, cut so.
    pub(in super::super) fn flush(
        &mut self,
        cx: &mut Context<'_>,
        record: Option<&mut Record>,
        cut: Cut,
        flags: Flags,
    ) -> Outcome {
        if let Some(record) = record {
            self.seal_pending(cx, record)?;
            self.answer_rekeys(cx, record)?;
        }
        self.send_unsent(cx, cut, flags);
        Ok(())
    }

    /// Seals what is pending, as far as the peer's window goes.
    fn seal_pending(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Outcome {
        while !self.pending.is_empty() || self.fin == Fin::Wanted {
            let Some(take) = self.fitting() else { break };
            let fin = self.fin == Fin::Wanted && take == self.pending.len();
            let data: Vec<u8> = self.pending.drain(..take).collect();
            self.seal(cx, record, &data, piece(self.size.segment(12)), fin)?;
        }
        if self.pending.is_empty() && self.pending.capacity() > 0 {
            self.pending = Vec::new();
        }
        Ok(())
    }

    /// How many of the pending bytes are sealed next, `None` if that has to wait.
    fn fitting(&self) -> Option<usize> {
        let room = if self.pending.is_empty() { self.fin_room() } else { self.data_room() };
        let unit = piece(self.size.segment(12));
        let frame = unit + OVERHEAD;
        // Whole frames if there is a choice.
        let fit = room / frame * unit + (room % frame).saturating_sub(OVERHEAD);
        let take = self.pending.len().min(fit).min(MAX_FRAMES * unit);
        if take >= self.pending.len().min(unit) && (take > 0 || room >= OVERHEAD) {
            return Some(take);
        }
        // Nothing in flight and a window too small for a frame: it goes in parts.
        let idle = self.snd_una == self.frames.end().c;
        (idle && room > 0).then(|| self.pending.len().min(take.max(1)))
    }

    /// TC-32: the answer goes out at once, in an empty frame if there is no data to carry it. A peer that starts more rekeys than
    /// it acknowledges answers to is answered when it does.
    fn answer_rekeys(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Outcome {
        while record.rekey_answer_due() && self.fin != Fin::Sealed && self.frames.len() < MAX_UNANSWERED {
            self.seal(cx, record, &[], 1, false)?;
        }
        Ok(())
    }

    /// Sends what was made and never sent, as far as the peer's window goes.
    fn send_unsent(&mut self, cx: &mut Context<'_>, cut: Cut, flags: Flags) {
        let end = self.frames.end().c;
        let from = self.snd_nxt;
        let mut to = self.sendable();
        if to < self.data_end() && self.snd_una < from {
            // Cut only where it must be: rather wait for room for the rest of the frame.
            to = self.frames.floor_c(to).c;
        }
        if to > from {
            let flags = if to == end { flags.with(Flags::PSH) } else { flags };
            cx.actions.push(Action::Send { from, to, cut, flags });
            self.note_sent(to);
        }
        if end > from {
            // If the peer's window is closed the timer sends probes: the kernel does not know that there is something to send.
            self.arm(cx.now);
        }
    }

    /// Sends the first frame in flight again, whether or not the peer's window has room: it may be a probe.
    pub(super) fn resend_own(&mut self, cx: &mut Context<'_>) {
        if let Some(first) = self.frames.first() {
            let from = self.snd_una;
            // The FIN goes with the frame that has FINp (TC-29).
            let to = if first.c == self.data_end() { self.frames.end().c } else { first.c };
            cx.actions.push(Action::Send { from, to, cut: Cut::Path, flags: Flags::PSH });
            self.note_sent(to);
        }
    }

    /// The timer for what the kernel cannot retransmit.
    pub(in super::super) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Outcome {
        if !self.timer.expire() {
            return Err(AbortReason::Timeout);
        }
        cx.counters.own_timeouts += 1;
        cx.counters.own_segments += 1;
        self.resend_own(cx);
        self.arm(cx.now);
        Ok(())
    }

    /// What the timer waits for is lost, and is sent again before it expires.
    pub(super) fn resend_lost(&mut self, cx: &mut Context<'_>) {
        self.timer.note_loss();
        self.resend_own(cx);
        self.arm(cx.now);
    }

    /// Starts a rekey now (TC-31), with an empty frame if there is no data (TC-33).
    pub(in super::super) fn start_rekey(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Outcome {
        if self.fin == Fin::Sealed || !record.start_rekey() {
            return Ok(());
        }
        if self.pending.is_empty() {
            self.seal(cx, record, &[], 1, false)?;
        }
        self.flush(cx, Some(record), Cut::Path, Flags::default())
    }
}
