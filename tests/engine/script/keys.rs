//! When keys are replaced.

use super::*;

fn generation(flow: Option<FlowInfo>) -> Option<u64> {
    flow.and_then(|flow| flow.generation_local)
}

/// Somebody lets the peer's acknowledgements through and keeps its answers back: no more is sealed under one key all the same.
#[test]
fn tc_33_a_limit_is_kept_while_a_rekey_is_not_answered() {
    let mut config = Config::default();
    config.rekey.frames = 10;
    let mut pair = Pair::connected_with(config);
    for n in 0..1_000_u32 {
        for seg in pair.a_writes(&[7; 100]).wire {
            for mut answer in pair.b.wire(&seg).wire {
                answer.payload.clear();
                pair.a.wire(&answer);
            }
        }
        // The server's kernel acknowledges.
        for mut seg in pair.b.kernel(&pair.from_b()).wire {
            seg.payload.clear();
            pair.a.wire(&seg);
        }
        let sealed = u64::from(n + 1);
        assert!(
            generation(pair.flow_a()) >= Some((sealed - 1) / 10),
            "{sealed} frames: {:?}",
            generation(pair.flow_a())
        );
    }
    assert_eq!(generation(pair.flow_a()), Some(99));
}

/// A key is as old as the first frame under it: a connection on which something is sent every 40 minutes has a new one every 80.
#[test]
fn tc_31_the_age_of_a_key_counts_from_its_first_frame() {
    let mut pair = Pair::connected();
    let mut generations = Vec::new();
    for n in 0..12 {
        for seg in pair.a_writes(&[n; 10]).wire {
            for answer in pair.b.wire(&seg).wire {
                pair.a.wire(&answer);
            }
        }
        for seg in pair.b.kernel(&pair.from_b()).wire {
            pair.a.wire(&seg);
        }
        generations.push(generation(pair.flow_a()).expect("encrypted"));
        for host in [&mut pair.a, &mut pair.b] {
            host.now = host.now + Duration::from_secs(2_400);
        }
    }
    assert_eq!(generations, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
}

/// The data that a key has protected counts, in however few frames.
#[test]
fn tc_31_a_key_is_replaced_after_so_many_bytes() {
    let mut config = Config::default();
    config.rekey.bytes = 1_000;
    let mut pair = Pair::connected_with(config);
    let mut generations = Vec::new();
    for n in 0..7 {
        for seg in pair.a_writes(&[n; 500]).wire {
            for answer in pair.b.wire(&seg).wire {
                pair.a.wire(&answer);
            }
        }
        for seg in pair.b.kernel(&pair.from_b()).wire {
            pair.a.wire(&seg);
        }
        generations.push(generation(pair.flow_a()).expect("encrypted"));
    }
    assert_eq!(generations, [0, 0, 1, 1, 2, 2, 3]);
}

/// The first data of an open connection may be lost for as long as kernels try (`tcp_retries2`): key exchanges are that.
#[test]
fn tc_3_a_key_exchange_may_take_as_long_as_kernels_send_again() {
    let mut pair = Pair::new();
    let mut ack = pair.until_ack().wire.remove(0);
    ack.payload.clear();
    pair.b.wire(&ack);
    // Both ends are open. For a quarter of an hour nothing arrives.
    pair.b.wait(Duration::from_secs(900));
    let init1 = pair.a.wait(Duration::from_secs(900)).wire.pop().expect("sent again and again");
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(enotun::engine::FlowState::Negotiating));
    for seg in pair.b.wire(&init1).wire {
        pair.a.wire(&seg);
    }
    // Each shows the other that it has the keys.
    for seg in pair.a_writes(b"at last").wire {
        assert_eq!(pair.b.wire(&seg).delivered(), b"at last");
    }
    let mut seg = pair.from_b();
    seg.payload = b"indeed".to_vec();
    for seg in pair.b.kernel(&seg).wire {
        assert_eq!(pair.a.wire(&seg).delivered(), b"indeed");
    }
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(enotun::engine::FlowState::Encrypted));
    assert!(has_keys(pair.flow_b()));
    // Not for ever.
    let mut pair = Pair::new();
    let mut ack = pair.until_ack().wire.remove(0);
    ack.payload.clear();
    pair.b.wire(&ack);
    for host in [&mut pair.a, &mut pair.b] {
        host.wait(Duration::from_secs(930));
        assert!(host.engine.counters().connections_aborted == 1);
    }
}
