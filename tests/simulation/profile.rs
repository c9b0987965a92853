//! Profiles: families of scenarios. A profile and a seed make one scenario.

use std::time::Duration;

use enotun::engine::{Config, RekeyLimits, SessionLimits};

use super::app::{Close, Plan};
use super::host::{ALIASES, DeviceModel, Setup};
use super::net::{ANY, Link, SURVIVABLE, Strip};
use super::run::{ConnPlan, Expect, Scenario};
use crate::harness::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A faultless network.
    Clean,
    /// Loss, duplicates, reordering, jitter.
    Lossy,
    /// A slow link with a short queue.
    Slow,
    /// Flipped bits that the checksum tells of.
    Damage,
    /// Segments cut and joined at odd places.
    Resegment,
    /// Windows from 64 bytes on, slow readers, small writes.
    Tiny,
    /// Resets by the applications, refused connections.
    Aborts,
    /// Long silences, keep-alives.
    Idle,
    /// Many connections at once.
    Many,
    /// Rekeys at any time.
    Rekey,
    /// A middlebox takes ENO out or drops SYNs with it: plain TCP.
    Stripped,
    /// One host has no engine.
    OneSided,
    /// Both hosts open at once: encrypted if one of them is B, plain TCP if none or both are (ENO-7).
    Simultaneous,
    /// The engines are told to encrypt when the connections are open already.
    PreExisting,
    /// ENO taken out of the third segment only: one end believes in encryption, the other does not.
    HalfStripped,
    /// Forged and tampered-with segments that an encrypted connection survives.
    Forged,
    /// Forgeries and tampering of every kind from the start: nothing wrong is delivered, but connections may die.
    Hostile,
    /// Packets are lost between kernel and engine.
    Tun,
    /// Connections follow one another on the same addresses and ports.
    Reuse,
    /// Little memory for held bytes.
    Memory,
    /// Policy forbids plain TCP, and a middlebox takes ENO out.
    Refused,
    /// An engine crashes and comes back: it fails closed.
    Crash,
    /// An engine goes down in order.
    Down,
    /// All that TCP survives, at once.
    Everything,
    /// Connection after connection between the same hosts, which resume one another's sessions: opened by either, over
    /// IPv4 and IPv6, from other addresses, several at once; caches that forget.
    Chains,
    /// Urgent data.
    Urgent,
    /// One end does not read for long, and is sent to and sends all the time, while keys are replaced.
    Deaf,
    /// The whole protocol over all that TCP survives: resumption, rekeying by every limit and on demand, urgent data.
    Protocol,
}

/// Connections that come one after the other, some before others are over.
fn chain(rng: &mut Rng) -> Vec<ConnPlan> {
    let mut start = 0;
    let alias = |rng: &mut Rng| if rng.chance(0.6) { 0 } else { rng.below(ALIASES as u64) as usize };
    // Between the same ends, more often than not.
    let (client, v6) = (rng.below(2) as usize, rng.chance(0.4));
    (0..rng.range(3, 9))
        .map(|_| {
            let most = rng.pick(&[100, 5_000, 60_000]);
            let mut conn = conn(rng, most);
            if rng.chance(0.6) {
                (conn.client, conn.v6) = (client, v6);
            }
            conn.aliases = [alias(rng), alias(rng)];
            conn.start = Duration::from_micros(start);
            // At the same moment, while the one before goes on, or long after it.
            start += rng.pick(&[0, 50_000, 500_000, 5_000_000, 20_000_000, 300_000_000]);
            conn
        })
        .collect()
}

