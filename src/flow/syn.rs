//! The opening of a connection: SYNs with ENO options, and what follows from them.
//!
//! The option of this host is made once (ENO-14). The local kernel never sees ENO; what it sees of the peer's
//! SYN or SYN-ACK has its MSS lowered by what a frame adds, and, until keys are made, a window of zero, so that it sends
//! nothing that would have to wait here. A resumed session has its keys with the SYNs: the window is the peer's at once.

use std::time::Duration;

use tcpcrypt::{Acceptable, AckPhase, Decision, Negotiated, Proposal, Record};

use super::clocks::Clocks;
use super::connection::{AbortReason, Caching, Encrypted, HandshakeParams, Open, Start};
use super::context::Context;
use super::crossing::{Crossing, Told};
use super::env::Side;
use super::link::Link;
use super::lost::LostOption;
use super::peers::{Agreed, PeerSyns};
use super::plain::{FallbackReason, Left, OpenQuestion, SuspectKeys, begins_frame, begins_init1};
use super::rules::Rules;
use super::shown::without_accurate_ecn;
use crate::selector::Policy;
use crate::store::{ChainId, Finding};
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{OptionBuf, SegmentOptions, SynOptions, Timestamps};
use crate::wire::{C, Flags, P, Segment};

/// What a SYN or SYN-ACK said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) isn: u32,
    pub(super) options: SynOptions,
    pub(super) window: u16,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn new<S>(packet: &Segment<'_, S>, now: Instant) -> Self {
        Self { isn: packet.seq.0, options: SynOptions::parse(packet.options()), window: packet.window, at: now }
    }
}

/// The SYN exchange, up to the first segment after it.
pub(crate) struct Opening {
    pub(super) link: Link,
    pub(super) rules: Rules,
    /// Whether the local kernel opens, not only answers.
    pub(super) active: bool,
    pub(super) local: Option<Seen>,
    /// The peer's SYNs or SYN-ACKs, and what was agreed with each.
    pub(super) peers: PeerSyns,
    /// Where a simultaneous open is.
    pub(super) crossing: Crossing,
    /// This host's ENO option (ENO-14), as long as one is sent.
    pub(super) own: Option<Vec<u8>>,
    /// SYNs sent with it.
    pub(super) attempts: u8,
    /// As many are sent at most, if policy allows plain TCP.
    pub(super) tries: u8,
    /// What this host's SYN proposes to resume. Nothing else does ever (TC-19).
    pub(super) proposal: Option<(ChainId, Proposal)>,
    pub(super) phase: AckPhase,
    /// The local kernel has an older connection on these ports, and what it has received of that.
    pub(super) older: Option<u32>,
    pub(super) deadline: Instant,
    /// When its first SYN came.
    pub(super) began: Instant,
    /// When the peer was last told what is expected.
    pub(super) challenged: Option<Instant>,
}

/// What becomes of an opening after a packet.
#[must_use]
pub(crate) enum Opened {
    /// It goes on.
    Still,
    /// Encrypted from here on. The packet that decided it has been dealt with, or is to be given to the result
    /// (`true`).
    Encrypted(Box<Encrypted>, bool),
    /// Plain TCP. The packet is to be passed on as it is (`true`), or has been dealt with.
    Plain(FallbackReason, bool),
    /// Refused because policy requires encryption; both ends know.
    Refused(FallbackReason),
    /// Aborted before it began.
    Aborted(AbortReason),
    /// It is over, by a RST that is to be passed on. `true`: the peer may believe that it is encrypted.
    Over(bool),
}

impl Opening {
    pub(crate) fn new(cx: &Context<'_>, link: Link, rules: Rules, active: bool) -> Self {
        Self {
            link,
            rules,
            active,
            local: None,
            peers: PeerSyns::default(),
            crossing: Crossing::default(),
            own: None,
            attempts: 0,
            tries: if rules.probe.is_some() { u8::MAX } else { cx.config.syn_attempts },
            proposal: None,
            phase: AckPhase::new(),
            older: None,
            deadline: cx.now + cx.config.handshake_timeout,
            began: cx.now,
            challenged: None,
        }
    }

