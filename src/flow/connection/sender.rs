//! The stream from the local kernel to the peer: plaintext in P becomes frames in C.
//!
//! New bytes are framed in order, once. The kernel's retransmissions are answered with the frames that were made then
//! (TC-27), never by sealing again. What exists only in C (Init messages, empty rekey frames) the kernel cannot
//! retransmit: a timer here does (RFC 6298).
//!
//! This file has the position of the stream in both spaces, the frames in flight, and what the kernel is told about
//! them; `take` handles the kernel's segments, `acknowledge` the peer's acknowledgements, and `flush` sends what may
//! be sent.

mod acknowledge;
mod flush;
mod key_age;
mod own_timer;
mod segment_size;
mod take;

pub(super) use acknowledge::Acknowledgement;
pub(super) use take::KernelSegment;

use std::time::Duration;

use tcpcrypt::frame::{OVERHEAD, URGENT_LEN};
use tcpcrypt::{Plaintext, Record};

use self::key_age::KeyAge;
use self::own_timer::OwnTimer;
use self::segment_size::{SegmentSize, piece};
use super::action::Cut;
use super::outcome::Outcome;
use super::params::HandshakeParams;
use super::portion::{Portion, stream_offset};
use crate::flow::context::Context;
use crate::flow::frames::{Acknowledged, Boundaries, Boundary, MAX_PIECES, Store};
use crate::flow::gate::{Answers, SendWindow};
use crate::flow::reassembly::Reassembly;
use crate::time::Instant;
use crate::wire::{C, Flags, Offset, P, Seq};

/// Linux's maximum retransmission timeout (`TCP_RTO_MAX`), plus a margin, since timers are not exact.
const KERNEL_RTO_MAX: Duration = Duration::from_secs(122);

/// The state of the local kernel's FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Open,
    /// The kernel has sent it; the last frame is not sealed yet.
    Wanted,
    /// The frame with FINp is sealed, and its end is in the list of boundaries.
    Sealed,
}

/// The kernel's retransmissions.
#[derive(Debug, Default)]
struct Repeats {
    /// What it last retransmitted, and when.
    last: Option<(Offset<P>, Instant)>,
    /// The longest interval between two transmissions of the same.
    patience: Duration,
}

/// What the local kernel was told about its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KernelView {
    /// What is acknowledged.
    pub(super) acknowledged: Offset<P>,
    /// What is expected next.
    pub(super) next: Offset<P>,
    /// The right edge of the window.
    pub(super) edge: Offset<P>,
}

/// The stream from the local kernel to the peer.
#[derive(Debug)]
pub(crate) struct Sender {
    isn: u32,
    /// Ends of the frames that the peer has not completely acknowledged.
    frames: Boundaries,
    /// Those that it has acknowledged recently, if it permits SACK.
    acknowledged: Option<Acknowledged>,
    /// The bytes of those in `frames`.
    bytes: Store<C>,
    /// Bytes from the kernel that are not framed yet: there are no keys, or the peer's window is full.
    pending: Vec<u8>,
    fin: Fin,
    /// What the peer has acknowledged (SND.UNA).
    snd_una: Offset<C>,
    /// End of what was sent within the peer's window.
    snd_nxt: Offset<C>,
    /// End of everything that was sent, probes beyond the window included: no acknowledgement can be beyond it.
    snd_max: Offset<C>,
    /// Right edge of the peer's window, from its newest segment (SND.UNA + SND.WND).
    snd_edge: Offset<C>,
    window: SendWindow,
    peer_scale: u8,
    /// Limits the answers to unacceptable segments of the local end.
    answers: Answers,
    /// Right edge that the kernel was told. Never retracted. Until there are keys, it stays at its start.
    advertised_edge: Offset<P>,
    /// There are keys, so that the kernel is told a window.
    has_keys: bool,
    /// Bytes beyond a gap.
    early: Reassembly<P>,
    size: SegmentSize,
    /// Last urgent byte that the kernel named.
    urgent: Option<Offset<P>>,
    /// The end of this host's Init message.
    init_end: Offset<C>,
    key_age: KeyAge,
    timer: OwnTimer,
    repeats: Repeats,
    /// P bytes framed.
    total: u64,
}

