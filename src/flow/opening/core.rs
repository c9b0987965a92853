//! The state of an opening whichever end began, and code shared by both ways.

use std::time::Duration;

use tcpcrypt::{AckPhase, Record};

use super::outcome::{Change, Emit, Numbers, Opened, Resets};
use super::peers::{Agreed, PeerSyn, PeerSyns, Seen};
use super::syn_rewrite::{default_mss, for_kernel, largest_mss};
use crate::flow::clocks::Clocks;
use crate::flow::connection::{AbortReason, Caching, Encrypted, HandshakeParams, Open, Start};
use crate::flow::link::Link;
use crate::flow::plain::{FallbackReason, Left, OpenQuestion, SuspectKeys};
use crate::flow::{Context, LostOption, Rules, Side};
use crate::selector::Policy;
use crate::store::{ChainId, Finding};
use crate::time::Instant;
use crate::wire::options::{OptionBuf, Timestamps};
use crate::wire::{C, Flags, Segment};

/// Minimum interval between answers to unacceptable segments, like Linux's `tcp_invalid_ratelimit`.
const CHALLENGE_PAUSE: Duration = Duration::from_millis(500);

/// The state of an opening whichever end began.
#[derive(Debug, Clone)]
pub(super) struct Core {
    pub(super) link: Link,
    pub(super) rules: Rules,
    pub(super) phase: AckPhase,
    /// When its first SYN came.
    pub(super) began: Instant,
    /// When it is abandoned.
    pub(super) deadline: Instant,
    /// When the peer was last told what is expected.
    challenged: Option<Instant>,
}

/// Which end has opened a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opener {
    /// The local kernel, whose SYN proposed to resume this chain.
    Kernel {
        proposed: Option<ChainId>,
    },
    Peer,
}

impl Core {
    pub(super) fn new(cx: &Context<'_>, link: Link, rules: Rules) -> Self {
        let deadline = cx.now + cx.config.handshake_timeout;
        Self { link, rules, phase: AckPhase::new(), began: cx.now, deadline, challenged: None }
    }

    pub(super) fn requires_encryption(&self) -> bool {
        self.rules.policy == Policy::Required
    }

    /// Plain TCP with what is `left`, `emit` being what is sent of the segment at hand; or refusal if policy says so.
    pub(super) fn fall_back(&self, left: Left, emit: Emit) -> Opened {
        if self.requires_encryption() {
            let resets = Resets::after_syns(left.isns);
            return Opened { change: Change::Refused(left.why), emit: Emit::Reset(resets) };
        }
        Opened { change: Change::Plain(left), emit }
    }

    /// Packets of one direction take another path (asymmetric routing through a gateway): what cannot be followed
    /// cannot be encrypted. `segment`, read on `from`, has shown it.
    pub(super) fn one_direction<S>(
        &self,
        cx: &mut Context<'_>,
        left: Left,
        from: Side,
        segment: &Segment<'_, S>,
    ) -> Opened {
        cx.learn(self.link.key, left.opened_on == Side::Plain, Finding::OneDirection);
        if self.requires_encryption() {
            let resets = Resets::both(from, segment);
            return Opened { change: Change::Refused(left.why), emit: Emit::Reset(resets) };
        }
        Opened { change: Change::Plain(left), emit: Emit::Forward }
    }

    /// The peer, whose acknowledgement has lost its ENO option on the way, encrypts, as `segment` shows. `expects`: see
    /// [`Change::Aborted`].
    pub(super) fn one_sided(
        &self,
        cx: &mut Context<'_>,
        [local, peer]: [&Seen; 2],
        segment: &Segment<'_, C>,
        expects: Option<Numbers>,
    ) -> Opened {
        cx.learn(self.link.key, false, Finding::NonSynStripped);
        let resets = Resets {
            to_kernel: Some(Numbers { seq: peer.next(), ack: local.next() }),
            to_peer: Some(Numbers::of(segment).turned()),
            lost: Some(LostOption::Ack),
        };
        Opened { change: Change::Aborted(AbortReason::OneSided, expects), emit: Emit::Reset(resets) }
    }

    /// What the peer's first data can tell once its acknowledgement came without ENO: with the keys of a session that this host
    /// has agreed to resume, to tell frames if the connection became plain here and perhaps not at the peer.
    pub(super) fn suspicion<R>(&self, cx: &Context<'_>, peer: Option<&PeerSyn<R>>) -> OpenQuestion {
        let record = peer.and_then(PeerSyn::session).map(|session| Box::new(Record::new(cx.provider, session)));
        let until = cx.now + cx.config.handshake_timeout;
        OpenQuestion::FirstData { keys: record.map(|record| SuspectKeys { record, until }) }
    }

    /// Answers what is not acceptable with what is expected (RFC 9293, section 3.10.7.4), now and then.
    pub(super) fn challenge(&mut self, cx: &Context<'_>, local: &Seen, peer: &Seen) -> Opened {
        if self.challenged.is_some_and(|at| cx.now < at + CHALLENGE_PAUSE) {
            return Opened::stay();
        }
        self.challenged = Some(cx.now);
        let mut options = OptionBuf::default();
        let mut fits = true;
        if let Some((own, peers)) = local.options.timestamps.zip(peer.options.timestamps) {
            fits &= options.push_timestamps(Timestamps { value: own.value, echo: peers.value });
        }
        if self.phase.must_carry() {
            // ENO-12
            fits &= options.push(&tcpcrypt::eno::option::NON_SYN_OPTION);
            self.phase.sent_ack();
        }
        debug_assert!(fits, "timestamps and an empty ENO option are 14 bytes");
        // The window of a SYN is not scaled, this one is: no part of what was announced is taken back.
        let scale = local.options.window_scale.filter(|_| peer.options.window_scale.is_some());
        let window = u32::from(local.window).div_ceil(1 << scale.unwrap_or(0)).try_into().unwrap_or(u16::MAX);
        let numbers = Numbers { seq: local.next(), ack: peer.next() };
        Opened::send(Emit::Acknowledge { side: Side::Wire, numbers, window, options })
    }

