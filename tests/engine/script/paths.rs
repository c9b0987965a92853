//! Paths that take ENO out of segments or drop SYNs that have it, and what is remembered of them.

use enotun::engine::{Finding, FlowInfo, FlowState, PathInfo};

use super::packet::{ENO, RST};
use super::*;

pub fn has_eno(seg: &Seg) -> bool {
    let mut at = &seg.options[..];
    while let [kind, rest @ ..] = at {
        match kind {
            0 => return false,
            1 => at = rest,
            &ENO => return true,
            _ => at = &at[usize::from(rest[0])..],
        }
    }
    false
}

/// What a middlebox does that does not know the option: NOPs in its place.
pub fn strip(seg: &Seg) -> Seg {
    let mut seg = seg.clone();
    let mut at = 0;
    while at < seg.options.len() && seg.options[at] != 0 {
        let len = if seg.options[at] == 1 { 1 } else { usize::from(seg.options[at + 1]) };
        if seg.options[at] == ENO {
            seg.options[at..at + len].fill(1);
        }
        at += len;
    }
    seg
}

/// The `n`th connection's SYN, as the client's kernel sends it `again` seconds after the first.
fn syn(n: u16, again: u32) -> Seg {
    let mut syn = Pair::syn();
    syn.src.set_port(41_000 + n);
    syn.options.extend([8, 10]);
    syn.options.extend((7_000 + 1000 * again).to_be_bytes());
    syn.options.extend([0; 4]);
    syn.options.extend([1, 1]);
    syn
}

/// A plain kernel's answer to `syn`.
fn answer(syn: &Seg) -> Seg {
    let mut seg = Pair::syn_ack();
    seg.dst = syn.src;
    let value = syn.options.windows(2).position(|w| w == [8, 10]).map(|at| syn.options[at + 2..at + 6].to_vec());
    seg.options.extend([8, 10, 0, 0, 0, 1]);
    seg.options.extend(value.expect("a timestamp"));
    seg.options.extend([1, 1]);
    seg
}

fn path(host: &Host) -> Option<PathInfo> {
    host.engine.path(host.now, b_addr())
}

fn reason(host: &Host, n: u16) -> Option<String> {
    let mut local = a_addr();
    local.set_port(41_000 + n);
    host.engine.flow(local, b_addr()).and_then(|flow| flow.reason)
}

/// Opens connection `n` on a path that drops SYNs with ENO; how many SYNs it took.
fn open_where_eno_is_dropped(a: &mut Host, n: u16) -> u32 {
    for again in 0..32 {
        let sent = a.kernel(&syn(n, again));
        let [seg] = &sent.wire[..] else { panic!("one SYN leads to one") };
        if !has_eno(seg) {
            let sent = a.wire(&answer(seg));
            assert_eq!(sent.plain.len(), 1);
            return again + 1;
        }
        a.wait(Duration::from_secs(1));
    }
    panic!("ENO in every SYN")
}

#[test]
fn eno_14_after_some_syns_one_goes_without_and_the_next_connections_at_once() {
    let mut a = Host::new(Config { syn_attempts: 3, ..Config::default() });
    assert_eq!(open_where_eno_is_dropped(&mut a, 0), 4);
    assert_eq!(path(&a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::SynDropped, Some(60))));
    assert_eq!(open_where_eno_is_dropped(&mut a, 1), 1, "the delay is not suffered twice");
    assert_eq!(reason(&a, 1).as_deref(), Some("path-drops-eno"));
    a.wait(Duration::from_secs(60));
    assert_eq!(open_where_eno_is_dropped(&mut a, 2), 3, "two more SYNs try it again: one may be lost anywhere");
    assert_eq!(open_where_eno_is_dropped(&mut a, 3), 1);
    assert_eq!(path(&a).map(|p| (p.times, p.avoided_seconds)), Some((2, Some(120))));
    let counters = a.engine.counters();
    assert_eq!((counters.paths_avoided, counters.paths_retried), (2, 1));
    assert_eq!(a.engine.forget_paths(Some(b_addr().ip()), None), 1);
    assert!(has_eno(&a.kernel(&syn(4, 0)).wire[0]), "forgotten");
}

#[test]
fn the_number_of_syns_with_eno_is_configurable() {
    for attempts in [1, 2, 5] {
        let mut a = Host::new(Config { syn_attempts: attempts, ..Config::default() });
        assert_eq!(open_where_eno_is_dropped(&mut a, 0), u32::from(attempts) + 1);
    }
}

