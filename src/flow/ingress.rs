//! From the wire to the local kernel: frames in C become plaintext in P.
//!
//! Frames are opened in order, each once; the plaintext is kept until the kernel has acknowledged it, so that whatever the
//! kernel lost can be given to it again, and old keys can be erased. The P position of data behind a gap is unknown, so
//! such data waits here, and the duplicate acknowledgements and SACK blocks for it are sent from here.
//!
//! On the wire nothing is acknowledged that the kernel has not, with two exceptions: the beginning of a frame that is
//! longer than what the peer may have in flight, which otherwise would never be whole; and opened frames for which the
//! kernel's window has no room, since the peer's kernel gives up a connection on which what it sent within the window is
//! not acknowledged, while it waits for a closed window for ever.

use std::time::Duration;

use tcpcrypt::constants::TAG_LEN;
use tcpcrypt::frame::{HEADER_LEN, Header, MAX_FRAME};
use tcpcrypt::messages::{PREFIX_LEN as INIT_PREFIX_LEN, message_len};
use tcpcrypt::{Acceptable, OpenError, Opened, Record, Role, handshake};

use super::context::Context;
use super::egress::AckNews;
use super::encrypted::{AbortReason, Encrypted, Exchange, Next, Stage};
use super::env::Side;
use super::frames::Boundary;
use super::gate::{self, Reason, Verdict};
use super::inbound::{Eof, In};
use super::reassembly::{Inserted, Prefer};
use crate::time::Instant;
use crate::wire::options::SegmentOptions;
use crate::wire::{C, Flags, Offset, P, Segment};
/// A frame is acknowledged in part once more than this many segments of it are here: an initial window (RFC 6928).
const INITIAL_WINDOW: usize = 10;
/// and nothing came for this long: until then a clean copy of a segment with a forged length may come.
const PARTIAL_WAIT: Duration = Duration::from_millis(50);
/// Or once the peer sends its beginning again this much later, as TCP does whose window is too small for the frame
/// (its timer runs for 200 ms at least): up to where it was sent again. The network's own duplicates come sooner.
const PARTIAL_RESENT: Duration = Duration::from_millis(150);
/// And not more often than this when something hints at a loss.
const REDELIVER_PAUSE: Duration = Duration::from_millis(10);
/// As with the kernel's `tcp_retries2`.
const MAX_REDELIVERIES: u8 = 15;

/// The last bytes of a frame: its tag, if it is long enough to have one.
fn tag_of(frame: &[u8]) -> [u8; TAG_LEN] {
    frame.last_chunk().copied().unwrap_or_default()
}

/// What tells a damaged frame from another: its place, length and tag.
fn fingerprint(at: Offset<C>, len: usize, tag: [u8; TAG_LEN]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    at.get().hash(&mut hasher);
    len.hash(&mut hasher);
    tag.hash(&mut hasher);
    hasher.finish()
}

/// Where a stream stood before a segment.
struct Before {
    acknowledged: Offset<C>,
    delivered: Offset<P>,
}

impl Before {
    fn of(inn: &In) -> Self {
        Self { acknowledged: inn.ack_point(), delivered: inn.delivered }
    }
}

/// What there is of the peer's Init message.
enum Init {
    Incomplete,
    /// So many bytes, in this version.
    Whole(Prefer, usize),
    /// It is wrong within so many bytes.
    Bad(tcpcrypt::Error, usize),
}

/// How opening what is there went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// As far as there were whole frames.
    Fine,
    /// A frame was dropped because it did not authenticate.
    Dropped,
    /// The segment was not taken in, or cannot be judged yet.
    Waits,
    Abort(AbortReason),
}

