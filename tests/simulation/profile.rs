//! Profiles: families of scenarios. A profile and a seed make one scenario.

use std::time::Duration;

use enotun::engine::Config;

use super::app::Close;
use super::draw::{any_algorithm, chain, conn, fit, lossy, model, on_demand, rekeying, resumption, urgent};
use super::host::Setup;
use super::net::{ANY, Link, SURVIVABLE, Strip};
use super::scenario::{ConnPlan, Expect, Scenario};
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
