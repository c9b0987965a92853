//! Two engines with a TCP stack behind each, over a network that does its worst, in virtual time.
//!
//! Each test below runs one profile over many seeds. `ENOTUN_SIM_SEEDS` sets how many; a seed that fails is
//! printed with the command that replays it with a trace of all packets:
//! `ENOTUN_SIM_SEED=17 cargo test --test simulation lossy -- --nocapture`. `ENOTUN_SIM_FROM` starts at another seed.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod app;
mod draw;
#[path = "../harness/mod.rs"]
mod harness;
mod host;
mod judge;
mod net;
mod profile;
mod run;
mod scenario;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use host::Setup;
use judge::Report;
use profile::{Profile, scenario};
use run::run;
use scenario::Scenario;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

fn attempt(scenario: &Scenario, seed: u64, trace: bool) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(scenario, seed, trace))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

fn faults(result: &Result<Report, String>) -> Vec<String> {
    match result {
        Ok(report) => report.faults.clone(),
        Err(panic) => vec![format!("panic: {panic}")],
    }
}

/// Runs `profile` over its seeds, each scenario changed by `change`.
fn check(test: &str, profile: Profile, seeds: u64, change: impl Fn(&mut Scenario)) {
    let make = |seed| {
        let mut scenario = scenario(profile, seed);
        change(&mut scenario);
        scenario
    };
    if let Some(seed) = number("ENOTUN_SIM_SEED") {
        let scenario = make(seed);
        println!("{scenario:#?}");
        let result = attempt(&scenario, seed, true);
        if let Ok(report) = &result {
            for line in &report.trace {
                println!("{line}");
            }
            println!(
                "{} packets, {} bytes delivered, {} encrypted, {} resumed, {} generations, {} urgent, {} plain, {} hung, {:?}, at most {} bytes held; {:?}",
                report.packets,
                report.delivered,
                report.encrypted,
                report.resumed,
                report.generations,
                report.urgent,
                report.plain,
                report.hung,
                report.took,
                report.held_most,
                report.counts
            );
            for (host, counters) in report.counters.iter().enumerate() {
                let told: Vec<_> = counters.iter().filter(|(_, n)| *n > 0).collect();
                println!("engine {host}: {told:?}");
            }
        }
        let faults = faults(&result);
        assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
        return;
    }
    let from = number("ENOTUN_SIM_FROM").unwrap_or(0);
    // With plain TCP at both ends smoltcp itself hangs on some seeds: the first ones are enough to show that the rest is sound.
    let settable = !test.starts_with("without_engines::");
    let seeds = number("ENOTUN_SIM_SEEDS").filter(|_| settable).unwrap_or(seeds);
    let mut failed = Vec::new();
    let (mut packets, mut delivered, mut encrypted, mut plain, mut hung) = (0, 0, 0, 0, 0);
    let (mut resumed, mut generations, mut urgent) = (0, 0, 0);
    for seed in from..from + seeds {
        let result = attempt(&make(seed), seed, false);
        if let Ok(report) = &result {
            packets += report.packets;
            delivered += report.delivered;
            encrypted += report.encrypted;
            plain += report.plain;
            hung += report.hung;
            resumed += report.resumed;
            generations += report.generations;
            urgent += report.urgent;
        }
        let mut faults = faults(&result);
        if profile == Profile::OneSided && !faults.is_empty() {
            // Plain TCP, as smoltcp does it: what goes wrong without any engine in just the same way is not ours.
            let mut scenario = make(seed);
            without_engines::plain(&mut scenario);
            if self::faults(&attempt(&scenario, seed, false)) == faults {
                println!("{test}: seed {seed} fails without an engine as well: {}", faults.join("; "));
                faults.clear();
            }
        }
        if let Some(first) = faults.first() {
            eprintln!(
                "{test}: seed {seed} failed: {first}{}\n  replay: ENOTUN_SIM_SEED={seed} cargo test --test simulation {test} -- --exact --nocapture",
                if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() }
            );
            failed.push(seed);
        }
    }
    println!(
        "{test}: {seeds} seeds, {packets} packets seen, {delivered} bytes delivered, {encrypted} connections encrypted \
        ({resumed} resumed, {generations} generations on, {urgent} bytes urgent), {plain} plain, {hung} hung"
    );
    // What a profile is for has happened, if it had the chance.
    if seeds >= 20 && from == 0 {
        let (chains, all) = (profile == Profile::Chains, profile == Profile::Protocol);
        assert!(!(chains || all) || resumed > encrypted / 10, "{test}: {resumed} of {encrypted} resumed");
        assert!(!(all || profile == Profile::Rekey) || generations > seeds, "{test}: {generations} generations");
        assert!(!(all || profile == Profile::Urgent) || urgent as u64 > seeds / 2, "{test}: {urgent} urgent bytes");
    }
    assert!(failed.is_empty(), "{test}: {} of {seeds} seeds failed: {failed:?}", failed.len());
}

