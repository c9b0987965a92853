//! Key exchanges wait in a queue: each costs as much as hundreds of packets, and whoever can reach a service can ask for
//! one. Packets of connections that are open come first.

use std::collections::VecDeque;

use tcpcrypt::Tep;

use super::Engine;
use super::env::Env;
use super::fate::{Fate, settle};
use crate::flow::{Exchange, Flow, FlowKey};
use crate::time::Instant;

/// What one call of [`Engine::handle_timeout`] spends on key exchanges, in microseconds, about; one takes place in any case.
const BUDGET: u32 = 1_000;
/// Exchanges that wait at most. The peer of one that is put off sends its message again.
const MAX_WAITING: usize = 4_096;

/// What an exchange costs, in microseconds, about: making a key and agreeing, with the slower of the two backends.
fn cost(tep: Tep) -> u32 {
    match tep {
        Tep::Curve25519 => 50,
        Tep::P256 => 250,
        Tep::Curve448 => 460,
        Tep::P521 => 850,
    }
}

/// Connections whose keys are to be exchanged.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    waiting: VecDeque<FlowKey>,
    /// When the last one was queued.
    since: Instant,
}

impl Exchanges {
    /// When [`Engine::exchange_keys`] wants to be called: at once, if any wait.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.since)
    }
}

impl Engine {
    /// Queues the exchange of a connection that has all for it. Those that this host has opened come first.
    pub(super) fn queue_exchange(&mut self, now: Instant, key: FlowKey) {
        let Some(Flow::Encrypted(encrypted)) = self.table.get_mut(&key) else { return };
        if encrypted.exchange != Exchange::Due {
            return;
        }
        encrypted.exchange = Exchange::Queued;
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
                encrypted.exchange = Exchange::None;
            }
        }
    }

    /// Exchanges keys as long as the budget lasts.
    pub(super) fn exchange_keys(&mut self, now: Instant, env: &mut dyn Env) {
        let mut spent = 0;
        while spent < BUDGET
            && let Some(key) = self.exchanges.waiting.pop_front()
        {
            self.with_flow(now, key, env, |cx, flow| match flow {
                // It may be another connection on the same addresses and ports by now.
                Flow::Encrypted(encrypted) if encrypted.exchange == Exchange::Queued => {
                    spent += cost(encrypted.tep());
                    let next = encrypted.exchange(cx);
                    encrypted.note_path(cx, next, None);
                    settle(cx, encrypted, next)
                }
                Flow::Encrypted(_) | Flow::Opening(_) | Flow::Plain(_) | Flow::Closed(_) => Fate::Stay,
            });
        }
    }
}
