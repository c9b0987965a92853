//! A connection that is over, remembered for a while to answer stragglers with numbers they understand.

use std::time::Duration;

use super::config::Config;
use super::context::Context;
use super::encrypted::{Encrypted, Facts};
use super::env::Side;
use super::info::{FlowInfo, FlowSession, FlowState};
use super::link::{Clocks, Link};
use crate::wire::FlowKey;
use tcpcrypt::Role;

use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::OptionBuf;
use crate::wire::{Flags, Segment};

/// The fields of the last acknowledgement towards one side.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    seq: u32,
    ack: u32,
    window: u16,
}

/// What is left of a connection.
pub(crate) struct Closed {
    link: Link,
    /// Why it was aborted; `None` if it ended in order.
    why: Option<String>,
    reset: bool,
    /// What the last acknowledgement towards the wire says.
    wire: Last,
    /// The same towards the local kernel.
    plain: Last,
    clocks: Option<Clocks>,
    pub(super) facts: Option<Facts>,
    totals: (u64, u64),
    /// The local kernel was told of the end by a RST, which it may have missed.
    unheard: bool,
    /// When the RST to it is repeated, and how often it was.
    repeat: Option<Instant>,
    repeats: usize,
    until: Instant,
}

/// A kernel that has missed the RST of an aborted connection takes it for open and would send its plaintext later: the RST is
/// repeated, so long after the one before, and with it a segment that a kernel without the connection answers with a RST.
const REPEAT_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

impl Closed {
    /// After an orderly end (`reset` false), or after a RST.
    fn after(e: &mut Encrypted, reset: bool, why: Option<String>, now: Instant, linger: Duration) -> Self {
        let (wire, plain) = e.final_fields();
        let unheard = reset && !e.kernel_gone;
        let repeat = unheard.then(|| now + REPEAT_AFTER[0]);
        // The kernel may have missed the last acknowledgement. While it can send its plaintext again, it is answered from here.
        let until = now + linger.max(e.out.repeats_within());
        let facts = Some(e.facts.clone());
        let (link, clocks, totals) = (e.link.clone(), e.clocks, e.totals());
        Self { link, why, reset, wire, plain, clocks, facts, totals, unheard, repeat, repeats: 0, until }
    }

    /// A connection that ended before it was encrypted. `expects`: the next sequence numbers of the peer and of the local
    /// kernel, if that may take it for open.
    pub(crate) fn refused(link: Link, why: String, until: Instant, expects: Option<(u32, u32)>, now: Instant) -> Self {
        let (wire, totals, clocks, facts) = (Last::default(), (0, 0), None, None);
        let plain = expects.map_or_else(Last::default, |(seq, ack)| Last { seq, ack, window: 0 });
        let unheard = expects.is_some();
        let repeat = unheard.then(|| now + REPEAT_AFTER[0]);
        let why = Some(why);
        Self { link, why, reset: true, wire, plain, clocks, facts, totals, unheard, repeat, repeats: 0, until }
    }

    /// The local kernel has sent a RST with this number: if it is the one that it was told last, it knows.
    pub(crate) fn kernel_has_reset(&mut self, seq: u32) {
        if seq == self.plain.ack {
            (self.unheard, self.repeat) = (false, None);
        }
    }

    /// Whether the local kernel may not know yet that it is over.
    pub(crate) fn kernel_may_go_on(&self) -> bool {
        self.unheard
    }

    /// Whether it was over before either end took it for open.
    pub(crate) fn was_refused(&self) -> bool {
        self.facts.is_none() && !self.unheard
    }

    /// How long the local kernel may still send data of it, that must not get onto the wire, if it is forgotten at `now`.
    pub(crate) fn outlived_by(&self, config: &Config, now: Instant) -> Option<Duration> {
        if self.unheard {
            return Some(config.plain_idle_timeout);
        }
        let left = self.until.since(now);
        (self.facts.is_some() && !left.is_zero()).then_some(left)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.repeat.map_or(self.until, |at| at.min(self.until))
    }