/// What resumption and its cache can be told, and when the caches forget.
fn resumption(rng: &mut Rng, configs: &mut [Config; 2], flushes: &mut Vec<(Duration, usize)>) {
    // Without nonces nothing but TC-19 keeps keys from being used twice: a mistake there shows at once.
    let bare = rng.chance(0.3);
    for config in configs.iter_mut() {
        config.negotiation.resume = rng.chance(0.9);
        config.negotiation.nonce_len = if bare { 0 } else { rng.pick(&[8, 8, 8, 4, 1, 0]) };
        config.sessions = SessionLimits {
            max: rng.pick(&[1, 2, 100, 100, 100]),
            per_peer: rng.pick(&[1, 2, 100, 100, 100]),
            lifetime: Duration::from_secs(rng.pick(&[1, 100, 7_200, 7_200])),
            lookahead: rng.pick(&[1, 2, 8, 8]),
            max_age: Duration::from_secs(24 * 3600),
            max_uses: 1000,
        };
    }
    if rng.chance(0.3) {
        flushes.push((Duration::from_micros(rng.scale(100_000, 1_000_000_000)), rng.below(2) as usize));
    }
    // Last, so that the seeds of other tests go on showing what they were chosen for.
    if !rng.chance(0.3) {
        return;
    }
    for config in configs {
        config.sessions.max_age = Duration::from_secs(rng.pick(&[2, 300, 86_400, 86_400]));
        config.sessions.max_uses = rng.pick(&[1, 2, 5, 1000, 1000]);
    }
}

/// Any key agreement, any cipher, the same preference at both hosts.
fn any_algorithm(rng: &mut Rng, configs: &mut [Config; 2]) {
    let by = configs[0].negotiation.teps.len() as u64;
    let by = rng.below(by) as usize;
    configs.iter_mut().for_each(|config| config.negotiation.teps.rotate_left(by));
    let by = configs[0].ciphers.len() as u64;
    let by = rng.below(by) as usize;
    configs.iter_mut().for_each(|config| config.ciphers.rotate_left(by));
}

/// Limits so low that a short transfer passes them.
fn rekeying(rng: &mut Rng, configs: &mut [Config; 2]) {
    for config in configs {
        if rng.chance(0.4) {
            continue;
        }
        config.rekey = RekeyLimits {
            frames: rng.pick(&[1, 3, 50, 1 << 23]),
            bytes: rng.pick(&[1, 1_000, 50_000, 1 << 36]),
            time: Duration::from_millis(rng.pick(&[100, 5_000, 3_600_000])),
        };
    }
}

fn on_demand(rng: &mut Rng, most: u64, conns: &[ConnPlan]) -> Vec<(Duration, usize, usize)> {
    (0..rng.below(most))
        .map(|_| {
            let conn = rng.below(conns.len() as u64) as usize;
            let at = conns[conn].start + Duration::from_micros(rng.scale(1_000, 5_000_000));
            (at, rng.below(2) as usize, conn)
        })
        .collect()
}

fn urgent(rng: &mut Rng, conns: &mut [ConnPlan]) {
    for plan in conns.iter_mut().flat_map(|conn| &mut conn.plans) {
        if plan.send > 0 && rng.chance(0.7) {
            plan.urgent = (0..rng.range(1, 5)).map(|_| rng.below(plan.send)).collect();
            plan.urgent.sort_unstable();
            plan.urgent.dedup();
        }
    }
}

fn lossy(link: &mut Link, rng: &mut Rng) {
    link.loss = rng.pick(&[0.0, 0.01, 0.02, 0.05, 0.1]);
    link.duplicate = rng.pick(&[0.0, 0.01, 0.1]);
    link.reorder = rng.pick(&[0.0, 0.02, 0.2]);
    link.reorder_by = rng.micros(1_000, 50_000);
    link.jitter = Duration::from_micros(rng.pick(&[0, 100, 3_000]));
}

fn plan(rng: &mut Rng, most: u64) -> Plan {
    let recv_buffer = match rng.below(6) {
        0 => rng.scale(500, 5_000),
        1 => rng.scale(100_000, 1 << 20),
        _ => rng.scale(4_096, 100_000),
    };
    let write_max = match rng.below(8) {
        0 => 1,
        1 => rng.range(2, 40),
        2 => 65_536,
        _ => rng.scale(40, 65_536),
    };
    let send = match rng.below(10) {
        0 => 0,
        1 => rng.range(1, 20),
        _ => rng.scale(20, most),
    };
    Plan {
        send: send.min(write_max * 2_000),
        write_max,
        write_fixed: rng.chance(0.2),
        write_pause: Duration::from_micros(rng.pick(&[0, 0, 0, 500, 20_000])),
        read_max: if rng.chance(0.8) { 4096 } else { rng.range(1, 4096) },
        read_pause: Duration::from_micros(rng.pick(&[0, 0, 0, 100, 5_000])),
        paced_by_peer: None,
        idle: Duration::ZERO,
        deaf: Duration::ZERO,
        timeout: None,
        close: Close::Written,
        abort_after: None,
        recv_buffer: recv_buffer as usize,
        send_buffer: rng.scale(1_000, 200_000) as usize,
        nagle: rng.chance(0.5),
        keep_alive: rng.chance(0.2).then(|| Duration::from_secs(rng.range(5, 100))),
        timestamps: rng.chance(0.5),
        reno: rng.chance(0.5),
        ack_delay: rng.pick(&[None, Some(10_000), Some(40_000), Some(200_000)]).map(Duration::from_micros),
        urgent: Vec::new(),
    }
}

