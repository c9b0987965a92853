//! Single connections under a script: each test says packet by packet what the kernels and the network do, in
//! virtual time, and looks at what the engines make of it.

mod aware;
mod blind;
mod closing;
mod crossing;
mod ecn;
mod forged;
mod forgotten;
mod full;
mod icmp;
mod keys;
mod limits;
mod liveness;
mod opening;
mod option_space;
mod own_bytes;
mod paths;
mod probe;
mod replayed;
mod resumed;
mod reuse;
mod segments;
mod unknown;
mod unproven;
mod windows;

use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, FlowInfo, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::wire::Offload;

use crate::harness::host::{Host, Sent, everything};
use crate::harness::packet::{self, ACK, SYN, Seg};
use crate::harness::pair::{A_ISN, B_ISN, Pair, WINDOW, a_addr, b_addr, confirm, has_keys, syn_options};
