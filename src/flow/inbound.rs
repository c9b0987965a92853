//! The stream from the peer to the local kernel: where it stands in both spaces, what is acknowledged and announced on
//! the wire, and what the kernel is owed. [`super::ingress`] works on it.

use std::ops::Range;
use std::time::Duration;

use tcpcrypt::Opened;
use tcpcrypt::frame::{MAX_FRAME, OVERHEAD};

use super::encrypted::Ends;
use super::frames::{Boundaries, Boundary, Store};
use super::gate::Answers;
use super::pool::Pool;
use super::reassembly::Reassembly;
use crate::time::Instant;
use crate::wire::mss::payload_room;
use crate::wire::{C, Offset, P, Seq};

/// Plaintext is given to the kernel again if it was not acknowledged for this long: longer than it delays acknowledgements.
const REDELIVER_AFTER: Duration = Duration::from_millis(300);
/// As many times without an answer count of a kernel that has answered with a closed window.
const PATIENT_REDELIVERIES: u8 = 8;
/// The same damage this often, over this time, is no accident on the way: the peer is broken (TC-28, TC-29).
const STUBBORN_TIMES: u8 = 3;
const STUBBORN_TIME: Duration = Duration::from_secs(1);
/// It counts again only this much later.
const STUBBORN_PAUSE: Duration = Duration::from_millis(100);

/// How far the end of the peer's stream is (TC-29).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eof {
    /// No frame with FINp was opened.
    Open,
    /// One was: the kernel is given its FIN, which is the last of [`In::next`]'s P.
    Announced,
    /// The FIN behind it has come too, and is the last of [`In::next`]'s C.
    Closed,
}

/// What waits for the bytes before it is let go after this long without a frame that opened: the peer sends it again.
const WAIT: Duration = Duration::from_secs(60);

/// What a connection holds that nobody has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// The peer has the keys.
    pub(crate) confirmed: bool,
    /// Since when no frame has opened.
    pub(crate) since: Instant,
    pub(crate) bytes: usize,
}

/// Something wrong that may be forged: it counts only if it is repeated.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    fingerprint: u64,
    times: u8,
    since: Instant,
    last: Instant,
}

/// The stream from the peer to the local kernel.
#[derive(Debug)]
pub(crate) struct In {
    pub(super) isn: u32,
    /// Up to here everything is opened. A frame starts here.
    pub(super) next: Boundary,
    /// Bytes from there on that are not opened yet.
    pub(super) waiting: Reassembly<C>,
    /// Ends of opened frames that the kernel has not acknowledged.
    pub(super) ends: Boundaries,
    /// Plaintext that the kernel has not acknowledged.
    pub(super) held: Store<P>,
    /// Plaintext up to here was given to the kernel at least once.
    pub(super) delivered: Offset<P>,
    /// What the kernel has acknowledged.
    pub(super) kernel_ack: Offset<P>,
    /// Right edge of the kernel's window.
    pub(super) kernel_edge: Offset<P>,
    /// The same as its latest segment says: kernels may take back what they have announced (Linux's `tcp_shrink_window`).
    kernel_latest: Offset<P>,
    pub(super) kernel_scale: u8,
    /// Highest acknowledgement on enotun's own account: of a part of a frame, or of what the kernel has no room for.
    pub(super) own_ack: Offset<C>,
    /// Highest acknowledgement sent on the wire.
    pub(super) told_ack: Offset<C>,
    /// Right edge announced on the wire. Not taken back.
    pub(super) told_edge: Offset<C>,
    /// A frame was opened.
    pub(super) confirmed: bool,
    pub(super) eof: Eof,
    /// Where the latest FIN flag was seen.
    pub(super) fin_at: Option<Offset<C>>,
    /// A segment came marked by a congested router, and nothing was given to the kernel since.
    pub(super) congested: bool,
    /// Last urgent byte.
    pub(super) urgent: Option<Offset<P>>,
    /// Payload of the segments given to the kernel: what the peer's frames carry, at most the kernel's MSS.
    pub(super) segment: u16,
    pub(super) kernel_mss: u16,
    pub(super) peer_segment: usize,
    /// Since when the beginning of an incomplete frame at `next` is here.
    pub(super) partial_since: Option<Instant>,
    pub(super) partial_timer: Option<Instant>,
    /// Since when something waits, or a frame has opened last.
    waits_since: Option<Instant>,
    pub(super) last_delivery: Instant,
    pub(super) redeliveries: u8,
    /// The kernel has dropped what was within its window, and says that it has none.
    taken_back: bool,
    suspicion: Option<Suspicion>,
    /// What has come twice, for the next acknowledgement to say (D-SACK: RFC 2883).
    pub(super) duplicate: Option<Range<Offset<C>>>,
    /// How often segments that are not taken in were answered.
    pub(super) answers: Answers,
    /// P bytes opened.
    pub(super) total: u64,
}

