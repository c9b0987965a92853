//! Timeouts.

use super::state::Engine;
use crate::flow::{Cause, Env, Transition};
use crate::time::Instant;

impl Engine {
    /// When [`Self::handle_timeout`] should be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let others = [self.exchanges.poll_timeout(), self.unknown.poll_timeout()];
        let memories = [self.sessions.poll_timeout(), self.paths.poll_timeout(), self.table.poll_timeout()];
        others.into_iter().chain(memories).flatten().min()
    }

    fn count_erased(&mut self) {
        let erased = self.sessions.take_erased();
        self.counters.sessions_expired += erased.expired;
        self.counters.sessions_evicted += erased.evicted;
        self.counters.paths_evicted += self.paths.take_evicted();
        self.counters.orphans_forgotten += self.unknown.take_forgotten();
    }

    /// Handles everything due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.do_what_is_due(now, env));
    }

    fn do_what_is_due(&mut self, now: Instant, env: &mut dyn Env) {
        self.exchange_keys(now, env);
        self.sessions.expire(now);
        self.paths.expire(now);
        self.unknown.handle_timeout(now, env);
        self.table.shrink();
        self.count_erased();
        while let Some(key) = self.table.next_due(now) {
            let mut forgot_opening = false;
            self.with_flow(now, key, env, |cx, flow| {
                if flow.poll_timeout().is_none_or(|due| due > cx.now) {
                    return Transition::Stay;
                }
                let transition = flow.handle_timeout(cx);
                forgot_opening = matches!(transition, Transition::Forget(Cause::Unacknowledged));
                transition
            });
            if forgot_opening {
                self.table.forgot_opening = Some(now);
            }
        }
    }
}
