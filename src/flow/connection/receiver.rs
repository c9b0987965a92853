//! The stream from the peer to the local kernel: frames in C become plaintext in P.
//!
//! Frames are opened in order, each once; the plaintext is kept until the kernel has acknowledged it, so that whatever the
//! kernel lost can be given to it again, and old keys can be erased. The P position of data behind a gap is unknown, so
//! such data waits here, and the duplicate acknowledgements and SACK blocks for it are sent from here.
//!
//! On the wire nothing is acknowledged that the kernel has not, with three exceptions: the beginning of a frame that is
//! longer than what the peer may have in flight, which otherwise would never be whole; opened frames for which the
//! kernel's window has no room, since the peer's kernel gives up a connection on which what it sent within the window is
//! not acknowledged, while it waits for a closed window for ever; and opened frames of which something has come twice, for
//! that cannot be reported (D-SACK) of what is not acknowledged.
//!
//! Here is where the stream stands in both spaces; `take` takes in the peer's segments, `open` opens what is in them, `delivery` knows
//! what the kernel has of it, `advertise` says what the peer is told.

mod advertise;
mod delivery;
mod open;
mod suspicion;
mod take;

pub(super) use open::{Opener, Progress};

use std::ops::Range;

use tcpcrypt::Opened;

use self::delivery::Delivery;
use self::suspicion::Suspicion;
use super::action::Action;
use super::outcome::{AbortReason, Outcome};
use super::params::HandshakeParams;
use super::portion::Portion;
use crate::flow::context::Context;
use crate::flow::frames::{Boundaries, Boundary, MAX_PIECES};
use crate::flow::gate::Answers;
use crate::flow::pool::Pool;
use crate::flow::reassembly::Reassembly;
use crate::time::Instant;
use crate::wire::mss::payload_room;
use crate::wire::{C, Flags, Offset, P, Seq};

/// The state of the end of the peer's stream (TC-29).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Eof {
    /// No frame with FINp was opened.
    Open,
    /// One was: the kernel gets its FIN, which is the last P position of [`Receiver::next`].
    Announced,
    /// The FIN after it has arrived too, and is the last C position of [`Receiver::next`].
    Closed,
}

/// Bytes beyond a gap are dropped after this long without an opened frame: the peer retransmits them.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Bytes held by a connection that nobody has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The peer has the keys.
    pub(crate) confirmed: bool,
    /// The time of the last opened frame.
    pub(crate) since: Instant,
    pub(crate) bytes: usize,
}

/// The beginning of an incomplete frame.
#[derive(Debug, Clone, Copy)]
struct Incomplete {
    /// Since when it is here.
    since: Instant,
    /// When it is acknowledged, if at all.
    acknowledge_at: Option<Instant>,
}

/// What the peer was told about its stream, and what that depends on: if it changes, the peer must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerView {
    pub(super) acknowledged: Offset<C>,
    kernel_edge: Offset<P>,
}

/// The stream from the peer to the local kernel.
#[derive(Debug)]
pub(crate) struct Receiver {
    isn: u32,
    /// Everything up to here is opened. A frame starts here.
    next: Boundary,
    /// Bytes from there on, not opened yet.
    waiting: Reassembly<C>,
    /// Ends of opened frames that the kernel has not acknowledged.
    frames: Boundaries,
    delivery: Delivery,
    /// Highest acknowledgement on enotun's own account: of part of a frame, or of what the kernel has no room for.
    own_ack: Offset<C>,
    /// Highest acknowledgement sent on the wire (RCV.NXT, as the peer knows it).
    advertised_ack: Offset<C>,
    /// Right edge announced on the wire. Never retracted.
    advertised_edge: Offset<C>,
    /// A frame was opened.
    confirmed: bool,
    eof: Eof,
    /// Where the latest FIN flag was seen.
    fin_at: Option<Offset<C>>,
    /// Last urgent byte.
    urgent: Option<Offset<P>>,
    /// Maximum payload of the peer's segments.
    peer_segment: usize,
    /// The beginning of the frame at `next`, if it is here.
    incomplete: Option<Incomplete>,
    /// Since when something waits, or when a frame was last opened.
    waits_since: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Bytes that arrived twice, for the next acknowledgement to report (D-SACK: RFC 2883).
    duplicate: Option<Range<Offset<C>>>,
    /// Limits the answers to segments that are not acceptable.
    answers: Answers,
    /// P bytes opened.
    total: u64,
}

