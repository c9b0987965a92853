//! Packets of any kind into an engine, on both sides. The input is a list of packets: a byte that says side, time and
//! how the packet is completed, two bytes of length, the packet.
#![no_main]

use std::time::Duration;

use enotun::engine::{Config, Engine, RandomFor, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::{Checksum, Offload};
use env::{Source, TestEnv};
use libfuzzer_sys::fuzz_target;

#[path = "../../harness/env.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the other tests")]
mod env;

/// Randomness that the corpus counts on: it has frames for the keys that come of it.
struct Nines;

impl Source for Nines {
    fn fill(&mut self, _: &RandomFor<'_>, out: &mut [u8]) {
        out.fill(9);
    }
}

/// The host whose engine it is, and its peer.
const LOCAL: [u8; 6] = [10, 0, 0, 1, 0, 80];
const REMOTE: [u8; 6] = [10, 0, 0, 2, 0xc0, 1];

/// Makes IPv4 and TCP headers around `rest`, which is the TCP header from the sequence number on, and payload: so that the
/// fuzzer need not guess addresses and lengths.
fn wrap(side: Side, rest: &[u8]) -> Vec<u8> {
    let (from, to) = if side == Side::Plain { (LOCAL, REMOTE) } else { (REMOTE, LOCAL) };
    let len = (24 + rest.len()).min(65_535) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend(&from[..4]);
    bytes.extend(&to[..4]);
    bytes.extend(&from[4..]);
    bytes.extend(&to[4..]);
    bytes.extend(rest);
    bytes.truncate(usize::from(len));
    bytes
}

fuzz_target!(|input: &[u8]| {
    let mut engine = Engine::new(Config::default(), &tcpcrypt::rust_crypto::PROVIDER);
    let selector = "0.0.0.0/0".parse().expect("a selector");
    engine.set_policy(PolicyTable::new([Rule::new(selector, Policy::Opportunistic)]));
    let mut env = TestEnv::new(Nines);
    let mut now = Instant::from_micros(1_000_000);
    let mut rest = input;
    let mut given = 0;
    while let [control, high, low, behind @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (packet, behind) = behind.split_at(len);
        rest = behind;
        let side = if control & 1 == 0 { Side::Wire } else { Side::Plain };
        let mut bytes = if control & 2 == 0 { wrap(side, packet) } else { packet.to_vec() };
        // The checksum counts as right, or nothing would get any further.
        let offload = Offload { checksum: Checksum::Verified, gso: None };
        engine.handle_packet(now, side, offload, &mut bytes, &mut env);
        // What an engine builds is no longer than IP can say.
        assert!(env.take().iter().all(|sent| !sent.built || sent.bytes.len() <= 65_575));
        given += 1;
        now = now + Duration::from_millis(1 << (control >> 4));
        for _ in 0..100 {
            match engine.poll_timeout() {
                Some(due) if due <= now => engine.handle_timeout(now, &mut env),
                _ => break,
            }
        }
    }
    assert!(engine.len() <= given, "no more connections than packets");
    // Whatever happened, it is forgotten once it is aborted.
    engine.abort_all(now, &mut env);
    for _ in 0..2_000 {
        let Some(due) = engine.poll_timeout() else { break };
        now = now.max(due);
        engine.handle_timeout(now, &mut env);
    }
    assert!(engine.is_empty(), "{:?}", engine.flows());
    assert_eq!(engine.held_bytes(), 0);
});
