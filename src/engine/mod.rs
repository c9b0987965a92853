//! All connections of a host: the table, policy, timers, limits. Pure: packets, time and randomness come in through
//! the arguments, packets go out through [`Env`].

mod ask;
mod config;
mod disruption;
mod env;
mod exchanges;
mod fate;
mod info;
mod lookup;
mod orphans;
mod paths;
mod probe;
mod sessions;
mod table;
mod unknown;

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

use std::collections::HashMap;

use crate::flow::{AbortReason, Cx, Exchange, Flow, FlowKey, Keys, Learnt, Link, LostOption, Next, Pool};
use crate::selector::PolicyTable;
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::packet::NotTcp;
use crate::wire::{C, Flags, Offload, P, Segment};

use fate::{Fate, after_opening, evict, fail, pass, settle};
use table::{Class, Table};
use unknown::Unknown;

/// All connections of one instance.
pub struct Engine {
    config: Config,
    policy: PolicyTable,
    provider: &'static dyn tcpcrypt::Provider,
    table: Table,
    unknown: Unknown,
    counters: Counters,
    sessions: Sessions,
    paths: Paths,
    probes: HashMap<FlowKey, probe::Probe>,
    disrupted: Option<Disrupted>,
    scratch: Vec<u8>,
    pool: Pool,
    exchanges: exchanges::Exchanges,
    /// Keys were made, replaced or erased by what is being done.
    keys_changed: bool,
}