#[test]
fn policy_required_offers_eno_whatever_is_remembered() {
    let mut a = Host::new(Config::default());
    open_where_eno_is_dropped(&mut a, 0);
    a.engine.set_policy(everything(Policy::Required));
    for again in 0..6 {
        assert!(has_eno(&a.kernel(&syn(1, again)).wire[0]));
        a.wait(Duration::from_secs(1));
    }
}

#[test]
fn a_slow_answer_is_not_taken_for_a_path_that_drops_syns() {
    // With the option: the peer has it, and gets plain TCP this time.
    let mut a = Host::new(Config { syn_attempts: 1, ..Config::default() });
    let mut late = answer(&a.kernel(&syn(0, 0)).wire[0]);
    late.options = [&[69, 4, 1, 0x23][..], &late.options].concat();
    a.wait(Duration::from_secs(1));
    assert!(!has_eno(&a.kernel(&syn(0, 1)).wire[0]));
    a.wire(&late);
    assert_eq!(path(&a), None);
    // Without: by its timestamp it answers the SYN that had it.
    let first = a.kernel(&syn(1, 0)).wire.remove(0);
    a.wait(Duration::from_secs(1));
    assert!(!has_eno(&a.kernel(&syn(1, 1)).wire[0]));
    a.wire(&answer(&first));
    assert_eq!(path(&a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::NoEno, None)));
}

#[test]
fn answers_without_the_option_or_with_the_same_are_remembered_and_cost_nothing() {
    let mut a = Host::new(Config::default());
    let sent = a.kernel(&syn(0, 0)).wire.remove(0);
    a.wire(&answer(&sent));
    assert_eq!(path(&a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::NoEno, None)));
    let sent = a.kernel(&syn(1, 0)).wire.remove(0);
    assert!(has_eno(&sent), "it is tried every time");
    let mut echo = answer(&sent);
    echo.options = sent.options.clone();
    a.wire(&echo);
    assert_eq!(path(&a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::Echoed, None)));
}

/// A connection on a path that takes ENO out of segments without SYN: what becomes of it at both ends.
fn open_where_non_syns_are_stripped(pair: &mut Pair, flow: u16) -> (Option<FlowState>, Option<FlowState>) {
    open_through(pair, flow, strip)
}

/// The same on one that does nothing.
fn open_where_nothing_happens(pair: &mut Pair, flow: u16) -> (Option<FlowState>, Option<FlowState>) {
    open_through(pair, flow, Seg::clone)
}

/// A segment of the pair's connection as one of `client`'s.
fn of(client: SocketAddr, mut seg: Seg) -> Seg {
    *if seg.src == a_addr() { &mut seg.src } else { &mut seg.dst } = client;
    seg
}

/// Exchanges the SYNs of a connection of `client`'s; what follows them from there.
fn open_from(pair: &mut Pair, client: SocketAddr) -> Vec<Seg> {
    let syn = pair.a.kernel(&of(client, Pair::syn())).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&of(client, Pair::syn_ack())).wire.remove(0);
    pair.a.wire(&syn_ack);
    pair.a.kernel(&of(client, pair.from_a())).wire
}

/// A connection whose segments without SYN go through `path`.
fn open_through(pair: &mut Pair, flow: u16, path: impl Fn(&Seg) -> Seg) -> (Option<FlowState>, Option<FlowState>) {
    let (mut client, server) = (a_addr(), b_addr());
    client.set_port(42_000 + flow);
    let mut to_b = open_from(pair, client);
    while !to_b.is_empty() {
        let mut to_a = Vec::new();
        for seg in to_b.drain(..) {
            let sent = pair.b.wire(&path(&seg));
            assert!(sent.delivered().is_empty(), "Init1 is not the application's");
            to_a.extend(sent.wire);
        }
        for seg in to_a {
            to_b.extend(pair.a.wire(&path(&seg)).wire);
        }
    }
    let state = |host: &Host, local, remote| host.engine.flow(local, remote).map(|flow| flow.state);
    if state(&pair.a, client, server) == Some(FlowState::Encrypted) {
        confirm(&mut pair.a, &mut pair.b, client, path);
    }
    (state(&pair.a, client, server), state(&pair.b, server, client))
}

#[test]
fn eno_13_where_only_non_syn_segments_lose_the_option_one_connection_is_reset_and_the_next_are_plain() {
    let (closed, plain) = (Some(FlowState::Closed), Some(FlowState::Plain));
    let mut pair = Pair::new();
    assert_eq!(open_where_non_syns_are_stripped(&mut pair, 0), (closed, closed));
    assert_eq!(path(&pair.a).map(|p| p.finding), Some(Finding::NonSynStripped), "the peer's RST says so");
    assert_eq!(open_where_non_syns_are_stripped(&mut pair, 1), (plain, plain));
    // The server's memory denies nobody encryption: anybody at that address could have taught it.
    pair.a.engine.forget_paths(None, None);
    assert_eq!(open_where_non_syns_are_stripped(&mut pair, 2), (closed, closed));
    assert_eq!(pair.b.engine.paths(pair.b.now)[0].finding, Finding::NonSynStripped);
}

