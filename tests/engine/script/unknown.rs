//! Segments of connections that the engine does not know.

use super::packet::{FIN, RST};
use super::*;
use enotun::engine::FlowState;

fn data(mut seg: Seg) -> Seg {
    seg.payload = b"plaintext".to_vec();
    seg
}

/// The payload towards the network.
fn carried(sent: &Sent) -> Vec<u8> {
    sent.wire.iter().flat_map(|seg| seg.payload.clone()).collect()
}

/// A SYN cookie, or a raw socket of this host: there was no handshake, and here is its data.
#[test]
fn policy_required_refuses_what_it_has_not_seen_the_beginning_of() {
    let mut host = Host::with_policy(Config::default(), Policy::Required);
    let sent = host.wire(&data(Pair::new().from_b()));
    assert!(sent.delivered().is_empty());
    let [rst] = &sent.wire[..] else { panic!("RFC 9293, section 3.10.7.1") };
    assert!(rst.has(RST) && rst.seq == Pair::new().from_b().ack);
    let sent = host.kernel(&data(Pair::new().from_a()));
    assert!(carried(&sent).is_empty());
    assert!(sent.plain[0].has(RST) && sent.plain[0].seq == Pair::new().from_a().ack);
    assert_eq!(host.engine.counters().unknown_refused, 2);
    assert!(host.engine.is_empty());
}

/// A SYN with ENO and a RST, and a minute later data: the kernel may take it by its SYN cookie.
#[test]
fn data_long_after_an_opening_that_was_reset_is_refused() {
    for wait in [0, 61, 3600] {
        let mut pair = Pair::new();
        pair.b = Host::with_policy(Config::default(), Policy::Required);
        let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
        pair.b.wire(&syn);
        pair.b.kernel(&Pair::syn_ack());
        let mut rst = pair.from_a();
        (rst.flags, rst.ack) = (RST, 0);
        pair.b.wire(&rst);
        pair.b.wait(Duration::from_secs(wait));
        assert!(pair.b.wire(&data(pair.from_a())).delivered().is_empty(), "after {wait} s");
    }
}

#[test]
fn policy_opportunistic_passes_the_unknown_and_counts_it() {
    let mut host = Host::new(Config::default());
    assert_eq!(host.wire(&data(Pair::new().from_b())).delivered(), b"plaintext");
    assert_eq!(host.kernel(&data(Pair::new().from_a())).wire.len(), 1);
    assert_eq!(host.engine.counters().unknown_passed, 2);
    let open = [(a_addr(), b_addr())];
    let listed = host.engine.unknown(&open);
    assert_eq!(listed[0].reason.as_deref(), Some("unknown"));
}

/// Another gateway has encrypted it: an end that only waits is asked for its numbers, which are not the other's, and refused by them.
#[test]
fn the_other_end_of_an_unknown_connection_learns_that_it_is_refused() {
    for policy in [Policy::Required, Policy::Opportunistic] {
        let mut host = Host::with_policy(Config::default(), policy);
        for side in [Side::Wire, Side::Plain] {
            let (seg, mut waits) = match side {
                Side::Wire => (data(Pair::new().from_b()), Pair::new().from_a()),
                Side::Plain => (data(Pair::new().from_a()), Pair::new().from_b()),
            };
            (waits.seq, waits.ack) = (waits.seq.wrapping_add(777), waits.ack.wrapping_add(777));
            let other = |sent: Sent| if side == Side::Wire { sent.plain } else { sent.wire };
            let asked = other(host.hear(side, &seg));
            if policy == Policy::Opportunistic {
                assert_eq!(asked[0].payload, seg.payload);
                continue;
            }
            let [question] = &asked[..] else { panic!("{side:?}: {} segments", asked.len()) };
            assert_eq!((question.flags, question.ack, question.payload.len()), (ACK, 0, 0));
            assert!(question.seq.abs_diff(waits.ack) > 1 << 30, "it lies in no window");
            let told = other(host.hear(if side == Side::Wire { Side::Plain } else { Side::Wire }, &waits));
            assert!(told.len() == 1 && told[0].has(RST) && told[0].seq == waits.ack);
            // An answer is no reason to ask.
            assert_eq!(host.engine.counters().own_segments % 3, 0);
        }
    }
}

/// A gateway that only the answers pass: the opener would wait for one that never comes (RFC 9293, section 3.10.7.1).
#[test]
fn policy_required_refuses_both_ends_of_an_opening_of_which_only_the_answers_pass() {
    for side in [Side::Plain, Side::Wire] {
        let mut host = Host::with_policy(Config::default(), Policy::Required);
        let mut answer = Pair::syn_ack();
        if side == Side::Plain {
            host.engine.change_policy(everything(Policy::Required));
            let sent = host.hear(side, &answer);
            assert!(
                sent.plain.is_empty() && sent.wire.is_empty(),
                "the SYN comes again, and its answer, once all is listed"
            );
            host.engine.admit(host.now, &[]);
        } else {
            (answer.src, answer.dst) = (b_addr(), a_addr());
        }
        let sent = host.hear(side, &answer);
        let (server, opener) = if side == Side::Plain { (sent.plain, sent.wire) } else { (sent.wire, sent.plain) };
        let [rst] = &server[..] else { panic!("{side:?}: the one who answers") };
        assert!(rst.flags == RST && rst.seq == answer.ack);
        let [rst] = &opener[..] else { panic!("{side:?}: the opener") };
        assert!(rst.flags == RST | ACK && rst.ack == answer.ack && (rst.src, rst.dst) == (answer.src, answer.dst));
        assert_eq!(host.engine.counters().unknown_refused, 1 + u64::from(side == Side::Plain));
    }
}

