//! What must differ, and from what. The values themselves are checked against vectors in the root package.

use alloc::format;

use super::*;
use crate::resume::{CachedSecret, ResumeNonce};
use crate::tep::Tep;

fn secret() -> SessionSecret {
    SessionSecret::from_bytes([7; 32])
}

fn nonces(a: &[u8], b: &[u8]) -> SessionNonce {
    let nonce = |bytes| ResumeNonce::new(bytes).expect("at most 8 bytes");
    SessionNonce::new(Role::A, &nonce(a), &nonce(b))
}

#[test]
fn tc_7_every_part_is_in_the_secret() {
    let extract =
        |n_a: &[u8; 32], parts: [&[u8]; 4]| SessionSecret::extract(n_a, parts[0], parts[1], parts[2], parts[3]).0;
    let base = extract(&[1; 32], [b"t", b"1", b"2", b"es"]);
    assert_eq!(base, extract(&[1; 32], [b"t", b"1", b"2", b"es"]));
    assert_ne!(base, extract(&[2; 32], [b"t", b"1", b"2", b"es"]));
    for i in 0..4 {
        let mut parts: [&[u8]; 4] = [b"t", b"1", b"2", b"es"];
        parts[i] = b"x";
        assert_ne!(base, extract(&[1; 32], parts), "part {i}");
    }
}

#[test]
fn a_fingerprint_tells_keys_apart_and_is_none_of_them() {
    let master = secret().master_key(&nonces(&[1], &[]));
    let fingerprint = master.fingerprint();
    assert_eq!(fingerprint, secret().master_key(&nonces(&[1], &[])).fingerprint());
    assert_ne!(fingerprint, secret().master_key(&nonces(&[2], &[])).fingerprint());
    assert_ne!(fingerprint, master.next().fingerprint());
    let text = format!("{fingerprint}");
    assert_eq!((text.len(), text.as_str()), (32, format!("{fingerprint:?}").as_str()));
    for sender in [Role::A, Role::B] {
        assert_ne!(master.traffic_key(sender, AeadId::Aes128Gcm).key(), fingerprint.0);
    }
    assert!(!master.0.starts_with(&fingerprint.0) && !master.next().0.starts_with(&fingerprint.0));
}

#[test]
fn tc_8_master_key_depends_on_the_resumption_nonces() {
    let keys = [nonces(&[], &[]), nonces(&[1], &[]), nonces(&[1], &[2]), nonces(&[1, 2, 3], &[])]
        .map(|sn| secret().master_key(&sn).0);
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{i}");
    }
    assert_ne!(secret().master_key(&nonces(&[], &[])).next().0, keys[0]);
}

#[test]
fn tc_9_directions_and_generations_have_their_own_keys() {
    let mk = secret().master_key(&nonces(&[], &[]));
    for aead in AeadId::ALL {
        let keys = [(Role::A, mk.clone()), (Role::B, mk.clone()), (Role::A, mk.next()), (Role::B, mk.next())]
            .map(|(role, mk)| mk.traffic_key(role, aead));
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(key.key().len(), aead.key_len());
            assert!(keys[..i].iter().all(|other| other.key() != key.key() && other.nonce(0) != key.nonce(0)));
        }
    }
}

#[test]
fn tc_10_session_id_begins_with_the_byte_b_sent() {
    let sn = nonces(&[], &[]);
    let (fresh, resumed) = (secret().session_id(0x23, &sn), secret().session_id(0xa3, &sn));
    assert_eq!((fresh.as_bytes()[0], resumed.as_bytes()[0]), (0x23, 0xa3));
    assert_eq!(fresh.as_bytes()[1..], resumed.as_bytes()[1..]);
    assert_ne!(fresh, secret().session_id(0x23, &nonces(&[1], &[])));
    assert_eq!(format!("{fresh}").len(), 66);
}

#[test]
fn tc_12_halves_belong_to_the_original_roles() {
    let of_a = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::A, secret());
    let of_b = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::B, secret());
    assert_eq!((of_a.own_half(), of_a.peer_half()), (of_b.peer_half(), of_b.own_half()));
    assert_ne!(of_a.own_half(), of_a.peer_half());
}

#[test]
fn tc_13_nonces_stand_by_original_role_and_are_at_most_8_bytes() {
    let (one, two) = (ResumeNonce::new(&[1, 1]).expect("short"), ResumeNonce::new(&[2; 8]).expect("8 bytes"));
    assert_eq!(SessionNonce::new(Role::A, &one, &two).as_bytes(), [1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(SessionNonce::new(Role::B, &one, &two).as_bytes(), [2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    assert_eq!(ResumeNonce::new(&[0; 9]), None);
}

#[test]
fn tc_19_each_secret_of_a_chain_is_new() {
    let mut cached = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::A, secret());
    let mut seen = alloc::vec::Vec::new();
    for i in 0..20 {
        assert!(!seen.contains(cached.own_half()) && !seen.contains(cached.peer_half()), "{i}");
        seen.extend([*cached.own_half(), *cached.peer_half()]);
        cached = cached.next();
    }
}

#[test]
fn tc_26_nonce_is_the_randomizer_xor_the_offset() {
    let key = secret().master_key(&nonces(&[], &[])).traffic_key(Role::A, AeadId::Aes128Gcm);
    let zero = key.nonce(0);
    let other = key.nonce(0x0102_0304_0506_0708);
    let xor: alloc::vec::Vec<u8> = zero.iter().zip(other).map(|(a, b)| a ^ b).collect();
    assert_eq!(xor, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn tc_21_secrets_have_no_text_that_could_reach_a_log_or_file() {
    let cached = CachedSecret::new(Tep::Curve25519, AeadId::Aes128Gcm, Role::B, secret());
    assert_eq!(alloc::format!("{cached:?}"), "CachedSecret(..)");
    assert_eq!(alloc::format!("{:?}", secret()), "SessionSecret(..)");
    let master = secret().master_key(&nonces(&[], &[]));
    assert_eq!(alloc::format!("{master:?}"), "MasterKey(..)");
    assert_eq!(alloc::format!("{:?}", master.traffic_key(Role::A, AeadId::Aes128Gcm)), "TrafficKey(..)");
}
