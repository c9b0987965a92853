use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::eno::negotiate::Negotiated;
use crate::frame::{MAX_DATA, OVERHEAD};
use crate::resume::{CachedSecret, ResumeNonce};
use crate::rust_crypto::PROVIDER;
use crate::schedule::SessionSecret;
use crate::tep::Tep;

fn record(role: Role) -> Record {
    let secret = SessionSecret::from_bytes(&[7; 32]);
    let negotiated = Negotiated { role, tep: Tep::Curve25519, tep_byte: 0x23, transcript: Vec::new() };
    Record::new(&PROVIDER, &Session::fresh(&negotiated, AeadId::Aes128Gcm, secret))
}

/// Two ends and where their next frames start.
struct Pair {
    a: Record,
    b: Record,
    a_offset: u64,
    b_offset: u64,
}

impl Pair {
    fn new() -> Self {
        Self { a: record(Role::A), b: record(Role::B), a_offset: 80, b_offset: 74 }
    }

    fn a_seals(&mut self, plaintext: &Plaintext<'_>) -> (u64, Vec<u8>) {
        seal(&mut self.a, &mut self.a_offset, plaintext)
    }

    fn b_seals(&mut self, plaintext: &Plaintext<'_>) -> (u64, Vec<u8>) {
        seal(&mut self.b, &mut self.b_offset, plaintext)
    }

    /// A starts a rekey and B answers, with empty frames.
    fn rekey(&mut self) {
        assert!(self.a.start_rekey());
        let (at, mut frame) = self.a_seals(&Plaintext::default());
        assert!(self.b.open(at, &mut frame).expect("authentic").rekeyed);
        assert!(self.b.rekey_answer_due());
        let (at, mut frame) = self.b_seals(&Plaintext::default());
        assert!(self.a.open(at, &mut frame).expect("authentic").rekeyed);
    }
}

fn seal(record: &mut Record, offset: &mut u64, plaintext: &Plaintext<'_>) -> (u64, Vec<u8>) {
    let mut frame = vec![0; plaintext.frame_len()];
    let at = *offset;
    assert_eq!(record.seal(at, plaintext, &mut frame), Ok(frame.len()));
    *offset += frame.len() as u64;
    (at, frame)
}

fn data(data: &[u8]) -> Plaintext<'_> {
    Plaintext { data, ..Plaintext::default() }
}

/// A frame as `record` would send it, but with any control byte and plaintext.
fn crafted(record: &mut Record, offset: u64, control: u8, plaintext: &[u8]) -> Vec<u8> {
    let header = Header { control, clen: (plaintext.len() + TAG_LEN) as u16 }.to_bytes();
    let mut body = plaintext.to_vec();
    let nonce = record.send.nonce(offset);
    let tag = record.send.ready(&PROVIDER, AeadId::Aes128Gcm).expect("key").seal(&nonce, &header, &mut body);
    [&header[..], &body, &tag].concat()
}

#[test]
fn tc_23_24_frames_carry_data_fin_and_urgent_both_ways() {
    let mut pair = Pair::new();
    let (at, mut frame) = pair.a_seals(&data(b"hello"));
    assert_eq!(frame.len(), 5 + OVERHEAD);
    let opened = pair.b.open(at, &mut frame).expect("authentic");
    assert_eq!(&frame[opened.data.clone()], b"hello");
    assert_eq!((opened.fin, opened.urgent, opened.rekeyed), (false, None, false));

    let last = Plaintext { fin: true, urgent: Some(2), data: b"abc" };
    let (at, mut frame) = pair.b_seals(&last);
    let opened = pair.a.open(at, &mut frame).expect("authentic");
    assert_eq!(&frame[opened.data.clone()], b"abc");
    assert_eq!((opened.fin, opened.urgent), (true, Some(2)));
}

#[test]
fn tc_23_reserved_control_bits_are_ignored_and_authenticated() {
    let mut pair = Pair::new();
    let mut frame = crafted(&mut pair.a, 80, 0xfe, &[0, b'x']);
    let mut changed = frame.clone();
    changed[0] = 0x7e;
    assert_eq!(pair.b.open(80, &mut changed), Err(OpenError::NotAuthentic));
    let opened = pair.b.open(80, &mut frame).expect("authentic");
    assert_eq!(&frame[opened.data], b"x");
}

#[test]
fn tc_24_reserved_flags_are_ignored() {
    let mut pair = Pair::new();
    let mut frame = crafted(&mut pair.a, 80, 0, &[0xfc, b'x']);
    let opened = pair.b.open(80, &mut frame).expect("authentic");
    assert_eq!((opened.fin, opened.urgent), (false, None));
}

