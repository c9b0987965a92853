//! The table of connections: what each has proven decides how much room its kind has, and what is evicted when there
//! is none.
//!
//! A SYN proves nothing: it costs an entry of its own kind, and one of the oldest entries, of the address with the
//! most, makes room for the next. Lasting room is for connections whose handshake is complete; one that is over makes
//! room at once. No limit makes a connection plain.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;

use indexmap::IndexMap;

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
    /// The bucket of its peer's address.
    bucket: u16,
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
const CROWD: u16 = 4096;
/// Number of oldest entries compared for eviction.
const COMPARED: usize = 16;
/// Of the room for openings, a known peer has one part of so many before it counts as a stranger.
const KNOWN_SHARE: usize = 16;

/// All connections.
#[derive(Default)]
pub(super) struct Table {
    entries: IndexMap<FlowKey, Entry>,
    /// Where the last lookup ended: a packet's connection is looked up several times, and hashing its key is what costs.
    last: Cell<usize>,
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
        self.entries.get_index(self.place(key)?).map(|(_, entry)| &entry.flow)
    }

    pub(super) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.entry(key).map(|entry| &mut entry.flow)
    }

    fn place(&self, key: &FlowKey) -> Option<usize> {
        let last = self.last.get();
        if self.entries.get_index(last).is_some_and(|(there, _)| there == key) {
            return Some(last);
        }
        let place = self.entries.get_index_of(key)?;
        self.last.set(place);
        Some(place)
    }

    fn entry(&mut self, key: &FlowKey) -> Option<&mut Entry> {
        let place = self.place(key)?;
        self.entries.get_index_mut(place).map(|(_, entry)| entry)
    }

    fn kind(&self, class: Class) -> &Kind {
        &self.kinds[class as usize]
    }

    fn bucket(&self, key: &FlowKey) -> u16 {
        // The owner of one IPv6 address has a whole network of them.
        let address = match key.remote().ip() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        (self.hasher.hash_one(address) % u64::from(CROWD)) as u16
    }

    fn join(&mut self, class: Class, bucket: u16) {
        let kind = &mut self.kinds[class as usize];
        kind.count += 1;
        if !matches!(class, Class::Plain | Class::Closed) {
            kind.crowd.resize(CROWD.into(), 0);
            if let Some(crowd) = kind.crowd.get_mut(usize::from(bucket)) {
                *crowd += 1;
            }
        }
    }

    fn leave(&mut self, class: Class, bucket: u16) {
        let kind = &mut self.kinds[class as usize];
        kind.count -= 1;
        if let Some(crowd) = kind.crowd.get_mut(usize::from(bucket)) {
            *crowd -= 1;
        }
    }

    /// Inserts a connection; [`Self::settle`] must follow.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) {
        self.remove(&key);
        let class = Class::of(&flow);
        let bucket = self.bucket(&key);
        self.join(class, bucket);
        let (place, _) = self.entries.insert_full(key, Entry { flow, class, bucket, due: None, held: 0, waits: None });
        self.last.set(place);
    }

    pub(super) fn remove(&mut self, key: &FlowKey) -> Option<Flow> {
        let place = self.place(key)?;
        let (_, entry) = self.entries.swap_remove_index(place)?;
        if let Some(due) = entry.due {
            self.kinds[entry.class as usize].due.remove(&(due, *key));
        }
        self.leave(entry.class, entry.bucket);
        self.held -= entry.held;
        self.note_waits(key, entry.bucket, entry.waits, None);
        Some(entry.flow)
    }

    /// Updates the books about a connection: its class, its memory, its next check. Returns its class if that has
    /// changed.
    pub(super) fn settle(&mut self, key: &FlowKey) -> Option<Class> {
        let entry = self.entry(key)?;
        let waits = match &entry.flow {
            Flow::Encrypted(encrypted) => encrypted.waits(),
            Flow::Opening(_) | Flow::Plain(_) | Flow::Closed(_) => None,
        };
        let waited = std::mem::replace(&mut entry.waits, waits);
        let held = entry.flow.held();
        let had = std::mem::replace(&mut entry.held, held);
        let class = Class::of(&entry.flow);
        let was = std::mem::replace(&mut entry.class, class);
        let due = entry.flow.poll_timeout();
        // A postponed check is found when the earlier one is due.
        let moves = class != was || due.is_some_and(|due| entry.due.is_none_or(|before| due < before));
        let before = if moves { std::mem::replace(&mut entry.due, due) } else { None };
        let bucket = entry.bucket;

        self.held = self.held + held - had;
        if waits != waited {
            self.note_waits(key, bucket, waited, waits);
        }
        if let Some(before) = before {
            self.kinds[was as usize].due.remove(&(before, *key));
        }
        if moves && let Some(due) = due {
            self.kinds[class as usize].due.insert((due, *key));
        }
        if class == was {
            return None;
        }
        self.leave(was, bucket);
        self.join(class, bucket);
        Some(class)
    }

    fn note_waits(&mut self, key: &FlowKey, bucket: u16, before: Option<Waits>, now: Option<Waits>) {
        if before.is_none() && now.is_none() {
            return;
        }
        self.unproven.resize(CROWD.into(), 0);
        let bytes = |waits: Option<Waits>| waits.map_or(0, |waits| waits.bytes);
        if let Some(held) = self.unproven.get_mut(usize::from(bucket)) {
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
        let bytes = |key: &FlowKey| self.unproven.get(usize::from(self.bucket(key))).copied().unwrap_or(0);
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
                if let Some(entry) = self.entry(&key) {
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
            return (self.count(class) > most).then(|| Some((class, self.least(class, newest, most)?))).flatten();
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

    /// One of the oldest of `class`, of which there are `most`, that belongs to a stranger, of the stranger with the most.
    fn least(&self, class: Class, newest: &FlowKey, most: usize) -> Option<FlowKey> {
        let kind = self.kind(class);
        let share = u32::try_from(most / KNOWN_SHARE).unwrap_or(u32::MAX).max(1);
        let rank = |key: &FlowKey| {
            let crowd = self.crowd(class, key);
            (crowd > share || !self.is_known(key), crowd)
        };
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
        self.kind(class).crowd.get(usize::from(self.bucket(key))).copied().unwrap_or(0)
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
            if let Some(entry) = self.entry(&key) {
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
