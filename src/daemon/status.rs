//! The contents of `enotun status`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::log::Problem;
use super::selectors::Entry;
use crate::engine::{self, Disrupted, Disruption, Finding, FlowInfo, FlowState, PathInfo};
use crate::selector::Policy;
use crate::time::Instant;

/// The state of a daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// The instance.
    pub instance: String,
    /// Its process ID.
    pub pid: u32,
    /// When it came up, RFC 3339 in UTC.
    pub up_since: String,
    /// How long it has been up.
    pub up_seconds: u64,
    /// The policy of selectors given without one.
    pub policy: Policy,
    /// What is protected.
    pub selectors: Vec<Entry>,
    /// What it negotiates.
    pub protocol: Protocol,
    /// Its two devices, plain side first.
    pub devices: Vec<DeviceStatus>,
    /// Whether the random source is adequately seeded; before that nothing is encrypted (ENO-18).
    pub random_ready: bool,
    /// Whether it came up after an instance that died, and refuses connections that were open then.
    pub recovered: bool,
    /// The file to which the keys of all connections are written, for debugging (`up --export-keys`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exporting_keys: Option<PathBuf>,
    /// Current connections.
    pub connections: Connections,
    /// What is remembered about paths.
    pub paths: Paths,
    /// Connections that stay diverted although no selector matches them any more, because they are encrypted.
    pub kept_connections: usize,
    /// The last sign that this machine was cloned, rolled back, suspended or stopped, and what was done.
    pub last_disruption: Option<LastDisruption>,
    /// Counters since it came up ([`crate::engine::Counters`]).
    pub counters: BTreeMap<String, u64>,
    /// Counters of the devices ([`crate::io::IoCounters`]).
    pub io: serde_json::Value,
    /// The last warnings and errors, oldest first.
    pub problems: Vec<Problem>,
}

/// What a daemon negotiates.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Protocol {
    /// TEPs in order of increasing preference (ENO-10).
    pub teps: Vec<String>,
    /// AEADs in order of increasing preference (TC-5).
    pub aeads: Vec<String>,
    /// Whether a = 1 is sent on every connection (ENO-8).
    pub aware: bool,
    /// Whether connections are encrypted only with peers that send a = 1 (ENO-8).
    pub mandatory_aware: bool,
    /// Whether b = 1 is sent in every SYN (ENO-7).
    pub role_b: bool,
    /// Whether sessions are cached and resumed (TC-22).
    pub resumption: bool,
    /// Bytes of a resumption nonce (TC-13).
    pub nonce_length: usize,
    /// Sessions currently cached.
    pub sessions: usize,
    /// The cryptographic backend ([`tcpcrypt::Provider::name`]).
    #[serde(default)]
    pub cryptography: String,
}

impl Protocol {
    /// From `config`, the backend `provider` and the number of cached `sessions`.
    #[must_use]
    pub fn new(config: &engine::Config, provider: &dyn tcpcrypt::Provider, sessions: usize) -> Self {
        let negotiation = &config.negotiation;
        Self {
            teps: negotiation.teps.iter().map(|tep| tep.short_name().to_owned()).collect(),
            aeads: config.ciphers.iter().map(|aead| aead.short_name().to_owned()).collect(),
            aware: negotiation.aware > tcpcrypt::Aware::No,
            mandatory_aware: negotiation.aware == tcpcrypt::Aware::Mandatory,
            role_b: negotiation.active_b,
            resumption: negotiation.resume,
            nonce_length: negotiation.nonce_len,
            sessions,
            cryptography: provider.name().to_owned(),
        }
    }
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// `plain` or `wire`.
    pub side: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether super-packets and partial checksums pass. Without them it is slow.
    pub offloads: bool,
}

/// A sign that this machine was cloned, rolled back, suspended or stopped, and what was done (docs/clones.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDisruption {
    /// What kind of sign.
    pub sign: Disruption,
    /// When, RFC 3339 in UTC, by the current wall clock.
    pub at: String,
    /// How long ago.
    pub seconds_ago: u64,
    /// Cached sessions erased.
    pub sessions_flushed: usize,
    /// Connections that have new keys, or get them with their next frame.
    pub connections_rekeyed: usize,
    /// Connections aborted.
    pub connections_aborted: usize,
}

impl LastDisruption {
    /// What the engine did, as reported at `now`, which is `wall` by the wall clock.
    #[must_use]
    pub fn new(done: &Disrupted, now: Instant, wall: SystemTime) -> Self {
        let ago = now.since(done.at);
        Self {
            sign: done.sign,
            at: humantime::format_rfc3339_seconds(wall.checked_sub(ago).unwrap_or(wall)).to_string(),
            seconds_ago: ago.as_secs(),
            sessions_flushed: done.sessions_flushed,
            connections_rekeyed: done.connections_rekeyed,
            connections_aborted: done.connections_aborted,
        }
    }
}

/// Connections by state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// [`FlowState::Negotiating`].
    pub negotiating: usize,
    /// [`FlowState::Encrypted`].
    pub encrypted: usize,
    /// [`FlowState::Plain`].
    pub plain: usize,
    /// [`FlowState::Closed`].
    pub closed: usize,
    /// Why connections are plain, and how many.
    pub plain_reasons: BTreeMap<String, usize>,
}

/// What is remembered about paths that strip ENO options or drop SYNs that have one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Number of paths remembered.
    pub remembered: usize,
    /// Paths on which connections currently go without ENO, where policy allows that.
    pub avoided: usize,
    /// Those of interest, at most 100: all except those on which encryption works and those to peers without ENO.
    /// Avoided ones come first.
    pub list: Vec<PathInfo>,
}

impl Paths {
    /// Maximum length of the list.
    const LISTED: usize = 100;

    /// Summarises `paths`, which are in the order of [`crate::engine::Engine::paths`].
    #[must_use]
    pub fn new(paths: Vec<PathInfo>) -> Self {
        let remembered = paths.len();
        let avoided = paths.iter().filter(|path| path.avoided_seconds.is_some()).count();
        let interesting = |path: &PathInfo| match path.finding {
            Finding::Encrypted => false,
            // A peer that once supported it is worth a look.
            Finding::NoEno => path.encrypted_seconds.is_some(),
            _ => true,
        };
        let list = paths.into_iter().filter(interesting).take(Self::LISTED).collect();
        Self { remembered, avoided, list }
    }
}

impl Connections {
    /// Counts them.
    #[must_use]
    pub fn count(flows: &[FlowInfo]) -> Self {
        let mut counts = Self::default();
        for flow in flows {
            match flow.state {
                FlowState::Negotiating => counts.negotiating += 1,
                FlowState::Encrypted => counts.encrypted += 1,
                FlowState::Closed => counts.closed += 1,
                FlowState::Plain => {
                    counts.plain += 1;
                    let reason = flow.reason.clone().unwrap_or_else(|| "unknown".to_owned());
                    *counts.plain_reasons.entry(reason).or_default() += 1;
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Counters;
    use crate::io::IoCounters;

    #[test]
    fn every_counter_is_in_the_documentation() {
        let text = include_str!("../../docs/output.md");
        let io = serde_json::to_value(IoCounters::default()).unwrap();
        let io = io["plain"].as_object().unwrap().keys().map(String::as_str);
        for name in Counters::default().named().into_iter().map(|(name, _)| name).chain(io) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }
}
