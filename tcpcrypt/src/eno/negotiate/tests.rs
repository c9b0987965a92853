use alloc::string::ToString;

use super::*;
use crate::aead::AeadId;
use crate::eno::option::find_syn;
use crate::schedule::SessionSecret;

fn secret(role: Role) -> CachedSecret {
    CachedSecret::new(Tep::Curve25519, AeadId::Aes128Gcm, role, SessionSecret::from_bytes(&[9; 32]))
}

fn proposal(role: Role) -> Proposal {
    let nonce = ResumeNonce::new(&[role.letter() as u8; 8]).expect("8 bytes");
    Proposal { secret: secret(role), nonce }
}

fn nobody(_: Tep, _: &[u8; RESUME_HALF_LEN]) -> Option<CachedSecret> {
    None
}

fn teps(teps: &[Tep]) -> NegotiationConfig {
    NegotiationConfig { teps: teps.to_vec(), ..NegotiationConfig::default() }
}

fn reason(outcome: &Outcome) -> PlainReason {
    match outcome {
        Outcome::Plain(reason) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn eno_7_active_opener_is_a_unless_told_otherwise() {
    let settings = NegotiationConfig::default();
    let bytes = active_option(&settings, None, 40).expect("fits").bytes;
    assert_eq!(bytes, [69, 6, 0x21, 0x22, 0x23, 0x24]);
    let settings = NegotiationConfig { active_b: true, ..teps(&[Tep::Curve25519]) };
    assert_eq!(active_option(&settings, None, 40).expect("fits").bytes, [69, 4, 0x01, 0x23]);
}

#[test]
fn eno_7_passive_opener_says_b_explicitly_and_never_answers_b() {
    let settings = teps(&[Tep::Curve25519]);
    let reply = passive_reply(&settings, &find_syn(&[69, 3, 0x23]), 40, &[0; 8], nobody);
    assert_eq!(reply.option.as_deref(), Some(&[69, 4, 0x01, 0x23][..]));
    let reply = passive_reply(&settings, &find_syn(&[69, 4, 0x01, 0x23]), 40, &[0; 8], nobody);
    assert_eq!(reply.option, None);
}

#[test]
fn eno_7_echoed_option_is_plain() {
    let settings = NegotiationConfig::default();
    let own = active_option(&settings, None, 40).expect("fits").bytes;
    let outcome = conclude(&settings, Some(&own), None, &find_syn(&own));
    assert_eq!(reason(&outcome), PlainReason::SameRole);
}

#[test]
fn eno_8_mandatory_mode_alone_says_aware_so_that_two_such_hosts_encrypt() {
    let aware = NegotiationConfig { aware: Aware::Mandatory, ..teps(&[Tep::Curve25519]) };
    let a = active_option(&aware, None, 40).expect("fits").bytes;
    assert_eq!(a, [69, 4, 0x02, 0x23]);
    let b = passive_reply(&aware, &find_syn(&a), 40, &[0; 8], nobody).option.expect("an answer");
    assert_eq!(b, [69, 4, 0x03, 0x23]);
    for (own, peer) in [(&a, &b), (&b, &a)] {
        assert!(matches!(conclude(&aware, Some(own), None, &find_syn(peer)), Outcome::Fresh(_)));
    }
}

#[test]
fn eno_8_aware_bit_is_sent_and_can_be_required() {
    let sends = NegotiationConfig { aware: Aware::Yes, ..teps(&[Tep::Curve25519]) };
    assert_eq!(active_option(&sends, None, 40).expect("fits").bytes, [69, 4, 0x02, 0x23]);
    let outcome = conclude(&sends, Some(&[69, 4, 0x02, 0x23]), None, &find_syn(&[69, 4, 0x01, 0x23]));
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
    let aware = NegotiationConfig { aware: Aware::Mandatory, ..sends };
    let own = active_option(&aware, None, 40).expect("fits").bytes;
    assert_eq!(own, [69, 4, 0x02, 0x23]);
    let outcome = conclude(&aware, Some(&own), None, &find_syn(&[69, 4, 0x01, 0x23]));
    assert_eq!(reason(&outcome), PlainReason::NotAware);
    let outcome = conclude(&aware, Some(&own), None, &find_syn(&[69, 4, 0x03, 0x23]));
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
    let reply = passive_reply(&aware, &find_syn(&[69, 3, 0x23]), 40, &[0; 8], nobody);
    assert_eq!(reply.option, None, "reading 13");
    assert_eq!(reason(&conclude(&aware, None, None, &find_syn(&[69, 3, 0x23]))), PlainReason::NotAware);
}

#[test]
fn eno_13_a_passive_opener_knows_why_it_sends_no_option() {
    let settings = teps(&[Tep::Curve25519]);
    for (area, text) in [
        (&[][..], "peer-no-eno"),
        (&[69, 3, 0x80], "ill-formed"),
        (&[69, 2, 69, 2], "duplicate-eno"),
        (&[69, 3, 0x23, 2, 1], "malformed-options"),
        (&[69, 4, 0x01, 0x23], "same-role"),
        (&[69, 3, 0x24], "no-common-tep"),
        (&[69, 4, 0x23, 0x23], "no-common-tep"),
        (&[69, 3, 0x74], "no-common-tep"),
    ] {
        let reply = passive_reply(&settings, &find_syn(area), 40, &[0; 8], nobody);
        assert_eq!(reply.option, None, "{text}");
        assert_eq!(reason(&conclude(&settings, None, None, &find_syn(area))).to_string(), text);
    }
}

#[test]
fn eno_9_tep_must_be_in_both_and_not_repeated() {
    let settings = NegotiationConfig::default();
    let own = [69, 4, 0x23, 0x24];
    for (peer, expected) in [
        (&[69, 5, 0x01, 0x23, 0x22][..], Some(Tep::Curve25519)),
        (&[69, 6, 0x01, 0x24, 0x23, 0x23], Some(Tep::Curve448)),
        (&[69, 5, 0x01, 0x21, 0x22], None),
        (&[69, 4, 0x01, 0x47], None),
    ] {
        match conclude(&settings, Some(&own), None, &find_syn(peer)) {
            Outcome::Fresh(negotiated) => assert_eq!(Some(negotiated.tep), expected),
            outcome => {
                assert_eq!(reason(&outcome), PlainReason::NoCommonTep);
                assert_eq!(expected, None);
            }
        }
    }
}

#[test]
fn eno_9_tep_that_this_host_does_not_use_is_not_valid() {
    let outcome = conclude(&teps(&[Tep::P256]), Some(&[69, 4, 0x23, 0x21]), None, &find_syn(&[69, 4, 0x01, 0x23]));
    assert_eq!(reason(&outcome), PlainReason::NoCommonTep);
}

#[test]
fn eno_10_b_lists_by_rising_priority() {
    let a = [69, 6, 0x24, 0x23, 0x22, 0x21];
    let b = [69, 6, 0x01, 0x24, 0x21, 0x23];
    for (own, peer, role) in [(a, b, Role::A), (b, a, Role::B)] {
        match conclude(&NegotiationConfig::default(), Some(&own), None, &find_syn(&peer)) {
            Outcome::Fresh(n) => assert_eq!((n.role, n.tep, n.tep_byte), (role, Tep::Curve25519, 0x23)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn eno_11_vacuous_is_plain_and_answered_in_kind() {
    let settings = NegotiationConfig::default();
    let reply = passive_reply(&settings, &find_syn(&[69, 2]), 40, &[0; 8], nobody);
    assert_eq!(reply.option.as_deref(), Some(&[69, 3, 0x01][..]));
    let outcome = conclude(&settings, Some(&[69, 3, 0x23]), None, &find_syn(&[69, 3, 0x01]));
    assert_eq!(reason(&outcome), PlainReason::Vacuous);
    let reply = passive_reply(&settings, &SynArea::None, 40, &[0; 8], nobody);
    assert_eq!(reply.option, None, "no option without one in the SYN");
}

#[test]
fn eno_13_unusable_options_are_plain_with_their_reason() {
    let settings = NegotiationConfig::default();
    let own = &[69, 3, 0x23][..];
    for (area, text) in [
        (&[][..], "peer-no-eno"),
        (&[69, 3, 0x80], "ill-formed"),
        (&[69, 2, 69, 2], "duplicate-eno"),
        (&[69, 0], "malformed-options"),
    ] {
        assert_eq!(reason(&conclude(&settings, Some(own), None, &find_syn(area))).to_string(), text);
    }
    let peer = find_syn(&[69, 4, 0x01, 0x23]);
    assert_eq!(reason(&conclude(&settings, None, None, &find_syn(own))), PlainReason::NotOffered);
    let off = NegotiationConfig { enabled: false, ..settings };
    assert_eq!(reason(&conclude(&off, Some(own), None, &peer)), PlainReason::NotOffered);
    assert_eq!(active_option(&off, None, 40), None);
    assert_eq!(passive_reply(&off, &find_syn(own), 40, &[0; 8], nobody).option, None);
}

#[test]
fn eno_17_both_conclude_the_same_transcript() {
    let settings = NegotiationConfig::default();
    let a = active_option(&settings, None, 40).expect("fits").bytes;
    let b = passive_reply(&settings, &find_syn(&a), 40, &[0; 8], nobody).option.expect("answer");
    let expected = [&a[..], &b].concat();
    for (own, peer) in [(&a, &b), (&b, &a)] {
        match conclude(&settings, Some(own), None, &find_syn(peer)) {
            Outcome::Fresh(negotiated) => assert_eq!(negotiated.transcript, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn active_option_takes_what_fits_by_priority() {
    let settings = NegotiationConfig::default();
    let build = |room| active_option(&settings, Some(&proposal(Role::A)), room).map(|o| (o.bytes.len(), o.proposes));
    assert_eq!(build(40), Some((23, true)));
    assert_eq!(build(21), Some((21, true)));
    assert_eq!(build(20), Some((20, true)), "the proposal alone");
    assert_eq!(build(19), Some((6, false)), "fresh");
    assert_eq!(build(4), Some((4, false)));
    assert_eq!(build(2), None);
    assert_eq!(build(0), None);
    assert_eq!(active_option(&settings, None, 3).expect("fits").bytes, [69, 3, 0x24], "the highest priority");
}

#[test]
fn passive_option_takes_what_fits() {
    let settings = NegotiationConfig::default();
    let a = active_option(&settings, Some(&proposal(Role::A)), 40).expect("fits").bytes;
    let reply = |room| {
        let reply = passive_reply(&settings, &find_syn(&a), room, &[5; 8], |_, _| Some(secret(Role::B)));
        (reply.option.map(|o| o.len()), reply.resumes.is_some())
    };
    assert_eq!(reply(21), (Some(21), true));
    assert_eq!(reply(20), (Some(4), false), "fresh");
    assert_eq!(reply(3), (None, false));
}

#[test]
fn tc_12_13_15_resumption_end_to_end_in_both_roles() {
    for active_was in [Role::A, Role::B] {
        let settings = NegotiationConfig::default();
        let proposes = proposal(active_was);
        let a = active_option(&settings, Some(&proposes), 40).expect("fits");
        assert!(a.proposes);
        let reply = passive_reply(&settings, &find_syn(&a.bytes), 40, &[7; 8], |tep, half| {
            let secret = secret(active_was.other());
            (tep == Tep::Curve25519 && half == secret.peer_half()).then_some(secret)
        });
        let b = reply.option.expect("answer");
        let session = |own, proposal, peer| match conclude(&settings, Some(own), Some(proposal), &find_syn(peer)) {
            Outcome::Resumed(negotiated, session) => {
                assert_eq!(negotiated.tep_byte, 0xa3);
                session
            }
            other => panic!("{other:?}"),
        };
        let of_a = session(&a.bytes, &proposes, &b);
        let of_b = session(&b, &reply.resumes.expect("accepted"), &a.bytes);
        assert_eq!(of_a.id(), of_b.id());
        assert_eq!(of_a.original_role(), active_was, "TC-15: the original role stays");
        assert_eq!(of_b.original_role(), active_was.other());
        let (first, second) = if active_was == Role::A { ([b'A'; 8], [7; 8]) } else { ([7; 8], [b'B'; 8]) };
        assert_eq!(of_a.nonce().as_bytes(), [first, second].concat());
    }
}

#[test]
fn tc_13_nonce_length_can_be_set() {
    for nonce_len in [0, 1, 8] {
        let settings = NegotiationConfig { nonce_len, ..NegotiationConfig::default() };
        let a = active_option(&settings, Some(&proposal(Role::A)), 40).expect("fits").bytes;
        let reply = passive_reply(&settings, &find_syn(&a), 40, &[7; 8], |_, _| Some(secret(Role::B)));
        assert_eq!(reply.option.expect("answer").len(), 2 + 1 + 1 + 9 + nonce_len);
    }
}

#[test]
fn tc_16_secret_that_is_not_the_named_one_is_not_accepted() {
    let settings = NegotiationConfig::default();
    let a = active_option(&settings, Some(&proposal(Role::A)), 40).expect("fits").bytes;
    // The half that this host itself would send, not the one the peer would.
    let reply = passive_reply(&settings, &find_syn(&a), 40, &[7; 8], |_, _| Some(secret(Role::A)));
    assert!(reply.resumes.is_none());
    assert_eq!(reply.option.as_deref(), Some(&[69, 4, 0x01, 0x24][..]));
}

#[test]
fn tc_17_short_data_is_v_0() {
    let settings = teps(&[Tep::Curve25519]);
    let short = [69, 11, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8];
    let reply = passive_reply(&settings, &find_syn(&short), 40, &[7; 8], |_, _| Some(secret(Role::B)));
    assert!(reply.resumes.is_none());
    let own = reply.option.expect("answer");
    let outcome = conclude(&settings, Some(&own), None, &find_syn(&short));
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
}

#[test]
fn tc_17_a_short_answer_is_v_0_beside_a_proposal_too() {
    let settings = teps(&[Tep::Curve25519]);
    let proposes = proposal(Role::A);
    let own = active_option(&settings, Some(&proposes), 40).expect("fits").bytes;
    let outcome = conclude(&settings, Some(&own), Some(&proposes), &find_syn(&[69, 7, 0x01, 0xa3, 1, 2, 3]));
    assert!(matches!(outcome, Outcome::Fresh(_)), "{outcome:?}");
}

/// Both may propose, and not the same: without another TEP nothing would be left.
#[test]
fn tc_18_a_host_that_may_become_b_proposes_only_beside_another_tep() {
    let proposes = |teps_of: &[Tep], room| {
        let settings = NegotiationConfig { active_b: true, ..teps(teps_of) };
        active_option(&settings, Some(&proposal(Role::B)), room).expect("fits")
    };
    assert!(!proposes(&[Tep::Curve25519], 40).proposes);
    let both = [Tep::P256, Tep::Curve25519];
    let own = proposes(&both, 40);
    assert!(own.proposes);
    assert_eq!(own.bytes[..5], [69, 22, 0x01, 0x21, 0xa3]);
    assert!(proposes(&both, 22).proposes);
    assert_eq!(proposes(&both, 21), ActiveOption { bytes: vec![69, 5, 0x01, 0x21, 0x23], proposes: false });
}

#[test]
fn eno_17_the_transcript_says_which_option_was_whose() {
    let settings = teps(&[Tep::Curve25519]);
    let (a, b) = ([69, 3, 0x23], [69, 4, 0x01, 0x23]);
    for (own, peer) in [(&a[..], &b[..]), (&b, &a)] {
        let Outcome::Fresh(negotiated) = conclude(&settings, Some(own), None, &find_syn(peer)) else { panic!("fresh") };
        let expected = (SynOption::parse(own).expect("well-formed"), SynOption::parse(peer).expect("well-formed"));
        assert_eq!(negotiated.options(), Some(expected));
    }
}

#[test]
fn data_longer_than_half_and_nonce_is_no_resumption() {
    let settings = teps(&[Tep::Curve25519]);
    let mut long = [0; 21];
    long[..3].copy_from_slice(&[69, 21, 0xa3]);
    long[3..12].copy_from_slice(secret(Role::A).own_half());
    let reply = passive_reply(&settings, &find_syn(&long), 40, &[7; 8], |_, _| Some(secret(Role::B)));
    assert!(reply.resumes.is_none());
    assert_eq!(reply.option.as_deref(), Some(&[69, 4, 0x01, 0x23][..]));
}

#[test]
fn tc_18_answer_with_another_half_is_ignored() {
    let settings = NegotiationConfig::default();
    let proposes = proposal(Role::A);
    let own = active_option(&settings, Some(&proposes), 40).expect("fits").bytes;
    let wrong = [&[69, 13, 0x01, 0xa3][..], &[1; 9]].concat();
    let outcome = conclude(&settings, Some(&own), Some(&proposes), &find_syn(&wrong));
    assert_eq!(reason(&outcome), PlainReason::NoCommonTep);
    let with_another = [&[69, 14, 0x01, 0x24, 0xa3][..], &[1; 9]].concat();
    match conclude(&settings, Some(&own), Some(&proposes), &find_syn(&with_another)) {
        Outcome::Fresh(negotiated) => assert_eq!(negotiated.tep, Tep::Curve448),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tc_20_proposed_tep_is_offered_once() {
    let own = active_option(&NegotiationConfig::default(), Some(&proposal(Role::A)), 40).expect("fits").bytes;
    let option = SynOption::parse(&own).expect("well-formed");
    assert_eq!(option.suboptions().map(|s| s.byte()).collect::<Vec<_>>(), [0x21, 0x22, 0x24, 0xa3]);
}

#[test]
fn tc_22_resumption_can_be_refused() {
    let refuse = NegotiationConfig { resume: false, ..teps(&[Tep::Curve25519]) };
    let own = active_option(&refuse, Some(&proposal(Role::A)), 40).expect("fits");
    assert!(!own.proposes);
    let a = active_option(&NegotiationConfig::default(), Some(&proposal(Role::A)), 40).expect("fits").bytes;
    let reply = passive_reply(&refuse, &find_syn(&a), 40, &[7; 8], |_, _| panic!("must not be looked up"));
    assert_eq!(reply.option.as_deref(), Some(&[69, 4, 0x01, 0x23][..]));
}