    /// The SYN it began with.
    pub(crate) fn isn(&self) -> Option<u32> {
        if self.active { self.local } else { self.peer() }.map(|seen| seen.isn)
    }

    /// What the peer's SYN or SYN-ACK says that is in force.
    pub(super) fn peer(&self) -> Option<Seen> {
        self.peers.current().map(|syn| syn.seen)
    }

    pub(super) fn agreed(&self) -> Option<&Agreed> {
        self.peers.current().map(|syn| &syn.agreed)
    }

    /// The first sequence numbers of both ends, as far as they are known.
    pub(crate) fn isns(&self) -> [Option<u32>; 2] {
        [self.local, self.peer()].map(|seen| seen.map(|seen| seen.isn))
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the local kernel has acknowledged the peer's SYN.
    pub(crate) fn has_answered(&self) -> bool {
        self.crossing.answered || (!self.active && self.local.is_some())
    }

    /// Whether a SYN-ACK that negotiates encryption was sent, or was given to the local kernel: what the peer sends from now on
    /// may be frames, which no application is to see, and what the kernel sends must not get onto the wire.
    pub(crate) fn has_agreed(&self) -> bool {
        let answered = !self.active || self.crossing.answered || self.crossing.told == Told::SynAck;
        answered && self.peers.any_agreed() && self.local.is_some()
    }

    /// The next sequence numbers of the peer and of the local kernel, if that may take the connection for open.
    pub(crate) fn kernel_expects(&self) -> Option<(u32, u32)> {
        let (local, peer) = (self.local?, self.peer()?);
        (self.crossing.told != Told::Nothing).then(|| (peer.isn.wrapping_add(1), local.isn.wrapping_add(1)))
    }

    /// Whether one of the peer's SYNs or SYN-ACKs has resumed a session.
    pub(crate) fn resumes(&self) -> bool {
        self.peers.any_resumed()
    }

    /// Whether a SYN or SYN-ACK of this host has named a session secret and a nonce: what keys are made of then.
    pub(crate) fn has_named_a_secret(&self) -> bool {
        self.proposal.is_some() || self.resumes()
    }

    /// Plain TCP, or refusal if policy says so. `pass`: the packet at hand is to be passed on.
    pub(super) fn plain(&mut self, cx: &mut Context<'_>, why: FallbackReason, pass: bool) -> Opened {
        self.phase.disable();
        if self.rules.policy != Policy::Required {
            return Opened::Plain(why, pass);
        }
        self.refuse(cx);
        Opened::Refused(why)
    }

    /// Tells whoever knows of the connection that it is over.
    pub(crate) fn refuse(&mut self, cx: &mut Context<'_>) {
        let [local, peer] = self.isns();
        let next = |isn: Option<u32>| isn.map_or(0, |isn| isn.wrapping_add(1));
        if local.is_some() {
            // In SYN-SENT the acknowledgement is what makes it believable (RFC 9293, section 3.10.7.3).
            self.link.reset(cx.env, Side::Plain, next(peer), next(local));
        }
        if peer.is_some() {
            self.link.reset(cx.env, Side::Wire, next(local), next(peer));
        }
    }

    /// Takes in a packet from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Opened {
        if packet.flags.any(Flags::RST) {
            // In SYN-SENT it resets whoever acknowledges what it has not sent, and waits on (RFC 9293, section 3.10.7.3). Were
            // the opening over with that, the genuine SYN-ACK would make the connection plain.
            // Without a listener it acknowledges the SYN that it refuses. On a gateway anybody near it may have sent anything else.
            let exact = self.local.is_some_and(|seen| seen.isn.wrapping_add(1) == packet.seq.0);
            let refuses = packet.flags.any(Flags::ACK) && self.peers.any_next(packet.ack.0);
            if !exact && !refuses {
                self.emit_syn(cx, Side::Wire, packet, OptionBuf::default(), packet.window);
                return Opened::Still;
            }
            return Opened::Over(self.has_agreed());
        }
        if !packet.flags.any(Flags::SYN) {
            return self.first_from_kernel(cx, packet);
        }
        self.local = Some(Seen::new(packet, cx.now));
        if packet.flags.any(Flags::ACK) { self.syn_ack_out(cx, packet) } else { self.syn_out(cx, packet) }
    }

