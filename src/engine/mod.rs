//! All connections of a host: the table, policy, timers, limits. Pure: packets, time and randomness come in as
//! arguments, packets go out through [`Env`].

mod control;
mod disruption;
mod exchange_queue;
mod exchanges;
mod lookup;
mod packets;
mod probe;
mod probes;
mod refusal;
mod renewal;
mod state;
mod table;
mod timeouts;
mod unknown;

pub use control::FlowError;
pub use disruption::{Disrupted, Disruption};
pub use probe::{Hop, ProbeReport, SynAnswer};
pub use state::Engine;

// Inputs and outputs, of one connection or of all.
pub use crate::flow::{
    Config, ConnectionKeys, Counters, Env, FlowInfo, FlowSession, FlowState, ProbeMode, RandomFor, RekeyLimits, Side,
};
pub use crate::store::{Finding, PathInfo, PathLimits, SessionInfo, SessionLimits};
