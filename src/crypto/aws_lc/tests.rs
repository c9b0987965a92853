//! The two backends against each other, on random input. A failure prints its seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tcpcrypt::eno::negotiate::Negotiated;
use tcpcrypt::handshake::{Initiator, respond};
use tcpcrypt::schedule::SessionSecret;
use tcpcrypt::{OpenError, Plaintext, Record, Role, Session};

use super::*;

const BACKENDS: [&dyn Provider; 2] = [&PROVIDER, &rust_crypto::PROVIDER];

/// Runs `check` with generators from several seeds, each printed first (cargo shows it if the check fails).
fn with_seeds(check: impl Fn(&mut StdRng)) {
    let first = match std::env::var("ENOTUN_SEED") {
        Ok(seed) => seed.parse().expect("ENOTUN_SEED is a number"),
        Err(_) => rand::random_range(0..u64::MAX - 16),
    };
    for seed in first..first + 16 {
        println!("ENOTUN_SEED={seed}");
        check(&mut StdRng::seed_from_u64(seed));
    }
}

fn negotiated(role: Role, tep: Tep) -> Negotiated {
    Negotiated { role, tep, tep_byte: tep.id(), transcript: vec![1, 2, 3] }
}

#[test]
fn both_backends_seal_alike_and_open_each_others_frames() {
    with_seeds(|rng| {
        for id in AeadId::ALL {
            let secret: [u8; 32] = rng.random();
            let record = |provider, role| {
                Record::new(
                    provider,
                    &Session::fresh(&negotiated(role, Tep::Curve25519), id, SessionSecret::from_bytes(&secret)),
                )
            };
            let mut senders = BACKENDS.map(|provider| record(provider, Role::A));
            let mut receivers = BACKENDS.map(|provider| record(provider, Role::B));
            let mut offset: u64 = rng.random_range(0..1 << 40);
            for _ in 0..20 {
                let mut data = vec![0; rng.random_range(0..3000)];
                rng.fill(&mut data[..]);
                let plaintext =
                    Plaintext { urgent: rng.random::<bool>().then(|| rng.random()), data: &data, fin: false };
                let rekey = rng.random_ratio(1, 4);
                let frames = [0, 1].map(|i| {
                    if rekey {
                        senders[i].start_rekey();
                    }
                    let mut frame = vec![0; plaintext.frame_len()];
                    senders[i].seal(offset, &plaintext, &mut frame).expect("seal");
                    frame
                });
                assert_eq!(frames[0], frames[1], "{id}");

                let damaged_at = rng.random_range(3..frames[0].len());
                for (receiver, frame) in receivers.iter_mut().zip(&frames) {
                    let mut damaged = frame.clone();
                    damaged[damaged_at] ^= 1 << rng.random_range(0..8);
                    assert_eq!(receiver.open(offset, &mut damaged), Err(OpenError::NotAuthentic), "{id}");
                    let mut frame = frame.clone();
                    let opened = receiver.open(offset, &mut frame).expect("open");
                    assert_eq!(frame[opened.data], data, "{id}");
                    assert_eq!(opened.urgent, plaintext.urgent, "{id}");
                }
                offset += frames[0].len() as u64 + rng.random_range(0..3);
            }
        }
    });
}

#[test]
fn both_backends_make_the_same_keys_and_secrets() {
    with_seeds(|rng| {
        for tep in Tep::ALL {
            let mut privates = [0, 1].map(|_| {
                let mut bytes = vec![0; tep.private_key_len()];
                rng.fill(&mut bytes[..]);
                bytes
            });
            if tep == Tep::P521 {
                privates.iter_mut().for_each(|bytes| bytes[0] = 0);
            }
            let key = |provider: &dyn Provider, bytes: &[u8]| {
                provider.private_key(tep, bytes).expect("implemented").expect("valid, but once in 2^32 times")
            };
            let publics = BACKENDS.map(|provider| key(provider, &privates[1]).public_key());
            assert_eq!(publics[0], publics[1], "{tep}");
            let secrets = BACKENDS.map(|provider| key(provider, &privates[0]).agree(&publics[0]).expect("valid"));
            assert_eq!(secrets[0], secrets[1], "{tep}");
        }
    });
}

#[test]
fn both_backends_refuse_the_same_public_keys() {
    with_seeds(|rng| {
        for tep in Tep::ALL {
            let mut private = vec![0; tep.private_key_len()];
            rng.fill(&mut private[1..]);
            // Any x coordinate: about half of them are not on a NIST curve.
            let mut public = vec![0; tep.public_key_len()];
            rng.fill(&mut public[..]);
            if tep.has_key_length() {
                public[0] = rng.random_range(0..8);
                if tep == Tep::P521 {
                    public[1] = 0;
                }
            }
            let agreed = BACKENDS.map(|provider| {
                let key = provider.private_key(tep, &private).expect("implemented").expect("valid");
                key.agree(&public)
            });
            assert_eq!(agreed[0], agreed[1], "{tep} {public:02x?}");
        }
    });
}

#[test]
fn both_backends_refuse_the_same_private_keys_and_lengths() {
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = hex::decode(order).expect("hex");
    for provider in BACKENDS {
        let refuses = |bytes: &[u8]| matches!(provider.private_key(Tep::P256, bytes), Ok(None));
        assert!(refuses(&[0; 32]), "{}", provider.name());
        assert!(refuses(&order), "{}", provider.name());
        assert!(refuses(&[0xff; 32]), "{}", provider.name());
        for tep in Tep::ALL {
            let key = provider.private_key(tep, &[1; 31]);
            assert!(key.is_err(), "{} {tep}", provider.name());
            let key = provider.private_key(tep, &vec![1; tep.private_key_len()]).expect("implemented");
            let key = if tep == Tep::P521 { continue } else { key.expect("valid") };
            assert!(key.agree(&[2; 5]).is_err(), "{} {tep}", provider.name());
        }
        for id in AeadId::ALL {
            assert!(provider.aead(id, &[1; 31]).is_err(), "{} {id}", provider.name());
        }
    }
}

#[test]
fn hosts_with_different_backends_agree() {
    with_seeds(|rng| {
        for tep in Tep::ALL {
            for [a, b] in [BACKENDS, [BACKENDS[1], BACKENDS[0]]] {
                let mut fill = |_, out: &mut [u8]| rng.fill(out);
                let (init1, initiator) =
                    Initiator::start(a, negotiated(Role::A, tep), &AeadId::ALL, &mut fill).expect("start");
                let (init2, of_b) =
                    respond(b, &negotiated(Role::B, tep), &AeadId::ALL, &init1, &mut fill).expect("respond");
                let of_a = initiator.handle_init2(&init2).expect("Init2");
                assert_eq!(of_a.id(), of_b.id(), "{tep} {} {}", a.name(), b.name());
            }
        }
    });
}