/// A client that breaks off, over and over, after it has been told that the connection is encrypted; and another one behind the
/// same NAT.
#[test]
fn one_client_behind_a_nat_does_not_take_encryption_from_the_others() {
    let mut pair = Pair::new();
    for n in 0..40 {
        let mut from = a_addr();
        from.set_port(45_000 + n);
        let mut syn = Seg::new(from, b_addr());
        (syn.seq, syn.flags, syn.win) = (A_ISN, SYN, WINDOW);
        syn.options = [&syn_options(0)[..], &[ENO, 3, 0x23, 1]].concat();
        pair.b.wire(&syn);
        let mut syn_ack = Pair::syn_ack();
        syn_ack.dst = from;
        assert!(has_eno(&pair.b.kernel(&syn_ack).wire[0]), "connection {n}");
        let mut ack = Seg::new(from, b_addr());
        (ack.seq, ack.ack, ack.win) = (A_ISN + 1, B_ISN.wrapping_add(1), WINDOW);
        ack.payload = tcpcrypt::constants::INIT1_MAGIC.to_be_bytes().to_vec();
        pair.b.wire(&ack);
        pair.b.wait(Duration::from_secs(61));
    }
    let state = open_where_nothing_happens(&mut pair, 0);
    assert_eq!(state, (Some(FlowState::Encrypted), Some(FlowState::Encrypted)));
}

/// A link that is down for some seconds while a pool of connections is opened, after all was encrypted.
#[test]
fn an_outage_is_not_a_middlebox() {
    let mut pair = Pair::new();
    assert_eq!(open_where_nothing_happens(&mut pair, 0).0, Some(FlowState::Encrypted));
    for outage in [5, 10] {
        // SYNs of Linux, one second apart at first.
        for again in 0..outage {
            for n in 0..12 {
                let sent = pair.a.kernel(&syn(100 + n, again)).wire;
                assert!(has_eno(&sent[0]), "connection {n}, SYN {again}");
            }
            pair.a.wait(Duration::from_secs(1));
        }
        for n in 0..12 {
            let sent = pair.a.kernel(&syn(100 + n, outage)).wire;
            assert!(has_eno(&sent[0]), "the link is up again: connection {n}");
        }
        pair.a.wait(Duration::from_secs(120));
    }
    assert_eq!(path(&pair.a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::Encrypted, None)));
}

/// A firewall that was put up where it worked before costs connections some time, and not for ever.
#[test]
fn a_path_that_begins_to_drop_syns_with_eno_is_found_out_by_one_connection_at_a_time() {
    let mut pair = Pair::new();
    assert_eq!(open_where_nothing_happens(&mut pair, 0).0, Some(FlowState::Encrypted));
    let mut took = Vec::new();
    for n in 0..6 {
        took.push(open_where_eno_is_dropped(&mut pair.a, n));
        pair.a.wait(Duration::from_secs(if n < 3 { 50 } else { 5 }));
    }
    assert_eq!(took[4..], [1, 1], "{took:?}");
    assert!(took[..4].iter().all(|syns| *syns == 16), "{took:?}");
    assert_eq!(path(&pair.a).map(|p| p.finding), Some(Finding::SynDropped));
}

/// The peer's daemon is started anew while a pool of connections is opened: all are reset before there are keys.
#[test]
fn a_peer_that_starts_anew_is_not_a_path_that_strips_eno() {
    let mut pair = Pair::new();
    assert_eq!(open_where_nothing_happens(&mut pair, 0).0, Some(FlowState::Encrypted));
    pair.a.engine.flush_sessions(None);
    for n in 0..12 {
        let sent = pair.a.kernel(&syn(n, 0)).wire.remove(0);
        let mut syn_ack = answer(&sent);
        syn_ack.options = [&[69, 4, 1, 0x23][..], &syn_ack.options].concat();
        pair.a.wire(&syn_ack);
        let mut ack = Seg::new(sent.src, sent.dst);
        (ack.seq, ack.ack, ack.win) = (A_ISN + 1, B_ISN.wrapping_add(1), WINDOW);
        pair.a.kernel(&ack);
        let mut rst = Seg::new(sent.dst, sent.src);
        (rst.seq, rst.flags) = (B_ISN.wrapping_add(1), RST);
        assert_eq!(pair.a.wire(&rst).plain.len(), 1);
    }
    assert!(has_eno(&pair.a.kernel(&syn(20, 0)).wire[0]));
    assert_eq!(path(&pair.a).map(|p| (p.finding, p.avoided_seconds)), Some((Finding::Encrypted, None)));
}

