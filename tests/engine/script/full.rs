//! Floods: a full table lets go what has proven nothing, and never makes a connection plain.

use super::packet::{FIN, RST};
use super::*;
use enotun::engine::FlowState;

const FEW: usize = 100;

fn few() -> Config {
    Config { max_half_open: FEW, ..Config::default() }
}

/// A SYN that somebody sends who is not there, number `n`, from one address or many.
fn forged(n: u32, many: bool, eno: bool) -> Seg {
    let host = if many { n } else { 7 };
    let src = SocketAddr::from(([10, 9, (host >> 8) as u8, host as u8], 1024 + (n % 60_000) as u16));
    let mut syn = Seg::new(src, b_addr());
    (syn.seq, syn.flags, syn.win) = (n.wrapping_mul(77), SYN, WINDOW);
    syn.options = if eno { vec![2, 4, 5, 0xb4, packet::ENO, 3, 0x23, 1] } else { vec![2, 4, 5, 0xb4] };
    syn
}

/// The kernel answers it, as it does by SYN cookie whatever it has seen before.
fn cookie(syn: &Seg) -> Seg {
    let mut answer = Seg::new(syn.dst, syn.src);
    (answer.seq, answer.ack, answer.flags, answer.win) = (1, syn.seq.wrapping_add(1), SYN | ACK, WINDOW);
    answer.options = vec![2, 4, 5, 0xb4];
    answer
}

fn state(host: &Host, local: SocketAddr, remote: SocketAddr) -> Option<FlowState> {
    host.engine.flow(local, remote).map(|flow| flow.state)
}

/// The genuine client's opening, `rest` SYNs of a flood between each of its segments and the next.
fn connects_through(policy: Policy, many: bool, eno: bool, rest: u32) -> Option<FlowState> {
    let mut pair = Pair::new();
    pair.b = Host::with_policy(few(), policy);
    let mut n = 0;
    let mut flood = |b: &mut Host, count: u32| {
        for _ in 0..count {
            n += 1;
            let syn = forged(n, many, eno);
            b.wait(Duration::from_micros(10));
            let sent = b.wire(&syn);
            if sent.plain.iter().any(|seg| seg.has(SYN)) {
                b.kernel(&cookie(&syn));
            }
        }
    };
    flood(&mut pair.b, 600);
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    assert_eq!(pair.b.wire(&syn).plain.len(), 1, "the SYN for the server's kernel");
    flood(&mut pair.b, rest);
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    flood(&mut pair.b, rest);
    pair.a.wire(&syn_ack);
    let from_a = pair.a.kernel(&pair.from_a()).wire;
    let to_a: Vec<Seg> = from_a.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
    flood(&mut pair.b, 600);
    for seg in to_a {
        for seg in pair.a.wire(&seg).wire {
            pair.b.wire(&seg);
        }
    }
    assert!(pair.b.engine.len() <= 3 * FEW, "{} entries", pair.b.engine.len());
    if pair.have_keys() {
        confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
    }
    state(&pair.b, b_addr(), a_addr())
}

#[test]
fn a_genuine_connection_is_encrypted_whatever_is_forged_beside_it() {
    for policy in [Policy::Opportunistic, Policy::Required] {
        for (many, eno) in [(false, true), (false, false), (true, true), (true, false)] {
            let what = format!("{policy:?}, many sources {many}, with ENO {eno}");
            assert_eq!(connects_through(policy, many, eno, 40), Some(FlowState::Encrypted), "{what}");
        }
    }
}

/// One source has its share, however many it sends: who is slow is not forgotten for it.
#[test]
fn a_slow_client_is_not_forgotten_for_one_source_that_floods() {
    let slow = connects_through(Policy::Opportunistic, false, true, 3_000);
    assert_eq!(slow, Some(FlowState::Encrypted));
}

/// The next opening of a client is forgotten last that has another connection, or resumes a session: nobody can forge that who does not
/// see what the client sends.
#[test]
fn the_opening_of_a_known_client_is_not_forgotten_for_those_of_strangers() {
    for (open, known) in [(true, true), (false, true), (false, false)] {
        let mut pair = Pair::new();
        pair.b = Host::new(few());
        pair.connect();
        confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
        if !open {
            let mut rst = pair.from_a();
            rst.flags = RST;
            rst = pair.a.kernel(&rst).wire.remove(0);
            pair.b.wire(&rst);
            assert_eq!(state(&pair.b, b_addr(), a_addr()), Some(FlowState::Closed));
        }
        let client = if known { pair.a } else { Host::new(few()) };
        let (mut client, mut server) = (client, pair.b);
        let (mut syn, mut syn_ack) = (Pair::syn(), Pair::syn_ack());
        let local = SocketAddr::new(if known { a_addr().ip() } else { [10, 0, 0, 9].into() }, 40_001);
        (syn.src, syn_ack.dst) = (local, local);
        let syn = client.kernel(&syn).wire.remove(0);
        server.wire(&syn);
        server.kernel(&syn_ack);
        for n in 0..10 * FEW as u32 {
            server.wait(Duration::from_micros(10));
            server.wire(&forged(n, true, true));
        }
        assert_eq!(state(&server, b_addr(), local).is_some(), known, "with another connection {open}, known {known}");
        assert!(server.engine.len() <= 2 * FEW);
    }
}