#[test]
fn tc_24_missing_flags_byte_is_a_violation() {
    let mut pair = Pair::new();
    let mut frame = crafted(&mut pair.a, 80, 0, &[]);
    assert_eq!(pair.b.open(80, &mut frame), Err(OpenError::Violation(PeerViolation::NoFlags)));
}

#[test]
fn tc_24_urgent_flag_without_its_two_bytes_is_a_violation() {
    for plaintext in [&[2][..], &[3, 0]] {
        let mut pair = Pair::new();
        let mut frame = crafted(&mut pair.a, 80, 0, plaintext);
        assert_eq!(pair.b.open(80, &mut frame), Err(OpenError::Violation(PeerViolation::NoUrgent)));
    }
}

#[test]
fn tc_25_26_every_bit_and_the_offset_are_authenticated() {
    let mut pair = Pair::new();
    let (at, frame) = pair.a_seals(&data(b"hello"));
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let expected = if (1..3).contains(&(bit / 8)) { Misuse::NotOneFrame.into() } else { OpenError::NotAuthentic };
        assert_eq!(pair.b.open(at, &mut damaged), Err(expected), "bit {bit}");
    }
    for wrong in [at + 1, at + (1 << 32), at - 1, 0] {
        assert_eq!(pair.b.open(wrong, &mut frame.clone()), Err(OpenError::NotAuthentic), "offset {wrong}");
    }
    assert!(pair.b.open(at, &mut frame.clone()).is_ok(), "nothing of that has changed the record");
}

#[test]
fn tc_26_offsets_go_past_32_bits() {
    let (mut a, mut b) = (record(Role::A), record(Role::B));
    for offset in [u64::from(u32::MAX) - 3, 1 << 32, 1 << 48, u64::MAX - 65_535] {
        let mut frame = vec![0; 1 + OVERHEAD];
        // Far apart, for the frames between them are not of interest.
        if a.seal(offset, &data(b"x"), &mut frame).is_ok() {
            assert!(b.open(offset, &mut frame).is_ok(), "{offset}");
        } else {
            assert_eq!(offset, 1 << 32, "overlaps the frame before it");
        }
    }
}

#[test]
fn tc_27_no_offset_is_sealed_twice() {
    let mut pair = Pair::new();
    let (at, frame) = pair.a_seals(&data(b"hello"));
    let mut again = vec![0; frame.len()];
    for offset in [0, at, at + 1, at + frame.len() as u64 - 1] {
        assert_eq!(pair.a.seal(offset, &data(b"other"), &mut again), Err(Misuse::OffsetReused.into()), "{offset}");
    }
    assert!(pair.a.seal(at + frame.len() as u64, &data(b"other"), &mut again).is_ok());
}

#[test]
fn tc_27_no_offset_is_opened_twice_or_again_from_before() {
    let mut pair = Pair::new();
    let (first_at, first) = pair.a_seals(&data(b"first"));
    let (second_at, second) = pair.a_seals(&data(b"second"));
    for (at, frame) in [(first_at, &first), (second_at, &second)] {
        let opened = pair.b.open(at, &mut frame.clone()).expect("authentic");
        assert!(!opened.data.is_empty());
    }
    let reused = Err(OpenError::Misuse(Misuse::OffsetReused));
    // It is authentic, and that is not asked: no frame counts twice.
    assert_eq!(pair.b.open(second_at, &mut second.clone()), reused);
    assert_eq!(pair.b.open(first_at, &mut first.clone()), reused);
    assert_eq!(pair.b.open(second_at + second.len() as u64 - 1, &mut second.clone()), reused);
    let (at, mut frame) = pair.a_seals(&data(b"third"));
    assert_eq!(pair.b.open(at, &mut frame).map(|opened| opened.data.len()), Ok(5));
}

#[test]
fn tc_28_frame_shorter_than_a_tag_is_not_authentic() {
    let mut pair = Pair::new();
    for clen in 0..TAG_LEN {
        let mut frame = vec![0; HEADER_LEN + clen];
        frame[2] = clen as u8;
        assert_eq!(pair.b.open(80, &mut frame), Err(OpenError::NotAuthentic), "{clen}");
    }
}

#[test]
fn tc_28_a_header_that_leaves_no_room_for_a_tag_is_not_plausible() {
    let plausible = |clen| Header { control: 0, clen }.is_plausible();
    assert_eq!([0, 15, 16, 17, u16::MAX].map(plausible), [false, false, true, true, true]);
}

