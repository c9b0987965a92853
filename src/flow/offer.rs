//! What this host's SYN or SYN-ACK says in its ENO option, and what follows from both options (ENO-7 to ENO-11; TC-12 to TC-20).

use std::borrow::Cow;

use tcpcrypt::constants::{RESUME_HALF_LEN, RESUME_NONCE_MAX};
use tcpcrypt::eno::negotiate::{active_option, conclude, passive_reply};
use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::resume::ResumeNonce;
use tcpcrypt::{Aware, NegotiationConfig, Outcome, PlainReason, Proposal};

use super::config::Config;
use super::context::Context;
use super::peers::Agreed;
use super::syn::Opening;
use crate::wire::FlowKey;
use crate::wire::{P, Segment};

impl Opening {
    /// How this connection negotiates: as the host does, and what its rule asks for besides (ENO-7, ENO-8, TC-22).
    pub(super) fn settings<'a>(&self, config: &'a Config) -> Cow<'a, NegotiationConfig> {
        let options = self.rules.options;
        if options.is_none() {
            return Cow::Borrowed(&config.negotiation);
        }
        let mut settings = config.negotiation.clone();
        settings.resume &= !options.no_resume;
        settings.aware = settings.aware.max(Aware::new(options.aware, options.mandatory_aware));
        settings.active_b |= options.role_b;
        Cow::Owned(settings)
    }

    /// This host's option for the SYN in `bytes`, which has `room` for it: with a proposal if there is a session to resume
    /// and it fits.
    pub(super) fn propose(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>, room: usize) -> Option<Vec<u8>> {
        let config = cx.config;
        let settings = self.settings(config);
        let allowed = |tep, aead| settings.teps.contains(&tep) && config.ciphers.contains(&aead);
        let mut proposal = None;
        if settings.resume
            && let Some((chain, secret)) = cx.sessions.candidate(cx.now, self.link.key.remote(), allowed)
        {
            let context = [&secret.own_half()[..], packet.headers()].concat();
            let nonce = nonce(cx, self.link.key, &context);
            proposal = Some((chain, Proposal { secret, nonce: own_part(&nonce, settings.nonce_len) }));
        }
        let option = active_option(&settings, proposal.as_ref().map(|(_, p)| p), room)?;
        self.proposal = proposal.filter(|_| option.proposes);
        if let Some((chain, _)) = &self.proposal {
            cx.sessions.reserve(*chain);
            cx.counters.resumptions_proposed += 1;
        }
        Some(option.bytes)
    }

    /// Accepts the peer's proposal to resume a session, if it has made one that is known here (TC-16). This waits for
    /// the kernel's SYN-ACK: SYNs that the kernel does not answer use nothing up.
    pub(super) fn accept(&mut self, cx: &mut Context<'_>, packet: &Segment<'_, P>, room: usize) {
        let config = cx.config;
        let settings = self.settings(config);
        let Some(syn) = self.peers.current_mut() else { return };
        let (asked, peer_isn) = (std::mem::take(&mut syn.asked), syn.seen.isn.to_be_bytes());
        let area = find_syn(&asked);
        let (SynArea::Option(option), Agreed::Fresh(_)) = (&area, &syn.agreed) else { return };
        let proposes = option.suboptions().any(|s| s.v && s.data.len() >= RESUME_HALF_LEN);
        if !proposes || !settings.resume {
            return;
        }
        let headers = packet.headers();
        let nonce = nonce(cx, self.link.key, &[&peer_isn[..], &asked, headers].concat());
        let (now, sessions) = (cx.now, &mut *cx.sessions);
        let mut chain = None;
        let reply = passive_reply(&settings, &area, room, &nonce, |tep, half| {
            let (found, secret) = sessions.recognise(now, tep, half, |aead| config.ciphers.contains(&aead))?;
            chain = Some(found);
            Some(secret)
        });
        let (Some(chain), Some(proposal)) = (chain, &reply.resumes) else {
            cx.counters.resumptions_unknown += 1;
            return;
        };
        if let Outcome::Resumed(agreed, session) = conclude(&settings, reply.option.as_deref(), Some(proposal), &area) {
            cx.counters.resumptions_accepted += 1;
            syn.reply = reply.option;
            syn.agreed = Agreed::Resumed(agreed, chain, Box::new(session));
        }
    }

    /// What follows from this host's option and the peer's (ENO-9, ENO-10; TC-18). What was proposed can still be agreed to in another
    /// answer.
    pub(super) fn conclude(&self, cx: &Context<'_>, own: Option<&[u8]>, area: &SynArea<'_>) -> Agreed {
        let proposal = self.proposal.as_ref();
        match (conclude(&self.settings(cx.config), own, proposal.map(|(_, p)| p), area), proposal) {
            (Outcome::Fresh(negotiated), _) => Agreed::Fresh(negotiated),
            (Outcome::Resumed(negotiated, session), Some((chain, _))) => {
                Agreed::Resumed(negotiated, *chain, Box::new(session))
            }
            (Outcome::Resumed(..), None) => Agreed::Declined(PlainReason::NoCommonTep),
            (Outcome::Plain(why), _) => Agreed::Declined(why),
        }
    }
}

/// A resumption nonce (TC-14). `context` is all that tells this connection from others.
fn nonce(cx: &mut Context<'_>, key: FlowKey, context: &[u8]) -> [u8; RESUME_NONCE_MAX] {
    let mut nonce = [0; RESUME_NONCE_MAX];
    cx.random("resumption nonce", key, context, &mut nonce);
    nonce
}

/// As much of a nonce as this host sends (TC-13).
fn own_part(nonce: &[u8; RESUME_NONCE_MAX], len: usize) -> ResumeNonce {
    nonce.get(..len).and_then(ResumeNonce::new).unwrap_or_default()
}
