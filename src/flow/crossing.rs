//! Simultaneous open (RFC 9293, section 3.5): both kernels open at once, and their SYNs cross. One of the two hosts was told
//! to be B (ENO-7); if none was, or both, the connection is plain TCP.
//!
//! Each kernel gets the peer's SYN and answers with a SYN-ACK, which goes out with the option of this host's SYN (ENO-14). The
//! peer's SYN-ACK decides (ENO-15). The kernel does not get to see it: what it is given is the acknowledgement of its SYN
//! alone, which all kernels understand in SYN-RECEIVED. If the peer's SYN is lost, its SYN-ACK comes first, and the
//! opening is an ordinary one here, but for the roles.

use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::{Acceptable, Decision};

use super::FallbackReason;
use super::connection::AbortReason;
use super::context::Context;
use super::env::Side;
use super::peers::{Agreed, PeerSyn, well_formed};
use super::shown::squeezed;
use super::syn::{Opened, Opening, Seen};
use crate::wire::options::SynOptions;
use crate::wire::{C, P, Segment};

/// What the local kernel was given last of the peer's opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Nothing,
    Syn,
    SynAck,
}

/// Where a simultaneous open is. Also kept of an opening that is none (yet).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Crossing {
    pub(super) told: Told,
    /// The local kernel has answered the peer's SYN, and that was sent.
    pub(super) answered: bool,
    /// The peer has acknowledged this host's SYN.
    acked: bool,
}

impl Crossing {
    /// The local kernel sends its SYN again: it has not seen the peer's.
    pub(super) fn note_syn_again(&mut self) {
        if self.told == Told::Syn && !self.answered {
            *self = Self::default();
        }
    }

    /// The peer's SYN-ACK is given to the kernel.
    pub(super) fn note_syn_ack(&mut self) {
        (self.told, self.acked) = (Told::SynAck, true);
    }

    /// Whether the SYNs have crossed and the kernel has answered the peer's.
    pub(super) fn is_answered(self) -> bool {
        self.told == Told::Syn && self.answered
    }
}

impl Opening {
    /// The peer opens although the local kernel does: a SYN with `area`.
    pub(super) fn syn_crosses(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>, area: &SynArea<'_>) -> Opened {
        if self.crossing.told == Told::SynAck {
            // Its SYN-ACK has overtaken it, and the kernel has that.
            return Opened::Still;
        }
        let (seen, eno) = (Seen::new(packet, cx.now), well_formed(area));
        let known = self.peers.get(seen.isn);
        // ENO-13: a SYN that comes again counts, too.
        if known.is_none() || eno.is_none() {
            let agreed = self.conclude(cx, self.own.as_deref(), area);
            let declined = match agreed {
                Agreed::Declined(why) => Some(why),
                Agreed::Fresh(_) | Agreed::Resumed(..) => None,
            };
            if self.peers.is_empty() {
                let acceptable = Acceptable::syn(area);
                self.peers.push(PeerSyn { seen, acceptable, eno, agreed, asked: Vec::new(), reply: None });
            }
            if let Some(why) = declined {
                return self.plain(cx, FallbackReason::Eno(why), true);
            }
        }
        let _ = self.phase.received(Acceptable::syn(area));
        if self.crossing.answered {
            // The kernel sends its SYN-ACK again by itself.
            return Opened::Still;
        }
        self.crossing.told = Told::Syn;
        let options = self.for_kernel(cx.config.wire_mtu, packet.options());
        self.emit_syn(cx, Side::Plain, packet, options, packet.window);
        Opened::Still
    }

    /// The local kernel, which has opened, answers the peer's SYN.
    pub(super) fn answer_crossing(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>) -> Opened {
        // In SYN-SENT it has had a SYN of the peer's that is not known here any more.
        if !self.peers.choose(packet.ack.0) {
            return Opened::Still;
        }
        let Some(syn) = self.peers.current() else { return Opened::Still };
        if let Agreed::Declined(why) = syn.agreed {
            return self.plain(cx, FallbackReason::Eno(why), true);
        }
        // It counts now that the kernel has taken it, be it a SYN or, from a kernel that answers those too, a SYN-ACK.
        let _ = self.phase.received(syn.acceptable);
        let mut options = squeezed(packet.options()).unwrap_or_default();
        // ENO-14: the option is that of the SYN.
        if !self.own.as_deref().is_some_and(|own| options.push(own)) {
            return self.plain(cx, FallbackReason::OptionSpace, true);
        }
        self.emit_syn(cx, Side::Wire, packet, options, packet.window);
        self.phase.sent_ack();
        (self.crossing.told, self.crossing.answered) = (Told::Syn, true);
        if self.crossing.acked { self.crossed(cx) } else { Opened::Still }
    }

    /// The peer acknowledges this host's SYN with a SYN-ACK, after its SYN.
    pub(super) fn syn_ack_crosses(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, C>) -> Opened {
        let area = packet.options();
        let Some(peer) = self.peers.get(packet.seq.0) else {
            // One of the two is forged. As in SYN-RECEIVED (RFC 9293, section 3.10.7.4): who is genuine resets it.
            self.challenge(cx);
            return Opened::Still;
        };
        peer.seen.window = packet.window;
        peer.seen.options.timestamps = peer.seen.options.timestamps.and(SynOptions::parse(area).timestamps);
        if self.phase.received(Acceptable::syn_ack(&find_syn(area))) == Decision::Plain {
            return self.plain(cx, FallbackReason::AckWithoutEno, true);
        }
        self.crossing.acked = true;
        // ENO-15: an acknowledgement must have been sent as well.
        if self.crossing.answered { self.crossed(cx) } else { Opened::Still }
    }

    /// Both SYNs are acknowledged with ENO.
    fn crossed(&mut self, cx: &mut Context<'_>) -> Opened {
        debug_assert_eq!(self.phase.decision(), Decision::Encrypted);
        let window = self.local.map_or(0, |local| local.window);
        let Some((params, clocks, negotiated)) = self.settled(cx, window, None) else {
            return Opened::Aborted(AbortReason::Internal);
        };
        let mut encrypted = match self.begin(cx, params, clocks, negotiated) {
            Ok(encrypted) => encrypted,
            Err(why) => return Opened::Aborted(why),
        };
        encrypted.complete_crossing(cx);
        Opened::Encrypted(Box::new(encrypted), true)
    }
}
