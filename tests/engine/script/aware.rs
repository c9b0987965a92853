//! Application-aware connections (ENO-8).

use enotun::engine::FlowState;
use enotun::selector::Selected;

use super::*;

/// A pair whose rules have these options, and B's policy, after the client's kernel has acknowledged the SYN-ACK.
fn pair(a: &str, b: &str, policy: Policy) -> (Pair, bool) {
    let host = |options: &str, policy| {
        let rule = format!("0.0.0.0/0{options}").parse::<Selected>().expect("a selector").rule(policy);
        Host::with_rule(Config::default(), rule)
    };
    let mut pair = Pair { a: host(a, policy), b: host(b, policy), ..Pair::new() };
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    let Some(to_kernel) = pair.b.wire(&syn).plain.pop().filter(|seg| seg.has(SYN)) else { return (pair, false) };
    assert!(to_kernel.payload.is_empty());
    let Some(syn_ack) = pair.b.kernel(&Pair::syn_ack()).wire.pop() else { return (pair, false) };
    let Some(to_kernel) = pair.a.wire(&syn_ack).plain.pop() else { return (pair, false) };
    if !to_kernel.has(SYN) {
        return (pair, false);
    }
    let ack = pair.from_a();
    let mut to_b = pair.a.kernel(&ack).wire;
    while !to_b.is_empty() {
        let to_a: Vec<Seg> = to_b.drain(..).flat_map(|seg| pair.b.wire(&seg).wire).collect();
        to_b = to_a.iter().flat_map(|seg| pair.a.wire(seg).wire).collect();
    }
    (pair, true)
}

#[test]
fn eno_8_the_bits_of_both_sides_are_sent_and_can_be_read() {
    for (a, b, bits) in [("", "", (0, 1)), (",aware", "", (2, 1)), ("", ",aware", (0, 3)), (",aware", ",aware", (2, 3))]
    {
        let (pair, open) = pair(a, b, Policy::Opportunistic);
        assert!(open);
        let sessions = [
            pair.a.engine.session(a_addr(), b_addr()).expect("a session"),
            pair.b.engine.session(b_addr(), a_addr()).expect("a session"),
        ];
        assert_eq!((sessions[0].self_gopt, sessions[0].peer_gopt), bits);
        assert_eq!((sessions[1].peer_gopt, sessions[1].self_gopt), bits);
        assert_eq!((sessions[0].self_aware, sessions[0].peer_aware), (bits.0 & 2 != 0, bits.1 & 2 != 0));
        let flow = pair.flow_b().expect("a connection");
        assert_eq!((flow.peer_gopt, flow.self_gopt), (Some(bits.0), Some(bits.1)));
        // What both sign, and neither can use for its own (ENO-19).
        assert_eq!(sessions[0].self_name, sessions[1].peer_name);
        assert_eq!(sessions[0].peer_name, sessions[1].self_name);
        assert_eq!(sessions[0].self_name, format!("00{}", sessions[0].session_id));
        assert_eq!(sessions[1].self_name, format!("01{}", sessions[0].session_id));
        assert_eq!(sessions[0].transcript, sessions[1].transcript);
    }
}

#[test]
fn eno_8_mandatory_mode_needs_the_peers_bit() {
    let mandatory = ",mandatory-aware";
    for (a, b) in [(mandatory, ",aware"), (",aware", mandatory), (mandatory, mandatory)] {
        let (pair, open) = pair(a, b, Policy::Required);
        assert!(open);
        assert_eq!(pair.flow_a().map(|flow| flow.state), Some(FlowState::Encrypted), "{a} {b}");
    }
}

#[test]
fn eno_8_without_the_peers_bit_mandatory_mode_is_plain_or_refused_for_that_reason() {
    for (a, b, reasons) in [
        (",mandatory-aware", "", ["not-aware", "ack-without-eno"]),
        ("", ",mandatory-aware", ["peer-no-eno", "not-aware"]),
    ] {
        let (plain, open) = pair(a, b, Policy::Opportunistic);
        assert!(open);
        let flows = [plain.flow_a().expect("a connection"), plain.flow_b().expect("a connection")];
        for (flow, reason) in flows.iter().zip(reasons) {
            assert_eq!((flow.state, flow.reason.as_deref()), (FlowState::Plain, Some(reason)), "{a} {b}");
        }
        let none = plain.a.engine.session(a_addr(), b_addr());
        assert!(none.expect_err("no session ID").to_string().contains(reasons[0]));

        let (refused, open) = pair(a, b, Policy::Required);
        assert!(!open, "{a} {b}");
        let flow = if a.is_empty() { refused.flow_b() } else { refused.flow_a() }.expect("a connection");
        assert_eq!(flow.state, FlowState::Closed);
        assert_eq!(flow.reason.as_deref(), Some("refused: policy requires encryption, but not-aware"));
    }
}
