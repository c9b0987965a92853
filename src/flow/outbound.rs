//! The stream from the local kernel to the peer: where it stands in both spaces, the frames in flight, what the kernel
//! is told of them. [`super::egress`] works on it.

use std::time::Duration;

use tcpcrypt::{Plaintext, Record};

use super::config::RekeyLimits;
use super::context::Context;
use super::encrypted::{Ends, piece};
use super::frames::{Acknowledged, Boundaries, Boundary, Store};
use super::gate::{Answers, SendWindow};
use super::pool::Pool;
use super::reassembly::Reassembly;
use crate::time::Instant;
use crate::wire::mss::payload_room;
use crate::wire::{C, Offset, P, Seq};

/// Shortest and longest time of the own retransmission timer, and that before a round trip was measured.
const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(60);
const FIRST_RTO: Duration = Duration::from_secs(1);
/// A path that claims to take less is not believed (as Linux's `min_pmtu`).
const MIN_MSS: usize = 512;
/// After this time more is tried again (RFC 1191, section 6.3; RFC 8201, section 4; Linux's `mtu_expires`).
const LIMIT_AGE: Duration = Duration::from_secs(600);
/// Linux's longest retransmission timeout (`TCP_RTO_MAX`), and a little, for timers are not exact.
const KERNEL_RTO_MAX: Duration = Duration::from_secs(122);

/// How far the local kernel's FIN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    /// The kernel has sent it; the last frame is still to be sealed.
    Wanted,
    /// The frame with FINp is sealed, and its end is in the list of boundaries.
    Sealed,
}

/// How old the key of the local generation is. What it has protected, the record knows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyAge {
    generation: u64,
    /// When it sealed its first frame, if it has.
    since: Option<Instant>,
    /// It is to be replaced whatever it has done.
    worn: bool,
}

impl KeyAge {
    /// The key in use is to be replaced.
    pub(super) fn wear_out(&mut self) {
        self.worn = true;
    }

    /// Starts a rekey if `limits` are reached (TC-31). The next frame sealed carries it; `data`: it has some.
    pub(super) fn check(&self, record: &mut Record, limits: &RekeyLimits, now: Instant, data: bool) {
        let used = record.sealed();
        let old = self.since.is_some_and(|since| now.since(since) >= limits.time);
        if self.worn || old || used.frames >= limits.frames || used.bytes >= limits.bytes {
            // Without data not while the peer has not answered the one before (TC-33): then with a later frame.
            if data {
                record.start_rekey_with_data();
            } else {
                record.start_rekey();
            }
        }
    }

    /// Notes that the record has sealed something.
    pub(super) fn note(&mut self, record: &Record, now: Instant) {
        if self.generation != record.local_generation() {
            *self = Self { generation: record.local_generation(), since: Some(now), worn: false };
        }
        self.since.get_or_insert(now);
    }
}

/// How far a stream was sent on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// End of what was sent within the peer's window (SND.NXT).
    pub(super) within: Offset<C>,
    /// End of all that was sent, probes beyond the window included: no acknowledgement is of more.
    pub(super) ever: Offset<C>,
}

impl Default for Sent {
    fn default() -> Self {
        Self { within: Offset::START, ever: Offset::START }
    }
}

/// The stream from the local kernel to the peer.
#[derive(Debug)]
pub(crate) struct Out {
    pub(super) isn: u32,
    /// Ends of the frames that the peer has not acknowledged whole.
    pub(super) ends: Boundaries,
    /// Those that it has acknowledged lately, if it permits SACK.
    acknowledged: Option<Acknowledged>,
    /// The bytes of those in `ends`.
    pub(super) store: Store<C>,
    /// Bytes from the kernel that are not framed yet: there are no keys, or the peer's window is full.
    pub(super) pending: Vec<u8>,
    pub(super) fin: Fin,
    /// How far it was sent.
    pub(super) sent: Sent,
    /// What the peer has acknowledged.
    pub(super) acked: Offset<C>,
    /// Right edge of the peer's window, as its newest segment says.
    pub(super) edge: Offset<C>,
    pub(super) window: SendWindow,
    /// How often segments of the local end that are not believed were answered.
    pub(super) answers: Answers,
    pub(super) peer_scale: u8,
    /// Right edge that the kernel was told. Not taken back.
    pub(super) told_edge: Offset<P>,
    /// Bytes beyond a gap.
    pub(super) early: Reassembly<P>,
    /// MSS that the peer announced, or this host if that is less, or what the path takes.
    pub(super) peer_mss: usize,
    /// The same but for what the path takes, if a router has said that it takes less, and when.
    unlimited: Option<(usize, Instant)>,
    /// Bytes of C in a segment, if the kernel's segments show that the path takes less than the MSS.
    pub(super) stride: Option<usize>,
    /// Last urgent byte that the kernel named.
    pub(super) urgent: Option<Offset<P>>,
    /// The end of this host's Init message.
    pub(super) init_end: Offset<C>,
    pub(super) key: KeyAge,
    pub(super) rto: Duration,
    pub(super) retries: u8,
    pub(super) timer: Option<Instant>,
    /// What the kernel last sent again, and when.
    repeated: Option<(Offset<P>, Instant)>,
    /// The longest time after which it sent the same once more.
    patience: Duration,
    /// P bytes framed.
    pub(super) total: u64,
}

