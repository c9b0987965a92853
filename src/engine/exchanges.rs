//! Key exchanges wait in a queue: each costs as much as hundreds of packets, and whoever can reach a service can ask for
//! one. Packets of connections that are open come first.

use tcpcrypt::Tep;

use super::state::Engine;
use crate::flow::{Env, Exchange, Flow, Transition, settle};
use crate::time::Instant;

/// What one call of [`Engine::handle_timeout`] spends on key exchanges, in microseconds, about; one takes place in any case.
const BUDGET: u32 = 1_000;

/// What an exchange costs, in microseconds, about: making a key and agreeing, with the slower of the two backends.
fn cost(tep: Tep) -> u32 {
    match tep {
        Tep::Curve25519 => 50,
        Tep::P256 => 250,
        Tep::Curve448 => 460,
        Tep::P521 => 850,
    }
}

impl Engine {
    /// Exchanges keys as long as the budget lasts.
    pub(super) fn exchange_keys(&mut self, now: Instant, env: &mut dyn Env) {
        let mut spent = 0;
        while spent < BUDGET
            && let Some(key) = self.exchanges.waiting.pop_front()
        {
            self.with_flow(now, key, env, |cx, flow| match flow {
                // It may be another connection on the same addresses and ports by now.
                Flow::Encrypted(encrypted) if encrypted.exchange() == Exchange::Queued => {
                    spent += cost(encrypted.tep());
                    let next = encrypted.exchange_keys(cx);
                    encrypted.note_path(cx, next, None);
                    settle(cx, encrypted, next)
                }
                Flow::Encrypted(_) | Flow::Opening(_) | Flow::Plain(_) | Flow::Closed(_) => Transition::Stay,
            });
        }
    }
}
