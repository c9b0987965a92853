//! An encrypted connection: what its packets and timers come to.
//!
//! A packet's way through it: the gate judges its header; the sender takes in acknowledgements and the kernel's bytes, the
//! receiver the peer's bytes and the kernel's acknowledgements; each notes what is to be done ([`super::action`]); the emitter
//! does it; [`Next`] says what becomes of the connection.

use std::time::Duration;

use tcpcrypt::{AckPhase, Negotiated, Session};

use super::action::{Action, Bare, Cut, SackBlocks};
use super::closed::{Closed, End, Last, Remains};
use super::emit::Emitter;
use super::icmp;
use super::keys::{Caching, Identity, KeyExchange, Keys, NoKeys, Open};
use super::outcome::{AbortReason, Exchange, Next, Outcome};
use super::params::HandshakeParams;
use super::receiver::{PeerView, Progress, Receiver, Waits};
use super::sender::{Acknowledgement, KernelSegment, KernelView, Sender};
use super::timer::Timer;
use crate::flow::clocks::Clocks;
use crate::flow::context::Context;
use crate::flow::env::Side;
use crate::flow::gate::{self, LocalPosition, Position, Reason, Verdict};
use crate::flow::info::{FlowInfo, FlowSession, FlowState};
use crate::flow::link::Link;
use crate::flow::lost::LostOption;
use crate::store::{ChainId, Finding, Sessions};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::options::SegmentOptions;
use crate::wire::{C, Flags, FlowKey, Offset, P, Segment};

/// A connection without packets for this long is idle: soon, so that of many that are opened few are ever large.
const REST_AFTER: Duration = Duration::from_millis(250);

/// After this long without packets the local kernel is asked whether it still knows the connection (as long as Linux waits
/// for its own keep-alives).
const ASK_AFTER: Duration = Duration::from_secs(2 * 3600);

/// What an opening hands over.
pub(crate) struct Start {
    pub(crate) link: Link,
    pub(crate) params: HandshakeParams,
    pub(crate) negotiated: Negotiated,
    pub(crate) phase: AckPhase,
    /// If both ends have timestamps.
    pub(crate) clocks: Option<Clocks>,
    pub(crate) open: Open,
    pub(crate) caching: Caching,
}

/// Whether the kernel wants to know if the peer is alive (TC-35). Until the peer's answer is authentic, the kernel is shown
/// nothing that it would take for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liveness {
    Unasked,
    Asked,
}

/// Whether packets come.
#[derive(Debug, Clone, Copy)]
enum Activity {
    /// The last one came then.
    Busy { since: Instant },
    /// None came for long; the kernel is asked then whether it is there.
    Idle { ask_at: Instant },
}

/// What a connection has shown about the path.
#[derive(Debug, Clone, Copy)]
enum Path {
    /// Nothing yet. The SYNs had been exchanged then.
    Unknown { began: Instant },
    /// That was remembered.
    Known,
}

/// An encrypted connection.
pub(crate) struct Encrypted {
    keys: KeyExchange,
    sender: Sender,
    receiver: Receiver,
    emitter: Emitter,
    exchange: Exchange,
    liveness: Liveness,
    activity: Activity,
    path: Path,
}

/// Where both streams stood before a packet: what has changed is passed on.
struct Before {
    kernel: KernelView,
    peer: PeerView,
    delivered: Offset<P>,
}

impl Encrypted {
    /// With the keys of a resumed session, from a chain.
    pub(crate) fn resumed(cx: &mut Context<'_>, start: Start, session: Session, chain: ChainId) -> Self {
        let kind = (start.open, start.caching);
        let identity = start.identity();
        let negotiated = start.negotiated.clone();
        let keys = KeyExchange::resumed(cx, &identity, negotiated, kind, (session, chain));
        let mut encrypted = Self::new(cx.now, start, keys);
        // As the SYN-ACK has told the kernel.
        encrypted.sender.keys_are_there();
        encrypted
    }

