//! What all tests of engines share: surroundings for them, packets, hosts, pairs of hosts, and machines that can be copied.
//!
//! Everything is a function of seeds. What a test draws for keys follows from [`env::seed`], which it prints, so that a
//! failure shows it; `ENOTUN_TEST_SEED` sets another one.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(dead_code, reason = "each test crate uses its part")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

pub mod env;
pub mod host;
pub mod machine;
pub mod packet;
pub mod pair;
pub mod peer;
pub mod process;
pub mod rng;
pub mod seals;