impl In {
    pub(super) fn new(ends: &Ends) -> Self {
        let start = Offset::START;
        let mss = payload_room(ends.local_mss.into(), if ends.timestamps { 12 } else { 0 });
        let mss = u16::try_from(mss).unwrap_or(u16::MAX);
        Self {
            isn: ends.peer_isn,
            next: Boundary::START,
            waiting: Reassembly::default(),
            ends: Boundaries::default(),
            held: Store::default(),
            delivered: start_p(),
            kernel_ack: start_p(),
            kernel_edge: start_p() + usize::from(ends.local_window),
            kernel_latest: start_p() + usize::from(ends.local_window),
            kernel_scale: ends.local_scale,
            own_ack: start,
            told_ack: start,
            told_edge: start + usize::from(ends.local_window),
            confirmed: false,
            eof: Eof::Open,
            fin_at: None,
            congested: false,
            urgent: None,
            segment: mss,
            kernel_mss: mss,
            peer_segment: usize::from(mss),
            partial_since: None,
            partial_timer: None,
            waits_since: None,
            last_delivery: Instant::ZERO,
            redeliveries: 0,
            taken_back: false,
            suspicion: None,
            duplicate: None,
            answers: Answers::default(),
            total: 0,
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.waiting.held() + self.held.held() + self.ends.held()
    }

    /// The end of the plaintext, without the FIN.
    pub(super) fn data_end(&self) -> Offset<P> {
        self.next.p - i64::from(self.eof != Eof::Open)
    }

    /// How far what was opened may be given to the kernel.
    pub(super) fn deliverable(&self) -> Offset<P> {
        let data_end = self.data_end();
        if self.kernel_edge >= data_end { self.next.p } else { self.kernel_edge.max(self.delivered) }
    }

    pub(super) fn all_acked_with_fin(&self) -> bool {
        self.eof == Eof::Closed && self.ends.is_empty()
    }

    /// The sequence number of the first byte that the wire has not been told is here.
    pub(super) fn unacknowledged(&self) -> Seq<C> {
        self.ack_point().seq(self.isn)
    }

    /// Up to where the wire may be told that everything is here.
    pub(super) fn ack_point(&self) -> Offset<C> {
        self.ends.base().c.max(self.own_ack)
    }

    /// Acknowledges what is opened and has no room in the kernel's window.
    pub(super) fn acknowledge_held(&mut self) {
        if self.delivered < self.next.p {
            self.acknowledge_opened();
        }
    }

    /// Acknowledges what is opened, and is kept here until the kernel acknowledges it. A FIN is the kernel's alone to acknowledge.
    fn acknowledge_opened(&mut self) {
        self.own_ack = self.own_ack.max(self.next.c - i64::from(self.eof == Eof::Closed));
    }

    /// Notes that `range` was here before and is opened. That is acknowledged, or it could not be reported.
    pub(super) fn came_again(&mut self, range: Range<Offset<C>>) {
        if range.start < range.end {
            self.acknowledge_opened();
            self.duplicate = Some(range);
        }
    }

    /// What [`Self::announce`] depends on: if it changes, the peer has to hear of it.
    pub(super) fn told(&self) -> (Offset<C>, Offset<P>) {
        (self.ack_point(), self.kernel_edge)
    }

    /// Acknowledgement and window fields for the wire.
    pub(super) fn announce(&mut self) -> (u32, u16) {
        let ack = self.ack_point();
        self.told_ack = self.told_ack.max(ack);
        // Frames shrink when opened, so what fits the kernel's window fits in C as well.
        let room = self.kernel_edge.ahead_of(self.next.p);
        let owed = self.next.c + self.owed_room();
        let edge = (self.next.c + room).max(owed).max(self.told_edge);
        // Rounding down would cut the frame that must be able to come, or take back a part of what was announced. That is
        // done when what was opened waits (RFC 7323, section 2.4): rounded up, each acknowledgement would let in a little more.
        let least = if self.is_full() { owed } else { owed.max(self.told_edge) };
        let unit = 1_usize << self.kernel_scale;
        let mut field = edge.ahead_of(ack) / unit;
        if ack + field * unit < least {
            field += 1;
        }
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.told_edge = self.told_edge.max(ack + usize::from(field) * unit);
        (ack.seq(self.isn).0, field)
    }

    /// What is announced whatever the kernel's window. A whole frame must always be able to come, and when what was opened
    /// waits for the kernel still an empty one, or a rekey is not answered (TC-32, TC-35) as long as the application does not
    /// read. A peer that puts data there gets no more of it.
    fn owed_room(&self) -> usize {
        match self.next.p.ahead_of(self.delivered) {
            0 => MAX_FRAME,
            waiting if waiting <= 2 * MAX_FRAME => OVERHEAD,
            _ => 0,
        }
    }

    /// Whether what was opened waits for the kernel's window.
    pub(super) fn is_full(&self) -> bool {
        self.delivered < self.next.p
    }

    /// Whether the peer has been given room for the answer to a rekey.
    pub(super) fn has_room_for_answer(&self) -> bool {
        self.told_edge.ahead_of(self.next.c) >= OVERHEAD
    }

    /// So much from `next` on is kept however little memory there is: two segments, or an Init message in many small ones.
    fn next_room(&self) -> usize {
        (2 * self.peer_segment).max(512)
    }

    /// Whether a segment continues what is here of the frame at `next`, and not by much: without these nothing that waits
    /// would ever be opened and let go of.
    pub(super) fn comes_next(&self, at: Offset<C>, len: usize) -> bool {
        at <= self.waiting.contiguous_end(self.next.c) && (at + len).ahead_of(self.next.c) <= self.next_room()
    }

    /// Whether an Init message or a frame of the peer's was taken in.
    pub(super) fn has_begun(&self) -> bool {
        self.next.c > Offset::START
    }

    /// The number of a segment for the kernel that has no data: `at`, if it would take that. What lies beyond its window it
    /// discards, with the acknowledgement that is in it.
    pub(super) fn acceptable_seq(&self, at: Offset<P>) -> Seq<P> {
        let edge = self.kernel_latest.max(self.kernel_ack);
        // A FIN is delivered behind a full window too.
        let edge = if self.delivered > self.data_end() { edge + 1_i64 } else { edge };
        at.min(edge).seq(self.isn)
    }

    /// What has come twice and what waits behind a gap, for SACK blocks.
    pub(super) fn sack(&self) -> impl Iterator<Item = Range<Offset<C>>> {
        let mut ranges = std::array::from_fn(|_| Offset::START..Offset::START);
        let n = self.waiting.sack(self.waiting.contiguous_end(self.next.c), &mut ranges);
        // What is acknowledged stands alone; else the block that it is part of has to follow.
        let [whole, ..] = &ranges;
        let inside = |range: &Range<Offset<C>>| n > 0 && whole.start <= range.start && range.end <= whole.end;
        let duplicate = self.duplicate.clone().filter(|range| range.end <= self.ack_point() || inside(range));
        duplicate.into_iter().chain(ranges.into_iter().take(n))
    }

    /// Takes in acknowledgement and window of a segment from the kernel; whether it has room again for what it had no memory for.
    pub(super) fn from_kernel(&mut self, now: Instant, ack: Seq<P>, window: u16, pool: &mut Pool) -> bool {
        let ack = self.kernel_ack.nearest(self.isn, ack);
        if ack > self.delivered {
            return false;
        }
        if ack > self.kernel_ack {
            self.kernel_ack = ack;
            self.ends.acknowledge_p(ack);
            self.held.release(ack, pool);
            self.redeliveries = 0;
            self.last_delivery = now;
            if self.urgent.is_some_and(|u| u < ack) {
                self.urgent = None;
            }
        }
        let edge = ack + (usize::from(window) << self.kernel_scale);
        self.kernel_edge = self.kernel_edge.max(edge);
        if ack == self.kernel_ack {
            self.kernel_latest = edge;
        }
        // Windows are rounded down to their unit.
        let takes_back = edge + (1_usize << self.kernel_scale) <= self.delivered;
        if takes_back {
            // It is there, and that is waited for, as for a window that was never opened (RFC 9293, section 3.8.6.1).
            self.redeliveries = self.redeliveries.min(PATIENT_REDELIVERIES);
        }
        std::mem::replace(&mut self.taken_back, takes_back) && !takes_back && self.kernel_ack < self.delivered
    }

    /// The urgent pointer for a segment that starts at `at`: the byte after the last urgent one.
    pub(super) fn urgent_pointer(&self, at: Offset<P>) -> Option<u16> {
        let urgent = self.urgent.filter(|u| *u >= at)?;
        u16::try_from(urgent + 1_i64 - at).ok()
    }

    /// Gives back memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink();
        self.ends.shrink();
        self.held.shrink();
    }

