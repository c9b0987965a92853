//! Connections that resume a session.

use super::packet::RST;
use super::*;

/// Both ends have a session, and no connection. The client's host caches for the next connection what `no_cache` leaves.
fn with_a_session(no_cache: bool) -> Pair {
    let mut pair = Pair::connected();
    talk(&mut pair, Vec::new());
    assert_eq!([&pair.a, &pair.b].map(|host| host.engine.session_count()), [1, 1]);
    let mut rst = pair.from_a();
    rst.flags = RST | ACK;
    for seg in pair.a.kernel(&rst).wire {
        pair.b.wire(&seg);
    }
    let mut rule = Rule::new("0.0.0.0/0".parse().expect("a selector"), Policy::Opportunistic);
    rule.options.no_cache = no_cache;
    pair.a.engine.set_policy(PolicyTable::new([rule]));
    pair
}

/// Carries `to_b` and data both ways, so that both have shown their keys.
fn talk(pair: &mut Pair, mut to_b: Vec<Seg>) {
    to_b.extend(pair.a_writes(b"question").wire);
    for seg in to_b {
        for seg in pair.b.wire(&seg).wire {
            pair.a.wire(&seg);
        }
    }
    let mut answer = pair.from_b();
    answer.payload = b"answer".to_vec();
    pair.b_next = pair.b_next.wrapping_add(answer.payload.len() as u32);
    for seg in pair.b.kernel(&answer).wire {
        pair.a.wire(&seg);
    }
}

/// Opens a connection that resumes it, with data both ways.
fn resume(pair: &mut Pair) {
    let (a_next, b_next) = (A_ISN.wrapping_add(1), B_ISN.wrapping_add(1));
    (pair.a_next, pair.b_next) = (a_next, b_next);
    let opened = pair.until_ack().wire;
    talk(pair, opened);
    assert_eq!([pair.flow_a(), pair.flow_b()].map(|flow| flow.map(|flow| flow.resumed)), [Some(true); 2]);
}

#[test]
fn tc_22_a_resumed_connection_that_is_to_cache_nothing_leaves_nothing_in_the_cache() {
    for no_cache in [false, true] {
        let mut pair = with_a_session(no_cache);
        resume(&mut pair);
        assert_eq!(pair.a.engine.session_count(), usize::from(!no_cache));
        assert_eq!(pair.b.engine.session_count(), 1, "what the peer keeps is its own business");
    }
}
