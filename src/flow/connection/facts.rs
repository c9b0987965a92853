//! What an encrypted connection is, for whoever asks (ENO-19).

use tcpcrypt::schedule::KeyFingerprint;
use tcpcrypt::{AeadId, Negotiated, Role, Session, SessionId};

use crate::flow::info::{FlowInfo, FlowSession};
use crate::store::ChainId;
use crate::wire::FlowKey;

/// What was agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    negotiated: Negotiated,
    /// Once there are keys.
    session: Option<SessionFacts>,
}

/// What a session is.
#[derive(Debug, Clone)]
pub(super) struct SessionFacts {
    aead: AeadId,
    id: SessionId,
    key_fingerprint: KeyFingerprint,
    resumed: bool,
    /// The peer has shown that it has the keys: a frame of its has opened.
    peer_confirmed: bool,
    /// Where the session it used came from, and where those to come are cached.
    chain: Option<ChainId>,
}

impl SessionFacts {
    pub(super) fn of(session: &Session, resumed: bool) -> Self {
        Self {
            aead: session.aead(),
            id: session.id(),
            key_fingerprint: session.key_fingerprint(),
            resumed,
            peer_confirmed: false,
            chain: None,
        }
    }

    pub(super) fn peer_is_confirmed(&self) -> bool {
        self.peer_confirmed
    }

    /// The peer has shown that it has the keys; `chain` is where its sessions are cached.
    pub(super) fn confirm(&mut self, resumed: bool, chain: Option<ChainId>) {
        (self.peer_confirmed, self.resumed, self.chain) = (true, resumed, chain);
    }

    /// Forgets where its sessions are cached.
    pub(super) fn take_chain(&mut self) -> Option<ChainId> {
        self.chain.take()
    }
}

impl Facts {
    pub(super) fn new(negotiated: Negotiated, session: Option<SessionFacts>) -> Self {
        Self { negotiated, session }
    }

    /// Fills in what there is to say.
    pub(super) fn describe(&self, info: &mut FlowInfo) {
        info.role = Some(self.negotiated.role.letter());
        info.tep = Some(self.negotiated.tep.name());
        if let Some((own, peer)) = self.negotiated.options() {
            (info.self_gopt, info.peer_gopt) = (Some(own.global()), Some(peer.global()));
        }
        if let Some(session) = &self.session {
            info.aead = Some(session.aead.name());
            (info.resumed, info.peer_confirmed) = (session.resumed, session.peer_confirmed);
            info.session_id = Some(session.id.to_string());
        }
    }

    /// What an application can ask about it, as soon as there is a session ID.
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        let Self { negotiated, session } = self;
        let session = session.as_ref()?;
        let (own, peer) = negotiated.options()?;
        let name = |role: Role| format!("{:02x}{}", u8::from(role == Role::B), session.id);
        Some(FlowSession {
            local: key.local(),
            remote: key.remote(),
            session_id: session.id.to_string(),
            key_fingerprint: session.key_fingerprint.to_string(),
            role: negotiated.role.letter(),
            self_name: name(negotiated.role),
            peer_name: name(negotiated.role.other()),
            tep: negotiated.tep.name(),
            tep_byte: negotiated.tep_byte,
            aead: Some(session.aead.name()),
            self_gopt: own.global(),
            peer_gopt: peer.global(),
            self_aware: own.aware(),
            peer_aware: peer.aware(),
            transcript: negotiated.transcript.iter().map(|byte| format!("{byte:02x}")).collect(),
            resumed: session.resumed,
            peer_confirmed: session.peer_confirmed,
            authenticated: false,
        })
    }
}