impl Out {
    pub(super) fn new(ends: &Ends) -> Self {
        Self {
            isn: ends.local_isn,
            ends: Boundaries::default(),
            acknowledged: ends.sack.then(Acknowledged::default),
            store: Store::default(),
            pending: Vec::new(),
            fin: Fin::Open,
            sent: Sent::default(),
            acked: Offset::START,
            edge: Offset::START + usize::from(ends.peer_window),
            answers: Answers::default(),
            window: SendWindow::new(usize::from(ends.peer_window)),
            peer_scale: ends.peer_scale,
            told_edge: Offset::START,
            early: Reassembly::default(),
            peer_mss: usize::from(ends.peer_mss),
            unlimited: None,
            stride: None,
            urgent: None,
            init_end: Offset::START,
            key: KeyAge::default(),
            rto: ends.rtt.map_or(FIRST_RTO, |rtt| (rtt * 3).clamp(MIN_RTO, MAX_RTO)),
            retries: 0,
            timer: None,
            repeated: None,
            patience: Duration::ZERO,
            total: 0,
        }
    }

    /// The next byte expected from the kernel.
    pub(super) fn next(&self) -> Offset<P> {
        self.ends.end().p + self.pending.len() + i64::from(self.fin == Fin::Wanted)
    }

    /// The end of the frames made, without the FIN.
    pub(super) fn data_end(&self) -> Offset<C> {
        self.ends.end().c - i64::from(self.fin == Fin::Sealed)
    }

    /// How far the peer's window lets the frames made be sent. A FIN alone goes behind a full window too.
    pub(super) fn sendable(&self) -> Offset<C> {
        if self.edge >= self.data_end() { self.ends.end().c } else { self.edge }
    }

    /// Everything up to `to` was sent, beyond the peer's window what of it is a probe.
    pub(super) fn note_sent(&mut self, to: Offset<C>) {
        self.sent.within = self.sent.within.max(to.min(self.sendable()));
        self.sent.ever = self.sent.ever.max(to);
    }

    /// The number that a segment without data can carry so that the peer accepts it, as Linux's `tcp_acceptable_seq`: what
    /// lies beyond its window, it discards with the acknowledgement in it. Windows are rounded down to their unit.
    pub(super) fn acceptable_seq(&self) -> Seq<C> {
        let Sent { within, .. } = self.sent;
        let rounded = within.ahead_of(self.edge) < 1 << self.peer_scale;
        (if rounded { within } else { self.edge }).seq(self.isn)
    }

    /// Room in the peer's window for new data. An empty frame must always be able to go besides, or a rekey is not answered
    /// (TC-32) while the peer's application does not read: an enotun there keeps a window of one unit open for it (see
    /// `In::announce`). A peer whose window never has more gets data all the same.
    pub(super) fn data_room(&self) -> usize {
        let kept = tcpcrypt::frame::OVERHEAD.next_multiple_of(1 << self.peer_scale);
        let kept = if self.window.max >= 2 * kept { kept } else { 0 };
        self.edge.ahead_of(self.ends.end().c).saturating_sub(kept)
    }

    /// Room for the frame with FINp alone, behind which nothing has to go.
    pub(super) fn fin_room(&self) -> usize {
        self.edge.ahead_of(self.ends.end().c)
    }

    /// The kernel sends again what begins at `start`.
    pub(super) fn note_repeated(&mut self, start: Offset<P>, now: Instant) {
        if let Some((_, before)) = self.repeated.filter(|(at, _)| *at == start) {
            self.patience = self.patience.max(now.since(before));
        }
        self.repeated = Some((start, now));
    }

