//! The timestamps of a connection (RFC 7323).

use std::time::Duration;

use crate::time::Instant;
use crate::wire::options::Timestamps;

/// The timestamps of both ends, for the segments that enotun sends on its own and for those it translates.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    /// Latest value of the local kernel's clock,
    kernel: u32,
    /// and when it came.
    kernel_at: Instant,
    /// Latest value of the kernel's clock that the peer has echoed.
    echo: u32,
    /// The peer's timestamp to echo, which is also the latest believed: from a segment that began at or before the
    /// last acknowledgement sent (TS.Recent: RFC 7323, section 4.3). Accepting one from further ahead in the window
    /// would be enough to make everything that follows look old, here and to the kernel.
    recent: u32,
    recent_at: Instant,
}

/// After this long without a segment, a peer's timestamps say nothing about its age (RFC 7323, section 5.5).
const TIMESTAMPS_VALID: Duration = Duration::from_secs(24 * 24 * 3600);

impl Clocks {
    /// From both SYNs.
    pub(crate) fn new(kernel: Timestamps, peer: Timestamps, now: Instant) -> Self {
        Self { kernel: kernel.value, kernel_at: now, echo: peer.echo, recent: peer.value, recent_at: now }
    }

    /// Timestamps of a segment that enotun sends to the peer.
    pub(crate) fn to_wire(self) -> Timestamps {
        Timestamps { value: self.kernel, echo: self.recent }
    }

    /// Timestamps of a segment that enotun sends to the local kernel.
    pub(crate) fn to_plain(self) -> Timestamps {
        Timestamps { value: self.recent, echo: self.echo }
    }

    /// Records those of a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, ts: Timestamps, now: Instant) {
        if later(ts.value, self.kernel) || now.since(self.kernel_at) > TIMESTAMPS_VALID {
            self.kernel = ts.value;
            self.kernel_at = now;
        }
    }

    /// Whether a segment with this timestamp of the peer's is old (PAWS).
    pub(crate) fn is_old(&self, value: u32, now: Instant) -> bool {
        !later(value, self.recent) && now.since(self.recent_at) <= TIMESTAMPS_VALID
    }

    /// Records those of an acceptable segment from the peer; `in_order`: it began at or before the last
    /// acknowledgement.
    pub(crate) fn from_peer(&mut self, ts: Timestamps, in_order: bool, now: Instant) {
        // The most recent echo has the least elapsed time; none comes from the future.
        let age = |echo| self.kernel.wrapping_sub(echo);
        if age(ts.echo) <= age(self.echo) {
            self.echo = ts.echo;
        }
        if in_order && !self.is_old(ts.value, now) {
            self.recent = ts.value;
            self.recent_at = now;
        }
    }
}

/// Whether timestamp `a` is not before `b`.
fn later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}
