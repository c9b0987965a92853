//! How long the packet loop spins before it sleeps. A wake-up takes longer than handling a packet, above all in a
//! virtual machine, and each packet passes two daemons. So while packets come quickly the loop keeps polling, and
//! yields the processor to other programs in between.

use std::time::Duration;

/// The first spin time after a short wait.
const FIRST: Duration = Duration::from_micros(10);

/// Determines the spin time from how long earlier waits took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// The upper bound: longer waits are spent asleep.
    max: Duration,
    now: Duration,
}

impl BusyPoll {
    /// The default upper bound.
    pub const DEFAULT: Duration = Duration::from_micros(100);

    /// Spins no longer than `max`, which may be zero.
    #[must_use]
    pub const fn new(max: Duration) -> Self {
        Self { max, now: Duration::ZERO }
    }

    /// How long to spin this time.
    pub(super) fn spin_time(&self) -> Duration {
        self.now
    }

    /// A wait took `waited`.
    pub(super) fn record(&mut self, waited: Duration) {
        self.now = if waited <= self.max { (self.now * 2).max(FIRST).min(self.max) } else { self.now / 2 };
        if self.now < FIRST.min(self.max) {
            self.now = Duration::ZERO;
        }
    }
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_awake_while_packets_come_quickly_and_sleeps_when_they_do_not() {
        let mut busy = BusyPoll::default();
        assert_eq!(busy.spin_time(), Duration::ZERO, "at first it sleeps");
        for _ in 0..20 {
            busy.record(Duration::from_micros(50));
        }
        assert_eq!(busy.spin_time(), BusyPoll::DEFAULT);
        busy.record(Duration::from_micros(101));
        assert_eq!(busy.spin_time(), BusyPoll::DEFAULT / 2, "one long wait does not end it");
        for _ in 0..4 {
            busy.record(Duration::from_millis(5));
        }
        assert_eq!(busy.spin_time(), Duration::ZERO);
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut busy = BusyPoll::new(Duration::ZERO);
        busy.record(Duration::ZERO);
        assert_eq!(busy.spin_time(), Duration::ZERO);
    }
}
