//! Parts of scenarios, drawn at random: connections, links, devices, settings.

use std::time::Duration;

use enotun::engine::{Config, RekeyLimits, SessionLimits};

use super::app::{Close, Plan};
use super::host::{ALIASES, DeviceModel};
use super::net::Link;
use super::scenario::ConnPlan;
use crate::harness::rng::Rng;

/// Connections that come one after the other, some before others are over.
pub fn chain(rng: &mut Rng) -> Vec<ConnPlan> {
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
pub fn resumption(rng: &mut Rng, configs: &mut [Config; 2], flushes: &mut Vec<(Duration, usize)>) {
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
pub fn any_algorithm(rng: &mut Rng, configs: &mut [Config; 2]) {
    let by = configs[0].negotiation.teps.len() as u64;
    let by = rng.below(by) as usize;
    configs.iter_mut().for_each(|config| config.negotiation.teps.rotate_left(by));
    let by = configs[0].ciphers.len() as u64;
    let by = rng.below(by) as usize;
    configs.iter_mut().for_each(|config| config.ciphers.rotate_left(by));
}

/// Limits so low that a short transfer passes them.
pub fn rekeying(rng: &mut Rng, configs: &mut [Config; 2]) {
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

pub fn on_demand(rng: &mut Rng, most: u64, conns: &[ConnPlan]) -> Vec<(Duration, usize, usize)> {
    (0..rng.below(most))
        .map(|_| {
            let conn = rng.below(conns.len() as u64) as usize;
            let at = conns[conn].start + Duration::from_micros(rng.scale(1_000, 5_000_000));
            (at, rng.below(2) as usize, conn)
        })
        .collect()
}

pub fn urgent(rng: &mut Rng, conns: &mut [ConnPlan]) {
    for plan in conns.iter_mut().flat_map(|conn| &mut conn.plans) {
        if plan.send > 0 && rng.chance(0.7) {
            plan.urgent = (0..rng.range(1, 5)).map(|_| rng.below(plan.send)).collect();
            plan.urgent.sort_unstable();
            plan.urgent.dedup();
        }
    }
}

pub fn lossy(link: &mut Link, rng: &mut Rng) {
    link.loss = rng.pick(&[0.0, 0.01, 0.02, 0.05, 0.1]);
    link.duplicate = rng.pick(&[0.0, 0.01, 0.1]);
    link.reorder = rng.pick(&[0.0, 0.02, 0.2]);
    link.reorder_by = rng.micros(1_000, 50_000);
    link.jitter = Duration::from_micros(rng.pick(&[0, 100, 3_000]));
}

pub fn plan(rng: &mut Rng, most: u64) -> Plan {
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

pub fn conn(rng: &mut Rng, most: u64) -> ConnPlan {
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
pub fn fit(plans: &mut [Plan; 2], host: usize) {
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

pub fn model(rng: &mut Rng) -> DeviceModel {
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