    /// How long it can take until the kernel sends something again that it does not know to be acknowledged: twice as long as
    /// before (RFC 6298, section 5.5), as far as its timer goes. Zero if it never sent the same more than twice.
    pub(super) fn repeats_within(&self) -> Duration {
        (self.patience * 2 + self.patience / 8).min(KERNEL_RTO_MAX)
    }

    pub(super) fn fin_sealed(&self) -> bool {
        self.fin == Fin::Sealed
    }

    pub(super) fn all_acked_with_fin(&self) -> bool {
        self.fin == Fin::Sealed && self.ends.is_empty()
    }

    /// Bytes of C in a segment with `options` bytes of TCP options, at most.
    pub(super) fn most(&self, options: usize) -> usize {
        payload_room(self.peer_mss, options)
    }

    /// The same as far as the kernel's super-packets show what the path takes.
    pub(super) fn segment(&self, options: usize) -> usize {
        let most = self.most(options);
        self.stride.map_or(most, |s| s.min(most))
    }

    /// The path takes no more than `mss` bytes of TCP options and payload in a segment.
    pub(super) fn limit(&mut self, mss: usize, now: Instant) {
        let most = self.unlimited.map_or(self.peer_mss, |(most, _)| most);
        self.unlimited = Some((most, now));
        self.peer_mss = self.peer_mss.min(mss.max(MIN_MSS));
    }

    /// Paths change: what one has taken once is forgotten after a while.
    pub(super) fn forget_limit(&mut self, now: Instant) {
        if let Some((most, _)) = self.unlimited.take_if(|(_, at)| now >= *at + LIMIT_AGE) {
            self.peer_mss = most;
        }
    }

    /// The kernel's number for a segment on the wire, if it may be in flight.
    pub(super) fn in_flight(&self, seq: Seq<C>) -> Option<Seq<P>> {
        let at = self.acked.nearest(self.isn, seq);
        (at >= self.acked && at < self.sent.ever).then(|| self.ends.floor_c(at).p.seq(self.isn))
    }

    pub(super) fn held(&self) -> usize {
        let acknowledged = self.acknowledged.as_ref().map_or(0, Acknowledged::held);
        self.store.held() + self.pending.capacity() + self.early.held() + self.ends.held() + acknowledged
    }

