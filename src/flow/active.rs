//! The local kernel opens: its SYN goes out with ENO, and the peer answers.

use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::{Acceptable, PlainReason};

use super::FallbackReason;
use super::connection::Sender;
use super::context::Context;
use super::crossing::Told;
use super::env::Side;
use super::peers::{Agreed, PeerSyn, well_formed};
use super::rules::{ProbeMode, hop_id};
use super::shown::squeezed;
use super::syn::{Opened, Opening, Seen};
use crate::selector::Policy;
use crate::store::{Advice, Finding, PathKey};
use crate::wire::options::{self, SegmentOptions, SynOptions, kind};
use crate::wire::{C, Flags, P, Segment};

/// SYNs with ENO of a connection that tries it again on a path that seemed to drop them: one can be lost anywhere.
const RETRY_SYNS: u8 = 2;

impl Opening {
    /// The local kernel opens: its SYN goes out with ENO.
    pub(super) fn syn_out(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Opened {
        let seen = SynOptions::parse(packet.options());
        if self.attempts == 0 {
            if self.rules.policy != Policy::Required && negotiates(packet.options()) {
                return self.plain(cx, FallbackReason::LocalEno, true);
            }
            if !cx.env.random_is_ready() {
                return self.plain(cx, FallbackReason::NoEntropy, true);
            }
            if seen.mptcp {
                return self.plain(cx, FallbackReason::Mptcp, true);
            }
            if seen.signed {
                return self.plain(cx, FallbackReason::Signed, true);
            }
            if let Some(why) = self.avoid(cx) {
                return self.plain(cx, why, true);
            }
            let room = options::MAX_AREA - squeezed(packet.options()).map_or(options::MAX_AREA, |o| o.used());
            self.own = self.propose(cx, packet, room);
            if self.own.is_none() {
                return self.plain(cx, FallbackReason::OptionSpace, true);
            }
        } else if self.attempts >= self.tries
            && self.peers.is_empty()
            && self.rules.policy != Policy::Required
            && self.may_go_without(cx)
        {
            // ENO-14: the path may be dropping SYNs with options it does not know.
            return Opened::Plain(FallbackReason::SynLost, true);
        }
        self.crossing.note_syn_again();
        self.attempts = self.attempts.saturating_add(1);
        // ENO-14: as long as the kernel sends its SYN, the option is remembered.
        self.deadline = cx.now + cx.config.handshake_timeout;
        let mut options = squeezed(packet.options()).unwrap_or_default();
        if !self.own.as_deref().is_some_and(|own| options.push(own)) {
            return self.plain(cx, FallbackReason::OptionSpace, true);
        }
        self.emit_syn(cx, Side::Wire, packet, options, packet.window);
        if let Some(ProbeMode::Insist { hops }) = self.rules.probe
            && self.attempts == 1
        {
            let link = self.link.clone();
            for hop in 1..=hops {
                self.link = link.limited(hop, hop_id(hop));
                self.emit_syn(cx, Side::Wire, packet, options, packet.window);
            }
            self.link = link;
        }
        Opened::Still
    }

    /// Whether a plain connection that comes of this goes on with ENO in its segments.
    pub(crate) fn insists(&self, why: FallbackReason) -> bool {
        why == FallbackReason::PeerNoEno && self.active && matches!(self.rules.probe, Some(ProbeMode::Insist { .. }))
    }

    pub(super) fn may_go_without(&self, cx: &mut Context<'_>) -> bool {
        let (path, session) = (PathKey::new(self.link.key.remote(), true), cx.knows(self.link.key));
        cx.paths.may_go_without(cx.now, path, session, cx.now.since(self.began))
    }

    /// Whether what is remembered of the path to the peer speaks against ENO. Policy `required` has no choice.
    pub(super) fn avoid(&mut self, cx: &mut Context<'_>) -> Option<FallbackReason> {
        if self.rules.probe == Some(ProbeMode::Bare) {
            return Some(FallbackReason::Probe);
        }
        if self.rules.policy == Policy::Required || self.rules.probe.is_some() {
            return None;
        }
        let finding = match cx.paths.advice(cx.now, PathKey::new(self.link.key.remote(), true)) {
            Advice::Offer => return None,
            Advice::TryAgain => {
                self.tries = RETRY_SYNS;
                cx.counters.paths_retried += 1;
                return None;
            }
            Advice::Avoid(finding) => finding,
        };
        cx.counters.paths_avoided += 1;
        Some(if finding == Finding::SynDropped { FallbackReason::PathDropsEno } else { FallbackReason::PathStripsEno })
    }

    /// The peer answers.
    pub(super) fn syn_ack_in(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>) -> Opened {
        let Some(local) = self.local.filter(|_| self.active) else { return Opened::Still };
        if packet.ack.0 != local.isn.wrapping_add(1) {
            // An old duplicate, or forged: the kernel knows what to answer.
            let area = squeezed(packet.options()).unwrap_or_default();
            self.emit_syn(cx, Side::Plain, packet, area, packet.window);
            return Opened::Still;
        }
        if self.crossing.told == Told::Syn {
            return self.syn_ack_crosses(cx, packet);
        }
        let (area, seen) = (find_syn(packet.options()), Seen::new(packet, cx.now));
        let eno = well_formed(&area);
        let first = self.peers.is_empty();
        match self.peers.get(seen.isn) {
            // Once there was one with ACK, those without the option do not count (ENO-13).
            Some(known) if eno.is_none() || known.eno == eno => known.renew(seen),
            _ => {
                let agreed = self.conclude(cx, self.own.as_deref(), &area);
                let declined = match &agreed {
                    Agreed::Declined(why) if first => Some(*why),
                    _ => None,
                };
                let acceptable = Acceptable::syn_ack(&area);
                let syn = PeerSyn { seen, acceptable, eno, agreed, asked: Vec::new(), reply: None };
                match self.peers.get(seen.isn) {
                    // Another answer for the same number: nothing of the first stays.
                    Some(known) => *known = syn,
                    None => self.peers.push(syn),
                }
                if let Some(why) = declined {
                    return self.answered_without(cx, packet, &area, why);
                }
            }
        }
        self.crossing.note_syn_ack();
        let options = self.for_kernel(cx.config.wire_mtu, packet.options());
        let resumed = self.agreed().is_some_and(|agreed| agreed.session().is_some());
        let params = resumed.then(|| self.settled(cx, 0, None)).flatten();
        let window = match self.agreed() {
            Some(Agreed::Declined(_)) => packet.window,
            _ => params.map_or(0, |(params, ..)| Sender::first_window(&params)),
        };
        self.emit_syn(cx, Side::Plain, packet, options, window);
        Opened::Still
    }

    /// The peer's only answer is one with which there is no encryption.
    pub(super) fn answered_without(
        &mut self,
        cx: &mut Context<'_>,
        packet: &Segment<'_, C>,
        area: &SynArea<'_>,
        why: PlainReason,
    ) -> Opened {
        if matches!(area, SynArea::None) {
            // To b = 1 nobody answers who waits for connections (ENO-7).
            if !self.settings(cx.config).active_b {
                cx.learn(self.link.key, true, Finding::NoEno);
            }
            return self.plain(cx, FallbackReason::PeerNoEno, true);
        }
        let mut options = options::walk(packet.options());
        if options.any(|(k, option)| k == kind::ENO && Some(option) == self.own.as_deref()) {
            cx.learn(self.link.key, true, Finding::Echoed);
        }
        self.plain(cx, FallbackReason::Eno(why), true)
    }

    /// The first segment of the local kernel that is no SYN.
    pub(super) fn first_from_kernel(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Opened {
        if !self.active && self.local.is_none() && packet.flags.any(Flags::ACK) {
            // A connection from before that the kernel takes for open, or in TIME-WAIT: it asks the peer (RFC 5961, section 4.2).
            self.older = Some(packet.ack.0);
            self.link.acknowledge(cx.env, Side::Wire, packet.seq.0, packet.ack.0, &[]);
            return Opened::Still;
        }
        let Some(local) = self.local else { return Opened::Still };
        let follows = packet.flags.any(Flags::ACK) && packet.seq.0 == local.isn.wrapping_add(1);
        if self.active && self.crossing.told != Told::Syn && follows && !self.peers.choose(packet.ack.0) {
            // It has an answer that did not pass here.
            return self.let_go(cx, Side::Plain, packet.ack.0, packet.seq.0);
        }
        if !self.active || self.crossing.told != Told::SynAck {
            // Whoever answered a SYN cannot send before the peer's acknowledgement; what it sends is of an older
            // connection.
            return Opened::Still;
        }
        if !self.peers.choose(packet.ack.0) {
            return Opened::Still;
        }
        let Some(syn) = self.peers.current() else { return Opened::Still };
        if let Agreed::Declined(why) = syn.agreed {
            return self.plain(cx, FallbackReason::Eno(why), true);
        }
        let _ = self.phase.received(syn.acceptable);
        let rtt = Some(syn.seen.at.since(local.at));
        let Some((params, mut clocks, negotiated)) = self.settled(cx, packet.window, rtt) else {
            return Opened::Still;
        };
        if let Some(ts) = SegmentOptions::parse(packet.options()).timestamps {
            clocks.from_kernel(ts, cx.now);
        }
        let mut encrypted = match self.begin(cx, params, clocks, negotiated) {
            Ok(encrypted) => encrypted,
            Err(why) => return Opened::Aborted(why),
        };
        let dealt_with = encrypted.send_init1(cx, packet);
        Opened::Encrypted(Box::new(encrypted), dealt_with)
    }
}

/// Whether a SYN of the plain side has an ENO option already: its stack, or one behind this gateway, negotiates end to end.
fn negotiates(area: &[u8]) -> bool {
    matches!(find_syn(area), SynArea::Option(_))
}
