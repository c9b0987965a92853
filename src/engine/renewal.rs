//! The reaction to a sign that this machine was cloned, rolled back or stopped (TC-14, TC-19): resumable sessions are
//! erased, and connections get new keys or are aborted. docs/clones.md says which and why.

use super::disruption::{Disrupted, Disruption};
use super::state::Engine;
use crate::flow::{Env, Flow, Transition, settle};
use crate::time::Instant;
use crate::wire::FlowKey;

impl Engine {
    /// Reacts to a sign that this machine was cloned, rolled back or stopped.
    ///
    /// The cache is erased in any case. A [certain](Disruption::is_certain) sign aborts all connections (TC-6) that
    /// have keys or have sent what keys will be made of: the copy has the same, and a rekey gives both the same new
    /// ones (TC-8). On other signs connections rekey (TC-31).
    pub fn handle_disruption(&mut self, now: Instant, sign: Disruption, env: &mut dyn Env) -> Disrupted {
        self.counters.disruptions += 1;
        let sessions_flushed = self.sessions.flush(None);
        if matches!(sign, Disruption::Moved | Disruption::AddressChange) {
            // What was learnt concerns the paths of another network.
            self.paths.forget(None, None);
        }
        let (mut connections_rekeyed, mut connections_aborted) = (0, 0);
        self.leave_no_keys(|engine| {
            (connections_rekeyed, connections_aborted) = engine.renew_or_abort(now, sign, env);
        });
        let done = Disrupted { sign, at: now, sessions_flushed, connections_rekeyed, connections_aborted };
        self.disrupted = Some(done);
        done
    }

    /// Rekeys or aborts every connection; returns the number of each.
    fn renew_or_abort(&mut self, now: Instant, sign: Disruption, env: &mut dyn Env) -> (usize, usize) {
        let (mut connections_rekeyed, mut connections_aborted) = (0, 0);
        let keys: Vec<FlowKey> = self.table.iter().map(|(key, _)| *key).collect();
        for key in keys {
            self.with_flow(now, key, env, |cx, flow| {
                if sign.is_certain() {
                    let aborted = flow.abort_as_copy(cx);
                    connections_aborted += usize::from(aborted.is_some());
                    return aborted.unwrap_or(Transition::Stay);
                }
                let Flow::Encrypted(encrypted) = flow else { return Transition::Stay };
                connections_rekeyed += usize::from(encrypted.wear_out_keys());
                let next = encrypted.start_rekey(cx);
                settle(cx, encrypted, next)
            });
        }
        (connections_rekeyed, connections_aborted)
    }

    /// The last sign that was acted on.
    #[must_use]
    pub fn last_disruption(&self) -> Option<Disrupted> {
        self.disrupted
    }
}
