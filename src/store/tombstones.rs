//! Connections that are over here, and perhaps not for the local kernel: it has missed the RSTs, and would send
//! plaintext hours later, when nothing else is known about them. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::time::Instant;
use crate::wire::FlowKey;

/// The addresses of connections whose packets are refused until the kernel opens a new one there, or shows that it
/// has none.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    until: HashMap<FlowKey, Instant>,
    /// In order of time. Entries removed in between are skipped.
    order: VecDeque<(Instant, FlowKey)>,
    /// Number evicted since the last query.
    pub(crate) forgotten: u64,
}

impl Tombstones {
    /// Remembers `key` for `time`. If there are more than `most`, the oldest is evicted.
    pub(crate) fn insert(&mut self, now: Instant, key: FlowKey, time: Duration, most: usize) {
        self.expire(now);
        let until = now + time;
        self.until.insert(key, until);
        self.order.push_back((until, key));
        while self.until.len() > most || self.order.len() > most.saturating_mul(2) {
            let Some((until, key)) = self.order.pop_front() else { return };
            self.forgotten += u64::from(self.forget(until, key));
        }
    }

    /// The kernel no longer has such a connection.
    pub(crate) fn remove(&mut self, key: &FlowKey) -> bool {
        !self.until.is_empty() && self.until.remove(key).is_some()
    }

    /// Whether `key` is remembered.
    pub(crate) fn has(&self, key: &FlowKey) -> bool {
        !self.until.is_empty() && self.until.contains_key(key)
    }

    /// All of them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.until.keys()
    }

    /// Forgets those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, key)) = self.order.front().copied().filter(|(until, _)| *until <= now) {
            self.order.pop_front();
            let _ = self.forget(until, key);
        }
    }

    fn forget(&mut self, until: Instant, key: FlowKey) -> bool {
        self.until.get(&key) == Some(&until) && self.until.remove(&key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        let address = |port| std::net::SocketAddr::from(([10, 0, 0, 1], port));
        FlowKey::new(address(port), address(80))
    }

    #[test]
    fn they_are_bounded_in_number_and_in_time() {
        let mut tombstones = Tombstones::default();
        let (start, hour) = (Instant::from_micros(0), Duration::from_secs(3600));
        for port in 0..1000 {
            tombstones.insert(start, key(port), hour, 10);
            tombstones.insert(start, key(port), hour, 10);
        }
        assert!(tombstones.keys().count() <= 10 && tombstones.order.len() <= 20);
        assert!(tombstones.has(&key(999)) && !tombstones.has(&key(900)));
        tombstones.expire(start + hour);
        assert_eq!((tombstones.keys().count(), tombstones.order.len()), (0, 0));
    }

    #[test]
    fn one_that_came_back_has_the_later_end() {
        let mut tombstones = Tombstones::default();
        let (start, hour) = (Instant::from_micros(0), Duration::from_secs(3600));
        tombstones.insert(start, key(1), hour, 10);
        assert!(tombstones.remove(&key(1)));
        tombstones.insert(start + hour / 2, key(1), hour, 10);
        tombstones.expire(start + hour);
        assert!(tombstones.has(&key(1)));
    }
}
