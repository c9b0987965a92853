//! What is due.

use super::fate::{Fate, fail, settle};
use super::state::Engine;
use crate::flow::{AbortReason, Env, Flow};
use crate::time::Instant;

impl Engine {
    /// When [`Self::handle_timeout`] wants to be called next.
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

    /// Does what is due at `now`.
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
                    return Fate::Stay;
                }
                match flow {
                    Flow::Opening(opening) if opening.has_agreed() => {
                        opening.refuse(cx);
                        // Nothing is remembered of a SYN that nobody stands by: what comes late is refused as unknown.
                        match opening.kernel_expects() {
                            Some(expects) => fail(cx, key, AbortReason::Timeout, Some(expects)),
                            None => {
                                forgot_opening = true;
                                Fate::Remove
                            }
                        }
                    }
                    Flow::Closed(closed) => {
                        if closed.handle_timeout(cx) {
                            Fate::Remove
                        } else {
                            Fate::Stay
                        }
                    }
                    Flow::Plain(plain) => {
                        if plain.handle_timeout(cx.now) {
                            Fate::Remove
                        } else {
                            Fate::Stay
                        }
                    }
                    Flow::Opening(_) => Fate::Remove,
                    Flow::Encrypted(encrypted) => {
                        let next = encrypted.handle_timeout(cx);
                        encrypted.note_path(cx, next, None);
                        settle(cx, encrypted, next)
                    }
                }
            });
            if forgot_opening {
                self.table.forgot_opening = Some(now);
            }
        }
    }
}
