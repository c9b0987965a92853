//! The table of connections: what each has proven decides how much room its kind has, and what is evicted when there
//! is none.
//!
//! A SYN proves nothing: it costs an entry of its own kind, and one of the oldest entries, of the address with the
//! most, makes room for the next. Lasting room is for connections whose handshake is complete; one that is over makes
//! room at once. No limit makes a connection plain.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::net::IpAddr;

use crate::flow::{Config, Counters, Flow, Waits};
use crate::time::Instant;
use crate::wire::FlowKey;

/// What a connection has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The peer has sent a SYN with ENO, and has not acknowledged the answer: it may be anybody.
    Inward,
    /// The local kernel has sent a SYN with ENO, and nobody has answered.
    Outward,
    /// A plain connection opened by the peer, its handshake incomplete.
    PlainInward,
    /// A plain connection opened by the local kernel, its handshake incomplete.
    PlainOutward,
    /// Both ends have answered; keys are being made.
    Handshake,
    /// Plain, and open.
    Plain,
    /// Encrypted.
    Encrypted,
    /// Over before it was open.
    Refused,
    /// Over.
    Closed,
}

impl Class {
    fn of(flow: &Flow) -> Self {
        match flow {
            Flow::Opening(opening) if opening.kernel_expects().is_some() => Self::Handshake,
            Flow::Opening(opening) if opening.is_active() => Self::Outward,
            Flow::Opening(_) => Self::Inward,
            Flow::Plain(plain) if plain.has_ended() => Self::Closed,
            Flow::Plain(plain) if plain.is_open() => Self::Plain,
            Flow::Plain(plain) if plain.is_active() => Self::PlainOutward,
            Flow::Plain(_) => Self::PlainInward,
            Flow::Encrypted(encrypted) if encrypted.is_ready() => Self::Encrypted,
            Flow::Encrypted(_) => Self::Handshake,
            Flow::Closed(closed) if closed.was_refused() => Self::Refused,
            Flow::Closed(_) => Self::Closed,
        }
    }

    /// The limit; `None`: they share the room for lasting connections.
    fn most(self, config: &Config) -> Option<usize> {
        match self {
            Self::Inward | Self::Outward | Self::PlainInward | Self::PlainOutward | Self::Handshake | Self::Refused => {
                Some(config.max_half_open)
            }
            Self::Plain | Self::Encrypted | Self::Closed => None,
        }
    }

    /// The counter of evictions.
    fn counter(self, counters: &mut Counters) -> &mut u64 {
        match self {
            Self::Inward => &mut counters.evicted_inward,
            Self::Outward => &mut counters.evicted_outward,
            Self::PlainInward | Self::PlainOutward => &mut counters.evicted_unconfirmed,
            Self::Handshake => &mut counters.evicted_handshakes,
            Self::Plain => &mut counters.evicted_plain,
            Self::Encrypted => &mut counters.limit_flows,
            Self::Refused | Self::Closed => &mut counters.evicted_closed,
        }
    }
}

/// A connection and its position in the table.
pub(super) struct Entry {
    pub(super) flow: Flow,
    class: Class,
    /// When it is checked next: its position in the order of its class.
    due: Option<Instant>,
    held: usize,
    waits: Option<Waits>,
}

/// All entries of one class.
#[derive(Default)]
struct Kind {
    count: usize,
    /// By the time of the next check. Entries that prove nothing are checked once, when their time is over: the first
    /// is the oldest.
    due: BTreeSet<(Instant, FlowKey)>,
    /// Number of entries per peer, by hash.
    crowd: Vec<u32>,
}

/// Number of hash buckets for peers.
const CROWD: usize = 4096;
/// Number of oldest entries compared for eviction.
const COMPARED: usize = 16;

