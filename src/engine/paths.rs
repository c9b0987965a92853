//! What was learnt about the paths to other hosts: some take ENO options out of segments, some drop SYNs that have
//! one. Remembered for a while, so that not every connection has to find it out again; bounded; in memory only.
//!
//! Two findings cost a connection something, a delay or its life: while one of them is fresh, connections for which
//! policy allows plain TCP go without ENO. After a pause one connection tries again; every time that fails the pause
//! doubles. The other findings cost nothing, and change nothing: they are for whoever asks.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Bounds of what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathLimits {
    /// Paths remembered at most; 0 remembers none. What costs nothing is forgotten first.
    pub max: usize,
    /// How long connections go without ENO after the first time that it cost something.
    pub retry: Duration,
    /// The longest that this becomes, when it fails again and again.
    pub retry_max: Duration,
    /// A path that was not used for so long is forgotten.
    pub lifetime: Duration,
}

impl Default for PathLimits {
    fn default() -> Self {
        Self {
            max: 8192,
            retry: Duration::from_secs(60),
            retry_max: Duration::from_secs(3600),
            lifetime: Duration::from_secs(24 * 3600),
        }
    }
}

/// Key exchanges in a row that came to nothing after a good negotiation, before ENO is taken to be removed from the
/// segments between. One can be the application's doing.
const MAX_UNFINISHED: u32 = 2;

/// Which path: to a service (its address and port), or from a host, whatever ports it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathKey {
    ip: IpAddr,
    port: Option<u16>,
}

impl PathKey {
    /// The path of connections that this host opens (`active`) to `remote`, or that it gets from there.
    pub(crate) fn new(remote: SocketAddr, active: bool) -> Self {
        Self { ip: remote.ip().to_canonical(), port: active.then_some(remote.port()) }
    }
}

/// What a path does with ENO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It lets it through: a connection was encrypted.
    Encrypted,
    /// The answer to a SYN with the option had none: the peer has no ENO, or it was taken out on the way there or back.
    NoEno,
    /// The option is taken out of SYNs on the way to the peer.
    StrippedThere,
    /// The option is taken out of SYN-ACKs on their way back.
    StrippedBack,
    /// The option came back as it was sent, which no peer does (ENO-7).
    Echoed,
    /// The peer's SYNs have lost the option when they come here.
    StrippedHere,
    /// Both SYNs had it and the peer's first acknowledgement did not: it was taken out of this host's SYN-ACK, or of
    /// the acknowledgement.
    AckWithoutEno,
    /// It was agreed to encrypt, and the peer ended the connection or sent something else than keys.
    Unfinished,
    /// The option is taken out of segments without SYN: the two ends do not agree whether the connection is encrypted.
    NonSynStripped,
    /// SYNs with the option vanish, and one without is answered.
    SynDropped,
}

impl Finding {
    /// Whether a connection that tries ENO all the same loses by it.
    fn is_costly(self) -> bool {
        matches!(self, Self::NonSynStripped | Self::SynDropped)
    }

    /// Whether `self`, which a connection has shown, says less than `known`, which may be a probe's.
    fn is_vaguer_than(self, known: Self) -> bool {
        self == Self::NoEno && matches!(known, Self::StrippedThere | Self::StrippedBack)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Encrypted => "encrypted",
            Self::NoEno => "no-eno",
            Self::StrippedThere => "stripped-there",
            Self::StrippedBack => "stripped-back",
            Self::Echoed => "echoed",
            Self::StrippedHere => "stripped-here",
            Self::AckWithoutEno => "ack-without-eno",
            Self::Unfinished => "unfinished",
            Self::NonSynStripped => "non-syn-stripped",
            Self::SynDropped => "syn-dropped",
        })
    }
}

/// One path, as `enotun status` and `enotun probe` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// The other host.
    pub address: IpAddr,
    /// Its port, for connections to it; `null` for those that come from it.
    pub port: Option<u16>,
    /// What the path does with ENO.
    pub finding: Finding,
    /// How often that was seen in a row.
    pub times: u32,
    /// Seconds since it was seen last.
    pub seen_seconds: u64,
    /// Seconds for which connections still go without ENO, where policy allows that; `null` if they do not.
    pub avoided_seconds: Option<u64>,
    /// Seconds since a connection on this path was encrypted, if one was.
    pub encrypted_seconds: Option<u64>,
}

/// What a new connection should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing speaks against ENO.
    Offer,
    /// Try it again, once: it cost something before.
    TryAgain,
    /// Go without.
    Avoid(Finding),
}

#[derive(Debug, Clone)]
struct Path {
    finding: Finding,
    times: u32,
    seen: Instant,
    /// No ENO before this.
    avoid_until: Option<Instant>,
    pause: Duration,
    encrypted: Option<Instant>,
}