/// But who has a connection does not get all room for that: a known client that floods counts as any other.
#[test]
fn the_opening_of_a_stranger_is_not_forgotten_for_those_of_a_known_client_that_floods() {
    let mut pair = Pair::new();
    pair.b = Host::new(few());
    pair.connect();
    confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
    let mut server = pair.b;
    let flood = |server: &mut Host, from: u32, count: u32| {
        for n in from..from + count {
            server.wait(Duration::from_micros(10));
            let mut syn = forged(n, false, true);
            syn.src.set_ip(a_addr().ip());
            server.wire(&syn);
        }
    };
    flood(&mut server, 0, 600);
    let stranger = SocketAddr::from(([10, 0, 0, 9], 40_001));
    let (mut syn, mut syn_ack) = (Pair::syn(), Pair::syn_ack());
    (syn.src, syn_ack.dst) = (stranger, stranger);
    let syn = Host::new(few()).kernel(&syn).wire.remove(0);
    server.wire(&syn);
    server.kernel(&syn_ack);
    flood(&mut server, 600, 3_000);
    assert_eq!(state(&server, b_addr(), stranger), Some(FlowState::Negotiating));
}

/// An opening beside thousands to ten addresses that do not answer.
fn connects_beside_others(policy: Policy) -> Option<FlowState> {
    let mut pair = Pair::new();
    pair.a = Host::with_policy(few(), policy);
    let flood = |a: &mut Host, from: u16| {
        for n in from..from + 3000 {
            let mut syn = Pair::syn();
            syn.src.set_port(1024 + n);
            syn.dst = SocketAddr::from(([10, 1, 0, (n % 10) as u8], 80));
            a.wait(Duration::from_micros(10));
            let sent = a.kernel(&syn).wire;
            assert!(sent.iter().all(|seg| seg.option_list().unwrap().iter().any(|(k, _)| *k == packet::ENO)));
        }
    };
    flood(&mut pair.a, 0);
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    flood(&mut pair.a, 3000);
    pair.a.wire(&syn_ack);
    flood(&mut pair.a, 6000);
    let from_a = pair.a.kernel(&pair.from_a()).wire;
    let to_a: Vec<Seg> = from_a.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
    for seg in to_a {
        pair.a.wire(&seg);
    }
    assert!(pair.a.engine.len() <= 2 * FEW, "{} entries", pair.a.engine.len());
    pair.flow_a().map(|flow| flow.state)
}

/// Addresses are counted by hash, and once in 400 engines one of the ten shares its count with the peer: then it goes with them.
#[test]
fn connects_to_hosts_that_do_not_answer_take_nothing_from_others() {
    for policy in [Policy::Opportunistic, Policy::Required] {
        let encrypted = (0..3).filter(|_| connects_beside_others(policy) == Some(FlowState::Encrypted)).count();
        assert!(encrypted >= 2, "{policy:?}: {encrypted} of 3");
    }
}

/// The server has forgotten the opening when the acknowledgement comes: the peer learns of it, and the kernel gets nothing.
#[test]
fn an_opening_that_was_forgotten_is_refused_and_not_plain() {
    let mut pair = Pair::new();
    pair.b = Host::new(Config { max_half_open: 1, ..Config::default() });
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    pair.b.wire(&forged(1, false, true));
    pair.a.wire(&syn_ack);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        let sent = pair.b.wire(&seg);
        assert!(sent.plain.is_empty(), "a SYN cookie would make a plain connection of it");
        assert!(sent.wire.iter().all(|rst| rst.has(RST) && rst.seq == seg.ack) && sent.wire.len() == 1);
        // At once, at the client.
        assert!(pair.a.wire(&sent.wire[0]).plain.iter().any(|seg| seg.has(RST)));
    }
    // The kernel's SYN-ACK, sent again, would say that this host has no ENO.
    assert!(pair.b.kernel(&Pair::syn_ack()).wire.is_empty());
}

/// The client has forgotten its opening when the answer comes.
#[test]
fn an_answer_to_a_syn_that_was_forgotten_does_not_make_it_plain() {
    let mut pair = Pair::new();
    pair.a = Host::new(Config { max_half_open: 1, ..Config::default() });
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    let mut other = Pair::syn();
    other.src.set_port(5000);
    pair.a.kernel(&other);
    let sent = pair.a.wire(&syn_ack);
    assert!(sent.plain.is_empty());
    assert!(sent.wire[0].has(RST) && sent.wire[0].seq == syn_ack.ack);
    for seg in sent.wire {
        pair.b.wire(&seg);
    }
    // The kernel sends its SYN again, and all begins anew.
    pair.until_ack();
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(FlowState::Encrypted).map(|_| FlowState::Negotiating));
}

