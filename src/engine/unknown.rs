//! Segments that belong to no connection that is known. What is unknown is not "from before": what was open when a selector took
//! effect is listed once, and is known from then on. Of the rest, policy `required` refuses all, and what began with ENO is refused
//! in any case: passed on, it would be plain.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::orphans::Orphans;
use super::{Config, Engine, Env, Side};
use crate::flow::{Flow, FlowKey, Link, PlainFlow, pass_on};
use crate::selector::{Policy, PolicyTable};
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{self, kind};
use crate::wire::{Flags, Segment};

/// While an opening may have been forgotten so lately that the kernel still answers its SYN.
const ANSWERED_WITHIN: Duration = Duration::from_secs(128);
/// RSTs sent to refuse what is unknown: so many at once, and in each second.
const RESETS: u64 = 1000;
/// When the ends of a connection of an instance that died are asked for it, after recovery.
const ASK_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(700), Duration::from_secs(3)];
/// Both ends of so many are asked in one go, and that often.
const ASK_AT_ONCE: usize = 500;
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What is known of connections that are not in the table.
#[derive(Default)]
pub(super) struct Unknown {
    orphans: Orphans,
    /// What was selected before, while connections that were open then are being listed.
    before: Option<PolicyTable>,
    questions: VecDeque<(Instant, u32, FlowKey)>,
    resets: Allowance,
}

/// How many RSTs may be sent.
#[derive(Debug, Default)]
struct Allowance {
    used: u64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
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

/// Asks an end of a connection for its numbers: with an acknowledgement that it does not take, as `seq` is far from where it is. It
/// answers (RFC 9293, section 3.10.7.4), and that is refused with a RST it believes.
fn ask(env: &mut dyn Env, side: Side, key: FlowKey, seq: u32) {
    // No choice of whoever sends what is refused: this must not be the acknowledgement of a SYN cookie.
    let tcp = TcpFields { seq, ack: 0, flags: Flags::ACK, window: u16::MAX, urgent: 0, options: &[] };
    Link::new(key).emit(env, side, &tcp, &[], None);
}

impl Unknown {
    /// Whether this connection is over here, and perhaps not for the local kernel.
    pub(super) fn is_over(&self, key: &FlowKey) -> bool {
        self.orphans.has(key)
    }

    /// All of those.
    pub(super) fn over(&self) -> impl Iterator<Item = &FlowKey> {
        self.orphans.keys()
    }

    /// The local kernel may go on with a connection for `time` after it was forgotten here.
    pub(super) fn outlives(&mut self, now: Instant, key: FlowKey, time: Duration, config: &Config) {
        self.orphans.insert(now, key, time, config.max_flows);
    }

    /// The local kernel has shown that it has no such connection any more.
    pub(super) fn kernel_has_none(&mut self, key: &FlowKey) {
        self.orphans.remove(key);
    }

    /// How many of them were forgotten to make room since this was last asked.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.orphans.forgotten)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.questions.front().map(|(at, ..)| *at)
    }

    /// Asks the ends of connections that an instance that died may have encrypted.
    pub(super) fn handle_timeout(&mut self, now: Instant, env: &mut dyn Env) {
        self.orphans.expire(now);
        for _ in 0..ASK_AT_ONCE {
            match self.questions.front() {
                Some((at, ..)) if *at <= now => {}
                _ => return,
            }
            let Some((_, seq, key)) = self.questions.pop_front() else { return };
            if self.orphans.has(&key) {
                for side in [Side::Wire, Side::Plain] {
                    ask(env, side, key, seq);
                }
            }
        }
        let later = now + ASK_AGAIN;
        self.questions.iter_mut().take_while(|(at, ..)| *at < later).for_each(|(at, ..)| *at = later);
    }
}

impl Engine {
    /// Sets what is protected from now on, in the first of two steps: what was open before is not known yet, and until
    /// [`Self::admit`] names it unknown segments wait (they are sent again) where policy `required` would refuse them.
    pub fn change_policy(&mut self, policy: PolicyTable) {
        let before = std::mem::replace(&mut self.policy, policy);
        self.unknown.before.get_or_insert(before);
    }

    /// The second step: of the connections `open`, by local and remote address, those that are selected now, and were not
    /// when they began, go on as they are. What is unknown besides is judged by its policy from now on.
    pub fn admit(&mut self, now: Instant, open: &[(SocketAddr, SocketAddr)]) {
        let Some(before) = self.unknown.before.take() else { return };
        let policy = |table: &PolicyTable, local: &SocketAddr, remote: &SocketAddr| {
            table.lookup(remote.ip(), remote.port(), local.port()).map_or(Policy::Off, |rule| rule.policy)
        };
        for (local, remote) in open {
            let key = FlowKey::new(*local, *remote);
            let (then, now_is) = (policy(&before, local, remote), policy(&self.policy, local, remote));
            let newly = now_is != Policy::Off && now_is != then && then != Policy::Required;
            if newly && self.table.get(&key).is_none() && !self.unknown.is_over(&key) {
                self.table.insert(key, Flow::Plain(Box::new(PlainFlow::pre_existing(&self.config, now))));
                self.table.settle(&key);
            }
        }
    }

