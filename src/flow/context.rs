//! The context of a connection for one call, besides the segment: time, surroundings, configuration, and state shared
//! by all connections.

use tcpcrypt::Role;
use tcpcrypt::kex::RandomUse;

use super::config::Config;
use super::connection::Actions;
use super::env::{Env, RandomFor};
use super::info::Counters;
use super::pool::Pool;
use crate::store::{Doubt, Finding, PathKey, Paths, Sessions};
use crate::time::Instant;
use crate::wire::FlowKey;

/// The context of a connection for one call.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) env: &'a mut dyn Env,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) provider: &'static dyn tcpcrypt::Provider,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) paths: &'a mut Paths,
    /// The memory for held bytes is used up: nothing more may be held.
    pub(crate) memory_pressure: bool,
    /// The actions that the current packet causes.
    pub(crate) actions: &'a mut Actions,
    /// Memory for one frame.
    pub(crate) scratch: &'a mut Vec<u8>,
    /// Memory for what is kept.
    pub(crate) pool: &'a mut Pool,
}

impl Context<'_> {
    /// Random bytes for `key`'s connection.
    pub(crate) fn random(&mut self, purpose: &'static str, key: FlowKey, context: &[u8], out: &mut [u8]) {
        self.env.random(&RandomFor { purpose, local: key.local(), remote: key.remote(), context }, out);
    }

    /// The same for the contents of an Init message of `sender`, or what follows it. One use reveals nothing about
    /// another.
    pub(crate) fn random_for_init(
        &mut self,
        sender: Role,
        wanted: RandomUse,
        key: FlowKey,
        context: &[u8],
        out: &mut [u8],
    ) {
        let purpose = match (sender, wanted) {
            (Role::A, RandomUse::PrivateKey) => "private key of Init1",
            (Role::A, RandomUse::Nonce) => "N_A",
            (Role::B, RandomUse::PrivateKey) => "private key of Init2",
            (Role::B, RandomUse::Nonce) => "N_B",
        };
        self.random(purpose, key, context, out);
    }

    /// Records a failure of a connection to `key`'s peer, which `began` then, that may be due to the path.
    pub(crate) fn doubt(&mut self, key: FlowKey, finding: Finding, began: Instant) {
        let session = self.knows(key);
        let doubt = Doubt { finding, began, session };
        self.paths.doubt(self.now, PathKey::new(key.remote(), true), &doubt);
    }

    /// Whether a session with `key`'s peer is cached.
    pub(crate) fn knows(&self, key: FlowKey) -> bool {
        self.sessions.knows(self.now, key.remote().ip())
    }

    /// Records what a connection has shown about the path to (`active`) or from its peer.
    pub(crate) fn learn(&mut self, key: FlowKey, active: bool, finding: Finding) {
        self.paths.learn(self.now, PathKey::new(key.remote(), active), finding);
    }
}