#[test]
fn connections_that_are_over_make_room_at_once() {
    let config = || Config { max_flows: 20, ..Config::default() };
    let mut host = Host::new(config());
    for port in 1000..3000 {
        plain_connection(&mut host, port);
        let close = |host: &mut Host, side, mut seg: Seg, flags| {
            seg.flags = flags;
            host.hear(side, &seg);
        };
        let (mut a, mut b) = (Pair::new().from_a(), Pair::new().from_b());
        a.src.set_port(port);
        b.dst.set_port(port);
        close(&mut host, Side::Plain, a.clone(), ACK | FIN);
        b.ack = b.ack.wrapping_add(1);
        close(&mut host, Side::Wire, b, ACK | FIN);
        (a.seq, a.ack) = (a.seq.wrapping_add(1), a.ack.wrapping_add(1));
        close(&mut host, Side::Plain, a, ACK);
    }
    assert!(host.engine.len() <= 20, "{} entries", host.engine.len());
    assert_eq!(host.engine.counters().limit_flows, 0);
    let syn = host.kernel(&Pair::syn()).wire;
    assert!(syn[0].option_list().unwrap().iter().any(|(k, _)| *k == packet::ENO), "the next one has ENO");
}

/// The local kernel's connection from `port` to a peer without ENO.
fn plain_connection(host: &mut Host, port: u16) {
    let (mut syn, mut syn_ack, mut ack) = (Pair::syn(), Pair::syn_ack(), Pair::new().from_a());
    syn.src.set_port(port);
    syn_ack.dst.set_port(port);
    ack.src.set_port(port);
    host.kernel(&syn);
    host.wire(&syn_ack);
    host.kernel(&ack);
}

/// More plain connections than there is room for: who was silent longest is unknown from then on, and the next one has ENO.
#[test]
fn plain_connections_make_room_and_go_on() {
    let mut host = Host::new(Config { max_flows: 20, ..Config::default() });
    for port in 1000..1100 {
        plain_connection(&mut host, port);
        host.wait(Duration::from_millis(1));
    }
    assert_eq!(host.engine.len(), 20);
    let mut seg = Pair::new().from_a();
    seg.src.set_port(1000);
    seg.payload = b"data".to_vec();
    assert_eq!(host.kernel(&seg).wire.len(), 1, "it goes on");
    assert!(host.kernel(&Pair::syn()).wire[0].option_list().unwrap().iter().any(|(k, _)| *k == packet::ENO));
}

/// As many are encrypted as there is room for: the next SYN waits for room, under either policy, and is never plain.
#[test]
fn a_table_full_of_encrypted_connections_refuses_the_next_one() {
    for policy in [Policy::Opportunistic, Policy::Required] {
        let mut pair = Pair::connected_with(Config { max_flows: 1, ..Config::default() });
        pair.a.engine.set_policy(everything(policy));
        let mut syn = Pair::syn();
        syn.src.set_port(5000);
        assert!(pair.a.kernel(&syn).wire.is_empty());
        assert!(pair.a.wire(&forged(1, false, true)).plain.is_empty());
        assert!(pair.a.engine.counters().limit_flows >= 1);
        assert_eq!(pair.flow_a().map(|flow| flow.state), Some(FlowState::Encrypted));
    }
}

#[test]
fn what_nobody_answers_is_not_called_plain_and_does_not_stay() {
    // From the network, without ENO; and from here, when SYNs with ENO were not answered.
    let mut host = Host::new(Config::default());
    host.wire(&forged(1, false, false));
    for n in 0..5 {
        host.wait(Duration::from_secs(1 << n));
        host.kernel(&Pair::syn());
    }
    for flow in host.engine.flows() {
        assert_eq!(flow.state, FlowState::Negotiating, "{flow:?}");
    }
    assert_eq!(host.engine.counters().connections_plain, 0);
    host.wait(Duration::from_secs(61));
    assert!(host.engine.is_empty());
}

#[test]
fn a_plain_connection_ends_with_a_reset_that_its_receiver_believes_only() {
    let mut host = Host::new(Config::default());
    plain_connection(&mut host, a_addr().port());
    let state = |host: &Host| host.engine.flow(a_addr(), b_addr()).map(|flow| flow.state);
    assert_eq!(state(&host), Some(FlowState::Plain));
    let mut rst = Pair::new().from_b();
    rst.flags = RST;
    for off in [1, 1000, 1 << 30, u32::MAX] {
        let mut forged = rst.clone();
        forged.seq = forged.seq.wrapping_add(off);
        host.wire(&forged);
        assert_eq!(state(&host), Some(FlowState::Plain), "{off} bytes off");
    }
    host.wire(&rst);
    assert_eq!(state(&host), Some(FlowState::Closed));
}

/// A SYN and a RST on the same ports, again and again: nothing of it stays.
#[test]
fn timers_leave_with_what_they_were_for() {
    for eno in [false, true] {
        let mut host = Host::new(Config::default());
        for n in 0..2000 {
            let mut syn = forged(7, false, eno);
            syn.seq = n * 1000;
            host.wire(&syn);
            let mut rst = Seg::new(syn.src, syn.dst);
            (rst.seq, rst.flags) = (syn.seq + 1, RST);
            host.wire(&rst);
        }
        assert!(host.engine.len() <= 1);
        assert!(host.engine.timers() <= 1, "{} timers", host.engine.timers());
    }
}
