//! The keys of a connection: how they are made, which session they come from, and where later sessions are cached.

use std::time::Duration;

use tcpcrypt::handshake::{self, Initiator};
use tcpcrypt::resume::CachedSecret;
use tcpcrypt::{Negotiated, Record, Role, Session};

use super::facts::{Facts, SessionFacts};
use super::outcome::{AbortReason, Outcome};
use super::receiver::Opener;
use crate::flow::context::Context;
use crate::flow::env::ConnectionKeys;
use crate::flow::states::State;
use crate::store::{ChainId, Sessions};
use crate::time::Instant;
use crate::wire::FlowKey;

/// How long Linux retransmits data before it gives up (`tcp_retries2` = 15). The connection is already open at both
/// ends, and the key exchange is its first data.
const KERNEL_PATIENCE: Duration = Duration::from_secs(925);

/// The state of a connection's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// There are none, or only what they will be made of.
    None,
    /// Those of a session that may be resumed, or whose frames may come although it is not.
    Possible,
    /// The generations to send and to receive with (TC-31).
    Generations(u64, u64),
}

/// Which end opened a connection (RFC 9293, section 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// The local one, or both.
    Active,
    Passive,
}

/// Whether the session is cached for others to resume (TC-22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    Allowed,
    Off,
}

/// What distinguishes a connection from all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) key: FlowKey,
    pub(super) local_isn: u32,
    pub(super) peer_isn: u32,
}

impl Identity {
    fn isns(&self) -> Vec<u8> {
        [self.local_isn.to_be_bytes(), self.peer_isn.to_be_bytes()].concat()
    }
}

/// How far the keys are.
enum Stage {
    /// A has sent Init1 and waits for Init2 (TC-3).
    AwaitInit2 { initiator: Box<Initiator>, until: Instant },
    /// B waits for Init1.
    AwaitInit1 { until: Instant },
    /// Frames can be sealed and opened.
    Ready { record: Box<Record>, session: SessionFacts, claim: Claim },
    /// Keys are being made right now, or that failed and the connection is about to be aborted.
    Failed,
}

/// What follows once the peer has shown that it has the keys. Before that the SYN may be a copy of an old one, sent again by
/// whoever held it back.
enum Claim {
    /// Nothing any more: it has shown it.
    Settled,
    /// New keys: what follows them is cached, unless the cache was flushed since.
    Fresh { next: Box<CachedSecret>, flushes: u64 },
    /// New keys, of which nothing is cached.
    Uncached,
    /// Keys resumed from a chain, which the peer has then.
    Resumed(ChainId),
}

/// Why a key exchange did not complete.
pub(super) enum NoKeys {
    /// The message is wrong, and may be somebody else's: the peer's may still come.
    Refused(tcpcrypt::Error),
    Failed(tcpcrypt::Error),
    /// No message was awaited.
    Unasked,
}

pub(super) struct KeyExchange {
    negotiated: Negotiated,
    open: Open,
    caching: Caching,
    stage: Stage,
}

impl KeyExchange {
    fn new(cx: &Context<'_>, negotiated: Negotiated, open: Open, caching: Caching, stage: Stage) -> Self {
        let caching = if cx.config.negotiation.resume { caching } else { Caching::Off };
        Self { negotiated, open, caching, stage }
    }

    /// A resumed session, from a chain: its keys are there.
    pub(super) fn resumed(
        cx: &mut Context<'_>,
        identity: &Identity,
        negotiated: Negotiated,
        (open, caching): (Open, Caching),
        (session, chain): (Session, ChainId),
    ) -> Self {
        let mut keys = Self::new(cx, negotiated, open, caching, Stage::Failed);
        keys.take_session(cx, identity, session, Some(chain));
        keys
    }

    /// Begins its part in the key exchange (TC-3); with the Init1 of A.
    pub(super) fn begin(
        cx: &mut Context<'_>,
        identity: &Identity,
        negotiated: Negotiated,
        (open, caching): (Open, Caching),
    ) -> Outcome<(Self, Option<Vec<u8>>)> {
        let until = cx.now + cx.config.handshake_timeout.max(KERNEL_PATIENCE);
        if negotiated.role == Role::B {
            return Ok((Self::new(cx, negotiated, open, caching, Stage::AwaitInit1 { until }), None));
        }
        let (key, context) = (identity.key, identity.isns());
        let (ciphers, provider) = (cx.config.ciphers.clone(), cx.provider);
        let started = Initiator::start(provider, negotiated.clone(), &ciphers, &mut |wanted, out| {
            cx.random_for_init(Role::A, wanted, key, &context, out);
        });
        let (init1, initiator) = started.map_err(AbortReason::KeyExchange)?;
        let stage = Stage::AwaitInit2 { initiator: Box::new(initiator), until };
        Ok((Self::new(cx, negotiated, open, caching, stage), Some(init1)))
    }

