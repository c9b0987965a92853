use super::*;
use crate::error::{Malformed, Misuse};
use crate::frame::Plaintext;
use crate::record::Record;
use crate::rust_crypto::PROVIDER;
use crate::tep::Tep;

fn negotiated(tep: Tep, role: Role) -> Negotiated {
    Negotiated { role, tep, tep_byte: tep.id(), transcript: alloc::vec![69, 3, 0x23, 69, 4, 1, 0x23] }
}

/// Bytes that are different at each call.
fn random(mut seed: u8) -> impl FnMut(RandomUse, &mut [u8]) {
    move |_, out| {
        seed = seed.wrapping_add(1);
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = seed ^ i as u8;
        }
    }
}

fn start(tep: Tep, ciphers: &[AeadId]) -> (Vec<u8>, Initiator) {
    Initiator::start(&PROVIDER, negotiated(tep, Role::A), ciphers, &mut random(1)).expect("start")
}

fn answer(tep: Tep, init1: &[u8]) -> Result<(Vec<u8>, Session), Error> {
    respond(&PROVIDER, &negotiated(tep, Role::B), &AeadId::ALL, init1, &mut random(100))
}

fn put_len(message: &mut [u8]) {
    let len = (message.len() as u32).to_be_bytes();
    message[4..8].copy_from_slice(&len);
}

#[test]
fn tc_3_to_10_both_ends_agree_with_every_tep() {
    for tep in Tep::ALL {
        let (init1, initiator) = start(tep, &AeadId::ALL);
        let (init2, of_b) = answer(tep, &init1).expect("answer");
        let of_a = initiator.handle_init2(&init2).expect("Init2");
        assert_eq!(of_a.id(), of_b.id(), "{tep}");
        assert_eq!(of_a.id().as_bytes()[0], tep.id());
        assert_eq!((of_a.original_role(), of_b.original_role()), (Role::A, Role::B));
        assert_eq!((of_a.aead(), of_b.aead()), (AeadId::Chacha20Poly1305, AeadId::Chacha20Poly1305));
        let (next_a, next_b) = (of_a.into_next(), of_b.into_next());
        assert_eq!(next_a.own_half(), next_b.peer_half(), "{tep}");
        assert_eq!(next_a.peer_half(), next_b.own_half(), "{tep}");
    }
}