/// The SYN may have been one that was forgotten here: it comes again, is a new one then, and gets another answer.
#[test]
fn no_opener_is_refused_while_its_opening_may_have_been_forgotten() {
    let config = Config { max_half_open: 10, ..Config::default() };
    let mut host = Host::with_policy(config, Policy::Required);
    let syn = Pair::new().a.kernel(&Pair::syn()).wire.remove(0);
    for port in 1..=20 {
        let mut syn = syn.clone();
        syn.src.set_port(port);
        host.wire(&syn);
    }
    let mut answer = Pair::syn_ack();
    answer.dst.set_port(1);
    let sent = host.kernel(&answer);
    assert!(sent.wire.is_empty() && sent.plain.is_empty());
    // Of those that this kernel opens too: the server hears that they are over, and the kernel does not.
    (answer.src, answer.dst) = (b_addr(), a_addr());
    let sent = host.wire(&answer);
    assert!(sent.plain.is_empty() && sent.wire.len() == 1);
    host.wait(Duration::from_secs(300));
    assert_eq!(host.wire(&answer).plain.len(), 1);
}

/// What began with ENO and is not known is refused under either policy, and its RST, with which all ends, is not.
#[test]
fn eno_12_a_segment_with_eno_of_an_unknown_connection_is_refused() {
    let mut host = Host::new(Config::default());
    let mut seg = data(Pair::new().from_b());
    seg.options = vec![packet::ENO, 2, 1, 1];
    let sent = host.wire(&seg);
    assert!(sent.plain.is_empty() && sent.wire[0].has(RST) && sent.wire[0].seq == seg.ack);
    seg.flags = RST;
    seg.payload.clear();
    assert_eq!(host.wire(&seg).plain.len(), 1);
}

/// A host behind this gateway negotiates itself, and its SYN took another way: that is left to it, unless the SYN may be one of ours.
#[test]
fn an_answer_with_eno_to_a_syn_that_took_another_way_passes() {
    let config = Config { max_half_open: 10, ..Config::default() };
    let mut host = Host::new(config);
    let mut answer = Pair::syn_ack();
    (answer.src, answer.dst) = (b_addr(), a_addr());
    answer.options.extend([packet::ENO, 4, 1, 0x23]);
    let sent = host.wire(&answer);
    assert_eq!((&sent.plain[..], sent.wire.len()), (&[answer.clone()][..], 0));
    for port in 1..=20 {
        let mut syn = Pair::syn();
        syn.src.set_port(port);
        host.kernel(&syn);
    }
    let sent = host.wire(&answer);
    assert!(sent.plain.is_empty() && sent.wire[0].has(RST));
    // An instance that died may have begun it.
    let mut host = Host::new(Config::default());
    host.engine.refuse(host.now, &[]);
    let sent = host.wire(&answer);
    assert!(sent.plain.is_empty() && sent.wire[0].has(RST));
}

/// A SYN that went out with ENO before a crash: its answer makes no plain connection (ENO-12).
#[test]
fn an_answer_with_eno_to_a_syn_of_an_instance_that_died_does_not_pass() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    pair.a = Host::new(Config::default());
    let now = pair.a.now;
    pair.a.engine.refuse(now, &[]);
    let sent = pair.a.wire(&syn_ack);
    assert!(sent.plain.is_empty() && sent.wire[0].has(RST), "{sent:?}");
}

#[test]
fn refusals_are_limited_in_rate() {
    let mut host = Host::with_policy(Config::default(), Policy::Required);
    let flood = |host: &mut Host| {
        let resets = (0..5000u16).map(|port| {
            let mut seg = Pair::new().from_b();
            seg.src.set_port(port);
            host.wire(&seg).wire.len()
        });
        resets.sum::<usize>()
    };
    assert_eq!(flood(&mut host), 1000);
    assert_eq!(host.engine.counters().resets_withheld, 4000);
    host.wait(Duration::from_millis(100));
    let more = flood(&mut host);
    assert!((90..=110).contains(&more), "{more} after a tenth of a second");
}

