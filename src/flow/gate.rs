//! The gate: what a segment from the wire has to be before anything in it is believed.
//!
//! RFC 9293, section 3.10.7.4 (acceptability, RST, SYN), with what RFC 5961 makes of it; RFC 7323, section 5 (PAWS). All that
//! is known of a connection here is authentic, or was acknowledged by this host, or comes from a segment that has passed:
//! bytes that anybody can have sent move no position that a segment is judged by. Timestamps, window, acknowledgement,
//! SACK, ECN, ENO and the place of a FIN are taken from [`Verdict::Acceptable`] segments only.

use super::clocks::Clocks;
use crate::time::Instant;
use crate::wire::options::Timestamps;
use crate::wire::{C, Flags, Offset, P};

/// How far before the window repeated payload may lie and still be answered as such: what a fast path has sent again in vain is told
/// (RFC 2883) when more than that has arrived.
const REPEATED: i64 = 1 << 24;

/// How far before the window a probe may lie, and how far beyond its own what the local kernel sends.
const NEAR: i64 = 1 << 16;

/// The state of the connection that a segment is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// The peer was told that everything up to here has arrived (RCV.NXT, as the peer knows it).
    pub(super) acknowledged: Offset<C>,
    /// Everything up to here is authentic.
    pub(super) opened: Offset<C>,
    /// Right edge of the announced window.
    pub(super) edge: Offset<C>,
    /// What the peer has acknowledged (SND.UNA).
    pub(super) unacknowledged: Offset<C>,
    /// The end of what was sent (SND.NXT).
    pub(super) sent: Offset<C>,
    /// The largest window that the peer has announced (MAX.SND.WND).
    pub(super) max_window: usize,
}

/// The header of a segment from the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) flags: Flags,
    pub(super) start: Offset<C>,
    /// Bytes of payload.
    pub(super) len: usize,
    pub(super) ack: Offset<C>,
    pub(super) timestamps: Option<Timestamps>,
}

/// The judgement of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Acceptable: its header counts, and the payload that is inside the window.
    Acceptable,
    /// Without data, just before the window: a keep-alive or a window probe. Nothing in it counts.
    Probe,
    /// Its payload is before the window: the peer does not know that it has arrived. Nothing in it counts.
    Repeated,
    /// A RST that counts.
    Reset,
    /// Nothing in it counts.
    Refused(Reason),
}

/// Why a segment is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is outside the window.
    OutOfWindow,
    /// A RST inside the window, but not exactly at the next byte (RFC 5961, section 3.2).
    ResetInWindow,
    /// A RST outside of the window.
    ResetElsewhere,
    /// A SYN on an open connection (RFC 5961, section 4.2), or a retransmitted SYN-ACK.
    Syn,
    /// It has no acknowledgement.
    NoAck,
    /// Its timestamp is older than an accepted one (RFC 7323, section 5).
    OldTimestamp,
    /// It acknowledges what was never sent, or what was acknowledged more than a window ago (RFC 5961, section 5.2).
    Acknowledgement,
}

/// Judges a segment.
pub(super) fn judge(at: &Position, clocks: Option<&Clocks>, now: Instant, segment: &Header) -> Verdict {
    let Header { flags, start, len, ack, timestamps } = *segment;
    if flags.any(Flags::RST) {
        // Exact is both the end of what is authentic, and what the peer was told: it answers a challenge with that.
        return if start == at.opened || start == at.acknowledged {
            Verdict::Reset
        } else if start > at.acknowledged && start < at.edge {
            Verdict::Refused(Reason::ResetInWindow)
        } else {
            Verdict::Refused(Reason::ResetElsewhere)
        };
    }
    if flags.any(Flags::SYN) {
        return Verdict::Refused(Reason::Syn);
    }
    if !flags.any(Flags::ACK) {
        return Verdict::Refused(Reason::NoAck);
    }
    let end = start + len + i64::from(flags.any(Flags::FIN));
    // A closed window still takes acknowledgements, which a sender numbers with its end.
    if start > at.edge {
        return Verdict::Refused(Reason::OutOfWindow);
    }
    if end < at.acknowledged {
        return match at.acknowledged - end {
            // What lies before the stream was never sent, and is no repetition.
            before if end > start && before <= REPEATED && start >= Offset::START => Verdict::Repeated,
            before if end == start && before <= NEAR => Verdict::Probe,
            _ => Verdict::Refused(Reason::OutOfWindow),
        };
    }
    if clocks.zip(timestamps).is_some_and(|(clocks, ts)| clocks.is_old(ts.value, now)) {
        return Verdict::Refused(Reason::OldTimestamp);
    }
    if ack > at.sent || ack < at.unacknowledged - i64::try_from(at.max_window).unwrap_or(i64::MAX) {
        return Verdict::Refused(Reason::Acknowledgement);
    }
    Verdict::Acceptable
}

