//! Single connections under a script: each test says packet by packet what the kernels and the network do, in
//! virtual time, and looks at what the engines make of it.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod harness;
mod script;
