//! Key exchanges wait in a queue: each costs as much as hundreds of packets, and whoever can reach a service can
//! request one. Packets of open connections come first.

use tcpcrypt::Tep;

use super::state::Engine;
use crate::flow::{Env, Exchange, Flow, Transition, settle};
use crate::time::Instant;

/// Approximate budget of one call of [`Engine::handle_timeout`] for key exchanges, in microseconds; at least one
/// takes place.
const BUDGET: u32 = 1_000;

/// Approximate cost of an exchange in microseconds: making a key and agreeing, with the slower of the two backends.
fn cost(tep: Tep) -> u32 {
    match tep {
        Tep::Curve25519 => 50,
        Tep::P256 => 250,
        Tep::Curve448 => 460,
        Tep::P521 => 850,
    }
}

impl Engine {
    /// Exchanges keys within the budget.
    pub(super) fn exchange_keys(&mut self, now: Instant, env: &mut dyn Env) {
        let mut spent = 0;
        while spent < BUDGET
            && let Some(key) = self.exchanges.waiting.pop_front()
        {
            self.with_flow(now, key, env, |cx, flow| match flow {
                // By now it may be another connection with the same addresses and ports.
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
