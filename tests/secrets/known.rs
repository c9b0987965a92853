//! The secrets of a life, computed from what was drawn and sent, apart from the program's own key schedule.

use hkdf::Hkdf;
use sha2::Sha256;
use tcpcrypt::kex::generate;
use tcpcrypt::messages::message_len;
use tcpcrypt::{Role, Tep};

use super::life::{Kind, Notes, Step};

/// A secret, and when it has to be there and must not be.
pub struct Secret {
    pub name: String,
    pub bytes: Vec<u8>,
    /// At these steps it is in use: where it is not found, the search does not work.
    pub used: Vec<Step>,
    /// At these steps nothing of it may be anywhere.
    pub gone: Vec<Step>,
}

fn expand(prk: &[u8], info: &[&[u8]], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Hkdf::<Sha256>::from_prk(prk).unwrap().expand_multi_info(info, &mut out).unwrap();
    out
}

/// The first message of a stream.
fn init(sender: Role, stream: &[u8]) -> &[u8] {
    &stream[..message_len(sender, stream).unwrap().unwrap()]
}

pub fn secrets(kind: Kind, notes: &Notes) -> Vec<Secret> {
    use Step::{Closed, ClosedAgain, Erased, Open, Rekeyed, Resumed};
    let mut all = Vec::new();
    let mut add = |name: String, bytes: &[u8], used: &[Step], gone: &[Step]| {
        all.push(Secret { name, bytes: bytes.to_vec(), used: used.to_vec(), gone: gone.to_vec() });
    };

    // The key exchange.
    let [of_a, of_b] = &notes.drawn;
    let init1 = init(Role::A, &notes.streams[0]);
    let init2 = init(Role::B, &notes.streams[1]);
    let n_a = of_a[1].as_slice();
    assert!(init1.windows(n_a.len()).any(|part| part == n_a), "the second draw is N_A");
    let mut private_keys = [of_a[0].clone(), of_b[0].clone()];
    if kind.tep == Tep::P521 {
        private_keys.iter_mut().for_each(|key| key[0] &= 1);
    }
    let own = generate(kind.provider, kind.tep, &mut |_, out| out.copy_from_slice(&private_keys[0])).unwrap();
    assert!(init1.ends_with(&own.public_key()), "the first draw is the private key");
    let public_of_b = &init2[init2.len() - kind.tep.public_key_len()..];
    let es = own.agree(public_of_b).unwrap();
    let mut ikm = notes.transcripts[0].clone();
    ikm.extend_from_slice(init1);
    ikm.extend_from_slice(init2);
    ikm.extend_from_slice(&es);
    let (prk, _) = Hkdf::<Sha256>::extract(Some(n_a), &ikm);
    add("private key of A".to_owned(), &private_keys[0], &[], &Step::ALL);
    add("private key of B".to_owned(), &private_keys[1], &[], &Step::ALL);
    add("ES".to_owned(), &es, &[], &Step::ALL);
    add("ss[0]".to_owned(), &prk, &[], &Step::ALL);

    // The chain: the second connection uses ss[1].
    let ss1 = expand(&prk, &[&[0x01]], 32);
    add("ss[1]".to_owned(), &ss1, &[Open, Rekeyed, Closed], &[Resumed, ClosedAgain, Erased]);
    let mut ss = ss1.clone();
    for i in 2..=9 {
        ss = expand(&ss, &[&[0x01]], 32);
        // The window has eight, from the next one on.
        let used: &[Step] = if i <= 8 { &Step::ALL[..5] } else { &[Resumed, ClosedAgain] };
        add(format!("ss[{i}]"), &ss, used, &[Erased]);
    }

    // Master keys and traffic keys of both connections.
    let key_len = kind.aead.key_len();
    let mut keys = |connection: &str, mut mk: Vec<u8>, generations: &[(&[Step], &[Step])]| {
        let before: &[Step] = &Step::ALL[..0];
        for (j, (used, gone)) in generations.iter().enumerate() {
            // A generation's master key is needed before it only.
            let kept = if j == 0 { before } else { generations[j - 1].0 };
            let mk_gone: Vec<Step> = Step::ALL.into_iter().filter(|step| !kept.contains(step)).collect();
            let mk_gone: Vec<Step> = mk_gone.into_iter().filter(|s| gone.contains(s) || used.contains(s)).collect();
            add(format!("mk[{j}] of the {connection}"), &mk, kept, &mk_gone);
            for (name, constant) in [("k_ab", 0x04), ("k_ba", 0x05)] {
                let key = expand(&mk, &[&[constant]], key_len + 12);
                add(format!("{name}[{j}] of the {connection}"), &key[..key_len], used, gone);
                add(format!("randomizer of {name}[{j}] of the {connection}"), &key[key_len..], used, gone);
            }
            mk = expand(&mk, &[&[0x03]], 32);
        }
        // What would come next.
        let last = generations.last().unwrap();
        add(format!("mk[{}] of the {connection}", generations.len()), &mk, last.0, last.1);
    };
    let first = expand(&prk, &[&[0x03]], 32);
    keys("first", first, &[(&[Open], &Step::ALL[1..]), (&[Rekeyed], &Step::ALL[2..])]);
    let (a, b) = notes.transcripts[1].split_at(usize::from(notes.transcripts[1][1]));
    let sn = [&a[a.len() - 8..], &b[b.len() - 8..]].concat();
    keys("second", expand(&ss1, &[&[0x03], &sn], 32), &[(&[Resumed], &[ClosedAgain, Erased])]);
    all
}
