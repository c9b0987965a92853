//! The size of segments to the peer.

use std::time::Duration;

use tcpcrypt::frame::OVERHEAD;

use crate::time::Instant;
use crate::wire::mss::payload_room;

/// Smaller path MTUs are not believed (like Linux's `min_pmtu`).
const MIN_MSS: usize = 512;
/// After this time a larger size is tried again (RFC 1191, section 6.3; RFC 8201, section 4; Linux's `mtu_expires`).
const LIMIT_AGE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct SegmentSize {
    /// MSS that the peer announced, or this host if that is less, or what the path takes.
    mss: usize,
    /// The same but for what the path takes, if a router has said that it takes less, and when.
    unlimited: Option<(usize, Instant)>,
    /// Bytes of C in a segment, if the kernel's segments show that the path takes less than the MSS.
    stride: Option<usize>,
}

impl SegmentSize {
    pub(super) fn new(mss: u16) -> Self {
        Self { mss: usize::from(mss), unlimited: None, stride: None }
    }

    /// Bytes of C in a segment with `options` bytes of TCP options, at most.
    pub(super) fn most(&self, options: usize) -> usize {
        payload_room(self.mss, options)
    }

    /// The same as far as the kernel's super-packets show what the path takes.
    pub(super) fn segment(&self, options: usize) -> usize {
        let most = self.most(options);
        self.stride.map_or(most, |s| s.min(most))
    }

    /// Bytes of C in a segment of the usual kind. What the kernel's super-packets show has its options off already.
    pub(super) fn usual(&self) -> usize {
        self.segment(if self.stride.is_some() { 0 } else { 12 })
    }

    /// The kernel has cut a super-packet into segments of `payload` bytes.
    pub(super) fn note_super_packet(&mut self, payload: usize, options: usize) {
        let stride = payload + OVERHEAD;
        self.stride = (stride < self.most(options)).then_some(stride);
    }

    /// The path takes no more than `mss` bytes of TCP options and payload in a segment.
    pub(super) fn limit(&mut self, mss: usize, now: Instant) {
        let most = self.unlimited.map_or(self.mss, |(most, _)| most);
        self.unlimited = Some((most, now));
        self.mss = self.mss.min(mss.max(MIN_MSS));
    }

    /// Paths change: a measured limit is forgotten after a while.
    pub(super) fn forget_limit(&mut self, now: Instant) {
        if let Some((most, _)) = self.unlimited.take_if(|(_, at)| now >= *at + LIMIT_AGE) {
            self.mss = most;
        }
    }
}

/// Data in one frame so that the frame fits `segment` bytes.
pub(super) fn piece(segment: usize) -> usize {
    segment.saturating_sub(OVERHEAD).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_says_counts_for_a_while_and_not_below_what_is_believed() {
        let mut size = SegmentSize::new(1460);
        assert_eq!((size.most(12), size.segment(12)), (1448, 1448));
        size.limit(1200, Instant::ZERO);
        assert_eq!(size.most(0), 1200);
        size.limit(10, Instant::ZERO);
        assert_eq!(size.most(0), MIN_MSS);
        size.limit(1400, Instant::ZERO);
        assert_eq!(size.most(0), MIN_MSS, "a larger one is no limit");
        size.forget_limit(Instant::ZERO + LIMIT_AGE / 2);
        assert_eq!(size.most(0), MIN_MSS);
        size.forget_limit(Instant::ZERO + LIMIT_AGE);
        assert_eq!(size.most(0), 1460);
    }

    #[test]
    fn super_packets_show_what_the_path_takes_while_it_is_less() {
        let mut size = SegmentSize::new(1460);
        size.note_super_packet(1000, 12);
        assert_eq!((size.segment(12), size.usual()), (1000 + OVERHEAD, 1000 + OVERHEAD));
        assert_eq!(size.most(12), 1448);
        size.note_super_packet(1448 - OVERHEAD, 12);
        assert_eq!((size.segment(12), size.usual()), (1448, 1448));
    }
}
