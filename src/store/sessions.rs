//! The cache of sessions that can be resumed (RFC 8548, section 3.5; TC-12 to TC-22): in memory only, bounded, and
//! everything that leaves it is erased.
//!
//! A fresh session starts a *chain*: `ss[1]`, `ss[2]`, ... Both hosts have the same one, and either may use its next
//! secret. This cache keeps a window of each chain: the lowest unused secret and some after it, to recognise the
//! identifiers of SYNs that overtook others. A secret leaves the window the moment a SYN or SYN-ACK names it, whatever
//! becomes of the connection, and the window only moves forward: so nothing is used twice, in either role (TC-19). If
//! two hosts propose the same secret to each other at once, neither knows it any more when the other's SYN comes, and
//! both make fresh keys. That this is rare is seen to by preferring chains that this host began as A.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tcpcrypt::constants::RESUME_HALF_LEN;
use tcpcrypt::{AeadId, CachedSecret, Role, Tep};

use crate::time::Instant;

/// Limits of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Maximum number of chains; 0 keeps none. The least recently used is evicted first.
    pub max: usize,
    /// Maximum number of chains with one address, of those. Many hosts may share one address.
    pub per_peer: usize,
    /// A chain is erased after this time without use.
    pub lifetime: Duration,
    /// A chain is erased this long after its key exchange, however much it is used: whoever learns one of its secrets
    /// learns all later ones.
    pub max_age: Duration,
    /// Maximum number of a chain's secrets that are used, proposed or skipped. Then fresh keys are made.
    pub max_uses: u32,
    /// Number of upcoming identifiers of each chain that are recognised, at least 1.
    pub lookahead: u8,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max: 16_384,
            per_peer: 128,
            lifetime: Duration::from_secs(2 * 3600),
            max_age: Duration::from_secs(24 * 3600),
            max_uses: 1000,
            lookahead: 8,
        }
    }
}

/// After this many refusals in a row nothing of a chain is proposed any more: the peer has forgotten it, or is so far
/// behind that it does not recognise the proposals. The chain stays, to be recognised if the peer proposes it. Fewer
/// refusals may be due to reordered SYNs, or to another host behind the same address.
const MAX_REFUSALS: u8 = 8;

/// After this many refusals in a row, the last one of a chain that was never accepted since it was made, an address
/// is assumed to have more than one host: a host that has just made a session does not forget it.
const FARM_REFUSALS: u8 = 2;

/// After this many accepted proposals in a row, one host is assumed again.
const ALONE: u8 = 16;

/// Number of a farm's chains that take turns.
const ROTATION: usize = 8;

/// A chain's name in this cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChainId(u64);

/// One chain, as `enotun cache list` shows it. It contains nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// The host that it was last used with.
    pub peer: IpAddr,
    /// The TEP of the original session, e.g. `ECDHE-Curve25519`.
    pub tep: &'static str,
    /// The AEAD of the original session.
    pub aead: &'static str,
    /// This host's role in the original session, `A` or `B` (TC-15).
    pub original_role: char,
    /// Index of the chain's next secret, counted from the original session's, which was 0.
    pub index: u64,
    /// Seconds since the original session began.
    pub age_seconds: u64,
    /// Seconds until it is erased, unless it is used before.
    pub expires_seconds: u64,
}

#[derive(Clone)]
struct Chain {
    peer: IpAddr,
    /// The peer's port, if this host was the active opener: each port of an address may belong to another host.
    port: Option<u16>,
    tep: Tep,
    aead: AeadId,
    original_role: Role,
    /// Unused secrets from `index` on, never empty.
    window: VecDeque<CachedSecret>,
    index: u64,
    made: Instant,
    used: Instant,
    /// Proposals not accepted since the peer last accepted one.
    refusals: u8,
    /// The peer has accepted one.
    proven: bool,
    /// When, in [`Sessions::ticks`], it was made or last accepted,
    good: u64,
    /// and when it was last proposed.
    tried: u64,
    /// Proposals since one was last accepted: the peer may have to recognise that many identifiers ahead.
    ahead: u8,
}

impl Chain {
    /// When it is erased, unless it is used before.
    fn expires(&self, limits: &SessionLimits) -> Instant {
        (self.used + limits.lifetime).min(self.made + limits.max_age)
    }

    /// Number of its secrets that may still be used.
    fn left(&self, limits: &SessionLimits) -> u64 {
        // The first that is cached is ss[1].
        (u64::from(limits.max_uses) + 1).saturating_sub(self.index)
    }
}

