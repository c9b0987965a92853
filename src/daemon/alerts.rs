//! Log lines for events that someone should look into: at most one line per counter and minute, with the count since
//! the last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::engine::Counters;

/// Minimum time between two lines for a counter.
const PAUSE: Duration = Duration::from_secs(60);

/// Counters that are worth a line, with what they mean and what to do.
const ADVICE: &[(&str, &str)] = &[
    (
        "connections_refused",
        "connections refused: policy is required, and the peer or the path to it lacks TCP-ENO; `enotun flows` lists them",
    ),
    (
        "connections_aborted",
        "connections aborted: the peer went silent, data failed authentication, or no keys could be made; `enotun flows` shows why for a minute",
    ),
    (
        "orphans_refused",
        "segments refused: their connections date from before a crash or an abort, and may have been encrypted",
    ),
    ("limit_flows", "SYNs dropped: the table is full of encrypted connections; raise limits.max-flows"),
    (
        "evicted_inward",
        "unanswered SYNs from the network evicted for later ones: a SYN flood, or limits.max-half-open is too low",
    ),
    (
        "evicted_outward",
        "unanswered SYNs of this host evicted for later ones: a process opens far too many connections, or limits.max-half-open is too low",
    ),
    (
        "unknown_refused",
        "segments of unknown connections refused: policy is required, or the opening was forgotten in a flood",
    ),
    ("limit_exchanges", "key exchanges deferred until the peer retransmits: a service is being flooded"),
    (
        "limit_memory",
        "segments dropped: too many bytes are held for slow readers and gaps; raise limits.max-held-bytes",
    ),
    ("limit_pieces", "segments dropped: data beyond a gap is in too many pieces; an attack, or a very lossy path"),
];

/// What was last reported for each counter.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    said: BTreeMap<&'static str, (u64, Instant)>,
}

impl Alerts {
    /// Lines to log now.
    pub(super) fn lines(&mut self, counters: &Counters, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, count) in counters.named() {
            let Some((_, advice)) = ADVICE.iter().find(|(known, _)| *known == name) else { continue };
            let (before, at) = self.said.get(name).copied().map_or((0, None), |(count, at)| (count, Some(at)));
            if count <= before || at.is_some_and(|at| now.duration_since(at) < PAUSE) {
                continue;
            }
            lines.push(format!("{} {advice} ({name})", count - before));
            self.said.insert(name, (count, now));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_all_the_time_is_said_once_a_minute() {
        let mut alerts = Alerts::default();
        let start = Instant::now();
        let mut counters = Counters::default();
        assert!(alerts.lines(&counters, start).is_empty());
        counters.limit_flows = 5;
        assert_eq!(alerts.lines(&counters, start).len(), 1);
        counters.limit_flows = 900;
        assert!(alerts.lines(&counters, start + Duration::from_secs(59)).is_empty());
        let lines = alerts.lines(&counters, start + Duration::from_secs(60));
        assert!(lines[0].starts_with("895 SYNs dropped"), "{lines:?}");
        assert!(alerts.lines(&counters, start + Duration::from_secs(600)).is_empty());
    }

    #[test]
    fn every_bound_has_advice() {
        for (name, _) in Counters::default().named() {
            assert!(!name.starts_with("limit_") || ADVICE.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    #[test]
    fn advice_is_about_counters_that_exist() {
        let counters = Counters::default().named();
        for (name, _) in ADVICE {
            assert!(counters.iter().any(|(known, _)| *known == *name), "{name}");
        }
    }
}
