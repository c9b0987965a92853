//! Which connection a packet belongs to: one that is known, a new one, or none.

use super::{Engine, Entry, Env, Side};
use crate::flow::{Cx, Flow, FlowKey, Link, Opening, Rules, pass_on};
use crate::selector::{Policy, RuleOptions};
use crate::time::Instant;
use crate::wire::{Flags, Offload, Packet};

impl Engine {
    /// Finds the connection of a packet or opens one. False: there is none, and the packet has been dealt with here.
    #[expect(clippy::too_many_arguments, reason = "all of them describe one packet")]
    pub(super) fn find_or_open<S>(
        &mut self,
        now: Instant,
        side: Side,
        key: FlowKey,
        packet: &Packet<S>,
        offload: Offload,
        bytes: &[u8],
        env: &mut dyn Env,
    ) -> bool {
        let opens = packet.flags.any(Flags::SYN) && !packet.flags.any(Flags::ACK);
        if side == Side::Plain && self.orphans.has(&key) {
            if packet.flags.any(Flags::SYN.with(Flags::RST)) {
                self.orphans.remove(&key);
            } else {
                self.refuse_orphan(side, key, packet, env);
            }
            if !packet.flags.any(Flags::SYN) {
                return false;
            }
        }
        let known = match self.flows.get(&key).map(|entry| &entry.flow) {
            None => false,
            // The kernel did not know the connection any more. The peer sends its SYN again, and gets another answer.
            Some(Flow::Plain(plain)) if side == Side::Plain && plain.is_answered_anew(packet) => {
                self.remove(now, &key);
                return false;
            }
            Some(_) if !opens => true,
            // A SYN is a retransmission, or a new connection on the same addresses and ports. On an encrypted connection
            // only the local kernel is believed (RFC 5961, section 4.2).
            // The local kernel's SYN may come behind the peer's: then both open, and what was to be answered is not.
            Some(Flow::Opening(opening)) => {
                let same = opening.isn().is_none_or(|isn| isn == packet.seq.0);
                side == Side::Wire || (opening.is_active() && same)
            }
            // One from the wire is for the kernel to judge as long as the connection has not ended: it may be forged.
            Some(Flow::Plain(plain)) => match (side, plain.isns) {
                (Side::Plain, [local, _]) => local == Some(packet.seq.0),
                (Side::Wire, [_, peer]) => peer == Some(packet.seq.0) || !plain.has_ended(),
            },
            Some(Flow::Encrypted(encrypted)) => side == Side::Wire || encrypted.is_syn_of(packet.seq.0),
            Some(Flow::Closed(_)) => false,
        };
        if known {
            return true;
        }
        self.remove(now, &key);
        let rule = self.policy.lookup(key.remote().ip(), key.remote().port(), key.local().port());
        let none = Rules { policy: Policy::Off, options: RuleOptions::default(), probe: None };
        let rules = rule.map_or(none, |rule| Rules { policy: rule.policy, options: rule.options, probe: None });
        let rules = match self.probes.get(&key) {
            Some(probe) if side == Side::Plain => Rules {
                policy: Policy::Opportunistic,
                options: RuleOptions { no_resume: true, ..rules.options },
                probe: Some(probe.mode),
            },
            _ => rules,
        };
        let policy = rules.policy;
        if !opens || policy == Policy::Off {
            let refused = self.config.refuse_unknown && policy != Policy::Off;
            if (refused || self.orphans.has(&key)) && !opens {
                self.refuse_orphan(side, key, packet, env);
            } else if packet.flags.any(Flags::SYN) && !opens && policy == Policy::Required {
                // The answer to a SYN that is not known any more, or was sent before enotun was there. With it the connection
                // would be plain; without it both ends send their SYNs again.
                self.counters.connections_refused += 1;
            } else {
                self.counters.passed_through += 1;
                pass_on(env, side, packet, offload, bytes);
            }
            return false;
        }
        let full = self.flows.len() >= self.config.max_flows;
        let crowded = self.half_open >= self.config.max_half_open;
        if full || crowded {
            *(if full { &mut self.counters.limit_flows } else { &mut self.counters.limit_half_open }) += 1;
            if policy != Policy::Required {
                self.counters.passed_through += 1;
                pass_on(env, side, packet, offload, bytes);
            }
            return false;
        }
        let cx = Cx {
            now,
            env,
            config: &self.config,
            counters: &mut self.counters,
            provider: self.provider,
            sessions: &mut self.sessions,
            paths: &mut self.paths,
            tight: false,
            scratch: &mut self.scratch,
            pool: &mut self.pool,
        };
        let opening = Opening::new(&cx, Link::new(key), rules, side == Side::Plain);
        self.half_open += 1;
        self.flows.insert(key, Entry { flow: Flow::Opening(Box::new(opening)), armed: None, held: 0 });
        true
    }

    /// Answers a packet of a connection that may have been encrypted by an instance that died.
    fn refuse_orphan<S>(&mut self, side: Side, key: FlowKey, packet: &Packet<S>, env: &mut dyn Env) {
        self.counters.orphans_refused += 1;
        if packet.flags.any(Flags::ACK) && !packet.flags.any(Flags::RST) {
            Link::new(key).reset(env, side, packet.ack.0, packet.seq.0);
        }
    }
}