    /// The peer's SYN or SYN-ACK as the local kernel gets to see it. `local`: what that has said.
    pub(super) fn to_kernel(
        &self,
        cx: &Context<'_>,
        local: Option<&Seen>,
        segment: &Segment<'_, C>,
        window: u16,
    ) -> Opened {
        let is_v6 = self.link.is_v6();
        let most = largest_mss(is_v6, cx.config.wire_mtu, local.and_then(|seen| seen.options.mss));
        Opened::send(Emit::Rewritten { options: for_kernel(segment.options(), is_v6, most), window })
    }

    /// What both SYNs add up to.
    pub(super) fn parameters(
        &self,
        cx: &Context<'_>,
        local: &Seen,
        peer: &Seen,
        rtt: Option<Duration>,
    ) -> (HandshakeParams, Option<Clocks>) {
        let is_v6 = self.link.is_v6();
        // What is not said twice does not count (RFC 7323, sections 2.2 and 3.2).
        let scaled = local.options.window_scale.zip(peer.options.window_scale);
        let (local_scale, peer_scale) = scaled.unwrap_or((0, 0));
        let timestamps = local.options.timestamps.zip(peer.options.timestamps);
        let most = largest_mss(is_v6, cx.config.wire_mtu, local.options.mss);
        let params = HandshakeParams {
            local_isn: local.isn,
            peer_isn: peer.isn,
            local_scale,
            peer_scale,
            local_mss: local.options.mss.unwrap_or(default_mss(is_v6)),
            // What this host announces is what its own interface takes.
            peer_mss: peer.options.mss.unwrap_or(default_mss(is_v6)).min(most),
            timestamps: timestamps.is_some(),
            sack: local.options.sack_permitted && peer.options.sack_permitted,
            local_window: local.window,
            peer_window: peer.window,
            rtt,
        };
        (params, timestamps.map(|(own, peers)| Clocks::new(own, peers, cx.now)))
    }

    /// The connection as an encrypted one: with the keys of the session it resumes, or its part in the key exchange
    /// begun (TC-3). `now`: the kernel's clock in the segment at hand.
    pub(super) fn begin<R>(
        &self,
        cx: &mut Context<'_>,
        opener: Opener,
        local: &Seen,
        peers: &mut PeerSyns<R>,
        rtt: Option<Duration>,
        now: Option<Timestamps>,
    ) -> Result<Box<Encrypted>, AbortReason> {
        let PeerSyn { seen: peer, agreed: Ok(agreed), .. } = peers.take_current().ok_or(AbortReason::Internal)? else {
            return Err(AbortReason::Internal);
        };
        let (params, mut clocks) = self.parameters(cx, local, &peer, rtt);
        if let (Some(clocks), Some(now)) = (&mut clocks, now) {
            clocks.from_kernel(now, cx.now);
        }
        let (open, proposed) = match opener {
            Opener::Kernel { proposed } => (Open::Active, proposed),
            Opener::Peer => (Open::Passive, None),
        };
        let caching = if self.rules.options.no_cache { Caching::Off } else { Caching::Allowed };
        let (link, phase) = (self.link.clone(), self.phase);
        let start = |negotiated| Start { link, params, negotiated, phase, clocks, open, caching };
        match agreed {
            Agreed::Resumed(negotiated, chain, session) => {
                Ok(Box::new(Encrypted::resumed(cx, start(negotiated), *session, chain)))
            }
            Agreed::Fresh(negotiated) => {
                if let Some(chain) = proposed {
                    cx.counters.resumptions_refused += 1;
                    cx.sessions.refused(chain);
                }
                Ok(Box::new(Encrypted::exchanging(cx, start(negotiated))?))
            }
        }
    }
}

/// Whether the local kernel's RST ends the opening. In SYN-SENT it resets whoever acknowledges what it has not sent, and waits on
/// (RFC 9293, section 3.10.7.3). Were the opening over with that, the genuine SYN-ACK would make the connection plain. Without a
/// listener it acknowledges the SYN that it refuses. On a gateway anybody near it may have sent anything else.
pub(super) fn kernel_ends_it<S, R>(local: Option<&Seen>, peers: &PeerSyns<R>, rst: &Segment<'_, S>) -> bool {
    let exact = local.is_some_and(|seen| seen.next() == rst.seq.0);
    let refuses = rst.flags.any(Flags::ACK) && peers.any_next(rst.ack.0);
    exact || refuses
}

/// What is left of an opening that falls back before anything of the peer's was seen: nothing but the SYN.
pub(super) fn left_of_syn(why: FallbackReason, isn: u32) -> Left {
    Left {
        why,
        isns: [Some(isn), None],
        opened_on: Side::Plain,
        answered: false,
        question: OpenQuestion::None,
        insists: false,
    }
}