impl Path {
    fn rank(&self) -> (bool, Instant) {
        (self.finding.is_costly(), self.seen)
    }
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Paths {
    limits: PathLimits,
    paths: HashMap<PathKey, Path>,
    /// What is forgotten first comes first.
    by_rank: BTreeSet<(bool, Instant, PathKey)>,
}

impl Paths {
    pub(crate) fn new(limits: PathLimits) -> Self {
        Self { limits, paths: HashMap::new(), by_rank: BTreeSet::new() }
    }

    /// What a connection should do for which policy allows plain TCP. Of several that ask when a pause is over, the
    /// first is to try.
    pub(crate) fn advice(&mut self, now: Instant, key: PathKey) -> Advice {
        let Some(path) = self.paths.get_mut(&key) else { return Advice::Offer };
        match path.avoid_until {
            None => Advice::Offer,
            Some(until) if now < until => Advice::Avoid(path.finding),
            Some(_) => {
                path.avoid_until = Some(now + path.pause);
                Advice::TryAgain
            }
        }
    }

    /// Takes in what a connection or a probe has shown.
    pub(crate) fn learn(&mut self, now: Instant, key: PathKey, finding: Finding) {
        if self.limits.max == 0 {
            return;
        }
        let new = Path { finding, times: 0, seen: now, avoid_until: None, pause: Duration::ZERO, encrypted: None };
        let path = self.paths.entry(key).or_insert(new);
        let (costly, seen) = path.rank();
        self.by_rank.remove(&(costly, seen, key));
        path.seen = now;
        let known = path.finding == Finding::NonSynStripped && finding == Finding::Unfinished;
        let finding = if known { path.finding } else { finding };
        if !finding.is_vaguer_than(path.finding) {
            let again = path.finding == finding;
            path.times = if again { path.times.saturating_add(1) } else { 1 };
            path.finding = finding;
            if finding == Finding::Unfinished && path.times >= MAX_UNFINISHED {
                (path.finding, path.times) = (Finding::NonSynStripped, 1);
            }
            if path.finding.is_costly() {
                path.pause = match path.pause {
                    Duration::ZERO => self.limits.retry,
                    pause => (pause * 2).min(self.limits.retry_max),
                };
                path.avoid_until = Some(now + path.pause);
            } else if finding != Finding::Unfinished {
                path.avoid_until = None;
                path.pause = Duration::ZERO;
            }
            if finding == Finding::Encrypted {
                path.encrypted = Some(now);
            }
        }
        let (costly, seen) = path.rank();
        self.by_rank.insert((costly, seen, key));
        while self.paths.len() > self.limits.max {
            let Some((_, _, first)) = self.by_rank.pop_first() else { break };
            self.paths.remove(&first);
        }
    }

    /// When the next path may have to be forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let first = |costly| self.by_rank.range((costly, Instant::ZERO, FIRST)..).next();
        [first(false), first(true)].into_iter().flatten().map(|(_, seen, _)| *seen + self.limits.lifetime).min()
    }

    /// Forgets what was not used for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for costly in [false, true] {
            while let Some((c, seen, key)) = self.by_rank.range((costly, Instant::ZERO, FIRST)..).next().copied()
                && c == costly
                && seen + self.limits.lifetime <= now
            {
                self.by_rank.remove(&(c, seen, key));
                self.paths.remove(&key);
            }
        }
    }

    /// Forgets all paths, or those to and from one host, or to one of its ports; how many there were.
    pub(crate) fn forget(&mut self, host: Option<IpAddr>, port: Option<u16>) -> usize {
        let host = host.map(|ip| ip.to_canonical());
        let goes = |key: &PathKey| host.is_none_or(|ip| key.ip == ip) && (port.is_none() || key.port == port);
        let before = self.paths.len();
        self.paths.retain(|key, _| !goes(key));
        self.by_rank.retain(|(_, _, key)| !goes(key));
        before - self.paths.len()
    }

    /// One path.
    pub(crate) fn info(&self, now: Instant, key: PathKey) -> Option<PathInfo> {
        self.paths.get(&key).map(|path| PathInfo {
            address: key.ip,
            port: key.port,
            finding: path.finding,
            times: path.times,
            seen_seconds: now.since(path.seen).as_secs(),
            avoided_seconds: path.avoid_until.filter(|until| *until > now).map(|until| until.since(now).as_secs()),
            encrypted_seconds: path.encrypted.map(|at| now.since(at).as_secs()),
        })
    }

    /// All paths: those that are avoided first, then by when they were used, the last first.
    pub(crate) fn list(&self, now: Instant) -> Vec<PathInfo> {
        self.by_rank.iter().rev().filter_map(|(_, _, key)| self.info(now, *key)).collect()
    }
}

/// The least of all keys.
const FIRST: PathKey = PathKey { ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port: None };

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
