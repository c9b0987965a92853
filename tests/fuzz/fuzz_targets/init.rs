//! Init messages of either role, whole and as they arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpcrypt::eno::negotiate::{active_option, conclude, passive_reply};
use tcpcrypt::eno::option::find_syn;
use tcpcrypt::handshake::{Initiator, respond};
use tcpcrypt::messages::message_len;
use tcpcrypt::rust_crypto::PROVIDER;
use tcpcrypt::{AeadId, Negotiated, NegotiationConfig, Outcome, Role, Tep};

fn negotiated(tep: Tep) -> Option<(Negotiated, Negotiated)> {
    let settings = NegotiationConfig { teps: vec![tep], resume: false, ..NegotiationConfig::default() };
    let a = active_option(&settings, None, 20)?.bytes;
    let b = passive_reply(&settings, &find_syn(&a), 20, &[0; 8], |_, _| None).option?;
    let Outcome::Fresh(at_a) = conclude(&settings, Some(&a), None, &find_syn(&b)) else { return None };
    let Outcome::Fresh(at_b) = conclude(&settings, Some(&b), None, &find_syn(&a)) else { return None };
    Some((at_a, at_b))
}

fuzz_target!(|bytes: &[u8]| {
    for sender in [Role::A, Role::B] {
        if let Ok(Some(len)) = message_len(sender, bytes) {
            assert!(len <= 1 << 16, "Init messages are bounded");
        }
    }
    let Some((at_a, at_b)) = negotiated(Tep::Curve25519) else { panic!("two hosts with the same settings agree") };
    let ciphers = [AeadId::Aes128Gcm, AeadId::Chacha20Poly1305];
    let _ = respond(&PROVIDER, &at_b, &ciphers, bytes, &mut |_, out| out.fill(3));
    if let Ok((_, initiator)) = Initiator::start(&PROVIDER, at_a, &ciphers, &mut |_, out| out.fill(5)) {
        let _ = initiator.handle_init2(bytes);
    }
});
