//! Plain connections, and what anybody can send beside them.

use super::*;
use crate::harness::packet::{FIN, RST};
use enotun::engine::FlowState;

/// A connection that was open before policy `required` was in force, and is let go on.
fn admitted() -> Host {
    let mut host = Host::with_policy(Config::default(), Policy::Off);
    let rule = Rule::new("0.0.0.0/0".parse().expect("a selector"), Policy::Required);
    host.engine.change_policy(PolicyTable::new([rule]));
    host.engine.admit(host.now, &[(a_addr(), b_addr())]);
    assert_eq!(host.engine.flow(a_addr(), b_addr()).map(|flow| flow.state), Some(FlowState::Plain));
    host
}

/// Its numbers are not known: nobody's guess becomes one of them.
#[test]
fn forgeries_do_not_end_a_connection_that_was_open_before() {
    let mut host = admitted();
    let (from_a, from_b) = (Pair::new().from_a(), Pair::new().from_b());
    for (seq, flags) in [(5, ACK), (5, RST), (5, RST | ACK), (6, ACK | FIN), (6, RST), (7, RST)] {
        let mut forged = from_b.clone();
        (forged.seq, forged.flags, forged.ack) = (seq, flags, seq);
        host.wire(&forged);
    }
    host.wait(Duration::from_secs(61));
    for (from, seg) in [(Side::Plain, &from_a), (Side::Wire, &from_b)] {
        let sent = host.hear(from, seg);
        let passed = if from == Side::Plain { sent.wire } else { sent.plain };
        assert_eq!(passed.iter().map(|seg| seg.flags).collect::<Vec<_>>(), [ACK], "from {from:?}");
    }
    // One side has ended its stream: silence says nothing of the other.
    let mut fin = from_a.clone();
    fin.flags = ACK | FIN;
    host.kernel(&fin);
    for seq in [99, from_b.seq.wrapping_add(20_000)] {
        let mut forged = from_b.clone();
        (forged.seq, forged.flags) = (seq, ACK | FIN);
        host.wire(&forged);
    }
    host.wait(Duration::from_secs(120));
    assert_eq!(host.wire(&from_b).plain.len(), 1);
    // And the end is the end.
    let mut rst = from_b.clone();
    rst.flags = RST;
    host.kernel(&from_a);
    host.wire(&rst);
    assert_eq!(host.engine.flow(a_addr(), b_addr()).map(|flow| flow.state), Some(FlowState::Closed));
}

/// The server's kernel sends its SYN-ACK for longer than the opening is remembered: what said that it has ENO is not followed by
/// one that says that it has not.
#[test]
fn a_late_syn_ack_of_an_opening_that_has_timed_out_makes_nothing_plain() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    assert!(pair.b.kernel(&Pair::syn_ack()).wire[0].option(packet::ENO).is_some());
    for _ in 0..2 {
        pair.b.wait(Duration::from_millis(61_500));
        let sent = pair.b.kernel(&Pair::syn_ack()).wire;
        assert!(sent.iter().all(|seg| seg.option(packet::ENO).is_some()), "{sent:?}");
    }
}