impl Sender {
    pub(super) fn new(params: &HandshakeParams) -> Self {
        Self {
            isn: params.local_isn,
            frames: Boundaries::default(),
            acknowledged: params.sack.then(Acknowledged::default),
            bytes: Store::default(),
            pending: Vec::new(),
            fin: Fin::Open,
            snd_una: Offset::START,
            snd_nxt: Offset::START,
            snd_max: Offset::START,
            snd_edge: Offset::START + usize::from(params.peer_window),
            window: SendWindow::new(usize::from(params.peer_window)),
            peer_scale: params.peer_scale,
            answers: Answers::default(),
            advertised_edge: Offset::START,
            has_keys: false,
            early: Reassembly::default(),
            size: SegmentSize::new(params.peer_mss),
            urgent: None,
            init_end: Offset::START,
            key_age: KeyAge::default(),
            timer: OwnTimer::new(params.rtt),
            repeats: Repeats::default(),
            total: 0,
        }
    }

    /// The window for the SYN-ACK that the kernel sees, which is not scaled (RFC 7323, section 2.2), if there are
    /// keys already. [`Self::advertise`] never announces less later.
    pub(crate) fn first_window(params: &HandshakeParams) -> u16 {
        let mut sender = Self::new(params);
        sender.keys_are_there();
        u16::try_from(sender.advertised_edge.ahead_of(Offset::START)).unwrap_or(u16::MAX)
    }

    /// The initial sequence number.
    pub(super) fn isn(&self) -> u32 {
        self.isn
    }

    /// Frames can be sealed from now on, and the kernel may send.
    pub(super) fn keys_are_there(&mut self) {
        self.has_keys = true;
        self.raise_advertised_edge();
    }

    /// P bytes framed.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    // In the kernel's space.

    /// The next byte expected from the kernel.
    fn next(&self) -> Offset<P> {
        self.frames.end().p + self.pending.len() + i64::from(self.fin == Fin::Wanted)
    }

    /// The position of one of the kernel's sequence numbers.
    pub(super) fn position_p(&self, seq: Seq<P>) -> Offset<P> {
        self.next().nearest(self.isn, seq)
    }

    /// What the kernel knows of its stream.
    pub(super) fn kernel_view(&self) -> KernelView {
        KernelView { acknowledged: self.frames.base().p, next: self.next(), edge: self.advertised_edge }
    }

    /// Whether the peer has acknowledged everything that was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether an unacceptable segment of the local end is answered; `data`: it has some.
    pub(super) fn may_answer(&mut self, now: Instant, data: bool) -> bool {
        self.answers.allow(now, data)
    }

    /// Moves the edge that the kernel is told as far as its data, framed at full size, fits what the peer allows.
    fn raise_advertised_edge(&mut self) {
        if !self.has_keys {
            return;
        }
        let end = self.frames.end();
        // The kernel is told whole units of its peer's window scale, rounded up (see `advertise`).
        let unit = 1_usize << self.peer_scale;
        let mut room = self.data_room();
        if room > 4 * unit {
            room -= unit - 1;
        }
        let frame = self.size.usual();
        let mut data = room / frame * piece(frame) + (room % frame).saturating_sub(OVERHEAD);
        if data == 0 && room > 0 && self.snd_una == end.c {
            // A window too small for any frame: one is cut into what fits.
            data = 1;
        }
        self.advertised_edge = self.advertised_edge.max(end.p + data);
    }

    /// Acknowledgement and window fields for the kernel.
    pub(super) fn advertise(&mut self) -> (u32, u16) {
        self.raise_advertised_edge();
        self.advertised()
    }

    /// The same as last advertised.
    pub(super) fn advertised(&self) -> (u32, u16) {
        let ack = self.frames.base().p;
        // Rounded up: rounding down would retract part of what was announced before.
        let window = self.advertised_edge.ahead_of(ack).div_ceil(1 << self.peer_scale);
        (ack.seq(self.isn).0, u16::try_from(window).unwrap_or(u16::MAX))
    }

