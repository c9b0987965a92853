//! All connections of an instance with their shared state, and the single way to work on one of them.

use std::collections::HashMap;

use super::disruption::Disrupted;
use super::exchange_queue::{ExchangeQueue, MAX_WAITING};
use super::probe::Probe;
use super::table::{Class, Table};
use super::unknown::Unknown;
use crate::flow::{Actions, Config, Context, Counters, Env, Exchange, Flow, Keys, Pool, Presence, Transition};
use crate::selector::PolicyTable;
use crate::store::{Paths, Sessions};
use crate::time::Instant;
use crate::wire::FlowKey;

/// All connections of one instance.
pub struct Engine {
    pub(super) config: Config,
    pub(super) policy: PolicyTable,
    pub(super) provider: &'static dyn tcpcrypt::Provider,
    pub(super) table: Table,
    pub(super) unknown: Unknown,
    pub(super) counters: Counters,
    pub(super) sessions: Sessions,
    pub(super) paths: Paths,
    pub(super) probes: HashMap<FlowKey, Probe>,
    pub(super) disrupted: Option<Disrupted>,
    pub(super) actions: Actions,
    pub(super) scratch: Vec<u8>,
    pub(super) pool: Pool,
    pub(super) exchanges: ExchangeQueue,
    /// The current work made, replaced or erased keys.
    pub(super) keys_changed: bool,
}

/// The context of a connection for one call.
macro_rules! context {
    ($engine:ident, $now:expr, $env:expr) => {
        Context {
            now: $now,
            env: $env,
            config: &$engine.config,
            counters: &mut $engine.counters,
            provider: $engine.provider,
            sessions: &mut $engine.sessions,
            paths: &mut $engine.paths,
            memory_pressure: $engine.table.held() >= $engine.config.max_held_bytes,
            actions: &mut $engine.actions,
            scratch: &mut $engine.scratch,
            pool: &mut $engine.pool,
        }
    };
}
pub(super) use context;

impl Engine {
    /// An engine without connections and rules: everything passes through. `provider` does the cryptography.
    #[must_use]
    pub fn new(config: Config, provider: &'static dyn tcpcrypt::Provider) -> Self {
        Self {
            sessions: Sessions::new(config.sessions),
            paths: Paths::new(config.paths),
            probes: HashMap::new(),
            config,
            policy: PolicyTable::default(),
            provider,
            table: Table::default(),
            unknown: Unknown::default(),
            counters: Counters::default(),
            disrupted: None,
            actions: Actions::default(),
            scratch: Vec::new(),
            pool: Pool::default(),
            exchanges: ExchangeQueue::default(),
            keys_changed: false,
        }
    }

    /// Sets the policy from now on. Existing connections continue unchanged.
    pub fn set_policy(&mut self, policy: PolicyTable) {
        self.policy = policy;
    }

    /// The current policy.
    #[must_use]
    pub fn policy(&self) -> &PolicyTable {
        &self.policy
    }

    /// Runs `work`, and wipes the stack afterwards if keys were made or dropped (TC-34): until then, ciphers leave
    /// traces of keys in use there.
    pub(super) fn leave_no_keys(&mut self, work: impl FnOnce(&mut Self)) {
        tcpcrypt::stack::wiped_if(|| {
            work(self);
            std::mem::take(&mut self.keys_changed)
        });
    }

    /// Lets `f` work on a connection, and updates the books about it.
    pub(super) fn with_flow(
        &mut self,
        now: Instant,
        key: FlowKey,
        env: &mut dyn Env,
        f: impl FnOnce(&mut Context<'_>, &mut Flow) -> Transition,
    ) {
        let mut cx = context!(self, now, &mut *env);
        let Some(flow) = self.table.get_mut(&key) else { return };
        let (keys, before) = (flow.keys(), flow.state());
        let transition = f(&mut cx, flow);
        debug_assert!(cx.actions.is_empty(), "what was noted was carried out");
        if flow.change(before, transition) == Presence::Gone {
            self.keys_changed |= keys != Keys::None;
            self.remove(now, &key);
            return;
        }
        self.keys_changed |= flow.keys() != keys;
        let exchange_due = matches!(flow, Flow::Encrypted(encrypted) if encrypted.exchange() == Exchange::Due);
        if let Some(class) = self.table.settle(&key) {
            self.make_room(now, class, key, env);
        }
        if exchange_due {
            self.queue_exchange(now, key);
        }
        self.let_go(now, env);
    }

    /// Drops unproven bytes if too much is held: they are retransmitted, or their connection ends.
    fn let_go(&mut self, now: Instant, env: &mut dyn Env) {
        while self.table.held() >= self.config.max_held_bytes
            && let Some(key) = self.table.longest_waiting()
        {
            self.counters.evicted_held += 1;
            let mut cx = context!(self, now, &mut *env);
            let Some(flow) = self.table.get_mut(&key) else { return };
            let (keys, before) = (flow.keys(), flow.state());
            let transition = flow.shed(&mut cx);
            let presence = flow.change(before, transition);
            debug_assert_eq!(presence, Presence::Stays, "what has lost bytes is still to be answered");
            self.keys_changed |= flow.keys() != keys;
            if let Some(class) = self.table.settle(&key) {
                self.make_room(now, class, key, env);
            }
        }
    }

    /// Evicts what has proven least, now that `newest` is of `class`.
    pub(super) fn make_room(&mut self, now: Instant, class: Class, newest: FlowKey, env: &mut dyn Env) {
        while let Some((class, key)) = self.table.surplus(class, &newest, &self.config) {
            let Some(flow) = self.table.remove(&key) else { return };
            self.keys_changed |= flow.keys() != Keys::None;
            let outlived_by = flow.evict(&mut context!(self, now, &mut *env));
            self.table.note_evicted(now, class, &mut self.counters);
            if let Some(time) = outlived_by {
                self.unknown.outlives(now, key, time, &self.config);
            }
        }
    }

    /// Forgets a connection. The local kernel may not know that it is over, or that all it sent was acknowledged: a
    /// SYN that anybody can send does not change that.
    pub(super) fn remove(&mut self, now: Instant, key: &FlowKey) {
        if let Some(Flow::Closed(closed)) = self.table.remove(key)
            && let Some(time) = closed.outlived_by(&self.config, now)
        {
            self.unknown.outlives(now, *key, time, &self.config);
        }
    }

    /// Queues the key exchange of a connection that is ready for it. Those opened by this host come first.
    pub(super) fn queue_exchange(&mut self, now: Instant, key: FlowKey) {
        let Some(Flow::Encrypted(encrypted)) = self.table.get_mut(&key) else { return };
        if encrypted.exchange() != Exchange::Due {
            return;
        }
        encrypted.set_exchange(Exchange::Queued);
        self.exchanges.since = now;
        let waiting = &mut self.exchanges.waiting;
        if encrypted.is_active() {
            waiting.push_front(key);
        } else {
            waiting.push_back(key);
        }
        if waiting.len() > MAX_WAITING {
            self.counters.limit_exchanges += 1;
            let oldest = if encrypted.is_active() { waiting.pop_back() } else { waiting.pop_front() };
            if let Some(Flow::Encrypted(encrypted)) = oldest.and_then(|oldest| self.table.get_mut(&oldest)) {
                encrypted.set_exchange(Exchange::None);
            }
        }
    }
}
