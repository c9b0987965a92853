//! The contents of the ENO option in this host's SYN or SYN-ACK, and the outcome of both options (ENO-7 to ENO-11;
//! TC-12 to TC-20).

use std::borrow::Cow;

use tcpcrypt::constants::{RESUME_HALF_LEN, RESUME_NONCE_MAX};
use tcpcrypt::eno::negotiate::{self, active_option, passive_reply};
use tcpcrypt::eno::option::{SynArea, find_syn};
use tcpcrypt::resume::ResumeNonce;
use tcpcrypt::{Aware, NegotiationConfig, Outcome, PlainReason, Proposal};

use super::peers::{Agreed, PeerSyn};
use crate::flow::{Config, Context, Rules};
use crate::store::ChainId;
use crate::wire::options;
use crate::wire::{FlowKey, P, Segment};

/// Room for ENO in a SYN-ACK: MSS, SACK permitted, timestamps and window scale take 19 bytes.
const REPLY_ROOM: usize = options::MAX_AREA - 19;

/// What this host's SYN offers. It is made once (ENO-14).
pub(super) struct Offer {
    /// Its ENO option.
    pub(super) option: Vec<u8>,
    /// What that proposes to resume. Nothing else does ever (TC-19).
    pub(super) proposal: Option<(ChainId, Proposal)>,
}

/// What is kept of the peer's SYN in order to answer it.
#[derive(Default)]
pub(super) struct Reply {
    /// Its options, until they are answered.
    asked: Vec<u8>,
    /// The option that answers it (ENO-14).
    pub(super) option: Option<Vec<u8>>,
}

/// How a connection negotiates: the host's settings, modified by its rule (ENO-7, ENO-8, TC-22).
pub(super) fn config_for<'a>(rules: &Rules, config: &'a Config) -> Cow<'a, NegotiationConfig> {
    let options = rules.options;
    if options.is_none() {
        return Cow::Borrowed(&config.negotiation);
    }
    let mut negotiation = config.negotiation.clone();
    negotiation.resume &= !options.no_resume;
    negotiation.aware = negotiation.aware.max(Aware::new(options.aware, options.mandatory_aware));
    negotiation.active_b |= options.role_b;
    Cow::Owned(negotiation)
}

/// What the local kernel's SYN, which has `room` for it, offers: with a proposal if there is a session to resume and it fits.
pub(super) fn offer(
    cx: &mut Context<'_>,
    rules: &Rules,
    key: FlowKey,
    syn: &Segment<'_, P>,
    room: usize,
) -> Option<Offer> {
    let config = cx.config;
    let negotiation = config_for(rules, config);
    let allowed = |tep, aead| negotiation.teps.contains(&tep) && config.ciphers.contains(&aead);
    let mut proposal = None;
    if negotiation.resume
        && let Some((chain, secret)) = cx.sessions.candidate(cx.now, key.remote(), allowed)
    {
        let nonce = nonce(cx, key, &[&secret.own_half()[..], syn.headers()].concat());
        // TC-13: as much of it as this host sends.
        let nonce = nonce.get(..negotiation.nonce_len).and_then(ResumeNonce::new);
        debug_assert!(nonce.is_some(), "settings have been checked");
        proposal = nonce.map(|nonce| (chain, Proposal { secret, nonce }));
    }
    let option = active_option(&negotiation, proposal.as_ref().map(|(_, p)| p), room)?;
    let proposal = proposal.filter(|_| option.proposes);
    if let Some((chain, _)) = &proposal {
        cx.sessions.reserve(*chain);
        cx.counters.resumptions_proposed += 1;
    }
    Some(Offer { option: option.bytes, proposal })
}

/// What follows from this host's option `own` and the peer's (ENO-9, ENO-10; TC-18). What was proposed can still be agreed to in another
/// answer.
pub(super) fn conclude(
    negotiation: &NegotiationConfig,
    own: Option<&[u8]>,
    proposal: Option<&(ChainId, Proposal)>,
    area: &SynArea<'_>,
) -> Result<Agreed, PlainReason> {
    match (negotiate::conclude(negotiation, own, proposal.map(|(_, p)| p), area), proposal) {
        (Outcome::Fresh(negotiated), _) => Ok(Agreed::Fresh(negotiated)),
        (Outcome::Resumed(negotiated, session), Some((chain, _))) => {
            Ok(Agreed::Resumed(negotiated, *chain, Box::new(session)))
        }
        (Outcome::Resumed(..), None) => Err(PlainReason::NoCommonTep),
        (Outcome::Plain(why), _) => Err(why),
    }
}

/// This host's answer to the peer's SYN with the options `asked`, and what both come to. For fresh keys: whether a session is
/// resumed is seen when the kernel has answered.
pub(super) fn reply(negotiation: &NegotiationConfig, asked: &[u8]) -> (Result<Agreed, PlainReason>, Reply) {
    let area = find_syn(asked);
    let option = passive_reply(negotiation, &area, REPLY_ROOM, &[0; RESUME_NONCE_MAX], |_, _| None).option;
    let agreed = conclude(negotiation, option.as_deref(), None, &area);
    (agreed, Reply { asked: asked.to_vec(), option })
}

/// Accepts the peer's proposal to resume a session, if it has made one that is known here (TC-16). This waits for
/// the kernel's SYN-ACK, which has `room` for the answer: SYNs that the kernel does not answer use nothing up.
pub(super) fn accept(
    cx: &mut Context<'_>,
    rules: &Rules,
    key: FlowKey,
    syn: &mut PeerSyn<Reply>,
    syn_ack: &Segment<'_, P>,
    room: usize,
) {
    let config = cx.config;
    let negotiation = config_for(rules, config);
    let asked = std::mem::take(&mut syn.reply.asked);
    let area = find_syn(&asked);
    let (SynArea::Option(option), Ok(Agreed::Fresh(_))) = (&area, &syn.agreed) else { return };
    let proposes = option.suboptions().any(|s| s.v && s.data.len() >= RESUME_HALF_LEN);
    if !proposes || !negotiation.resume {
        return;
    }
    let nonce = nonce(cx, key, &[&syn.seen.isn.to_be_bytes()[..], &asked, syn_ack.headers()].concat());
    let (now, sessions) = (cx.now, &mut *cx.sessions);
    let mut chain = None;
    let reply = passive_reply(&negotiation, &area, room, &nonce, |tep, half| {
        let (found, secret) = sessions.recognise(now, tep, half, |aead| config.ciphers.contains(&aead))?;
        chain = Some(found);
        Some(secret)
    });
    let Some(proposal) = chain.zip(reply.resumes) else {
        cx.counters.resumptions_unknown += 1;
        return;
    };
    if let Ok(agreed @ Agreed::Resumed(..)) = conclude(&negotiation, reply.option.as_deref(), Some(&proposal), &area) {
        cx.counters.resumptions_accepted += 1;
        (syn.reply.option, syn.agreed) = (reply.option, Ok(agreed));
    }
}

/// A resumption nonce (TC-14). `context` is all that tells this connection from others.
fn nonce(cx: &mut Context<'_>, key: FlowKey, context: &[u8]) -> [u8; RESUME_NONCE_MAX] {
    let mut nonce = [0; RESUME_NONCE_MAX];
    cx.random("resumption nonce", key, context, &mut nonce);
    nonce
}
