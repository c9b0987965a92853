//! Signs that this machine was cloned, rolled back or stopped (TC-14, TC-19, TC-31): what the engine does about them, and what
//! that saves when a machine was copied with connections open. docs/clones.md says the same in words.

use crate::harness::host::everything;
use crate::harness::machine::{Connection, Machine, Make, NOW, Node as _, Numbers, Packets, carry, deliver};
use crate::harness::packet::{ACK, RST, SYN, Seg};
use crate::harness::seals;
use enotun::engine::{Disruption, Finding, FlowState, Side};
use enotun::selector::Policy;
use enotun::wire::Offload;

const WEAK: [Disruption; 5] =
    [Disruption::Moved, Disruption::Suspend, Disruption::Stop, Disruption::ClockStep, Disruption::AddressChange];

const SEEDS: u64 = 20;

fn machines(seed: u64) -> [Machine; 2] {
    seals::begin();
    [0, 1].map(|i| Machine::new(Make { seed: seed * 2 + i, mixing: true, resume: true, nonce_len: 8 }))
}

/// Two hosts with a connection open and a session cached.
fn open(seed: u64) -> ([Machine; 2], Connection) {
    let [mut client, mut server] = machines(seed);
    let (mut connection, _) = Connection::open(&mut client, &mut server, Numbers::new(seed, false, 0), b"question");
    assert!(connection.say(&mut client, &mut server, false, b"reply"));
    ([client, server], connection)
}

fn generations(machine: &Machine, connection: &Connection) -> [Option<u64>; 2] {
    let flow = machine.engine.flow(connection.numbers.client, connection.numbers.server).unwrap();
    [flow.generation_local, flow.generation_remote]
}

fn resets(packets: &Packets, side: Side) -> usize {
    let reset = |packet: &[u8]| Seg::parse(packet).unwrap().flags & RST != 0;
    packets.iter().filter(|(at, packet, _)| *at == side && reset(packet)).count()
}

#[test]
fn tc_31_a_weak_sign_erases_the_cache_and_rekeys_what_is_open() {
    for sign in WEAK {
        let ([mut client, mut server], mut connection) = open(1);
        let (done, sent) = client.disrupt(sign);
        assert_eq!((done.sign, done.at), (sign, NOW));
        assert_eq!((done.sessions_flushed, done.connections_rekeyed, done.connections_aborted), (1, 1, 0), "{sign:?}");
        assert_eq!(client.engine.last_disruption(), Some(done));
        assert_eq!(client.engine.session_count(), 0);
        deliver(&mut client, &mut server, sent);
        assert_eq!(generations(&client, &connection), [Some(1), Some(1)], "{sign:?}: it was answered (TC-32)");
        assert!(connection.say(&mut client, &mut server, true, b"more"));
        assert!(connection.say(&mut client, &mut server, false, b"answer"));
        assert_eq!(client.engine.counters().disruptions, 1);
        assert_eq!(server.engine.session_count(), 1, "the peer finds out when it proposes to resume");
        // What was erased costs a fresh key exchange and nothing else.
        let (mut fresh, came) = Connection::open(&mut client, &mut server, Numbers::new(1, false, 1), b"question");
        assert!(!came.resumed);
        assert!(fresh.say(&mut client, &mut server, false, b"reply"));
        let (_, came) = Connection::open(&mut server, &mut client, Numbers::new(1, true, 2), b"question");
        assert!(came.resumed, "the session made since can be resumed");
    }
}

#[test]
fn tc_33_a_sign_during_a_rekey_has_another_follow_it() {
    let ([mut client, mut server], mut connection) = open(2);
    let (_, first) = client.disrupt(Disruption::Suspend);
    let (done, second) = client.disrupt(Disruption::Suspend);
    assert_eq!(done.connections_rekeyed, 1);
    assert!(second.is_empty(), "one outstanding rekey at a time");
    deliver(&mut client, &mut server, first);
    assert_eq!(generations(&client, &connection), [Some(1), Some(1)]);
    assert!(connection.say(&mut client, &mut server, true, b"more"));
    assert_eq!(generations(&client, &connection), [Some(2), Some(2)], "with the next frame");
    assert!(connection.say(&mut client, &mut server, true, b"more"));
    assert_eq!(generations(&client, &connection), [Some(2), Some(2)], "and no more");
}