#[test]
fn a_rst_that_says_nothing_has_to_come_twice_before_the_path_is_blamed() {
    let mut a = Host::new(Config::default());
    for n in 0..3 {
        let sent = a.kernel(&syn(n, 0)).wire.remove(0);
        if n == 2 {
            assert!(!has_eno(&sent));
            break;
        }
        assert!(has_eno(&sent));
        let mut syn_ack = answer(&sent);
        syn_ack.options = [&[69, 4, 1, 0x23][..], &syn_ack.options].concat();
        a.wire(&syn_ack);
        let mut ack = Seg::new(sent.src, sent.dst);
        (ack.seq, ack.ack, ack.win) = (A_ISN + 1, B_ISN.wrapping_add(1), WINDOW);
        assert!(!a.kernel(&ack).wire[0].payload.is_empty(), "Init1");
        let mut rst = Seg::new(sent.dst, sent.src);
        (rst.seq, rst.flags) = (B_ISN.wrapping_add(1), RST);
        assert_eq!(a.wire(&rst).plain.len(), 1);
        if n == 0 {
            // What comes at the same time is one event.
            a.wait(Duration::from_secs(61));
        }
    }
    assert_eq!(reason(&a, 2).as_deref(), Some("path-strips-eno"));
}

/// A connection whose client writes once and whose server, which says nothing, resets it then.
fn reset_by_the_application(pair: &mut Pair, flow: u16) -> Option<FlowInfo> {
    let mut client = a_addr();
    client.set_port(43_000 + flow);
    let mut to_b = open_from(pair, client);
    let mut data = of(client, pair.from_a());
    data.payload = b"data that the server does not answer".to_vec();
    to_b.extend(pair.a.kernel(&data).wire);
    let mut delivered = Vec::new();
    while !to_b.is_empty() {
        let mut to_a = Vec::new();
        for seg in to_b.drain(..) {
            let sent = pair.b.wire(&seg);
            delivered.extend(sent.delivered());
            to_a.extend(sent.wire);
        }
        for seg in to_a {
            to_b.extend(pair.a.wire(&seg).wire);
        }
    }
    assert_eq!(delivered, data.payload);
    let mut rst = of(client, pair.from_b());
    rst.flags = RST;
    for seg in pair.b.kernel(&rst).wire {
        pair.a.wire(&seg);
    }
    pair.a.engine.flow(client, b_addr())
}

#[test]
fn applications_that_reset_resumed_connections_are_not_taken_for_a_path_that_strips_eno() {
    let mut pair = Pair::new();
    open_where_nothing_happens(&mut pair, 99);
    for n in 0..4 {
        let flow = reset_by_the_application(&mut pair, n).expect("remembered");
        assert_eq!((flow.state, flow.resumed), (FlowState::Closed, true), "{n}: {flow:?}");
    }
    assert_eq!(path(&pair.a).map(|p| p.finding), Some(Finding::Encrypted));
}

#[test]
fn eno_where_none_was_in_the_syn_is_answered_with_a_reset_that_says_so() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&strip(&syn));
    pair.b.kernel(&Pair::syn_ack());
    let mut ack = pair.from_a();
    ack.options = vec![ENO, 2, 1, 1];
    let sent = pair.b.wire(&ack);
    assert_eq!(sent.wire.len(), 1);
    assert!(sent.wire[0].has(RST));
    assert_eq!(sent.wire[0].payload, b"tcpcrypt: your SYN came without ENO");
    assert!(sent.plain.iter().all(|seg| seg.has(RST)), "the application does not wait for it");
    assert_eq!(pair.b.engine.paths(pair.b.now)[0].finding, Finding::StrippedHere);
}

#[test]
fn a_path_on_which_encryption_works_is_remembered_as_that() {
    let mut pair = Pair::connected();
    assert_eq!((path(&pair.a), pair.b.engine.paths(pair.b.now)), (None, Vec::new()), "no frame has come yet");
    confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
    assert_eq!(path(&pair.a).map(|p| p.finding), Some(Finding::Encrypted));
    assert_eq!(pair.b.engine.paths(pair.b.now)[0].finding, Finding::Encrypted);
}