#[test]
fn tc_28_what_is_not_one_frame_is_the_callers_mistake() {
    let mut pair = Pair::new();
    let (at, frame) = pair.a_seals(&data(b"hello"));
    for len in 0..frame.len() {
        assert_eq!(pair.b.open(at, &mut frame[..len].to_vec()), Err(Misuse::NotOneFrame.into()));
    }
    let mut longer = [frame, vec![0]].concat();
    assert_eq!(pair.b.open(at, &mut longer), Err(Misuse::NotOneFrame.into()));
}

#[test]
fn tc_29_nothing_is_sealed_after_fin() {
    let mut pair = Pair::new();
    pair.a_seals(&Plaintext { fin: true, ..data(b"bye") });
    assert!(pair.a.fin_sealed() && !pair.b.fin_sealed());
    let mut frame = [0; 40];
    assert_eq!(pair.a.seal(1000, &data(b"more"), &mut frame), Err(Misuse::SealAfterFin.into()));
    assert!(!pair.a.start_rekey());
}

#[test]
fn tc_29_frame_after_fin_is_a_violation_only_if_authentic() {
    let mut pair = Pair::new();
    let (at, mut frame) = pair.a_seals(&Plaintext { fin: true, ..data(b"bye") });
    pair.b.open(at, &mut frame).expect("authentic");
    let offset = pair.a_offset;
    let after = crafted(&mut pair.a, offset, 0, &[0, b'x']);
    let mut forged = after.clone();
    forged[5] ^= 1;
    assert_eq!(pair.b.open(offset, &mut forged), Err(OpenError::NotAuthentic));
    assert_eq!(pair.b.open(offset, &mut after.clone()), Err(OpenError::Violation(PeerViolation::FrameAfterFin)));
}

#[test]
fn tc_31_only_the_first_frame_of_a_generation_has_the_bit() {
    let mut pair = Pair::new();
    let bits: Vec<bool> = (0..6)
        .map(|i| {
            if i == 2 {
                assert!(pair.a.start_rekey());
            }
            let (_, frame) = pair.a_seals(&data(b"x"));
            frame[0] == 1
        })
        .collect();
    assert_eq!(bits, [false, false, true, false, false, false]);
    assert_eq!(pair.a.local_generation(), 1);
}

#[test]
fn tc_32_rekey_is_answered_and_data_flows_on_under_new_keys() {
    let mut pair = Pair::new();
    for generation in 1..=3 {
        pair.rekey();
        for record in [&pair.a, &pair.b] {
            assert_eq!((record.local_generation(), record.remote_generation()), (generation, generation));
            assert!(!record.rekey_answer_due());
        }
        let (at, mut frame) = pair.a_seals(&data(b"a"));
        assert!(pair.b.open(at, &mut frame).is_ok());
        let (at, mut frame) = pair.b_seals(&data(b"b"));
        assert!(pair.a.open(at, &mut frame).is_ok());
    }
}

#[test]
fn tc_32_crossing_rekeys_answer_each_other() {
    let mut pair = Pair::new();
    assert!(pair.a.start_rekey() && pair.b.start_rekey());
    let (at_a, mut from_a) = pair.a_seals(&data(b"a"));
    let (at_b, mut from_b) = pair.b_seals(&data(b"b"));
    assert!(pair.b.open(at_a, &mut from_a).is_ok());
    assert!(pair.a.open(at_b, &mut from_b).is_ok());
    for record in [&pair.a, &pair.b] {
        assert_eq!((record.local_generation(), record.remote_generation()), (1, 1));
        assert!(!record.rekey_answer_due() && !record.rekey_outstanding());
    }
}

#[test]
fn tc_32_peer_that_is_two_ahead_gets_two_answers() {
    let mut pair = Pair::new();
    // A never has two outstanding (TC-33); another implementation may, if it sends data.
    for _ in 0..2 {
        pair.a.rekey_requested = true;
        let (at, mut frame) = pair.a_seals(&data(b"x"));
        pair.b.open(at, &mut frame).expect("authentic");
    }
    for generation in 1..=2 {
        assert!(pair.b.rekey_answer_due());
        let (at, mut frame) = pair.b_seals(&Plaintext::default());
        assert!(pair.a.open(at, &mut frame).expect("authentic").rekeyed);
        assert_eq!(pair.a.remote_generation(), generation);
    }
    assert!(!pair.b.rekey_answer_due());
}