    /// Takes the session that the key exchange ended with, or the one resumed and the chain it is from. `ss[i]` is
    /// erased here (TC-19).
    fn take_session(&mut self, cx: &mut Context<'_>, identity: &Identity, session: Session, resumed: Option<ChainId>) {
        if cx.config.export_keys {
            self.export_keys(cx, identity, &session, resumed.is_some());
        }
        // The answer to a SYN of this host's own cannot be a copy of an old one.
        let facts = SessionFacts::of(&session, self.open == Open::Active && resumed.is_some());
        let record = Box::new(Record::new(cx.provider, &session));
        let claim = match (resumed, self.caching) {
            (Some(chain), _) => Claim::Resumed(chain),
            (None, Caching::Allowed) => {
                Claim::Fresh { next: Box::new(session.into_next()), flushes: cx.sessions.flushes() }
            }
            (None, Caching::Off) => Claim::Uncached,
        };
        self.stage = Stage::Ready { record, session: facts, claim };
    }

    fn export_keys(&self, cx: &mut Context<'_>, identity: &Identity, session: &Session, resumed: bool) {
        cx.env.export_keys(&ConnectionKeys {
            local: identity.key.local(),
            remote: identity.key.remote(),
            local_isn: identity.local_isn,
            remote_isn: identity.peer_isn,
            role: self.negotiated.role,
            original_role: session.original_role(),
            aead: session.aead(),
            resumed,
            session_id: session.id(),
            master_key: &session.master_key(),
        });
    }

    /// Ends the key exchange with the peer's whole Init message; with the Init2 of B.
    pub(super) fn finish(
        &mut self,
        cx: &mut Context<'_>,
        identity: &Identity,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, NoKeys> {
        let (init2, session) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::AwaitInit2 { initiator, until } => {
                if let Err(why) = initiator.check_init2(message) {
                    self.stage = Stage::AwaitInit2 { initiator, until };
                    return Err(NoKeys::Refused(why));
                }
                // The private key is used up with it.
                (None, initiator.handle_init2(message).map_err(NoKeys::Failed)?)
            }
            Stage::AwaitInit1 { until } => {
                let (key, context) = (identity.key, [&identity.isns()[..], message].concat());
                let (ciphers, provider) = (cx.config.ciphers.clone(), cx.provider);
                let answer = handshake::respond(provider, &self.negotiated, &ciphers, message, &mut |wanted, out| {
                    cx.random_for_init(Role::B, wanted, key, &context, out);
                });
                match answer {
                    Ok((init2, session)) => (Some(init2), session),
                    Err(why) => {
                        self.stage = Stage::AwaitInit1 { until };
                        return Err(NoKeys::Refused(why));
                    }
                }
            }
            other @ (Stage::Ready { .. } | Stage::Failed) => {
                self.stage = other;
                return Err(NoKeys::Unasked);
            }
        };
        self.take_session(cx, identity, session, None);
        Ok(init2)
    }

    /// The peer has the keys, for a frame of its has opened: from here on the connection is encrypted for whoever asks, a
    /// resumption counts, and the sessions to come are cached under the peer's address (TC-19, TC-22).
    pub(super) fn confirm_peer(&mut self, cx: &mut Context<'_>, key: FlowKey) {
        let Stage::Ready { session, claim, .. } = &mut self.stage else { return };
        let resumed = matches!(claim, Claim::Resumed(_));
        let chain = match std::mem::replace(claim, Claim::Settled) {
            Claim::Settled => return,
            Claim::Uncached => None,
            Claim::Resumed(chain) if self.caching == Caching::Allowed => {
                cx.sessions.confirm(cx.now, chain, key.remote());
                Some(chain)
            }
            Claim::Resumed(chain) => {
                cx.sessions.remove(chain);
                None
            }
            Claim::Fresh { next, flushes } => {
                let kept = self.caching == Caching::Allowed && flushes == cx.sessions.flushes();
                let active = self.open == Open::Active;
                if kept { cx.sessions.insert(cx.now, key.remote(), active, *next) } else { None }
            }
        };
        session.confirm(resumed, chain);
        cx.counters.connections_encrypted += 1;
        cx.counters.connections_resumed += u64::from(resumed);
        cx.counters.sessions_cached += u64::from(!resumed && chain.is_some());
        let erased = cx.sessions.take_erased();
        cx.counters.sessions_evicted += erased.evicted;
        cx.counters.sessions_expired += erased.expired;
    }

