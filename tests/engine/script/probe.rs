//! Connections that find out what a path does with ENO.

use enotun::engine::{FlowState, Hop, ProbeMode, ProbeReport, SynAnswer};

use super::packet::{FIN, RST};
use super::paths::{has_eno, strip};
use super::*;

fn probe(a: &Host) -> ProbeReport {
    a.engine.probe(a_addr(), b_addr()).expect("a probe")
}

fn probing(mode: ProbeMode) -> Host {
    let mut a = Host::new(Config::default());
    a.engine.begin_probe(a_addr(), b_addr(), mode);
    a
}

/// An acknowledgement of the client's kernel, with more flags.
fn ack(flags: u8) -> Seg {
    let mut seg = Seg::new(a_addr(), b_addr());
    (seg.seq, seg.ack, seg.win, seg.flags) = (A_ISN + 1, B_ISN.wrapping_add(1), WINDOW, ACK | flags);
    seg
}

/// "Time exceeded" from a router at 192.0.2.`hop`, about a SYN of which it quotes `tcp` bytes behind the IP header.
fn time_exceeded(syn: &Seg, hop: u8, tcp: usize) -> Vec<u8> {
    let quote = syn.build();
    let quote = &quote[..quote.len().min(20 + tcp)];
    let mut bytes = vec![0x45, 0, 0, (28 + quote.len()) as u8, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, hop, 10, 0, 0, 1];
    bytes.extend([11, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(quote);
    let right = icmp::sum(&bytes[20..]).to_be_bytes();
    bytes[22..24].copy_from_slice(&right);
    bytes
}

impl Host {
    fn icmp(&mut self, mut bytes: Vec<u8>) -> usize {
        self.engine.handle_packet(self.now, Side::Wire, Offload::NONE, &mut bytes, &mut self.env);
        self.env.take().len()
    }
}

#[test]
fn a_bare_probe_has_no_eno_whatever_the_policy() {
    for policy in [Policy::Opportunistic, Policy::Required, Policy::Off] {
        let mut a = Host::with_policy(Config::default(), policy);
        a.engine.begin_probe(a_addr(), b_addr(), ProbeMode::Bare);
        assert!(!has_eno(&a.kernel(&Pair::syn()).wire[0]));
        assert_eq!(a.wire(&Pair::syn_ack()).plain.len(), 1);
        assert!(!has_eno(&a.kernel(&ack(FIN)).wire[0]));
        let report = probe(&a);
        assert_eq!((report.syns, report.answer, report.state), (1, Some(SynAnswer::NoEno), Some(FlowState::Plain)));
        assert!(report.fin_sent && !report.fin_acked);
    }
}

#[test]
fn a_probe_offers_eno_in_every_syn_and_even_where_nothing_is_selected() {
    let mut a = Host::with_policy(Config { syn_attempts: 1, ..Config::default() }, Policy::Off);
    a.engine.begin_probe(a_addr(), b_addr(), ProbeMode::Offer);
    for syns in 1..5 {
        assert!(has_eno(&a.kernel(&Pair::syn()).wire[0]));
        assert_eq!((probe(&a).syns, probe(&a).answer), (syns, None));
    }
    a.engine.end_probe(a_addr(), b_addr());
    assert!(a.engine.probe(a_addr(), b_addr()).is_none());
    let mut other = Pair::syn();
    other.src.set_port(40_001);
    assert!(!has_eno(&a.kernel(&other).wire[0]), "another connection is none of the probe's");
}

#[test]
fn a_probe_that_insists_acknowledges_with_eno_what_came_without() {
    let mut a = probing(ProbeMode::Insist { hops: 0 });
    a.kernel(&Pair::syn());
    assert_eq!(a.wire(&Pair::syn_ack()).plain.len(), 1);
    let sent = a.kernel(&ack(0)).wire.remove(0);
    assert_eq!(sent.options, [ENO_OPTION, &[0, 0]].concat());
    let sent = a.kernel(&ack(FIN)).wire.remove(0);
    assert!(has_eno(&sent) && sent.has(FIN));
    let mut answer = Seg::new(b_addr(), a_addr());
    (answer.seq, answer.ack) = (B_ISN.wrapping_add(1), A_ISN + 1);
    a.wire(&answer);
    assert!(!probe(&a).fin_acked);
    answer.ack = A_ISN + 2;
    a.wire(&answer);
    assert_eq!((probe(&a).fin_acked, probe(&a).after_fin, probe(&a).reset), (true, 2, false));
}

const ENO_OPTION: &[u8] = &[69, 2];

/// The server's engine has agreed, and its option was lost: that can be told from how it takes a FIN (TC-29).
#[test]
fn a_peer_whose_option_was_lost_on_the_way_back_accepts_no_fin() {
    let mut a = probing(ProbeMode::Insist { hops: 0 });
    let mut b = Host::new(Config::default());
    let syn = a.kernel(&Pair::syn()).wire.remove(0);
    b.wire(&syn);
    let syn_ack = b.kernel(&Pair::syn_ack()).wire.remove(0);
    assert!(has_eno(&syn_ack));
    a.wire(&strip(&syn_ack));
    for seg in [ack(0), ack(FIN)] {
        for seg in a.kernel(&seg).wire {
            for seg in b.wire(&seg).wire {
                a.wire(&seg);
            }
        }
    }
    let report = probe(&a);
    assert!(report.fin_sent && !report.fin_acked && report.after_fin > 0, "{report:?}");
    assert_eq!((report.repeated_answers, report.lost_syn), (0, false));
}

#[test]
fn a_peer_whose_syn_had_lost_the_option_says_so() {
    let mut a = probing(ProbeMode::Insist { hops: 0 });
    let mut b = Host::new(Config::default());
    let syn = a.kernel(&Pair::syn()).wire.remove(0);
    b.wire(&strip(&syn));
    let syn_ack = b.kernel(&Pair::syn_ack()).wire.remove(0);
    a.wire(&syn_ack);
    let acked = a.kernel(&ack(0)).wire.remove(0);
    for seg in b.wire(&acked).wire {
        a.wire(&seg);
    }
    assert!(probe(&a).lost_syn && probe(&a).reset);
}

#[test]
fn routers_quote_copies_of_the_syn_and_the_kernel_hears_nothing_of_it() {
    let mut a = probing(ProbeMode::Insist { hops: 3 });
    let sent = a.kernel(&Pair::syn()).wire;
    // One more than the number of the router: the way from the wire device to the NIC takes one.
    assert_eq!(sent.iter().skip(1).map(|seg| seg.ttl).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(sent.iter().all(|seg| has_eno(seg) && seg.seq == A_ISN && seg.options == sent[0].options));
    assert_eq!(a.icmp(time_exceeded(&sent[1], 1, 60)), 0);
    assert_eq!(a.icmp(time_exceeded(&strip(&sent[2]), 2, 60)), 0);
    assert_eq!(a.icmp(time_exceeded(&sent[3], 3, 8)), 0);
    assert_eq!(a.icmp(time_exceeded(&sent[1], 9, 60)), 0, "the first one counts");
    let hop = |n: u8, eno| Hop { hop: n, router: [192, 0, 2, n].into(), eno };
    assert_eq!(probe(&a).hops, [hop(1, Some(true)), hop(2, Some(false)), hop(3, None)]);
    assert_eq!(a.icmp(time_exceeded(&sent[0], 4, 60)), 1, "what is not about a copy goes its way");
    assert_eq!(a.kernel(&Pair::syn()).wire.len(), 1, "a retransmission is one SYN");
}

#[test]
fn a_probe_writes_down_resets_and_answers_that_come_again() {
    let mut a = probing(ProbeMode::Insist { hops: 0 });
    a.kernel(&Pair::syn());
    a.wire(&Pair::syn_ack());
    a.kernel(&ack(0));
    // Several SYNs of a probe may reach the peer: that each is answered says nothing.
    a.wire(&Pair::syn_ack());
    assert_eq!(probe(&a).repeated_answers, 0);
    a.wait(Duration::from_secs(1));
    a.wire(&Pair::syn_ack());
    assert_eq!(probe(&a).repeated_answers, 1);
    let mut a = probing(ProbeMode::Offer);
    a.kernel(&Pair::syn());
    let mut rst = Seg::new(b_addr(), a_addr());
    (rst.flags, rst.ack) = (RST | ACK, A_ISN + 1);
    a.wire(&rst);
    assert_eq!((probe(&a).answer, probe(&a).reset), (Some(SynAnswer::Reset), false));
}