    pub(super) fn timer(&self) -> Option<Instant> {
        let owed = self.kernel_ack < self.delivered || self.delivered < self.next.p;
        let wait = REDELIVER_AFTER.saturating_mul(1 << self.redeliveries.min(8));
        let redeliver = owed.then(|| self.last_delivery + wait);
        [redeliver, self.partial_timer, self.waits_until()].into_iter().flatten().min()
    }

    /// Appends plaintext of opened frames.
    pub(super) fn push_plaintext(&mut self, from: Offset<P>, bytes: Vec<u8>, pool: &mut Pool) {
        self.total += bytes.len() as u64;
        self.held.push(from, bytes, pool);
    }

    /// Notes a frame that was opened. Its data is to be appended by the caller.
    pub(super) fn opened(&mut self, frame_len: usize, opened: &Opened) {
        let data = opened.data.len();
        self.confirmed = true;
        if let Some(urgent) = opened.urgent {
            self.urgent = self.urgent.max(Some(self.next.p + usize::from(urgent)));
        }
        if data > 0 {
            self.segment =
                u16::try_from(data).unwrap_or(u16::MAX).clamp(self.segment.min(self.kernel_mss), self.kernel_mss);
        }
        let end = Boundary { c: self.next.c + frame_len, p: self.data_end() + data };
        self.ends.push_in_place(end);
        if opened.fin {
            self.eof = Eof::Announced;
        }
        self.next = Boundary { c: end.c, p: end.p + i64::from(self.eof != Eof::Open) };
        self.suspicion = None;
        self.partial_since = None;
        self.partial_timer = None;
        self.waits_since = None;
    }