#[test]
fn tc_32_forged_rekey_bit_changes_nothing() {
    let mut pair = Pair::new();
    let (at, frame) = pair.a_seals(&data(b"hello"));
    let mut forged = frame.clone();
    forged[0] |= 1;
    assert_eq!(pair.b.open(at, &mut forged), Err(OpenError::NotAuthentic));
    assert_eq!(pair.b.remote_generation(), 0);
    assert!(!pair.b.rekey_answer_due());
    assert!(pair.b.open(at, &mut frame.clone()).is_ok());
}

#[test]
fn tc_32_no_answer_after_fin_was_sealed() {
    let mut pair = Pair::new();
    pair.b_seals(&Plaintext { fin: true, ..data(b"bye") });
    assert!(pair.a.start_rekey());
    let (at, mut frame) = pair.a_seals(&data(b"x"));
    assert!(pair.b.open(at, &mut frame).is_ok());
    assert!(!pair.b.rekey_answer_due());
}

#[test]
fn tc_33_one_rekey_at_a_time() {
    let mut pair = Pair::new();
    assert!(pair.a.start_rekey());
    assert!(!pair.a.start_rekey(), "requested");
    let (at, mut frame) = pair.a_seals(&Plaintext::default());
    assert!(!pair.a.start_rekey(), "not answered");
    assert!(pair.a.rekey_outstanding());
    pair.b.open(at, &mut frame).expect("authentic");
    assert!(!pair.b.start_rekey(), "an answer is due anyway");
    let (at, mut frame) = pair.b_seals(&Plaintext::default());
    pair.a.open(at, &mut frame).expect("authentic");
    assert!(!pair.a.rekey_outstanding());
    assert!(pair.a.start_rekey());
}

#[test]
fn tc_33_data_does_not_wait_for_an_answer() {
    let mut pair = Pair::new();
    for generation in 1..4 {
        assert!(pair.a.start_rekey_with_data());
        assert!(!pair.a.start_rekey_with_data(), "requested");
        let (at, mut frame) = pair.a_seals(&data(b"x"));
        pair.b.open(at, &mut frame).expect("authentic");
        assert_eq!((pair.a.local_generation(), pair.b.remote_generation()), (generation, generation));
        assert!(!pair.a.start_rekey(), "without data it waits");
    }
    // Every one is answered, and then there may be another without data.
    for _ in 1..4 {
        assert!(pair.b.rekey_answer_due());
        let (at, mut frame) = pair.b_seals(&Plaintext::default());
        pair.a.open(at, &mut frame).expect("authentic");
    }
    assert!(!pair.b.rekey_answer_due() && !pair.a.rekey_outstanding() && pair.a.start_rekey());
    pair.a_seals(&Plaintext { fin: true, ..data(b"bye") });
    assert!(!pair.a.start_rekey_with_data());
}

/// RFC 8446, section 5.5: what is not replaced seals no more.
#[test]
fn a_key_that_is_used_up_seals_nothing() {
    let most = KeyUse::MOST;
    for used in [KeyUse { frames: most.frames, bytes: 0 }, KeyUse { frames: 0, bytes: most.bytes }] {
        let mut pair = Pair::new();
        pair.a.sealed = KeyUse { frames: used.frames.saturating_sub(1), bytes: used.bytes.saturating_sub(1) };
        pair.a_seals(&data(b"the last"));
        let mut out = [0; 100];
        assert_eq!(pair.a.seal(1_000, &data(b"x"), &mut out), Err(Misuse::KeyUsedUp.into()));
        // An answer that is due, or a rekey that is started, is under a new key.
        assert!(pair.a.start_rekey());
        assert!(pair.a.seal(1_000, &data(b"x"), &mut out).is_ok());
        assert_eq!(pair.a.sealed(), KeyUse { frames: 1, bytes: OVERHEAD as u64 + 1 });
    }
}

#[test]
fn tc_34_old_keys_do_not_open_or_come_back() {
    let mut pair = Pair::new();
    let offset = pair.a_offset + 1000;
    let old = crafted(&mut pair.a, offset, 0, &[0, b'x']);
    pair.rekey();
    assert_eq!(pair.b.open(offset, &mut old.clone()), Err(OpenError::NotAuthentic));
}

