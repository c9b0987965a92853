//! How long the packet loop waits awake before it sleeps. To be woken takes longer than to handle a packet, above all in
//! a virtual machine, and there are two daemons on the way of each packet. So while packets come quickly the loop asks for
//! them again and again, and yields the processor to whoever else wants it in between.

use std::time::Duration;

/// How long to wait awake for the first time after a wait that was short.
const FIRST: Duration = Duration::from_micros(10);

/// For how long to wait awake, from how long it took until something came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// The longest: what takes longer is slept through.
    max: Duration,
    now: Duration,
}

impl BusyPoll {
    /// By default, the longest wait awake.
    pub const DEFAULT: Duration = Duration::from_micros(100);

    /// Waits awake for no longer than `most`, which may be zero.
    #[must_use]
    pub const fn new(max: Duration) -> Self {
        Self { max, now: Duration::ZERO }
    }

    /// For how long to wait awake this time.
    pub(super) fn spin_time(&self) -> Duration {
        self.now
    }

    /// It took `waited` until something came.
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