/// All connections.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<FlowKey, Entry>,
    kinds: [Kind; 9],
    hasher: RandomState,
    held: usize,
    /// Holders of unproven bytes: those whose peer has not shown its keys first, then by age.
    waiting: BTreeSet<(bool, Instant, FlowKey)>,
    /// Their bytes per peer, by hash.
    unproven: Vec<usize>,
    /// When an opening was last evicted.
    pub(super) forgot_opening: Option<Instant>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Timers that are set.
    pub(super) fn timers(&self) -> usize {
        self.kinds.iter().map(|kind| kind.due.len()).sum()
    }

    /// Bytes held by all connections.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.kind(class).count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FlowKey, &Flow)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.flow))
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.entries.get(key).map(|entry| &entry.flow)
    }

    pub(super) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.entries.get_mut(key).map(|entry| &mut entry.flow)
    }

    fn kind(&self, class: Class) -> &Kind {
        &self.kinds[class as usize]
    }

    fn bucket(&self, key: &FlowKey) -> usize {
        // The owner of one IPv6 address has a whole network of them.
        let address = match key.remote().ip() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        usize::try_from(self.hasher.hash_one(address)).unwrap_or(0) % CROWD
    }

    fn join(&mut self, class: Class, key: &FlowKey) {
        let bucket = self.bucket(key);
        let kind = &mut self.kinds[class as usize];
        kind.count += 1;
        if !matches!(class, Class::Plain | Class::Closed) {
            kind.crowd.resize(CROWD, 0);
            if let Some(crowd) = kind.crowd.get_mut(bucket) {
                *crowd += 1;
            }
        }
    }

    fn leave(&mut self, class: Class, key: &FlowKey, due: Option<Instant>) {
        let bucket = self.bucket(key);
        let kind = &mut self.kinds[class as usize];
        kind.count -= 1;
        if let Some(due) = due {
            kind.due.remove(&(due, *key));
        }
        if let Some(crowd) = kind.crowd.get_mut(bucket) {
            *crowd -= 1;
        }
    }

    /// Inserts a connection; [`Self::settle`] must follow.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) {
        self.remove(&key);
        let class = Class::of(&flow);
        self.join(class, &key);
        self.entries.insert(key, Entry { flow, class, due: None, held: 0, waits: None });
    }

    pub(super) fn remove(&mut self, key: &FlowKey) -> Option<Flow> {
        let entry = self.entries.remove(key)?;
        self.leave(entry.class, key, entry.due);
        self.held -= entry.held;
        self.note_waits(key, entry.waits, None);
        Some(entry.flow)
    }

    /// Updates the books about a connection: its class, its memory, its next check. Returns its class if that has
    /// changed.
    pub(super) fn settle(&mut self, key: &FlowKey) -> Option<Class> {
        let entry = self.entries.get_mut(key)?;
        let held = entry.flow.held();
        self.held = self.held + held - entry.held;
        entry.held = held;
        let waits = match &entry.flow {
            Flow::Encrypted(encrypted) => encrypted.waits(),
            Flow::Opening(_) | Flow::Plain(_) | Flow::Closed(_) => None,
        };
        if waits != entry.waits {
            let before = std::mem::replace(&mut entry.waits, waits);
            self.note_waits(key, before, waits);
        }
        let entry = self.entries.get_mut(key)?;
        let (class, was) = (Class::of(&entry.flow), entry.class);
        let due = entry.flow.poll_timeout();
        if class == was {
            // A postponed check is found when the earlier one is due.
            if let Some(due) = due
                && entry.due.is_none_or(|before| due < before)
            {
                let before = entry.due.replace(due);
                let kind = &mut self.kinds[class as usize].due;
                if let Some(before) = before {
                    kind.remove(&(before, *key));
                }
                kind.insert((due, *key));
            }
            return None;
        }
        let before = std::mem::replace(&mut entry.due, due);
        entry.class = class;
        self.leave(was, key, before);
        self.join(class, key);
        if let Some(due) = due {
            self.kinds[class as usize].due.insert((due, *key));
        }
        Some(class)
    }

    fn note_waits(&mut self, key: &FlowKey, before: Option<Waits>, now: Option<Waits>) {
        if before.is_none() && now.is_none() {
            return;
        }
        let bucket = self.bucket(key);
        self.unproven.resize(CROWD, 0);
        let bytes = |waits: Option<Waits>| waits.map_or(0, |waits| waits.bytes);
        if let Some(held) = self.unproven.get_mut(bucket) {
            *held = *held + bytes(now) - bytes(before);
        }
        if let Some(Waits { confirmed, since, .. }) = before {
            self.waiting.remove(&(confirmed, since, *key));
        }
        if let Some(Waits { confirmed, since, .. }) = now {
            self.waiting.insert((confirmed, since, *key));
        }
    }

    /// Whose unproven bytes to drop: of those that have held them longest, one of the peer with the most.
    pub(super) fn longest_waiting(&self) -> Option<FlowKey> {
        let bytes = |key: &FlowKey| self.unproven.get(self.bucket(key)).copied().unwrap_or(0);
        let (first, ..) = self.waiting.first()?;
        let alike = self.waiting.iter().filter(|(confirmed, ..)| confirmed == first).take(COMPARED);
        // Among equals, the oldest.
        alike.map(|(.., key)| *key).min_by_key(|key| std::cmp::Reverse(bytes(key)))
    }

    /// When a connection is looked at next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.kinds.iter().filter_map(|kind| kind.due.first()).map(|(due, _)| *due).min()
    }

    /// Removes the next connection due at `now` from the order; [`Self::settle`] must follow.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<FlowKey> {
        for kind in &mut self.kinds {
            if let Some(&(due, key)) = kind.due.first().filter(|(due, _)| *due <= now) {
                kind.due.remove(&(due, key));
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.due = None;
                }
                return Some(key);
            }
        }
        None
    }

    /// The connection to evict now that there is one more of `class`, `newest`.
    pub(super) fn surplus(&mut self, class: Class, newest: &FlowKey, config: &Config) -> Option<(Class, FlowKey)> {
        if let Some(most) = class.most(config) {
            return (self.count(class) > most).then(|| Some((class, self.least(class, newest)?))).flatten();
        }
        let lasting: usize =
            [Class::Plain, Class::Encrypted, Class::Closed].iter().map(|class| self.count(*class)).sum();
        if lasting <= config.max_flows {
            return None;
        }
        let closed = self.kind(Class::Closed).due.first().map(|(_, key)| (Class::Closed, *key));
        // A plain connection loses nothing by it: it continues as an unknown one.
        let victim = closed.or_else(|| self.quietest().map(|key| (Class::Plain, key)));
        victim.or(Some((class, *newest)))
    }

    /// One of the oldest of `class` that belongs to a stranger, of the stranger with the most.
    fn least(&self, class: Class, newest: &FlowKey) -> Option<FlowKey> {
        let kind = self.kind(class);
        let rank = |key: &FlowKey| (!self.is_known(key), self.crowd(class, key));
        let oldest = kind.due.iter().map(|(_, key)| key).filter(|key| *key != newest).take(COMPARED);
        // Among equals, the oldest.
        let least = oldest.fold(None, |least: Option<((bool, u32), &FlowKey)>, key| match (least, rank(key)) {
            (Some((before, _)), rank) if rank <= before => least,
            (_, rank) => Some((rank, key)),
        });
        Some(least.map_or(*newest, |(_, key)| *key))
    }

    /// Whether the peer proves in another connection that it is there, or resumes a session: whoever forges addresses
    /// does neither.
    fn is_known(&self, key: &FlowKey) -> bool {
        let resumes = matches!(self.get(key), Some(Flow::Opening(opening)) if opening.resumes());
        resumes || self.crowd(Class::Encrypted, key) > 0
    }

    /// How many of `class` the peer has.
    fn crowd(&self, class: Class, key: &FlowKey) -> u32 {
        self.kind(class).crowd.get(self.bucket(key)).copied().unwrap_or(0)
    }

    /// The plain connection that was idle longest, approximately.
    fn quietest(&mut self) -> Option<FlowKey> {
        for _ in 0..COMPARED {
            let (due, key) = *self.kind(Class::Plain).due.first()?;
            let later = self.get(&key).and_then(Flow::poll_timeout).filter(|later| *later > due);
            let Some(later) = later else { return Some(key) };
            let kind = &mut self.kinds[Class::Plain as usize].due;
            kind.remove(&(due, key));
            kind.insert((later, key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.due = Some(later);
            }
        }
        self.kind(Class::Plain).due.first().map(|(_, key)| *key)
    }

    /// Counts an eviction.
    pub(super) fn note_evicted(&mut self, now: Instant, class: Class, counters: &mut Counters) {
        *class.counter(counters) += 1;
        if matches!(class, Class::Inward | Class::Outward | Class::Handshake) {
            self.forgot_opening = Some(now);
        }
    }

    /// Releases memory left over from a flood.
    pub(super) fn shrink(&mut self) {
        let len = self.entries.len().max(64);
        if self.entries.capacity() > 8 * len {
            self.entries.shrink_to(2 * len);
        }
    }
}