#[test]
fn tc_6_a_new_vm_generation_erases_the_cache_and_aborts_what_has_keys() {
    let ([mut client, mut server], connection) = open(3);
    let (done, sent) = client.disrupt(Disruption::VmGeneration);
    assert_eq!((done.sessions_flushed, done.connections_rekeyed, done.connections_aborted), (1, 0, 1));
    assert_eq!((resets(&sent, Side::Plain), resets(&sent, Side::Wire)), (1, 1), "both ends are told");
    let [_, told] = deliver(&mut client, &mut server, sent);
    assert_eq!(resets(&told, Side::Plain), 1, "the peer believes it");
    let Numbers { client: local, server: remote, .. } = connection.numbers;
    let flow = client.engine.flow(local, remote).unwrap();
    assert_eq!(flow.state, FlowState::Closed);
    assert!(flow.reason.unwrap().contains("cloned or rolled back"));
    // It is not the peer's fault, and is counted apart.
    assert_eq!((client.engine.counters().connections_aborted, client.engine.counters().aborted_as_copies), (0, 1));
    let (_, came) = Connection::open(&mut client, &mut server, Numbers::new(3, false, 1), b"question");
    assert!(!came.resumed);
}

/// What of an opening is aborted by a new generation: only that which has chosen what keys are made of.
#[test]
fn tc_14_openings_that_have_sent_a_nonce_or_a_key_are_aborted() {
    let numbers = Numbers::new(4, false, 7);
    // A SYN that offers fresh keys: they are still to be made.
    let [mut client, mut server] = machines(4);
    Connection::closed(numbers).syn(&mut client, &mut server);
    for machine in [&mut client, &mut server] {
        let (done, sent) = machine.disrupt(Disruption::VmGeneration);
        assert!(done.connections_aborted == 0 && sent.is_empty(), "{done:?}");
    }
    // A SYN that proposes to resume; the peer's kernel has not answered.
    let [mut client, mut server] = machines(4);
    Connection::whole(&mut client, &mut server, Numbers::new(4, false, 0), [b"a", b"b"]);
    let mut opening = Connection::closed(numbers);
    opening.syn(&mut client, &mut server);
    let (done, sent) = client.disrupt(Disruption::VmGeneration);
    assert_eq!((done.connections_aborted, resets(&sent, Side::Plain)), (1, 1), "{done:?}");
    assert_eq!(server.disrupt(Disruption::VmGeneration).0.connections_aborted, 0);
    // A SYN-ACK that accepts.
    let [mut client, mut server] = machines(4);
    Connection::whole(&mut client, &mut server, Numbers::new(4, false, 0), [b"a", b"b"]);
    let mut opening = Connection::closed(numbers);
    opening.syn(&mut client, &mut server);
    assert!(opening.syn_ack(&mut client, &mut server));
    for machine in [&mut client, &mut server] {
        let (done, _) = machine.disrupt(Disruption::VmGeneration);
        assert_eq!(done.connections_aborted, 1, "{done:?}");
    }
    // An Init1 that is on its way.
    let [mut client, mut server] = machines(4);
    let mut opening = Connection::closed(numbers);
    opening.syn(&mut client, &mut server);
    opening.syn_ack(&mut client, &mut server);
    let init1 = client.take(Side::Plain, opening.segment(true, ACK, b"").build(), Offload::NONE);
    assert!(!init1.is_empty());
    let (done, sent) = client.disrupt(Disruption::VmGeneration);
    assert_eq!((done.connections_aborted, resets(&sent, Side::Plain)), (1, 1), "{done:?}");
    // What is aborted stays so, whatever the peer answers.
    let [_, got] = deliver(&mut client, &mut server, init1);
    assert_eq!(resets(&got, Side::Plain), 1, "the peer is told so");
    assert_eq!(client.engine.flow(numbers.client, numbers.server).unwrap().state, FlowState::Closed);
}

