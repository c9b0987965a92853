//! The retransmission timer for what only exists on the wire: Init messages and empty frames, which the local kernel cannot send
//! again (RFC 6298).

use std::time::Duration;

use crate::time::Instant;

/// Shortest and longest time, and that before a round trip was measured.
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

    /// Sets it, if it is not set.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(now + self.rto.saturating_mul(1 << self.retries.min(10)).min(MAX_RTO));
        }
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// It has expired; whether to try again.
    pub(super) fn expire(&mut self) -> bool {
        self.due = None;
        self.retries += 1;
        self.retries <= MAX_RETRIES
    }

    /// The peer has acknowledged something.
    pub(super) fn note_progress(&mut self) {
        (self.retries, self.due) = (0, None);
    }

    /// The peer's window is closed, and it is there: that is waited for (RFC 9293, section 3.8.6.1).
    pub(super) fn be_patient(&mut self) {
        self.retries = self.retries.min(PATIENT_RETRIES);
    }

    /// Whether it runs, and something was sent again already.
    pub(super) fn is_repeating(&self) -> bool {
        self.retries > 0 && self.due.is_some()
    }

    /// Whether it runs, and nothing was sent again yet.
    pub(super) fn is_first(&self) -> bool {
        self.retries == 0 && self.due.is_some()
    }

    /// What it waits for is lost, and is sent again before it expires: once per loss, it does the rest.
    pub(super) fn note_loss(&mut self) {
        (self.retries, self.due) = (1, None);
    }
}
