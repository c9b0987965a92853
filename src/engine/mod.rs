//! All connections of a host: the table, policy, timers, limits. Pure: packets, time and randomness come in through
//! the arguments, packets go out through [`Env`].

mod ask;
mod config;
mod disruption;
mod env;
mod fate;
mod info;
mod lookup;
mod orphans;
mod paths;
mod probe;
mod sessions;

pub use ask::FlowError;
pub use config::{Config, RekeyLimits};
pub use disruption::{Disrupted, Disruption};
pub use env::{ConnectionKeys, Env, RandomFor, Side};
pub use info::{Counters, FlowInfo, FlowSession, FlowState};
pub(crate) use paths::{Advice, Doubt, PathKey, Paths};
pub use paths::{Finding, PathInfo, PathLimits};
pub(crate) use probe::hop_id;
pub use probe::{Hop, ProbeMode, ProbeReport, SynAnswer};
pub(crate) use sessions::{ChainId, Sessions};
pub use sessions::{SessionInfo, SessionLimits};

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::flow::{AbortReason, Cx, Flow, FlowKey, Keys, Learnt, Link, Lost, Next, Pool};
use crate::selector::PolicyTable;
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::packet::NotTcp;
use crate::wire::{C, Checksum, Flags, Offload, P, Packet};

use fate::{Fate, Left, after_opening, fail, pass, settle};
use orphans::Orphans;

/// The longest time for which a timer is set at once.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// All connections of one instance.
pub struct Engine {
    config: Config,
    policy: PolicyTable,
    provider: &'static dyn tcpcrypt::Provider,
    flows: HashMap<FlowKey, Entry>,
    orphans: Orphans,
    timers: BinaryHeap<Reverse<(Instant, FlowKey)>>,
    half_open: usize,
    held: usize,
    counters: Counters,
    sessions: Sessions,
    paths: Paths,
    probes: HashMap<FlowKey, probe::Probe>,
    disrupted: Option<Disrupted>,
    scratch: Vec<u8>,
    pool: Pool,
    /// Keys were made, replaced or erased by what is being done.
    keys_changed: bool,
}

/// A connection, and when it is looked at next.
struct Entry {
    flow: Flow,
    armed: Option<Instant>,
    held: usize,
}

impl Engine {
    /// An engine without connections and without rules: everything passes through. `provider` does the cryptography.
    #[must_use]
    pub fn new(config: Config, provider: &'static dyn tcpcrypt::Provider) -> Self {
        Self {
            sessions: Sessions::new(config.sessions),
            paths: Paths::new(config.paths),
            probes: HashMap::new(),
            config,
            policy: PolicyTable::default(),
            provider,
            flows: HashMap::new(),
            orphans: Orphans::default(),
            timers: BinaryHeap::new(),
            half_open: 0,
            held: 0,
            counters: Counters::default(),
            disrupted: None,
            scratch: Vec::new(),
            pool: Pool::default(),
            keys_changed: false,
        }
    }

    /// Sets what is protected from now on. Connections that exist go on as they are.
    pub fn set_policy(&mut self, policy: PolicyTable) {
        self.policy = policy;
    }

    /// What is protected.
    #[must_use]
    pub fn policy(&self) -> &PolicyTable {
        &self.policy
    }

