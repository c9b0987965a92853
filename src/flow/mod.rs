//! One connection: from its SYN over plain TCP or encryption to its end.

mod clocks;
mod config;
mod connection;
mod context;
mod env;
mod frames;
mod gate;
mod info;
mod lifecycle;
mod link;
mod lost;
mod opening;
mod pass;
mod plain;
mod pool;
mod reassembly;
mod rules;
mod states;

pub use config::{Config, RekeyLimits};
pub(crate) use connection::{Actions, Exchange, Keys, Waits};
pub(crate) use context::Context;
pub use env::{ConnectionKeys, Env, RandomFor, Side};
pub use info::{Counters, FlowInfo, FlowSession, FlowState};
pub(crate) use lifecycle::{Flow, Presence, Transition, settle};
pub(crate) use link::Link;
pub(crate) use lost::LostOption;
pub(crate) use opening::Opening;
pub(crate) use pass::pass_on;
pub(crate) use plain::PlainFlow;
pub(crate) use pool::Pool;
pub use rules::ProbeMode;
pub(crate) use rules::{Rules, hop_of};
pub(crate) use states::Cause;