/// The sessions of one address.
#[derive(Default, Clone)]
struct Host {
    /// Its chains, the one used longest ago first.
    chains: Vec<ChainId>,
    /// Connections to it reach several hosts, each with its own sessions.
    farm: bool,
    /// Refusals in a row,
    refusals: u8,
    /// and proposals accepted in a row.
    accepted: u8,
}

/// Events in the cache, for the counters.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Erased {
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
}

/// The cache.
#[derive(Clone)]
pub(crate) struct Sessions {
    limits: SessionLimits,
    /// By identifier, which is in order of age.
    chains: BTreeMap<ChainId, Chain>,
    /// The peer's halves of all identifiers in all windows.
    halves: HashMap<[u8; RESUME_HALF_LEN], ChainId>,
    /// By address.
    peers: HashMap<IpAddr, Host>,
    /// By last use.
    by_use: BTreeSet<(Instant, ChainId)>,
    made: u64,
    /// Incremented with each event, to order them: two may have the same time.
    ticks: u64,
    /// Number of flushes: what was made before one is not cached any more.
    flushes: u64,
    erased: Erased,
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            chains: BTreeMap::new(),
            halves: HashMap::new(),
            peers: HashMap::new(),
            by_use: BTreeSet::new(),
            made: 0,
            ticks: 0,
            flushes: 0,
            erased: Erased::default(),
        }
    }

    /// Caches `ss[1]` of a fresh session with `peer`. `active`: this host opened the connection, so the port is that of
    /// a service. `None` if nothing is cached.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        active: bool,
        first: CachedSecret,
    ) -> Option<ChainId> {
        if self.limits.max == 0 || self.limits.per_peer == 0 || self.limits.max_uses == 0 {
            return None;
        }
        let id = ChainId(self.made);
        self.made += 1;
        self.ticks += 1;
        let ip = peer.ip().to_canonical();
        let mut chain = Chain {
            peer: ip,
            port: active.then_some(peer.port()),
            tep: first.tep(),
            aead: first.aead(),
            original_role: first.original_role(),
            window: VecDeque::from([first]),
            index: 1,
            made: now,
            used: now,
            refusals: 0,
            proven: false,
            good: self.ticks,
            tried: self.ticks,
            ahead: 0,
        };
        if let Some(first) = chain.window.front() {
            self.halves.insert(*first.peer_half(), id);
        }
        fill(&mut self.halves, id, &mut chain, &self.limits);
        self.chains.insert(id, chain);
        self.by_use.insert((now, id));
        self.file(ip, id);
        while self.chains.len() > self.limits.max {
            let Some((_, oldest)) = self.by_use.first().copied() else { break };
            self.remove(oldest);
            self.erased.evicted += 1;
        }
        Some(id)
    }

    /// Adds a chain to its peer's address, and evicts the oldest there if there are too many.
    fn file(&mut self, ip: IpAddr, id: ChainId) {
        let filed = &mut self.peers.entry(ip).or_default().chains;
        filed.push(id);
        if filed.len() > self.limits.per_peer
            && let Some(oldest) = filed.first().copied().filter(|oldest| *oldest != id)
        {
            self.remove(oldest);
            self.erased.evicted += 1;
        }
    }

    /// The secret to propose to `peer`, if there is one: of a session made with the same port, begun by this host,
    /// last made or resumed, by preference. It is not used yet.
    ///
    /// Behind one address there may be a farm of hosts, of which each knows its own sessions only, and any may get the
    /// SYN. With n of them no choice does better than one time in n, unless they take turns in a way that could be
    /// foreseen; but the last one made, by the host before, can be wrong every time. So a chain that was tried is held on
    /// to until it is accepted, those that were once take turns, and none runs further ahead of its host than that
    /// recognises, however many connections are opened at once.
    pub(crate) fn candidate(
        &self,
        now: Instant,
        peer: SocketAddr,
        allowed: impl Fn(Tep, AeadId) -> bool,
    ) -> Option<(ChainId, CachedSecret)> {
        let host = self.peers.get(&peer.ip().to_canonical())?;
        let usable = |chain: &Chain| {
            allowed(chain.tep, chain.aead) && now < chain.expires(&self.limits) && chain.refusals < MAX_REFUSALS
        };
        let chains = host.chains.iter().filter_map(|id| Some((*id, self.chains.get(id)?)));
        let chains = chains.filter(|(_, chain)| usable(chain));
        let same_port = |chain: &Chain| chain.port == Some(peer.port());
        let began = |chain: &Chain| chain.original_role == Role::A;
        let (id, chain) = if host.farm {
            // Of those, the best of a kind: within reach, of the same port, accepted once, held on to.
            let kind = |chain: &Chain| {
                let held = !chain.proven && chain.refusals > 0;
                (chain.ahead < self.limits.lookahead, same_port(chain), chain.proven, held)
            };
            let mut chains: Vec<(ChainId, &Chain)> = chains.collect();
            let best = chains.iter().map(|(_, chain)| kind(chain)).max()?;
            chains.retain(|(_, chain)| kind(chain) == best);
            if best.2 {
                // The present hosts have accepted one lately. A chain that was refused lets others go first.
                chains.sort_unstable_by_key(|(_, chain)| u64::MAX - chain.good);
                chains.truncate(ROTATION);
                chains.into_iter().min_by_key(|(_, chain)| (chain.refusals, chain.tried))?
            } else {
                chains.into_iter().max_by_key(|(_, chain)| (chain.tried, began(chain)))?
            }
        } else {
            chains.max_by_key(|(_, chain)| (u8::MAX - chain.refusals, same_port(chain), began(chain), chain.good))?
        };
        // The lowest that was not tried yet (TC-19).
        Some((id, chain.window.front()?.clone()))
    }

    /// Whether a session with `peer` is cached, whoever opened its connection.
    pub(crate) fn knows(&self, now: Instant, peer: IpAddr) -> bool {
        let chains = self.peers.get(&peer.to_canonical()).into_iter().flat_map(|host| &host.chains);
        chains.filter_map(|id| self.chains.get(id)).any(|chain| now < chain.used + self.limits.lifetime)
    }

    /// Takes out the result of [`Self::candidate`]: a SYN names it now.
    pub(crate) fn reserve(&mut self, id: ChainId) {
        self.advance(id, 1);
        self.ticks += 1;
        if let Some(chain) = self.chains.get_mut(&id) {
            chain.tried = self.ticks;
            chain.ahead = chain.ahead.saturating_add(1);
        }
    }

    /// The unused secret that the peer names by `half`. From here on it is used, and those before it are discarded:
    /// keeping them would mean keeping what the keys in use can be derived from.
    pub(crate) fn recognise(
        &mut self,
        now: Instant,
        tep: Tep,
        half: &[u8; RESUME_HALF_LEN],
        allowed: impl Fn(AeadId) -> bool,
    ) -> Option<(ChainId, CachedSecret)> {
        let id = *self.halves.get(half)?;
        let chain = self.chains.get(&id)?;
        if chain.tep != tep || !allowed(chain.aead) || now >= chain.expires(&self.limits) {
            return None;
        }
        let at = chain.window.iter().position(|secret| secret.peer_half() == half)?;
        let secret = chain.window.get(at)?.clone();
        self.advance(id, at + 1);
        Some((id, secret))
    }

    /// Discards the first `n` secrets of a window and derives as many at its end. A chain whose last secret this was
    /// is erased.
    fn advance(&mut self, id: ChainId, n: usize) {
        let Some(chain) = self.chains.get_mut(&id) else { return };
        fill_to(&mut self.halves, id, chain, n + 1);
        for secret in chain.window.drain(..n.min(chain.window.len())) {
            forget(&mut self.halves, id, &secret);
            chain.index += 1;
        }
        if chain.left(&self.limits) == 0 {
            self.remove(id);
            self.erased.expired += 1;
            return;
        }
        fill(&mut self.halves, id, chain, &self.limits);
    }

    /// A connection resumed with a secret of this chain is established: `peer` has the chain, at this address.
    pub(crate) fn confirm(&mut self, now: Instant, id: ChainId, peer: SocketAddr) {
        let Some(chain) = self.chains.get_mut(&id) else { return };
        self.by_use.remove(&(chain.used, id));
        self.ticks += 1;
        (chain.used, chain.good, chain.proven, chain.ahead) = (now, self.ticks, true, 0);
        let refused = std::mem::take(&mut chain.refusals) > 0;
        if let Some(host) = self.peers.get_mut(&chain.peer) {
            host.accepted = host.accepted.saturating_add(1);
            host.refusals = 0;
            // Refused and then accepted: by different hosts.
            host.farm = if refused { true } else { host.farm && host.accepted < ALONE };
        }
        self.by_use.insert((now, id));
        let ip = peer.ip().to_canonical();
        if chain.peer != ip {
            let from = std::mem::replace(&mut chain.peer, ip);
            chain.port = None;
            unfile(&mut self.peers, from, id);
            self.file(ip, id);
        } else if let Some(host) = self.peers.get_mut(&ip) {
            host.chains.retain(|other| *other != id);
            host.chains.push(id);
        }
    }

    /// The peer did not accept a proposal from this chain.
    pub(crate) fn refused(&mut self, id: ChainId) {
        let Some(chain) = self.chains.get_mut(&id) else { return };
        chain.refusals = chain.refusals.saturating_add(1);
        if let Some(host) = self.peers.get_mut(&chain.peer) {
            host.accepted = 0;
            host.refusals = host.refusals.saturating_add(1);
            host.farm |= !chain.proven && host.refusals >= FARM_REFUSALS;
            if host.refusals < MAX_REFUSALS {
                return;
            }
            // Most likely, whoever had accepted them is gone: start over.
            (host.farm, host.refusals) = (false, 0);
            for id in &host.chains {
                if let Some(chain) = self.chains.get_mut(id) {
                    chain.proven = false;
                }
            }
        }
    }

    /// Erases a chain; returns whether it existed.
    pub(crate) fn remove(&mut self, id: ChainId) -> bool {
        let Some(chain) = self.chains.remove(&id) else { return false };
        for secret in &chain.window {
            forget(&mut self.halves, id, secret);
        }
        self.by_use.remove(&(chain.used, id));
        unfile(&mut self.peers, chain.peer, id);
        true
    }

    /// Erases all chains, or those with one address; returns their number.
    pub(crate) fn flush(&mut self, peer: Option<IpAddr>) -> usize {
        self.flushes += 1;
        let ids: Vec<ChainId> = match peer {
            Some(ip) => self.peers.get(&ip.to_canonical()).map(|host| host.chains.clone()).unwrap_or_default(),
            None => self.chains.keys().copied().collect(),
        };
        ids.into_iter().filter(|id| self.remove(*id)).count()
    }

    /// Number of calls of [`Self::flush`].
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    /// When the next chain expires.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let unused = self.by_use.first().map(|(used, _)| *used + self.limits.lifetime);
        let old = self.chains.first_key_value().map(|(_, chain)| chain.made + self.limits.max_age);
        unused.into_iter().chain(old).min()
    }

    /// Erases what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        let limits = self.limits;
        loop {
            let unused = self.by_use.first().filter(|(used, _)| *used + limits.lifetime <= now).map(|(_, id)| *id);
            let old = self.chains.first_key_value().filter(|(_, chain)| chain.made + limits.max_age <= now);
            let Some(id) = unused.or(old.map(|(id, _)| *id)) else { return };
            self.remove(id);
            self.erased.expired += 1;
        }
    }

    /// Number of chains erased on expiry or eviction since the last call.
    pub(crate) fn take_erased(&mut self) -> Erased {
        std::mem::take(&mut self.erased)
    }

    /// The contents of the cache, in order of creation.
    pub(crate) fn list(&self, now: Instant) -> Vec<SessionInfo> {
        let info = |chain: &Chain| SessionInfo {
            peer: chain.peer,
            tep: chain.tep.name(),
            aead: chain.aead.name(),
            original_role: match chain.original_role {
                Role::A => 'A',
                Role::B => 'B',
            },
            index: chain.index,
            age_seconds: now.since(chain.made).as_secs(),
            expires_seconds: chain.expires(&self.limits).since(now).as_secs(),
        };
        self.chains.values().map(info).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.chains.len()
    }
}