    /// Notes after a segment whether something waits.
    pub(super) fn note_waiting(&mut self, now: Instant) {
        self.waits_since = if self.waiting.is_empty() { None } else { self.waits_since.or(Some(now)) };
    }

    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + WAIT)
    }

    /// What waits, unproven.
    pub(super) fn waits(&self) -> Option<Waits> {
        let since = self.waits_since?;
        Some(Waits { confirmed: self.confirmed, since, bytes: self.waiting.held() })
    }

    /// Lets go of what waits and was not acknowledged.
    pub(super) fn expire_waiting(&mut self) {
        self.forget_waiting(self.expected());
    }

    /// The same, but for what comes next: without that nothing would ever be opened where memory is scarce.
    pub(super) fn shed(&mut self) {
        self.forget_waiting(self.expected().max(self.next.c + self.next_room()));
    }

    fn forget_waiting(&mut self, from: Offset<C>) {
        self.waiting.remove(from..Offset::new(i64::MAX / 2));
        self.waits_since = None;
    }

    /// Takes in the FIN behind the frame with FINp, if that is where the latest was seen. The kernel has had its own.
    pub(super) fn take_fin(&mut self) {
        if self.eof == Eof::Announced && self.fin_at == Some(self.next.c) {
            self.eof = Eof::Closed;
            self.next.c += 1_usize;
            self.ends.push(self.next);
            self.waiting.clear();
        }
    }

    /// What the peer sends again if it has not heard: up to here all is opened or acknowledged.
    pub(super) fn expected(&self) -> Offset<C> {
        self.next.c.max(self.ack_point())
    }

    /// Notes the same kind of damage at the same place; true if it is no accident any more.
    pub(super) fn suspect(&mut self, now: Instant, fingerprint: u64) -> bool {
        let same = self.suspicion.filter(|s| s.fingerprint == fingerprint);
        let mut suspicion = same.unwrap_or(Suspicion { fingerprint, times: 0, since: now, last: now });
        // What comes so soon was duplicated on the way; the peer did not send it again.
        if same.is_none() || now.since(suspicion.last) >= STUBBORN_PAUSE {
            suspicion.times = suspicion.times.saturating_add(1);
            suspicion.last = now;
        }
        self.suspicion = Some(suspicion);
        suspicion.times >= STUBBORN_TIMES && now.since(suspicion.since) >= STUBBORN_TIME
    }
}

fn start_p() -> Offset<P> {
    Offset::START
}