    /// Repeats the RST if it is time; whether the connection can be forgotten.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> bool {
        if self.repeat.is_some_and(|at| at <= cx.now) {
            cx.counters.own_segments += 2;
            let Last { seq, ack, .. } = self.plain;
            self.link.reset(cx.env, Side::Plain, seq, ack);
            self.link.acknowledge(cx.env, Side::Plain, seq.wrapping_sub(1), ack, &[]);
            self.repeats += 1;
            self.repeat = REPEAT_AFTER.get(self.repeats).map(|pause| cx.now + *pause);
        }
        cx.now >= self.until
    }

    /// Answers a packet that is late: with a RST if the connection was reset (RFC 9293, section 3.10.7.1), else with
    /// the last acknowledgement if it carries something that wants one.
    pub(crate) fn answer<S>(&self, cx: &mut Context<'_>, side: Side, packet: &Segment<'_, S>) {
        if packet.flags.any(Flags::RST) {
            return;
        }
        let mut options = OptionBuf::default();
        let tcp = if self.reset {
            if !packet.flags.any(Flags::ACK) {
                return;
            }
            TcpFields { seq: packet.ack.0, ack: 0, flags: Flags::RST, window: 0, urgent: 0, options: &[] }
        } else {
            if packet.payload.is_empty() && !packet.flags.any(Flags::FIN) {
                return;
            }
            let Last { seq, ack, window } = match side {
                Side::Wire => self.wire,
                Side::Plain => self.plain,
            };
            if let Some(clocks) = self.clocks {
                let ts = if side == Side::Wire { clocks.to_wire() } else { clocks.to_plain() };
                let fits = options.push_timestamps(ts);
                debug_assert!(fits, "timestamps alone always fit");
            }
            TcpFields { seq, ack, flags: Flags::ACK, window, urgent: 0, options: options.padded() }
        };
        cx.counters.own_segments += 1;
        self.link.emit(cx.env, side, &tcp, &[], None);
    }

    pub(crate) fn describe(&self, info: &mut FlowInfo) {
        info.reason.clone_from(&self.why);
        (info.bytes_sent, info.bytes_received) = self.totals;
        if let Some(facts) = &self.facts {
            facts.describe(info);
        }
    }
}

impl Facts {
    fn describe(&self, info: &mut FlowInfo) {
        info.role = Some(self.role.letter());
        info.tep = Some(self.negotiated.tep.name());
        info.aead = self.aead.map(tcpcrypt::AeadId::name);
        (info.resumed, info.peer_confirmed) = (self.resumed, self.peer_confirmed);
        if let Some((own, peer)) = self.negotiated.options() {
            (info.self_gopt, info.peer_gopt) = (Some(own.global()), Some(peer.global()));
        }
        info.session_id = self.session_id.as_ref().map(ToString::to_string);
    }
}

impl Facts {
    /// What an application can ask about it, as soon as there is a session ID.
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        let id = self.session_id.as_ref()?;
        let (own, peer) = self.negotiated.options()?;
        let name = |role: Role| format!("{:02x}{id}", u8::from(role == Role::B));
        Some(FlowSession {
            local: key.local(),
            remote: key.remote(),
            session_id: id.to_string(),
            key_fingerprint: self.key_fingerprint?.to_string(),
            role: self.role.letter(),
            self_name: name(self.role),
            peer_name: name(self.role.other()),
            tep: self.negotiated.tep.name(),
            tep_byte: self.negotiated.tep_byte,
            aead: self.aead.map(tcpcrypt::AeadId::name),
            self_gopt: own.global(),
            peer_gopt: peer.global(),
            self_aware: own.aware(),
            peer_aware: peer.aware(),
            transcript: self.negotiated.transcript.iter().map(|byte| format!("{byte:02x}")).collect(),
            resumed: self.resumed,
            peer_confirmed: self.peer_confirmed,
            authenticated: false,
        })
    }
}

impl Encrypted {
    /// What is left of it when it is over.
    pub(crate) fn close(&mut self, reset: bool, why: Option<String>, now: Instant, linger: Duration) -> Closed {
        Closed::after(self, reset, why, now, linger)
    }

    /// Notes what a packet from `side` looks like.
    pub(crate) fn learn<S>(&mut self, side: Side, packet: &Segment<'_, S>) {
        self.link.learn(side, packet);
    }

    /// Whether a SYN of the local kernel with this number is the one this connection began with.
    pub(crate) fn is_syn_of(&self, isn: u32) -> bool {
        self.out.isn == isn
    }

    /// Fills in what there is to say.
    pub(crate) fn describe(&self, info: &mut FlowInfo) {
        // Whoever answers a SYN of this host's takes part; whoever sends one may repeat another's.
        let shown = self.facts.peer_confirmed || (self.active && self.is_ready());
        info.state = if shown { FlowState::Encrypted } else { FlowState::Negotiating };
        self.facts.describe(info);
        if let super::encrypted::Stage::Ready(record) = &self.stage {
            info.generation_local = Some(record.local_generation());
            info.generation_remote = Some(record.remote_generation());
        }
        (info.bytes_sent, info.bytes_received) = self.totals();
    }

    fn totals(&self) -> (u64, u64) {
        (self.out.total, self.inn.total)
    }

    /// What the last acknowledgements say, towards the wire and towards the local kernel.
    fn final_fields(&mut self) -> (Last, Last) {
        let (seq, (ack, window)) = (self.out.acceptable_seq().0, self.inn.announce());
        let wire = Last { seq, ack, window };
        let (seq, (ack, window)) = (self.inn.delivered.seq(self.inn.isn).0, self.out.tell());
        (wire, Last { seq, ack, window })
    }
}