/// What a connection's code is given for one call.
macro_rules! context {
    ($engine:ident, $now:expr, $env:expr) => {
        Cx {
            now: $now,
            env: $env,
            config: &$engine.config,
            counters: &mut $engine.counters,
            provider: $engine.provider,
            sessions: &mut $engine.sessions,
            paths: &mut $engine.paths,
            tight: $engine.table.held() >= $engine.config.max_held_bytes,
            scratch: &mut $engine.scratch,
            pool: &mut $engine.pool,
        }
    };
}
use context;

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
            table: Table::default(),
            unknown: Unknown::default(),
            counters: Counters::default(),
            disrupted: None,
            scratch: Vec::new(),
            pool: Pool::default(),
            exchanges: exchanges::Exchanges::default(),
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
                match Segment::<P>::parse(offload, bytes) {
                    Ok(packet) => self.from_kernel(now, &packet, env),
                    Err(why) => self.not_tcp(now, side, why, offload, bytes, env),
                }
            }
            Side::Wire => {
                self.counters.packets_wire += 1;
                match Segment::<C>::parse(offload, bytes) {
                    Ok(mut packet) => self.from_wire(now, &mut packet, env),
                    Err(why) => self.not_tcp(now, side, why, offload, bytes, env),
                }
            }
        }
    }

    fn not_tcp(&mut self, now: Instant, side: Side, why: NotTcp, offload: Offload, bytes: &[u8], env: &mut dyn Env) {
        match why {
            NotTcp::OtherProtocol => {
                if let Some(translated) = self.translate_icmp(now, side, bytes) {
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
    fn translate_icmp(&mut self, now: Instant, side: Side, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let error = IcmpError::parse(bytes)?;
        // It quotes a segment that went the other way.
        let key = match side {
            Side::Wire => FlowKey::new(error.src, error.dst),
            Side::Plain => FlowKey::new(error.dst, error.src),
        };
        if !error.checksum_is_right(bytes) {
            // What passes unchanged is the receiver's to verify.
            let passes = matches!(self.table.get(&key), None | Some(Flow::Plain(_)));
            if passes && !self.unknown.is_over(&key) {
                return None;
            }
            self.counters.bad_checksum += 1;
            return Some(None);
        }
        if self.probe_quoted(side, key, &error, bytes) {
            return Some(None);
        }
        let translated = match self.table.get_mut(&key) {
            Some(Flow::Encrypted(encrypted)) => match side {
                Side::Wire => encrypted.icmp_from_wire(now, &error, bytes),
                Side::Plain => encrypted.icmp_from_plain(&error, bytes),
            },
            // It is over, and what is quoted may be plaintext of it.
            Some(Flow::Closed(_)) => None,
            None if self.unknown.is_over(&key) => None,
            Some(Flow::Opening(_) | Flow::Plain(_)) | None => return None,
        };
        *(if translated.is_some() { &mut self.counters.icmp_translated } else { &mut self.counters.icmp_dropped }) += 1;
        Some(translated)
    }

    fn from_kernel(&mut self, now: Instant, packet: &Segment<'_, P>, env: &mut dyn Env) {
        let key = FlowKey::new(packet.src, packet.dst);
        if !self.believe(key, packet) || !self.find_or_open(now, Side::Plain, key, packet, env) {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            probe.from_kernel(now, packet);
        }
        self.with_flow(now, key, env, |cx, flow| match flow {
            Flow::Opening(opening) => {
                opening.learn(Side::Plain, packet);
                let opened = opening.from_kernel(cx, packet);
                let fate = after_opening(cx, key, opening, opened, |cx, encrypted, dealt_with| {
                    if dealt_with { Next::Stay } else { encrypted.from_kernel(cx, packet) }
                });
                pass(cx, Side::Plain, packet, fate)
            }
            Flow::Plain(plain) => {
                plain.note(cx, Side::Plain, packet);
                if plain.insist(cx, key, packet) {
                    return Fate::Stay;
                }
                pass(cx, Side::Plain, packet, (Fate::Stay, true))
            }
            Flow::Encrypted(encrypted) => {
                encrypted.learn(Side::Plain, packet);
                let next = encrypted.from_kernel(cx, packet);
                settle(cx, encrypted, next)
            }
            Flow::Closed(closed) => {
                closed.answer(cx, Side::Plain, packet);
                Fate::Stay
            }
        });
        if packet.flags.any(Flags::RST) {
            self.heard(key, packet.seq.0);
        }
    }

    /// The kernel says itself that a connection is over.
    fn heard(&mut self, key: FlowKey, seq: u32) {
        if let Some(Flow::Closed(closed)) = self.table.get_mut(&key) {
            closed.kernel_has_reset(seq);
        }
    }

    fn from_wire(&mut self, now: Instant, packet: &mut Segment<'_, C>, env: &mut dyn Env) {
        let key = FlowKey::new(packet.dst, packet.src);
        if !self.believe(key, packet) || !self.find_or_open(now, Side::Wire, key, packet, env) {
            return;
        }
        if let Some(probe) = self.probes.get_mut(&key) {
            let own = match self.table.get(&key) {
                Some(Flow::Opening(opening)) => opening.own(),
                _ => None,
            };
            probe.from_wire(now, packet, own);
        }
        self.with_flow(now, key, env, |cx, flow| match flow {
            Flow::Opening(opening) => {
                opening.learn(Side::Wire, packet);
                let opened = opening.from_wire(cx, packet);
                let fate = after_opening(cx, key, opening, opened, |cx, encrypted, dealt_with| {
                    let next = if dealt_with { Next::Stay } else { encrypted.from_wire(cx, packet) };
                    encrypted.note_path(cx, next, Some(packet));
                    next
                });
                pass(cx, Side::Wire, packet, fate)
            }
            Flow::Plain(plain) => {
                match plain.learn(packet) {
                    None => {}
                    Some(Learnt::NoEno) => cx.learn(key, true, Finding::NoEno),
                    Some(Learnt::SynDropped { began }) => cx.doubt(key, Finding::SynDropped, began),
                    Some(Learnt::OneSided(lost)) => {
                        let finding = match lost {
                            LostOption::Syn => Finding::StrippedHere,
                            LostOption::Ack => Finding::NonSynStripped,
                        };
                        cx.learn(key, false, finding);
                        let link = Link::new(key);
                        link.reset(cx.env, Side::Plain, packet.seq.0, packet.ack.0);
                        link.reset_saying(cx.env, lost, packet.ack.0, packet.seq.0);
                        return fail(cx, key, AbortReason::OneSided, Some((packet.seq.0, packet.ack.0)));
                    }
                }
                plain.note(cx, Side::Wire, packet);
                pass(cx, Side::Wire, packet, (Fate::Stay, true))
            }
            Flow::Encrypted(encrypted) => {
                let next = encrypted.from_wire(cx, packet);
                encrypted.note_path(cx, next, Some(packet));
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
    fn believe<S>(&mut self, key: FlowKey, packet: &Segment<'_, S>) -> bool {
        let passes =
            !packet.flags.any(Flags::SYN) && self.table.get(&key).is_none_or(|flow| matches!(flow, Flow::Plain(_)));
        let right = passes || packet.is_undamaged();
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
        let mut cx = context!(self, now, &mut *env);
        let Some(flow) = self.table.get_mut(&key) else { return };
        let keys = flow.keys();
        match f(&mut cx, flow) {
            Fate::Stay => {}
            Fate::Replace(next) => *flow = next,
            Fate::Remove => {
                self.keys_changed |= keys != Keys::None;
                self.remove(now, &key);
                return;
            }
        }
        self.keys_changed |= flow.keys() != keys;
        let exchange_due = matches!(flow, Flow::Encrypted(encrypted) if encrypted.exchange == Exchange::Due);
        if let Some(class) = self.table.settle(&key) {
            self.make_room(now, class, key, env);
        }
        if exchange_due {
            self.queue_exchange(now, key);
        }
        self.let_go();
    }

    /// Lets go of unproven bytes if too much is held: they come again.
    fn let_go(&mut self) {
        while self.table.held() >= self.config.max_held_bytes
            && let Some(key) = self.table.longest_waiting()
        {
            if let Some(Flow::Encrypted(encrypted)) = self.table.get_mut(&key) {
                encrypted.shed();
            }
            self.counters.evicted_held += 1;
            self.table.settle(&key);
        }
    }

    /// Lets go what has proven least, now that `newest` is of `class`.
    fn make_room(&mut self, now: Instant, class: Class, newest: FlowKey, env: &mut dyn Env) {
        while let Some((class, key)) = self.table.surplus(class, &newest, &self.config) {
            let Some(mut flow) = self.table.remove(&key) else { return };
            self.keys_changed |= flow.keys() != Keys::None;
            let outlived_by = evict(&mut context!(self, now, &mut *env), &mut flow);
            self.table.note_evicted(now, class, &mut self.counters);
            if let Some(time) = outlived_by {
                self.unknown.outlives(now, key, time, &self.config);
            }
        }
    }

    /// Forgets a connection. The local kernel may not have heard that it is over, nor that all it sent was acknowledged: a SYN that
    /// anybody can send does not change that.
    fn remove(&mut self, now: Instant, key: &FlowKey) {
        if let Some(Flow::Closed(closed)) = self.table.remove(key)
            && let Some(time) = closed.outlived_by(&self.config, now)
        {
            self.unknown.outlives(now, *key, time, &self.config);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let others = [self.exchanges.poll_timeout(), self.unknown.poll_timeout()];
        let memories = [self.sessions.poll_timeout(), self.paths.poll_timeout(), self.table.poll_timeout()];
        others.into_iter().chain(memories).flatten().min()
    }

    fn count_erased(&mut self) {
        let erased = self.sessions.take_erased();
        self.counters.sessions_expired += erased.expired;
        self.counters.sessions_evicted += erased.evicted;
        self.counters.paths_evicted += self.paths.take_evicted();
        self.counters.orphans_forgotten += self.unknown.take_forgotten();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, env: &mut dyn Env) {
        self.leave_no_keys(|engine| engine.do_what_is_due(now, env));
    }

    fn do_what_is_due(&mut self, now: Instant, env: &mut dyn Env) {
        self.exchange_keys(now, env);
        self.sessions.expire(now);
        self.paths.expire(now);
        self.unknown.handle_timeout(now, env);
        self.table.shrink();
        self.count_erased();
        while let Some(key) = self.table.next_due(now) {
            let mut forgot_opening = false;
            self.with_flow(now, key, env, |cx, flow| {
                if flow.poll_timeout().is_none_or(|due| due > cx.now) {
                    return Fate::Stay;
                }
                match flow {
                    Flow::Opening(opening) if opening.has_agreed() => {
                        opening.refuse(cx);
                        // Nothing is remembered of a SYN that nobody stands by: what comes late is refused as unknown.
                        match opening.kernel_expects() {
                            Some(expects) => fail(cx, key, AbortReason::Timeout, Some(expects)),
                            None => {
                                forgot_opening = true;
                                Fate::Remove
                            }
                        }
                    }
                    Flow::Closed(closed) => {
                        if closed.handle_timeout(cx) {
                            Fate::Remove
                        } else {
                            Fate::Stay
                        }
                    }
                    Flow::Plain(plain) => {
                        if plain.handle_timeout(cx.now) {
                            Fate::Remove
                        } else {
                            Fate::Stay
                        }
                    }
                    Flow::Opening(_) => Fate::Remove,
                    Flow::Encrypted(encrypted) => {
                        let next = encrypted.handle_timeout(cx);
                        encrypted.note_path(cx, next, None);
                        settle(cx, encrypted, next)
                    }
                }
            });
            if forgot_opening {
                self.table.forgot_opening = Some(now);
            }
        }
    }
}