fn conn(rng: &mut Rng, most: u64) -> ConnPlan {
    let mut plans = [plan(rng, most), plan(rng, most)];
    // One waits for the other's end of file, at most.
    if rng.chance(0.4) {
        plans[rng.below(2) as usize].close = Close::PeerEof;
    }
    // Echo, or question and answer.
    if rng.chance(0.25) {
        let asking = rng.below(2) as usize;
        plans[1 - asking].send = plans[asking].send;
        plans[1 - asking].paced_by_peer = Some(0);
        plans[asking].close = Close::Written;
        if rng.chance(0.5) {
            let ahead = rng.scale(1, 5_000);
            plans[asking].paced_by_peer = Some(ahead);
            for plan in &mut plans {
                plan.send = plan.send.min(ahead * 100);
            }
        }
    }
    for host in 0..2 {
        fit(&mut plans, host);
    }
    ConnPlan {
        v6: rng.chance(0.4),
        aliases: [0; 2],
        client: rng.below(2) as usize,
        start: Duration::ZERO,
        after: None,
        plans,
        refused: false,
        simultaneous: false,
    }
}

/// Keeps the number of round trips and steps within reason.
fn fit(plans: &mut [Plan; 2], host: usize) {
    let reads = if plans[1 - host].read_pause.is_zero() { 20_000 } else { 1_000 };
    let most = (plans[1 - host].recv_buffer as u64 * 150)
        .min(plans[1 - host].read_max * reads)
        .min(plans[host].send_buffer as u64 * 150);
    plans[host].send = plans[host].send.min(most);
    if let Some(ahead) = plans[host].paced_by_peer.filter(|a| *a > 0) {
        plans[host].send = plans[host].send.min(ahead * 200);
        plans[1 - host].send = plans[1 - host].send.min(ahead * 200);
    }
    if plans[1 - host].paced_by_peer.is_some() {
        plans[1 - host].send = plans[1 - host].send.min(plans[host].send);
    }
}

fn model(rng: &mut Rng) -> DeviceModel {
    let checksum_offload = rng.chance(0.7);
    DeviceModel {
        checksum_offload,
        tso: checksum_offload && rng.chance(0.7),
        gro: rng.chance(0.6),
        gro_partial: rng.chance(0.5),
        kernel_takes_super: rng.chance(0.5),
        stop: rng.pick(&[0.0, 0.1, 0.5]),
        interval: rng.micros(1, 1_000),
        tun_loss: 0.0,
        near_wrap: rng.chance(0.3).then(|| rng.scale(1, 200_000) as u32),
    }
}

