//! The queue of connections whose keys are to be exchanged.

use std::collections::VecDeque;

use crate::time::Instant;
use crate::wire::FlowKey;

/// Maximum length of the queue. The peer of a deferred exchange retransmits its message.
pub(super) const MAX_WAITING: usize = 4_096;

/// Connections whose keys are to be exchanged.
#[derive(Debug, Default)]
pub(super) struct ExchangeQueue {
    pub(super) waiting: VecDeque<FlowKey>,
    /// When the last one was queued.
    pub(super) since: Instant,
}

impl ExchangeQueue {
    /// When [`Engine::exchange_keys`] wants to be called: at once, if any wait.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.since)
    }
}
