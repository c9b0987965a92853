//! What was learnt about the paths to other hosts: some take ENO options out of segments, some drop SYNs that have
//! one. Remembered for a while, so that not every connection has to find it out again; bounded; in memory only.
//!
//! Two findings cost a connection something, a delay or its life: while one of them is fresh, connections that this host opens, and
//! for which policy allows plain TCP, go without ENO. After a pause one connection tries again; every time that fails the pause
//! doubles. The other findings cost nothing, and change nothing: they are for whoever asks.
//!
//! Nobody proves that a path is bad: a peer that is gone, a link that is down and whoever can answer look the same. So what a connection
//! has suffered is a [doubt](Paths::doubt) at first. All that connections suffer at the same time is one event; one is enough where nothing
//! speaks for the path, several are needed where a peer has shown its keys. And what a client does not finish is no reason to deny
//! others encryption: of paths from other hosts nothing is ever avoided.

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
/// Events in a row before a path is doubted on which a connection was encrypted, or from whose host a session is kept.
const MAX_DOUBTS: u32 = 4;
/// On such a path a connection keeps the option in its SYNs for so long at least.
const KEEP_OPTION: Duration = Duration::from_secs(15);

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
    /// Only one direction of its connections passes here: the others' packets take another way.
    OneDirection,
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

/// What a connection has suffered that may be the path's doing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubt {
    /// [`Finding::SynDropped`], [`Finding::NonSynStripped`], or [`Finding::Unfinished`], which may be that.
    pub(crate) finding: Finding,
    /// When the connection began.
    pub(crate) began: Instant,
    /// A session with the host at its end is kept.
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

    /// What is avoided, and what was proven, is forgotten last.
    fn rank(&self) -> (bool, Instant) {
        (self.avoid_until.is_some() || self.encrypted.is_some(), self.seen)
    }

    /// Whether a peer there has shown its keys, and nothing is known since that speaks against it.
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
    /// Forgotten to make room, since it was last asked.
    evicted: u64,
    limits: PathLimits,
    paths: HashMap<PathKey, Path>,
    /// What is forgotten first comes first.
    by_rank: BTreeSet<(bool, Instant, PathKey)>,
}

impl Paths {
    pub(crate) fn new(limits: PathLimits) -> Self {
        Self { evicted: 0, limits, paths: HashMap::new(), by_rank: BTreeSet::new() }
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

    /// Takes in what is known for certain, or what a probe has found.
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

    /// Takes in what a connection that this host has opened has suffered.
    pub(crate) fn doubt(&mut self, now: Instant, key: PathKey, doubt: &Doubt) {
        let blamed = if doubt.finding == Finding::SynDropped { Finding::SynDropped } else { Finding::NonSynStripped };
        self.change(now, key, Finding::Unfinished, |path, limits| {
            let before = path.doubts.filter(|before| before.blamed == blamed);
            // What began before the last event was noticed is part of it.
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

    /// Whether a connection may go on without the option, none of its SYNs having been answered for `waited`. Where a connection was
    /// encrypted before, or a `session` is kept, the link or the peer is more likely to be down than a middlebox to have been put
    /// up: one connection at a time is to find out, and not at once.
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

    /// How many were forgotten to make room since this was last asked.
    pub(crate) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
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
