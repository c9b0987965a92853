use super::*;

fn open(answer: SynAnswer) -> Attempt {
    let report = ProbeReport {
        syns: 1,
        answer: Some(answer),
        answer_ttl: Some(62),
        state: Some(FlowState::Plain),
        fin_sent: true,
        fin_acked: true,
        after_fin: 2,
        ..ProbeReport::default()
    };
    Attempt { connect: ConnectOutcome::Open, report }
}

fn silent(syns: u32) -> Attempt {
    Attempt { connect: ConnectOutcome::Silent, report: ProbeReport { syns, ..ProbeReport::default() } }
}

/// A peer that answers without ENO and takes everything for plain TCP.
fn plain() -> Evidence {
    let without = || open(SynAnswer::NoEno);
    Evidence { offer: without(), bare: Some(without()), insist: Some(without()), known: None }
}

fn insist(evidence: &mut Evidence) -> &mut ProbeReport {
    &mut evidence.insist.as_mut().expect("tried").report
}

fn hop(hop: u8, eno: Option<bool>) -> Hop {
    Hop { hop, router: "192.0.2.1".parse().expect("an address"), eno }
}

fn diagnosis(evidence: &Evidence) -> (ProbeResult, Certainty) {
    let diagnosis = conclude(evidence);
    (diagnosis.result, diagnosis.certainty)
}

#[test]
fn a_peer_without_eno_is_one_if_the_option_got_to_the_last_router() {
    let mut evidence = plain();
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Open));
    insist(&mut evidence).hops = vec![hop(1, Some(true))];
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Open), "there are two routers");
    insist(&mut evidence).hops.push(hop(2, Some(true)));
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Inferred));
    insist(&mut evidence).hops = vec![hop(2, None)];
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Open), "it quotes too little");
}

#[test]
fn an_option_that_a_router_did_not_see_was_removed_before_it() {
    let mut evidence = plain();
    insist(&mut evidence).hops = vec![hop(1, Some(true)), hop(2, None), hop(3, Some(false)), hop(4, Some(false))];
    assert_eq!(diagnosis(&evidence), (ProbeResult::StrippedThere, Certainty::Seen));
    let text = conclude(&evidence).evidence.join("\n");
    assert!(text.contains("hop 1,") && text.contains("hop 3,"), "{text}");
}

#[test]
fn a_peer_with_enotun_says_that_the_syn_had_lost_the_option() {
    let mut evidence = plain();
    let report = insist(&mut evidence);
    (report.lost_syn, report.reset, report.fin_acked) = (true, true, false);
    assert_eq!(diagnosis(&evidence), (ProbeResult::StrippedThere, Certainty::Told));
}

#[test]
fn a_peer_that_was_encrypted_to_has_eno() {
    let evidence = Evidence { known: Some(60), ..plain() };
    assert_eq!(diagnosis(&evidence), (ProbeResult::StrippedThere, Certainty::Inferred));
}

#[test]
fn a_peer_that_accepts_no_fin_behind_eno_has_agreed_to_encrypt() {
    let mut evidence = plain();
    insist(&mut evidence).fin_acked = false;
    assert_eq!(diagnosis(&evidence), (ProbeResult::StrippedBack, Certainty::Inferred));
    // Unless it accepts none at all,
    let mut deaf = evidence.clone();
    deaf.bare.as_mut().expect("tried").report.fin_acked = false;
    assert_eq!(diagnosis(&deaf), (ProbeResult::NoEno, Certainty::Open));
    // resets every connection,
    let mut rude = evidence.clone();
    rude.bare.as_mut().expect("tried").report.reset = true;
    assert_eq!(diagnosis(&rude), (ProbeResult::NoEno, Certainty::Open));
    // or does not get what has ENO.
    insist(&mut evidence).after_fin = 0;
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Open));
    insist(&mut evidence).after_fin = 3;
    insist(&mut evidence).repeated_answers = 1;
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoEno, Certainty::Open));
}

#[test]
fn syns_that_vanish_are_told_from_a_host_that_does_not_answer() {
    let evidence = Evidence { offer: silent(3), bare: Some(open(SynAnswer::NoEno)), insist: None, known: None };
    assert_eq!(diagnosis(&evidence), (ProbeResult::SynDropped, Certainty::Inferred));
    let evidence = Evidence { bare: Some(silent(3)), ..evidence };
    assert_eq!(diagnosis(&evidence), (ProbeResult::NoAnswer, Certainty::Seen));
}

#[test]
fn what_follows_an_option_in_the_answer() {
    let of = |change: fn(&mut ProbeReport)| {
        let mut offer = open(SynAnswer::Eno);
        change(&mut offer.report);
        diagnosis(&Evidence { offer, bare: None, insist: None, known: None })
    };
    assert_eq!(of(|report| report.state = Some(FlowState::Encrypted)), (ProbeResult::Encrypted, Certainty::Seen));
    assert_eq!(of(|report| report.state = Some(FlowState::Plain)), (ProbeResult::NotNegotiated, Certainty::Seen));
    let lost = |report: &mut ProbeReport| {
        (report.state, report.reset, report.lost_ack) = (Some(FlowState::Closed), true, true);
    };
    assert_eq!(of(lost), (ProbeResult::NonSynStripped, Certainty::Told));
    let reset = |report: &mut ProbeReport| (report.state, report.reset) = (Some(FlowState::Closed), true);
    assert_eq!(of(reset), (ProbeResult::NonSynStripped, Certainty::Open));
    assert_eq!(of(|report| report.state = Some(FlowState::Negotiating)), (ProbeResult::Failed, Certainty::Seen));
}

#[test]
fn the_distance_follows_from_what_is_left_of_the_ttl() {
    for (ttl, routers) in [(64, 0), (61, 3), (128, 0), (120, 8), (255, 0), (250, 5)] {
        assert_eq!(distance(ttl), routers);
    }
}
