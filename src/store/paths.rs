//! What was learnt about the paths to other hosts: some strip ENO options, some drop SYNs that have one. Remembered
//! for a while, so that not every connection has to find it out again; bounded; in memory only.
//!
//! Two findings have a cost, a delay or the connection: while one of them is fresh, connections that this host opens,
//! and for which policy allows plain TCP, go without ENO. After a pause one connection tries again; with every
//! failure the pause doubles. The other findings have no cost and no consequences: they are informational.
//!
//! Nobody proves that a path is bad: a peer that is gone, a link that is down and anyone who can answer look the
//! same. So a connection's failure is a [doubt](Paths::doubt) at first. All failures at the same time are one event;
//! one is enough where nothing speaks for the path, several are needed where a peer has proven its keys. And what a
//! client does not finish is no reason to deny others encryption: paths from other hosts are never avoided.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// Limits of the memory of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathLimits {
    /// Maximum number of paths; 0 remembers none. Findings without consequences are evicted first.
    pub max: usize,
    /// How long connections go without ENO after the first failure.
    pub retry: Duration,
    /// Upper bound of that time, after repeated failures.
    pub retry_max: Duration,
    /// A path is forgotten after this time without use.
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

/// Key exchanges in a row that failed after a successful negotiation, before ENO is assumed to be stripped from the
/// segments in between. A single one can be the application's doing.
const MAX_UNFINISHED: u32 = 2;
/// Events in a row before a path is doubted on which a connection was encrypted, or with whose host a session is
/// cached.
const MAX_DOUBTS: u32 = 4;
/// On such a path a connection keeps the option in its SYNs for at least this long.
const KEEP_OPTION: Duration = Duration::from_secs(15);

/// Which path: to a service (its address and port), or from a host, whatever ports it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathKey {
    ip: IpAddr,
    port: Option<u16>,
}

impl PathKey {
    /// The path of connections that this host opens (`active`) to `remote`, or accepts from it.
    pub(crate) fn new(remote: SocketAddr, active: bool) -> Self {
        Self { ip: remote.ip().to_canonical(), port: active.then_some(remote.port()) }
    }
}

/// How a path treats ENO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It passes: a connection was encrypted.
    Encrypted,
    /// The answer to a SYN with the option had none: the peer does not support ENO, or it was stripped on the way
    /// there or back.
    NoEno,
    /// The option is stripped from SYNs on the way to the peer.
    StrippedThere,
    /// The option is stripped from SYN-ACKs on the way back.
    StrippedBack,
    /// The option came back as it was sent, which no peer does (ENO-7).
    Echoed,
    /// The peer's SYNs have lost the option when they arrive here.
    StrippedHere,
    /// Both SYNs had it and the peer's first acknowledgement did not: it was stripped from this host's SYN-ACK, or
    /// from the acknowledgement.
    AckWithoutEno,
    /// Encryption was agreed on, and the peer ended the connection or sent something other than keys.
    Unfinished,
    /// The option is stripped from non-SYN segments: the two ends disagree whether the connection is encrypted.
    NonSynStripped,
    /// SYNs with the option are dropped, and one without is answered.
    SynDropped,
    /// Only one direction of its connections passes here: the packets of the other take another path.
    OneDirection,
}

impl Finding {
    /// Whether a connection that nevertheless tries ENO loses by it.
    fn is_costly(self) -> bool {
        matches!(self, Self::NonSynStripped | Self::SynDropped)
    }

    /// Whether `self`, shown by a connection, says less than `known`, which may be from a probe.
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
            Self::OneDirection => "one-direction",
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
    /// How the path treats ENO.
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
    /// Retry ENO, once: it failed before.
    TryAgain,
    /// Go without.
    Avoid(Finding),
}

/// A connection's failure that may be due to the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubt {
    /// [`Finding::SynDropped`], [`Finding::NonSynStripped`], or [`Finding::Unfinished`], which may be that.
    pub(crate) finding: Finding,
    /// When the connection began.
    pub(crate) began: Instant,
    /// A session with the host is cached.
    pub(crate) session: bool,
}

/// Doubts in a row.
#[derive(Debug, Clone, Copy)]
struct Doubts {
    blamed: Finding,
    events: u32,
    last: Instant,
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
    doubts: Option<Doubts>,
    /// When a connection last went without the option to see whether that is answered.
    scouted: Option<Instant>,
}

impl Path {
    fn new(now: Instant, finding: Finding) -> Self {
        Self {
            finding,
            times: 0,
            seen: now,
            avoid_until: None,
            pause: Duration::ZERO,
            encrypted: None,
            doubts: None,
            scouted: None,
        }
    }

    /// Avoided paths, and those proven to work, are evicted last.
    fn rank(&self) -> (bool, Instant) {
        (self.avoid_until.is_some() || self.encrypted.is_some(), self.seen)
    }

    /// Whether a peer there has proven its keys, and nothing known since contradicts it.
    fn is_proven(&self, now: Instant, lifetime: Duration) -> bool {
        !self.finding.is_costly() && self.encrypted.is_some_and(|at| now < at + lifetime)
    }