    /// The longest time until the kernel retransmits something that it does not know to be acknowledged: twice the
    /// last interval (RFC 6298, section 5.5), up to its maximum. Zero if it never sent the same more than twice.
    pub(super) fn repeats_within(&self) -> Duration {
        (self.repeats.patience * 2 + self.repeats.patience / 8).min(KERNEL_RTO_MAX)
    }

    /// The kernel retransmits what begins at `start`.
    fn note_repeated(&mut self, start: Offset<P>, now: Instant) {
        let Repeats { last, patience } = &mut self.repeats;
        if let Some((_, before)) = last.filter(|(at, _)| *at == start) {
            *patience = (*patience).max(now.since(before));
        }
        *last = Some((start, now));
    }

    /// The kernel names its last urgent byte.
    pub(super) fn note_urgent(&mut self, last: Offset<P>) {
        self.urgent = self.urgent.max(Some(last));
    }

    /// The urgent field of a frame with data from `p` on (TC-30).
    fn urgent_in(&self, p: Offset<P>) -> Option<u16> {
        let urgent = self.urgent.filter(|u| *u >= p)?;
        u16::try_from(urgent - p).ok()
    }

    // On the wire.

    /// The end of the frames made, without the FIN.
    fn data_end(&self) -> Offset<C> {
        self.frames.end().c - i64::from(self.fin == Fin::Sealed)
    }

    /// How far the peer's window allows sending the frames made. A FIN alone may go beyond a full window.
    fn sendable(&self) -> Offset<C> {
        if self.snd_edge >= self.data_end() { self.frames.end().c } else { self.snd_edge }
    }

    /// Everything up to `to` was sent; what is beyond the peer's window is a probe.
    fn note_sent(&mut self, to: Offset<C>) {
        self.snd_nxt = self.snd_nxt.max(to.min(self.sendable()));
        self.snd_max = self.snd_max.max(to);
    }

    /// The number that a segment without data can carry so that the peer accepts it, like Linux's
    /// `tcp_acceptable_seq`: it discards what lies beyond its window, with the acknowledgement in it. Windows are
    /// rounded down to their unit.
    pub(super) fn acceptable_seq(&self) -> Seq<C> {
        let rounded = self.snd_nxt.ahead_of(self.snd_edge) < 1 << self.peer_scale;
        (if rounded { self.snd_nxt } else { self.snd_edge }).seq(self.isn)
    }

    /// The number before what the peer has acknowledged.
    pub(super) fn probe_seq(&self) -> Seq<C> {
        (self.snd_una - 1_i64).seq(self.isn)
    }

    /// Room in the peer's window for new data. There must always be room for an empty frame as well, or a rekey is
    /// not answered (TC-32) while the peer's application does not read: an enotun there keeps a window of one unit
    /// open for it (see `Receiver::advertise`). A peer whose window never has more gets data nevertheless.
    fn data_room(&self) -> usize {
        let kept = OVERHEAD.next_multiple_of(1 << self.peer_scale);
        let kept = if self.window.max() >= 2 * kept { kept } else { 0 };
        self.snd_edge.ahead_of(self.frames.end().c).saturating_sub(kept)
    }

    /// Room for the frame with FINp alone, which nothing has to follow.
    fn fin_room(&self) -> usize {
        self.snd_edge.ahead_of(self.frames.end().c)
    }

    /// The peer has acknowledged everything, the FIN included.
    pub(super) fn is_closed(&self) -> bool {
        self.fin == Fin::Sealed && self.frames.is_empty()
    }

    /// Bytes of C in a segment with `options` bytes of TCP options, cut so.
    pub(super) fn segment(&self, cut: Cut, options: usize) -> usize {
        match cut {
            Cut::Path => self.size.segment(options),
            Cut::At(size) => self.size.most(options).min(size),
        }
    }

    /// The path takes no more than `mss` bytes of TCP options and payload in a segment.
    pub(super) fn limit_segments(&mut self, mss: usize, now: Instant) {
        self.size.limit(mss, now);
    }

    /// Forgets the path's limit if it is old.
    pub(super) fn forget_limit(&mut self, now: Instant) {
        self.size.forget_limit(now);
    }

    /// The kernel's number for a segment on the wire, if it may be in flight.
    pub(super) fn in_flight(&self, seq: Seq<C>) -> Option<Seq<P>> {
        let at = self.snd_una.nearest(self.isn, seq);
        (at >= self.snd_una && at < self.snd_max).then(|| self.frames.floor_c(at).p.seq(self.isn))
    }

