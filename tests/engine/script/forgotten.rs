//! What this end has given up, and the local kernel has not heard of: none of its plaintext gets onto the wire.

use super::packet::RST;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// What the client's kernel writes on a connection that it takes for open, and whether that is on the wire.
fn leaks(host: &mut Host, mut seg: Seg) -> bool {
    seg.payload = b"secret".to_vec();
    let sent = host.kernel(&seg);
    sent.wire.iter().any(|seg| seg.payload.windows(6).any(|at| at == b"secret"))
}

/// A RST of the peer's where the next byte is expected.
fn reset_by_peer(pair: &mut Pair) -> Sent {
    let mut rst = pair.from_b();
    let at = pair.a.kernel(&pair.from_a()).wire[0].ack;
    (rst.seq, rst.flags) = (at, RST);
    pair.a.wire(&rst)
}

/// All RSTs are lost, and the application writes hours later.
#[test]
fn an_aborted_connection_is_remembered_until_the_kernel_knows() {
    let mut pair = Pair::connected();
    reset_by_peer(&mut pair);
    pair.a.wait(3 * HOUR);
    let seg = pair.from_a();
    assert!(!leaks(&mut pair.a, seg.clone()));
    let told = pair.a.kernel(&seg).plain;
    assert!(told.len() == 1 && told[0].flags & RST != 0 && told[0].seq == pair.b_next, "the kernel is told again");
}

/// The same, and the peer (or whoever says to be it) opens a connection on the same ports in between.
#[test]
fn a_syn_from_the_wire_does_not_make_an_aborted_connection_forgotten() {
    let mut pair = Pair::connected();
    reset_by_peer(&mut pair);
    let mut syn = Pair::syn();
    (syn.src, syn.dst) = (b_addr(), a_addr());
    pair.a.wire(&syn);
    let seg = pair.from_a();
    assert!(!leaks(&mut pair.a, seg.clone()));
    pair.a.wait(3 * HOUR);
    assert!(!leaks(&mut pair.a, seg));
}

/// The kernel has been given the SYN-ACK, and its acknowledgement got lost on its way here.
#[test]
fn an_opening_that_the_kernel_takes_for_done_does_not_become_plain() {
    let mut pair = Pair::new();
    let mut sent = pair.a.kernel(&Pair::syn());
    sent = pair.b.wire(&sent.wire.remove(0));
    assert_eq!(sent.plain.len(), 1);
    sent = pair.b.kernel(&Pair::syn_ack());
    sent = pair.a.wire(&sent.wire.remove(0));
    assert_eq!(sent.plain.len(), 1, "the SYN-ACK for the client's kernel");
    pair.a.wait(HOUR);
    let seg = pair.from_a();
    assert!(!leaks(&mut pair.a, seg));
}

/// The SYN-ACK comes when the opening was given up.
#[test]
fn policy_required_does_not_let_a_late_answer_pass() {
    let mut client = Host::with_policy(Config::default(), Policy::Required);
    let mut server = Host::new(Config::default());
    let syn = client.kernel(&Pair::syn()).wire.remove(0);
    server.wire(&syn);
    let late = server.kernel(&Pair::syn_ack()).wire.remove(0);
    for answer in [late, Pair::syn_ack()] {
        client.wait(Duration::from_secs(61));
        let told = client.wire(&answer).plain;
        assert!(told.iter().all(|seg| seg.flags & SYN == 0), "the kernel takes the connection for open");
    }
}

/// The same for the side that is connected to: the peer's SYN was seen before the daemon was there.
#[test]
fn policy_required_does_not_let_an_answer_to_an_unknown_syn_pass() {
    let mut server = Host::with_policy(Config::default(), Policy::Required);
    assert!(server.kernel(&Pair::syn_ack()).wire.iter().all(|seg| seg.flags & SYN == 0));
}

#[test]
fn a_kernel_that_has_no_such_connection_any_more_is_believed() {
    let mut pair = Pair::connected();
    reset_by_peer(&mut pair);
    let asked: Vec<Seg> = pair.a.wait(Duration::from_secs(2)).plain;
    let [rst, question] = &asked[..] else { panic!("{} segments", asked.len()) };
    assert!(rst.flags & RST != 0 && question.flags & RST == 0);
    // As a kernel without the connection answers (RFC 9293, section 3.10.7.1).
    let mut answer = pair.from_a();
    (answer.seq, answer.ack, answer.flags) = (question.ack, 0, RST);
    pair.a.kernel(&answer);
    assert!(pair.a.wait(3 * HOUR).plain.is_empty(), "it is not asked again");
    assert_eq!(pair.a.engine.len(), 0);
}

/// A firewall rejects with an ICMP error what was delivered, and that quotes it.
#[test]
fn what_an_icmp_error_quotes_of_a_connection_that_is_over_does_not_get_onto_the_wire() {
    let mut pair = Pair::connected();
    let mut seg = pair.from_b();
    seg.payload = b"secret of an hour ago".to_vec();
    // "Administratively prohibited".
    let error = icmp::error(3, 13, 0, &seg);
    assert!(pair.a.icmp_on_wire(&error).is_some_and(|bytes| !bytes.windows(6).any(|at| at == b"secret")), "translated");
    reset_by_peer(&mut pair);
    assert_eq!(pair.a.icmp_on_wire(&error), None, "it was reset just now");
    pair.a.wait(HOUR);
    assert_eq!(pair.a.icmp_on_wire(&error), None, "and an hour ago");
}