    fn avoid(&mut self, now: Instant, limits: &PathLimits) {
        self.pause = match self.pause {
            Duration::ZERO => limits.retry,
            pause => (pause * 2).min(limits.retry_max),
        };
        self.avoid_until = Some(now + self.pause);
    }
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Number evicted since the last query.
    evicted: u64,
    limits: PathLimits,
    paths: HashMap<PathKey, Path>,
    /// The first to evict comes first.
    by_rank: BTreeSet<(bool, Instant, PathKey)>,
}

impl Paths {
    pub(crate) fn new(limits: PathLimits) -> Self {
        Self { evicted: 0, limits, paths: HashMap::new(), by_rank: BTreeSet::new() }
    }

    /// What a connection should do if policy allows plain TCP. Of several that ask when a pause is over, the first
    /// one tries.
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

    /// Records what is known for certain, or what a probe has found.
    pub(crate) fn learn(&mut self, now: Instant, key: PathKey, finding: Finding) {
        self.change(now, key, finding, |path, limits| {
            if finding.is_vaguer_than(path.finding) {
                return;
            }
            let again = path.finding == finding;
            path.times = if again { path.times.saturating_add(1) } else { 1 };
            path.finding = finding;
            if finding.is_costly() && key.port.is_some() {
                path.avoid(now, limits);
            } else {
                path.avoid_until = None;
                path.pause = Duration::ZERO;
            }
            if finding == Finding::Encrypted {
                path.encrypted = Some(now);
                path.doubts = None;
            }
        });
    }

    /// Records a failure of a connection that this host opened.
    pub(crate) fn doubt(&mut self, now: Instant, key: PathKey, doubt: &Doubt) {
        let blamed = if doubt.finding == Finding::SynDropped { Finding::SynDropped } else { Finding::NonSynStripped };
        self.change(now, key, Finding::Unfinished, |path, limits| {
            let before = path.doubts.filter(|before| before.blamed == blamed);
            // What began before the last event was noticed is part of that event.
            if before.is_some_and(|before| doubt.began <= before.last || now < before.last + limits.retry) {
                return;
            }
            let events = before.map_or(0, |before| before.events).saturating_add(1);
            path.doubts = Some(Doubts { blamed, events, last: now });
            let needed = match doubt.finding {
                _ if path.finding.is_costly() => 1,
                _ if doubt.session || path.is_proven(now, limits.lifetime) => MAX_DOUBTS,
                Finding::Unfinished => MAX_UNFINISHED,
                _ => 1,
            };
            if events >= needed {
                path.times = if path.finding == blamed { path.times.saturating_add(1) } else { 1 };
                path.finding = blamed;
                path.avoid(now, limits);
            } else if needed == MAX_UNFINISHED {
                (path.finding, path.times) = (doubt.finding, events);
            }
        });
    }

    /// Whether a connection may go on without the option, since none of its SYNs was answered for `waited`. Where a
    /// connection was encrypted before, or a `session` is cached, an outage of the link or the peer is more likely
    /// than a new middlebox: one connection at a time finds out, and not at once.
    pub(crate) fn may_go_without(&mut self, now: Instant, key: PathKey, session: bool, waited: Duration) -> bool {
        let path = self.paths.get_mut(&key);
        let proven = path.as_ref().map_or(session, |path| {
            path.is_proven(now, self.limits.lifetime) || (session && !path.finding.is_costly())
        });
        if !proven {
            return true;
        }
        let Some(path) = path else { return waited >= KEEP_OPTION };
        let free = path.scouted.is_none_or(|at| now >= at + self.limits.retry);
        if waited < KEEP_OPTION || !free {
            return false;
        }
        path.scouted = Some(now);
        true
    }

    fn change(&mut self, now: Instant, key: PathKey, new: Finding, change: impl FnOnce(&mut Path, &PathLimits)) {
        if self.limits.max == 0 {
            return;
        }
        let path = self.paths.entry(key).or_insert_with(|| Path::new(now, new));
        let (kept, seen) = path.rank();
        self.by_rank.remove(&(kept, seen, key));
        path.seen = now;
        change(path, &self.limits);
        let (kept, seen) = path.rank();
        self.by_rank.insert((kept, seen, key));
        while self.paths.len() > self.limits.max {
            let Some((_, _, first)) = self.by_rank.pop_first() else { break };
            self.paths.remove(&first);
            self.evicted += 1;
        }
    }

    /// Number evicted since the last call.
    pub(crate) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// When the next path may have to be forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        // The costly ones are behind the others, if there are both: asked for with every packet, so not searched for in vain.
        let both = self.by_rank.first().zip(self.by_rank.last()).is_some_and(|(first, last)| first.0 != last.0);
        let costly = both.then(|| self.by_rank.range((true, Instant::ZERO, FIRST)..).next()).flatten();
        self.by_rank.first().into_iter().chain(costly).map(|(_, seen, _)| *seen + self.limits.lifetime).min()
    }

    /// Forgets what was unused for too long.
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

    /// Forgets all paths, those to and from one host, or those to one of its ports; returns their number.
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

    /// All paths: avoided ones first, then by last use, most recent first.
    pub(crate) fn list(&self, now: Instant) -> Vec<PathInfo> {
        self.by_rank.iter().rev().filter_map(|(_, _, key)| self.info(now, *key)).collect()
    }
}

/// The smallest key.
const FIRST: PathKey = PathKey { ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port: None };

#[cfg(test)]
mod tests;