/// Derives secrets until the window has its full look-ahead, without exceeding the maximum number of uses.
fn fill(halves: &mut HashMap<[u8; RESUME_HALF_LEN], ChainId>, id: ChainId, chain: &mut Chain, limits: &SessionLimits) {
    let left = usize::try_from(chain.left(limits)).unwrap_or(usize::MAX);
    fill_to(halves, id, chain, usize::from(limits.lookahead.max(1)).min(left));
}

fn fill_to(halves: &mut HashMap<[u8; RESUME_HALF_LEN], ChainId>, id: ChainId, chain: &mut Chain, n: usize) {
    while chain.window.len() < n {
        let Some(next) = chain.window.back().map(CachedSecret::next) else { return };
        halves.insert(*next.peer_half(), id);
        chain.window.push_back(next);
    }
}

fn forget(halves: &mut HashMap<[u8; RESUME_HALF_LEN], ChainId>, id: ChainId, secret: &CachedSecret) {
    // Two chains with the same identifier are possible, if very unlikely.
    if halves.get(secret.peer_half()) == Some(&id) {
        halves.remove(secret.peer_half());
    }
}

fn unfile(peers: &mut HashMap<IpAddr, Host>, ip: IpAddr, id: ChainId) {
    if let Some(host) = peers.get_mut(&ip) {
        host.chains.retain(|other| *other != id);
        if host.chains.is_empty() {
            peers.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests;
