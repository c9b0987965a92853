//! What enotun does to a host and with its devices, against a real kernel in network namespaces. Needs root, /dev/net/tun,
//! `ip` and `nft`; without them each test says that it is skipped.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod children;
mod lab;
#[path = "../harness/netns.rs"]
#[allow(dead_code, reason = "each test crate uses its part")]
mod netns;
mod passthrough;
mod plumbing;
#[path = "../harness/process.rs"]
mod process;
