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
use std::process::Stdio;

use tcpcrypt::{AeadId, Provider, Tep, rust_crypto};

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
        let secret = tcpcrypt::schedule::SessionSecret::from_bytes(&[7; 32]).next();
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
