//! Which connection a packet belongs to: a known one, a new one, or none.

use super::state::{Engine, context};
use super::table::Class;
use crate::flow::{Context, Env, Flow, Link, Opening, Rules, Side, pass_on};
use crate::selector::{Policy, RuleOptions};
use crate::time::Instant;
use crate::wire::{Flags, FlowKey, Segment};

/// Whether a packet belongs to the known connection with its addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belongs {
    Yes,
    /// It begins a new connection, or belongs to an older one: the known one is over.
    No,
    /// It shows that the known connection is over, and must be dropped.
    Overtaken,
}

impl Belongs {
    fn when(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// A SYN is either a retransmission or a new connection with the same addresses and ports. From the wire it may
    /// be forged: as long as a connection has not ended, only the local kernel decides which it is (RFC 5961, section
    /// 4.2). A connection that has ended does not affect a SYN and its answer.
    fn judge<S>(flow: &Flow, side: Side, packet: &Segment<'_, S>) -> Self {
        let opens = packet.flags.any(Flags::SYN) && !packet.flags.any(Flags::ACK);
        match flow {
            // The kernel no longer knew the connection. The peer retransmits its SYN, and gets another answer.
            Flow::Plain(plain) if side == Side::Plain && plain.is_answered_anew(packet) => Self::Overtaken,
            _ if !opens => Self::Yes,
            // The local kernel's SYN may follow the peer's: then it is a simultaneous open, and the pending answer is
            // obsolete.
            Flow::Opening(opening) => {
                let same = opening.isn().is_none_or(|isn| isn == packet.seq.0);
                Self::when(side == Side::Wire || (opening.is_active() && same))
            }
            Flow::Plain(plain) => match (side, plain.isns()) {
                (Side::Plain, [local, _]) => Self::when(local == Some(packet.seq.0)),
                (Side::Wire, [_, peer]) => Self::when(peer == Some(packet.seq.0) || !plain.has_ended()),
            },
            Flow::Encrypted(encrypted) => Self::when(side == Side::Wire || encrypted.is_syn_of(packet.seq.0)),
            Flow::Closed(_) => Self::No,
        }
    }
}

impl Engine {
    /// Finds or creates the flow. False: the packet was handled here.
    pub(super) fn find_or_open<S>(
        &mut self,
        now: Instant,
        side: Side,
        key: FlowKey,
        packet: &Segment<'_, S>,
        env: &mut dyn Env,
    ) -> bool {
        if side == Side::Plain && self.unknown.is_over(&key) {
            if packet.flags.any(Flags::SYN.with(Flags::RST)) {
                self.unknown.kernel_has_none(&key);
            } else {
                self.refuse_orphan(now, side, key, packet, env);
            }
            if !packet.flags.any(Flags::SYN) {
                return false;
            }
        }
        let belongs = self.table.get(&key).map(|flow| Belongs::judge(flow, side, packet));
        if belongs == Some(Belongs::Yes) {
            return true;
        }
        let opens = packet.flags.any(Flags::SYN) && !packet.flags.any(Flags::ACK);
        if side == Side::Plain && opens {
            // The kernel has no other connection there than the one it is opening.
            self.table.remove(&key);
        } else {
            self.remove(now, &key);
        }
        if belongs == Some(Belongs::Overtaken) {
            // The answer is retransmitted, perhaps before the SYN is.
            self.table.forgot_opening = Some(now);
            return false;
        }
        let rules = self.rules(side, &key);
        if !opens {
            self.handle_unknown(now, side, key, rules.policy, packet, env);
            return false;
        }
        if rules.policy == Policy::Off {
            self.counters.passed_through += 1;
            pass_on(env, side, packet);
            return false;
        }
        if self.table.count(Class::Encrypted) >= self.config.max_flows {
            // Like a kernel whose queue is full: the SYN is retransmitted, and finds room or is given up. It never
            // becomes plain because of this.
            self.counters.limit_flows += 1;
            return false;
        }
        let opening = Opening::new(&context!(self, now, &mut *env), Link::new(key), rules, side);
        self.table.insert(key, Flow::Opening(Box::new(opening)));
        self.table.settle(&key);
        let class = if side == Side::Plain { Class::Outward } else { Class::Inward };
        self.make_room(now, class, key, env);
        true
    }

    /// The options for a connection that begins with a packet from `side`.
    fn rules(&self, side: Side, key: &FlowKey) -> Rules {
        let rule = self.policy.lookup(key.remote().ip(), key.remote().port(), key.local().port());
        let none = Rules { policy: Policy::Off, options: RuleOptions::default(), probe: None };
        let rules = rule.map_or(none, |rule| Rules { policy: rule.policy, options: rule.options, probe: None });
        match self.probes.get(key) {
            Some(probe) if side == Side::Plain => Rules {
                policy: Policy::Opportunistic,
                options: RuleOptions { no_resume: true, ..rules.options },
                probe: Some(probe.mode),
            },
            _ => rules,
        }
    }
}
