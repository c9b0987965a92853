//! Segments that belong to no known connection. Unknown does not mean "from before": connections that were open when
//! a selector took effect are listed once, and are known from then on. Of the rest, policy `required` refuses all,
//! and what began with ENO is refused in any case: passed on, it would be plain.

use std::net::SocketAddr;
use std::time::Duration;

use super::state::Engine;
use super::unknown::ask;
use crate::flow::{Env, Flow, Link, PlainFlow, Side, pass_on};
use crate::selector::{Policy, PolicyTable};
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{self, kind};
use crate::wire::{Flags, FlowKey, Segment};

/// For this long after an opening may have been evicted, the kernel may still answer its SYN.
const ANSWERED_WITHIN: Duration = Duration::from_secs(128);
/// When, after recovery, the ends of a dead instance's connections are queried.
const ASK_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(700), Duration::from_secs(3)];

impl Engine {
    /// First of two steps to change the policy: connections that were open before are not known yet, and until
    /// [`Self::admit`] lists them, unknown segments are dropped (and retransmitted) where policy `required` would
    /// refuse them.
    pub fn change_policy(&mut self, policy: PolicyTable) {
        let before = std::mem::replace(&mut self.policy, policy);
        self.unknown.before.get_or_insert(before);
    }

    /// Second step: those of the connections `open`, by local and remote address, that are selected now but were not
    /// when they began continue unchanged. From now on everything else that is unknown is judged by its policy.
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

    /// Refuses the connections `open`, by local and remote address: a dead instance may have encrypted them. Both
    /// ends are queried, so that they learn of it even if they are silent.
    pub fn refuse(&mut self, now: Instant, open: &[(SocketAddr, SocketAddr)]) {
        let keys = open.iter().map(|(local, remote)| FlowKey::new(*local, *remote));
        let keys: Vec<FlowKey> = keys.filter(|key| self.table.get(key).is_none()).collect();
        for key in &keys {
            self.unknown.tombstones.insert(
                now,
                *key,
                self.config.plain_idle_timeout,
                self.config.max_flows.max(keys.len()),
            );
        }
        // At most one of these numbers can be inside a window.
        for (after, seq) in ASK_AFTER.into_iter().zip([0, 1 << 30, 2 << 30]) {
            self.unknown.questions.extend(keys.iter().map(|key| (now + after, seq, *key)));
        }
        // Its openings are not listed. They count as evicted.
        self.table.forgot_opening = Some(now);
    }

    /// Handles a non-SYN segment of an unknown connection.
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
        let forgotten = answers && self.forgot_opening_lately(now);
        // ENO-12: this host began it with ENO, and has evicted it. It must not become plain TCP.
        let began_here = side == Side::Wire
            && !packet.flags.any(Flags::RST)
            && (forgotten || !answers)
            && options::walk(packet.options()).any(|(kind, _)| kind == kind::ENO);
        let refused = match policy {
            Policy::Required => true,
            _ => began_here || (forgotten && side == Side::Plain),
        };
        if !refused {
            self.counters.unknown_passed += 1;
            return pass_on(env, side, packet);
        }
        self.counters.unknown_refused += 1;
        // A SYN whose answer is dropped is retransmitted, and is then a new one. So is a segment of a connection that
        // is being listed.
        let waits = (forgotten && side == Side::Plain) || (self.unknown.before.is_some() && !began_here);
        if waits {
            return;
        }
        let told = self.refuse_segment(now, side, key, packet, env);
        if !told || policy != Policy::Required {
            return;
        }
        // The other end may wait for something that never comes.
        if answers && !forgotten {
            // Its SYN took another path, and is retransmitted in vain.
            self.counters.own_segments += 1;
            Link::new(key).reset(env, side.other(), packet.seq.0.wrapping_add(1), packet.ack.0);
        } else if packet.payload_len() > 0 {
            // Its numbers are not known here: if another gateway encrypted it, they differ between the sides.
            self.counters.own_segments += 1;
            ask(env, side.other(), key, packet.seq.0 ^ 1 << 31);
        }
    }

    fn forgot_opening_lately(&self, now: Instant) -> bool {
        self.table.forgot_opening.is_some_and(|at| now.since(at) < ANSWERED_WITHIN)
    }

    /// Answers a packet of a connection that is over here, or may have been encrypted by a dead instance.
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

    /// Answers like a host that has no such connection (RFC 9293, section 3.10.7.1); false: such a segment is not
    /// answered, or too many were.
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
