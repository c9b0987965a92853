//! One connection: from its SYN over plain TCP or encryption to its end.

mod active;
mod closed;
mod crossing;
mod egress;
mod encrypted;
mod frames;
mod gate;
mod icmp;
mod inbound;
mod ingress;
mod link;
mod lost;
mod offer;
mod outbound;
mod pass;
mod passive;
mod peers;
mod plain;
mod pool;
mod reassembly;
mod shown;
mod syn;

pub(crate) use closed::Closed;
pub(crate) use encrypted::{AbortReason, Encrypted, Exchange, Next};
pub(crate) use inbound::Waits;
pub(crate) use link::{Cx, FlowKey, Link};
pub(crate) use lost::LostOption;
pub(crate) use pass::pass_on;
pub(crate) use plain::{FallbackReason, Learnt, PlainFlow};
pub(crate) use pool::Pool;
pub(crate) use syn::{Opened, Opening};

use crate::engine::{FlowInfo, FlowSession, FlowState, ProbeMode};
use crate::selector::{Policy, RuleOptions};
use crate::time::Instant;

/// What was asked for this connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) options: RuleOptions,
    /// It is opened to find something out.
    pub(crate) probe: Option<ProbeMode>,
}

/// Where a connection is in its life.
pub(crate) enum Flow {
    Opening(Box<Opening>),
    Plain(Box<PlainFlow>),
    Encrypted(Box<Encrypted>),
    Closed(Box<Closed>),
}

/// How far the keys of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// There are none, or only what they will be made of.
    None,
    /// Those of a session that may be resumed, or whose frames may come although it is not.
    Possible,
    /// The generations to send and to receive with (TC-31).
    Generations(u64, u64),
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
            Self::Encrypted(e) => e.facts.session(key),
            Self::Closed(c) => c.facts.as_ref()?.session(key),
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
