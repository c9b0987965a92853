//! What a connection's code is given for one call, besides the segment: time, surroundings, settings, and what is shared by all
//! connections.

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

/// What a connection's code is given for one call.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) env: &'a mut dyn Env,
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) provider: &'static dyn tcpcrypt::Provider,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) paths: &'a mut Paths,
    /// The memory for held bytes is used up: nothing more may be kept.
    pub(crate) tight: bool,
    /// What the packet at hand causes.
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

    /// The same for what is in, or behind, an Init message of `sender`. What one use gets says nothing of what another does.
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

    /// Notes what a connection to `key`'s peer, which `began` then, has suffered, and what may be the path's doing.
    pub(crate) fn doubt(&mut self, key: FlowKey, finding: Finding, began: Instant) {
        let session = self.knows(key);
        let doubt = Doubt { finding, began, session };
        self.paths.doubt(self.now, PathKey::new(key.remote(), true), &doubt);
    }

    /// Whether a session with `key`'s peer is kept.
    pub(crate) fn knows(&self, key: FlowKey) -> bool {
        self.sessions.knows(self.now, key.remote().ip())
    }

    /// Remembers what a connection has shown about the path to (`active`) or from its peer.
    pub(crate) fn learn(&mut self, key: FlowKey, active: bool, finding: Finding) {
        self.paths.learn(self.now, PathKey::new(key.remote(), active), finding);
    }
}
