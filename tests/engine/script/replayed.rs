//! A SYN that somebody held back and sends again from elsewhere.

use super::packet::ENO;
use super::*;
use enotun::engine::FlowState;

#[test]
fn tc_19_a_copied_proposal_is_not_shown_as_resumed_and_moves_nothing() {
    let mut pair = Pair::connected();
    confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
    let mut later = a_addr();
    later.set_port(40_001);
    let mut syn = Pair::syn();
    syn.src = later;
    let mut held_back = pair.a.kernel(&syn).wire.remove(0);
    let peers = |b: &Host| b.engine.sessions(b.now).into_iter().map(|session| session.peer).collect::<Vec<_>>();
    assert_eq!(peers(&pair.b), [a_addr().ip()]);
    // From another address: the peer's proposal is taken for a moment, for nobody can tell.
    let elsewhere: SocketAddr = "10.0.9.9:40001".parse().expect("an address");
    held_back.src = elsewhere;
    pair.b.wire(&held_back);
    let mut syn_ack = Pair::syn_ack();
    syn_ack.dst = elsewhere;
    let answer = pair.b.kernel(&syn_ack).wire.remove(0);
    assert!(answer.option(ENO).is_some_and(|eno| eno.len() > 9), "a proposal that is accepted: {answer:?}");
    let mut ack = pair.from_a();
    (ack.src, ack.options) = (elsewhere, vec![ENO, 2, 1, 1]);
    pair.b.wire(&ack);
    pair.b.wait(Duration::from_secs(1));
    let flow = pair.b.engine.flow(b_addr(), elsewhere).expect("a connection");
    assert_eq!((flow.state, flow.resumed, flow.peer_confirmed), (FlowState::Negotiating, false, false));
    assert_eq!(peers(&pair.b), [a_addr().ip()], "the chain stays where it was");
    assert!(pair.b.engine.paths(pair.b.now).iter().all(|path| path.address != elsewhere.ip()));
    assert_eq!(pair.b.engine.counters().connections_resumed, 0);
}
