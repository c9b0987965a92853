//! The path of a packet: which connection it belongs to, what that makes of it, where it goes.

use super::state::Engine;
use crate::flow::{Env, Flow, Side};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::packet::NotTcp;
use crate::wire::{C, Flags, FlowKey, Offload, P, Segment};

impl Engine {
    /// Processes a packet that was read on `side`. Resulting packets go out through `env` before this returns.
    /// `bytes` may be modified (frames are opened in place).
    pub fn handle_packet(&mut self, now: Instant, side: Side, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.take(now, side, offload, bytes, env));
    }

    fn take(&mut self, now: Instant, side: Side, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        match side {
            Side::Plain => {
                self.counters.packets_plain += 1;
                match Segment::<P>::parse(offload, bytes) {
                    Ok(packet) => self.from_kernel(now, &packet, env),
                    Err(why) => self.not_tcp(now, side, why, offload, bytes, env),
                }
            }
            Side::Wire => {
                self.counters.packets_wire += 1;
                match Segment::<C>::parse(offload, bytes) {
                    Ok(mut packet) => self.from_wire(now, &mut packet, env),
                    Err(why) => self.not_tcp(now, side, why, offload, bytes, env),
                }
            }
        }
    }

    fn not_tcp(&mut self, now: Instant, side: Side, why: NotTcp, offload: Offload, bytes: &[u8], env: &mut dyn Env) {
        match why {
            NotTcp::OtherProtocol => {
                if let Some(translated) = self.translate_icmp(now, side, bytes) {
                    if let Some(packet) = translated {
                        env.forward(side.other(), Offload::NONE, &packet);
                    }
                    return;
                }
                self.counters.passed_through += 1;
                env.forward(side.other(), offload, bytes);
            }
            // Its connection cannot be determined, and may be an encrypted one.
            NotTcp::Fragment => self.counters.fragments += 1,
            NotTcp::Malformed => self.counters.malformed += 1,
        }
    }

    /// An ICMP error about an encrypted connection, translated; `Some(None)` if it must be dropped. `None`: `bytes`
    /// are something else.
    fn translate_icmp(&mut self, now: Instant, side: Side, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let error = IcmpError::parse(bytes)?;
        // It quotes a segment that went in the other direction.
        let key = match side {
            Side::Wire => FlowKey::new(error.src, error.dst),
            Side::Plain => FlowKey::new(error.dst, error.src),
        };
        if !error.checksum_is_right(bytes) {
            // The receiver verifies what passes unchanged.
            let passes = matches!(self.table.get(&key), None | Some(Flow::Plain(_)));
            if passes && !self.unknown.is_over(&key) {
                return None;
            }
            self.counters.bad_checksum += 1;
            return Some(None);
        }
        if self.probe_quoted(side, key, &error, bytes) {
            return Some(None);
        }
        let translated = match self.table.get_mut(&key) {
            Some(Flow::Encrypted(encrypted)) => match side {
                Side::Wire => encrypted.icmp_from_wire(now, &error, bytes),
                Side::Plain => encrypted.icmp_from_plain(&error, bytes),
            },
            // The connection is over, and the quote may be its plaintext.
            Some(Flow::Closed(_)) => None,
            None if self.unknown.is_over(&key) => None,
            Some(Flow::Opening(_) | Flow::Plain(_)) | None => return None,
        };
        *(if translated.is_some() { &mut self.counters.icmp_translated } else { &mut self.counters.icmp_dropped }) += 1;
        Some(translated)
    }

    fn from_kernel(&mut self, now: Instant, packet: &Segment<'_, P>, env: &mut dyn Env) {
        let key = FlowKey::new(packet.src, packet.dst);
        if !self.checksum_ok(key, packet) || !self.find_or_open(now, Side::Plain, key, packet, env) {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            probe.from_kernel(now, packet);
        }
        self.with_flow(now, key, env, |cx, flow| flow.from_kernel(cx, key, packet));
        if packet.flags.any(Flags::RST) {
            self.heard(key, packet.seq.0);
        }
    }

    /// The kernel itself says that a connection is over.
    fn heard(&mut self, key: FlowKey, seq: u32) {
        if let Some(Flow::Closed(closed)) = self.table.get_mut(&key) {
            closed.kernel_has_reset(seq);
        }
    }

    fn from_wire(&mut self, now: Instant, packet: &mut Segment<'_, C>, env: &mut dyn Env) {
        let key = FlowKey::new(packet.dst, packet.src);
        if !self.checksum_ok(key, packet) || !self.find_or_open(now, Side::Wire, key, packet, env) {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            let own = match self.table.get(&key) {
                Some(Flow::Opening(opening)) => opening.own(),
                _ => None,
            };
            probe.from_wire(now, packet, own);
        }
        self.with_flow(now, key, env, |cx, flow| flow.from_wire(cx, key, packet));
    }

    /// Whether a packet's checksum is valid. The receiver verifies what passes unchanged; what is acted on is
    /// verified here. At a gateway the plain side comes from a wire too; what the local kernel sends has a partial
    /// checksum.
    fn checksum_ok<S>(&mut self, key: FlowKey, packet: &Segment<'_, S>) -> bool {
        let passes =
            !packet.flags.any(Flags::SYN) && self.table.get(&key).is_none_or(|flow| matches!(flow, Flow::Plain(_)));
        let right = passes || packet.is_undamaged();
        self.counters.bad_checksum += u64::from(!right);
        right
    }
}
