//! What must differ, and from what, and one value of each stage, computed with Python's `hmac`. The root package has vectors of
//! whole sessions.

use alloc::format;

use super::*;
use crate::resume::{CachedSecret, ResumeNonce};
use crate::tep::Tep;

fn secret() -> SessionSecret {
    SessionSecret::from_bytes(&[7; 32])
}

fn nonces(a: &[u8], b: &[u8]) -> SessionNonce {
    let nonce = |bytes| ResumeNonce::new(bytes).expect("at most 8 bytes");
    SessionNonce::new(Role::A, &nonce(a), &nonce(b))
}

impl SessionSecret {
    fn bytes(&self) -> [u8; SECRET_LEN] {
        *self.0.0
    }
}

fn hex(bytes: &[u8]) -> alloc::string::String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tc_7_the_secret_is_extracted_from_the_parts_in_their_order() {
    let n_a = core::array::from_fn(|i| i as u8);
    let prk = SessionSecret::extract(&n_a, b"transcript", b"Init1", b"Init2", b"ES");
    assert_eq!(hex(&prk.bytes()), "518a42323b41bf2daf6896ca203b90d8da2c34dd7808378421f811e970da5581");
}

#[test]
fn tc_7_to_10_and_12_every_constant_is_the_rfcs() {
    let sn = nonces(&[1, 2], &[3, 4]);
    assert_eq!(hex(&secret().next().bytes()), "d6f072c5e3184633f6759be9991dc26f1f899a6af57151450474976766a3666a");
    let master = secret().master_key(&sn);
    assert_eq!(hex(master.expose()), "e5a12622588605b27ddae77b81b103db54e8607bc57ea8d029ec93bde5279a7d");
    assert_eq!(hex(master.next().expose()), "6f5a822e01e20f46c89ee94f5782a0c73fa50e7086f13f93a1ba85cfe4cb0726");
    let id = secret().session_id(0xa3, &sn);
    assert_eq!(hex(id.as_bytes()), "a37e647023fa73b5ea3015efadfd2fdec69e946c4eaf1ae076a93b73bd94a8c5a9");
    let (of_a, of_b) = secret().resume_halves();
    assert_eq!((hex(&of_a).as_str(), hex(&of_b).as_str()), ("5640cc67399715f043", "c25e24e29d86a4409a"));
    for (sender, key, randomizer) in [
        (Role::A, "ac7b64dba572849f94df5f0759f78ec348c760692f772b436e3583c4fd87f0a3", "e1adcbcefe8cd293456f2538"),
        (Role::B, "e1e994befc7cc6b9d77daa0140ddf2cf62291f26391c5e3ba09b40aabd796930", "57bcf011d04b010b742253d8"),
    ] {
        let long = master.traffic_key(sender, AeadId::Chacha20Poly1305);
        assert_eq!((hex(long.key()).as_str(), hex(&long.nonce(0)).as_str()), (key, randomizer));
        // The randomizer is what follows the key, however long that is.
        let short = master.traffic_key(sender, AeadId::Aes128Gcm);
        assert_eq!((hex(short.key()).as_str(), hex(&short.nonce(0)).as_str()), (&key[..32], &key[32..56]));
    }
}

#[test]
fn tc_7_every_part_is_in_the_secret() {
    let extract =
        |n_a: &[u8; 32], parts: [&[u8]; 4]| SessionSecret::extract(n_a, parts[0], parts[1], parts[2], parts[3]).bytes();
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
    assert!(!master.expose().starts_with(&fingerprint.0) && !master.next().expose().starts_with(&fingerprint.0));
}

#[test]
fn tc_8_master_key_depends_on_the_resumption_nonces() {
    let keys = [nonces(&[], &[]), nonces(&[1], &[]), nonces(&[1], &[2]), nonces(&[1, 2, 3], &[])]
        .map(|sn| *secret().master_key(&sn).expose());
    for (i, key) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(key), "{i}");
    }
    assert_ne!(*secret().master_key(&nonces(&[], &[])).next().expose(), keys[0]);
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
    assert_eq!(format!("{fresh:?}"), format!("{fresh}"));
}

#[test]
fn tc_12_halves_belong_to_the_original_roles() {
    let of_a = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::A, secret());
    let of_b = CachedSecret::new(Tep::P256, AeadId::Aes128Gcm, Role::B, secret());
    assert_eq!((of_a.own_half(), of_a.peer_half()), (of_b.peer_half(), of_b.own_half()));
    assert_ne!(of_a.own_half(), of_a.peer_half());
    let (a, b) = secret().resume_halves();
    assert_eq!((*of_a.own_half(), *of_b.own_half()), (a, b));
}

#[test]
fn a_copy_of_a_secret_is_the_secret() {
    let master = secret().master_key(&nonces(&[1], &[]));
    let key = master.traffic_key(Role::A, AeadId::Aes256Gcm);
    assert_eq!(master.clone().expose(), master.expose());
    assert_eq!(secret().clone().bytes(), [7; SECRET_LEN]);
    assert_eq!((key.clone().key(), key.clone().nonce(1)), (key.key(), key.nonce(1)));
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