    /// Erases what this connection has used of the cache or put there, or would; nothing is put there from here on (TC-22).
    /// Whether there was something.
    pub(super) fn forget_session(&mut self, sessions: &mut Sessions) -> bool {
        self.caching = Caching::Off;
        let Stage::Ready { session, claim, .. } = &mut self.stage else { return false };
        let chain = match claim {
            // Still to be confirmed as resumed.
            Claim::Resumed(chain) => Some(*chain),
            Claim::Fresh { .. } => {
                *claim = Claim::Uncached;
                return true;
            }
            Claim::Settled | Claim::Uncached => session.take_chain(),
        };
        chain.is_some_and(|chain| sessions.remove(chain))
    }

    /// It has ended without a frame of the peer's having opened, though some came: whatever keys the peer has, those
    /// that were resumed are not.
    pub(super) fn doubt_resumption(&self, sessions: &mut Sessions) {
        if let Stage::Ready { claim: Claim::Resumed(chain), .. } = &self.stage {
            sessions.refused(*chain);
        }
    }

    /// Whether frames can be sealed and opened.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// Where the connection is.
    pub(super) fn state(&self) -> State {
        match self.stage {
            Stage::AwaitInit1 { .. } => State::AwaitInit1,
            Stage::AwaitInit2 { .. } => State::AwaitInit2,
            Stage::Ready { .. } => State::Ready,
            Stage::Failed => State::Failed,
        }
    }

    /// Whether Init1 was made, and its answer is awaited.
    pub(super) fn awaits_init2(&self) -> bool {
        matches!(self.stage, Stage::AwaitInit2 { .. })
    }

    /// Whether the peer has shown that it has the keys.
    pub(super) fn peer_is_confirmed(&self) -> bool {
        matches!(&self.stage, Stage::Ready { session, .. } if session.peer_is_confirmed())
    }

    /// What frames are sealed and opened with.
    pub(super) fn record(&mut self) -> Option<&mut Record> {
        match &mut self.stage {
            Stage::Ready { record, .. } => Some(record),
            Stage::AwaitInit2 { .. } | Stage::AwaitInit1 { .. } | Stage::Failed => None,
        }
    }

    /// What the peer's bytes are opened with.
    pub(super) fn opener(&mut self) -> Opener<'_> {
        match &mut self.stage {
            Stage::Ready { record, .. } => Opener::Frames(record),
            Stage::AwaitInit2 { .. } | Stage::AwaitInit1 { .. } => Opener::Init(self.negotiated.role.other()),
            Stage::Failed => Opener::Nothing,
        }
    }

    /// When it is abandoned.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::AwaitInit2 { until, .. } | Stage::AwaitInit1 { until } => Some(until),
            Stage::Ready { .. } | Stage::Failed => None,
        }
    }

    pub(super) fn generations(&self) -> Keys {
        match &self.stage {
            Stage::Ready { record, .. } => Keys::Generations(record.local_generation(), record.remote_generation()),
            Stage::AwaitInit2 { .. } | Stage::AwaitInit1 { .. } | Stage::Failed => Keys::None,
        }
    }

    pub(super) fn open(&self) -> Open {
        self.open
    }

    pub(super) fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// What there is to say of them.
    pub(super) fn facts(&self) -> Facts {
        let session = match &self.stage {
            Stage::Ready { session, .. } => Some(session.clone()),
            Stage::AwaitInit2 { .. } | Stage::AwaitInit1 { .. } | Stage::Failed => None,
        };
        Facts::new(self.negotiated.clone(), session)
    }

    /// Releases memory that only a busy connection needs.
    pub(super) fn rest(&mut self) {
        if let Some(record) = self.record() {
            record.rest();
        }
    }
}