impl Receiver {
    pub(super) fn new(params: &HandshakeParams) -> Self {
        let mss = payload_room(params.local_mss.into(), if params.timestamps { 12 } else { 0 });
        Self {
            isn: params.peer_isn,
            next: Boundary::START,
            waiting: Reassembly::default(),
            frames: Boundaries::default(),
            delivery: Delivery::new(usize::from(params.local_window), params.local_scale, mss),
            own_ack: Offset::START,
            advertised_ack: Offset::START,
            advertised_edge: Offset::START + usize::from(params.local_window),
            confirmed: false,
            eof: Eof::Open,
            fin_at: None,
            urgent: None,
            peer_segment: mss,
            incomplete: None,
            waits_since: None,
            suspicion: None,
            duplicate: None,
            answers: Answers::default(),
            total: 0,
        }
    }

    /// The initial sequence number.
    pub(super) fn isn(&self) -> u32 {
        self.isn
    }

    /// P bytes opened.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    // On the wire.

    /// The position of one of the peer's sequence numbers.
    pub(super) fn position_c(&self, seq: Seq<C>) -> Offset<C> {
        self.next.c.nearest(self.isn, seq)
    }

    /// Everything up to here is authentic.
    pub(super) fn opened(&self) -> Offset<C> {
        self.next.c
    }

    /// What the peer was told: what has arrived, and the right edge of the window.
    pub(super) fn advertised(&self) -> (Offset<C>, Offset<C>) {
        (self.advertised_ack, self.advertised_edge)
    }

    /// The wire may be told that everything up to here has arrived.
    fn ack_point(&self) -> Offset<C> {
        self.frames.base().c.max(self.own_ack)
    }

    /// The same as a sequence number.
    pub(super) fn unacknowledged(&self) -> Seq<C> {
        self.ack_point().seq(self.isn)
    }

    /// The state that the peer must be told of when it changes.
    pub(super) fn peer_view(&self) -> PeerView {
        PeerView { acknowledged: self.ack_point(), kernel_edge: self.delivery.edge() }
    }

    /// The peer retransmits what it does not know to be acknowledged: everything up to here is opened or
    /// acknowledged.
    fn expected(&self) -> Offset<C> {
        self.next.c.max(self.ack_point())
    }

    /// Whether what was opened waits for the kernel's window.
    pub(super) fn is_full(&self) -> bool {
        self.delivery.delivered() < self.next.p
    }

    /// Bytes that arrived twice before are not reported any more.
    pub(super) fn forget_duplicate(&mut self) {
        self.duplicate = None;
    }

