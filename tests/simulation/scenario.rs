//! What a run is given: hosts, links, connections and what happens when.

use std::time::Duration;

use enotun::engine::Config;

use super::app::Plan;
use super::host::{DeviceModel, Setup};
use super::net::Link;

/// One connection to be made.
#[derive(Debug, Clone)]
pub struct ConnPlan {
    pub v6: bool,
    /// By host: which of its addresses.
    pub aliases: [usize; 2],
    /// The host that opens it.
    pub client: usize,
    pub start: Duration,
    /// Uses the addresses and ports of that earlier connection, once it is over; `start` counts from then.
    pub after: Option<usize>,
    /// By host.
    pub plans: [Plan; 2],
    /// Nobody listens: it is refused.
    pub refused: bool,
    /// Both hosts open it at once.
    pub simultaneous: bool,
}

/// What becomes of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Encrypted, if the SYN with ENO was not given up.
    Encrypted,
    Plain,
    Either,
    /// Nothing is delivered and nothing is on the wire in plain.
    Refused,
}

/// A whole run, as a profile makes it from a seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub setups: [Setup; 2],
    pub mtus: [usize; 2],
    pub models: [DeviceModel; 2],
    /// By sending host.
    pub links: [Link; 2],
    pub conns: Vec<ConnPlan>,
    pub expect: Expect,
    /// Every connection ends as its applications meant it to. Otherwise it may be reset, or hang.
    pub survive: bool,
    /// Every connection ends somehow.
    pub ends: bool,
    /// Rekeys asked for: when, by which host, on which connection.
    pub rekeys: Vec<(Duration, usize, usize)>,
    /// Policy becomes opportunistic only now (hosts set up as `Idle`).
    pub enable_at: Option<Duration>,
    /// That host's engine crashes and is started again.
    pub crash: Option<(Duration, usize)>,
    /// That host's engine goes down in order.
    pub down: Option<(Duration, usize)>,
    /// That host's cache of sessions is flushed.
    pub flushes: Vec<(Duration, usize)>,
    /// Milliseconds until the timestamps of both kernels wrap.
    pub clock_before_wrap: u32,
    pub deadline: Duration,
    /// By host.
    pub configs: [Config; 2],
}