/// Connections that are open when a selector takes effect go on, whatever its policy; their segments wait while they are listed.
#[test]
fn what_was_open_when_a_selector_took_effect_goes_on() {
    for policy in [Policy::Required, Policy::Opportunistic] {
        let mut host = Host::with_policy(Config::default(), Policy::Off);
        host.engine.change_policy(everything(policy));
        if policy == Policy::Required {
            let sent = host.kernel(&data(Pair::new().from_a()));
            assert!(sent.wire.is_empty() && sent.plain.is_empty(), "it is sent again");
        }
        host.engine.admit(host.now, &[(a_addr(), b_addr())]);
        assert_eq!(host.kernel(&data(Pair::new().from_a())).wire.len(), 1);
        assert_eq!(host.wire(&data(Pair::new().from_b())).delivered(), b"plaintext");
        let flow = host.engine.flow(a_addr(), b_addr()).expect("it is known");
        assert_eq!((flow.state, flow.reason.as_deref()), (FlowState::Plain, Some("pre-existing")));
        // Another one is not.
        let mut other = data(Pair::new().from_a());
        other.src.set_port(5);
        assert_eq!(carried(&host.kernel(&other)).is_empty(), policy == Policy::Required);
        // It ends as others do, and the ports are used again.
        let (mut fin_a, mut fin_b) = (Pair::new().from_a(), Pair::new().from_b());
        fin_a.seq = fin_a.seq.wrapping_add(9);
        fin_a.ack = fin_a.ack.wrapping_add(9);
        fin_a.flags |= FIN;
        host.kernel(&fin_a);
        fin_b.seq = fin_a.ack;
        fin_b.ack = fin_a.seq.wrapping_add(1);
        fin_b.flags |= FIN;
        host.wire(&fin_b);
        fin_a.flags = ACK;
        (fin_a.seq, fin_a.ack) = (fin_b.ack, fin_b.seq.wrapping_add(1));
        host.kernel(&fin_a);
        assert_eq!(host.engine.flow(a_addr(), b_addr()).map(|flow| flow.state), Some(FlowState::Closed));
    }
}

/// What policy `required` selected before already is no beginning: an unknown connection does not become one from before.
#[test]
fn what_was_required_before_is_not_let_in_by_another_selector() {
    let mut host = Host::with_policy(Config::default(), Policy::Required);
    host.engine.change_policy(everything(Policy::Required));
    host.engine.admit(host.now, &[(a_addr(), b_addr())]);
    assert!(carried(&host.kernel(&data(Pair::new().from_a()))).is_empty());
    // Nor is one that enotun has ended and the kernel has not.
    let mut pair = Pair::connected();
    let mut rst = pair.from_b();
    (rst.seq, rst.flags) = (pair.a.kernel(&pair.from_a()).wire[0].ack, RST);
    pair.a.wire(&rst);
    pair.a.wait(Duration::from_secs(3600));
    pair.a.engine.change_policy(everything(Policy::Off));
    pair.a.engine.admit(pair.a.now, &[]);
    pair.a.engine.change_policy(everything(Policy::Opportunistic));
    pair.a.engine.admit(pair.a.now, &[(a_addr(), b_addr())]);
    let seg = data(pair.from_a());
    assert!(pair.a.kernel(&seg).wire.is_empty());
}

/// The server's daemon died, and the next one knows which connections were open: those are refused and no others, and both ends learn
/// of it although nothing is sent.
#[test]
fn both_ends_of_a_connection_that_a_crash_has_cut_learn_of_it_within_a_second() {
    for policy in [Policy::Opportunistic, Policy::Required] {
        let mut pair = Pair::connected();
        let now = pair.b.now;
        pair.b = Host::with_policy(Config::default(), policy);
        pair.b.now = now;
        pair.b.engine.refuse(now, &[(b_addr(), a_addr())]);
        let asked = pair.b.wait(Duration::from_secs(1));
        // The peer answers with its numbers, and gets a RST that it believes.
        let answers: Vec<Seg> = asked.wire.iter().flat_map(|seg| pair.a.wire(seg).wire).collect();
        assert!(!answers.is_empty());
        let resets: Vec<Seg> = answers.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
        let told: Vec<Seg> = resets.iter().flat_map(|seg| pair.a.wire(seg).plain).collect();
        assert!(told.iter().any(|seg| seg.has(RST)), "{policy:?}");
        assert_eq!(pair.flow_a().map(|flow| flow.state), Some(FlowState::Closed));
        // So does the kernel, whose answer to what it is asked is an acknowledgement.
        assert!(!asked.plain.is_empty());
        let sent = pair.b.kernel(&pair.from_b());
        assert!(sent.wire.is_empty() && sent.plain[0].has(RST) && sent.plain[0].seq == pair.from_b().ack);
        let seg = data(pair.from_b());
        assert!(pair.b.kernel(&seg).wire.is_empty());
    }
}

#[test]
fn a_crash_is_over_for_connections_that_were_not_open_then() {
    let mut host = Host::new(Config::default());
    let mut other = Pair::new().from_a();
    other.src.set_port(5);
    host.engine.refuse(host.now, &[(other.src, b_addr())]);
    host.wait(Duration::from_secs(5));
    assert_eq!(host.kernel(&data(Pair::new().from_a())).wire.len(), 1, "it passes as unknown");
    assert!(host.kernel(&data(other.clone())).wire.is_empty());
    // The kernel has none there any more: that is over, too.
    let mut rst = other.clone();
    rst.flags = RST;
    host.kernel(&rst);
    assert_eq!(host.kernel(&data(other)).wire.len(), 1);
}