    /// Takes in a packet that was read on `side`. What becomes of it goes out through `env` before this returns. `bytes`
    /// may be changed (frames are opened in place).
    pub fn handle_packet(&mut self, now: Instant, side: Side, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.take(now, side, offload, bytes, env));
    }

    /// Runs `work` and wipes the stack behind it if keys came or went (TC-34): what ciphers leave there of keys in use stays until then.
    fn leave_no_keys(&mut self, work: impl FnOnce(&mut Self)) {
        tcpcrypt::stack::wiped_if(|| {
            work(self);
            std::mem::take(&mut self.keys_changed)
        });
    }

    fn take(&mut self, now: Instant, side: Side, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        match side {
            Side::Plain => {
                self.counters.packets_plain += 1;
                match Packet::<P>::parse(bytes) {
                    Ok(packet) => self.from_kernel(now, &packet, offload, bytes, env),
                    Err(why) => self.not_tcp(side, why, offload, bytes, env),
                }
            }
            Side::Wire => {
                self.counters.packets_wire += 1;
                match Packet::<C>::parse(bytes) {
                    Ok(packet) => self.from_wire(now, &packet, offload, bytes, env),
                    Err(why) => self.not_tcp(side, why, offload, bytes, env),
                }
            }
        }
    }

    fn not_tcp(&mut self, side: Side, why: NotTcp, offload: Offload, bytes: &[u8], env: &mut dyn Env) {
        match why {
            NotTcp::OtherProtocol => {
                if let Some(translated) = self.translate_icmp(side, bytes) {
                    if let Some(packet) = translated {
                        env.forward(side.other(), Offload::NONE, &packet);
                    }
                    return;
                }
                self.counters.passed_through += 1;
                env.forward(side.other(), offload, bytes);
            }
            // Its connection cannot be known, and that may be an encrypted one.
            NotTcp::Fragment => self.counters.fragments += 1,
            NotTcp::Malformed => self.counters.malformed += 1,
        }
    }

    /// An ICMP error about an encrypted connection, translated; `Some(None)` if it is to be dropped. `None`: `bytes` are
    /// something else.
    fn translate_icmp(&mut self, side: Side, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let error = IcmpError::parse(bytes)?;
        // It quotes a segment that went the other way.
        let key = match side {
            Side::Wire => FlowKey::new(error.src, error.dst),
            Side::Plain => FlowKey::new(error.dst, error.src),
        };
        if self.probe_quoted(side, key, &error, bytes) {
            return Some(None);
        }
        let translated = match self.flows.get_mut(&key).map(|entry| &mut entry.flow) {
            Some(Flow::Encrypted(encrypted)) => match side {
                Side::Wire => encrypted.icmp_from_wire(&error, bytes),
                Side::Plain => encrypted.icmp_from_plain(&error, bytes),
            },
            // It is over, and what is quoted may be plaintext of it.
            Some(Flow::Closed(_)) => None,
            None if self.orphans.has(&key) => None,
            Some(Flow::Opening(_) | Flow::Plain(_)) | None => return None,
        };
        *(if translated.is_some() { &mut self.counters.icmp_translated } else { &mut self.counters.icmp_dropped }) += 1;
        Some(translated)
    }

    fn from_kernel(&mut self, now: Instant, packet: &Packet<P>, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        let key = FlowKey::new(packet.src, packet.dst);
        if !self.believe(key, packet, offload, bytes)
            || !self.find_or_open(now, Side::Plain, key, packet, offload, bytes, env)
        {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            probe.from_kernel(packet);
        }
        self.with_flow(now, key, env, |cx, flow| match flow {
            Flow::Opening(opening) => {
                opening.learn(Side::Plain, packet);
                let opened = opening.from_kernel(cx, packet, bytes);
                let left = Left::new(cx, opening, &opened);
                let fate = after_opening(cx, key, left, opened, |cx, encrypted, dealt_with| {
                    if dealt_with { Next::Stay } else { encrypted.from_kernel(cx, packet, bytes, &offload) }
                });
                pass(cx, Side::Plain, packet, offload, bytes, fate)
            }
            Flow::Plain(plain) => {
                plain.note_end(Side::Plain, packet.flags);
                plain.last_seen = cx.now;
                plain.sent += packet.payload_len() as u64;
                if plain.insist(cx, key, packet, bytes) {
                    return Fate::Stay;
                }
                pass(cx, Side::Plain, packet, offload, bytes, (Fate::Stay, true))
            }
            Flow::Encrypted(encrypted) => {
                encrypted.learn(Side::Plain, packet);
                let next = encrypted.from_kernel(cx, packet, bytes, &offload);
                settle(cx, encrypted, next)
            }
            Flow::Closed(closed) => {
                closed.answer(cx, Side::Plain, packet);
                Fate::Stay
            }
        });
        if packet.flags.any(Flags::RST) {
            self.heard(key);
        }
    }

    /// The kernel says itself that a connection is over.
    fn heard(&mut self, key: FlowKey) {
        if let Some(Flow::Closed(closed)) = self.flows.get_mut(&key).map(|entry| &mut entry.flow) {
            closed.kernel_has_reset();
        }
    }

    fn from_wire(&mut self, now: Instant, packet: &Packet<C>, offload: Offload, bytes: &mut [u8], env: &mut dyn Env) {
        let key = FlowKey::new(packet.dst, packet.src);
        if !self.believe(key, packet, offload, bytes)
            || !self.find_or_open(now, Side::Wire, key, packet, offload, bytes, env)
        {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            let own = match self.flows.get(&key).map(|entry| &entry.flow) {
                Some(Flow::Opening(opening)) => opening.own(),
                _ => None,
            };
            probe.from_wire(packet, bytes, own);
        }
        self.with_flow(now, key, env, |cx, flow| match flow {
            Flow::Opening(opening) => {
                opening.learn(Side::Wire, packet);
                let opened = opening.from_wire(cx, packet, bytes);
                let left = Left::new(cx, opening, &opened);
                let fate = after_opening(cx, key, left, opened, |cx, encrypted, dealt_with| {
                    let next = if dealt_with { Next::Stay } else { encrypted.from_wire(cx, packet, bytes) };
                    encrypted.note_path(cx, next, Some((packet, bytes)));
                    next
                });
                pass(cx, Side::Wire, packet, offload, bytes, fate)
            }
            Flow::Plain(plain) => {
                let mut lost = None;
                match plain.note_path(packet, bytes) {
                    None => {}
                    Some(Learnt::NoEno) => cx.learn(key, true, Finding::NoEno),
                    Some(Learnt::SynDropped { began }) => cx.doubt(key, Finding::SynDropped, began),
                    Some(Learnt::StrippedHere) => {
                        cx.learn(key, false, Finding::StrippedHere);
                        lost = Some(Lost::Syn);
                    }
                }
                if plain.is_one_sided(packet.seq.0, bytes.get(packet.payload.clone()).unwrap_or(&[])) {
                    cx.learn(key, false, Finding::NonSynStripped);
                    lost = Some(Lost::Ack);
                }
                if let Some(lost) = lost {
                    let link = Link::new(key);
                    link.reset(cx.env, Side::Plain, packet.seq.0, packet.ack.0);
                    link.reset_saying(cx.env, lost, packet.ack.0, packet.seq.0);
                    return fail(cx, key, AbortReason::OneSided, Some((packet.seq.0, packet.ack.0)));
                }
                plain.note_end(Side::Wire, packet.flags);
                plain.last_seen = cx.now;
                plain.received += packet.payload_len() as u64;
                pass(cx, Side::Wire, packet, offload, bytes, (Fate::Stay, true))
            }
            Flow::Encrypted(encrypted) => {
                let next = encrypted.from_wire(cx, packet, bytes);
                encrypted.note_path(cx, next, Some((packet, bytes)));
                settle(cx, encrypted, next)
            }
            Flow::Closed(closed) => {
                closed.answer(cx, Side::Wire, packet);
                Fate::Stay
            }
        });
    }

    /// Whether a packet can be believed. What passes unchanged is the receiver's to verify; what is acted on is
    /// verified here. At a gateway the plain side comes off a wire too; what the local kernel sends has a partial checksum.
    fn believe<S>(&mut self, key: FlowKey, packet: &Packet<S>, offload: Offload, bytes: &[u8]) -> bool {
        let passes = !packet.flags.any(Flags::SYN)
            && self.flows.get(&key).is_none_or(|entry| matches!(entry.flow, Flow::Plain(_)));
        let right = passes || offload.checksum != Checksum::Unverified || packet.checksum_is_right(bytes);
        self.counters.bad_checksum += u64::from(!right);
        right
    }

    /// Lets `f` work on a connection, and keeps the books about it.
    fn with_flow(
        &mut self,
        now: Instant,
        key: FlowKey,
        env: &mut dyn Env,
        f: impl FnOnce(&mut Cx<'_>, &mut Flow) -> Fate,
    ) {
        let Some(entry) = self.flows.get_mut(&key) else { return };
        let was_half_open = matches!(entry.flow, Flow::Opening(_));
        let keys = entry.flow.keys();
        let mut cx = Cx {
            now,
            env,
            config: &self.config,
            counters: &mut self.counters,
            provider: self.provider,
            sessions: &mut self.sessions,
            paths: &mut self.paths,
            tight: self.held >= self.config.max_held_bytes,
            scratch: &mut self.scratch,
            pool: &mut self.pool,
        };
        match f(&mut cx, &mut entry.flow) {
            Fate::Stay => {}
            Fate::Replace(flow) => entry.flow = flow,
            Fate::Remove => {
                self.keys_changed |= keys != Keys::None;
                self.remove(now, &key);
                return;
            }
        }
        self.keys_changed |= entry.flow.keys() != keys;
        if was_half_open && !matches!(entry.flow, Flow::Opening(_)) {
            self.half_open -= 1;
        }
        let held = entry.flow.held();
        self.held = self.held + held - entry.held;
        entry.held = held;
        // Far timers are looked at in between: a heap entry outlives its connection.
        if let Some(due) = entry.flow.poll_timeout().map(|due| due.min(now + LOOK_AGAIN))
            && entry.armed.is_none_or(|armed| due < armed)
        {
            entry.armed = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    fn remove(&mut self, now: Instant, key: &FlowKey) {
        if let Some(entry) = self.flows.remove(key) {
            if let Flow::Closed(closed) = &entry.flow
                && closed.kernel_may_go_on()
            {
                self.orphans.insert(now, *key, self.config.plain_idle_timeout, self.config.max_flows);
            }
            self.held -= entry.held;
            self.half_open -= usize::from(matches!(entry.flow, Flow::Opening(_)));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let flows = self.timers.peek().map(|Reverse((due, _))| *due);
        [flows, self.sessions.poll_timeout(), self.paths.poll_timeout()].into_iter().flatten().min()
    }

    fn count_erased(&mut self) {
        let erased = self.sessions.take_erased();
        self.counters.sessions_expired += erased.expired;
        self.counters.sessions_evicted += erased.evicted;
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.do_what_is_due(now, env));
    }

    fn do_what_is_due(&mut self, now: Instant, env: &mut dyn Env) {
        self.sessions.expire(now);
        self.paths.expire(now);
        self.orphans.expire(now);
        self.count_erased();
        while let Some(Reverse((due, key))) = self.timers.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.timers.pop();
            match self.flows.get_mut(&key) {
                // Another entry of the heap stands for it.
                Some(entry) if entry.armed != Some(due) => continue,
                Some(entry) => entry.armed = None,
                None => continue,
            }
            self.with_flow(now, key, env, |cx, flow| {
                if flow.poll_timeout().is_none_or(|due| due > cx.now) {
                    return Fate::Stay;
                }
                match flow {
                    Flow::Opening(opening) if opening.has_agreed() => {
                        opening.refuse(cx);
                        fail(cx, key, AbortReason::Timeout, opening.kernel_expects())
                    }
                    Flow::Closed(closed) => {
                        if closed.handle_timeout(cx) {
                            Fate::Remove
                        } else {
                            Fate::Stay
                        }
                    }
                    Flow::Opening(_) | Flow::Plain(_) => Fate::Remove,
                    Flow::Encrypted(encrypted) => {
                        let next = encrypted.handle_timeout(cx);
                        encrypted.note_path(cx, next, None);
                        settle(cx, encrypted, next)
                    }
                }
            });
        }
    }
}
