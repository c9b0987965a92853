//! The peer opens, and the local kernel answers: its SYN-ACK goes out with ENO.

use tcpcrypt::constants::RESUME_NONCE_MAX;
use tcpcrypt::eno::negotiate::passive_reply;
use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::{Acceptable, PlainReason};

use super::FallbackReason;
use super::context::Context;
use super::env::Side;
use super::peers::{Agreed, PeerSyn, well_formed};
use super::shown::squeezed;
use super::syn::{Opened, Opening, Seen};
use crate::selector::Policy;
use crate::wire::options::{self, SynOptions};
use crate::wire::{C, P, Segment};

/// Room that a SYN-ACK has for ENO: MSS, SACK permitted, timestamps and window scale take 19 bytes.
const REPLY_ROOM: usize = options::MAX_AREA - 19;

impl Opening {
    /// The peer opens.
    pub(super) fn syn_in(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>) -> Opened {
        let area = find_syn(packet.options());
        if let (Some(peer), Some(_)) = (self.peer(), self.local)
            && peer.isn != packet.seq.0
        {
            // Forged, or the peer has forgotten the first one: then its RST answers this (RFC 5961, section 4.2).
            self.challenge(cx);
            return Opened::Still;
        }
        if self.active {
            return self.syn_crosses(cx, packet, &area);
        }
        let seen = Seen::new(packet, cx.now);
        let acceptable = Acceptable::syn(&area);
        match self.peers.get(seen.isn) {
            Some(known) if known.eno.is_some() && well_formed(&area).is_none() => {
                // ENO-13: the peer, or the path, has disabled ENO, for good (docs/readings.md, reading 9).
                let why = match &area {
                    SynArea::None => FallbackReason::PeerNoEno,
                    _ => FallbackReason::Eno(self.why_none(cx, &area)),
                };
                return self.plain(cx, why, true);
            }
            Some(known) => known.renew(seen),
            None => match self.first_syn(cx, packet, &area) {
                Ok((agreed, reply)) => {
                    let (eno, asked) = (well_formed(&area), packet.options().to_vec());
                    self.peers.push(PeerSyn { seen, acceptable, eno, agreed, asked, reply });
                }
                Err(why) => {
                    let first = self.peers.is_empty();
                    let reason = if let FallbackReason::Eno(reason) = why { reason } else { PlainReason::NotOffered };
                    let (eno, agreed) = (well_formed(&area), Agreed::Declined(reason));
                    self.peers.push(PeerSyn { seen, acceptable, eno, agreed, asked: Vec::new(), reply: None });
                    if first {
                        return self.plain(cx, why, true);
                    }
                }
            },
        }
        let options = self.for_kernel(cx.config.wire_mtu, packet.options());
        self.emit_syn(cx, Side::Plain, packet, options, packet.window);
        Opened::Still
    }

    /// What a SYN of the peer's comes to, and this host's answer. For fresh keys: whether a session is resumed is seen when the kernel
    /// has answered.
    pub(super) fn first_syn(
        &self,
        cx: &Context<'_>,
        packet: &Segment<'_, C>,
        area: &SynArea<'_>,
    ) -> Result<(Agreed, Option<Vec<u8>>), FallbackReason> {
        let seen = SynOptions::parse(packet.options());
        if seen.mptcp {
            return Err(FallbackReason::Mptcp);
        }
        if seen.signed {
            return Err(FallbackReason::Signed);
        }
        if !cx.env.random_is_ready() {
            return Err(FallbackReason::NoEntropy);
        }
        let settings = self.settings(cx.config);
        let reply = passive_reply(&settings, area, REPLY_ROOM, &[0; RESUME_NONCE_MAX], |_, _| None).option;
        let required = self.rules.policy == Policy::Required;
        match self.conclude(cx, reply.as_deref(), area) {
            // ENO-11: the kernel's SYN-ACK tells the peer, in a vacuous option.
            Agreed::Declined(why) if reply.is_some() && !required => Ok((Agreed::Declined(why), reply)),
            // To a peer with b = 1 nobody answers who waits for connections. But the kernel may be opening, too, and its SYN under way
            // (ENO-7); it is refused when the kernel answers.
            Agreed::Declined(why @ PlainReason::SameRole) if required => Ok((Agreed::Declined(why), None)),
            Agreed::Declined(PlainReason::PeerNoEno) if self.peers.is_empty() => Err(FallbackReason::PeerNoEno),
            Agreed::Declined(why) => Err(FallbackReason::Eno(why)),
            agreed => Ok((agreed, reply)),
        }
    }

    pub(super) fn why_none(&self, cx: &Context<'_>, area: &SynArea<'_>) -> PlainReason {
        match self.conclude(cx, None, area) {
            Agreed::Declined(why) => why,
            Agreed::Fresh(_) | Agreed::Resumed(..) => PlainReason::NotOffered,
        }
    }

    /// The local kernel answers: its SYN-ACK goes out with ENO, unless the peer's SYN had none.
    pub(super) fn syn_ack_out(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Opened {
        if self.active {
            return self.answer_crossing(cx, packet);
        }
        if !self.peers.choose(packet.ack.0) {
            // It answers a SYN of an older connection, or one that is not known any more: another one will come.
            return Opened::Still;
        }
        let seen = SynOptions::parse(packet.options());
        let mut options = squeezed(packet.options()).unwrap_or_default();
        if !seen.signed {
            self.accept(cx, packet, options.room());
        }
        let Some(syn) = self.peers.current_mut() else { return Opened::Still };
        let declined = match syn.agreed {
            Agreed::Declined(why) => Some(FallbackReason::Eno(why)),
            Agreed::Fresh(_) | Agreed::Resumed(..) => None,
        };
        if let (Some(why), None) = (declined, &syn.reply) {
            return self.plain(cx, why, true);
        }
        let fits = syn.reply.as_deref().is_some_and(|own| options.push(own));
        if seen.signed || !fits {
            // The kernel sees a lowered MSS all the same; that does no harm.
            return self.plain(
                cx,
                if seen.signed { FallbackReason::Signed } else { FallbackReason::OptionSpace },
                true,
            );
        }
        self.own.clone_from(&syn.reply);
        // What the kernel answers, it has judged.
        let _ = self.phase.received(syn.acceptable);
        self.emit_syn(cx, Side::Wire, packet, options, packet.window);
        self.phase.sent_ack();
        match declined {
            // ENO-11: a vacuous answer has been given; nothing more will come of it.
            Some(why) => self.plain(cx, why, false),
            None => Opened::Still,
        }
    }
}
