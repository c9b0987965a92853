//! Ranges of values.

use super::position::InvalidValue;

/// An error unless `value`, if present, is `allowed`.
pub(super) fn in_range(
    key: &str,
    value: Option<u64>,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<(), InvalidValue> {
    match value.filter(|value| !allowed.contains(value)) {
        Some(value) => {
            Err(InvalidValue::new(key, format!("{value} is out of range, {} to {}", allowed.start(), allowed.end())))
        }
        None => Ok(()),
    }
}

/// Table entries: at 1 kB each this is more memory than a host has to spare.
pub(super) const ENTRIES_MAX: u64 = 1 << 24;
/// Two frames of maximum size; less would stop connections rather than bound them.
pub(super) const HELD_MIN: u64 = 1 << 17;
pub(super) const HELD_MOST: u64 = 1 << 40;
/// Seconds.
pub(super) const HOUR: u64 = 3600;
pub(super) const DAY: u64 = 24 * HOUR;

/// Busy polling for longer than this has no further benefit.
pub(super) const BUSY_POLL_MAX: u32 = 10_000;
