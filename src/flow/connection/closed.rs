//! A connection that is over, remembered for a while to answer stragglers with numbers they understand.

use std::time::Duration;

use super::facts::Facts;
use crate::flow::clocks::Clocks;
use crate::flow::config::Config;
use crate::flow::context::Context;
use crate::flow::env::Side;
use crate::flow::info::{FlowInfo, FlowSession};
use crate::flow::link::Link;
use crate::time::Instant;
use crate::wire::FlowKey;
use crate::wire::build::TcpFields;
use crate::wire::options::OptionBuf;
use crate::wire::{Flags, Segment};

/// The fields of the last acknowledgement towards one side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
}

/// What remains of an encrypted connection.
pub(super) struct Remains {
    pub(super) link: Link,
    /// What the last acknowledgement towards the wire says.
    pub(super) wire: Last,
    /// The same towards the local kernel.
    pub(super) plain: Last,
    pub(super) clocks: Option<Clocks>,
    pub(super) facts: Facts,
    /// P bytes sent and received.
    pub(super) totals: (u64, u64),
    /// How long the kernel may retransmit its plaintext.
    pub(super) repeats_within: Duration,
}

/// How a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Done,
    /// By a RST from that side.
    Reset(Side),
    /// By a RST of this host.
    Aborted(String),
}

/// What remains of a connection.
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
    facts: Option<Facts>,
    totals: (u64, u64),
    /// The local kernel was told of the end by a RST, which it may have missed.
    reset_unconfirmed: bool,
    /// When the RST to it is repeated, and how often it was.
    repeat: Option<Instant>,
    repeats: usize,
    until: Instant,
}

/// A kernel that has missed the RST of an aborted connection takes it for open and would send its plaintext later: the RST is
/// repeated, so long after the one before, and with it a segment that a kernel without the connection answers with a RST.
const REPEAT_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

impl Closed {
    /// What is left of a connection that was encrypted.
    pub(super) fn after(left: Remains, end: End, now: Instant, linger: Duration) -> Self {
        let Remains { link, wire, plain, clocks, facts, totals, repeats_within } = left;
        let (reset, reset_unconfirmed) = (end != End::Done, !matches!(end, End::Done | End::Reset(Side::Plain)));
        let why = match end {
            End::Done => None,
            End::Reset(_) => Some("reset".to_owned()),
            End::Aborted(why) => Some(why),
        };
        let repeat = reset_unconfirmed.then(|| now + REPEAT_AFTER[0]);
        // The kernel may have missed the last acknowledgement. While it can send its plaintext again, it is answered from here.
        let until = now + linger.max(repeats_within);
        Self {
            link,
            why,
            reset,
            wire,
            plain,
            clocks,
            facts: Some(facts),
            totals,
            reset_unconfirmed,
            repeat,
            repeats: 0,
            until,
        }
    }

    /// A connection that ended before it was encrypted. `expects`: the next sequence numbers of the peer and of the local
    /// kernel, if that may take it for open.
    pub(crate) fn refused(link: Link, why: String, until: Instant, expects: Option<(u32, u32)>, now: Instant) -> Self {
        let (wire, totals, clocks, facts) = (Last::default(), (0, 0), None, None);
        let plain = expects.map_or_else(Last::default, |(seq, ack)| Last { seq, ack, window: 0 });
        let reset_unconfirmed = expects.is_some();
        let repeat = reset_unconfirmed.then(|| now + REPEAT_AFTER[0]);
        let why = Some(why);
        Self {
            link,
            why,
            reset: true,
            wire,
            plain,
            clocks,
            facts,
            totals,
            reset_unconfirmed,
            repeat,
            repeats: 0,
            until,
        }
    }

    /// The local kernel has sent a RST with this number: if it is the one that it was told last, it knows.
    pub(crate) fn kernel_has_reset(&mut self, seq: u32) {
        if seq == self.plain.ack {
            (self.reset_unconfirmed, self.repeat) = (false, None);
        }
    }

    /// Whether the local kernel may not know yet that it is over.
    pub(crate) fn kernel_may_go_on(&self) -> bool {
        self.reset_unconfirmed
    }

    /// Whether it was over before either end took it for open.
    pub(crate) fn was_refused(&self) -> bool {
        self.facts.is_none() && !self.reset_unconfirmed
    }

    /// How long the local kernel may still send data of it, that must not get onto the wire, if it is forgotten at `now`.
    pub(crate) fn outlived_by(&self, config: &Config, now: Instant) -> Option<Duration> {
        if self.reset_unconfirmed {
            return Some(config.plain_idle_timeout);
        }
        let left = self.until.since(now);
        (self.facts.is_some() && !left.is_zero()).then_some(left)
    }

    /// When [`Self::handle_timeout`] should be called.
    pub(crate) fn poll_timeout(&self) -> Instant {
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

    /// Answers a late packet: with a RST if the connection was reset (RFC 9293, section 3.10.7.1), otherwise with the
    /// last acknowledgement if the packet requires one.
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
    /// What an application can ask about it, if it was encrypted (ENO-19).
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        self.facts.as_ref()?.session(key)
    }
}