macro_rules! profiles {
    ($($(#[$doc:meta])* $name:ident: $profile:ident, $seeds:expr;)*) => {
        $($(#[$doc])* #[test] fn $name() { check(stringify!($name), Profile::$profile, $seeds, |_| {}); })*
    };
}

profiles! {
    clean: Clean, 30;
    lossy: Lossy, 40;
    slow: Slow, 20;
    damage: Damage, 20;
    resegment: Resegment, 30;
    tiny: Tiny, 30;
    aborts: Aborts, 40;
    idle: Idle, 20;
    many: Many, 6;
    rekey: Rekey, 30;
    stripped: Stripped, 20;
    one_sided: OneSided, 20;
    simultaneous: Simultaneous, 40;
    pre_existing: PreExisting, 20;
    half_stripped: HalfStripped, 20;
    forged: Forged, 40;
    hostile: Hostile, 40;
    tun: Tun, 30;
    reuse: Reuse, 20;
    memory: Memory, 20;
    refused: Refused, 20;
    crash: Crash, 30;
    down: Down, 20;
    everything: Everything, 60;
    chains: Chains, 200;
    urgent: Urgent, 100;
    deaf: Deaf, 40;
    protocol: Protocol, 400;
}

/// What holds of plain TCP over the same network shows that the network and the applications are sound.
mod without_engines {
    use super::*;

    pub(super) fn plain(scenario: &mut Scenario) {
        scenario.setups = [Setup::Without; 2];
        scenario.expect = crate::scenario::Expect::Plain;
        if scenario.conns.iter().any(|conn| conn.simultaneous) {
            // smoltcp by itself does not stand loss in a simultaneous open.
            for link in &mut scenario.links {
                (link.loss, link.duplicate, link.reorder, link.jitter) = (0.0, 0.0, 0.0, std::time::Duration::ZERO);
            }
        }
    }

    macro_rules! plain_profiles {
        ($($name:ident: $profile:ident, $seeds:expr;)*) => {
            $(#[test] fn $name() {
                check(concat!("without_engines::", stringify!($name)), Profile::$profile, $seeds, plain);
            })*
        };
    }

    plain_profiles! {
        lossy: Lossy, 10;
        slow: Slow, 5;
        damage: Damage, 5;
        resegment: Resegment, 5;
        tiny: Tiny, 10;
        aborts: Aborts, 20;
        idle: Idle, 5;
        simultaneous: Simultaneous, 5;
        one_sided: OneSided, 5;
        deaf: Deaf, 5;
        everything: Everything, 10;
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..5 {
        let scenario = scenario(Profile::Everything, seed);
        let (first, second) = (run(&scenario, seed, false), run(&scenario, seed, false));
        assert_eq!((first.fingerprint, first.packets), (second.fingerprint, second.packets), "seed {seed}");
    }
}

#[test]
fn plaintext_on_the_wire_is_noticed() {
    let mut scenario = scenario(Profile::Clean, 1);
    scenario.setups = [Setup::Idle; 2];
    scenario.conns[0].plans[0].send = 5_000;
    let report = run(&scenario, 1, false);
    assert!(report.faults.iter().any(|f| f.contains("plaintext on the wire")), "{:?}", report.faults);
}