impl Encrypted {
    /// Takes in a segment from the wire. Its checksum is right.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, packet: &mut Segment<'_, C>) -> Next {
        self.wire_told = false;
        self.kernel_told = false;
        self.inn.duplicate = None;
        let options = SegmentOptions::parse(packet.options());
        let start = self.inn.next.c.nearest(self.inn.isn, packet.seq);
        let has_data = !packet.payload.is_empty();
        match self.judge(cx.now, start, packet, &options) {
            Verdict::Acceptable => {}
            Verdict::Reset => {
                let seq = self.inn.delivered;
                self.emit_plain_bare(cx, seq, Flags::RST, &[]);
                return Next::Reset;
            }
            Verdict::Probe => {
                // The kernel's to answer.
                let seq = self.inn.kernel_ack - 1_i64;
                self.emit_plain_bare(cx, seq, Flags::default(), &[]);
                return Next::Stay;
            }
            Verdict::Repeated => {
                cx.counters.segments_repeated += 1;
                self.inn.duplicate = Some(start..start + packet.payload_len());
                self.redeliver(cx);
                self.challenge(cx, has_data);
                // Not for a later acknowledgement: nothing of the segment is kept.
                self.inn.duplicate = None;
                return Next::Stay;
            }
            Verdict::Refused(why) => {
                self.refuse(cx, why, has_data);
                return Next::Stay;
            }
        }
        self.note_use(cx.now);
        self.link.learn(Side::Wire, packet);
        let _ = self.phase.received(Acceptable::non_syn(options.eno));
        if let (Some(clocks), Some(ts)) = (&mut self.clocks, options.timestamps) {
            clocks.from_peer(ts, start <= self.inn.told_ack, cx.now);
        }
        let news = self.acknowledged(cx, start, packet, &options);
        let fin = packet.flags.any(Flags::FIN);
        self.inn.congested |= packet.is_congested() && has_data;
        let payload = packet.payload_mut();
        let before = Before::of(&self.inn);
        let mut owe_ack = false;
        if !payload.is_empty() || fin {
            let next = self.payload(cx, start, payload, fin, &mut owe_ack);
            if next != Next::Stay {
                return next;
            }
        }
        let bare = payload_is_empty(packet) && !fin;
        self.pass_on_news(cx, &before, &news, bare, ecn(packet.flags), owe_ack)
    }

    /// Tells both sides what has come of a segment.
    fn pass_on_news(
        &mut self,
        cx: &mut Context<'_>,
        before: &Before,
        news: &AckNews,
        bare: bool,
        ecn: Flags,
        mut owe_ack: bool,
    ) -> Next {
        if self.inn.confirmed && !self.facts.peer_confirmed {
            self.confirm_peer(cx);
        }
        // Out: what the peer's window lets go now.
        let next = self.flush(cx, Flags::default());
        if next != Next::Stay {
            return next;
        }
        // In: plaintext, with the acknowledgement on it; or the acknowledgement alone.
        self.deliver(cx, ecn);
        self.inn.acknowledge_held();
        let delivered = self.inn.delivered > before.delivered;
        if self.liveness_asked {
            self.answer_liveness(cx, delivered);
        } else if !news.sack().is_empty() || (!self.kernel_told && (news.something || bare)) {
            let seq = self.inn.delivered;
            self.emit_plain_bare(cx, seq, ecn, news.sack());
        }
        // The kernel acknowledges what it was given; all else is ours to acknowledge.
        owe_ack |= self.inn.ack_point() > before.acknowledged && !delivered;
        if owe_ack && !self.wire_told {
            self.emit_own_ack(cx);
        }
        self.next()
    }

    /// Exchanges keys, now that there is time for it, and opens what came behind the peer's Init message.
    pub(crate) fn exchange(&mut self, cx: &mut Context<'_>) -> Next {
        self.exchange = Exchange::None;
        self.wire_told = false;
        self.kernel_told = false;
        let before = Before::of(&self.inn);
        let mut owe_ack = false;
        let progress = match self.find_init() {
            Init::Whole(prefer, len) => match self.exchange_keys(cx, prefer, len) {
                Progress::Fine => self.open_waiting(cx),
                other => other,
            },
            Init::Incomplete | Init::Bad(..) => return Next::Stay,
        };
        match progress {
            Progress::Fine | Progress::Waits => {}
            Progress::Dropped => owe_ack = true,
            Progress::Abort(why) => return Next::Abort(why),
        }
        self.settle_received(cx, &mut owe_ack);
        self.pass_on_news(cx, &before, &AckNews::default(), false, Flags::default(), owe_ack)
    }

    /// Tells the kernel that the peer is alive once that is authentic: it has answered the rekey.
    fn answer_liveness(&mut self, cx: &mut Context<'_>, delivered: bool) {
        if let Stage::Ready(record) = &self.stage
            && (delivered || !record.rekey_outstanding())
        {
            self.liveness_asked = false;
            if !delivered {
                let seq = self.inn.delivered;
                self.emit_plain_bare(cx, seq, Flags::default(), &[]);
            }
        }
    }

    /// Takes a segment through the gate.
    fn judge(&self, now: Instant, start: Offset<C>, packet: &Segment<'_, C>, options: &SegmentOptions) -> Verdict {
        let (inn, out) = (&self.inn, &self.out);
        let position = gate::Position {
            acknowledged: inn.told_ack,
            opened: inn.next.c,
            edge: inn.told_edge,
            unacknowledged: out.acked,
            sent: out.sent.ever,
            max_window: out.window.max,
        };
        let header = gate::Header {
            flags: packet.flags,
            start,
            len: packet.payload_len(),
            ack: out.acked.nearest(out.isn, packet.ack),
            timestamps: options.timestamps,
        };
        gate::judge(&position, self.clocks.as_ref(), now, &header)
    }

    /// Counts a segment that is not believed, and answers it if that may help its sender.
    fn refuse(&mut self, cx: &mut Context<'_>, why: Reason, has_data: bool) {
        let counters = &mut *cx.counters;
        let (counter, answer) = match why {
            Reason::OutOfWindow => (&mut counters.out_of_window, Some(has_data)),
            Reason::ResetInWindow => (&mut counters.resets_ignored, Some(false)),
            Reason::ResetElsewhere => (&mut counters.resets_ignored, None),
            // Our acknowledgement of the SYN-ACK was lost, or somebody forges.
            Reason::Syn => (&mut counters.syns_ignored, Some(false)),
            Reason::NoAck => (&mut counters.bad_acknowledgements, None),
            Reason::OldTimestamp => (&mut counters.old_timestamps, Some(has_data)),
            Reason::Acknowledgement => (&mut counters.bad_acknowledgements, Some(has_data)),
        };
        *counter += 1;
        if let Some(data) = answer {
            self.challenge(cx, data);
        }
    }

    /// Answers what is not taken in with what is expected, now and then.
    fn challenge(&mut self, cx: &mut Context<'_>, data: bool) {
        if self.inn.answers.allow(cx.now, data) {
            self.emit_own_ack(cx);
        }
    }

    /// Takes in payload and FIN of a segment.
    fn payload(
        &mut self,
        cx: &mut Context<'_>,
        start: Offset<C>,
        payload: &mut [u8],
        fin: bool,
        owe_ack: &mut bool,
    ) -> Next {
        let inn = &mut self.inn;
        let end = start + payload.len();
        if start == inn.told_edge && !payload.is_empty() {
            cx.counters.out_of_window += 1;
            *owe_ack = true;
            return Next::Stay;
        }
        if end + i64::from(fin) <= inn.next.c {
            // All of it was here before: the peer has not heard, or the kernel has not.
            *owe_ack = true;
            inn.came_again(start..end);
            self.redeliver(cx);
            return Next::Stay;
        }
        // What is beyond the edge was never allowed.
        let keep = payload.len().min(inn.told_edge.ahead_of(start));
        let fin = fin && keep == payload.len();
        if fin {
            inn.fin_at = Some(end);
        }
        let expected = start <= inn.expected();
        let skip = inn.next.c.ahead_of(start).min(keep);
        if skip > 0 {
            *owe_ack = true;
            inn.came_again(start..start + skip);
        }
        let new = payload.get_mut(skip..keep).unwrap_or(&mut []);
        let mut progress = Progress::Fine;
        // Nothing follows a FIN.
        if !new.is_empty() && inn.eof != Eof::Closed {
            progress = self.take_bytes(cx, start + skip, new, owe_ack);
        }
        match progress {
            Progress::Fine if fin && expected && self.inn.eof == Eof::Open => {
                // Nothing can come behind it, and yet no FINp has (TC-29): forged, or the peer's end-of-file is not authentic.
                let inn = &mut self.inn;
                inn.fin_at = None;
                *owe_ack = true;
                cx.counters.frames_rejected += 1;
                if inn.suspect(cx.now, end.get().unsigned_abs()) {
                    return Next::Abort(AbortReason::FinWithoutFinp);
                }
            }
            Progress::Fine | Progress::Waits => {}
            Progress::Dropped => *owe_ack = true,
            Progress::Abort(why) => return Next::Abort(why),
        }
        self.settle_received(cx, owe_ack);
        Next::Stay
    }

    fn settle_received(&mut self, cx: &mut Context<'_>, owe_ack: &mut bool) {
        self.inn.take_fin();
        // Frames without data need no kernel to be acknowledged.
        let ack = self.inn.kernel_ack;
        self.inn.ends.acknowledge_p(ack);
        self.note_partial(cx, owe_ack);
        self.inn.note_waiting(cx.now);
    }

    /// Takes in bytes that were not opened yet.
    fn take_bytes(&mut self, cx: &mut Context<'_>, at: Offset<C>, new: &mut [u8], owe_ack: &mut bool) -> Progress {
        let inn = &mut self.inn;
        let end = at + new.len();
        if at == inn.next.c && inn.waiting.is_empty() && matches!(self.stage, Stage::Ready(_)) {
            return self.open_run(cx, new);
        }
        if cx.tight && !inn.comes_next(at, new.len()) {
            cx.counters.limit_memory += 1;
            self.challenge(cx, true);
            return Progress::Waits;
        }
        *owe_ack |= at > inn.next.c;
        match inn.waiting.insert(at, new) {
            Inserted::Refused => {
                cx.counters.limit_pieces += 1;
                *owe_ack = false;
                self.challenge(cx, true);
                return Progress::Waits;
            }
            Inserted::Conflict => cx.counters.conflicting_segments += 1,
            Inserted::Duplicate => {
                *owe_ack = true;
                inn.duplicate = Some(at..end);
                let waits = inn.partial_since.is_some_and(|t| cx.now.since(t) >= PARTIAL_RESENT);
                if waits && at <= inn.expected() {
                    self.acknowledge_part(end);
                }
            }
            Inserted::New => {}
        }
        self.open_waiting(cx)
    }

    /// Opens the frames in `bytes`, which begin at `next`, in place; what is left of an incomplete one waits.
    fn open_run(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Progress {
        let Self { stage: Stage::Ready(record), inn, .. } = self else { return Progress::Fine };
        let mut plaintext = cx.pool.take(bytes.len());
        let from = inn.data_end();
        let mut rest = bytes;
        let mut progress = Progress::Fine;
        while let Some(header) = Header::parse(rest).filter(|h| h.frame_len() <= rest.len()) {
            let (frame, behind) = rest.split_at_mut(header.frame_len());
            let tag = tag_of(frame);
            match open(record, inn.next.c, frame) {
                Ok(opened) => {
                    cx.counters.frames_opened += 1;
                    plaintext.extend_from_slice(frame.get(opened.data.clone()).unwrap_or(&[]));
                    inn.opened(frame.len(), &opened);
                    rest = behind;
                }
                Err(why) => {
                    let frame_len = frame.len();
                    progress = rejected(cx, inn, why, frame_len, fingerprint(inn.next.c, frame_len, tag));
                    // Where the next frame starts is not known for sure; if it is there, it need not be sent again.
                    inn.waiting.insert(inn.next.c + frame_len, behind);
                    rest = &mut [];
                }
            }
        }
        if !rest.is_empty() {
            inn.waiting.insert(inn.next.c, rest);
        }
        inn.push_plaintext(from, plaintext, cx.pool);
        progress
    }

    /// Opens what can be opened of what waits. An incomplete frame is not looked at but for its length.
    fn open_waiting(&mut self, cx: &mut Context<'_>) -> Progress {
        if !self.is_ready() {
            return match self.find_init() {
                Init::Incomplete => Progress::Fine,
                Init::Whole(..) => {
                    if self.exchange == Exchange::None {
                        self.exchange = Exchange::Due;
                    }
                    Progress::Waits
                }
                Init::Bad(why, len) => self.reject_init(cx, why, len),
            };
        }
        let Self { stage: Stage::Ready(record), inn, .. } = self else { return Progress::Fine };
        let from = inn.data_end();
        let mut plaintext = Vec::new();
        let mut progress = Progress::Fine;
        'frames: while !inn.waiting.is_empty() {
            let at = inn.next.c;
            let here = inn.waiting.contiguous_end(at);
            let mut failed = None;
            let mut incomplete = false;
            for prefer in [Prefer::First, Prefer::Last] {
                if prefer == Prefer::Last && !inn.waiting.has_conflicts() {
                    break;
                }
                let mut header = [0; HEADER_LEN];
                let len = match inn.waiting.copy(prefer, at, &mut header) {
                    true => Header::parse(&header).map_or(0, Header::frame_len),
                    false => break 'frames,
                };
                if at + len > here {
                    incomplete = true;
                    continue;
                }
                cx.scratch.clear();
                cx.scratch.resize(len, 0);
                if !inn.waiting.copy(prefer, at, cx.scratch) {
                    continue;
                }
                let tag = tag_of(cx.scratch);
                match open(record, at, cx.scratch) {
                    Ok(opened) => {
                        cx.counters.frames_opened += 1;
                        plaintext.extend_from_slice(cx.scratch.get(opened.data.clone()).unwrap_or(&[]));
                        inn.opened(len, &opened);
                        inn.waiting.remove_before(inn.next.c);
                        continue 'frames;
                    }
                    Err(why) => failed = Some((why, fingerprint(at, len, tag), len)),
                }
            }
            if let Some((why, print, len)) = failed {
                // What was acknowledged does not come again, so both versions of it stay; of the rest, a clean copy does.
                let end = at + len;
                let unacknowledged = inn.expected().max(at)..end;
                if unacknowledged.is_empty() && incomplete {
                    break;
                }
                progress = rejected(cx, inn, why, len, print);
                inn.waiting.remove(unacknowledged);
            }
            break;
        }
        inn.push_plaintext(from, plaintext, cx.pool);
        progress
    }

    /// Looks for the peer's Init message at the beginning of its stream.
    fn find_init(&self) -> Init {
        let sender = self.facts.role.other();
        let waiting = &self.inn.waiting;
        let here = waiting.contiguous_end(Offset::START).ahead_of(Offset::START);
        let mut found = Init::Incomplete;
        for prefer in [Prefer::First, Prefer::Last] {
            if prefer == Prefer::Last && !waiting.has_conflicts() {
                break;
            }
            let mut prefix = [0; INIT_PREFIX_LEN];
            let prefix = &mut prefix[..here.min(INIT_PREFIX_LEN)];
            if !waiting.copy(prefer, Offset::START, prefix) {
                continue;
            }
            match message_len(sender, prefix) {
                Ok(Some(len)) if len <= here => return Init::Whole(prefer, len),
                Ok(_) => return Init::Incomplete,
                Err(why) => found = Init::Bad(why, prefix.len()),
            }
        }
        found
    }

    /// What follows from an Init message that is wrong in its first `len` bytes. As long as the peer can send them again,
    /// they may be somebody else's (TC-5, as TC-28 has it for frames).
    fn reject_init(&mut self, cx: &mut Context<'_>, why: tcpcrypt::Error, len: usize) -> Progress {
        cx.counters.frames_rejected += 1;
        let inn = &mut self.inn;
        let end = Offset::START + len;
        let mut bytes = vec![0; len];
        let copied = inn.waiting.copy(Prefer::First, Offset::START, &mut bytes);
        debug_assert!(copied, "what was found wrong is there");
        if inn.expected() >= end || inn.suspect(cx.now, fingerprint(Offset::START, len, tag_of(&bytes))) {
            return Progress::Abort(AbortReason::KeyExchange(why));
        }
        let from = inn.expected();
        let all = inn.waiting.contiguous_end(from);
        inn.waiting.remove(from..all.max(end));
        Progress::Dropped
    }

    /// Ends the key exchange with the peer's whole Init message, the first `len` bytes of its stream.
    fn exchange_keys(&mut self, cx: &mut Context<'_>, prefer: Prefer, len: usize) -> Progress {
        let mut message = vec![0; len];
        if !self.inn.waiting.copy(prefer, Offset::START, &mut message) {
            return Progress::Waits;
        }
        let done = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::WaitInit2(initiator) => match initiator.check_init2(&message) {
                // The private key is used up with it.
                Ok(()) => initiator.handle_init2(&message).map_err(|why| (why, None)),
                Err(why) => Err((why, Some(Stage::WaitInit2(initiator)))),
            },
            Stage::WaitInit1(negotiated) => {
                let provider = cx.provider;
                let key = self.link.key;
                let context = [&self.out.isn.to_be_bytes()[..], &self.inn.isn.to_be_bytes(), &message].concat();
                let ciphers = cx.config.ciphers.clone();
                let answer = handshake::respond(provider, &negotiated, &ciphers, &message, &mut |wanted, out| {
                    cx.random_for_init(Role::B, wanted, key, &context, out);
                });
                match answer {
                    Ok((init2, session)) => {
                        self.out.push_own(init2);
                        cx.counters.own_segments += 1;
                        Ok(session)
                    }
                    Err(why) => Err((why, Some(Stage::WaitInit1(negotiated)))),
                }
            }
            other @ (Stage::Ready(_) | Stage::Failed) => {
                self.stage = other;
                return Progress::Waits;
            }
        };
        let session = match done {
            Ok(session) => session,
            Err((why, None)) => return Progress::Abort(AbortReason::KeyExchange(why)),
            Err((why, Some(stage))) => {
                self.stage = stage;
                return self.reject_init(cx, why, len);
            }
        };
        self.ready(cx, session, None);
        let inn = &mut self.inn;
        inn.next = Boundary { c: Offset::START + message.len(), p: inn.next.p };
        inn.ends.push(inn.next);
        inn.waiting.remove_before(inn.next.c);
        inn.partial_since = None;
        // The kernel was told a window of zero until now.
        self.out.raise_told_edge();
        let seq = inn.delivered;
        self.emit_plain_bare(cx, seq, Flags::default(), &[]);
        Progress::Fine
    }

    /// Acknowledges the beginning of an incomplete frame, up to `until` at most.
    fn acknowledge_part(&mut self, until: Offset<C>) {
        let inn = &mut self.inn;
        let until = until.min(inn.waiting.contiguous_end(inn.next.c));
        if until > inn.next.c {
            inn.own_ack = inn.own_ack.max(until);
            inn.partial_timer = None;
        }
    }

    /// Sees whether the incomplete frame at `next` has to be acknowledged in part: late, so that a single forged
    /// segment never is, nor what follows one whose forged length claims it.
    fn note_partial(&mut self, cx: &mut Context<'_>, owe_ack: &mut bool) {
        let inn = &mut self.inn;
        let here = inn.waiting.contiguous_end(inn.next.c);
        if here <= inn.next.c || inn.eof != Eof::Open {
            (inn.partial_since, inn.partial_timer) = (None, None);
            return;
        }
        inn.partial_since.get_or_insert(cx.now);
        let unacked = here.ahead_of(inn.ack_point().max(inn.next.c));
        if unacked == 0 {
            inn.partial_timer = None;
        } else if inn.own_ack > inn.next.c {
            // Committed to this frame.
            if unacked >= 2 * inn.peer_segment {
                self.acknowledge_part(here);
                *owe_ack = true;
            } else {
                inn.partial_timer.get_or_insert(cx.now + PARTIAL_WAIT);
            }
        } else if here.ahead_of(inn.next.c) > INITIAL_WINDOW * inn.peer_segment {
            // So much of it is here that the peer may not be able to send more.
            inn.partial_timer = Some(cx.now + PARTIAL_WAIT);
        }
    }

    /// Gives the kernel again what it has not acknowledged, if that was not done just now.
    pub(super) fn redeliver(&mut self, cx: &mut Context<'_>) {
        let inn = &mut self.inn;
        if inn.kernel_ack < inn.delivered && cx.now.since(inn.last_delivery) >= REDELIVER_PAUSE {
            let (from, to) = (inn.kernel_ack, inn.delivered.min(inn.kernel_ack + MAX_FRAME));
            inn.last_delivery = cx.now;
            self.emit_plaintext(cx, from, to, Flags::default());
        }
    }

    /// The timers of this direction.
    pub(super) fn handle_delivery_timeout(&mut self, cx: &mut Context<'_>) -> Next {
        if self.inn.partial_timer.is_some_and(|d| d <= cx.now) {
            self.inn.partial_timer = None;
            let before = self.inn.ack_point();
            let here = self.inn.waiting.contiguous_end(self.inn.next.c);
            self.acknowledge_part(here);
            if self.inn.ack_point() > before {
                self.emit_own_ack(cx);
            }
        }
        if self.inn.waits_until().is_some_and(|d| d <= cx.now) {
            cx.counters.held_expired += 1;
            self.inn.expire_waiting();
        }
        if self.inn.timer().is_some_and(|d| d <= cx.now) {
            self.inn.redeliveries = self.inn.redeliveries.saturating_add(1);
            let (ack, delivered) = (self.inn.kernel_ack, self.inn.delivered);
            if ack < delivered {
                if self.inn.redeliveries > MAX_REDELIVERIES {
                    return Next::Abort(AbortReason::Timeout);
                }
                self.redeliver(cx);
            } else {
                // The kernel's window is closed: ask for it, as its peer would.
                self.emit_plain_bare(cx, ack - 1_i64, Flags::default(), &[]);
            }
            self.inn.last_delivery = cx.now;
        }
        Next::Stay
    }
}

