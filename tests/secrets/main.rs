//! Secrets leave no trace (TC-19, TC-21, TC-34): what was a key is nowhere in the process's memory once it is not needed any
//! more, neither in freed blocks nor on a stack. A life of two connections is lived twice with the same random bytes: once to
//! compute all of its secrets, once to look for them.
#![allow(unreachable_pub, dead_code, reason = "modules of a test crate have no outside, and are shared")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod disk;
#[path = "../harness/mod.rs"]
mod harness;
mod known;
mod life;
mod search;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use tcpcrypt::schedule::SessionSecret;
use tcpcrypt::{AeadId, Provider, Tep, rust_crypto, stack};

use harness::process::entrance;
use known::{Secret, secrets};
use life::{Kind, Step, live};
use search::{Found, Search};

/// The system's allocator, which looks at what it is given back.
struct Looking;

thread_local! {
    static SEARCH: RefCell<Option<Search>> = const { RefCell::new(None) };
    /// Whether it looks now. It does not while it deals with what it has found.
    static LOOKS: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Vec<Found>> = const { RefCell::new(Vec::new()) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

fn look(freed: &[u8]) {
    if LOOKS.try_with(|looks| looks.replace(false)).unwrap_or(false) {
        FREED.set(FREED.get() + 1);
        SEARCH.with_borrow(|search| {
            let search = search.as_ref().expect("set before");
            FOUND.with_borrow_mut(|found| search.in_bytes(0, freed, found));
        });
        LOOKS.set(true);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; what is given back is read before.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on. Every byte is set, for what is freed is read as a whole.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's, `layout.size()` bytes long, all of them set by `alloc`.
        look(unsafe { std::slice::from_raw_parts(at, layout.size()) });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// Every AEAD and every TEP with every backend, and both ways for a connection to end.
fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut add = |provider: &'static dyn Provider| {
        let [aes, aes_256, chacha] = AeadId::ALL;
        for (aead, tep, reset) in [
            (aes, Tep::Curve25519, false),
            (aes_256, Tep::P256, false),
            (chacha, Tep::P521, false),
            (aes, Tep::Curve448, true),
            (chacha, Tep::Curve25519, true),
        ] {
            kinds.push(Kind { provider, aead, tep, reset });
        }
    };
    add(&rust_crypto::PROVIDER);
    #[cfg(feature = "aws-lc")]
    add(&enotun::crypto::aws_lc::PROVIDER);
    kinds
}

fn secrets_of(kind: Kind) -> Vec<Secret> {
    let notes = live(kind, true, |_| ());
    secrets(kind, &notes)
}

#[test]
fn tc_34_no_block_is_freed_with_a_secret_in_it() {
    for kind in kinds() {
        let secrets = secrets_of(kind);
        SEARCH.set(Some(Search::new(&secrets)));
        FREED.set(0);
        LOOKS.set(true);
        drop(secrets[0].bytes.clone());
        LOOKS.set(false);
        assert!(!FOUND.take().is_empty(), "the allocator finds what is freed here on purpose");
        LOOKS.set(true);
        live(kind, false, |_| ());
        LOOKS.set(false);
        let found = FOUND.take();
        let names: Vec<_> = found.iter().map(|f| (&secrets[f.secret].name, f.piece, f.at)).collect();
        assert!(FREED.get() > 100, "{}", FREED.get());
        assert!(names.is_empty(), "{} {} {}: {names:?}", kind.provider.name(), kind.aead, kind.tep);
    }
}

const CHILD: &str = "ENOTUN_TEST_SECRETS_OF";

/// The process that is looked into: it lives a life, says how far it is, and goes on when it is told to. It computes no secrets but
/// those that the program does.
#[test]
#[ignore = "run by the test below"]
fn a_life_in_a_process_of_its_own() {
    let Ok(n) = std::env::var(CHILD) else { return };
    let kind = kinds()[n.parse::<usize>().unwrap()];
    live(kind, false, |_| {
        println!("\nstep");
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_line(&mut String::new()).unwrap();
    });
}

#[test]
fn tc_34_no_secret_stays_in_the_process_when_it_is_not_needed_any_more() {
    let mut wrong = Vec::new();
    for (n, kind) in kinds().into_iter().enumerate() {
        let secrets = secrets_of(kind);
        let search = Search::new(&secrets);
        let mut child = entrance(module_path!(), "a_life_in_a_process_of_its_own")
            .env(CHILD, n.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        for step in Step::ALL {
            assert!(said.by_ref().any(|line| line.unwrap() == "step"), "the child comes to {step:?}");
            let found = search.in_process(child.id());
            for (i, secret) in secrets.iter().enumerate() {
                let here: Vec<_> = found.iter().filter(|(f, _)| f.secret == i).collect();
                let which = || format!("{} {} {}", kind.provider.name(), kind.aead, kind.tep);
                if secret.used.contains(&step) && here.is_empty() {
                    wrong.push(format!("{}: {} is not found at {step:?}", which(), secret.name));
                }
                if secret.gone.contains(&step) && !here.is_empty() {
                    let places: Vec<_> =
                        here.iter().map(|(f, name)| format!("{}@{:x} {name}", f.piece, f.at)).collect();
                    wrong.push(format!("{}: {} is left at {step:?}: {}", which(), secret.name, places.join(", ")));
                }
            }
            writeln!(child.stdin.as_mut().unwrap(), "go on").unwrap();
        }
        // The rest of what it says, so that it can end.
        said.for_each(drop);
        assert!(child.wait().unwrap().success());
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

const SCHEDULE: &str = "ENOTUN_TEST_SCHEDULE";

fn step() {
    println!("\nstep");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The process that is looked into: it derives a secret, and no engine wipes behind it.
#[test]
#[ignore = "run by the test below"]
fn a_key_schedule_in_a_process_of_its_own() {
    if std::env::var(SCHEDULE).is_ok() {
        let secret = SessionSecret::from_bytes(&[7; 32]).next();
        drop(secret.next());
        step();
        drop(secret);
        step();
    }
}

#[test]
fn tc_34_a_derived_secret_is_in_its_box_and_nowhere_else() {
    let bytes = hex::decode("d6f072c5e3184633f6759be9991dc26f1f899a6af57151450474976766a3666a").unwrap();
    let search = Search::new(&[Secret { name: String::new(), bytes, used: Vec::new(), gone: Vec::new() }]);
    let mut child = entrance(module_path!(), "a_key_schedule_in_a_process_of_its_own")
        .env(SCHEDULE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    for pieces in [4, 0] {
        assert!(said.by_ref().any(|line| line.unwrap() == "step"));
        let found = search.in_process(child.id());
        assert_eq!(found.len(), pieces, "{found:x?}");
        writeln!(child.stdin.as_mut().unwrap(), "go on").unwrap();
    }
    said.for_each(drop);
    assert!(child.wait().unwrap().success());
}

/// More than anything here gets to.
const PAINTED: usize = 256 * 1024;
const PAINT: u8 = 0xa5;

#[inline(never)]
fn paint() {
    std::hint::black_box(&mut [PAINT; PAINTED]);
}

/// How much of the stack `f` leaves something on that is neither paint nor wiped.
#[inline(never)]
fn depth<R>(f: impl FnOnce() -> R) -> usize {
    #[inline(never)]
    fn call<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    // What is looked at is read as another process would.
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut stack = vec![0; PAINTED - 16 * 1024];
    let top = 0_u64;
    paint();
    std::hint::black_box(call(f));
    let bottom = std::hint::black_box(&raw const top).addr() - stack.len();
    memory.read_exact_at(&mut stack, bottom as u64).unwrap();
    stack.len() - stack.iter().position(|byte| ![0, PAINT].contains(byte)).unwrap()
}

/// The optimiser, the processor and the crates decide how deep these get, so it is measured, in whatever build this is.
#[test]
fn tc_34_what_works_with_secrets_gets_less_deep_than_what_is_wiped() {
    // What is painted and read is the whole of it.
    assert!((20_000..30_000).contains(&depth(|| std::hint::black_box(&mut [1_u8; 20_000]).len())));

    let mut deepest = (0, String::new());
    let mut note = |depth: usize, what: String| deepest = deepest.clone().max((depth, what));
    for Kind { provider, aead, tep, .. } in kinds() {
        let name = provider.name();
        let bytes: Vec<u8> = (0..tep.private_key_len()).map(|i| if i == 0 { 0 } else { i as u8 }).collect();
        let private_key = || provider.private_key(tep, &bytes).unwrap().unwrap();
        note(depth(private_key), format!("{name} {tep} private key"));
        let own = private_key();
        let public = own.public_key();
        note(depth(|| own.public_key()), format!("{name} {tep} public key"));
        note(depth(|| own.agree(&public).is_ok()), format!("{name} {tep} agreement"));
        let secret = vec![7; aead.key_len()];
        // That of RustCrypto wipes the stack itself.
        if name != rust_crypto::PROVIDER.name() {
            note(depth(|| provider.aead(aead, &secret).is_ok()), format!("{name} {aead} key"));
        }
        let key = provider.aead(aead, &secret).unwrap();
        for len in [1, 100, 60_000] {
            let mut data = vec![3; len];
            let mut tag = [0; 16];
            note(depth(|| tag = key.seal(&[1; 12], b"aad", &mut data)), format!("{name} {aead} seals {len}"));
            note(depth(|| key.open(&[1; 12], b"aad", &mut data, &tag).is_ok()), format!("{name} {aead} opens {len}"));
        }
    }
    // What calls them has its frames as well.
    assert!(deepest.0 + stack::DEEP_BYTES / 4 < stack::DEEP_BYTES, "{deepest:?} of {}", stack::DEEP_BYTES);
    println!("deepest: {deepest:?} of {}", stack::DEEP_BYTES);

    let expand = || Hkdf::<Sha256>::from_prk(&[1; 32]).unwrap().expand_multi_info(&[b"label"], &mut [0; 66]).unwrap();
    let extract = || {
        let mut extract = HkdfExtract::<Sha256>::new(Some(&[1; 32]));
        extract.input_ikm(&[2; 300]);
        extract.finalize().0
    };
    let hashes = depth(expand).max(depth(extract));
    println!("HKDF: {hashes} of {}", stack::SHALLOW_BYTES);
    assert!(hashes + stack::SHALLOW_BYTES / 4 < stack::SHALLOW_BYTES, "{hashes} of {}", stack::SHALLOW_BYTES);
}
