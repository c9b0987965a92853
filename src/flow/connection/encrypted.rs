//! An encrypted connection: its parts, and how what they have noted is carried out.
//!
//! A packet's way through it: `from_kernel` or `from_wire` asks the gate whether its header counts; the sender takes in
//! acknowledgements and the kernel's bytes, the receiver the peer's bytes and the kernel's acknowledgements; each notes what is to
//! be done ([`super::action`]); [`Encrypted::conclude`] has the emitter do it, and says what becomes of the connection.

mod exchange;
mod from_kernel;
mod from_wire;
mod timers;

use std::time::Duration;

use tcpcrypt::{AckPhase, Negotiated, Session};

use super::action::Action;
use super::closed::{Closed, End, Last, Remains};
use super::emit::Emitter;
use super::icmp;
use super::keys::{Caching, Identity, KeyExchange, Keys, Open};
use super::outcome::{AbortReason, Exchange, Next, Outcome};
use super::params::HandshakeParams;
use super::receiver::{PeerView, Receiver, Waits};
use super::sender::{KernelView, Sender};
use crate::flow::clocks::Clocks;
use crate::flow::context::Context;
use crate::flow::env::Side;
use crate::flow::info::{FlowInfo, FlowSession, FlowState};
use crate::flow::link::Link;
use crate::flow::lost::LostOption;
use crate::flow::states::State;
use crate::store::{ChainId, Finding, Sessions};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::{C, Flags, FlowKey, Offset, P, Segment};

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

    /// Where it is.
    pub(crate) fn state(&self) -> State {
        self.keys.state()
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

    /// How far a key exchange is that this host has all for.
    pub(crate) fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// The exchange is in the queue, or not any more.
    pub(crate) fn set_exchange(&mut self, exchange: Exchange) {
        self.exchange = exchange;
    }

    /// Notes that a packet has come.
    fn note_use(&mut self, now: Instant) {
        self.sender.forget_limit(now);
        self.activity = Activity::Busy { since: now };
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

    /// What remains of it when it is over.
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

    /// Bytes it holds that nobody has proven.
    pub(crate) fn waits(&self) -> Option<Waits> {
        self.receiver.waits()
    }

    /// Lets go of that, if it would come again.
    pub(crate) fn shed(&mut self) -> bool {
        self.receiver.shed()
    }

    /// Bytes of memory held for data beyond a gap and for what the kernel has no room for. What the kernel has sent and
    /// the peer has not acknowledged is not counted: the kernel's send buffers bound it, and nothing else could let go of it.
    pub(crate) fn held(&self) -> usize {
        self.sender.held() + self.receiver.held()
    }
}

impl Start {
    fn identity(&self) -> Identity {
        Identity { key: self.link.key, local_isn: self.params.local_isn, peer_isn: self.params.peer_isn }
    }
}