/// How far the local end's numbers may lag behind: by as much as is in flight to it.
const BEHIND: i64 = 1 << 20;

/// The local end's state, in its own numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalPosition {
    /// It was told that this is acknowledged,
    pub(super) acknowledged: Offset<P>,
    /// this is expected from it next,
    pub(super) next: Offset<P>,
    /// and this is the end of the window that it was told.
    pub(super) edge: Offset<P>,
    /// What it has acknowledged, and the end of what it was given.
    pub(super) taken: Offset<P>,
    pub(super) delivered: Offset<P>,
}

/// Judges a non-SYN segment of the local end, with its `start` and `ack`. At a gateway that is another host, and
/// anyone near it can forge its segments.
pub(super) fn judge_local(at: &LocalPosition, flags: Flags, start: Offset<P>, ack: Offset<P>) -> Verdict {
    if flags.any(Flags::RST) {
        // A closed socket sends it at its end; without a socket, what was acknowledged is answered with that number.
        return if [at.acknowledged, at.next, at.edge].contains(&start) {
            Verdict::Reset
        } else {
            Verdict::Refused(Reason::ResetInWindow)
        };
    }
    if !flags.any(Flags::ACK) {
        return Verdict::Refused(Reason::NoAck);
    }
    // It is told its window in whole units, and probes beyond it.
    if start < at.acknowledged - BEHIND || start > at.edge + NEAR {
        return Verdict::Refused(Reason::OutOfWindow);
    }
    if ack > at.delivered || ack < at.taken - BEHIND {
        return Verdict::Refused(Reason::Acknowledgement);
    }
    Verdict::Acceptable
}

/// The window that the peer allows, from its newest segment (SND.WND, SND.WL1, SND.WL2).
#[derive(Debug, Clone, Copy)]
pub(super) struct SendWindow {
    /// Sequence and acknowledgement number of that segment.
    from: Option<(Offset<C>, Offset<C>)>,
    /// Its maximum so far (MAX.SND.WND).
    max: usize,
}

impl SendWindow {
    /// From the SYN.
    pub(super) fn new(window: usize) -> Self {
        Self { from: None, max: window }
    }

    /// Its maximum so far (MAX.SND.WND).
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Updates it from an acceptable segment; returns whether its window is the newest. `advances`: it acknowledges
    /// something new.
    pub(super) fn is_newest(&mut self, start: Offset<C>, ack: Offset<C>, window: usize, advances: bool) -> bool {
        let newest = advances || self.from.is_none_or(|(seq, acked)| seq < start || (seq == start && acked <= ack));
        if newest {
            self.from = Some((start, ack));
            self.max = self.max.max(window);
        }
        newest
    }
}

/// How often unacceptable segments are answered: two hosts that reject each other's segments must not go on forever
/// (like Linux's `tcp_invalid_ratelimit`), and a flood of useless segments must not cause as many answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Answers {
    since: Option<Instant>,
    bare: bool,
    data: u8,
    repeated: u16,
}

impl Answers {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
    /// For segments with data: a peer whose acknowledgements were lost may retransmit many.
    const DATA: u8 = 100;
    /// To repeated payload, each of which says something (RFC 2883). Linux has no limit for segments with data.
    const REPEATED: u16 = 2_000;

    /// Whether repeated payload is answered.
    pub(super) fn allow_repeated(&mut self, now: Instant) -> bool {
        self.begin(now);
        self.repeated = self.repeated.saturating_add(1);
        self.repeated <= Self::REPEATED
    }

    /// Whether an unacceptable segment is answered; `data`: it has some.
    pub(super) fn allow(&mut self, now: Instant, data: bool) -> bool {
        self.begin(now);
        if data {
            self.data = self.data.saturating_add(1);
            self.data <= Self::DATA
        } else {
            !std::mem::replace(&mut self.bare, true)
        }
    }