    /// Answers an unacceptable segment with what is expected, at a limited rate; `data`: it has some. Returns whether
    /// it does.
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>, data: bool) -> bool {
        let allowed = self.answers.allow(cx.now, data);
        if allowed {
            acknowledge(cx);
        }
        allowed
    }

    /// The peer does not know that this has arrived: it is told again, at a limited rate.
    pub(super) fn note_repeated(&mut self, cx: &mut Context<'_>, range: Range<Offset<C>>) {
        self.redeliver(cx);
        if self.answers.allow_repeated(cx.now) {
            acknowledge(cx);
            // A FIN alone has nothing that could be reported.
            self.duplicate = Some(range).filter(|range| range.start < range.end);
        }
    }

    /// Whether an Init message or a frame from the peer was processed.
    pub(super) fn has_begun(&self) -> bool {
        self.next.c > Offset::START
    }

    /// Whether a frame from the peer was opened: it has the keys.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether the peer has not ended its stream yet.
    pub(super) fn is_open(&self) -> bool {
        self.eof == Eof::Open
    }

    /// The stream has ended, and the kernel has acknowledged all of it.
    pub(super) fn is_closed(&self) -> bool {
        self.eof == Eof::Closed && self.frames.is_empty()
    }

    /// Records an opened frame. The caller must append its data.
    fn note_opened(&mut self, frame_len: usize, opened: &Opened) {
        let data = opened.data.len();
        self.confirmed = true;
        if let Some(urgent) = opened.urgent {
            self.urgent = self.urgent.max(Some(self.next.p + usize::from(urgent)));
        }
        self.delivery.note_frame(data);
        let end = Boundary { c: self.next.c + frame_len, p: self.data_end() + data };
        self.frames.push_in_place(end);
        if opened.fin {
            self.eof = Eof::Announced;
        }
        self.next = Boundary { c: end.c, p: end.p + i64::from(self.eof != Eof::Open) };
        self.suspicion = None;
        (self.incomplete, self.waits_since) = (None, None);
    }

    /// Processes the FIN after the frame with FINp, if the latest one is there. The kernel has had its own.
    fn take_fin(&mut self) {
        if self.eof == Eof::Announced && self.fin_at == Some(self.next.c) {
            self.eof = Eof::Closed;
            self.next.c += 1_usize;
            self.frames.push(self.next);
            self.waiting.clear();
        }
    }

    // In the kernel's space.

    /// The position of an acknowledgement of the kernel's.
    pub(super) fn position_p(&self, ack: Seq<P>) -> Offset<P> {
        self.delivery.acknowledged().nearest(self.isn, ack)
    }

    /// What the kernel has acknowledged, and the end of what it was given.
    pub(super) fn kernel_view(&self) -> (Offset<P>, Offset<P>) {
        (self.delivery.acknowledged(), self.delivery.delivered())
    }

    /// The end of the plaintext, without the FIN.
    fn data_end(&self) -> Offset<P> {
        self.next.p - i64::from(self.eof != Eof::Open)
    }

    /// The number of a segment without data for the kernel. It discards what lies beyond its window, with the
    /// acknowledgement in it.
    pub(super) fn acceptable_seq(&self) -> Seq<P> {
        // A FIN is delivered even if the window is full.
        let fin = self.delivery.delivered() > self.data_end();
        self.delivery.acceptable(fin).seq(self.isn)
    }

    /// The number of the last byte given to the kernel.
    pub(super) fn delivered_seq(&self) -> Seq<P> {
        self.delivery.delivered().seq(self.isn)
    }

    /// The number before what the kernel has acknowledged.
    pub(super) fn probe_seq(&self) -> Seq<P> {
        (self.delivery.acknowledged() - 1_i64).seq(self.isn)
    }

    /// Payload of the segments given to the kernel.
    pub(super) fn segment(&self) -> u16 {
        self.delivery.segment()
    }

    /// A router has marked a segment with data.
    pub(super) fn note_congestion(&mut self) {
        self.delivery.note_congestion();
    }

    /// Processes acknowledgement and window of a segment from the kernel. If it has room again for what it had no
    /// memory for, that is delivered again.
    pub(super) fn note_kernel(&mut self, cx: &mut Context<'_>, ack: Seq<P>, window: u16) -> bool {
        let ack = self.position_p(ack);
        if ack > self.delivery.delivered() {
            return false;
        }
        if self.delivery.advance(ack, cx.now, cx.pool) {
            self.frames.acknowledge_p(ack);
            if self.urgent.is_some_and(|u| u < ack) {
                self.urgent = None;
            }
        }
        self.delivery.note_window(ack, window)
    }

    /// Acknowledges what is opened and has no room in the kernel's window.
    pub(super) fn acknowledge_held(&mut self) {
        if self.is_full() {
            self.acknowledge_opened();
        }
    }

    /// Acknowledges what is opened, and keeps it here until the kernel acknowledges it. Only the kernel acknowledges
    /// a FIN.
    fn acknowledge_opened(&mut self) {
        self.own_ack = self.own_ack.max(self.next.c - i64::from(self.eof == Eof::Closed));
    }

    /// Records that `range` arrived before and is opened. It is acknowledged, as it could not be reported otherwise.
    fn note_again(&mut self, range: Range<Offset<C>>) {
        if range.start < range.end {
            self.acknowledge_opened();
            self.duplicate = Some(range);
        }
    }

    /// Delivers what the kernel has room for, with the FIN if it is due.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>, flags: Flags) {
        self.delivery.deliver(cx, self.data_end(), self.next.p, flags);
    }

    /// Delivers again what the kernel has not acknowledged, unless that was done just now.
    pub(super) fn redeliver(&mut self, cx: &mut Context<'_>) {
        self.delivery.redeliver(cx);
    }

    /// When [`Self::handle_redelivery`] should be called.
    pub(super) fn redeliver_at(&self) -> Option<Instant> {
        self.delivery.redeliver_at(self.next.p)
    }

    /// The kernel has not acknowledged what it was given, or has no room.
    pub(super) fn handle_redelivery(&mut self, cx: &mut Context<'_>) -> Outcome {
        if self.delivery.expire(cx) { Ok(()) } else { Err(AbortReason::Timeout) }
    }

    /// The part of `range`, from `at` on, that goes into one packet: at most `max` bytes.
    pub(super) fn portion<'a, 'b>(
        &'a self,
        (at, to): (Offset<P>, Offset<P>),
        max: usize,
        flags: Flags,
        slices: &'b mut [&'a [u8]; MAX_PIECES],
    ) -> Option<Portion<'a, 'b, P>> {
        let data_end = self.data_end();
        let urgent = self.urgent_pointer(at);
        // A super-packet has a single urgent pointer, which is wrong in all of its segments but the first.
        let most = if urgent.is_some() { max.min(usize::from(self.segment())) } else { max };
        let (data, end) = self.delivery.gather(at, to.min(data_end).min(at + most), slices)?;
        let fin = self.eof != Eof::Open && end == data_end && to > data_end;
        let mut flags = flags.with(Flags::ACK);
        if end >= data_end.min(to) && end > at {
            flags = flags.with(Flags::PSH);
        }
        if fin {
            flags = flags.with(Flags::FIN);
        }
        if urgent.is_some() {
            flags = flags.with(Flags::URG);
        }
        let next = end + i64::from(fin);
        (next > at).then(|| Portion { seq: at.seq(self.isn), flags, urgent: urgent.unwrap_or(0), data, next })
    }

    /// The urgent pointer for a segment that starts at `at`: the byte after the last urgent one.
    fn urgent_pointer(&self, at: Offset<P>) -> Option<u16> {
        let urgent = self.urgent.filter(|u| *u >= at)?;
        u16::try_from(urgent + 1_i64 - at).ok()
    }

    /// Appends plaintext of opened frames.
    fn push_plaintext(&mut self, from: Offset<P>, bytes: Vec<u8>, pool: &mut Pool) {
        self.total += bytes.len() as u64;
        self.delivery.push(from, bytes, pool);
    }

    // The bytes that wait.

    /// The bytes that wait, unproven.
    pub(super) fn waits(&self) -> Option<Waits> {
        let since = self.waits_since?;
        Some(Waits { confirmed: self.confirmed, since, bytes: self.waiting.held() })
    }

    /// When waiting bytes are dropped.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + WAIT)
    }

    /// Lets go of what waits and was not acknowledged. What was stays, and still counts as waiting, or nothing would let go of it where
    /// memory is scarce.
    pub(super) fn expire_waiting(&mut self, cx: &mut Context<'_>) {
        let held = self.waiting.held();
        self.forget_waiting(self.expected());
        cx.counters.held_expired += u64::from(self.waiting.held() < held);
        self.waits_since = if self.waiting.is_empty() { None } else { Some(cx.now) };
    }

    /// The same, but for what comes next: without that nothing would ever be opened where memory is scarce. False: more than that of an
    /// incomplete frame is acknowledged, and would not come again.
    pub(super) fn shed(&mut self) -> bool {
        let next = self.next.c + self.next_room();
        let expected = self.expected();
        self.forget_waiting(expected.max(next));
        expected <= next
    }

    fn forget_waiting(&mut self, from: Offset<C>) {
        self.waiting.remove(from..Offset::new(i64::MAX / 2));
        self.waits_since = None;
    }

    /// This much from `next` on is kept however scarce memory is: two segments, or an Init message in many small
    /// ones.
    fn next_room(&self) -> usize {
        (2 * self.peer_segment).max(512)
    }

    /// Bytes of memory held.
    pub(super) fn held(&self) -> usize {
        self.waiting.held() + self.delivery.held() + self.frames.held()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink();
        self.frames.shrink();
        self.delivery.shrink();
    }
}

/// Acknowledges on enotun's own account.
fn acknowledge(cx: &mut Context<'_>) {
    cx.counters.own_segments += 1;
    cx.actions.push(Action::ACKNOWLEDGE_PEER);
}
