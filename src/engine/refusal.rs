//! Segments that belong to no connection that is known. What is unknown is not "from before": what was open when a selector took
//! effect is listed once, and is known from then on. Of the rest, policy `required` refuses all, and what began with ENO is refused
//! in any case: passed on, it would be plain.

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

/// While an opening may have been forgotten so lately that the kernel still answers its SYN.
const ANSWERED_WITHIN: Duration = Duration::from_secs(128);
/// When the ends of a connection of an instance that died are asked for it, after recovery.
const ASK_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(700), Duration::from_secs(3)];

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
        // Openings of its are not listed.
        self.table.forgot_opening = Some(now);
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
        // At most one of these numbers can lie in a window.
        for (after, seq) in ASK_AFTER.into_iter().zip([0, 1 << 30, 2 << 30]) {
            self.unknown.questions.extend(keys.iter().map(|key| (now + after, seq, *key)));
        }
        // What it had begun to open is forgotten, too.
        self.table.forgot_opening = Some(now);
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
        let forgotten = answers && self.forgot_opening_lately(now);
        // ENO-12: one that this host has begun with ENO, and has forgotten. Plain TCP it must not become.
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