/// The scenario of `profile` for `seed`.
pub fn scenario(profile: Profile, seed: u64) -> Scenario {
    let mut rng = Rng::new(seed.wrapping_mul(1_000_003) ^ ((profile as u64) << 56));
    let rng = &mut rng;
    let delay = rng.micros(20, 40_000);
    let mut mtus = [0, 0].map(|_| rng.pick(&[576, 1_280, 1_400, 1_500, 1_500, 1_500, 9_000]));
    let mut conns: Vec<ConnPlan> = (0..rng.pick(&[1, 1, 1, 2, 3])).map(|_| conn(rng, 200_000)).collect();
    let mut links = [Link::clean(delay), Link::clean(delay)];
    let mut setups = [Setup::Opportunistic; 2];
    let (mut expect, mut survive) = (Expect::Encrypted, true);
    let mut ends = false;
    let mut rekeys = Vec::new();
    let (mut enable_at, mut crash, mut down) = (None, None, None);
    let mut configs = [Config::default(), Config::default()];
    let mut flushes = Vec::new();
    let mut models = [model(rng), model(rng)];
    match profile {
        Profile::Clean => {}
        Profile::Lossy => links.iter_mut().for_each(|l| lossy(l, rng)),
        Profile::Slow => {
            for link in &mut links {
                link.rate = Some(rng.scale(20_000, 5_000_000));
                link.queue = rng.scale(10_000, 100_000);
            }
        }
        Profile::Damage => links.iter_mut().for_each(|l| l.damage = rng.pick(&[0.01, 0.05, 0.2])),
        Profile::Resegment => {
            for link in &mut links {
                link.resegment = rng.pick(&[0.05, 0.3, 0.9]);
                if rng.chance(0.5) {
                    lossy(link, rng);
                }
            }
        }
        Profile::Tiny => {
            for conn in &mut conns {
                for h in 0..2 {
                    let plan = &mut conn.plans[h];
                    plan.recv_buffer = rng.scale(64, 2_000) as usize;
                    plan.send_buffer = rng.scale(64, 20_000) as usize;
                    plan.read_pause = Duration::from_micros(rng.pick(&[0, 1_000, 20_000]));
                    plan.read_max = rng.scale(1, 4096);
                    plan.write_max = rng.pick(&[1, 10, 1_000, 65_536]);
                    plan.send = plan.send.min(plan.write_max * 2_000).min(40_000);
                }
                for h in 0..2 {
                    fit(&mut conn.plans, h);
                }
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Aborts => {
            let loss = rng.chance(0.5);
            for conn in &mut conns {
                for plan in &mut conn.plans {
                    plan.paced_by_peer = None;
                    plan.close = Close::Written;
                    // Who has nothing to send learns of a lost reset this way only.
                    plan.keep_alive = Some(Duration::from_secs(rng.range(5, 40)));
                }
                if rng.chance(0.15) {
                    conn.refused = true;
                } else {
                    let who = rng.below(2) as usize;
                    let (mine, theirs) = (conn.plans[who].send, conn.plans[1 - who].send);
                    conn.plans[who].abort_after = Some((rng.range(0, mine), rng.range(0, theirs)));
                }
            }
            if loss {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Idle => {
            for conn in &mut conns {
                for plan in &mut conn.plans {
                    plan.idle = Duration::from_secs(rng.pick(&[0, 3, 100, 1_000]));
                    plan.keep_alive = rng.chance(0.7).then(|| Duration::from_secs(rng.range(5, 200)));
                }
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Many => {
            conns = (0..rng.range(10, 40)).map(|_| conn(rng, 20_000)).collect();
            for conn in &mut conns {
                conn.start = rng.micros(0, 3_000_000);
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Rekey => {
            for _ in 0..rng.range(1, 20) {
                let at = Duration::from_micros(rng.scale(1_000, 5_000_000));
                rekeys.push((at, rng.below(2) as usize, rng.below(conns.len() as u64) as usize));
            }
            if rng.chance(0.6) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
            if rng.chance(0.3) {
                links[0].resegment = 0.3;
            }
        }
        Profile::Stripped => {
            expect = Expect::Plain;
            match rng.below(4) {
                0 => links.iter_mut().for_each(|l| l.strip = Strip::Syn),
                1 => links.iter_mut().for_each(|l| l.strip = Strip::SynAck),
                2 => links.iter_mut().for_each(|l| l.strip = Strip::All),
                _ => links.iter_mut().for_each(|l| l.strip = Strip::DropSyn),
            }
        }
        Profile::OneSided => {
            expect = Expect::Plain;
            setups[rng.below(2) as usize] = rng.pick(&[Setup::Without, Setup::Idle]);
            links.iter_mut().for_each(|l| lossy(l, rng));
        }
        Profile::Simultaneous => {
            conns.iter_mut().for_each(|c| c.simultaneous = true);
            match rng.below(6) {
                0 => expect = Expect::Plain,
                1 => (setups, expect) = ([Setup::RoleB; 2], Expect::Plain),
                _ => setups[rng.below(2) as usize] = Setup::RoleB,
            }
            if expect == Expect::Encrypted && rng.chance(0.6) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::PreExisting => {
            expect = Expect::Plain;
            setups = [Setup::Idle; 2];
            enable_at = Some(delay * 2 + rng.micros(2_000, 300_000));
            links.iter_mut().for_each(|l| lossy(l, rng));
            for link in &mut links {
                link.loss = 0.0;
                link.jitter = Duration::ZERO;
                link.reorder = 0.0;
            }
        }
        Profile::HalfStripped => {
            expect = Expect::Either;
            survive = false;
            links.iter_mut().for_each(|l| l.strip = Strip::NonSyn);
        }
        Profile::Forged => {
            for link in &mut links {
                link.attack = rng.pick(&[0.0, 0.002, 0.02, 0.1]);
                link.attacks = SURVIVABLE;
                link.tamper_payload = rng.pick(&[0.0, 0.0, 0.01, 0.05]);
                if rng.chance(0.3) {
                    lossy(link, rng);
                }
            }
        }
        Profile::Hostile => {
            expect = Expect::Either;
            survive = false;
            for link in &mut links {
                link.attack = rng.pick(&[0.0, 0.01, 0.1, 0.3]);
                link.attacks = ANY;
                // Before the keys are there nothing protects: then the peer may well be the attacker.
                link.attack_after = 2_000;
                link.tamper_payload = rng.pick(&[0.0, 0.02, 0.1]);
                link.tamper_header = rng.pick(&[0.0, 0.02, 0.1]);
                lossy(link, rng);
            }
        }
        Profile::Tun => {
            for model in &mut models {
                model.tun_loss = rng.pick(&[0.0, 0.01, 0.05]);
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Reuse => {
            conns = (0..rng.range(2, 4)).map(|_| conn(rng, 20_000)).collect();
            let first = conns[0].clone();
            for (i, conn) in conns.iter_mut().enumerate().skip(1) {
                (conn.v6, conn.client, conn.after) = (first.v6, first.client, Some(i - 1));
                conn.start = Duration::from_millis(rng.pick(&[0, 1_000, 30_000, 100_000]));
            }
            // Reset by either end, after any amount of data.
            for conn in &mut conns {
                if rng.chance(0.5) {
                    continue;
                }
                for plan in &mut conn.plans {
                    plan.paced_by_peer = None;
                    plan.close = Close::Written;
                    plan.keep_alive = Some(Duration::from_secs(rng.range(5, 40)));
                }
                let who = rng.below(2) as usize;
                let (mine, theirs) = (conn.plans[who].send, conn.plans[1 - who].send);
                conn.plans[who].abort_after = Some((rng.range(0, mine), rng.range(0, theirs)));
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Memory => {
            let most = rng.scale(1, 300_000) as usize;
            configs.iter_mut().for_each(|config| config.max_held_bytes = most);
            links.iter_mut().for_each(|l| lossy(l, rng));
        }
        Profile::Refused => {
            expect = Expect::Refused;
            (survive, ends) = (false, true);
            setups = [Setup::Required; 2];
            let strip = rng.pick(&[Strip::Syn, Strip::SynAck, Strip::All]);
            links.iter_mut().for_each(|l| l.strip = strip);
        }
        Profile::Crash | Profile::Down => {
            // Nothing that both know of is left: they learn of it by asking.
            (survive, ends) = (false, true);
            for conn in &mut conns {
                for plan in &mut conn.plans {
                    plan.keep_alive = Some(Duration::from_secs(rng.range(5, 40)));
                }
            }
            let when = Some((Duration::from_micros(rng.scale(10_000, 2_000_000)), rng.below(2) as usize));
            if profile == Profile::Crash {
                crash = when
            } else {
                down = when
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Everything => {
            for link in &mut links {
                lossy(link, rng);
                link.damage = rng.pick(&[0.0, 0.02]);
                link.resegment = rng.pick(&[0.0, 0.3]);
                if rng.chance(0.3) {
                    link.rate = Some(rng.scale(50_000, 5_000_000));
                    link.queue = rng.scale(20_000, 100_000);
                }
            }
            any_algorithm(rng, &mut configs);
            for _ in 0..rng.below(4) {
                let at = Duration::from_micros(rng.scale(1_000, 5_000_000));
                rekeys.push((at, rng.below(2) as usize, rng.below(conns.len() as u64) as usize));
            }
        }
        Profile::Chains => {
            conns = chain(rng);
            resumption(rng, &mut configs, &mut flushes);
            if rng.chance(0.6) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Urgent => {
            urgent(rng, &mut conns);
            if rng.chance(0.6) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
            if rng.chance(0.3) {
                links.iter_mut().for_each(|l| l.resegment = 0.3);
            }
        }
        Profile::Deaf => {
            let deaf = Duration::from_secs(rng.range(300, 3_000));
            for conn in &mut conns {
                let who = rng.below(2) as usize;
                for plan in &mut conn.plans {
                    plan.paced_by_peer = None;
                    plan.keep_alive = rng.chance(0.7).then(|| Duration::from_secs(rng.range(5, 200)));
                }
                let plan = &mut conn.plans[who];
                (plan.deaf, plan.recv_buffer) = (deaf, rng.scale(500, 60_000) as usize);
                // Its kernel must not take the peer for dead.
                plan.timeout = plan.keep_alive.map(|every| every * 6);
                let writes = rng.range(10, 300);
                plan.write_max = rng.scale(1, 5_000);
                plan.send = writes * plan.write_max / 2;
                plan.write_pause = deaf / (writes as u32);
                plan.read_pause = Duration::ZERO;
                plan.read_max = 4_096;
                // More than kernel and engine have room for.
                conn.plans[1 - who].send = rng.range(200_000, 400_000);
                conn.plans[1 - who].send_buffer = 100_000;
                conn.plans[1 - who].write_max = 10_000;
                conn.plans[1 - who].write_pause = Duration::ZERO;
                (conn.plans[1 - who].read_max, conn.plans[1 - who].read_pause) = (4_096, Duration::ZERO);
            }
            for _ in 0..rng.range(1, 60) {
                let at = Duration::from_micros(rng.scale(1_000, deaf.as_micros() as u64));
                rekeys.push((at, rng.below(2) as usize, rng.below(conns.len() as u64) as usize));
            }
            if rng.chance(0.4) {
                configs.iter_mut().for_each(|config| config.rekey.time = Duration::from_secs(rng.range(5, 200)));
            }
            if rng.chance(0.5) {
                links.iter_mut().for_each(|l| lossy(l, rng));
            }
        }
        Profile::Protocol => {
            if rng.chance(0.8) {
                conns = chain(rng);
                resumption(rng, &mut configs, &mut flushes);
            }
            if rng.chance(0.8) {
                rekeying(rng, &mut configs);
                rekeys = on_demand(rng, 6, &conns);
            }
            if rng.chance(0.6) {
                urgent(rng, &mut conns);
            }
            for link in &mut links {
                lossy(link, rng);
                link.damage = rng.pick(&[0.0, 0.0, 0.02]);
                link.resegment = rng.pick(&[0.0, 0.3]);
                if rng.chance(0.2) {
                    link.rate = Some(rng.scale(50_000, 5_000_000));
                    link.queue = rng.scale(20_000, 100_000);
                }
            }
            for model in &mut models {
                model.tun_loss = rng.pick(&[0.0, 0.0, 0.01]);
            }
        }
    }
    if conns.iter().any(|c| c.v6) {
        mtus = mtus.map(|m: usize| m.max(1_280));
    }
    // What survives by chance, on a network that damages every fifth packet, is not given up meanwhile.
    if survive {
        configs.iter_mut().for_each(|config| config.handshake_timeout = Duration::from_secs(500));
    }
    for link in &mut links {
        link.mtu = mtus[0].min(mtus[1]);
    }
    Scenario {
        setups,
        mtus,
        models,
        links,
        conns,
        expect,
        survive,
        rekeys,
        ends,
        enable_at,
        crash,
        down,
        clock_before_wrap: if rng.chance(0.3) { rng.scale(1, 100_000) as u32 } else { 0 },
        deadline: Duration::from_secs(8 * 3600),
        configs,
        flushes,
    }
}