    /// Takes in a packet from the wire.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>) -> Opened {
        if packet.flags.any(Flags::RST) {
            // Believable in SYN-SENT only if it acknowledges the SYN, after a SYN of the peer's only if it is exactly
            // where the next byte is expected (RFC 5961, section 3.2).
            let next = self.local.map(|seen| seen.isn.wrapping_add(1));
            let answers = self.active && packet.flags.any(Flags::ACK) && next == Some(packet.ack.0);
            if answers || self.peers.any_next(packet.seq.0) {
                return Opened::Over(self.has_agreed());
            }
            if self.older.is_some() && self.older == Some(packet.seq.0) {
                // The peer has not got that one. Its SYN comes again.
                self.older = None;
                self.link.reset(cx.env, Side::Plain, packet.seq.0, packet.ack.0);
                return Opened::Still;
            }
            cx.counters.resets_ignored += 1;
            return Opened::Still;
        }
        match (packet.flags.any(Flags::SYN), packet.flags.any(Flags::ACK)) {
            (true, true) => self.syn_ack_in(cx, packet),
            (true, false) => self.syn_in(cx, packet),
            (false, true) => self.first_from_wire(cx, packet),
            (false, false) => Opened::Still,
        }
    }

    /// The option of this host's SYN.
    pub(crate) fn own(&self) -> Option<&[u8]> {
        self.own.as_deref()
    }

    /// What is left of it once it is plain TCP, `why` being the reason.
    pub(crate) fn leave(&self, cx: &Context<'_>, why: FallbackReason) -> Left {
        Left {
            why,
            isns: self.isns(),
            opened_on: if self.active { Side::Plain } else { Side::Wire },
            answered: self.has_answered(),
            question: self.question(cx, why),
            insists: self.insists(why),
        }
    }

    fn question(&self, cx: &Context<'_>, why: FallbackReason) -> OpenQuestion {
        match why {
            FallbackReason::SynLost => {
                let sent = self.local.and_then(|seen| seen.options.timestamps).map(|ts| ts.value);
                OpenQuestion::Answer { sent, began: self.began }
            }
            FallbackReason::PeerNoEno if !self.active => OpenQuestion::FirstAck,
            // It may have taken the answer to its first SYN.
            FallbackReason::Eno(_) if !self.active && self.peers.any_agreed() => OpenQuestion::FirstAck,
            FallbackReason::AckWithoutEno => {
                let until = cx.now + cx.config.handshake_timeout;
                OpenQuestion::FirstData { keys: self.suspect(cx).map(|record| SuspectKeys { record, until }) }
            }
            _ => OpenQuestion::None,
        }
    }

    /// Answers what is not acceptable with what is expected (RFC 9293, section 3.10.7.4), now and then.
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>) {
        let (Some(local), Some(peer)) = (self.local, self.peer()) else { return };
        if self.challenged.is_some_and(|at| cx.now < at + CHALLENGE_PAUSE) {
            return;
        }
        self.challenged = Some(cx.now);
        let mut options = OptionBuf::default();
        let mut fits = true;
        if let Some((own, peers)) = local.options.timestamps.zip(peer.options.timestamps) {
            fits &= options.push_timestamps(Timestamps { value: own.value, echo: peers.value });
        }
        if self.phase.must_carry() && self.own.is_some() {
            // ENO-12
            fits &= options.push(&tcpcrypt::eno::option::NON_SYN_OPTION);
            self.phase.sent_ack();
        }
        debug_assert!(fits, "timestamps and an empty ENO option are 14 bytes");
        // The window of a SYN is not scaled, this one is: no part of what was announced is taken back.
        let scale = local.options.window_scale.filter(|_| peer.options.window_scale.is_some());
        let tcp = TcpFields {
            seq: local.isn.wrapping_add(1),
            ack: peer.isn.wrapping_add(1),
            flags: Flags::ACK,
            window: u32::from(local.window).div_ceil(1 << scale.unwrap_or(0)).try_into().unwrap_or(u16::MAX),
            urgent: 0,
            options: options.padded(),
        };
        self.link.emit(cx.env, Side::Wire, &tcp, &[], None);
    }

    /// Packets of one direction take another way (asymmetric routes through a gateway): what cannot be followed cannot be
    /// encrypted. A segment on `side` with these numbers has shown it.
    pub(super) fn let_go(&mut self, cx: &mut Context<'_>, side: Side, ack: u32, seq: u32) -> Opened {
        cx.learn(self.link.key, self.active, Finding::OneDirection);
        self.phase.disable();
        if self.rules.policy != Policy::Required {
            return Opened::Plain(FallbackReason::OneDirection, true);
        }
        self.link.reset(cx.env, side, ack, seq);
        self.link.reset(cx.env, side.other(), seq, ack);
        Opened::Refused(FallbackReason::OneDirection)
    }

    /// The connection as an encrypted one: with the keys of the session it resumes, or its part in the key exchange
    /// begun (TC-3).
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        params: HandshakeParams,
        clocks: Clocks,
        negotiated: Negotiated,
    ) -> Result<Encrypted, AbortReason> {
        let open = if self.active { Open::Active } else { Open::Passive };
        let caching = if self.rules.options.no_cache { Caching::Off } else { Caching::Allowed };
        let (link, phase) = (self.link.clone(), self.phase);
        let start = Start { link, params, negotiated, phase, clocks, open, caching };
        let proposed = self.proposal.take();
        match std::mem::take(&mut self.peers).into_agreed() {
            Some(Agreed::Resumed(_, chain, session)) => Ok(Encrypted::resumed(cx, start, *session, chain)),
            _ => {
                if let Some((chain, _)) = proposed {
                    cx.counters.resumptions_refused += 1;
                    cx.sessions.refused(chain);
                }
                Encrypted::exchanging(cx, start)
            }
        }
    }

    /// The peer's first segment that is no SYN: it says whether encryption is on (ENO-13, ENO-15).
    fn first_from_wire(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>) -> Opened {
        if let (Some(local), true) = (self.local, self.peers.is_empty())
            && self.active
            && packet.ack.0 != local.isn.wrapping_add(1)
        {
            // Of a connection that the peer has and this host has not: the kernel resets it, to begin anew (RFC 9293, section
            // 3.5.1). What else is in the segment is not for it (ENO-15).
            self.link.acknowledge(cx.env, Side::Plain, packet.seq.0, packet.ack.0, &[]);
            return Opened::Still;
        }
        if !self.active && self.local.is_none() && self.peers.any_next(packet.seq.0) {
            // The answer to its SYN did not pass here.
            return self.let_go(cx, Side::Wire, packet.ack.0, packet.seq.0);
        }
        let (Some(local), Some(peer)) = (self.local, self.peer()) else { return Opened::Still };
        if self.active && !self.crossing.is_answered() {
            // A segment of the peer that overtook nothing: the kernel has not acknowledged the SYN-ACK yet.
            return Opened::Still;
        }
        let options = SegmentOptions::parse(packet.options());
        let ahead = packet.seq.0.wrapping_sub(peer.isn.wrapping_add(1));
        let has_keys = self.agreed().is_some_and(|agreed| agreed.session().is_some());
        // RFC 9293, section 3.10.7.4, in SYN-RECEIVED: what is outside of the window is answered with what is expected ...
        if ahead >= u32::from(local.window).max(1) {
            cx.counters.out_of_window += 1;
            self.challenge(cx);
            return Opened::Still;
        }
        // ... and what acknowledges something else with a RST: whoever takes that for its own has another connection in mind.
        if packet.ack.0 != local.isn.wrapping_add(1) {
            cx.counters.out_of_window += 1;
            if ahead == 0 {
                self.link.reset(cx.env, Side::Wire, packet.ack.0, packet.seq.0);
            }
            return Opened::Still;
        }
        // With the keys there, segments behind a lost one may wait. Others have lost the acknowledgement of the SYN-ACK on the
        // way, and will be sent again.
        if ahead != 0 && !(has_keys && options.eno) {
            return Opened::Still;
        }
        match self.phase.received(Acceptable::non_syn(options.eno)) {
            Decision::Encrypted => {}
            Decision::Plain | Decision::Pending => {
                let payload = packet.payload();
                let resumed = self.suspect(cx).is_some_and(|mut record| begins_frame(&mut record, payload));
                if resumed || begins_init1(payload) {
                    cx.learn(self.link.key, false, Finding::NonSynStripped);
                    self.link.reset(cx.env, Side::Plain, peer.isn.wrapping_add(1), local.isn.wrapping_add(1));
                    self.link.reset_saying(cx.env, LostOption::Ack, packet.ack.0, packet.seq.0);
                    return Opened::Aborted(AbortReason::OneSided);
                }
                let plain = if options.eno { FallbackReason::NotNegotiated } else { FallbackReason::AckWithoutEno };
                if plain == FallbackReason::AckWithoutEno {
                    cx.learn(self.link.key, false, Finding::AckWithoutEno);
                }
                return self.plain(cx, plain, true);
            }
        }
        // What of a simultaneous open was sent when says nothing of a round trip.
        let rtt = (!self.active).then(|| cx.now.since(local.at));
        let Some((params, clocks, negotiated)) = self.settled(cx, local.window, rtt) else {
            return Opened::Aborted(AbortReason::Internal);
        };
        match self.begin(cx, params, clocks, negotiated) {
            Ok(encrypted) => Opened::Encrypted(Box::new(encrypted), false),
            Err(why) => Opened::Aborted(why),
        }
    }

    /// The keys of the session that this host has agreed to resume, to tell frames if the connection became plain
    /// here and perhaps not at the peer.
    pub(crate) fn suspect(&self, cx: &Context<'_>) -> Option<Box<Record>> {
        self.agreed().and_then(Agreed::session).map(|session| Box::new(Record::new(cx.provider, session)))
    }

    /// What both SYNs add up to.
    pub(super) fn settled(
        &self,
        cx: &Context<'_>,
        local_window: u16,
        rtt: Option<Duration>,
    ) -> Option<(HandshakeParams, Clocks, Negotiated)> {
        let (local, peer) = (self.local?, self.peer()?);
        let scaled = local.options.window_scale.zip(peer.options.window_scale);
        let (local_scale, peer_scale) = scaled.unwrap_or((0, 0));
        let timestamps = local.options.timestamps.zip(peer.options.timestamps);
        let params = HandshakeParams {
            local_isn: local.isn,
            peer_isn: peer.isn,
            local_scale,
            peer_scale,
            local_mss: local.options.mss.unwrap_or(self.default_mss()),
            // What this host announces is what its own interface takes.
            peer_mss: peer.options.mss.unwrap_or(self.default_mss()).min(self.most(cx.config.wire_mtu)),
            timestamps: timestamps.is_some(),
            sack: local.options.sack_permitted && peer.options.sack_permitted,
            local_window: if self.active { local.window } else { local_window },
            peer_window: peer.window,
            rtt,
        };
        let (l, p) = timestamps.unwrap_or_default();
        Some((params, Clocks::new(l, p, cx.now), self.agreed()?.negotiated()?.clone()))
    }

    /// Sends a SYN or SYN-ACK on, without data (ENO-16).
    pub(super) fn emit_syn<S>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        packet: &Segment<'_, S>,
        options: OptionBuf,
        window: u16,
    ) {
        let flags = if side == Side::Plain { without_accurate_ecn(packet.flags) } else { packet.flags };
        let tcp = TcpFields {
            seq: packet.seq.0,
            ack: packet.ack.0,
            flags,
            window,
            urgent: packet.urgent,
            options: options.padded(),
        };
        self.link.emit(cx.env, side, &tcp, &[], None);
    }

    pub(crate) fn learn<S>(&mut self, side: Side, packet: &Segment<'_, S>) {
        self.link.learn(side, packet);
    }
}

/// Time between answers to what is not acceptable, as Linux's `tcp_invalid_ratelimit`.
const CHALLENGE_PAUSE: Duration = Duration::from_millis(500);
