//! Segment sizes.

/// Linux's `TCP_MIN_SND_MSS`, the default of `tcp_min_snd_mss`: the smallest MSS that is obeyed. All TCP options and 8 bytes fit.
pub const MIN_SND_MSS: usize = 48;

/// Payload bytes of a segment with `options` bytes of TCP options to a peer that announced `mss`, which covers both
/// (RFC 6691).
#[must_use]
pub fn payload_room(mss: usize, options: usize) -> usize {
    mss.max(MIN_SND_MSS).saturating_sub(options).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mss_is_obeyed_down_to_what_linux_obeys() {
        assert_eq!(payload_room(1460, 12), 1448);
        assert_eq!(payload_room(50, 12), 38);
        assert_eq!(payload_room(0, 12), 36);
        assert_eq!(payload_room(1, 40), 8);
    }
}
