//! The retransmission timer for what only exists on the wire: Init messages and empty frames, which the local kernel cannot send
//! again (RFC 6298).

use std::time::Duration;

use crate::time::Instant;

/// Minimum and maximum timeout, and that before a round trip was measured.
const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(60);
const FIRST_RTO: Duration = Duration::from_secs(1);
/// Retransmissions without an answer before the connection is given up: at the least 942 s, as long as the kernel's
/// `tcp_retries2`, whose pauses grow to twice as long.
const MAX_RETRIES: u8 = 23;
/// As many count of a peer that answers with a closed window: the time between two is the longest then.
const PATIENT_RETRIES: u8 = 10;

#[derive(Debug)]
pub(super) struct OwnTimer {
    rto: Duration,
    retries: u8,
    due: Option<Instant>,
}

impl OwnTimer {
    pub(super) fn new(rtt: Option<Duration>) -> Self {
        Self { rto: rtt.map_or(FIRST_RTO, |rtt| (rtt * 3).clamp(MIN_RTO, MAX_RTO)), retries: 0, due: None }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Starts it, unless it is running.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(now + self.rto.saturating_mul(1 << self.retries.min(10)).min(MAX_RTO));
        }
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// It has expired; returns whether to retry.
    pub(super) fn expire(&mut self) -> bool {
        self.due = None;
        self.retries += 1;
        self.retries <= MAX_RETRIES
    }

    /// The peer has acknowledged something.
    pub(super) fn note_progress(&mut self) {
        (self.retries, self.due) = (0, None);
    }

    /// The peer is there, but its window is closed: keep waiting (RFC 9293, section 3.8.6.1).
    pub(super) fn be_patient(&mut self) {
        self.retries = self.retries.min(PATIENT_RETRIES);
    }

    /// Whether it is running after a retransmission.
    pub(super) fn is_repeating(&self) -> bool {
        self.retries > 0 && self.due.is_some()
    }

    /// Whether it is running before any retransmission.
    pub(super) fn is_first(&self) -> bool {
        self.retries == 0 && self.due.is_some()
    }

    /// What it waits for is lost, and is sent again before it expires: once per loss, it does the rest.
    pub(super) fn note_loss(&mut self) {
        (self.retries, self.due) = (1, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after `now` the timer expires.
    fn wait(timer: &mut OwnTimer, now: Instant) -> Duration {
        timer.arm(now);
        timer.due().expect("it is set").since(now)
    }

    #[test]
    fn the_time_doubles_up_to_a_minute_and_ends_later_than_the_kernels() {
        let mut timer = OwnTimer::new(Some(Duration::from_millis(100)));
        let mut now = Instant::from_micros(1_000);
        let start = now;
        let mut waits = Vec::new();
        loop {
            let time = wait(&mut timer, now);
            waits.push(time.as_millis());
            now = now + time;
            if !timer.expire() {
                break;
            }
        }
        assert_eq!(waits[..4], [300, 600, 1200, 2400]);
        assert_eq!((waits.iter().max(), waits.len()), (Some(&60_000), usize::from(MAX_RETRIES) + 1));
        assert!(now.since(start) >= Duration::from_secs(925), "{:?}", now.since(start));
    }

    #[test]
    fn progress_and_patience_give_it_more_tries() {
        let mut timer = OwnTimer::new(None);
        assert_eq!(wait(&mut timer, Instant::ZERO), FIRST_RTO);
        assert!(timer.is_first() && !timer.is_repeating());
        for _ in 0..MAX_RETRIES {
            assert!(timer.expire());
            timer.arm(Instant::ZERO);
        }
        assert!(timer.is_repeating());
        timer.be_patient();
        assert!(timer.expire(), "a peer whose window is closed is waited for");
        timer.note_progress();
        assert_eq!(timer.due(), None);
        assert_eq!(wait(&mut timer, Instant::ZERO), FIRST_RTO);
    }

    #[test]
    fn a_loss_is_made_good_once() {
        let mut timer = OwnTimer::new(None);
        timer.arm(Instant::ZERO);
        timer.note_loss();
        timer.arm(Instant::ZERO);
        assert!(timer.is_repeating() && !timer.is_first());
    }
}
