//! What is known of connections that are not in the table.

use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::{Config, Env, Link, Side};
use crate::selector::PolicyTable;
use crate::store::Tombstones;
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::{Flags, FlowKey};

/// RSTs that refuse unknown segments: burst, and rate per second.
const RESETS: u64 = 1000;
/// Connections whose ends are queried in one go, and the interval.
const ASK_AT_ONCE: usize = 500;
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What is known of connections that are not in the table.
#[derive(Default)]
pub(super) struct Unknown {
    pub(super) tombstones: Tombstones,
    /// The previous policy, while connections that were open under it are being listed.
    pub(super) before: Option<PolicyTable>,
    pub(super) questions: VecDeque<(Instant, u32, FlowKey)>,
    pub(super) resets: Allowance,
}

/// RSTs that may still be sent.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    used: u64,
    at: Instant,
}

impl Allowance {
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let regained = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX) / (1_000_000 / RESETS);
        if regained > 0 {
            self.used = self.used.saturating_sub(regained);
            self.at = now;
        }
        let allowed = self.used < RESETS;
        self.used += u64::from(allowed);
        allowed
    }
}

/// Queries an end of a connection for its numbers, with an acknowledgement that it does not accept, because `seq` is
/// far from its position. It answers (RFC 9293, section 3.10.7.4), and that is refused with a RST it accepts.
pub(super) fn ask(env: &mut dyn Env, side: Side, key: FlowKey, seq: u32) {
    // Not under the control of whoever sends what is refused: this must not be the acknowledgement of a SYN cookie.
    let tcp = TcpFields { seq, ack: 0, flags: Flags::ACK, window: u16::MAX, urgent: 0, options: &[] };
    Link::new(key).emit(env, side, &tcp, &[], None);
}

impl Unknown {
    /// Whether this connection is over here, and perhaps not for the local kernel.
    pub(super) fn is_over(&self, key: &FlowKey) -> bool {
        self.tombstones.has(key)
    }

    /// All of those.
    pub(super) fn over(&self) -> impl Iterator<Item = &FlowKey> {
        self.tombstones.keys()
    }

    /// The local kernel may continue with a connection for `time` after it was forgotten here.
    pub(super) fn outlives(&mut self, now: Instant, key: FlowKey, time: Duration, config: &Config) {
        self.tombstones.insert(now, key, time, config.max_flows);
    }

    /// The local kernel has shown that it no longer has such a connection.
    pub(super) fn kernel_has_none(&mut self, key: &FlowKey) {
        self.tombstones.remove(key);
    }

    /// Number of them forgotten to make room since the last call.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.tombstones.forgotten)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.questions.front().map(|(at, ..)| *at)
    }

    /// Queries the ends of connections that a dead instance may have encrypted.
    pub(super) fn handle_timeout(&mut self, now: Instant, env: &mut dyn Env) {
        self.tombstones.expire(now);
        for _ in 0..ASK_AT_ONCE {
            match self.questions.front() {
                Some((at, ..)) if *at <= now => {}
                _ => return,
            }
            let Some((_, seq, key)) = self.questions.pop_front() else { return };
            if self.tombstones.has(&key) {
                for side in [Side::Wire, Side::Plain] {
                    ask(env, side, key, seq);
                }
            }
        }
        let later = now + ASK_AGAIN;
        self.questions.iter_mut().take_while(|(at, ..)| *at < later).for_each(|(at, ..)| *at = later);
    }
}