    /// When [`Self::handle_timeout`] should be called.
    pub(super) fn retransmit_at(&self) -> Option<Instant> {
        self.timer.due()
    }

    /// Starts the timer if the kernel knows nothing of the first frame in flight.
    fn arm(&mut self, now: Instant) {
        let own = self.frames.first().is_some_and(|first| first.p == self.frames.base().p);
        if own { self.timer.arm(now) } else { self.timer.stop() }
    }

    /// The part of `range`, from `at` on, that goes into one packet: at most `max` bytes.
    pub(super) fn portion<'a, 'b>(
        &'a self,
        (at, to): (Offset<C>, Offset<C>),
        max: usize,
        flags: Flags,
        slices: &'b mut [&'a [u8]; MAX_PIECES],
    ) -> Option<Portion<'a, 'b, C>> {
        let data_end = self.data_end();
        // TC-4: the segment with the last byte of an Init message has PSH, however it is split. So it ends there.
        let cut = if at < self.init_end { self.init_end } else { to };
        let stop = to.min(data_end).min(at + max).min(cut);
        let (data, end) = self.bytes.gather(at, stop, slices)?;
        let fin = self.fin == Fin::Sealed && end == data_end && to > data_end;
        let mut flags = flags.with(Flags::ACK);
        if end == self.init_end {
            flags = flags.with(Flags::PSH);
        } else if end < to.min(data_end) {
            flags = flags.without(Flags::PSH);
        }
        if fin {
            flags = flags.with(Flags::FIN);
        }
        let next = end + i64::from(fin);
        (next > at).then(|| Portion { seq: at.seq(self.isn), flags, urgent: 0, data, next })
    }

    /// Appends this host's Init message to the stream.
    pub(super) fn push_own(&mut self, bytes: Vec<u8>) {
        let end = self.frames.end();
        self.init_end = end.c + bytes.len();
        self.frames.push(Boundary { c: self.init_end, p: end.p });
        self.bytes.append(end.c, bytes);
    }

    /// Seals `data` in frames of `piece` bytes, the last one with FINp if `fin`.
    fn seal(&mut self, cx: &mut Context<'_>, record: &mut Record, data: &[u8], piece: usize, fin: bool) -> Outcome {
        self.key_age.check(record, &cx.config.rekey, cx.now, !data.is_empty());
        let frames = data.len().div_ceil(piece).max(1);
        let urgent_room = if self.urgent.is_some() { frames * URGENT_LEN } else { 0 };
        let mut bytes = cx.pool.take(data.len() + frames * OVERHEAD + urgent_room);
        let start = self.frames.end();
        let mut end = start;
        let mut rest = data;
        for i in 0..frames {
            let (part, behind) = rest.split_at(piece.min(rest.len()));
            let plaintext = Plaintext { fin: fin && i + 1 == frames, urgent: self.urgent_in(end.p), data: part };
            let len = record.seal_onto(stream_offset(end.c), &plaintext, &mut bytes)?;
            end = Boundary { c: end.c + len, p: end.p + part.len() };
            self.frames.push(end);
            rest = behind;
        }
        self.bytes.push(start.c, bytes, cx.pool);
        self.total += data.len() as u64;
        if fin {
            self.frames.push(Boundary { c: end.c + 1_i64, p: end.p + 1_i64 });
            self.fin = Fin::Sealed;
        }
        self.key_age.note(record, cx.now);
        cx.counters.frames_sealed += frames as u64;
        Ok(())
    }

    /// Makes the next possible frame replace the keys in use (TC-33), whatever they have protected yet; returns
    /// whether there will be one.
    pub(super) fn wear_out_keys(&mut self) -> bool {
        self.key_age.wear_out();
        self.fin != Fin::Sealed
    }

    /// Bytes of memory held for data beyond a gap.
    pub(super) fn held(&self) -> usize {
        self.early.held()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.frames.shrink();
        self.acknowledged.as_mut().map(Acknowledged::clear);
        self.bytes.shrink();
        self.early.shrink();
        self.pending.shrink_to_fit();
    }
}