fn open(record: &mut Record, at: Offset<C>, frame: &mut [u8]) -> Result<Opened, OpenError> {
    record.open(u64::try_from(at.get()).unwrap_or(0), frame)
}

/// What follows from a frame of `len` bytes at `next` that could not be opened (TC-28). It may be forged, as long as the peer
/// can send any of it again.
fn rejected(cx: &mut Context<'_>, inn: &mut In, why: OpenError, len: usize, print: u64) -> Progress {
    cx.counters.frames_rejected += 1;
    match why {
        OpenError::NotAuthentic if inn.eof != Eof::Open => Progress::Dropped,
        OpenError::NotAuthentic => {
            let acknowledged = inn.expected() >= inn.next.c + len;
            if acknowledged || inn.suspect(cx.now, print) {
                return Progress::Abort(AbortReason::BadFrame);
            }
            Progress::Dropped
        }
        OpenError::Violation(_) | OpenError::Misuse(_) => Progress::Abort(AbortReason::Violation),
    }
}

/// The ECN flags of a segment, to be passed on.
fn ecn(flags: Flags) -> Flags {
    Flags(flags.0 & (Flags::ECE.0 | Flags::CWR.0))
}

fn payload_is_empty(packet: &Segment<'_, C>) -> bool {
    packet.payload.is_empty()
}