#[test]
fn plain_connections_are_not_touched() {
    let [mut client, _] = machines(5);
    client.engine.set_policy(everything(Policy::Opportunistic));
    let numbers = Numbers::new(5, false, 0);
    let mut plain = Connection::closed(numbers);
    client.take(Side::Plain, plain.segment(true, SYN, b"").build(), Offload::NONE);
    plain.next[0] += 1;
    client.take(Side::Wire, plain.segment(false, SYN | ACK, b"").build(), Offload::NONE);
    plain.next[1] += 1;
    client.take(Side::Plain, plain.segment(true, ACK, b"").build(), Offload::NONE);
    let state = |machine: &Machine| machine.engine.flow(numbers.client, numbers.server).unwrap().state;
    assert_eq!(state(&client), FlowState::Plain);
    for sign in WEAK.into_iter().chain([Disruption::VmGeneration]) {
        let (done, sent) = client.disrupt(sign);
        assert_eq!((done.connections_rekeyed, done.connections_aborted, sent.len()), (0, 0, 0));
        assert_eq!(state(&client), FlowState::Plain);
    }
}

/// A machine copied with a connection open; each copy gets `signs`, then both write different data into it. Which
/// (key, nonce) pairs repeat.
fn both_go_on(seed: u64, cloned_client: bool, second_first: bool, signs: [Option<Disruption>; 2]) -> u64 {
    let ([client, server], connection) = open(seed);
    let (cloned, mut other) = if cloned_client { (client, server) } else { (server, client) };
    let second = cloned.copy();
    let mut copies = [(cloned, signs[0], "one"), (second, signs[1], "two")];
    if second_first {
        copies.reverse();
    }
    // The peer has one state, which goes with whoever comes first. What it gets from the other is old or early.
    for (machine, sign, name) in &mut copies {
        let sent = sign.map(|sign| machine.disrupt(sign).1).unwrap_or_default();
        deliver(machine, &mut other, sent);
        for n in 0..3 {
            let segment = connection.segment(cloned_client, ACK, format!("{n} by {name}").as_bytes());
            carry(machine, &mut other, &Seg { seq: segment.seq + 8 * n, ..segment });
        }
    }
    seals::repeated()
}

#[test]
fn tc_14_connections_open_in_both_copies_repeat_nothing_if_the_generation_is_new() {
    for seed in 0..SEEDS {
        for (client, order) in [(true, true), (true, false), (false, true), (false, false)] {
            let new = Some(Disruption::VmGeneration);
            assert_eq!(both_go_on(seed, client, order, [new, new]), 0, "seed {seed}");
            // The original goes on, and only the one that was restored is told.
            assert_eq!(both_go_on(seed, client, order, [None, new]), 0, "seed {seed}");
        }
    }
}

/// The limit of what can be done, stated so that it is known: see docs/clones.md.
#[test]
fn tc_8_two_copies_of_one_open_connection_repeat_keys_if_nothing_tells_them_and_a_rekey_of_both_does_not_help() {
    for seed in 0..SEEDS {
        for (client, order) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(both_go_on(seed, client, order, [None, None]) > 0, "the test cannot fail");
            // The next master key follows from the one before and nothing else: both get the same.
            let weak = Some(Disruption::ClockStep);
            assert!(both_go_on(seed, client, order, [weak, weak]) > 0);
            // If one of them rekeys and the other does not, they part.
            assert_eq!(both_go_on(seed, client, order, [None, weak]), 0, "seed {seed}");
        }
    }
}

#[test]
fn what_was_learnt_of_paths_is_forgotten_in_another_network() {
    let remote = "10.0.0.9:80".parse().unwrap();
    for sign in WEAK {
        let [mut client, _] = machines(9);
        client.engine.learn_path(NOW, remote, Finding::SynDropped);
        client.disrupt(sign);
        let other_network = matches!(sign, Disruption::Moved | Disruption::AddressChange);
        assert_eq!(client.engine.path(NOW, remote).is_none(), other_network, "{sign:?}");
    }
}
