//! When the key that frames are sealed with is replaced (TC-31).

use tcpcrypt::Record;

use crate::flow::config::RekeyLimits;
use crate::time::Instant;

/// The age of the local generation's key. The record knows what it has protected.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyAge {
    generation: u64,
    /// When it sealed its first frame, if it has.
    since: Option<Instant>,
    /// It must be replaced regardless.
    worn: bool,
}

impl KeyAge {
    /// The key in use is to be replaced.
    pub(super) fn wear_out(&mut self) {
        self.worn = true;
    }

    /// Starts a rekey if `limits` are reached (TC-31). The next frame sealed carries it; `data`: it has some.
    pub(super) fn check(&self, record: &mut Record, limits: &RekeyLimits, now: Instant, data: bool) {
        let used = record.sealed();
        let old = self.since.is_some_and(|since| now.since(since) >= limits.time);
        if self.worn || old || used.frames >= limits.frames || used.bytes >= limits.bytes {
            // Without data not while the peer has not answered the one before (TC-33): then with a later frame.
            if data {
                record.start_rekey_with_data();
            } else {
                record.start_rekey();
            }
        }
    }

    /// Notes that the record has sealed something.
    pub(super) fn note(&mut self, record: &Record, now: Instant) {
        if self.generation != record.local_generation() {
            *self = Self { generation: record.local_generation(), since: Some(now), worn: false };
        }
        self.since.get_or_insert(now);
    }
}