    pub(super) fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// Gives back memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.ends.shrink();
        self.acknowledged.as_mut().map(Acknowledged::clear);
        self.store.shrink();
        self.early.shrink();
        self.pending.shrink_to_fit();
    }

    /// Moves the edge that the kernel is told to where what it may send still fits, as frames of full size, into what the
    /// peer allows.
    pub(super) fn raise_told_edge(&mut self) {
        let end = self.ends.end();
        // The kernel is told whole units of its peer's window scale, rounded up (see `tell`).
        let unit = 1_usize << self.peer_scale;
        let mut room = self.data_room();
        if room > 4 * unit {
            room -= unit - 1;
        }
        let frame = self.segment(if self.stride.is_some() { 0 } else { 12 });
        let mut data = room / frame * piece(frame) + (room % frame).saturating_sub(tcpcrypt::frame::OVERHEAD);
        if data == 0 && room > 0 && self.acked == end.c {
            // A window too small for any frame: one is cut into what fits.
            data = 1;
        }
        self.told_edge = self.told_edge.max(end.p + data);
    }

    /// The window for the SYN-ACK that the kernel gets to see, which is not scaled (RFC 7323, section 2.2), if there are
    /// keys already. What [`Self::tell`] says later is not less.
    pub(super) fn first_window(ends: &Ends) -> u16 {
        let mut out = Self::new(ends);
        out.raise_told_edge();
        u16::try_from(out.told_edge.ahead_of(Offset::START)).unwrap_or(u16::MAX)
    }

    /// Acknowledgement and window fields for the kernel.
    pub(super) fn tell(&mut self) -> (u32, u16) {
        let ack = self.ends.base().p;
        // Rounded up: rounding down would take back a part of what was announced before.
        let window = self.told_edge.ahead_of(ack).div_ceil(1 << self.peer_scale);
        (ack.seq(self.isn).0, u16::try_from(window).unwrap_or(u16::MAX))
    }

    /// Appends this host's Init message to the stream.
    pub(super) fn push_own(&mut self, bytes: Vec<u8>) {
        let end = self.ends.end();
        self.init_end = end.c + bytes.len();
        self.ends.push(Boundary { c: self.init_end, p: end.p });
        self.store.append(end.c, bytes);
    }

    /// Seals `data` in frames of `piece` bytes, the last one with FINp if `fin`.
    pub(super) fn seal(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record,
        data: &[u8],
        piece: usize,
        fin: bool,
    ) -> Result<(), tcpcrypt::Error> {
        self.key.check(record, &cx.config.rekey, cx.now, !data.is_empty());
        let frames = data.len().div_ceil(piece).max(1);
        let urgent_room = if self.urgent.is_some() { frames * tcpcrypt::frame::URGENT_LEN } else { 0 };
        let mut bytes = cx.pool.take(data.len() + frames * tcpcrypt::frame::OVERHEAD + urgent_room);
        let start = self.ends.end();
        let (mut done, mut at) = (0_usize, 0_usize);
        for i in 0..frames {
            let part = data.get(done..data.len().min(done + piece)).unwrap_or(&[]);
            let p = start.p + done;
            let plaintext = Plaintext { fin: fin && i + 1 == frames, urgent: self.urgent_in(p), data: part };
            let offset = u64::try_from((start.c + at).get()).unwrap_or(0);
            at += record.seal_onto(offset, &plaintext, &mut bytes)?;
            done += part.len();
            self.ends.push(Boundary { c: start.c + at, p: start.p + done });
        }
        self.store.push(start.c, bytes, cx.pool);
        self.total += data.len() as u64;
        if fin {
            let end = self.ends.end();
            self.ends.push(Boundary { c: end.c + 1_i64, p: end.p + 1_i64 });
            self.fin = Fin::Sealed;
        }
        self.key.note(record, cx.now);
        cx.counters.frames_sealed += frames as u64;
        Ok(())
    }

    /// What a frame with data from `p` on says of urgent data (TC-30).
    pub(super) fn urgent_in(&self, p: Offset<P>) -> Option<u16> {
        let urgent = self.urgent.filter(|u| *u >= p)?;
        u16::try_from(urgent - p).ok()
    }

    /// Takes in the peer's acknowledgement of `ack`; says whether it was news.
    pub(super) fn acknowledge(&mut self, ack: Offset<C>, now: Instant, pool: &mut Pool) -> bool {
        if ack <= self.acked {
            return false;
        }
        self.acked = ack;
        // What was a probe has been taken.
        self.sent.within = self.sent.within.max(ack);
        if let Some(acknowledged) = &mut self.acknowledged {
            self.ends.up_to(ack).for_each(|end| acknowledged.note(end));
        }
        self.ends.acknowledge_c(ack);
        self.store.release(ack, pool);
        if self.urgent.is_some_and(|u| u < self.ends.base().p) {
            self.urgent = None;
        }
        self.retries = 0;
        self.timer = None;
        self.arm(now);
        true
    }

    /// Sets the timer if the first frame in flight is one that the kernel knows nothing of.
    pub(super) fn arm(&mut self, now: Instant) {
        let own = self.ends.first().is_some_and(|f| f.p == self.ends.base().p);
        if !own {
            self.timer = None;
        } else if self.timer.is_none() {
            let rto = self.rto.saturating_mul(1 << self.retries.min(10)).min(MAX_RTO);
            self.timer = Some(now + rto);
        }
    }

    /// A SACK block of the peer's in the kernel's numbers: shrunk to frames. `None` if no frame is whole in it.
    pub(super) fn sack_block(&self, left: Seq<C>, right: Seq<C>) -> Option<(u32, u32)> {
        let left = self.ends.ceil_c(self.acked.nearest(self.isn, left)).p;
        let right = self.acked.nearest(self.isn, right);
        if right > self.ends.end().c {
            return None;
        }
        let right = self.ends.floor_c(right).p;
        // A block that begins at the acknowledgement would say that what is missing is nothing of the kernel's (it is a
        // frame of our own); the kernel would take it for a receiver that forgets what it has.
        (left < right && left > self.ends.base().p).then(|| (left.seq(self.isn).0, right.seq(self.isn).0))
    }

    /// The same of a first block that lies before the acknowledgement `ack` it comes with: what arrived more than once (RFC
    /// 2883, section 4), so that the kernel learns that it has sent again what was not lost.
    pub(super) fn duplicate_sack_block(&self, ack: Offset<C>, left: Seq<C>, right: Seq<C>) -> Option<(u32, u32)> {
        let [left, right] = [left, right].map(|edge| ack.nearest(self.isn, edge));
        let known = self.acknowledged.as_ref().filter(|_| right <= ack)?;
        let (from, to) = known.within(left, right)?;
        Some((from.seq(self.isn).0, to.seq(self.isn).0))
    }
}