    /// With its part in the key exchange begun (TC-3).
    pub(crate) fn exchanging(cx: &mut Context<'_>, start: Start) -> Result<Self, AbortReason> {
        let kind = (start.open, start.caching);
        let (keys, init1) = KeyExchange::begin(cx, &start.identity(), start.negotiated.clone(), kind)?;
        let mut encrypted = Self::new(cx.now, start, keys);
        if let Some(init1) = init1 {
            encrypted.sender.push_own(init1);
            cx.counters.own_segments += 1;
        }
        Ok(encrypted)
    }

    fn new(now: Instant, start: Start, keys: KeyExchange) -> Self {
        let Start { link, params, phase, clocks, .. } = start;
        Self {
            keys,
            sender: Sender::new(&params),
            receiver: Receiver::new(&params),
            emitter: Emitter::new(link, clocks, phase, params.sack),
            exchange: Exchange::None,
            liveness: Liveness::Unasked,
            activity: Activity::Busy { since: now },
            path: Path::Unknown { began: now },
        }
    }

    fn key(&self) -> FlowKey {
        self.emitter.link().key
    }

    fn before(&self) -> Before {
        let (_, delivered) = self.receiver.kernel_view();
        Before { kernel: self.sender.kernel_view(), peer: self.receiver.peer_view(), delivered }
    }

    /// Carries out what was noted; what becomes of the connection.
    fn conclude(&mut self, cx: &mut Context<'_>, outcome: Outcome<Next>) -> Next {
        let next = match outcome {
            Ok(Next::Stay) if self.sender.is_closed() && self.receiver.is_closed() => Next::Done,
            Ok(next) => next,
            Err(why) => Next::Abort(why),
        };
        match self.emitter.carry_out(cx, &mut self.sender, &mut self.receiver) {
            Ok(()) => next,
            Err(why) => Next::Abort(why),
        }
    }

    // From the local kernel to the wire.