    /// Refuses the connections `open`, by local and remote address: an instance that died may have encrypted them. Both ends are
    /// asked for them, so that they learn of it even if they are silent.
    pub fn refuse(&mut self, now: Instant, open: &[(SocketAddr, SocketAddr)]) {
        let keys = open.iter().map(|(local, remote)| FlowKey::new(*local, *remote));
        let keys: Vec<FlowKey> = keys.filter(|key| self.table.get(key).is_none()).collect();
        for key in &keys {
            self.unknown.orphans.insert(
                now,
                *key,
                self.config.plain_idle_timeout,
                self.config.max_flows.max(keys.len()),
            );
        }
        // At most one of these numbers can lie in a window.
        for (after, seq) in ASK_AFTER.into_iter().zip([0, 1 << 30, 2 << 30]) {
            self.unknown.questions.extend(keys.iter().map(|key| (now + after, seq, *key)));
        }
    }

    /// Deals with a segment, no SYN, of a connection that is not known.
    pub(super) fn handle_unknown<S>(
        &mut self,
        now: Instant,
        side: Side,
        key: FlowKey,
        policy: Policy,
        packet: &Segment<'_, S>,
        env: &mut dyn Env,
    ) {
        if self.unknown.is_over(&key) {
            return self.refuse_orphan(now, side, key, packet, env);
        }
        if policy == Policy::Off {
            self.counters.passed_through += 1;
            return pass_on(env, side, packet);
        }
        let answers = packet.flags.any(Flags::SYN);
        // ENO-12: one that this host has begun with ENO, and has forgotten. Plain TCP it must not become.
        let began_here = side == Side::Wire
            && !packet.flags.any(Flags::RST)
            && options::walk(packet.options()).any(|(kind, _)| kind == kind::ENO);
        let refused = match policy {
            Policy::Required => true,
            _ => began_here || (answers && side == Side::Plain && self.forgot_opening_lately(now)),
        };
        if !refused {
            self.counters.unknown_passed += 1;
            return pass_on(env, side, packet);
        }
        self.counters.unknown_refused += 1;
        let forgotten = answers && self.forgot_opening_lately(now);
        // A SYN whose answer is dropped is sent again, and is a new one then. So is a segment of a connection that is being listed.
        let waits = (forgotten && side == Side::Plain) || (self.unknown.before.is_some() && !began_here);
        if waits {
            return;
        }
        let told = self.refuse_segment(now, side, key, packet, env);
        if !told || policy != Policy::Required {
            return;
        }
        // The other end may wait for what never comes.
        if answers && !forgotten {
            // Its SYN took another way than by this host, and comes again in vain.
            self.counters.own_segments += 1;
            Link::new(key).reset(env, side.other(), packet.seq.0.wrapping_add(1), packet.ack.0);
        } else if packet.payload_len() > 0 {
            // Its numbers are not known here: what another gateway has encrypted has others on each side.
            self.counters.own_segments += 1;
            ask(env, side.other(), key, packet.seq.0 ^ 1 << 31);
        }
    }

    fn forgot_opening_lately(&self, now: Instant) -> bool {
        self.table.forgot_opening.is_some_and(|at| now.since(at) < ANSWERED_WITHIN)
    }

    /// Answers a packet of a connection that is over here, or may have been encrypted by an instance that died.
    pub(super) fn refuse_orphan<S>(
        &mut self,
        now: Instant,
        side: Side,
        key: FlowKey,
        packet: &Segment<'_, S>,
        env: &mut dyn Env,
    ) {
        self.counters.orphans_refused += 1;
        let _ = self.refuse_segment(now, side, key, packet, env);
    }

    /// Answers as a host that has no such connection (RFC 9293, section 3.10.7.1); false: there is no answer to that, or too many were
    /// given.
    fn refuse_segment<S>(
        &mut self,
        now: Instant,
        side: Side,
        key: FlowKey,
        packet: &Segment<'_, S>,
        env: &mut dyn Env,
    ) -> bool {
        if packet.flags.any(Flags::RST) || !packet.flags.any(Flags::ACK) {
            return false;
        }
        if !self.unknown.resets.take(now) {
            self.counters.resets_withheld += 1;
            return false;
        }
        self.counters.own_segments += 1;
        let tcp = TcpFields { seq: packet.ack.0, ack: 0, flags: Flags::RST, window: 0, urgent: 0, options: &[] };
        Link::new(key).emit(env, side, &tcp, &[], None);
        true
    }
}
