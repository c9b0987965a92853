use super::*;

const KEY: [u8; 32] = [3; 32];

fn init1() -> Vec<u8> {
    let message = Init1 { ciphers: alloc::vec![1, 0x4035], nonce: [7; 32], public_key: &KEY };
    message.encode(Tep::Curve25519).expect("ciphers")
}

fn set_len(message: &mut [u8], len: u32) {
    message[4..8].copy_from_slice(&len.to_be_bytes());
}

#[test]
fn tc_3_layout_is_as_drawn() {
    let message = init1();
    assert_eq!(message[..8], [0x15, 0x10, 0x1a, 0x0e, 0, 0, 0, 77]);
    assert_eq!(message[8..13], [2, 0, 1, 0x40, 0x35]);
    assert_eq!(message[13..], [[7; 32], KEY].concat());
    let message = Init2 { cipher: 0x10, nonce: [7; 32], public_key: &KEY }.encode(Tep::Curve25519);
    assert_eq!(message[..10], [0x09, 0x71, 0x05, 0xe0, 0, 0, 0, 74, 0, 0x10]);
    assert_eq!(message[10..], [[7; 32], KEY].concat());
}

#[test]
fn tc_3_message_len_needs_eight_bytes() {
    let message = init1();
    for n in 0..8 {
        assert_eq!(message_len(Role::A, &message[..n]), Ok(None), "{n}");
    }
    for n in 8..=message.len() {
        assert_eq!(message_len(Role::A, &message[..n]), Ok(Some(message.len())), "{n}");
    }
}

#[test]
fn tc_3_message_len_is_bounded() {
    let mut message = init1();
    for (len, expected) in [
        (65_536, Ok(Some(65_536))),
        (65_537, Err(Malformed::TooLong)),
        (u32::MAX, Err(Malformed::TooLong)),
        (8, Ok(Some(8))),
        (7, Err(Malformed::Truncated)),
        (0, Err(Malformed::Truncated)),
    ] {
        set_len(&mut message, len);
        assert_eq!(message_len(Role::A, &message), expected.map_err(Error::from), "{len}");
    }
}

#[test]
fn tc_5_bad_magic_is_seen_at_its_first_byte() {
    assert_eq!(message_len(Role::A, b"G"), Err(Malformed::BadMagic.into()));
    assert_eq!(message_len(Role::A, &[0x15, 0x10, 0x1a, 0x0f]), Err(Malformed::BadMagic.into()));
    assert_eq!(message_len(Role::B, &init1()), Err(Malformed::BadMagic.into()), "Init1 where Init2 is due");
}

#[test]
fn tc_3_what_follows_the_key_is_ignored() {
    let mut message = init1();
    message.extend([0xee; 500]);
    let len = message.len() as u32;
    set_len(&mut message, len);
    let parsed = Init1::parse(Tep::Curve25519, &message).expect("valid");
    assert_eq!((parsed.nonce, parsed.public_key), ([7; 32], &KEY[..]));
}

#[test]
fn tc_3_every_cut_message_is_malformed() {
    let whole = init1();
    for len in 0..whole.len() {
        let mut message = whole[..len].to_vec();
        assert!(Init1::parse(Tep::Curve25519, &message).is_err(), "{len} of it");
        if len >= 8 {
            set_len(&mut message, len as u32);
            assert_eq!(Init1::parse(Tep::Curve25519, &message), Err(Malformed::Truncated.into()), "{len} says {len}");
        }
    }
    let longer = [whole, alloc::vec![0]].concat();
    assert!(Init1::parse(Tep::Curve25519, &longer).is_err(), "more than the message");
}

#[test]
fn tc_2_nist_key_length_counts_itself_and_the_bare_one_is_accepted() {
    for (tep, key_len) in [(Tep::P256, 33), (Tep::P521, 67)] {
        let key = alloc::vec![2; key_len];
        let mut message = Init2 { cipher: 1, nonce: [7; 32], public_key: &key }.encode(tep);
        assert_eq!(message[42..44], (key_len as u16 + 2).to_be_bytes());
        for length in 0..=u16::MAX {
            message[42..44].copy_from_slice(&length.to_be_bytes());
            let ok = usize::from(length) == key_len || usize::from(length) == key_len + 2;
            assert_eq!(Init2::parse(tep, &message).is_ok(), ok, "{length}");
        }
    }
}

#[test]
fn tc_5_b_chooses_by_its_own_preference() {
    let rising = [AeadId::Chacha20Poly1305, AeadId::Aes128Gcm, AeadId::Aes256Gcm];
    assert_eq!(choose_cipher(&[0x4035, 1, 0x10, 2], &rising), Some(AeadId::Aes256Gcm));
    assert_eq!(choose_cipher(&[0x10, 1], &rising), Some(AeadId::Aes128Gcm));
    assert_eq!(choose_cipher(&[0x4035], &rising), None);
    assert_eq!(choose_cipher(&[], &rising), None);
}

#[test]
fn at_least_one_cipher_and_at_most_255_are_offered() {
    let offer = |n| Init1 { ciphers: alloc::vec![1; n], nonce: [7; 32], public_key: &KEY }.encode(Tep::Curve25519);
    assert_eq!(offer(0), Err(Misuse::NoCiphers.into()));
    assert!(offer(255).is_ok());
    assert_eq!(offer(256), Err(Misuse::NoCiphers.into()));
}
