//! Single connections under a script: each test says packet by packet what the kernels and the network do, in
//! virtual time, and looks at what the engines make of it.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

#[path = "sim/packet.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod packet;
#[path = "sim/rng.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod rng;
mod script;