    fn begin(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.since(since) >= Self::PAUSE) {
            *self = Self { since: Some(now), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn at(n: i64) -> Offset<C> {
        Offset::new(n)
    }

    fn position() -> Position {
        Position {
            acknowledged: at(10_000),
            opened: at(10_500),
            edge: at(70_000),
            unacknowledged: at(5_000),
            sent: at(6_000),
            max_window: 2_000,
        }
    }

    fn segment(start: i64, len: usize, flags: Flags) -> Header {
        Header { flags: flags.with(Flags::ACK), start: at(start), len, ack: at(5_500), timestamps: None }
    }

    fn verdict(start: i64, len: usize, flags: Flags) -> Verdict {
        judge(&position(), None, NOW, &segment(start, len, flags))
    }

    #[test]
    fn only_what_touches_the_window_is_acceptable() {
        let none = Flags::default();
        for (start, len) in [(10_000, 0), (10_000, 1), (8_000, 3_000), (69_999, 5_000), (70_000, 0), (9_000, 1_000)] {
            assert_eq!(verdict(start, len, none), Verdict::Acceptable, "{start} {len}");
        }
        assert_eq!(verdict(9_999, 0, none), Verdict::Probe);
        assert_eq!(verdict(9_999, 0, Flags::FIN), Verdict::Acceptable, "the FIN at its end");
        assert_eq!(verdict(8_000, 1_999, none), Verdict::Repeated);
        assert_eq!(verdict(0, 1_000, none), Verdict::Repeated, "the first bytes");
        for (start, len) in [(70_001, 0), (70_001, 9), (-1, 1_000), (-1_000_000, 1_000), (-60_000, 0), (1 << 30, 5)] {
            assert_eq!(verdict(start, len, none), Verdict::Refused(Reason::OutOfWindow), "{start} {len}");
        }
        let late =
            Position { acknowledged: at(30_000_000), opened: at(30_000_000), edge: at(30_070_000), ..position() };
        for (before, repeated) in [(1_000_000, true), (16_000_000, true), (17_000_000, false)] {
            let verdict = judge(&late, None, NOW, &segment(30_000_000 - before, 1_000, none));
            assert_eq!(verdict == Verdict::Repeated, repeated, "a round trip of a fast path ago: {before}");
        }
    }

    #[test]
    fn an_acknowledgement_counts_within_the_largest_window_behind_and_what_was_sent() {
        for (ack, right) in [(2_999, false), (3_000, true), (5_000, true), (6_000, true), (6_001, false)] {
            let verdict = judge(&position(), None, NOW, &Header { ack: at(ack), ..segment(10_000, 9, Flags::PSH) });
            assert_eq!(verdict == Verdict::Acceptable, right, "{ack}: {verdict:?}");
        }
    }

    #[test]
    fn a_reset_counts_where_all_is_authentic_or_acknowledged_and_nowhere_else() {
        assert_eq!(verdict(10_000, 0, Flags::RST), Verdict::Reset);
        assert_eq!(verdict(10_500, 0, Flags::RST), Verdict::Reset);
        assert_eq!(verdict(10_001, 0, Flags::RST), Verdict::Refused(Reason::ResetInWindow));
        for elsewhere in [9_999, 70_000, -1] {
            assert_eq!(verdict(elsewhere, 0, Flags::RST), Verdict::Refused(Reason::ResetElsewhere));
        }
    }

    #[test]
    fn an_old_timestamp_is_refused_for_24_days_but_on_a_reset() {
        let clocks = Clocks::new(Timestamps { value: 9, echo: 0 }, Timestamps { value: 100, echo: 0 }, NOW);
        let old = |flags| Header { timestamps: Some(Timestamps { value: 99, echo: 0 }), ..segment(10_000, 9, flags) };
        let judge = |header, now| judge(&position(), Some(&clocks), now, &header);
        assert_eq!(judge(old(Flags::PSH), NOW), Verdict::Refused(Reason::OldTimestamp));
        assert_eq!(judge(old(Flags::RST), NOW), Verdict::Reset);
        assert_eq!(judge(segment(10_000, 9, Flags::PSH), NOW), Verdict::Acceptable, "some stacks leave them out");
        let later = NOW + Duration::from_secs(25 * 24 * 3600);
        assert_eq!(judge(old(Flags::PSH), later), Verdict::Acceptable);
    }

    #[test]
    fn the_window_is_that_of_the_newest_segment() {
        let mut window = SendWindow::new(100);
        assert!(window.is_newest(at(10), at(5), 1_000, false));
        assert!(!window.is_newest(at(9), at(5), 9_000, false), "an older segment");
        assert!(!window.is_newest(at(10), at(4), 9_000, false), "an older acknowledgement");
        assert!(window.is_newest(at(10), at(5), 10, false), "it may shrink");
        assert!(window.is_newest(at(9), at(6), 500, true), "a retransmission with a new acknowledgement");
        assert_eq!(window.max(), 1_000);
    }

    #[test]
    fn what_is_refused_is_answered_so_often_and_no_more() {
        let mut answers = Answers::default();
        assert_eq!((0..9).filter(|_| answers.allow(NOW, false)).count(), 1);
        assert_eq!((0..999).filter(|_| answers.allow(NOW, true)).count(), 100);
        assert_eq!((0..9_999).filter(|_| answers.allow_repeated(NOW)).count(), 2_000);
        assert!(answers.allow(NOW + Answers::PAUSE, false));
    }
}
