//! Where a connection is in its life.

use super::connection::Closed;
use super::connection::{Encrypted, Keys};
use super::info::{FlowInfo, FlowSession, FlowState};
use super::plain::PlainFlow;
use super::syn::Opening;
use crate::time::Instant;
use crate::wire::FlowKey;

/// Where a connection is in its life.
pub(crate) enum Flow {
    Opening(Box<Opening>),
    Plain(Box<PlainFlow>),
    Encrypted(Box<Encrypted>),
    Closed(Box<Closed>),
}

impl Flow {
    /// How far its keys are.
    pub(crate) fn keys(&self) -> Keys {
        match self {
            Self::Encrypted(e) => e.keys(),
            Self::Opening(o) if o.resumes() => Keys::Possible,
            Self::Plain(p) if p.has_keys() => Keys::Possible,
            Self::Opening(_) | Self::Plain(_) | Self::Closed(_) => Keys::None,
        }
    }

    /// Bytes of memory held beyond the fixed size.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Encrypted(e) => e.held(),
            _ => 0,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Opening(o) => Some(o.deadline),
            Self::Plain(p) => Some(p.poll_timeout()),
            Self::Encrypted(e) => e.poll_timeout(),
            Self::Closed(c) => Some(c.poll_timeout()),
        }
    }

    /// What an application can ask about it, if it has a session ID (ENO-19).
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        match self {
            Self::Opening(_) | Self::Plain(_) => None,
            Self::Encrypted(e) => e.session(key),
            Self::Closed(c) => c.session(key),
        }
    }

    pub(crate) fn info(&self, key: &FlowKey) -> FlowInfo {
        let mut info = FlowInfo::new(key.local(), key.remote(), FlowState::Negotiating);
        match self {
            Self::Opening(_) => {}
            Self::Plain(plain) => plain.describe(&mut info),
            Self::Encrypted(e) => e.describe(&mut info),
            Self::Closed(c) => {
                info.state = FlowState::Closed;
                c.describe(&mut info);
            }
        }
        info
    }
}