#[test]
fn seal_refuses_what_does_not_fit() {
    let mut pair = Pair::new();
    let mut out = vec![0; 100_000];
    let big = vec![1; MAX_DATA + 1];
    assert_eq!(pair.a.seal(80, &data(&big), &mut out), Err(Misuse::TooMuchData.into()));
    let with_urgent = Plaintext { urgent: Some(0), ..data(&big[..MAX_DATA - 1]) };
    assert_eq!(pair.a.seal(80, &with_urgent, &mut out), Err(Misuse::TooMuchData.into()));
    assert_eq!(pair.a.seal(80, &data(b"hello"), &mut out[..24]), Err(Misuse::BufferTooSmall.into()));
    let len = pair.a.seal(80, &data(&big[..MAX_DATA]), &mut out).expect("fits");
    assert_eq!(len, 3 + 65_535);
    let opened = pair.b.open(80, &mut out[..len]).expect("authentic");
    assert_eq!(opened.data.len(), MAX_DATA);
}

#[test]
fn failed_seal_does_not_start_the_generation() {
    let mut pair = Pair::new();
    assert!(pair.a.start_rekey());
    assert!(pair.a.seal(80, &data(b"hello"), &mut [0; 10]).is_err());
    assert_eq!(pair.a.local_generation(), 0);
    let (_, frame) = pair.a_seals(&data(b"hello"));
    assert_eq!(frame[0], 1);
}

#[test]
fn resting_records_go_on() {
    let mut pair = Pair::new();
    for text in [b"one", b"two"] {
        let (at, mut frame) = pair.a_seals(&data(text));
        assert!(pair.b.open(at, &mut frame).is_ok());
        assert!(pair.a.send.ready.is_some() && pair.b.receive.ready.is_some());
        pair.a.rest();
        pair.b.rest();
        for record in [&pair.a, &pair.b] {
            assert!(record.send.ready.is_none() && record.receive.ready.is_none(), "expanded keys are given back");
        }
    }
}

#[test]
fn what_is_said_of_a_record_and_its_errors_is_useful_and_no_secret() {
    let mut pair = Pair::new();
    pair.rekey();
    let said = alloc::format!("{:?}", pair.a);
    assert_eq!(said, "Record { aead: Aes128Gcm, local_generation: 1, remote_generation: 1, .. }");
    assert_eq!(alloc::format!("{}", OpenError::NotAuthentic), "frame does not authenticate");
    let violation = OpenError::from(PeerViolation::FrameAfterFin);
    assert_eq!(
        alloc::format!("{violation}"),
        alloc::format!("the peer violated the protocol: {}", PeerViolation::FrameAfterFin)
    );
}

#[test]
fn resting_record_is_small() {
    let size = size_of::<Record>();
    assert!(size <= 320, "{size} bytes");
}

#[test]
fn tc_30_urgent_field_is_any_offset_even_past_the_data() {
    let mut pair = Pair::new();
    for urgent in [0, 1, u16::MAX] {
        let (at, mut frame) = pair.a_seals(&Plaintext { urgent: Some(urgent), ..Plaintext::default() });
        assert_eq!(frame.len(), OVERHEAD + 2);
        let opened = pair.b.open(at, &mut frame).expect("authentic");
        assert_eq!((opened.urgent, opened.data.len()), (Some(urgent), 0));
    }
}

#[test]
fn tc_15_keys_follow_the_original_role() {
    let secret = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::B, SessionSecret::from_bytes(&[7; 32]));
    let nonce = ResumeNonce::default();
    // The original B is the active opener now; what it seals, the original A opens, and nobody else.
    let mut sender = Record::new(&PROVIDER, &Session::resumed(0xa1, &secret, &nonce, &nonce));
    let mut frame = [0; 21];
    sender.seal(0, &data(b"x"), &mut frame).expect("seal");
    assert_eq!(record(Role::B).open(0, &mut frame.clone()), Err(OpenError::NotAuthentic));
    assert!(record(Role::A).open(0, &mut frame).is_ok());
}

#[test]
fn a_frame_sealed_onto_others_is_the_frame_that_seal_makes() {
    let (mut one, mut other) = (Pair::new(), Pair::new());
    let mut all = Vec::from(*b"before");
    let mut separate = all.clone();
    let mut at = 80;
    for plaintext in
        [data(b"hello"), Plaintext { urgent: Some(3), ..data(b"urgent") }, Plaintext { fin: true, ..data(b"") }]
    {
        assert!(one.a.start_rekey() == other.a.start_rekey());
        let mut frame = vec![0; plaintext.frame_len()];
        assert_eq!(one.a.seal(at, &plaintext, &mut frame), other.a.seal_onto(at, &plaintext, &mut all));
        separate.extend_from_slice(&frame);
        at += frame.len() as u64;
    }
    assert_eq!(all, separate);
    assert_eq!(other.a.seal_onto(at, &data(b"late"), &mut all), Err(Misuse::SealAfterFin.into()));
    assert_eq!(all, separate, "what cannot be sealed leaves nothing behind");
}
