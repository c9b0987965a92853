//! Engines from outside: packets, time and randomness go in, packets come out.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod clones;
mod entropy;
#[path = "../harness/mod.rs"]
mod harness;
mod limits;
mod memory;
mod peer;
mod script;