    /// Takes in a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Next {
        let outcome = self.take_from_kernel(cx, segment);
        self.conclude(cx, outcome)
    }

    fn take_from_kernel(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> Outcome<Next> {
        let start = self.sender.position_p(segment.seq);
        let syn = segment.flags.any(Flags::SYN);
        match self.judge_local(segment, start) {
            Verdict::Reset => {
                cx.actions.push(Action::ResetPeer);
                return Ok(Next::Reset(Side::Plain));
            }
            Verdict::Refused(why) if !syn => {
                self.refuse_local(cx, why, !segment.payload.is_empty());
                return Ok(Next::Stay);
            }
            _ => {}
        }
        self.note_use(cx.now);
        if syn {
            // The kernel has not seen the acknowledgement of its SYN-ACK.
            cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
            return Ok(Next::Stay);
        }
        let options = SegmentOptions::parse(segment.options());
        self.emitter.note_kernel(options.timestamps, cx.now);
        let before = self.receiver.peer_view();
        if self.receiver.note_kernel(cx, segment.ack, segment.window) || !options.sack().is_empty() {
            self.receiver.redeliver(cx);
        }
        if segment.flags.any(Flags::URG) && segment.urgent > 0 {
            // The pointer names the byte after the last urgent one (RFC 6093, section 3.1).
            self.sender.note_urgent(start + usize::from(segment.urgent) - 1_i64);
        }
        let (data, fin) = (segment.payload(), segment.flags.any(Flags::FIN));
        let flags = Flags(segment.flags.0 & (Flags::ECE.0 | Flags::CWR.0 | Flags::PSH.0));
        let acknowledgement = Action::TellPeer { bare: Bare::Next, flags: flags.without(Flags::PSH) };
        // Some keep-alives have a byte of garbage in the place of one that was acknowledged (RFC 9293, section 3.8.4).
        let behind = start < self.sender.kernel_view().acknowledged;
        if !fin && (data.is_empty() || (data.len() == 1 && behind)) {
            if behind {
                self.answer_probe(cx, flags)?;
            } else {
                cx.actions.push(acknowledgement);
            }
        } else {
            // With data in flight the kernel's own timers say whether the peer is alive.
            self.liveness = Liveness::Unasked;
            let gso = segment.offload().gso.map(|gso| usize::from(gso.size));
            let bytes = KernelSegment { start, data, fin, gso, flags };
            self.sender.take_in(cx, self.keys.record(), &bytes, self.emitter.options_len())?;
            if self.receiver.peer_view() != before && !cx.actions.tells_peer() {
                cx.actions.push(acknowledgement);
            }
        }
        // Window the kernel has opened lets in what waits.
        self.receiver.deliver(cx, Flags::default());
        Ok(Next::Stay)
    }

    /// Takes a segment of the local end through the gate.
    fn judge_local(&self, segment: &Segment<'_, P>, start: Offset<P>) -> Verdict {
        let KernelView { acknowledged, next, edge } = self.sender.kernel_view();
        let (taken, delivered) = self.receiver.kernel_view();
        let position = LocalPosition { acknowledged, next, edge, taken, delivered };
        gate::judge_local(&position, segment.flags, start, self.receiver.position_p(segment.ack))
    }

    /// Counts a segment of the local end that is not believed, and answers it with what is expected: if that is not what it has,
    /// its RST is exact then (RFC 5961, section 3.2).
    fn refuse_local(&mut self, cx: &mut Context<'_>, why: Reason, has_data: bool) {
        let counters = &mut *cx.counters;
        *match why {
            Reason::ResetInWindow | Reason::ResetElsewhere => &mut counters.resets_ignored,
            Reason::Acknowledgement | Reason::NoAck => &mut counters.bad_acknowledgements,
            Reason::OutOfWindow | Reason::Syn | Reason::OldTimestamp => &mut counters.out_of_window,
        } += 1;
        if self.sender.may_answer(cx.now, has_data) {
            cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
        }
    }

    /// A segment without data before what the peer acknowledged is a window probe, which the peer sees as one, or a
    /// keep-alive. That becomes a rekey (TC-35): what the kernel takes for the answer is then authentic.
    fn answer_probe(&mut self, cx: &mut Context<'_>, flags: Flags) -> Outcome {
        let KernelView { next, edge, .. } = self.sender.kernel_view();
        let idle = self.sender.is_idle();
        if let Some(record) = self.keys.record()
            && edge > next
            && idle
            && !record.fin_sealed()
            // After its FINp frame the peer answers no rekey (docs/readings.md, reading 11).
            && self.receiver.is_open()
            // Nor may it be able to as long as this host's application does not read.
            && self.receiver.has_room_for_answer()
            && !(record.rekey_outstanding() && self.receiver.is_full())
        {
            self.liveness = Liveness::Asked;
            self.sender.start_rekey(cx, record)?;
            if !cx.actions.tells_peer() {
                // An earlier one is not answered yet. A peer that does not know the connection any more says so.
                cx.actions.push(Action::probe_peer(flags));
            }
            return Ok(());
        }
        // A rekey in flight is repeated by the timer for enotun's own bytes.
        if idle || self.liveness == Liveness::Unasked {
            self.liveness = Liveness::Unasked;
            cx.actions.push(Action::probe_peer(flags));
        }
        Ok(())
    }

    /// The kernel's acknowledgement of the SYN-ACK goes out with Init1, if that is how it begins; whether it does.
    pub(crate) fn send_init1(&mut self, cx: &mut Context<'_>, segment: &Segment<'_, P>) -> bool {
        if !self.keys.awaits_init2() {
            return false;
        }
        let _nothing_was_delivered = self.receiver.note_kernel(cx, segment.ack, segment.window);
        self.begin_sending(cx);
        true
    }

    /// Both SYNs of a simultaneous open are acknowledged. The kernel's SYN-ACK may be lost, and will not come again.
    pub(crate) fn complete_crossing(&mut self, cx: &mut Context<'_>) {
        cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
        self.begin_sending(cx);
    }

    /// Sends what there is, or else an acknowledgement.
    fn begin_sending(&mut self, cx: &mut Context<'_>) {
        cx.actions.owe_acknowledgement();
        let outcome = self.sender.flush(cx, self.keys.record(), Cut::Path, Flags::PSH);
        let _ = self.conclude(cx, outcome.map(|()| Next::Stay));
    }

    // From the wire to the local kernel.

    /// Takes in a segment from the wire. Its checksum is right.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, segment: &mut Segment<'_, C>) -> Next {
        let outcome = self.take_from_wire(cx, segment);
        self.conclude(cx, outcome)
    }

    fn take_from_wire(&mut self, cx: &mut Context<'_>, segment: &mut Segment<'_, C>) -> Outcome<Next> {
        self.receiver.forget_duplicate();
        let options = SegmentOptions::parse(segment.options());
        let start = self.receiver.position_c(segment.seq);
        let has_data = !segment.payload.is_empty();
        match self.judge(cx.now, start, segment, &options) {
            Verdict::Acceptable => {}
            other => return Ok(self.answer(cx, other, start, segment.payload_len())),
        }
        self.note_use(cx.now);
        self.emitter.learn(Side::Wire, segment);
        let (acknowledged, _) = self.receiver.advertised();
        self.emitter.note_peer(options.timestamps, options.eno, start <= acknowledged, cx.now);
        let before = self.before();
        let (ack, window) = (segment.ack, segment.window);
        let sack = self.sender.note_acknowledgement(cx, &Acknowledgement { start, ack, window, sack: options.sack() });
        let fin = segment.flags.any(Flags::FIN);
        if has_data && segment.is_congested() {
            self.receiver.note_congestion();
        }
        let flags = Flags(segment.flags.0 & (Flags::ECE.0 | Flags::CWR.0));
        if has_data || fin {
            let payload = segment.payload_mut();
            let progress = self.receiver.take_in(cx, self.keys.opener(), start, payload, fin)?;
            if progress == Progress::InitIsWhole && self.exchange == Exchange::None {
                self.exchange = Exchange::Due;
            }
        }
        self.pass_on(cx, &before, sack, !has_data && !fin, flags)?;
        Ok(Next::Stay)
    }

    /// Takes a segment through the gate.
    fn judge(&self, now: Instant, start: Offset<C>, segment: &Segment<'_, C>, options: &SegmentOptions) -> Verdict {
        let (acknowledged, edge) = self.receiver.advertised();
        let (unacknowledged, sent, max_window) = self.sender.peer_view();
        let opened = self.receiver.opened();
        let position = Position { acknowledged, opened, edge, unacknowledged, sent, max_window };
        let header = gate::Header {
            flags: segment.flags,
            start,
            len: segment.payload_len(),
            ack: self.sender.position_c(segment.ack),
            timestamps: options.timestamps,
        };
        gate::judge(&position, self.emitter.clocks(), now, &header)
    }

    /// Answers a segment with `len` bytes of payload in which nothing counts.
    fn answer(&mut self, cx: &mut Context<'_>, verdict: Verdict, start: Offset<C>, len: usize) -> Next {
        match verdict {
            Verdict::Reset => {
                cx.actions.push(Action::ResetKernel);
                return Next::Reset(Side::Wire);
            }
            // The kernel's to answer.
            Verdict::Probe => cx.actions.push(Action::PROBE_KERNEL),
            Verdict::Repeated => {
                cx.counters.segments_repeated += 1;
                self.receiver.note_repeated(cx, start..start + len);
            }
            Verdict::Refused(why) => self.refuse(cx, why, len > 0),
            Verdict::Acceptable => {}
        }
        Next::Stay
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
            self.receiver.challenge(cx, data);
        }
    }

    /// Tells both sides what has come of a segment. `bare`: it had no data, and may tell the kernel something all the same.
    fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        before: &Before,
        sack: SackBlocks,
        bare: bool,
        flags: Flags,
    ) -> Outcome {
        if self.receiver.is_confirmed() && !self.keys.peer_is_confirmed() {
            let key = self.key();
            self.keys.confirm_peer(cx, key);
        }
        // Out: what the peer's window lets go now.
        self.sender.flush(cx, self.keys.record(), Cut::Path, Flags::default())?;
        // In: plaintext, with the acknowledgement on it; or the acknowledgement alone.
        self.receiver.deliver(cx, flags);
        self.receiver.acknowledge_held();
        let (_, delivered) = self.receiver.kernel_view();
        let delivered = delivered > before.delivered;
        let KernelView { acknowledged, edge, .. } = self.sender.kernel_view();
        let news = acknowledged > before.kernel.acknowledged || edge > before.kernel.edge;
        if self.liveness == Liveness::Asked {
            self.answer_liveness(cx, delivered);
        } else if !sack.is_empty() || (!cx.actions.tells_kernel() && (news || bare)) {
            cx.actions.push(Action::TellKernel { bare: Bare::Next, flags, sack });
        }
        // The kernel acknowledges what it was given; all else is ours to acknowledge.
        if self.receiver.peer_view().acknowledged > before.peer.acknowledged && !delivered {
            cx.actions.owe_acknowledgement();
        }
        Ok(())
    }

    /// Tells the kernel that the peer is alive once that is authentic: it has answered the rekey.
    fn answer_liveness(&mut self, cx: &mut Context<'_>, delivered: bool) {
        let answered = self.keys.record().is_some_and(|record| delivered || !record.rekey_outstanding());
        if answered {
            self.liveness = Liveness::Unasked;
            if !delivered {
                cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
            }
        }
    }

    // Keys.

    /// How far a key exchange is that this host has all for.
    pub(crate) fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// The exchange is in the queue, or not any more.
    pub(crate) fn set_exchange(&mut self, exchange: Exchange) {
        self.exchange = exchange;
    }

    /// Exchanges keys, now that there is time for it, and opens what came behind the peer's Init message.
    pub(crate) fn exchange_keys(&mut self, cx: &mut Context<'_>) -> Next {
        self.exchange = Exchange::None;
        let Some(message) = self.receiver.init_message(self.keys.negotiated().role.other()) else { return Next::Stay };
        let before = self.before();
        let outcome = self.make_keys(cx, &message).and_then(|()| {
            self.pass_on(cx, &before, SackBlocks::default(), false, Flags::default())?;
            Ok(Next::Stay)
        });
        self.conclude(cx, outcome)
    }

    /// Makes keys with the peer's Init message.
    fn make_keys(&mut self, cx: &mut Context<'_>, message: &[u8]) -> Outcome {
        let identity = Identity { key: self.key(), local_isn: self.sender.isn(), peer_isn: self.receiver.isn() };
        match self.keys.finish(cx, &identity, message) {
            Ok(init2) => {
                if let Some(init2) = init2 {
                    self.sender.push_own(init2);
                    cx.counters.own_segments += 1;
                }
                // The kernel was told a window of zero until now.
                self.sender.keys_are_there();
                cx.actions.push(Action::ACKNOWLEDGE_KERNEL);
                self.receiver.note_init(message.len());
                self.receiver.take_waiting(cx, self.keys.opener())
            }
            Err(NoKeys::Refused(why)) => {
                let progress = self.receiver.reject_init(cx, why, message.len())?;
                self.receiver.settle(cx, progress);
                Ok(())
            }
            Err(NoKeys::Failed(why)) => Err(AbortReason::KeyExchange(why)),
            Err(NoKeys::Unasked) => Ok(()),
        }
    }

    /// Starts a rekey now (TC-31).
    pub(crate) fn start_rekey(&mut self, cx: &mut Context<'_>) -> Next {
        let outcome = match self.keys.record() {
            Some(record) => self.sender.start_rekey(cx, record),
            None => Ok(()),
        };
        self.conclude(cx, outcome.map(|()| Next::Stay))
    }

    /// Has the keys in use replaced with the next frame that can do it (TC-33), whatever they have done yet; whether there
    /// are any that still can be.
    pub(crate) fn wear_out_keys(&mut self) -> bool {
        self.keys.is_ready() && self.sender.wear_out_keys()
    }

    /// Erases what this connection has used of the cache or put there, or would; nothing is put there from here on (TC-22).
    /// Whether there was something.
    pub(crate) fn forget_session(&mut self, sessions: &mut Sessions) -> bool {
        self.keys.forget_session(sessions)
    }

    /// It has ended without a frame of the peer's having opened, though some came: whatever keys the peer has, those
    /// that were resumed are not.
    pub(crate) fn doubt_resumption(&self, sessions: &mut Sessions) {
        self.keys.doubt_resumption(sessions);
    }

    /// How far its keys are.
    pub(crate) fn keys(&self) -> Keys {
        self.keys.generations()
    }

    /// Whether frames can be sealed and opened.
    pub(crate) fn is_ready(&self) -> bool {
        self.keys.is_ready()
    }

    /// What the keys are exchanged with.
    pub(crate) fn tep(&self) -> tcpcrypt::Tep {
        self.keys.negotiated().tep
    }

    /// Whether this host opened the connection.
    pub(crate) fn is_active(&self) -> bool {
        self.keys.open() == Open::Active
    }

    // Time.

    /// The table of deadlines.
    fn deadline(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::KeyExchange => self.keys.deadline(),
            Timer::Idle => match self.activity {
                Activity::Busy { since } => Some(since + REST_AFTER),
                Activity::Idle { .. } => None,
            },
            Timer::KernelLiveness => match self.activity {
                Activity::Busy { .. } => None,
                Activity::Idle { ask_at } => Some(ask_at),
            },
            Timer::OwnFrames => self.sender.retransmit_at(),
            Timer::PartialFrame => self.receiver.acknowledge_part_at(),
            Timer::Held => self.receiver.held_until(),
            Timer::Redeliver => self.receiver.redeliver_at(),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        Timer::ALL.into_iter().filter_map(|timer| self.deadline(timer)).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Next {
        let outcome = self.handle_timers(cx);
        self.conclude(cx, outcome.map(|()| Next::Stay))
    }

    fn handle_timers(&mut self, cx: &mut Context<'_>) -> Outcome {
        for timer in Timer::ALL {
            if self.deadline(timer).is_none_or(|due| due > cx.now) {
                continue;
            }
            match timer {
                Timer::KeyExchange => return Err(AbortReason::Timeout),
                Timer::Idle => self.rest(),
                Timer::KernelLiveness => self.ask_kernel(cx),
                Timer::OwnFrames => self.sender.handle_timeout(cx)?,
                Timer::PartialFrame => self.receiver.handle_partial_frame(cx),
                Timer::Held => self.receiver.expire_waiting(cx),
                Timer::Redeliver => self.receiver.handle_redelivery(cx)?,
            }
        }
        Ok(())
    }

    /// Notes that a packet has come.
    fn note_use(&mut self, now: Instant) {
        self.sender.forget_limit(now);
        self.activity = Activity::Busy { since: now };
    }

    /// Gives back the memory that only a busy connection needs: most of many connections are idle.
    fn rest(&mut self) {
        if let Activity::Busy { since } = self.activity {
            self.activity = Activity::Idle { ask_at: since + ASK_AFTER };
        }
        self.keys.rest();
        self.sender.shrink();
        self.receiver.shrink();
    }

    /// Sockets can vanish without a word: the kernel is asked, and answers with a RST if it has none.
    fn ask_kernel(&mut self, cx: &mut Context<'_>) {
        self.activity = Activity::Idle { ask_at: cx.now + ASK_AFTER };
        cx.counters.own_segments += 1;
        cx.actions.push(Action::PROBE_KERNEL);
    }

    // For whoever keeps connections.

    /// Notes what a packet from `side` looks like.
    pub(crate) fn learn<S>(&mut self, side: Side, segment: &Segment<'_, S>) {
        self.emitter.learn(side, segment);
    }

    /// Whether a SYN of the local kernel with this number is the one this connection began with.
    pub(crate) fn is_syn_of(&self, isn: u32) -> bool {
        self.sender.isn() == isn
    }

    /// Remembers what a packet of the peer's, or its absence, has shown about the path. That the path lets ENO through is
    /// shown by what can only come from a peer that has the keys, or makes them with this host.
    pub(crate) fn note_path(&mut self, cx: &mut Context<'_>, next: Next, segment: Option<&Segment<'_, C>>) {
        let Path::Unknown { began } = self.path else { return };
        let reset = segment.filter(|segment| segment.flags.any(Flags::RST));
        let said = reset.and_then(|segment| LostOption::said(segment.payload()));
        let finding = match (next, said) {
            (Next::Reset(_), Some(LostOption::Ack)) => Finding::NonSynStripped,
            _ if self.keys.peer_is_confirmed() => Finding::Encrypted,
            // Nothing was needed of the peer's but the SYN-ACK or Init2: this may be an application that only reads.
            (Next::Reset(_), _) if self.is_ready() => return,
            (Next::Abort(_), _) if self.is_ready() && self.receiver.has_begun() => return,
            (Next::Reset(_), _) => Finding::Unfinished,
            (Next::Abort(AbortReason::KeyExchange(_) | AbortReason::FinWithoutFinp | AbortReason::Timeout), _) => {
                Finding::Unfinished
            }
            _ => return,
        };
        self.path = Path::Known;
        // Whatever a client does not finish is no reason to deny others encryption.
        match finding {
            Finding::Encrypted => cx.learn(self.key(), self.is_active(), finding),
            _ if self.is_active() => cx.doubt(self.key(), finding, began),
            _ => {}
        }
    }

    /// An error from the network about a segment that this host sent, as the local kernel would have got it.
    pub(crate) fn icmp_from_wire(&mut self, now: Instant, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
        icmp::from_wire(&mut self.sender, self.emitter.link().is_v6(), now, error, bytes)
    }

    /// An error from the plain side about a segment that enotun delivered, as the network may see it.
    pub(crate) fn icmp_from_plain(&self, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
        icmp::from_plain(&self.receiver, self.emitter.link().is_v6(), error, bytes)
    }

    /// Tells both ends that it is over (TC-6).
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>) {
        cx.actions.push(Action::ResetPeer);
        cx.actions.push(Action::ResetKernel);
        let _ = self.conclude(cx, Ok(Next::Stay));
    }

    /// What is left of it when it is over.
    pub(crate) fn close(&mut self, end: End, now: Instant, linger: Duration) -> Closed {
        let (seq, (ack, window)) = (self.sender.acceptable_seq().0, self.receiver.advertise());
        let wire = Last { seq, ack, window };
        let (seq, (ack, window)) = (self.receiver.delivered_seq().0, self.sender.advertised());
        let plain = Last { seq, ack, window };
        let left = Remains {
            link: self.emitter.link().clone(),
            wire,
            plain,
            clocks: self.emitter.clocks().copied(),
            facts: self.keys.facts(),
            totals: self.totals(),
            repeats_within: self.sender.repeats_within(),
        };
        Closed::after(left, end, now, linger)
    }

    fn totals(&self) -> (u64, u64) {
        (self.sender.total(), self.receiver.total())
    }

    /// Fills in what there is to say.
    pub(crate) fn describe(&self, info: &mut FlowInfo) {
        // Whoever answers a SYN of this host's takes part; whoever sends one may repeat another's.
        let shown = self.keys.peer_is_confirmed() || (self.is_active() && self.is_ready());
        info.state = if shown { FlowState::Encrypted } else { FlowState::Negotiating };
        self.keys.facts().describe(info);
        if let Keys::Generations(local, remote) = self.keys.generations() {
            (info.generation_local, info.generation_remote) = (Some(local), Some(remote));
        }
        (info.bytes_sent, info.bytes_received) = self.totals();
    }

    /// What an application can ask about it, if it has a session ID (ENO-19).
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        self.keys.facts().session(key)
    }

    /// What it holds that nobody has proven.
    pub(crate) fn waits(&self) -> Option<Waits> {
        self.receiver.waits()
    }

    /// Lets go of that.
    pub(crate) fn shed(&mut self) {
        self.receiver.shed();
    }

    /// Bytes of memory held for this connection beyond its fixed size.
    pub(crate) fn held(&self) -> usize {
        self.sender.held() + self.receiver.held()
    }
}

impl Start {
    fn identity(&self) -> Identity {
        Identity { key: self.link.key, local_isn: self.params.local_isn, peer_isn: self.params.peer_isn }
    }
}