#[test]
fn tc_5_cipher_that_was_not_offered_aborts() {
    let (init1, initiator) = start(Tep::Curve25519, &[AeadId::Aes128Gcm]);
    let (mut init2, _) = answer(Tep::Curve25519, &init1).expect("answer");
    init2[9] = 0x02;
    assert_eq!(initiator.handle_init2(&init2).err(), Some(PeerViolation::CipherNotOffered.into()));
    let (_, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    init2[8..10].copy_from_slice(&[0x40, 0x35]);
    assert_eq!(initiator.handle_init2(&init2).err(), Some(PeerViolation::CipherNotOffered.into()));
}

#[test]
fn tc_5_no_common_cipher_aborts() {
    let (init1, _) = start(Tep::Curve25519, &[AeadId::Aes256Gcm]);
    let allowed = [AeadId::Aes128Gcm, AeadId::Chacha20Poly1305];
    let result = respond(&PROVIDER, &negotiated(Tep::Curve25519, Role::B), &allowed, &init1, &mut random(1));
    assert_eq!(result.err(), Some(NoCommonGround::NoCommonCipher.into()));
}

#[test]
fn tc_5_bad_magic_aborts() {
    let (mut init1, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    assert_eq!(initiator.handle_init2(&init1).err(), Some(Malformed::BadMagic.into()));
    init1[0] ^= 1;
    assert_eq!(answer(Tep::Curve25519, &init1).err(), Some(Malformed::BadMagic.into()));
}

#[test]
fn tc_1_all_zero_shared_secret_aborts() {
    for tep in [Tep::Curve25519, Tep::Curve448] {
        let (mut init1, initiator) = start(tep, &AeadId::ALL);
        let (mut init2, _) = answer(tep, &init1).expect("answer");
        let key = tep.public_key_len();
        for message in [&mut init1, &mut init2] {
            let at = message.len() - key;
            message[at..].fill(0);
        }
        assert_eq!(answer(tep, &init1).err(), Some(PeerViolation::ZeroSharedSecret.into()), "{tep}");
        assert_eq!(initiator.handle_init2(&init2).err(), Some(PeerViolation::ZeroSharedSecret.into()), "{tep}");
    }
}

#[test]
fn tc_1_invalid_points_abort() {
    for tep in [Tep::P256, Tep::P521] {
        let (init1, _) = start(tep, &AeadId::ALL);
        let at = init1.len() - tep.public_key_len();
        for prefix in [0x00, 0x01, 0x04, 0x05, 0x06, 0xff] {
            let mut bad = init1.clone();
            bad[at] = prefix;
            assert_eq!(answer(tep, &bad).err(), Some(PeerViolation::InvalidPublicKey.into()), "{tep} {prefix:02x}");
        }
        let mut bad = init1.clone();
        bad[at + 1..].fill(0xff);
        assert_eq!(answer(tep, &bad).err(), Some(PeerViolation::InvalidPublicKey.into()), "{tep} x too big");
    }
}

#[test]
fn tc_7_ignored_bytes_are_in_the_transcript() {
    // B answers the message with bytes behind the key, A hashed the one without: the secrets differ.
    let (init1, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    let mut longer = init1.clone();
    longer.extend([1, 2, 3]);
    put_len(&mut longer);
    let (init2, of_b) = answer(Tep::Curve25519, &longer).expect("bytes behind the key are accepted");
    let of_a = initiator.handle_init2(&init2).expect("Init2");
    assert_ne!(of_a.id(), of_b.id());

    let mut changed = longer.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    let (_, of_b_changed) = answer(Tep::Curve25519, &changed).expect("same key");
    assert_ne!(of_b.id(), of_b_changed.id());
}

#[test]
fn tc_7_the_first_secret_is_of_n_a_and_of_both_messages_in_their_order() {
    for tep in Tep::ALL {
        let mut drawn = Vec::new();
        let mut source = random(1);
        let mut noting = |wanted, out: &mut [u8]| {
            source(wanted, out);
            drawn.push((wanted, out.to_vec()));
        };
        let started = Initiator::start(&PROVIDER, negotiated(tep, Role::A), &AeadId::ALL, &mut noting);
        let (init1, initiator) = started.expect("start");
        let (init2, of_b) = answer(tep, &init1).expect("answer");

        let [(RandomUse::PrivateKey, _), (RandomUse::Nonce, n_a)] = &drawn[..] else { panic!("{drawn:?}") };
        let own = generate(&PROVIDER, tep, &mut random(1)).expect("a key");
        assert!(init1.ends_with(&own.public_key()));
        let es = own.agree(Init2::parse(tep, &init2).expect("Init2").public_key).expect("ES");
        let n_a = n_a.as_slice().try_into().expect("32 bytes");
        let transcript = negotiated(tep, Role::A).transcript;
        let first = SessionSecret::extract(n_a, &transcript, &init1, &init2, &es);
        let id = first.session_id(tep.id(), &crate::resume::SessionNonce::default());
        // Session IDs begin with the byte that B sent; `negotiated` has the same for all.
        assert_eq!(id.as_bytes()[1..], of_b.id().as_bytes()[1..], "{tep}");
        assert_eq!(initiator.handle_init2(&init2).expect("Init2").id(), of_b.id(), "{tep}");
    }
}

#[test]
fn tc_14_private_keys_and_nonces_are_drawn_for_different_uses() {
    // A source that gives the same bytes for the same use: N_A is on the wire, and must not be the private key.
    let mut by_use = |wanted, out: &mut [u8]| out.fill(if wanted == RandomUse::Nonce { 1 } else { 2 });
    let (init1, _) =
        Initiator::start(&PROVIDER, negotiated(Tep::Curve25519, Role::A), &AeadId::ALL, &mut by_use).expect("start");
    let (init2, _) =
        respond(&PROVIDER, &negotiated(Tep::Curve25519, Role::B), &AeadId::ALL, &init1, &mut by_use).expect("answer");
    for message in [&init1, &init2] {
        assert!(message.windows(NONCE_LEN).any(|part| part == [1; NONCE_LEN]));
        assert!(!message.windows(NONCE_LEN).any(|part| part == [2; NONCE_LEN]));
    }
}

#[test]
fn tc_7_negotiation_transcript_is_in_the_secret() {
    let (init1, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    let mut tampered = negotiated(Tep::Curve25519, Role::B);
    tampered.transcript[2] ^= 0x04;
    let (init2, of_b) = respond(&PROVIDER, &tampered, &AeadId::ALL, &init1, &mut random(9)).expect("answer");
    assert_ne!(initiator.handle_init2(&init2).expect("Init2").id(), of_b.id());
}

#[test]
fn random_source_that_brings_no_key_ends_in_an_error() {
    let result = Initiator::start(&PROVIDER, negotiated(Tep::P256, Role::A), &AeadId::ALL, &mut |_, out| out.fill(0));
    assert_eq!(result.err(), Some(Misuse::RandomSource.into()));
}

#[test]
fn secrets_are_not_printed() {
    let (init1, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    let said = alloc::format!("{initiator:?}");
    assert!(said.starts_with("Initiator { negotiated: Negotiated {") && said.ends_with(", .. }"), "{said}");
    let (_, session) = answer(Tep::Curve25519, &init1).expect("answer");
    assert_eq!(alloc::format!("{session:?}"), "Session(..)");
}

#[test]
fn tc_11_both_ends_can_send_at_once() {
    let (init1, initiator) = start(Tep::Curve25519, &AeadId::ALL);
    let (init2, of_b) = answer(Tep::Curve25519, &init1).expect("answer");
    // B seals right behind Init2, before it hears from A again.
    let mut of_b = Record::new(&PROVIDER, &of_b);
    let mut frame = [0; 40];
    let at = init2.len() as u64;
    let len = of_b.seal(at, &Plaintext { data: b"early", ..Plaintext::default() }, &mut frame).expect("seal");
    let mut of_a = Record::new(&PROVIDER, &initiator.handle_init2(&init2).expect("Init2"));
    let opened = of_a.open(at, &mut frame[..len]).expect("authentic");
    assert_eq!(&frame[opened.data], b"early");
    let at = init1.len() as u64;
    let len = of_a.seal(at, &Plaintext { data: b"answer", ..Plaintext::default() }, &mut frame).expect("seal");
    let opened = of_b.open(at, &mut frame[..len]).expect("authentic");
    assert_eq!(&frame[opened.data], b"answer");
}
