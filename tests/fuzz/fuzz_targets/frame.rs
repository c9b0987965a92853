//! Frames: forged ones are rejected and change nothing, sealed ones open to what was sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcpcrypt::eno::negotiate::{active_option, conclude, passive_reply};
use tcpcrypt::eno::option::find_syn;
use tcpcrypt::frame::Header;
use tcpcrypt::handshake::{Initiator, respond};
use tcpcrypt::rust_crypto::PROVIDER;
use tcpcrypt::{AeadId, NegotiationConfig, Outcome, Plaintext, Record, Tep};

/// Both ends of one connection.
fn records() -> Option<(Record, Record)> {
    let settings = NegotiationConfig { teps: vec![Tep::Curve25519], resume: false, ..NegotiationConfig::default() };
    let a = active_option(&settings, None, 20)?.bytes;
    let b = passive_reply(&settings, &find_syn(&a), 20, &[0; 8], |_, _| None).option?;
    let Outcome::Fresh(at_a) = conclude(&settings, Some(&a), None, &find_syn(&b)) else { return None };
    let Outcome::Fresh(at_b) = conclude(&settings, Some(&b), None, &find_syn(&a)) else { return None };
    let ciphers = [AeadId::Chacha20Poly1305];
    let (init1, initiator) = Initiator::start(&PROVIDER, at_a, &ciphers, &mut |_, out| out.fill(5)).ok()?;
    let (init2, session_b) = respond(&PROVIDER, &at_b, &ciphers, &init1, &mut |_, out| out.fill(3)).ok()?;
    let session_a = initiator.handle_init2(&init2).ok()?;
    Some((Record::new(&PROVIDER, &session_a), Record::new(&PROVIDER, &session_b)))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((mut sender, mut receiver)) = records() else { panic!("two hosts with the same settings agree") };
    if let Some(header) = Header::parse(bytes) {
        let mut forged = bytes.get(..header.frame_len()).unwrap_or(bytes).to_vec();
        assert!(receiver.open(100, &mut forged).is_err(), "nobody sealed this");
    }
    // The first byte says what kind of frame, the rest is data.
    let Some((kind, data)) = bytes.split_first() else { return };
    if kind & 4 != 0 {
        sender.start_rekey();
    }
    let urgent = (kind & 2 != 0).then(|| u16::from(*kind));
    let plaintext = Plaintext { fin: kind & 1 != 0, urgent, data };
    let mut frame = vec![0; plaintext.frame_len()];
    if sender.seal(100, &plaintext, &mut frame).is_err() {
        return;
    }
    let mut damaged = frame.clone();
    let at = usize::from(*kind) * 7 % damaged.len();
    damaged[at] ^= 0x10;
    assert!(receiver.open(100, &mut damaged).is_err(), "one bit differs");
    let opened = receiver.open(100, &mut frame).expect("as it was sealed");
    assert_eq!(frame.get(opened.data.clone()), Some(data));
    assert_eq!(opened.fin, plaintext.fin);
    assert_eq!(opened.urgent, urgent);
});
